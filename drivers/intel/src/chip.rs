//! The registers of a chip: reset, set-up, link, interrupts.

use crate::family::{Model, MsiX, Shape};
use crate::nvm;
use crate::phy;
use crate::regs::{
    CAUSE_FEW_BUFFERS, CAUSE_LINK, CAUSE_OTHER, CAUSE_OVERRUN, CAUSE_RECEIVE_QUEUE, CAUSE_RECEIVED,
    CAUSE_SENT, CAUSE_TRANSMIT_QUEUE, CRCERRS, CTRL, CTRL_EXT, CTRL_EXT_PBA_CLEAR, CTRL_FD,
    CTRL_FORCE_DUPLEX, CTRL_FORCE_SPEED, CTRL_MASTER_DISABLE, CTRL_PHY_RST, CTRL_RST, CTRL_SLU,
    CTRL_VME, EIAC, EIAC_82574, EIAM, EICR, EIMC, EIMS, EITR, EITR_82574, FEXTNVM11,
    FEXTNVM11_NO_MULR, GPIE, GPIE_AUTO_MASK, GPIE_MULTIPLE_MSIX, GPIE_NON_SELECTIVE_CLEAR,
    GPIE_PBA, ITR, IVAR_82574, IVAR_MISC, IVAR_VALID, IVAR0, MISSED, RAH_VALID, RAH0, RAL0, RCTL,
    RCTL_ALL_MULTICAST, RCTL_BROADCAST, RCTL_ENABLE, RCTL_KIB_SHIFT, RCTL_LONG, RCTL_SIZE_1024,
    RCTL_SIZE_TIMES_16, RCTL_STRIP_CRC, RFCTL, RFCTL_EXTENDED, RFCTL_NO_ACK_INTERRUPT,
    RFCTL_NO_IPV6_EXTENSIONS, RING_BASE_HIGH, RING_BASE_LOW, RING_CONTROL, RING_CONTROL_COUNT,
    RING_CONTROL_ENABLE, RING_HEAD, RING_LEN, RING_SRRCTL, RING_TAIL, RLPML, RXCSUM, RXCSUM_IP,
    RXCSUM_TCP_UDP, RXERRC, SRRCTL_ADVANCED, SRRCTL_DROP, STATUS, STATUS_FULL_DUPLEX,
    STATUS_LINK_UP, STATUS_MASTER, STATUS_SPEED_SHIFT, TCTL, TCTL_COLLISIONS, TCTL_ENABLE,
    TCTL_PAD, TIPG, TIPG_COPPER,
};
use crate::ring::ReceiveRing;
use crate::transmit::TransmitRing;
use core::fmt;
use core::time::Duration;
use machine::bus::Bus;
use machine::thread;
use machine::time::Instant;

/// What went wrong with a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NicError {
    /// Nothing answers at its address any more.
    Gone,
    /// It does not come out of a reset, or a ring does not start; it was cut off from
    /// memory.
    NoReset,
    /// Memory ran out.
    NoMemory,
    /// Its PCI side.
    Pci(machine::pci::PciError),
}

impl From<machine::AllocError> for NicError {
    fn from(_: machine::AllocError) -> Self {
        NicError::NoMemory
    }
}

impl From<machine::pci::PciError> for NicError {
    fn from(e: machine::pci::PciError) -> Self {
        NicError::Pci(e)
    }
}

impl fmt::Display for NicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NicError::Gone => f.write_str("it does not answer any more"),
            NicError::NoReset => f.write_str("it does not reset"),
            NicError::NoMemory => f.write_str("no memory"),
            NicError::Pci(e) => e.fmt(f),
        }
    }
}

/// What a chip can interrupt for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Frames came in.
    Receive,
    /// The link changed.
    Link,
    /// Frames have left.
    Transmit,
}

/// How its interrupts are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// One interrupt for all: the cause is read.
    Shared,
    /// Interrupt 0 for what comes in, 1 for the rest.
    Own(MsiX),
}

/// State of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) is_up: bool,
    pub(crate) speed_mbit: u32,
    pub(crate) is_full_duplex: bool,
}

/// Least time between two interrupts: 20,000 a second.
const INTERVAL_US: u32 = 50;
/// Rest around a reset (8254x, 14.3: a microsecond; the EEPROM is read for longer).
const RESET_PAUSE: Duration = Duration::from_millis(20);
/// How long bus transactions under way, and rings that start, may take.
const SETTLE: Duration = Duration::from_millis(100);

pub(crate) struct Chip<B> {
    pub(crate) bus: B,
    pub(crate) model: Model,
    mode: Mode,
}

