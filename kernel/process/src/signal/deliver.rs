//! Before a thread goes back to user mode: what is due is done here.

use super::frame;
use super::number::{DefaultAction, SigSet, Signal};
use super::restart;
use super::{ActionFlags, Disposition, SigInfo};
use crate::Thread;
use crate::core_dump;
use crate::status::ExitStatus;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use machine::thread::{self, UserRegs};

/// Delivers signals to the calling thread, stops it, or ends it. Called while
/// attention is due, with the registers the program will go on with.
pub fn attention(regs: &mut UserRegs) {
    let current = thread::current();
    // Cleared first: what comes from here on raises it again.
    current.clear_attention();
    let Some(me) = current.data::<Arc<Thread>>() else {
        return;
    };
    me.begin();
    let mut handled = false;
    loop {
        if me.must_end() {
            me.attend_dump(regs);
            me.stop_before_end(regs);
            crate::exit::end(me);
        }
        if me.stop_if_due(regs) {
            continue;
        }
        if me.process().is_stopping() && me.owes_group_stop() {
            me.stop_here(regs);
            continue;
        }
        let wanted = me.signals.blocked().complement();
        let Some((signal, info)) = me.take_signal(wanted) else {
            break;
        };
        let chosen = match me.is_traced() {
            false => Some((signal, info)),
            true => me.signal_stop(regs, signal, info),
        };
        if let Some((signal, info)) = chosen {
            handled |= deliver(me, regs, signal, &info);
        }
        // As many may be pending as a stack has room for handlers.
        thread::cond_resched();
    }
    if !handled {
        restart::without_handler(&me.signals, regs);
        me.end_temporary_mask();
    }
    if me.is_traced() {
        me.prepare_step(regs);
    }
}

/// Delivers one signal; whether a handler runs.
fn deliver(me: &Arc<Thread>, regs: &mut UserRegs, signal: Signal, info: &SigInfo) -> bool {
    let process = me.process();
    let disposition = process.actions.with(|a| a.deliver(signal));
    match disposition.unwrap_or(Disposition::Ignore) {
        Disposition::Ignore | Disposition::Default(DefaultAction::Ignore) => false,
        Disposition::Default(DefaultAction::Continue) => false,
        Disposition::Default(DefaultAction::Stop) => {
            if !process.is_unkillable() || signal == Signal::STOP {
                process.begin_stop(signal);
            }
            false
        }
        Disposition::Default(DefaultAction::Terminate) => {
            if !process.is_unkillable() {
                process.begin_exit(ExitStatus::Killed(signal));
            }
            false
        }
        Disposition::Default(DefaultAction::Core) => {
            if !process.is_unkillable() {
                core_dump::end_by(me, regs, signal, info);
            }
            false
        }
        Disposition::Handler(action) => {
            let settled = me.settle_rseq(regs);
            restart::before_handler(action.flags().contains(ActionFlags::RESTART), regs);
            if settled.is_err() || frame::push(me, regs, signal, info, &action).is_err() {
                // No way into a handler of `SIGSEGV` either.
                if signal == Signal::SEGV {
                    process.actions.with(|a| a.reset(signal));
                }
                me.force(Signal::SEGV, SigInfo::kernel(Signal::SEGV));
                return true;
            }
            let mut mask = me.signals.blocked().or(action.mask());
            if !action.flags().contains(ActionFlags::NODEFER) {
                mask = mask.with(signal);
            }
            me.set_blocked(mask);
            if me.is_traced() {
                me.step_into_handler(regs);
            }
            true
        }
    }
}

/// rt_sigreturn(2): back to where the handler interrupted the program. A frame
/// that cannot be read, or that no handler left, ends in `SIGSEGV`.
pub fn sigreturn(me: &Arc<Thread>, regs: &mut UserRegs) {
    match frame::pop(me, regs) {
        Ok(mask) => {
            me.set_blocked(mask);
        }
        Err(_) => me.force(Signal::SEGV, SigInfo::kernel(Signal::SEGV)),
    }
}

impl Thread {
    /// What a new thread does before it enters user mode for the first time.
    fn begin(&self) {
        let first = &self.first_run;
        if !first.due.load(SeqCst) {
            return;
        }
        first.due.store(false, SeqCst);
        let base = |a: &core::sync::atomic::AtomicUsize| Some(a.load(SeqCst));
        // Both were checked, or come from another thread's registers.
        let _ = thread::set_segment_bases(base(&first.fs_base), base(&first.gs_base));
        let set_tid = first.set_tid.load(SeqCst);
        if set_tid != 0 {
            // As on Linux, an address that cannot be written is the program's loss.
            let _ = machine::user::write_value(set_tid, &self.tid());
        }
    }
}

/// The part of `wanted` that is pending, waited for until `until` ends it
/// (sigtimedwait(2)). The signals of `wanted` should be blocked.
///
/// # Errors
/// [`crate::Error::TimedOut`]; [`crate::Error::Interrupted`] by another signal.
pub fn wait_for_signal(
    me: &Thread,
    wanted: SigSet,
    until: machine::wait::Until,
) -> crate::Result<(Signal, SigInfo)> {
    let wanted = wanted.without(super::UNSTOPPABLE);
    if let Some(found) = me.take_signal(wanted) {
        return Ok(found);
    }
    // While it waits, these signals are not blocked, so that one of them is sent
    // to this thread and ends the wait.
    let mask = me.signals.blocked();
    me.signals.set_awaited(wanted);
    me.signals.store_blocked(mask.without(wanted));
    let outcome = loop {
        if let Some(found) = me.take_signal(wanted) {
            break Ok(found);
        }
        if let Err(e) = thread::park(until) {
            break me.take_signal(wanted).ok_or(e.into());
        }
    };
    me.signals.store_blocked(mask);
    me.signals.set_awaited(SigSet::EMPTY);
    me.process().retarget();
    outcome
}
