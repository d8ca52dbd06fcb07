//! Answers of a netlink socket under construction.

use super::{AF_INET, AF_INET6, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWNEIGH, RTM_NEWROUTE, Request};
use crate::error::Result;
use crate::interfaces::Interface;
use crate::stack::{NetStack, Route};
use alloc::vec::Vec;
use core::net::IpAddr;

const NLM_F_MULTI: u16 = 2;

/// Messages of an answer under construction.
pub(super) struct Reply {
    request: Request,
    /// Flags of its messages: that more follow, unless it answers about one thing.
    pub(super) flags: u16,
    pub(super) bytes: Vec<u8>,
}

impl Reply {
    pub(super) fn new(request: Request) -> Reply {
        Reply {
            request,
            flags: NLM_F_MULTI,
            bytes: Vec::new(),
        }
    }

    /// Room for one more message of a usual size, where there may be thousands.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn room(&mut self) -> Result<()> {
        const USUAL: usize = 256;
        self.bytes.try_reserve(USUAL)?;
        Ok(())
    }

    pub(super) fn put(&mut self, b: &[u8]) {
        self.bytes.extend_from_slice(b);
    }

    /// One message; its length is filled in when `f` has written its body.
    pub(super) fn message(&mut self, kind: u16, f: impl FnOnce(&mut Reply)) {
        let start = self.bytes.len();
        let (flags, r) = (self.flags, self.request);
        self.put(&[0; 4]);
        self.put(&kind.to_ne_bytes());
        self.put(&flags.to_ne_bytes());
        self.put(&r.sequence.to_ne_bytes());
        self.put(&r.port.to_ne_bytes());
        f(self);
        let len = u32::try_from(self.bytes.len() - start).unwrap_or(0);
        let head = self.bytes.iter_mut().skip(start);
        for (to, from) in head.zip(len.to_ne_bytes()) {
            *to = from;
        }
        self.pad();
    }

    fn pad(&mut self) {
        let len = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(len, 0);
    }

    /// One attribute (`struct rtattr`).
    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(4 + value.len()).unwrap_or(4);
        self.put(&len.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.pad();
    }

    /// `struct ifinfomsg` and its attributes.
    pub(super) fn link(&mut self, i: &Interface) {
        self.message(RTM_NEWLINK, |b| {
            b.put(&[0, 0]);
            b.put(&i.hardware.to_ne_bytes());
            b.put(&i.index.to_ne_bytes());
            b.put(&i.flags.to_ne_bytes());
            b.put(&[0; 4]);
            let mut name: Vec<u8> = i.name.into();
            name.push(0);
            b.attribute(3, &name); // IFLA_IFNAME
            b.attribute(1, &i.mac); // IFLA_ADDRESS
            let broadcast = if i.index == 1 { [0; 6] } else { [0xff; 6] };
            b.attribute(2, &broadcast); // IFLA_BROADCAST
            let mtu = u32::try_from(i.mtu).unwrap_or(u32::MAX);
            b.attribute(4, &mtu.to_ne_bytes()); // IFLA_MTU
            b.attribute(13, &1000u32.to_ne_bytes()); // IFLA_TXQLEN
            // Linux does not know of loopback.
            let state = match i.flags & 0x40 {
                _ if i.index == 1 => 0,
                0 => 2,
                _ => 6,
            };
            b.attribute(16, &[state]); // IFLA_OPERSTATE
        });
    }

    /// A `struct ifaddrmsg` with its attributes for each address.
    pub(super) fn addresses(&mut self, i: &Interface) {
        let family = self.request.family;
        if let Some((ip, prefix)) = i.v4.filter(|_| family != AF_INET6) {
            self.message(RTM_NEWADDR, |b| {
                let scope = if i.index == 1 { 254 } else { 0 };
                b.put(&[AF_INET, prefix, 0x80, scope]);
                b.put(&i.index.to_ne_bytes());
                b.attribute(1, &ip.octets()); // IFA_ADDRESS
                b.attribute(2, &ip.octets()); // IFA_LOCAL
                let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                if i.index != 1 {
                    let broadcast = u32::from(ip) | host;
                    b.attribute(4, &broadcast.to_be_bytes()); // IFA_BROADCAST
                }
                let mut label: Vec<u8> = i.name.into();
                label.push(0);
                b.attribute(3, &label); // IFA_LABEL
            });
        }
        for (ip, prefix) in i.v6.iter().filter(|_| family != AF_INET) {
            self.message(RTM_NEWADDR, |b| {
                let scope = if ip.is_loopback() {
                    254
                } else if ip.is_unicast_link_local() {
                    253
                } else {
                    0
                };
                b.put(&[AF_INET6, *prefix, 0x80, scope]);
                b.put(&i.index.to_ne_bytes());
                b.attribute(1, &ip.octets());
            });
        }
    }

    /// A `struct rtmsg` with its attributes for each route.
    pub(super) fn routes(&mut self, stack: &NetStack) {
        let config = stack.node().config();
        if self.request.family != AF_INET6 {
            if let Some(net) = config.v4 {
                let network = IpAddr::V4(net.network().address());
                self.route(network, net.prefix_len(), None, Some(net.address().into()));
            }
            if let Some(gateway) = config.gateway {
                let any = IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);
                self.route(any, 0, Some(gateway.into()), None);
            }
        }
        if self.request.family != AF_INET {
            for net in &config.v6 {
                let bits = u128::MAX
                    .checked_shl(128 - u32::from(net.prefix_len()))
                    .unwrap_or(0);
                let network = core::net::Ipv6Addr::from(u128::from(net.address()) & bits);
                self.route(network.into(), net.prefix_len(), None, None);
            }
            if let Some(gateway) = config.gateway6 {
                let any = IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED);
                self.route(any, 0, Some(gateway.into()), None);
            }
        }
    }

    fn route(&mut self, to: IpAddr, prefix: u8, via: Option<IpAddr>, source: Option<IpAddr>) {
        self.message(RTM_NEWROUTE, |b| {
            let family = if to.is_ipv4() { AF_INET } else { AF_INET6 };
            let scope = if via.is_some() { 0 } else { 253 };
            // Main table, made by the kernel, an ordinary route.
            b.put(&[family, prefix, 0, 0, 254, 2, scope, 1]);
            b.put(&[0; 4]);
            b.attribute(15, &254u32.to_ne_bytes()); // RTA_TABLE
            if prefix > 0 {
                b.attribute(1, &bytes(to)); // RTA_DST
            }
            if let Some(via) = via {
                b.attribute(5, &bytes(via)); // RTA_GATEWAY
            }
            if let Some(source) = source {
                b.attribute(7, &bytes(source)); // RTA_PREFSRC
            }
            b.attribute(4, &2u32.to_ne_bytes()); // RTA_OIF
        });
    }

    /// The route that a packet to `to` takes, as `ip route get` shows it.
    pub(super) fn route_to(&mut self, to: IpAddr, found: Route, via: Option<IpAddr>) {
        let (Route::Local { source } | Route::Wire { source }) = found;
        let local = matches!(found, Route::Local { .. });
        self.message(RTM_NEWROUTE, |b| {
            let (family, bits) = if to.is_ipv4() {
                (AF_INET, 32)
            } else {
                (AF_INET6, 128)
            };
            let (table, kind, link) = if local { (255, 2, 1u32) } else { (254, 1, 2) };
            // Made for this question (RTM_F_CLONED).
            b.put(&[family, bits, 0, 0, table, 0, 0, kind]);
            b.put(&0x200u32.to_ne_bytes());
            b.attribute(15, &u32::from(table).to_ne_bytes()); // RTA_TABLE
            b.attribute(1, &bytes(to)); // RTA_DST
            b.attribute(4, &link.to_ne_bytes()); // RTA_OIF
            b.attribute(7, &bytes(source)); // RTA_PREFSRC
            if let Some(via) = via {
                b.attribute(5, &bytes(via)); // RTA_GATEWAY
            }
        });
    }

    /// A `struct ndmsg` with its attributes.
    pub(super) fn neighbour(&mut self, ip: IpAddr, mac: [u8; 6]) {
        self.message(RTM_NEWNEIGH, |b| {
            b.put(&[if ip.is_ipv4() { AF_INET } else { AF_INET6 }, 0, 0, 0]);
            b.put(&2u32.to_ne_bytes());
            // Reachable; an ordinary route.
            b.put(&[2, 0, 0, 1]);
            b.attribute(1, &bytes(ip)); // NDA_DST
            b.attribute(2, &mac); // NDA_LLADDR
        });
    }
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}
