//! The boot state: which slot is started, and what is known of each.
//!
//! Two copies lie [`COPY_STRIDE`] bytes apart in a partition of their own, each in one
//! sector that is written whole. The valid copy with the higher generation counts; a
//! change goes to the *other* copy, so that a write that power cuts short leaves the
//! state as it was. [`BootState::store`] keeps that order.
//!
//! The rules that keep a disk bootable, whatever happens:
//!
//! - a slot is written only while the other one is [`Status::Good`] and active;
//! - before the first byte of it is written it is [`Status::Empty`], so no loader starts it;
//! - a complete one becomes active as [`Status::Trying`]: each start takes one of its tries
//!   *before* its kernel is entered, and without any left the loader goes back;
//! - the kernel makes it [`Status::Good`] when the 3Bot says that the node is healthy.

use super::{crc32, put};
use crate::bytes::{array, u32_at, u64_at};

/// Bytes of a copy: one sector.
pub const STATE_BYTES: usize = 512;
/// Bytes from the first copy to the second: one block of any disk.
pub const COPY_STRIDE: u64 = 4096;
/// How often a new release is started before it must have been healthy, unless its
/// owner says otherwise.
pub const TRIES_DEFAULT: u8 = 1;
/// Most tries that a release can be given.
pub const TRIES_MAX: u8 = 16;

const MAGIC: [u8; 8] = *b"SKEPBOOT";
const VERSION: u32 = 1;
const ACTIVE_AT: usize = 12;
const GENERATION_AT: usize = 16;
const SLOTS_AT: usize = 24;
const SLOT_BYTES: usize = 16;
const CRC_AT: usize = STATE_BYTES - 4;

/// One of the two places for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both, in order.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// Its place in arrays and on disk.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// The slot of that place.
    #[must_use]
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::A),
            1 => Some(Self::B),
            _ => None,
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Its name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }
}

/// What is known of the release in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// There is none, or it is being written.
    Empty,
    /// It is new and has not been healthy yet.
    Trying {
        /// How often it may still be started.
        tries_left: u8,
    },
    /// It has been healthy.
    Good,
    /// It was refused, or its tries ran out.
    Bad,
}

/// What the state says of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Its status.
    pub status: Status,
    /// Version of its release; 0 if there is none.
    pub version: u64,
}

/// The state of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootState {
    /// Counts the changes.
    pub generation: u64,
    /// The slot that is started; after the loader has chosen, the one that runs.
    pub active: Slot,
    /// By [`Slot::index`].
    pub slots: [SlotState; 2],
}

/// What a loader is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The slot to start.
    pub slot: Slot,
    /// The state to store before its kernel is entered; `None` when nothing changes.
    pub store: Option<BootState>,
}

impl BootState {
    /// The state of a fresh disk: a good release in slot A, nothing in slot B.
    #[must_use]
    pub const fn fresh(version: u64) -> Self {
        Self {
            generation: 1,
            active: Slot::A,
            slots: [
                SlotState {
                    status: Status::Good,
                    version,
                },
                SlotState {
                    status: Status::Empty,
                    version: 0,
                },
            ],
        }
    }

    /// What is known of `slot`.
    #[must_use]
    pub const fn slot(&self, slot: Slot) -> SlotState {
        let [a, b] = self.slots;
        match slot {
            Slot::A => a,
            Slot::B => b,
        }
    }

    /// The state that counts, of the two copies as read from the disk, and which copy
    /// (0 or 1) the next change is to be written to. `None` when neither is valid.
    #[must_use]
    pub fn load(copies: [&[u8]; 2]) -> Option<(Self, usize)> {
        match copies.map(Self::decode) {
            [Some(first), Some(second)] if second.generation > first.generation => {
                Some((second, 0))
            }
            [Some(first), _] => Some((first, 1)),
            [None, Some(second)] => Some((second, 0)),
            [None, None] => None,
        }
    }

    /// The bytes of this state for a copy, as the change after `previous`.
    #[must_use]
    pub fn store(self, previous: &Self) -> (Self, [u8; STATE_BYTES]) {
        let next = Self {
            generation: previous.generation.saturating_add(1),
            ..self
        };
        (next, next.encode())
    }

