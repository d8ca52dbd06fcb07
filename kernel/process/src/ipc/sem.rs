//! Semaphore sets (semget(2), semop(2), semctl(2)).

use super::charge::Charge;
use super::{Caller, Entry, Error, Ipc, Result, Wanted, now};
use crate::Pid;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::Account;
use machine::sync::SpinLock;
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};

/// Semaphores in a set, in all sets, operations of a call, and sets
/// (`kernel.sem`).
pub const PER_SET_MAX: usize = 32_000;
/// Semaphores of all sets.
pub const SEMAPHORES_MAX: usize = 1_024_000_000;
/// Operations in one call.
pub const OPERATIONS_MAX: usize = 500;
/// Sets.
pub const SETS_MAX: usize = 32_000;
/// The highest value (`SEMVMX`).
pub const VALUE_MAX: i32 = 32_767;

/// One operation of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which semaphore.
    pub number: u16,
    /// What is added; 0 waits for zero.
    pub change: i16,
    /// Do not wait (`IPC_NOWAIT`).
    pub nowait: bool,
    /// Taken back when the process ends (`SEM_UNDO`).
    pub undo: bool,
}

#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: i32,
    /// Who changed it last.
    pid: Pid,
    /// How many wait for it to grow, and to be zero.
    growing: u32,
    zero: u32,
}

/// What the end of a process takes back.
struct Undo {
    pid: Pid,
    changes: Vec<i32>,
}

struct State {
    semaphores: Vec<Semaphore>,
    undo: Vec<Undo>,
    /// When the last operation was.
    operated: i64,
    removed: bool,
    charge: Charge,
}

/// A set of semaphores.
pub struct Set {
    state: SpinLock<State>,
    queue: WaitQueue,
    len: usize,
}

/// Why a list of operations cannot be done now.
enum Refused {
    /// The semaphore has to change first, and whether it has to become zero.
    Wait {
        number: usize,
        zero: bool,
        nowait: bool,
    },
    Error(Error),
}

/// What GETPID, GETVAL, GETNCNT and GETZCNT tell of a semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its value.
    pub value: i32,
    /// Who changed it last.
    pub pid: Pid,
    /// How many wait for it to grow.
    pub growing: u32,
    /// How many wait for zero.
    pub zero: u32,
}

/// Memory of `count` semaphores that `processes` have to take back.
fn bytes(count: usize, processes: usize) -> usize {
    count * (size_of::<Semaphore>() + processes * size_of::<i32>())
}

impl State {
    /// Does all of `operations`, or nothing.
    fn attempt(&mut self, operations: &[Operation], pid: Pid) -> core::result::Result<(), Refused> {
        // Looked up once: there may be one for every process.
        let undo = self.undo.iter().position(|u| u.pid == pid);
        for (done, op) in operations.iter().enumerate() {
            if let Err(e) = self.step(*op, undo) {
                for op in operations.get(..done).unwrap_or(&[]).iter().rev() {
                    self.take_back(*op, undo);
                }
                return Err(e);
            }
        }
        for op in operations {
            if let Some(s) = self.semaphores.get_mut(usize::from(op.number)) {
                s.pid = pid;
            }
        }
        self.operated = now();
        Ok(())
    }

    /// `undo` is where the caller's [`Undo`] is.
    fn step(&mut self, op: Operation, undo: Option<usize>) -> core::result::Result<(), Refused> {
        let number = usize::from(op.number);
        let s = self.semaphores.get_mut(number);
        let s = s.ok_or(Refused::Error(Error::NoSuchSemaphore))?;
        let change = i32::from(op.change);
        let wait = |zero| Refused::Wait {
            number,
            zero,
            nowait: op.nowait,
        };
        if change == 0 && s.value != 0 {
            return Err(wait(true));
        }
        let new = s.value + change;
        if new < 0 {
            return Err(wait(false));
        }
        if new > VALUE_MAX {
            return Err(Refused::Error(Error::Range));
        }
        if op.undo && change != 0 {
            let undo = undo.and_then(|at| self.undo.get_mut(at));
            let slot = undo.and_then(|u| u.changes.get_mut(number));
            // The caller has made room for it.
            let slot = slot.ok_or(Refused::Error(Error::NoMemory))?;
            let total = *slot - change;
            if !(-VALUE_MAX - 1..=VALUE_MAX).contains(&total) {
                return Err(Refused::Error(Error::Range));
            }
            *slot = total;
        }
        s.value = new;
        Ok(())
    }

    fn take_back(&mut self, op: Operation, undo: Option<usize>) {
        let number = usize::from(op.number);
        if let Some(s) = self.semaphores.get_mut(number) {
            s.value -= i32::from(op.change);
        }
        if op.undo
            && let Some(u) = undo.and_then(|at| self.undo.get_mut(at))
            && let Some(slot) = u.changes.get_mut(number)
        {
            *slot += i32::from(op.change);
        }
    }

