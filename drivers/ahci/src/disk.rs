//! A SATA disk. Transfers are cut into commands, of which several are under way at
//! once; pages are the adapter's own to read and write, nothing is copied.

use crate::command::{PAGES_MAX, TRIM_MAX, Task, trim_ranges};
use crate::hba::Hba;
use crate::health;
use crate::identify::Identity;
use crate::port::Port;
use crate::repair::CHECK;
use crate::slots::{Refused, Ticket};
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::Account;
use machine::addr::PAGE_SIZE;
use machine::block::{self, BlockDevice, BlockError, Health, Observer, Operation, Request, SECTOR};
use machine::bus::Bus;
use machine::frame::Frame;
use smallvec::SmallVec;

/// Commands of one transfer that are under way at once.
const AHEAD: usize = 8;
/// Most blocks of a command of a disk without wide addresses.
const NARROW_MAX: usize = 256;

/// A disk.
pub struct Disk<B: Bus> {
    hba: Arc<Hba<B>>,
    port: usize,
    identity: Identity,
}

/// Commands under way, the oldest first.
type UnderWay = SmallVec<[Arc<Ticket>; AHEAD]>;

impl<B: Bus> Disk<B> {
    pub(crate) fn new(hba: Arc<Hba<B>>, port: usize) -> Option<Disk<B>> {
        let identity = hba.ports.get(port)?.identity.get()?.clone();
        Some(Disk {
            hba,
            port,
            identity,
        })
    }

    /// Its adapter.
    #[must_use]
    pub fn adapter(&self) -> &Hba<B> {
        &self.hba
    }

    fn port(&self) -> Result<&Port, BlockError> {
        self.hba.ports.get(self.port).ok_or(BlockError::Gone)
    }

    fn block(&self, sector: u64) -> u64 {
        sector / (self.identity.block_len / SECTOR) as u64
    }

    /// Pages of a command.
    fn pages_max(&self) -> usize {
        if self.identity.is_wide {
            PAGES_MAX
        } else {
            (NARROW_MAX * self.identity.block_len / PAGE_SIZE).clamp(1, PAGES_MAX)
        }
    }

    /// Gives a command to the disk. While there is no room, what is under way ends
    /// first.
    fn submit(
        &self,
        task: Task,
        frames: &[Frame],
        len: usize,
        request: Request,
        under_way: &mut UnderWay,
    ) -> Result<(), BlockError> {
        if !frames.iter().all(|f| self.hba.reaches(f.phys())) {
            return Err(BlockError::Unsupported);
        }
        let port = self.port()?;
        let ticket = Ticket::new(request);
        loop {
            let given = if under_way.is_empty() {
                port.submit_waiting(task, frames, len, &ticket)
            } else {
                port.submit(task, frames, len, &ticket)
            };
            match given {
                Ok(()) => {
                    under_way.push(ticket);
                    return Ok(());
                }
                Err(Refused::Gone) => return Err(BlockError::Gone),
                Err(Refused::NoMemory) => return Err(BlockError::NoMemory),
                Err(Refused::Busy) => self.wait_oldest(port, under_way)?,
            }
        }
    }

    /// Sleeps until the oldest command under way has ended.
    fn wait_oldest(&self, port: &Port, under_way: &mut UnderWay) -> Result<(), BlockError> {
        port.notify(&self.hba.bus);
        if under_way.is_empty() {
            return Ok(());
        }
        let ticket = under_way.remove(0);
        let event = self.hba.bus.interrupt(0);
        let look = || self.hba.look(Some(port));
        let check = || self.hba.check(port);
        let wake_next = || port.wake_next();
        port.lead
            .wait(&ticket.request, event, CHECK, look, check, wake_next)
    }

    /// Sleeps until all that is under way has ended, after `result`.
    fn wait_all(
        &self,
        mut under_way: UnderWay,
        mut result: Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        let port = self.port()?;
        while !under_way.is_empty() {
            let ended = self.wait_oldest(port, &mut under_way);
            result = result.and(ended);
        }
        result
    }

    /// Moves `len` bytes of `frames` to or from the disk. Nothing of it is under way any
    /// more when this returns.
    fn transfer(
        &self,
        operation: Operation,
        sector: u64,
        frames: &[Frame],
        len: usize,
    ) -> Result<(), BlockError> {
        block::check(self, sector, frames.len(), len)?;
        if operation == Operation::Read && frames.iter().any(Frame::is_fixed) {
            return Err(BlockError::OutOfRange);
        }
        let frames = frames.get(..len.div_ceil(PAGE_SIZE)).unwrap_or_default();
        let mut under_way = UnderWay::new();
        let (mut at, mut left) = (sector, len);
        let mut result = Ok(());
        for part in frames.chunks(self.pages_max()) {
            let bytes = left.min(part.len() * PAGE_SIZE);
            let (block, count) = (self.block(at), (bytes / self.identity.block_len) as u32);
            let task = match operation {
                Operation::Read => Task::Read { block, count },
                _ => Task::Write { block, count },
            };
            if under_way.len() == AHEAD {
                result = self.wait_oldest(self.port()?, &mut under_way);
            }
            let request = Request::new(operation, at);
            result = result.and_then(|()| self.submit(task, part, bytes, request, &mut under_way));
            if result.is_err() {
                break;
            }
            at += (bytes / SECTOR) as u64;
            left -= bytes;
        }
        self.wait_all(under_way, result)
    }

