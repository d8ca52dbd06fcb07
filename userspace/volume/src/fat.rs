//! A FAT12, FAT16 or FAT32 volume with long names, read only.
//!
//! Source: Microsoft's *FAT: General Overview of On-Disk Format* 1.03.

mod folder;

use crate::bytes::{u8_at, u16_at, u32_at};
use crate::{Error, LIMITS, ReadAt};
use alloc::string::String;
use alloc::vec::Vec;
use folder::Record;
pub use folder::{Entry, Kind};

/// First cluster that holds anything.
const FIRST: u32 = 2;
/// Below these numbers of clusters a volume is FAT12, FAT16; else FAT32.
const FAT16_CLUSTERS: u32 = 4085;
const FAT32_CLUSTERS: u32 = 65_525;
/// Largest sector and cluster that Microsoft's paper allows, in bytes.
const SECTOR_MAX: u64 = 4096;
const CLUSTER_MAX: u64 = 64 << 10;
const ROOT_ENTRY_BYTES: u64 = 32;

/// How wide an entry of the allocation table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

/// Where the root folder is.
#[derive(Clone, Copy, Debug)]
enum Root {
    /// A place of its own: offset and bytes.
    Fixed(u64, u64),
    /// A folder like others.
    Cluster(u32),
}

/// A volume. Nothing of it is kept in memory: give a [`Window`](crate::Window) to
/// volumes on slow media.
pub struct Volume<M> {
    medium: M,
    /// Offset of the volume on the medium.
    start: u64,
    width: Width,
    fat_at: u64,
    root: Root,
    /// Offset of cluster 2.
    data_at: u64,
    cluster_bytes: u64,
    /// Number of the last cluster.
    last_cluster: u32,
    /// The label in the boot sector.
    label: [u8; 11],
}

impl<M: ReadAt> Volume<M> {
    /// Opens the volume in the `len` bytes at `start`.
    ///
    /// # Errors
    /// [`Error::NotFat`], [`Error::Damaged`], [`Error::Read`].
    pub fn open(medium: M, start: u64, len: u64) -> Result<Self, Error> {
        let mut sector = [0; 512];
        if len < 512 {
            return Err(Error::NotFat);
        }
        medium.read_at(start, &mut sector)?;
        let bytes_per_sector = u64::from(u16_at(&sector, 11));
        let cluster_bytes = u64::from(u8_at(&sector, 13)) * bytes_per_sector;
        let reserved = u64::from(u16_at(&sector, 14));
        let fats = u64::from(u8_at(&sector, 16));
        let is_fat = sector.ends_with(&[0x55, 0xaa])
            && bytes_per_sector.is_power_of_two()
            && (512..=SECTOR_MAX).contains(&bytes_per_sector)
            && cluster_bytes.is_power_of_two()
            && cluster_bytes <= CLUSTER_MAX
            && reserved > 0
            && (1..=2).contains(&fats);
        if !is_fat {
            return Err(Error::NotFat);
        }
        let either = |short: u16, long: u32| match short {
            0 => u64::from(long),
            short => u64::from(short),
        };
        let fat_sectors = either(u16_at(&sector, 22), u32_at(&sector, 36));
        let sectors = either(u16_at(&sector, 19), u32_at(&sector, 32));
        let root_bytes = u64::from(u16_at(&sector, 17)) * ROOT_ENTRY_BYTES;
        // None of these can overflow: the factors have 32 and 13 bits.
        let fat_at = reserved * bytes_per_sector;
        let root_at = fat_at + fats * fat_sectors * bytes_per_sector;
        let data_at = root_at + root_bytes.next_multiple_of(bytes_per_sector);
        let total = sectors * bytes_per_sector;
        if fat_sectors == 0 || total > len || data_at >= total {
            return Err(Error::NotFat);
        }
        let clusters = u32::try_from((total - data_at) / cluster_bytes);
        let clusters = clusters.map_err(|_| Error::NotFat)?;
        let (width, label_at) = match clusters {
            0..FAT16_CLUSTERS => (Width::Twelve, 43),
            FAT16_CLUSTERS..FAT32_CLUSTERS => (Width::Sixteen, 43),
            _ => (Width::ThirtyTwo, 71),
        };
        let root = match width {
            Width::ThirtyTwo => Root::Cluster(u32_at(&sector, 44)),
            _ => Root::Fixed(start.saturating_add(root_at), root_bytes),
        };
        // The table says how many clusters there can be too.
        let told = match width {
            Width::Twelve => fat_sectors * bytes_per_sector * 2 / 3,
            Width::Sixteen => fat_sectors * bytes_per_sector / 2,
            Width::ThirtyTwo => fat_sectors * bytes_per_sector / 4,
        };
        let last_cluster = u32::try_from(told)
            .unwrap_or(u32::MAX)
            .saturating_sub(1)
            .min(clusters.saturating_add(1));
        Ok(Self {
            medium,
            start,
            width,
            fat_at: start.saturating_add(fat_at),
            root,
            data_at: start.saturating_add(data_at),
            cluster_bytes,
            last_cluster,
            label: crate::bytes::array(&sector, label_at),
        })
    }

