//! What the firmware says about the machine as a product: SMBIOS (DMTF DSP0134 3.6).
//!
//! An entry point leads to a list of structures, each with numbered strings behind
//! it. Firmware makes mistakes, so nothing here is fatal: what does not fit ends the
//! list.

use super::acpi::Memory;
use crate::inventory::{Module, Product};
use alloc::string::String;

/// No table is longer, and no list has more structures.
const TABLE_MAX: usize = 1 << 20;
const STRUCTURES_MAX: usize = 4096;
/// Modules that are kept.
const MODULES_MAX: usize = 64;
/// Characters of a string that are kept.
const STRING_MAX: usize = 64;
/// Bytes of a structure's header.
const HEADER: usize = 4;
/// What is read of a structure's strings at most.
const STRINGS_MAX: usize = 64 << 10;

/// Looks for an entry point in `area`, on every 16th byte, and reads what it leads to.
pub(crate) fn find(memory: &impl Memory, area: &[u8]) -> Option<Product> {
    area.chunks(16).enumerate().find_map(|(place, _)| {
        let here = area.get(16 * place..)?;
        let (table, len) = entry_64(here).or_else(|| entry_32(here))?;
        Some(read(memory.bytes(table, len)?))
    })
}

/// The 64-bit entry point (5.2.2): address and most bytes of the table.
fn entry_64(b: &[u8]) -> Option<(u64, usize)> {
    let len = usize::from(*b.get(6)?);
    if !b.starts_with(b"_SM3_") || len < 24 || !sums_to_zero(b.get(..len)?) {
        return None;
    }
    let bytes = u32::from_le_bytes(b.get(12..16)?.try_into().ok()?) as usize;
    let table = u64::from_le_bytes(b.get(16..24)?.try_into().ok()?);
    Some((table, bytes.min(TABLE_MAX)))
}

/// The 32-bit entry point (5.2.1).
fn entry_32(b: &[u8]) -> Option<(u64, usize)> {
    let len = usize::from(*b.get(5)?);
    // One version of the specification gives its own length wrongly.
    let len = if len == 0x1e { 0x1f } else { len };
    if !b.starts_with(b"_SM_") || len < 0x1f || !sums_to_zero(b.get(..len)?) {
        return None;
    }
    let bytes = u16::from_le_bytes(b.get(0x16..0x18)?.try_into().ok()?);
    let table = u32::from_le_bytes(b.get(0x18..0x1c)?.try_into().ok()?);
    Some((table.into(), bytes.into()))
}

fn sums_to_zero(b: &[u8]) -> bool {
    b.iter().fold(0u8, |s, x| s.wrapping_add(*x)) == 0
}

/// One structure: its fixed part, and its strings.
struct Structure<'a> {
    kind: u8,
    fixed: &'a [u8],
    strings: &'a [u8],
}

impl Structure<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.fixed.get(at).copied().unwrap_or(0)
    }

    fn word(&self, at: usize) -> u16 {
        u16::from(self.byte(at)) | u16::from(self.byte(at + 1)) << 8
    }

    /// The string whose number stands at `at`, printable and without blanks around it.
    fn string(&self, at: usize) -> String {
        let Some(number) = usize::from(self.byte(at)).checked_sub(1) else {
            return String::new();
        };
        let bytes = self.strings.split(|b| *b == 0).nth(number);
        let printable = bytes
            .unwrap_or_default()
            .iter()
            .filter(|b| (b' '..0x7f).contains(*b));
        let text: String = printable.take(STRING_MAX).map(|b| char::from(*b)).collect();
        String::from(text.trim())
    }
}

