//! The machine-independent half of the PVH front end: the hypervisor's memory
//! map, cleaned for the loader, and addresses for its PCI devices ([`pci`]).
//!
//! Kept apart from the entry code so that it is tested on the host.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
pub mod loader;
pub mod pci;

/// Bytes of a page; every region handed on starts and ends on one.
pub const PAGE: u64 = 4096;

/// Most regions kept of the hypervisor's map (QEMU gives about ten).
pub const REGIONS_MAX: usize = 64;

/// E820 type of ordinary memory, which PVH uses too.
pub const E820_RAM: u32 = 1;

/// E820 type of the pages that hold the VMM's command line, of the range that is left to
/// makers (ACPI 6.5, table 15.4). The kernel looks for it (`machine::boot`).
pub const COMMAND_LINE: u32 = 0xf053_4b43;

/// What may be done with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Free memory, from which the loader may take frames.
    Usable,
    /// Memory that holds the ramdisk: not the loader's to take, the kernel's to keep.
    Held,
    /// Anything else, with its E820 type.
    Other(u32),
}

/// A range of physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// What it is.
    pub kind: Kind,
}

/// Bytes in memory that are to stay: where they begin, how many, what to call them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Address of the first byte.
    pub address: u64,
    /// How many.
    pub len: u64,
    /// What their pages become.
    pub kind: Kind,
}

impl Kept {
    /// The part of `start..end` that they take, in whole pages, if any.
    fn within(&self, start: u64, end: u64) -> Option<Region> {
        let first = self.address & !(PAGE - 1);
        let last = round_up(self.address.saturating_add(self.len));
        let part = Region {
            start: first.max(start),
            end: last.min(end),
            kind: self.kind,
        };
        (self.len > 0 && part.start < part.end).then_some(part)
    }
}

/// An ordered list of at most [`REGIONS_MAX`] regions, without a heap.
#[derive(Clone, Copy, Debug)]
pub struct MemoryMap {
    regions: [Region; REGIONS_MAX],
    len: usize,
}

impl MemoryMap {
    /// Builds the map from the hypervisor's `(start, length, E820 type)` entries.
    ///
    /// Free memory shrinks to whole pages, reserved ranges grow to them. The
    /// pages of what is `kept` become a kind of their own, because the loader hands
    /// out every usable frame from the bottom up and would otherwise write over a
    /// ramdisk on a machine with little memory. Reserved ranges above the last
    /// byte of memory are dropped: the loader maps everything up to the end of
    /// the map, and some CPU models put a hole of their own just below 1 TiB.
    pub fn new(entries: impl Iterator<Item = (u64, u64, u32)> + Clone, kept: &[Kept]) -> Self {
        let mut map = Self {
            regions: [Region {
                start: 0,
                end: 0,
                kind: Kind::Usable,
            }; REGIONS_MAX],
            len: 0,
        };
        let memory_end = entries
            .clone()
            .filter(|entry| entry.2 == E820_RAM)
            .map(|(start, len, _)| start.saturating_add(len))
            .max()
            .unwrap_or(0)
            .max(4 << 30);
        for (start, len, kind) in entries {
            let end = start.saturating_add(len);
            if kind == E820_RAM {
                map.push_memory(round_up(start), end & !(PAGE - 1), kept);
            } else if start < memory_end {
                map.push(start & !(PAGE - 1), round_up(end), Kind::Other(kind));
            }
        }
        map
    }

    /// The regions, in the hypervisor's order.
    pub fn regions(&self) -> &[Region] {
        &self.regions[..self.len]
    }

    /// Bytes of usable memory from `address` on.
    pub fn usable_above(&self, address: u64) -> u64 {
        let usable = self
            .regions()
            .iter()
            .filter(|region| region.kind == Kind::Usable);
        usable
            .map(|region| region.end.saturating_sub(region.start.max(address)))
            .sum()
    }

    /// Adds memory, in pieces where something in it is kept.
    fn push_memory(&mut self, mut start: u64, end: u64, kept: &[Kept]) {
        loop {
            let parts = kept.iter().filter_map(|k| k.within(start, end));
            let Some(next) = parts.min_by_key(|part| part.start) else {
                return self.push(start, end, Kind::Usable);
            };
            self.push(start, next.start, Kind::Usable);
            self.push(next.start, next.end, next.kind);
            start = next.end;
        }
    }

