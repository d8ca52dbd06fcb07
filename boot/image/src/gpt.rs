//! The partition tables of a disk that both firmwares boot.
//!
//! UEFI and our loaders read the GUID partition table (UEFI 2.10, chapter 5). Some BIOSes
//! and other computers read the four entries of the master boot record, where some of the
//! same partitions stand beside the protective entry that UEFI asks for.

use anyhow::{Context as _, Result, ensure};
use std::{fs::File, os::unix::fs::FileExt as _};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Sectors before the first partition: boot record, header, 128 entries.
pub const FIRST_USABLE: u64 = 34;

/// Sectors after the last partition: the backup entries and header.
pub const BACKUP_SECTORS: u64 = 33;

const SIGNATURE: &[u8; 8] = b"EFI PART";
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: usize = 128;
const ENTRIES: usize = 128;
const ENTRIES_SECTORS: u64 = (ENTRY_BYTES * ENTRIES) as u64 / SECTOR;

/// Type of the EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
pub const EFI_SYSTEM: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// Type of a partition for people's files, EBD0A0A2-B9E5-4433-87C0-68B6B72699C7:
/// Microsoft's "basic data", which every computer mounts.
pub const BASIC_DATA: [u8; 16] = [
    0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7,
];

/// Type of a BIOS boot partition, 21686148-6449-6E6F-744E-656564454649.
pub const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// One partition.
#[derive(Clone)]
pub struct Partition {
    /// First sector.
    pub start: u64,
    /// Length in sectors.
    pub sectors: u64,
    /// GUID of its type, in the byte order of the disk.
    pub type_guid: [u8; 16],
    /// Its own GUID.
    pub guid: [u8; 16],
    /// Name, at most 36 ASCII characters.
    pub name: &'static str,
    /// Type byte in the master boot record; 0 for one that does not stand there.
    pub mbr_type: u8,
}

/// The bytes of both copies of the table.
pub struct Tables {
    /// For sector 1 onwards: header, then entries.
    pub primary: Vec<u8>,
    /// For the last [`BACKUP_SECTORS`] sectors: entries, then header.
    pub backup: Vec<u8>,
}

impl Tables {
    /// Writes both copies to a disk of `sectors` sectors.
    pub fn write(&self, disk: &File, sectors: u64) -> Result<()> {
        disk.write_all_at(&self.primary, SECTOR)?;
        disk.write_all_at(&self.backup, (sectors - BACKUP_SECTORS) * SECTOR)?;
        Ok(())
    }

    /// The tables of an image as they are to be on a disk of `sectors` sectors, which
    /// is larger: the backup goes to the end, as UEFI wants it, and what is behind
    /// the image becomes free. `primary` is what the image has from sector 1 on.
    pub fn fitted(primary: &[u8], sectors: u64) -> Result<Self> {
        let bytes = (FIRST_USABLE - 1) * SECTOR;
        let (header, entries) = primary
            .split_at_checked(SECTOR as usize)
            .filter(|_| primary.len() as u64 == bytes)
            .context("the partition table is cut short")?;
        let mut stated = header[..HEADER_BYTES].to_vec();
        stated[16..20].fill(0);
        ensure!(
            header.starts_with(SIGNATURE)
                && header[16..20] == crc32(&stated).to_le_bytes()
                && header[88..92] == crc32(entries).to_le_bytes(),
            "it has no partition table like those of our images"
        );
        let mut disk_guid = [0; 16];
        disk_guid.copy_from_slice(&header[56..72]);
        Ok(Self::around(entries, sectors, disk_guid))
    }

    fn around(entries: &[u8], sectors: u64, disk_guid: [u8; 16]) -> Self {
        let last = sectors - 1;
        let entries_crc = crc32(entries);
        let header = |this, other, entries_at| {
            header(this, other, entries_at, sectors, disk_guid, entries_crc)
        };
        let primary_header = header(1, last, 2);
        let backup_header = header(last, 1, last - ENTRIES_SECTORS);
        Self {
            primary: [primary_header.as_slice(), entries].concat(),
            backup: [entries, &backup_header].concat(),
        }
    }
}

/// Lays out the tables of a disk of `sectors` sectors.
pub fn tables(sectors: u64, disk_guid: [u8; 16], partitions: &[Partition]) -> Tables {
    let mut entries = vec![0u8; ENTRY_BYTES * ENTRIES];
    for (entry, partition) in entries.chunks_exact_mut(ENTRY_BYTES).zip(partitions) {
        entry[0..16].copy_from_slice(&partition.type_guid);
        entry[16..32].copy_from_slice(&partition.guid);
        entry[32..40].copy_from_slice(&partition.start.to_le_bytes());
        entry[40..48].copy_from_slice(&(partition.start + partition.sectors - 1).to_le_bytes());
        for (unit, letter) in entry[56..]
            .chunks_exact_mut(2)
            .zip(partition.name.encode_utf16())
        {
            unit.copy_from_slice(&letter.to_le_bytes());
        }
    }
    Tables::around(&entries, sectors, disk_guid)
}

