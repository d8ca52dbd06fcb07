//! A FAT16 volume, written once, every file in one run of clusters.
//!
//! Own code because it then is the same byte for byte on every build, and our loaders read
//! contiguous files without knowing the format.
//! Source: Microsoft's *FAT: General Overview of On-Disk Format* 1.03.

mod names;

use crate::gpt::SECTOR;
use anyhow::{Result, ensure};
use names::Name;
use std::{fs::File, os::unix::fs::FileExt as _};

/// A file or folder of a volume.
#[derive(Clone, Debug)]
pub enum Item<'a> {
    /// A file.
    File {
        /// Its name, ASCII.
        name: &'a str,
        /// Its content.
        data: &'a [u8],
    },
    /// A folder.
    Folder {
        /// Its name, ASCII.
        name: &'a str,
        /// What is in it.
        items: Vec<Item<'a>>,
    },
}

const ROOT_ENTRIES: u64 = 512;
const ENTRY_BYTES: usize = 32;
const FATS: u64 = 2;
/// Sectors before the tables: the boot sector, or more for [`Layout::with_head`].
const RESERVED_SECTORS: u64 = 1;
/// Where a head ends, in sectors, and what files then begin on.
const HEAD_SECTORS: u64 = 8;
/// FAT16 is told from its siblings by the number of clusters alone.
const CLUSTERS_MIN: u64 = 4085;
const CLUSTERS_MAX: u64 = 65_524;
const CLUSTER_BYTES_MIN: u64 = 2048;
const CLUSTER_BYTES_MAX: u64 = 32 << 10;
/// Room left beside the files.
const SPARE_BYTES: u64 = 256 << 10;

const ATTRIBUTE_LABEL: u8 = 0x08;
const ATTRIBUTE_FOLDER: u8 = 0x10;
const ATTRIBUTE_FILE: u8 = 0x20;
/// The first of January 1980, the start of FAT's time, for every file.
const DATE: u16 = 0x0021;

/// Sizes and places within the volume, in sectors unless named otherwise.
pub struct Layout {
    reserved: u64,
    cluster_bytes: u64,
    clusters: u64,
    fat_sectors: u64,
}

