//! How CPUs lie together, and what caches they share: as CPUID and the CPUs' local APIC
//! IDs tell it (Intel SDM vol. 2A, CPUID leaves 1, 4, 0xb and 0x1f; AMD64 vol. 3, E.4.15).

use crate::sync::Once;
use alloc::vec::Vec;
use core::arch::x86_64::{__cpuid, __cpuid_count};

/// Registers a to d of one leaf of CPUID.
type Leaf = [u32; 4];

/// Most caches and levels that are looked for; processors end their lists themselves.
const LEAVES_MAX: u32 = 16;
const AMD_CACHES: u32 = 0x8000_001d;

/// Where a CPU is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of its package.
    pub package: u32,
    /// Number of its core within the package.
    pub core: u32,
}

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheKind {
    /// Data.
    Data,
    /// Instructions.
    Instruction,
    /// Both.
    Unified,
}

/// A cache, of which each CPU has one or shares one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Its level, from 1.
    pub level: u32,
    /// What it holds.
    pub kind: CacheKind,
    /// Bytes of a line.
    pub line: u32,
    /// Lines that share a tag.
    pub partitions: u32,
    /// Lines of each set.
    pub ways: u32,
    /// Sets.
    pub sets: u32,
    /// CPUs whose APIC IDs differ in this many of the lowest bits only share one.
    shift: u32,
}

impl Cache {
    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        [self.partitions, self.ways, self.sets]
            .iter()
            .fold(u64::from(self.line), |n, by| n.saturating_mul((*by).into()))
    }

    /// Which of these caches CPU `cpu` has; `None` for one that does not run.
    #[must_use]
    pub fn id(&self, cpu: usize) -> Option<u32> {
        apic_id(cpu)?.checked_shr(self.shift)
    }

    fn of(leaf: Leaf) -> Option<Cache> {
        let [a, b, sets, _] = leaf;
        let kind = match a & 0x1f {
            1 => CacheKind::Data,
            2 => CacheKind::Instruction,
            3 => CacheKind::Unified,
            _ => return None,
        };
        Some(Cache {
            level: a >> 5 & 7,
            kind,
            line: (b & 0xfff) + 1,
            partitions: (b >> 12 & 0x3ff) + 1,
            ways: (b >> 22) + 1,
            sets: sets.saturating_add(1),
            shift: bits((a >> 14 & 0xfff) + 1),
        })
    }
}

/// Bits that count to `n`.
fn bits(n: u32) -> u32 {
    n.max(1).next_power_of_two().trailing_zeros()
}

/// Which bits of an APIC ID are the thread of a core's, and the thread's and core's of a
/// package: how many of the lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shifts {
    core: u32,
    package: u32,
}

impl Shifts {
    /// By the levels of leaf 0xb or 0x1f, from the innermost.
    fn of_levels(levels: impl Iterator<Item = Leaf>) -> Option<Shifts> {
        const THREADS: u32 = 1;
        let mut found = None;
        for [a, _, c, _] in levels.take_while(|[_, b, c, _]| *b != 0 && c >> 8 & 0xff != 0) {
            let shift = a & 0x1f;
            let core = match (c >> 8 & 0xff, found) {
                (THREADS, _) => shift,
                (_, Some(Shifts { core, .. })) => core,
                (_, None) => 0,
            };
            found = Some(Shifts {
                core,
                package: shift,
            });
        }
        found
    }

    /// By leaves 1 and 4 of processors without those.
    fn of_counts(first: Leaf, cache: Option<Leaf>) -> Shifts {
        let has_several = first[3] & 1 << 28 != 0;
        let ids = if has_several {
            first[1] >> 16 & 0xff
        } else {
            1
        };
        let cores = cache.map_or(ids, |[a, ..]| (a >> 26) + 1);
        let package = bits(ids.max(cores));
        Shifts {
            core: package - bits(cores).min(package),
            package,
        }
    }

    fn place(self, apic_id: u32) -> Place {
        let within = apic_id & !u32::MAX.checked_shl(self.package).unwrap_or(0);
        Place {
            package: apic_id.checked_shr(self.package).unwrap_or(0),
            core: within.checked_shr(self.core).unwrap_or(0),
        }
    }
}

#[cfg(target_os = "none")]
fn apic_id(cpu: usize) -> Option<u32> {
    crate::arch::apic_id(cpu)
}

/// Of the CPUs that a test has.
#[cfg(not(target_os = "none"))]
fn apic_id(cpu: usize) -> Option<u32> {
    u32::try_from(cpu)
        .ok()
        .filter(|_| cpu < crate::cpu::count())
}

fn leaf(number: u32, part: u32) -> Leaf {
    let r = __cpuid_count(number, part);
    [r.eax, r.ebx, r.ecx, r.edx]
}

fn has_leaf(number: u32) -> bool {
    __cpuid(number & 0x8000_0000).eax >= number
}

