//! Pending signals.

use super::info::{SigInfo, code};
use super::number::{SYNCHRONOUS, SigSet, Signal};
use smallvec::SmallVec;

/// The signals that wait for delivery to a thread or to a process.
#[derive(Default)]
pub(crate) struct Queue {
    set: SigSet,
    /// Why they were sent, oldest first. A signal of the set without an entry was
    /// sent when the queue was full; that it was sent is not lost.
    entries: SmallVec<[SigInfo; 2]>,
}

/// What became of a signal that was put into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It is pending now.
    Added,
    /// It was pending already, and does not queue.
    Merged,
    /// The limit on queued signals is reached.
    Full,
}

impl Queue {
    /// Signals that are pending.
    pub(crate) fn set(&self) -> SigSet {
        self.set
    }

    /// Entries held, for the limit on queued signals.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry number `at`.
    pub(crate) fn get(&self, at: usize) -> Option<SigInfo> {
        self.entries.get(at).copied()
    }

    /// Adds `signal`. With `limit` entries or more only the fact is kept, and for
    /// a realtime signal of a program's making not even that, so that the sender
    /// can be told (`EAGAIN` of sigqueue(3)).
    pub(crate) fn push(&mut self, signal: Signal, info: SigInfo, limit: usize) -> Pushed {
        if !signal.is_realtime() && self.set.contains(signal) {
            return Pushed::Merged;
        }
        let room = self.entries.len() < limit && self.entries.try_reserve(1).is_ok();
        if room {
            self.entries.push(info);
        } else if signal.is_realtime() && info.code != code::SI_USER {
            return Pushed::Full;
        }
        self.set = self.set.with(signal);
        Pushed::Added
    }

    /// If the signal of the POSIX timer `id` is still pending, counts `more`
    /// expirations there; whether it is.
    pub(crate) fn overrun(&mut self, id: i32, more: u64) -> bool {
        let mut timers = self.entries.iter_mut().filter(|i| i.code == code::SI_TIMER);
        let Some(info) = timers.find(|i| i.payload[0] as u32 == id as u32) else {
            return false;
        };
        let count = (info.payload[0] >> 32).saturating_add(more);
        info.payload[0] = u64::from(id as u32) | count.min(i32::MAX as u64) << 32;
        true
    }

    /// The next one to deliver of those in `wanted`.
    pub(crate) fn next(&self, wanted: SigSet) -> Option<Signal> {
        let ready = self.set.and(wanted);
        ready.and(SYNCHRONOUS).first().or(ready.first())
    }

    /// Takes the oldest `signal` out.
    pub(crate) fn take(&mut self, signal: Signal) -> Option<SigInfo> {
        if !self.set.contains(signal) {
            return None;
        }
        let same = |i: &SigInfo| i.signo == i32::from(signal.number());
        let info = match self.entries.iter().position(same) {
            Some(at) => self.entries.remove(at),
            None => SigInfo::sent(signal, code::SI_USER, 0, 0),
        };
        if !self.entries.iter().any(same) {
            self.set = self.set.without(SigSet::EMPTY.with(signal));
        }
        Some(info)
    }

    /// Forgets all signals of `gone`.
    pub(crate) fn remove(&mut self, gone: SigSet) {
        if self.set.and(gone).is_empty() {
            return;
        }
        self.set = self.set.without(gone);
        self.entries
            .retain(|i| i.signal().is_some_and(|s| !gone.contains(s)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(signal: Signal, pid: u32) -> SigInfo {
        SigInfo::sent(signal, code::SI_QUEUE, pid, 0)
    }
    const RT: Signal = match Signal::new(40) {
        Some(s) => s,
        None => panic!("a signal"),
    };

    #[test]
    fn standard_signals_merge_and_realtime_ones_queue_in_order() {
        let mut q = Queue::default();
        assert_eq!(
            q.push(Signal::USR1, sent(Signal::USR1, 1), 9),
            Pushed::Added
        );
        assert_eq!(
            q.push(Signal::USR1, sent(Signal::USR1, 2), 9),
            Pushed::Merged
        );
        q.push(RT, sent(RT, 1), 9);
        q.push(RT, sent(RT, 2), 9);
        assert_eq!(q.next(SigSet(!0)), Some(Signal::USR1));
        assert_eq!(q.take(Signal::USR1), Some(sent(Signal::USR1, 1)));
        assert_eq!(q.take(RT), Some(sent(RT, 1)));
        assert!(q.set().contains(RT));
        assert_eq!(q.take(RT), Some(sent(RT, 2)));
        assert!(q.set().is_empty());
        assert_eq!(q.take(RT), None);
    }

    #[test]
    fn a_full_queue_keeps_standard_signals_and_refuses_realtime_ones() {
        let mut q = Queue::default();
        assert_eq!(q.push(RT, sent(RT, 1), 0), Pushed::Full);
        assert_eq!(
            q.push(Signal::TERM, sent(Signal::TERM, 1), 0),
            Pushed::Added
        );
        assert_eq!(q.take(Signal::TERM).map(|i| i.code), Some(code::SI_USER));
        assert!(q.set().is_empty());
    }

    #[test]
    fn a_timer_has_one_signal_pending_and_counts_the_rest() {
        let mut q = Queue::default();
        q.push(RT, SigInfo::timer(RT, 7, 0, 1), 9);
        assert!(!q.overrun(8, 1));
        assert!(q.overrun(7, 2) && q.overrun(7, 1));
        assert_eq!(q.take(RT), Some(SigInfo::timer(RT, 7, 3, 1)));
        assert!(!q.overrun(7, 1));
    }

    #[test]
    fn faults_come_first() {
        let mut q = Queue::default();
        q.push(Signal::HUP, sent(Signal::HUP, 1), 9);
        q.push(Signal::SEGV, sent(Signal::SEGV, 1), 9);
        assert_eq!(q.next(SigSet(!0)), Some(Signal::SEGV));
        q.remove(SigSet::EMPTY.with(Signal::SEGV));
        assert_eq!(q.next(SigSet(!0)), Some(Signal::HUP));
        assert_eq!(q.len(), 1);
    }
}
