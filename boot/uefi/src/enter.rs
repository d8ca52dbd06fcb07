//! From the firmware to the kernel: memory map, page tables, screen.

use crate::console;
use bootloader_api::info::{FrameBufferInfo, MemoryRegionKind, PixelFormat};
use bootloader_boot_config::BootConfig;
use bootloader_x86_64_common::{
    Kernel, PageTables, RawFrameBufferInfo, SystemInfo,
    legacy_memory_region::{LegacyFrameAllocator, LegacyMemoryRegion},
    load_and_switch_to_kernel,
};
use uefi::{
    boot::{self, OpenProtocolAttributes, OpenProtocolParams},
    mem::memory_map::{MemoryDescriptor, MemoryMap as _, MemoryMapMut as _, MemoryType},
    proto::console::gop::{self, GraphicsOutput},
    table::cfg::ConfigTableEntry,
};
use x86_64::{
    PhysAddr, VirtAddr,
    registers::control::{Cr3, Cr3Flags},
    structures::paging::{FrameAllocator, OffsetPageTable, PageTable, Size4KiB},
};

/// A region of the firmware's memory map, as the loader library wants to see it.
#[derive(Clone, Copy, Debug)]
struct Region(MemoryDescriptor);

const PAGE: u64 = 4096;

impl Region {
    fn end(&self) -> u64 {
        self.0.phys_start + self.0.page_count * PAGE
    }

    /// Memory that the kernel may use, now or once the firmware has left.
    fn is_memory(&self) -> bool {
        matches!(
            self.0.ty,
            MemoryType::CONVENTIONAL
                | MemoryType::LOADER_CODE
                | MemoryType::LOADER_DATA
                | MemoryType::BOOT_SERVICES_CODE
                | MemoryType::BOOT_SERVICES_DATA
        )
    }
}

impl LegacyMemoryRegion for Region {
    fn start(&self) -> PhysAddr {
        PhysAddr::new(self.0.phys_start)
    }

    fn len(&self) -> u64 {
        self.0.page_count * PAGE
    }

    fn kind(&self) -> MemoryRegionKind {
        if self.0.ty == MemoryType::CONVENTIONAL {
            MemoryRegionKind::Usable
        } else {
            MemoryRegionKind::UnknownUefi(self.0.ty.0)
        }
    }

    fn usable_after_bootloader_exit(&self) -> bool {
        self.is_memory()
    }
}

/// Ends the firmware's services and starts the kernel. `kernel` and `ramdisk` lie in
/// whole pages of their own that live for ever.
pub(crate) fn enter(kernel: &'static [u8], ramdisk: &'static [u8]) -> ! {
    let framebuffer = framebuffer();
    let rsdp_addr = rsdp();
    let kernel = Kernel::parse(kernel);
    console::leave_firmware();
    // SAFETY: no reference to a protocol is kept, and nothing is freed to the firmware
    // after this: this function does not return.
    let mut map = unsafe { boot::exit_boot_services(None) };
    map.sort();
    // The library maps everything up to the end of the map, and some CPU models have a
    // hole of their own just below 1 TiB: what lies beyond all memory is left out.
    let regions = map.entries().copied().map(Region);
    let kept = regions
        .clone()
        .enumerate()
        .filter(|(_, region)| region.is_memory() || region.end() <= 4 << 30);
    let count = kept.last().map_or(0, |(last, _)| last + 1);
    let regions = regions.take(count);
    let mut frames = LegacyFrameAllocator::new(regions);
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

/// Where the ACPI tables begin: those of version 2 if there are both.
fn rsdp() -> Option<PhysAddr> {
    uefi::system::with_config_table(|table| {
        let find = |guid| table.iter().find(|entry| entry.guid == guid);
        find(ConfigTableEntry::ACPI2_GUID)
            .or_else(|| find(ConfigTableEntry::ACPI_GUID))
            .map(|entry| PhysAddr::new(entry.address as u64))
    })
}

/// The screen, if the machine has one that is memory; a screen that only copies, or
/// with colours the kernel does not know, is none.
fn framebuffer() -> Option<RawFrameBufferInfo> {
    let handle = boot::get_handle_for_protocol::<GraphicsOutput>().ok()?;
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: the protocol is only asked for its mode, which leaves it to the firmware's
    // console as well; the handle stays, for no driver is stopped.
    let screen = unsafe {
        boot::open_protocol::<GraphicsOutput>(params, OpenProtocolAttributes::GetProtocol)
    };
    let mut screen = screen.ok()?;
    let mode = screen.current_mode_info();
    let pixel_format = match mode.pixel_format() {
        gop::PixelFormat::Rgb => PixelFormat::Rgb,
        gop::PixelFormat::Bgr => PixelFormat::Bgr,
        gop::PixelFormat::Bitmask | gop::PixelFormat::BltOnly => return None,
    };
    let mut memory = screen.frame_buffer();
    let addr = PhysAddr::try_new(memory.as_mut_ptr() as u64).ok()?;
    let (width, height) = mode.resolution();
    let info = FrameBufferInfo {
        byte_len: memory.size(),
        width,
        height,
        pixel_format,
        bytes_per_pixel: 4,
        stride: mode.stride(),
    };
    (addr.as_u64() != 0 && info.byte_len >= info.stride * height * 4)
        .then_some(RawFrameBufferInfo { addr, info })
}

/// A copy of the firmware's top table, which may be read-only, and an empty set of
/// tables for the kernel.
fn page_tables(frames: &mut impl FrameAllocator<Size4KiB>) -> PageTables {
    // The firmware maps all memory one to one (UEFI 2.10, section 2.3.4).
    let one_to_one = VirtAddr::zero();
    let current = Cr3::read().0.start_address().as_u64() as *const PageTable;
    let mut empty = || {
        let frame = frames.allocate_frame().expect("no memory for page tables");
        let table = frame.start_address().as_u64() as *mut PageTable;
        // SAFETY: the frame is free memory, mapped one to one, and was just taken.
        unsafe { table.write(PageTable::new()) };
        (frame, table)
    };
    let (bootloader_frame, bootloader) = empty();
    let (kernel_level_4_frame, kernel) = empty();
    // SAFETY: the first table is the firmware's and only read; the other two were just
    // written and belong to nobody else. With all entries the same, loading the copy
    // changes no mapping.
    unsafe {
        (*bootloader).clone_from(&*current);
        Cr3::write(bootloader_frame, Cr3Flags::empty());
        PageTables {
            bootloader: OffsetPageTable::new(&mut *bootloader, one_to_one),
            kernel: OffsetPageTable::new(&mut *kernel, one_to_one),
            kernel_level_4_frame,
        }
    }
}
