//! The node's network: its link and its addresses.

use alloc::sync::Arc;
use net::{Link, NetNode, StaticConfig};
use skep_api::node::Network;
use skep_virtio::net::{Upper, VirtioNet};

/// A virtio device as the network's link.
pub(crate) struct Wire(pub(crate) Arc<VirtioNet>);

impl Link for Wire {
    fn mac(&self) -> [u8; 6] {
        self.0.mac()
    }

    fn mtu(&self) -> usize {
        self.0.mtu()
    }

    fn is_up(&self) -> bool {
        self.0.is_up()
    }

    fn transmit(&self, frame: &[u8]) -> bool {
        self.0.transmit(frame)
    }

    fn room(&self) -> usize {
        self.0.room()
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// The network as what is above a driver.
pub(crate) struct Above(pub(crate) Arc<NetNode>);

impl Upper for Above {
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

/// Gives the node its addresses, or has it ask for them.
pub(crate) fn configure(net: &Arc<NetNode>, network: &Network) {
    match network {
        Network::Dhcp => net.configure_dhcp(),
        Network::Static {
            address,
            prefix,
            gateway,
            dns,
        } => {
            let config = StaticConfig {
                address: *address,
                prefix: *prefix,
                gateway: *gateway,
                dns: dns.iter().map(|d| (*d).into()).collect(),
            };
            if !net.configure_static(&config) {
                log::error!("{address}/{prefix} cannot be the address of a node");
            }
        }
    }
}
