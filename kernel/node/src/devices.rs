//! The device list: which driver takes what.

use crate::network::{Above, Wire};
use alloc::sync::Arc;
use capsule::Disks;
use machine::pci;
use machine::virtio::{self, DeviceType, VirtioError};
use net::NetNode;
use skep_virtio::blk::VirtioBlk;
use skep_virtio::entropy;
use skep_virtio::net::VirtioNet;

/// Starts a driver for every device that there is one for; the disks. A device that
/// fails is named and left alone.
pub(crate) fn start(net: &Arc<NetNode>) -> Disks {
    let mut disks = Disks::default();
    // A disk that does not start keeps its number, and the others their names.
    let mut numbers = 0..;
    for (device, kind) in virtio::devices() {
        let started = match kind {
            DeviceType::Network => network(device, net),
            DeviceType::Block => disk(device, numbers.next(), &mut disks),
            DeviceType::EntropySource => entropy::start(device),
            DeviceType::Console => skep_virtio::console::start(device),
            _ => continue,
        };
        if let Err(e) = started {
            log::error!("device {}: {e}", device.address);
        }
    }
    disks
}

fn disk(device: &pci::Device, number: Option<u32>, disks: &mut Disks) -> Result<(), VirtioError> {
    let driver = VirtioBlk::start(device)?;
    if let Some(number) = number {
        disks.add(number, driver);
    }
    Ok(())
}

/// The first network device becomes the node's link.
fn network(device: &pci::Device, net: &Arc<NetNode>) -> Result<(), VirtioError> {
    let (driver, receiver) = VirtioNet::open(device)?;
    net.attach_link(Arc::new(Wire(driver)));
    receiver
        .start(Arc::new(Above(net.clone())))
        .map_err(|_| VirtioError::NoMemory)
}
