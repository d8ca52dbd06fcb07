//! What the `virtio-drivers` crate asks of the kernel.

use crate::dma;
use crate::frame::Block;
use core::ptr::NonNull;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

/// The kernel, to that crate.
#[derive(Debug)]
pub(super) struct Kernel;

// SAFETY: `dma_alloc` gives whole zeroed pages that nothing else uses; `share`
// gives the address of exactly the bytes it was asked for.
unsafe impl Hal for Kernel {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let order = pages.next_power_of_two().trailing_zeros() as usize;
        match Block::zeroed(order) {
            Some(block) => {
                // SAFETY: a block's pages are mapped, not at zero.
                let ptr = unsafe { NonNull::new_unchecked(block.ptr()) };
                (block.leak() as PhysAddr, ptr)
            }
            // An address of zero tells the crate that there was no memory.
            None => (0, NonNull::dangling()),
        }
    }

    unsafe fn dma_dealloc(phys: PhysAddr, _: NonNull<u8>, pages: usize) -> i32 {
        let order = pages.next_power_of_two().trailing_zeros() as usize;
        // SAFETY: the caller's: `phys` came from `dma_alloc` with as many pages.
        drop(unsafe { Block::from_phys(phys as usize, order) });
        0
    }

    #[expect(clippy::unreachable, reason = "no code of ours leads here")]
    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        // Only the crate's own PCI transport asks for this, which is not used.
        unreachable!("registers are mapped by the pci module")
    }

    #[expect(
        clippy::unreachable,
        reason = "another address would be lent to a device"
    )]
    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        // Queues are given segments only, which lie in the direct map and in one
        // piece: stack addresses, which need translation, never come here.
        dma::phys_of(buffer.cast()).unwrap_or_else(|| unreachable!("segments are in RAM"))
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
