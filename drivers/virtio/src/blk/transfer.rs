//! Transfers: cut into requests, several of which are under way at once.

use super::VirtioBlk;
use crate::request;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::block::{self, BlockDevice, BlockError, Observer, Operation, Request, SECTOR};
use machine::dma::{DmaBuffer, Segment};
use machine::frame::Frame;
use machine::virtio::Chain;

/// Requests of one transfer that are under way at once.
const AHEAD: usize = 8;
/// Bytes of the range that a discard or a zeroing gives (5.2.6.1).
const RANGE: usize = 16;

impl VirtioBlk {
    /// Moves `len` bytes of `frames` to or from the device. Nothing of it is under
    /// way any more when this returns.
    fn transfer(
        &self,
        operation: Operation,
        sector: u64,
        frames: &[Frame],
        len: usize,
    ) -> Result<(), BlockError> {
        block::check(self, sector, frames.len(), len)?;
        let mut under_way: Vec<Arc<Request>> = Vec::new();
        under_way
            .try_reserve_exact(AHEAD)
            .map_err(|_| BlockError::NoMemory)?;
        let (mut at, mut left) = (sector, len);
        let mut result = Ok(());
        for part in frames.chunks(self.shape.segments_max) {
            if under_way.len() == AHEAD {
                result = under_way.remove(0).wait();
            }
            if left == 0 || result.is_err() {
                break;
            }
            let bytes = left.min(part.len() * PAGE_SIZE);
            match self.submit_part(operation, at, part, bytes) {
                Ok(request) => under_way.push(request),
                Err(e) => result = Err(e),
            }
            at += (bytes / SECTOR) as u64;
            left -= bytes;
        }
        for request in under_way {
            let ended = request.wait();
            result = result.and(ended);
        }
        result
    }

    /// Gives one request of at most `segments_max` pages to the device.
    fn submit_part(
        &self,
        operation: Operation,
        sector: u64,
        frames: &[Frame],
        len: usize,
    ) -> Result<Arc<Request>, BlockError> {
        let direction = super::direction(operation);
        let mut data = Chain::new();
        data.try_reserve_exact(frames.len())
            .map_err(|_| BlockError::NoMemory)?;
        for segment in Segment::pages(frames, len, direction) {
            if segment.is_empty() {
                return Err(BlockError::OutOfRange);
            }
            data.push(segment);
        }
        self.submit(operation, sector, data)
    }

    fn check_writable(&self) -> Result<(), BlockError> {
        if self.shape.is_read_only {
            return Err(BlockError::ReadOnly);
        }
        Ok(())
    }
}

/// A range as the device wants it: where, how much in four bytes, and no flags in
/// four more.
fn range(sector: u64, count: u32) -> Result<Chain, BlockError> {
    let mut buffer = DmaBuffer::new(RANGE).map_err(|_| BlockError::NoMemory)?;
    let words = [sector.to_le_bytes(), u64::from(count).to_le_bytes()];
    request::fill(buffer.bytes_mut(), words);
    let mut data = Chain::new();
    let direction = super::direction(Operation::Discard);
    data.push(Segment::buffer(buffer, 0..RANGE, direction));
    Ok(data)
}

impl BlockDevice for VirtioBlk {
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
        if !self.shape.has_flush {
            return Ok(());
        }
        self.submit(Operation::Flush, 0, Chain::new())?.wait()
    }

    fn clear(&self, how: Operation, sector: u64, count: u64) -> Result<(), BlockError> {
        self.check_writable()?;
        let most = match how {
            Operation::Discard => self.shape.discard_max,
            Operation::WriteZeroes => self.shape.zeroes_max,
            _ => 0,
        };
        let per_block = (self.shape.block_len / SECTOR) as u32;
        let most = most - most % per_block;
        if most == 0 {
            return Err(BlockError::Unsupported);
        }
        let end = sector.checked_add(count);
        let whole = (sector | count).is_multiple_of(u64::from(per_block));
        let end = end.filter(|end| whole && *end <= self.shape.sectors);
        let end = end.ok_or(BlockError::OutOfRange)?;
        let mut at = sector;
        while at < end {
            let n = u32::try_from(end - at).unwrap_or(u32::MAX).min(most);
            self.submit(how, at, range(at, n)?)?.wait()?;
            at += u64::from(n);
        }
        Ok(())
    }

    fn observe(&self, observer: Observer) {
        self.observer.call_once(|| observer);
    }
}