fn header(
    this: u64,
    other: u64,
    entries_at: u64,
    sectors: u64,
    disk_guid: [u8; 16],
    entries_crc: u32,
) -> [u8; SECTOR as usize] {
    let mut header = [0u8; SECTOR as usize];
    header[0..8].copy_from_slice(SIGNATURE);
    header[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
    header[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
    header[24..32].copy_from_slice(&this.to_le_bytes());
    header[32..40].copy_from_slice(&other.to_le_bytes());
    header[40..48].copy_from_slice(&FIRST_USABLE.to_le_bytes());
    header[48..56].copy_from_slice(&(sectors - BACKUP_SECTORS - 1).to_le_bytes());
    header[56..72].copy_from_slice(&disk_guid);
    header[72..80].copy_from_slice(&entries_at.to_le_bytes());
    header[80..84].copy_from_slice(&(ENTRIES as u32).to_le_bytes());
    header[84..88].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
    header[88..92].copy_from_slice(&entries_crc.to_le_bytes());
    // The header's own checksum is taken with its field zero.
    let crc = crc32(&header[..HEADER_BYTES]);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    header
}

/// Writes the partitions, then the protective entry, into a master boot record.
///
/// The first is marked active, because some BIOSes start no disk without such an entry;
/// the protective one must not be, or UEFI does not take it for one.
pub fn fill_boot_record(record: &mut [u8], partitions: &[Partition]) {
    let protective = (0xee, 1, FIRST_USABLE - 1);
    let entries = partitions
        .iter()
        .map(|partition| (partition.mbr_type, partition.start, partition.sectors))
        .chain([protective]);
    for (index, (kind, start, sectors)) in entries.take(4).enumerate() {
        let entry = &mut record[446 + 16 * index..][..16];
        entry[0] = if index == 0 { 0x80 } else { 0 };
        entry[1..4].copy_from_slice(&cylinder_head_sector(start));
        entry[4] = kind;
        entry[5..8].copy_from_slice(&cylinder_head_sector(start + sectors - 1));
        entry[8..12].copy_from_slice(&saturate(start).to_le_bytes());
        entry[12..16].copy_from_slice(&saturate(sectors).to_le_bytes());
    }
    record[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// A sector's place in the geometry that BIOSes assume of large disks, 255 heads of 63
/// sectors; beyond its end, the marker for that.
fn cylinder_head_sector(sector: u64) -> [u8; 3] {
    const HEADS: u64 = 255;
    const SECTORS: u64 = 63;
    const BEYOND: [u8; 3] = [0xfe, 0xff, 0xff];
    let cylinder = sector / (HEADS * SECTORS);
    if cylinder > 1023 {
        return BEYOND;
    }
    let head = sector / SECTORS % HEADS;
    let number = sector % SECTORS + 1;
    // The cylinder's upper two bits are beside the sector's number.
    [
        head as u8,
        number as u8 | (cylinder >> 2) as u8 & 0xc0,
        cylinder as u8,
    ]
}

fn saturate(sectors: u64) -> u32 {
    u32::try_from(sectors).unwrap_or(u32::MAX)
}

/// The CRC-32 of IEEE 802.3, reflected.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::{
        BACKUP_SECTORS, EFI_SYSTEM, FIRST_USABLE, Partition, SECTOR, Tables, crc32,
        cylinder_head_sector, fill_boot_record, tables,
    };

    fn partition() -> Partition {
        Partition {
            start: 2048,
            sectors: 100,
            type_guid: EFI_SYSTEM,
            guid: [7; 16],
            name: "files",
            mbr_type: 0x0e,
        }
    }

    #[test]
    fn places_in_the_assumed_geometry() {
        assert_eq!(cylinder_head_sector(0), [0, 1, 0]);
        assert_eq!(cylinder_head_sector(2048), [32, 33, 0]);
        assert_eq!(cylinder_head_sector(255 * 63 * 600), [0, 1 | 0x80, 88]);
        assert_eq!(cylinder_head_sector(255 * 63 * 1024), [0xfe, 0xff, 0xff]);
    }

    #[test]
    fn crc_of_the_standard_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn both_copies_point_at_each_other_and_carry_valid_checksums() {
        let tables = tables(10_000, [1; 16], &[partition()]);
        assert_eq!(tables.primary.len() as u64, (FIRST_USABLE - 1) * SECTOR);
        assert_eq!(tables.backup.len() as u64, BACKUP_SECTORS * SECTOR);
        let (first, entries) = tables.primary.split_at(512);
        let (backup_entries, last) = tables.backup.split_at(tables.backup.len() - 512);
        assert_eq!(entries, backup_entries);
        for (header, this, other) in [(first, 1, 9999), (last, 9999, 1)] {
            let word = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
            assert_eq!((word(24), word(32)), (this, other));
            assert_eq!(header[88..92], crc32(entries).to_le_bytes());
            let mut zeroed = header[..92].to_vec();
            zeroed[16..20].fill(0);
            assert_eq!(header[16..20], crc32(&zeroed).to_le_bytes());
        }
    }

    #[test]
    fn on_a_larger_disk_the_backup_moves_and_the_entries_stay() {
        let small = tables(10_000, [1; 16], &[partition()]);
        let large = tables(50_000, [1; 16], &[partition()]);
        let fitted = Tables::fitted(&small.primary, 50_000).unwrap();
        assert!(fitted.primary == large.primary && fitted.backup == large.backup);
        let mut damaged = small.primary.clone();
        damaged[600] ^= 1;
        assert!(Tables::fitted(&damaged, 50_000).is_err());
        assert!(Tables::fitted(&small.primary[1..], 50_000).is_err());
    }

    #[test]
    fn boot_record_keeps_its_code_and_ends_with_the_protective_entry() {
        let mut record = [0x90u8; 512];
        fill_boot_record(&mut record, &[partition()]);
        assert_eq!(record[..446], [0x90; 446]);
        assert_eq!((record[446], record[450]), (0x80, 0x0e));
        // UEFI 2.10, 5.2.3: not active, from head 0, sector 2, which is block 1.
        let protective = &record[446 + 16..][..16];
        assert_eq!(protective[..5], [0, 0, 2, 0, 0xee]);
        assert_eq!(protective[8..12], 1u32.to_le_bytes());
        assert_eq!(record[510..], [0x55, 0xaa]);
    }
}