/// The first structure of `table`, and what follows it.
fn first(table: &[u8]) -> Option<(Structure<'_>, &[u8])> {
    let len = usize::from(*table.get(1)?);
    let (fixed, rest) = table.split_at_checked(len.max(HEADER))?;
    // Strings end with an empty one; without any there are two zeros.
    let near = rest.get(..STRINGS_MAX.min(rest.len()))?;
    let end = near.windows(2).position(|two| two == [0, 0])?;
    let structure = Structure {
        kind: *table.first()?,
        fixed,
        strings: rest.get(..end)?,
    };
    Some((structure, rest.get(end + 2..)?))
}

fn read(mut table: &[u8]) -> Product {
    const END: u8 = 127;
    let mut product = Product::default();
    for _ in 0..STRUCTURES_MAX {
        let Some((structure, rest)) = first(table) else {
            break;
        };
        if structure.kind == END {
            break;
        }
        take(&structure, &mut product);
        table = rest;
    }
    product
}

/// Takes what is of interest from a structure (7.1, 7.2, 7.3, 7.18).
fn take(s: &Structure<'_>, product: &mut Product) {
    match s.kind {
        0 => {
            product.firmware_maker = s.string(4);
            product.firmware_version = s.string(5);
            product.firmware_date = s.string(8);
        }
        1 => {
            product.maker = s.string(4);
            product.name = s.string(5);
            product.version = s.string(6);
            product.serial = s.string(7);
            product.uuid = uuid(s.fixed.get(8..24).unwrap_or_default());
        }
        2 if product.board_name.is_empty() => {
            product.board_maker = s.string(4);
            product.board_name = s.string(5);
            product.board_serial = s.string(7);
        }
        17 => product
            .modules
            .extend(module(s).filter(|_| product.modules.len() < MODULES_MAX)),
        _ => {}
    }
}

/// The UUID as it is written: its first three fields are stored backwards (7.2.1).
/// All ones mean none.
fn uuid(stored: &[u8]) -> [u8; 16] {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let written = ORDER.map(|from| stored.get(from).copied().unwrap_or(0));
    if written == [0xff; 16] {
        [0; 16]
    } else {
        written
    }
}

