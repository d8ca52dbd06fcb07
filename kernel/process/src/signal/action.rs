//! What a program wants done with each signal (sigaction(2)).

use super::number::{DefaultAction, SIGNALS, SigSet, Signal, UNSTOPPABLE};
use bitflags::bitflags;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use machine::sync::SpinLock;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `SIG_DFL`.
pub const SIG_DFL: u64 = 0;
/// `SIG_IGN`.
pub const SIG_IGN: u64 = 1;

bitflags! {
    /// `sa_flags`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct ActionFlags: u64 {
        /// No `SIGCHLD` for a child that stops or goes on.
        const NOCLDSTOP = 1;
        /// Children leave no zombie.
        const NOCLDWAIT = 2;
        /// The handler wants `siginfo_t`; it gets it in any case.
        const SIGINFO = 4;
        /// There is a restorer. Linux on x86-64 requires one.
        const RESTORER = 0x0400_0000;
        /// Run on the alternate stack.
        const ONSTACK = 0x0800_0000;
        /// Interrupted calls go on by themselves.
        const RESTART = 0x1000_0000;
        /// Do not block the signal while its handler runs.
        const NODEFER = 0x4000_0000;
        /// Back to the default when the handler starts.
        const RESETHAND = 0x8000_0000;
        const _ = !0;
    }
}

/// A disposition, laid out as the kernel's `struct sigaction`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Action {
    /// [`SIG_DFL`], [`SIG_IGN`] or the handler's address.
    pub handler: u64,
    flags: u64,
    /// Where the handler returns to: code that calls `rt_sigreturn`.
    pub restorer: u64,
    mask: u64,
}

impl Action {
    /// Its flags.
    #[must_use]
    pub fn flags(&self) -> ActionFlags {
        ActionFlags::from_bits_retain(self.flags)
    }

    /// Signals blocked while the handler runs.
    #[must_use]
    pub fn mask(&self) -> SigSet {
        SigSet(self.mask)
    }

    fn is_handler(&self) -> bool {
        self.handler > SIG_IGN
    }
}

/// What to do with a signal that is being delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Nothing.
    Ignore,
    /// What the signal does by default.
    Default(DefaultAction),
    /// Run the program's handler.
    Handler(Action),
}

/// The dispositions of a process, or of several that share them.
pub struct Actions {
    table: SpinLock<[Action; SIGNALS]>,
    /// Signals set to [`SIG_IGN`], so that sending one of them takes no lock.
    ignored: AtomicU64,
    /// Signals with a handler.
    caught: AtomicU64,
}

impl Actions {
    /// All default.
    #[must_use]
    pub fn new() -> Actions {
        Actions {
            table: SpinLock::new([Action::default(); SIGNALS]),
            ignored: AtomicU64::new(0),
            caught: AtomicU64::new(0),
        }
    }

    /// A copy (`fork`).
    #[must_use]
    pub fn copied(&self) -> Actions {
        let table = self.table.lock();
        Actions {
            table: SpinLock::new(*table),
            ignored: AtomicU64::new(self.ignored.load(Relaxed)),
            caught: AtomicU64::new(self.caught.load(Relaxed)),
        }
    }

    /// A copy where what was caught is back to default (`execve`,
    /// `CLONE_CLEAR_SIGHAND`).
    #[must_use]
    pub fn without_handlers(&self) -> Actions {
        let ignored = self.ignored();
        let fresh = Actions::new();
        let ignore = Action {
            handler: SIG_IGN,
            ..Action::default()
        };
        for (i, a) in fresh.table.lock().iter_mut().enumerate() {
            if Signal::new(i + 1).is_some_and(|s| ignored.contains(s)) {
                *a = ignore;
            }
        }
        fresh.ignored.store(ignored.0, Relaxed);
        fresh
    }

    /// The disposition of `signal`.
    #[must_use]
    pub fn get(&self, signal: Signal) -> Action {
        self.table.lock()[signal.index()]
    }

