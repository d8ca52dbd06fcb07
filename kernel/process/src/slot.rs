//! A replaceable reference: what a thread has now of something that can be shared
//! and exchanged (its memory, its files).

use alloc::sync::Arc;
use machine::sync::SpinLock;

/// Holds an `Arc` until it is exchanged, or taken out when the thread ends.
///
/// Each thread has slots of its own, so the lock is never fought over: others
/// look in only for `/proc` and the like.
pub struct Slot<T>(SpinLock<Option<Arc<T>>>);

impl<T> Slot<T> {
    pub(crate) fn new(value: Option<Arc<T>>) -> Slot<T> {
        Slot(SpinLock::new(value))
    }

    /// What it holds now; nothing once the thread has ended.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<Arc<T>> {
        self.0.lock().clone()
    }

    /// Runs `f` on what it holds, under a spin lock: `f` must not wait.
    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&T) -> R) -> Option<R> {
        self.0.lock().as_deref().map(f)
    }

    /// Exchanges it. What was there is dropped after the lock is let go.
    pub fn set(&self, value: Arc<T>) {
        let old = self.0.lock().replace(value);
        drop(old);
    }

    /// Takes it out for good.
    pub(crate) fn take(&self) -> Option<Arc<T>> {
        self.0.lock().take()
    }
}