/// A memory module; `None` for an empty place.
fn module(s: &Structure<'_>) -> Option<Module> {
    let bytes = match s.word(0x0c) {
        0 | 0xffff => return None,
        // What does not fit stands in another field, in MiB.
        0x7fff => {
            let mib = u32::from(s.word(0x1c)) | u32::from(s.word(0x1e) & 0x7fff) << 16;
            u64::from(mib) << 20
        }
        kib if kib & 0x8000 != 0 => u64::from(kib & 0x7fff) << 10,
        mib => u64::from(mib) << 20,
    };
    Some(Module {
        place: s.string(0x10),
        maker: s.string(0x17),
        part: s.string(0x1a),
        bytes,
        speed: s.word(0x15),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Memory that starts at physical address 0.
    struct Flat(Vec<u8>);

    impl Memory for Flat {
        fn bytes(&self, phys: u64, len: usize) -> Option<&[u8]> {
            let at = usize::try_from(phys).ok()?;
            self.0.get(at..at.checked_add(len)?)
        }
    }

    const TABLE: usize = 0x2000;

    fn structure(kind: u8, fixed: &[u8], strings: &[&str]) -> Vec<u8> {
        let mut s = vec![kind, (HEADER + fixed.len()) as u8, 0, 0];
        s.extend(fixed);
        for string in strings {
            s.extend(string.bytes());
            s.push(0);
        }
        s.extend(if strings.is_empty() {
            &[0, 0][..]
        } else {
            &[0]
        });
        s
    }

    fn table() -> Vec<u8> {
        let mut system = vec![1, 2, 0, 3];
        system.extend(0u8..16);
        let mut dimm = vec![0; 0x22 - HEADER];
        let mut put = |at: usize, bytes: &[u8]| {
            dimm[at - HEADER..][..bytes.len()].copy_from_slice(bytes);
        };
        put(0x0c, &0x4000u16.to_le_bytes());
        put(0x10, &[1]);
        put(0x15, &3200u16.to_le_bytes());
        put(0x17, &[2]);
        let mut large = dimm.clone();
        large[0x0c - HEADER..][..2].copy_from_slice(&0x7fffu16.to_le_bytes());
        large[0x1c - HEADER..][..4].copy_from_slice(&0x2_0000u32.to_le_bytes());
        let mut empty = dimm.clone();
        empty[0x0c - HEADER..][..2].fill(0);
        [
            structure(0, &[1, 2, 0, 0, 3], &["Firma", "1.2", "01/02/2024"]),
            structure(1, &system, &["  Maker ", "Box\x1b[31m", "S/N 7"]),
            structure(2, &[1, 2, 0, 0], &["Board", "B1"]),
            structure(32, &[0; 7], &[]),
            structure(17, &dimm, &["DIMM 0", "Ram & Co"]),
            structure(17, &large, &["DIMM 1", "Ram & Co"]),
            structure(17, &empty, &["DIMM 2", "-"]),
            structure(127, &[], &[]),
            structure(0, &[1, 1, 0, 0, 1], &["beyond the end"]),
        ]
        .concat()
    }

    fn machine(is_64: bool) -> Flat {
        let mut m = vec![0; 0x1_0000];
        let t = table();
        m[TABLE..TABLE + t.len()].copy_from_slice(&t);
        let e = &mut m[0x1020..0x1040];
        if is_64 {
            e[..5].copy_from_slice(b"_SM3_");
            e[6] = 24;
            e[12..16].copy_from_slice(&(t.len() as u32).to_le_bytes());
            e[16..24].copy_from_slice(&(TABLE as u64).to_le_bytes());
            e[5] = e[..24].iter().fold(0u8, |s, x| s.wrapping_sub(*x));
        } else {
            e[..4].copy_from_slice(b"_SM_");
            e[5] = 0x1f;
            e[0x16..0x18].copy_from_slice(&(t.len() as u16).to_le_bytes());
            e[0x18..0x1c].copy_from_slice(&(TABLE as u32).to_le_bytes());
            e[4] = e[..0x1f].iter().fold(0u8, |s, x| s.wrapping_sub(*x));
        }
        Flat(m)
    }

    fn product(m: &Flat) -> Option<Product> {
        find(m, &m.0[0x1000..0x2000])
    }

    #[test]
    fn both_entry_points_lead_to_the_product() {
        for is_64 in [true, false] {
            let p = product(&machine(is_64)).unwrap();
            assert_eq!((&*p.firmware_maker, &*p.firmware_version), ("Firma", "1.2"));
            assert_eq!((&*p.maker, &*p.name, &*p.version), ("Maker", "Box[31m", ""));
            assert_eq!((&*p.serial, &*p.board_name), ("S/N 7", "B1"));
            assert_eq!(&*p.board_maker, "Board");
            assert_eq!(p.uuid[..6], [3, 2, 1, 0, 5, 4]);
            assert_eq!(p.uuid[8..], [8, 9, 10, 11, 12, 13, 14, 15]);
            let sizes: Vec<_> = p.modules.iter().map(|m| (m.bytes, m.speed)).collect();
            assert_eq!(sizes, [(16 << 30, 3200), (128 << 30, 3200)]);
            assert_eq!(&*p.modules[0].maker, "Ram & Co");
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_entry_point() {
        let mut m = machine(true);
        m.0[0x1021] ^= 1;
        assert_eq!(product(&m), None);
        let mut m = machine(false);
        m.0[0x1038] ^= 1;
        assert_eq!(product(&m), None);
    }

    proptest! {
        #[test]
        fn damage_is_never_fatal(hits in proptest::collection::vec((0usize..0x400, any::<u8>()), 0..40)) {
            let mut m = machine(true);
            for (at, v) in hits {
                m.0[TABLE + at] = v;
            }
            prop_assert!(product(&m).is_some());
        }

        #[test]
        fn no_table_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
        }
    }
}
