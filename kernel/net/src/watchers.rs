//! Sockets that look at packets of the whole machine: raw and packet sockets.

use crate::error::Result;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use machine::sync::SpinLock;
use smallvec::SmallVec;

/// A list of such sockets that costs packets one load while it is empty.
pub(crate) struct Watchers<T> {
    list: SpinLock<Vec<Weak<T>>>,
    count: AtomicUsize,
}

impl<T> Default for Watchers<T> {
    fn default() -> Self {
        Watchers {
            list: SpinLock::new(Vec::new()),
            count: AtomicUsize::new(0),
        }
    }
}

impl<T> Watchers<T> {
    /// Whether there is any.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.count.load(Relaxed) != 0
    }

    /// Adds one.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn add(&self, one: &Arc<T>) -> Result<()> {
        let mut list = self.list.lock();
        list.try_reserve(1)?;
        list.push(Arc::downgrade(one));
        self.count.store(list.len(), Relaxed);
        Ok(())
    }

    /// Takes one out.
    pub(crate) fn remove(&self, one: &Arc<T>) {
        let mut list = self.list.lock();
        list.retain(|w| w.strong_count() > 0 && !core::ptr::eq(w.as_ptr(), Arc::as_ptr(one)));
        self.count.store(list.len(), Relaxed);
    }

    /// Those that `wanted` says yes to. They are used without the list's lock.
    pub(crate) fn matching(&self, wanted: impl Fn(&T) -> bool) -> SmallVec<[Arc<T>; 4]> {
        let mut found = SmallVec::new();
        for one in self.list.lock().iter().filter_map(Weak::upgrade) {
            if wanted(&one) && found.try_reserve(1).is_ok() {
                found.push(one);
            }
        }
        found
    }

    /// Does something with the list locked, so that nobody comes or goes meanwhile.
    pub(crate) fn with_all<R>(&self, f: impl FnOnce(&[Weak<T>]) -> R) -> R {
        f(&self.list.lock())
    }
}
