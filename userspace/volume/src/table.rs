//! Partition tables: GUID (UEFI 2.10, chapter 5) and master boot record.

use crate::bytes::{array, u8_at, u32_at, u64_at};
use crate::{Error, LIMITS, ReadAt};
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a sector, in which master boot records count, and tables of disks whose
/// blocks are not larger.
const SECTOR: u64 = 512;
const MBR_ENTRIES_AT: usize = 446;
const MBR_ENTRY_BYTES: usize = 16;
const PROTECTIVE: u8 = 0xee;
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES_MIN: usize = 128;
const ENTRY_BYTES_MAX: usize = 4096;
const NAME_AT: usize = 56;
const NAME_UNITS: usize = 36;

/// Type of a partition for people's files, EBD0A0A2-B9E5-4433-87C0-68B6B72699C7
/// (Microsoft's "basic data"), in the byte order of the disk.
pub const BASIC_DATA: [u8; 16] = [
    0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7,
];

/// What a table says a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// The GUID of a GUID partition table, in the byte order of the disk.
    Guid([u8; 16]),
    /// The byte of a master boot record.
    Mbr(u8),
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: usize,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes; the whole of it is on the disk.
    pub len: u64,
    /// What it is for.
    pub kind: Type,
    /// Its own GUID; zeros in a master boot record.
    pub guid: [u8; 16],
    /// Its name; empty in a master boot record.
    pub name: String,
}

/// The partitions of a disk in the order of its table; none if it has no table, as a
/// disk may that is one volume. What lies beyond the disk's end is left out.
///
/// # Errors
/// [`Error::Read`]; [`Error::Damaged`]: both copies of a GUID partition table are;
/// [`Error::NoMemory`].
pub fn partitions(disk: &dyn ReadAt) -> Result<Vec<Partition>, Error> {
    let mut record = [0; SECTOR as usize];
    if disk.len() < SECTOR {
        return Ok(Vec::new());
    }
    disk.read_at(0, &mut record)?;
    if !record.ends_with(&[0x55, 0xaa]) {
        return Ok(Vec::new());
    }
    let entries = record.get(MBR_ENTRIES_AT..).unwrap_or_default();
    let entries = entries.chunks_exact(MBR_ENTRY_BYTES).take(4);
    let protected = entries
        .clone()
        .any(|e| u8_at(e, 4) == PROTECTIVE && u8_at(e, 0) == 0);
    if protected && let Some(found) = guid_table(disk)? {
        return Ok(found);
    }
    let mut found = Vec::new();
    for (index, entry) in entries.enumerate() {
        let kind = u8_at(entry, 4);
        // The first byte of a volume without a table is code: anything.
        let active = u8_at(entry, 0);
        let start = u64::from(u32_at(entry, 8)).saturating_mul(SECTOR);
        let len = u64::from(u32_at(entry, 12)).saturating_mul(SECTOR);
        if kind == 0 || kind == PROTECTIVE || active & 0x7f != 0 || !fits(disk, start, len) {
            continue;
        }
        found.try_reserve(1).map_err(|_| Error::NoMemory)?;
        found.push(Partition {
            number: index.saturating_add(1),
            start,
            len,
            kind: Type::Mbr(kind),
            guid: [0; 16],
            name: String::new(),
        });
    }
    Ok(found)
}

fn fits(disk: &dyn ReadAt, start: u64, len: u64) -> bool {
    let end = start.checked_add(len);
    start > 0 && len > 0 && end.is_some_and(|end| end <= disk.len())
}

/// The GUID partition table: `None` if there is no copy of one at all.
fn guid_table(disk: &dyn ReadAt) -> Result<Option<Vec<Partition>>, Error> {
    let mut damaged = false;
    // Blocks of 512 bytes, then of 4096.
    for block in [SECTOR, 8 * SECTOR] {
        let last = disk.len().saturating_sub(block);
        for at in [block, last] {
            match copy_at(disk, at, block) {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(Error::NoMemory) => return Err(Error::NoMemory),
                // The other copy may be whole.
                Err(_) => damaged = true,
            }
        }
    }
    match damaged {
        true => Err(Error::Damaged("its partition table")),
        false => Ok(None),
    }
}

/// The copy whose header is at byte `at`; `None` without a header there.
fn copy_at(disk: &dyn ReadAt, at: u64, block: u64) -> Result<Option<Vec<Partition>>, Error> {
    const DAMAGED: Error = Error::Damaged("its partition table");
    let mut header = [0; HEADER_BYTES];
    if at.checked_add(block).is_none_or(|end| end > disk.len()) {
        return Ok(None);
    }
    disk.read_at(at, &mut header)?;
    if !header.starts_with(b"EFI PART") {
        return Ok(None);
    }
    let stated = u32_at(&header, 16);
    // The checksum is taken with its own field zero.
    if let Some(field) = header.get_mut(16..20) {
        field.fill(0);
    }
    if u32_at(&header, 12) != HEADER_BYTES as u32 || crc32(&header) != stated {
        return Err(DAMAGED);
    }
    let count = u32_at(&header, 80) as usize;
    let size = u32_at(&header, 84) as usize;
    let sane = (ENTRY_BYTES_MIN..=ENTRY_BYTES_MAX).contains(&size) && size.is_multiple_of(8);
    if !sane || count > LIMITS.partitions {
        return Err(DAMAGED);
    }
    let mut entries = Vec::new();
    let len = count.saturating_mul(size);
    entries
        .try_reserve_exact(len)
        .map_err(|_| Error::NoMemory)?;
    entries.resize(len, 0);
    let from = u64_at(&header, 72).checked_mul(block).ok_or(DAMAGED)?;
    disk.read_at(from, &mut entries)?;
    if crc32(&entries) != u32_at(&header, 88) {
        return Err(DAMAGED);
    }
    read_entries(disk, &entries, size, block).map(Some)
}

fn read_entries(
    disk: &dyn ReadAt,
    entries: &[u8],
    size: usize,
    block: u64,
) -> Result<Vec<Partition>, Error> {
    let mut found = Vec::new();
    for (index, entry) in entries.chunks_exact(size).enumerate() {
        let kind: [u8; 16] = array(entry, 0);
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let start = first.saturating_mul(block);
        let blocks = last.checked_sub(first).and_then(|n| n.checked_add(1));
        let len = blocks.unwrap_or(0).saturating_mul(block);
        if kind == [0; 16] || !fits(disk, start, len) {
            continue;
        }
        let units = entry.get(NAME_AT..).unwrap_or_default().chunks_exact(2);
        let units = units
            .take(NAME_UNITS)
            .map(|unit| u16::from_le_bytes(array(unit, 0)));
        let units = units.take_while(|unit| *unit != 0);
        let name = char::decode_utf16(units);
        found.try_reserve(1).map_err(|_| Error::NoMemory)?;
        found.push(Partition {
            number: index.saturating_add(1),
            start,
            len,
            kind: Type::Guid(kind),
            guid: array(entry, 16),
            name: name
                .map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
        });
    }
    Ok(found)
}

/// The CRC-32 of IEEE 802.3, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = match crc & 1 {
                1 => crc >> 1 ^ 0xedb8_8320,
                _ => crc >> 1,
            };
        }
    }
    !crc
}
