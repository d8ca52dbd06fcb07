//! Process groups and sessions (setpgid(2), setsid(2)).

use crate::family::Family;
use crate::{Pid, Process, Result, Thread};
use alloc::sync::Arc;

type Tree = Family<Arc<Process>, Arc<Thread>>;

impl Process {
    fn tree<R>(&self, f: impl FnOnce(&mut Tree) -> R) -> R {
        f(&mut self.world().family.lock())
    }

    /// Its process group.
    ///
    /// # Errors
    /// [`crate::Error::NoProcess`] once it has been waited for.
    pub fn group(&self) -> Result<Pid> {
        self.tree(|t| t.group(self.pid()))
    }

    /// Its session.
    ///
    /// # Errors
    /// As [`Process::group`].
    pub fn session(&self) -> Result<Pid> {
        self.tree(|t| t.session(self.pid()))
    }

    /// The process group of `pid` of the same world.
    ///
    /// # Errors
    /// [`crate::Error::NoProcess`].
    pub fn group_of(&self, pid: Pid) -> Result<Pid> {
        self.tree(|t| t.group(pid))
    }

    /// The session of `pid` of the same world.
    ///
    /// # Errors
    /// [`crate::Error::NoProcess`].
    pub fn session_of(&self, pid: Pid) -> Result<Pid> {
        self.tree(|t| t.session(pid))
    }

    /// Moves `pid`, itself or a child, to the group `group`.
    ///
    /// # Errors
    /// See setpgid(2).
    pub fn set_group(&self, pid: Pid, group: Pid) -> Result<()> {
        self.tree(|t| t.set_group(self.pid(), pid, group))
    }

    /// Leads a session and a group of its own from now on, without a terminal.
    ///
    /// # Errors
    /// [`crate::Error::NotPermitted`] for the leader of a group.
    pub fn new_session(&self) -> Result<()> {
        self.tree(|t| t.new_session(self.pid()))?;
        self.controlling.set(None);
        Ok(())
    }

    /// Whether both are of the same session.
    #[must_use]
    pub fn same_session(&self, other: &Process) -> bool {
        self.tree(|t| {
            let (a, b) = (t.session(self.pid()), t.session(other.pid()));
            a.is_ok() && a == b
        })
    }

    /// Whether it adopts orphans below it.
    #[must_use]
    pub fn is_subreaper(&self) -> bool {
        self.tree(|t| t.subreaper(self.pid()))
    }

    /// Sets that.
    pub fn set_subreaper(&self, on: bool) {
        self.tree(|t| t.set_subreaper(self.pid(), on));
    }

    /// Runs `f` on what is done with signals; `None` once it has ended.
    pub fn with_actions<R>(&self, f: impl FnOnce(&crate::signal::Actions) -> R) -> Option<R> {
        self.actions.with(f)
    }
}
