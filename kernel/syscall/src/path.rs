//! Paths, `dirfd`s and buffer lists as a program gives them.

use crate::ctx::Ctx;
use crate::errno::Errno;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::io::{Segments, UserBuf};
use machine::user::{self, Text};
use vfs::inode::PATH_MAX;
use vfs::{At, Caller, Credentials, FsContext, OpenFile};

/// `AT_FDCWD`: relative paths begin at the working directory.
pub(crate) const AT_FDCWD: i32 = -100;
/// Do not follow a symbolic link at the end.
pub(crate) const AT_SYMLINK_NOFOLLOW: usize = 0x100;
/// `faccessat`: use the effective ids; `unlinkat`: remove a directory.
pub(crate) const AT_EACCESS: usize = 0x200;
/// `unlinkat`: remove a directory.
pub(crate) const AT_REMOVEDIR: usize = 0x200;
/// `linkat`: follow a symbolic link at the end.
pub(crate) const AT_SYMLINK_FOLLOW: usize = 0x400;
/// Accepted: nothing is ever mounted automatically.
pub(crate) const AT_NO_AUTOMOUNT: usize = 0x800;
/// An empty path names the descriptor itself.
pub(crate) const AT_EMPTY_PATH: usize = 0x1000;

/// Most buffers of one `readv` or `writev` (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;
/// Most bytes one transfer moves (`MAX_RW_COUNT`).
pub(crate) const RW_MAX: usize = 0x7fff_f000;
/// Paths up to this need no allocation.
const SHORT: usize = 256;

/// Room for a path in kernel memory.
///
/// A call makes it in its own frame and reads into it there: a path that was handed on by
/// value would be copied, all of the room with it.
#[derive(Default)]
pub(crate) struct PathRoom {
    short: Text<SHORT>,
    long: Vec<u8>,
}

impl PathRoom {
    #[inline]
    pub(crate) fn new() -> PathRoom {
        PathRoom::default()
    }

    /// Copies the path at `addr`.
    ///
    /// # Errors
    /// `EFAULT`, `ENAMETOOLONG`, `ENOMEM`.
    #[inline]
    pub(crate) fn read(&mut self, addr: usize) -> Result<UserPath<'_>, Errno> {
        match self.short.read(addr)? {
            Some(short) => Ok(UserPath(short)),
            None => read_long(&mut self.long, addr),
        }
    }
}

#[cold]
fn read_long(room: &mut Vec<u8>, addr: usize) -> Result<UserPath<'_>, Errno> {
    room.try_reserve_exact(PATH_MAX)?;
    room.resize(PATH_MAX, 0);
    let len = user::read_cstr(addr, room)?.ok_or(Errno::ENAMETOOLONG)?;
    Ok(UserPath(room.get(..len).unwrap_or(&[])))
}

/// A path in kernel memory.
#[derive(Clone, Copy)]
pub(crate) struct UserPath<'a>(&'a [u8]);

impl<'a> UserPath<'a> {
    #[inline]
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.0
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Who walks, held for the time of a call.
pub(crate) struct Walker {
    fs: Arc<FsContext>,
    cred: Arc<Credentials>,
}

impl Walker {
    pub(crate) fn new(ctx: &Ctx<'_>) -> Result<Walker, Errno> {
        Ok(Walker {
            fs: ctx.fs()?,
            cred: ctx.cred()?,
        })
    }

    /// As [`Walker::new`], with the real ids in the place of the effective ones
    /// (`access`).
    pub(crate) fn with_real_ids(ctx: &Ctx<'_>) -> Result<Walker, Errno> {
        let mut walker = Walker::new(ctx)?;
        let c = &walker.cred;
        if c.fsuid != c.uid || c.fsgid != c.gid {
            let mut real = (**c).clone();
            (real.fsuid, real.fsgid) = (c.uid, c.gid);
            // Only root's own capabilities count for the real ids.
            real.effective = if c.uid == 0 {
                c.permitted
            } else {
                vfs::Caps::empty()
            };
            walker.cred = Arc::new(real);
        }
        Ok(walker)
    }

    pub(crate) fn who(&self) -> Caller<'_> {
        Caller {
            fs: &self.fs,
            cred: &self.cred,
        }
    }
}

/// Where a relative path begins, held for the time of a call.
pub(crate) struct Base(Option<Arc<OpenFile>>);

impl Base {
    /// The directory `dirfd`, which does not count for an absolute `path`.
    ///
    /// # Errors
    /// `EBADF`.
    pub(crate) fn new(ctx: &Ctx<'_>, dirfd: usize, path: &UserPath<'_>) -> Result<Base, Errno> {
        if dirfd as i32 == AT_FDCWD || path.bytes().first() == Some(&b'/') {
            return Ok(Base(None));
        }
        Ok(Base(Some(ctx.any_file(dirfd)?)))
    }

    pub(crate) fn at(&self) -> At<'_> {
        match &self.0 {
            Some(f) => At::File(f),
            None => At::Cwd,
        }
    }
}

/// Copies `count` entries of the `iovec` array at `addr`, cut so that a transfer
/// stays below [`RW_MAX`].
///
/// # Errors
/// `EINVAL` for too many or too long ones, `EFAULT`, `ENOMEM`.
pub(crate) fn read_iovec(addr: usize, count: usize) -> Result<Segments, Errno> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut out = Segments::new();
    out.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    let mut room = RW_MAX;
    for i in 0..count {
        let [base, len]: [u64; 2] = user::read_value(addr.wrapping_add(i * 16))?;
        let len = isize::try_from(len).map_err(|_| Errno::EINVAL)? as usize;
        let len = len.min(room);
        room -= len;
        out.push(UserBuf {
            addr: base as usize,
            len,
        });
    }
    Ok(out)
}
