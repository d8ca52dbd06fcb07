//! Counters of system calls that programs made and the kernel does not have.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Numbers counted one by one; all above share the last counter.
const NUMBERS: usize = 512;

/// How often each unknown system call was made.
pub struct UnknownCalls {
    counts: [AtomicU32; NUMBERS],
}

impl UnknownCalls {
    /// All zero.
    #[must_use]
    pub const fn new() -> UnknownCalls {
        UnknownCalls {
            counts: [const { AtomicU32::new(0) }; NUMBERS],
        }
    }

    /// Counts a call of `number`; whether it was the first.
    pub fn count(&self, number: usize) -> bool {
        let counter = self.counts.get(number).or(self.counts.last());
        counter.is_some_and(|c| c.fetch_add(1, Relaxed) == 0)
    }

    /// Number and count of each that was called, by number.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u32)> {
        let counts = self.counts.iter().map(|c| c.load(Relaxed));
        counts.enumerate().filter(|(_, n)| *n > 0)
    }
}

impl Default for UnknownCalls {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn only_the_first_call_is_news() {
        let u = UnknownCalls::new();
        assert!(u.count(7));
        assert!(!u.count(7));
        assert!(u.count(usize::MAX));
        assert_eq!(u.iter().collect::<Vec<_>>(), [(7, 2), (NUMBERS - 1, 1)]);
    }
}
