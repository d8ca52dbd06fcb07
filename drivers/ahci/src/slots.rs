//! Commands of a port: the list that the adapter reads, and the memory of each.

use crate::command::{
    Dialect, ENTRY_LEN, FRAME_LEN, HEADER_LEN, PAGES_MAX, TABLE_LEN, TABLE_MEMORY, Task, entry,
    header,
};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use machine::AllocError;
use machine::addr::PAGE_SIZE;
use machine::block::Request;
use machine::dma::{Direction, DmaRing, Loan, Reach};
use machine::frame::Frame;

/// Commands of a port.
pub(crate) const SLOTS: usize = 32;
/// Bytes of the list and of the place for answers.
const LIST_LEN: usize = SLOTS * HEADER_LEN;
const ANSWERS_LEN: usize = 256;
/// Where an answer's address field lies there (AHCI 4.2.1).
const ANSWER_ADDRESS: usize = 0x44;

/// A command under way, as those who wait for it and take it back see it.
pub(crate) struct Ticket {
    pub(crate) request: Request,
    /// The address field of the disk's answer.
    pub(crate) answer: AtomicU32,
}

impl Ticket {
    pub(crate) fn new(request: Request) -> Arc<Ticket> {
        Arc::new(Ticket {
            request,
            answer: AtomicU32::new(0),
        })
    }
}

/// What the adapter has in a slot.
pub(crate) struct Held {
    pub(crate) ticket: Arc<Ticket>,
    pub(crate) task: Task,
}

struct Slot {
    held: Option<Held>,
    /// Memory of the command; with room for the most pages there can be.
    memory: Loan,
    entries: usize,
    table: DmaRing,
}

/// Whether commands are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not now: who has one waits.
    Closed,
    Open,
    /// There is no disk; it may come back.
    Pulled,
    /// Never again.
    Gone,
}

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Busy,
    Gone,
    /// There is no memory to let the adapter reach the command's.
    NoMemory,
}

/// The commands of a port.
pub(crate) struct Slots {
    pub(crate) state: State,
    pub(crate) dialect: Dialect,
    /// Commands at once that the disk queues; 0 if it does not.
    pub(crate) depth: u32,
    list: DmaRing,
    answers: DmaRing,
    /// For commands of the driver's own, while the port is closed.
    own_table: DmaRing,
    own_memory: Loan,
    slots: Vec<Slot>,
    /// Slots that hold a command.
    pub(crate) held: u32,
    /// Those of them that the adapter has not been told of.
    pub(crate) untold: u32,
    /// What the adapter has was not queued.
    pub(crate) is_alone: bool,
}

impl Slots {
    pub(crate) fn new(reach: Reach) -> Result<Slots, AllocError> {
        let no_memory = |_| AllocError::OutOfMemory;
        let mut slots = Vec::new();
        slots.try_reserve_exact(SLOTS).map_err(no_memory)?;
        for table in DmaRing::many(reach, SLOTS, TABLE_LEN)? {
            slots.push(Slot {
                held: None,
                memory: Loan::new(reach, PAGES_MAX)?,
                entries: 0,
                table,
            });
        }
        Ok(Slots {
            state: State::Closed,
            dialect: Dialect { is_wide: false },
            depth: 0,
            list: DmaRing::new(reach, LIST_LEN)?,
            answers: DmaRing::new(reach, ANSWERS_LEN)?,
            own_table: DmaRing::new(reach, TABLE_LEN)?,
            own_memory: Loan::new(reach, 1)?,
            slots,
            held: 0,
            untold: 0,
            is_alone: false,
        })
    }

    /// Addresses of the list and of the place for answers.
    pub(crate) fn place(&self) -> (u64, u64) {
        (self.list.phys(), self.answers.phys())
    }

    /// The address field of the last answer to a command that was not queued.
    pub(crate) fn answer(&self) -> u32 {
        self.answers.read_u32(ANSWER_ADDRESS) & 0xff_ffff
    }

