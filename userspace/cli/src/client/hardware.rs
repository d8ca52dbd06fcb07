//! The hardware report as people read it.

use super::show::{plain, table};
use crate::units::show_bytes;
use skep_api::control::hardware::{DiskHealth, Hardware, LinkReport, MemoryKind};
use std::fmt::Write;

/// What is said of a device that nobody drives.
const NO_DRIVER: &str = "no driver";

/// The machine, then its PCI devices, disks and links as tables.
pub(super) fn show(h: &Hardware) -> String {
    let mut out = String::new();
    product(h, &mut out);
    processor(h, &mut out);
    memory(h, &mut out);
    let tables: Vec<_> = h.acpi.iter().map(|t| plain(&t.signature)).collect();
    let _ = writeln!(out, "ACPI      {}", tables.join(" "));
    iommu(h, &mut out);
    tpm(h, &mut out);
    let _ = write!(out, "\n{}", pci(h));
    if !h.disks.is_empty() {
        let _ = write!(out, "\n{}", disks(h));
    }
    if !h.links.is_empty() {
        let _ = write!(out, "\n{}", links(h));
    }
    if !h.tpm.registers.is_empty() {
        let _ = write!(out, "\n{}\n{}", registers(h), measurements(h));
    }
    out
}

/// What is said of some texts, without the empty ones.
fn words(texts: &[&str]) -> String {
    let said = texts.iter().filter(|text| !text.is_empty());
    let said: Vec<_> = said.map(|text| plain(text)).collect();
    if said.is_empty() {
        return String::from("not told");
    }
    said.join(" ")
}

fn product(h: &Hardware, out: &mut String) {
    let p = &h.product;
    let mut line = |name: &str, text: String, serial: &str| {
        let serial = match serial {
            "" => String::new(),
            serial => format!(", serial {}", plain(serial)),
        };
        let _ = writeln!(out, "{name:<9} {text}{serial}");
    };
    line(
        "machine",
        words(&[&p.maker, &p.name, &p.version]),
        &p.serial,
    );
    line(
        "board",
        words(&[&p.board_maker, &p.board_name]),
        &p.board_serial,
    );
    let firmware = [&*p.firmware_maker, &p.firmware_version, &p.firmware_date];
    line("firmware", words(&firmware), "");
}

fn processor(h: &Hardware, out: &mut String) {
    let p = &h.processor;
    let _ = writeln!(
        out,
        "CPUs      {} x {} ({})",
        p.count,
        words(&[&p.model]),
        plain(&p.features.join(" "))
    );
}

fn memory(h: &Hardware, out: &mut String) {
    let usable = h.memory.iter().filter(|r| r.kind == MemoryKind::Usable);
    let bytes = usable.map(|r| r.bytes).sum();
    let _ = writeln!(
        out,
        "memory    {} usable, {} ranges in the map",
        show_bytes(bytes),
        h.memory.len()
    );
    for m in &h.memory_modules {
        let speed = m.speed.map_or(String::new(), |s| format!(", {s} MT/s"));
        let _ = writeln!(
            out,
            "          {}: {}{speed}, {}",
            words(&[&m.place]),
            show_bytes(m.bytes),
            words(&[&m.maker, &m.part])
        );
    }
}

fn iommu(h: &Hardware, out: &mut String) {
    let state = match &*h.iommu.state {
        "" => "not told",
        state => state,
    };
    let _ = writeln!(out, "IOMMU     {}", plain(state));
    for f in &h.iommu.faults {
        let (device, last) = (plain(&f.device), plain(&f.last));
        let _ = writeln!(out, "          {device}: {} times, last: {last}", f.count);
    }
}

fn tpm(h: &Hardware, out: &mut String) {
    let t = &h.tpm;
    let state = match &*t.state {
        "" => "not told",
        state => state,
    };
    let _ = write!(out, "TPM       {}", plain(state));
    if t.on {
        let made = [&*t.manufacturer, "firmware", &t.firmware];
        let banks = plain(&t.banks.join(" "));
        let _ = write!(out, ", {}, banks {banks}", words(&made));
    }
    let _ = writeln!(out);
}

/// The registers of the TPM.
fn registers(h: &Hardware) -> String {
    let mut rows = vec![["PCR", "SHA-256"].map(String::from)];
    let registers = h.tpm.registers.iter();
    rows.extend(registers.map(|r| [r.pcr.to_string(), plain(&r.value)]));
    table(&rows)
}

/// What the TPM was told of the start, from which the registers follow.
fn measurements(h: &Hardware) -> String {
    let mut rows = vec![["MEASURED", "PCR", "BY", "SHA-256"].map(String::from)];
    rows.extend(h.tpm.log.iter().map(|m| {
        let pcr = m.pcr.to_string();
        [plain(&m.what), pcr, plain(&m.by), plain(&m.digest)]
    }));
    if !h.tpm.complete {
        let rest = ["and more that could not be told", "", "", ""];
        rows.push(rest.map(String::from));
    }
    table(&rows)
}

