//! Who a process is: pids, users, groups, capabilities, sessions.

use crate::ctx::Ctx;
use crate::errno::SysResult;

/// getpid(2)
pub(crate) fn sys_getpid(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(ctx.process().pid() as usize)
}

/// gettid(2)
pub(crate) fn sys_gettid(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(ctx.thread().tid() as usize)
}

/// getppid(2)
pub(crate) fn sys_getppid(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(ctx.process().ppid() as usize)
}
