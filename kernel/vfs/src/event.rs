//! Readiness: what `poll`, `select` and `epoll` wait for.
//!
//! A pollable object embeds a [`PollHub`]. It changes its state first and calls
//! [`PollHub::notify`] then; with nobody watching that costs two loads. Whoever
//! blocks inside a `read` sleeps in the hub's wait queues; `poll` and `epoll`
//! hang an [`Observer`] into it.
//!
//! Locks: an observer is called with the hub's list locked. It may take spin
//! locks of its own and notify further hubs, but never a lock under which
//! somebody calls [`PollHub::watch`] or [`PollHub::unwatch`].

use crate::error::{Error, Result};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::sync::SpinLock;
use machine::wait::{Until, WaitQueue};

bitflags! {
    /// Readiness of a file, with the bits of poll(2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Events: u32 {
        /// There is something to read, or the end.
        const IN = 0x1;
        /// Something exceptional, such as urgent data.
        const PRI = 0x2;
        /// Writing will not block.
        const OUT = 0x4;
        /// An error is pending, or nobody reads the pipe.
        const ERR = 0x8;
        /// The other side is gone.
        const HUP = 0x10;
        /// Not an open descriptor.
        const NVAL = 0x20;
        /// As `IN`.
        const RDNORM = 0x40;
        /// Priority band data.
        const RDBAND = 0x80;
        /// As `OUT`.
        const WRNORM = 0x100;
        /// Priority data may be written.
        const WRBAND = 0x200;
        /// The peer has shut down its writing half.
        const RDHUP = 0x2000;
    }
}

impl Events {
    /// What is reported whether asked for or not.
    pub const ALWAYS: Events = Events::ERR.union(Events::HUP);
    /// Readable, under both names.
    pub const READABLE: Events = Events::IN.union(Events::RDNORM);
    /// Writable, under both names.
    pub const WRITABLE: Events = Events::OUT.union(Events::WRNORM);
    /// What ends a wait for something to read.
    const WAKES_READERS: Events = Events::READABLE
        .union(Events::ALWAYS)
        .union(Events::PRI)
        .union(Events::RDBAND)
        .union(Events::RDHUP);
    /// What ends a wait for room to write.
    const WAKES_WRITERS: Events = Events::WRITABLE.union(Events::ALWAYS).union(Events::WRBAND);
}

/// Somebody who wants to hear of readiness.
pub trait Observer: Send + Sync {
    /// `events` may have become true. Whether the observer did something with the
    /// news: of several exclusive observers only the first to say yes hears it.
    fn notify(&self, events: Events) -> bool;
}

/// Where an observer hangs in a hub, for taking it out again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch(usize);

struct Watcher {
    observer: Arc<dyn Observer>,
    interest: Events,
    exclusive: bool,
}

#[derive(Default)]
struct Watchers {
    /// Slots; a free one waits in `free`, so that adding and removing are O(1).
    slots: Vec<Option<Watcher>>,
    free: Vec<usize>,
    /// Where the search for an exclusive observer begins, so that they take turns.
    turn: usize,
}

/// The readiness side of a pollable object.
#[derive(Default)]
pub struct PollHub {
    readers: WaitQueue,
    writers: WaitQueue,
    watching: AtomicUsize,
    watchers: SpinLock<Watchers>,
}

impl PollHub {
    /// A hub nobody watches.
    #[must_use]
    pub const fn new() -> PollHub {
        PollHub {
            readers: WaitQueue::new(),
            writers: WaitQueue::new(),
            watching: AtomicUsize::new(0),
            watchers: SpinLock::new(Watchers {
                slots: Vec::new(),
                free: Vec::new(),
                turn: 0,
            }),
        }
    }

    /// Tells all who wait or watch that `events` may hold now. Call it after the
    /// change, never with a lock held that a `poll` implementation takes while it
    /// is being watched.
    #[inline]
    pub fn notify(&self, events: Events) {
        if events.intersects(Events::WAKES_READERS) {
            self.readers.wake_all();
        }
        if events.intersects(Events::WAKES_WRITERS) {
            self.writers.wake_all();
        }
        self.tell(events);
    }

    /// As [`PollHub::notify`], but wakes only one of the threads blocked in a read
    /// (or a write): for news that one of them uses up, such as a connection to
    /// accept. Whoever leaves some over passes the news on.
    #[inline]
    pub fn notify_one(&self, events: Events) {
        if events.intersects(Events::WAKES_READERS) {
            self.readers.wake_one();
        }
        if events.intersects(Events::WAKES_WRITERS) {
            self.writers.wake_one();
        }
        self.tell(events);
    }

