//! The queue of connections that wait to be accepted (listen(2)).

use crate::error::Result;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::sync::SpinLock;
use machine::wait::WaitQueue;
use vfs::{Events, PollHub};

/// The largest backlog (`net.core.somaxconn`).
pub const BACKLOG_MAX: usize = 4096;

/// A connection that waits to be accepted.
pub trait Pending {
    /// It has moved into the backlog: the connecting side may go on.
    fn admitted(&self);
    /// The listener was closed: it will never be accepted.
    fn refused(&self);
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is in the backlog.
    Admitted,
    /// The backlog is full; it waits in a second queue, as a SYN would be sent
    /// again and again.
    Waits,
}

struct Queues<P> {
    ready: VecDeque<P>,
    waiting: VecDeque<P>,
    backlog: usize,
    closed: bool,
}

/// Connections in order of arrival.
pub struct AcceptQueue<P> {
    hub: Arc<PollHub>,
    queues: SpinLock<Queues<P>>,
    ready: AtomicUsize,
    /// Connectors that found the backlog full and want to try again.
    room: WaitQueue,
}

impl<P: Pending> AcceptQueue<P> {
    /// A queue for `backlog` connections; `hub` is told of new ones.
    #[must_use]
    pub fn new(hub: Arc<PollHub>, backlog: usize) -> AcceptQueue<P> {
        AcceptQueue {
            hub,
            queues: SpinLock::new(Queues {
                ready: VecDeque::new(),
                waiting: VecDeque::new(),
                backlog: backlog.min(BACKLOG_MAX),
                closed: false,
            }),
            ready: AtomicUsize::new(0),
            room: WaitQueue::new(),
        }
    }

    /// Changes the backlog (a second `listen`).
    pub fn set_backlog(&self, backlog: usize) {
        self.queues.lock().backlog = backlog.min(BACKLOG_MAX);
    }

    /// The backlog, and how many wait in it.
    #[must_use]
    pub fn depth(&self) -> (usize, usize) {
        (self.queues.lock().backlog, self.len())
    }

    /// How many wait to be accepted.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.ready.load(Ordering::Acquire)
    }

    /// Whether nobody waits to be accepted.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether one more would be admitted. Like Linux, a backlog of `n` admits
    /// `n + 1`.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let q = self.queues.lock();
        !q.closed && q.ready.len() <= q.backlog
    }

    /// Takes a connection in. With `may_wait`, one that finds the backlog full
    /// waits in the second queue, which is as long as the first.
    ///
    /// # Errors
    /// The connection itself if the listener is closed or all is full.
    pub fn offer(&self, pending: P, may_wait: bool) -> core::result::Result<Offer, P> {
        let mut q = self.queues.lock();
        if q.closed {
            return Err(pending);
        }
        let (line, offer) = if q.ready.len() <= q.backlog {
            (&mut q.ready, Offer::Admitted)
        } else if may_wait && q.waiting.len() <= q.backlog.max(64) {
            (&mut q.waiting, Offer::Waits)
        } else {
            return Err(pending);
        };
        if line.try_reserve(1).is_err() {
            return Err(pending);
        }
        // It is told before anybody can accept it.
        if offer == Offer::Admitted {
            pending.admitted();
        }
        line.push_back(pending);
        self.ready.store(q.ready.len(), Ordering::Release);
        drop(q);
        if offer == Offer::Admitted {
            self.hub.notify_one(Events::READABLE);
        }
        Ok(offer)
    }

    /// Takes the connection that has waited longest.
    #[must_use]
    pub fn accept(&self) -> Option<P> {
        let mut q = self.queues.lock();
        let first = q.ready.pop_front()?;
        let mut promoted = false;
        if let Some(next) = q.waiting.pop_front() {
            next.admitted();
            // The place that has just become free.
            q.ready.push_back(next);
            promoted = true;
        }
        self.ready.store(q.ready.len(), Ordering::Release);
        drop(q);
        self.room.wake_one();
        if promoted {
            self.hub.notify_one(Events::READABLE);
        }
        Some(first)
    }

    /// Sleeps until there may be room, the listener closes, or `until`.
    ///
    /// # Errors
    /// As [`WaitQueue::wait_until`].
    pub fn wait_room(&self, until: machine::wait::Until) -> Result<()> {
        let open = || {
            let q = self.queues.lock();
            (q.closed || q.ready.len() <= q.backlog).then_some(())
        };
        Ok(self.room.wait_until(until, open)?)
    }

    /// Whether it was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queues.lock().closed
    }

    /// Refuses everybody, now and later.
    pub fn close(&self) {
        let mut q = self.queues.lock();
        q.closed = true;
        let ready = core::mem::take(&mut q.ready);
        let waiting = core::mem::take(&mut q.waiting);
        self.ready.store(0, Ordering::Release);
        drop(q);
        for p in ready.into_iter().chain(waiting) {
            p.refused();
        }
        self.room.wake_all();
        self.hub
            .notify(Events::READABLE | Events::HUP | Events::RDHUP);
    }

    /// Shows `f` every connection that waits.
    pub(crate) fn for_each(&self, mut f: impl FnMut(&P)) {
        let q = self.queues.lock();
        q.ready.iter().chain(&q.waiting).for_each(&mut f);
    }
}
