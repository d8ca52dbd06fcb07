//! The control interface: one smoltcp interface for what is neither TCP nor UDP.
//!
//! It answers ARP, neighbour solicitations and pings, runs the DHCPv4 client,
//! SLAAC, IGMP and MLD. What it learns becomes the node's [`NetConfig`].

use super::{Link, NetConfig, NetEvent, NetNode, StaticConfig, groups};
use crate::error::{Error, Result};
use crate::packet::PacketTable;
use crate::wire::clock;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use machine::time::Instant;
use smallvec::SmallVec;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::dhcpv4;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv4Cidr, Ipv6Address,
    Ipv6Cidr,
};

/// How long a leased address stays in use while the server is asked for it anew,
/// because the link went down and up or is another one. On the same network, which is
/// likely, nobody notices; on another one nobody has it by then.
const KEPT: Duration = Duration::from_secs(5);
/// Shortest time between two reports about groups.
const REPORTS_LEAST: Duration = Duration::from_millis(10);

pub(super) struct Control {
    iface: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    /// The server said so, since the link came up.
    is_leased: bool,
    /// Until when an address is kept that the server did not yet confirm.
    kept_until: Option<Instant>,
    scratch: Vec<u8>,
    /// Groups that capsules have joined.
    groups: u32,
    /// While a router waits for reports: until when, and how long after one another
    /// they may come. smoltcp does not tell when it wants to send them.
    reports: Option<(Instant, Duration)>,
}

/// Frames in and out, for one poll.
struct Port<'a> {
    link: &'a dyn Link,
    watchers: &'a PacketTable,
    incoming: Option<&'a [u8]>,
    scratch: &'a mut Vec<u8>,
}

struct Incoming<'a>(&'a [u8]);
struct Outgoing<'a> {
    link: &'a dyn Link,
    watchers: &'a PacketTable,
    scratch: &'a mut Vec<u8>,
}

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.scratch.clear();
        self.scratch.resize(len, 0);
        let r = f(self.scratch);
        self.watchers.show(self.scratch, self.link.mac(), true);
        self.link.transmit(self.scratch);
        r
    }
}

impl Device for Port<'_> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t>
    where
        Self: 't;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let frame = self.incoming.take()?;
        let out = Outgoing {
            link: self.link,
            watchers: self.watchers,
            scratch: self.scratch,
        };
        Some((Incoming(frame), out))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Outgoing<'_>> {
        (self.link.room() > 0).then_some(Outgoing {
            link: self.link,
            watchers: self.watchers,
            scratch: self.scratch,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut c = DeviceCapabilities::default();
        c.medium = Medium::Ethernet;
        c.max_transmission_unit = self.link.mtu() + super::ETHERNET_HEADER;
        c
    }
}

