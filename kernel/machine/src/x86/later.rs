//! Threads that have exited, until somebody may drop them: what hangs on a thread
//! may lock and wait when it goes, which the middle of a switch cannot.

use crate::error::AllocError;
use crate::sync::Once;
use crate::thread::{Builder, Thread};
use crate::wait::WaitQueue;
use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A stack of dead threads, linked through [`super::ThreadState`]'s `next_dead`.
static DEAD: AtomicPtr<Thread> = AtomicPtr::new(ptr::null_mut());
static WORK: WaitQueue = WaitQueue::new();
static REAPER: Once<Arc<Thread>> = Once::new();

/// Lets a thread go soon. Called in the middle of a switch.
pub(super) fn drop_thread(t: Arc<Thread>) {
    let raw = Arc::into_raw(t).cast_mut();
    let mut head = DEAD.load(Ordering::Relaxed);
    loop {
        // SAFETY: the reference just taken keeps it alive.
        unsafe { (*raw).arch.next_dead.store(head, Ordering::Relaxed) };
        match DEAD.compare_exchange_weak(head, raw, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => break,
            Err(now) => head = now,
        }
    }
    WORK.wake_one();
}

/// Drops the dead; whether there were any.
fn reap() -> bool {
    let mut at = DEAD.swap(ptr::null_mut(), Ordering::Acquire);
    let any = !at.is_null();
    while !at.is_null() {
        // SAFETY: pushed by `drop_thread` with a reference of its own.
        let t = unsafe { Arc::from_raw(at) };
        at = t.arch.next_dead.load(Ordering::Relaxed);
        drop(t);
    }
    any
}

/// Starts the thread that drops the dead.
pub(super) fn start() -> Result<(), AllocError> {
    let serve = || {
        loop {
            WORK.wait(|| reap().then_some(()));
        }
    };
    REAPER
        .try_call_once(|| Builder::new("reaper").spawn(serve))
        .map(|_| ())
}
