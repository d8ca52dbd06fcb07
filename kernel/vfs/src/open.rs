//! Opening a file by path (open(2), openat2(2)).

use crate::cred::{Caps, Want};
use crate::dentry::Dentry;
use crate::entries::new_attr;
use crate::error::{Error, Result};
use crate::file::{FileOps, OpenFile, OpenFlags, Opening, Seek};
use crate::inode::{Kind, NewNode};
use crate::inotify::{self, Mask};
use crate::mount::{MountFlags, Path};
use crate::walk::{At, Caller, Last, LastLink, Resolve, Walk, find_to_make};
use alloc::sync::Arc;
use core::any::Any;
use machine::FileCharge;
use machine::io::{Sink, Source};
use machine::sync::Once;

/// How to open.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Flags.
    pub flags: OpenFlags,
    /// Permission bits of a file that is made, before the umask.
    pub mode: u32,
    /// Restrictions of the walk.
    pub resolve: Resolve,
}

impl<'a> Caller<'a> {
    /// Opens what `path` names, as an open file that `charge` pays for.
    ///
    /// # Errors
    /// Those of open(2) and openat2(2).
    pub fn open(
        &self,
        at: At<'_>,
        path: &'a [u8],
        how: &How,
        charge: FileCharge,
    ) -> Result<Arc<OpenFile>> {
        let flags = how.flags;
        let mut walk = Walk::new(self, at, path, how.resolve)?;
        let exclusive = flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE);
        let last = if exclusive || flags.contains(OpenFlags::NOFOLLOW) {
            LastLink::Stay
        } else {
            LastLink::Follow
        };
        if flags.contains(OpenFlags::PATH) {
            let path = walk.finish(last)?;
            return self.open_path_only(path, flags, charge);
        }
        if flags.contains(OpenFlags::TMPFILE_BIT) {
            let dir = walk.finish(last)?;
            return self.open_unnamed(&dir, how, charge);
        }
        if !flags.contains(OpenFlags::CREATE) {
            let path = walk.finish(last)?;
            return self.open_found(path, flags, false, charge);
        }
        if flags.contains(OpenFlags::DIRECTORY) {
            return Err(Error::Invalid);
        }
        loop {
            let name = match walk.parent()? {
                Last::Name(n) if n.slash => return Err(Error::IsDirectory),
                Last::Name(n) => n,
                Last::Here if exclusive => return Err(Error::Exists),
                Last::Here => return self.open_found(walk.at, flags, false, charge),
                Last::Dot | Last::DotDot if exclusive => return Err(Error::Exists),
                Last::Dot | Last::DotDot => return Err(Error::IsDirectory),
            };
            let known = walk.known(name.bytes())?;
            let (dentry, made) = match known.filter(|d| d.inode().is_some()) {
                Some(dentry) => (dentry, false),
                None => self.create(&walk.at, name.bytes(), how)?,
            };
            if exclusive && !made {
                return Err(Error::Exists);
            }
            if walk.is_followed(&dentry, last, false) {
                walk.follow(&dentry)?;
                continue;
            }
            walk.enter(dentry)?;
            return self.open_found(walk.at, flags, made, charge);
        }
    }

    /// Makes the file `name` unless somebody was faster; whether it is new.
    fn create(&self, at: &Path, name: &[u8], how: &How) -> Result<(Arc<Dentry>, bool)> {
        let dir = at.dentry.dir().ok_or(Error::NotDirectory)?;
        let _lock = dir.lock.lock();
        if let Some(found) = find_to_make(at, name)? {
            return Ok((found, false));
        }
        let parent = self.check_can_add(at)?;
        let node = NewNode {
            attr: new_attr(self, parent, Kind::File, how.mode & !self.fs.umask()),
            target: &[],
            rdev: 0,
        };
        let inode = parent.create(name, &node)?;
        if inotify::is_used() {
            inotify::entry(parent, name, &*inode, Mask::CREATE, 0);
        }
        let cache = &at.mount.tree().cache;
        Ok((at.dentry.remember(cache, name, Some(inode))?, true))
    }

    fn open_path_only(
        &self,
        path: Path,
        flags: OpenFlags,
        charge: FileCharge,
    ) -> Result<Arc<OpenFile>> {
        if flags.contains(OpenFlags::DIRECTORY) && path.dentry.dir().is_none() {
            return Err(Error::NotDirectory);
        }
        static OPS: Once<Arc<dyn FileOps>> = Once::new();
        let ops = OPS.call_once(|| Arc::new(PathOnly));
        let keep = OpenFlags::PATH | OpenFlags::DIRECTORY | OpenFlags::NOFOLLOW;
        Ok(OpenFile::new(ops.clone(), flags & keep, Some(path), charge))
    }

    fn open_unnamed(&self, dir: &Path, how: &How, charge: FileCharge) -> Result<Arc<OpenFile>> {
        if !how.flags.writes() || !how.flags.contains(OpenFlags::DIRECTORY) {
            return Err(Error::Invalid);
        }
        if dir.dentry.dir().is_none() {
            return Err(Error::NotDirectory);
        }
        let parent = self.check_can_add(dir)?;
        let node = NewNode {
            attr: new_attr(self, parent, Kind::File, how.mode & !self.fs.umask()),
            target: &[],
            rdev: 0,
        };
        let inode = parent.create_unnamed(&node)?;
        let name = alloc::format!("#{}", inode.attr().ino);
        let dentry = Dentry::uncached(&dir.dentry, name.as_bytes(), inode);
        dentry.set_unnamed(!how.flags.contains(OpenFlags::EXCLUSIVE));
        let path = Path {
            mount: dir.mount.clone(),
            dentry,
        };
        let flags = how.flags - (OpenFlags::TMPFILE_BIT | OpenFlags::DIRECTORY);
        self.open_found(path, flags, true, charge)
    }

    /// Opens `path`, which has been found, or `made` just now (then whoever made
    /// it may do with it what the flags say, whatever its mode).
    pub(crate) fn open_found(
        &self,
        path: Path,
        flags: OpenFlags,
        made: bool,
        charge: FileCharge,
    ) -> Result<Arc<OpenFile>> {
        let inode = path.inode()?;
        let attr = inode.attr();
        let (reads, writes) = (flags.reads(), flags.writes());
        let truncates = flags.contains(OpenFlags::TRUNCATE) && !made;
        match attr.kind {
            Kind::Directory if writes || truncates => return Err(Error::IsDirectory),
            Kind::Directory if flags.contains(OpenFlags::CREATE) => {
                return Err(Error::IsDirectory);
            }
            Kind::Directory => {}
            _ if flags.contains(OpenFlags::DIRECTORY) => return Err(Error::NotDirectory),
            Kind::Symlink => return Err(Error::TooManyLinks),
            Kind::CharDevice | Kind::BlockDevice
                if path.mount.flags().contains(MountFlags::NODEV) =>
            {
                return Err(Error::AccessDenied);
            }
            Kind::File if writes || truncates => path.mount.check_writable()?,
            _ => {}
        }
        if !made {
            let mut want = Want::empty();
            want.set(Want::READ, reads);
            want.set(Want::WRITE, writes || truncates);
            attr.check(self.cred, want)?;
        }
        if flags.contains(OpenFlags::NOATIME) && !self.cred.owns(attr.uid()) {
            return Err(Error::NotPermitted);
        }
        if attr.kind == Kind::Directory {
            let file = OpenFile::new(directory_ops(), flags, Some(path), charge);
            file.happened(Mask::OPEN);
            return Ok(file);
        }
        let how = Opening {
            flags,
            cred: self.cred,
            path: &path,
        };
        let counted = attr.kind == Kind::File && (writes || truncates);
        if counted {
            attr.writers().add()?;
        }
        let way = match attr.locks_if_any().filter(|_| !made) {
            None => Ok(()),
            Some(locks) => {
                let wait = !flags.contains(OpenFlags::NONBLOCK);
                locks.leases().make_way(writes || truncates, wait)
            }
        };
        let opened = way.and_then(|()| inode.clone().open(&how));
        let opened = opened.and_then(|ops| {
            if truncates && attr.kind == Kind::File {
                inode.truncate(0)?;
            }
            Ok(ops)
        });
        let stands_in = inode.is_stand_in();
        let stays = counted && writes && !stands_in && opened.is_ok();
        if counted && !stays {
            attr.writers().remove();
        }
        let path = (!stands_in).then_some(path);
        let file = OpenFile::opened(opened?, flags, path, charge, stays);
        if truncates {
            file.happened(Mask::MODIFY);
        }
        file.happened(Mask::OPEN);
        Ok(file)
    }
}

