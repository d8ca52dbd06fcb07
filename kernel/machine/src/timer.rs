//! Timers that run a function at a time.
//!
//! One kernel thread keeps all timers in order and runs what is due, in thread
//! context, so that a timer's function may lock and allocate like any other code.
//! Waits with a deadline do not come here; they sit in the scheduler.

use crate::error::AllocError;
use crate::sync::{Once, SpinLock};
use crate::thread::{self, Builder, Thread};
use crate::time::Instant;
use crate::wait::Until;
use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;

/// Least time between two runs of a timer that goes on by itself ([`Timer::set_next`]).
const PERIOD_MIN: Duration = Duration::from_micros(50);

type Action = dyn Fn() + Send + Sync;

/// Runs a function at a time that can be set, moved and taken back. Dropping it
/// takes it back.
pub struct Timer {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    /// When it is due; `u64::MAX` when it is not set.
    due: AtomicU64,
    action: Arc<Action>,
}

static QUEUE: SpinLock<BTreeMap<(u64, u64), Weak<Inner>>> = SpinLock::new(BTreeMap::new());
static SERVICE: Once<Arc<Thread>> = Once::new();

/// Starts the thread that serves the timers. The kernel calls it once at boot.
///
/// # Errors
/// No memory for its stack.
pub fn start() -> Result<(), AllocError> {
    SERVICE
        .try_call_once(|| Builder::new("timers").spawn(serve))
        .map(|_| ())
}

impl Timer {
    /// A timer that is not set. `action` runs in the timers' thread: it should be
    /// short, and whatever waits there delays other timers.
    pub fn new(action: impl Fn() + Send + Sync + 'static) -> Timer {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Timer {
            inner: Arc::new(Inner {
                id: NEXT.fetch_add(1, Relaxed),
                due: AtomicU64::new(u64::MAX),
                action: Arc::new(action),
            }),
        }
    }

    /// Sets it to `due`, or takes it back with `None`. A timer set into the past
    /// runs at once. An action that has begun is not waited for.
    pub fn set(&self, due: Option<Instant>) {
        let new = due.map_or(u64::MAX, |d| d.0.min(u64::MAX - 1));
        let mut queue = QUEUE.lock();
        let old = self.inner.due.swap(new, Relaxed);
        if old != u64::MAX {
            queue.remove(&(old, self.inner.id));
        }
        if new != u64::MAX {
            queue.insert((new, self.inner.id), Arc::downgrade(&self.inner));
        }
        let first = queue
            .first_key_value()
            .is_some_and(|(k, _)| *k == (new, self.inner.id));
        drop(queue);
        if first && let Some(t) = SERVICE.get() {
            t.unpark();
        }
    }

    /// Sets a timer that has run to `due`, its next time, but not to within
    /// [`PERIOD_MIN`] from now: a program can choose any period, and one shorter
    /// than the action itself would keep the timers' thread from all others.
    pub fn set_next(&self, due: Instant) {
        self.set(Some(due.max(Instant::now().after(PERIOD_MIN))));
    }

    /// When it is due, if it is set.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        Some(self.inner.due.load(Relaxed))
            .filter(|d| *d != u64::MAX)
            .map(Instant)
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.set(None);
    }
}

fn serve() {
    loop {
        let next = run_due();
        // Both ends of the wait mean the same: look again.
        let _ = thread::park(Until {
            deadline: next,
            interruptible: false,
        });
    }
}

/// Runs what is due; when the next one is.
fn run_due() -> Option<Instant> {
    loop {
        let mut queue = QUEUE.lock();
        let (&(due, id), _) = queue.first_key_value()?;
        if due > Instant::now().0 {
            return Some(Instant(due));
        }
        let timer = queue.remove(&(due, id)).and_then(|t| t.upgrade());
        if let Some(t) = &timer {
            t.due.store(u64::MAX, Relaxed);
        }
        drop(queue);
        if let Some(t) = timer {
            (t.action)();
        }
        thread::cond_resched();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn timers_run_in_order_and_can_be_taken_back() {
        start().unwrap();
        let (tx, rx) = mpsc::channel();
        let tx = std::sync::Mutex::new(tx);
        let tx = Arc::new(tx);
        let at = |n: u32| {
            let tx = tx.clone();
            Timer::new(move || tx.lock().unwrap().send(n).unwrap())
        };
        let (a, b, c) = (at(1), at(2), at(3));
        let now = Instant::now();
        a.set(Some(now.after(Duration::from_millis(60))));
        b.set(Some(now.after(Duration::from_millis(20))));
        c.set(Some(now.after(Duration::from_millis(40))));
        c.set(None);
        assert_eq!([rx.recv().unwrap(), rx.recv().unwrap()], [2, 1]);
        assert!(rx.recv_timeout(Duration::from_millis(50)).is_err());
        assert_eq!(a.due(), None);
    }
}
