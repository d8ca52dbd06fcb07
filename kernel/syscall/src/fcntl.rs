//! fcntl(2) and flock(2).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::{lease, sigio};
use alloc::sync::Arc;
use linux_raw_sys::general as nr;
use machine::user;
use vfs::cred::Caps;
use vfs::file::{OpenFile, OpenFlags};
use vfs::locks::{Owner, Record};
use vfs::pipe::PipeEnd;
use vfs::seals::{Seal, Seals};
use vfs::tmpfs::TmpFile;

/// Commands whose numbers the headers spread over several files.
const F_SETLEASE: u32 = 1024;
const F_GETLEASE: u32 = 1025;
const F_DUPFD_CLOEXEC: u32 = 1030;
const F_SETPIPE_SZ: u32 = 1031;
const F_GETPIPE_SZ: u32 = 1032;
const F_ADD_SEALS: u32 = 1033;
const F_GET_SEALS: u32 = 1034;
const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;
const F_UNLCK_KIND: u16 = 2;

/// fcntl(2)
pub(crate) fn sys_fcntl(ctx: &mut Ctx<'_>, fd: usize, command: usize, arg: usize) -> SysResult {
    let number = fd as i32;
    let file = ctx.any_file(fd)?;
    match command as u32 {
        nr::F_DUPFD => return duplicate(ctx, file, arg, false),
        F_DUPFD_CLOEXEC => return duplicate(ctx, file, arg, true),
        nr::F_GETFD => return Ok(usize::from(ctx.files()?.cloexec(number)?)),
        nr::F_SETFD => {
            ctx.files()?.set_cloexec(number, arg & 1 != 0)?;
            return Ok(0);
        }
        nr::F_GETFL => return Ok(file.flags().bits() as usize),
        _ if file.is_path_only() => return Err(Errno::EBADF),
        _ => {}
    }
    match command as u32 {
        nr::F_SETFL => {
            let new = OpenFlags::from_bits_retain(arg as u32);
            file.set_flags(new);
            // As on Linux, what cannot send signals lets the flag be.
            if file.ops().hub().is_some() {
                sigio::set(ctx, fd, &file, new.contains(OpenFlags::ASYNC))?;
            }
            Ok(0)
        }
        nr::F_GETLK => get_lock(ctx, &file, arg, false),
        nr::F_SETLK => set_lock(ctx, &file, arg, false, false),
        nr::F_SETLKW => set_lock(ctx, &file, arg, false, true),
        F_OFD_GETLK => get_lock(ctx, &file, arg, true),
        F_OFD_SETLK => set_lock(ctx, &file, arg, true, false),
        F_OFD_SETLKW => set_lock(ctx, &file, arg, true, true),
        nr::F_GETOWN => Ok(sigio::owner(&file) as usize),
        nr::F_SETOWN => sigio::set_owner(ctx, &file, arg as i32).map(|()| 0),
        nr::F_SETOWN_EX => sigio::set_owner_ex(ctx, &file, arg).map(|()| 0),
        nr::F_GETOWN_EX => sigio::owner_ex(&file, arg).map(|()| 0),
        nr::F_SETSIG => sigio::set_signal(&file, arg).map(|()| 0),
        nr::F_GETSIG => Ok(usize::from(file.signal_target().signal)),
        F_SETLEASE => lease::set(ctx, fd, &file, arg),
        F_GETLEASE => lease::get(&file),
        F_SETPIPE_SZ => {
            let privileged = ctx.cred()?.has(Caps::SYS_RESOURCE);
            let bytes = arg as u32 as usize;
            Ok(pipe_end(&file)?.set_capacity(bytes, privileged)?)
        }
        F_GETPIPE_SZ => Ok(pipe_end(&file)?.capacity()),
        F_ADD_SEALS => add_seals(&file, arg),
        F_GET_SEALS => Ok(sealed(&file)?.get().bits() as usize),
        _ => Err(Errno::EINVAL),
    }
}

fn duplicate(ctx: &Ctx<'_>, file: Arc<OpenFile>, min: usize, cloexec: bool) -> SysResult {
    let limit = ctx.files_limit();
    let min = min as i32;
    if min < 0 || min as usize >= limit {
        return Err(Errno::EINVAL);
    }
    let new = ctx.files()?.insert(file, cloexec, min as usize, limit)?;
    Ok(new as usize)
}

fn pipe_end(file: &OpenFile) -> Result<&PipeEnd, Errno> {
    file.downcast().ok_or(Errno::EBADF)
}

