//! tmpfs: files in memory, and the writable layer over a capsule's image.
//!
//! [`TmpFs`] is the file system with its limits, [`dir`] its directories,
//! [`file`] its files (bytes in an [`mm::PageCache`]), [`space`] what they may take,
//! [`node`] the rest.
//!
//! With a [`LowerTree`] below, a directory shows the tree's entries until they
//! are changed. A node of the tree costs nothing until somebody looks it up; its
//! bytes are read where they lie, page by page copied up on the first write.
//! Removing one leaves a *whiteout* behind.

mod dir;
mod file;
mod lower;
mod node;
mod space;
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

/// Limits and looks of a tmpfs.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Most pages its files may hold; `None` for what the account allows.
    pub pages_max: Option<usize>,
    /// Most nodes.
    pub nodes_max: usize,
    /// Mode of the root directory.
    pub mode: u32,
    /// Whether its files leave the last of the account's memory to programs.
    pub leaves_room: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            pages_max: None,
            nodes_max: 1 << 20,
            mode: 0o1777,
            leaves_room: true,
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
        // Like memory, and not a disk: it may take all there is.
        let config = Config {
            leaves_room: false,
            ..Config::default()
        };
        let fs = TmpFs::build(account, config, None);
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

    /// Who pays.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    fn new_ino(&self) -> u64 {
        self.next_ino.fetch_add(1, Relaxed)
    }
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn stat(&self) -> FsStat {
        self.describe()
    }

    fn options(&self) -> String {
        match self.config.pages_max {
            Some(p) => alloc::format!(",size={}k", p.saturating_mul(PAGE_SIZE / 1024)),
            None => String::new(),
        }
    }
}
