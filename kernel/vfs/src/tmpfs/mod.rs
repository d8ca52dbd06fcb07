//! tmpfs: files in memory, and the writable layer over a capsule's image.
//!
//! [`TmpFs`] is the file system with its limits, [`dir`] its directories,
//! [`file`] its files (bytes in an [`mm::PageCache`]), [`node`] the rest.
//!
//! With a [`LowerTree`] below, a directory shows the tree's entries until they
//! are changed. A node of the tree costs nothing until somebody looks it up; its
//! bytes are read where they lie, page by page copied up on the first write.
//! Removing one leaves a *whiteout* behind.

mod dir;
mod file;
mod lower;
mod node;
#[cfg(test)]
mod tests;

pub use file::TmpFile;
pub use lower::{EmitChild, LowerKind, LowerNode, LowerTree};

use crate::error::{Error, Result};
use crate::inode::{Inode, Kind, NewAttr};
use crate::mount::{FileSystem, FsStat, Tree, next_device};
use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use machine::addr::PAGE_SIZE;
use machine::sync::SpinLock;
use machine::{Account, Objects};

/// `TMPFS_MAGIC` of statfs(2).
const MAGIC: u64 = 0x0102_1994;
/// Nodes whose kernel memory is charged as one page.
const NODES_PER_PAGE: usize = 8;

/// Limits and looks of a tmpfs.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Most pages its files may hold; `None` for what the account allows.
    pub pages_max: Option<usize>,
    /// Most nodes.
    pub nodes_max: usize,
    /// Mode of the root directory.
    pub mode: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            pages_max: None,
            nodes_max: 1 << 20,
            mode: 0o1777,
        }
    }
}

/// A file system in memory.
pub struct TmpFs {
    dev: u64,
    config: Config,
    account: Arc<Account>,
    lower: Option<Arc<dyn LowerTree>>,
    next_ino: AtomicU64,
    pages: AtomicUsize,
    nodes: AtomicUsize,
    details: SpinLock<Details>,
}

/// What nodes keep beside themselves: entries of directories, targets of links.
struct Details {
    bytes: usize,
    memory: Objects,
}

impl TmpFs {
    /// An empty file system whose memory `account` pays for.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn tree(account: Arc<Account>, config: Config) -> Result<Arc<Tree>> {
        let fs = TmpFs::build(account, config, None);
        let root = fs.make_root()?;
        Ok(Tree::new(fs, root))
    }

    /// A file system that shows `lower` until it is changed.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; [`Error::Io`] if `lower` has no root directory.
    pub fn tree_over(
        account: Arc<Account>,
        config: Config,
        lower: Arc<dyn LowerTree>,
    ) -> Result<Arc<Tree>> {
        let fs = TmpFs::build(account, config, Some(lower));
        let root = fs.make_root()?;
        Ok(Tree::new(fs, root))
    }

    /// A file that no directory knows (memfd_create(2)). It can be sealed if
    /// `sealable`.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn memfd(
        account: Arc<Account>,
        attr: &NewAttr,
        name: &str,
        sealable: bool,
    ) -> Result<Arc<TmpFile>> {
        let fs = TmpFs::build(account, Config::default(), None);
        let file = TmpFile::new(&fs, attr, fs.new_ino())?;
        file.attr().drop_links(1);
        file.set_memfd(name, sealable);
        Ok(file)
    }

    fn build(
        account: Arc<Account>,
        config: Config,
        lower: Option<Arc<dyn LowerTree>>,
    ) -> Arc<TmpFs> {
        // Nodes of the lower tree keep their index as number: 0 becomes 1.
        let first = lower.as_ref().map_or(0, |l| u64::from(l.count())) + 2;
        Arc::new(TmpFs {
            dev: next_device(),
            config,
            details: SpinLock::new(Details {
                bytes: 0,
                memory: Objects::new(account.clone(), 1),
            }),
            account,
            lower,
            next_ino: AtomicU64::new(first),
            pages: AtomicUsize::new(0),
            nodes: AtomicUsize::new(0),
        })
    }

    fn make_root(self: &Arc<TmpFs>) -> Result<Arc<dyn Inode>> {
        let root = if self.lower.is_some() {
            node::materialise(self, 0)?
        } else {
            let attr = NewAttr {
                kind: Kind::Directory,
                mode: self.config.mode,
                uid: 0,
                gid: 0,
            };
            node::make(self, &attr, &[], 1)?
        };
        if root.attr().kind != Kind::Directory {
            return Err(Error::Io);
        }
        Ok(root)
    }

    /// Pages its files hold now.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages.load(Relaxed)
    }

    /// Who pays.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Relaxed)
    }

    fn pages_max(&self) -> usize {
        self.config
            .pages_max
            .unwrap_or(usize::MAX)
            .min(self.account.limit())
    }

    /// Counts a page in.
    fn take_page(&self) -> Result<()> {
        if self.pages.fetch_add(1, Relaxed) >= self.pages_max() {
            self.pages.fetch_sub(1, Relaxed);
            return Err(Error::NoSpace);
        }
        Ok(())
    }

    fn give_pages(&self, n: usize) {
        self.pages.fetch_sub(n, Relaxed);
    }

    /// Counts a node in, and charges the kernel memory of some in advance.
    fn take_node(&self) -> Result<()> {
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

    /// Charges `n` bytes that a node keeps beside itself.
    fn take_bytes(&self, n: usize) -> Result<()> {
        let mut details = self.details.lock();
        let bytes = details.bytes + n;
        details.memory.set(bytes)?;
        details.bytes = bytes;
        Ok(())
    }

    fn give_bytes(&self, n: usize) {
        let mut details = self.details.lock();
        details.bytes -= n;
        let bytes = details.bytes;
        // Fewer never fails.
        let _ = details.memory.set(bytes);
    }

    fn give_node(&self) {
        let left = self.nodes.fetch_sub(1, Relaxed) - 1;
        if left.is_multiple_of(NODES_PER_PAGE) {
            self.account.uncharge(1);
        }
    }
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn stat(&self) -> FsStat {
        let (max, used) = (self.pages_max(), self.pages());
        let nodes = self.nodes.load(Relaxed);
        // An account without limit is bounded by the machine.
        let max = max.min(machine::frame::stats().total);
        FsStat {
            magic: MAGIC,
            block_size: PAGE_SIZE as u64,
            blocks: max as u64,
            blocks_free: max.saturating_sub(used) as u64,
            files: self.config.nodes_max as u64,
            files_free: self.config.nodes_max.saturating_sub(nodes) as u64,
        }
    }

    fn options(&self) -> String {
        match self.config.pages_max {
            Some(p) => alloc::format!(",size={}k", p.saturating_mul(PAGE_SIZE / 1024)),
            None => String::new(),
        }
    }
}