impl Control {
    pub(super) fn new(link: &dyn Link, watchers: &PacketTable) -> Control {
        let mac = link.mac();
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(mac)));
        config.random_seed = machine::random::next_u64();
        config.slaac = true;
        let mut scratch = vec![0; link.mtu() + super::ETHERNET_HEADER];
        let mut port = Port {
            link,
            watchers,
            incoming: None,
            scratch: &mut scratch,
        };
        let mut iface = Interface::new(config, &mut port, clock(Instant::now()));
        iface.update_ip_addrs(|list| {
            // The list has room for eight, and is empty.
            let _ = list.push(IpCidr::new(IpAddress::Ipv6(link_local(mac)), 64));
        });
        Control {
            iface,
            sockets: SocketSet::new(Vec::new()),
            dhcp: None,
            is_leased: false,
            kept_until: None,
            scratch,
            groups: 0,
            reports: None,
        }
    }

    /// Asks for an address, as if for the first time. One that is in use is kept for
    /// a while.
    fn start_dhcp(&mut self, in_use: Option<Ipv4Cidr>) {
        self.is_leased = false;
        self.kept_until = in_use.map(|_| Instant::now().after(KEPT));
        match self.dhcp {
            None => self.dhcp = Some(self.sockets.add(dhcpv4::Socket::new())),
            Some(h) => self.sockets.get_mut::<dhcpv4::Socket<'_>>(h).reset(),
        }
    }

    fn set_v4(&mut self, address: Option<Ipv4Cidr>, gateway: Option<Ipv4Address>) {
        self.iface.update_ip_addrs(|list| {
            list.retain(|c| matches!(c, IpCidr::Ipv6(_)));
            if let Some(a) = address {
                let _ = list.push(IpCidr::Ipv4(a));
            }
        });
        let routes = self.iface.routes_mut();
        routes.remove_default_ipv4_route();
        if let Some(g) = gateway {
            let _ = routes.add_default_ipv4_route(g);
        }
    }

    /// Runs the interface, with `frame` if one came in. What changed is written
    /// to `config`; when to run again.
    fn poll(
        &mut self,
        (link, watchers): (&dyn Link, &PacketTable),
        frame: Option<&[u8]>,
        config: &mut NetConfig,
    ) -> Option<Instant> {
        let now = Instant::now();
        let at = clock(now);
        let mut port = Port {
            link,
            watchers,
            incoming: frame,
            scratch: &mut self.scratch,
        };
        self.iface.poll(at, &mut port, &mut self.sockets);
        self.take_lease(config, now);
        self.take_v6(config);
        if let Some(time) = frame.and_then(groups::time_for_reports) {
            // One for each group, and those that every interface of IPv6 is in.
            let step = time / (2 * (self.groups + 4));
            self.reports = Some((now.after(2 * time), step.max(REPORTS_LEAST)));
        }
        self.reports.take_if(|(until, _)| now >= *until);
        let report = self.reports.map(|(_, step)| now.after(step));
        let due = self.due(now);
        due.into_iter().chain(self.kept_until).chain(report).min()
    }

    /// When the interface wants to run again.
    fn due(&mut self, now: Instant) -> Option<Instant> {
        let at = clock(now);
        let due = self.iface.poll_at(at, &self.sockets)?;
        // What is still due after a poll waits for something that has not come:
        // smoltcp's SLAAC stays due for ever once its solicitations are used up.
        // Nothing in the past may wake the machine again and again.
        if due <= at {
            // While DHCP is at work, it is asked again a second later.
            let asks = self.dhcp.is_some() && !self.is_leased;
            return asks.then(|| now.after(Duration::from_secs(1)));
        }
        Some(now.after(Duration::from_micros((due - at).total_micros())))
    }

    fn take_lease(&mut self, config: &mut NetConfig, now: Instant) {
        let Some(h) = self.dhcp else { return };
        let event = self.sockets.get_mut::<dhcpv4::Socket<'_>>(h).poll();
        let (address, router, dns): (_, _, SmallVec<[IpAddr; 3]>) = match event {
            Some(dhcpv4::Event::Configured(c)) => {
                self.is_leased = true;
                let dns = c.dns_servers.iter().map(|d| IpAddr::V4(*d));
                (Some(c.address), c.router, dns.collect())
            }
            _ if self.kept_until.is_some_and(|until| now < until) => return,
            None if self.kept_until.is_none() => return,
            None | Some(dhcpv4::Event::Deconfigured) => {
                self.is_leased = false;
                (None, None, SmallVec::new())
            }
        };
        self.kept_until = None;
        // smoltcp asserts that an address is unicast; a server can send anything.
        let usable = |a: &Ipv4Address| !(a.is_multicast() || a.is_broadcast() || a.is_loopback());
        let address = address.filter(|c| usable(&c.address()) && !c.address().is_unspecified());
        let router = router.filter(|r| usable(r) && !r.is_unspecified());
        self.set_v4(address, router);
        config.v4 = address;
        config.gateway = router;
        config.dns.retain(|d| d.is_ipv6());
        config.dns.extend(dns);
    }

    fn take_v6(&mut self, config: &mut NetConfig) {
        let v6 = self.iface.ip_addrs().iter().filter_map(|c| match c {
            IpCidr::Ipv6(c) => Some(*c),
            IpCidr::Ipv4(_) => None,
        });
        if !v6.clone().eq(config.v6.iter().copied()) {
            config.v6 = v6.collect();
        }
        let mut gateway = None;
        self.iface.routes_mut().update(|routes| {
            gateway = routes.iter().find_map(|r| match (r.cidr, r.via_router) {
                (IpCidr::Ipv6(c), IpAddress::Ipv6(via)) if c.prefix_len() == 0 => Some(via),
                _ => None,
            });
        });
        config.gateway6 = gateway;
    }
}

/// The link-local address of RFC 4291, appendix A.
fn link_local(mac: [u8; 6]) -> Ipv6Address {
    let id = [
        mac[0] ^ 2,
        mac[1],
        mac[2],
        0xff,
        0xfe,
        mac[3],
        mac[4],
        mac[5],
    ];
    let mut b = [0; 16];
    b[0] = 0xfe;
    b[1] = 0x80;
    b[8..].copy_from_slice(&id);
    Ipv6Address::from(b)
}

