//! Transfers under way: a bounded number of them, and none that writes where another
//! is at work.
//!
//! Writing a part of a block means reading it, changing it and writing it back; a
//! second writer in between would be undone. Overlapping writes therefore take turns.

use core::ops::Range;
use machine::sync::SpinLock;
use machine::wait::WaitQueue;

/// Transfers of a disk at once.
const SLOTS: usize = 8;

/// What a transfer does with its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Reads,
    Writes,
}

struct Held {
    sectors: Range<u64>,
    how: Use,
}

impl Held {
    fn clashes(&self, sectors: &Range<u64>, how: Use) -> bool {
        let both_read = self.how == Use::Reads && how == Use::Reads;
        !both_read && self.sectors.start < sectors.end && sectors.start < self.sectors.end
    }
}

/// The transfers of a disk.
pub(super) struct Slots {
    held: SpinLock<[Option<Held>; SLOTS]>,
    changed: WaitQueue,
}

/// The right to one transfer, given back when it is dropped.
pub(super) struct Slot<'a> {
    slots: &'a Slots,
    at: usize,
}

impl Slots {
    pub(super) fn new() -> Slots {
        Slots {
            held: SpinLock::new([const { None }; SLOTS]),
            changed: WaitQueue::new(),
        }
    }

    /// Waits until `sectors` may be used. Every transfer ends within the driver's
    /// time limit, so this ends too.
    pub(super) fn take(&self, sectors: &Range<u64>, how: Use) -> Slot<'_> {
        let at = self.changed.wait(|| self.try_take(sectors, how));
        Slot { slots: self, at }
    }

    fn try_take(&self, sectors: &Range<u64>, how: Use) -> Option<usize> {
        let mut held = self.held.lock();
        if held.iter().flatten().any(|h| h.clashes(sectors, how)) {
            return None;
        }
        let at = held.iter().position(Option::is_none)?;
        *held.get_mut(at)? = Some(Held {
            sectors: sectors.clone(),
            how,
        });
        Some(at)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slots.held.lock().get_mut(self.at) {
            *slot = None;
        }
        self.slots.changed.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_exclude_whom_they_overlap() {
        let slots = Slots::new();
        let free = |range: Range<u64>, how| slots.try_take(&range, how);
        let write = slots.take(&(10..20), Use::Writes);
        assert_eq!(free(19..21, Use::Reads), None);
        assert_eq!(free(0..11, Use::Writes), None);
        let beside = free(20..30, Use::Writes);
        assert!(beside.is_some());
        drop(write);
        let read = slots.take(&(10..20), Use::Reads);
        assert!(free(10..20, Use::Reads).is_some());
        assert_eq!(free(10..20, Use::Writes), None);
        drop(read);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let slots = Slots::new();
        let all: std::vec::Vec<_> = (0..SLOTS as u64)
            .map(|n| slots.take(&(n..n + 1), Use::Writes))
            .collect();
        assert_eq!(slots.try_take(&(100..101), Use::Reads), None);
        drop(all);
        assert!(slots.try_take(&(100..101), Use::Reads).is_some());
    }
}
