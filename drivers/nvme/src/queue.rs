//! A pair of queues, for submissions and for completions (NVM Express Base 1.4, 4.1).
//!
//! Every entry that the controller may have is a slot, which owns the memory of its
//! request. A completion names its slot and the slot's turn: one that names another
//! turn, an empty slot or another queue shows that the controller is out of its mind.
//! Doorbells are written with the rings locked, so that they never go back.

use crate::command::{COMMAND_LEN, COMPLETION_LEN, Command, Completion, Status, Verdict};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use machine::AllocError;
use machine::block::{BlockError, Lead, Request};
use machine::bus::Bus;
use machine::dma::{Direction, DmaRing, Loan, Reach};
use machine::frame::Frame;
use machine::sync::SpinLock;
use machine::time::Instant;
use machine::wait::WaitQueue;

/// Times a command is given to the controller before it counts as failed.
pub(crate) const TRIES: u32 = 3;
/// Bits of a command's identifier that name its slot; the others count its turns.
const SLOT_BITS: u32 = 7;
/// Most entries of a queue: each slot has a number.
pub(crate) const ENTRIES_MAX: u16 = 1 << SLOT_BITS;

/// A command under way, as those who wait for it and take it back see it.
pub(crate) struct Ticket {
    pub(crate) request: Request,
    /// What the controller gave with the completion.
    pub(crate) result: AtomicU32,
    /// How the controller said that it ended.
    status: AtomicU32,
}

impl Ticket {
    pub(crate) fn new(request: Request) -> Arc<Ticket> {
        Arc::new(Ticket {
            request,
            result: AtomicU32::new(0),
            status: AtomicU32::new(0),
        })
    }

    pub(crate) fn status(&self) -> Status {
        Status(self.status.load(Relaxed) as u16)
    }
}

/// The memory of a command.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    None,
    /// Pages, of which every one but the last is used to its end.
    Pages(&'a [Frame], Direction),
    /// A few words that the controller reads.
    Words([u64; 2]),
}

/// What the controller may have.
struct Slot {
    turn: u16,
    held: Option<Held>,
    /// Memory of the command; with room for the most pages there can be.
    memory: Loan,
    /// The list of its pages, or its words.
    table: DmaRing,
}

struct Held {
    ticket: Arc<Ticket>,
    /// As it was given, but for its identifier.
    command: Command,
}

/// Whether commands are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not now: who has one waits.
    Closed,
    Open,
    /// Never again.
    Gone,
}

struct Rings {
    state: State,
    submissions: DmaRing,
    completions: DmaRing,
    entries: u16,
    /// Where the next command goes.
    tail: u16,
    /// Commands that the controller has not been told of.
    is_untold: bool,
    /// Where the next completion comes.
    head: u16,
    /// Of a completion that is new.
    phase: bool,
    slots: Vec<Slot>,
    free: Vec<u16>,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no slot free now.
    Busy,
    Gone,
    /// There is no memory to let the controller reach the command's.
    NoMemory,
}

/// The controller answered what it was not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misbehaved;

/// A command that was taken back and has failed for good.
pub(crate) struct Failure {
    pub(crate) namespace: u32,
    pub(crate) ticket: Arc<Ticket>,
}

pub(crate) struct Pair {
    pub(crate) id: u16,
    /// The interrupt of its completions.
    pub(crate) vector: usize,
    doorbells: (usize, usize),
    rings: SpinLock<Rings>,
    /// Waits for a free slot.
    room: WaitQueue,
    /// One of those who wait looks after the completions.
    lead: Lead,
}

