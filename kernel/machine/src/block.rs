//! Block devices: what drivers provide and rooms use.

mod lead;
mod request;

pub use lead::Lead;
pub use request::Request;

use crate::addr::PAGE_SIZE;
use crate::frame::Frame;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// Bytes of a sector, the unit of every address here.
pub const SECTOR: usize = 512;

/// Why a transfer failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockError {
    /// The device says that it failed (`EIO`).
    Failed,
    /// It did not answer, not even after a reset (`EIO`).
    TimedOut,
    /// It has been given up (`EIO`).
    Gone,
    /// Beyond its end, or not whole blocks (`EINVAL`).
    OutOfRange,
    /// It cannot be written (`EPERM`).
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
            BlockError::OutOfRange => "not whole blocks of the device",
            BlockError::ReadOnly => "the device cannot be written",
            BlockError::Unsupported => "the device cannot do this",
            BlockError::NoMemory => "no memory for the transfer",
        })
    }
}

/// What a device is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read sectors.
    Read,
    /// Write sectors.
    Write,
    /// Make durable what was written.
    Flush,
    /// Forget sectors: what they hold then is undefined.
    Discard,
    /// Make sectors zeros.
    WriteZeroes,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operation::Read => "reading",
            Operation::Write => "writing",
            Operation::Flush => "flushing",
            Operation::Discard => "discarding",
            Operation::WriteZeroes => "zeroing",
        })
    }
}

/// Trouble with a device, for whoever watches over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It reported that a request failed.
    Failed {
        /// What it was to do.
        operation: Operation,
        /// Where the request began.
        sector: u64,
    },
    /// It hung or broke the rules, was reset, and works again.
    Reset,
    /// It says that it is about to fail: too hot, worn out, or out of spare blocks.
    Warning,
    /// It was pulled out: requests fail until it is back.
    Pulled,
    /// It was put back and works again.
    Returned,
    /// It did not come back from a reset: every further request fails.
    GivenUp,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::Failed {
                operation: Operation::Flush,
                ..
            } => f.write_str("flushing failed"),
            Trouble::Failed { operation, sector } => {
                write!(f, "{operation} at sector {sector} failed")
            }
            Trouble::Reset => f.write_str("it did not answer and was reset"),
            Trouble::Warning => f.write_str("it warns of its own failure"),
            Trouble::Pulled => f.write_str("it was pulled out"),
            Trouble::Returned => f.write_str("it is back"),
            Trouble::GivenUp => f.write_str("it did not come back from a reset and is given up"),
        }
    }
}

/// What a disk says of itself, as it says it: for people, and not to be relied on.
/// What it does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Maker and model.
    pub model: String,
    /// Serial number.
    pub serial: String,
    /// Version of its firmware.
    pub firmware: String,
}

/// What a disk says of its own health (SMART, the NVMe health log). `None` is what it
/// does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// It says that it is failing or about to: an NVMe critical warning, a SMART
    /// threshold exceeded.
    pub is_failing: bool,
    /// Why, in a few words; empty while it is not failing.
    pub reason: String,
    /// Temperature in degrees Celsius.
    pub temperature: Option<i16>,
    /// Hours it has been switched on.
    pub power_on_hours: Option<u64>,
    /// Times it was switched off without being told to get ready.
    pub unsafe_shutdowns: Option<u64>,
    /// Percent of its life used up; may go beyond 100.
    pub used_percent: Option<u8>,
    /// Percent of its spare blocks left.
    pub spare_percent: Option<u8>,
    /// Times data could not be read back or were found wrong (NVMe media errors;
    /// ATA uncorrectable and pending sectors).
    pub media_errors: Option<u64>,
    /// Bytes read from it in its life.
    pub read_bytes: Option<u64>,
    /// Bytes written to it in its life.
    pub written_bytes: Option<u64>,
}

/// Hears of a device's trouble, on a thread of the driver's. It must not wait for
/// the device.
pub type Observer = Box<dyn Fn(Trouble) + Send + Sync>;

/// A disk. All transfers sleep until they are done or have failed, for a bounded
/// time; any number of threads may have one under way. What two overlapping
/// transfers at the same time leave behind is undefined.
pub trait BlockDevice: Send + Sync {
    /// How many sectors it has: whole blocks.
    fn sectors(&self) -> u64;

    /// Bytes of a block, the least it reads or writes: a power of two from
    /// [`SECTOR`] to [`PAGE_SIZE`].
    fn block_len(&self) -> usize;

    /// Bytes it writes without reading first: a multiple of
    /// [`BlockDevice::block_len`].
    fn physical_block_len(&self) -> usize;

