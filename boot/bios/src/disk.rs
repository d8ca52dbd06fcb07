//! The disk that the BIOS has started us from, by its own services. They know no flush: what
//! was written is as durable as the disk makes it.
//!
//! Source: BIOS Enhanced Disk Drive Specification 3.0.

use crate::firmware::{
    Registers, TRANSIT_BYTES, TRANSIT_SEGMENT, call, from_transit, get, put, to_transit,
};
use skep_boot::Failure;
use skep_boot::disk::Blocks;

const READ: u32 = 0x4200;
/// Without reading it back.
const WRITE: u32 = 0x4300;
const PARAMETERS: u32 = 0x4800;
/// Where what the BIOS is told of a transfer, and what it tells of the disk, is in the shared
/// page.
const PACKET_AT: u16 = 0x100;
const PARAMETERS_AT: u16 = 0x140;
/// Bytes of those parameters that every version has.
const PARAMETERS_BYTES: u16 = 26;
/// How often a transfer is tried: drives that have just been started fail the first time.
const TRIES: usize = 3;

/// A disk of the BIOS.
pub(crate) struct FirmwareDisk {
    number: u8,
    block_bytes: usize,
    last_block: u64,
}

impl FirmwareDisk {
    /// The disk of that number.
    pub(crate) fn new(number: u8) -> Result<Self, Failure> {
        put(PARAMETERS_AT, &[0; PARAMETERS_BYTES as usize]);
        put(PARAMETERS_AT, &PARAMETERS_BYTES.to_le_bytes());
        let answer = call(0x13, registers(PARAMETERS, number, PARAMETERS_AT));
        let sectors = u64::from_le_bytes(get(PARAMETERS_AT + 16));
        let block_bytes = usize::from(u16::from_le_bytes(get(PARAMETERS_AT + 24)));
        if answer.failed() || sectors == 0 {
            return Err(Failure::Read);
        }
        Ok(Self {
            number,
            block_bytes,
            last_block: sectors - 1,
        })
    }

    /// Has the BIOS move blocks between disk and transit.
    fn transfer(&mut self, function: u32, block: u64, count: usize) -> bool {
        (0..TRIES).any(|_| {
            let count = (count as u16).to_le_bytes();
            let [to_low, to_high] = TRANSIT_SEGMENT.to_le_bytes();
            put(
                PACKET_AT,
                &[16, 0, count[0], count[1], 0, 0, to_low, to_high],
            );
            put(PACKET_AT + 8, &block.to_le_bytes());
            !call(0x13, registers(function, self.number, PACKET_AT)).failed()
        })
    }
}

fn registers(function: u32, disk: u8, at: u16) -> Registers {
    Registers {
        eax: function,
        edx: u32::from(disk),
        esi: u32::from(at),
        ..Registers::default()
    }
}

impl Blocks for FirmwareDisk {
    fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    fn last_block(&self) -> u64 {
        self.last_block
    }

    fn read(&mut self, mut block: u64, into: &mut [u8]) -> Result<(), Failure> {
        for part in into.chunks_mut(TRANSIT_BYTES) {
            let count = part.len() / self.block_bytes;
            let is_there = block
                .checked_add(count as u64)
                .is_some_and(|end| end <= self.last_block.saturating_add(1));
            if !is_there || !self.transfer(READ, block, count) {
                return Err(Failure::Read);
            }
            from_transit(part);
            block += count as u64;
        }
        Ok(())
    }

    fn write(&mut self, block: u64, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.len() > TRANSIT_BYTES || block > self.last_block {
            return Err(Failure::Write);
        }
        to_transit(bytes);
        if self.transfer(WRITE, block, bytes.len() / self.block_bytes) {
            Ok(())
        } else {
            Err(Failure::Write)
        }
    }
}
