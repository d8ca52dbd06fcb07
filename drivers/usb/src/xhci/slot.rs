//! A slot: the controller's side of one device, its endpoints and their transfers.

use super::context::{Contexts, EndpointShape, Kind, Place};
use super::ring::{Ring, TRANSFER_MAX};
use super::trb::{Trb, code};
use crate::UsbError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::dma::{Reach, Segment};
use machine::sync::{Mutex, SpinLock};
use machine::wait::WaitQueue;

/// Endpoints a device context has room for, counted by their place in it.
const PLACES: usize = 32;

/// How a transfer ended, and the memory it was about.
pub(crate) struct Outcome {
    /// Bytes that were moved.
    pub(crate) result: Result<usize, UsbError>,
    /// Bytes that were moved before it went wrong, where the controller says so.
    pub(crate) before: usize,
    pub(crate) memory: Vec<Segment>,
}

impl Outcome {
    /// Of a transfer that never was with the controller.
    pub(crate) fn refused(mut memory: Vec<Segment>, why: UsbError) -> Outcome {
        Segment::take_back(&mut memory);
        Outcome {
            result: Err(why),
            before: 0,
            memory,
        }
    }
}

/// Somebody who sleeps until a transfer has ended.
pub(crate) struct Waiter {
    pub(crate) outcome: SpinLock<Option<Outcome>>,
    pub(crate) done: WaitQueue,
}

impl Waiter {
    pub(crate) fn new() -> Arc<Waiter> {
        Arc::new(Waiter {
            outcome: SpinLock::new(None),
            done: WaitQueue::new(),
        })
    }
}

/// Hears of each transfer of an interrupt endpoint, on the controller's thread. It
/// must not wait, and gives the memory back for the next transfer, or not.
pub(crate) type Listener = dyn Fn(Outcome) -> Option<Vec<Segment>> + Send + Sync;

/// Who is told of a transfer's end.
#[derive(Clone)]
pub(crate) enum Owner {
    Waiter(Arc<Waiter>),
    Listener(Arc<Listener>),
}

/// A transfer the controller has.
struct Pending {
    /// Place in the ring and length of each block.
    blocks: Vec<(usize, usize)>,
    /// What moved before the last block, where that is known.
    moved: Option<usize>,
    memory: Vec<Segment>,
    owner: Owner,
}

struct Endpoint {
    shape: EndpointShape,
    ring: Ring,
    /// One at a time.
    pending: Option<Pending>,
}

struct Inner {
    is_gone: bool,
    endpoints: Vec<Option<Endpoint>>,
}

/// A slot in use.
pub(crate) struct Slot {
    pub(crate) number: u8,
    pub(crate) place: Place,
    /// Held while a command about the slot's contexts is under way.
    pub(crate) contexts: Mutex<Contexts>,
    /// Of the controller.
    reach: Reach,
    inner: SpinLock<Inner>,
}

/// A transfer that has ended, on its way to its owner.
pub(crate) struct Ended {
    owner: Owner,
    outcome: Outcome,
}

impl Ended {
    /// Tells the owner; gives the memory that a listener wants filled again.
    pub(crate) fn tell(self) -> Option<(Arc<Listener>, Vec<Segment>)> {
        match self.owner {
            Owner::Waiter(waiter) => {
                *waiter.outcome.lock() = Some(self.outcome);
                waiter.done.wake_all();
                None
            }
            Owner::Listener(listener) => {
                let memory = listener(self.outcome)?;
                Some((listener, memory))
            }
        }
    }
}

impl Pending {
    /// The controller is done with it, and does not reach its memory any more.
    fn end(mut self, result: Result<usize, UsbError>, before: usize) -> Ended {
        Segment::take_back(&mut self.memory);
        Ended {
            owner: self.owner,
            outcome: Outcome {
                result,
                before,
                memory: self.memory,
            },
        }
    }

    /// Bytes moved when `residue` of block `at` were not.
    fn moved(&self, at: usize, residue: usize) -> Option<usize> {
        let before: usize = self.blocks.iter().take(at).map(|b| b.1).sum();
        let here = self.blocks.get(at)?.1.checked_sub(residue)?;
        Some(before + here)
    }
}

/// What an event says about a transfer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) address: u64,
    pub(crate) code: u8,
    pub(crate) residue: usize,
}

impl Endpoint {
    /// Ends the transfer that an event is about. Events about nothing under way are
    /// none of our business: some controllers report twice on a short transfer.
    fn take(&mut self, report: Report) -> Option<Ended> {
        let index = self.ring.index_of(report.address)?;
        let pending = self.pending.as_mut()?;
        let at = pending.blocks.iter().position(|b| b.0 == index)?;
        let is_last = at + 1 == pending.blocks.len();
        let result = match report.code {
            code::STOPPED..=code::STOPPED_SHORT => return None,
            code::SHORT_PACKET if self.shape.kind == Kind::Control && !is_last => {
                // The status stage follows.
                pending.moved = pending.moved(at, report.residue);
                return None;
            }
            code::SHORT_PACKET => pending.moved(at, report.residue),
            code::SUCCESS if !is_last => return None,
            code::SUCCESS => pending.moved.or_else(|| pending.moved(at, report.residue)),
            code => {
                let why = match code {
                    code::STALL => UsbError::Stalled,
                    code => UsbError::Transfer(code),
                };
                let before = pending.moved(at, report.residue).unwrap_or(0);
                return self.pending.take().map(|p| p.end(Err(why), before));
            }
        };
        let result = result.ok_or(UsbError::Nonsense("more left than there was"));
        self.pending.take().map(|p| p.end(result, 0))
    }
}

