//! Descriptors of processes.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::sync::Arc;
use linux_raw_sys::general as c;
use process::{PidFd, Process};
use vfs::{OpenFile, OpenFlags};

/// The process behind descriptor `fd`.
///
/// # Errors
/// `EBADF`, also for a descriptor of something else.
pub(crate) fn process(ctx: &Ctx<'_>, fd: usize) -> Result<Arc<Process>, Errno> {
    let file = ctx.any_file(fd)?;
    let pidfd = file.downcast::<PidFd>().ok_or(Errno::EBADF)?;
    let process = pidfd.process();
    // One of another world cannot come here but by a descriptor that was handed
    // over; it still names nothing in this one.
    if !Arc::ptr_eq(process.world(), ctx.world()) {
        return Err(Errno::EINVAL);
    }
    Ok(process.clone())
}

/// As [`process`], for `pidfd_send_signal`, which also takes a directory `/proc/PID`.
///
/// # Errors
/// As [`process`]; `ESRCH` for the directory of a process that is gone.
pub(crate) fn process_to_signal(ctx: &Ctx<'_>, fd: usize) -> Result<Arc<Process>, Errno> {
    let file = ctx.any_file(fd)?;
    let named = file
        .inode()
        .and_then(|inode| vfs::procfs::process_of(&**inode));
    match named {
        // Its number may be another's by now.
        Some(gone) if gone.threads().is_empty() => Err(Errno::ESRCH),
        Some(named) => ctx.world().process(named.pid()).ok_or(Errno::ESRCH),
        None => process(ctx, fd),
    }
}

/// A new descriptor of `process`.
///
/// # Errors
/// `EMFILE`, `ENFILE`, `ENOMEM`.
pub(crate) fn open(ctx: &Ctx<'_>, process: Arc<Process>, flags: OpenFlags) -> SysResult {
    let ops = Arc::new(PidFd::new(process));
    let file = OpenFile::new(ops, flags, None, ctx.file_charge()?);
    let fd = ctx.files()?.insert(file, true, 0, ctx.files_limit())?;
    Ok(fd as usize)
}

/// pidfd_open(2)
pub(crate) fn sys_pidfd_open(ctx: &mut Ctx<'_>, pid: usize, flags: usize) -> SysResult {
    let wanted = flags as u32;
    if wanted & !c::O_NONBLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    let pid = u32::try_from(pid as i32).ok().filter(|p| *p > 0);
    let pid = pid.ok_or(Errno::EINVAL)?;
    let process = match ctx.world().process(pid) {
        Some(p) => p,
        // A thread that leads no process is no process.
        None if ctx.world().thread(pid).is_some() => return Err(Errno::EINVAL),
        None => return Err(Errno::ESRCH),
    };
    let flags = OpenFlags::from_bits_truncate(c::O_RDWR | wanted);
    open(ctx, process, flags)
}
