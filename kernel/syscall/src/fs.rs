//! Files by name: opening, making, removing, renaming, and where one stands.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::file::{check_length, offset};
use crate::path::{
    AT_EMPTY_PATH, AT_FDCWD, AT_REMOVEDIR, AT_SYMLINK_FOLLOW, Base, PathRoom, Walker,
};
use alloc::vec::Vec;
use machine::user;
use vfs::cred::{Caps, Want};
use vfs::entries::RenameFlags;
use vfs::file::OpenFlags;
use vfs::inode::{Kind, Link, NAME_MAX};
use vfs::open::How;
use vfs::{At, LastLink, OpenFile, Resolve};

const CWD: usize = AT_FDCWD as usize;

fn open(ctx: &Ctx<'_>, dirfd: usize, path: usize, how: &How) -> SysResult {
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    // A refusal must not leave a new or an emptied file behind.
    let charge = if how
        .flags
        .intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE)
    {
        ctx.file_charge_and_room()?
    } else {
        ctx.file_charge()?
    };
    let walker = Walker::new(ctx)?;
    let base = Base::new(ctx, dirfd, &path)?;
    let file = walker.who().open(base.at(), path.bytes(), how, charge)?;
    let cloexec = how.flags.contains(OpenFlags::CLOEXEC);
    let fd = ctx.files()?.insert(file, cloexec, 0, ctx.files_limit())?;
    Ok(fd as usize)
}

/// open(2)
pub(crate) fn sys_open(ctx: &mut Ctx<'_>, path: usize, flags: usize, mode: usize) -> SysResult {
    sys_openat(ctx, CWD, path, flags, mode)
}

/// openat(2)
pub(crate) fn sys_openat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    flags: usize,
    mode: usize,
) -> SysResult {
    let how = How {
        flags: OpenFlags::from_bits_truncate(flags as u32) | OpenFlags::LARGEFILE,
        mode: mode as u32 & 0o7777,
        resolve: Resolve::empty(),
    };
    open(ctx, dirfd, path, &how)
}

/// creat(2)
pub(crate) fn sys_creat(ctx: &mut Ctx<'_>, path: usize, mode: usize) -> SysResult {
    let flags = OpenFlags::CREATE | OpenFlags::WRITE_ONLY | OpenFlags::TRUNCATE;
    sys_openat(ctx, CWD, path, flags.bits() as usize, mode)
}

