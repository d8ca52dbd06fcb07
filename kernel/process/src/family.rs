//! The family tree of a world: numbers, parents and children, process groups and
//! sessions.
//!
//! Pure book-keeping over handles `P` of processes and `T` of threads, so that it
//! is tested without any. One number can be a thread, a process, a process group
//! and a session at the same time, and is free again when it is none of them.

use crate::{Error, Pid, Result};
use alloc::vec::Vec;
use hashbrown::HashMap;

/// Numbers handed out are below this (`kernel.pid_max`).
pub(crate) const PID_MAX: Pid = 1 << 22;
/// The first process of a world.
pub(crate) const INIT: Pid = 1;

/// What a number stands for.
struct Slot<P, T> {
    thread: Option<T>,
    process: Option<Member<P>>,
    /// Processes in the group of this number.
    group: Vec<Pid>,
    /// Processes in the session of this number.
    session: usize,
}

impl<P, T> Default for Slot<P, T> {
    fn default() -> Self {
        Slot {
            thread: None,
            process: None,
            group: Vec::new(),
            session: 0,
        }
    }
}

/// A process in the tree, alive or zombie.
struct Member<P> {
    process: P,
    parent: Pid,
    children: Vec<Pid>,
    group: Pid,
    session: Pid,
    zombie: bool,
    /// It counts although it has no thread: from the end of its last one on.
    is_counted: bool,
    /// Adopts orphans below it (`PR_SET_CHILD_SUBREAPER`).
    subreaper: bool,
    /// Has called `execve`: its parent may not move it to another group any more.
    executed: bool,
}

/// All processes and threads of a world.
pub(crate) struct Family<P, T> {
    slots: HashMap<Pid, Slot<P, T>>,
    next: Pid,
    threads: usize,
    processes: usize,
    /// Processes without a thread that count all the same.
    counted: usize,
}

/// Where a child starts in the tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) parent: Pid,
    pub(crate) group: Pid,
    pub(crate) session: Pid,
}

impl<P: Clone, T: Clone> Family<P, T> {
    pub(crate) fn new() -> Self {
        Family {
            slots: HashMap::new(),
            next: INIT,
            threads: 0,
            processes: 0,
            counted: 0,
        }
    }

    /// Threads alive.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// What counts against the limit: threads, and what is left of processes without any,
    /// which takes up a number and memory, too.
    pub(crate) fn tasks(&self) -> usize {
        self.threads + self.counted
    }

    /// Processes, zombies included.
    pub(crate) fn processes(&self) -> usize {
        self.processes
    }

    /// The number handed out last (`/proc/loadavg`).
    pub(crate) fn last_number(&self) -> Pid {
        self.next.saturating_sub(1)
    }

    /// A number that stands for nothing yet. It is taken by `add_*`, under the
    /// same lock.
    pub(crate) fn free_number(&mut self) -> Result<Pid> {
        // There are far fewer slots than numbers, so this ends.
        for _ in 0..=self.slots.len() {
            let n = self.next;
            // After the first round the low numbers stay with old-timers.
            self.next = if n + 1 < PID_MAX { n + 1 } else { 300 };
            if !self.slots.contains_key(&n) {
                return Ok(n);
            }
        }
        Err(Error::LimitReached)
    }

    fn slot(&mut self, number: Pid) -> Result<&mut Slot<P, T>> {
        self.slots.try_reserve(1).map_err(|_| Error::NoMemory)?;
        Ok(self.slots.entry(number).or_default())
    }

    /// Forgets a number that stands for nothing.
    fn tidy(&mut self, number: Pid) {
        let idle = |s: &Slot<P, T>| {
            s.thread.is_none() && s.process.is_none() && s.group.is_empty() && s.session == 0
        };
        if self.slots.get(&number).is_some_and(idle) {
            self.slots.remove(&number);
        }
    }

    fn member(&self, pid: Pid) -> Option<&Member<P>> {
        self.slots.get(&pid)?.process.as_ref()
    }

    fn member_mut(&mut self, pid: Pid) -> Option<&mut Member<P>> {
        self.slots.get_mut(&pid)?.process.as_mut()
    }

    /// The process of that number, zombies included.
    pub(crate) fn process(&self, pid: Pid) -> Option<&P> {
        self.member(pid).map(|m| &m.process)
    }

    /// The living thread of that number.
    pub(crate) fn thread(&self, tid: Pid) -> Option<&T> {
        self.slots.get(&tid)?.thread.as_ref()
    }

