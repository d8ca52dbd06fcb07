//! Bytes of a block device, moved through a few frames of the kernel's.

use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::addr::PAGE_SIZE;
use machine::block::{BlockDevice, BlockError, SECTOR};
use machine::{Account, Frame};

/// Frames of one transfer.
const FRAMES: usize = 16;

/// A device with frames to reach it by.
pub(super) struct Bytes {
    device: Arc<dyn BlockDevice>,
    frames: Vec<Frame>,
}

impl Bytes {
    /// `None` without memory.
    pub(super) fn new(device: Arc<dyn BlockDevice>) -> Option<Bytes> {
        let mut frames = Vec::new();
        frames.try_reserve_exact(FRAMES).ok()?;
        for _ in 0..FRAMES {
            frames.push(Frame::zeroed(Account::kernel()).ok()?);
        }
        Some(Bytes { device, frames })
    }

    /// Bytes of a block.
    pub(super) fn block(&self) -> usize {
        self.device.block_len()
    }

    /// Reads whole blocks from `block` on.
    pub(super) fn read_blocks(&mut self, block: u64, into: &mut [u8]) -> Result<(), BlockError> {
        let mut sector = self.sector(block)?;
        for part in into.chunks_mut(FRAMES * PAGE_SIZE) {
            self.device.read(sector, &self.frames, part.len())?;
            for (page, frame) in part.chunks_mut(PAGE_SIZE).zip(&self.frames) {
                frame.read(0, page);
            }
            sector = sector.saturating_add(sectors(part.len()));
        }
        Ok(())
    }

    /// Writes whole blocks from `block` on.
    pub(super) fn write_blocks(&mut self, block: u64, from: &[u8]) -> Result<(), BlockError> {
        let mut sector = self.sector(block)?;
        for part in from.chunks(FRAMES * PAGE_SIZE) {
            for (page, frame) in part.chunks(PAGE_SIZE).zip(&self.frames) {
                frame.write(0, page);
            }
            self.device.write(sector, &self.frames, part.len())?;
            sector = sector.saturating_add(sectors(part.len()));
        }
        Ok(())
    }

    /// Makes durable what was written. A device that cannot flush keeps nothing back.
    pub(super) fn flush(&self) -> Result<(), BlockError> {
        match self.device.flush() {
            Err(BlockError::Unsupported) => Ok(()),
            other => other,
        }
    }

    fn sector(&self, block: u64) -> Result<u64, BlockError> {
        block
            .checked_mul(sectors(self.block()))
            .ok_or(BlockError::OutOfRange)
    }
}

/// The sectors of that many bytes.
pub(super) fn sectors(bytes: usize) -> u64 {
    (bytes / SECTOR) as u64
}

/// That many zeros; `None` without memory.
pub(super) fn zeroed(len: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).ok()?;
    bytes.resize(len, 0);
    Some(bytes)
}
