//! Wait queues: threads that sleep until a condition holds.
//!
//! A waiter checks its condition, joins the queue, checks again, and parks; a
//! waker changes the state first and wakes then. So no wake-up is lost, and the
//! condition is always judged by the waiter itself.
//!
//! Invariant: a node is in the list of exactly one queue, under that queue's
//! lock, and leaves the list before the stack frame that holds it ends.

use crate::error::WaitError;
use crate::sync::IrqLock;
use crate::thread::{self, Thread};
use crate::time::Instant;
use alloc::sync::Arc;
use core::cell::Cell;
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// How a wait may end early.
#[derive(Clone, Copy, Debug, Default)]
pub struct Until {
    /// Give up at this time with [`WaitError::TimedOut`].
    pub deadline: Option<Instant>,
    /// Give up with [`WaitError::Interrupted`] when the thread gets a signal.
    pub interruptible: bool,
}

impl Until {
    /// Ends by a signal only.
    pub const INTERRUPTED: Until = Until {
        deadline: None,
        interruptible: true,
    };

    /// Ends by a signal or at `deadline`, if there is one.
    #[must_use]
    pub const fn deadline(deadline: Option<Instant>) -> Until {
        Until {
            deadline,
            interruptible: true,
        }
    }
}

/// A queue of waiting threads. Waking may be done from anywhere, interrupt
/// handlers included.
pub struct WaitQueue {
    list: IrqLock<List>,
    /// Length of the list, so that waking an empty queue takes no lock.
    len: AtomicUsize,
}

struct List {
    head: *const Node,
    tail: *const Node,
}

// SAFETY: the pointers are followed only under the queue's lock, and lead to
// nodes that live while they are in the list (see the module's invariant).
unsafe impl Send for List {}

struct Node {
    thread: Arc<Thread>,
    next: Cell<*const Node>,
    prev: Cell<*const Node>,
    queued: Cell<bool>,
}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new() -> Self {
        WaitQueue {
            list: IrqLock::new(List {
                head: ptr::null(),
                tail: ptr::null(),
            }),
            len: AtomicUsize::new(0),
        }
    }

    /// Sleeps until `cond` gives something, whatever else happens.
    #[expect(clippy::unreachable, reason = "there is no value to go on with")]
    pub fn wait<T>(&self, cond: impl FnMut() -> Option<T>) -> T {
        match self.wait_until(Until::default(), cond) {
            Ok(v) => v,
            // Without a deadline and uninterruptible, a wait has no other end.
            Err(_) => unreachable!("a plain wait ended early"),
        }
    }

    /// Sleeps until `cond` gives something or `until` ends the wait. `cond` may
    /// be called several times, also without a wake-up; it may itself wait.
    ///
    /// # Errors
    /// [`WaitError`], after `cond` was tried a last time.
    pub fn wait_until<T>(
        &self,
        until: Until,
        mut cond: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        if let Some(v) = cond() {
            return Ok(v);
        }
        let node = Node {
            thread: thread::current().to_arc(),
            next: Cell::new(ptr::null()),
            prev: Cell::new(ptr::null()),
            queued: Cell::new(false),
        };
        // The guard takes the node out of the list however this frame ends.
        let here = Enqueued {
            queue: self,
            node: &node,
        };
        loop {
            here.join();
            if let Some(v) = cond() {
                return Ok(v);
            }
            let ended = thread::park(until);
            if let Err(e) = ended {
                return cond().ok_or(e);
            }
        }
    }

    /// Wakes the thread that has waited longest. Whether there was one.
    pub fn wake_one(&self) -> bool {
        if self.is_empty() {
            return false;
        }
        self.wake_first(&mut self.list.lock())
    }

    /// Wakes every waiting thread; how many there were.
    pub fn wake_all(&self) -> usize {
        let mut n = 0;
        if self.is_empty() {
            return n;
        }
        let mut list = self.list.lock();
        while self.wake_first(&mut list) {
            n += 1;
        }
        n
    }

    /// Whether nobody waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // The waker has just changed the state that waiters check; this fence
        // orders that change before the look at the length, as `join` orders the
        // length before the check. One of the two sees the other.
        core::sync::atomic::fence(Ordering::SeqCst);
        self.len.load(Ordering::Relaxed) == 0
    }

    /// Wakes the first of the list; whether there was one. Under the lock, without which the
    /// woken one cannot leave its wait: a reference of its own would keep the thread no longer
    /// alive than that, and might be the last one, to be dropped in an interrupt handler.
    fn wake_first(&self, list: &mut List) -> bool {
        // SAFETY: a node in the list is alive, and the list is locked.
        let Some(node) = (unsafe { list.head.as_ref() }) else {
            return false;
        };
        self.unlink(list, node);
        node.thread.unpark();
        true
    }

    fn unlink(&self, list: &mut List, node: &Node) {
        let (prev, next) = (node.prev.get(), node.next.get());
        // SAFETY: neighbours of a listed node are listed, so alive; list locked.
        match unsafe { prev.as_ref() } {
            Some(p) => p.next.set(next),
            None => list.head = next,
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            Some(n) => n.prev.set(prev),
            None => list.tail = prev,
        }
        node.queued.set(false);
        self.len.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        Self::new()
    }
}