impl<B: Bus> Chip<B> {
    pub(crate) fn new(bus: B, model: Model) -> Chip<B> {
        let mode = match model.family.msix {
            MsiX::None => Mode::Shared,
            _ if bus.interrupts() < 2 => Mode::Shared,
            kind => Mode::Own(kind),
        };
        Chip { bus, model, mode }
    }

    pub(crate) fn read(&self, register: usize) -> u32 {
        self.bus.read_u32(register)
    }

    pub(crate) fn write(&self, register: usize, value: u32) {
        self.bus.write_u32(register, value);
    }

    fn set_bits(&self, register: usize, bits: u32) {
        self.write(register, self.read(register) | bits);
    }

    /// Whether there are two interrupts, so that each tells what it is about.
    pub(crate) fn has_own_interrupts(&self) -> bool {
        self.mode != Mode::Shared
    }

    /// Whether it still answers.
    pub(crate) fn is_present(&self) -> bool {
        self.read(STATUS) != u32::MAX || self.bus.is_present()
    }

    /// Waits until `done`; whether it was in time.
    fn settles(&self, done: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now().after(SETTLE);
        loop {
            if done(self) {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            pause(Duration::from_millis(1));
        }
    }

    /// Stops it; it forgets its rings and reaches no memory any more.
    ///
    /// # Errors
    /// [`NicError::Gone`], [`NicError::NoReset`].
    pub(crate) fn reset(&self) -> Result<(), NicError> {
        if !self.is_present() {
            self.bus.set_master(false);
            return Err(NicError::Gone);
        }
        self.mask_all();
        self.write(RCTL, 0);
        self.write(TCTL, TCTL_PAD);
        let ctrl = self.read(CTRL);
        if self.model.family.is_express {
            self.write(CTRL, ctrl | CTRL_MASTER_DISABLE);
            // If they do not end, the reset ends them.
            let _ = self.settles(|c| c.read(STATUS) & STATUS_MASTER == 0);
        }
        if self.model.quirks.hangs_in_reset {
            self.set_bits(FEXTNVM11, FEXTNVM11_NO_MULR);
        }
        self.write(CTRL, ctrl | CTRL_RST);
        pause(RESET_PAUSE);
        let back = self.settles(|c| c.read(CTRL) & CTRL_RST == 0);
        self.bus.set_master(false);
        self.mask_all();
        if !back {
            return Err(NicError::NoReset);
        }
        Ok(())
    }

    /// The hardware address it was given at the factory.
    pub(crate) fn mac(&self) -> Option<[u8; 6]> {
        nvm::mac(self)
    }

    /// Makes it receive what is sent to `mac`.
    pub(crate) fn set_mac(&self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        self.write(RAL0, u32::from_le_bytes([a, b, c, d]));
        self.write(RAH0, u32::from_le_bytes([e, f, 0, 0]) | RAH_VALID);
    }

    /// Sets it up after a reset and lets it work.
    ///
    /// # Errors
    /// [`NicError::NoReset`].
    pub(crate) fn set_up(
        &self,
        mac: [u8; 6],
        receive: &ReceiveRing,
        transmit: &TransmitRing,
        buffer: BufferSize,
    ) -> Result<(), NicError> {
        let family = self.model.family;
        let clear = CTRL_MASTER_DISABLE | CTRL_FORCE_SPEED | CTRL_FORCE_DUPLEX | CTRL_VME;
        let ctrl = self.read(CTRL) & !(clear | CTRL_RST | CTRL_PHY_RST | family.ctrl_clear);
        self.write(CTRL, ctrl | CTRL_SLU | CTRL_FD);
        if family.ctrl_ext_set != 0 {
            self.set_bits(CTRL_EXT, family.ctrl_ext_set);
        }
        self.set_mac(mac);
        self.bus.set_master(true);
        let started = self.start_rings(receive, transmit, buffer);
        self.set_up_interrupts();
        if !started {
            self.bus.set_master(false);
            return Err(NicError::NoReset);
        }
        self.write(TCTL, TCTL_ENABLE | TCTL_PAD | TCTL_COLLISIONS);
        self.write(family.receive + RING_TAIL, receive.tail());
        // Written once: QEMU's 8254x receives nothing for a second after that.
        self.write(RCTL, self.receive_control(buffer));
        // The write is through when a read after it is.
        let _ = self.read(STATUS);
        phy::wake(self);
        Ok(())
    }

    fn receive_control(&self, buffer: BufferSize) -> u32 {
        let control = RCTL_ENABLE | RCTL_ALL_MULTICAST | RCTL_BROADCAST | RCTL_STRIP_CRC;
        let size = match (buffer, self.model.family.shape) {
            (BufferSize::Usual, _) => return control,
            (BufferSize::Jumbo, _) if self.model.family.has_ring_control => 0,
            (BufferSize::Jumbo, Shape::Legacy) => RCTL_SIZE_1024 | RCTL_SIZE_TIMES_16,
            (BufferSize::Jumbo, Shape::Extended) => (JUMBO_KIB as u32) << RCTL_KIB_SHIFT,
        };
        control | RCTL_LONG | size
    }

    /// Tells it where its rings are; whether they started.
    fn start_rings(
        &self,
        receive: &ReceiveRing,
        transmit: &TransmitRing,
        buffer: BufferSize,
    ) -> bool {
        let family = self.model.family;
        self.place_ring(family.receive, receive.phys(), receive.len());
        self.place_ring(family.transmit, transmit.phys(), transmit.len());
        self.write(RXCSUM, RXCSUM_IP | RXCSUM_TCP_UDP);
        let mut transmit_control = self.read(family.transmit + RING_CONTROL);
        if family.is_express {
            transmit_control |= RING_CONTROL_COUNT;
        }
        if !family.has_ring_control {
            self.write(family.transmit + RING_CONTROL, transmit_control);
            self.write(TIPG, TIPG_COPPER);
            if family.shape == Shape::Extended {
                // On an 82574 an acknowledgement would interrupt for "all else" too.
                let filters = RFCTL_NO_ACK_INTERRUPT | RFCTL_NO_IPV6_EXTENSIONS;
                self.write(RFCTL, RFCTL_EXTENDED | filters);
            }
            return true;
        }
        let kib = buffer.bytes(self.model.family.shape) / 1024;
        let shape = SRRCTL_ADVANCED | SRRCTL_DROP | kib as u32;
        self.write(family.receive + RING_SRRCTL, shape);
        self.write(RLPML, (kib * 1024) as u32);
        self.write(
            family.transmit + RING_CONTROL,
            transmit_control & !RING_CONTROL_COUNT | RING_CONTROL_ENABLE,
        );
        self.set_bits(family.receive + RING_CONTROL, RING_CONTROL_ENABLE);
        self.settles(|c| {
            let on = |block| c.read(block + RING_CONTROL) & RING_CONTROL_ENABLE != 0;
            on(family.receive) && on(family.transmit)
        })
    }

    fn place_ring(&self, block: usize, phys: u64, len: usize) {
        self.write(block + RING_BASE_LOW, phys as u32);
        self.write(block + RING_BASE_HIGH, (phys >> 32) as u32);
        self.write(block + RING_LEN, len as u32);
        self.write(block + RING_HEAD, 0);
        self.write(block + RING_TAIL, 0);
    }

    /// Gives descriptors up to `tail` to the device.
    pub(crate) fn give_buffers(&self, tail: u32) {
        self.write(self.model.family.receive + RING_TAIL, tail);
    }

    /// Lets frames up to `tail` leave.
    pub(crate) fn send(&self, tail: u32) {
        self.write(self.model.family.transmit + RING_TAIL, tail);
    }

    pub(crate) fn link(&self) -> LinkState {
        let status = self.read(STATUS);
        LinkState {
            // All ones: it is gone.
            is_up: status & STATUS_LINK_UP != 0 && status != u32::MAX,
            speed_mbit: match status >> STATUS_SPEED_SHIFT & 0b11 {
                0 => 10,
                1 => 100,
                _ => 1000,
            },
            is_full_duplex: status & STATUS_FULL_DUPLEX != 0,
        }
    }

    /// Frames lost since the last call: damaged ones, and those without a buffer.
    pub(crate) fn take_losses(&self) -> (u32, u32) {
        let [crc, other, missed] = [CRCERRS, RXERRC, MISSED].map(|r| self.read(r));
        if [crc, other, missed].contains(&u32::MAX) {
            return (0, 0);
        }
        (crc.saturating_add(other), missed)
    }
}

/// How interrupts are brought in.
impl<B: Bus> Chip<B> {
    fn set_up_interrupts(&self) {
        match self.mode {
            Mode::Shared => self.write(ITR, INTERVAL_US * 1000 / 256),
            Mode::Own(MsiX::Causes | MsiX::None) => {
                // Queue 0 in by vector 0; queue 0 out and the rest by vector 1.
                self.write(IVAR_82574, 0x8 | 0x9 << 8 | 0x9 << 16);
                self.write(EIAC_82574, CAUSE_RECEIVE_QUEUE);
                self.write(EITR_82574, INTERVAL_US * 1000 / 256);
                self.set_bits(CTRL_EXT, CTRL_EXT_PBA_CLEAR);
            }
            Mode::Own(MsiX::Vectors) => {
                let msix = GPIE_MULTIPLE_MSIX | GPIE_AUTO_MASK | GPIE_PBA;
                self.write(GPIE, msix | GPIE_NON_SELECTIVE_CLEAR);
                self.write(EIAC, 0b11);
                self.write(EIAM, 0b11);
                self.write(IVAR_MISC, (IVAR_VALID | 1) << 8);
                self.write(IVAR0, IVAR_VALID);
                self.write(EITR, INTERVAL_US << 2);
            }
        }
        self.unmask(Source::Link);
    }

