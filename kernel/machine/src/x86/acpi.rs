//! The tables of this machine, read once at boot.

use super::phys_ptr;
use crate::firmware::acpi::{self, Memory, Tables, Tpm2};
use crate::firmware::dmar::{Dmar, DmarError};
use crate::firmware::{mp, smbios};
use crate::inventory::{MemoryKind, Product};
use crate::sync::Once;
use crate::virtio::Place;

/// Physical memory through the direct map, which covers whatever the firmware's
/// memory map names.
struct DirectMap;

/// The first MiB is mapped too, and no table lies beyond what an address can be.
const PHYS_END: u64 = 1 << 46;

impl Memory for DirectMap {
    fn bytes(&self, phys: u64, len: usize) -> Option<&[u8]> {
        let end = phys.checked_add(len as u64)?;
        if phys == 0 || end > PHYS_END {
            return None;
        }
        // SAFETY: the firmware names this memory as holding a table, so it is in
        // the memory map, hence mapped, and nobody writes it: the frame
        // allocator gets usable regions only.
        Some(unsafe { core::slice::from_raw_parts(phys_ptr(phys as usize), len) })
    }
}

static TABLES: Once<Tables> = Once::new();

/// Reads the tables that `rsdp`, or a search where BIOSes put it, leads to, or those of
/// machines without ACPI. Needs
/// the heap and the direct map; the first call counts.
pub(crate) fn init(rsdp: Option<u64>) -> &'static Tables {
    TABLES.call_once(|| match rsdp.or_else(|| acpi::find_rsdp(&DirectMap)) {
        Some(rsdp) => acpi::read(&DirectMap, rsdp),
        None => mp::read(&DirectMap).unwrap_or_else(|| {
            log::warn!("no ACPI and no MP tables: one CPU, no interrupts by wire");
            Tables::EMPTY
        }),
    })
}

/// The tables; empty before [`init`].
pub(crate) fn tables() -> &'static Tables {
    static NONE: Tables = Tables::EMPTY;
    TABLES.get().unwrap_or(&NONE)
}

/// Virtio devices that the tables name.
pub(crate) fn virtio_places() -> &'static [Place] {
    &tables().virtio
}

/// What the firmware tells of an IOMMU.
pub(crate) fn dmar() -> Option<&'static Result<Dmar, DmarError>> {
    tables().dmar.as_ref()
}

/// What the firmware tells of a TPM 2.0.
pub(crate) fn tpm2() -> Option<Tpm2> {
    tables().tpm
}

/// Looks for SMBIOS tables: where BIOSes put their entry point, and in what UEFI
/// firmware keeps for itself.
pub(crate) fn find_product() -> Option<Product> {
    const AREA: u64 = 0xf_0000;
    const AREA_LEN: usize = 0x1_0000;
    /// What is looked through of one range.
    const RANGE_MAX: u64 = 16 << 20;
    let in_area = DirectMap.bytes(AREA, AREA_LEN);
    if let Some(found) = in_area.and_then(|a| smbios::find(&DirectMap, a)) {
        return Some(found);
    }
    let kept = |r: &crate::inventory::MemoryRange| {
        let memory = matches!(r.kind, MemoryKind::Firmware | MemoryKind::Tables);
        memory && r.start >= 1 << 20 && r.start.is_multiple_of(16)
    };
    super::boot::ranges().filter(kept).find_map(|r| {
        crate::thread::cond_resched();
        let len = (r.end - r.start).min(RANGE_MAX) as usize;
        smbios::find(&DirectMap, DirectMap.bytes(r.start, len)?)
    })
}