    /// Wakes one more blocked thread, because the last one left something over.
    #[inline]
    pub fn pass_on(&self, events: Events) {
        if events.intersects(Events::WAKES_READERS) {
            self.readers.wake_one();
        }
        if events.intersects(Events::WAKES_WRITERS) {
            self.writers.wake_one();
        }
    }

    #[inline]
    fn tell(&self, events: Events) {
        // The wait queues' fence has ordered the change before this load;
        // `watch` raises the count before the watcher looks at the state.
        if self.watching.load(Ordering::SeqCst) != 0 {
            self.tell_watchers(events);
        }
    }

    #[cold]
    fn tell_watchers(&self, events: Events) {
        let mut list = self.watchers.lock();
        let wanted = |w: &Watcher| events.intersects(w.interest.union(Events::ALWAYS));
        for w in list.slots.iter().flatten() {
            if !w.exclusive && wanted(w) {
                w.observer.notify(events);
            }
        }
        let (n, first) = (list.slots.len(), list.turn);
        for i in 0..n {
            let at = (first + i) % n;
            if let Some(w) = list.slots.get(at).and_then(Option::as_ref)
                && w.exclusive
                && wanted(w)
                && w.observer.notify(events)
            {
                list.turn = (at + 1) % n;
                return;
            }
        }
    }

    /// Hangs `observer` in for `interest` ([`Events::ALWAYS`] is implied). The
    /// caller looks at the object's readiness after that, not before.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn watch(
        &self,
        observer: Arc<dyn Observer>,
        interest: Events,
        exclusive: bool,
    ) -> Result<Watch> {
        let watcher = Some(Watcher {
            observer,
            interest,
            exclusive,
        });
        let mut list = self.watchers.lock();
        let at = match list.free.pop() {
            Some(at) => at,
            None => {
                let n = list.slots.len();
                list.slots.try_reserve(1)?;
                // So that taking it out again cannot fail.
                list.free.try_reserve(n + 1)?;
                list.slots.push(None);
                n
            }
        };
        if let Some(slot) = list.slots.get_mut(at) {
            *slot = watcher;
        }
        self.watching.fetch_add(1, Ordering::SeqCst);
        Ok(Watch(at))
    }

    /// Changes what the observer at `watch` hears of.
    pub fn rewatch(&self, watch: Watch, interest: Events) {
        if let Some(Some(w)) = self.watchers.lock().slots.get_mut(watch.0) {
            w.interest = interest;
        }
    }

    /// Takes an observer out. It hears nothing after this returns.
    pub fn unwatch(&self, watch: Watch) {
        let mut list = self.watchers.lock();
        let gone = list.slots.get_mut(watch.0).and_then(Option::take);
        if gone.is_some() {
            list.free.push(watch.0);
            self.watching.fetch_sub(1, Ordering::SeqCst);
        }
        drop(list);
    }

    /// Sleeps until `cond` gives something, looking again at every notification
    /// that concerns reading.
    ///
    /// # Errors
    /// [`Error::Interrupted`] or [`Error::TimedOut`].
    #[inline]
    pub fn wait_readable<T>(&self, until: Until, cond: impl FnMut() -> Option<T>) -> Result<T> {
        self.readers.wait_until(until, cond).map_err(Error::from)
    }

    /// As [`PollHub::wait_readable`] for notifications that concern writing.
    ///
    /// # Errors
    /// [`Error::Interrupted`] or [`Error::TimedOut`].
    #[inline]
    pub fn wait_writable<T>(&self, until: Until, cond: impl FnMut() -> Option<T>) -> Result<T> {
        self.writers.wait_until(until, cond).map_err(Error::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;

    #[derive(Default)]
    struct Seen(AtomicU32);
    impl Observer for Seen {
        fn notify(&self, _: Events) -> bool {
            self.0.fetch_add(1, Ordering::Relaxed);
            true
        }
    }

    #[test]
    fn watchers_hear_what_they_asked_for() {
        let hub = PollHub::new();
        let (a, b) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
        let wa = hub.watch(a.clone(), Events::IN, false).unwrap();
        hub.watch(b.clone(), Events::OUT, false).unwrap();
        hub.notify(Events::IN);
        hub.notify(Events::HUP);
        hub.unwatch(wa);
        hub.notify(Events::HUP);
        let n = |s: &Seen| s.0.load(Ordering::Relaxed);
        assert_eq!((n(&a), n(&b)), (2, 2));
    }

    #[test]
    fn exclusive_watchers_take_turns() {
        let hub = PollHub::new();
        let all: Vec<_> = (0..3).map(|_| Arc::new(Seen::default())).collect();
        for s in &all {
            hub.watch(s.clone(), Events::IN, true).unwrap();
        }
        for _ in 0..6 {
            hub.notify(Events::IN);
        }
        assert!(all.iter().all(|s| s.0.load(Ordering::Relaxed) == 2));
    }
}
