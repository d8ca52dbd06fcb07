//! The driver's thread: what is late is aborted, a controller that hangs or is broken
//! is reset and given once more what was under way, and trouble is told.

use crate::command::Command;
use crate::controller::{Nvme, NvmeError, call};
use crate::health;
use crate::queue::{Pair, Ticket};
use crate::registers;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::time::Duration;
use machine::Account;
use machine::block::Trouble;
use machine::bus::Bus;
use machine::frame::Frame;
use machine::thread;
use machine::time::Instant;
use machine::wait::Until;

/// Silence after which a command is aborted, and the controller is reset if that does
/// not help. A disk may need seconds for a flush; a reset then costs time and no data.
const TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 4000 });
/// How often who waits makes sure that the controller is there and well.
pub(crate) const CHECK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 250 });
/// Time for aborted commands to come back.
const ABORT_TIME: Duration = Duration::from_millis(500);
/// Commands that are aborted before the controller is reset instead.
const ABORTS_MAX: usize = 4;
/// Resets that are tried one after the other.
const RESETS: u32 = 5;

impl<B: Bus> Nvme<B> {
    /// Serves until the controller is given up.
    pub(crate) fn serve(&self) {
        let mut event = self.ask_for_event();
        loop {
            // Without a deadline and uninterruptible, it ends by an interrupt only.
            let _ = self.bus.interrupt(self.admin.vector).wait(Until::default());
            let mut calls = self.calls.swap(0, SeqCst);
            if self.look(&self.admin).is_err() {
                calls |= call::RESET;
            }
            if event.as_ref().is_some_and(|e| self.hear(e)) {
                event = self.ask_for_event();
            }
            self.tell_failures();
            if calls & call::BROKEN != 0 && self.is_broken() {
                calls |= call::RESET;
            }
            if calls & call::LATE != 0 && !self.abort_late() {
                calls |= call::RESET;
            }
            if calls & call::RESET != 0 {
                if !self.recover() {
                    return;
                }
                event = self.ask_for_event();
            }
        }
    }

    /// Looks whether the controller is well, and what `pair` waits for not late.
    pub(crate) fn check(&self, pair: &Pair) {
        if !pair.is_open() {
            return;
        }
        let is_late = |since: Instant| Instant::now().since(since) >= TIMEOUT;
        if self.is_broken() {
            self.call(call::BROKEN);
        } else if pair.oldest().is_some_and(|(since, _)| is_late(since)) {
            self.call(call::LATE);
        }
    }

    /// Whether the controller is gone, says that it has failed, or has stopped.
    fn is_broken(&self) -> bool {
        let status = self.bus.read_u32(registers::CSTS);
        status & (registers::CSTS_FATAL | registers::CSTS_READY) != registers::CSTS_READY
    }

    /// The controller answers this when something happens to it.
    fn ask_for_event(&self) -> Option<Arc<Ticket>> {
        self.give_admin_command("asking for an event", Command::event(), None)
            .ok()
    }

    /// Whether `event` has happened, and another can be asked for.
    fn hear(&self, event: &Ticket) -> bool {
        const HEALTH: u32 = 1;
        let Some(outcome) = event.request.outcome() else {
            return false;
        };
        if outcome.is_err() {
            return false;
        }
        let result = event.result.load(Relaxed);
        // Only who reads the log hears of the next event.
        let kind = result & 7;
        let log = (result >> 16) as u8;
        if let Ok(page) = Frame::zeroed(Account::kernel()) {
            let command = Command::log(log, health::LEN);
            let _ = self.admin_command("reading a log", command, Some(&page));
            if kind == HEALTH {
                let mut warning = [0];
                page.read(0, &mut warning);
                let [warning] = warning;
                log::warn!("nvme: the controller warns: {}", health::reason(warning));
                self.tell(Trouble::Warning);
            }
        }
        true
    }

    /// Aborts what is late; whether nothing is late any more.
    fn abort_late(&self) -> bool {
        let late = |pair: &Pair| {
            let (since, id) = pair.oldest()?;
            (Instant::now().since(since) >= TIMEOUT).then_some(id)
        };
        let mut aborted = 0;
        for pair in self.pairs() {
            let Some(id) = late(pair) else { continue };
            log::warn!("nvme: a command takes too long and is aborted");
            self.counters.aborted.fetch_add(1, Relaxed);
            aborted += 1;
            let command = Command::abort(pair.id, id);
            if aborted > ABORTS_MAX || self.admin_command("aborting", command, None).is_err() {
                return false;
            }
            let deadline = Instant::now().after(ABORT_TIME);
            // Who leads takes it back.
            while pair.oldest().is_some_and(|(_, oldest)| oldest == id) {
                if Instant::now() >= deadline {
                    return false;
                }
                let pause = Instant::now().after(Duration::from_millis(10));
                let _ = thread::sleep_until(pause, false);
            }
            if late(pair).is_some() {
                return false;
            }
        }
        true
    }

    /// Resets the controller and gives it once more what was under way; gives it up if
    /// it does not come back. Whether it did.
    fn recover(&self) -> bool {
        for n in 0..RESETS {
            if !self.bus.is_present() {
                break;
            }
            for pair in self.pairs() {
                pair.close();
            }
            // What was called for before is done with; what comes once the pairs are
            // open again is not.
            self.calls.store(0, SeqCst);
            log::warn!("nvme: the controller hangs or misbehaves and is reset");
            self.counters.resets.fetch_add(1, Relaxed);
            match self.bring_up() {
                Ok(()) => {
                    self.tell(Trouble::Reset);
                    return true;
                }
                Err(NvmeError::Gone) => break,
                Err(e) => log::warn!("nvme: {e}"),
            }
            // A sleep without interruption ends at its time only.
            let pause = Instant::now().after(Duration::from_millis(100 << n));
            let _ = thread::sleep_until(pause, false);
        }
        log::error!("nvme: given up");
        self.give_up();
        self.tell_failures();
        self.tell(Trouble::GivenUp);
        false
    }

    /// Tells of what failed.
    fn tell_failures(&self) {
        loop {
            let failure = self.untold.lock().pop();
            let Some(failure) = failure else { return };
            for namespace in self.namespaces.get().into_iter().flatten() {
                if namespace.id() == failure.namespace {
                    namespace.tell(failure.ticket.request.failure());
                }
            }
        }
    }

    /// Tells of something that is every namespace's.
    fn tell(&self, trouble: Trouble) {
        for namespace in self.namespaces.get().into_iter().flatten() {
            namespace.tell(trouble);
        }
    }
}
