//! The machine-independent half of the PVH front end: the hypervisor's memory
//! map, cleaned for the loader, and addresses for its PCI devices ([`pci`]).
//!
//! Kept apart from the entry code so that it is tested on the host.
#![no_std]
#![forbid(unsafe_code)]

pub mod pci;

/// Bytes of a page; every region handed on starts and ends on one.
pub const PAGE: u64 = 4096;

/// Most regions kept of the hypervisor's map (QEMU gives about ten).
pub const REGIONS_MAX: usize = 64;

/// E820 type of ordinary memory, which PVH uses too.
pub const E820_RAM: u32 = 1;

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
    /// pages of `ramdisk` become [`Kind::Held`], because the loader hands out
    /// every usable frame from the bottom up and would otherwise write over a
    /// ramdisk on a machine with little memory. Reserved ranges above the last
    /// byte of memory are dropped: the loader maps everything up to the end of
    /// the map, and some CPU models put a hole of their own just below 1 TiB.
    pub fn new(
        entries: impl Iterator<Item = (u64, u64, u32)> + Clone,
        ramdisk: Option<(u64, u64)>,
    ) -> Self {
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
                map.push_memory(round_up(start), end & !(PAGE - 1), ramdisk);
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

    fn push_memory(&mut self, start: u64, end: u64, ramdisk: Option<(u64, u64)>) {
        let (held_start, held_end) = match ramdisk {
            Some((at, len)) => (
                (at & !(PAGE - 1)).clamp(start, end.max(start)),
                round_up(at.saturating_add(len)).clamp(start, end.max(start)),
            ),
            None => (end, end),
        };
        self.push(start, held_start, Kind::Usable);
        self.push(held_start, held_end, Kind::Held);
        self.push(held_end, end, Kind::Usable);
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
    use super::{Kind, MemoryMap, PAGE, REGIONS_MAX, Region};

    fn map(entries: &[(u64, u64, u32)], ramdisk: Option<(u64, u64)>) -> MemoryMap {
        MemoryMap::new(entries.iter().copied(), ramdisk)
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
