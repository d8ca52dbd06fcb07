//! Comparing what two processes have, and taking a descriptor of another's
//! (kcmp(2), pidfd_getfd(2)).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::sync::Arc;
use process::Thread;
use vfs::OpenFile;

/// Answers: equal, before, after, and different without an order.
const EQUAL: usize = 0;
const BEFORE: usize = 1;
const AFTER: usize = 2;
const DIFFERENT: usize = 3;

fn target(ctx: &Ctx<'_>, pid: usize) -> Result<Arc<Thread>, Errno> {
    let pid = u32::try_from(pid as i32).map_err(|_| Errno::ESRCH)?;
    let thread = ctx.world().thread(pid).ok_or(Errno::ESRCH)?;
    match crate::ids::may_inspect(ctx, thread.process())? {
        true => Ok(thread),
        false => Err(Errno::EPERM),
    }
}

fn file_of(thread: &Thread, fd: usize) -> Result<Arc<OpenFile>, Errno> {
    let files = thread.files.get().ok_or(Errno::EBADF)?;
    Ok(files.get(i32::try_from(fd).map_err(|_| Errno::EBADF)?)?)
}

fn same<T>(a: Option<Arc<T>>, b: Option<Arc<T>>) -> usize {
    match (a, b) {
        (Some(a), Some(b)) if Arc::ptr_eq(&a, &b) => EQUAL,
        _ => DIFFERENT,
    }
}

/// kcmp(2). Where objects lie in the kernel is not told, so only open files, which
/// have numbers, are ordered.
pub(crate) fn sys_kcmp(
    ctx: &mut Ctx<'_>,
    first: usize,
    second: usize,
    what: usize,
    fd1: usize,
    fd2: usize,
) -> SysResult {
    let (a, b) = (target(ctx, first)?, target(ctx, second)?);
    let one_process = Arc::ptr_eq(a.process(), b.process());
    Ok(match what {
        0 => match file_of(&a, fd1)?.id().cmp(&file_of(&b, fd2)?.id()) {
            core::cmp::Ordering::Equal => EQUAL,
            core::cmp::Ordering::Less => BEFORE,
            core::cmp::Ordering::Greater => AFTER,
        },
        1 => same(a.space.get(), b.space.get()),
        2 => same(a.files.get(), b.files.get()),
        3 => same(a.fs.get(), b.fs.get()),
        4 => same(a.process().actions(), b.process().actions()),
        // No process has an I/O context, which counts as having the same.
        5 => EQUAL,
        // Semaphore adjustments are the process's.
        6 if one_process => EQUAL,
        6 => DIFFERENT,
        _ => return Err(Errno::EINVAL),
    })
}

/// pidfd_getfd(2)
pub(crate) fn sys_pidfd_getfd(
    ctx: &mut Ctx<'_>,
    pidfd: usize,
    fd: usize,
    flags: usize,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let process = crate::pidfd::process(ctx, pidfd)?;
    let thread = process.first_thread().ok_or(Errno::ESRCH)?;
    if !crate::ids::may_inspect(ctx, &process)? {
        return Err(Errno::EPERM);
    }
    let file = file_of(&thread, fd as u32 as usize)?;
    let new = ctx.files()?.insert(file, true, 0, ctx.files_limit())?;
    Ok(new as usize)
}
