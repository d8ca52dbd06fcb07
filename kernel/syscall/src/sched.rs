//! Scheduling: affinity, and what programs ask about it; policies are in [`crate::policy`].

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::time_types::Timespec;
use alloc::sync::Arc;
use linux_raw_sys::general as c;
use machine::{cpu, thread, user};
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
pub(crate) fn named(ctx: &Ctx<'_>, tid: usize) -> Result<Arc<Thread>, Errno> {
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
pub(crate) fn known(ctx: &Ctx<'_>, tid: usize) -> Result<(), Errno> {
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
pub(crate) fn may_schedule(ctx: &Ctx<'_>, target: &Process) -> Result<bool, Errno> {
    let me = ctx.cred()?;
    if me.has(Caps::SYS_NICE) || core::ptr::eq(&raw const **ctx.process(), target) {
        return Ok(true);
    }
    let them = target.first_thread().and_then(|t| t.cred.get());
    Ok(them.is_some_and(|t| me.euid == t.uid || me.euid == t.euid))
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