impl Rings {
    fn new(reach: Reach, entries: u16, pages_max: usize) -> Result<Rings, AllocError> {
        let no_memory = |_| AllocError::OutOfMemory;
        let count = usize::from(entries.saturating_sub(1));
        let list = (pages_max * 8).next_power_of_two().max(64);
        let mut slots = Vec::new();
        slots.try_reserve_exact(count).map_err(no_memory)?;
        for table in DmaRing::many(reach, count, list)? {
            slots.push(Slot {
                turn: 0,
                held: None,
                memory: Loan::new(reach, pages_max)?,
                table,
            });
        }
        let mut free = Vec::new();
        free.try_reserve_exact(count).map_err(no_memory)?;
        free.extend((0..entries.saturating_sub(1)).rev());
        Ok(Rings {
            state: State::Closed,
            submissions: DmaRing::new(reach, usize::from(entries) * COMMAND_LEN)?,
            completions: DmaRing::new(reach, usize::from(entries) * COMPLETION_LEN)?,
            entries,
            tail: 0,
            is_untold: false,
            head: 0,
            phase: true,
            slots,
            free,
        })
    }

    /// Puts a command into the ring. There is room: more entries than slots.
    fn push(&mut self, number: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(number)) else {
            return;
        };
        let Some(held) = &slot.held else { return };
        let command = held.command.with_id(identifier(number, slot.turn));
        let base = usize::from(self.tail) * COMMAND_LEN;
        for (n, word) in command.0.iter().enumerate() {
            self.submissions.write_u32(base + 4 * n, *word);
        }
        self.tail = (self.tail + 1) % self.entries;
        self.is_untold = true;
    }

    /// Fills a free slot and puts its command into the ring.
    fn submit(
        &mut self,
        command: Command,
        payload: Payload<'_>,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Refused> {
        match self.state {
            State::Open => {}
            State::Closed => return Err(Refused::Busy),
            State::Gone => return Err(Refused::Gone),
        }
        let number = self.free.pop().ok_or(Refused::Busy)?;
        let slot = self.slots.get_mut(usize::from(number));
        let slot = slot.ok_or(Refused::Busy)?;
        let command = match payload {
            Payload::None => command,
            Payload::Pages(frames, direction) => {
                if slot.memory.lend(frames, direction).is_err() {
                    self.free.push(number);
                    return Err(Refused::NoMemory);
                }
                slot.describe(command, frames)
            }
            Payload::Words(words) => {
                for (n, word) in words.iter().enumerate() {
                    slot.table.write_u64(8 * n, *word);
                }
                command.with_data(slot.table.phys(), 0)
            }
        };
        slot.held = Some(Held {
            ticket: ticket.clone(),
            command,
        });
        self.push(number);
        Ok(())
    }

    /// The next completion that is new.
    fn next(&mut self) -> Option<Completion> {
        let base = usize::from(self.head) * COMPLETION_LEN;
        // The word with the phase is written last and must be read first.
        let word_3 = self.completions.read_u32(base + 12);
        if (word_3 >> 16 & 1 != 0) != self.phase {
            return None;
        }
        let word_2 = self.completions.read_u32(base + 8);
        let result = self.completions.read_u32(base);
        self.head += 1;
        if self.head == self.entries {
            self.head = 0;
            self.phase = !self.phase;
        }
        Some(Completion::decode(result, word_2, word_3))
    }

    /// Takes out what a completion names.
    fn take(&mut self, queue: u16, done: &Completion) -> Result<(u16, Held), Misbehaved> {
        let (number, turn) = (done.id & (ENTRIES_MAX - 1), done.id >> SLOT_BITS);
        let slot = self.slots.get_mut(usize::from(number)).ok_or(Misbehaved)?;
        if done.queue != queue || done.head >= self.entries || turn != slot.turn {
            return Err(Misbehaved);
        }
        let held = slot.held.take().ok_or(Misbehaved)?;
        slot.next_turn();
        Ok((number, held))
    }

    /// The controller is done with slot `number`.
    fn release(&mut self, number: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(number)) {
            slot.memory.end();
        }
        self.free.push(number);
    }
}

impl Slot {
    /// Puts the addresses of the frames into the command (4.3).
    fn describe(&mut self, command: Command, frames: &[Frame]) -> Command {
        let phys = |n: usize| frames.get(n).map_or(0, Frame::phys);
        if frames.len() <= 2 {
            return command.with_data(phys(0), phys(1));
        }
        for (n, frame) in frames.iter().skip(1).enumerate() {
            self.table.write_u64(8 * n, frame.phys());
        }
        command.with_data(phys(0), self.table.phys())
    }