    /// Where the volume begins on its medium, in bytes.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The volume's label, without trailing spaces: that of the root folder or, without
    /// one there, that of the boot sector.
    ///
    /// # Errors
    /// As [`Volume::list`].
    pub fn label(&self) -> Result<String, Error> {
        let mut found = None;
        self.walk(self.root, |record| {
            if let Record::Label(label) = record {
                found.get_or_insert(label);
            }
            Ok(())
        })?;
        let label = found.unwrap_or(self.label);
        let text = label.iter().map(|byte| folder::letter(*byte));
        let text: String = text.collect();
        let text = text.trim_end_matches([' ', '\0']);
        // What tools write who give none.
        Ok(match text {
            "NO NAME" => String::new(),
            text => String::from(text),
        })
    }

    /// The entries of a folder; the path's names are separated by `/`, and "" is the
    /// root. Capitals are as good as small letters.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Damaged`], [`Error::Read`], [`Error::NoMemory`].
    pub fn list(&self, path: &str) -> Result<Vec<Entry>, Error> {
        let root = match path.trim_matches('/') {
            "" => self.root,
            path => match self.find(path)? {
                Entry {
                    kind: Kind::Folder,
                    cluster,
                    ..
                } => Root::Cluster(cluster),
                _ => return Err(Error::NotFound),
            },
        };
        self.entries(root)
    }

    /// The content of a file of at most `max` bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooLong`]; [`Error::Damaged`], [`Error::Read`],
    /// [`Error::NoMemory`].
    pub fn read(&self, path: &str, max: usize) -> Result<Vec<u8>, Error> {
        let entry = self.find(path.trim_matches('/'))?;
        let Kind::File { len } = entry.kind else {
            return Err(Error::NotFound);
        };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > max {
            return Err(Error::TooLong(max));
        }
        let mut data = Vec::new();
        data.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
        let mut cluster = entry.cluster;
        while data.len() < len {
            let at = self.place(cluster)?;
            let here = (len - data.len()).min(self.cluster_bytes as usize);
            let from = data.len();
            data.resize(from + here, 0);
            self.medium
                .read_at(at, data.get_mut(from..).unwrap_or_default())?;
            if data.len() < len {
                // Each step fills a part of `len`: a circle ends too.
                cluster = self
                    .next(cluster)?
                    .ok_or(Error::Damaged("a file ends early"))?;
            }
        }
        Ok(data)
    }