    /// Every process, zombies included, in no order.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Pid, &P)> {
        let of = |(n, s): (&Pid, &'_ Slot<P, T>)| (*n, s.process.is_some());
        let taken = self.slots.iter().map(of).filter(|(_, taken)| *taken);
        taken.filter_map(|(n, _)| Some((n, self.process(n)?)))
    }

    /// Adds a process at `place`.
    pub(crate) fn add_process(&mut self, pid: Pid, process: P, place: Place) -> Result<()> {
        // Everything that can fail comes first.
        if place.parent != 0 {
            let parent = self.member_mut(place.parent).ok_or(Error::NoProcess)?;
            parent.children.try_reserve(1)?;
        }
        self.slot(place.session)?;
        self.slot(place.group)?.group.try_reserve(1)?;
        self.slot(pid)?.process = Some(Member {
            process,
            parent: place.parent,
            children: Vec::new(),
            group: place.group,
            session: place.session,
            zombie: false,
            is_counted: false,
            subreaper: false,
            executed: false,
        });
        if let Some(parent) = self.member_mut(place.parent) {
            parent.children.push(pid);
        }
        self.join_group(pid, place.group);
        if let Some(s) = self.slots.get_mut(&place.session) {
            s.session += 1;
        }
        self.processes += 1;
        Ok(())
    }

    /// Adds a thread.
    pub(crate) fn add_thread(&mut self, tid: Pid, thread: T) -> Result<()> {
        self.slot(tid)?.thread = Some(thread);
        self.threads += 1;
        Ok(())
    }

    /// The thread `tid` has ended.
    pub(crate) fn remove_thread(&mut self, tid: Pid) -> Option<T> {
        let gone = self.slots.get_mut(&tid)?.thread.take();
        self.threads -= usize::from(gone.is_some());
        self.tidy(tid);
        gone
    }

    /// The last thread of `pid` has ended: the process counts in its place, long before
    /// it is buried, or others could take that place meanwhile.
    pub(crate) fn count(&mut self, pid: Pid) {
        if let Some(m) = self.member_mut(pid) {
            let fresh = !core::mem::replace(&mut m.is_counted, true);
            self.counted += usize::from(fresh);
        }
    }

    /// Gives the thread `from` the number `to`, whose own thread has ended
    /// (`execve` by another thread than the first).
    pub(crate) fn renumber_thread(&mut self, from: Pid, to: Pid) {
        let thread = self.slots.get_mut(&from).and_then(|s| s.thread.take());
        if let Some(slot) = self.slots.get_mut(&to) {
            slot.thread = thread;
        }
        self.tidy(from);
    }

    fn join_group(&mut self, pid: Pid, group: Pid) {
        if let Some(s) = self.slots.get_mut(&group) {
            s.group.push(pid);
        }
    }

    fn leave_group(&mut self, pid: Pid, group: Pid) {
        if let Some(s) = self.slots.get_mut(&group) {
            s.group.retain(|p| *p != pid);
        }
        self.tidy(group);
    }

    /// The number of `pid`'s parent; 0 where it has none.
    pub(crate) fn parent(&self, pid: Pid) -> Pid {
        self.member(pid).map_or(0, |m| m.parent)
    }

    /// Children of `pid`, zombies included, eldest first.
    pub(crate) fn children(&self, pid: Pid) -> &[Pid] {
        self.member(pid).map_or(&[], |m| &m.children)
    }

    /// Whether `pid` has ended and waits to be waited for.
    pub(crate) fn is_zombie(&self, pid: Pid) -> bool {
        self.member(pid).is_some_and(|m| m.zombie)
    }

    /// The process group of `pid`.
    pub(crate) fn group(&self, pid: Pid) -> Result<Pid> {
        self.member(pid).map(|m| m.group).ok_or(Error::NoProcess)
    }

    /// The session of `pid`.
    pub(crate) fn session(&self, pid: Pid) -> Result<Pid> {
        self.member(pid).map(|m| m.session).ok_or(Error::NoProcess)
    }

    /// Members of a process group.
    pub(crate) fn group_members(&self, group: Pid) -> &[Pid] {
        self.slots.get(&group).map_or(&[], |s| &s.group)
    }

    /// `pid` runs another program now.
    pub(crate) fn set_executed(&mut self, pid: Pid) {
        if let Some(m) = self.member_mut(pid) {
            m.executed = true;
        }
    }

    /// Whether `pid` adopts orphans below it.
    pub(crate) fn subreaper(&self, pid: Pid) -> bool {
        self.member(pid).is_some_and(|m| m.subreaper)
    }

    /// Sets that.
    pub(crate) fn set_subreaper(&mut self, pid: Pid, on: bool) {
        if let Some(m) = self.member_mut(pid) {
            m.subreaper = on;
        }
    }