    /// Room to note what `pid` has to take back.
    fn prepare_undo(&mut self, pid: Pid) -> Result<()> {
        if self.undo.iter().any(|u| u.pid == pid) {
            return Ok(());
        }
        let (count, processes) = (self.semaphores.len(), self.undo.len());
        self.charge.set(bytes(count, processes + 1))?;
        let mut changes = Vec::new();
        changes.try_reserve_exact(self.semaphores.len())?;
        changes.resize(self.semaphores.len(), 0);
        self.undo.try_reserve(1)?;
        self.undo.push(Undo { pid, changes });
        Ok(())
    }

    fn count_waiter(&mut self, number: usize, zero: bool, more: bool) {
        if let Some(s) = self.semaphores.get_mut(number) {
            let n = if zero { &mut s.zero } else { &mut s.growing };
            *n = if more { *n + 1 } else { n.saturating_sub(1) };
        }
    }
}

impl Set {
    /// Semaphores in it.
    #[must_use]
    pub fn count(&self) -> usize {
        self.len
    }

    /// When the last operation was, in seconds since 1970.
    #[must_use]
    pub fn operated(&self) -> i64 {
        self.state.lock().operated
    }

    fn operate(&self, operations: &[Operation], pid: Pid, deadline: Option<Instant>) -> Result<()> {
        if operations.iter().any(|o| o.undo) {
            self.state.lock().prepare_undo(pid)?;
        }
        // What this call is counted as waiting for.
        let mut counted: Option<(usize, bool)> = None;
        let mut look = || {
            let mut state = self.state.lock();
            if let Some((number, zero)) = counted.take() {
                state.count_waiter(number, zero, false);
            }
            if state.removed {
                return Some(Err(Error::Removed));
            }
            match state.attempt(operations, pid) {
                Ok(()) => Some(Ok(())),
                Err(Refused::Error(e)) => Some(Err(e)),
                Err(Refused::Wait { nowait: true, .. }) => Some(Err(Error::WouldBlock)),
                Err(Refused::Wait { number, zero, .. }) => {
                    state.count_waiter(number, zero, true);
                    counted = Some((number, zero));
                    None
                }
            }
        };
        let outcome = self.queue.wait_until(Until::deadline(deadline), &mut look);
        if let Some((number, zero)) = counted {
            self.state.lock().count_waiter(number, zero, false);
        }
        let result = outcome.unwrap_or_else(|e| {
            Err(match e {
                machine::WaitError::TimedOut => Error::WouldBlock,
                machine::WaitError::Interrupted => Error::Interrupted,
            })
        });
        if result.is_ok() && operations.iter().any(|o| o.change != 0) {
            self.queue.wake_all();
        }
        result
    }

    /// The process `pid` has ended.
    fn undo(&self, pid: Pid) {
        let mut state = self.state.lock();
        let Some(at) = state.undo.iter().position(|u| u.pid == pid) else {
            return;
        };
        let undo = state.undo.swap_remove(at);
        for (s, change) in state.semaphores.iter_mut().zip(&undo.changes) {
            if *change != 0 {
                s.value = (s.value + change).clamp(0, VALUE_MAX);
                s.pid = pid;
            }
        }
        state.operated = now();
        let (count, processes) = (state.semaphores.len(), state.undo.len());
        // Paying for less does not fail.
        let _ = state.charge.set(bytes(count, processes));
        drop(state);
        drop(undo);
        self.queue.wake_all();
    }
}

impl Ipc {
    /// semget(2)
    ///
    /// # Errors
    /// See there.
    pub fn semget(
        &self,
        wanted: Wanted,
        count: usize,
        account: &Arc<Account>,
        caller: Caller<'_>,
    ) -> Result<i32> {
        if count > PER_SET_MAX {
            return Err(Error::Invalid);
        }
        let fits = |s: &Set| (count <= s.len).then_some(()).ok_or(Error::Invalid);
        let make = |_| {
            if count == 0 {
                return Err(Error::Invalid);
            }
            let mut charge = Charge::new(account.clone());
            charge.set(bytes(count, 0))?;
            let mut semaphores = Vec::new();
            semaphores.try_reserve_exact(count)?;
            semaphores.resize(count, Semaphore::default());
            Ok(Arc::new(Set {
                state: SpinLock::new(State {
                    semaphores,
                    undo: Vec::new(),
                    operated: 0,
                    removed: false,
                    charge,
                }),
                queue: WaitQueue::new(),
                len: count,
            }))
        };
        self.sem.lock().get(wanted, caller, SETS_MAX, fits, make)
    }