/// openat2(2)
pub(crate) fn sys_openat2(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    how: usize,
    size: usize,
) -> SysResult {
    const SIZE: usize = 24;
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    // A longer structure is fine as long as what is unknown is zero.
    for at in SIZE..size.min(4096) {
        let byte: u8 = user::read_value(how.wrapping_add(at))?;
        if byte != 0 {
            return Err(Errno::E2BIG);
        }
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, resolve]: [u64; 3] = user::read_value(how)?;
    let flags = u32::try_from(flags).ok().and_then(OpenFlags::from_bits);
    let flags = flags.ok_or(Errno::EINVAL)?;
    let makes = flags.intersects(OpenFlags::CREATE | OpenFlags::TMPFILE_BIT);
    if mode & !0o7777 != 0 || (mode != 0 && !makes) {
        return Err(Errno::EINVAL);
    }
    let path_only = OpenFlags::PATH
        | OpenFlags::DIRECTORY
        | OpenFlags::NOFOLLOW
        | OpenFlags::CLOEXEC
        | OpenFlags::LARGEFILE;
    if flags.contains(OpenFlags::PATH) && !path_only.contains(flags) {
        return Err(Errno::EINVAL);
    }
    let resolve = Resolve::from_bits(resolve).ok_or(Errno::EINVAL)?;
    if resolve.contains(Resolve::BENEATH | Resolve::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    let how = How {
        flags: flags | OpenFlags::LARGEFILE,
        mode: mode as u32,
        resolve,
    };
    open(ctx, dirfd, path, &how)
}

fn make(
    ctx: &Ctx<'_>,
    dirfd: usize,
    path: usize,
    kind: Kind,
    mode: usize,
    target: &[u8],
) -> SysResult {
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    let walker = Walker::new(ctx)?;
    let base = Base::new(ctx, dirfd, &path)?;
    let who = walker.who();
    let mode = match kind {
        Kind::Symlink => 0o777,
        _ => mode as u32 & 0o7777 & !who.fs.umask(),
    };
    who.make(base.at(), path.bytes(), kind, mode, target)?;
    Ok(0)
}

/// mkdir(2)
pub(crate) fn sys_mkdir(ctx: &mut Ctx<'_>, path: usize, mode: usize) -> SysResult {
    sys_mkdirat(ctx, CWD, path, mode)
}

/// mkdirat(2)
pub(crate) fn sys_mkdirat(ctx: &mut Ctx<'_>, dirfd: usize, path: usize, mode: usize) -> SysResult {
    make(ctx, dirfd, path, Kind::Directory, mode & 0o1777, &[])
}

/// mknod(2)
pub(crate) fn sys_mknod(ctx: &mut Ctx<'_>, path: usize, mode: usize, dev: usize) -> SysResult {
    sys_mknodat(ctx, CWD, path, mode, dev)
}

/// mknodat(2): devices are what the manifest grants.
pub(crate) fn sys_mknodat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    mode: usize,
    _dev: usize,
) -> SysResult {
    let kind = match mode & 0o170_000 {
        0 | 0o100_000 => Kind::File,
        0o010_000 => Kind::Fifo,
        0o140_000 => Kind::Socket,
        0o020_000 | 0o060_000 => return Err(Errno::EPERM),
        0o040_000 => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    make(ctx, dirfd, path, kind, mode, &[])
}

/// symlink(2)
pub(crate) fn sys_symlink(ctx: &mut Ctx<'_>, target: usize, path: usize) -> SysResult {
    sys_symlinkat(ctx, target, CWD, path)
}

/// symlinkat(2)
pub(crate) fn sys_symlinkat(
    ctx: &mut Ctx<'_>,
    target: usize,
    dirfd: usize,
    path: usize,
) -> SysResult {
    let mut room = PathRoom::new();
    let target = room.read(target)?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    make(ctx, dirfd, path, Kind::Symlink, 0, target.bytes())
}

/// link(2)
pub(crate) fn sys_link(ctx: &mut Ctx<'_>, from: usize, to: usize) -> SysResult {
    sys_linkat(ctx, CWD, from, CWD, to, 0)
}

/// linkat(2)
pub(crate) fn sys_linkat(
    ctx: &mut Ctx<'_>,
    from_dir: usize,
    from: usize,
    to_dir: usize,
    to: usize,
    flags: usize,
) -> SysResult {
    if flags & !(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let (mut from_room, mut to_room) = (PathRoom::new(), PathRoom::new());
    let (from, to) = (from_room.read(from)?, to_room.read(to)?);
    let walker = Walker::new(ctx)?;
    let who = walker.who();
    let source = if from.is_empty() && flags & AT_EMPTY_PATH != 0 {
        if !who.cred.has(Caps::DAC_READ_SEARCH) {
            return Err(Errno::ENOENT);
        }
        let file = ctx.any_file(from_dir)?;
        file.path().ok_or(Errno::EXDEV)?.clone()
    } else {
        let base = Base::new(ctx, from_dir, &from)?;
        who.link_source(base.at(), from.bytes(), flags & AT_SYMLINK_FOLLOW != 0)?
    };
    let base = Base::new(ctx, to_dir, &to)?;
    who.link(&source, base.at(), to.bytes())?;
    Ok(0)
}

/// unlink(2)
pub(crate) fn sys_unlink(ctx: &mut Ctx<'_>, path: usize) -> SysResult {
    sys_unlinkat(ctx, CWD, path, 0)
}

/// rmdir(2)
pub(crate) fn sys_rmdir(ctx: &mut Ctx<'_>, path: usize) -> SysResult {
    sys_unlinkat(ctx, CWD, path, AT_REMOVEDIR)
}

/// unlinkat(2)
pub(crate) fn sys_unlinkat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    flags: usize,
) -> SysResult {
    if flags & !AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    let walker = Walker::new(ctx)?;
    let base = Base::new(ctx, dirfd, &path)?;
    if flags & AT_REMOVEDIR != 0 {
        walker.who().rmdir(base.at(), path.bytes())?;
    } else {
        walker.who().unlink(base.at(), path.bytes())?;
    }
    Ok(0)
}

/// rename(2)
pub(crate) fn sys_rename(ctx: &mut Ctx<'_>, from: usize, to: usize) -> SysResult {
    sys_renameat2(ctx, CWD, from, CWD, to, 0)
}

/// renameat(2)
pub(crate) fn sys_renameat(
    ctx: &mut Ctx<'_>,
    from_dir: usize,
    from: usize,
    to_dir: usize,
    to: usize,
) -> SysResult {
    sys_renameat2(ctx, from_dir, from, to_dir, to, 0)
}

/// renameat2(2)
pub(crate) fn sys_renameat2(
    ctx: &mut Ctx<'_>,
    from_dir: usize,
    from: usize,
    to_dir: usize,
    to: usize,
    flags: usize,
) -> SysResult {
    let flags = u32::try_from(flags).ok().and_then(RenameFlags::from_bits);
    let flags = flags.ok_or(Errno::EINVAL)?;
    if flags == RenameFlags::NOREPLACE | RenameFlags::EXCHANGE {
        return Err(Errno::EINVAL);
    }
    let (mut from_room, mut to_room) = (PathRoom::new(), PathRoom::new());
    let (from, to) = (from_room.read(from)?, to_room.read(to)?);
    let walker = Walker::new(ctx)?;
    let from_base = Base::new(ctx, from_dir, &from)?;
    let to_base = Base::new(ctx, to_dir, &to)?;
    walker.who().rename(
        (from_base.at(), from.bytes()),
        (to_base.at(), to.bytes()),
        flags,
    )?;
    Ok(0)
}

/// readlink(2)
pub(crate) fn sys_readlink(ctx: &mut Ctx<'_>, path: usize, out: usize, len: usize) -> SysResult {
    sys_readlinkat(ctx, CWD, path, out, len)
}

/// readlinkat(2)
pub(crate) fn sys_readlinkat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    out: usize,
    len: usize,
) -> SysResult {
    if len as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    let walker = Walker::new(ctx)?;
    let who = walker.who();
    let inode = if path.is_empty() && dirfd as i32 == AT_FDCWD {
        // The working directory is no link.
        return Err(Errno::ENOENT);
    } else if path.is_empty() {
        let file = ctx.any_file(dirfd)?;
        let inode = file.inode().filter(|i| i.attr().kind == Kind::Symlink);
        inode.ok_or(Errno::ENOENT)?.clone()
    } else {
        let base = Base::new(ctx, dirfd, &path)?;
        who.inode(base.at(), path.bytes(), LastLink::Stay)?
    };
    let n = match inode.link_target()? {
        Link::Target(text) => put(out, len, &text)?,
        Link::Object(path) => match path.inode() {
            // What has no path shows its name, such as `pipe:[7]`.
            Ok(i) if i.is_stand_in() => put(out, len, &inode.link_text()?)?,
            _ => put(out, len, &path.display(&who.fs.root())?)?,
        },
    };
    Ok(n)
}

