//! The network interfaces a capsule sees: its loopback and the node's link.

use crate::stack::NetStack;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use smallvec::SmallVec;

const IFF_UP: u32 = 0x1;
const IFF_BROADCAST: u32 = 0x2;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
const IFF_MULTICAST: u32 = 0x1000;
const IFF_LOWER_UP: u32 = 0x1_0000;
/// `ARPHRD_ETHER`.
const ETHER: u16 = 1;
/// `ARPHRD_LOOPBACK`.
const LOOPBACK: u16 = 772;

/// Bytes of an IP packet that the loopback carries, as Linux has it.
pub(crate) const LOOPBACK_MTU: usize = 65_536;

/// One interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its number, from 1.
    pub index: u32,
    /// Its name.
    pub name: &'static str,
    /// `IFF_*`.
    pub flags: u32,
    /// Bytes of an IP packet it carries.
    pub mtu: usize,
    /// `ARPHRD_*`.
    pub hardware: u16,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// IPv4 address and prefix length.
    pub v4: Option<(Ipv4Addr, u8)>,
    /// IPv6 addresses and prefix lengths.
    pub v6: SmallVec<[(Ipv6Addr, u8); 4]>,
}

/// The interfaces of a capsule, by number.
#[must_use]
pub fn interfaces(stack: &NetStack) -> Vec<Interface> {
    let mut all = Vec::with_capacity(2);
    all.push(Interface {
        index: 1,
        name: "lo",
        flags: IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP,
        mtu: LOOPBACK_MTU,
        hardware: LOOPBACK,
        mac: [0; 6],
        v4: Some((Ipv4Addr::LOCALHOST, 8)),
        v6: SmallVec::from_slice(&[(Ipv6Addr::LOCALHOST, 128)]),
    });
    let node = stack.node();
    if node.link().is_some() {
        let running = if node.is_up() {
            IFF_RUNNING | IFF_LOWER_UP
        } else {
            0
        };
        let config = node.config();
        all.push(Interface {
            index: 2,
            name: "eth0",
            flags: IFF_UP | IFF_BROADCAST | IFF_MULTICAST | running,
            mtu: node.mtu(),
            hardware: ETHER,
            mac: node.mac(),
            v4: config.v4.map(|n| (n.address(), n.prefix_len())),
            v6: config
                .v6
                .iter()
                .map(|n| (n.address(), n.prefix_len()))
                .collect(),
        });
    }
    all
}
