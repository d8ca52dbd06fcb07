//! What the files of a tmpfs may take, and who pays for it.
//!
//! A capsule's files and its programs live in the same memory. Files that took all
//! of it would leave programs none to run in, not even those that free something
//! again (`rm`). So files stop short of the account's limit, with `ENOSPC`, and the
//! rest is for programs: where Linux sets aside a fixed part of memory for a tmpfs
//! (`size=` of tmpfs(5)), here the part is what programs leave.

use super::TmpFs;
use crate::error::{Error, Result};
use crate::mount::FsStat;
use core::sync::atomic::Ordering::Relaxed;
use machine::addr::PAGE_SIZE;
use machine::frame;

/// `TMPFS_MAGIC` of statfs(2).
const MAGIC: u64 = 0x0102_1994;
/// Nodes whose kernel memory is charged as one page.
const NODES_PER_PAGE: usize = 8;
/// What is kept for programs, however small the account: enough for a shell and
/// one more program.
const KEPT_MIN: usize = (2 << 20) / PAGE_SIZE;

/// Pages of an account of `limit` that its files leave to programs.
pub(super) fn kept(limit: usize) -> usize {
    (limit / 16).max(KEPT_MIN).min(limit / 4)
}

impl TmpFs {
    /// Pages its files hold now.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.load(Relaxed)
    }

    /// Pages that what programs make of new files may still take of the account.
    fn account_room(&self) -> usize {
        let limit = self.account.limit();
        let kept = if self.config.leaves_room {
            kept(limit)
        } else {
            0
        };
        limit.saturating_sub(self.account.used() + kept)
    }

    /// Pages its files may still take.
    pub(super) fn room(&self) -> usize {
        let max = self.config.pages_max.unwrap_or(usize::MAX);
        max.saturating_sub(self.pages()).min(self.account_room())
    }

    /// Whether there is room for something new.
    pub(super) fn check_room(&self) -> Result<()> {
        if self.config.leaves_room && self.account_room() == 0 {
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    /// What a program is told when there is no memory for a file: that the disk is
    /// full. A memfd is no disk.
    pub(super) fn told(&self, error: Error) -> Error {
        match error {
            Error::NoMemory if self.config.leaves_room => Error::NoSpace,
            other => other,
        }
    }

    /// Counts a page in.
    pub(super) fn take_page(&self) -> Result<()> {
        self.check_room()?;
        let max = self.config.pages_max.unwrap_or(usize::MAX);
        if self.pages.fetch_add(1, Relaxed) >= max {
            self.pages.fetch_sub(1, Relaxed);
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    pub(super) fn give_pages(&self, n: usize) {
        self.pages.fetch_sub(n, Relaxed);
    }

    /// Counts a node in, and charges the kernel memory of some in advance.
    pub(super) fn take_node(&self) -> Result<()> {
        let before = self.nodes.fetch_add(1, Relaxed);
        let full = before >= self.config.nodes_max;
        if full || (before.is_multiple_of(NODES_PER_PAGE) && self.account.charge(1).is_err()) {
            self.nodes.fetch_sub(1, Relaxed);
            return Err(if full {
                Error::NoSpace
            } else {
                Error::NoMemory
            });
        }
        Ok(())
    }

    pub(super) fn give_node(&self) {
        let left = self.nodes.fetch_sub(1, Relaxed) - 1;
        if left.is_multiple_of(NODES_PER_PAGE) {
            self.account.uncharge(1);
        }
    }

    /// Charges `n` bytes that a node keeps beside itself.
    pub(super) fn take_bytes(&self, n: usize) -> Result<()> {
        let mut details = self.details.lock();
        let bytes = details.bytes + n;
        details.memory.set(bytes)?;
        details.bytes = bytes;
        Ok(())
    }

    pub(super) fn give_bytes(&self, n: usize) {
        let mut details = self.details.lock();
        details.bytes -= n;
        let bytes = details.bytes;
        // Fewer never fails.
        let _ = details.memory.set(bytes);
    }

    /// For statfs(2): used is what files hold, as `du` adds it up, free what they
    /// may still take. Their sum changes with what programs take.
    pub(super) fn describe(&self) -> FsStat {
        let used = self.pages();
        // The machine may have less than the account allows.
        let free = self.room().min(frame::available());
        let nodes = self.nodes.load(Relaxed);
        FsStat {
            magic: MAGIC,
            block_size: PAGE_SIZE as u64,
            blocks: (used + free) as u64,
            blocks_free: free as u64,
            files: self.config.nodes_max as u64,
            files_free: self.config.nodes_max.saturating_sub(nodes) as u64,
        }
    }
}
