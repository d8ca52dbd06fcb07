//! A FAT16 volume, written once, every file in one run of clusters.
//!
//! FAT16 because the second BIOS stage reads no FAT32; own code because it then
//! is the same byte for byte on every build, and contiguous files load fastest.
//! Source: Microsoft's *FAT: General Overview of On-Disk Format* 1.03.

use crate::gpt::SECTOR;
use anyhow::{Result, ensure};
use std::{fs::File, os::unix::fs::FileExt as _};

/// A file of the volume's root folder.
pub struct RootFile<'a> {
    /// Name, at most [`LONG_NAME_MAX`] ASCII characters.
    pub name: &'a str,
    /// Content.
    pub data: &'a [u8],
}

/// Most characters in one long-name entry, which is all the BIOS stage reads.
pub const LONG_NAME_MAX: usize = 13;

const ROOT_ENTRIES: u64 = 512;
const ENTRY_BYTES: usize = 32;
const FATS: u64 = 2;
const RESERVED_SECTORS: u64 = 1;
/// FAT16 is told from its siblings by the number of clusters alone.
const CLUSTERS_MIN: u64 = 4085;
const CLUSTERS_MAX: u64 = 65_524;
const CLUSTER_BYTES_MIN: u64 = 2048;
const CLUSTER_BYTES_MAX: u64 = 32 << 10;
/// Room left beside the files.
const SPARE_BYTES: u64 = 256 << 10;
/// Folders inside the volume: EFI and EFI/BOOT, a cluster each.
const FOLDERS: u64 = 2;

const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTE_FILE: u8 = 0x20;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
/// The first of January 1980, the start of FAT's time, for every file.
const DATE: u16 = 0x0021;

/// Sizes and places within the volume, in sectors unless named otherwise.
pub struct Layout {
    cluster_bytes: u64,
    clusters: u64,
    fat_sectors: u64,
}

impl Layout {
    /// Chooses the largest clusters that still make a FAT16 volume, for files
    /// of the given lengths.
    pub fn for_files(lengths: impl Iterator<Item = u64> + Clone) -> Result<Self> {
        let mut cluster_bytes = CLUSTER_BYTES_MAX;
        let clusters = loop {
            let used: u64 = lengths.clone().map(|len| len.div_ceil(cluster_bytes)).sum();
            let wanted = used + FOLDERS + SPARE_BYTES.div_ceil(cluster_bytes);
            if wanted >= CLUSTERS_MIN || cluster_bytes == CLUSTER_BYTES_MIN {
                break wanted.max(CLUSTERS_MIN);
            }
            cluster_bytes /= 2;
        };
        ensure!(
            clusters <= CLUSTERS_MAX,
            "the boot volume would hold {} MiB; at most {} fit",
            (clusters * cluster_bytes) >> 20,
            (CLUSTERS_MAX * CLUSTER_BYTES_MAX) >> 20
        );
        // Two bytes a cluster, and two entries that stand for no cluster.
        let fat_sectors = ((clusters + 2) * 2).div_ceil(SECTOR);
        Ok(Self {
            cluster_bytes,
            clusters,
            fat_sectors,
        })
    }

    /// Length of the volume in sectors.
    pub fn sectors(&self) -> u64 {
        self.data_sector() + self.clusters * self.cluster_bytes / SECTOR
    }

    fn root_sector(&self) -> u64 {
        RESERVED_SECTORS + FATS * self.fat_sectors
    }

    fn data_sector(&self) -> u64 {
        self.root_sector() + ROOT_ENTRIES * ENTRY_BYTES as u64 / SECTOR
    }
}

/// Writes a volume at `offset` bytes into `disk`, which must read as zeroes there:
/// `files` in the root folder and `uefi` as the default UEFI program.
pub fn write(
    disk: &File,
    offset: u64,
    layout: &Layout,
    files: &[RootFile<'_>],
    uefi: &[u8],
) -> Result<()> {
    let mut volume = Writer {
        disk,
        offset,
        layout,
        fat: vec![0xfff8, 0xffff],
        root: Vec::new(),
    };
    volume
        .root
        .extend(entry(b"SKEP       ", ATTRIBUTE_LABEL, 0, 0));
    for (index, file) in files.iter().enumerate() {
        volume.root_file(index, file)?;
    }
    volume.uefi_program(uefi)?;
    volume.finish()
}

struct Writer<'a> {
    disk: &'a File,
    offset: u64,
    layout: &'a Layout,
    /// The file allocation table so far; its length is the next free cluster.
    fat: Vec<u16>,
    root: Vec<u8>,
}