struct Enqueued<'a> {
    queue: &'a WaitQueue,
    node: &'a Node,
}

impl Enqueued<'_> {
    fn join(&self) {
        let mut list = self.queue.list.lock();
        if !self.node.queued.get() {
            let node: *const Node = self.node;
            self.node.next.set(ptr::null());
            self.node.prev.set(list.tail);
            // SAFETY: the tail is listed, so alive, and the list is locked.
            match unsafe { list.tail.as_ref() } {
                Some(tail) => tail.next.set(node),
                None => list.head = node,
            }
            list.tail = node;
            self.node.queued.set(true);
            self.queue.len.fetch_add(1, Ordering::Relaxed);
        }
        drop(list);
        core::sync::atomic::fence(Ordering::SeqCst);
    }
}

impl Drop for Enqueued<'_> {
    fn drop(&mut self) {
        let mut list = self.queue.list.lock();
        if self.node.queued.get() {
            self.queue.unlink(&mut list, self.node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_deadline_ends_the_wait() {
        let q = WaitQueue::new();
        let until = Until::deadline(Some(Instant::now().after(Duration::from_millis(10))));
        assert_eq!(q.wait_until(until, || None::<()>), Err(WaitError::TimedOut));
        assert!(q.is_empty());
    }

    #[test]
    fn every_hand_over_arrives() {
        static TURN: AtomicU32 = AtomicU32::new(0);
        static Q: WaitQueue = WaitQueue::new();
        let side = |me: u32| {
            move || {
                for i in 0..2_000 {
                    let want = 2 * i + me;
                    Q.wait(|| (TURN.load(Ordering::SeqCst) == want).then_some(()));
                    TURN.store(want + 1, Ordering::SeqCst);
                    Q.wake_all();
                }
            }
        };
        let a = std::thread::spawn(side(0));
        let b = std::thread::spawn(side(1));
        a.join().unwrap();
        b.join().unwrap();
        assert_eq!(TURN.load(Ordering::SeqCst), 4_000);
    }

    #[test]
    fn attention_interrupts_a_wait() {
        let q = Arc::new(WaitQueue::new());
        let (tx, rx) = std::sync::mpsc::channel();
        let q2 = q.clone();
        let t = std::thread::spawn(move || {
            tx.send(thread::current().to_arc()).unwrap();
            q2.wait_until(Until::INTERRUPTED, || None::<()>)
        });
        rx.recv().unwrap().raise_attention();
        assert_eq!(t.join().unwrap(), Err(WaitError::Interrupted));
    }
}