fn put(out: usize, len: usize, text: &[u8]) -> Result<usize, Errno> {
    let n = text.len().min(len);
    user::write(out, &text[..n])?;
    Ok(n)
}

/// Goes to a directory after a check that it may be searched.
fn enter(ctx: &Ctx<'_>, path: vfs::Path) -> Result<vfs::Path, Errno> {
    if path.dentry.dir().is_none() {
        return Err(Errno::ENOTDIR);
    }
    path.inode()?.attr().check(&*ctx.cred()?, Want::EXEC)?;
    Ok(path)
}

fn directory(ctx: &Ctx<'_>, path: usize) -> Result<vfs::Path, Errno> {
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    let walker = Walker::new(ctx)?;
    let found = walker
        .who()
        .lookup(At::Cwd, path.bytes(), LastLink::Follow)?;
    enter(ctx, found)
}

/// chdir(2)
pub(crate) fn sys_chdir(ctx: &mut Ctx<'_>, path: usize) -> SysResult {
    let to = directory(ctx, path)?;
    ctx.fs()?.set_cwd(to);
    Ok(0)
}

/// fchdir(2)
pub(crate) fn sys_fchdir(ctx: &mut Ctx<'_>, fd: usize) -> SysResult {
    let file = ctx.any_file(fd)?;
    let to = enter(ctx, file.path().ok_or(Errno::ENOTDIR)?.clone())?;
    ctx.fs()?.set_cwd(to);
    Ok(0)
}