    /// semtimedop(2): until `deadline`, if there is one.
    ///
    /// # Errors
    /// See there.
    pub fn semop(
        &self,
        id: i32,
        operations: &[Operation],
        deadline: Option<Instant>,
        caller: Caller<'_>,
    ) -> Result<()> {
        if operations.is_empty() {
            return Err(Error::Invalid);
        }
        let changes = operations.iter().any(|o| o.change != 0);
        let mut table = self.sem.lock();
        let entry = table.entry(id)?;
        let most = operations.iter().map(|o| usize::from(o.number)).max();
        if most >= Some(entry.object.len) {
            return Err(Error::NoSuchSemaphore);
        }
        entry.perm.check(caller, if changes { 2 } else { 4 })?;
        let set = entry.object.clone();
        drop(table);
        set.operate(operations, caller.pid, deadline)
    }

    /// The process `pid` has ended: what it did with `SEM_UNDO` is taken back.
    pub(crate) fn undo(&self, pid: Pid) {
        let next_set = |place| self.sem.lock().from(place);
        let mut place = 0;
        // A lock taken in the condition itself would be held in the body too.
        while let Some((next, set)) = next_set(place) {
            set.undo(pid);
            place = next;
            machine::thread::cond_resched();
        }
    }

    /// Removes a set; those who wait learn it (`IPC_RMID`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub fn sem_remove(&self, id: i32, caller: Caller<'_>) -> Result<()> {
        let gone = self.sem.lock().remove(id, caller)?;
        gone.object.state.lock().removed = true;
        gone.object.queue.wake_all();
        Ok(())
    }

    /// Sets owner and mode (`IPC_SET`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub fn sem_set(&self, id: i32, caller: Caller<'_>, new: (u32, u32, u32)) -> Result<()> {
        self.sem.lock().set(id, caller, new).map(drop)
    }

    /// A set, by identifier, for a caller who may read it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn sem_entry(&self, id: i32, caller: Caller<'_>) -> Result<Entry<Set>> {
        let entry = self.sem.lock().entry(id)?.clone();
        entry.perm.check(caller, 4)?;
        Ok(entry)
    }

    /// The same by place in the table; `any` asks for no right.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn sem_entry_at(&self, place: usize, any: bool, caller: Caller<'_>) -> Result<Entry<Set>> {
        let entry = self.sem.lock().at(place)?.clone();
        if !any {
            entry.perm.check(caller, 4)?;
        }
        Ok(entry)
    }

    /// Sets there are, the highest place taken, and semaphores of all.
    #[must_use]
    pub fn sem_totals(&self) -> (usize, usize, usize) {
        let table = self.sem.lock();
        let all = table.iter().map(|e| e.object.len).sum();
        (table.len(), table.last_place(), all)
    }

    /// Looks at one semaphore.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn sem_look(&self, id: i32, number: usize, caller: Caller<'_>) -> Result<Look> {
        let set = self.sem.lock().open(id, caller, 4)?;
        let state = set.state.lock();
        let s = state.semaphores.get(number).ok_or(Error::Invalid)?;
        Ok(Look {
            value: s.value,
            pid: s.pid,
            growing: s.growing,
            zero: s.zero,
        })
    }

    /// All values of a set (`GETALL`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`], [`Error::NoMemory`].
    pub fn sem_values(&self, id: i32, caller: Caller<'_>) -> Result<Vec<u16>> {
        let set = self.sem.lock().open(id, caller, 4)?;
        let mut values = Vec::new();
        values.try_reserve_exact(set.len)?;
        let state = set.state.lock();
        values.extend(state.semaphores.iter().map(|s| s.value as u16));
        Ok(values)
    }

    /// Sets the values from semaphore `first` on; what processes would have taken
    /// back of these is forgotten (`SETVAL`, `SETALL`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`], [`Error::Range`].
    pub fn sem_assign(
        &self,
        id: i32,
        first: usize,
        values: &[i32],
        caller: Caller<'_>,
    ) -> Result<()> {
        let mut table = self.sem.lock();
        let set = table.open(id, caller, 2)?;
        let end = first.checked_add(values.len()).ok_or(Error::Invalid)?;
        if end > set.len {
            return Err(Error::Invalid);
        }
        if values.iter().any(|v| !(0..=VALUE_MAX).contains(v)) {
            return Err(Error::Range);
        }
        table.entry(id)?.changed = now();
        drop(table);
        let mut state = set.state.lock();
        for (s, v) in state.semaphores.iter_mut().skip(first).zip(values) {
            (s.value, s.pid) = (*v, caller.pid);
        }
        for undo in &mut state.undo {
            for change in undo.changes.iter_mut().skip(first).take(values.len()) {
                *change = 0;
            }
        }
        drop(state);
        set.queue.wake_all();
        Ok(())
    }

    /// Whether `caller` may change the set of that identifier, and how many
    /// semaphores it has.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn sem_count(&self, id: i32, caller: Caller<'_>, wanted: u32) -> Result<usize> {
        Ok(self.sem.lock().open(id, caller, wanted)?.len)
    }
}
