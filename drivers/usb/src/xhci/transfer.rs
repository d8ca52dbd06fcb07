//! Transfers, and how an endpoint is brought back when one goes wrong.

use super::Controller;
use super::context::{Contexts, EndpointShape, HubShape, state};
use super::slot::{Listener, Outcome, Owner, Slot, Waiter};
use super::trb::{Trb, code, kind};
use crate::UsbError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::dma::{Direction, Segment};

/// A control request (USB 2.0, 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// What and whom it asks, and which way its data go.
    pub(crate) kind: u8,
    pub(crate) request: u8,
    pub(crate) value: u16,
    pub(crate) index: u16,
    pub(crate) len: u16,
}

impl Setup {
    fn packet(&self) -> [u8; 8] {
        let [v0, v1] = self.value.to_le_bytes();
        let [i0, i1] = self.index.to_le_bytes();
        let [l0, l1] = self.len.to_le_bytes();
        [self.kind, self.request, v0, v1, i0, i1, l0, l1]
    }

    fn is_in(&self) -> bool {
        self.kind & 0x80 != 0
    }
}

impl Controller {
    /// Moves data by an endpoint other than the control one, sleeping until that has
    /// ended; `limit` at most, and the time it takes to stop the endpoint.
    pub(crate) fn transfer(
        &self,
        slot: &Arc<Slot>,
        endpoint: u8,
        memory: Vec<Segment>,
        limit: Duration,
    ) -> Outcome {
        let waiter = Waiter::new();
        match self.submit(slot, endpoint, memory, Owner::Waiter(waiter.clone())) {
            Ok(()) => self.outcome(slot, endpoint, &waiter, limit),
            Err(outcome) => outcome,
        }
    }

    /// Has `listener` hear of what comes by an interrupt endpoint, again and again.
    ///
    /// # Errors
    /// [`UsbError::Gone`].
    pub(crate) fn listen(
        &self,
        slot: &Arc<Slot>,
        endpoint: u8,
        memory: Segment,
        listener: Arc<Listener>,
    ) -> Result<(), UsbError> {
        let memory = Vec::from([memory]);
        let submitted = self.submit(slot, endpoint, memory, Owner::Listener(listener));
        submitted.or_else(|outcome| outcome.result.map(drop))
    }

    /// Gives the controller a transfer of `memory`.
    pub(super) fn submit(
        &self,
        slot: &Arc<Slot>,
        endpoint: u8,
        memory: Vec<Segment>,
        owner: Owner,
    ) -> Result<(), Outcome> {
        let max_packet = slot.endpoint(endpoint).map_or(1, |(e, _)| e.max_packet);
        match self.blocks(&memory, usize::from(max_packet.max(1))) {
            Ok(trbs) => {
                let bell = || self.registers.ring_doorbell(slot.number, endpoint);
                slot.submit(endpoint, &trbs, memory, owner, bell)
            }
            Err(e) => Err(Outcome::refused(memory, e)),
        }
    }

    /// The blocks of a transfer of `memory`.
    fn blocks(&self, memory: &[Segment], max_packet: usize) -> Result<Vec<Trb>, UsbError> {
        let mut trbs = Vec::new();
        trbs.try_reserve_exact(memory.len())
            .map_err(|_| UsbError::NoMemory)?;
        let total: usize = memory.iter().map(Segment::len).sum();
        let packets = total.div_ceil(max_packet);
        let mut before = 0;
        for (n, segment) in memory.iter().enumerate() {
            if segment.is_empty() || segment.len() > 1 << 16 {
                return Err(UsbError::Nonsense("the length of a transfer"));
            }
            self.check_reach(segment.phys() + segment.len() as u64)?;
            before += segment.len();
            // What 4.11.2.4 has in a block: packets of the transfer after it.
            let left = packets - before / max_packet;
            let is_last = n + 1 == memory.len();
            let len = segment.len() as u32;
            trbs.push(Trb::normal(segment.phys(), len, left as u32, is_last));
        }
        Ok(trbs)
    }

