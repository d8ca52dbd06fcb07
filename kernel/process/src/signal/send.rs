//! Sending signals: to a process, to a thread, to oneself.

use super::info::SigInfo;
use super::number::{DefaultAction, STOPS, SigSet, Signal};
use super::queue::Pushed;
use crate::limits::Resource;
use crate::process::Inner;
use crate::status::{Change, ExitStatus};
use crate::{Error, Process, Result, Thread};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use machine::thread;
use vfs::Events;

/// Where a signal comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A process of the same world, or an event in it. The first process of a
    /// world gets of these only what it has a handler for.
    Inside,
    /// The kernel or the owner of the capsule: `SIGKILL` and `SIGSTOP` reach the
    /// first process, too.
    Outside,
}

const CONT: SigSet = SigSet::EMPTY.with(Signal::CONT);

impl Process {
    /// Sends `signal` to the process: one of its threads that does not block it
    /// will take it.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for a realtime signal that cannot be queued.
    pub fn signal(&self, signal: Signal, info: SigInfo, origin: Origin) -> Result<()> {
        if signal == Signal::KILL {
            if origin == Origin::Outside || !self.is_unkillable() {
                self.begin_exit(ExitStatus::Killed(signal));
            }
            return Ok(());
        }
        let mut inner = self.inner.lock();
        if inner.threads.is_empty() {
            return Ok(());
        }
        let change = self.cancel_opposites(&mut inner, signal);
        let keeps = inner.threads.first().map(|t| t.keeps());
        if !self.discards(signal, keeps.unwrap_or_default(), origin) {
            let limit = self.queue_limit();
            if inner.pending.push(signal, info, limit) == Pushed::Full {
                return Err(Error::LimitReached);
            }
            self.pending_set.store(inner.pending.set().0, SeqCst);
            self.wake_for(&inner, signal);
        }
        drop(inner);
        if let Some(change) = change {
            self.tell_parent(change);
        }
        self.signal_hub().notify(Events::READABLE);
        Ok(())
    }

    /// Signals that wait with what their senders said, for the process itself.
    pub(crate) fn queued_signals(&self) -> usize {
        self.inner.lock().pending.len()
    }

    fn queue_limit(&self) -> usize {
        usize::try_from(self.limits().soft(Resource::PendingSignals)).unwrap_or(usize::MAX)
    }

    /// Whether `signal` vanishes at once, because delivering it would do nothing.
    fn discards(&self, signal: Signal, keeps: SigSet, origin: Origin) -> bool {
        if keeps.contains(signal) {
            return false;
        }
        self.actions.with(|a| {
            let by_rank = self.is_unkillable()
                && !a.caught().contains(signal)
                && !(origin == Origin::Outside && signal == Signal::STOP);
            by_rank || a.ignores(signal)
        }) != Some(false)
    }

    /// Stop signals and `SIGCONT` cancel each other, and `SIGCONT` continues a
    /// stopped process even if it is blocked or ignored. What the parent is to
    /// hear of that.
    fn cancel_opposites(&self, inner: &mut Inner, signal: Signal) -> Option<Change> {
        let gone = match signal {
            Signal::CONT => STOPS,
            s if s.is_stop() => CONT,
            _ => return None,
        };
        inner.pending.remove(gone);
        self.pending_set.store(inner.pending.set().0, SeqCst);
        for t in &inner.threads {
            t.signals.forget(gone);
        }
        if signal != Signal::CONT {
            return None;
        }
        self.go_on(inner)
    }

    /// Alerts a thread that will take `signal`: the caller if it can.
    fn wake_for(&self, inner: &Inner, signal: Signal) {
        let current = thread::current();
        let me = current.data::<Arc<Thread>>();
        let wants = |t: &Thread| !t.signals.blocked().contains(signal);
        if let Some(me) = me.filter(|me| core::ptr::eq(&*me.process, self) && wants(me)) {
            me.alert();
        } else if let Some(t) = inner.threads.iter().find(|t| wants(t)) {
            t.alert();
        }
    }

    /// Has threads look at the process's pending signals that one which no longer
    /// wants them may have been chosen for.
    pub(crate) fn retarget(&self) {
        let pending = SigSet(self.pending_set.load(SeqCst));
        if pending.is_empty() {
            return;
        }
        for t in &self.inner.lock().threads {
            if !pending.without(t.signals.blocked()).is_empty() {
                t.alert();
            }
        }
    }

    /// The dispositions have changed: forgets pending signals that are ignored
    /// now (sigaction(2)).
    pub fn forget_ignored(&self, signal: Signal) {
        if self.actions.with(|a| a.ignores(signal)) != Some(true) {
            return;
        }
        let gone = SigSet::EMPTY.with(signal);
        let mut inner = self.inner.lock();
        inner.pending.remove(gone);
        self.pending_set.store(inner.pending.set().0, SeqCst);
        for t in &inner.threads {
            t.signals.forget(gone);
        }
    }
}

impl super::ThreadSignals {
    /// Forgets pending signals of `gone`.
    fn forget(&self, gone: SigSet) {
        let mut q = self.pending.lock();
        q.remove(gone);
        self.pending_set.store(q.set().0, SeqCst);
    }
}

