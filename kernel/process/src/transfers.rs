//! What threads and processes have read and written (`/proc/PID/io`, proc(5)).

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vfs::pseudo::Text;

/// Sums of what was read or written one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Bytes that calls have moved, wherever they were.
    pub bytes: u64,
    /// Calls.
    pub calls: u64,
    /// Bytes of those that a disk has read or taken. Disks are not cached: all that a
    /// program reads or writes of one.
    pub on_disk: u64,
}

impl core::ops::AddAssign for Moved {
    fn add_assign(&mut self, other: Moved) {
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.calls = self.calls.saturating_add(other.calls);
        self.on_disk = self.on_disk.saturating_add(other.on_disk);
    }
}

/// What was read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Transfers {
    /// Reads.
    pub read: Moved,
    /// Writes.
    pub written: Moved,
}

impl core::ops::AddAssign for Transfers {
    fn add_assign(&mut self, other: Transfers) {
        self.read += other.read;
        self.written += other.written;
    }
}

impl Transfers {
    /// The text of `/proc/PID/io`. Files are in memory, where nothing that was written is
    /// taken back before a disk has it.
    pub(crate) fn show(&self, out: &mut Text) -> fmt::Result {
        let Transfers { read, written } = self;
        writeln!(out, "rchar: {}\nwchar: {}", read.bytes, written.bytes)?;
        writeln!(out, "syscr: {}\nsyscw: {}", read.calls, written.calls)?;
        writeln!(out, "read_bytes: {}", read.on_disk)?;
        writeln!(out, "write_bytes: {}", written.on_disk)?;
        writeln!(out, "cancelled_write_bytes: 0")
    }
}

/// One way of a thread's transfers. Only the thread itself adds to it.
#[derive(Debug, Default)]
pub struct Counter {
    bytes: AtomicU64,
    calls: AtomicU64,
    on_disk: AtomicU64,
}

impl Counter {
    /// Counts a call of the running thread, whose counter this is, that moved `bytes`.
    #[inline]
    pub fn add(&self, bytes: usize, on_disk: bool) {
        // Nobody else writes: no need to lock the bus.
        let add = |to: &AtomicU64, n: u64| to.store(to.load(Relaxed).wrapping_add(n), Relaxed);
        add(&self.calls, 1);
        add(&self.bytes, bytes as u64);
        if on_disk {
            add(&self.on_disk, bytes as u64);
        }
    }

    /// The sums so far.
    #[must_use]
    pub fn sum(&self) -> Moved {
        Moved {
            bytes: self.bytes.load(Relaxed),
            calls: self.calls.load(Relaxed),
            on_disk: self.on_disk.load(Relaxed),
        }
    }
}
