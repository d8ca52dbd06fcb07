//! Leases (fcntl(2), "Leases"): whoever holds one on a file is told before somebody
//! else opens or truncates it in a way that does not go with it, and has a while to
//! put its copy of the file in order; the other one waits.
//!
//! They hang beside the file's locks. An open counts as a writer before it looks here,
//! and a lease is entered here before writers are counted: one of both sees the other.

use crate::error::{Error, Result};
use crate::event::{Events, Observer};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::sync::SpinLock;
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};

/// How long a holder has (`fs.lease-break-time`).
pub const BREAK_TIME: Duration = Duration::from_secs(45);

/// What a lease keeps others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lease {
    /// Opening for writing, and truncating (`F_RDLCK`).
    Read,
    /// Opening at all (`F_WRLCK`).
    Write,
}

struct Held {
    /// The open file description, by number.
    description: u64,
    kind: Lease,
    /// What may be left of it, and when it is taken, once somebody wants more.
    ends: Option<(Option<Lease>, Instant)>,
    observer: Arc<dyn Observer>,
}

/// The leases of one file.
#[derive(Default)]
pub struct Leases {
    held: SpinLock<Vec<Held>>,
    queue: WaitQueue,
}

impl Leases {
    /// The lease of the description of that number; what may be left of it while
    /// somebody waits for it.
    #[must_use]
    pub fn of(&self, description: u64) -> Option<Lease> {
        let held = self.held.lock();
        let own = held.iter().find(|h| h.description == description)?;
        own.ends.map_or(Some(own.kind), |(left, _)| left)
    }

    /// Takes a lease, or changes the one the description has; `fits` says whether
    /// nobody has the file open otherwise.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] where it does not go with what others have;
    /// [`Error::NoMemory`].
    pub fn take(
        &self,
        description: u64,
        kind: Lease,
        observer: Arc<dyn Observer>,
        fits: impl FnOnce() -> bool,
    ) -> Result<()> {
        let mut held = self.held.lock();
        let others = |h: &Held| h.description != description;
        let foreign = |h: &Held| others(h) && (kind == Lease::Write || h.kind == Lease::Write);
        if held.iter().any(foreign) {
            return Err(Error::WouldBlock);
        }
        let own = held.iter_mut().find(|h| h.description == description);
        let before = match own {
            Some(own) => {
                // What somebody waits for is given up, not taken anew.
                if own.ends.is_some_and(|(left, _)| left < Some(kind)) {
                    return Err(Error::WouldBlock);
                }
                own.ends = None;
                Some(core::mem::replace(&mut own.kind, kind))
            }
            None => {
                held.try_reserve(1)?;
                held.push(Held {
                    description,
                    kind,
                    ends: None,
                    observer,
                });
                None
            }
        };
        drop(held);
        // Only a lease that grows can be in somebody's way.
        if before.is_none_or(|b| b < kind) && !fits() {
            match before {
                None => self.closed(description),
                Some(before) => self.lower(description, before),
            }
            return Err(Error::WouldBlock);
        }
        self.queue.wake_all();
        Ok(())
    }

    fn lower(&self, description: u64, kind: Lease) {
        let mut held = self.held.lock();
        if let Some(own) = held.iter_mut().find(|h| h.description == description) {
            own.kind = kind;
        }
    }

    /// Gives the lease of a description back (`F_UNLCK`).
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if it has none.
    pub fn give_back(&self, description: u64) -> Result<()> {
        let gone = self.remove(description);
        gone.then_some(()).ok_or(Error::WouldBlock)
    }

    /// The description is gone.
    pub(crate) fn closed(&self, description: u64) {
        self.remove(description);
    }

    fn remove(&self, description: u64) -> bool {
        let mut held = self.held.lock();
        let at = held.iter().position(|h| h.description == description);
        let gone = at.map(|at| held.swap_remove(at));
        drop(held);
        if gone.is_some() {
            self.queue.wake_all();
        }
        gone.is_some()
    }

    /// Before the file is opened or, with `writes`, changed: tells the holders that
    /// this does not go with, and waits for them.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] unless it may `wait`; [`Error::Interrupted`].
    pub(crate) fn make_way(&self, writes: bool, wait: bool) -> Result<()> {
        if self.held.lock().is_empty() {
            return Ok(());
        }
        loop {
            let Some(until) = self.recall(writes) else {
                return Ok(());
            };
            if !wait {
                return Err(Error::WouldBlock);
            }
            let free = || self.is_free(writes).then_some(());
            match self.queue.wait_until(Until::deadline(Some(until)), free) {
                Err(machine::WaitError::Interrupted) => return Err(Error::Interrupted),
                // Whoever was too slow has lost it; others may still have time.
                Ok(()) | Err(machine::WaitError::TimedOut) => self.expire(),
            }
        }
    }

    fn is_free(&self, writes: bool) -> bool {
        let held = self.held.lock();
        !held.iter().any(|h| writes || h.kind == Lease::Write)
    }

