//! The table that tells of remapping hardware (Intel VT-d specification 4.1, chapter 8).
//!
//! What it says decides which memory devices reach, so it is read strictly, unlike the
//! other tables: one entry that does not fit, and nothing of it is believed.

use alloc::vec::Vec;

/// What is taken from the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dmar {
    /// The hardware can remap interrupts too, which this kernel does not ask it to
    /// (8.1, flags bit 0).
    pub(crate) remaps_interrupts: bool,
    /// Units, in the firmware's order.
    pub(crate) units: Vec<UnitEntry>,
    /// Memory that devices of the firmware's go on using.
    pub(crate) reserved: Vec<Reserved>,
}

/// A remapping unit: DRHD (8.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitEntry {
    pub(crate) segment: u16,
    /// It has all devices of its segment that no other unit has.
    pub(crate) has_the_rest: bool,
    /// Physical address of its registers.
    pub(crate) registers: u64,
    pub(crate) scopes: Vec<Scope>,
}

/// A reserved region: RMRR (8.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) segment: u16,
    pub(crate) start: u64,
    /// One beyond its last byte.
    pub(crate) end: u64,
    pub(crate) scopes: Vec<Scope>,
}

/// Devices by how they are reached (8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    /// All behind a bridge, and not one device.
    pub(crate) is_bridge: bool,
    pub(crate) bus: u8,
    /// Device and function: of bridges first, of the device last.
    pub(crate) path: Vec<(u8, u8)>,
}

/// Why the table is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DmarError {
    /// Its length or its checksum is wrong.
    Damaged,
    /// It ends in the middle of an entry.
    Short,
    /// An entry is too short for its kind.
    Entry,
    /// A device scope does not fit into its entry, or leads nowhere.
    Scope,
    /// A unit's registers cannot be where it says.
    Registers,
    /// A reserved region is empty, or no region of pages.
    Region,
    /// There is no unit, or there are more entries than any machine has.
    Count,
}

impl DmarError {
    pub(crate) fn words(self) -> &'static str {
        match self {
            DmarError::Damaged => "its length or checksum is wrong",
            DmarError::Short => "it ends in the middle of an entry",
            DmarError::Entry => "an entry is too short",
            DmarError::Scope => "a device scope leads nowhere",
            DmarError::Registers => "a unit has no registers",
            DmarError::Region => "a reserved region is no region",
            DmarError::Count => "it names no unit, or too many",
        }
    }
}

/// More units, or regions, than any machine has.
const ENTRIES_MAX: usize = 64;
/// Buses lie no deeper.
const PATH_MAX: usize = 32;
const PAGE: u64 = 4096;
/// No register and no region lies beyond.
const PHYS_END: u64 = 1 << 52;

/// Kinds of entries (8.2).
const DRHD: u16 = 0;
const RMRR: u16 = 1;

fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*b.get(at..)?.first_chunk()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*b.get(at..)?.first_chunk()?))
}

impl Dmar {
    /// Reads the table's body: what follows the header that all tables have.
    pub(crate) fn parse(body: &[u8]) -> Result<Dmar, DmarError> {
        let (fixed, mut rest) = body.split_at_checked(12).ok_or(DmarError::Short)?;
        let flags = fixed.get(1).copied().unwrap_or(0);
        let mut dmar = Dmar {
            remaps_interrupts: flags & 1 != 0,
            ..Dmar::default()
        };
        while !rest.is_empty() {
            let kind = u16_at(rest, 0).ok_or(DmarError::Short)?;
            let len = usize::from(u16_at(rest, 2).ok_or(DmarError::Short)?);
            if len < 4 {
                return Err(DmarError::Entry);
            }
            let (entry, after) = rest.split_at_checked(len).ok_or(DmarError::Short)?;
            match kind {
                DRHD => dmar.units.push(UnitEntry::parse(entry)?),
                RMRR => dmar.reserved.push(Reserved::parse(entry)?),
                // ATS, affinity and names: nothing that is used.
                _ => {}
            }
            if dmar.units.len() > ENTRIES_MAX || dmar.reserved.len() > ENTRIES_MAX {
                return Err(DmarError::Count);
            }
            rest = after;
        }
        if dmar.units.is_empty() {
            return Err(DmarError::Count);
        }
        Ok(dmar)
    }
}

