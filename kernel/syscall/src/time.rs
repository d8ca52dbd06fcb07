//! Clocks and sleeping.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::time_types::{Timespec, Timeval};
use alloc::sync::Arc;
use linux_raw_sys::general as c;
use machine::time::{Instant, wall};
use machine::{time, user};
use process::signal::Restart;
use process::timers::Base;
use process::{Process, Thread};

/// Resolution of all clocks, the coarse ones included.
const RESOLUTION_NS: i64 = 1;

/// A clock a program can name (clock_gettime(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// UTC.
    Wall,
    /// International atomic time, which equals UTC while no leap seconds are set.
    Tai,
    /// Since boot; the node does not suspend.
    Boot,
    /// CPU time of the calling process.
    Process,
    /// CPU time of the calling thread.
    Thread,
    /// CPU time of the process of that number.
    OtherProcess(u32),
    /// CPU time of that thread of the calling process.
    OtherThread(u32),
}

impl Clock {
    /// The clock of that number.
    ///
    /// # Errors
    /// `EINVAL`.
    pub(crate) fn decode(id: usize) -> Result<Clock, Errno> {
        let id = id as i32;
        if id < 0 {
            return Clock::decode_cpu(id);
        }
        Ok(match id as u32 {
            c::CLOCK_REALTIME | c::CLOCK_REALTIME_COARSE | c::CLOCK_REALTIME_ALARM => Clock::Wall,
            c::CLOCK_TAI => Clock::Tai,
            c::CLOCK_MONOTONIC
            | c::CLOCK_MONOTONIC_RAW
            | c::CLOCK_MONOTONIC_COARSE
            | c::CLOCK_BOOTTIME
            | c::CLOCK_BOOTTIME_ALARM => Clock::Boot,
            c::CLOCK_PROCESS_CPUTIME_ID => Clock::Process,
            c::CLOCK_THREAD_CPUTIME_ID => Clock::Thread,
            _ => return Err(Errno::EINVAL),
        })
    }

    /// `clock_getcpuclockid(3)`: the complement of a number above three bits that
    /// say which time, and of a thread or a process.
    fn decode_cpu(id: i32) -> Result<Clock, Errno> {
        const THREAD: i32 = 4;
        let number = (!(id >> 3)) as u32;
        match (id & 3, id & THREAD != 0, number) {
            (3, ..) => Err(Errno::EINVAL),
            (_, true, 0) => Ok(Clock::Thread),
            (_, true, n) => Ok(Clock::OtherThread(n)),
            (_, false, 0) => Ok(Clock::Process),
            (_, false, n) => Ok(Clock::OtherProcess(n)),
        }
    }

    /// What it shows, in nanoseconds.
    ///
    /// # Errors
    /// `EINVAL` for the clock of somebody who is not there.
    pub(crate) fn now(self, me: &Arc<Thread>) -> Result<i64, Errno> {
        let ns = |d: core::time::Duration| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX);
        let of = |p: &Process| ns(p.times().total());
        Ok(match self {
            Clock::Wall | Clock::Tai => wall(),
            Clock::Boot => Instant::now().0 as i64,
            Clock::Process => of(me.process()),
            Clock::Thread => ns(me.times().total()),
            Clock::OtherProcess(pid) => {
                let other = me.process().world().process(pid);
                of(&*other.ok_or(Errno::EINVAL)?)
            }
            Clock::OtherThread(tid) => {
                let t = me.process().world().thread(tid).ok_or(Errno::EINVAL)?;
                if !Arc::ptr_eq(t.process(), me.process()) {
                    return Err(Errno::EINVAL);
                }
                ns(t.times().total())
            }
        })
    }

    /// The base of a timer over it.
    ///
    /// # Errors
    /// `EINVAL` for a thread there is not; `EOPNOTSUPP` for the CPU time of another
    /// process.
    pub(crate) fn timer_base(self, me: &Arc<Thread>) -> Result<Base, Errno> {
        Ok(match self {
            Clock::Wall | Clock::Tai => Base::Wall,
            Clock::Boot => Base::Boot,
            Clock::Process => Base::CpuTime,
            Clock::OtherProcess(pid) if pid == me.process().pid() => Base::CpuTime,
            Clock::Thread => Base::ThreadTime(me.tid()),
            Clock::OtherThread(tid) => {
                self.now(me)?;
                Base::ThreadTime(tid)
            }
            Clock::OtherProcess(_) => return Err(Errno::EOPNOTSUPP),
        })
    }
}

