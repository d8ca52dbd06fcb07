//! Interval timers and POSIX timers.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::time::Clock;
use crate::time_types::{Timespec, Timeval};
use linux_raw_sys::general as c;
use machine::user;
use process::signal::Signal;
use process::timers::{Notify, Setting};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct itimerval`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IntervalValue {
    interval: Timeval,
    value: Timeval,
}

/// `struct itimerspec`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct IntervalSpec {
    interval: Timespec,
    value: Timespec,
}

/// The part of `struct sigevent` that counts here.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SigEvent {
    value: u64,
    signal: i32,
    notify: i32,
    thread: i32,
    pad: u32,
}

fn ns(t: u64) -> i64 {
    i64::try_from(t).unwrap_or(i64::MAX)
}

impl IntervalValue {
    fn from_setting(s: Setting) -> IntervalValue {
        // A timer that runs never shows zero.
        let up = |t: u64| Timeval::from_ns(ns(t.div_ceil(1000).saturating_mul(1000)));
        IntervalValue {
            interval: up(s.interval),
            value: up(s.value),
        }
    }

    fn to_setting(self) -> Result<Setting, Errno> {
        Ok(Setting {
            value: self.value.to_ns()? as u64,
            interval: self.interval.to_ns()? as u64,
        })
    }
}

impl IntervalSpec {
    fn from_setting(s: Setting) -> IntervalSpec {
        IntervalSpec {
            interval: Timespec::from_ns(ns(s.interval)),
            value: Timespec::from_ns(ns(s.value)),
        }
    }

    fn to_setting(self) -> Result<Setting, Errno> {
        Ok(Setting {
            value: self.value.to_ns()? as u64,
            interval: self.interval.to_ns()? as u64,
        })
    }
}

/// getitimer(2)
pub(crate) fn sys_getitimer(ctx: &mut Ctx<'_>, which: usize, out: usize) -> SysResult {
    let now = ctx.process().interval_timer(which)?;
    user::write_value(out, &IntervalValue::from_setting(now))?;
    Ok(0)
}

/// setitimer(2)
pub(crate) fn sys_setitimer(ctx: &mut Ctx<'_>, which: usize, new: usize, old: usize) -> SysResult {
    let setting = match new {
        // As Linux has always done, though it calls that a mistake.
        0 => Setting::default(),
        addr => user::read_value::<IntervalValue>(addr)?.to_setting()?,
    };
    let before = ctx.process().set_interval_timer(which, setting)?;
    if old != 0 {
        user::write_value(old, &IntervalValue::from_setting(before))?;
    }
    Ok(0)
}

/// alarm(2)
pub(crate) fn sys_alarm(ctx: &mut Ctx<'_>, seconds: usize) -> SysResult {
    let new = Setting {
        value: u64::from(seconds as u32) * 1_000_000_000,
        interval: 0,
    };
    let before = ctx.process().set_interval_timer(0, new)?.value;
    // Rounded, but not to the zero that means that there was none.
    let seconds = (before + 500_000_000) / 1_000_000_000;
    Ok(match before {
        0 => 0,
        _ => seconds.max(1) as usize,
    })
}

/// timer_create(2)
pub(crate) fn sys_timer_create(
    ctx: &mut Ctx<'_>,
    clock: usize,
    event: usize,
    out: usize,
) -> SysResult {
    let base = Clock::decode(clock)?.timer_base(ctx.thread())?;
    let notify = match event {
        0 => Notify::Posix {
            signal: Signal::ALRM,
            value: None,
            thread: None,
        },
        addr => decode_event(ctx, &user::read_value(addr)?)?,
    };
    let id = ctx.process().create_timer(base, notify)?;
    if let Err(e) = user::write_value(out, &id) {
        ctx.process().delete_timer(id)?;
        return Err(e.into());
    }
    Ok(0)
}

fn decode_event(ctx: &Ctx<'_>, event: &SigEvent) -> Result<Notify, Errno> {
    const THREAD: u32 = c::SIGEV_SIGNAL | c::SIGEV_THREAD_ID;
    let kind = event.notify as u32;
    if kind == c::SIGEV_NONE {
        return Ok(Notify::Nothing);
    }
    let thread = match kind {
        // The C library makes SIGEV_THREAD out of the other one.
        c::SIGEV_SIGNAL | c::SIGEV_THREAD => None,
        THREAD => {
            let tid = u32::try_from(event.thread).map_err(|_| Errno::EINVAL)?;
            let thread = ctx.process().own_thread(tid);
            Some(thread.ok_or(Errno::EINVAL)?.tid())
        }
        _ => return Err(Errno::EINVAL),
    };
    let signal = usize::try_from(event.signal).ok().and_then(Signal::new);
    Ok(Notify::Posix {
        signal: signal.ok_or(Errno::EINVAL)?,
        value: Some(event.value),
        thread,
    })
}

/// timer_settime(2)
pub(crate) fn sys_timer_settime(
    ctx: &mut Ctx<'_>,
    id: usize,
    flags: usize,
    new: usize,
    old: usize,
) -> SysResult {
    if new == 0 {
        return Err(Errno::EINVAL);
    }
    let setting = user::read_value::<IntervalSpec>(new)?.to_setting()?;
    let absolute = flags & c::TIMER_ABSTIME as usize != 0;
    let before = ctx.process().set_timer(id as i32, setting, absolute)?;
    if old != 0 {
        user::write_value(old, &IntervalSpec::from_setting(before))?;
    }
    Ok(0)
}

/// timer_gettime(2)
pub(crate) fn sys_timer_gettime(ctx: &mut Ctx<'_>, id: usize, out: usize) -> SysResult {
    let now = ctx.process().timer(id as i32)?;
    user::write_value(out, &IntervalSpec::from_setting(now))?;
    Ok(0)
}

/// timer_getoverrun(2)
pub(crate) fn sys_timer_getoverrun(ctx: &mut Ctx<'_>, id: usize) -> SysResult {
    let overrun = ctx.process().timer_overrun(id as i32)?;
    // At most DELAYTIMER_MAX.
    Ok(usize::try_from(overrun)
        .unwrap_or(usize::MAX)
        .min(i32::MAX as usize))
}

/// timer_delete(2)
pub(crate) fn sys_timer_delete(ctx: &mut Ctx<'_>, id: usize) -> SysResult {
    ctx.process().delete_timer(id as i32)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_timer_never_shows_zero() {
        let s = Setting {
            value: 1,
            interval: 0,
        };
        assert_eq!(IntervalValue::from_setting(s).value.microseconds, 1);
    }
}
