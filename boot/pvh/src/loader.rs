//! The memory map as the loader library takes it; for the BIOS loader too.

use crate::{Kind, MemoryMap, PAGE, Region};
use bootloader_api::info::MemoryRegionKind;
use bootloader_x86_64_common::{Kernel, legacy_memory_region::LegacyMemoryRegion};
use x86_64::PhysAddr;

/// A region as the loader library wants to see it.
#[derive(Clone, Copy, Debug)]
pub struct LoaderRegion(pub Region);

impl LegacyMemoryRegion for LoaderRegion {
    fn start(&self) -> PhysAddr {
        PhysAddr::new(self.0.start)
    }

    fn len(&self) -> u64 {
        self.0.end - self.0.start
    }

    fn kind(&self) -> MemoryRegionKind {
        match self.0.kind {
            Kind::Usable => MemoryRegionKind::Usable,
            Kind::Held => MemoryRegionKind::Bootloader,
            Kind::Other(kind) => MemoryRegionKind::UnknownBios(kind),
        }
    }

    fn usable_after_bootloader_exit(&self) -> bool {
        self.0.kind == Kind::Usable
    }
}

/// Says so if the machine has too little memory to start the kernel; the loader
/// would find out half-way. `image_end` is where memory begins that the loader takes frames of,
/// `own` how many bytes of it are its own until the kernel runs.
///
/// # Panics
/// There is too little.
pub fn require_memory(
    kernel: &Kernel<'_>,
    map: &MemoryMap,
    image_end: u64,
    ramdisk_len: u64,
    own: u64,
) {
    /// Tables of the kernel and its stack, boot info, what rounding costs.
    const ALLOWANCE: u64 = 256 << 10;
    let segments: u64 = kernel
        .elf
        .program_iter()
        .map(|segment| segment.mem_size())
        .sum();
    // 8 bytes of page table for each page of the ramdisk.
    let tables = ramdisk_len / PAGE * 8;
    let needed = segments + kernel.config.kernel_stack_size + tables + own + ALLOWANCE;
    let free = map.usable_above(image_end);
    assert!(
        free >= needed,
        "too little memory: {} KiB are free, {} KiB needed",
        free >> 10,
        needed >> 10
    );
}
