//! What the machine under a node is made of. The same types, as JSON, are what the node's
//! API answers; a text that is not known is empty, a number that is not known `None`.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Most PCI functions in a report.
pub const PCI_MAX: usize = 256;
/// Most entries of every other list in a report.
pub const HARDWARE_LIST_MAX: usize = 128;
/// Most measurements that are written down.
pub const MEASUREMENTS_MAX: usize = 96;

/// The machine under a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    /// Its processors, which are taken to be alike.
    pub processor: Processor,
    /// The memory map in the order of addresses.
    pub memory: Vec<MemoryRange>,
    /// The memory modules that are plugged in.
    pub memory_modules: Vec<MemoryModule>,
    /// The machine as a product.
    pub product: Product,
    /// The ACPI tables.
    pub acpi: Vec<AcpiTable>,
    /// The PCI functions in the order of their addresses, bridges included.
    pub pci: Vec<PciFunction>,
    /// What keeps devices from memory that is not theirs.
    #[serde(default)]
    pub iommu: Iommu,
    /// What keeps secrets and remembers how the machine was started.
    #[serde(default)]
    pub tpm: Tpm,
    /// The disks that a driver serves.
    pub disks: Vec<DiskReport>,
    /// The network links that a driver serves.
    pub links: Vec<LinkReport>,
}

/// The processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Processor {
    /// Who made them.
    pub vendor: String,
    /// Their name.
    pub model: String,
    /// Family, model and stepping.
    pub version: [u8; 3],
    /// How many run threads.
    pub count: u32,
    /// Abilities that matter to programs or to isolation, by the names that Linux gives them.
    pub features: Vec<String>,
}

/// A range of physical memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryRange {
    /// Its first address.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
    /// What it is.
    pub kind: MemoryKind,
}

/// What a range of physical memory is, as the firmware said at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemoryKind {
    /// Free for the node's use.
    Usable,
    /// ACPI tables.
    Tables,
    /// The firmware's own, while the node runs.
    Firmware,
    /// Devices.
    Devices,
    /// Reserved, for whatever.
    Reserved,
    /// Known to be broken.
    Broken,
}

/// A memory module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryModule {
    /// Where it is plugged in.
    pub place: String,
    /// Who made it.
    pub maker: String,
    /// Its part number.
    pub part: String,
    /// Its size.
    pub bytes: u64,
    /// Its speed in million transfers a second.
    pub speed: Option<u16>,
}

/// The machine as a product (SMBIOS).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Who made the firmware.
    pub firmware_maker: String,
    /// Its version.
    pub firmware_version: String,
    /// Its date, as it writes it.
    pub firmware_date: String,
    /// Who made the machine.
    pub maker: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its serial number.
    pub serial: String,
    /// Its UUID.
    pub uuid: String,
    /// Who made the main board.
    pub board_maker: String,
    /// The board's name.
    pub board_name: String,
    /// The board's serial number.
    pub board_serial: String,
}

/// An ACPI table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcpiTable {
    /// Its signature, such as `APIC`.
    pub signature: String,
    /// Who made it.
    pub maker: String,
    /// Its length.
    pub bytes: u32,
}

/// A PCI function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PciFunction {
    /// Bus, device and function, such as `00:1f.0`.
    pub address: String,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Base class, sub-class and programming interface.
    pub class: [u8; 3],
    /// The class in words.
    pub class_name: String,
    /// The driver that serves it; `None`: there is no driver for it, or it did not start.
    pub driver: Option<String>,
}

/// What keeps devices from memory that is not theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Iommu {
    /// Whether it does.
    pub on: bool,
    /// The same for people: `on (VT-d 1.0, units 1)`, or why not.
    pub state: String,
    /// The devices that tried to reach other memory and were refused.
    pub faults: Vec<DmaFaults>,
}

/// Accesses of a device that were refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmaFaults {
    /// Bus, device and function.
    pub device: String,
    /// How many were recorded since boot; those in quick succession are recorded as one.
    pub count: u64,
    /// What the last was, for people.
    pub last: String,
}

/// The trusted platform module (TPM 2.0).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tpm {
    /// Whether there is one in use.
    pub on: bool,
    /// The same for people: `on (TIS)`, or why not.
    pub state: String,
    /// Who made it, four letters.
    pub manufacturer: String,
    /// Version of its firmware.
    pub firmware: String,
    /// The hash algorithms of its banks of registers, such as `sha256`.
    pub banks: Vec<String>,
    /// What loader and kernel have told it of this start of the machine, in order.
    pub log: Vec<Measurement>,
    /// Whether that is all of it: nothing failed on the way.
    pub complete: bool,
    /// Registers of SHA-256 as they are now: those of the log, and those that tell of loader
    /// and Secure Boot.
    pub registers: Vec<Register>,
}

/// Something that a TPM was told of: its register became SHA-256 of what it was and `digest`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// The register: see [`crate::boot::measured`].
    pub pcr: u32,
    /// What, such as `ramdisk`.
    pub what: String,
    /// SHA-256 of it, in hexadecimal digits.
    pub digest: String,
    /// Who told the TPM: `loader` or `kernel`.
    pub by: String,
}

/// A register of a TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// Its number.
    pub pcr: u32,
    /// What it is, in hexadecimal digits.
    pub value: String,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its name, such as `vda`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// The least it reads or writes, in bytes.
    pub block_bytes: u32,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Maker and model.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// Version of its firmware.
    pub firmware: String,
    /// The capsule that holds it.
    pub holder: Option<String>,
    /// What it said of its health when it was last asked; `None`: it keeps no record, or
    /// does not answer.
    pub health: Option<DiskHealth>,
}

/// What a disk says of its health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskHealth {
    /// It says that it is failing or about to.
    pub failing: bool,
    /// Why, in a few words.
    pub reason: String,
    /// Temperature in degrees Celsius.
    pub temperature: Option<i16>,
    /// Hours it has been switched on.
    pub power_on_hours: Option<u64>,
    /// Times it lost power without warning.
    pub unsafe_shutdowns: Option<u64>,
    /// Percent of its life used up; may go beyond 100.
    pub used_percent: Option<u8>,
    /// Percent of its spare blocks left.
    pub spare_percent: Option<u8>,
    /// Times data could not be read back or were found wrong.
    pub media_errors: Option<u64>,
    /// Bytes read from it in its life.
    pub read_bytes: Option<u64>,
    /// Bytes written to it in its life.
    pub written_bytes: Option<u64>,
}

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkReport {
    /// Its name, such as `eth0`.
    pub name: String,
    /// Its hardware address.
    pub mac: String,
    /// Whether there is a carrier.
    pub up: bool,
    /// Bytes of a packet in one frame.
    pub mtu: u32,
    /// Speed in Mbit/s.
    pub speed_mbit: Option<u32>,
    /// Whether both ends may send at the same time.
    pub full_duplex: Option<bool>,
    /// What came in.
    pub received: LinkCounters,
    /// What went out.
    pub sent: LinkCounters,
    /// Times the device was reset because it hung or broke the rules.
    pub resets: u64,
}

/// Counters of one direction of a link since its driver started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkCounters {
    /// Whole frames.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Frames lost because they were damaged.
    pub errors: u64,
    /// Frames lost because there was no room.
    pub dropped: u64,
}