    fn mask_all(&self) {
        self.write(self.model.family.imc, u32::MAX);
        if self.model.family.msix == MsiX::Vectors {
            self.write(EIMC, u32::MAX);
        }
        let _ = self.take_causes();
    }

    fn causes(&self, source: Source) -> u32 {
        match (self.mode, source) {
            (Mode::Own(MsiX::Causes), Source::Receive) => CAUSE_RECEIVE_QUEUE,
            (Mode::Own(MsiX::Causes), Source::Transmit) => CAUSE_TRANSMIT_QUEUE,
            (Mode::Own(MsiX::Causes), Source::Link) => CAUSE_LINK | CAUSE_OTHER,
            (_, Source::Receive) => CAUSE_RECEIVED | CAUSE_FEW_BUFFERS | CAUSE_OVERRUN,
            (_, Source::Transmit) => CAUSE_SENT,
            (_, Source::Link) => CAUSE_LINK,
        }
    }

    /// Lets `source` interrupt. What came before does not, so the caller looks once
    /// more afterwards.
    pub(crate) fn unmask(&self, source: Source) {
        let family = self.model.family;
        match (self.mode, source) {
            (Mode::Own(MsiX::Vectors), Source::Receive) => {
                self.write(EICR, 1);
                self.write(EIMS, 1);
            }
            (Mode::Own(MsiX::Vectors), Source::Transmit) => {
                // The vector of the rest serves it as long as somebody waits for room.
                self.write(IVAR0, IVAR_VALID | (IVAR_VALID | 1) << 8);
            }
            (Mode::Own(MsiX::Vectors), Source::Link) => {
                self.write(family.ims, CAUSE_LINK);
                self.write(EIMS, 1 << 1);
            }
            _ => {
                if source != Source::Link {
                    self.write(family.icr, self.causes(source));
                }
                self.write(family.ims, self.causes(source));
            }
        }
    }

