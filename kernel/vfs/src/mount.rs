//! File systems, mounts and paths.
//!
//! A [`Tree`] is one file system with its name cache; a [`Mount`] is a tree at a
//! place. The directory that is mounted on owns the mount, so a capsule's file
//! tree ends when its root mount does.

use crate::dentry::{Cache, Dentry};
use crate::error::{Error, Result};
use crate::inode::{Inode, PATH_MAX};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use bitflags::bitflags;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use machine::sync::{Mutex, SpinLock};

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsStat {
    /// Magic number of the type (`TMPFS_MAGIC`, ...).
    pub magic: u64,
    /// Bytes in a block.
    pub block_size: u64,
    /// Blocks there are; 0 for none in particular.
    pub blocks: u64,
    /// Blocks free.
    pub blocks_free: u64,
    /// Files there can be.
    pub files: u64,
    /// Files there can still be.
    pub files_free: u64,
}

/// A file system as a whole.
pub trait FileSystem: Send + Sync {
    /// Its type, as in `/proc/mounts`.
    fn name(&self) -> &'static str;
    /// Its size and what is free.
    fn stat(&self) -> FsStat;
    /// Its options in `/proc/mounts`, each with a comma before it.
    fn options(&self) -> String {
        String::new()
    }
}

/// A device number for a file system that has no device (`makedev(0, n)`).
#[must_use]
pub fn next_device() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let n = NEXT.fetch_add(1, Relaxed);
    // Major 0; the minor's low byte and the rest, as makedev(3) packs them.
    n & 0xff | (n & 0xfff_ff00) << 12
}

/// A file system and its name cache.
pub struct Tree {
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
    pub(crate) cache: Cache,
    /// Held by renames that change a directory's parent, so that no two of them
    /// make a loop together.
    pub(crate) rename: Mutex<()>,
}

impl Tree {
    /// The tree of `fs` with this root directory.
    #[must_use]
    pub fn new(fs: Arc<dyn FileSystem>, root: Arc<dyn Inode>) -> Arc<Tree> {
        Arc::new(Tree {
            fs,
            root: Dentry::root(root),
            cache: Cache::default(),
            rename: Mutex::new(()),
        })
    }

    /// The file system.
    #[must_use]
    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// Its root.
    #[must_use]
    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }
}

bitflags! {
    /// How a mount is restricted, with the numbers of statvfs(3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct MountFlags: u64 {
        /// Nothing can be changed.
        const READ_ONLY = 1;
        /// Set-id bits mean nothing.
        const NOSUID = 2;
        /// Device nodes cannot be opened.
        const NODEV = 4;
        /// Programs cannot be executed.
        const NOEXEC = 8;
    }
}

struct Above {
    mount: Weak<Mount>,
    point: Weak<Dentry>,
}

/// A tree at a place in another one.
pub struct Mount {
    id: u64,
    tree: Arc<Tree>,
    flags: MountFlags,
    /// What `/proc/mounts` shows as the device.
    source: &'static str,
    above: Option<Above>,
    /// Mounts on directories of this one, in the order they were made.
    below: SpinLock<Vec<Weak<Mount>>>,
}

