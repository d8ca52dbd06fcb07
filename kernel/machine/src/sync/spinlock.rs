//! Spinning locks, with and without interrupts.

use crate::arch;
use core::ops::{Deref, DerefMut};

/// A lock for short sections that neither wait nor touch user memory. Kernel
/// code is not preempted, so a holder always makes progress.
#[derive(Debug, Default)]
pub struct SpinLock<T: ?Sized>(spin::Mutex<T>);

/// Proof that a [`SpinLock`] is held.
pub struct SpinGuard<'a, T: ?Sized>(spin::MutexGuard<'a, T>);

impl<T> SpinLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        SpinLock(spin::Mutex::new(value))
    }

    /// The value, the lock being gone.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> SpinLock<T> {
    /// Takes the lock.
    #[inline]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        SpinGuard(self.0.lock())
    }

    /// Takes the lock if it is free now.
    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        self.0.try_lock().map(SpinGuard)
    }

    /// The value, borrowed alone.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

/// A spinning lock that keeps interrupts off while it is held: for what
/// interrupt handlers touch as well.
#[derive(Debug, Default)]
pub struct IrqLock<T: ?Sized>(spin::Mutex<T>);

/// Proof that an [`IrqLock`] is held.
pub struct IrqGuard<'a, T: ?Sized> {
    // Order matters: the lock is let go before interrupts come back.
    inner: spin::MutexGuard<'a, T>,
    _irq: IrqOff,
}

struct IrqOff(arch::IrqState);

impl Drop for IrqOff {
    #[inline]
    fn drop(&mut self) {
        arch::irq_restore(self.0);
    }
}

impl<T> IrqLock<T> {
    /// An unlocked lock around `value`.
    pub const fn new(value: T) -> Self {
        IrqLock(spin::Mutex::new(value))
    }
}

impl<T: ?Sized> IrqLock<T> {
    /// Turns interrupts off on this CPU and takes the lock.
    #[inline]
    pub fn lock(&self) -> IrqGuard<'_, T> {
        let irq = IrqOff(arch::irq_save());
        IrqGuard {
            inner: self.0.lock(),
            _irq: irq,
        }
    }

    /// Takes the lock if it is free now.
    #[inline]
    pub fn try_lock(&self) -> Option<IrqGuard<'_, T>> {
        let irq = IrqOff(arch::irq_save());
        let inner = self.0.try_lock()?;
        Some(IrqGuard { inner, _irq: irq })
    }
}

impl<T: ?Sized> Deref for IrqGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for IrqGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}
