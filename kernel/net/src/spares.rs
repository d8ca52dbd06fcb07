//! Things kept for whoever needs the next one, until the capsule they belong to ends.

use alloc::vec::Vec;
use machine::sync::SpinLock;

/// A list of spare things; none once it is closed. Whether it is closed stands behind the
/// list's own lock: one that looks before it locks would put a thing into a list that was
/// emptied for good between the two, where it stays charged.
pub(crate) struct Spares<T>(SpinLock<Option<Vec<T>>>);

impl<T> Spares<T> {
    pub(crate) fn new() -> Spares<T> {
        Spares(SpinLock::new(Some(Vec::new())))
    }

    /// The one that was kept last of those that are `wanted`.
    pub(crate) fn take(&self, wanted: impl Fn(&T) -> bool) -> Option<T> {
        let mut list = self.0.lock();
        let list = list.as_mut()?;
        let at = list.iter().rposition(wanted)?;
        Some(list.swap_remove(at))
    }

    /// Keeps `one` if it `fits` beside those that are kept already, else lets it go, as it
    /// does after the end.
    pub(crate) fn keep(&self, one: T, fits: impl FnOnce(&[T]) -> bool) {
        let mut list = self.0.lock();
        if let Some(list) = list.as_mut()
            && fits(list)
            && list.try_reserve(1).is_ok()
        {
            list.push(one);
        }
    }

    /// Lets all go, and keeps none from now on.
    pub(crate) fn close(&self) {
        let all = self.0.lock().take();
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn the_last_that_is_wanted_is_taken() {
        let spares = Spares::new();
        for n in [1, 2, 3, 4] {
            spares.keep(n, |list| list.len() < 3);
        }
        assert_eq!(spares.take(|n| n % 2 == 0), Some(2));
        assert_eq!(spares.take(|n| n % 2 == 0), None);
        assert_eq!(spares.take(|_| true), Some(3));
        spares.close();
        assert_eq!(spares.take(|_| true), None);
    }

    /// Connections end on the threads of drivers while their capsule ends on another.
    #[test]
    fn what_is_kept_during_the_end_goes_too() {
        let thing = Arc::new(());
        for round in 0..5000 {
            let (spares, begun) = (Spares::new(), AtomicBool::new(false));
            std::thread::scope(|s| {
                s.spawn(|| {
                    begun.store(true, Ordering::Release);
                    for _ in 0..64 {
                        spares.keep(thing.clone(), |_| true);
                    }
                });
                while !begun.load(Ordering::Acquire) {
                    std::thread::yield_now();
                }
                spares.close();
            });
            assert_eq!(Arc::strong_count(&thing), 1, "kept in round {round}");
        }
    }
}