fn pci(h: &Hardware) -> String {
    let mut rows = vec![["PCI", "ID", "CLASS", "DRIVER"].map(String::from)];
    rows.extend(h.pci.iter().map(|f| {
        let is_bridge = f.class[0] == 6;
        let none = if is_bridge { "-" } else { NO_DRIVER };
        [
            plain(&f.address),
            format!("{:04x}:{:04x}", f.vendor, f.device),
            plain(&f.class_name),
            plain(f.driver.as_deref().unwrap_or(none)),
        ]
    }));
    table(&rows)
}

fn disks(h: &Hardware) -> String {
    let mut rows = vec![["DISK", "SIZE", "MODEL", "SERIAL", "HOLDER", "HEALTH"].map(String::from)];
    rows.extend(h.disks.iter().map(|d| {
        [
            plain(&d.name),
            show_bytes(d.bytes),
            words(&[&d.model, &d.firmware]),
            words(&[&d.serial]),
            plain(d.holder.as_deref().unwrap_or("-")),
            d.health.as_ref().map_or("not told".to_owned(), health),
        ]
    }));
    table(&rows)
}

fn health(h: &DiskHealth) -> String {
    let mut said = vec![match h.failing {
        true => format!("FAILING: {}", plain(&h.reason)),
        false => "good".to_owned(),
    }];
    said.extend(h.temperature.map(|t| format!("{t} °C")));
    said.extend(h.used_percent.map(|p| format!("{p} % used")));
    said.extend(h.power_on_hours.map(|n| format!("{n} h")));
    said.extend(
        h.media_errors
            .filter(|n| *n > 0)
            .map(|n| format!("{n} errors")),
    );
    said.join(", ")
}

fn links(h: &Hardware) -> String {
    let header = ["LINK", "STATE", "MAC", "MTU", "RECEIVED", "SENT", "LOST"];
    let mut rows = vec![header.map(String::from)];
    rows.extend(h.links.iter().map(|l| {
        [
            plain(&l.name),
            state(l),
            plain(&l.mac),
            l.mtu.to_string(),
            show_bytes(l.received.bytes),
            show_bytes(l.sent.bytes),
            (l.received.errors + l.received.dropped + l.sent.errors + l.sent.dropped).to_string(),
        ]
    }));
    table(&rows)
}

fn state(l: &LinkReport) -> String {
    let duplex = match l.full_duplex {
        Some(true) => " full",
        Some(false) => " half",
        None => "",
    };
    match (l.up, l.speed_mbit) {
        (false, _) => "down".to_owned(),
        (true, None) => "up".to_owned(),
        (true, Some(speed)) => format!("up {speed} Mbit/s{duplex}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use skep_api::control::hardware::{DiskReport, DmaFaults, Iommu, MemoryRange, PciFunction};

    #[test]
    fn a_machine_as_people_read_it() {
        let mut h = Hardware::default();
        h.product.maker = "Maker\u{1b}[31m".into();
        h.product.serial = "7".into();
        h.processor.count = 2;
        h.processor.model = "CPU".into();
        h.memory = vec![MemoryRange {
            start: 0,
            bytes: 64 << 20,
            kind: MemoryKind::Usable,
        }];
        let function = |class: u8, driver: Option<&str>| PciFunction {
            address: "00:01.0".into(),
            vendor: 0x8086,
            device: 0x1234,
            class: [class, 0, 0],
            class_name: "thing".into(),
            driver: driver.map(String::from),
        };
        h.pci = vec![
            function(6, None),
            function(2, None),
            function(2, Some("e1000e")),
        ];
        h.iommu = Iommu {
            on: true,
            state: "on (VT-d 1.0, units 1)".into(),
            faults: vec![DmaFaults {
                device: "00:04.0".into(),
                count: 3,
                last: "write at 0x1000 refused".into(),
            }],
        };
        h.disks = vec![DiskReport {
            name: "nvme0n1".into(),
            bytes: 1 << 30,
            block_bytes: 512,
            read_only: false,
            model: "M".into(),
            serial: String::new(),
            firmware: String::new(),
            holder: None,
            health: Some(DiskHealth {
                failing: true,
                reason: "spare low".into(),
                temperature: Some(40),
                ..DiskHealth::default()
            }),
        }];
        let text = show(&h);
        assert!(
            !text.contains('\u{1b}'),
            "a machine must not steer the terminal"
        );
        assert!(text.contains("CPUs      2 x CPU"), "{text}");
        assert!(text.contains("64.0 MiB usable"), "{text}");
        let drivers: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("00:01.0"))
            .map(|line| line.rsplit("  ").next().unwrap_or_default().to_owned())
            .collect();
        assert_eq!(drivers, ["-", "no driver", "e1000e"]);
        assert!(text.contains("FAILING: spare low, 40 °C"), "{text}");
    }
}