    /// Makes a control request; its data are in `memory`.
    pub(crate) fn control(
        &self,
        slot: &Arc<Slot>,
        setup: Setup,
        memory: Option<Segment>,
        limit: Duration,
    ) -> Outcome {
        let way = memory.as_ref().map(|_| setup.is_in());
        let mut trbs = Vec::from([Trb::setup(setup.packet(), way)]);
        if let Some(segment) = &memory {
            let len = u32::from(setup.len);
            trbs.push(Trb::data(segment.phys(), len, setup.is_in()));
        }
        trbs.push(Trb::status(way == Some(true)));
        let is_sound = match &memory {
            Some(s) => {
                let wanted = match s.direction() {
                    Direction::FromDevice => setup.is_in(),
                    Direction::ToDevice => !setup.is_in(),
                };
                wanted && setup.len > 0 && s.len() >= usize::from(setup.len)
            }
            None => setup.len == 0,
        };
        let memory: Vec<_> = memory.into_iter().collect();
        let reach = memory.iter().map(|s| self.check_reach(s.phys() + 0xffff));
        let reach: Result<(), UsbError> = reach.collect();
        if !is_sound || reach.is_err() {
            let why = UsbError::Nonsense("a control request's memory");
            return Outcome::refused(memory, why);
        }
        let waiter = Waiter::new();
        let owner = Owner::Waiter(waiter.clone());
        let bell = || self.registers.ring_doorbell(slot.number, 1);
        match slot.submit(1, &trbs, memory, owner, bell) {
            Ok(()) => self.outcome(slot, 1, &waiter, limit),
            Err(outcome) => outcome,
        }
    }

    /// Sleeps until a transfer has ended. One that does not within `limit` is taken
    /// back from the controller.
    fn outcome(&self, slot: &Arc<Slot>, endpoint: u8, waiter: &Waiter, limit: Duration) -> Outcome {
        let ended = self.wait_for(&waiter.done, limit, || waiter.outcome.lock().take());
        let outcome = ended.unwrap_or_else(|| {
            self.bring_to_rest(slot, endpoint, UsbError::TimedOut);
            // It has ended by now, or does with its slot or with the controller.
            waiter.done.wait(|| waiter.outcome.lock().take())
        });
        if let Err(UsbError::Stalled | UsbError::Transfer(_)) = outcome.result {
            // The controller has halted the endpoint.
            self.bring_to_rest(slot, endpoint, UsbError::Gone);
        }
        outcome
    }

    /// Stops an endpoint whatever it does; what it has under way ends because of
    /// `why`, and the next transfer begins afresh.
    pub(crate) fn bring_to_rest(&self, slot: &Arc<Slot>, endpoint: u8, why: UsbError) {
        match self.try_rest(slot, endpoint) {
            Ok(()) => {
                let ended = slot.give_up(endpoint, why);
                // Who listened hears it, and listens no more.
                let _ = ended.and_then(super::slot::Ended::tell);
            }
            // All has been ended already, or will be by who takes the device away.
            Err(UsbError::Gone) => {}
            Err(e) => {
                log::warn!("usb{}: slot {}: {e}", self.number, slot.number);
                self.fail("an endpoint does not stop");
            }
        }
    }

    fn try_rest(&self, slot: &Arc<Slot>, endpoint: u8) -> Result<(), UsbError> {
        let of = |kind, parameter| {
            let command = Trb::command(kind, parameter, slot.number, endpoint);
            if slot.is_gone() {
                return Err(UsbError::Gone);
            }
            match self.command(command) {
                // It was in another state by then.
                Err(UsbError::Refused(code::CONTEXT_STATE)) => Ok(()),
                other => other.map(drop),
            }
        };
        let state = || slot.contexts.lock().endpoint_state(endpoint);
        if state() == state::RUNNING {
            of(kind::STOP_ENDPOINT, 0)?;
        }
        if state() == state::HALTED {
            of(kind::RESET_ENDPOINT, 0)?;
        }
        let (_, position) = slot.endpoint(endpoint).ok_or(UsbError::Gone)?;
        match state() {
            state::STOPPED | state::ERROR => of(kind::SET_DEQUEUE, position),
            _ => Err(UsbError::Nonsense("the state of an endpoint")),
        }
    }

