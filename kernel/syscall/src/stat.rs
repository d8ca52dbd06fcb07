//! What a file is: the stat family and statfs(2).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::{
    AT_EMPTY_PATH, AT_FDCWD, AT_NO_AUTOMOUNT, AT_SYMLINK_NOFOLLOW, Base, PathRoom, Walker,
};
use alloc::sync::Arc;
use machine::user;
use vfs::mount::{FsStat, Mount};
use vfs::{LastLink, Stat};

const NS: i64 = 1_000_000_000;
/// `AT_STATX_FORCE_SYNC` and `AT_STATX_DONT_SYNC`: nothing is remote here.
const AT_STATX_SYNC: usize = 0x6000;
/// Everything `struct statx` had before fields that only some systems fill.
const STATX_BASIC_AND_BTIME: u32 = 0xfff;
const STATX_MNT_ID: u32 = 0x1000;

fn seconds(ns: i64) -> (u64, u64) {
    match u64::try_from(ns) {
        // Without a sign the division needs half as many instructions.
        Ok(ns) => (ns / NS as u64, ns % NS as u64),
        Err(_) => (ns.div_euclid(NS) as u64, ns.rem_euclid(NS) as u64),
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Writes `struct stat` as x86-64 has it.
fn write_stat(addr: usize, s: &Stat) -> SysResult {
    let (atime, mtime, ctime) = (seconds(s.atime), seconds(s.mtime), seconds(s.ctime));
    let raw: [u64; 18] = [
        s.dev,
        s.ino,
        u64::from(s.nlink),
        pair(s.mode, s.uid),
        u64::from(s.gid),
        s.rdev,
        s.size,
        u64::from(s.blksize),
        s.blocks,
        atime.0,
        atime.1,
        mtime.0,
        mtime.1,
        ctime.0,
        ctime.1,
        0,
        0,
        0,
    ];
    user::write_value(addr, &raw)?;
    Ok(0)
}

/// Major and minor number of a device, as makedev(3) packs them.
fn device(dev: u64) -> u64 {
    let major = (dev >> 8 & 0xfff) as u32;
    let minor = (dev & 0xff | dev >> 12 & 0xfff_ff00) as u32;
    pair(major, minor)
}

fn write_statx(addr: usize, s: &Stat, mount: Option<&Arc<Mount>>) -> SysResult {
    let mut mask = STATX_BASIC_AND_BTIME;
    if mount.is_some() {
        mask |= STATX_MNT_ID;
    }
    let mut raw = [0u64; 32];
    raw[0] = pair(mask, s.blksize);
    raw[2] = pair(s.nlink, s.uid);
    raw[3] = pair(s.gid, s.mode & 0xffff);
    raw[4] = s.ino;
    raw[5] = s.size;
    raw[6] = s.blocks;
    for (i, t) in [s.atime, s.btime, s.ctime, s.mtime].into_iter().enumerate() {
        (raw[8 + 2 * i], raw[9 + 2 * i]) = seconds(t);
    }
    raw[16] = device(s.rdev);
    raw[17] = device(s.dev);
    raw[18] = mount.map_or(0, |m| m.id());
    user::write_value(addr, &raw)?;
    Ok(0)
}

/// What `dirfd`, `path` and `flags` name.
fn find(
    ctx: &Ctx<'_>,
    dirfd: usize,
    path: usize,
    flags: usize,
) -> Result<(Stat, Option<Arc<Mount>>), Errno> {
    // glibc's `fstat` passes no path at all.
    let mut room = PathRoom::new();
    let path = if path == 0 && flags & AT_EMPTY_PATH != 0 {
        None
    } else {
        Some(room.read(path)?).filter(|p| !(p.is_empty() && flags & AT_EMPTY_PATH != 0))
    };
    let Some(path) = path else {
        if dirfd as i32 == AT_FDCWD {
            let cwd = ctx.fs()?.cwd();
            return Ok((cwd.inode()?.stat(), Some(cwd.mount)));
        }
        let file = ctx.any_file(dirfd)?;
        return Ok((file.stat(), file.path().map(|p| p.mount.clone())));
    };
    let walker = Walker::new(ctx)?;
    let base = Base::new(ctx, dirfd, &path)?;
    let last = if flags & AT_SYMLINK_NOFOLLOW != 0 {
        LastLink::Stay
    } else {
        LastLink::Follow
    };
    let found = walker.who().lookup(base.at(), path.bytes(), last)?;
    let stat = found.inode()?.stat();
    Ok((stat, Some(found.mount)))
}

/// stat(2)
pub(crate) fn sys_stat(ctx: &mut Ctx<'_>, path: usize, out: usize) -> SysResult {
    write_stat(out, &find(ctx, AT_FDCWD as usize, path, 0)?.0)
}

/// lstat(2)
pub(crate) fn sys_lstat(ctx: &mut Ctx<'_>, path: usize, out: usize) -> SysResult {
    let found = find(ctx, AT_FDCWD as usize, path, AT_SYMLINK_NOFOLLOW)?;
    write_stat(out, &found.0)
}

/// fstat(2)
pub(crate) fn sys_fstat(ctx: &mut Ctx<'_>, fd: usize, out: usize) -> SysResult {
    write_stat(out, &ctx.any_file(fd)?.stat())
}

/// fstatat(2)
pub(crate) fn sys_newfstatat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    out: usize,
    flags: usize,
) -> SysResult {
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT) != 0 {
        return Err(Errno::EINVAL);
    }
    write_stat(out, &find(ctx, dirfd, path, flags)?.0)
}