    /// Which slot to start. Says nothing of whether a release is there and signed: a
    /// loader that refuses it asks again with [`Self::refuse`].
    #[must_use]
    pub fn choose(&self) -> Choice {
        match self.slot(self.active).status {
            Status::Good => Choice {
                slot: self.active,
                store: None,
            },
            Status::Trying { tries_left } if tries_left > 0 => Choice {
                slot: self.active,
                store: Some(self.with(
                    self.active,
                    Status::Trying {
                        tries_left: tries_left - 1,
                    },
                )),
            },
            _ => self.fall_back(),
        }
    }

    /// After the release in `slot` was refused, or could not be read: it is bad, and the
    /// other one is started.
    #[must_use]
    pub fn refuse(&self, slot: Slot) -> Choice {
        Self {
            active: slot,
            ..*self
        }
        .fall_back()
    }

    /// The active slot is bad; the other one is started, whatever is known of it: it is
    /// the last one left. One that was bad too stays so.
    fn fall_back(&self) -> Choice {
        let slot = self.active.other();
        let mut state = self.with(self.active, Status::Bad);
        state.active = slot;
        Choice {
            slot,
            store: Some(state).filter(|state| state != self),
        }
    }

    /// Whether an update may begin: the running release has been healthy.
    #[must_use]
    pub fn may_update(&self) -> bool {
        self.slot(self.active).status == Status::Good
    }

    /// Before the inactive slot is written.
    #[must_use]
    pub fn begin_update(&self) -> Self {
        let mut state = self.with(self.active.other(), Status::Empty);
        state.set_version(self.active.other(), 0);
        state
    }

    /// After the inactive slot was written and read back: the next start tries it.
    #[must_use]
    pub fn finish_update(&self, version: u64, tries: u8) -> Self {
        let slot = self.active.other();
        let mut state = self.with(
            slot,
            Status::Trying {
                tries_left: tries.clamp(1, TRIES_MAX),
            },
        );
        state.set_version(slot, version);
        state.active = slot;
        state
    }

    /// After the running release has been healthy; `None` when that was known.
    #[must_use]
    pub fn confirm(&self) -> Option<Self> {
        let confirmed = self.with(self.active, Status::Good);
        (confirmed != *self).then_some(confirmed)
    }

    fn with(&self, slot: Slot, status: Status) -> Self {
        let mut state = *self;
        for (found, of) in state.slots.iter_mut().zip(Slot::BOTH) {
            if of == slot {
                found.status = status;
            }
        }
        state
    }

    fn set_version(&mut self, slot: Slot, version: u64) {
        for (found, of) in self.slots.iter_mut().zip(Slot::BOTH) {
            if of == slot {
                found.version = version;
            }
        }
    }

    /// The bytes of a copy.
    #[must_use]
    pub fn encode(&self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        put(&mut bytes, 0, &MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, ACTIVE_AT, &[u8::from(self.active == Slot::B)]);
        put(&mut bytes, GENERATION_AT, &self.generation.to_le_bytes());
        for (index, slot) in self.slots.iter().enumerate() {
            let at = SLOTS_AT + index * SLOT_BYTES;
            let (status, tries) = match slot.status {
                Status::Empty => (0, 0),
                Status::Trying { tries_left } => (1, tries_left),
                Status::Good => (2, 0),
                Status::Bad => (3, 0),
            };
            put(&mut bytes, at, &[status, tries]);
            put(&mut bytes, at + 8, &slot.version.to_le_bytes());
        }
        let crc = crc32(bytes.get(..CRC_AT).unwrap_or_default());
        put(&mut bytes, CRC_AT, &crc.to_le_bytes());
        bytes
    }

    /// The state of a copy, `None` unless it is whole.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if array(bytes, 0)? != MAGIC
            || u32_at(bytes, 8)? != VERSION
            || u32_at(bytes, CRC_AT)? != crc32(bytes.get(..CRC_AT)?)
        {
            return None;
        }
        let slot = |index: usize| {
            let at = SLOTS_AT + index * SLOT_BYTES;
            let status = match array(bytes, at)? {
                [0, _] => Status::Empty,
                [1, tries_left] => Status::Trying { tries_left },
                [2, _] => Status::Good,
                [3, _] => Status::Bad,
                _ => return None,
            };
            let version = u64_at(bytes, at + 8)?;
            Some(SlotState { status, version })
        };
        Some(Self {
            generation: u64_at(bytes, GENERATION_AT)?,
            active: Slot::from_index(*bytes.get(ACTIVE_AT)?)?,
            slots: [slot(0)?, slot(1)?],
        })
    }
}

#[cfg(test)]
mod tests;