    /// Gives a device its address; before that only its slot is set up, if wished.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn address(&self, slot: &Arc<Slot>, only_set_up: bool) -> Result<(), UsbError> {
        let (control, position) = slot.endpoint(1).ok_or(UsbError::Gone)?;
        let contexts = slot.contexts.lock();
        contexts.clear();
        contexts.add(0b11);
        contexts.set_slot(&slot.place, 1, None);
        contexts.set_endpoint(&control, position);
        let command = Trb::address(contexts.input(), slot.number, only_set_up);
        self.command(command).map(drop)
    }

    /// Tells the controller how long packets of the control endpoint are.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn set_control_packet(
        &self,
        slot: &Arc<Slot>,
        max_packet: u16,
    ) -> Result<(), UsbError> {
        slot.set_control_packet(max_packet);
        let (control, position) = slot.endpoint(1).ok_or(UsbError::Gone)?;
        let contexts = slot.contexts.lock();
        contexts.clear();
        contexts.add(0b10);
        contexts.set_endpoint(&control, position);
        let input = contexts.input();
        let command = Trb::command(kind::EVALUATE_CONTEXT, input, slot.number, 0);
        self.command(command).map(drop)
    }

    /// Takes further endpoints of a device into use.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn configure(
        &self,
        slot: &Arc<Slot>,
        endpoints: &[EndpointShape],
    ) -> Result<(), UsbError> {
        for endpoint in endpoints {
            self.check_reach(slot.add_endpoint(*endpoint)?)?;
        }
        self.set_endpoints(slot, endpoints, 0)
    }

    /// Tells the controller that a device is a hub; `last` is its highest endpoint.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn set_hub(
        &self,
        slot: &Arc<Slot>,
        last: u8,
        hub: HubShape,
    ) -> Result<(), UsbError> {
        let contexts = slot.contexts.lock();
        contexts.clear();
        contexts.add(1);
        contexts.set_slot(&slot.place, last, Some(hub));
        self.configure_slot(slot, &contexts)
    }

    fn configure_slot(&self, slot: &Slot, contexts: &Contexts) -> Result<(), UsbError> {
        let input = contexts.input();
        let command = Trb::command(kind::CONFIGURE_ENDPOINT, input, slot.number, 0);
        self.command(command).map(drop)
    }

    /// Starts endpoints afresh that have nothing under way, so that their packets are
    /// counted from zero again, as the device does after its halt was cleared.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn renew(
        &self,
        slot: &Arc<Slot>,
        endpoints: &[EndpointShape],
    ) -> Result<(), UsbError> {
        let old = endpoints.iter().fold(0, |all, e| all | 1 << e.index);
        self.set_endpoints(slot, endpoints, old)
    }

    /// Sets these endpoints, the only ones beside the control endpoint; those of `old`,
    /// bit by bit, were there before.
    fn set_endpoints(
        &self,
        slot: &Arc<Slot>,
        endpoints: &[EndpointShape],
        old: u32,
    ) -> Result<(), UsbError> {
        let contexts = slot.contexts.lock();
        contexts.clear();
        let last = endpoints.iter().map(|e| e.index).max().unwrap_or(1);
        let mut add = 1;
        for endpoint in endpoints {
            let (_, position) = slot.endpoint(endpoint.index).ok_or(UsbError::Gone)?;
            contexts.set_endpoint(endpoint, position);
            add |= 1 << endpoint.index;
        }
        contexts.set_slot(&slot.place, last, None);
        contexts.add(add);
        contexts.drop_endpoints(old);
        self.configure_slot(slot, &contexts)
    }
}
