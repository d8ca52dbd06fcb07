//! Making, removing, linking and renaming entries of directories.

use crate::cred::Want;
use crate::dentry::Dentry;
use crate::error::{Error, Result};
use crate::inode::{Inode, Kind, NewAttr, NewNode, RenameMode, S_ISGID, S_ISVTX};
use crate::inotify::{self, Mask};
use crate::mount::Path;
use crate::open::sticky_forbids;
use crate::walk::{At, Caller, Last, LastLink, LastName, Resolve, Walk, find_locked};
use alloc::sync::Arc;
use bitflags::bitflags;
use machine::sync::MutexGuard;

bitflags! {
    /// Flags of renameat2(2), with its numbers.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct RenameFlags: u32 {
        /// Fail if the target exists.
        const NOREPLACE = 1;
        /// Swap both.
        const EXCHANGE = 2;
    }
}

/// Owner, group and mode of a new node in `parent`; `mode` has had the umask.
pub(crate) fn new_attr(who: &Caller<'_>, parent: &dyn Inode, kind: Kind, mode: u32) -> NewAttr {
    let above = parent.attr();
    let inherits = above.mode() & S_ISGID != 0;
    let setgid = inherits && kind == Kind::Directory;
    NewAttr {
        kind,
        mode: mode & 0o7777 | if setgid { S_ISGID } else { 0 },
        uid: who.cred.fsuid,
        gid: if inherits {
            above.gid()
        } else {
            who.cred.fsgid
        },
    }
}

