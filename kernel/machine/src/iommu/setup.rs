//! Turning the units on that the firmware tells of.

use super::registers::{Abilities, Registers};
use super::scope::{Bridge, Bridges};
use super::table::Access;
use super::unit::{Unit, UnitError};
use super::{IOMMU, Iommu, Status};
use crate::addr::PAGE_SIZE;
use crate::arch;
use crate::firmware::dmar::{Dmar, Reserved, UnitEntry};
use crate::inventory::{MemoryKind, MemoryRange};
use crate::mmio::Mmio;
use crate::pci::{self, Device};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Turns on the units that the firmware tells of. Devices whose drivers come later reach
/// nothing from here on, but for what the firmware has reserved for them. Without units
/// nothing changes.
pub fn start() {
    let Some(dmar) = arch::dmar() else {
        return;
    };
    let iommu = IOMMU.call_once(|| match dmar {
        Ok(dmar) => turn_on(dmar),
        Err(e) => Iommu::off((*e).into()),
    });
    match iommu.status {
        Status::On { .. } => log::info!("IOMMU: {}", iommu.status),
        _ => log::warn!("IOMMU: {}", iommu.status),
    }
}

impl Iommu {
    fn off(status: Status) -> Iommu {
        Iommu {
            status,
            entries: Vec::new(),
            units: Vec::new(),
            bridges: Bridges(Vec::new()),
        }
    }
}

fn turn_on(dmar: &Dmar) -> Iommu {
    let bridges = Bridges(pci::bridges().iter().filter_map(bridge).collect());
    let reserved = |d: &Device| {
        let regions = dmar.reserved.iter().filter(|r| r.segment == 0);
        let mut scopes = regions.flat_map(|r| &r.scopes);
        scopes.any(|s| bridges.means(s, d.address))
    };
    // What the firmware has left running would be refused, again and again. Devices that
    // it goes on using itself may: they reach what it has reserved.
    for device in pci::devices().iter().filter(|d| !reserved(d)) {
        device.set_master(false);
    }
    let mut units = Vec::new();
    let mut failed = None;
    for entry in &dmar.units {
        let unit = match open(entry) {
            Ok(unit) => Some(unit),
            Err(e) => {
                log::warn!("IOMMU at {:#x}: {e}", entry.registers);
                failed = Some(e);
                None
            }
        };
        units.push(unit);
    }
    for region in dmar.reserved.iter().filter(|r| r.segment == 0) {
        lend_reserved(region, &dmar.units, &units, &bridges);
    }
    for (entry, place) in dmar.units.iter().zip(&mut units) {
        if let Some(unit) = *place
            && let Err(e) = unit.turn_on()
        {
            log::warn!("IOMMU at {:#x}: {}", entry.registers, UnitError::from(e));
            unit.turn_off();
            failed = Some(e.into());
            *place = None;
        }
    }
    let on = units.iter().flatten();
    let status = match on.clone().next() {
        Some(unit) => Status::On {
            version: unit.version(),
            units: on.count(),
            of: units.len(),
        },
        None => Status::Failed(failed.unwrap_or(UnitError::NoRegisters)),
    };
    Iommu {
        status,
        entries: dmar.units.clone(),
        units,
        bridges,
    }
}

/// Maps the registers of a unit.
fn open(entry: &UnitEntry) -> Result<&'static Unit, UnitError> {
    if entry.segment != 0 {
        return Err(UnitError::OtherSegment);
    }
    let map = |len| Mmio::map(entry.registers, len).ok_or(UnitError::NoRegisters);
    let mut registers = map(PAGE_SIZE)?;
    let first: &dyn Registers = &registers;
    let needed = Abilities::read(first).register_bytes();
    if needed > PAGE_SIZE {
        registers = map(needed.next_multiple_of(PAGE_SIZE))?;
    }
    let limit = arch::frame_table().len() as u64 * PAGE_SIZE as u64;
    let unit = Unit::new(Box::new(registers), limit)?;
    Ok(Box::leak(Box::new(unit)))
}

fn bridge(device: &Device) -> Option<Bridge> {
    let (first, last, renames) = pci::behind(device)?;
    Some(Bridge {
        at: device.address,
        behind: (first, last),
        renames,
    })
}

/// Lends a region for ever to the devices it is reserved for.
fn lend_reserved(
    region: &Reserved,
    entries: &[UnitEntry],
    units: &[Option<&'static Unit>],
    bridges: &Bridges,
) {
    let page = PAGE_SIZE as u64;
    let pages = region.start / page..region.end.div_ceil(page);
    let has_it = |d: &&Device| region.scopes.iter().any(|s| bridges.means(s, d.address));
    for device in pci::devices().iter().filter(has_it) {
        let number = bridges.unit_of(entries, device.address);
        let Some(unit) = number.and_then(|n| *units.get(n)?) else {
            continue;
        };
        let lent = if is_used(region, arch::memory_ranges()) {
            Err("it is memory of the kernel's")
        } else {
            unit.attach(&bridges.names_of(device.address))
                .map_err(|_| "no domain")
                .and_then(|d| d.lend(pages.clone(), Access::BOTH).map_err(|_| "no memory"))
        };
        match lent {
            Ok(()) => log::info!(
                "IOMMU: {} keeps {:#x}..{:#x} of the firmware's",
                device.address,
                region.start,
                region.end
            ),
            Err(why) => log::warn!(
                "IOMMU: {} loses {:#x}..{:#x} of the firmware's: {why}",
                device.address,
                region.start,
                region.end
            ),
        }
    }
}

/// Whether a part of the region is memory that the kernel uses: firmware may say so, and
/// a device must not have it all the same.
fn is_used(region: &Reserved, ranges: impl Iterator<Item = MemoryRange>) -> bool {
    let mut usable = ranges.filter(|r| r.kind == MemoryKind::Usable);
    usable.any(|r| r.start < region.end && region.start < r.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_region_covers_memory_in_use() {
        let region = |start, end| Reserved {
            segment: 0,
            start,
            end,
            scopes: Vec::new(),
        };
        let range = |start, end, kind| MemoryRange { start, end, kind };
        let map = [
            range(0x1000, 0x8000, MemoryKind::Usable),
            range(0x8000, 0x9000, MemoryKind::Reserved),
        ];
        let used = |start, end| is_used(&region(start, end), map.iter().copied());
        assert!(used(0x7fff, 0x9000) && used(0, 0x1001) && used(0x2000, 0x3000));
        assert!(!used(0x8000, 0x9000) && !used(0, 0x1000) && !used(0x9000, 0xa000));
    }
}
