//! The ACPI tables that need no interpreter: which CPUs and interrupt
//! controllers there are, where PCI's configuration space and the HPET lie, and
//! how to turn the machine off.
//!
//! Firmware makes mistakes, so nothing here is fatal: a table that is cut short
//! or has a wrong checksum is left out, and an entry that does not fit ends the
//! list it is in. Section numbers are those of ACPI 6.5.

use super::dmar::{Dmar, DmarError};
use super::resources;
use super::sleep::{self, SoftOff};
use crate::inventory::TableName;
use crate::irq::Wire;
use crate::virtio::Place;
use alloc::vec::Vec;

/// Physical memory as the tables refer to it.
pub(crate) trait Memory {
    /// `len` bytes at `phys`, if they can be read.
    fn bytes(&self, phys: u64, len: usize) -> Option<&[u8]>;
}

/// All that is taken from the tables.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Local APIC IDs of the CPUs that may be started, in the firmware's order.
    pub(crate) apic_ids: Vec<u32>,
    pub(crate) io_apics: Vec<IoApic>,
    pub(crate) overrides: Vec<Override>,
    /// The local APIC's pin for NMIs, when the firmware says one.
    pub(crate) nmi_pin: Option<u8>,
    pub(crate) ecam: Vec<Ecam>,
    /// Physical address of the HPET.
    pub(crate) hpet: Option<u64>,
    pub(crate) fixed: Option<Fixed>,
    pub(crate) soft_off: Option<SoftOff>,
    /// What remaps the memory accesses of devices.
    pub(crate) dmar: Option<Result<Dmar, DmarError>>,
    /// Virtio devices whose registers are memory.
    pub(crate) virtio: Vec<Place>,
    /// The trusted platform module.
    pub(crate) tpm: Option<Tpm2>,
    /// All tables, whether anything was taken from them or not.
    pub(crate) names: Vec<TableName>,
}

impl Tables {
    /// Of a machine that tells nothing.
    pub(crate) const EMPTY: Tables = Tables {
        apic_ids: Vec::new(),
        io_apics: Vec::new(),
        overrides: Vec::new(),
        nmi_pin: None,
        ecam: Vec::new(),
        hpet: None,
        fixed: None,
        soft_off: None,
        dmar: None,
        virtio: Vec::new(),
        tpm: None,
        names: Vec::new(),
    };

    /// The global interrupt of ISA interrupt `irq`, and how it is signalled.
    #[cfg(target_os = "none")]
    pub(crate) fn isa(&self, irq: u8) -> Override {
        let same = Override {
            irq,
            wire: Wire {
                gsi: u32::from(irq),
                active_low: false,
                level: false,
            },
        };
        let found = self.overrides.iter().find(|o| o.irq == irq);
        found.copied().unwrap_or(same)
    }
}

/// An I/O APIC (5.2.12.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IoApic {
    pub(crate) phys: u32,
    pub(crate) gsi_base: u32,
}

/// An ISA interrupt that is not wired one to one (5.2.12.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) irq: u8,
    pub(crate) wire: Wire,
}

/// PCI configuration space in memory (PCI Firmware 3.3, 4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ecam {
    pub(crate) phys: u64,
    pub(crate) segment: u16,
    pub(crate) bus_first: u8,
    pub(crate) bus_last: u8,
}

/// How a TPM 2.0 is reached (TCG ACPI Specification 1.3, 7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tpm2 {
    /// Physical address of the control area; 0 where the start method needs none.
    pub(crate) control: u64,
    /// The start method (table 8).
    pub(crate) method: u32,
}

/// Where a register is (5.2.3.2), as far as this kernel can reach it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    /// A physical address.
    Memory(u64),
    /// An I/O port.
    Port(u16),
}

/// The fixed hardware (5.2.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fixed {
    /// The interrupt of ACPI events.
    pub(crate) sci: u16,
    pub(crate) smi_command: u16,
    pub(crate) acpi_enable: u8,
    pub(crate) pm1a_event: Option<Register>,
    pub(crate) pm1b_event: Option<Register>,
    /// Bytes of an event block; its second half are the enable bits.
    pub(crate) pm1_event_len: u8,
    pub(crate) pm1a_control: Option<Register>,
    pub(crate) pm1b_control: Option<Register>,
    pub(crate) pm_timer: Option<Register>,
    pub(crate) flags: u32,
    pub(crate) reset: Option<(Register, u8)>,
    /// The CMOS register of the century, 0 for none.
    pub(crate) century: u8,
    /// What turns machines with reduced hardware off.
    pub(crate) sleep_control: Option<Register>,
    dsdt: u64,
}

