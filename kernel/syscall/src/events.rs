//! Objects that live behind a descriptor only: pipes, counters, timers, memory.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::{PathRoom, Walker};
use alloc::sync::Arc;
use core::time::Duration;
use machine::user;
use vfs::LastLink;
use vfs::cred::Want;
use vfs::eventfd::EventFd;
use vfs::file::{FileOps, OpenFile, OpenFlags};
use vfs::inode::{Kind, NewAttr};
use vfs::inotify::{Inotify, Mask};
use vfs::timerfd::{Clock, Setting, TimerFd};
use vfs::tmpfs::TmpFs;

const CLOEXEC: usize = OpenFlags::CLOEXEC.bits() as usize;
const NONBLOCK: usize = OpenFlags::NONBLOCK.bits() as usize;

/// Gives a new object a descriptor; `flags` may have `O_CLOEXEC` and
/// `O_NONBLOCK`.
fn install(ctx: &Ctx<'_>, ops: Arc<dyn FileOps>, flags: usize) -> SysResult {
    let keep = OpenFlags::from_bits_truncate((flags & NONBLOCK) as u32);
    let file = OpenFile::new(ops, keep | OpenFlags::READ_WRITE, None, ctx.file_charge()?);
    let cloexec = flags & CLOEXEC != 0;
    let new = ctx.files()?.insert(file, cloexec, 0, ctx.files_limit())?;
    Ok(new as usize)
}

/// pipe(2)
pub(crate) fn sys_pipe(ctx: &mut Ctx<'_>, out: usize) -> SysResult {
    sys_pipe2(ctx, out, 0)
}

/// pipe2(2)
pub(crate) fn sys_pipe2(ctx: &mut Ctx<'_>, out: usize, flags: usize) -> SysResult {
    let known = OpenFlags::CLOEXEC | OpenFlags::NONBLOCK | OpenFlags::DIRECT;
    let flags = u32::try_from(flags).ok().and_then(OpenFlags::from_bits);
    let flags = flags.filter(|f| known.contains(*f)).ok_or(Errno::EINVAL)?;
    let (read, write) = vfs::pipe::pipe(ctx.world().account().clone(), flags)?;
    let files = ctx.files()?;
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let limit = ctx.files_limit();
    let first = files.insert(read, cloexec, 0, limit)?;
    let second = match files.insert(write, cloexec, 0, limit) {
        Ok(fd) => fd,
        Err(e) => {
            files.remove(first)?;
            return Err(e.into());
        }
    };
    if let Err(e) = user::write_value(out, &[first, second]) {
        files.remove(first)?;
        files.remove(second)?;
        return Err(e.into());
    }
    Ok(0)
}

/// eventfd(2), the call without flags
pub(crate) fn sys_eventfd(ctx: &mut Ctx<'_>, count: usize) -> SysResult {
    sys_eventfd2(ctx, count, 0)
}

/// eventfd(2)
pub(crate) fn sys_eventfd2(ctx: &mut Ctx<'_>, count: usize, flags: usize) -> SysResult {
    const SEMAPHORE: usize = 1;
    if flags & !(CLOEXEC | NONBLOCK | SEMAPHORE) != 0 {
        return Err(Errno::EINVAL);
    }
    let ops = EventFd::new(count as u32, flags & SEMAPHORE != 0);
    install(ctx, Arc::new(ops), flags)
}