    /// setpgid(2) by `caller`: moves `pid` to the group `group`.
    pub(crate) fn set_group(&mut self, caller: Pid, pid: Pid, group: Pid) -> Result<()> {
        let m = self.member(pid).ok_or(Error::NoProcess)?;
        let (old, session, executed) = (m.group, m.session, m.executed);
        if m.zombie {
            return Err(Error::NoProcess);
        }
        if pid != caller {
            if m.parent != caller {
                return Err(Error::NoProcess);
            }
            if session != self.session(caller)? {
                return Err(Error::NotPermitted);
            }
            if executed {
                return Err(Error::Denied);
            }
        }
        if session == pid {
            return Err(Error::NotPermitted);
        }
        if group != pid {
            let first = self.group_members(group).first();
            let there = first.map(|p| self.session(*p)).transpose()?;
            if there != Some(session) {
                return Err(Error::NotPermitted);
            }
        }
        if group != old {
            self.slot(group)?.group.try_reserve(1)?;
            self.join_group(pid, group);
            self.leave_group(pid, old);
            if let Some(m) = self.member_mut(pid) {
                m.group = group;
            }
        }
        Ok(())
    }

    /// setsid(2): `pid` leads a session and a group of its own.
    pub(crate) fn new_session(&mut self, pid: Pid) -> Result<()> {
        let m = self.member(pid).ok_or(Error::NoProcess)?;
        let (group, session) = (m.group, m.session);
        if !self.group_members(pid).is_empty() {
            return Err(Error::NotPermitted);
        }
        self.slot(pid)?.group.try_reserve(1)?;
        self.leave_group(pid, group);
        self.leave_session(session);
        self.join_group(pid, pid);
        if let Some(s) = self.slots.get_mut(&pid) {
            s.session += 1;
        }
        if let Some(m) = self.member_mut(pid) {
            (m.group, m.session) = (pid, pid);
        }
        Ok(())
    }

    fn leave_session(&mut self, session: Pid) {
        if let Some(s) = self.slots.get_mut(&session) {
            s.session = s.session.saturating_sub(1);
        }
        self.tidy(session);
    }

    /// Whether no member of `group` has a parent in another group of the same
    /// session: nobody could continue a stopped job (POSIX, "orphaned process
    /// group"). `leaving` counts as gone.
    pub(crate) fn is_orphaned(&self, group: Pid, leaving: Option<Pid>) -> bool {
        !self.group_members(group).iter().any(|pid| {
            let Some(m) = self.member(*pid) else {
                return false;
            };
            let anchored = self.member(m.parent).is_some_and(|p| {
                p.session == m.session && p.group != group && Some(m.parent) != leaving
            });
            anchored && !m.zombie && Some(*pid) != leaving
        })
    }

    /// Who adopts the children of `pid`: the nearest living subreaper above it,
    /// else the first process of the world.
    fn heir(&self, pid: Pid) -> Pid {
        let mut at = self.parent(pid);
        while let Some(m) = self.member(at) {
            if m.subreaper && !m.zombie {
                return at;
            }
            at = m.parent;
        }
        INIT
    }

    /// `pid` has ended: it becomes a zombie and its children get another parent.
    /// The heir and the children it was given.
    pub(crate) fn bury(&mut self, pid: Pid) -> (Pid, Vec<Pid>) {
        let heir = self.heir(pid);
        let Some(m) = self.member_mut(pid) else {
            return (heir, Vec::new());
        };
        m.zombie = true;
        self.count(pid);
        if heir == pid || self.member(heir).is_none() {
            return (heir, Vec::new());
        }
        let orphans = match self.member_mut(pid) {
            Some(m) => core::mem::take(&mut m.children),
            None => Vec::new(),
        };
        for child in &orphans {
            if let Some(m) = self.member_mut(*child) {
                m.parent = heir;
            }
        }
        if let Some(h) = self.member_mut(heir) {
            h.children.extend_from_slice(&orphans);
        }
        (heir, orphans)
    }

    /// Forgets the zombie `pid`, which its parent has waited for.
    pub(crate) fn reap(&mut self, pid: Pid) -> Option<P> {
        let m = self.slots.get_mut(&pid)?.process.take()?;
        self.processes -= 1;
        self.counted -= usize::from(m.is_counted);
        if let Some(p) = self.member_mut(m.parent) {
            p.children.retain(|c| *c != pid);
        }
        self.leave_group(pid, m.group);
        self.leave_session(m.session);
        self.tidy(pid);
        Some(m.process)
    }
}

#[cfg(test)]
#[path = "family_tests.rs"]
mod tests;
