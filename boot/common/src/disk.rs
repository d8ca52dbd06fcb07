//! The disk that a loader was started from: its slots and its boot state.

use crate::Failure;
use crate::release::Volume;
use alloc::vec;
use alloc::vec::Vec;
use skep_api::boot::disk::{ENTRIES_BYTES_MAX, Extent, Header, Slots};
use skep_api::boot::state::{COPY_STRIDE, STATE_BYTES, Status};
use skep_api::boot::{BootState, Slot};

/// Bytes asked of the firmware at a time: some firmware takes no more.
const TRANSFER_BYTES_MAX: usize = 4 << 20;

/// A disk as the firmware reads it.
pub trait Blocks {
    /// Bytes of a block.
    fn block_bytes(&self) -> usize;

    /// The number of the last block.
    fn last_block(&self) -> u64;

    /// Reads whole blocks from `block` on.
    ///
    /// # Errors
    /// [`Failure::Read`].
    fn read(&mut self, block: u64, into: &mut [u8]) -> Result<(), Failure>;

    /// Writes one block, and has it durable.
    ///
    /// # Errors
    /// [`Failure::Write`].
    fn write(&mut self, block: u64, bytes: &[u8]) -> Result<(), Failure>;
}

/// The whole disk, with its slots.
pub struct Disk<B> {
    blocks: B,
    block_bytes: usize,
    slots: Slots,
    /// GUID of the disk.
    pub guid: [u8; 16],
}

/// The boot state with its place on the disk.
pub struct StoredState {
    /// What the disk says, or may be assumed.
    pub state: BootState,
    /// Which copy the next change goes to; `None` when none can be stored.
    next_copy: Option<usize>,
}

impl StoredState {
    /// Whether the release in `slot` has yet to be healthy for the first time.
    pub fn is_trial(&self, slot: Slot) -> bool {
        matches!(self.state.slot(slot).status, Status::Trying { .. })
    }
}

impl<B: Blocks> Disk<B> {
    /// Reads the partition table: the first one, or its copy at the disk's end.
    ///
    /// # Errors
    /// [`Failure::NoSlots`].
    pub fn with_slots(blocks: B) -> Result<Self, Failure> {
        let (block_bytes, last_block) = (blocks.block_bytes(), blocks.last_block());
        if !(512..=4096).contains(&block_bytes) || !block_bytes.is_power_of_two() {
            return Err(Failure::NoSlots);
        }
        let mut disk = Self {
            blocks,
            block_bytes,
            slots: Slots::default(),
            guid: [0; 16],
        };
        let mut block = vec![0; block_bytes];
        let mut entries = vec![0; ENTRIES_BYTES_MAX];
        for header_at in [1, last_block] {
            // A first table that cannot be read is a damaged one.
            if disk.read(header_at, &mut block).is_err() {
                continue;
            }
            let Some(header) = Header::parse(&block, last_block) else {
                continue;
            };
            let bytes = header.entries_bytes.next_multiple_of(block_bytes);
            if disk.read(header.entries_at, &mut entries[..bytes]).is_err() {
                continue;
            }
            if let Some(slots) = header.slots(&entries) {
                (disk.slots, disk.guid) = (slots, header.disk);
                return Ok(disk);
            }
        }
        Err(Failure::NoSlots)
    }

    /// The release in `slot`.
    ///
    /// # Errors
    /// [`Failure::NoSlot`].
    pub fn volume(&mut self, slot: Slot) -> Result<SlotVolume<'_, B>, Failure> {
        let extent = self.slots.slot(slot).ok_or(Failure::NoSlot)?;
        Ok(SlotVolume { disk: self, extent })
    }

    /// Reads whole blocks from `block` on.
    fn read(&mut self, mut block: u64, into: &mut [u8]) -> Result<(), Failure> {
        for part in into.chunks_mut(TRANSFER_BYTES_MAX) {
            self.blocks.read(block, part)?;
            block += (part.len() / self.block_bytes) as u64;
        }
        Ok(())
    }

    /// The boot state; that of a fresh disk when the disk has none that is whole.
    pub fn state(&mut self) -> StoredState {
        self.read_state().unwrap_or(StoredState {
            state: BootState::fresh(0),
            next_copy: None,
        })
    }

    fn read_state(&mut self) -> Option<StoredState> {
        let mut copies: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
        for (index, copy) in copies.iter_mut().enumerate() {
            copy.resize(self.block_bytes, 0);
            let block = self.state_block(index)?;
            // A copy that cannot be read is a damaged one.
            if self.read(block, copy).is_err() {
                copy.fill(0);
            }
            copy.truncate(STATE_BYTES);
        }
        let (state, next_copy) = BootState::load([&copies[0], &copies[1]])?;
        Some(StoredState {
            state,
            next_copy: Some(next_copy),
        })
    }

    fn state_block(&self, copy: usize) -> Option<u64> {
        let extent = self.slots.state?;
        let block = copy as u64 * COPY_STRIDE / self.block_bytes as u64;
        (block < extent.blocks).then_some(extent.start + block)
    }

    /// Makes `new` durable before anything that follows from it is done. Whether that
    /// worked.
    pub fn store(&mut self, stored: &mut StoredState, new: BootState) -> bool {
        let place = stored
            .next_copy
            .and_then(|copy| Some((copy, self.state_block(copy)?)));
        let (new, bytes) = new.store(&stored.state);
        stored.state = new;
        let Some((copy, block)) = place else {
            return false;
        };
        let mut whole = bytes.to_vec();
        whole.resize(self.block_bytes, 0);
        if self.blocks.write(block, &whole).is_err() {
            return false;
        }
        stored.next_copy = Some(1 - copy);
        true
    }
}

/// A slot, to read its release from.
pub struct SlotVolume<'a, B> {
    disk: &'a mut Disk<B>,
    extent: Extent,
}

impl<B: Blocks> Volume for SlotVolume<'_, B> {
    fn read(
        &mut self,
        offset: u64,
        into: &mut [u8],
        each: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), Failure> {
        let block_bytes = self.disk.block_bytes;
        let first = offset / block_bytes as u64;
        let count = (into.len() / block_bytes) as u64;
        if first
            .checked_add(count)
            .is_none_or(|end| end > self.extent.blocks)
        {
            return Err(Failure::BeyondSlot);
        }
        let mut done = 0;
        for part in into.chunks_mut(TRANSFER_BYTES_MAX) {
            let block = self.extent.start + first + (done / block_bytes) as u64;
            self.disk.read(block, part)?;
            each(done, part);
            done += part.len();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
