//! The node's addresses.

use alloc::sync::Arc;
use net::{NetNode, StaticConfig};
use skep_api::node::Network;

/// Gives the node its addresses, or has it ask for them.
#[inline(never)]
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
