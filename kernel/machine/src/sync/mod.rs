//! Locks.
//!
//! | lock | waits by | may be held across |
//! | --- | --- | --- |
//! | [`SpinLock`] | spinning | nothing that waits, faults or yields |
//! | [`IrqLock`] | spinning, interrupts off | as above; for what interrupts touch too |
//! | [`Mutex`], [`RwLock`] | sleeping | anything |

mod mutex;
mod rwlock;
mod spinlock;

pub use mutex::{Mutex, MutexGuard};
pub use rwlock::{ReadGuard, RwLock, WriteGuard};
pub use spin::{LazyLock, Once};
pub use spinlock::{IrqGuard, IrqLock, SpinGuard, SpinLock};
