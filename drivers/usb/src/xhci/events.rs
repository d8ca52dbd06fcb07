//! The thread that takes what the controller reports.

use super::Controller;
use super::slot::{Owner, Report};
use super::trb::{Trb, code, kind};
use crate::work::Task;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use machine::thread;
use machine::wait::Until;

/// Events taken before the controller is told that there is room again.
const BATCH: usize = 64;

impl Controller {
    /// Takes events until the controller is given up.
    pub(crate) fn serve(self: &Arc<Controller>) {
        let bus = &self.registers.bus;
        let interrupt = bus.interrupt(0);
        while !self.is_given_up.load(SeqCst) {
            // Without a deadline, a wait ends by an interrupt only.
            let _ = interrupt.wait(Until::default());
            let was_called = self.was_called.swap(false, SeqCst);
            self.registers.acknowledge();
            let taken = self.take_events();
            if bus.is_wired() {
                interrupt.rearm();
            }
            if was_called && taken > 0 {
                self.counters.lost_interrupts.fetch_add(1, Relaxed);
            }
            if self.is_running() && self.registers.is_broken() {
                self.fail("it reports an error");
            }
        }
    }

    /// Takes all events there are; how many.
    fn take_events(self: &Arc<Controller>) -> usize {
        let mut taken = 0;
        loop {
            let mut shared = self.shared.lock();
            let Some(ring) = shared.as_mut().map(|s| &mut s.events) else {
                return taken;
            };
            let event = ring.next();
            if event.is_none() || taken % BATCH == BATCH - 1 {
                self.registers.set_dequeue(ring.position());
            }
            drop(shared);
            let Some(event) = event else { return taken };
            taken += 1;
            self.take(event);
            thread::cond_resched();
        }
    }

    fn take(self: &Arc<Controller>, event: Trb) {
        match event.kind() {
            kind::TRANSFER_EVENT => self.transfer_ended(event),
            kind::COMMAND_EVENT => self.command_ended(event),
            kind::PORT_EVENT => {
                let port = (event.parameter >> 24) as u8;
                if (1..=self.capabilities.ports).contains(&port) {
                    self.work.add(Task::RootPort(port));
                }
            }
            kind::HOST_EVENT => {
                log::warn!("usb{}: host event {}", self.number, event.code());
            }
            // Nothing else was asked for.
            _ => {}
        }
    }

    fn command_ended(&self, event: Trb) {
        if event.code() == code::RING_STOPPED {
            return;
        }
        let mut shared = self.shared.lock();
        let Some(shared) = shared.as_mut() else {
            return;
        };
        let waiting = shared.command.take_if(|c| c.0 == event.parameter);
        if let Some((_, command)) = waiting {
            command.finish(Ok(event));
        }
    }

    fn transfer_ended(self: &Arc<Controller>, event: Trb) {
        let Some(slot) = self.slot(event.slot()) else {
            return;
        };
        let report = Report {
            address: event.parameter,
            code: event.code(),
            residue: event.residue(),
        };
        let endpoint = event.endpoint();
        let Some(ended) = slot.report(endpoint, report) else {
            return;
        };
        if let Some((listener, memory)) = ended.tell() {
            let owner = Owner::Listener(listener);
            // A device that is gone is listened to no more.
            let _ = self.submit(&slot, endpoint, memory, owner);
        }
    }
}
