//! A process: what its threads share.

use crate::{Pid, World};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What the threads of a program share.
pub struct Process {
    pid: Pid,
    /// Kept beside the family tree, so that `getppid` takes no lock.
    ppid: AtomicU32,
    world: Arc<World>,
}

impl Process {
    /// Its number.
    #[inline]
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its parent's number; 0 for the first process of a capsule.
    #[inline]
    #[must_use]
    pub fn ppid(&self) -> Pid {
        self.ppid.load(Relaxed)
    }

    /// The world it lives in.
    #[inline]
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }
}
