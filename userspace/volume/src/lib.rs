//! Disks that people and other systems have written: partition tables and FAT
//! volumes, read only.
//!
//! * [`partitions`] lists what a GUID partition table or a master boot record says.
//! * [`Volume`] reads a FAT12, FAT16 or FAT32 volume with long names.
//!
//! The kernel looks for the partition `SKEP` with it, the owner's command line names
//! what it is about to erase. Everything on a disk is hostile: chains of clusters may
//! run in circles, sizes may lie. Whatever is read, the work and the memory are
//! bounded by the [`limits`](LIMITS).
#![no_std]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod bytes;
mod fat;
mod table;
mod window;

pub use fat::{Entry, Kind, Volume};
pub use table::{BASIC_DATA, Partition, Type, partitions};
pub use window::Window;

/// What is read at most, whatever a disk says.
pub const LIMITS: Limits = Limits {
    partitions: 256,
    folder_bytes: 1 << 20,
    depth: 8,
};

/// See [`LIMITS`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries of a partition table.
    pub partitions: usize,
    /// Bytes of one folder; what is beyond is not seen.
    pub folder_bytes: usize,
    /// Names in a path.
    pub depth: usize,
}

/// Something that holds bytes at offsets: a disk or a part of one.
pub trait ReadAt {
    /// How many bytes it has.
    fn len(&self) -> u64;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Read`]: it could not be read, or ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error>;
}

impl<M: ReadAt + ?Sized> ReadAt for &M {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        (**self).read_at(offset, buffer)
    }
}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let start = usize::try_from(offset).map_err(|_| Error::Read)?;
        let end = start.checked_add(buffer.len()).ok_or(Error::Read)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(Error::Read)?);
        Ok(())
    }
}

/// Why something could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The medium failed, or ends before.
    #[error("the medium cannot be read there")]
    Read,
    /// There is no FAT volume here.
    #[error("not a FAT volume")]
    NotFat,
    /// The volume contradicts itself.
    #[error("the volume is damaged: {0}")]
    Damaged(&'static str),
    /// There is no such file, or it is a folder.
    #[error("no such file")]
    NotFound,
    /// The file is longer than the reader wants.
    #[error("the file is longer than {0} bytes")]
    TooLong(usize),
    /// No memory for what was asked.
    #[error("not enough memory")]
    NoMemory,
}
