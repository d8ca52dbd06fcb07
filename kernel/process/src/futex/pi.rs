//! Locks that know their owner (futex(2), "Priority-inheritance futexes").
//!
//! The word holds the owner's thread number, which programs set and clear without
//! the kernel while nobody waits. Who has to wait is queued here, and the kernel
//! hands the lock over: to the one that has waited longest, since all threads of a
//! capsule have the same priority. What the protocol promises beside priorities
//! holds: only the owner unlocks, a circle of owners that wait for each other is
//! refused, and the lock of a thread that ended passes on, marked.
//!
//! The words are read and written under the sleeping lock of [`Pi`], one for each
//! world: only contended locks come here.

use super::wait::sleep;
use super::{Token, Waiter};
use crate::{Error, Pid, Result, Thread, World};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use hashbrown::HashMap;
use machine::sync::Mutex;
use machine::thread;
use machine::user;
use machine::wait::Until;
use mm::FutexKey;

/// Threads wait for the lock.
const WAITERS: u32 = 0x8000_0000;
/// Its owner has ended.
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;
/// In a token: the lock is the waiter's; and its last owner has ended.
const HANDED: u32 = 1;
const HANDED_BY_DEATH: u32 = 2;

struct Waiting {
    tid: Pid,
    token: Arc<Token>,
    thread: Arc<thread::Thread>,
}

/// A lock that somebody waits for, or is being handed over.
struct Lock {
    owner: Pid,
    waiting: VecDeque<Waiting>,
}

#[derive(Default)]
struct Table {
    locks: HashMap<FutexKey, Lock>,
    /// What each waiting thread waits for.
    blocked: HashMap<Pid, FutexKey>,
}

/// The contended locks of a world.
#[derive(Default)]
pub struct Pi {
    table: Mutex<Table>,
    /// How many there are, so that most threads end without a look.
    count: AtomicUsize,
}

/// What a look at a lock led to.
enum Outcome {
    /// It is the caller's.
    Taken,
    /// The caller is queued.
    Queued,
}

impl Table {
    /// Whether `owner` waits, over however many locks, for one of `me`'s.
    fn circle(&self, me: Pid, owner: Pid) -> bool {
        let mut at = owner;
        // There are no circles among those who wait already, so this ends.
        while at != me {
            let lock = self.blocked.get(&at).and_then(|key| self.locks.get(key));
            match lock {
                Some(lock) => at = lock.owner,
                None => return false,
            }
        }
        true
    }

    /// What the word of a lock is set to when it passes on.
    fn next_word(&self, key: &FutexKey) -> u32 {
        let waiting = self.locks.get(key).map(|l| &l.waiting);
        let next = waiting.and_then(|w| Some((w.front()?.tid, w.len())));
        match next {
            Some((tid, 2..)) => tid | WAITERS,
            Some((tid, _)) => tid,
            None => 0,
        }
    }

    /// Makes the next waiter of a lock its owner and tells it `how`, in one go: a
    /// waiter that gives up looks at this table first. Whether there was one.
    fn hand_on(&mut self, key: &FutexKey, how: u32) -> bool {
        let Some(lock) = self.locks.get_mut(key) else {
            return false;
        };
        let Some(next) = lock.waiting.pop_front() else {
            return false;
        };
        lock.owner = next.tid;
        self.blocked.remove(&next.tid);
        next.token.woken.store(how, SeqCst);
        next.thread.unpark();
        true
    }

    /// Forgets a lock that nobody waits for.
    fn tidy(&mut self, key: &FutexKey) {
        if self.locks.get(key).is_some_and(|l| l.waiting.is_empty()) {
            self.locks.remove(key);
        }
    }
}

impl Pi {
    /// Runs `f` on the table, and notes how many locks it has then.
    fn with<R>(&self, f: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.table.lock();
        let result = f(&mut table);
        self.count.store(table.locks.len(), SeqCst);
        result
    }

    /// Takes the lock whose word is at `addr`, waiting until `until` ends it; with
    /// `try_only` it does not wait.
    ///
    /// # Errors
    /// [`Error::Deadlock`]; [`Error::TryAgain`] if it would have to wait and must
    /// not; [`Error::NoProcess`] if the owner is no thread; [`Error::Invalid`] if
    /// word and queue contradict each other; [`Error::TimedOut`],
    /// [`Error::Interrupted`], [`Error::BadAddress`].
    pub fn lock(
        &self,
        me: &Thread,
        key: FutexKey,
        addr: usize,
        until: Until,
        try_only: bool,
    ) -> Result<()> {
        let waiter = me.futex();
        let outcome = self.with(|t| enter(t, me, key, addr, try_only))?;
        if matches!(outcome, Outcome::Taken) {
            return Ok(());
        }
        let slept = sleep(&waiter.0, until);
        self.with(|t| match waiter.0.woken.load(SeqCst) {
            HANDED => {
                t.tidy(&key);
                Ok(())
            }
            HANDED_BY_DEATH => {
                let more = t.locks.get(&key).is_some_and(|l| !l.waiting.is_empty());
                t.tidy(&key);
                let mark = if more { WAITERS } else { 0 };
                claim(me, addr, me.tid() | OWNER_DIED | mark)
            }
            _ => {
                t.blocked.remove(&me.tid());
                if let Some(lock) = t.locks.get_mut(&key) {
                    lock.waiting.retain(|w| w.tid != me.tid());
                }
                t.tidy(&key);
                slept
            }
        })
    }