impl Slot {
    pub(crate) fn new(number: u8, place: Place, contexts: Contexts, reach: Reach) -> Slot {
        Slot {
            number,
            place,
            contexts: Mutex::new(contexts),
            reach,
            inner: SpinLock::new(Inner {
                is_gone: false,
                endpoints: (0..PLACES).map(|_| None).collect(),
            }),
        }
    }

    /// Whether the device has been taken away: nothing works any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.inner.lock().is_gone
    }

    /// Takes an endpoint in; where its ring begins.
    pub(crate) fn add_endpoint(&self, shape: EndpointShape) -> Result<u64, UsbError> {
        let ring = Ring::new(self.reach).map_err(|_| UsbError::NoMemory)?;
        let position = ring.position();
        let mut inner = self.inner.lock();
        let place = inner.endpoints.get_mut(usize::from(shape.index));
        let place = place.ok_or(UsbError::Nonsense("endpoint number"))?;
        if place.is_some() {
            return Err(UsbError::Nonsense("an endpoint twice"));
        }
        *place = Some(Endpoint {
            shape,
            ring,
            pending: None,
        });
        Ok(position)
    }

    /// Bytes of a packet of the control endpoint changed.
    pub(crate) fn set_control_packet(&self, max_packet: u16) {
        if let Some(Some(control)) = self.inner.lock().endpoints.get_mut(1) {
            control.shape.max_packet = max_packet;
        }
    }

    /// The endpoint's description, and where the controller shall go on in its ring.
    pub(crate) fn endpoint(&self, index: u8) -> Option<(EndpointShape, u64)> {
        let inner = self.inner.lock();
        let endpoint = inner.endpoints.get(usize::from(index))?.as_ref()?;
        Some((endpoint.shape, endpoint.ring.position()))
    }

    /// Gives a transfer of these blocks to the controller. `doorbell` is called while
    /// no other can come in between.
    pub(crate) fn submit(
        &self,
        index: u8,
        trbs: &[Trb],
        mut memory: Vec<Segment>,
        owner: Owner,
        doorbell: impl FnOnce(),
    ) -> Result<(), Outcome> {
        let refused = |memory, why| Err(Outcome::refused(memory, why));
        if trbs.is_empty() || trbs.len() > TRANSFER_MAX {
            return refused(memory, UsbError::Nonsense("the length of a transfer"));
        }
        let mut blocks = Vec::new();
        let has_room = blocks.try_reserve_exact(trbs.len()).is_ok();
        if !has_room || Segment::lend(&mut memory, self.reach).is_err() {
            return refused(memory, UsbError::NoMemory);
        }
        let mut inner = self.inner.lock();
        let is_gone = inner.is_gone;
        let endpoint = inner.endpoints.get_mut(usize::from(index));
        let Some(endpoint) = endpoint.and_then(Option::as_mut).filter(|_| !is_gone) else {
            return refused(memory, UsbError::Gone);
        };
        if endpoint.pending.is_some() {
            return refused(memory, UsbError::Nonsense("two transfers at once"));
        }
        let mut lens = trbs.iter().map(Trb::data_len);
        endpoint
            .ring
            .push(trbs, |place| blocks.push((place, lens.next().unwrap_or(0))));
        endpoint.pending = Some(Pending {
            blocks,
            moved: None,
            memory,
            owner,
        });
        doorbell();
        Ok(())
    }

    /// An event about a transfer of this slot.
    pub(crate) fn report(&self, index: u8, report: Report) -> Option<Ended> {
        let mut inner = self.inner.lock();
        let endpoint = inner.endpoints.get_mut(usize::from(index));
        endpoint.and_then(Option::as_mut)?.take(report)
    }

    /// Ends whatever an endpoint has under way; the controller does not have it any
    /// more.
    pub(crate) fn give_up(&self, index: u8, why: UsbError) -> Option<Ended> {
        let mut inner = self.inner.lock();
        let endpoint = inner.endpoints.get_mut(usize::from(index))?.as_mut()?;
        endpoint.pending.take().map(|p| p.end(Err(why), 0))
    }

    /// From now on nothing is given to the controller.
    pub(crate) fn set_gone(&self) {
        self.inner.lock().is_gone = true;
    }

    /// Ends all that is under way.
    pub(crate) fn give_up_all(&self) {
        for index in 0..PLACES as u8 {
            if let Some(ended) = self.give_up(index, UsbError::Gone) {
                // A listener wants no more of a device that is gone.
                let _ = ended.tell();
            }
        }
    }
}
