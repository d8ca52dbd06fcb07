//! Attributes of files: mode, owner, times, access, extended attributes.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::{
    AT_EACCESS, AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Base, PathRoom, Walker,
};
use alloc::vec::Vec;
use machine::user;
use vfs::attrs::SetTime;
use vfs::cred::Want;
use vfs::inode::XattrSet;
use vfs::{LastLink, Path};

const CWD: usize = AT_FDCWD as usize;
/// `UTIME_NOW` and `UTIME_OMIT` of utimensat(2).
const UTIME_NOW: i64 = (1 << 30) - 1;
const UTIME_OMIT: i64 = (1 << 30) - 2;
const NS: i64 = 1_000_000_000;
/// Longest name of an extended attribute, and longest value (xattr(7)).
const XATTR_NAME_MAX: usize = 255;
const XATTR_SIZE_MAX: usize = 64 << 10;

/// The object that `dirfd`, `path` and `flags` name; it must have a path.
fn find(
    ctx: &Ctx<'_>,
    walker: &Walker,
    dirfd: usize,
    path: usize,
    flags: usize,
) -> Result<Path, Errno> {
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    if path.is_empty() && flags & AT_EMPTY_PATH != 0 {
        if dirfd as i32 == AT_FDCWD {
            return Ok(ctx.fs()?.cwd());
        }
        return of_file(ctx, dirfd, true);
    }
    let base = Base::new(ctx, dirfd, &path)?;
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 {
        LastLink::Stay
    } else {
        LastLink::Follow
    };
    Ok(walker.who().lookup(base.at(), path.bytes(), last)?)
}

fn of_file(ctx: &Ctx<'_>, fd: usize, path_only: bool) -> Result<Path, Errno> {
    let file = if path_only {
        ctx.any_file(fd)?
    } else {
        ctx.file(fd)?
    };
    // Pipes and the like have attributes nobody can change.
    Ok(file.path().ok_or(Errno::EINVAL)?.clone())
}

fn chmod(walker: &Walker, at: &Path, mode: usize) -> SysResult {
    walker.who().chmod(at, mode as u32)?;
    Ok(0)
}

/// chmod(2)
pub(crate) fn sys_chmod(ctx: &mut Ctx<'_>, path: usize, mode: usize) -> SysResult {
    sys_fchmodat2(ctx, CWD, path, mode, 0)
}

/// fchmod(2)
pub(crate) fn sys_fchmod(ctx: &mut Ctx<'_>, fd: usize, mode: usize) -> SysResult {
    let walker = Walker::new(ctx)?;
    chmod(&walker, &of_file(ctx, fd, false)?, mode)
}

/// fchmodat(2), whose system call has no flags
pub(crate) fn sys_fchmodat(ctx: &mut Ctx<'_>, dirfd: usize, path: usize, mode: usize) -> SysResult {
    sys_fchmodat2(ctx, dirfd, path, mode, 0)
}

/// fchmodat2(2)
pub(crate) fn sys_fchmodat2(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    mode: usize,
    flags: usize,
) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let walker = Walker::new(ctx)?;
    let at = find(ctx, &walker, dirfd, path, flags)?;
    chmod(&walker, &at, mode)
}

fn chown(walker: &Walker, at: &Path, uid: usize, gid: usize) -> SysResult {
    let id = |raw: usize| Some(raw as u32).filter(|i| *i != u32::MAX);
    walker.who().chown(at, id(uid), id(gid))?;
    Ok(0)
}

/// chown(2)
pub(crate) fn sys_chown(ctx: &mut Ctx<'_>, path: usize, uid: usize, gid: usize) -> SysResult {
    sys_fchownat(ctx, CWD, path, uid, gid, 0)
}

/// lchown(2)
pub(crate) fn sys_lchown(ctx: &mut Ctx<'_>, path: usize, uid: usize, gid: usize) -> SysResult {
    sys_fchownat(ctx, CWD, path, uid, gid, AT_SYMLINK_NOFOLLOW)
}

/// fchown(2)
pub(crate) fn sys_fchown(ctx: &mut Ctx<'_>, fd: usize, uid: usize, gid: usize) -> SysResult {
    let walker = Walker::new(ctx)?;
    chown(&walker, &of_file(ctx, fd, false)?, uid, gid)
}

