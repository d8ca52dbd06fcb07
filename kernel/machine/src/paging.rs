//! User address spaces as the hardware sees them.
//!
//! A [`PageTable`] maps pages of user space to frames; each mapping owns one
//! reference to its frame. What *should* be mapped (areas, files, copy-on-write)
//! is the business of the `mm` room. All methods are safe to call from any thread
//! and flush what other CPUs may have cached before they return.
//!
//! Kernel addresses cannot be named here at all: methods ignore what lies outside
//! `USER_START..USER_END` (ranges are cut to it).

use bitflags::bitflags;

pub use crate::arch::PageTable;
use crate::frame::Frame;

bitflags! {
    /// What a mapping allows, or an access tried.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Access: u8 {
        /// Reading.
        const READ = 1;
        /// Writing.
        const WRITE = 2;
        /// Executing.
        const EXEC = 4;
    }
}

/// One page as it is mapped now.
#[derive(Debug)]
pub struct Mapping {
    /// The frame (a reference of its own).
    pub frame: Frame,
    /// What the hardware allows.
    pub access: Access,
    /// Written to since it was mapped.
    pub dirty: bool,
    /// Touched since it was mapped or since [`PageTable::clear_accessed`].
    pub accessed: bool,
}

/// What [`PageTable::write_fault`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFault {
    /// The page was shared and has been copied.
    Copied,
    /// The page belongs to this space alone and is writable now.
    MadeWritable,
    /// Nothing is mapped there.
    NotMapped,
}

/// The outcome of [`PageTable::map_if_empty`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapOutcome {
    /// It is mapped.
    Mapped,
    /// Something was there already, and stays.
    Occupied,
}