impl Writer<'_> {
    /// Stores `data` in the next free clusters and returns the first, or 0 when
    /// there is nothing to store.
    fn store(&mut self, data: &[u8]) -> Result<u16> {
        let count = (data.len() as u64).div_ceil(self.layout.cluster_bytes);
        let first = self.fat.len() as u64;
        ensure!(
            first - 2 + count <= self.layout.clusters,
            "the boot volume is full"
        );
        for cluster in first..first + count {
            let last = cluster + 1 == first + count;
            self.fat.push(if last {
                0xffff
            } else {
                u16::try_from(cluster + 1)?
            });
        }
        let at = self.layout.data_sector() * SECTOR + (first - 2) * self.layout.cluster_bytes;
        self.disk.write_all_at(data, self.offset + at)?;
        Ok(if count == 0 { 0 } else { u16::try_from(first)? })
    }

    fn root_file(&mut self, index: usize, file: &RootFile<'_>) -> Result<()> {
        ensure!(
            file.name.is_ascii() && (1..=LONG_NAME_MAX).contains(&file.name.len()),
            "the file name {:?} does not fit the boot volume",
            file.name
        );
        let cluster = self.store(file.data)?;
        // Nobody looks for the short name; it only has to be unlike the others.
        let mut short = *b"SKEP~00    ";
        short[5] += u8::try_from(index / 10)?;
        short[6] += u8::try_from(index % 10)?;
        self.root.extend(long_name(file.name, &short));
        self.root.extend(entry(
            &short,
            ATTRIBUTE_FILE,
            cluster,
            u32::try_from(file.data.len())?,
        ));
        Ok(())
    }

    /// `EFI/BOOT/BOOTX64.EFI`, what firmware starts from a disk it does not know.
    fn uefi_program(&mut self, data: &[u8]) -> Result<()> {
        let program = self.store(data)?;
        let file = entry(
            b"BOOTX64 EFI",
            ATTRIBUTE_FILE,
            program,
            u32::try_from(data.len())?,
        );
        let boot = u16::try_from(self.fat.len())?;
        let efi = boot + 1;
        self.store(&folder(boot, efi, &file))?;
        self.store(&folder(
            efi,
            0,
            &entry(b"BOOT       ", ATTRIBUTE_FOLDER, boot, 0),
        ))?;
        self.root
            .extend(entry(b"EFI        ", ATTRIBUTE_FOLDER, efi, 0));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        ensure!(
            self.root.len() <= ROOT_ENTRIES as usize * ENTRY_BYTES,
            "too many files in the boot volume's root folder"
        );
        let fat: Vec<u8> = self
            .fat
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        for copy in 0..FATS {
            let at = (RESERVED_SECTORS + copy * self.layout.fat_sectors) * SECTOR;
            self.disk.write_all_at(&fat, self.offset + at)?;
        }
        let root_at = self.layout.root_sector() * SECTOR;
        self.disk.write_all_at(&self.root, self.offset + root_at)?;
        let hidden = self.offset / SECTOR;
        self.disk
            .write_all_at(&boot_sector(self.layout, hidden), self.offset)?;
        Ok(())
    }
}

/// A folder's content: itself, its parent (0 for the root) and one entry.
fn folder(this: u16, parent: u16, child: &[u8]) -> Vec<u8> {
    [
        entry(b".          ", ATTRIBUTE_FOLDER, this, 0).as_slice(),
        &entry(b"..         ", ATTRIBUTE_FOLDER, parent, 0),
        child,
    ]
    .concat()
}

/// A folder entry with a short name.
fn entry(name: &[u8; 11], attributes: u8, cluster: u16, len: u32) -> [u8; ENTRY_BYTES] {
    let mut entry = [0u8; ENTRY_BYTES];
    entry[0..11].copy_from_slice(name);
    entry[11] = attributes;
    for date_at in [16, 18, 24] {
        entry[date_at..date_at + 2].copy_from_slice(&DATE.to_le_bytes());
    }
    entry[26..28].copy_from_slice(&cluster.to_le_bytes());
    entry[28..32].copy_from_slice(&len.to_le_bytes());
    entry
}

/// The one long-name entry that goes before the short one.
fn long_name(name: &str, short: &[u8; 11]) -> [u8; ENTRY_BYTES] {
    /// Where the 13 UTF-16 units stand in the entry.
    const UNITS_AT: [usize; LONG_NAME_MAX] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    const ONLY_AND_LAST: u8 = 0x41;
    let mut entry = [0u8; ENTRY_BYTES];
    entry[0] = ONLY_AND_LAST;
    entry[11] = ATTRIBUTE_LONG_NAME;
    entry[13] = short
        .iter()
        .fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
    let units = name
        .encode_utf16()
        .chain([0])
        .chain(std::iter::repeat(0xffff));
    for (at, unit) in UNITS_AT.into_iter().zip(units) {
        entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
    }
    entry
}

/// The volume's first sector: the BIOS parameter block.
fn boot_sector(layout: &Layout, hidden_sectors: u64) -> [u8; SECTOR as usize] {
    let mut sector = [0u8; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"SKEP    ");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[(layout.cluster_bytes / SECTOR) as u8]);
    put(14, &(RESERVED_SECTORS as u16).to_le_bytes());
    put(16, &[FATS as u8]);
    put(17, &(ROOT_ENTRIES as u16).to_le_bytes());
    put(21, &[0xf8]);
    put(22, &(layout.fat_sectors as u16).to_le_bytes());
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(28, &(hidden_sectors as u32).to_le_bytes());
    let sectors = layout.sectors();
    match u16::try_from(sectors) {
        Ok(short) => put(19, &short.to_le_bytes()),
        Err(_) => put(32, &(sectors as u32).to_le_bytes()),
    }
    put(36, &[0x80, 0, 0x29]);
    put(39, &0x534b_4550u32.to_le_bytes());
    put(43, b"SKEP       ");
    put(54, b"FAT16   ");
    put(510, &[0x55, 0xaa]);
    sector
}