    fn next_turn(&mut self) {
        self.turn = (self.turn + 1) & (u16::MAX >> SLOT_BITS);
    }
}

fn identifier(slot: u16, turn: u16) -> u16 {
    slot | turn << SLOT_BITS
}

impl Pair {
    pub(crate) fn new(
        id: u16,
        vector: usize,
        doorbells: (usize, usize),
        entries: u16,
        pages_max: usize,
        reach: Reach,
    ) -> Result<Pair, AllocError> {
        Ok(Pair {
            id,
            vector,
            doorbells,
            rings: SpinLock::new(Rings::new(reach, entries, pages_max)?),
            room: WaitQueue::new(),
            lead: Lead::new(),
        })
    }

    /// Addresses of submission and completion queue, and their entries.
    pub(crate) fn place(&self) -> (u64, u64, u16) {
        let rings = self.rings.lock();
        (
            rings.submissions.phys(),
            rings.completions.phys(),
            rings.entries,
        )
    }

    /// Gives a command to the controller, which does not look before
    /// [`Pair::notify`].
    pub(crate) fn submit(
        &self,
        command: Command,
        payload: Payload<'_>,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Refused> {
        self.rings.lock().submit(command, payload, ticket)
    }

    /// As [`Pair::submit`], but sleeps until there is a slot. Only for who has no
    /// command under way: those who have must look after it first.
    pub(crate) fn submit_waiting(
        &self,
        command: Command,
        payload: Payload<'_>,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Refused> {
        self.room
            .wait(|| match self.submit(command, payload, ticket) {
                Err(Refused::Busy) => None,
                other => Some(other),
            })
    }

    /// Tells the controller of new commands.
    pub(crate) fn notify(&self, bus: &impl Bus) {
        let mut rings = self.rings.lock();
        if core::mem::take(&mut rings.is_untold) {
            bus.write_u32(self.doorbells.0, u32::from(rings.tail));
        }
    }

    /// Takes back what is finished, and gives once more what is worth it; what failed
    /// is added to `failures`. A pair whose controller misbehaves is closed.
    pub(crate) fn reap(
        &self,
        bus: &impl Bus,
        failures: &mut Vec<Failure>,
    ) -> Result<(), Misbehaved> {
        let mut any = false;
        let result = loop {
            let mut rings = self.rings.lock();
            if rings.state != State::Open {
                break Ok(());
            }
            let Some(done) = rings.next() else {
                if any {
                    bus.write_u32(self.doorbells.1, u32::from(rings.head));
                }
                break Ok(());
            };
            any = true;
            let (number, held) = match rings.take(self.id, &done) {
                Ok(taken) => taken,
                Err(e) => {
                    rings.state = State::Closed;
                    break Err(e);
                }
            };
            let ticket = held.ticket.clone();
            let verdict = done.status.verdict();
            if verdict == Verdict::Again && ticket.request.count_try() < TRIES {
                if let Some(slot) = rings.slots.get_mut(usize::from(number)) {
                    slot.held = Some(held);
                }
                rings.push(number);
                continue;
            }
            rings.release(number);
            drop(rings);
            let answer = match verdict {
                Verdict::Done => Ok(()),
                Verdict::Again => Err(BlockError::TimedOut),
                Verdict::Failed(e) => Err(e),
            };
            ticket.result.store(done.result, Relaxed);
            ticket.status.store(done.status.0.into(), Relaxed);
            if answer == Err(BlockError::Failed) {
                failures.push(Failure {
                    namespace: held.command.namespace(),
                    ticket: ticket.clone(),
                });
            }
            ticket.request.finish(answer);
        };
        if any {
            self.notify(bus);
            self.room.wake_all();
        }
        result
    }