    /// Keeps `source` from interrupting.
    pub(crate) fn mask(&self, source: Source) {
        match (self.mode, source) {
            (Mode::Own(MsiX::Vectors), Source::Receive) => self.write(EIMC, 1),
            (Mode::Own(MsiX::Vectors), Source::Transmit) => self.write(IVAR0, IVAR_VALID),
            (Mode::Own(MsiX::Vectors), Source::Link) => self.write(EIMC, 1 << 1),
            _ => self.write(self.model.family.imc, self.causes(source)),
        }
    }

    /// Reads and clears what interrupted. This lowers a wire.
    pub(crate) fn take_causes(&self) -> u32 {
        let icr = self.model.family.icr;
        let causes = self.read(icr);
        if self.has_own_interrupts() && causes != u32::MAX {
            // There reading does not clear (82574, 10.2.4.1).
            self.write(icr, causes & !CAUSE_RECEIVE_QUEUE);
        }
        causes
    }
}

/// Sizes of receive buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BufferSize {
    /// For frames of 1,522 bytes.
    Usual,
    /// For 9,000 bytes of IP and a header.
    Jumbo,
}

/// What chips that count buffers in KiB get for jumbo frames.
const JUMBO_KIB: usize = 10;

impl BufferSize {
    pub(crate) fn bytes(self, shape: Shape) -> usize {
        match (self, shape) {
            (BufferSize::Usual, _) => 2048,
            (BufferSize::Jumbo, Shape::Legacy) => 16 << 10,
            (BufferSize::Jumbo, Shape::Extended) => JUMBO_KIB << 10,
        }
    }
}

pub(crate) fn pause(time: Duration) {
    // A sleep without interruption ends at its time only.
    let _ = thread::sleep_until(Instant::now().after(time), false);
}
