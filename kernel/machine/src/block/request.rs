//! A request under way, and who waits for it: the same for every driver of disks.

use super::{BlockError, Operation, Trouble};
use crate::sync::SpinLock;
use crate::time::Instant;
use crate::wait::{Until, WaitQueue};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A request that a device has, or will have.
pub struct Request {
    operation: Operation,
    sector: u64,
    outcome: SpinLock<Option<Result<(), BlockError>>>,
    done: WaitQueue,
    /// When the device last got it.
    since: AtomicU64,
    tries: AtomicU32,
}

impl Request {
    /// A request that the device gets for the first time now.
    #[must_use]
    pub fn new(operation: Operation, sector: u64) -> Request {
        Request {
            operation,
            sector,
            outcome: SpinLock::new(None),
            done: WaitQueue::new(),
            since: AtomicU64::new(Instant::now().0),
            tries: AtomicU32::new(1),
        }
    }

    /// When the device last got it.
    #[must_use]
    pub fn since(&self) -> Instant {
        Instant(self.since.load(Relaxed))
    }

    /// What to say of it if it has failed.
    #[must_use]
    pub fn failure(&self) -> Trouble {
        Trouble::Failed {
            operation: self.operation,
            sector: self.sector,
        }
    }

    /// The device gets it once more, or would; how often it has had it.
    pub fn count_try(&self) -> u32 {
        self.since.store(Instant::now().0, Relaxed);
        self.tries.fetch_add(1, Relaxed)
    }

    /// Ends it and wakes who waits.
    pub fn finish(&self, answer: Result<(), BlockError>) {
        *self.outcome.lock() = Some(answer);
        self.done.wake_all();
    }

    /// Takes the outcome, if it has ended.
    pub fn outcome(&self) -> Option<Result<(), BlockError>> {
        self.outcome.lock().take()
    }

    /// Sleeps until it has ended.
    ///
    /// # Errors
    /// The outcome.
    pub fn wait(&self) -> Result<(), BlockError> {
        self.done.wait(|| self.outcome())
    }

    /// Sleeps until it has ended, at most until `deadline`: then `None`.
    pub fn wait_until(&self, deadline: Instant) -> Option<Result<(), BlockError>> {
        let until = Until {
            deadline: Some(deadline),
            interruptible: false,
        };
        self.done.wait_until(until, || self.outcome()).ok()
    }

    /// Sleeps until it has ended, or until `other` holds, which is tried again at
    /// each [`Request::wake`]: then `None`.
    pub fn wait_or(&self, mut other: impl FnMut() -> bool) -> Option<Result<(), BlockError>> {
        self.done
            .wait(|| self.outcome().map(Some).or_else(|| other().then_some(None)))
    }

    /// Has whoever waits look again; whether anyone does.
    pub fn wake(&self) -> bool {
        self.done.wake_all() > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::sync::Arc;

    #[test]
    fn a_waiter_gets_the_outcome() {
        let r = Arc::new(Request::new(Operation::Read, 7));
        let r2 = r.clone();
        let t = std::thread::spawn(move || r2.wait());
        r.finish(Err(BlockError::Failed));
        assert_eq!(t.join().unwrap(), Err(BlockError::Failed));
        let told = alloc::format!("{}", r.failure());
        assert_eq!(told, "reading at sector 7 failed");
    }

    #[test]
    fn a_waiter_is_let_go_for_something_else() {
        let r = Request::new(Operation::Flush, 0);
        assert_eq!(r.wait_or(|| true), None);
        assert_eq!(r.wait_until(Instant::now()), None);
        r.finish(Ok(()));
        assert_eq!(r.wait_or(|| true), Some(Ok(())));
        assert!(!r.wake());
    }
}
