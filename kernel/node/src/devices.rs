//! The device list: which driver takes what.
//!
//! Every driver is one row of [`DRIVERS`] or [`VIRTIO_DRIVERS`]. A device that nobody takes, or that fails, is
//! named and left alone.

use crate::usb;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use capsule::Disks;
use core::fmt::Display;
use machine::pci::{self, Address, Device};
use machine::virtio::{self, DeviceType, Found, Place};
use net::{Link, NetNode, Upper};
use skep_usb::Host;
use skep_virtio::blk::VirtioBlk;
use skep_virtio::entropy;
use skep_virtio::net::VirtioNet;
use vfs::block::DiskId;

/// What drivers add to the node.
pub(crate) struct Parts {
    /// Its network, which takes links.
    pub(crate) net: Arc<NetNode>,
    /// Its disks.
    pub(crate) disks: Arc<Disks>,
    /// Virtio disks seen so far: one that does not start keeps its number, and the
    /// others their names.
    virtio_disks: u32,
    /// NVMe controllers seen so far, likewise.
    nvme_controllers: u32,
    /// Its USB buses.
    pub(crate) usb: Vec<Arc<Host>>,
    /// Which driver has which device.
    pub(crate) bound: Vec<(Address, &'static str)>,
}

/// A kind of device and who drives it.
struct Driver {
    name: &'static str,
    /// Whether it drives devices like this.
    takes: fn(&Device) -> bool,
    /// Takes the device into use; why not, in words.
    start: fn(&'static Device, &mut Parts) -> Result<(), String>,
}

/// Drivers of PCI devices that are not virtio's; the first that takes a device has it.
const DRIVERS: [Driver; 6] = [
    Driver {
        name: "nvme",
        takes: skep_nvme::is_nvme,
        start: nvme,
    },
    Driver {
        name: "ahci",
        takes: skep_ahci::is_ahci,
        start: ahci,
    },
    Driver {
        name: "e1000",
        takes: |d| is_intel(d, "e1000"),
        start: intel_net,
    },
    Driver {
        name: "e1000e",
        takes: |d| is_intel(d, "e1000e"),
        start: intel_net,
    },
    Driver {
        name: "igb",
        takes: |d| is_intel(d, "igb"),
        start: intel_net,
    },
    Driver {
        name: "xhci",
        takes: skep_usb::is_controller,
        start: usb::start,
    },
];

/// A kind of virtio device and who drives it, on whatever bus it is.
struct VirtioDriver {
    name: &'static str,
    kind: DeviceType,
    /// Takes the device into use; why not, in words.
    start: fn(&Found, &mut Parts) -> Result<(), String>,
}

/// Drivers of virtio devices.
const VIRTIO_DRIVERS: [VirtioDriver; 4] = [
    VirtioDriver {
        name: "virtio-net",
        kind: DeviceType::Network,
        start: virtio_net,
    },
    VirtioDriver {
        name: "virtio-blk",
        kind: DeviceType::Block,
        start: virtio_blk,
    },
    VirtioDriver {
        name: "virtio-rng",
        kind: DeviceType::EntropySource,
        start: |d, _| in_words(entropy::start(d)),
    },
    VirtioDriver {
        name: "virtio-console",
        kind: DeviceType::Console,
        start: |d, _| in_words(skep_virtio::console::start(d)),
    },
];

const NO_THREADS: &str = "no memory for its threads";

/// Starts a driver for every device that there is one for. `places` are those of virtio
/// devices that the command line names.
#[inline(never)]
pub(crate) fn start(net: &Arc<NetNode>, places: &[Place]) -> Parts {
    let mut parts = Parts {
        net: net.clone(),
        disks: Arc::default(),
        virtio_disks: 0,
        nvme_controllers: 0,
        usb: Vec::new(),
        bound: Vec::new(),
    };
    for device in pci::devices() {
        if let Some(name) = start_pci(device, &mut parts) {
            parts.bound.push((device.address, name));
        }
    }
    start_places(places, &mut parts);
    usb::settle(&parts.usb);
    parts
}

/// Starts the driver of a PCI device; its name, if there is one and it runs.
#[inline(never)]
fn start_pci(device: &'static Device, parts: &mut Parts) -> Option<&'static str> {
    if let Some(found) = Found::pci(device) {
        return start_virtio(&found, parts);
    }
    let driver = DRIVERS.iter().find(|d| (d.takes)(device))?;
    let started = (driver.start)(device, parts);
    told(&device.address.to_string(), driver.name, started)
}

/// Starts the drivers of virtio devices that are no PCI devices: those the firmware tells
/// of, and those of the command line. Whoever writes both means the same devices. In the
/// order of their addresses, so that disks keep their names.
fn start_places(named: &[Place], parts: &mut Parts) {
    let mut places: Vec<Place> = virtio::told().iter().chain(named).copied().collect();
    places.sort_by_key(|p| p.address);
    places.dedup_by_key(|p| p.address);
    for place in places {
        match Found::mmio(place) {
            Ok(Some(found)) => {
                start_virtio(&found, parts);
            }
            Ok(None) => {}
            Err(e) => log::error!("device {place} (virtio): {e}"),
        }
    }
}

#[inline(never)]
fn start_virtio(found: &Found, parts: &mut Parts) -> Option<&'static str> {
    let driver = VIRTIO_DRIVERS.iter().find(|d| d.kind == found.kind())?;
    let started = (driver.start)(found, parts);
    told(&found.to_string(), driver.name, started)
}

/// The driver's name, if it runs; if it does not, that is told.
fn told(device: &str, name: &'static str, started: Result<(), String>) -> Option<&'static str> {
    match started {
        Ok(()) => Some(name),
        Err(e) => {
            log::error!("device {device} ({name}): {e}");
            None
        }
    }
}

fn is_intel(device: &Device, family: &str) -> bool {
    skep_intel::family::model(device).is_some_and(|m| m.family.name == family)
}

fn in_words<T>(result: Result<T, impl ToString>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

fn virtio_blk(device: &Found, parts: &mut Parts) -> Result<(), String> {
    let number = parts.virtio_disks;
    parts.virtio_disks += 1;
    let driver = in_words(VirtioBlk::start(device))?;
    parts.disks.add(DiskId::virtio(number), driver);
    Ok(())
}

/// Each namespace of an NVMe controller is a disk.
fn nvme(device: &'static Device, parts: &mut Parts) -> Result<(), String> {
    let number = parts.nvme_controllers;
    parts.nvme_controllers += 1;
    for namespace in in_words(skep_nvme::start(device))? {
        let id = DiskId::nvme(number, namespace.id());
        parts.disks.add(id, namespace);
    }
    Ok(())
}

/// Each disk of an AHCI adapter, in the order of its ports.
fn ahci(device: &'static Device, parts: &mut Parts) -> Result<(), String> {
    for disk in in_words(skep_ahci::start(device))? {
        if parts.disks.add_scsi(disk).is_none() {
            log::warn!("device {}: there are too many disks", device.address);
        }
    }
    Ok(())
}

fn virtio_net(device: &Found, parts: &mut Parts) -> Result<(), String> {
    let (driver, receiver) = in_words(VirtioNet::open(device))?;
    let upper = attach(parts, "virtio-net", device, driver)?;
    in_words(receiver.start(upper).map_err(|_| NO_THREADS))
}

fn intel_net(device: &'static Device, parts: &mut Parts) -> Result<(), String> {
    let model = skep_intel::family::model(device).ok_or("no known chip")?;
    let (driver, receiver) = in_words(skep_intel::open(device, model, skep_intel::nic::MTU))?;
    let upper = attach(parts, model.name, &device.address, driver)?;
    in_words(receiver.start(upper))
}

/// Adds a link to the node's, of which one is in use.
fn attach(
    parts: &Parts,
    name: &str,
    place: &dyn Display,
    driver: Arc<dyn Link>,
) -> Result<Arc<dyn Upper>, String> {
    let name = format!("{name} at {place}");
    let port = parts.net.attach_link(&name, driver);
    Ok(port.ok_or("there are more network devices than a node can have")?)
}
