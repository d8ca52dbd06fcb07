//! The controller's registers (xHCI 1.2, 5 and 7).

use crate::{UsbError, sleep};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;
use machine::bus::Bus;
use machine::time::Instant;

/// In the command register.
pub(crate) const RUN: u32 = 1 << 0;
pub(crate) const RESET: u32 = 1 << 1;
pub(crate) const INTERRUPTS: u32 = 1 << 2;
pub(crate) const HOST_ERROR_ENABLE: u32 = 1 << 3;

/// In the status register.
pub(crate) const HALTED: u32 = 1 << 0;
pub(crate) const HOST_ERROR: u32 = 1 << 2;
pub(crate) const EVENT: u32 = 1 << 3;
pub(crate) const NOT_READY: u32 = 1 << 11;
pub(crate) const CONTROLLER_ERROR: u32 = 1 << 12;

/// Operational registers, from the start of that part.
const COMMAND: usize = 0x00;
const STATUS: usize = 0x04;
const PAGE_SIZE: usize = 0x08;
const COMMAND_RING: usize = 0x18;
const CONTEXTS: usize = 0x30;
const CONFIGURE: usize = 0x38;
const PORTS: usize = 0x400;
const PORT_LEN: usize = 0x10;

/// Registers of the first interrupter, from the start of the runtime part.
const MANAGEMENT: usize = 0x20;
const MODERATION: usize = 0x24;
const TABLE_LEN: usize = 0x28;
const TABLE: usize = 0x30;
const DEQUEUE: usize = 0x38;

/// In the dequeue pointer: the handler is busy; a one clears it.
const BUSY: u64 = 1 << 3;
/// In the command ring pointer: abort the command under way; one is under way.
const ABORT: u64 = 1 << 2;
const RUNNING: u32 = 1 << 3;

/// Quarter microseconds between two interrupts: 40 µs, which a disk does not feel.
const MODERATE: u32 = 160;

/// Extended capabilities: the list may be closed to a ring by a broken controller.
const EXTENDED_MAX: usize = 64;
const LEGACY: u8 = 1;
const PROTOCOL: u8 = 2;
/// In the legacy capability: owned by the firmware, by the system.
const FIRMWARE_OWNS: u32 = 1 << 16;
const SYSTEM_OWNS: u32 = 1 << 24;
/// In the control register behind it: bits that raise management interrupts are
/// cleared, those that say why one came are cleared by ones.
const SMI_KEPT: u32 = 0x7 << 1 | 0xff << 5 | 0x7 << 17;
const SMI_EVENTS: u32 = 0x7 << 29;
/// How long the firmware may take to let go.
const HANDOFF: Duration = Duration::from_secs(1);

/// Ports that speak one generation of USB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    /// 2 or 3.
    pub(crate) major: u8,
    /// The first port's number, and how many there are.
    pub(crate) first: u8,
    pub(crate) count: u8,
    /// What slots of devices at these ports are called.
    pub(crate) slot_type: u8,
}

/// What a controller says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Capabilities {
    pub(crate) slots: u8,
    pub(crate) ports: u8,
    /// Pages that it wants for itself.
    pub(crate) scratchpads: usize,
    /// Bytes of a context: 32 or 64.
    pub(crate) context: usize,
    /// It reaches memory beyond 4 GiB.
    pub(crate) is_wide: bool,
    pub(crate) protocols: Vec<Protocol>,
}

/// The registers of one controller.
pub(crate) struct Registers {
    pub(crate) bus: Box<dyn Bus>,
    operational: usize,
    runtime: usize,
    doorbells: usize,
    extended: usize,
}

impl Registers {
    /// Finds the parts of the registers.
    ///
    /// # Errors
    /// [`UsbError::Nonsense`]: nothing answers.
    pub(crate) fn new(bus: Box<dyn Bus>) -> Result<Registers, UsbError> {
        let first = bus.read_u32(0);
        if first == u32::MAX || first & 0xff < 0x20 {
            return Err(UsbError::Nonsense("no xHCI registers"));
        }
        let extended = (bus.read_u32(0x10) >> 16) as usize * 4;
        let doorbells = bus.read_u32(0x14) as usize & !0x3;
        let runtime = bus.read_u32(0x18) as usize & !0x1f;
        Ok(Registers {
            operational: (first & 0xff) as usize,
            runtime,
            doorbells,
            extended,
            bus,
        })
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        let [structure, structure2] = [4, 8].map(|at| self.bus.read_u32(at));
        let parameters = self.bus.read_u32(0x10);
        let scratchpads = (structure2 >> 21 & 0x1f) << 5 | structure2 >> 27;
        Capabilities {
            slots: structure as u8,
            ports: (structure >> 24) as u8,
            scratchpads: scratchpads as usize,
            context: if parameters & 1 << 2 != 0 { 64 } else { 32 },
            is_wide: parameters & 1 != 0,
            protocols: self.protocols(),
        }
    }

    /// Offset and first word of each extended capability.
    fn extended(&self) -> Vec<(usize, u32)> {
        let mut found = Vec::new();
        let mut at = self.extended;
        while at != 0 && found.len() < EXTENDED_MAX {
            let word = self.bus.read_u32(at);
            if word == u32::MAX {
                break;
            }
            found.push((at, word));
            let next = (word >> 8 & 0xff) as usize * 4;
            if next == 0 {
                break;
            }
            at += next;
        }
        found
    }

