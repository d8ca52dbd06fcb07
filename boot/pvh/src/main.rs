//! Starts the kernel straight from `qemu -kernel` (or any VMM that speaks
//! PVH), without firmware's disk path: the kernel ELF is part of this file, the
//! ramdisk is the VMM's initrd, and both are handed over where they lie.
//!
//! The kernel sees the same [`bootloader_api`] contract as under BIOS or UEFI.
#![no_std]
#![no_main]

mod console;
mod entry;

use bootloader_boot_config::BootConfig;
use bootloader_x86_64_common::{
    Kernel, PageTables, SystemInfo, legacy_memory_region::LegacyFrameAllocator,
    load_and_switch_to_kernel,
};
use core::{cell::UnsafeCell, fmt::Write as _, panic::PanicInfo, slice};
use skep_pvh::{
    COMMAND_LINE, Kept, Kind, MemoryMap, PAGE,
    loader::{LoaderRegion, require_memory},
    pci::{self, ConfigSpace},
};
use x86_64::{
    PhysAddr, VirtAddr,
    instructions::port::Port,
    registers::control::Cr3,
    structures::paging::{FrameAllocator, OffsetPageTable, PageTable, PhysFrame},
};

/// Aligns what it holds to a page, so that the kernel's segments can be mapped
/// where they lie.
#[repr(C, align(4096))]
struct PageAligned<T: ?Sized>(T);

static KERNEL: &PageAligned<[u8]> = &PageAligned(*include_bytes!(env!("SKEP_KERNEL")));

/// `hvm_start_info`, Xen's `arch-x86/hvm/start_info.h`, version 1.
#[repr(C)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    module_count: u32,
    modules: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_len: u32,
    reserved: u32,
}

/// Value of [`StartInfo::magic`].
const START_MAGIC: u32 = 0x336e_c578;

/// `hvm_modlist_entry`.
#[repr(C)]
struct Module {
    address: u64,
    len: u64,
    command_line: u64,
    reserved: u64,
}

/// `hvm_memmap_table_entry`.
#[repr(C)]
struct MemoryEntry {
    address: u64,
    len: u64,
    kind: u32,
    reserved: u32,
}

/// PCI configuration space by its two ports.
struct ConfigPorts;

impl ConfigPorts {
    /// Names a register of bus 0 and returns the port to access it by.
    fn select(device: u8, function: u8, offset: u8) -> Port<u32> {
        let register = u32::from(device) << 11 | u32::from(function) << 8 | u32::from(offset);
        let mut address = Port::<u32>::new(0xcf8);
        // SAFETY: only chooses what the data port means; nothing else uses the
        // two ports before the kernel runs.
        unsafe { address.write(1 << 31 | register) };
        Port::new(0xcfc)
    }
}

impl ConfigSpace for ConfigPorts {
    fn read(&mut self, device: u8, function: u8, offset: u8) -> u32 {
        // SAFETY: the configuration registers read here have no side effects.
        unsafe { Self::select(device, function, offset).read() }
    }

    fn write(&mut self, device: u8, function: u8, offset: u8, value: u32) {
        // SAFETY: `pci::assign` writes only to the command and base address
        // registers of devices that decode nothing, to addresses it gives once.
        unsafe { Self::select(device, function, offset).write(value) }
    }
}

unsafe extern "C" {
    /// First byte after this program, from the linker script.
    static pvh_image_end: u8;
}

/// Called by the entry code with the VMM's start info.
#[unsafe(no_mangle)]
extern "C" fn pvh_main(start_info: &'static StartInfo) -> ! {
    assert!(
        start_info.magic == START_MAGIC,
        "not started by the PVH protocol"
    );
    pci::assign(&mut ConfigPorts);
    let ramdisk = ramdisk(start_info);
    let (line, line_len) = command_line(start_info);
    let (disk, disk_len) = ramdisk.unwrap_or_default();
    let kept = [
        (line, line_len, Kind::Other(COMMAND_LINE)),
        (disk, disk_len, Kind::Held),
    ];
    let map = MemoryMap::new(
        memory_entries(start_info)
            .iter()
            .map(|entry| (entry.address, entry.len, entry.kind)),
        &kept.map(|(address, len, kind)| Kept { address, len, kind }),
    );
    // `&raw const` takes the address only; the byte there is never read.
    let image_end = PhysAddr::new(&raw const pvh_image_end as u64);
    let first_free = PhysFrame::containing_address(image_end) + 1;
    let mut frames = LegacyFrameAllocator::new_starting_at(
        first_free,
        map.regions().iter().copied().map(LoaderRegion),
    );
    let kernel = Kernel::parse(&KERNEL.0);
    require_memory(
        &kernel,
        &map,
        image_end.as_u64(),
        ramdisk.map_or(0, |(_, len)| len),
        0,
    );
    let page_tables = page_tables(&mut frames);
    let system_info = SystemInfo {
        framebuffer: None,
        rsdp_addr: (start_info.rsdp != 0).then(|| PhysAddr::new(start_info.rsdp)),
        ramdisk_addr: ramdisk.map(|(address, _)| address),
        ramdisk_len: ramdisk.map_or(0, |(_, len)| len),
    };
    load_and_switch_to_kernel(
        kernel,
        BootConfig::default(),
        frames,
        page_tables,
        system_info,
    )
}

