//! Counters of known frequency, against which the TSC is measured.

use super::{clock, kmap, port};
use core::ptr::NonNull;

/// The High Precision Event Timer (IA-PC HPET 1.0a), as a counter.
#[derive(Debug)]
pub(crate) struct Hpet {
    registers: NonNull<u8>,
    hz: u64,
    wide: bool,
}

// SAFETY: the counter is only read; its registers are mapped for ever.
unsafe impl Send for Hpet {}
// SAFETY: as above.
unsafe impl Sync for Hpet {}

impl Hpet {
    const CAPABILITIES: usize = 0x00;
    const CONFIGURATION: usize = 0x10;
    const COUNTER: usize = 0xf0;
    /// Legacy replacement routing would take over the interrupts of PIT and RTC.
    const LEGACY_ROUTING: u64 = 1 << 1;
    const ENABLE: u64 = 1;
    const WIDE: u64 = 1 << 13;
    const FEMTOSECONDS_PER_S: u64 = 1_000_000_000_000_000;
    /// The specification's upper bound for the period.
    const PERIOD_MAX: u64 = 100_000_000;

    /// Maps the HPET at `phys` and starts its counter.
    pub(crate) fn new(phys: u64) -> Option<Hpet> {
        let registers = kmap::map_mmio(usize::try_from(phys).ok()?, 0x400)?;
        let mut hpet = Hpet {
            registers,
            hz: 0,
            wide: false,
        };
        let capabilities = hpet.read(Self::CAPABILITIES);
        let period = capabilities >> 32;
        if period == 0 || period > Self::PERIOD_MAX {
            return None;
        }
        hpet.hz = Self::FEMTOSECONDS_PER_S / period;
        hpet.wide = capabilities & Self::WIDE != 0;
        let configuration = hpet.read(Self::CONFIGURATION);
        hpet.write(
            Self::CONFIGURATION,
            configuration & !Self::LEGACY_ROUTING | Self::ENABLE,
        );
        Some(hpet)
    }

    fn read(&self, register: usize) -> u64 {
        // SAFETY: the register lies in what is mapped.
        unsafe {
            self.registers
                .as_ptr()
                .add(register)
                .cast::<u64>()
                .read_volatile()
        }
    }

    fn write(&mut self, register: usize, value: u64) {
        // SAFETY: the register lies in what is mapped.
        unsafe {
            self.registers
                .as_ptr()
                .add(register)
                .cast::<u64>()
                .write_volatile(value);
        }
    }

    pub(crate) fn counter(&self) -> u64 {
        self.read(Self::COUNTER)
    }

    pub(crate) fn hz(&self) -> u64 {
        self.hz
    }

    /// Whether the counter has 64 bits.
    pub(crate) fn is_wide(&self) -> bool {
        self.wide
    }
}

/// A counter that counts up at a known rate and wraps.
pub(crate) enum Reference {
    Hpet(Hpet),
    /// The ACPI power management timer, at this port.
    PmTimer(u16),
    Pit(Pit),
    /// The TSC itself, whose frequency was told.
    Tsc(u64),
}

impl Reference {
    pub(crate) fn pit() -> Reference {
        Reference::Pit(Pit::start())
    }

    pub(crate) fn hz(&self) -> u64 {
        match self {
            Reference::Hpet(h) => h.hz,
            Reference::PmTimer(_) => 3_579_545,
            Reference::Pit(_) => 1_193_182,
            Reference::Tsc(hz) => *hz,
        }
    }

    pub(crate) fn mask(&self) -> u64 {
        match self {
            // The low half is enough for a short time, and the same for both kinds.
            Reference::Hpet(_) => 0xffff_ffff,
            Reference::PmTimer(_) => 0x00ff_ffff,
            Reference::Pit(_) => 0xffff,
            Reference::Tsc(_) => u64::MAX,
        }
    }

    pub(crate) fn read(&self) -> u64 {
        self.mask()
            & match self {
                Reference::Hpet(h) => h.counter(),
                // SAFETY: reading the timer changes nothing.
                Reference::PmTimer(p) => u64::from(unsafe { port::read_u32(*p) }),
                Reference::Pit(p) => p.read(),
                Reference::Tsc(_) => clock::tsc(),
            }
    }

    /// Ticks since it read `start`, if it has not wrapped since.
    pub(crate) fn since(&self, start: u64) -> u64 {
        self.mask() & self.read().wrapping_sub(start)
    }
}

/// Channel 2 of the programmable interval timer (Intel 8254), which the PC wires
/// to the speaker and not to an interrupt.
pub(crate) struct Pit;

impl Pit {
    const CHANNEL_0: u16 = 0x40;
    const CHANNEL_2: u16 = 0x42;
    const COMMAND: u16 = 0x43;
    /// Gate of channel 2 in bit 0, speaker in bit 1.
    const GATE: u16 = 0x61;

    /// Lets it count down from the top, for 55 ms.
    fn start() -> Pit {
        // SAFETY: the ports of the timer and of the speaker.
        unsafe {
            let gate = port::read_u8(Self::GATE);
            port::write_u8(Self::GATE, gate & !0b10 | 0b01);
            // Channel 2, low byte then high byte, mode 0, binary.
            port::write_u8(Self::COMMAND, 0b1011_0000);
            port::write_u8(Self::CHANNEL_2, 0xff);
            port::write_u8(Self::CHANNEL_2, 0xff);
        }
        Pit
    }

    /// Stops channel 0, which firmware leaves ticking 18 times a second. Its interrupt
    /// is masked, but a virtual machine's host would be woken for both edges of every
    /// tick.
    pub(crate) fn stop_ticks() {
        // SAFETY: the ports of the timer. Mode 0 counts down once; the counter then
        // goes on silently.
        unsafe {
            // Channel 0, low byte then high byte, mode 0, binary.
            port::write_u8(Self::COMMAND, 0b0011_0000);
            port::write_u8(Self::CHANNEL_0, 1);
            port::write_u8(Self::CHANNEL_0, 0);
        }
    }

    fn read(&self) -> u64 {
        // SAFETY: latches and reads channel 2.
        let left = unsafe {
            port::write_u8(Self::COMMAND, 0b1000_0000);
            let low = port::read_u8(Self::CHANNEL_2);
            u16::from_le_bytes([low, port::read_u8(Self::CHANNEL_2)])
        };
        u64::from(!left)
    }
}
