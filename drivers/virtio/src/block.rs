//! Block devices, as those above them see them.

use core::fmt;
use machine::frame::Frame;

/// Bytes of a sector, the unit of every address here.
pub const SECTOR: usize = 512;

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The device says that it failed (`EIO`).
    Failed,
    /// It did not answer, not even after a reset (`EIO`).
    TimedOut,
    /// It has been given up (`ENODEV`).
    Gone,
    /// Beyond its end, or not whole sectors (`EINVAL`).
    OutOfRange,
    /// It cannot be written (`EROFS`).
    ReadOnly,
    /// It does not know this operation (`EOPNOTSUPP`).
    Unsupported,
    /// No memory for the transfer (`ENOMEM`).
    NoMemory,
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BlockError::Failed => "the device reports a failure",
            BlockError::TimedOut => "the device does not answer",
            BlockError::Gone => "the device has been given up",
            BlockError::OutOfRange => "not whole sectors of the device",
            BlockError::ReadOnly => "the device cannot be written",
            BlockError::Unsupported => "the device cannot do this",
            BlockError::NoMemory => "no memory for the transfer",
        })
    }
}

/// A disk. All transfers sleep until they are done; any number of threads may have
/// one under way.
pub trait BlockDevice: Send + Sync {
    /// How many sectors it has.
    fn sectors(&self) -> u64;

    /// Bytes it writes at once without reading first: a multiple of [`SECTOR`].
    fn block_len(&self) -> usize;

    /// Whether it refuses to be written.
    fn is_read_only(&self) -> bool;

    /// Reads whole sectors from `sector` on.
    ///
    /// # Errors
    /// [`BlockError`]; then `out` holds nothing of use.
    fn read(&self, sector: u64, out: &mut [u8]) -> Result<(), BlockError>;

    /// Writes whole sectors from `sector` on. They are durable after a
    /// [`BlockDevice::flush`] only.
    ///
    /// # Errors
    /// [`BlockError`]; then any part of them may have been written.
    fn write(&self, sector: u64, bytes: &[u8]) -> Result<(), BlockError>;

    /// Reads whole frames from `sector` on, without a copy. Frames of the boot
    /// image cannot be read into.
    ///
    /// # Errors
    /// As [`BlockDevice::read`].
    fn read_frames(&self, sector: u64, frames: &[Frame]) -> Result<(), BlockError>;

    /// Writes whole frames from `sector` on, without a copy.
    ///
    /// # Errors
    /// As [`BlockDevice::write`].
    fn write_frames(&self, sector: u64, frames: &[Frame]) -> Result<(), BlockError>;

    /// Makes durable all that was written before.
    ///
    /// # Errors
    /// [`BlockError`]; then nothing is known about what was written.
    fn flush(&self) -> Result<(), BlockError>;
}

/// The sectors of a transfer of `len` bytes, if they all exist.
pub(crate) fn check(sector: u64, len: usize, sectors: u64) -> Result<u64, BlockError> {
    if len == 0 || !len.is_multiple_of(SECTOR) {
        return Err(BlockError::OutOfRange);
    }
    let count = (len / SECTOR) as u64;
    match sector.checked_add(count) {
        Some(end) if end <= sectors => Ok(count),
        _ => Err(BlockError::OutOfRange),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sectors_that_exist() {
        assert_eq!(check(0, 1024, 2), Ok(2));
        assert_eq!(check(1, 1024, 2), Err(BlockError::OutOfRange));
        assert_eq!(check(0, 100, 2), Err(BlockError::OutOfRange));
        assert_eq!(check(0, 0, 2), Err(BlockError::OutOfRange));
        assert_eq!(check(u64::MAX, 512, u64::MAX), Err(BlockError::OutOfRange));
    }
}
