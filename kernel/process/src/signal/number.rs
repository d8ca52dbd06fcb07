//! Signal numbers and sets of them.

use core::fmt;

/// A signal's number, 1 to 64 (signal(7)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// Signals there are.
pub const SIGNALS: usize = 64;

macro_rules! signals {
    ($($name:ident = $n:literal)*) => {
        #[expect(missing_docs, reason = "signal(7) has the meanings")]
        impl Signal {
            $(pub const $name: Signal = Signal($n);)*
        }

        impl fmt::Debug for Signal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match *self {
                    $(Signal::$name => f.write_str(concat!("SIG", stringify!($name))),)*
                    Signal(n) => write!(f, "SIG{n}"),
                }
            }
        }
    };
}

signals! {
    HUP = 1 INT = 2 QUIT = 3 ILL = 4 TRAP = 5 ABRT = 6 BUS = 7 FPE = 8 KILL = 9 USR1 = 10
    SEGV = 11 USR2 = 12 PIPE = 13 ALRM = 14 TERM = 15 STKFLT = 16 CHLD = 17 CONT = 18
    STOP = 19 TSTP = 20 TTIN = 21 TTOU = 22 URG = 23 XCPU = 24 XFSZ = 25 VTALRM = 26
    PROF = 27 WINCH = 28 IO = 29 PWR = 30 SYS = 31
}

/// What happens where a program did not say (signal(7), "Standard signals").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultAction {
    /// The process ends.
    Terminate,
    /// The process ends and says that it dumped core. No dump is written, so the
    /// flag in its status stays clear.
    Core,
    /// Nothing.
    Ignore,
    /// All threads of the process stop.
    Stop,
    /// The process goes on if it was stopped.
    Continue,
}

impl Signal {
    /// The signal of that number, if there is one.
    #[must_use]
    pub const fn new(number: usize) -> Option<Signal> {
        match number {
            1..=SIGNALS => Some(Signal(number as u8)),
            _ => None,
        }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its place in a table of all signals.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize - 1
    }

    /// Whether further ones queue behind one that is pending.
    #[must_use]
    pub const fn is_realtime(self) -> bool {
        self.0 >= 32
    }

    /// Whether it stops a process by default.
    #[must_use]
    pub const fn is_stop(self) -> bool {
        STOPS.contains(self)
    }

    /// What it does by default.
    #[must_use]
    pub const fn default_action(self) -> DefaultAction {
        match self {
            Signal::CHLD | Signal::URG | Signal::WINCH => DefaultAction::Ignore,
            Signal::CONT => DefaultAction::Continue,
            Signal::STOP | Signal::TSTP | Signal::TTIN | Signal::TTOU => DefaultAction::Stop,
            Signal::QUIT
            | Signal::ILL
            | Signal::TRAP
            | Signal::ABRT
            | Signal::BUS
            | Signal::FPE
            | Signal::SEGV
            | Signal::XCPU
            | Signal::XFSZ
            | Signal::SYS => DefaultAction::Core,
            _ => DefaultAction::Terminate,
        }
    }
}

/// A set of signals, as `sigset_t` has it: bit `n - 1` for signal `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SigSet(pub u64);

/// Signals that stop a process by default.
pub const STOPS: SigSet = SigSet::EMPTY
    .with(Signal::STOP)
    .with(Signal::TSTP)
    .with(Signal::TTIN)
    .with(Signal::TTOU);
/// Signals no program can block, catch or ignore.
pub const UNSTOPPABLE: SigSet = SigSet::EMPTY.with(Signal::KILL).with(Signal::STOP);
/// Signals that say what the thread itself just did; they are delivered first.
pub(crate) const SYNCHRONOUS: SigSet = SigSet::EMPTY
    .with(Signal::SEGV)
    .with(Signal::BUS)
    .with(Signal::ILL)
    .with(Signal::TRAP)
    .with(Signal::FPE)
    .with(Signal::SYS);

impl SigSet {
    /// No signal.
    pub const EMPTY: SigSet = SigSet(0);

    /// This set and `signal`.
    #[must_use]
    pub const fn with(self, signal: Signal) -> SigSet {
        SigSet(self.0 | 1 << (signal.0 - 1))
    }

    /// This set without the signals of `other`.
    #[must_use]
    pub const fn without(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// Signals in both.
    #[must_use]
    pub const fn and(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }

    /// Signals in either.
    #[must_use]
    pub const fn or(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }

    /// Signals in neither.
    #[must_use]
    pub const fn complement(self) -> SigSet {
        SigSet(!self.0)
    }

    /// Whether `signal` is in it.
    #[must_use]
    pub const fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The one of the lowest number, which is delivered first.
    #[must_use]
    pub const fn first(self) -> Option<Signal> {
        Signal::new(self.0.trailing_zeros() as usize + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_the_range_are_no_signals() {
        assert!(Signal::new(0).is_none());
        assert!(Signal::new(65).is_none());
        assert_eq!(Signal::new(64).map(Signal::number), Some(64));
        assert_eq!(SigSet::EMPTY.first(), None);
    }

    #[test]
    fn sets_are_bits_from_zero() {
        assert_eq!(SigSet::EMPTY.with(Signal::HUP), SigSet(1));
        assert_eq!(UNSTOPPABLE.0, 1 << 8 | 1 << 18);
        assert_eq!(SigSet(1 << 63).first(), Signal::new(64));
    }
}
