//! The state of the clock's discipline (adjtimex(2), clock_adjtime(2)).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::time::Clock;
use crate::time_types::Timeval;
use linux_raw_sys::general as c;
use machine::time::wall;
use machine::user;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// `struct timex`, padding spelled out.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Timex {
    modes: u32,
    pad: u32,
    offset: i64,
    frequency: i64,
    max_error: i64,
    estimated_error: i64,
    status: i32,
    pad2: u32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    time: [i64; 2],
    tick: i64,
    pps_frequency: i64,
    pps_jitter: i64,
    pps_shift: i32,
    pad3: u32,
    pps_stability: i64,
    pps_counts: [i64; 4],
    tai: i32,
    rest: [i32; 11],
}

/// `ADJ_ADJTIME`: the old adjtime(3).
const ADJ_ADJTIME: u32 = 0x8000;
/// `ADJ_OFFSET_SINGLESHOT` and `ADJ_OFFSET_READONLY` in it.
const ADJ_ONE_SHOT: u32 = 1;
const ADJ_READ_ONLY: u32 = 0x2000;
/// `STA_UNSYNC`: nothing keeps the clock in step.
const STA_UNSYNC: i32 = 0x40;
/// What the call returns then (`TIME_ERROR`).
const TIME_ERROR: usize = 5;
/// `NTP_PHASE_LIMIT`, in microseconds: the error of a clock nobody has compared.
const ERROR_MAX: i64 = 16_000_000;
/// Largest frequency correction, 500 ppm in units of 2^-16 ppm (`MAXFREQ_SCALED`).
const TOLERANCE: i64 = 500 << 16;
/// Microseconds between two ticks of `USER_HZ` (100 a second).
const TICK: i64 = 10_000;
/// `time_constant` before anybody sets it.
const CONSTANT: i64 = 2;

/// Tells how the clock is disciplined: by nobody.
fn answer(asked: u32) -> Result<Timex, Errno> {
    let changes = if asked & ADJ_ADJTIME != 0 {
        if asked & ADJ_ONE_SHOT == 0 {
            return Err(Errno::EINVAL);
        }
        asked & ADJ_READ_ONLY == 0
    } else {
        asked != 0
    };
    if changes {
        return Err(Errno::EPERM);
    }
    let now = Timeval::from_ns(wall());
    Ok(Timex {
        modes: asked,
        max_error: ERROR_MAX,
        estimated_error: ERROR_MAX,
        status: STA_UNSYNC,
        constant: CONSTANT,
        precision: 1,
        tolerance: TOLERANCE,
        time: [now.seconds, now.microseconds],
        tick: TICK,
        ..Timex::new_zeroed()
    })
}

/// adjtimex(2)
pub(crate) fn sys_adjtimex(_: &mut Ctx<'_>, at: usize) -> SysResult {
    let asked: Timex = user::read_value(at)?;
    user::write_value(at, &answer(asked.modes)?)?;
    Ok(TIME_ERROR)
}

/// clock_adjtime(2): only UTC can be disciplined.
pub(crate) fn sys_clock_adjtime(ctx: &mut Ctx<'_>, clock: usize, at: usize) -> SysResult {
    Clock::decode(clock)?;
    if clock as u32 != c::CLOCK_REALTIME {
        return Err(Errno::EOPNOTSUPP);
    }
    sys_adjtimex(ctx, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_questions_are_answered() {
        assert_eq!(size_of::<Timex>(), 208);
        let t = answer(0).unwrap();
        assert_eq!((t.status, t.tick, t.offset), (STA_UNSYNC, 10_000, 0));
        assert!(answer(ADJ_ADJTIME | ADJ_ONE_SHOT | ADJ_READ_ONLY).is_ok());
        assert_eq!(answer(ADJ_ADJTIME | ADJ_ONE_SHOT).err(), Some(Errno::EPERM));
        assert_eq!(answer(ADJ_ADJTIME).err(), Some(Errno::EINVAL));
        assert_eq!(answer(0x4000).err(), Some(Errno::EPERM));
    }
}
