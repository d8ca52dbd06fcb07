//! The slots of a disk, from its GUID partition table (UEFI 2.10, section 5.3).
//!
//! The table is as hostile as any: what it says is bounded and lies inside the disk,
//! or is left out.

use super::{SLOT_TYPE, STATE_TYPE, Slot, crc32, put};
use crate::bytes::{array, u32_at, u64_at};

/// Most bytes of partition entries that are read: the 128 that every tool writes.
pub const ENTRIES_BYTES_MAX: usize = 128 * 128;

/// Blocks of a disk, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first.
    pub start: u64,
    /// How many.
    pub blocks: u64,
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// GUID of the disk.
    pub disk: [u8; 16],
    /// First block of the entries.
    pub entries_at: u64,
    /// Bytes of all entries, at most [`ENTRIES_BYTES_MAX`].
    pub entries_bytes: usize,
    entry_bytes: usize,
    entries_crc: u32,
    last_block: u64,
}

/// Where a disk keeps its slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// The boot state.
    pub state: Option<Extent>,
    /// By [`Slot::index`].
    pub slots: [Option<Extent>; 2],
}

impl Header {
    /// Reads block 1, or the last one, of a disk that ends with `last_block`. `None` when
    /// it is no header, or a damaged one.
    #[must_use]
    pub fn parse(block: &[u8], last_block: u64) -> Option<Self> {
        const BYTES: usize = 92;
        const CRC_AT: usize = 16;
        let mut header: [u8; BYTES] = array(block, 0)?;
        let crc = u32_at(&header, CRC_AT)?;
        // The checksum is taken with its own field zero.
        put(&mut header, CRC_AT, &[0; 4]);
        if array(&header, 0) != Some(*b"EFI PART") || crc32(&header) != crc {
            return None;
        }
        let entry_bytes = usize::try_from(u32_at(&header, 84)?).ok()?;
        let count = usize::try_from(u32_at(&header, 80)?).ok()?;
        let entries_bytes = entry_bytes.checked_mul(count)?;
        if entry_bytes < 128 || entries_bytes > ENTRIES_BYTES_MAX {
            return None;
        }
        Some(Self {
            disk: array(&header, 56)?,
            entries_at: u64_at(&header, 72)?,
            entries_bytes,
            entry_bytes,
            entries_crc: u32_at(&header, 88)?,
            last_block,
        })
    }

    /// Finds the slots in the entries; `None` when the entries are damaged. The first
    /// partition of a slot's type is slot A, the second slot B.
    #[must_use]
    pub fn slots(&self, entries: &[u8]) -> Option<Slots> {
        let entries = entries.get(..self.entries_bytes)?;
        if crc32(entries) != self.entries_crc {
            return None;
        }
        let mut found = Slots::default();
        for entry in entries.chunks_exact(self.entry_bytes) {
            let (start, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
            let kind: [u8; 16] = array(entry, 0)?;
            if start > last || last > self.last_block {
                continue;
            }
            let extent = Extent {
                start,
                blocks: last - start + 1,
            };
            if kind == STATE_TYPE {
                found.state.get_or_insert(extent);
            } else if kind == SLOT_TYPE
                && let Some(free) = found.slots.iter_mut().find(|slot| slot.is_none())
            {
                *free = Some(extent);
            }
        }
        Some(found)
    }
}

impl Slots {
    /// Where `slot` is, if the disk has it.
    #[must_use]
    pub fn slot(&self, slot: Slot) -> Option<Extent> {
        self.slots.get(slot.index()).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::{ENTRIES_BYTES_MAX, Extent, Header, SLOT_TYPE, STATE_TYPE, Slot, crc32};
    use std::{vec, vec::Vec};

    const LAST_BLOCK: u64 = 99_999;

    /// Header and entries of a table with these partitions: type, first block, last block.
    fn table(partitions: &[([u8; 16], u64, u64)]) -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0u8; ENTRIES_BYTES_MAX];
        for (entry, (kind, start, last)) in entries.chunks_exact_mut(128).zip(partitions) {
            entry[..16].copy_from_slice(kind);
            entry[32..40].copy_from_slice(&start.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
        }
        let mut header = vec![0u8; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[56..72].fill(7);
        header[72..80].copy_from_slice(&2u64.to_le_bytes());
        header[80..84].copy_from_slice(&128u32.to_le_bytes());
        header[84..88].copy_from_slice(&128u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&entries).to_le_bytes());
        let crc = crc32(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        (header, entries)
    }

    #[test]
    fn slots_are_found_in_their_order_among_other_partitions() {
        let (header, entries) = table(&[
            ([1; 16], 34, 2047),
            (STATE_TYPE, 2048, 2175),
            (SLOT_TYPE, 4096, 8191),
            ([9; 16], 9000, 9001),
            (SLOT_TYPE, 10_000, 12_000),
            (SLOT_TYPE, 20_000, 22_000),
        ]);
        let header = Header::parse(&header, LAST_BLOCK).unwrap();
        assert_eq!((header.disk, header.entries_at), ([7; 16], 2));
        let slots = header.slots(&entries).unwrap();
        let extent = |start, blocks| Some(Extent { start, blocks });
        assert_eq!(slots.state, extent(2048, 128));
        assert_eq!(slots.slot(Slot::A), extent(4096, 4096));
        assert_eq!(slots.slot(Slot::B), extent(10_000, 2001));
    }

    #[test]
    fn damaged_tables_are_refused() {
        let (header, mut entries) = table(&[(SLOT_TYPE, 4096, 8191)]);
        for at in [0, 20, 60, 80, 91] {
            let mut header = header.clone();
            header[at] ^= 1;
            assert!(Header::parse(&header, LAST_BLOCK).is_none(), "byte {at}");
        }
        assert!(Header::parse(&header[..91], LAST_BLOCK).is_none());
        let header = Header::parse(&header, LAST_BLOCK).unwrap();
        entries[40] ^= 1;
        assert!(header.slots(&entries).is_none());
        assert!(header.slots(&entries[..100]).is_none());
    }

    #[test]
    fn partitions_beyond_the_disk_or_backwards_are_left_out() {
        let (header, entries) = table(&[
            (SLOT_TYPE, 4096, LAST_BLOCK + 1),
            (SLOT_TYPE, 5000, 4999),
            (SLOT_TYPE, LAST_BLOCK, LAST_BLOCK),
        ]);
        let slots = Header::parse(&header, LAST_BLOCK)
            .unwrap()
            .slots(&entries)
            .unwrap();
        assert_eq!(slots.slot(Slot::A).map(|slot| slot.start), Some(LAST_BLOCK));
        assert_eq!(slots.slot(Slot::B), None);
    }
}
