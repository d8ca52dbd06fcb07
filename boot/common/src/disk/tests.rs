//! A disk in memory, some blocks of which cannot be read or written.

extern crate std;

use super::{Blocks, Disk};
use crate::Failure;
use crate::release::Volume as _;
use skep_api::boot::disk::ENTRIES_BYTES_MAX;
use skep_api::boot::state::Status;
use skep_api::boot::{BootState, SLOT_TYPE, STATE_TYPE, Slot, crc32};
use std::{vec, vec::Vec};

const BLOCK: usize = 512;
const BLOCKS: usize = 200;
const STATE: usize = 40;
const SLOT_A: usize = 64;
const SLOT_B: usize = 96;
const SLOT_BLOCKS: usize = 32;

struct Fake {
    bytes: Vec<u8>,
    unreadable: Vec<u64>,
    is_read_only: bool,
}

impl Fake {
    /// A disk with both tables, a fresh state in its first copy, and two slots.
    fn new() -> Self {
        let mut entries = vec![0; ENTRIES_BYTES_MAX];
        let partitions = [
            (STATE_TYPE, STATE, 16),
            (SLOT_TYPE, SLOT_A, SLOT_BLOCKS),
            (SLOT_TYPE, SLOT_B, SLOT_BLOCKS),
        ];
        for (entry, (kind, start, blocks)) in entries.chunks_exact_mut(128).zip(partitions) {
            entry[..16].copy_from_slice(&kind);
            entry[32..40].copy_from_slice(&(start as u64).to_le_bytes());
            entry[40..48].copy_from_slice(&((start + blocks - 1) as u64).to_le_bytes());
        }
        let mut bytes = vec![0; BLOCKS * BLOCK];
        for (header_at, entries_at) in [(1, 2), (BLOCKS - 1, BLOCKS - 33)] {
            let mut header = [0; 92];
            header[..8].copy_from_slice(b"EFI PART");
            header[56..72].fill(7);
            header[72..80].copy_from_slice(&(entries_at as u64).to_le_bytes());
            header[80..84].copy_from_slice(&128u32.to_le_bytes());
            header[84..88].copy_from_slice(&128u32.to_le_bytes());
            header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
            let crc = crc32(&header);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            bytes[header_at * BLOCK..][..92].copy_from_slice(&header);
            bytes[entries_at * BLOCK..][..entries.len()].copy_from_slice(&entries);
        }
        bytes[STATE * BLOCK..][..BLOCK].copy_from_slice(&BootState::fresh(1).encode());
        Self {
            bytes,
            unreadable: Vec::new(),
            is_read_only: false,
        }
    }

    fn state(&self, copy: usize) -> Option<BootState> {
        BootState::decode(&self.bytes[(STATE + 8 * copy) * BLOCK..][..BLOCK])
    }
}

impl Blocks for Fake {
    fn block_bytes(&self) -> usize {
        BLOCK
    }

    fn last_block(&self) -> u64 {
        BLOCKS as u64 - 1
    }

    fn read(&mut self, block: u64, into: &mut [u8]) -> Result<(), Failure> {
        if self.unreadable.contains(&block) {
            return Err(Failure::Read);
        }
        let from = self.bytes.get(block as usize * BLOCK..);
        let from = from.and_then(|from| from.get(..into.len()));
        into.copy_from_slice(from.ok_or(Failure::Read)?);
        Ok(())
    }

    fn write(&mut self, block: u64, bytes: &[u8]) -> Result<(), Failure> {
        if self.is_read_only {
            return Err(Failure::Write);
        }
        self.bytes[block as usize * BLOCK..][..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }
}

#[test]
fn changes_go_to_one_copy_and_the_other_in_turn() {
    let mut disk = Disk::with_slots(Fake::new()).unwrap();
    assert_eq!(disk.guid, [7; 16]);
    let mut stored = disk.state();
    assert_eq!(stored.state, BootState::fresh(1));
    let trying = stored.state.finish_update(2, 2);
    assert!(disk.store(&mut stored, trying));
    assert!(stored.is_trial(Slot::B) && !stored.is_trial(Slot::A));
    assert_eq!(disk.blocks.state(0), Some(BootState::fresh(1)));
    assert_eq!(disk.blocks.state(1), Some(stored.state));
    let bad = stored.state.refuse(Slot::B).store.unwrap();
    assert!(disk.store(&mut stored, bad));
    assert_eq!(disk.blocks.state(0), Some(stored.state));
    assert_eq!(stored.state.slot(Slot::B).status, Status::Bad);
    assert_eq!((stored.state.active, stored.state.generation), (Slot::A, 3));
}

#[test]
fn what_cannot_be_read_is_damaged_and_what_cannot_be_written_is_told() {
    let mut fake = Fake::new();
    fake.unreadable = vec![1, STATE as u64];
    fake.is_read_only = true;
    let mut disk = Disk::with_slots(fake).unwrap();
    let mut stored = disk.state();
    assert_eq!(stored.state, BootState::fresh(0));
    let new = stored.state.finish_update(2, 1);
    assert!(!disk.store(&mut stored, new));
    let mut fake = Fake::new();
    fake.unreadable = vec![1, BLOCKS as u64 - 1];
    assert!(matches!(Disk::with_slots(fake), Err(Failure::NoSlots)));
}

#[test]
fn a_slot_is_read_to_its_end_and_not_beyond() {
    let mut fake = Fake::new();
    fake.bytes[(SLOT_B - 1) * BLOCK..SLOT_B * BLOCK].fill(9);
    let mut disk = Disk::with_slots(fake).unwrap();
    let mut slot = disk.volume(Slot::A).unwrap();
    let mut last = [0; BLOCK];
    let end = (SLOT_BLOCKS * BLOCK) as u64;
    let mut seen = 0;
    let read = slot.read(end - BLOCK as u64, &mut last, &mut |at, bytes| {
        seen += at + bytes.len();
    });
    assert_eq!((read, seen, last), (Ok(()), BLOCK, [9; BLOCK]));
    for offset in [end, u64::MAX - 511] {
        let read = slot.read(offset, &mut last, &mut |_, _| ());
        assert_eq!(read, Err(Failure::BeyondSlot));
    }
}
