//! The disk that this program was started from, by the firmware's block services.

use skep_boot::Failure;
use skep_boot::disk::{Blocks, Disk};
use uefi::{
    Handle,
    boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol, SearchType},
    proto::{
        ProtocolPointer, device_path::DevicePath, loaded_image::LoadedImage, media::block::BlockIO,
    },
};

/// Length of the node that ends a device path (UEFI 2.10, section 10.3.1).
const PATH_END_BYTES: usize = 4;
/// How a partition's node in a device path begins (UEFI 2.10, section 10.3.5.1).
const PARTITION_NODE: [u8; 2] = [4, 1];

/// The firmware's block services of a disk.
pub(crate) struct FirmwareDisk {
    blocks: ScopedProtocol<BlockIO>,
    media: u32,
}

impl Blocks for FirmwareDisk {
    fn block_bytes(&self) -> usize {
        self.blocks.media().block_size() as usize
    }

    fn last_block(&self) -> u64 {
        self.blocks.media().last_block()
    }

    fn read(&mut self, block: u64, into: &mut [u8]) -> Result<(), Failure> {
        let read = self.blocks.read_blocks(self.media, block, into);
        read.map_err(|_| Failure::Read)
    }

    fn write(&mut self, block: u64, bytes: &[u8]) -> Result<(), Failure> {
        let written = self.blocks.write_blocks(self.media, block, bytes);
        let written = written.and_then(|()| self.blocks.flush_blocks());
        written.map_err(|_| Failure::Write)
    }
}

/// Finds the disk: the one whose device path, and then a partition, is where this program
/// was loaded from.
pub(crate) fn of_this_program() -> Result<Disk<FirmwareDisk>, Failure> {
    let image = open::<LoadedImage>(boot::image_handle())?;
    let partition = image.device().ok_or(Failure::NotFromDisk)?;
    let partition_path = open::<DevicePath>(partition)?;
    let partition_path = partition_path.as_bytes();
    let handles = boot::locate_handle_buffer(SearchType::from_proto::<BlockIO>())
        .map_err(|_| Failure::NotFromDisk)?;
    for &handle in handles.iter() {
        let (Ok(blocks), Ok(path)) = (open::<BlockIO>(handle), open::<DevicePath>(handle)) else {
            continue;
        };
        let path = path.as_bytes();
        let path = &path[..path.len().saturating_sub(PATH_END_BYTES)];
        let is_parent = partition_path
            .strip_prefix(path)
            .is_some_and(|rest| rest.starts_with(&PARTITION_NODE));
        if is_parent && !blocks.media().is_logical_partition() {
            let media = blocks.media().media_id();
            return Disk::with_slots(FirmwareDisk { blocks, media });
        }
    }
    Err(Failure::NotFromDisk)
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
