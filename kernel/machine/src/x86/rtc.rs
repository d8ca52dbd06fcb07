//! The PC's real-time clock, read once at boot.

use super::{acpi, clock::tsc, port};
use crate::firmware::rtc::Registers;

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
const SECOND: u8 = 0x00;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const UPDATING: u8 = 1 << 7;

fn read(register: u8) -> u8 {
    // SAFETY: CMOS registers; NMIs (the index's top bit) stay allowed.
    unsafe {
        port::write_u8(INDEX, register);
        port::read_u8(DATA)
    }
}

fn registers(century: u8) -> Registers {
    Registers {
        second: read(SECOND),
        minute: read(0x02),
        hour: read(0x04),
        day: read(0x07),
        month: read(0x08),
        year: read(0x09),
        century: if century == 0 { 0 } else { read(century) },
        status_b: read(STATUS_B),
    }
}

/// UTC in seconds since 1970, to the second; `None` if the machine has no such
/// clock or it shows no date.
pub(crate) fn unix_seconds() -> Option<i64> {
    let century = acpi::tables().fixed.map_or(0, |f| f.century & 0x7f);
    // Two equal readings outside of an update, or the last one of a few.
    let mut last = None;
    for _ in 0..4 {
        // An update takes 2 ms; a port read about a microsecond.
        let _ = (0..10_000).any(|_| read(STATUS_A) & UPDATING == 0);
        let now = registers(century);
        if last == Some(now) {
            break;
        }
        last = Some(now);
    }
    last?.unix_seconds()
}

/// Spins until the clock's second changes; `None` if it never does.
pub(crate) fn wait_for_second() -> Option<()> {
    /// Ticks of the TSC within which it must: seconds, whatever its rate is, which is
    /// not known yet. Reads cannot be counted instead: emulators answer them in no time.
    const TICKS_MAX: u64 = 40_000_000_000;
    let (now, start) = (read(SECOND), tsc());
    while read(SECOND) == now {
        if tsc().wrapping_sub(start) > TICKS_MAX {
            return None;
        }
    }
    Some(())
}