/// The instant at which a clock that runs with real time shows `ns`.
pub(crate) fn instant_of(clock: Clock, ns: i64) -> Instant {
    let since_boot = match clock {
        Clock::Wall | Clock::Tai => ns.saturating_sub(time::wall_offset()),
        _ => ns,
    };
    Instant(u64::try_from(since_boot).unwrap_or(0))
}

/// clock_gettime(2)
pub(crate) fn sys_clock_gettime(ctx: &mut Ctx<'_>, clock: usize, out: usize) -> SysResult {
    let now = Clock::decode(clock)?.now(ctx.thread())?;
    user::write_value(out, &Timespec::from_ns(now))?;
    Ok(0)
}

/// clock_getres(2)
pub(crate) fn sys_clock_getres(ctx: &mut Ctx<'_>, clock: usize, out: usize) -> SysResult {
    // Whose clock it is matters, too.
    Clock::decode(clock)?.now(ctx.thread())?;
    if out != 0 {
        user::write_value(out, &Timespec::from_ns(RESOLUTION_NS))?;
    }
    Ok(0)
}

/// clock_settime(2) and its like: the node's clock is not the capsule's. Of the
/// others there are, only those of CPU time can be named.
pub(crate) fn sys_clock_settime(_: &mut Ctx<'_>, clock: usize, value: usize) -> SysResult {
    let id = clock as i32;
    Clock::decode(clock)?;
    if id > 0 && id != c::CLOCK_PROCESS_CPUTIME_ID as i32 && id != c::CLOCK_THREAD_CPUTIME_ID as i32
    {
        return Err(Errno::EINVAL);
    }
    Timespec::read_ns(value)?;
    Err(Errno::EPERM)
}

/// settimeofday(2)
pub(crate) fn sys_settimeofday(_: &mut Ctx<'_>, value: usize, zone: usize) -> SysResult {
    /// A zone is at most 15 hours from UTC.
    const WEST_MAX: i32 = 15 * 60;
    if value != 0 {
        user::read_value::<Timeval>(value)?.to_ns()?;
    }
    if zone != 0 {
        let [west, _]: [i32; 2] = user::read_value(zone)?;
        if !(-WEST_MAX..=WEST_MAX).contains(&west) {
            return Err(Errno::EINVAL);
        }
    }
    Err(Errno::EPERM)
}

/// gettimeofday(2); the time zone is the one of UTC.
pub(crate) fn sys_gettimeofday(_: &mut Ctx<'_>, out: usize, zone: usize) -> SysResult {
    if out != 0 {
        user::write_value(out, &Timeval::from_ns(wall()))?;
    }
    if zone != 0 {
        user::write_value(zone, &[0i32; 2])?;
    }
    Ok(0)
}

/// time(2)
pub(crate) fn sys_time(_: &mut Ctx<'_>, out: usize) -> SysResult {
    let seconds = Timespec::from_ns(wall()).seconds;
    if out != 0 {
        user::write_value(out, &seconds)?;
    }
    Ok(seconds as usize)
}

/// nanosleep(2)
pub(crate) fn sys_nanosleep(ctx: &mut Ctx<'_>, wanted: usize, left: usize) -> SysResult {
    let ns = Timespec::read_ns(wanted)?;
    sleep(ctx, Clock::Boot, c::CLOCK_MONOTONIC, ns, Some(left))
}