impl Mount {
    fn build(
        tree: Arc<Tree>,
        flags: MountFlags,
        source: &'static str,
        above: Option<Above>,
    ) -> Arc<Mount> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Mount {
            id: NEXT.fetch_add(1, Relaxed),
            tree,
            flags,
            source,
            above,
            below: SpinLock::new(Vec::new()),
        })
    }

    /// The mount at the top of a capsule's file tree.
    #[must_use]
    pub fn root(tree: Arc<Tree>, flags: MountFlags, source: &'static str) -> Arc<Mount> {
        Mount::build(tree, flags, source, None)
    }

    /// Mounts `tree` on the directory `at`.
    ///
    /// # Errors
    /// [`Error::NotDirectory`]; [`Error::Busy`] if something is mounted there.
    pub fn attach(
        at: &Path,
        tree: Arc<Tree>,
        flags: MountFlags,
        source: &'static str,
    ) -> Result<Arc<Mount>> {
        if at.dentry.dir().is_none() {
            return Err(Error::NotDirectory);
        }
        if at.dentry.mounted().is_some() {
            return Err(Error::Busy);
        }
        let above = Above {
            mount: Arc::downgrade(&at.mount),
            point: Arc::downgrade(&at.dentry),
        };
        let mount = Mount::build(tree, flags, source, Some(above));
        let mut below = at.mount.below.lock();
        below.try_reserve(1)?;
        below.push(Arc::downgrade(&mount));
        drop(below);
        at.dentry.set_mounted(Some(mount.clone()));
        Ok(mount)
    }

    /// Takes this mount away from where it is. Files open in it stay usable.
    pub fn detach(self: &Arc<Mount>) {
        let Some(above) = &self.above else { return };
        if let Some(m) = above.mount.upgrade() {
            m.below.lock().retain(|w| w.as_ptr() != Arc::as_ptr(self));
        }
        if let Some(p) = above.point.upgrade() {
            p.set_mounted(None);
        }
    }

    /// A number no other mount has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file system.
    #[must_use]
    pub fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    /// Its restrictions.
    #[must_use]
    pub fn flags(&self) -> MountFlags {
        self.flags
    }

    /// What it shows as its device.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// Fails where nothing can be changed.
    ///
    /// # Errors
    /// [`Error::ReadOnly`].
    #[inline]
    pub fn check_writable(&self) -> Result<()> {
        if self.flags.contains(MountFlags::READ_ONLY) {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }

    /// Its root.
    #[must_use]
    pub fn path(self: &Arc<Mount>) -> Path {
        Path {
            mount: self.clone(),
            dentry: self.tree.root.clone(),
        }
    }

    /// The directory it is mounted on; `None` for the top one.
    #[must_use]
    pub fn mount_point(&self) -> Option<Path> {
        let above = self.above.as_ref()?;
        Some(Path {
            mount: above.mount.upgrade()?,
            dentry: above.point.upgrade()?,
        })
    }

    /// This mount and all below it, parents first.
    #[must_use]
    pub fn all(self: &Arc<Mount>) -> Vec<Arc<Mount>> {
        let mut out = Vec::new();
        out.push(self.clone());
        let mut at = 0;
        while let Some(m) = out.get(at).cloned() {
            out.extend(m.below.lock().iter().filter_map(Weak::upgrade));
            at += 1;
        }
        out
    }
}

/// A place in a file tree: a name, and the mount it was reached through.
#[derive(Clone)]
pub struct Path {
    /// The mount.
    pub mount: Arc<Mount>,
    /// The name.
    pub dentry: Arc<Dentry>,
}

impl Path {
    /// Whether both are the same place.
    #[must_use]
    pub fn is(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }

    /// What is there.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a negative entry.
    #[inline]
    pub fn inode(&self) -> Result<&Arc<dyn Inode>> {
        self.dentry.inode().ok_or(Error::NotFound)
    }

    /// The directory above, `None` at the top of the file tree.
    #[must_use]
    pub fn parent(&self) -> Option<Path> {
        let mut at = self.clone();
        while Arc::ptr_eq(&at.dentry, at.mount.tree.root()) {
            at = at.mount.mount_point()?;
        }
        Some(Path {
            dentry: at.dentry.parent()?,
            mount: at.mount,
        })
    }

    /// The absolute path as seen from `root`, as the bytes of a string. A place
    /// outside `root` is `(unreachable)...`, one whose name is gone ends in
    /// ` (deleted)` (getcwd(3), proc(5)).
    ///
    /// # Errors
    /// As [`Path::components`].
    pub fn display(&self, root: &Path) -> Result<Vec<u8>> {
        let (mut out, reached) = self.components(root)?;
        if out.is_empty() {
            out.push(b'/');
        }
        if !reached {
            out.splice(0..0, *b"(unreachable)");
        }
        if self.dentry.is_removed() {
            out.extend_from_slice(b" (deleted)");
        }
        Ok(out)
    }

    /// As [`Path::display`], from the top of the file tree.
    ///
    /// # Errors
    /// As there.
    pub fn display_from_top(&self) -> Result<Vec<u8>> {
        let mut top = self.mount.clone();
        while let Some(p) = top.mount_point() {
            top = p.mount;
        }
        self.display(&top.path())
    }

    /// The path from `root` and whether `root` was reached.
    ///
    /// # Errors
    /// [`Error::NameTooLong`] for what no call would take as a path (`PATH_MAX`):
    /// a program can nest directories as deep as it likes.
    pub fn components(&self, root: &Path) -> Result<(Vec<u8>, bool)> {
        // Built from the end: names are pushed reversed, then all is turned.
        let mut out: Vec<u8> = Vec::new();
        let mut at = self.clone();
        let mut reached = true;
        while !at.is(root) {
            if Arc::ptr_eq(&at.dentry, at.mount.tree.root()) {
                match at.mount.mount_point() {
                    Some(p) => at = p,
                    None => {
                        reached = false;
                        break;
                    }
                }
                continue;
            }
            out.extend(at.dentry.name().iter().rev());
            out.push(b'/');
            if out.len() >= PATH_MAX {
                return Err(Error::NameTooLong);
            }
            match at.dentry.parent() {
                Some(p) => at.dentry = p,
                None => {
                    reached = false;
                    break;
                }
            }
        }
        out.reverse();
        Ok((out, reached))
    }
}
