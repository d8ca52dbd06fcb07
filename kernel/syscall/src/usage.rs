//! What was used, and what may be.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::ids;
use crate::time_types::Timeval;
use alloc::sync::Arc;
use core::time::Duration;
use machine::time::Instant;
use machine::user;
use process::limits::Limit;
use process::{Counted, Process};
use vfs::Caps;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct rusage`. What is not counted is zero.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(crate) struct Rusage {
    user: Timeval,
    system: Timeval,
    /// Kilobytes.
    peak: i64,
    shared: [i64; 3],
    minor_faults: i64,
    major_faults: i64,
    rest: [i64; 8],
}

impl Rusage {
    pub(crate) fn new(c: &Counted) -> Rusage {
        Rusage {
            user: Timeval::from_duration(c.times.user),
            system: Timeval::from_duration(c.times.system),
            peak: i64::try_from(c.peak_pages.saturating_mul(4)).unwrap_or(i64::MAX),
            shared: [0; 3],
            minor_faults: i64::try_from(c.faults).unwrap_or(i64::MAX),
            major_faults: 0,
            rest: [0; 8],
        }
    }
}

/// getrusage(2)
pub(crate) fn sys_getrusage(ctx: &mut Ctx<'_>, who: usize, out: usize) -> SysResult {
    const CHILDREN: i32 = -1;
    const THREAD: i32 = 1;
    let mut counted = match who as i32 {
        0 => ctx.process().counted(),
        CHILDREN => ctx.process().children_counted(),
        THREAD => ctx.thread().counted(),
        _ => return Err(Errno::EINVAL),
    };
    if who as i32 != CHILDREN {
        counted.peak_pages = ctx.process().resident_pages() as u64;
    }
    user::write_value(out, &Rusage::new(&counted))?;
    Ok(0)
}

/// Clock ticks, of which there are 100 a second for programs.
fn ticks(d: Duration) -> i64 {
    i64::try_from(d.as_millis() / 10).unwrap_or(i64::MAX)
}

/// times(2)
pub(crate) fn sys_times(ctx: &mut Ctx<'_>, out: usize) -> SysResult {
    if out != 0 {
        let own = ctx.process().times();
        let children = ctx.process().children_counted().times;
        let all = [own.user, own.system, children.user, children.system];
        user::write_value(out, &all.map(ticks))?;
    }
    Ok(ticks(Duration::from_nanos(Instant::now().0)) as usize)
}

/// getrlimit(2)
pub(crate) fn sys_getrlimit(ctx: &mut Ctx<'_>, resource: usize, out: usize) -> SysResult {
    let limit = ctx.process().limits().get(resource).ok_or(Errno::EINVAL)?;
    user::write_value(out, &limit)?;
    Ok(0)
}

/// setrlimit(2)
pub(crate) fn sys_setrlimit(ctx: &mut Ctx<'_>, resource: usize, new: usize) -> SysResult {
    let limit = user::read_value(new)?;
    set(ctx, ctx.process(), resource, limit)?;
    Ok(0)
}

/// prlimit(2)
pub(crate) fn sys_prlimit64(
    ctx: &mut Ctx<'_>,
    pid: usize,
    resource: usize,
    new: usize,
    old: usize,
) -> SysResult {
    let target = match pid as i32 {
        0 => ctx.process().clone(),
        p => {
            let pid = u32::try_from(p).map_err(|_| Errno::ESRCH)?;
            ctx.world().process(pid).ok_or(Errno::ESRCH)?
        }
    };
    if !Arc::ptr_eq(&target, ctx.process()) && !ids::may_inspect(ctx, &target)? {
        return Err(Errno::EPERM);
    }
    let wanted: Option<Limit> = match new {
        0 => None,
        addr => Some(user::read_value(addr)?),
    };
    let before = target.limits().get(resource).ok_or(Errno::EINVAL)?;
    if let Some(limit) = wanted {
        set(ctx, &target, resource, limit)?;
    }
    if old != 0 {
        user::write_value(old, &before)?;
    }
    Ok(0)
}

fn set(ctx: &Ctx<'_>, target: &Arc<Process>, resource: usize, new: Limit) -> Result<(), Errno> {
    let old = target.limits().get(resource).ok_or(Errno::EINVAL)?;
    if new.soft > new.hard {
        return Err(Errno::EINVAL);
    }
    if new.hard > old.hard && !ctx.cred()?.has(Caps::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    // What the capsule may have is its manifest's business, not its root's.
    let ceiling = ctx.world().ceiling(resource);
    if new.hard > ceiling && new.hard > old.hard {
        return Err(Errno::EPERM);
    }
    target.set_limit(resource, new);
    apply(target);
    Ok(())
}

/// Tells the memory room about the limits it holds programs to.
fn apply(target: &Process) {
    let memory = target.limits().of_memory();
    let space = target.first_thread().and_then(|t| t.space.get());
    if let Some(space) = space {
        space.set_limits(memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rusage_has_the_size_programs_expect() {
        assert_eq!(size_of::<Rusage>(), 144);
        assert_eq!(ticks(Duration::from_millis(1_999)), 199);
    }
}