impl Thread {
    /// Sends `signal` to this thread alone.
    ///
    /// # Errors
    /// [`Error::LimitReached`] for a realtime signal that cannot be queued.
    pub fn signal(&self, signal: Signal, info: SigInfo, origin: Origin) -> Result<()> {
        let process = self.process();
        if signal == Signal::KILL {
            return process.signal(signal, info, origin);
        }
        let change = {
            let mut inner = process.inner.lock();
            process.cancel_opposites(&mut inner, signal)
        };
        if !process.discards(signal, self.keeps(), origin) {
            let mut q = self.signals.pending.lock();
            if q.push(signal, info, process.queue_limit()) == Pushed::Full {
                return Err(Error::LimitReached);
            }
            self.signals.pending_set.store(q.set().0, SeqCst);
            drop(q);
            if !self.signals.blocked().contains(signal) {
                self.alert();
            }
        }
        if let Some(change) = change {
            process.tell_parent(change);
        }
        process.signal_hub().notify(Events::READABLE);
        Ok(())
    }

    /// Signals that become pending even where nothing would be done about them: a
    /// tracer sees all.
    fn keeps(&self) -> SigSet {
        match self.is_traced() {
            true => SigSet(!0),
            false => self.signals.keeps(),
        }
    }

    /// Sends `signal` to this thread because of what it just did (`SIGPIPE`).
    pub fn raise(&self, signal: Signal) {
        // A standard signal is never refused.
        let _ = self.signal(signal, SigInfo::kernel(signal), Origin::Inside);
    }

    /// Raises `signal` in the calling thread because of what it just did. If the
    /// program blocks or ignores it, it ends: it cannot go on.
    pub fn force(&self, signal: Signal, info: SigInfo) {
        let process = self.process();
        process.actions.with(|a| {
            if self.signals.blocked().contains(signal) || a.ignored().contains(signal) {
                a.reset(signal);
                let mask = self.signals.blocked();
                self.signals
                    .store_blocked(mask.without(SigSet::EMPTY.with(signal)));
            }
            let fatal = matches!(
                signal.default_action(),
                DefaultAction::Core | DefaultAction::Terminate
            );
            if fatal && !a.caught().contains(signal) {
                process.unkillable.store(false, Relaxed);
            }
        });
        let mut q = self.signals.pending.lock();
        // A forced signal gets through whatever is queued already.
        q.push(signal, info, usize::MAX);
        self.signals.pending_set.store(q.set().0, SeqCst);
        drop(q);
        self.alert();
    }

    /// Replaces the calling thread's mask; the old one.
    pub fn set_blocked(&self, mask: SigSet) -> SigSet {
        let old = self.signals.blocked();
        self.signals.store_blocked(mask);
        let mask = self.signals.blocked();
        let pending = SigSet(self.process().pending_set.load(SeqCst));
        let more = mask.without(old);
        if !pending.and(more).is_empty() {
            self.process().retarget();
        }
        let less = old.without(mask);
        if !less.is_empty() && !pending.or(self.signals.pending_set()).and(less).is_empty() {
            self.alert();
        }
        old
    }

    /// Replaces the mask for the time of one call (`sigsuspend`, `ppoll`,
    /// `epoll_pwait`). If a signal ends the call, the old mask comes back when its
    /// handler returns; otherwise [`Thread::end_temporary_mask`] brings it back.
    pub fn begin_temporary_mask(&self, mask: SigSet) {
        let old = self.set_blocked(mask);
        self.signals.save_mask(old);
    }

    /// The call is over, and no signal has ended it.
    pub fn end_temporary_mask(&self) {
        if let Some(mask) = self.signals.take_saved() {
            self.set_blocked(mask);
        }
    }

    /// Signals pending for this thread or its process (sigpending(2)).
    #[must_use]
    pub fn pending_signals(&self) -> SigSet {
        let shared = SigSet(self.process().pending_set.load(SeqCst));
        self.signals.pending_set().or(shared)
    }

    /// What is known of the pending signal number `at` of this thread, or of its process
    /// if `shared`, oldest first.
    #[must_use]
    pub fn peek_signal(&self, shared: bool, at: usize) -> Option<SigInfo> {
        match shared {
            true => self.process().inner.lock().pending.get(at),
            false => self.signals.pending.lock().get(at),
        }
    }

    /// Takes a pending signal of `wanted` out, this thread's own first.
    #[must_use]
    pub fn take_signal(&self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        if self.pending_signals().and(wanted).is_empty() {
            return None;
        }
        let mut own = self.signals.pending.lock();
        if let Some(signal) = own.next(wanted) {
            let info = own.take(signal)?;
            self.signals.pending_set.store(own.set().0, SeqCst);
            return Some((signal, info));
        }
        drop(own);
        let process = self.process();
        let mut inner = process.inner.lock();
        let signal = inner.pending.next(wanted)?;
        let info = inner.pending.take(signal)?;
        process.pending_set.store(inner.pending.set().0, SeqCst);
        Some((signal, info))
    }
}
