//! The partition tables of a disk that both firmwares boot.
//!
//! UEFI reads the GUID partition table (UEFI 2.10, chapter 5); the BIOS stages
//! read the four entries of the master boot record, where the same partitions
//! stand beside the protective entry that UEFI asks for.

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Sectors before the first partition: boot record, header, 128 entries.
pub const FIRST_USABLE: u64 = 34;

/// Sectors after the last partition: the backup entries and header.
pub const BACKUP_SECTORS: u64 = 33;

const ENTRY_BYTES: usize = 128;
const ENTRIES: usize = 128;
const ENTRIES_SECTORS: u64 = (ENTRY_BYTES * ENTRIES) as u64 / SECTOR;

/// Type of the EFI system partition, C12A7328-F81F-11D2-BA4B-00A0C93EC93B.
pub const EFI_SYSTEM: [u8; 16] = [
    0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b,
];

/// Type of a BIOS boot partition, 21686148-6449-6E6F-744E-656564454649.
pub const BIOS_BOOT: [u8; 16] = *b"Hah!IdontNeedEFI";

/// One partition.
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
    /// Type byte in the master boot record.
    pub mbr_type: u8,
}

/// The bytes of both copies of the table.
pub struct Tables {
    /// For sector 1 onwards: header, then entries.
    pub primary: Vec<u8>,
    /// For the last [`BACKUP_SECTORS`] sectors: entries, then header.
    pub backup: Vec<u8>,
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
    let last = sectors - 1;
    let entries_crc = crc32(&entries);
    let header =
        |this, other, entries_at| header(this, other, entries_at, sectors, disk_guid, entries_crc);
    let primary_header = header(1, last, 2);
    let backup_header = header(last, 1, last - ENTRIES_SECTORS);
    Tables {
        primary: [primary_header.as_slice(), &entries].concat(),
        backup: [entries.as_slice(), &backup_header].concat(),
    }
}

fn header(
    this: u64,
    other: u64,
    entries_at: u64,
    sectors: u64,
    disk_guid: [u8; 16],
    entries_crc: u32,
) -> [u8; SECTOR as usize] {
    const HEADER_BYTES: usize = 92;
    let mut header = [0u8; SECTOR as usize];
    header[0..8].copy_from_slice(b"EFI PART");
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
/// The second BIOS stage looks for its own partition and takes the next entry
/// as the one with the files, so the order of `partitions` matters.
pub fn fill_boot_record(record: &mut [u8], partitions: &[Partition]) {
    let protective = (0xee, 1, FIRST_USABLE - 1);
    let entries = partitions
        .iter()
        .map(|partition| (partition.mbr_type, partition.start, partition.sectors))
        .chain([protective]);
    for (index, (kind, start, sectors)) in entries.take(4).enumerate() {
        let entry = &mut record[446 + 16 * index..][..16];
        entry.fill(0);
        entry[0] = if index == 0 { 0x80 } else { 0 };
        entry[4] = kind;
        entry[8..12].copy_from_slice(&saturate(start).to_le_bytes());
        entry[12..16].copy_from_slice(&saturate(sectors).to_le_bytes());
    }
    record[510..512].copy_from_slice(&[0x55, 0xaa]);
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
        BACKUP_SECTORS, EFI_SYSTEM, FIRST_USABLE, Partition, SECTOR, crc32, fill_boot_record,
        tables,
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
    fn boot_record_keeps_its_code_and_ends_with_the_protective_entry() {
        let mut record = [0x90u8; 512];
        fill_boot_record(&mut record, &[partition()]);
        assert_eq!(record[..446], [0x90; 446]);
        assert_eq!((record[446], record[450]), (0x80, 0x0e));
        assert_eq!(record[446 + 16 + 4], 0xee);
        assert_eq!(record[510..], [0x55, 0xaa]);
    }
}