    /// Tells all holders that are in the way and were not told yet; until when the
    /// first of them has time, or nothing if there are none.
    fn recall(&self, writes: bool) -> Option<Instant> {
        let left = (!writes).then_some(Lease::Read);
        let mut until: Option<Instant> = None;
        loop {
            let mut tell = None;
            let mut held = self.held.lock();
            for h in held.iter_mut().filter(|h| writes || h.kind == Lease::Write) {
                let told = h.ends.is_some_and(|(l, _)| l <= left);
                if !told && tell.is_some() {
                    continue;
                }
                let end = match h.ends {
                    Some((_, end)) => end,
                    None => Instant::now().after(BREAK_TIME),
                };
                if !told {
                    h.ends = Some((left, end));
                    tell = Some(h.observer.clone());
                }
                until = Some(until.map_or(end, |u| u.min(end)));
            }
            drop(held);
            // One after the other: who is told takes locks of its own.
            match tell {
                Some(observer) => observer.notify(Events::IN),
                None => return until,
            };
        }
    }

    /// Takes away what the holders that are late should have given up.
    fn expire(&self) {
        let now = Instant::now();
        let mut held = self.held.lock();
        let mut at = 0;
        while let Some(h) = held.get_mut(at) {
            match h.ends.filter(|(_, end)| *end <= now) {
                Some((None, _)) => {
                    held.swap_remove(at);
                    continue;
                }
                Some((Some(left), _)) => (h.kind, h.ends) = (left, None),
                None => {}
            }
            at += 1;
        }
        drop(held);
        self.queue.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    #[derive(Default)]
    struct Bell(AtomicU32);

    impl Observer for Bell {
        fn notify(&self, _: Events) -> bool {
            self.0.fetch_add(1, Relaxed);
            true
        }
    }

    #[test]
    fn leases_go_with_each_other_or_not() {
        let (l, bell) = (Leases::default(), Arc::new(Bell::default()));
        let take = |who, kind, fits| l.take(who, kind, bell.clone(), || fits);
        take(1, Lease::Read, true).unwrap();
        take(2, Lease::Read, true).unwrap();
        assert_eq!(take(2, Lease::Write, true), Err(Error::WouldBlock));
        l.give_back(1).unwrap();
        assert_eq!(l.give_back(1), Err(Error::WouldBlock));
        // Somebody has it open for writing.
        assert_eq!(take(2, Lease::Write, false), Err(Error::WouldBlock));
        assert_eq!(l.of(2), Some(Lease::Read));
        take(2, Lease::Write, true).unwrap();
        assert_eq!(take(1, Lease::Read, true), Err(Error::WouldBlock));
        l.closed(2);
        assert_eq!(take(3, Lease::Read, false), Err(Error::WouldBlock));
        assert_eq!((l.of(2), l.of(3)), (None, None));
        assert_eq!(bell.0.load(Relaxed), 0);
    }

    #[test]
    fn holders_are_told_once_and_waited_for() {
        let (l, bell) = (Arc::new(Leases::default()), Arc::new(Bell::default()));
        let take = |kind| l.take(1, kind, bell.clone(), || true);
        take(Lease::Write).unwrap();
        assert_eq!(l.make_way(false, false), Err(Error::WouldBlock));
        assert_eq!(l.make_way(false, false), Err(Error::WouldBlock));
        assert_eq!((bell.0.load(Relaxed), l.of(1)), (1, Some(Lease::Read)));
        // Who wants to write wants more.
        assert_eq!(l.make_way(true, false), Err(Error::WouldBlock));
        assert_eq!((bell.0.load(Relaxed), l.of(1)), (2, None));
        assert_eq!(take(Lease::Read), Err(Error::WouldBlock));
        let waits = l.clone();
        let opener = std::thread::spawn(move || waits.make_way(true, true));
        std::thread::sleep(Duration::from_millis(20));
        assert!(!opener.is_finished());
        l.give_back(1).unwrap();
        assert_eq!(opener.join().unwrap(), Ok(()));
        take(Lease::Read).unwrap();
        // A reader and a read lease go together.
        assert_eq!(l.make_way(false, false), Ok(()));
        assert_eq!(l.make_way(true, false), Err(Error::WouldBlock));
    }

    #[test]
    fn who_is_late_loses_it() {
        let (l, bell) = (Leases::default(), Arc::new(Bell::default()));
        l.take(1, Lease::Write, bell.clone(), || true).unwrap();
        assert!(l.recall(false).is_some());
        l.held.lock()[0].ends = Some((Some(Lease::Read), Instant::now()));
        l.expire();
        assert_eq!(l.of(1), Some(Lease::Read));
        assert_eq!(l.make_way(false, true), Ok(()));
        assert!(l.recall(true).is_some());
        l.held.lock()[0].ends = Some((None, Instant::now()));
        assert_eq!(l.make_way(true, true), Ok(()));
        assert_eq!(l.of(1), None);
    }
}
