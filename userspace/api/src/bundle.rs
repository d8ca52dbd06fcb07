//! The bundle: the ramdisk that a node boots with.
//!
//! An index at the front lists named entries (the node's configuration, signed
//! manifests) and blobs, sorted by hash. Each blob's content begins on a page
//! and is padded with zeros to the end of its last page, so that the kernel maps
//! it straight out of the ramdisk. The index is checked as a whole when the
//! bundle is opened; everything behind it is checked piece by piece when it is
//! asked for. A ramdisk that was cut short therefore still gives up what it has
//! whole, and says by name what it lost.

mod builder;
mod view;

pub use builder::BundleBuilder;
pub use view::{BundleBlob, BundleView, Entry};

use crate::blob::BlobError;
use crate::hash::Hash;

/// First bytes of a bundle.
pub const MAGIC: [u8; 8] = *b"SKEPBNDL";
/// Version of the layout that this module reads and writes.
pub const VERSION: u32 = 1;
/// Bytes of the header.
pub const HEADER_LEN: usize = 96;
/// Bytes of the header that the index hash covers.
const HASHED_HEADER_LEN: usize = 64;
/// Bytes of one entry in the index.
pub const ENTRY_LEN: usize = 64;
/// Bytes of one blob in the index.
pub const BLOB_LEN: usize = 56;
/// Alignment and padding of blob content, the size of a page.
pub const PAGE_LEN: usize = 4096;

/// Most named entries of a bundle.
pub const MAX_ENTRIES: u32 = 1 << 12;
/// Most blobs of a bundle.
pub const MAX_BLOBS: u32 = 1 << 20;
/// Longest name of an entry, in bytes.
pub const MAX_ENTRY_NAME: usize = 255;
/// Largest entry, in bytes.
pub const MAX_ENTRY_LEN: u64 = 1 << 20;

/// What a named entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// The node's configuration, see [`crate::node`].
    Node,
    /// A signed manifest, see [`crate::manifest`].
    Manifest,
    /// Something that this version does not know and passes over.
    Unknown(u32),
}

impl EntryKind {
    const fn code(self) -> u32 {
        match self {
            Self::Node => 1,
            Self::Manifest => 2,
            Self::Unknown(code) => code,
        }
    }

    const fn from_code(code: u32) -> Self {
        match code {
            1 => Self::Node,
            2 => Self::Manifest,
            code => Self::Unknown(code),
        }
    }
}

/// Why a bundle, or something in it, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The first bytes are not [`MAGIC`].
    #[error("not a bundle: wrong magic number")]
    BadMagic,
    /// The layout is of another version.
    #[error("bundle of version {0}, this program knows {VERSION}")]
    UnknownVersion(u32),
    /// The bytes end inside the header or the index.
    #[error("bundle is cut short inside its index: {have} bytes, the index needs {need}")]
    Truncated {
        /// Bytes that the header or the index needs.
        need: u64,
        /// Bytes found.
        have: u64,
    },
    /// The index is not the one that was written.
    #[error("the index of the bundle is damaged")]
    IndexMismatch,
    /// The index was written wrongly: counts, names, order, alignment or places.
    #[error("the index of the bundle is malformed")]
    BadIndex,
    /// There is no entry of this kind and name.
    #[error("the bundle has no such entry")]
    NoSuchEntry,
    /// The entry lies beyond the end of the bundle.
    #[error("the entry lies beyond the end of the bundle: {have} bytes, it ends at {need}")]
    EntryTruncated {
        /// Where the entry ends.
        need: u64,
        /// Bytes of the bundle.
        have: u64,
    },
    /// The entry is not what was written.
    #[error("the entry is damaged")]
    EntryMismatch,
    /// There is no such blob.
    #[error("the bundle has no blob {0}")]
    NoSuchBlob(Hash),
    /// The blob lies beyond the end of the bundle.
    #[error("blob {hash} lies beyond the end of the bundle: {have} bytes, it ends at {need}")]
    BlobTruncated {
        /// The blob.
        hash: Hash,
        /// Where the blob ends.
        need: u64,
        /// Bytes of the bundle.
        have: u64,
    },
    /// The bytes between the blob's end and the end of its page are not zero.
    #[error("blob {0} is not padded with zeros")]
    BadPadding(Hash),
    /// The blob's outboard is wrong.
    #[error("blob {hash}: {error}")]
    Blob {
        /// The blob.
        hash: Hash,
        /// What is wrong with it.
        error: BlobError,
    },
}