/// Address and length of the first module, the ramdisk; `None` when there is none.
fn ramdisk(start_info: &StartInfo) -> Option<(u64, u64)> {
    if start_info.module_count == 0 || start_info.modules == 0 {
        return None;
    }
    // SAFETY: by the protocol `modules` points to `module_count` entries, and
    // the first 4 GiB are mapped one to one.
    let module = unsafe { &*(start_info.modules as *const Module) };
    assert!(
        module.address % PAGE == 0,
        "the ramdisk is not page aligned"
    );
    (module.len != 0).then_some((module.address, module.len))
}

/// A page of this program for the command line, which the VMM may have put anywhere.
#[repr(C, align(4096))]
struct LinePage(UnsafeCell<[u8; PAGE as usize]>);

// SAFETY: one CPU runs, and nothing interrupts it.
unsafe impl Sync for LinePage {}

static LINE: LinePage = LinePage(UnsafeCell::new([0; PAGE as usize]));

/// Copies the command line to its page, a zero behind it; where that is, and its length:
/// 0 if there is no command line.
fn command_line(start_info: &StartInfo) -> (u64, u64) {
    let at = start_info.command_line;
    if at == 0 {
        return (0, 0);
    }
    // SAFETY: by the protocol a text ended by a zero is there, and the first 4 GiB are
    // mapped one to one.
    let byte = |n: u64| unsafe { ((at + n) as *const u8).read() };
    let len = (0..PAGE - 1).find(|n| byte(*n) == 0);
    let len = len.expect("the command line is longer than 4094 bytes");
    // SAFETY: nobody else has a reference to the page.
    let page = unsafe { &mut *LINE.0.get() };
    for (n, to) in (0..len).zip(page.iter_mut()) {
        *to = byte(n);
    }
    (LINE.0.get() as u64, len)
}

/// The VMM's memory map.
fn memory_entries(start_info: &StartInfo) -> &'static [MemoryEntry] {
    assert!(
        start_info.version >= 1 && start_info.memory_map_len != 0,
        "the VMM gave no memory map"
    );
    // SAFETY: by version 1 of the protocol there are `memory_map_len` entries
    // at `memory_map`, and the first 4 GiB are mapped one to one.
    unsafe {
        slice::from_raw_parts(
            start_info.memory_map as *const MemoryEntry,
            start_info.memory_map_len as usize,
        )
    }
}

/// The tables in use (one to one), and an empty set for the kernel.
fn page_tables(
    frames: &mut impl FrameAllocator<x86_64::structures::paging::Size4KiB>,
) -> PageTables {
    let one_to_one = VirtAddr::zero();
    let current = Cr3::read().0.start_address().as_u64() as *mut PageTable;
    let kernel_level_4_frame = frames.allocate_frame().expect("no memory for page tables");
    let kernel = kernel_level_4_frame.start_address().as_u64() as *mut PageTable;
    // SAFETY: memory is mapped one to one, so both pointers are valid; the
    // first table is the entry code's and used by nobody else, the second lies
    // in a frame just taken and is written before a reference is made.
    unsafe {
        kernel.write(PageTable::new());
        PageTables {
            bootloader: OffsetPageTable::new(&mut *current, one_to_one),
            kernel: OffsetPageTable::new(&mut *kernel, one_to_one),
            kernel_level_4_frame,
        }
    }
}

/// Says what went wrong, then leaves QEMU through its exit device (status 255
/// with `-device isa-debug-exit,iobase=0xf4,iosize=4`); elsewhere it stops.
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(
        console::Com1,
        "\r\nskep boot: cannot start the kernel: {info}\r"
    );
    let mut exit = Port::<u32>::new(0xf4);
    // SAFETY: nothing is left to protect; without the device the write is lost.
    unsafe { exit.write(0x7f) };
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}