    /// Gives one command and sleeps until it has ended; the address field of the
    /// disk's answer.
    fn execute(
        &self,
        operation: Operation,
        sector: u64,
        task: Task,
        frames: &[Frame],
        len: usize,
    ) -> Result<u32, BlockError> {
        let mut under_way = UnderWay::new();
        let request = Request::new(operation, sector);
        self.submit(task, frames, len, request, &mut under_way)?;
        let ticket = under_way.first().cloned();
        self.wait_all(under_way, Ok(()))?;
        let answer = ticket.map(|t| t.answer.load(core::sync::atomic::Ordering::Relaxed));
        Ok(answer.unwrap_or(0))
    }

    /// Has the disk forget `count` sectors.
    fn discard(&self, sector: u64, count: u64) -> Result<(), BlockError> {
        let per_block = (self.identity.block_len / SECTOR) as u64;
        let page = Frame::zeroed(Account::kernel()).map_err(|_| BlockError::NoMemory)?;
        let (mut at, mut left) = (sector, count);
        while left > 0 {
            let sectors = left.min(TRIM_MAX * per_block);
            let ranges = trim_ranges(self.block(at), sectors / per_block);
            for (n, range) in ranges.iter().enumerate() {
                page.write(8 * n, &range.to_le_bytes());
            }
            let frames = core::slice::from_ref(&page);
            self.execute(Operation::Discard, at, Task::Trim, frames, SECTOR)?;
            at += sectors;
            left -= sectors;
        }
        Ok(())
    }

    /// Writes zeros to `count` sectors: one page of them, again and again.
    fn zero(&self, sector: u64, count: u64) -> Result<(), BlockError> {
        let page = Frame::zeroed(Account::kernel()).map_err(|_| BlockError::NoMemory)?;
        let pages = self.pages_max();
        let mut frames = Vec::new();
        frames
            .try_reserve_exact(pages)
            .map_err(|_| BlockError::NoMemory)?;
        frames.resize(pages, page);
        let (mut at, mut left) = (sector, count);
        while left > 0 {
            let sectors = left.min((pages * PAGE_SIZE / SECTOR) as u64);
            let len = sectors as usize * SECTOR;
            self.transfer(Operation::WriteZeroes, at, &frames, len)?;
            at += sectors;
            left -= sectors;
        }
        Ok(())
    }
}

impl<B: Bus> BlockDevice for Disk<B> {
    fn sectors(&self) -> u64 {
        self.identity.sectors
    }

    fn block_len(&self) -> usize {
        self.identity.block_len
    }

    fn physical_block_len(&self) -> usize {
        self.identity.physical_block_len
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        self.transfer(Operation::Read, sector, frames, len)
    }

    fn write(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        self.transfer(Operation::Write, sector, frames, len)
    }

    fn flush(&self) -> Result<(), BlockError> {
        let unflushed = &self.port()?.unflushed;
        let writes = unflushed.begin();
        self.execute(Operation::Flush, 0, Task::Flush, &[], 0)?;
        unflushed.end(writes)
    }

    fn clear(&self, how: Operation, sector: u64, count: u64) -> Result<(), BlockError> {
        let per_block = (self.identity.block_len / SECTOR) as u64;
        let whole = (sector | count).is_multiple_of(per_block);
        let end = sector.checked_add(count);
        if !(whole && end.is_some_and(|end| end <= self.identity.sectors)) {
            return Err(BlockError::OutOfRange);
        }
        match how {
            Operation::Discard if self.identity.has_trim => self.discard(sector, count),
            Operation::WriteZeroes => self.zero(sector, count),
            _ => Err(BlockError::Unsupported),
        }
    }

    fn observe(&self, observer: Observer) {
        if let Ok(port) = self.port() {
            port.observer.call_once(|| observer);
        }
    }

    fn identity(&self) -> block::Identity {
        block::Identity {
            model: self.identity.model.clone(),
            serial: self.identity.serial.clone(),
            firmware: self.identity.firmware.clone(),
        }
    }

    fn health(&self) -> Result<Health, BlockError> {
        if !self.identity.has_smart {
            return Err(BlockError::Unsupported);
        }
        let page = Frame::zeroed(Account::kernel()).map_err(|_| BlockError::NoMemory)?;
        let frames = core::slice::from_ref(&page);
        self.execute(Operation::Read, 0, Task::SmartData, frames, health::LEN)?;
        let status = self.execute(Operation::Read, 0, Task::SmartStatus, &[], 0)?;
        let mut record = [0; health::LEN];
        page.read(0, &mut record);
        Ok(health::decode(&record, status))
    }
}