fn sealed(file: &OpenFile) -> Result<&Seals, Errno> {
    let memory: &TmpFile = file.downcast().ok_or(Errno::EINVAL)?;
    memory.seals().ok_or(Errno::EINVAL)
}

fn add_seals(file: &OpenFile, arg: usize) -> SysResult {
    let seals = sealed(file)?;
    let new = u32::try_from(arg).ok().and_then(Seal::from_bits);
    let new = new.ok_or(Errno::EINVAL)?;
    file.check_write().map_err(|_| Errno::EPERM)?;
    seals.add(new)?;
    Ok(0)
}

/// `struct flock`, and where its offsets are relative to.
struct Request {
    exclusive: Option<bool>,
    record: Record,
}

fn read_request(
    ctx: &Ctx<'_>,
    file: &OpenFile,
    addr: usize,
    by_description: bool,
) -> Result<Request, Errno> {
    let [kinds, start, len, pid]: [u64; 4] = user::read_value(addr)?;
    let (kind, whence) = (kinds as u16, (kinds >> 16) as u16);
    let exclusive = match kind {
        0 => Some(false),
        1 => Some(true),
        F_UNLCK_KIND => None,
        _ => return Err(Errno::EINVAL),
    };
    if by_description && pid as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let base = match whence {
        0 => 0,
        1 => file.position(),
        2 => file.stat().size,
        _ => return Err(Errno::EINVAL),
    };
    let at = i64::try_from(base)
        .ok()
        .and_then(|b| b.checked_add(start as i64))
        .ok_or(Errno::EOVERFLOW)?;
    let len = len as i64;
    let (from, to) = match len {
        0 => (at, i64::MAX),
        1.. => (at, at.checked_add(len).ok_or(Errno::EOVERFLOW)?),
        _ => (at.checked_add(len).ok_or(Errno::EINVAL)?, at),
    };
    let from = u64::try_from(from).map_err(|_| Errno::EINVAL)?;
    let owner = if by_description {
        Owner::Description(file.id())
    } else {
        Owner::Process(ctx.files()?.id())
    };
    Ok(Request {
        exclusive,
        record: Record {
            owner,
            pid: if by_description {
                -1
            } else {
                ctx.process().pid() as i32
            },
            start: from,
            end: u64::try_from(to).map_err(|_| Errno::EINVAL)?,
            exclusive: exclusive.unwrap_or(false),
        },
    })
}

fn get_lock(ctx: &Ctx<'_>, file: &OpenFile, addr: usize, by_description: bool) -> SysResult {
    let asked = read_request(ctx, file, addr, by_description)?;
    if asked.exclusive.is_none() {
        return Err(Errno::EINVAL);
    }
    let locks = file.inode().and_then(|i| i.attr().locks_if_any());
    match locks.and_then(|l| l.conflict(&asked.record)) {
        None => user::write_value(addr, &F_UNLCK_KIND)?,
        Some(held) => {
            let len = if held.end == i64::MAX as u64 {
                0
            } else {
                held.end - held.start
            };
            let kind = u64::from(held.exclusive);
            user::write_value(addr, &[kind, held.start, len])?;
            user::write_value(addr.wrapping_add(24), &held.pid)?;
        }
    }
    Ok(0)
}

fn set_lock(
    ctx: &Ctx<'_>,
    file: &Arc<OpenFile>,
    addr: usize,
    by_description: bool,
    wait: bool,
) -> SysResult {
    let asked = read_request(ctx, file, addr, by_description)?;
    let locks = file
        .inode()
        .ok_or(Errno::EINVAL)?
        .attr()
        .locks(ctx.world().account());
    match asked.exclusive {
        Some(true) => file.check_write()?,
        Some(false) => file.check_read()?,
        None => {
            let r = &asked.record;
            locks.unlock(r.owner, r.start, r.end)?;
            return Ok(0);
        }
    }
    locks.lock(&asked.record, wait)?;
    Ok(0)
}

/// flock(2)
pub(crate) fn sys_flock(ctx: &mut Ctx<'_>, fd: usize, operation: usize) -> SysResult {
    let file = ctx.file(fd)?;
    let exclusive = match operation & !4 {
        1 => Some(false),
        2 => Some(true),
        8 => None,
        _ => return Err(Errno::EINVAL),
    };
    let locks = file
        .inode()
        .ok_or(Errno::EINVAL)?
        .attr()
        .locks(ctx.world().account());
    locks.flock(file.id(), exclusive, operation & 4 == 0)?;
    Ok(0)
}
