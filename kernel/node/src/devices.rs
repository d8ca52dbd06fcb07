//! The device list: which driver takes what.
//!
//! Every driver is one row of [`DRIVERS`]. A device that nobody takes, or that fails, is
//! named and left alone.

use crate::usb;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use capsule::Disks;
use machine::pci::{self, Address, Device};
use machine::virtio::{self, DeviceType};
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

/// All drivers; the first that takes a device has it.
const DRIVERS: [Driver; 10] = [
    Driver {
        name: "virtio-net",
        takes: |d| is_virtio(d, DeviceType::Network),
        start: virtio_net,
    },
    Driver {
        name: "virtio-blk",
        takes: |d| is_virtio(d, DeviceType::Block),
        start: virtio_blk,
    },
    Driver {
        name: "virtio-rng",
        takes: |d| is_virtio(d, DeviceType::EntropySource),
        start: |d, _| in_words(entropy::start(d)),
    },
    Driver {
        name: "virtio-console",
        takes: |d| is_virtio(d, DeviceType::Console),
        start: |d, _| in_words(skep_virtio::console::start(d)),
    },
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

const NO_THREADS: &str = "no memory for its threads";

/// Starts a driver for every device that there is one for.
pub(crate) fn start(net: &Arc<NetNode>) -> Parts {
    let mut parts = Parts {
        net: net.clone(),
        disks: Arc::default(),
        virtio_disks: 0,
        nvme_controllers: 0,
        usb: Vec::new(),
        bound: Vec::new(),
    };
    for device in pci::devices() {
        let Some(driver) = DRIVERS.iter().find(|d| (d.takes)(device)) else {
            continue;
        };
        match (driver.start)(device, &mut parts) {
            Ok(()) => parts.bound.push((device.address, driver.name)),
            Err(e) => log::error!("device {} ({}): {e}", device.address, driver.name),
        }
    }
    usb::settle(&parts.usb);
    parts
}

fn is_virtio(device: &Device, kind: DeviceType) -> bool {
    virtio::kind(device) == Some(kind)
}

fn is_intel(device: &Device, family: &str) -> bool {
    skep_intel::family::model(device).is_some_and(|m| m.family.name == family)
}

fn in_words<T>(result: Result<T, impl ToString>) -> Result<T, String> {
    result.map_err(|e| e.to_string())
}

fn virtio_blk(device: &'static Device, parts: &mut Parts) -> Result<(), String> {
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

fn virtio_net(device: &'static Device, parts: &mut Parts) -> Result<(), String> {
    let (driver, receiver) = in_words(VirtioNet::open(device))?;
    let upper = attach(parts, "virtio-net", device, driver)?;
    in_words(receiver.start(upper).map_err(|_| NO_THREADS))
}

fn intel_net(device: &'static Device, parts: &mut Parts) -> Result<(), String> {
    let model = skep_intel::family::model(device).ok_or("no known chip")?;
    let (driver, receiver) = in_words(skep_intel::open(device, model, skep_intel::nic::MTU))?;
    let upper = attach(parts, model.name, device, driver)?;
    in_words(receiver.start(upper))
}

/// Adds a link to the node's, of which one is in use.
fn attach(
    parts: &Parts,
    name: &str,
    device: &Device,
    driver: Arc<dyn Link>,
) -> Result<Arc<dyn Upper>, String> {
    let name = format!("{name} at {}", device.address);
    let port = parts.net.attach_link(&name, driver);
    Ok(port.ok_or("there are more network devices than a node can have")?)
}
