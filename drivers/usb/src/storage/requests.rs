//! Requests to disks.

use super::UsbDisk;
use super::scsi::{self, Advice, Command};
use super::transport::{Fault, Transport};
use crate::{UsbError, limit, sleep};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use machine::addr::PAGE_SIZE;
use machine::block::{
    self, BlockDevice, BlockError, Identity, Observer, Operation, SECTOR, Trouble,
};
use machine::dma::{Direction, Segment};
use machine::frame::Frame;

/// How long a device may take to move the data of a request, or to flush. Sticks
/// pause for seconds while they erase.
const LIMIT: Duration = limit(10_000);
/// Times a request is tried in all, and how often its device is reset meanwhile.
const TRIES: u32 = 6;
const RESETS: u32 = 2;
/// Before a disk that is getting ready is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Pages of a request: 256 KiB.
const PAGES: usize = 64;

/// Pages as the controller is given them.
fn segments(
    frames: &[Frame],
    len: usize,
    direction: Direction,
) -> Result<Vec<Segment>, BlockError> {
    let mut all = Vec::new();
    all.try_reserve_exact(frames.len())
        .map_err(|_| BlockError::NoMemory)?;
    for segment in Segment::pages(frames, len, direction) {
        // A page of the boot image is never written.
        if segment.is_empty() {
            return Err(BlockError::OutOfRange);
        }
        all.push(segment);
    }
    Ok(all)
}

impl UsbDisk {
    /// Has the disk carry out a command, again where that makes sense. It moves `len`
    /// bytes, in the memory that `memory` makes for each try.
    fn request(
        &self,
        command: Command,
        len: usize,
        memory: impl Fn() -> Result<Vec<Segment>, BlockError>,
    ) -> Result<(), BlockError> {
        let mut resets = 0;
        let mut last = BlockError::TimedOut;
        for _ in 0..TRIES {
            let transport = self.transport()?;
            match transport.command(self.unit, command, memory()?, LIMIT) {
                Ok(moved) if moved.len == len => return Ok(()),
                // It says that all went well and did less: it lies.
                Ok(_) => return Err(BlockError::Failed),
                Err(Fault::Sense(sense)) => match sense.advice() {
                    Advice::Again => last = BlockError::Failed,
                    Advice::Later => sleep(PAUSE),
                    Advice::Removed => {
                        self.forget(Trouble::Pulled);
                        return Err(BlockError::Gone);
                    }
                    Advice::Failed(e) => return Err(e),
                },
                // The device has been taken away; whether it comes back is known soon.
                Err(Fault::Usb(UsbError::Gone)) => {}
                Err(Fault::Usb(UsbError::NoMemory)) => return Err(BlockError::NoMemory),
                Err(Fault::Usb(e)) => {
                    log::warn!("usb: disk at {}: {e}", self.path);
                    if resets == RESETS {
                        return Err(BlockError::TimedOut);
                    }
                    resets += 1;
                    self.restore(&transport, e);
                }
            }
        }
        Err(last)
    }

    /// Brings the device back to work: by the gentle way if it only talks nonsense,
    /// else by a reset of its port.
    fn restore(&self, transport: &Arc<Transport>, why: UsbError) {
        let is_gentle = matches!(why, UsbError::Nonsense(_) | UsbError::Stalled);
        if !(is_gentle && transport.recover().is_ok()) {
            self.ask_reset(transport);
        }
    }

    /// As [`UsbDisk::request`]; a failure is told to who watches over the disk.
    fn told(
        &self,
        operation: Operation,
        sector: u64,
        command: Command,
        len: usize,
        memory: impl Fn() -> Result<Vec<Segment>, BlockError>,
    ) -> Result<(), BlockError> {
        let result = self.request(command, len, memory);
        if let Err(BlockError::Failed | BlockError::TimedOut) = result {
            self.tell(Trouble::Failed { operation, sector });
        }
        result
    }

    fn transfer(
        &self,
        operation: Operation,
        sector: u64,
        frames: &[Frame],
        len: usize,
    ) -> Result<(), BlockError> {
        block::check(self, sector, frames.len(), len)?;
        let (is_write, direction) = match operation {
            Operation::Read => (false, Direction::FromDevice),
            _ => (true, Direction::ToDevice),
        };
        let block_len = self.block_len();
        let (mut at, mut left) = (sector, len);
        for part in frames.chunks(PAGES) {
            let bytes = left.min(part.len() * PAGE_SIZE);
            if bytes == 0 {
                break;
            }
            let block = at / (block_len / SECTOR) as u64;
            let count = (bytes / block_len) as u32;
            let command = scsi::transfer(is_write, block, count);
            let memory = || segments(part, bytes, direction);
            self.told(operation, at, command, bytes, memory)?;
            at += (bytes / SECTOR) as u64;
            left -= bytes;
        }
        Ok(())
    }
}

impl BlockDevice for UsbDisk {
    fn sectors(&self) -> u64 {
        self.nature.medium.capacity.sectors()
    }

    fn block_len(&self) -> usize {
        self.nature.medium.capacity.block_len
    }

    fn physical_block_len(&self) -> usize {
        self.block_len()
    }

    fn is_read_only(&self) -> bool {
        self.nature.medium.is_read_only
    }

    fn read(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        self.transfer(Operation::Read, sector, frames, len)
    }

    fn write(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError> {
        if self.is_read_only() {
            return Err(BlockError::ReadOnly);
        }
        self.transfer(Operation::Write, sector, frames, len)
    }

    fn flush(&self) -> Result<(), BlockError> {
        if self.is_gone() {
            return Err(BlockError::Gone);
        }
        if self.cannot_flush.load(SeqCst) || self.is_read_only() {
            return Ok(());
        }
        let command = scsi::synchronize_cache();
        match self.told(Operation::Flush, 0, command, 0, || Ok(Vec::new())) {
            // A disk that does not know the command has no cache.
            Err(BlockError::Unsupported) => {
                self.set_cannot_flush();
                Ok(())
            }
            other => other,
        }
    }

    fn clear(&self, _: Operation, _: u64, _: u64) -> Result<(), BlockError> {
        Err(BlockError::Unsupported)
    }

    fn observe(&self, observer: Observer) {
        self.observer.call_once(|| observer);
    }

    fn identity(&self) -> Identity {
        let inquiry = &self.nature.medium.inquiry;
        Identity {
            model: inquiry.model.clone(),
            serial: self.nature.serial.clone(),
            firmware: inquiry.revision.clone(),
        }
    }
}
