//! A namespace: the disk that a controller shows. Transfers are cut into commands, of
//! which several are under way at once; pages are the controller's own to read and
//! write, nothing is copied.

use crate::command::{self, Command};
use crate::controller::{Nvme, call};
use crate::identify::Shape;
use crate::queue::{Pair, Payload, Refused, Ticket};
use crate::serve::CHECK;
use alloc::sync::Arc;
use machine::addr::PAGE_SIZE;
use machine::block::{
    self, BlockDevice, BlockError, Health, Identity, Observer, Operation, Request, SECTOR, Trouble,
};
use machine::bus::Bus;
use machine::dma::Direction;
use machine::frame::Frame;
use machine::sync::Once;
use smallvec::SmallVec;

/// Commands of one transfer that are under way at once.
const AHEAD: usize = 16;
/// Most blocks of a command: what its sixteen bits can say.
const BLOCKS_MAX: u64 = 1 << 16;

/// A namespace of a controller.
pub struct Namespace<B: Bus> {
    nvme: Arc<Nvme<B>>,
    shape: Shape,
    observer: Once<Observer>,
}

/// Commands under way, the oldest first.
type UnderWay = SmallVec<[Arc<Ticket>; AHEAD]>;

impl<B: Bus> Namespace<B> {
    pub(crate) fn new(nvme: Arc<Nvme<B>>, shape: Shape) -> Namespace<B> {
        Namespace {
            nvme,
            shape,
            observer: Once::new(),
        }
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.shape.id
    }

    /// Its controller.
    #[must_use]
    pub fn controller(&self) -> &Nvme<B> {
        &self.nvme
    }

    pub(crate) fn tell(&self, trouble: Trouble) {
        if let Some(observer) = self.observer.get() {
            observer(trouble);
        }
    }

    fn pair(&self) -> Result<&Pair, BlockError> {
        self.nvme.pair_here().ok_or(BlockError::Gone)
    }

    fn block(&self, sector: u64) -> u64 {
        sector / (self.shape.block_len / SECTOR) as u64
    }

    /// Gives a command to the controller. While there is no room, what is under way
    /// ends first.
    fn submit(
        &self,
        pair: &Pair,
        command: Command,
        payload: Payload<'_>,
        request: Request,
        under_way: &mut UnderWay,
    ) -> Result<(), BlockError> {
        let ticket = Ticket::new(request);
        loop {
            let given = if under_way.is_empty() {
                pair.submit_waiting(command, payload, &ticket)
            } else {
                pair.submit(command, payload, &ticket)
            };
            match given {
                Ok(()) => {
                    under_way.push(ticket);
                    return Ok(());
                }
                Err(Refused::Gone) => return Err(BlockError::Gone),
                Err(Refused::NoMemory) => return Err(BlockError::NoMemory),
                Err(Refused::Busy) => self.wait_oldest(pair, under_way)?,
            }
        }
    }

    /// Sleeps until the oldest command under way has ended.
    fn wait_oldest(&self, pair: &Pair, under_way: &mut UnderWay) -> Result<(), BlockError> {
        pair.notify(&self.nvme.bus);
        if under_way.is_empty() {
            return Ok(());
        }
        let ticket = under_way.remove(0);
        let look = || {
            if self.nvme.look(pair).is_err() {
                self.nvme.call(call::RESET);
            }
        };
        let check = || self.nvme.check(pair);
        pair.wait(&self.nvme.bus, &ticket, CHECK, look, check)
    }

    /// Sleeps until all that is under way has ended, after `result`.
    fn wait_all(
        &self,
        pair: &Pair,
        mut under_way: UnderWay,
        mut result: Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        while !under_way.is_empty() {
            let ended = self.wait_oldest(pair, &mut under_way);
            result = result.and(ended);
        }
        result
    }