impl Fixed {
    /// The power button is a fixed event and not a device in AML (5.2.9, bit 4).
    pub(crate) fn has_power_button(&self) -> bool {
        self.flags & 1 << 4 == 0
    }
}

const HEADER_LEN: usize = 36;
/// No table is longer; a length beyond this is nonsense.
const TABLE_LEN_MAX: usize = 16 << 20;
/// More entries than any machine has in one list.
const ENTRIES_MAX: usize = 1024;

pub(super) fn u16_at(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(b.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}

pub(super) fn sums_to_zero(b: &[u8]) -> bool {
    b.iter().fold(0u8, |s, x| s.wrapping_add(*x)) == 0
}

/// Looks for the RSDP where BIOSes put it (5.2.5.1).
#[cfg(target_os = "none")]
pub(crate) fn find_rsdp(memory: &impl Memory) -> Option<u64> {
    const AREA: u64 = 0xe_0000;
    let area = memory.bytes(AREA, 0x2_0000)?;
    let at = area.chunks_exact(16).enumerate().position(|(i, c)| {
        let all = area.get(16 * i..16 * i + 20);
        c.starts_with(b"RSD PTR ") && all.is_some_and(sums_to_zero)
    })?;
    Some(AREA + 16 * at as u64)
}

/// Reads all tables the RSDP at `rsdp` leads to.
pub(crate) fn read(memory: &impl Memory, rsdp: u64) -> Tables {
    let mut tables = Tables::EMPTY;
    let Some((root, entry_len)) = root(memory, rsdp) else {
        return tables;
    };
    let mut secondary = Vec::new();
    for entry in root.chunks_exact(entry_len).take(ENTRIES_MAX) {
        let phys = match entry_len {
            4 => u32_at(entry, 0).map(u64::from),
            _ => u64_at(entry, 0),
        };
        let Some((signature, body)) = phys.and_then(|p| table(memory, p)) else {
            // That it is there and damaged is worth a word.
            if phys.and_then(|p| memory.bytes(p, 4)) == Some(b"DMAR") {
                tables.dmar = Some(Err(DmarError::Damaged));
            }
            continue;
        };
        tables.names.extend(phys.and_then(|p| name(memory, p)));
        match signature {
            b"APIC" => madt(body, &mut tables),
            b"MCFG" => mcfg(body, &mut tables),
            b"HPET" => tables.hpet = hpet(body),
            b"FACP" => tables.fixed = fadt(body),
            b"DMAR" => tables.dmar = Some(Dmar::parse(body)),
            b"TPM2" => tables.tpm = tpm2(body),
            b"SSDT" => secondary.push(body),
            _ => {}
        }
    }
    let dsdt = tables.fixed.and_then(|f| table(memory, f.dsdt));
    if dsdt.is_some() {
        let name = tables.fixed.and_then(|f| name(memory, f.dsdt));
        tables.names.extend(name);
    }
    if let Some((_, body)) = dsdt.filter(|(signature, _)| *signature == b"DSDT") {
        tables.virtio = resources::virtio(body);
    }
    tables.soft_off = dsdt
        .filter(|(signature, _)| *signature == b"DSDT")
        .and_then(|(_, body)| sleep::soft_off(body))
        .or_else(|| secondary.iter().find_map(|body| sleep::soft_off(body)));
    tables
}

/// The entries of the XSDT or, failing it, of the RSDT, and their length.
fn root(memory: &impl Memory, rsdp: u64) -> Option<(&[u8], usize)> {
    let first = memory.bytes(rsdp, 20)?;
    if !first.starts_with(b"RSD PTR ") || !sums_to_zero(first) {
        return None;
    }
    let extended = || {
        let all = memory.bytes(rsdp, 36)?;
        let revision = *all.get(15)?;
        let xsdt = u64_at(all, 24).filter(|x| revision >= 2 && *x != 0)?;
        table(memory, xsdt).filter(|(s, _)| *s == b"XSDT")
    };
    match extended() {
        Some((_, body)) => Some((body, 8)),
        None => {
            let rsdt = u64::from(u32_at(first, 16)?);
            let (_, body) = table(memory, rsdt).filter(|(s, _)| *s == b"RSDT")?;
            Some((body, 4))
        }
    }
}

/// Signature and body of the table at `phys`, if its length and checksum hold.
fn table(memory: &impl Memory, phys: u64) -> Option<(&[u8; 4], &[u8])> {
    let header = memory.bytes(phys, HEADER_LEN)?;
    let len = u32_at(header, 4)? as usize;
    if !(HEADER_LEN..=TABLE_LEN_MAX).contains(&len) {
        return None;
    }
    let all = memory.bytes(phys, len)?;
    if !sums_to_zero(all) {
        return None;
    }
    Some((all.first_chunk()?, all.get(HEADER_LEN..)?))
}

/// What the header of the table at `phys` says.
fn name(memory: &impl Memory, phys: u64) -> Option<TableName> {
    let header = memory.bytes(phys, HEADER_LEN)?;
    Some(TableName {
        signature: *header.first_chunk()?,
        maker: *header.get(10..)?.first_chunk()?,
        bytes: u32_at(header, 4)?,
    })
}

/// The interrupt controllers (5.2.12).
fn madt(body: &[u8], out: &mut Tables) {
    let mut rest = body.get(8..).unwrap_or(&[]);
    while let [kind, len, ..] = *rest {
        let len = usize::from(len);
        if len < 2 || out.apic_ids.len() >= ENTRIES_MAX {
            return;
        }
        let Some((entry, after)) = rest.split_at_checked(len) else {
            return;
        };
        // An entry too short for its kind is passed over.
        let _ = madt_entry(kind, entry, out);
        rest = after;
    }
}

fn madt_entry(kind: u8, e: &[u8], out: &mut Tables) -> Option<()> {
    /// Enabled, or can be (5.2.12.2).
    const USABLE: u32 = 0b01;
    match kind {
        // Processor local APIC, processor local x2APIC.
        0 | 9 => {
            let (id, flags) = if kind == 0 {
                (u32::from(*e.get(3)?), u32_at(e, 4)?)
            } else {
                (u32_at(e, 4)?, u32_at(e, 8)?)
            };
            if flags & USABLE != 0 && !out.apic_ids.contains(&id) {
                out.apic_ids.push(id);
            }
        }
        1 => out.io_apics.push(IoApic {
            phys: u32_at(e, 4)?,
            gsi_base: u32_at(e, 8)?,
        }),
        2 => {
            let flags = u16_at(e, 8)?;
            out.overrides.push(Override {
                irq: *e.get(3)?,
                wire: wire(u32_at(e, 4)?, flags),
            });
        }
        4 => out.nmi_pin = Some(*e.get(5)?),
        10 => out.nmi_pin = Some(*e.get(8)?),
        _ => {}
    }
    Some(())
}

/// A wire with the flags that ACPI (5.2.12.5) and the MultiProcessor Specification (table
/// 4-10) have in common; what they leave to the bus is ISA's.
pub(crate) fn wire(gsi: u32, flags: u16) -> Wire {
    Wire {
        gsi,
        active_low: flags & 0b11 == 0b11,
        level: flags >> 2 & 0b11 == 0b11,
    }
}

fn mcfg(body: &[u8], out: &mut Tables) {
    let entries = body.get(8..).unwrap_or(&[]).chunks_exact(16);
    out.ecam.extend(entries.filter_map(|e| {
        Some(Ecam {
            phys: u64_at(e, 0)?,
            segment: u16_at(e, 8)?,
            bus_first: *e.get(10)?,
            bus_last: *e.get(11)?,
        })
    }));
}

fn hpet(body: &[u8]) -> Option<u64> {
    match generic_address(body, 4)? {
        Register::Memory(phys) => Some(phys),
        Register::Port(_) => None,
    }
}

fn tpm2(body: &[u8]) -> Option<Tpm2> {
    Some(Tpm2 {
        control: u64_at(body, 4)?,
        method: u32_at(body, 12)?,
    })
}

/// A generic address structure; `None` for a register that is not there or is
/// in a space that cannot be reached.
fn generic_address(b: &[u8], at: usize) -> Option<Register> {
    let address = u64_at(b, at + 4).filter(|a| *a != 0)?;
    match *b.get(at)? {
        0 => Some(Register::Memory(address)),
        1 => u16::try_from(address).ok().map(Register::Port),
        _ => None,
    }
}

fn fadt(body: &[u8]) -> Option<Fixed> {
    // Offsets in the specification count from the header's start.
    let at = |offset: usize| offset - HEADER_LEN;
    let byte = |offset: usize| body.get(at(offset)).copied();
    let port = |offset: usize| {
        let p = u32_at(body, at(offset)).and_then(|p| u16::try_from(p).ok());
        p.filter(|p| *p != 0).map(Register::Port)
    };
    // The extended fields win where they exist and are not zero.
    let either = |extended: usize, old: usize| generic_address(body, at(extended)).or(port(old));
    let flags = u32_at(body, at(112)).unwrap_or(0);
    let reset = generic_address(body, at(116))
        .zip(byte(128))
        .filter(|_| flags & 1 << 10 != 0);
    let dsdt = u64_at(body, at(140)).filter(|d| *d != 0);
    Some(Fixed {
        sci: u16_at(body, at(46))?,
        smi_command: u32_at(body, at(48)).and_then(|p| u16::try_from(p).ok())?,
        acpi_enable: byte(52)?,
        pm1a_event: either(148, 56),
        pm1b_event: either(160, 60),
        pm1_event_len: byte(88)?,
        pm1a_control: either(172, 64),
        pm1b_control: either(184, 68),
        pm_timer: either(208, 76).filter(|_| byte(91) == Some(4)),
        flags,
        reset,
        century: byte(108)?,
        sleep_control: generic_address(body, at(244)),
        dsdt: dsdt.or(u32_at(body, at(40)).map(u64::from))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    /// Memory that starts at physical address 0.
    struct Flat(Vec<u8>);

    impl Memory for Flat {
        fn bytes(&self, phys: u64, len: usize) -> Option<&[u8]> {
            let at = usize::try_from(phys).ok()?;
            self.0.get(at..at.checked_add(len)?)
        }
    }

    fn put_table(m: &mut Flat, phys: usize, signature: &[u8; 4], body: &[u8]) {
        let len = HEADER_LEN + body.len();
        let t = &mut m.0[phys..phys + len];
        t.fill(0);
        t[..4].copy_from_slice(signature);
        t[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        t[HEADER_LEN..].copy_from_slice(body);
        t[9] = t.iter().fold(0u8, |s, x| s.wrapping_sub(*x));
    }

    fn madt_body() -> Vec<u8> {
        let mut b = vec![0; 8];
        b.extend([0, 8, 0, 0, 1, 0, 0, 0]); // CPU 0
        b.extend([0, 8, 1, 1, 1, 0, 0, 0]); // CPU 1
        b.extend([0, 8, 2, 2, 0, 0, 0, 0]); // not enabled
        b.extend([9, 16, 0, 0, 0x45, 1, 0, 0, 1, 0, 0, 0, 3, 0, 0, 0]); // x2APIC 0x145
        b.extend([1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        b.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]); // IRQ 0 -> GSI 2
        b.extend([2, 10, 0, 9, 9, 0, 0, 0, 0xf, 0]); // IRQ 9 low, level
        b.extend([4, 6, 0xff, 0, 0, 1]);
        b
    }

    fn fadt_body() -> Vec<u8> {
        let mut b = vec![0; 276 - HEADER_LEN];
        let mut put = |offset: usize, bytes: &[u8]| {
            b[offset - HEADER_LEN..][..bytes.len()].copy_from_slice(bytes);
        };
        put(40, &0x3000u32.to_le_bytes());
        put(46, &9u16.to_le_bytes());
        put(48, &0xb2u32.to_le_bytes());
        put(52, &[2]);
        put(56, &0x600u32.to_le_bytes());
        put(64, &0x604u32.to_le_bytes());
        put(76, &0x608u32.to_le_bytes());
        put(88, &[4]);
        put(91, &[4]);
        put(112, &(1u32 << 10).to_le_bytes());
        put(116, &[1, 8, 0, 1, 0xf9, 0x0c, 0, 0, 0, 0, 0, 0]);
        put(128, &[0x0f]);
        b
    }

    fn machine() -> Flat {
        let mut m = Flat(vec![0; 0x1_0000]);
        put_table(&mut m, 0x1000, b"APIC", &madt_body());
        put_table(&mut m, 0x2000, b"FACP", &fadt_body());
        put_table(
            &mut m,
            0x3000,
            b"DSDT",
            b"\x08_S5_\x12\x06\x04\x0a\x05\x00\x00\x00",
        );
        let mut mcfg = vec![0; 8];
        mcfg.extend(0xb000_0000u64.to_le_bytes());
        mcfg.extend([0, 0, 0, 255, 0, 0, 0, 0]);
        put_table(&mut m, 0x4000, b"MCFG", &mcfg);
        let mut hpet = vec![0; 20];
        hpet[8..16].copy_from_slice(&0xfed0_0000u64.to_le_bytes());
        put_table(&mut m, 0x5000, b"HPET", &hpet);
        let list: Vec<u8> = [0x1000u32, 0x2000, 0x4000, 0x5000]
            .iter()
            .flat_map(|p| p.to_le_bytes())
            .collect();
        put_table(&mut m, 0x6000, b"RSDT", &list);
        let rsdp = &mut m.0[0x7000..0x7014];
        rsdp[..8].copy_from_slice(b"RSD PTR ");
        rsdp[16..].copy_from_slice(&0x6000u32.to_le_bytes());
        rsdp[8] = rsdp.iter().fold(0u8, |s, x| s.wrapping_sub(*x));
        m
    }

    #[test]
    fn everything_is_found() {
        let t = read(&machine(), 0x7000);
        assert_eq!(t.apic_ids, [0, 1, 0x145]);
        assert_eq!(
            t.io_apics,
            [IoApic {
                phys: 0xfec0_0000,
                gsi_base: 0
            }]
        );
        assert_eq!(t.overrides[0].wire.gsi, 2);
        assert!(t.overrides[1].wire.level && t.overrides[1].wire.active_low);
        assert!(!t.overrides[0].wire.level && !t.overrides[0].wire.active_low);
        assert_eq!(t.nmi_pin, Some(1));
        assert_eq!((t.ecam[0].phys, t.ecam[0].bus_last), (0xb000_0000, 255));
        assert_eq!(t.hpet, Some(0xfed0_0000));
        assert_eq!(t.soft_off, Some(SoftOff { pm1a: 5, pm1b: 0 }));
        let f = t.fixed.unwrap();
        assert_eq!(f.reset, Some((Register::Port(0xcf9), 0x0f)));
        assert_eq!(f.pm1a_control, Some(Register::Port(0x604)));
        assert_eq!(f.pm_timer, Some(Register::Port(0x608)));
        assert_eq!(f.pm1b_control, None);
        assert!(f.has_power_button());
        let names: Vec<_> = t.names.iter().map(|n| n.signature).collect();
        assert_eq!(names, [*b"APIC", *b"FACP", *b"MCFG", *b"HPET", *b"DSDT"]);
    }

    #[test]
    fn a_wrong_checksum_leaves_a_table_out() {
        let mut m = machine();
        m.0[0x1000 + HEADER_LEN] ^= 1;
        let t = read(&m, 0x7000);
        assert!(t.apic_ids.is_empty() && t.hpet.is_some());
    }

    #[test]
    fn a_damaged_table_of_remapping_is_told() {
        let mut m = machine();
        assert_eq!(read(&m, 0x7000).dmar, None);
        put_table(&mut m, 0x5000, b"DMAR", &[0; 12]);
        let refused = read(&m, 0x7000).dmar;
        assert_eq!(refused, Some(Err(DmarError::Count)));
        m.0[0x5000 + HEADER_LEN] ^= 1;
        assert_eq!(read(&m, 0x7000).dmar, Some(Err(DmarError::Damaged)));
    }

    #[test]
    fn a_tpm_is_found_by_its_table() {
        let mut m = machine();
        assert_eq!(read(&m, 0x7000).tpm, None);
        let mut body = vec![0; 40];
        body[4..12].copy_from_slice(&0xfed4_0040u64.to_le_bytes());
        body[12] = 7;
        put_table(&mut m, 0x5000, b"TPM2", &body);
        let control = 0xfed4_0040;
        assert_eq!(read(&m, 0x7000).tpm, Some(Tpm2 { control, method: 7 }));
        put_table(&mut m, 0x5000, b"TPM2", &body[..15]);
        assert_eq!(read(&m, 0x7000).tpm, None);
    }

    proptest! {
        #[test]
        fn damage_is_never_fatal(hits in proptest::collection::vec((0usize..0x7100, any::<u8>()), 0..40)) {
            let mut m = machine();
            for (at, v) in hits {
                m.0[at] = v;
            }
            read(&m, 0x7000);
            read(&m, u64::MAX - 10);
        }

        #[test]
        fn no_madt_is_too_strange(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut t = Tables::EMPTY;
            madt(&body, &mut t);
            mcfg(&body, &mut t);
            hpet(&body);
            fadt(&body);
            tpm2(&body);
        }
    }
}