/// Read once: there may be many CPUs to place, and CPUID is slow in a virtual machine.
fn shifts() -> Shifts {
    static SHIFTS: Once<Shifts> = Once::new();
    *SHIFTS.call_once(read_shifts)
}

fn read_shifts() -> Shifts {
    let levels = |number: u32| {
        let parts = (0..LEAVES_MAX).map(move |part| leaf(number, part));
        has_leaf(number).then(|| Shifts::of_levels(parts)).flatten()
    };
    levels(0x1f).or_else(|| levels(0xb)).unwrap_or_else(|| {
        let cache = has_leaf(4).then(|| leaf(4, 0));
        Shifts::of_counts(leaf(1, 0), cache.filter(|[a, ..]| a & 0x1f != 0))
    })
}

/// Where CPU `cpu` is; `None` for one that does not run.
#[must_use]
pub fn place(cpu: usize) -> Option<Place> {
    apic_id(cpu).map(|id| shifts().place(id))
}

/// The caches that this CPU has, in the order in which CPUID lists them: all CPUs are taken
/// to have the like. Empty where CPUID does not tell.
#[must_use]
pub fn caches() -> Vec<Cache> {
    let listed = |number: u32| -> Vec<Cache> {
        let parts = 0..if has_leaf(number) { LEAVES_MAX } else { 0 };
        parts
            .map_while(|part| Cache::of(leaf(number, part)))
            .collect()
    };
    let found = listed(4);
    if found.is_empty() {
        listed(AMD_CACHES)
    } else {
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu;

    #[test]
    fn a_cache_is_what_its_leaf_says() {
        // The first two and the last of a Core i7-9700.
        let data = Cache::of([0x1c00_4121, 0x01c0_003f, 0x3f, 0]).unwrap();
        assert_eq!((data.level, data.kind), (1, CacheKind::Data));
        assert_eq!(
            (data.line, data.partitions, data.ways, data.sets),
            (64, 1, 8, 64)
        );
        assert_eq!((data.size(), data.shift), (32 << 10, 1));
        let code = Cache::of([0x1c00_4122, 0x01c0_003f, 0x3f, 0]).unwrap();
        assert_eq!(code.kind, CacheKind::Instruction);
        let last = Cache::of([0x1c03_c163, 0x02c0_003f, 0x3fff, 6]).unwrap();
        assert_eq!((last.level, last.kind), (3, CacheKind::Unified));
        assert_eq!((last.size(), last.shift), (12 << 20, 4));
        assert_eq!(Cache::of([0; 4]), None);
    }

    #[test]
    fn places_follow_the_levels() {
        // Two threads a core, eight cores a package.
        let levels = [[1, 2, 0x100, 5], [4, 16, 0x201, 5], [0, 0, 2, 5]];
        let shifts = Shifts::of_levels(levels.into_iter()).unwrap();
        assert_eq!((shifts.core, shifts.package), (1, 4));
        let at = |package, core| Place { package, core };
        let ids = [0, 1, 2, 15, 16, 0x25].map(|id| shifts.place(id));
        let expected = [at(0, 0), at(0, 0), at(0, 1), at(0, 7), at(1, 0), at(2, 2)];
        assert_eq!(ids, expected);
        // Cores without threads, and dies within a package (leaf 0x1f).
        let levels = [
            [0, 1, 0x100, 0],
            [3, 8, 0x201, 0],
            [5, 32, 0x502, 0],
            [0; 4],
        ];
        let shifts = Shifts::of_levels(levels.into_iter()).unwrap();
        assert_eq!((shifts.core, shifts.package), (0, 5));
        assert_eq!(Shifts::of_levels([[0; 4]].into_iter()), None);
    }

    #[test]
    fn old_processors_tell_counts() {
        const HTT: u32 = 1 << 28;
        let one = Shifts::of_counts([0, 0, 0, 0], None);
        assert_eq!((one.core, one.package), (0, 0));
        assert_eq!(
            one.place(3),
            Place {
                package: 3,
                core: 0
            }
        );
        // Four cores with two threads each; AMD's, whose leaf 4 is empty.
        let intel = Shifts::of_counts([0, 8 << 16, 0, HTT], Some([3 << 26 | 0x21, 0, 0, 0]));
        assert_eq!((intel.core, intel.package), (1, 3));
        let amd = Shifts::of_counts([0, 6 << 16, 0, HTT], None);
        assert_eq!((amd.core, amd.package), (0, 3));
        let odd = Shifts {
            core: 40,
            package: 40,
        };
        assert_eq!(
            odd.place(7),
            Place {
                package: 0,
                core: 0
            }
        );
    }

    #[test]
    fn this_machine_tells_of_itself() {
        assert!(place(0).is_some());
        assert_eq!(place(cpu::CPUS_MAX), None);
        for cache in caches() {
            assert!(
                cache.size() > 0 && cache.line.is_power_of_two(),
                "{cache:?}"
            );
        }
    }
}
