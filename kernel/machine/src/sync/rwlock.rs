//! The sleeping reader-writer lock.

use crate::wait::WaitQueue;
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicUsize, Ordering};

const WRITER: usize = 1 << 31;
/// Somebody sleeps; whoever leaves wakes all.
const WAITERS: usize = 1 << 32;
const READERS: usize = WRITER - 1;

/// Many readers or one writer; waiters sleep. Readers do not queue behind a
/// waiting writer, so a reader may take the lock again.
pub struct RwLock<T: ?Sized> {
    state: AtomicUsize,
    queue: WaitQueue,
    value: UnsafeCell<T>,
}

// SAFETY: the state word lets in readers, which only share `T`, or one writer.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
// SAFETY: the lock owns its value.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}

/// Proof that an [`RwLock`] is held for reading.
pub struct ReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
}

/// Proof that an [`RwLock`] is held for writing.
pub struct WriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
}

impl<T> RwLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        RwLock {
            state: AtomicUsize::new(0),
            queue: WaitQueue::new(),
            value: UnsafeCell::new(value),
        }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes the lock for reading.
    #[inline]
    pub fn read(&self) -> ReadGuard<'_, T> {
        if !self.try_read() {
            self.wait(Self::try_read);
        }
        ReadGuard { lock: self }
    }

    /// Takes the lock for writing.
    #[inline]
    pub fn write(&self) -> WriteGuard<'_, T> {
        if !self.try_write() {
            self.wait(Self::try_write);
        }
        WriteGuard { lock: self }
    }

    #[inline]
    fn try_read(&self) -> bool {
        let mut s = self.state.load(Ordering::Relaxed);
        while s & WRITER == 0 {
            match self
                .state
                .compare_exchange_weak(s, s + 1, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => s = now,
            }
        }
        false
    }

    #[inline]
    fn try_write(&self) -> bool {
        let mut s = self.state.load(Ordering::Relaxed);
        while s & (WRITER | READERS) == 0 {
            let want = s | WRITER;
            match self
                .state
                .compare_exchange_weak(s, want, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => s = now,
            }
        }
        false
    }

    #[cold]
    fn wait(&self, take: impl Fn(&Self) -> bool) {
        self.queue.wait(|| {
            // The mark goes up before the try, so that a holder who leaves after
            // a failed try is bound to see it.
            self.state.fetch_or(WAITERS, Ordering::Relaxed);
            take(self).then_some(())
        });
    }

    #[inline]
    fn wake(&self) {
        if self.state.load(Ordering::Relaxed) & WAITERS != 0 {
            self.state.fetch_and(!WAITERS, Ordering::Relaxed);
            self.queue.wake_all();
        }
    }
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: a reader's guard keeps writers out.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: a writer's guard keeps everybody else out.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: a writer's guard keeps everybody else out.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for ReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.lock.state.fetch_sub(1, Ordering::Release) & READERS == 1 {
            self.lock.wake();
        }
    }
}

impl<T: ?Sized> Drop for WriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.state.fetch_and(!WRITER, Ordering::Release);
        self.lock.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, thread, vec::Vec};

    #[test]
    fn writers_are_alone() {
        let l = Arc::new(RwLock::new((0u64, 0u64)));
        let ts: Vec<_> = (0..4)
            .map(|i| {
                let l = l.clone();
                thread::spawn(move || {
                    for _ in 0..5_000 {
                        if i % 2 == 0 {
                            let mut v = l.write();
                            v.0 += 1;
                            v.1 += 1;
                        } else {
                            let v = l.read();
                            assert_eq!(v.0, v.1);
                        }
                    }
                })
            })
            .collect();
        for t in ts {
            t.join().unwrap();
        }
        assert_eq!(l.read().0, 10_000);
    }
}