impl NetNode {
    /// Asks the network for an IPv4 address, now and whenever the link comes up.
    pub fn configure_dhcp(self: &Arc<Self>) {
        if let Some(c) = &mut *self.control.lock() {
            c.start_dhcp(None);
        }
        self.control_poll();
    }

    /// Takes an address that somebody decided. One that cannot be a host's is
    /// refused with `false`.
    pub fn configure_static(self: &Arc<Self>, to: &StaticConfig) -> bool {
        let ip = to.address;
        let host = !(ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified());
        if !host || ip.is_loopback() || to.prefix > 32 {
            return false;
        }
        let address = Ipv4Cidr::new(ip, to.prefix);
        let mut control = self.control.lock();
        if let Some(c) = &mut *control {
            if let Some(h) = c.dhcp.take() {
                c.sockets.remove(h);
            }
            c.set_v4(Some(address), to.gateway);
        }
        let before = self.config();
        let after = NetConfig {
            v4: Some(address),
            gateway: to.gateway,
            dns: to.dns.clone(),
            ..before.clone()
        };
        *self.config.lock() = after.clone();
        drop(control);
        self.tell_changes(&before, &after);
        self.control_poll();
        true
    }

    /// The link came up: everything known of the network may be wrong.
    pub(super) fn control_restart(self: &Arc<Self>) {
        self.neighbours.clear();
        if let Some(c) = &mut *self.control.lock()
            && c.dhcp.is_some()
        {
            c.start_dhcp(self.with_config(|config| config.v4));
        }
        self.announce();
        self.control_poll();
    }

    /// Another link is in use: a new interface for it, which goes on with the address,
    /// the ways to get one, and the groups.
    pub(super) fn control_rebuild(self: &Arc<Self>) {
        let Some(link) = self.link() else { return };
        let mut fresh = Control::new(&**link, self.packets());
        for group in self.joined_groups() {
            // There was room for all of them before.
            if fresh.iface.join_multicast_group(group).is_ok() {
                fresh.groups += 1;
            }
        }
        let mut control = self.control.lock();
        if let Some(old) = &*control {
            let (v4, gateway) = self.with_config(|c| (c.v4, c.gateway));
            if old.dhcp.is_some() {
                fresh.start_dhcp(v4);
            }
            fresh.set_v4(v4, gateway);
        }
        let old = control.replace(fresh);
        drop(control);
        drop(old);
    }

    /// Begins or ends to listen to a group.
    ///
    /// # Errors
    /// [`Error::NoBuffers`] if there are too many, no device without a link.
    pub(super) fn control_group(&self, group: IpAddr, join: bool) -> Result<()> {
        let mut control = self.control.lock();
        let c = control.as_mut().ok_or(Error::NO_DEVICE)?;
        let done = match join {
            true => c.iface.join_multicast_group(group),
            false => c.iface.leave_multicast_group(group),
        };
        done.map_err(|_| Error::NoBuffers)?;
        c.groups = match join {
            true => c.groups.saturating_add(1),
            false => c.groups.saturating_sub(1),
        };
        Ok(())
    }

    pub(super) fn control_poll(self: &Arc<Self>) {
        self.control_input(None);
    }

    /// Gives a frame to the control interface.
    pub(super) fn control_input(self: &Arc<Self>, frame: Option<&[u8]>) {
        let Some(link) = self.link() else { return };
        // What is known changes under the control interface's lock only: a frame and
        // the timer may be served at the same time, and neither may undo what the
        // other has learnt.
        let mut control = self.control.lock();
        let Some(c) = &mut *control else { return };
        let before = self.config();
        let mut after = before.clone();
        let next = c.poll((&**link, &self.packets), frame, &mut after);
        *self.config.lock() = after.clone();
        if let Some(t) = self.control_timer.get() {
            t.set(next);
        }
        drop(control);
        link.flush();
        self.tell_changes(&before, &after);
    }

    fn tell_changes(&self, before: &NetConfig, after: &NetConfig) {
        let all = |c: &NetConfig| -> Vec<IpAddr> {
            let v4 = c.v4.iter().map(|n| IpAddr::V4(n.address()));
            v4.chain(c.v6.iter().map(|n: &Ipv6Cidr| IpAddr::V6(n.address())))
                .collect()
        };
        let (old, new) = (all(before), all(after));
        for ip in old.iter().filter(|ip| !new.contains(ip)) {
            self.tell(NetEvent::AddressLost(*ip));
        }
        for ip in new.iter().filter(|ip| !old.contains(ip)) {
            self.tell(NetEvent::AddressAcquired(*ip));
        }
    }
}
