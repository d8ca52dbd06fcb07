//! The disk that this program was started from, by the firmware's block services.

use crate::Failure;
use crate::release::Volume;
use alloc::vec;
use alloc::vec::Vec;
use skep_api::boot::disk::{ENTRIES_BYTES_MAX, Extent, Header, Slots};
use skep_api::boot::state::{COPY_STRIDE, STATE_BYTES, Status};
use skep_api::boot::{BootState, Slot};
use uefi::{
    Handle,
    boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol, SearchType},
    proto::{
        ProtocolPointer, device_path::DevicePath, loaded_image::LoadedImage, media::block::BlockIO,
    },
};

/// Bytes asked of the firmware at a time: some firmware takes no more.
const TRANSFER_BYTES_MAX: usize = 4 << 20;
/// Length of the node that ends a device path (UEFI 2.10, section 10.3.1).
const PATH_END_BYTES: usize = 4;
/// How a partition's node in a device path begins (UEFI 2.10, section 10.3.5.1).
const PARTITION_NODE: [u8; 2] = [4, 1];

/// The whole disk, with its slots.
pub(crate) struct Disk {
    blocks: ScopedProtocol<BlockIO>,
    media: u32,
    block_bytes: usize,
    slots: Slots,
    /// GUID of the disk.
    pub(crate) guid: [u8; 16],
}

/// The boot state with its place on the disk.
pub(crate) struct StoredState {
    /// What the disk says, or may be assumed.
    pub(crate) state: BootState,
    /// Which copy the next change goes to; `None` when none can be stored.
    next_copy: Option<usize>,
}

impl StoredState {
    /// Whether the release in `slot` has yet to be healthy for the first time.
    pub(crate) fn is_trial(&self, slot: Slot) -> bool {
        matches!(self.state.slot(slot).status, Status::Trying { .. })
    }
}

impl Disk {
    /// Finds the disk: the one whose device path, and then a partition, is where this
    /// program was loaded from.
    pub(crate) fn of_this_program() -> Result<Self, Failure> {
        let image = open::<LoadedImage>(boot::image_handle())?;
        let partition = image.device().ok_or(Failure::NotFromDisk)?;
        let partition_path = open::<DevicePath>(partition)?;
        let partition_path = partition_path.as_bytes();
        let handles = boot::locate_handle_buffer(SearchType::from_proto::<BlockIO>())
            .map_err(|_| Failure::NotFromDisk)?;
        for &handle in handles.iter() {
            let (Ok(blocks), Ok(path)) = (open::<BlockIO>(handle), open::<DevicePath>(handle))
            else {
                continue;
            };
            let path = path.as_bytes();
            let path = &path[..path.len().saturating_sub(PATH_END_BYTES)];
            let is_parent = partition_path
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with(&PARTITION_NODE));
            if is_parent && !blocks.media().is_logical_partition() {
                return Self::with_slots(blocks);
            }
        }
        Err(Failure::NotFromDisk)
    }

    /// Reads the partition table: the first one, or its copy at the disk's end.
    fn with_slots(blocks: ScopedProtocol<BlockIO>) -> Result<Self, Failure> {
        let media = blocks.media();
        let (id, block_bytes) = (media.media_id(), media.block_size() as usize);
        let last_block = media.last_block();
        if !(512..=4096).contains(&block_bytes) || !block_bytes.is_power_of_two() {
            return Err(Failure::NoSlots);
        }
        let mut disk = Self {
            blocks,
            media: id,
            block_bytes,
            slots: Slots::default(),
            guid: [0; 16],
        };
        let mut block = vec![0; block_bytes];
        let mut entries = vec![0; ENTRIES_BYTES_MAX];
        for header_at in [1, last_block] {
            disk.read(header_at, &mut block)?;
            let Some(header) = Header::parse(&block, last_block) else {
                continue;
            };
            let bytes = header.entries_bytes.next_multiple_of(block_bytes);
            disk.read(header.entries_at, &mut entries[..bytes])?;
            if let Some(slots) = header.slots(&entries) {
                (disk.slots, disk.guid) = (slots, header.disk);
                return Ok(disk);
            }
        }
        Err(Failure::NoSlots)
    }

    /// The release in `slot`.
    pub(crate) fn volume(&mut self, slot: Slot) -> Result<SlotVolume<'_>, Failure> {
        let extent = self.slots.slot(slot).ok_or(Failure::NoSlot)?;
        Ok(SlotVolume { disk: self, extent })
    }

    /// Reads whole blocks from `block` on.
    fn read(&mut self, mut block: u64, into: &mut [u8]) -> Result<(), Failure> {
        for part in into.chunks_mut(TRANSFER_BYTES_MAX) {
            self.blocks
                .read_blocks(self.media, block, part)
                .map_err(|_| Failure::Read)?;
            block += (part.len() / self.block_bytes) as u64;
        }
        Ok(())
    }

    /// The boot state; that of a fresh disk when the disk has none that is whole.
    pub(crate) fn state(&mut self) -> StoredState {
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
    pub(crate) fn store(&mut self, stored: &mut StoredState, new: BootState) -> bool {
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
        let written = self.blocks.write_blocks(self.media, block, &whole);
        if written.is_err() || self.blocks.flush_blocks().is_err() {
            return false;
        }
        stored.next_copy = Some(1 - copy);
        true
    }
}

/// A slot, to read its release from.
pub(crate) struct SlotVolume<'a> {
    disk: &'a mut Disk,
    extent: Extent,
}

impl Volume for SlotVolume<'_> {
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

/// Opens a protocol of a handle beside whoever uses it already.
pub(crate) fn open<P: ProtocolPointer + ?Sized>(
    handle: Handle,
) -> Result<ScopedProtocol<P>, Failure> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: no handle goes away while this program runs: it starts and stops no
    // drivers, and nothing is connected or removed but by the firmware's user.
    unsafe { boot::open_protocol(params, OpenProtocolAttributes::GetProtocol) }
        .map_err(|_| Failure::NotFromDisk)
}
