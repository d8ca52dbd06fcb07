//! Scheduling policies and nice values: sched_setscheduler(2) and its kin, setpriority(2).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::sched::{known, may_schedule, named};
use alloc::sync::Arc;
use alloc::vec::Vec;
use linux_raw_sys::general as c;
use machine::user;
use process::limits::Resource;
use process::{Policy, Process, Schedule, Thread};
use vfs::Caps;

/// sched_getscheduler(2)
pub(crate) fn sys_sched_getscheduler(ctx: &mut Ctx<'_>, tid: usize) -> SysResult {
    known(ctx, tid)?;
    // One that has ended has no policy any more.
    let Ok(thread) = named(ctx, tid) else {
        return Ok(c::SCHED_NORMAL as usize);
    };
    let schedule = thread.schedule();
    let flag = if schedule.resets {
        c::SCHED_RESET_ON_FORK
    } else {
        0
    };
    Ok((schedule.policy.number() | flag) as usize)
}

/// The policy of that number, with this priority.
fn policy(number: u32, priority: i32) -> Result<Policy, Errno> {
    match (Policy::of_number(number), number) {
        (Some(policy), _) if priority == 0 => Ok(policy),
        (Some(_), _) => Err(Errno::EINVAL),
        // A capsule gets no realtime priority over others.
        (None, c::SCHED_FIFO | c::SCHED_RR) if (1..=99).contains(&priority) => Err(Errno::EPERM),
        (None, c::SCHED_DEADLINE) => Err(Errno::EPERM),
        (None, _) => Err(Errno::EINVAL),
    }
}

/// Whether a thread of this process may get this nice value without privilege, because of
/// its `RLIMIT_NICE`.
fn may_be_nice(process: &Process, nice: i32) -> bool {
    let limit = i64::try_from(process.limits().soft(Resource::Nice)).unwrap_or(i64::MAX);
    i64::from(20 - nice) <= limit
}

