//! A network device as the link of the node's network.

use crate::net::{Upper, VirtioNet};
use alloc::sync::Arc;
use machine::pci;
use machine::virtio::VirtioError;
use net::NetNode;

impl net::Link for VirtioNet {
    fn mac(&self) -> [u8; 6] {
        VirtioNet::mac(self)
    }

    fn mtu(&self) -> usize {
        VirtioNet::mtu(self)
    }

    fn is_up(&self) -> bool {
        VirtioNet::is_up(self)
    }

    fn transmit(&self, frame: &[u8]) -> bool {
        VirtioNet::transmit(self, frame)
    }

    fn room(&self) -> usize {
        VirtioNet::room(self)
    }

    fn flush(&self) {
        VirtioNet::flush(self);
    }
}

struct ToNode(Arc<NetNode>);

impl Upper for ToNode {
    fn receive(&self, frame: &[u8]) {
        self.0.receive(frame);
    }

    fn link_changed(&self) {
        self.0.link_changed();
    }

    fn transmit_ready(&self) {
        self.0.transmit_ready();
    }
}

/// Takes the network device `pci` into use as the link of `node`.
///
/// # Errors
/// [`VirtioError`].
pub fn attach(pci: &pci::Device, node: &Arc<NetNode>) -> Result<Arc<VirtioNet>, VirtioError> {
    let (device, receiver) = VirtioNet::open(pci)?;
    node.attach_link(device.clone());
    receiver
        .start(Arc::new(ToNode(node.clone())))
        .map_err(|_| VirtioError::NoMemory)?;
    Ok(device)
}