    /// Puts a command with its memory into a free slot.
    pub(crate) fn submit(
        &mut self,
        task: Task,
        frames: &[Frame],
        len: usize,
        is_yielding: bool,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Refused> {
        match self.state {
            State::Open => {}
            State::Closed => return Err(Refused::Busy),
            State::Pulled | State::Gone => return Err(Refused::Gone),
        }
        let is_queued = self.depth > 0 && task.is_transfer();
        // Queued commands and others do not mix; others come one by one.
        let mixes = if is_queued {
            self.is_alone || is_yielding
        } else {
            self.held != 0
        };
        let number = self.held.trailing_ones();
        if mixes || number >= if is_queued { self.depth } else { 1 } {
            return Err(Refused::Busy);
        }
        let slot = self.slots.get_mut(number as usize).ok_or(Refused::Busy)?;
        let lent = slot.memory.lend(frames, direction(task));
        lent.map_err(|_| Refused::NoMemory)?;
        slot.describe(frames, len);
        slot.held = Some(Held {
            ticket: ticket.clone(),
            task,
        });
        self.held |= 1 << number;
        self.is_alone = !is_queued;
        self.push(number);
        Ok(())
    }

    /// Writes the command of a slot into the list.
    pub(crate) fn push(&mut self, number: u32) {
        let Some(slot) = self.slots.get(number as usize) else {
            return;
        };
        let Some(held) = &slot.held else { return };
        let tag = (!self.is_alone).then_some(number as u8);
        let frame = held.task.frame(self.dialect, tag);
        write_frame(&slot.table, &frame);
        let word = header(held.task, slot.entries);
        write_header(&self.list, number, word, slot.table.phys());
        self.untold |= 1 << number;
    }

    /// Writes a command of the driver's own as number 0, with one page of memory; the
    /// port is closed and stopped meanwhile.
    pub(crate) fn push_own(
        &mut self,
        task: Task,
        page: &Frame,
        len: usize,
    ) -> Result<(), AllocError> {
        let pages = core::slice::from_ref(page);
        self.own_memory.lend(pages, direction(task))?;
        write_frame(&self.own_table, &task.frame(self.dialect, None));
        write_entry(&self.own_table, 0, page.phys(), len);
        let word = header(task, usize::from(len > 0));
        write_header(&self.list, 0, word, self.own_table.phys());
        Ok(())
    }

    /// That command is done, or the adapter kept from memory.
    pub(crate) fn end_own(&mut self) {
        self.own_memory.end();
    }

    /// Takes the command of a slot out.
    pub(crate) fn take(&mut self, number: u32) -> Option<Held> {
        let slot = self.slots.get_mut(number as usize)?;
        let held = slot.held.take()?;
        slot.memory.end();
        self.held &= !(1 << number);
        self.untold &= !(1 << number);
        if self.held == 0 {
            self.is_alone = false;
        }
        Some(held)
    }

    /// The command in a slot.
    pub(crate) fn held_in(&self, number: u32) -> Option<&Held> {
        self.slots.get(number as usize)?.held.as_ref()
    }

    /// The slots of a mask.
    pub(crate) fn numbers(mask: u32) -> impl Iterator<Item = u32> {
        (0..SLOTS as u32).filter(move |n| mask >> n & 1 != 0)
    }
}

impl Slot {
    /// Lists `len` bytes of the frames.
    fn describe(&mut self, frames: &[Frame], len: usize) {
        self.entries = frames.len();
        let mut left = len;
        for (n, frame) in frames.iter().enumerate() {
            let bytes = left.min(PAGE_SIZE);
            write_entry(&self.table, n, frame.phys(), bytes);
            left -= bytes;
        }
    }
}

fn direction(task: Task) -> Direction {
    if task.is_write() {
        Direction::ToDevice
    } else {
        Direction::FromDevice
    }
}

fn write_frame(table: &DmaRing, frame: &[u8; FRAME_LEN]) {
    for (n, word) in frame.chunks_exact(4).enumerate() {
        let bytes = word.first_chunk().copied().unwrap_or_default();
        table.write_u32(4 * n, u32::from_le_bytes(bytes));
    }
}

fn write_entry(table: &DmaRing, n: usize, phys: u64, len: usize) {
    let at = TABLE_MEMORY + n * ENTRY_LEN;
    for (i, word) in entry(phys, len).iter().enumerate() {
        table.write_u32(at + 4 * i, *word);
    }
}

fn write_header(list: &DmaRing, number: u32, word: u32, table: u64) {
    let at = number as usize * HEADER_LEN;
    list.write_u32(at, word);
    list.write_u32(at + 4, 0);
    list.write_u64(at + 8, table);
}