    /// Adds a region unless it is empty; a full list loses the rest.
    fn push(&mut self, start: u64, end: u64, kind: Kind) {
        if start < end
            && let Some(slot) = self.regions.get_mut(self.len)
        {
            *slot = Region { start, end, kind };
            self.len += 1;
        }
    }
}

fn round_up(address: u64) -> u64 {
    address.saturating_add(PAGE - 1) & !(PAGE - 1)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{COMMAND_LINE, Kept, Kind, MemoryMap, PAGE, REGIONS_MAX, Region};

    fn map(entries: &[(u64, u64, u32)], ramdisk: Option<(u64, u64)>) -> MemoryMap {
        let kept = ramdisk.map(|(address, len)| Kept {
            address,
            len,
            kind: Kind::Held,
        });
        MemoryMap::new(entries.iter().copied(), kept.as_slice())
    }

    #[test]
    fn ramdisk_and_command_line_are_both_kept() {
        let kept = |address, len, kind| Kept { address, len, kind };
        let line = Kind::Other(COMMAND_LINE);
        let all = [
            kept(0x9000, 0x10, Kind::Held),
            kept(0x4ff0, 0x20, line),
            // Empty, and elsewhere.
            kept(0x2000, 0, line),
            kept(0x80000, 0x10, line),
        ];
        let map = MemoryMap::new([(0, 0x10000, 1)].into_iter(), &all);
        let found: std::vec::Vec<_> = map.regions().iter().map(|r| (r.start, r.kind)).collect();
        assert_eq!(
            found,
            [
                (0, Kind::Usable),
                (0x4000, line),
                (0x6000, Kind::Usable),
                (0x9000, Kind::Held),
                (0xa000, Kind::Usable),
            ]
        );
    }

    #[test]
    fn memory_shrinks_and_reserved_grows_to_pages() {
        let map = map(&[(0, 0x9fc00, 1), (0x9fc00, 0x400, 2)], None);
        assert_eq!(
            map.regions(),
            [
                Region {
                    start: 0,
                    end: 0x9f000,
                    kind: Kind::Usable
                },
                Region {
                    start: 0x9f000,
                    end: 0xa0000,
                    kind: Kind::Other(2)
                },
            ]
        );
    }

    #[test]
    fn ramdisk_is_cut_out_of_memory() {
        let map = map(&[(0x10_0000, 0x100_0000, 1)], Some((0x80_0000, 0x1801)));
        assert_eq!(
            map.regions(),
            [
                Region {
                    start: 0x10_0000,
                    end: 0x80_0000,
                    kind: Kind::Usable
                },
                Region {
                    start: 0x80_0000,
                    end: 0x80_2000,
                    kind: Kind::Held
                },
                Region {
                    start: 0x80_2000,
                    end: 0x110_0000,
                    kind: Kind::Usable
                },
            ]
        );
    }

    #[test]
    fn ramdisk_at_the_end_or_elsewhere_leaves_no_empty_region() {
        let at_end = map(&[(0, 0x10000, 1)], Some((0xf000, PAGE)));
        assert_eq!(at_end.regions().len(), 2);
        let elsewhere = map(&[(0, 0x10000, 1)], Some((0x100000, PAGE)));
        assert_eq!(
            elsewhere.regions(),
            [Region {
                start: 0,
                end: 0x10000,
                kind: Kind::Usable
            }]
        );
    }

    #[test]
    fn usable_memory_is_counted_from_an_address_on() {
        let map = map(
            &[(0, 0x8000, 1), (0x8000, 0x1000, 2), (0x10000, 0x8000, 1)],
            None,
        );
        assert_eq!(map.usable_above(0), 0x10000);
        assert_eq!(map.usable_above(0x14000), 0x4000);
        assert_eq!(map.usable_above(0x20000), 0);
    }

    #[test]
    fn far_reserved_holes_are_dropped() {
        let hole = (0xfd_0000_0000, 0x3_0000_0000, 2);
        assert_eq!(map(&[(0, 0x10000, 1), hole], None).regions().len(), 1);
    }

    #[test]
    fn hostile_maps_do_not_overflow() {
        let many = [(u64::MAX - 1, u64::MAX, 1); REGIONS_MAX * 2];
        assert!(map(&many, Some((u64::MAX, u64::MAX))).regions().len() <= REGIONS_MAX);
        let reserved = [(0, 1, 2); REGIONS_MAX * 2];
        assert_eq!(map(&reserved, None).regions().len(), REGIONS_MAX);
    }
}