    /// Gives the lock whose word is at `addr` to who waits for it, or frees it.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] if it is not the caller's; [`Error::Invalid`] if word
    /// and queue contradict each other; [`Error::BadAddress`].
    pub fn unlock(&self, me: &Thread, key: FutexKey, addr: usize) -> Result<()> {
        self.with(|t| {
            let value = user::load_u32(addr)?;
            if value & TID_MASK != me.tid() {
                return Err(Error::NotPermitted);
            }
            if t.locks.get(&key).is_some_and(|l| l.owner != me.tid()) {
                return Err(Error::Invalid);
            }
            claim(me, addr, t.next_word(&key))?;
            t.hand_on(&key, HANDED);
            Ok(())
        })
    }

    /// The calling thread ends: locks of its that somebody waits for pass on.
    pub(crate) fn release_all(&self, me: &Thread) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let release = |t: &mut Table| {
            let own = |(_, l): &(&FutexKey, &Lock)| l.owner == me.tid();
            let key = t.locks.iter().find(own).map(|(k, _)| *k)?;
            if !t.hand_on(&key, HANDED_BY_DEATH) {
                t.locks.remove(&key);
            }
            Some(())
        };
        while self.with(release).is_some() {
            thread::cond_resched();
        }
    }
}

/// Gives way before a word is tried again that others changed meanwhile.
///
/// # Errors
/// [`Error::Interrupted`] if the thread has to end: others may change the word as fast
/// as it is tried, for as long as they like.
fn try_again(me: &Thread) -> Result<()> {
    thread::cond_resched();
    match me.must_end() {
        true => Err(Error::Interrupted),
        false => Ok(()),
    }
}

/// Sets the word, whoever changes it meanwhile: it is the kernel's to set.
fn claim(me: &Thread, addr: usize, new: u32) -> Result<()> {
    let mut value = user::load_u32(addr)?;
    loop {
        let found = user::compare_exchange_u32(addr, value, new)?;
        if found == value {
            return Ok(());
        }
        value = found;
        try_again(me)?;
    }
}

/// Takes a free lock, or queues the caller.
fn enter(
    t: &mut Table,
    me: &Thread,
    key: FutexKey,
    addr: usize,
    try_only: bool,
) -> Result<Outcome> {
    let tid = me.tid();
    let owner = loop {
        let value = user::load_u32(addr)?;
        let owner = value & TID_MASK;
        if owner == tid {
            return Err(Error::Deadlock);
        }
        let handed = t.locks.get(&key).map(|l| l.owner);
        match (owner, handed) {
            (0, None) => {
                let new = tid | value & OWNER_DIED;
                if user::compare_exchange_u32(addr, value, new)? == value {
                    return Ok(Outcome::Taken);
                }
                try_again(me)?;
                continue;
            }
            // Its owner has ended, and the next one has not come to write its number
            // yet. The same where the word still has that of a thread that is gone.
            (0, Some(next)) => break next,
            (owner, Some(other)) if other != owner => {
                let ended = me.process().world().thread(owner).is_none();
                if !ended {
                    return Err(Error::Invalid);
                }
                break other;
            }
            _ => {}
        }
        if try_only {
            return Err(Error::TryAgain);
        }
        if value & WAITERS == 0
            && user::compare_exchange_u32(addr, value, value | WAITERS)? != value
        {
            try_again(me)?;
            continue;
        }
        break owner;
    };
    if try_only {
        return Err(Error::TryAgain);
    }
    if me.process().world().thread(owner).is_none() {
        return Err(Error::NoProcess);
    }
    if owner == tid || t.circle(tid, owner) {
        return Err(Error::Deadlock);
    }
    queue(t, me.futex(), key, tid, owner)?;
    Ok(Outcome::Queued)
}

fn queue(t: &mut Table, waiter: &Waiter, key: FutexKey, tid: Pid, owner: Pid) -> Result<()> {
    let no_memory = |_| Error::NoMemory;
    t.locks.try_reserve(1).map_err(no_memory)?;
    t.blocked.try_reserve(1).map_err(no_memory)?;
    let lock = t.locks.entry(key).or_insert_with(|| Lock {
        owner,
        waiting: VecDeque::new(),
    });
    lock.waiting.try_reserve(1)?;
    waiter.0.woken.store(0, SeqCst);
    lock.waiting.push_back(Waiting {
        tid,
        token: waiter.0.clone(),
        thread: thread::current().to_arc(),
    });
    t.blocked.insert(tid, key);
    Ok(())
}

impl World {
    /// Locks that know their owner, as far as somebody waits for them.
    #[must_use]
    pub fn pi(&self) -> &Pi {
        &self.pi
    }
}
