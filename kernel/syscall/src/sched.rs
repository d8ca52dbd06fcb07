//! Scheduling: affinity, priorities, policies.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::time_types::Timespec;
use alloc::sync::Arc;
use linux_raw_sys::general as c;
use machine::{cpu, thread, user};
use process::limits::Resource;
use process::{Barrier, Process, Thread};
use vfs::Caps;

/// Bytes of a CPU mask: as many as the kernel supports CPUs.
const MASK: usize = cpu::CPUS_MAX / 8;

/// rseq(2)
pub(crate) fn sys_rseq(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    flags: usize,
    signature: usize,
) -> SysResult {
    const UNREGISTER: usize = 1;
    let (len, signature) = (len as u32 as usize, signature as u32);
    match flags {
        0 => ctx.thread().register_rseq(addr, len, signature)?,
        UNREGISTER => ctx.thread().unregister_rseq(addr, len, signature)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// membarrier(2)
pub(crate) fn sys_membarrier(
    ctx: &mut Ctx<'_>,
    command: usize,
    flags: usize,
    cpu: usize,
) -> SysResult {
    /// With `PRIVATE_EXPEDITED_RSEQ`: one CPU alone.
    const ONE_CPU: usize = 1;
    const QUERY: u32 = 0;
    let command = command as u32;
    let restarts = command == Barrier::PRIVATE_EXPEDITED_RSEQ.bits();
    match flags {
        0 => {}
        // More CPUs than asked for may pass the barrier.
        ONE_CPU if restarts => {
            if usize::try_from(cpu as i32).is_ok_and(|c| c >= machine::cpu::count()) {
                return Ok(0);
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    if command == QUERY {
        return Ok(Barrier::all().bits() as usize);
    }
    let command = Barrier::from_bits(command).ok_or(Errno::EINVAL)?;
    Ok(ctx.process().membarrier(ctx.thread(), command)? as usize)
}

/// sched_yield(2)
pub(crate) fn sys_sched_yield(_: &mut Ctx<'_>) -> SysResult {
    thread::yield_now();
    Ok(0)
}

/// The thread of that number, 0 being the caller.
fn named(ctx: &Ctx<'_>, tid: usize) -> Result<Arc<Thread>, Errno> {
    match tid as i32 {
        0 => Ok(ctx.thread().clone()),
        n => {
            let tid = u32::try_from(n).map_err(|_| Errno::EINVAL)?;
            ctx.world().thread(tid).ok_or(Errno::ESRCH)
        }
    }
}

/// Whether somebody has this number, be it a process that has ended and waits to be
/// waited for.
fn known(ctx: &Ctx<'_>, tid: usize) -> Result<(), Errno> {
    let Err(unknown) = named(ctx, tid) else {
        return Ok(());
    };
    let process = u32::try_from(tid as i32).ok();
    let process = process.and_then(|pid| ctx.world().process(pid));
    process.map(|_| ()).ok_or(unknown)
}

/// As [`named`], for the calls to which a negative number is just that of no thread.
fn affine(ctx: &Ctx<'_>, tid: usize) -> Result<Arc<Thread>, Errno> {
    match (tid as i32).is_negative() {
        true => Err(Errno::ESRCH),
        false => named(ctx, tid),
    }
}

/// CPUs there are, bit by bit.
fn online() -> u64 {
    u64::MAX >> (64 - cpu::count().clamp(1, 64))
}

/// sched_getaffinity(2): answers the bytes it wrote.
pub(crate) fn sys_sched_getaffinity(
    ctx: &mut Ctx<'_>,
    tid: usize,
    len: usize,
    out: usize,
) -> SysResult {
    if len < MASK || !len.is_multiple_of(size_of::<u64>()) {
        return Err(Errno::EINVAL);
    }
    let machine = affine(ctx, tid)?.machine().ok_or(Errno::ESRCH)?;
    user::write_value(out, &(machine.affinity() & online()))?;
    Ok(MASK)
}

/// sched_setaffinity(2)
pub(crate) fn sys_sched_setaffinity(
    ctx: &mut Ctx<'_>,
    tid: usize,
    len: usize,
    mask: usize,
) -> SysResult {
    let mut raw = [0; MASK];
    user::read(mask, &mut raw[..len.min(MASK)])?;
    let target = affine(ctx, tid)?;
    if !may_schedule(ctx, target.process())? {
        return Err(Errno::EPERM);
    }
    let wanted = u64::from_le_bytes(raw);
    let machine = target.machine().ok_or(Errno::ESRCH)?;
    if !machine.set_affinity(wanted) {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// Whether the caller may change how `target` is scheduled.
fn may_schedule(ctx: &Ctx<'_>, target: &Process) -> Result<bool, Errno> {
    let me = ctx.cred()?;
    if me.has(Caps::SYS_NICE) || core::ptr::eq(&raw const **ctx.process(), target) {
        return Ok(true);
    }
    let them = target.first_thread().and_then(|t| t.cred.get());
    Ok(them.is_some_and(|t| me.euid == t.uid || me.euid == t.euid))
}

/// sched_getscheduler(2): all threads share the CPU by the same rule.
pub(crate) fn sys_sched_getscheduler(ctx: &mut Ctx<'_>, tid: usize) -> SysResult {
    known(ctx, tid)?;
    Ok(c::SCHED_NORMAL as usize)
}

/// Policies that mean what there is: no priority, everybody in turn.
fn check_policy(policy: u32, priority: i32) -> SysResult {
    match policy & !c::SCHED_RESET_ON_FORK {
        c::SCHED_NORMAL | c::SCHED_BATCH | c::SCHED_IDLE if priority == 0 => Ok(0),
        c::SCHED_NORMAL | c::SCHED_BATCH | c::SCHED_IDLE => Err(Errno::EINVAL),
        // A capsule gets no realtime priority over others.
        c::SCHED_FIFO | c::SCHED_RR if (1..=99).contains(&priority) => Err(Errno::EPERM),
        c::SCHED_DEADLINE => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_setscheduler(2)
pub(crate) fn sys_sched_setscheduler(
    ctx: &mut Ctx<'_>,
    tid: usize,
    policy: usize,
    param: usize,
) -> SysResult {
    let priority = read_priority(param)?;
    let target = named(ctx, tid)?;
    check_policy(policy as u32, priority)?;
    check_owner(ctx, &target)
}

/// The `struct sched_param` of a call, which has to have one.
fn read_priority(param: usize) -> Result<i32, Errno> {
    match param {
        0 => Err(Errno::EINVAL),
        at => Ok(user::read_value(at)?),
    }
}

fn check_owner(ctx: &Ctx<'_>, target: &Thread) -> SysResult {
    match may_schedule(ctx, target.process())? {
        true => Ok(0),
        false => Err(Errno::EPERM),
    }
}

/// sched_setparam(2)
pub(crate) fn sys_sched_setparam(ctx: &mut Ctx<'_>, tid: usize, param: usize) -> SysResult {
    let priority = read_priority(param)?;
    let target = named(ctx, tid)?;
    check_policy(c::SCHED_NORMAL, priority)?;
    check_owner(ctx, &target)
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

/// sched_get_priority_max(2)
pub(crate) fn sys_sched_get_priority_max(_: &mut Ctx<'_>, policy: usize) -> SysResult {
    match policy as u32 {
        c::SCHED_FIFO | c::SCHED_RR => Ok(99),
        c::SCHED_NORMAL | c::SCHED_BATCH | c::SCHED_IDLE | c::SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

/// sched_get_priority_min(2)
pub(crate) fn sys_sched_get_priority_min(ctx: &mut Ctx<'_>, policy: usize) -> SysResult {
    let max = sys_sched_get_priority_max(ctx, policy)?;
    Ok(max.min(1))
}

/// sched_rr_get_interval(2)
pub(crate) fn sys_sched_rr_get_interval(ctx: &mut Ctx<'_>, tid: usize, out: usize) -> SysResult {
    known(ctx, tid)?;
    // Only SCHED_RR has one; for the others Linux tells about its time slice.
    user::write_value(out, &Timespec::from_ns(4_000_000))?;
    Ok(0)
}

/// `struct sched_attr` as of Linux 3.14.
const ATTR_SIZE: usize = 48;

/// sched_getattr(2)
pub(crate) fn sys_sched_getattr(
    ctx: &mut Ctx<'_>,
    tid: usize,
    out: usize,
    size: usize,
    flags: usize,
) -> SysResult {
    if flags != 0 || out == 0 || !(ATTR_SIZE..=machine::addr::PAGE_SIZE).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let target = named(ctx, tid)?;
    let mut attr = [0u32; ATTR_SIZE / 4];
    attr[0] = ATTR_SIZE as u32;
    // Size, policy, flags (two words), nice.
    attr[4] = target.process().nice() as u32;
    user::write_value(out, &attr)?;
    Ok(0)
}

/// sched_setattr(2)
pub(crate) fn sys_sched_setattr(
    ctx: &mut Ctx<'_>,
    tid: usize,
    attr: usize,
    flags: usize,
) -> SysResult {
    if flags != 0 || attr == 0 {
        return Err(Errno::EINVAL);
    }
    let [_, policy, _, _, nice, priority]: [u32; 6] = user::read_value(attr)?;
    let target = named(ctx, tid)?;
    check_policy(policy, priority as i32)?;
    set_nice(ctx, target.process(), nice as i32)
}

/// Sets a nice value, which only privilege or `RLIMIT_NICE` lets fall.
fn set_nice(ctx: &Ctx<'_>, target: &Process, nice: i32) -> SysResult {
    if !may_schedule(ctx, target)? {
        return Err(Errno::EPERM);
    }
    let nice = nice.clamp(-20, 19);
    let floor = 20 - i64::try_from(target.limits().soft(Resource::Nice)).unwrap_or(40);
    let lowers = nice < target.nice() && i64::from(nice) < floor;
    if lowers && !ctx.cred()?.has(Caps::SYS_NICE) {
        return Err(Errno::EACCES);
    }
    target.set_nice(nice);
    Ok(0)
}

/// The processes getpriority(2) and setpriority(2) speak of.
fn those(ctx: &Ctx<'_>, which: usize, who: usize) -> Result<alloc::vec::Vec<Arc<Process>>, Errno> {
    let me = ctx.process();
    let found = match (which as u32, who as u32) {
        (c::PRIO_PROCESS, 0) => [me.clone()].into(),
        (c::PRIO_PROCESS, tid) => {
            let thread = ctx.world().thread(tid);
            thread.map(|t| t.process().clone()).into_iter().collect()
        }
        (c::PRIO_PGRP, 0) => ctx.world().group_members(me.group()?),
        (c::PRIO_PGRP, group) => ctx.world().group_members(group),
        (c::PRIO_USER, uid) => {
            let uid = if uid == 0 { me.uid() } else { uid };
            let mut all = ctx.world().processes();
            all.retain(|p| p.uid() == uid && !p.has_ended());
            all
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
    let best = those(ctx, which, who)?.iter().map(|p| p.nice()).min();
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
    for p in those(ctx, which, who)? {
        if let Err(e) = set_nice(ctx, &p, nice as i32) {
            outcome = Err(e);
        }
    }
    outcome
}

/// getcpu(2)
pub(crate) fn sys_getcpu(_: &mut Ctx<'_>, cpu_out: usize, node_out: usize) -> SysResult {
    if cpu_out != 0 {
        user::write_value(cpu_out, &(cpu::current() as u32))?;
    }
    if node_out != 0 {
        user::write_value(node_out, &0u32)?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realtime_is_refused_and_nonsense_is_invalid() {
        assert_eq!(check_policy(c::SCHED_NORMAL, 0), Ok(0));
        assert_eq!(check_policy(c::SCHED_NORMAL, 1), Err(Errno::EINVAL));
        assert_eq!(check_policy(c::SCHED_FIFO, 50), Err(Errno::EPERM));
        assert_eq!(check_policy(c::SCHED_FIFO, 0), Err(Errno::EINVAL));
        assert_eq!(check_policy(99, 0), Err(Errno::EINVAL));
    }
}