/// Whether `cred` may do what only the owner or `CAP_FOWNER` may, in a sticky
/// directory.
pub(crate) fn sticky_forbids(who: &Caller<'_>, dir_uid: u32, file_uid: u32) -> bool {
    let uid = who.cred.fsuid;
    uid != dir_uid && uid != file_uid && !who.cred.has(Caps::FOWNER)
}

/// What an open directory can do; the entries come from its inode.
struct Directory;

fn directory_ops() -> Arc<dyn FileOps> {
    static OPS: Once<Arc<dyn FileOps>> = Once::new();
    OPS.call_once(|| Arc::new(Directory)).clone()
}

impl FileOps for Directory {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: &OpenFile, _: &mut Sink<'_>) -> Result<usize> {
        Err(Error::IsDirectory)
    }

    fn pread(&self, _: &OpenFile, _: &mut Sink<'_>, _: u64) -> Result<usize> {
        Err(Error::IsDirectory)
    }

    fn seek(&self, _: &OpenFile, from: u64, to: Seek) -> Result<u64> {
        match to {
            Seek::Set(_) | Seek::Current(_) => to.within(from, 0),
            // An end beyond every position, as on Linux's tmpfs.
            Seek::End(0) => Ok(i64::MAX as u64),
            _ => Err(Error::Invalid),
        }
    }

    fn sync(&self, _: &OpenFile) -> Result<()> {
        Ok(())
    }
}

/// What an `O_PATH` description can do: nothing but name its object.
struct PathOnly;

impl FileOps for PathOnly {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, _: &OpenFile, _: &mut Sink<'_>) -> Result<usize> {
        Err(Error::BadDescriptor)
    }

    fn write(&self, _: &OpenFile, _: &mut Source<'_>) -> Result<usize> {
        Err(Error::BadDescriptor)
    }
}