/// timerfd_create(2)
pub(crate) fn sys_timerfd_create(ctx: &mut Ctx<'_>, clock: usize, flags: usize) -> SysResult {
    /// `CLOCK_REALTIME`, `MONOTONIC`, `BOOTTIME`, and the two that also wake.
    const REAL: [usize; 2] = [0, 8];
    const STEADY: [usize; 3] = [1, 7, 9];
    if flags & !(CLOEXEC | NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let clock = match clock {
        c if REAL.contains(&c) => Clock::Real,
        c if STEADY.contains(&c) => Clock::Monotonic,
        _ => return Err(Errno::EINVAL),
    };
    install(ctx, TimerFd::new(clock), flags)
}

fn duration([sec, ns]: [i64; 2]) -> Result<Duration, Errno> {
    let sec = u64::try_from(sec).map_err(|_| Errno::EINVAL)?;
    let ns = u32::try_from(ns).ok().filter(|n| *n < 1_000_000_000);
    Ok(Duration::new(sec, ns.ok_or(Errno::EINVAL)?))
}

/// `struct itimerspec`: the interval comes first.
fn write_setting(addr: usize, s: Setting) -> SysResult {
    let parts = |d: Duration| (d.as_secs(), u64::from(d.subsec_nanos()));
    let (interval, value) = (parts(s.interval), parts(s.value));
    user::write_value(addr, &[interval.0, interval.1, value.0, value.1])?;
    Ok(0)
}

/// timerfd_settime(2)
pub(crate) fn sys_timerfd_settime(
    ctx: &mut Ctx<'_>,
    fd: usize,
    flags: usize,
    new: usize,
    old: usize,
) -> SysResult {
    const ABSOLUTE: usize = 1;
    // A read is to end when the clock is set. It is set before the first program
    // starts, and never again: there is nothing to tell.
    const CANCEL_ON_SET: usize = 2;
    if flags & !(ABSOLUTE | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let [a, b, c, d]: [i64; 4] = user::read_value(new)?;
    let setting = Setting {
        interval: duration([a, b])?,
        value: duration([c, d])?,
    };
    let file = ctx.file(fd)?;
    let timer: &TimerFd = file.downcast().ok_or(Errno::EINVAL)?;
    let before = timer.set(setting, flags & ABSOLUTE != 0);
    if old != 0 {
        write_setting(old, before)?;
    }
    Ok(0)
}

/// timerfd_gettime(2)
pub(crate) fn sys_timerfd_gettime(ctx: &mut Ctx<'_>, fd: usize, out: usize) -> SysResult {
    let file = ctx.file(fd)?;
    let timer: &TimerFd = file.downcast().ok_or(Errno::EINVAL)?;
    write_setting(out, timer.get())
}

/// memfd_create(2)
pub(crate) fn sys_memfd_create(ctx: &mut Ctx<'_>, name: usize, flags: usize) -> SysResult {
    const MFD_CLOEXEC: usize = 1;
    const MFD_ALLOW_SEALING: usize = 2;
    const MFD_NOEXEC_SEAL: usize = 8;
    const MFD_EXEC: usize = 16;
    /// `MFD_NAME_MAX_LEN`.
    const NAME_MAX: usize = 249;
    let known = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL | MFD_EXEC;
    // MFD_HUGETLB: there are no reserved huge pages.
    if flags & !known != 0 || flags & (MFD_EXEC | MFD_NOEXEC_SEAL) == MFD_EXEC | MFD_NOEXEC_SEAL {
        return Err(Errno::EINVAL);
    }
    let mut room = PathRoom::new();
    let name = room.read(name).map_err(|e| match e {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })?;
    if name.bytes().len() > NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let cred = ctx.cred()?;
    let noexec = flags & MFD_NOEXEC_SEAL != 0;
    let attr = NewAttr {
        kind: Kind::File,
        mode: if noexec { 0o666 } else { 0o777 },
        uid: cred.fsuid,
        gid: cred.fsgid,
    };
    let text = alloc::string::String::from_utf8_lossy(name.bytes());
    let sealable = flags & (MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL) != 0;
    let memory = TmpFs::memfd(ctx.world().account().clone(), &attr, &text, sealable)?;
    if noexec && let Some(seals) = memory.seals() {
        seals.add(vfs::seals::Seal::EXEC)?;
    }
    let cloexec = if flags & MFD_CLOEXEC != 0 { CLOEXEC } else { 0 };
    install(ctx, memory, cloexec)
}

/// inotify_init(2)
pub(crate) fn sys_inotify_init(ctx: &mut Ctx<'_>) -> SysResult {
    sys_inotify_init1(ctx, 0)
}

/// inotify_init1(2)
pub(crate) fn sys_inotify_init1(ctx: &mut Ctx<'_>, flags: usize) -> SysResult {
    if flags & !(CLOEXEC | NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    install(ctx, Inotify::new(ctx.world().account()), flags)
}

/// inotify_add_watch(2)
pub(crate) fn sys_inotify_add_watch(
    ctx: &mut Ctx<'_>,
    fd: usize,
    path: usize,
    mask: usize,
) -> SysResult {
    let mask = Mask::from_bits(mask as u32).ok_or(Errno::EINVAL)?;
    if mask.contains(Mask::MASK_ADD | Mask::MASK_CREATE) {
        return Err(Errno::EINVAL);
    }
    let file = ctx.file(fd)?;
    let instance: &Inotify = file.downcast().ok_or(Errno::EINVAL)?;
    let mut room = PathRoom::new();
    let path = room.read(path)?;
    let walker = Walker::new(ctx)?;
    let who = walker.who();
    let last = if mask.contains(Mask::DONT_FOLLOW) {
        LastLink::Stay
    } else {
        LastLink::Follow
    };
    let inode = who.inode(vfs::At::Cwd, path.bytes(), last)?;
    inode.attr().check(who.cred, Want::READ)?;
    Ok(instance.add(&inode, mask)? as usize)
}

/// inotify_rm_watch(2)
pub(crate) fn sys_inotify_rm_watch(ctx: &mut Ctx<'_>, fd: usize, wd: usize) -> SysResult {
    let file = ctx.file(fd)?;
    let instance: &Inotify = file.downcast().ok_or(Errno::EINVAL)?;
    instance.remove(wd as i32)?;
    Ok(0)
}