/// Has `target` scheduled so, if the caller may.
fn change(ctx: &Ctx<'_>, target: &Thread, new: Schedule) -> SysResult {
    let (old, process) = (target.schedule(), target.process());
    let is_fair = |policy| policy != Policy::Idle;
    let needs_privilege =
        is_fair(new.policy) && new.nice < old.nice && !may_be_nice(process, new.nice)
            || !is_fair(old.policy) && is_fair(new.policy) && !may_be_nice(process, old.nice)
            || old.resets && !new.resets;
    if !may_schedule(ctx, process)? || needs_privilege && !ctx.cred()?.has(Caps::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    target.set_schedule(new);
    Ok(0)
}

/// sched_setscheduler(2)
pub(crate) fn sys_sched_setscheduler(
    ctx: &mut Ctx<'_>,
    tid: usize,
    number: usize,
    param: usize,
) -> SysResult {
    let priority = read_priority(param)?;
    let target = named(ctx, tid)?;
    let number = number as u32;
    let policy = policy(number & !c::SCHED_RESET_ON_FORK, priority)?;
    let new = Schedule {
        policy,
        resets: number & c::SCHED_RESET_ON_FORK != 0,
        ..target.schedule()
    };
    change(ctx, &target, new)
}

/// The `struct sched_param` of a call, which has to have one.
fn read_priority(param: usize) -> Result<i32, Errno> {
    match param {
        0 => Err(Errno::EINVAL),
        at => Ok(user::read_value(at)?),
    }
}

/// sched_setparam(2): no policy there is has anything to set.
pub(crate) fn sys_sched_setparam(ctx: &mut Ctx<'_>, tid: usize, param: usize) -> SysResult {
    let priority = read_priority(param)?;
    let target = named(ctx, tid)?;
    if priority != 0 {
        return Err(Errno::EINVAL);
    }
    change(ctx, &target, target.schedule())
}

/// sched_getparam(2)
pub(crate) fn sys_sched_getparam(ctx: &mut Ctx<'_>, tid: usize, param: usize) -> SysResult {
    if param == 0 {
        return Err(Errno::EINVAL);
    }
    known(ctx, tid)?;
    user::write_value(param, &0i32)?;
    Ok(0)
}

/// Bytes of `struct sched_attr` as of Linux 3.14, and as of 5.3.
const ATTR_SIZE: usize = 48;
const ATTR_SIZE_NOW: usize = 56;

/// sched_getattr(2)
pub(crate) fn sys_sched_getattr(
    ctx: &mut Ctx<'_>,
    tid: usize,
    out: usize,
    size: usize,
    flags: usize,
) -> SysResult {
    let size = size as u32 as usize;
    if flags != 0 || out == 0 || !(ATTR_SIZE..=machine::addr::PAGE_SIZE).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let schedule = named(ctx, tid)?.schedule();
    let size = size.min(ATTR_SIZE_NOW);
    // Size, policy, flags (two words), nice; priority and what is of deadlines are 0.
    let mut attr = [0u32; ATTR_SIZE_NOW / 4];
    attr[0] = size as u32;
    attr[1] = schedule.policy.number();
    if schedule.resets {
        attr[2] = c::SCHED_FLAG_RESET_ON_FORK;
    }
    attr[4] = schedule.nice as u32;
    for (at, word) in attr.iter().enumerate().take(size.div_ceil(4)) {
        user::write_value(out + 4 * at, word)?;
    }
    Ok(0)
}

/// sched_setattr(2)
pub(crate) fn sys_sched_setattr(
    ctx: &mut Ctx<'_>,
    tid: usize,
    attr: usize,
    flags: usize,
) -> SysResult {
    if flags != 0 || attr == 0 || (tid as i32).is_negative() {
        return Err(Errno::EINVAL);
    }
    let size: u32 = user::read_value(attr)?;
    let size = if size == 0 { ATTR_SIZE } else { size as usize };
    if !(ATTR_SIZE..=machine::addr::PAGE_SIZE).contains(&size) {
        // So that a program built for another version can ask again.
        user::write_value(attr, &(ATTR_SIZE_NOW as u32))?;
        return Err(Errno::E2BIG);
    }
    for at in (ATTR_SIZE_NOW..size).step_by(4) {
        if user::read_value::<u32>(attr + at)? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let [_, number, flags, more_flags, nice, priority]: [u32; 6] = user::read_value(attr)?;
    const KEEP_POLICY: u32 = c::SCHED_FLAG_KEEP_POLICY;
    const KEEP_PARAMS: u32 = c::SCHED_FLAG_KEEP_PARAMS;
    let known_flags = c::SCHED_FLAG_RESET_ON_FORK | KEEP_POLICY | KEEP_PARAMS;
    if more_flags != 0 || flags & !known_flags != 0 || (number as i32).is_negative() {
        return Err(Errno::EINVAL);
    }
    let target = named(ctx, tid)?;
    let old = target.schedule();
    let policy = match flags & KEEP_POLICY {
        0 => policy(number, priority as i32)?,
        _ => old.policy,
    };
    let keeps_nice = flags & KEEP_PARAMS != 0 || policy == Policy::Idle;
    let new = Schedule {
        policy,
        nice: if keeps_nice {
            old.nice
        } else {
            (nice as i32).clamp(-20, 19)
        },
        resets: flags & c::SCHED_FLAG_RESET_ON_FORK != 0,
    };
    change(ctx, &target, new)
}

/// The threads that getpriority(2) and setpriority(2) speak of.
fn those(ctx: &Ctx<'_>, which: usize, who: usize) -> Result<Vec<Arc<Thread>>, Errno> {
    let me = ctx.process();
    let of = |processes: Vec<Arc<Process>>| {
        let threads = processes.into_iter().flat_map(|p| p.threads());
        threads.collect::<Vec<_>>()
    };
    let found = match (which as u32, who as u32) {
        (c::PRIO_PROCESS, 0) => [ctx.thread().clone()].into(),
        (c::PRIO_PROCESS, tid) => ctx.world().thread(tid).into_iter().collect(),
        (c::PRIO_PGRP, 0) => of(ctx.world().group_members(me.group()?)),
        (c::PRIO_PGRP, group) => of(ctx.world().group_members(group)),
        (c::PRIO_USER, uid) => {
            let uid = if uid == 0 { me.uid() } else { uid };
            let mut all = ctx.world().processes();
            all.retain(|p| p.uid() == uid && !p.has_ended());
            of(all)
        }
        _ => return Err(Errno::EINVAL),
    };
    if found.is_empty() {
        return Err(Errno::ESRCH);
    }
    Ok(found)
}

/// getpriority(2): answers 20 minus the lowest nice value.
pub(crate) fn sys_getpriority(ctx: &mut Ctx<'_>, which: usize, who: usize) -> SysResult {
    let threads = those(ctx, which, who)?;
    let best = threads.iter().map(|t| t.schedule().nice).min();
    Ok((20 - best.unwrap_or(0)) as usize)
}

/// setpriority(2)
pub(crate) fn sys_setpriority(
    ctx: &mut Ctx<'_>,
    which: usize,
    who: usize,
    nice: usize,
) -> SysResult {
    let mut outcome = Ok(0);
    for thread in those(ctx, which, who)? {
        if let Err(e) = set_nice(ctx, &thread, nice as i32) {
            outcome = Err(e);
        }
    }
    outcome
}

/// Sets a nice value, which only privilege or `RLIMIT_NICE` lets fall.
fn set_nice(ctx: &Ctx<'_>, target: &Thread, nice: i32) -> SysResult {
    if !may_schedule(ctx, target.process())? {
        return Err(Errno::EPERM);
    }
    let (nice, old) = (nice.clamp(-20, 19), target.schedule());
    let lowers = nice < old.nice && !may_be_nice(target.process(), nice);
    if lowers && !ctx.cred()?.has(Caps::SYS_NICE) {
        return Err(Errno::EACCES);
    }
    target.set_schedule(Schedule { nice, ..old });
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_without_a_priority_are_what_there_is() {
        assert_eq!(policy(c::SCHED_NORMAL, 0), Ok(Policy::Normal));
        assert_eq!(policy(c::SCHED_BATCH, 0), Ok(Policy::Batch));
        assert_eq!(policy(c::SCHED_IDLE, 0), Ok(Policy::Idle));
        assert_eq!(policy(c::SCHED_NORMAL, 1), Err(Errno::EINVAL));
        assert_eq!(policy(c::SCHED_FIFO, 50), Err(Errno::EPERM));
        assert_eq!(policy(c::SCHED_FIFO, 0), Err(Errno::EINVAL));
        assert_eq!(policy(99, 0), Err(Errno::EINVAL));
    }
}