/// fchownat(2)
pub(crate) fn sys_fchownat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    uid: usize,
    gid: usize,
    flags: usize,
) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let walker = Walker::new(ctx)?;
    let at = find(ctx, &walker, dirfd, path, flags)?;
    chown(&walker, &at, uid, gid)
}

fn timespec(sec: i64, nsec: i64) -> Result<SetTime, Errno> {
    match nsec {
        UTIME_NOW => Ok(SetTime::Now),
        UTIME_OMIT => Ok(SetTime::Omit),
        0..NS => Ok(SetTime::At(sec.saturating_mul(NS).saturating_add(nsec))),
        _ => Err(Errno::EINVAL),
    }
}

fn set_times(
    ctx: &Ctx<'_>,
    dirfd: usize,
    path: usize,
    (atime, mtime): (SetTime, SetTime),
    flags: usize,
) -> SysResult {
    let walker = Walker::new(ctx)?;
    let at = if path == 0 {
        // `futimens` passes no path.
        of_file(ctx, dirfd, false)?
    } else {
        find(ctx, &walker, dirfd, path, flags)?
    };
    walker.who().set_times(&at, atime, mtime)?;
    Ok(0)
}

/// utimensat(2)
pub(crate) fn sys_utimensat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    times: usize,
    flags: usize,
) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let both = if times == 0 {
        (SetTime::Now, SetTime::Now)
    } else {
        let [a, an, m, mn]: [i64; 4] = user::read_value(times)?;
        (timespec(a, an)?, timespec(m, mn)?)
    };
    set_times(ctx, dirfd, path, both, flags)
}

/// futimesat(2) and utimes(2): microseconds.
pub(crate) fn sys_futimesat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    times: usize,
) -> SysResult {
    let both = if times == 0 {
        (SetTime::Now, SetTime::Now)
    } else {
        let [a, au, m, mu]: [i64; 4] = user::read_value(times)?;
        let micro = |us: i64| (0..1_000_000).contains(&us).then_some(us * 1000);
        let (an, mn) = (
            micro(au).ok_or(Errno::EINVAL)?,
            micro(mu).ok_or(Errno::EINVAL)?,
        );
        (timespec(a, an)?, timespec(m, mn)?)
    };
    set_times(ctx, dirfd, path, both, 0)
}

/// utimes(2)
pub(crate) fn sys_utimes(ctx: &mut Ctx<'_>, path: usize, times: usize) -> SysResult {
    sys_futimesat(ctx, CWD, path, times)
}

/// utime(2): seconds.
pub(crate) fn sys_utime(ctx: &mut Ctx<'_>, path: usize, times: usize) -> SysResult {
    let both = if times == 0 {
        (SetTime::Now, SetTime::Now)
    } else {
        let [a, m]: [i64; 2] = user::read_value(times)?;
        (timespec(a, 0)?, timespec(m, 0)?)
    };
    set_times(ctx, CWD, path, both, 0)
}

/// access(2)
pub(crate) fn sys_access(ctx: &mut Ctx<'_>, path: usize, mode: usize) -> SysResult {
    sys_faccessat2(ctx, CWD, path, mode, 0)
}

/// faccessat(2), whose system call has no flags
pub(crate) fn sys_faccessat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    mode: usize,
) -> SysResult {
    sys_faccessat2(ctx, dirfd, path, mode, 0)
}

/// faccessat2(2)
pub(crate) fn sys_faccessat2(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    mode: usize,
    flags: usize,
) -> SysResult {
    let known = AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH;
    let want = u32::try_from(mode).ok().and_then(Want::from_bits);
    let want = want.ok_or(Errno::EINVAL)?;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let walker = if flags & AT_EACCESS != 0 {
        Walker::new(ctx)?
    } else {
        Walker::with_real_ids(ctx)?
    };
    let at = find(ctx, &walker, dirfd, path, flags)?;
    walker.who().access(&at, want)?;
    Ok(0)
}

/// Where an `*xattr` call finds its object.
enum Target {
    Path(LastLink),
    File,
}

fn xattr_object(ctx: &Ctx<'_>, walker: &Walker, how: &Target, which: usize) -> Result<Path, Errno> {
    match how {
        Target::Path(LastLink::Follow) => find(ctx, walker, CWD, which, 0),
        Target::Path(LastLink::Stay) => find(ctx, walker, CWD, which, AT_SYMLINK_NOFOLLOW),
        Target::File => of_file(ctx, which, false),
    }
}