    fn protocols(&self) -> Vec<Protocol> {
        let all = self.extended();
        let ours = all.iter().filter(|(_, word)| *word as u8 == PROTOCOL);
        ours.map(|(at, word)| {
            let ports = self.bus.read_u32(at + 8);
            Protocol {
                major: (word >> 24) as u8,
                first: ports as u8,
                count: (ports >> 8) as u8,
                slot_type: (self.bus.read_u32(at + 12) & 0x1f) as u8,
            }
        })
        .collect()
    }

    /// Takes the controller from the firmware (4.22.1). One that does not let go is
    /// taken all the same.
    pub(crate) fn take_from_firmware(&self) {
        let all = self.extended();
        let Some((at, _)) = all.iter().find(|(_, word)| *word as u8 == LEGACY) else {
            return;
        };
        let owner = self.bus.read_u32(*at);
        self.bus.write_u32(*at, owner | SYSTEM_OWNS);
        let free = || self.bus.read_u32(*at) & FIRMWARE_OWNS == 0;
        if !poll(HANDOFF, free) {
            log::warn!("usb: the firmware does not let go of the controller");
            self.bus
                .write_u32(*at, owner & !FIRMWARE_OWNS | SYSTEM_OWNS);
        }
        let control = self.bus.read_u32(at + 4);
        self.bus.write_u32(at + 4, control & SMI_KEPT | SMI_EVENTS);
    }

    pub(crate) fn command(&self) -> u32 {
        self.bus.read_u32(self.operational + COMMAND)
    }

    pub(crate) fn set_command(&self, value: u32) {
        self.bus.write_u32(self.operational + COMMAND, value);
    }

    pub(crate) fn status(&self) -> u32 {
        self.bus.read_u32(self.operational + STATUS)
    }

    /// Whether it says that it cannot go on, or does not answer at all.
    pub(crate) fn is_broken(&self) -> bool {
        let status = self.status();
        status == u32::MAX || status & (HOST_ERROR | CONTROLLER_ERROR) != 0
    }

    /// Bytes of a page as the controller has them.
    ///
    /// # Errors
    /// [`UsbError::Nonsense`].
    pub(crate) fn page_len(&self) -> Result<usize, UsbError> {
        match self.bus.read_u32(self.operational + PAGE_SIZE) & 0xffff {
            size @ 1..=0xff if size.is_power_of_two() => Ok((size as usize) << 12),
            _ => Err(UsbError::Nonsense("its page size")),
        }
    }

    /// Acknowledges an interrupt; events that come from now on interrupt again.
    pub(crate) fn acknowledge(&self) {
        self.bus.write_u32(self.operational + STATUS, EVENT);
        // Enabled, and the pending bit is cleared by a one.
        self.bus.write_u32(self.runtime + MANAGEMENT, 0b11);
    }

    /// Sets up slots, contexts, the command ring and the event ring.
    pub(crate) fn set_up(&self, slots: u8, contexts: u64, commands: u64, table: u64, dequeue: u64) {
        let op = self.operational;
        self.bus.write_u32(op + CONFIGURE, u32::from(slots));
        self.write_wide(op + CONTEXTS, contexts);
        self.write_wide(op + COMMAND_RING, commands);
        self.bus.write_u32(self.runtime + TABLE_LEN, 1);
        self.write_wide(self.runtime + DEQUEUE, dequeue | BUSY);
        // This one last: with it the controller reads the table (4.9.4).
        self.write_wide(self.runtime + TABLE, table);
        self.bus.write_u32(self.runtime + MODERATION, MODERATE);
        self.bus.write_u32(self.runtime + MANAGEMENT, 0b11);
    }

    /// The events before `dequeue` have been taken.
    pub(crate) fn set_dequeue(&self, dequeue: u64) {
        self.write_wide(self.runtime + DEQUEUE, dequeue | BUSY);
    }

    /// Has the controller give up the command under way (4.6.1.2); whether it says
    /// that there is one.
    pub(crate) fn abort_command(&self) -> bool {
        let at = self.operational + COMMAND_RING;
        let is_running = self.bus.read_u32(at) & RUNNING != 0;
        if is_running {
            self.write_wide(at, ABORT);
        }
        is_running
    }

    /// Tells the controller that there is work: commands at 0, or of `slot` for
    /// `endpoint`.
    pub(crate) fn ring_doorbell(&self, slot: u8, endpoint: u8) {
        let at = self.doorbells + usize::from(slot) * 4;
        self.bus.write_u32(at, u32::from(endpoint));
    }

    /// A root port's status and control register; ports count from 1.
    pub(crate) fn port(&self, port: u8) -> u32 {
        self.bus.read_u32(self.port_offset(port))
    }

    pub(crate) fn set_port(&self, port: u8, value: u32) {
        self.bus.write_u32(self.port_offset(port), value);
    }

    fn port_offset(&self, port: u8) -> usize {
        self.operational + PORTS + usize::from(port.saturating_sub(1)) * PORT_LEN
    }

    /// Low half first, as 5.1 has it.
    fn write_wide(&self, offset: usize, value: u64) {
        self.bus.write_u32(offset, value as u32);
        self.bus.write_u32(offset + 4, (value >> 32) as u32);
    }
}

/// Looks again and again, letting others run, until `done` or for `limit`; whether
/// it came to be.
pub(crate) fn poll(limit: Duration, done: impl Fn() -> bool) -> bool {
    const PAUSE: Duration = Duration::from_millis(1);
    let deadline = Instant::now().after(limit);
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(PAUSE);
    }
}