impl UnitEntry {
    fn parse(e: &[u8]) -> Result<UnitEntry, DmarError> {
        let flags = *e.get(4).ok_or(DmarError::Entry)?;
        let segment = u16_at(e, 6).ok_or(DmarError::Entry)?;
        let registers = u64_at(e, 8).ok_or(DmarError::Entry)?;
        if registers == 0 || registers >= PHYS_END || !registers.is_multiple_of(PAGE) {
            return Err(DmarError::Registers);
        }
        Ok(UnitEntry {
            segment,
            has_the_rest: flags & 1 != 0,
            registers,
            scopes: scopes(e.get(16..).unwrap_or(&[]))?,
        })
    }
}

impl Reserved {
    fn parse(e: &[u8]) -> Result<Reserved, DmarError> {
        let segment = u16_at(e, 6).ok_or(DmarError::Entry)?;
        let start = u64_at(e, 8).ok_or(DmarError::Entry)?;
        let last = u64_at(e, 16).ok_or(DmarError::Entry)?;
        if last < start || last >= PHYS_END || !start.is_multiple_of(PAGE) {
            return Err(DmarError::Region);
        }
        Ok(Reserved {
            segment,
            start,
            end: last + 1,
            scopes: scopes(e.get(24..).unwrap_or(&[]))?,
        })
    }
}

