//! The part of a process that path names depend on: root, working directory and
//! file-mode mask (shared by `CLONE_FS`).

use crate::mount::Path;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use machine::sync::SpinLock;

struct Places {
    root: Path,
    cwd: Path,
}

/// Root, working directory and umask of a process.
pub struct FsContext {
    places: SpinLock<Places>,
    umask: AtomicU32,
}

impl FsContext {
    /// A context whose root and working directory are `root`, with umask 022.
    #[must_use]
    pub fn new(root: Path) -> FsContext {
        FsContext {
            places: SpinLock::new(Places {
                cwd: root.clone(),
                root,
            }),
            umask: AtomicU32::new(0o022),
        }
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Path {
        self.places.lock().root.clone()
    }

    /// The working directory.
    #[must_use]
    pub fn cwd(&self) -> Path {
        self.places.lock().cwd.clone()
    }

    /// Changes the root (`chroot`).
    pub fn set_root(&self, path: Path) {
        let old = core::mem::replace(&mut self.places.lock().root, path);
        drop(old);
    }

    /// Changes the working directory.
    pub fn set_cwd(&self, path: Path) {
        let old = core::mem::replace(&mut self.places.lock().cwd, path);
        drop(old);
    }

    /// The mask: permission bits that new files do not get.
    #[must_use]
    pub fn umask(&self) -> u32 {
        self.umask.load(Relaxed)
    }

    /// Sets the mask; the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Relaxed)
    }
}

impl Clone for FsContext {
    fn clone(&self) -> FsContext {
        let places = self.places.lock();
        FsContext {
            places: SpinLock::new(Places {
                root: places.root.clone(),
                cwd: places.cwd.clone(),
            }),
            umask: AtomicU32::new(self.umask()),
        }
    }
}