    /// Moves `len` bytes of `frames` to or from the namespace. Nothing of it is under
    /// way any more when this returns.
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
        let direction = match operation {
            Operation::Read => Direction::FromDevice,
            _ => Direction::ToDevice,
        };
        let pair = self.pair()?;
        let pages_max = self.nvme.info().map_or(1, |i| i.pages_max);
        let frames = frames.get(..len.div_ceil(PAGE_SIZE)).unwrap_or_default();
        let mut under_way = UnderWay::new();
        let (mut at, mut left) = (sector, len);
        let mut result = Ok(());
        for part in frames.chunks(pages_max) {
            let bytes = left.min(part.len() * PAGE_SIZE);
            let blocks = (bytes / self.shape.block_len) as u32;
            let command = Command::transfer(operation, self.id(), self.block(at), blocks);
            let request = Request::new(operation, at);
            if under_way.len() == AHEAD {
                result = self.wait_oldest(pair, &mut under_way);
            }
            let payload = Payload::Pages(part, direction);
            result =
                result.and_then(|()| self.submit(pair, command, payload, request, &mut under_way));
            if result.is_err() {
                break;
            }
            at += (bytes / SECTOR) as u64;
            left -= bytes;
        }
        self.wait_all(pair, under_way, result)
    }

    /// Gives one command without pages and sleeps until it has ended.
    fn execute(
        &self,
        operation: Operation,
        sector: u64,
        command: Command,
        payload: Payload<'_>,
    ) -> Result<(), BlockError> {
        let pair = self.pair()?;
        let mut under_way = UnderWay::new();
        let request = Request::new(operation, sector);
        let result = self.submit(pair, command, payload, request, &mut under_way);
        self.wait_all(pair, under_way, result)
    }

    fn check_writable(&self) -> Result<(), BlockError> {
        if self.shape.is_read_only {
            return Err(BlockError::ReadOnly);
        }
        Ok(())
    }
}

impl<B: Bus> BlockDevice for Namespace<B> {
    fn sectors(&self) -> u64 {
        self.shape.sectors
    }

    fn block_len(&self) -> usize {
        self.shape.block_len
    }

    fn physical_block_len(&self) -> usize {
        self.shape.physical_block_len
    }

    fn is_read_only(&self) -> bool {
        self.shape.is_read_only
    }

    fn read(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        self.transfer(Operation::Read, sector, frames, len)
    }

    fn write(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        self.check_writable()?;
        self.transfer(Operation::Write, sector, frames, len)
    }

    fn flush(&self) -> Result<(), BlockError> {
        if !self.nvme.info().is_some_and(|i| i.has_cache) {
            return Ok(());
        }
        let command = Command::flush(self.id());
        self.execute(Operation::Flush, 0, command, Payload::None)
    }

    fn clear(&self, how: Operation, sector: u64, count: u64) -> Result<(), BlockError> {
        self.check_writable()?;
        let info = self.nvme.info().ok_or(BlockError::Gone)?;
        let can = match how {
            Operation::Discard => info.has_discard,
            Operation::WriteZeroes => info.has_zeroes,
            _ => false,
        };
        if !can {
            return Err(BlockError::Unsupported);
        }
        let per_block = (self.shape.block_len / SECTOR) as u64;
        let whole = (sector | count).is_multiple_of(per_block);
        let end = sector.checked_add(count);
        let end = end.filter(|end| whole && *end <= self.shape.sectors);
        let end = end.ok_or(BlockError::OutOfRange)?;
        let mut at = sector;
        while at < end {
            let sectors = (end - at).min(BLOCKS_MAX * per_block);
            let (block, blocks) = (self.block(at), (sectors / per_block) as u32);
            let (command, payload) = match how {
                Operation::Discard => {
                    let range = command::range(block, blocks);
                    (Command::discard(self.id()), Payload::Words(range))
                }
                _ => {
                    let command = Command::transfer(how, self.id(), block, blocks);
                    (command, Payload::None)
                }
            };
            self.execute(how, at, command, payload)?;
            at += sectors;
        }
        Ok(())
    }

    fn observe(&self, observer: Observer) {
        self.observer.call_once(|| observer);
    }

    fn identity(&self) -> Identity {
        let info = self.nvme.info().cloned();
        info.map_or_else(Identity::default, |i| Identity {
            model: i.model,
            serial: i.serial,
            firmware: i.firmware,
        })
    }

    fn health(&self) -> Result<Health, BlockError> {
        self.nvme.health()
    }
}
