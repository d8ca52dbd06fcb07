//! From the BIOS to the kernel: memory map, page tables, screen, ACPI tables.

use crate::{
    STACK_BYTES,
    firmware::low,
    memory::{self, HEAP_BYTES},
    screen,
};
use bootloader_boot_config::BootConfig;
use bootloader_x86_64_common::{
    Kernel, PageTables, SystemInfo, legacy_memory_region::LegacyFrameAllocator,
    load_and_switch_to_kernel,
};
use skep_pvh::loader::{LoaderRegion, require_memory};
use x86_64::{
    PhysAddr, VirtAddr,
    registers::control::Cr3,
    structures::paging::{FrameAllocator, OffsetPageTable, PageTable, Size4KiB},
};

/// End of low memory, which the library leaves alone.
const FIRST: u64 = 1 << 20;

/// Starts the kernel. `kernel` and `ramdisk` lie in whole pages of their own that live for
/// ever.
pub(crate) fn enter(kernel: &'static [u8], ramdisk: &'static [u8]) -> ! {
    let rsdp_addr = rsdp();
    let map = memory::map([kernel, ramdisk]);
    let kernel = Kernel::parse(kernel);
    // Frames are taken from the bottom, stack and heap are at the top.
    let own = (STACK_BYTES + HEAP_BYTES) as u64;
    require_memory(&kernel, &map, FIRST, ramdisk.len() as u64, own);
    let framebuffer = screen::set();
    let mut frames = LegacyFrameAllocator::new(map.regions().iter().copied().map(LoaderRegion));
    let page_tables = page_tables(&mut frames);
    let system_info = SystemInfo {
        framebuffer,
        rsdp_addr,
        ramdisk_addr: (!ramdisk.is_empty()).then_some(ramdisk.as_ptr() as u64),
        ramdisk_len: ramdisk.len() as u64,
    };
    load_and_switch_to_kernel(
        kernel,
        BootConfig::default(),
        frames,
        page_tables,
        system_info,
    )
}

/// Where the ACPI tables begin (ACPI 6.5, section 5.2.5.1): on a multiple of 16 bytes in the
/// first KiB of the BIOS's own low memory, or in its last 128 KiB below 1 MiB.
fn rsdp() -> Option<PhysAddr> {
    /// The word with the segment of the BIOS's own low memory.
    const EBDA_SEGMENT_AT: usize = 0x40e;
    let ebda = usize::from(u16::from_le_bytes(low(EBDA_SEGMENT_AT))) * 16;
    let is_it = |address: &usize| {
        let bytes: [u8; 20] = low(*address);
        bytes.starts_with(b"RSD PTR ")
            && bytes.iter().fold(0, |sum: u8, b| sum.wrapping_add(*b)) == 0
    };
    let places = (ebda..ebda + 1024).chain(0xe_0000..0x10_0000);
    let found = places.step_by(16).find(is_it)?;
    Some(PhysAddr::new(found as u64))
}

/// The tables in use (one to one), and an empty set for the kernel.
fn page_tables(frames: &mut impl FrameAllocator<Size4KiB>) -> PageTables {
    let one_to_one = VirtAddr::zero();
    let current = Cr3::read().0.start_address().as_u64() as *mut PageTable;
    let kernel_level_4_frame = frames.allocate_frame().expect("no memory for page tables");
    let kernel = kernel_level_4_frame.start_address().as_u64() as *mut PageTable;
    // SAFETY: memory is mapped one to one, so both pointers are valid; the first table is that
    // of `modes.s` and used by nobody else, for the BIOS is not called any more; the second
    // lies in a frame just taken and is written before a reference is made.
    unsafe {
        kernel.write(PageTable::new());
        PageTables {
            bootloader: OffsetPageTable::new(&mut *current, one_to_one),
            kernel: OffsetPageTable::new(&mut *kernel, one_to_one),
            kernel_level_4_frame,
        }
    }
}