/// statx(2)
pub(crate) fn sys_statx(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    flags: usize,
    mask: usize,
    out: usize,
) -> SysResult {
    let known = AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_STATX_SYNC;
    let reserved = 1usize << 31;
    if flags & !known != 0 || flags & AT_STATX_SYNC == AT_STATX_SYNC || mask & reserved != 0 {
        return Err(Errno::EINVAL);
    }
    let (stat, mount) = find(ctx, dirfd, path, flags)?;
    write_statx(out, &stat, mount.as_ref())
}

fn write_statfs(addr: usize, s: &FsStat, mount: Option<&Mount>) -> SysResult {
    const NAME_MAX: u64 = 255;
    /// `ST_VALID`: the flags mean something.
    const ST_VALID: u64 = 0x20;
    /// `ST_RELATIME`.
    const ST_RELATIME: u64 = 0x1000;
    let flags = mount.map_or(0, |m| m.flags().bits()) | ST_VALID | ST_RELATIME;
    let raw: [u64; 15] = [
        s.magic,
        s.block_size,
        s.blocks,
        s.blocks_free,
        s.blocks_free,
        s.files,
        s.files_free,
        0,
        NAME_MAX,
        s.block_size,
        flags,
        0,
        0,
        0,
        0,
    ];
    user::write_value(addr, &raw)?;
    Ok(0)
}

/// statfs(2)
pub(crate) fn sys_statfs(ctx: &mut Ctx<'_>, path: usize, out: usize) -> SysResult {
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    let walker = Walker::new(ctx)?;
    let who = walker.who();
    let found = who.lookup(vfs::At::Cwd, path.bytes(), LastLink::Follow)?;
    write_statfs(out, &found.mount.tree().fs().stat(), Some(&found.mount))
}

/// fstatfs(2)
pub(crate) fn sys_fstatfs(ctx: &mut Ctx<'_>, fd: usize, out: usize) -> SysResult {
    let file = ctx.any_file(fd)?;
    match file.path() {
        Some(p) => write_statfs(out, &p.mount.tree().fs().stat(), Some(&p.mount)),
        None => {
            let anonymous = FsStat {
                // PIPEFS_MAGIC; the kernel's other nameless files are alike.
                magic: 0x5049_5045,
                block_size: 4096,
                ..FsStat::default()
            };
            write_statfs(out, &anonymous, None)
        }
    }
}
