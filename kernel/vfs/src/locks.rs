//! Locks on files: flock(2), and the record locks of fcntl(2), POSIX and "open
//! file description" ones.
//!
//! They hang on the inode ([`crate::Attr::locks`]) and are advisory: nothing but
//! other locks ever waits for them.

use crate::error::{Error, Result};
use crate::leases::Leases;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use machine::sync::SpinLock;
use machine::wait::{Until, WaitQueue};
use machine::{Account, Objects};

/// Ranges that one inode can have locked: each is kernel memory.
const RANGES_MAX: usize = 10_000;
/// Steps of the search for a deadlock; a longer chain is not found, as on Linux.
const CHAIN_MAX: usize = 32;

/// Who holds a record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A process, by its descriptor table ([`crate::FdTable::id`]).
    Process(u64),
    /// An open file description ([`crate::OpenFile::id`]).
    Description(u64),
}

/// A locked range; `end` is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it.
    pub owner: Owner,
    /// Its process, for `F_GETLK`; -1 for a description's.
    pub pid: i32,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// A write lock, which tolerates no other.
    pub exclusive: bool,
}

impl Record {
    fn conflicts(&self, other: &Record) -> bool {
        self.owner != other.owner
            && (self.exclusive || other.exclusive)
            && self.start < other.end
            && other.start < self.end
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Whole {
    description: u64,
    exclusive: bool,
}

struct Records {
    list: Vec<Record>,
    memory: Objects,
}

/// The locks of one inode.
pub struct FileLocks {
    /// At most one for each open file.
    whole: SpinLock<Vec<Whole>>,
    records: SpinLock<Records>,
    /// Locks of either kind, so that closing a file looks at one number.
    count: AtomicUsize,
    queue: WaitQueue,
    leases: Leases,
}

/// Which process waits for which.
static WAITING: SpinLock<BTreeMap<Owner, Owner>> = SpinLock::new(BTreeMap::new());

impl FileLocks {
    /// No locks yet; `account` will pay for them.
    #[must_use]
    pub fn new(account: Arc<Account>) -> FileLocks {
        FileLocks {
            whole: SpinLock::new(Vec::new()),
            records: SpinLock::new(Records {
                list: Vec::new(),
                memory: Objects::new(account, size_of::<Record>()),
            }),
            count: AtomicUsize::new(0),
            queue: WaitQueue::new(),
            leases: Leases::default(),
        }
    }

    /// The leases on the file, which are kept beside its locks.
    #[must_use]
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// `flock`: `None` unlocks.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] unless it may `wait`; [`Error::Interrupted`];
    /// [`Error::NoLocks`].
    pub fn flock(&self, description: u64, exclusive: Option<bool>, wait: bool) -> Result<()> {
        let Some(exclusive) = exclusive else {
            self.unlock_whole(description);
            return Ok(());
        };
        let new = Whole {
            description,
            exclusive,
        };
        // Changing the kind of a lock gives the old one up first (flock(2)).
        if self.try_flock(new)? {
            return Ok(());
        }
        if !wait {
            return Err(Error::WouldBlock);
        }
        self.unlock_whole(description);
        self.queue
            .wait_until(Until::INTERRUPTED, || match self.try_flock(new) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(e) => Some(Err(e)),
            })?
    }

    fn try_flock(&self, new: Whole) -> Result<bool> {
        let mut whole = self.whole.lock();
        let others = |w: &&Whole| w.description != new.description;
        if whole
            .iter()
            .filter(others)
            .any(|w| w.exclusive || new.exclusive)
        {
            return Ok(false);
        }
        match whole.iter_mut().find(|w| w.description == new.description) {
            Some(w) => {
                let eased = w.exclusive && !new.exclusive;
                *w = new;
                drop(whole);
                if eased {
                    self.queue.wake_all();
                }
            }
            None => {
                if whole.len() >= RANGES_MAX {
                    return Err(Error::NoLocks);
                }
                whole.try_reserve(1)?;
                whole.push(new);
                self.count.fetch_add(1, Relaxed);
            }
        }
        Ok(true)
    }

    fn unlock_whole(&self, description: u64) {
        let mut whole = self.whole.lock();
        let before = whole.len();
        whole.retain(|w| w.description != description);
        self.count.fetch_sub(before - whole.len(), Relaxed);
        drop(whole);
        self.queue.wake_all();
    }

    /// Of the locks that keep `wanted` from being had, the one that begins first
    /// (`F_GETLK`).
    #[must_use]
    pub fn conflict(&self, wanted: &Record) -> Option<Record> {
        let records = self.records.lock();
        let others = records.list.iter().filter(|r| r.conflicts(wanted));
        others.min_by_key(|r| r.start).copied()
    }

    /// Takes the lock `wanted` (`F_SETLK`, with `wait` `F_SETLKW`).
    ///
    /// # Errors
    /// [`Error::WouldBlock`], [`Error::Deadlock`], [`Error::Interrupted`],
    /// [`Error::NoLocks`].
    pub fn lock(&self, wanted: &Record, wait: bool) -> Result<()> {
        match self.try_lock(wanted) {
            Err(Error::WouldBlock) if wait => {}
            done => return done,
        }
        let done = self.queue.wait_until(Until::INTERRUPTED, || {
            let tried = self.try_lock(wanted);
            if tried == Err(Error::WouldBlock) {
                return self.note_wait(wanted).err().map(Err);
            }
            Some(tried)
        });
        if let Owner::Process(_) = wanted.owner {
            WAITING.lock().remove(&wanted.owner);
        }
        done?
    }

    /// Notes for whom a process waits, unless they would wait for each other.
    fn note_wait(&self, wanted: &Record) -> Result<()> {
        let Owner::Process(_) = wanted.owner else {
            return Ok(());
        };
        let Some(holder) = self.conflict(wanted).map(|r| r.owner) else {
            return Ok(());
        };
        let mut waiting = WAITING.lock();
        let mut at = holder;
        for _ in 0..CHAIN_MAX {
            if at == wanted.owner {
                return Err(Error::Deadlock);
            }
            match waiting.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        waiting.insert(wanted.owner, holder);
        Ok(())
    }

    fn try_lock(&self, wanted: &Record) -> Result<()> {
        let mut guard = self.records.lock();
        let Records { list, memory } = &mut *guard;
        if list.iter().any(|r| r.conflicts(wanted)) {
            return Err(Error::WouldBlock);
        }
        let before = list.len();
        // Splitting an old lock and adding the new one needs two more at most.
        if before + 2 > RANGES_MAX || memory.set(before + 2).is_err() {
            return Err(Error::NoLocks);
        }
        list.try_reserve(2)?;
        cut(list, wanted.owner, wanted.start, wanted.end);
        let mut new = *wanted;
        // Neighbours of the same kind become one, so that a file written record
        // by record does not collect locks.
        list.retain(|r| {
            let touches = r.end == new.start || r.start == new.end;
            let joins = r.owner == new.owner && r.exclusive == new.exclusive && touches;
            if joins {
                new.start = new.start.min(r.start);
                new.end = new.end.max(r.end);
            }
            !joins
        });
        list.push(new);
        self.recount(before, &mut guard);
        drop(guard);
        self.queue.wake_all();
        Ok(())
    }

    /// Unlocks `start..end`.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if a lock has to be split.
    pub fn unlock(&self, owner: Owner, start: u64, end: u64) -> Result<()> {
        let mut records = self.records.lock();
        let before = records.list.len();
        records.list.try_reserve(1)?;
        cut(&mut records.list, owner, start, end);
        self.recount(before, &mut records);
        drop(records);
        self.queue.wake_all();
        Ok(())
    }

    /// Releases all of `owner`'s records, and with a description its `flock`.
    pub fn release(&self, owner: Owner) {
        if let Owner::Description(id) = owner {
            self.leases.closed(id);
        }
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let mut records = self.records.lock();
        let before = records.list.len();
        records.list.retain(|r| r.owner != owner);
        self.recount(before, &mut records);
        drop(records);
        if let Owner::Description(id) = owner {
            self.unlock_whole(id);
        }
        self.queue.wake_all();
    }

    fn recount(&self, before: usize, records: &mut Records) {
        let after = records.list.len();
        if after == 0 {
            records.list = Vec::new();
        }
        // A file that is unlocked in pieces may for once have one range more than
        // could be paid for.
        let _ = records.memory.set(after);
        if after > before {
            self.count.fetch_add(after - before, Relaxed);
        } else {
            self.count.fetch_sub(before - after, Relaxed);
        }
    }
}

/// Takes `start..end` out of `owner`'s locks. Needs room for one more.
fn cut(records: &mut Vec<Record>, owner: Owner, start: u64, end: u64) {
    let mut tail = None;
    for r in records.iter_mut() {
        if r.owner != owner || r.end <= start || end <= r.start {
            continue;
        }
        if r.start < start && end < r.end {
            tail = Some(Record { start: end, ..*r });
            r.end = start;
        } else if r.start < start {
            r.end = start;
        } else if end < r.end {
            r.start = end;
        } else {
            r.end = r.start;
        }
    }
    records.retain(|r| r.start < r.end);
    records.extend(tail);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::thread;

    fn locks() -> FileLocks {
        FileLocks::new(Arc::new(Account::new(10).unwrap()))
    }

    fn record(owner: u64, start: u64, end: u64, exclusive: bool) -> Record {
        Record {
            owner: Owner::Process(owner),
            pid: 1,
            start,
            end,
            exclusive,
        }
    }

    proptest! {
        #[test]
        fn records_behave_like_bytes(
            ops in prop::collection::vec((0..3u64, 0..16u64, 1..8u64, 0..3u8), 1..60)
        ) {
            let locks = locks();
            // Per byte and owner: 0 none, 1 read, 2 write.
            let mut model = [[0u8; 3]; 32];
            for (who, start, len, kind) in ops {
                let range = start as usize..(start + len) as usize;
                if kind == 0 {
                    locks.unlock(Owner::Process(who), start, start + len).unwrap();
                    model[range].iter_mut().for_each(|b| b[who as usize] = 0);
                    continue;
                }
                let free = model[range.clone()].iter().all(|b| {
                    (0..3).all(|o| o == who as usize || b[o] == 0 || (kind == 1 && b[o] == 1))
                });
                let got = locks.lock(&record(who, start, start + len, kind == 2), false);
                prop_assert_eq!(got.is_ok(), free);
                if free {
                    model[range].iter_mut().for_each(|b| b[who as usize] = kind);
                }
                for (i, b) in model.iter().enumerate() {
                    for asker in 0..3 {
                        let probe = record(asker, i as u64, i as u64 + 1, true);
                        let held = (0..3).any(|o| o != asker as usize && b[o] != 0);
                        prop_assert_eq!(locks.conflict(&probe).is_some(), held);
                    }
                }
            }
            for who in 0..3 {
                locks.release(Owner::Process(who));
            }
            prop_assert_eq!(locks.count.load(Relaxed), 0);
        }
    }

    #[test]
    fn a_deadlock_is_refused() {
        let a = Arc::new(locks());
        a.lock(&record(101, 0, 1, true), false).unwrap();
        a.lock(&record(102, 1, 2, true), false).unwrap();
        let other = a.clone();
        let t = thread::spawn(move || other.lock(&record(101, 1, 2, true), true));
        while WAITING.lock().get(&Owner::Process(101)).is_none() {
            thread::yield_now();
        }
        assert_eq!(a.lock(&record(102, 0, 1, true), true), Err(Error::Deadlock));
        a.release(Owner::Process(102));
        assert_eq!(t.join().unwrap(), Ok(()));
    }

    #[test]
    fn flock_waits_for_all_readers() {
        let l = Arc::new(locks());
        l.flock(1, Some(false), false).unwrap();
        l.flock(2, Some(false), false).unwrap();
        assert_eq!(l.flock(3, Some(true), false), Err(Error::WouldBlock));
        let other = l.clone();
        let t = thread::spawn(move || other.flock(3, Some(true), true));
        l.flock(1, None, false).unwrap();
        l.release(Owner::Description(2));
        assert_eq!(t.join().unwrap(), Ok(()));
        assert_eq!(l.flock(1, Some(false), false), Err(Error::WouldBlock));
    }

    #[test]
    fn ranges_are_paid_for() {
        let account = Arc::new(Account::new(1).unwrap());
        let l = FileLocks::new(account.clone());
        let take = |n: u64| l.lock(&record(1, 2 * n, 2 * n + 1, true), false);
        let refused = (0..).find(|n| take(*n) == Err(Error::NoLocks)).unwrap();
        assert!(refused >= 4096 / size_of::<Record>() as u64);
        assert_eq!(account.used(), 1);
        l.release(Owner::Process(1));
        assert_eq!(account.used(), 0);
        take(0).unwrap();
        assert_eq!(account.used(), 0);
    }
}
