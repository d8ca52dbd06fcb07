//! The tables of machines without ACPI: which CPUs and interrupt controllers there are
//! (Intel MultiProcessor Specification 1.4, chapter 4). Virtual machines that do without
//! ACPI write them.

use super::acpi::{IoApic, Memory, Override, Tables, sums_to_zero, u16_at, u32_at, wire};

/// Where the floating pointer is looked for: the last KiB of base memory and the BIOS's
/// area. It may be in the extended BIOS data area too, which no VMM makes.
const AREAS: [(u64, usize); 2] = [(0x9_fc00, 0x400), (0xf_0000, 0x1_0000)];
const HEADER_LEN: usize = 44;
const ISA: &[u8] = b"ISA   ";
/// Interrupt pins of an I/O APIC; the tables do not tell, and this is what there is.
const PINS: u32 = 24;
/// Entries of 8 and of 20 bytes fill no more than the length's 16 bits.
const ENTRIES_MAX: usize = 1024;

/// What the tables say, if there are any.
pub(crate) fn read(memory: &impl Memory) -> Option<Tables> {
    let table = AREAS.iter().find_map(|(at, len)| {
        let area = memory.bytes(*at, *len)?;
        let pointer = |c: &&[u8]| c.starts_with(b"_MP_") && sums_to_zero(c);
        let found = area.chunks_exact(16).find(pointer)?;
        u32_at(found, 4)
    })?;
    let header = memory.bytes(table.into(), HEADER_LEN)?;
    let len = usize::from(u16_at(header, 4)?);
    let all = memory.bytes(table.into(), len)?;
    if !header.starts_with(b"PCMP") || len < HEADER_LEN || !sums_to_zero(all) {
        return None;
    }
    let mut tables = Tables::EMPTY;
    // An entry that does not fit ends the list.
    let _ = entries(all.get(HEADER_LEN..)?, &mut tables);
    Some(tables)
}

/// The entries (4.3), each kind with its length.
fn entries(mut rest: &[u8], out: &mut Tables) -> Option<()> {
    const USABLE: u8 = 1;
    let mut isa = None;
    // Of each I/O APIC the number it is named by; their interrupts are counted in order.
    let mut io_apics: smallvec::SmallVec<[u8; 4]> = smallvec::SmallVec::new();
    for _ in 0..ENTRIES_MAX {
        let kind = *rest.first()?;
        let (e, after) = rest.split_at_checked(if kind == 0 { 20 } else { 8 })?;
        rest = after;
        match kind {
            0 if *e.get(3)? & USABLE != 0 => out.apic_ids.push(u32::from(*e.get(1)?)),
            1 if e.get(2..8)? == ISA => isa = Some(*e.get(1)?),
            2 if *e.get(3)? & USABLE != 0 => {
                out.io_apics.push(IoApic {
                    phys: u32_at(e, 4)?,
                    gsi_base: io_apics.len() as u32 * PINS,
                });
                io_apics.push(*e.get(1)?);
            }
            // A vectored interrupt of the ISA bus.
            3 if *e.get(1)? == 0 && Some(*e.get(4)?) == isa => {
                let to = io_apics.iter().position(|id| Some(id) == e.get(6));
                if let Some(chip) = to {
                    let gsi = chip as u32 * PINS + u32::from(*e.get(7)?);
                    out.overrides.push(Override {
                        irq: *e.get(5)?,
                        wire: wire(gsi, u16_at(e, 2)?),
                    });
                }
            }
            // A local interrupt that is an NMI.
            4 if *e.get(1)? == 1 => out.nmi_pin = e.get(7).copied(),
            0..=4 => {}
            _ => return None,
        }
    }
    None
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

    fn seal(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        bytes[at] = bytes.iter().fold(0u8, |s, x| s.wrapping_sub(*x));
    }

    fn machine() -> Flat {
        let mut m = Flat(vec![0; 0x10_0000]);
        let mut t = b"PCMP\0\0\x04\0".to_vec();
        t.resize(HEADER_LEN, 0);
        for (id, flags) in [(0, 3), (1, 1), (2, 0)] {
            t.extend([0, id, 0x14, flags]);
            t.extend([0; 16]);
        }
        t.extend(b"\x01\x00ISA   ");
        t.extend([2, 5, 0x11, 1, 0, 0, 0xc0, 0xfe]);
        t.extend([2, 6, 0x11, 1, 0, 0x10, 0xc0, 0xfe]);
        t.extend([3, 0, 0, 0, 0, 0, 5, 2]); // IRQ 0 on pin 2
        t.extend([3, 0, 0xf, 0, 0, 9, 6, 9]); // IRQ 9 low, level, on the second
        t.extend([3, 3, 0, 0, 0, 1, 5, 1]); // the 8259's
        t.extend([4, 1, 0, 0, 0, 0, 0xff, 1]);
        t[4] = t.len() as u8;
        seal(&mut t, 7);
        m.0[0xf_1000..0xf_1000 + t.len()].copy_from_slice(&t);
        let p = &mut m.0[0xf_0010..0xf_0020];
        p[..8].copy_from_slice(b"_MP_\x00\x10\x0f\x00");
        p[8..10].copy_from_slice(&[1, 4]);
        seal(p, 10);
        m
    }

    #[test]
    fn cpus_and_interrupts_are_found() {
        let t = read(&machine()).unwrap();
        assert_eq!(t.apic_ids, [0, 1]);
        let chips: Vec<_> = t.io_apics.iter().map(|c| (c.phys, c.gsi_base)).collect();
        assert_eq!(chips, [(0xfec0_0000, 0), (0xfec0_1000, 24)]);
        let over: Vec<_> = t.overrides.iter().map(|o| (o.irq, o.wire)).collect();
        assert_eq!(over, [(0, wire(2, 0)), (9, wire(33, 0xf))]);
        assert!(over[1].1.level && over[1].1.active_low);
        assert_eq!(t.nmi_pin, Some(1));
    }

    #[test]
    fn what_is_damaged_or_not_there_is_not_believed() {
        assert!(read(&Flat(vec![0; 0x10_0000])).is_none());
        let mut m = machine();
        m.0[0xf_1000 + HEADER_LEN + 1] ^= 1;
        assert!(read(&m).is_none());
    }

    proptest! {
        #[test]
        fn no_entry_is_too_strange(body in proptest::collection::vec(0u8..7, 0..200)) {
            let mut t = Tables::EMPTY;
            let _ = entries(&body, &mut t);
        }
    }
}