fn xattr_name(addr: usize) -> Result<([u8; XATTR_NAME_MAX + 1], usize), Errno> {
    let mut name = [0; XATTR_NAME_MAX + 1];
    let len = user::read_cstr(addr, &mut name)?.filter(|n| *n > 0);
    Ok((name, len.ok_or(Errno::ERANGE)?))
}

/// Hands `value` out; with no room asked for only its length.
fn give(value: &[u8], out: usize, size: usize) -> SysResult {
    if size != 0 {
        if value.len() > size {
            return Err(Errno::ERANGE);
        }
        user::write(out, value)?;
    }
    Ok(value.len())
}

fn get_xattr(
    ctx: &Ctx<'_>,
    how: &Target,
    which: usize,
    name: usize,
    out: usize,
    size: usize,
) -> SysResult {
    let walker = Walker::new(ctx)?;
    let (name, len) = xattr_name(name)?;
    let at = xattr_object(ctx, &walker, how, which)?;
    let value = walker.who().xattr(&**at.inode()?, &name[..len])?;
    give(&value, out, size)
}

fn set_xattr(ctx: &Ctx<'_>, how: &Target, args: [usize; 5]) -> SysResult {
    let [which, name, value, size, flags] = args;
    let mode = match flags {
        0 => XattrSet::Any,
        1 => XattrSet::Create,
        2 => XattrSet::Replace,
        _ => return Err(Errno::EINVAL),
    };
    let (name, len) = xattr_name(name)?;
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size)?;
    bytes.resize(size, 0);
    user::read(value, &mut bytes)?;
    let walker = Walker::new(ctx)?;
    let at = xattr_object(ctx, &walker, how, which)?;
    walker.who().set_xattr(&at, &name[..len], &bytes, mode)?;
    Ok(0)
}

fn list_xattr(ctx: &Ctx<'_>, how: &Target, which: usize, out: usize, size: usize) -> SysResult {
    let walker = Walker::new(ctx)?;
    let at = xattr_object(ctx, &walker, how, which)?;
    let names = walker.who().list_xattrs(&**at.inode()?)?;
    give(&names, out, size)
}

fn remove_xattr(ctx: &Ctx<'_>, how: &Target, which: usize, name: usize) -> SysResult {
    let walker = Walker::new(ctx)?;
    let (name, len) = xattr_name(name)?;
    let at = xattr_object(ctx, &walker, how, which)?;
    walker.who().remove_xattr(&at, &name[..len])?;
    Ok(0)
}

/// The four calls for one way of naming the object.
macro_rules! xattr_calls {
    ($get:ident $set:ident $list:ident $remove:ident, $target:expr) => {
        /// getxattr(2)
        pub(crate) fn $get(
            ctx: &mut Ctx<'_>,
            which: usize,
            name: usize,
            out: usize,
            size: usize,
        ) -> SysResult {
            get_xattr(ctx, &$target, which, name, out, size)
        }
        /// setxattr(2)
        pub(crate) fn $set(
            ctx: &mut Ctx<'_>,
            which: usize,
            name: usize,
            value: usize,
            size: usize,
            flags: usize,
        ) -> SysResult {
            set_xattr(ctx, &$target, [which, name, value, size, flags])
        }
        /// listxattr(2)
        pub(crate) fn $list(ctx: &mut Ctx<'_>, which: usize, out: usize, size: usize) -> SysResult {
            list_xattr(ctx, &$target, which, out, size)
        }
        /// removexattr(2)
        pub(crate) fn $remove(ctx: &mut Ctx<'_>, which: usize, name: usize) -> SysResult {
            remove_xattr(ctx, &$target, which, name)
        }
    };
}

xattr_calls!(sys_getxattr sys_setxattr sys_listxattr sys_removexattr,
    Target::Path(LastLink::Follow));
xattr_calls!(sys_lgetxattr sys_lsetxattr sys_llistxattr sys_lremovexattr,
    Target::Path(LastLink::Stay));
xattr_calls!(sys_fgetxattr sys_fsetxattr sys_flistxattr sys_fremovexattr, Target::File);
