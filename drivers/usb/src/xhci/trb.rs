//! Transfer request blocks, the words of all rings (xHCI 1.2, 6.4).

/// A transfer request block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trb {
    pub(crate) parameter: u64,
    pub(crate) status: u32,
    pub(crate) control: u32,
}

/// Bytes of one.
pub(crate) const TRB: usize = 16;

pub(crate) const CYCLE: u32 = 1 << 0;
/// In a link: the cycle bit turns behind it.
pub(crate) const TOGGLE: u32 = 1 << 1;
/// Interrupt on a short packet.
const SHORT: u32 = 1 << 2;
/// The transfer goes on in the next block.
pub(crate) const CHAIN: u32 = 1 << 4;
/// Interrupt on completion.
const INTERRUPT: u32 = 1 << 5;
/// The parameter is the data itself.
const IMMEDIATE: u32 = 1 << 6;
/// From the device, in a data or status stage.
const IN: u32 = 1 << 16;
/// Address Device: set the slot up, send nothing to the device.
const BLOCK_SET_ADDRESS: u32 = 1 << 9;

/// Types of blocks (6.4.6).
pub(crate) mod kind {
    pub(crate) const NORMAL: u32 = 1;
    pub(crate) const SETUP: u32 = 2;
    pub(crate) const DATA: u32 = 3;
    pub(crate) const STATUS: u32 = 4;
    pub(crate) const LINK: u32 = 6;
    pub(crate) const ENABLE_SLOT: u32 = 9;
    pub(crate) const DISABLE_SLOT: u32 = 10;
    pub(crate) const ADDRESS_DEVICE: u32 = 11;
    pub(crate) const CONFIGURE_ENDPOINT: u32 = 12;
    pub(crate) const EVALUATE_CONTEXT: u32 = 13;
    pub(crate) const RESET_ENDPOINT: u32 = 14;
    pub(crate) const STOP_ENDPOINT: u32 = 15;
    pub(crate) const SET_DEQUEUE: u32 = 16;
    pub(crate) const TRANSFER_EVENT: u32 = 32;
    pub(crate) const COMMAND_EVENT: u32 = 33;
    pub(crate) const PORT_EVENT: u32 = 34;
    pub(crate) const HOST_EVENT: u32 = 37;
}

/// Completion codes (6.4.5).
pub(crate) mod code {
    pub(crate) const SUCCESS: u8 = 1;
    pub(crate) const STALL: u8 = 6;
    pub(crate) const SHORT_PACKET: u8 = 13;
    pub(crate) const CONTEXT_STATE: u8 = 19;
    pub(crate) const RING_STOPPED: u8 = 24;
    pub(crate) const STOPPED: u8 = 26;
    pub(crate) const STOPPED_SHORT: u8 = 28;
}

impl Trb {
    /// A block of this type, with these further bits of the last word.
    pub(crate) fn new(kind: u32, parameter: u64, status: u32, flags: u32) -> Trb {
        Trb {
            parameter,
            status,
            control: kind << 10 | flags,
        }
    }

    /// Its type.
    pub(crate) fn kind(&self) -> u32 {
        self.control >> 10 & 0x3f
    }

    /// Of an event: how it ended.
    pub(crate) fn code(&self) -> u8 {
        (self.status >> 24) as u8
    }

    /// Of an event: the slot it is about.
    pub(crate) fn slot(&self) -> u8 {
        (self.control >> 24) as u8
    }

    /// Of a transfer event: the endpoint, by its place in the device context.
    pub(crate) fn endpoint(&self) -> u8 {
        (self.control >> 16 & 0x1f) as u8
    }

    /// Of a transfer event: bytes that were not moved.
    pub(crate) fn residue(&self) -> usize {
        (self.status & 0xff_ffff) as usize
    }

    /// Bytes of the data it is about: none in a setup or status stage.
    pub(crate) fn data_len(&self) -> usize {
        match self.kind() {
            kind::NORMAL | kind::DATA => (self.status & 0x1_ffff) as usize,
            _ => 0,
        }
    }

    /// A command about a slot.
    pub(crate) fn command(kind: u32, parameter: u64, slot: u8, endpoint: u8) -> Trb {
        let flags = u32::from(slot) << 24 | u32::from(endpoint) << 16;
        Trb::new(kind, parameter, 0, flags)
    }

    /// The command that takes a slot for a port of this slot type.
    pub(crate) fn enable_slot(slot_type: u8) -> Trb {
        Trb::new(kind::ENABLE_SLOT, 0, 0, u32::from(slot_type) << 16)
    }

    /// The command that gives a device its address, or only sets the slot up.
    pub(crate) fn address(input: u64, slot: u8, only_set_up: bool) -> Trb {
        let mut trb = Trb::command(kind::ADDRESS_DEVICE, input, slot, 0);
        if only_set_up {
            trb.control |= BLOCK_SET_ADDRESS;
        }
        trb
    }

    /// A piece of a bulk or interrupt transfer. `left` packets follow after it; the
    /// last piece interrupts.
    pub(crate) fn normal(phys: u64, len: u32, left: u32, is_last: bool) -> Trb {
        let end = if is_last { INTERRUPT } else { CHAIN };
        let left = if is_last { 0 } else { left.min(31) };
        Trb::new(kind::NORMAL, phys, len | left << 17, SHORT | end)
    }

    /// The setup stage of a control request.
    pub(crate) fn setup(packet: [u8; 8], data: Option<bool>) -> Trb {
        // No data, data to the device, data from it.
        let stage = match data {
            None => 0,
            Some(false) => 2,
            Some(true) => 3,
        };
        let flags = IMMEDIATE | stage << 16;
        Trb::new(kind::SETUP, u64::from_le_bytes(packet), 8, flags)
    }

    /// The data stage of a control request.
    pub(crate) fn data(phys: u64, len: u32, is_in: bool) -> Trb {
        let way = if is_in { IN } else { 0 };
        Trb::new(kind::DATA, phys, len, SHORT | way)
    }

    /// The status stage of a control request whose data came from the device, or
    /// not.
    pub(crate) fn status(data_is_in: bool) -> Trb {
        let way = if data_is_in { 0 } else { IN };
        Trb::new(kind::STATUS, 0, 0, INTERRUPT | way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let trb = Trb::normal(0x1000, 4096, 40, false);
        assert_eq!(trb.status, 4096 | 31 << 17);
        assert_eq!(trb.control, 1 << 10 | SHORT | CHAIN);
        assert_eq!(Trb::normal(0, 5, 40, true).status, 5);
        let setup = Trb::setup([0x80, 6, 0, 1, 0, 0, 18, 0], Some(true));
        assert_eq!(setup.parameter, 0x0012_0000_0100_0680);
        assert_eq!(setup.control, 2 << 10 | 1 << 6 | 3 << 16);
        let event = Trb {
            parameter: 0,
            status: 13 << 24 | 100,
            control: 32 << 10 | 3 << 16 | 7 << 24,
        };
        assert_eq!((event.kind(), event.code()), (32, 13));
        assert_eq!(
            (event.slot(), event.endpoint(), event.residue()),
            (7, 3, 100)
        );
        assert_eq!(Trb::status(true).control & IN, 0);
    }
}
