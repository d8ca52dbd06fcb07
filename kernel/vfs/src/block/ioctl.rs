//! The ioctls of disks (`linux/fs.h`; blockdev(8) knows most of them).

use super::Disk;
use super::slots::Use;
use crate::error::{Error, Result};
use crate::file::OpenFile;
use machine::block::{Operation, SECTOR};
use machine::{thread, user};

const BLKROGET: u32 = 0x125e;
const BLKGETSIZE: u32 = 0x1260;
const BLKFLSBUF: u32 = 0x1261;
const BLKSSZGET: u32 = 0x1268;
const BLKDISCARD: u32 = 0x1277;
const BLKIOMIN: u32 = 0x1278;
const BLKIOOPT: u32 = 0x1279;
const BLKALIGNOFF: u32 = 0x127a;
const BLKPBSZGET: u32 = 0x127b;
const BLKDISCARDZEROES: u32 = 0x127c;
const BLKZEROOUT: u32 = 0x127f;
/// `_IOR(0x12, 112, size_t)` and `_IOR(0x12, 114, size_t)`.
const BLKBSZGET: u32 = 0x8008_1270;
const BLKGETSIZE64: u32 = 0x8008_1272;

/// Sectors cleared in one go, 64 MiB: a device that has to write zeros is done with
/// them before it counts as hung.
pub(super) const CLEARED: u64 = (64 << 20) / SECTOR as u64;

impl Disk {
    pub(super) fn control(&self, file: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let (block, physical) = (self.device.block_len(), self.device.physical_block_len());
        match command {
            BLKGETSIZE64 => user::write_value(arg, &self.size())?,
            BLKGETSIZE => user::write_value(arg, &self.device.sectors())?,
            BLKROGET => user::write_value(arg, &u32::from(self.device.is_read_only()))?,
            BLKSSZGET | BLKBSZGET => user::write_value(arg, &number(block))?,
            BLKPBSZGET | BLKIOMIN => user::write_value(arg, &number(physical))?,
            // No preference, no offset, and no promise of zeros.
            BLKIOOPT | BLKALIGNOFF | BLKDISCARDZEROES => user::write_value(arg, &0u32)?,
            BLKFLSBUF => self.flush()?,
            BLKDISCARD => self.clear(file, Operation::Discard, arg)?,
            BLKZEROOUT => self.clear(file, Operation::WriteZeroes, arg)?,
            _ => return Err(Error::NotTerminal),
        }
        Ok(0)
    }

    /// Clears the range that the program names at `arg`: start and length in bytes.
    fn clear(&self, file: &OpenFile, how: Operation, arg: usize) -> Result<()> {
        file.check_write()?;
        let [start, len]: [u64; 2] = user::read_value(arg)?;
        self.clear_range(how, start, len)
    }

    pub(super) fn clear_range(&self, how: Operation, start: u64, len: u64) -> Result<()> {
        if self.device.is_read_only() {
            return Err(Error::NotPermitted);
        }
        let block = self.device.block_len() as u64;
        let end = start.checked_add(len).filter(|end| *end <= self.size());
        let end = end.ok_or(Error::Invalid)?;
        if len == 0 || !(start | len).is_multiple_of(block) {
            return Err(Error::Invalid);
        }
        let (mut at, end) = (start / SECTOR as u64, end / SECTOR as u64);
        while at < end {
            let next = end.min(at + CLEARED);
            let slot = self.slots.take(&(at..next), Use::Writes);
            self.device.clear(how, at, next - at)?;
            drop(slot);
            at = next;
            if thread::pause() && at < end {
                return Err(Error::Interrupted);
            }
        }
        Ok(())
    }
}