/// The device scopes at the end of an entry. Those of interrupt controllers, timers and
/// devices with names only are passed over: they are not PCI devices with memory.
fn scopes(mut rest: &[u8]) -> Result<Vec<Scope>, DmarError> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let [kind, len, _, _, _, bus, ..] = *rest else {
            return Err(DmarError::Scope);
        };
        let (scope, after) = rest
            .split_at_checked(usize::from(len))
            .ok_or(DmarError::Scope)?;
        let (hops, odd) = scope.get(6..).ok_or(DmarError::Scope)?.as_chunks::<2>();
        let fits = |[device, function]: &[u8; 2]| *device < 32 && *function < 8;
        if hops.is_empty() || hops.len() > PATH_MAX || !odd.is_empty() || !hops.iter().all(fits) {
            return Err(DmarError::Scope);
        }
        if matches!(kind, 1 | 2) {
            found.push(Scope {
                is_bridge: kind == 2,
                bus,
                path: hops.iter().map(|[d, f]| (*d, *f)).collect(),
            });
        }
        rest = after;
    }
    Ok(found)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    fn entry(kind: u16, body: &[u8]) -> Vec<u8> {
        let len = (4 + body.len()) as u16;
        [&kind.to_le_bytes()[..], &len.to_le_bytes(), body].concat()
    }

    fn drhd(flags: u8, segment: u16, registers: u64, scopes: &[u8]) -> Vec<u8> {
        let [low, high] = segment.to_le_bytes();
        let body = [&[flags, 0, low, high][..], &registers.to_le_bytes(), scopes].concat();
        entry(DRHD, &body)
    }

    fn rmrr(start: u64, last: u64, scopes: &[u8]) -> Vec<u8> {
        let body = [
            &[0; 4][..],
            &start.to_le_bytes(),
            &last.to_le_bytes(),
            scopes,
        ]
        .concat();
        entry(RMRR, &body)
    }

    fn table(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut all = vec![38, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        all.extend(entries.concat());
        all
    }

    /// What QEMU's q35 with `intel-iommu` has, with a unit for one device and a region.
    fn good() -> Vec<u8> {
        table(&[
            drhd(0, 0, 0xfed9_1000, &[1, 8, 0, 0, 0, 0, 2, 0]),
            // An I/O APIC, and a bridge below a bridge.
            drhd(
                1,
                0,
                0xfed9_0000,
                &[3, 8, 0, 0, 0, 0xff, 0, 0, 2, 10, 0, 0, 0, 0, 0x1c, 0, 3, 1],
            ),
            rmrr(0x7b80_0000, 0x7fff_ffff, &[1, 8, 0, 0, 0, 0, 2, 0]),
            entry(2, &[0; 4]),
        ])
    }

    #[test]
    fn units_and_regions_are_found() {
        let dmar = Dmar::parse(&good()).unwrap();
        assert!(dmar.remaps_interrupts);
        let [graphics, rest] = &dmar.units[..] else {
            panic!("two units")
        };
        let device = Scope {
            is_bridge: false,
            bus: 0,
            path: vec![(2, 0)],
        };
        assert_eq!(graphics.scopes, core::slice::from_ref(&device));
        assert!(!graphics.has_the_rest && rest.has_the_rest);
        assert_eq!(rest.registers, 0xfed9_0000);
        assert_eq!(rest.scopes[0].path, [(0x1c, 0), (3, 1)]);
        assert!(rest.scopes[0].is_bridge && rest.scopes.len() == 1);
        assert_eq!(dmar.reserved[0].end, 0x8000_0000);
        assert_eq!(dmar.reserved[0].scopes, [device]);
    }

    #[test]
    fn hostile_tables_are_refused() {
        let unit = || drhd(1, 0, 0xfed9_0000, &[]);
        let refused = |body: &[u8]| Dmar::parse(body).unwrap_err();
        assert_eq!(refused(&[0; 11]), DmarError::Short);
        assert_eq!(refused(&table(&[])), DmarError::Count);
        assert_eq!(refused(&table(&vec![unit(); 65])), DmarError::Count);
        // An entry of length zero would never end.
        assert_eq!(refused(&table(&[vec![0; 64]])), DmarError::Entry);
        assert_eq!(refused(&table(&[unit(), vec![0]])), DmarError::Short);
        let cut = &unit()[..15];
        assert_eq!(refused(&table(&[cut.to_vec()])), DmarError::Short);
        assert_eq!(refused(&table(&[entry(DRHD, &[1; 8])])), DmarError::Entry);
        for at in [0, 0xfed9_0010, !0xfff] {
            assert_eq!(
                refused(&table(&[drhd(1, 0, at, &[])])),
                DmarError::Registers
            );
        }
        for (start, last) in [(1 << 20, 0), (1, 0xfff), (0, u64::MAX)] {
            let body = table(&[unit(), rmrr(start, last, &[])]);
            assert_eq!(refused(&body), DmarError::Region);
        }
        let bad: [&[u8]; 6] = [
            &[1, 0, 0, 0, 0, 0],
            &[1, 6, 0, 0, 0, 0],
            &[1, 9, 0, 0, 0, 0, 1, 0, 1],
            &[1, 8, 0, 0, 0, 0, 32, 0],
            &[1, 8, 0, 0, 0, 0, 1, 8],
            &[1, 200, 0, 0, 0, 0, 1, 0],
        ];
        for scope in bad {
            let body = table(&[drhd(1, 0, 0xfed9_0000, scope)]);
            assert_eq!(refused(&body), DmarError::Scope, "{scope:?}");
        }
    }

    proptest! {
        #[test]
        fn damage_is_never_fatal(hits in proptest::collection::vec((0usize..128, any::<u8>()), 0..20)) {
            let mut body = good();
            for (at, value) in hits {
                let at = at % body.len();
                body[at] = value;
            }
            let _ = Dmar::parse(&body);
        }

        #[test]
        fn nothing_is_too_strange(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Dmar::parse(&body);
        }
    }
}
