//! Times as programs write them.

use crate::errno::Errno;
use core::time::Duration;
use machine::time::Instant;
use machine::user;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const NS_PER_S: i64 = 1_000_000_000;

/// `struct timespec`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Timespec {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// `struct timeval`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(crate) struct Timeval {
    pub(crate) seconds: i64,
    pub(crate) microseconds: i64,
}

impl Timespec {
    /// From nanoseconds; a negative time has a negative second, as Linux has it.
    pub(crate) fn from_ns(ns: i64) -> Timespec {
        Timespec {
            seconds: ns.div_euclid(NS_PER_S),
            nanoseconds: ns.rem_euclid(NS_PER_S),
        }
    }

    /// In nanoseconds; the far future for what does not fit.
    ///
    /// # Errors
    /// `EINVAL` for a negative time or a fraction that is none.
    pub(crate) fn to_ns(self) -> Result<i64, Errno> {
        if self.seconds < 0 || !(0..NS_PER_S).contains(&self.nanoseconds) {
            return Err(Errno::EINVAL);
        }
        let ns = self.seconds.checked_mul(NS_PER_S);
        Ok(ns
            .and_then(|s| s.checked_add(self.nanoseconds))
            .unwrap_or(i64::MAX))
    }

    /// Reads one.
    ///
    /// # Errors
    /// `EFAULT`, and as [`Timespec::to_ns`].
    pub(crate) fn read_ns(addr: usize) -> Result<i64, Errno> {
        user::read_value::<Timespec>(addr)?.to_ns()
    }

    /// The deadline a relative timeout at `addr` gives; `None` without one.
    ///
    /// # Errors
    /// As [`Timespec::read_ns`].
    pub(crate) fn read_deadline(addr: usize) -> Result<Option<Instant>, Errno> {
        if addr == 0 {
            return Ok(None);
        }
        let ns = Timespec::read_ns(addr)?;
        Ok(Some(after_ns(ns)))
    }
}

/// `ns` nanoseconds from now.
pub(crate) fn after_ns(ns: i64) -> Instant {
    Instant(
        Instant::now()
            .0
            .saturating_add(u64::try_from(ns).unwrap_or(0)),
    )
}

impl Timeval {
    pub(crate) fn from_ns(ns: i64) -> Timeval {
        let t = Timespec::from_ns(ns);
        Timeval {
            seconds: t.seconds,
            microseconds: t.nanoseconds / 1000,
        }
    }

    pub(crate) fn from_duration(d: Duration) -> Timeval {
        Timeval::from_ns(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }

    /// In nanoseconds.
    ///
    /// # Errors
    /// `EINVAL` for a negative time or a fraction that is none.
    pub(crate) fn to_ns(self) -> Result<i64, Errno> {
        if !(0..1_000_000).contains(&self.microseconds) {
            return Err(Errno::EINVAL);
        }
        let t = Timespec {
            seconds: self.seconds,
            nanoseconds: self.microseconds * 1000,
        };
        t.to_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_out_of_range_are_refused_or_cut() {
        let t = |seconds, nanoseconds| Timespec {
            seconds,
            nanoseconds,
        };
        assert_eq!(t(1, 5).to_ns(), Ok(1_000_000_005));
        assert_eq!(t(-1, 0).to_ns(), Err(Errno::EINVAL));
        assert_eq!(t(0, NS_PER_S).to_ns(), Err(Errno::EINVAL));
        assert_eq!(t(i64::MAX, 0).to_ns(), Ok(i64::MAX));
        assert_eq!(Timespec::from_ns(-1), t(-1, NS_PER_S - 1));
        let v = Timeval {
            seconds: 2,
            microseconds: 1_000_000,
        };
        assert_eq!(v.to_ns(), Err(Errno::EINVAL));
    }
}
