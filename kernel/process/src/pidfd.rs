//! Descriptors of processes (pidfd_open(2)).

use crate::Process;
use alloc::sync::Arc;
use core::any::Any;
use vfs::{Events, FileOps, OpenFile, PollHub};

/// What a pidfd is open on: readable once the process has ended.
pub struct PidFd {
    process: Arc<Process>,
}

impl PidFd {
    /// On `process`.
    #[must_use]
    pub fn new(process: Arc<Process>) -> PidFd {
        PidFd { process }
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }
}

impl FileOps for PidFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self, _: &OpenFile) -> Events {
        match self.process.has_ended() {
            true => Events::READABLE,
            false => Events::empty(),
        }
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(self.process.exit_hub())
    }

    fn info(&self, _: &OpenFile, out: &mut dyn core::fmt::Write) {
        let pid = self.process.pid();
        let _ = write!(out, "Pid:\t{pid}\nNSpid:\t{pid}\n");
    }

    fn name(&self, out: &mut dyn core::fmt::Write) {
        let _ = out.write_str("anon_inode:[pidfd]");
    }
}
