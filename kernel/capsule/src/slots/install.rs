//! Makes another disk one that the node starts from: the same partitions in the same
//! places, with the release that runs in slot A and as good as it is.
//!
//! The table is written last. Until then the disk has none, and no firmware starts half
//! an installation.

use super::{Done, SlotDisk, bytes, bytes::Bytes, disk_error};
use crate::disks::{Disks, Grant};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use skep_api::boot::disk::Extent;
use skep_api::boot::release::{HEAD_AT, HEAD_END};
use skep_api::boot::state::COPY_STRIDE;
use skep_api::boot::{BootState, Release, SLOT_TYPE, STATE_TYPE, crc32};
use skep_api::control::UpdateRefusal;

/// Who holds the disk meanwhile.
const HOLDER: &str = "an installation";
/// Bytes that one step copies: what takes a moment, not a second.
const STEP_BYTES: usize = 512 << 10;
/// Bytes of the entries of a table.
const ENTRY_BYTES: usize = 128;

/// Blocks to be copied.
struct Copy {
    from: u64,
    to: u64,
    blocks: u64,
}

/// An installation that has begun.
pub(super) struct Install {
    target: Bytes,
    /// Keeps capsules away.
    _held: Vec<Grant>,
    copies: Vec<Copy>,
    done: u64,
    total: u64,
    /// The first block of the disk, its header and its entries, for the end.
    table: [Vec<u8>; 3],
    last_block: u64,
    version: u64,
    state_at: u64,
    empty_slot_at: u64,
}

impl Install {
    /// Checks that the disk may and can be used, and takes its table away.
    pub(super) fn begin(disk: &mut SlotDisk, disks: &Disks, name: &str) -> Done<Install> {
        let names = [String::from(name)];
        let held = disks.grant(&names, HOLDER);
        let held = held.map_err(|refusal| target(crate::verify::words(&refusal)))?;
        let found = disks.list().into_iter().find(|(id, _)| id.name() == name);
        let (_, device) = found.ok_or_else(|| target(format!("there is no disk {name}")))?;
        let block = device.block_len();
        let last_block = device.sectors() / bytes::sectors(block);
        let last_block = last_block.saturating_sub(1);
        if block != disk.bytes.block() {
            return Err(target(format!("disk {name} has blocks of another length")));
        }
        let mut copies = disk.partitions_to_copy()?;
        let table_blocks = disk.table_blocks();
        let end = disk.last_used()? + table_blocks;
        if device.is_read_only() || end > last_block {
            let why = format!("disk {name} is too small, or cannot be written");
            return Err(target(why));
        }
        let release = disk.running_release()?;
        let slot = disk.extent(disk.running.slot);
        let [slot_a, slot_b] = disk.slots;
        copies.push(Copy {
            from: slot.start,
            to: slot_a.start,
            blocks: release.len / block as u64,
        });
        let mut target = Bytes::new(device).ok_or(UpdateRefusal::NoMemory)?;
        let none = bytes::zeroed(block).ok_or(UpdateRefusal::NoMemory)?;
        for at in [0, 1, last_block] {
            target.write_blocks(at, &none).map_err(disk_error)?;
        }
        target.flush().map_err(disk_error)?;
        log::info!("installing release {} to {name}", release.version);
        Ok(Install {
            table: disk.new_table(last_block)?,
            target,
            _held: held,
            done: 0,
            total: copies.iter().map(|copy| copy.blocks * block as u64).sum(),
            copies,
            last_block,
            version: release.version,
            state_at: disk.state_at.start,
            empty_slot_at: slot_b.start,
        })
    }

    /// Copies the next part; bytes done and all.
    pub(super) fn step(&mut self, disk: &mut SlotDisk) -> Done<(u64, u64)> {
        let block = disk.bytes.block();
        let Some(copy) = self.copies.last_mut() else {
            return Ok((self.done, self.total));
        };
        let blocks = copy.blocks.min((STEP_BYTES / block) as u64);
        let len = usize::try_from(blocks).unwrap_or(0) * block;
        let mut part = bytes::zeroed(len).ok_or(UpdateRefusal::NoMemory)?;
        let mut again = bytes::zeroed(len).ok_or(UpdateRefusal::NoMemory)?;
        disk.bytes
            .read_blocks(copy.from, &mut part)
            .map_err(disk_error)?;
        self.target
            .write_blocks(copy.to, &part)
            .and_then(|()| self.target.read_blocks(copy.to, &mut again))
            .map_err(|error| target(format!("{error}")))?;
        if part != again {
            return Err(target(String::from(
                "the disk gives back other bytes than were written",
            )));
        }
        copy.from += blocks;
        copy.to += blocks;
        copy.blocks -= blocks;
        self.done += len as u64;
        if copy.blocks == 0 {
            self.copies.pop();
        }
        if self.copies.is_empty() {
            self.finish(block)
                .map_err(|error| target(format!("{error}")))?;
            log::info!("release {} is installed", self.version);
        }
        Ok((self.done, self.total))
    }

