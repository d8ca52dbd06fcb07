//! What all processes of a run share: how far each is, and what may still be made.

use std::{
    ptr,
    sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed},
};

/// Processes that work at the same time.
pub(crate) const WORKERS: usize = 3;
/// Threads of each that do.
pub(crate) const THREADS: usize = 2;
/// Numbers whose calls are counted.
pub(crate) const COUNTED: usize = 512;

/// Memory that a fork does not copy. A process that runs wild may write anything
/// there.
pub(crate) struct Shared {
    /// Processes and threads that may still be made in this round.
    budget: AtomicI64,
    /// The step that each thread of each worker takes.
    steps: [[AtomicU32; THREADS]; WORKERS],
    /// Calls made of each number, and those that succeeded.
    made: [AtomicU32; COUNTED],
    done: [AtomicU32; COUNTED],
}

impl Shared {
    /// Takes the memory.
    pub(crate) fn new() -> Result<&'static Self, String> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let bytes = size_of::<Self>();
        // SAFETY: a new mapping, which harms none there is.
        let found = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if found == libc::MAP_FAILED {
            return Err(format!("mmap: {}", std::io::Error::last_os_error()));
        }
        // SAFETY: large enough, aligned to a page, never given back; all zeros are
        // valid atomics, and nothing but atomics is in it.
        Ok(unsafe { &*found.cast::<Self>() })
    }

    /// Begins a round in which so many processes may be made.
    pub(crate) fn begin(&self, budget: i64) {
        self.budget.store(budget, Relaxed);
        for step in self.steps.iter().flatten() {
            step.store(0, Relaxed);
        }
    }

    /// Whether another process may be made; it then counts.
    pub(crate) fn may_make(&self) -> bool {
        self.budget.fetch_sub(1, Relaxed) > 0
    }

    /// The step that a thread takes, or has to take next.
    pub(crate) fn step(&self, worker: usize, thread: usize) -> &AtomicU32 {
        &self.steps[worker % WORKERS][thread % THREADS]
    }

    /// Counts a call before it is made.
    pub(crate) fn count_made(&self, number: u64) {
        if let Some(count) = self.made.get(number as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Counts a call that has come back with this.
    pub(crate) fn count_done(&self, number: u64, result: i64) {
        if result >= 0
            && let Some(count) = self.done.get(number as usize)
        {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Calls made of this number, and those that succeeded.
    pub(crate) fn counts(&self, number: usize) -> (u32, u32) {
        let of = |counts: &[AtomicU32]| counts.get(number).map_or(0, |count| count.load(Relaxed));
        (of(&self.made), of(&self.done))
    }
}

#[cfg(test)]
mod tests {
    use super::Shared;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn what_a_child_notes_is_seen() {
        let shared = Shared::new().unwrap();
        shared.begin(1);
        let ended = crate::process::in_child(std::time::Duration::from_secs(20), || {
            shared.step(1, 1).store(5, Relaxed);
            shared.count_made(3);
            i32::from(shared.may_make())
        });
        assert_eq!(ended, Ok(crate::process::End::Status(1)));
        assert_eq!(shared.step(1, 1).load(Relaxed), 5);
        assert_eq!(shared.counts(3), (1, 0));
        assert!(!shared.may_make());
    }
}
