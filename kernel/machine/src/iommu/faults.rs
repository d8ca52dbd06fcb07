//! Accesses that a unit refused: read from its records, counted by device, and told now
//! and then (Intel VT-d specification 4.1, 7.2, 7.3 and 11.4.14).

use crate::pci::Address;
use crate::sync::SpinLock;
use crate::time::Instant;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// An access that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who tried.
    pub device: Address,
    /// Where, at a multiple of the page size.
    pub address: u64,
    /// Whether it was a write.
    pub is_write: bool,
    /// Why it was refused, as the specification numbers it (7.2.3).
    pub reason: u8,
}

impl Fault {
    /// Reads a fault record.
    pub(super) fn decode(low: u64, high: u64) -> Fault {
        let source = high as u16;
        Fault {
            device: Address {
                bus: (source >> 8) as u8,
                device: (source >> 3 & 31) as u8,
                function: (source & 7) as u8,
            },
            address: low & !0xfff,
            is_write: high >> 62 & 1 == 0,
            reason: (high >> 32) as u8,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_write { "write" } else { "read" };
        let why = match self.reason {
            1 | 2 => "it has no memory",
            5 | 6 => "not its memory",
            _ => "out of order",
        };
        let Fault {
            address, reason, ..
        } = self;
        write!(f, "{what} at {address:#x} refused: {why} (reason {reason})")
    }
}

/// What is known of a device's faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tally {
    /// Records of it since boot. Faults that come in quick succession share a record.
    pub count: u64,
    /// The last of them.
    pub last: Fault,
}

#[derive(Debug)]
struct Seen {
    tally: Tally,
    /// How many were told, and when last.
    told: u64,
    at: Option<Instant>,
}

/// The faults since boot.
#[derive(Debug)]
pub(super) struct Tallies(SpinLock<Vec<Seen>>);

/// Devices that are counted; there are hardly more that misbehave.
const DEVICES_MAX: usize = 64;
/// A device's faults are told no more often than this.
const PAUSE: Duration = Duration::from_secs(10);

impl Tallies {
    pub(super) const fn new() -> Tallies {
        Tallies(SpinLock::new(Vec::new()))
    }

    pub(super) fn add(&self, fault: Fault) {
        let mut all = self.0.lock();
        let known = all.iter_mut().find(|s| s.tally.last.device == fault.device);
        if let Some(seen) = known {
            seen.tally.count += 1;
            seen.tally.last = fault;
        } else if all.len() < DEVICES_MAX && all.try_reserve(1).is_ok() {
            all.push(Seen {
                tally: Tally {
                    count: 1,
                    last: fault,
                },
                told: 0,
                at: None,
            });
        }
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<Tally> {
        self.0.lock().iter().map(|s| s.tally).collect()
    }

    /// One that is due to be told at `now`.
    pub(super) fn due(&self, now: Instant) -> Option<Tally> {
        let mut all = self.0.lock();
        let is_due =
            |s: &&mut Seen| s.told < s.tally.count && s.at.is_none_or(|at| now.since(at) >= PAUSE);
        let seen = all.iter_mut().find(is_due)?;
        (seen.told, seen.at) = (seen.tally.count, Some(now));
        Some(seen.tally)
    }

    /// Whether there is any that was not told.
    pub(super) fn owes(&self) -> bool {
        self.0.lock().iter().any(|s| s.told < s.tally.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_record_is_read() {
        let high = 1 << 63 | 5u64 << 32 | 0x0120;
        let fault = Fault::decode(0x1234_5678, high);
        assert_eq!(fault.device.to_string(), "01:04.0");
        assert!(fault.is_write);
        let text = "write at 0x12345000 refused: not its memory (reason 5)";
        assert_eq!(fault.to_string(), text);
        assert!(!Fault::decode(0, high | 1 << 62).is_write);
    }

    #[test]
    fn a_storm_is_counted_and_told_now_and_then() {
        let tallies = Tallies::new();
        let fault = |device: u64| Fault::decode(0x1000, 1 << 63 | 6 << 32 | device << 3);
        let mut now = Instant::now();
        assert!(tallies.due(now).is_none() && !tallies.owes());
        let mut told = 0;
        for _ in 0..1000 {
            tallies.add(fault(4));
            now = now.after(Duration::from_millis(21));
            told += usize::from(tallies.due(now).is_some());
        }
        assert_eq!(told, 3);
        assert!(tallies.owes());
        tallies.add(fault(5));
        assert_eq!(tallies.due(now).map(|t| t.count), Some(1));
        assert_eq!(tallies.list().first().map(|t| t.count), Some(1000));
        for device in 0..1000 {
            tallies.add(Fault::decode(0, device));
        }
        assert_eq!(tallies.list().len(), DEVICES_MAX);
    }
}