impl<'a> Caller<'a> {
    /// The directory `at`, after a check that entries may be added to it.
    pub(crate) fn check_can_add<'p>(&self, at: &'p Path) -> Result<&'p dyn Inode> {
        let inode = at.inode()?;
        if at.dentry.is_removed() {
            return Err(Error::NotFound);
        }
        at.mount.check_writable()?;
        inode.attr().check(self.cred, Want::WRITE | Want::EXEC)?;
        Ok(&**inode)
    }

    /// The directory `at`, after a check that `victim` may be removed from it.
    fn check_can_remove<'p>(&self, at: &'p Path, victim: &Dentry) -> Result<&'p dyn Inode> {
        let inode = at.inode()?;
        at.mount.check_writable()?;
        let attr = inode.attr();
        attr.check(self.cred, Want::WRITE | Want::EXEC)?;
        let file = victim.inode().ok_or(Error::NotFound)?.attr();
        if attr.mode() & S_ISVTX != 0 && sticky_forbids(self, attr.uid(), file.uid()) {
            return Err(Error::NotPermitted);
        }
        if victim.mounted().is_some() {
            return Err(Error::Busy);
        }
        Ok(&**inode)
    }

    /// Makes a directory, a symbolic link, a named pipe, a socket's name or an
    /// empty file. `mode` has had the umask.
    ///
    /// # Errors
    /// Those of mkdir(2), symlink(2) and mknod(2).
    pub fn make(
        &self,
        at: At<'_>,
        path: &'a [u8],
        kind: Kind,
        mode: u32,
        target: &[u8],
    ) -> Result<Arc<dyn Inode>> {
        let mut walk = Walk::new(self, at, path, Resolve::empty())?;
        let Last::Name(name) = walk.parent()? else {
            return Err(Error::Exists);
        };
        let at = &walk.at;
        // The search permission counts before existence.
        walk.find(name.bytes())?;
        let dir = at.dentry.dir().ok_or(Error::NotDirectory)?;
        let _lock = dir.lock.lock();
        if find_locked(at, name.bytes())?.inode().is_some() {
            return Err(Error::Exists);
        }
        if name.slash && kind != Kind::Directory {
            return Err(Error::NotFound);
        }
        let parent = self.check_can_add(at)?;
        let node = NewNode {
            attr: new_attr(self, parent, kind, mode),
            target,
            rdev: 0,
        };
        let inode = parent.create(name.bytes(), &node)?;
        if inotify::is_used() {
            inotify::entry(parent, name.bytes(), &*inode, Mask::CREATE, 0);
        }
        let cache = &at.mount.tree().cache;
        at.dentry
            .remember(cache, name.bytes(), Some(inode.clone()))?;
        Ok(inode)
    }

    /// Gives `from` the further name `path`.
    ///
    /// # Errors
    /// Those of link(2).
    pub fn link(&self, from: &Path, at: At<'_>, path: &'a [u8]) -> Result<()> {
        let inode = from.inode()?;
        let mut walk = Walk::new(self, at, path, Resolve::empty())?;
        let Last::Name(name) = walk.parent()? else {
            return Err(Error::Exists);
        };
        let at = &walk.at;
        walk.find(name.bytes())?;
        if !Arc::ptr_eq(&at.mount, &from.mount) {
            return Err(Error::CrossDevice);
        }
        let dir = at.dentry.dir().ok_or(Error::NotDirectory)?;
        let _lock = dir.lock.lock();
        if find_locked(at, name.bytes())?.inode().is_some() {
            return Err(Error::Exists);
        }
        if name.slash {
            return Err(Error::NotFound);
        }
        let parent = self.check_can_add(at)?;
        if inode.attr().kind == Kind::Directory {
            return Err(Error::NotPermitted);
        }
        if inode.attr().nlink() == 0 && !from.dentry.is_linkable() {
            return Err(Error::NotFound);
        }
        parent.link(name.bytes(), inode)?;
        if inotify::is_used() {
            inotify::entry(parent, name.bytes(), &**inode, Mask::CREATE, 0);
        }
        let cache = &at.mount.tree().cache;
        at.dentry
            .remember(cache, name.bytes(), Some(inode.clone()))?;
        Ok(())
    }

    /// Removes the name `path` of something that is no directory.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn unlink(&self, at: At<'_>, path: &'a [u8]) -> Result<()> {
        let mut walk = Walk::new(self, at, path, Resolve::empty())?;
        let Last::Name(name) = walk.parent()? else {
            return Err(Error::IsDirectory);
        };
        let at = &walk.at;
        walk.find(name.bytes())?;
        let dir = at.dentry.dir().ok_or(Error::NotDirectory)?;
        let _lock = dir.lock.lock();
        let victim = find_locked(at, name.bytes())?;
        let inode = victim.inode().ok_or(Error::NotFound)?;
        let parent = self.check_can_remove(at, &victim)?;
        if inode.attr().kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        if name.slash {
            return Err(Error::NotDirectory);
        }
        parent.unlink(name.bytes())?;
        victim.set_removed();
        if inotify::is_used() {
            inotify::unlinked(&**inode);
            inotify::entry(parent, name.bytes(), &**inode, Mask::DELETE, 0);
        }
        at.dentry.forget(&at.mount.tree().cache, name.bytes());
        Ok(())
    }

    /// Removes the empty directory `path`.
    ///
    /// # Errors
    /// Those of rmdir(2).
    pub fn rmdir(&self, at: At<'_>, path: &'a [u8]) -> Result<()> {
        let mut walk = Walk::new(self, at, path, Resolve::empty())?;
        let name = match walk.parent()? {
            Last::Name(n) => n,
            Last::Dot if path.ends_with(b".") => return Err(Error::Invalid),
            Last::Dot => return Err(Error::Busy),
            Last::DotDot => return Err(Error::NotEmpty),
            Last::Here => return Err(Error::NotDirectory),
        };
        let at = &walk.at;
        walk.find(name.bytes())?;
        let dir = at.dentry.dir().ok_or(Error::NotDirectory)?;
        let _lock = dir.lock.lock();
        let victim = find_locked(at, name.bytes())?;
        let inode = victim.inode().ok_or(Error::NotFound)?;
        let parent = self.check_can_remove(at, &victim)?;
        let below = victim.dir().ok_or(Error::NotDirectory)?;
        // Whoever makes entries in it holds its lock and looks whether it lives.
        let _below = below.lock.lock();
        parent.rmdir(name.bytes())?;
        victim.set_removed();
        if inotify::is_used() {
            inotify::unlinked(&**inode);
            inotify::entry(parent, name.bytes(), &**inode, Mask::DELETE, 0);
        }
        at.dentry.forget(&at.mount.tree().cache, name.bytes());
        Ok(())
    }

    /// Renames.
    ///
    /// # Errors
    /// Those of renameat2(2).
    pub fn rename(
        &self,
        from: (At<'_>, &'a [u8]),
        to: (At<'_>, &'a [u8]),
        flags: RenameFlags,
    ) -> Result<()> {
        let mut source = Walk::new(self, from.0, from.1, Resolve::empty())?;
        let Last::Name(old) = source.parent()? else {
            return Err(Error::Busy);
        };
        let mut target = Walk::new(self, to.0, to.1, Resolve::empty())?;
        let Last::Name(new) = target.parent()? else {
            return Err(if flags.contains(RenameFlags::NOREPLACE) {
                Error::Exists
            } else {
                Error::Busy
            });
        };
        source.find(old.bytes())?;
        target.find(new.bytes())?;
        if !Arc::ptr_eq(&source.at.mount, &target.at.mount) {
            return Err(Error::CrossDevice);
        }
        let tree = source.at.mount.tree().clone();
        let _topology =
            (!Arc::ptr_eq(&source.at.dentry, &target.at.dentry)).then(|| tree.rename.lock());
        let _locks = lock_both(&source.at.dentry, &target.at.dentry)?;
        self.rename_locked(&source.at, &old, &target.at, &new, flags)
    }

    fn rename_locked(
        &self,
        from: &Path,
        old: &LastName<'_>,
        to: &Path,
        new: &LastName<'_>,
        flags: RenameFlags,
    ) -> Result<()> {
        let moved = find_locked(from, old.bytes())?;
        let inode = moved.inode().ok_or(Error::NotFound)?;
        let victim = find_locked(to, new.bytes())?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if victim.inode().is_some() && flags.contains(RenameFlags::NOREPLACE) {
            return Err(Error::Exists);
        }
        if exchange && victim.inode().is_none() {
            return Err(Error::NotFound);
        }
        let is_dir = moved.dir().is_some();
        let slash = old.slash || (new.slash && !exchange);
        if slash && !is_dir {
            return Err(Error::NotDirectory);
        }
        if to.dentry.is_below(&moved) {
            return Err(Error::Invalid);
        }
        if from.dentry.is_below(&victim) {
            return Err(if exchange {
                Error::Invalid
            } else {
                Error::NotEmpty
            });
        }
        let parent = self.check_can_remove(from, &moved)?;
        let new_parent = match victim.inode() {
            Some(_) => self.check_can_remove(to, &victim)?,
            None => self.check_can_add(to)?,
        };
        if to.dentry.is_removed() {
            return Err(Error::NotFound);
        }
        if is_dir && !Arc::ptr_eq(&from.dentry, &to.dentry) {
            // Its `..` changes.
            inode.attr().check(self.cred, Want::WRITE)?;
        }
        if let Some(over) = victim.inode() {
            if Arc::ptr_eq(over, inode) {
                return Ok(());
            }
            match (is_dir, victim.dir().is_some()) {
                (true, false) if !exchange => return Err(Error::NotDirectory),
                (false, true) if !exchange => return Err(Error::IsDirectory),
                _ => {}
            }
        }
        let mode = if exchange {
            RenameMode::Exchange
        } else {
            RenameMode::Replace
        };
        let _below = victim.dir().map(|d| d.lock.lock());
        parent.rename(old.bytes(), new_parent, new.bytes(), mode)?;
        tell_renamed(
            (parent, old.bytes()),
            (new_parent, new.bytes()),
            inode,
            &victim,
            exchange,
        );
        move_entries(
            (from, old.bytes()),
            (to, new.bytes()),
            &moved,
            &victim,
            exchange,
        );
        Ok(())
    }

    /// What `path` names, for [`Caller::link`].
    ///
    /// # Errors
    /// Those of path_resolution(7).
    pub fn link_source(&self, at: At<'_>, path: &'a [u8], follow: bool) -> Result<Path> {
        let last = if follow {
            LastLink::Follow
        } else {
            LastLink::Stay
        };
        self.lookup(at, path, last)
    }
}