impl Layout {
    /// Chooses the largest clusters that still make a FAT16 volume, for these files
    /// and little more.
    pub fn for_items(items: &[Item<'_>]) -> Result<Self> {
        Self::with_clusters_from(CLUSTER_BYTES_MIN, items)
    }

    /// As [`Self::for_items`], with room for a head of 3584 bytes behind the boot
    /// sector, and with every file on a multiple of 4096 bytes.
    pub fn with_head(items: &[Item<'_>]) -> Result<Self> {
        let mut layout = Self::with_clusters_from(HEAD_SECTORS * SECTOR, items)?;
        layout.reserved = HEAD_SECTORS;
        layout.reserved +=
            layout.data_sector().next_multiple_of(HEAD_SECTORS) - layout.data_sector();
        Ok(layout)
    }

    fn with_clusters_from(cluster_bytes_min: u64, items: &[Item<'_>]) -> Result<Self> {
        let mut cluster_bytes = CLUSTER_BYTES_MAX;
        let clusters = loop {
            let wanted = clusters_of(items, cluster_bytes) + SPARE_BYTES.div_ceil(cluster_bytes);
            if wanted >= CLUSTERS_MIN || cluster_bytes == cluster_bytes_min {
                break wanted.max(CLUSTERS_MIN);
            }
            cluster_bytes /= 2;
        };
        Self::new(cluster_bytes, clusters)
    }

    /// A volume with room for `bytes` bytes of files.
    pub fn with_room(bytes: u64) -> Result<Self> {
        let fits = |cluster: &u64| bytes.div_ceil(*cluster) <= CLUSTERS_MAX;
        let sizes = std::iter::successors(Some(CLUSTER_BYTES_MIN), |size| Some(size * 2));
        let cluster_bytes = sizes
            .take_while(|size| *size <= CLUSTER_BYTES_MAX)
            .find(fits)
            .unwrap_or(CLUSTER_BYTES_MAX);
        Self::new(
            cluster_bytes,
            bytes.div_ceil(cluster_bytes).max(CLUSTERS_MIN),
        )
    }

    fn new(cluster_bytes: u64, clusters: u64) -> Result<Self> {
        ensure!(
            clusters <= CLUSTERS_MAX,
            "the volume would hold {} MiB; at most {} fit",
            (clusters * cluster_bytes) >> 20,
            (CLUSTERS_MAX * CLUSTER_BYTES_MAX) >> 20
        );
        // Two bytes a cluster, and two entries that stand for no cluster.
        let fat_sectors = ((clusters + 2) * 2).div_ceil(SECTOR);
        Ok(Self {
            reserved: RESERVED_SECTORS,
            cluster_bytes,
            clusters,
            fat_sectors,
        })
    }

    /// Length of the volume in sectors.
    pub fn sectors(&self) -> u64 {
        self.data_sector() + self.clusters * self.cluster_bytes / SECTOR
    }

    /// Bytes up to the last one that these items use; what follows may be anything.
    pub fn used_bytes(&self, items: &[Item<'_>]) -> u64 {
        self.data_sector() * SECTOR + clusters_of(items, self.cluster_bytes) * self.cluster_bytes
    }

    fn root_sector(&self) -> u64 {
        self.reserved + FATS * self.fat_sectors
    }

    fn data_sector(&self) -> u64 {
        self.root_sector() + ROOT_ENTRIES * ENTRY_BYTES as u64 / SECTOR
    }
}

/// Clusters that items need, everything below them included.
fn clusters_of(items: &[Item<'_>], cluster_bytes: u64) -> u64 {
    let of = |item: &Item<'_>| match item {
        Item::File { data, .. } => (data.len() as u64).div_ceil(cluster_bytes),
        Item::Folder { items, .. } => {
            folder_bytes(items).div_ceil(cluster_bytes) + clusters_of(items, cluster_bytes)
        }
    };
    items.iter().map(of).sum()
}

/// Bytes of a folder with these items, and with the entries for itself and its parent.
fn folder_bytes(items: &[Item<'_>]) -> u64 {
    let entries: usize = items.iter().map(|item| Name::entries(name_of(item))).sum();
    ((2 + entries) * ENTRY_BYTES) as u64
}

fn name_of<'a>(item: &Item<'a>) -> &'a str {
    match item {
        Item::File { name, .. } | Item::Folder { name, .. } => name,
    }
}

/// What a volume is called.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its label, filled up with spaces.
    pub label: [u8; 11],
    /// Its serial number.
    pub serial: u32,
}

/// Writes a volume with these items in its root folder at `offset` bytes into `disk`,
/// which must read as zeroes there. Returns where the files of the root folder begin,
/// in bytes from the beginning of the volume; 0 for an empty one.
pub fn write(
    disk: &File,
    offset: u64,
    layout: &Layout,
    identity: Identity,
    items: &[Item<'_>],
) -> Result<Vec<(String, u64)>> {
    let mut volume = Writer {
        disk,
        offset,
        layout,
        fat: vec![0xfff8, 0xffff],
        places: Vec::new(),
    };
    let mut root = entry(&identity.label, ATTRIBUTE_LABEL, 0, 0).to_vec();
    // The root folder is cluster 0 in the entries of folders below it.
    root.extend(volume.items(0, items)?);
    ensure!(
        root.len() <= ROOT_ENTRIES as usize * ENTRY_BYTES,
        "too many files in the volume's root folder"
    );
    let root_at = layout.root_sector() * SECTOR;
    disk.write_all_at(&root, offset + root_at)?;
    volume.finish(identity)?;
    Ok(volume.places)
}

struct Writer<'a> {
    disk: &'a File,
    offset: u64,
    layout: &'a Layout,
    /// The file allocation table so far; its length is the next free cluster.
    fat: Vec<u16>,
    /// Files of the root folder, and where they begin.
    places: Vec<(String, u64)>,
}

impl Writer<'_> {
    /// Takes the next free clusters for `bytes` bytes and returns the first, or 0 when
    /// there is nothing to store.
    fn reserve(&mut self, bytes: u64) -> Result<u16> {
        let count = bytes.div_ceil(self.layout.cluster_bytes);
        let first = self.fat.len() as u64;
        ensure!(
            first - 2 + count <= self.layout.clusters,
            "the volume is full: it has room for {} MiB",
            (self.layout.clusters * self.layout.cluster_bytes) >> 20
        );
        for cluster in first..first + count {
            let last = cluster + 1 == first + count;
            self.fat.push(if last {
                0xffff
            } else {
                u16::try_from(cluster + 1)?
            });
        }
        Ok(if count == 0 { 0 } else { u16::try_from(first)? })
    }

    /// Writes `data` to clusters reserved for it.
    fn fill(&self, first: u16, data: &[u8]) -> Result<()> {
        if first != 0 {
            let at = self.offset + self.place(first);
            self.disk.write_all_at(data, at)?;
        }
        Ok(())
    }

    /// Where a cluster begins in the volume, in bytes; 0 for none.
    fn place(&self, cluster: u16) -> u64 {
        let Some(before) = u64::from(cluster).checked_sub(2) else {
            return 0;
        };
        self.layout.data_sector() * SECTOR + before * self.layout.cluster_bytes
    }

    /// Stores items and returns their folder entries. `parent` is their folder's cluster.
    fn items(&mut self, parent: u16, items: &[Item<'_>]) -> Result<Vec<u8>> {
        let mut entries = Vec::new();
        for (number, item) in items.iter().enumerate() {
            let name = Name::new(name_of(item), number)?;
            let (attribute, cluster, len) = match item {
                Item::File { data, .. } => {
                    let cluster = self.reserve(data.len() as u64)?;
                    self.fill(cluster, data)?;
                    if parent == 0 {
                        let place = (name_of(item).to_string(), self.place(cluster));
                        self.places.push(place);
                    }
                    (ATTRIBUTE_FILE, cluster, u32::try_from(data.len())?)
                }
                Item::Folder { items, .. } => {
                    let cluster = self.reserve(folder_bytes(items))?;
                    let mut folder = entry(b".          ", ATTRIBUTE_FOLDER, cluster, 0).to_vec();
                    folder.extend(entry(b"..         ", ATTRIBUTE_FOLDER, parent, 0));
                    folder.extend(self.items(cluster, items)?);
                    self.fill(cluster, &folder)?;
                    (ATTRIBUTE_FOLDER, cluster, 0)
                }
            };
            entries.extend(name.long_entries());
            entries.extend(entry(&name.short, attribute, cluster, len));
        }
        Ok(entries)
    }

    /// Writes what is known only at the end: the tables and the boot sector.
    fn finish(&self, identity: Identity) -> Result<()> {
        let fat: Vec<u8> = self
            .fat
            .iter()
            .flat_map(|entry| entry.to_le_bytes())
            .collect();
        for copy in 0..FATS {
            let at = (self.layout.reserved + copy * self.layout.fat_sectors) * SECTOR;
            self.disk.write_all_at(&fat, self.offset + at)?;
        }
        // A volume with a head may be moved, and nobody reads the number.
        let hidden = match self.layout.reserved {
            RESERVED_SECTORS => self.offset / SECTOR,
            _ => 0,
        };
        let sector = boot_sector(self.layout, identity, hidden);
        self.disk.write_all_at(&sector, self.offset)?;
        Ok(())
    }
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

/// The volume's first sector: the BIOS parameter block.
fn boot_sector(layout: &Layout, identity: Identity, hidden_sectors: u64) -> [u8; SECTOR as usize] {
    let mut sector = [0u8; SECTOR as usize];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &[0xeb, 0x3c, 0x90]);
    put(3, b"SKEP    ");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[(layout.cluster_bytes / SECTOR) as u8]);
    put(14, &(layout.reserved as u16).to_le_bytes());
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
    put(39, &identity.serial.to_le_bytes());
    put(43, &identity.label);
    put(54, b"FAT16   ");
    put(510, &[0x55, 0xaa]);
    sector
}