/// chroot(2)
pub(crate) fn sys_chroot(ctx: &mut Ctx<'_>, path: usize) -> SysResult {
    let to = directory(ctx, path)?;
    if !ctx.cred()?.has(Caps::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    ctx.fs()?.set_root(to);
    Ok(0)
}

/// getcwd(2): the length with the NUL.
pub(crate) fn sys_getcwd(ctx: &mut Ctx<'_>, out: usize, len: usize) -> SysResult {
    let fs = ctx.fs()?;
    let cwd = fs.cwd();
    if cwd.dentry.is_removed() {
        return Err(Errno::ENOENT);
    }
    let mut text = cwd.display(&fs.root())?;
    text.push(0);
    if text.len() > len {
        return Err(Errno::ERANGE);
    }
    user::write(out, &text)?;
    Ok(text.len())
}

/// umask(2)
pub(crate) fn sys_umask(ctx: &mut Ctx<'_>, mask: usize) -> SysResult {
    Ok(ctx.fs()?.set_umask(mask as u32) as usize)
}

/// truncate(2)
pub(crate) fn sys_truncate(ctx: &mut Ctx<'_>, path: usize, len: usize) -> SysResult {
    let len = offset(len)?;
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    let walker = Walker::new(ctx)?;
    let who = walker.who();
    let found = who.lookup(At::Cwd, path.bytes(), LastLink::Follow)?;
    check_length(ctx, len)?;
    who.truncate(&found, len)?;
    Ok(0)
}

/// mount(2) and its relatives: the file tree is the manifest's.
pub(crate) fn sys_mount(_: &mut Ctx<'_>) -> SysResult {
    Err(Errno::EPERM)
}

/// Largest listing made in one go.
const LISTING_MAX: usize = 32 << 10;

/// One record of getdents64(2), or of getdents(2) with the kind at its end.
fn push_entry(out: &mut Vec<u8>, room: usize, e: &vfs::inode::DirEntry<'_>, old: bool) -> bool {
    let head = if old { 18 } else { 19 };
    // The name, its NUL, in the old form the kind, rounded up to 8.
    let len = (head + e.name.len() + 1 + usize::from(old)).next_multiple_of(8);
    if out.len() + len > room || e.name.len() > NAME_MAX || out.try_reserve(len).is_err() {
        return false;
    }
    let start = out.len();
    out.extend_from_slice(&e.ino.to_le_bytes());
    out.extend_from_slice(&e.next.to_le_bytes());
    out.extend_from_slice(&(len as u16).to_le_bytes());
    if !old {
        out.push(e.kind.dirent());
    }
    out.extend_from_slice(e.name);
    out.resize(start + len, 0);
    if old && let Some(last) = out.last_mut() {
        *last = e.kind.dirent();
    }
    true
}

fn list(file: &OpenFile, addr: usize, len: usize, old: bool) -> SysResult {
    let path = file.path().ok_or(Errno::ENOTDIR)?;
    let dir = path.dentry.dir().ok_or(Errno::ENOTDIR)?;
    if path.dentry.is_removed() {
        return Err(Errno::ENOENT);
    }
    let inode = path.inode()?;
    let room = len.min(LISTING_MAX);
    let mut out = Vec::new();
    let mut refused = false;
    let next = file.with_position(|position| -> Result<u64, Errno> {
        let mut at = *position;
        let above = path.parent();
        let above = above.as_ref().and_then(|p| p.inode().ok()).unwrap_or(inode);
        let dots: [(&[u8], u64); 2] = [(b".", inode.attr().ino), (b"..", above.attr().ino)];
        for (i, (name, ino)) in dots.into_iter().enumerate().skip(at as usize) {
            let entry = vfs::inode::DirEntry {
                name,
                ino,
                kind: Kind::Directory,
                next: i as u64 + 1,
            };
            if !push_entry(&mut out, room, &entry, old) {
                refused = true;
                break;
            }
            at = entry.next;
        }
        if !refused {
            let _lock = dir.lock.lock();
            inode.list(at, &mut |e| {
                let fits = push_entry(&mut out, room, &e, old);
                if fits {
                    at = e.next;
                }
                refused |= !fits;
                fits
            })?;
        }
        user::write(addr, &out)?;
        *position = at;
        Ok(at)
    });
    next?;
    inode.attr().touch_accessed();
    if out.is_empty() && refused {
        return Err(Errno::EINVAL);
    }
    Ok(out.len())
}

/// getdents64(2)
pub(crate) fn sys_getdents64(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    list(&*ctx.file(fd)?, addr, len, false)
}

/// getdents(2)
pub(crate) fn sys_getdents(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    list(&*ctx.file(fd)?, addr, len, true)
}