    /// The state of a fresh disk, nothing in slot B, and last the table.
    fn finish(&mut self, block: usize) -> Result<(), machine::block::BlockError> {
        let none = bytes::zeroed(HEAD_END).unwrap_or_default();
        self.target.write_blocks(self.empty_slot_at, &none)?;
        let mut state = BootState::fresh(self.version).encode().to_vec();
        state.resize(block, 0);
        let second = self.state_at + COPY_STRIDE / block as u64;
        let (first_half, _) = none.split_at(block.min(none.len()));
        self.target.write_blocks(second, first_half)?;
        self.target.write_blocks(self.state_at, &state)?;
        self.target.flush()?;
        let [boot_record, header, entries] = &self.table;
        let backup = backup_of(header, self.last_block, (entries.len() / block) as u64);
        let entries_at = self.last_block - (entries.len() / block) as u64;
        self.target.write_blocks(entries_at, entries)?;
        self.target.write_blocks(self.last_block, &backup)?;
        self.target.write_blocks(2, entries)?;
        self.target.write_blocks(1, header)?;
        self.target.flush()?;
        self.target.write_blocks(0, boot_record)?;
        self.target.flush()
    }
}

impl SlotDisk {
    /// Partitions that are copied as they are: all but the slots and their state.
    fn partitions_to_copy(&self) -> Done<Vec<Copy>> {
        let mut copies = Vec::new();
        for (kind, extent) in self.partitions() {
            if kind != SLOT_TYPE && kind != STATE_TYPE {
                copies.push(Copy {
                    from: extent.start,
                    to: extent.start,
                    blocks: extent.blocks,
                });
            }
        }
        Ok(copies)
    }

    /// The last block of any partition.
    fn last_used(&self) -> Done<u64> {
        let ends = self
            .partitions()
            .map(|(_, extent)| extent.start + extent.blocks - 1);
        ends.max().ok_or(UpdateRefusal::NoState)
    }

    /// Type and place of every partition that lies on the disk.
    fn partitions(&self) -> impl Iterator<Item = ([u8; 16], Extent)> {
        let (_, entries) = &self.table;
        entries.chunks_exact(ENTRY_BYTES).filter_map(|entry| {
            let kind: [u8; 16] = entry.get(..16)?.try_into().ok()?;
            let number = |at: usize| {
                let bytes = entry.get(at..at + 8)?.try_into().ok()?;
                Some(u64::from_le_bytes(bytes))
            };
            let (start, last) = (number(32)?, number(40)?);
            let blocks = last.checked_sub(start)?.checked_add(1)?;
            (kind != [0; 16]).then_some((kind, Extent { start, blocks }))
        })
    }

    /// Blocks of the entries and header behind the last partition.
    fn table_blocks(&self) -> u64 {
        let (_, entries) = &self.table;
        (entries.len() / self.bytes.block()) as u64 + 1
    }

    /// The head of the release that runs, as it is on the disk.
    fn running_release(&mut self) -> Done<Release> {
        let mut head = bytes::zeroed(HEAD_END).ok_or(UpdateRefusal::NoMemory)?;
        self.read_slot(self.running.slot, 0, &mut head)?;
        let head = head.get(HEAD_AT..).unwrap_or_default();
        Release::verify(head, &self.running.key)
            .map_err(|why| UpdateRefusal::Release(format!("{why}")))
    }

    /// First block, header and entries for a disk that ends with `last_block`: like this
    /// one's, under identifiers of its own.
    fn new_table(&mut self, last_block: u64) -> Done<[Vec<u8>; 3]> {
        let mut boot_record = bytes::zeroed(self.bytes.block()).ok_or(UpdateRefusal::NoMemory)?;
        self.bytes
            .read_blocks(0, &mut boot_record)
            .map_err(disk_error)?;
        let (mut header, mut entries) = self.table.clone();
        for entry in entries.chunks_exact_mut(ENTRY_BYTES) {
            if entry.iter().any(|byte| *byte != 0) {
                put(entry, 16, &guid());
            }
        }
        let behind = self.table_blocks();
        put(&mut header, 24, &1u64.to_le_bytes());
        put(&mut header, 32, &last_block.to_le_bytes());
        put(
            &mut header,
            48,
            &last_block.saturating_sub(behind).to_le_bytes(),
        );
        put(&mut header, 56, &guid());
        put(&mut header, 72, &2u64.to_le_bytes());
        put(&mut header, 88, &crc32(&entries).to_le_bytes());
        seal(&mut header);
        Ok([boot_record, header, entries])
    }
}

/// The header of the copy at the disk's end.
fn backup_of(header: &[u8], last_block: u64, entries_blocks: u64) -> Vec<u8> {
    let mut backup = header.to_vec();
    put(&mut backup, 24, &last_block.to_le_bytes());
    put(&mut backup, 32, &1u64.to_le_bytes());
    let entries_at = last_block.saturating_sub(entries_blocks);
    put(&mut backup, 72, &entries_at.to_le_bytes());
    seal(&mut backup);
    backup
}

/// Puts the header's checksum into it (UEFI 2.10, section 5.3.2).
fn seal(header: &mut [u8]) {
    const BYTES: usize = 92;
    put(header, 16, &[0; 4]);
    let crc = crc32(header.get(..BYTES).unwrap_or_default());
    put(header, 16, &crc.to_le_bytes());
}

/// A random GUID (RFC 9562, version 4), in the disk's order.
fn guid() -> [u8; 16] {
    let mut guid = [0u8; 16];
    machine::random::fill(&mut guid);
    let [_, _, _, _, _, _, _, version, variant, ..] = &mut guid;
    *version = *version & 0x0f | 0x40;
    *variant = *variant & 0x3f | 0x80;
    guid
}

fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn target(why: impl Into<String>) -> UpdateRefusal {
    UpdateRefusal::Target(why.into())
}