/// Tells those who watch of a rename that has been done.
fn tell_renamed(
    (dir, old): (&dyn Inode, &[u8]),
    (new_dir, new): (&dyn Inode, &[u8]),
    inode: &Arc<dyn Inode>,
    victim: &Dentry,
    exchange: bool,
) {
    if !inotify::is_used() {
        return;
    }
    let cookie = inotify::cookie();
    inotify::entry(dir, old, &**inode, Mask::MOVED_FROM, cookie);
    inotify::entry(new_dir, new, &**inode, Mask::MOVED_TO, cookie);
    inotify::moved(&**inode);
    match victim.inode() {
        Some(over) if !exchange => inotify::unlinked(&**over),
        _ => {}
    }
}

/// Has the name cache follow a rename that has been done.
fn move_entries(
    (from, old): (&Path, &[u8]),
    (to, new): (&Path, &[u8]),
    moved: &Arc<Dentry>,
    victim: &Arc<Dentry>,
    exchange: bool,
) {
    let cache = &from.mount.tree().cache;
    from.dentry.forget(cache, old);
    to.dentry.forget(cache, new);
    // An entry that cannot be remembered for want of memory is looked up again at
    // its new place.
    if to.dentry.adopt(cache, new, moved.clone()).is_err() {
        moved.set_removed();
    }
    let gone = !exchange || from.dentry.adopt(cache, old, victim.clone()).is_err();
    if gone {
        victim.set_removed();
    }
}

type DirGuard<'a> = MutexGuard<'a, ()>;

/// Locks two directories, perhaps the same one: an ancestor before what is below
/// it, strangers by address.
fn lock_both<'a>(
    a: &'a Arc<Dentry>,
    b: &'a Arc<Dentry>,
) -> Result<(DirGuard<'a>, Option<DirGuard<'a>>)> {
    let dir_a = a.dir().ok_or(Error::NotDirectory)?;
    let dir_b = b.dir().ok_or(Error::NotDirectory)?;
    if Arc::ptr_eq(a, b) {
        return Ok((dir_a.lock.lock(), None));
    }
    let a_first = if b.is_below(a) {
        true
    } else if a.is_below(b) {
        false
    } else {
        Arc::as_ptr(a).addr() < Arc::as_ptr(b).addr()
    };
    let (first, second) = if a_first {
        (dir_a, dir_b)
    } else {
        (dir_b, dir_a)
    };
    let outer = first.lock.lock();
    Ok((outer, Some(second.lock.lock())))
}