    /// Sets it to `action`, which becomes the one before; whether it could: not for a
    /// signal that cannot be changed.
    pub fn exchange(&self, signal: Signal, action: &mut Action) -> bool {
        if UNSTOPPABLE.contains(signal) {
            return false;
        }
        action.mask = SigSet(action.mask).without(UNSTOPPABLE).0;
        let bit = SigSet::EMPTY.with(signal).0;
        let put = |set: &AtomicU64, on: bool| {
            let rest = set.load(Relaxed) & !bit;
            set.store(if on { rest | bit } else { rest }, Relaxed);
        };
        let mut table = self.table.lock();
        put(&self.ignored, action.handler == SIG_IGN);
        put(&self.caught, action.is_handler());
        core::mem::swap(&mut table[signal.index()], action);
        true
    }

    /// Signals with [`SIG_IGN`].
    #[must_use]
    pub fn ignored(&self) -> SigSet {
        SigSet(self.ignored.load(Relaxed))
    }

    /// Signals with a handler.
    #[must_use]
    pub fn caught(&self) -> SigSet {
        SigSet(self.caught.load(Relaxed))
    }

    /// Whether delivering `signal` would do nothing.
    #[inline]
    #[must_use]
    pub fn ignores(&self, signal: Signal) -> bool {
        self.ignored().contains(signal)
            || signal.default_action() == DefaultAction::Ignore && !self.caught().contains(signal)
    }

    /// What to do with `signal` now. A handler with `SA_RESETHAND` is taken out.
    pub(crate) fn deliver(&self, signal: Signal) -> Disposition {
        let mut table = self.table.lock();
        let entry = &mut table[signal.index()];
        let action = *entry;
        if !action.is_handler() {
            return match (action.handler, signal.default_action()) {
                (SIG_IGN, _) | (_, DefaultAction::Ignore) => Disposition::Ignore,
                (_, default) => Disposition::Default(default),
            };
        }
        if action.flags().contains(ActionFlags::RESETHAND) {
            entry.handler = SIG_DFL;
            let caught = self.caught();
            let rest = caught.without(SigSet::EMPTY.with(signal));
            self.caught.store(rest.0, Relaxed);
        }
        Disposition::Handler(action)
    }

    /// Makes `signal` fatal: the program cannot go on without it being handled,
    /// and blocks or ignores it (`force_sig`).
    pub(crate) fn reset(&self, signal: Signal) {
        self.table.lock()[signal.index()] = Action::default();
        let bit = SigSet::EMPTY.with(signal).0;
        self.ignored.fetch_and(!bit, Relaxed);
        self.caught.fetch_and(!bit, Relaxed);
    }
}

impl Default for Actions {
    fn default() -> Self {
        Actions::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler(flags: ActionFlags) -> Action {
        Action {
            handler: 0x4000,
            flags: flags.bits(),
            restorer: 0x5000,
            mask: !0,
        }
    }

    #[test]
    fn kill_and_stop_cannot_be_changed_or_blocked() {
        let a = Actions::new();
        assert!(!a.exchange(Signal::KILL, &mut handler(ActionFlags::empty())));
        assert!(!a.exchange(Signal::STOP, &mut handler(ActionFlags::empty())));
        assert!(a.exchange(Signal::USR1, &mut handler(ActionFlags::empty())));
        assert!(a.get(Signal::USR1).mask().and(UNSTOPPABLE).is_empty());
    }

    #[test]
    fn resethand_lasts_for_one_delivery() {
        let a = Actions::new();
        assert!(a.exchange(Signal::USR1, &mut handler(ActionFlags::RESETHAND)));
        assert!(matches!(a.deliver(Signal::USR1), Disposition::Handler(_)));
        assert_eq!(
            a.deliver(Signal::USR1),
            Disposition::Default(DefaultAction::Terminate)
        );
        assert!(a.caught().is_empty());
    }

    #[test]
    fn exec_keeps_ignored_signals_only() {
        let a = Actions::new();
        assert!(a.exchange(Signal::USR1, &mut handler(ActionFlags::empty())));
        let mut ignore = Action {
            handler: SIG_IGN,
            ..Action::default()
        };
        assert!(a.exchange(Signal::HUP, &mut ignore));
        let b = a.without_handlers();
        assert!(b.ignores(Signal::HUP) && !b.ignores(Signal::USR1));
        assert_eq!(b.get(Signal::USR1).handler, SIG_DFL);
        assert_eq!(b.get(Signal::HUP).handler, SIG_IGN);
        assert!(b.ignores(Signal::CHLD));
    }
}
