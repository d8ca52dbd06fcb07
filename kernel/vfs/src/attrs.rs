//! Changing attributes of inodes, with the checks of who may.

use crate::cred::{Caps, Want};
use crate::error::{Error, Result};
use crate::inode::{Inode, Kind, S_ISGID, S_ISUID, SetAttr, XattrSet};
use crate::inotify::{self, Mask};
use crate::mount::{MountFlags, Path};
use crate::walk::Caller;
use alloc::sync::Arc;
use alloc::vec::Vec;

/// A time to be set by utimensat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// Left as it is.
    Omit,
    /// The time now.
    Now,
    /// This time, in nanoseconds since 1970.
    At(i64),
}

/// Tells those who watch the object at `path`.
fn changed(path: &Path, mask: Mask) {
    if inotify::is_used() {
        inotify::object(&path.dentry, mask);
    }
}

impl Caller<'_> {
    /// `chmod`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] for all but the owner; [`Error::ReadOnly`].
    pub fn chmod(&self, path: &Path, mode: u32) -> Result<()> {
        let inode = path.inode()?;
        path.mount.check_writable()?;
        let attr = inode.attr();
        if !self.cred.owns(attr.uid()) {
            return Err(Error::NotPermitted);
        }
        let foreign = !self.cred.in_group(attr.gid()) && !self.cred.has(Caps::FSETID);
        let lost = if foreign { S_ISGID } else { 0 };
        inode.set_attr(&SetAttr {
            mode: Some(mode & 0o7777 & !lost),
            ..SetAttr::default()
        })?;
        changed(path, Mask::ATTRIB);
        Ok(())
    }

    /// `chown`; `None` leaves one as it is.
    ///
    /// # Errors
    /// [`Error::NotPermitted`] unless the rights allow it (chown(2)).
    pub fn chown(&self, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let inode = path.inode()?;
        path.mount.check_writable()?;
        let attr = inode.attr();
        let mine = self.cred.fsuid == attr.uid();
        let uid_ok = uid.is_none_or(|u| mine && u == attr.uid());
        let gid_ok = gid.is_none_or(|g| mine && (g == attr.gid() || self.cred.in_group(g)));
        if !(uid_ok && gid_ok || self.cred.has(Caps::CHOWN)) {
            return Err(Error::NotPermitted);
        }
        let mode = attr.mode();
        // Programs lose their set-id bits with their owner.
        let group = if mode & 0o010 != 0 { S_ISGID } else { 0 };
        let set_id = mode & (S_ISUID | group);
        let strip = set_id != 0 && attr.kind == Kind::File;
        inode.set_attr(&SetAttr {
            mode: strip.then_some(mode & !set_id),
            uid,
            gid,
            ..SetAttr::default()
        })?;
        changed(path, Mask::ATTRIB);
        Ok(())
    }

    /// `utimensat`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], or [`Error::AccessDenied`] when both times are
    /// to be now and the file cannot be written.
    pub fn set_times(&self, path: &Path, atime: SetTime, mtime: SetTime) -> Result<()> {
        let told = match (atime, mtime) {
            (SetTime::Omit, SetTime::Omit) => return Ok(()),
            (_, SetTime::Omit) => Mask::ACCESS,
            (SetTime::Omit, _) => Mask::MODIFY,
            _ => Mask::ATTRIB,
        };
        let inode = path.inode()?;
        path.mount.check_writable()?;
        let attr = inode.attr();
        if !self.cred.owns(attr.uid()) {
            if (atime, mtime) != (SetTime::Now, SetTime::Now) {
                return Err(Error::NotPermitted);
            }
            attr.check(self.cred, Want::WRITE)?;
        }
        let now = machine::time::wall();
        let value = |t| match t {
            SetTime::Omit => None,
            SetTime::Now => Some(now),
            SetTime::At(t) => Some(t),
        };
        inode.set_attr(&SetAttr {
            atime: value(atime),
            mtime: value(mtime),
            ..SetAttr::default()
        })?;
        changed(path, told);
        Ok(())
    }

    /// `access`: whether `want` is allowed at `path`.
    ///
    /// # Errors
    /// [`Error::AccessDenied`], [`Error::ReadOnly`].
    pub fn access(&self, path: &Path, want: Want) -> Result<()> {
        let inode = path.inode()?;
        let attr = inode.attr();
        let plain = matches!(attr.kind, Kind::File | Kind::Directory | Kind::Symlink);
        if want.contains(Want::WRITE) && plain {
            path.mount.check_writable()?;
        }
        let no_exec = path.mount.flags().contains(MountFlags::NOEXEC);
        if want.contains(Want::EXEC) && no_exec && attr.kind == Kind::File {
            return Err(Error::AccessDenied);
        }
        attr.check(self.cred, want)
    }

    /// `truncate` by path.
    ///
    /// # Errors
    /// Those of truncate(2).
    pub fn truncate(&self, path: &Path, len: u64) -> Result<()> {
        let inode = path.inode()?;
        match inode.attr().kind {
            Kind::File => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid),
        }
        path.mount.check_writable()?;
        inode.attr().check(self.cred, Want::WRITE)?;
        let writers = inode.attr().writers();
        writers.add()?;
        let way = match inode.attr().locks_if_any() {
            None => Ok(()),
            Some(locks) => locks.leases().make_way(true, true),
        };
        let done = way.and_then(|()| inode.truncate(len));
        writers.remove();
        done?;
        inode.attr().strip_setid(self.cred);
        changed(path, Mask::MODIFY);
        Ok(())
    }

    /// Checks the name of an extended attribute, and whether it may be read, or
    /// changed with `write` (xattr(7)).
    fn check_xattr(&self, inode: &dyn Inode, name: &[u8], write: bool) -> Result<()> {
        let attr = inode.attr();
        if name.starts_with(b"user.") {
            if !matches!(attr.kind, Kind::File | Kind::Directory) {
                return Err(if write {
                    Error::NotPermitted
                } else {
                    Error::NoData
                });
            }
            return attr.check(self.cred, if write { Want::WRITE } else { Want::READ });
        }
        if name.starts_with(b"trusted.") {
            let admin = self.cred.has(Caps::SYS_ADMIN);
            let refused = if write {
                Error::NotPermitted
            } else {
                Error::NoData
            };
            return admin.then_some(()).ok_or(refused);
        }
        if name.starts_with(b"security.") {
            let needs = if name == b"security.capability" {
                Caps::SETFCAP
            } else {
                Caps::SYS_ADMIN
            };
            return (!write || self.cred.has(needs))
                .then_some(())
                .ok_or(Error::NotPermitted);
        }
        Err(Error::Unsupported)
    }

    /// `getxattr`.
    ///
    /// # Errors
    /// Those of getxattr(2).
    pub fn xattr(&self, inode: &dyn Inode, name: &[u8]) -> Result<Arc<Vec<u8>>> {
        self.check_xattr(inode, name, false)?;
        inode.xattr(name)
    }

    /// `setxattr`.
    ///
    /// # Errors
    /// Those of setxattr(2).
    pub fn set_xattr(&self, path: &Path, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let inode = path.inode()?;
        path.mount.check_writable()?;
        self.check_xattr(&**inode, name, true)?;
        inode.set_xattr(name, value, how)?;
        changed(path, Mask::ATTRIB);
        Ok(())
    }

    /// `removexattr`.
    ///
    /// # Errors
    /// Those of removexattr(2).
    pub fn remove_xattr(&self, path: &Path, name: &[u8]) -> Result<()> {
        let inode = path.inode()?;
        path.mount.check_writable()?;
        self.check_xattr(&**inode, name, true)?;
        inode.remove_xattr(name)?;
        changed(path, Mask::ATTRIB);
        Ok(())
    }

    /// `listxattr`: the names the caller may see.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn list_xattrs(&self, inode: &dyn Inode) -> Result<Vec<u8>> {
        let mut all = inode.list_xattrs()?;
        if !self.cred.has(Caps::SYS_ADMIN) {
            let mut kept = Vec::new();
            for name in all.split_inclusive(|b| *b == 0) {
                if !name.starts_with(b"trusted.") {
                    kept.try_reserve(name.len())?;
                    kept.extend_from_slice(name);
                }
            }
            all = kept;
        }
        Ok(all)
    }
}
