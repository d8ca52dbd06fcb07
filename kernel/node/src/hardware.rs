//! What the machine is made of, for the hardware report.

use crate::trust::Trust;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{borrow::ToOwned, format};
use machine::inventory::{self, MemoryKind};
use machine::iommu;
use machine::pci::{self, Address, Device};
use skep_api::control::hardware::{
    self as api, AcpiTable, DmaFaults, Hardware, Iommu, MemoryModule, MemoryRange, PciFunction,
    Processor, Product,
};

/// The report, without disks and links. `bound` says which driver has which device.
pub(crate) fn report(bound: &[(Address, &'static str)], trust: &Trust) -> Hardware {
    let product = inventory::product();
    let modules = product.map(|p| p.modules.iter()).into_iter().flatten();
    Hardware {
        processor: processor(),
        memory: memory(),
        memory_modules: modules.map(memory_module).collect(),
        product: product.map(of_product).unwrap_or_default(),
        acpi: inventory::acpi_tables().iter().map(acpi_table).collect(),
        pci: functions(bound),
        iommu: iommu(),
        tpm: trust.report(),
        ..Hardware::default()
    }
}

fn processor() -> Processor {
    let p = inventory::processor();
    Processor {
        vendor: p.vendor,
        model: p.model,
        version: [p.family, p.number, p.stepping],
        count: u32::try_from(machine::cpu::count()).unwrap_or(u32::MAX),
        features: p.features.iter().map(ToString::to_string).collect(),
    }
}

fn memory() -> Vec<MemoryRange> {
    let range = |r: inventory::MemoryRange| MemoryRange {
        start: r.start,
        bytes: r.end - r.start,
        kind: match r.kind {
            MemoryKind::Usable => api::MemoryKind::Usable,
            MemoryKind::Tables => api::MemoryKind::Tables,
            MemoryKind::Firmware => api::MemoryKind::Firmware,
            MemoryKind::Devices => api::MemoryKind::Devices,
            MemoryKind::Reserved => api::MemoryKind::Reserved,
            MemoryKind::Broken => api::MemoryKind::Broken,
        },
    };
    inventory::memory_map().into_iter().map(range).collect()
}

fn memory_module(m: &inventory::Module) -> MemoryModule {
    MemoryModule {
        place: m.place.clone(),
        maker: m.maker.clone(),
        part: m.part.clone(),
        bytes: m.bytes,
        speed: Some(m.speed).filter(|s| *s != 0),
    }
}

fn of_product(p: &inventory::Product) -> Product {
    let p = p.clone();
    Product {
        firmware_maker: p.firmware_maker,
        firmware_version: p.firmware_version,
        firmware_date: p.firmware_date,
        maker: p.maker,
        name: p.name,
        version: p.version,
        serial: p.serial,
        uuid: uuid(&p.uuid),
        board_maker: p.board_maker,
        board_name: p.board_name,
        board_serial: p.board_serial,
    }
}

/// As it is written; empty for none.
fn uuid(bytes: &[u8; 16]) -> String {
    if *bytes == [0; 16] {
        return String::new();
    }
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn iommu() -> Iommu {
    let status = iommu::status();
    let faults = |t: iommu::Tally| DmaFaults {
        device: t.last.device.to_string(),
        count: t.count,
        last: t.last.to_string(),
    };
    Iommu {
        on: matches!(status, iommu::Status::On { .. }),
        state: status.to_string(),
        faults: iommu::tallies().into_iter().map(faults).collect(),
    }
}

fn acpi_table(t: &inventory::TableName) -> AcpiTable {
    let printable = |bytes: &[u8]| {
        let text = bytes.iter().filter(|b| (b' '..0x7f).contains(*b));
        let text: String = text.map(|b| char::from(*b)).collect();
        text.trim().to_owned()
    };
    AcpiTable {
        signature: printable(&t.signature),
        maker: printable(&t.maker),
        bytes: t.bytes,
    }
}

/// All functions, bridges included. Bridges need no driver: they are where the firmware
/// has put them.
fn functions(bound: &[(Address, &'static str)]) -> Vec<PciFunction> {
    let driver = |d: &Device| bound.iter().find(|(at, _)| *at == d.address).map(|b| b.1);
    let mut all: Vec<&Device> = pci::devices().iter().chain(pci::bridges()).collect();
    all.sort_unstable_by_key(|d| d.address);
    let function = |d: &Device| PciFunction {
        address: d.address.to_string(),
        vendor: d.vendor,
        device: d.device,
        class: [d.class, d.subclass, d.interface],
        class_name: pci::class_name(d.class, d.subclass, d.interface).to_owned(),
        driver: driver(d).map(ToOwned::to_owned),
    };
    all.into_iter().map(function).collect()
}