/// clock_nanosleep(2)
pub(crate) fn sys_clock_nanosleep(
    ctx: &mut Ctx<'_>,
    id: usize,
    flags: usize,
    wanted: usize,
    left: usize,
) -> SysResult {
    let clock = Clock::decode(id)?;
    match (clock, id as i32) {
        (_, n) if n == c::CLOCK_THREAD_CPUTIME_ID as i32 => return Err(Errno::EOPNOTSUPP),
        (Clock::Thread, _) => return Err(Errno::EINVAL),
        _ => {}
    }
    if flags & !(c::TIMER_ABSTIME as usize) != 0 {
        return Err(Errno::EINVAL);
    }
    let ns = Timespec::read_ns(wanted)?;
    let left = (flags & c::TIMER_ABSTIME as usize == 0).then_some(left);
    sleep(ctx, clock, id as u32, ns, left)
}

/// Sleeps for `ns` of `clock` (number `id`), or, without `left`, until it shows
/// `ns`.
fn sleep(ctx: &mut Ctx<'_>, clock: Clock, id: u32, ns: i64, left: Option<usize>) -> SysResult {
    let deadline = match left {
        Some(_) => clock.now(ctx.thread())?.saturating_add(ns),
        None => ns,
    };
    match sleep_until(ctx, clock, deadline) {
        Err(e) if e.restarts() => {
            let Some(left) = left else {
                // With an absolute time the call is simply made again.
                return Err(Errno::ERESTARTNOHAND);
            };
            interrupted(ctx, clock, id, deadline, left)
        }
        other => other,
    }
}

/// A relative sleep was interrupted: tells what is left, and how to go on.
fn interrupted(ctx: &Ctx<'_>, clock: Clock, id: u32, deadline: i64, left: usize) -> SysResult {
    if left != 0 {
        let rest = deadline.saturating_sub(clock.now(ctx.thread())?).max(0);
        user::write_value(left, &Timespec::from_ns(rest))?;
    }
    ctx.thread().signals.set_restart(Restart::Sleep {
        clock: id as i32,
        deadline,
        remaining: left,
    });
    Err(Errno::ERESTART_RESTARTBLOCK)
}

/// Sleeps until `clock` shows `deadline`.
fn sleep_until(ctx: &Ctx<'_>, clock: Clock, deadline: i64) -> SysResult {
    let cpu_time = !matches!(clock, Clock::Wall | Clock::Tai | Clock::Boot);
    if !cpu_time {
        machine::thread::sleep_until(instant_of(clock, deadline), true)?;
        return Ok(0);
    }
    // CPU time advances at most as fast as all CPUs together.
    loop {
        let left = deadline.saturating_sub(clock.now(ctx.thread())?);
        if left <= 0 {
            return Ok(0);
        }
        let cpus = machine::cpu::count().max(1) as i64;
        let nap = (left / cpus).max(1_000_000);
        machine::thread::sleep_until(crate::time_types::after_ns(nap), true)?;
    }
}

/// Goes on with a sleep that was interrupted (restart_syscall(2)).
pub(crate) fn resume_sleep(ctx: &Ctx<'_>, id: i32, deadline: i64, left: usize) -> SysResult {
    let clock = Clock::decode(id as usize)?;
    match sleep_until(ctx, clock, deadline) {
        Err(e) if e.restarts() => interrupted(ctx, clock, id as u32, deadline, left),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_clocks_are_decoded_as_glibc_makes_them() {
        // MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED), MAKE_THREAD_CPUCLOCK(tid, ..).
        let process = |pid: i32| ((!pid) << 3 | 2) as usize;
        let thread = |tid: i32| ((!tid) << 3 | 2 | 4) as usize;
        assert_eq!(Clock::decode(process(0)), Ok(Clock::Process));
        assert_eq!(Clock::decode(process(77)), Ok(Clock::OtherProcess(77)));
        assert_eq!(Clock::decode(thread(0)), Ok(Clock::Thread));
        assert_eq!(Clock::decode(thread(9)), Ok(Clock::OtherThread(9)));
        assert_eq!(Clock::decode(10), Err(Errno::EINVAL));
        assert_eq!(Clock::decode(usize::MAX), Err(Errno::EINVAL));
    }
}
