//! How processes end and what `wait` tells about it.

use crate::signal::{Signal, code};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By `exit`, with the low byte of its argument.
    Exited(u8),
    /// By a signal.
    Killed(Signal),
    /// By a signal, with a core file.
    Dumped(Signal),
}

/// Told with a signal that left a core file (`WCOREDUMP`).
const CORE_FLAG: u8 = 0x80;

/// What a parent can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The child ended.
    Ended(ExitStatus),
    /// The child was stopped by a signal.
    Stopped(Signal),
    /// The child goes on.
    Continued,
    /// A tracee stopped: a signal, and what its tracer is told above it.
    Traced(u32),
}

impl Change {
    /// The status word of wait(2).
    #[must_use]
    pub fn word(self) -> i32 {
        match self {
            Change::Ended(ExitStatus::Exited(code)) => i32::from(code) << 8,
            Change::Ended(ExitStatus::Killed(s)) => i32::from(s.number()),
            Change::Ended(ExitStatus::Dumped(s)) => i32::from(s.number() | CORE_FLAG),
            Change::Stopped(s) => i32::from(s.number()) << 8 | 0x7f,
            Change::Continued => 0xffff,
            Change::Traced(code) => (code << 8 | 0x7f) as i32,
        }
    }

    /// `si_code` and `si_status` of waitid(2) and of `SIGCHLD`.
    #[must_use]
    pub fn code_and_status(self) -> (i32, i32) {
        match self {
            Change::Ended(ExitStatus::Exited(c)) => (code::CLD_EXITED, i32::from(c)),
            Change::Ended(ExitStatus::Killed(s)) => (code::CLD_KILLED, i32::from(s.number())),
            Change::Ended(ExitStatus::Dumped(s)) => (code::CLD_DUMPED, i32::from(s.number())),
            Change::Stopped(s) => (code::CLD_STOPPED, i32::from(s.number())),
            Change::Traced(c) => (code::CLD_TRAPPED, c as i32),
            Change::Continued => (code::CLD_CONTINUED, i32::from(Signal::CONT.number())),
        }
    }
}

impl ExitStatus {
    /// As one number that is not zero, for an atomic.
    pub(crate) fn pack(self) -> u32 {
        match self {
            ExitStatus::Exited(c) => 1 << 16 | u32::from(c) << 8,
            ExitStatus::Killed(s) => 1 << 16 | u32::from(s.number()),
            ExitStatus::Dumped(s) => 1 << 16 | u32::from(s.number() | CORE_FLAG),
        }
    }

    /// The reverse of [`ExitStatus::pack`]; `None` for zero.
    pub(crate) fn unpack(word: u32) -> Option<ExitStatus> {
        if word == 0 {
            return None;
        }
        let signal = Signal::new((word & 0x7f) as usize);
        let by = match word & u32::from(CORE_FLAG) {
            0 => ExitStatus::Killed,
            _ => ExitStatus::Dumped,
        };
        Some(signal.map_or(ExitStatus::Exited((word >> 8) as u8), by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_words_are_those_of_wait() {
        assert_eq!(Change::Ended(ExitStatus::Exited(3)).word(), 0x300);
        assert_eq!(Change::Ended(ExitStatus::Killed(Signal::KILL)).word(), 9);
        let dumped = Change::Ended(ExitStatus::Dumped(Signal::SEGV));
        assert_eq!((dumped.word(), dumped.code_and_status()), (0x8b, (3, 11)));
        assert_eq!(Change::Stopped(Signal::STOP).word(), 0x137f);
        assert_eq!(Change::Continued.word(), 0xffff);
        assert_eq!(Change::Traced(3 << 8 | 5).word(), 0x3_057f);
    }

    #[test]
    fn packing_loses_nothing() {
        for s in [0, 1, 255].map(ExitStatus::Exited) {
            assert_eq!(ExitStatus::unpack(s.pack()), Some(s));
        }
        for k in [ExitStatus::Killed, ExitStatus::Dumped].map(|k| k(Signal::SEGV)) {
            assert_eq!(ExitStatus::unpack(k.pack()), Some(k));
        }
        assert_eq!(ExitStatus::unpack(0), None);
    }
}