    /// The entry at a path that is not the root.
    fn find(&self, path: &str) -> Result<Entry, Error> {
        let mut folder = self.root;
        let mut names = path.split('/').take(LIMITS.depth).peekable();
        while let Some(name) = names.next() {
            let mut entries = self.entries(folder)?.into_iter();
            let found = entries
                .find(|entry| entry.is_called(name))
                .ok_or(Error::NotFound)?;
            match (names.peek(), found.kind) {
                (None, _) => return Ok(found),
                (Some(_), Kind::Folder) => folder = Root::Cluster(found.cluster),
                (Some(_), Kind::File { .. }) => return Err(Error::NotFound),
            }
        }
        Err(Error::NotFound)
    }

    fn entries(&self, root: Root) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        self.walk(root, |record| {
            if let Record::Entry(entry) = record {
                entries.try_reserve(1).map_err(|_| Error::NoMemory)?;
                entries.push(entry);
            }
            Ok(())
        })?;
        Ok(entries)
    }

    /// Calls `found` with everything in a folder, up to [`LIMITS`]`.folder_bytes`.
    fn walk(
        &self,
        root: Root,
        mut found: impl FnMut(Record) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut reader = folder::Reader::new();
        let mut read = 0u64;
        let (mut at, mut here, mut cluster) = match root {
            Root::Fixed(at, len) => (at, len, None),
            Root::Cluster(cluster) => (self.place(cluster)?, self.cluster_bytes, Some(cluster)),
        };
        loop {
            let mut raw = [0; folder::ENTRY_BYTES];
            let mut done = 0;
            while done + raw.len() as u64 <= here {
                if read >= LIMITS.folder_bytes as u64 {
                    return Ok(());
                }
                self.medium.read_at(at.saturating_add(done), &mut raw)?;
                done += raw.len() as u64;
                read += raw.len() as u64;
                match reader.take(&raw) {
                    Record::End => return Ok(()),
                    Record::Entry(mut entry) => {
                        // The upper half is FAT32's; older systems kept other things there.
                        if self.width != Width::ThirtyTwo {
                            entry.cluster &= 0xffff;
                        }
                        found(Record::Entry(entry))?;
                    }
                    record => found(record)?,
                }
            }
            // The limit on what is read ends a circle.
            match cluster.map(|c| self.next(c)).transpose()?.flatten() {
                Some(next) => {
                    cluster = Some(next);
                    (at, here) = (self.place(next)?, self.cluster_bytes);
                }
                None => return Ok(()),
            }
        }
    }

    /// Where a cluster is on the medium.
    fn place(&self, cluster: u32) -> Result<u64, Error> {
        if !(FIRST..=self.last_cluster).contains(&cluster) {
            return Err(Error::Damaged("a cluster that there is not"));
        }
        let before = u64::from(cluster - FIRST) * self.cluster_bytes;
        Ok(self.data_at.saturating_add(before))
    }

    /// The cluster after `cluster`, which exists; `None` at the end of the chain.
    fn next(&self, cluster: u32) -> Result<Option<u32>, Error> {
        let entry = |at: u64, bytes: &mut [u8]| {
            let place = self.fat_at.saturating_add(at);
            self.medium.read_at(place, bytes)
        };
        let number = u64::from(cluster);
        let (next, end) = match self.width {
            Width::Twelve => {
                let mut pair = [0; 2];
                entry(number + number / 2, &mut pair)?;
                let pair = u32::from(u16::from_le_bytes(pair));
                let shift = if cluster & 1 == 1 { 4 } else { 0 };
                (pair >> shift & 0xfff, 0xff7)
            }
            Width::Sixteen => {
                let mut bytes = [0; 2];
                entry(number * 2, &mut bytes)?;
                (u32::from(u16::from_le_bytes(bytes)), 0xfff7)
            }
            Width::ThirtyTwo => {
                let mut bytes = [0; 4];
                entry(number * 4, &mut bytes)?;
                (u32::from_le_bytes(bytes) & 0x0fff_ffff, 0x0fff_fff7)
            }
        };
        if next == end {
            return Err(Error::Damaged("a bad cluster in use"));
        }
        Ok((next < end).then_some(next))
    }
}