    /// Sleeps until `ticket` has ended. Whoever has to lead meanwhile calls `look` at
    /// each interrupt and `check` when none came for `pause`.
    pub(crate) fn wait(
        &self,
        bus: &impl Bus,
        ticket: &Ticket,
        pause: Duration,
        look: impl FnMut(),
        check: impl FnMut(),
    ) -> Result<(), BlockError> {
        let event = bus.interrupt(self.vector);
        let wake_next = || self.wake_next();
        self.lead
            .wait(&ticket.request, event, pause, look, check, wake_next)
    }

    /// Has one of those who wait look whether to lead.
    fn wake_next(&self) {
        let held = |at: usize| {
            let rings = self.rings.lock();
            let slot = rings.slots.get(at);
            slot.map(|s| s.held.as_ref().map(|h| h.ticket.clone()))
        };
        let mut at = 0;
        while let Some(ticket) = held(at) {
            if ticket.is_some_and(|t| t.request.wake()) {
                return;
            }
            at += 1;
        }
    }

    /// When the oldest command under way was given to the controller, and its
    /// identifier.
    pub(crate) fn oldest(&self) -> Option<(Instant, u16)> {
        let rings = self.rings.lock();
        let under_way = (0u16..).zip(&rings.slots).filter_map(|(number, slot)| {
            let held = slot.held.as_ref()?;
            Some((held.ticket.request.since(), identifier(number, slot.turn)))
        });
        under_way.min()
    }

    /// Whether it takes commands.
    pub(crate) fn is_open(&self) -> bool {
        self.rings.lock().state == State::Open
    }

    /// Takes no commands from here on, and no completions.
    pub(crate) fn close(&self) {
        self.rings.lock().state = State::Closed;
    }

    /// Empties the rings of a controller that is disabled; what it had stays in the
    /// slots.
    pub(crate) fn clear(&self) {
        let mut rings = self.rings.lock();
        for at in (0..rings.completions.len()).step_by(4) {
            rings.completions.write_u32(at, 0);
        }
        (rings.tail, rings.head, rings.phase) = (0, 0, true);
        rings.is_untold = false;
        // Whatever the controller still says of a command of before is wrong.
        for slot in &mut rings.slots {
            slot.next_turn();
        }
    }

    /// Takes commands, and gives once more what the controller had. What it had too
    /// often fails.
    pub(crate) fn open(&self, bus: &impl Bus) {
        let mut failed = Vec::new();
        let mut rings = self.rings.lock();
        rings.state = State::Open;
        for number in 0..rings.entries.saturating_sub(1) {
            let slot = rings.slots.get_mut(usize::from(number));
            let Some(slot) = slot.filter(|s| s.held.is_some()) else {
                continue;
            };
            let is_over = |h: &mut Held| h.ticket.request.count_try() >= TRIES;
            match slot.held.take_if(is_over) {
                Some(held) => {
                    rings.release(number);
                    failed.push(held);
                }
                None => rings.push(number),
            }
        }
        drop(rings);
        self.notify(bus);
        for held in failed {
            held.ticket.request.finish(Err(BlockError::TimedOut));
        }
        self.wake(bus);
    }

    /// Ends everything under way, with `state` from here on. The controller must not
    /// reach memory any more.
    pub(crate) fn end(&self, bus: &impl Bus, state: State, why: BlockError) {
        let mut ended = Vec::new();
        let mut rings = self.rings.lock();
        rings.state = state;
        for number in 0..rings.entries.saturating_sub(1) {
            let slot = rings.slots.get_mut(usize::from(number));
            if let Some(held) = slot.and_then(|s| s.held.take()) {
                rings.release(number);
                ended.push(held);
            }
        }
        drop(rings);
        for held in ended {
            held.ticket.request.finish(Err(why));
        }
        self.wake(bus);
    }

    /// Has everyone look again who waits for a slot, or leads.
    pub(crate) fn wake(&self, bus: &impl Bus) {
        self.room.wake_all();
        bus.interrupt(self.vector).raise();
    }
}
