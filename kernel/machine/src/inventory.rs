//! What the machine is made of, for a report to people: nothing of it is relied on.

#[cfg(target_os = "none")]
use crate::{arch, sync::Once};
use alloc::string::String;
use alloc::vec::Vec;

/// The processors, which are taken to be alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Who made them, as CPUID says it.
    pub vendor: String,
    /// Their name, as CPUID says it.
    pub model: String,
    /// Family.
    pub family: u8,
    /// Model within the family.
    pub number: u8,
    /// Stepping.
    pub stepping: u8,
    /// Abilities that matter to programs or to isolation, by the names that Linux gives
    /// them.
    pub features: Vec<&'static str>,
}

/// What a range of physical memory is, as the firmware said at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Free for the kernel's use, what the boot loader had used included.
    Usable,
    /// ACPI tables.
    Tables,
    /// The firmware's own, while the system runs.
    Firmware,
    /// Devices.
    Devices,
    /// Reserved, for whatever.
    Reserved,
    /// Known to be broken.
    Broken,
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRange {
    /// First address.
    pub start: u64,
    /// One beyond the last.
    pub end: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// The machine as a product. What the firmware does not say is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Product {
    /// Who made the firmware.
    pub firmware_maker: String,
    /// Its version.
    pub firmware_version: String,
    /// Its date, as it writes it.
    pub firmware_date: String,
    /// Who made the machine.
    pub maker: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its UUID, in the order in which it is written; zeros if it has none.
    pub uuid: [u8; 16],
    /// Who made the main board.
    pub board_maker: String,
    /// The board's name.
    pub board_name: String,
    /// The board's serial number.
    pub board_serial: String,
    /// The memory modules that are plugged in.
    pub modules: Vec<Module>,
}

/// A memory module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Where it is plugged in.
    pub place: String,
    /// Who made it.
    pub maker: String,
    /// Its part number.
    pub part: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its speed in million transfers a second, 0 if not said.
    pub speed: u16,
}

/// A table, by its header (ACPI 6.5, 5.2.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// Its signature, such as `APIC`.
    pub signature: [u8; 4],
    /// Who made it, as it says.
    pub maker: [u8; 6],
    /// Its length in bytes.
    pub bytes: u32,
}

/// The processors.
#[cfg(target_os = "none")]
#[must_use]
pub fn processor() -> Processor {
    arch::describe_cpu()
}

/// The memory map in the order of addresses; neighbours of one kind are one range.
#[cfg(target_os = "none")]
#[must_use]
pub fn memory_map() -> Vec<MemoryRange> {
    let mut ranges: Vec<MemoryRange> = arch::boot::ranges().collect();
    ranges.sort_unstable_by_key(|r| r.start);
    let mut merged: Vec<MemoryRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if last.kind == range.kind && last.end == range.start => {
                last.end = range.end;
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// The ACPI tables, in the order in which the firmware lists them.
#[cfg(target_os = "none")]
#[must_use]
pub fn acpi_tables() -> &'static [TableName] {
    &arch::acpi::tables().names
}

/// The machine as a product; `None` if its firmware has no SMBIOS tables that can be
/// found. The first call looks for them.
#[cfg(target_os = "none")]
pub fn product() -> Option<&'static Product> {
    static FOUND: Once<Option<Product>> = Once::new();
    FOUND.call_once(arch::acpi::find_product).as_ref()
}
