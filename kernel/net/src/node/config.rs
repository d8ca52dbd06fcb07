//! Addresses, routes and name servers.

use crate::error::{Error, Result};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use smallvec::SmallVec;
use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

/// The addresses of the machine and where packets go.
#[derive(Clone, Debug, Default)]
pub struct NetConfig {
    /// IPv4 address and network.
    pub v4: Option<Ipv4Cidr>,
    /// IPv4 router.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 addresses and networks, link-local first.
    pub v6: SmallVec<[Ipv6Cidr; 4]>,
    /// IPv6 router.
    pub gateway6: Option<Ipv6Addr>,
    /// Name servers.
    pub dns: SmallVec<[IpAddr; 3]>,
}

/// Addresses that somebody decided.
#[derive(Clone, Debug)]
pub struct StaticConfig {
    /// IPv4 address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix in bits, at most 32.
    pub prefix: u8,
    /// IPv4 router.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: SmallVec<[IpAddr; 3]>,
}

impl NetConfig {
    /// Whether `ip` is the machine's.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(ip) => self.v4.is_some_and(|n| n.address() == ip),
            IpAddr::V6(ip) => self.v6.iter().any(|n| n.address() == ip),
        }
    }

    /// Whether `ip` addresses everybody on our network.
    #[must_use]
    pub fn is_broadcast(&self, ip: Ipv4Addr) -> bool {
        ip.is_broadcast() || self.v4.and_then(|n| n.broadcast()) == Some(ip)
    }

    /// The address that a packet to `to` comes from.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`] without an address or a route.
    pub fn source(&self, to: IpAddr) -> Result<IpAddr> {
        self.next_hop(to).ok_or(Error::NetworkUnreachable)?;
        let found = match to {
            IpAddr::V4(_) => self.v4.map(|n| n.address().into()),
            IpAddr::V6(to) => self.source_v6(to).map(IpAddr::V6),
        };
        found.ok_or(Error::NetworkUnreachable)
    }

    /// RFC 6724 as far as one link needs it: the same network first, then the
    /// same scope.
    fn source_v6(&self, to: Ipv6Addr) -> Option<Ipv6Addr> {
        let local = to.is_unicast_link_local() || to.is_multicast();
        let same_network = self.v6.iter().find(|n| n.contains_addr(&to));
        let same_scope = || {
            self.v6
                .iter()
                .find(|n| n.address().is_unicast_link_local() == local)
        };
        same_network
            .or_else(same_scope)
            .map(smoltcp::wire::Ipv6Cidr::address)
    }

    /// The neighbour that a packet to `to` is given to.
    #[must_use]
    pub fn next_hop(&self, to: IpAddr) -> Option<IpAddr> {
        match to {
            IpAddr::V4(ip) => {
                let net = self.v4?;
                if net.contains_addr(&ip) || self.is_broadcast(ip) || ip.is_multicast() {
                    return Some(to);
                }
                self.gateway.map(IpAddr::V4)
            }
            IpAddr::V6(ip) => {
                let near = ip.is_unicast_link_local()
                    || ip.is_multicast()
                    || self.v6.iter().any(|n| n.contains_addr(&ip));
                if near {
                    return (!self.v6.is_empty()).then_some(to);
                }
                self.gateway6.map(IpAddr::V6)
            }
        }
    }
}