    /// Whether it refuses to be written.
    fn is_read_only(&self) -> bool;

    /// Reads `len` bytes, whole blocks, from `sector` on: page after page into
    /// `frames`. Frames of the boot image cannot be read into.
    ///
    /// # Errors
    /// [`BlockError`]; then the frames hold nothing of use.
    fn read(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError>;

    /// Writes `len` bytes of `frames`, whole blocks, from `sector` on. They are
    /// durable after a [`BlockDevice::flush`] only.
    ///
    /// # Errors
    /// [`BlockError`]; then any part of them may have been written, and nothing
    /// more will be.
    fn write(&self, sector: u64, frames: &[Frame], len: usize) -> Result<(), BlockError>;

    /// Makes durable all writes that had ended before.
    ///
    /// # Errors
    /// [`BlockError`]; then nothing is known about what was written.
    fn flush(&self) -> Result<(), BlockError>;

    /// [`Operation::Discard`] or [`Operation::WriteZeroes`] of `count` sectors.
    ///
    /// # Errors
    /// [`BlockError`]; [`BlockError::Unsupported`] where the device cannot.
    fn clear(&self, how: Operation, sector: u64, count: u64) -> Result<(), BlockError>;

    /// Lets `observer` hear of trouble. Only the first one counts.
    fn observe(&self, observer: Observer);

    /// What it said of itself when its driver started. Does not wait.
    fn identity(&self) -> Identity {
        Identity::default()
    }

    /// Asks it how it is; sleeps as a transfer does.
    ///
    /// # Errors
    /// [`BlockError`]; [`BlockError::Unsupported`] where it keeps no such record.
    fn health(&self) -> Result<Health, BlockError> {
        Err(BlockError::Unsupported)
    }
}

/// Checks that a transfer of `len` bytes from `sector` on is whole blocks of a device
/// with this many sectors, and that `frames` pages hold them.
///
/// # Errors
/// [`BlockError::OutOfRange`].
pub fn check(
    device: &(impl BlockDevice + ?Sized),
    sector: u64,
    frames: usize,
    len: usize,
) -> Result<(), BlockError> {
    let block = device.block_len();
    let whole = len > 0
        && len.is_multiple_of(block)
        && sector.is_multiple_of((block / SECTOR) as u64)
        && len.div_ceil(PAGE_SIZE) <= frames;
    let end = sector.checked_add((len / SECTOR) as u64);
    if whole && end.is_some_and(|end| end <= device.sectors()) {
        return Ok(());
    }
    Err(BlockError::OutOfRange)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device of this many sectors and blocks of this length.
    struct Shape(u64, usize);

    impl BlockDevice for Shape {
        fn sectors(&self) -> u64 {
            self.0
        }
        fn block_len(&self) -> usize {
            self.1
        }
        fn physical_block_len(&self) -> usize {
            self.1
        }
        fn is_read_only(&self) -> bool {
            false
        }
        fn read(&self, _: u64, _: &[Frame], _: usize) -> Result<(), BlockError> {
            Ok(())
        }
        fn write(&self, _: u64, _: &[Frame], _: usize) -> Result<(), BlockError> {
            Ok(())
        }
        fn flush(&self) -> Result<(), BlockError> {
            Ok(())
        }
        fn clear(&self, _: Operation, _: u64, _: u64) -> Result<(), BlockError> {
            Ok(())
        }
        fn observe(&self, _: Observer) {}
    }

    #[test]
    fn only_whole_blocks_that_exist() {
        let bad = Err(BlockError::OutOfRange);
        let small = Shape(2, 512);
        assert_eq!(check(&small, 0, 1, 1024), Ok(()));
        assert_eq!(check(&small, 1, 1, 1024), bad);
        assert_eq!(check(&small, 0, 1, 100), bad);
        assert_eq!(check(&small, 0, 1, 0), bad);
        assert_eq!(check(&Shape(u64::MAX, 512), u64::MAX, 1, 512), bad);
        let large = Shape(64, 4096);
        assert_eq!(check(&large, 8, 2, 8192), Ok(()));
        assert_eq!(check(&large, 8, 1, 8192), bad);
        assert_eq!(check(&large, 4, 1, 4096), bad);
        assert_eq!(check(&large, 8, 1, 512), bad);
    }

    #[test]
    fn trouble_is_told_in_words() {
        let failed = |operation| Trouble::Failed {
            operation,
            sector: 8,
        };
        assert_eq!(
            std::format!("{}", failed(Operation::Read)),
            "reading at sector 8 failed"
        );
        assert_eq!(
            std::format!("{}", failed(Operation::Flush)),
            "flushing failed"
        );
    }
}
