//! The device list: which driver takes what.

use crate::network::{Above, Wire};
use alloc::sync::Arc;
use machine::pci;
use machine::virtio::{self, DeviceType, VirtioError};
use net::NetNode;
use skep_virtio::blk::VirtioBlk;
use skep_virtio::entropy;
use skep_virtio::net::VirtioNet;

/// Starts a driver for every device that there is one for. A device that fails is
/// named and left alone.
pub(crate) fn start(net: &Arc<NetNode>) {
    for (device, kind) in virtio::devices() {
        let started = match kind {
            DeviceType::Network => network(device, net),
            DeviceType::Block => VirtioBlk::start(device).map(drop),
            DeviceType::EntropySource => entropy::start(device),
            _ => continue,
        };
        if let Err(e) = started {
            log::error!("device {}: {e}", device.address);
        }
    }
}

/// The first network device becomes the node's link.
fn network(device: &pci::Device, net: &Arc<NetNode>) -> Result<(), VirtioError> {
    let (driver, receiver) = VirtioNet::open(device)?;
    net.attach_link(Arc::new(Wire(driver)));
    receiver
        .start(Arc::new(Above(net.clone())))
        .map_err(|_| VirtioError::NoMemory)
}
