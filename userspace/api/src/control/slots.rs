//! The slots of the boot disk, and a release on its way into one.

use alloc::string::String;
use serde::{Deserialize, Serialize};

/// Most bytes of a release that one [`Request::UpdateWrite`](super::Request::UpdateWrite) takes;
/// every piece but the last has a multiple of 4096 bytes.
pub const UPDATE_CHUNK_BYTES_MAX: usize = 56 * 1024;

/// What is known of the release in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotStatus {
    /// There is none, or it is being written.
    Empty,
    /// It has not been healthy yet.
    Trying {
        /// How often it may still be started.
        tries_left: u8,
    },
    /// It has been healthy.
    Good,
    /// It was refused, or its tries ran out.
    Bad,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotInfo {
    /// What is known of its release.
    pub status: SlotStatus,
    /// Version of that; 0 if there is none, or it came with the disk's image.
    pub version: u64,
}

/// Both slots.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsInfo {
    /// Which of [`Self::slots`] runs.
    pub running: u8,
    /// Version of the release that runs.
    pub version: u64,
    /// Who must have signed a release for this node, ed25519.
    pub release_key: [u8; 32],
    /// Slot A and slot B.
    pub slots: [SlotInfo; 2],
    /// The update that is under way.
    pub update: Option<UpdateProgress>,
}

/// How far an update is, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateProgress {
    /// Version of the new release.
    pub version: u64,
    /// Written so far.
    pub written: u64,
    /// Read back so far.
    pub checked: u64,
    /// All.
    pub total: u64,
}

/// Why a step of an update is refused. The update is then over, and the slot stays empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateRefusal {
    /// The release that runs has not been healthy yet: there would be nothing to go back to.
    OnTrial,
    /// The release is not newer than the one that runs.
    Downgrade {
        /// What runs.
        running: u64,
        /// What was offered.
        offered: u64,
    },
    /// The release is not acceptable; why, in words.
    Release(String),
    /// The slot is too small, in bytes.
    TooLarge {
        /// What the slot has room for.
        room: u64,
        /// What the release needs.
        release: u64,
    },
    /// There is no update under way.
    NotBegun,
    /// These bytes do not come next.
    OutOfOrder,
    /// Not all of it has been written and checked.
    NotWhole,
    /// The disk has no boot state that is whole.
    NoState,
    /// The disk failed; how, in words.
    Disk(String),
    /// No memory.
    NoMemory,
    /// The disk to install to cannot be used; why, in words.
    Target(String),
}

impl core::fmt::Display for UpdateRefusal {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OnTrial => f.write_str(
                "the release that runs has not been healthy yet; an update now would leave nothing to go back to",
            ),
            Self::Downgrade { running, offered } => write!(
                f,
                "release {offered} is not newer than release {running}, which runs"
            ),
            Self::Release(why) => write!(f, "the release is refused: {why}"),
            Self::TooLarge { room, release } => write!(
                f,
                "the release has {release} bytes and the slot room for {room}"
            ),
            Self::NotBegun => f.write_str("no update has begun"),
            Self::OutOfOrder => f.write_str("these bytes do not come next"),
            Self::NotWhole => f.write_str("the release is not whole yet"),
            Self::NoState => f.write_str("the boot disk has no boot state that is whole"),
            Self::Disk(why) => write!(f, "the boot disk: {why}"),
            Self::Target(why) => f.write_str(why),
            Self::NoMemory => f.write_str("there is not enough memory"),
        }
    }
}
