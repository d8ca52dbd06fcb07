//! Having a unit forget what it remembers of tables (Intel VT-d specification 4.1, 6.5):
//! by a queue in memory, or by registers where there is no queue. Who asks waits until it
//! is done: memory is not used again before.

use super::registers::{
    Abilities, CONTEXT_COMMAND, FAULT_STATUS, QUEUE_ADDRESS, QUEUE_TAIL, Registers, fault,
};
use crate::dma::{DmaRing, Reach};
use crate::error::AllocError;
use crate::time::Instant;
use core::time::Duration;

/// The unit does not do what it is told. Whatever it was to forget stays reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck;

/// What is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forget {
    /// All entries of devices.
    Contexts,
    /// All pages.
    AllPages,
    /// All pages of a domain.
    Domain(u16),
    /// One page (address / page size) of a domain.
    Page(u16, u64),
}

/// A unit that takes longer is out of order.
const LIMIT: Duration = Duration::from_secs(1);

/// Waits until `done`.
pub(super) fn wait(mut done: impl FnMut() -> bool) -> Result<(), Stuck> {
    if done() {
        return Ok(());
    }
    let limit = Instant::now().after(LIMIT);
    while !done() {
        if Instant::now() >= limit {
            return Err(Stuck);
        }
        core::hint::spin_loop();
    }
    Ok(())
}

/// How a unit is told.
#[derive(Debug)]
pub(super) struct Invalidator {
    abilities: Abilities,
    queue: Option<Queue>,
    is_stuck: bool,
}

/// The invalidation queue (6.5.2): empty whenever nobody waits.
#[derive(Debug)]
struct Queue {
    ring: DmaRing,
    /// Where the unit writes what it was told to when it comes to a wait descriptor.
    answer: DmaRing,
    tail: usize,
    turn: u32,
}

const QUEUE_BYTES: usize = 4096;
const DESCRIPTOR_BYTES: usize = 16;

/// Kinds of descriptors (6.5.2).
const CONTEXT: u64 = 1;
const IOTLB: u64 = 2;
const WAIT: u64 = 5;

impl Invalidator {
    /// Has a queue if the unit has; it is to be turned on then.
    pub(super) fn new(abilities: Abilities) -> Result<Invalidator, AllocError> {
        let queue = || {
            Ok(Queue {
                ring: DmaRing::new(Reach::ALL, QUEUE_BYTES)?,
                answer: DmaRing::new(Reach::ALL, 64)?,
                tail: 0,
                turn: 0,
            })
        };
        Ok(Invalidator {
            abilities,
            queue: abilities.has_queue().then(queue).transpose()?,
            is_stuck: false,
        })
    }

    /// Tells the unit where the queue is; whether there is one.
    pub(super) fn place(&self, registers: &dyn Registers) -> bool {
        if let Some(queue) = &self.queue {
            registers.write_u64(QUEUE_TAIL, 0);
            // One page of descriptors of 16 bytes.
            registers.write_u64(QUEUE_ADDRESS, queue.ring.phys());
        }
        self.queue.is_some()
    }

    /// Has all of `what` forgotten (at most 64), and waits until it is.
    ///
    /// # Errors
    /// [`Stuck`], from the first time on at once.
    pub(super) fn run(&mut self, registers: &dyn Registers, what: &[Forget]) -> Result<(), Stuck> {
        if self.is_stuck {
            return Err(Stuck);
        }
        let done = match &mut self.queue {
            Some(queue) => queue.run(registers, self.abilities, what),
            None => what
                .iter()
                .try_for_each(|w| by_registers(registers, self.abilities, *w)),
        };
        if done.is_err() {
            self.is_stuck = true;
            log::error!("the IOMMU does not forget what it is told to: memory is lost");
        }
        done
    }
}

impl Queue {
    fn push(&mut self, low: u64, high: u64) {
        self.ring.write_u64(self.tail, low);
        self.ring.write_u64(self.tail + 8, high);
        self.tail = (self.tail + DESCRIPTOR_BYTES) % QUEUE_BYTES;
    }

    fn run(
        &mut self,
        registers: &dyn Registers,
        abilities: Abilities,
        what: &[Forget],
    ) -> Result<(), Stuck> {
        let (writes, reads) = abilities.drains();
        let drain = u64::from(writes) << 6 | u64::from(reads) << 7;
        for what in what {
            match *what {
                Forget::Contexts => self.push(CONTEXT | 1 << 4, 0),
                Forget::AllPages => self.push(IOTLB | 1 << 4 | drain, 0),
                Forget::Domain(id) => self.push(IOTLB | 2 << 4 | drain | u64::from(id) << 16, 0),
                Forget::Page(id, page) => {
                    self.push(IOTLB | 3 << 4 | drain | u64::from(id) << 16, page << 12);
                }
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let status = u64::from(self.turn) << 32;
        self.push(WAIT | 1 << 5 | status, self.answer.phys());
        registers.write_u64(QUEUE_TAIL, self.tail as u64);
        let is_answered = || self.answer.read_u32(0) == self.turn;
        wait(|| is_answered() || registers.read_u32(FAULT_STATUS) & fault::QUEUE != 0)?;
        is_answered().then_some(()).ok_or(Stuck)
    }
}

/// Busy, in the top bit of both registers (11.4.6, 11.4.8.1).
const BUSY: u64 = 1 << 63;

fn by_registers(
    registers: &dyn Registers,
    abilities: Abilities,
    what: Forget,
) -> Result<(), Stuck> {
    let (writes, reads) = abilities.drains();
    let drain = u64::from(writes) << 48 | u64::from(reads) << 49;
    let place = abilities.iotlb_registers();
    let (register, command) = match what {
        Forget::Contexts => (CONTEXT_COMMAND, 1 << 61),
        Forget::AllPages => (place + 8, 1 << 60 | drain),
        Forget::Domain(id) => (place + 8, 2 << 60 | drain | u64::from(id) << 32),
        Forget::Page(id, page) => {
            registers.write_u64(place, page << 12);
            (place + 8, 3 << 60 | drain | u64::from(id) << 32)
        }
    };
    registers.write_u64(register, BUSY | command);
    wait(|| registers.read_u64(register) & BUSY == 0)
}
