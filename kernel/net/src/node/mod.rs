//! What all capsules of a machine share: the links, the addresses, the routes,
//! and the table of published ports.
//!
//! A frame comes in through [`NetNode::receive`], on a driver's thread. TCP and
//! UDP go straight to the connection or socket that a hash table names; the rest
//! (ARP, ICMP, neighbour discovery, DHCP) goes to one smoltcp interface, the
//! [`control`] interface. Packets leave through [`NetNode::transmit`], which
//! finds the next hop and its hardware address.

mod config;
mod control;
mod fragments;
mod groups;
mod input;
mod link;
mod links;
mod neighbours;
mod output;
mod published;
mod reset;
mod vlan;

pub use config::{NetConfig, StaticConfig};
#[cfg(test)]
pub(crate) use link::Nowhere;
pub use link::{Checked, Link, LinkCounters, LinkStatus, NetEvent, Upper};
pub use links::Port;
pub use published::{Protocol, Published};

use crate::fragments::{Fragments, Identifications};
use crate::keyhash::{self, KeyedMap, KeyedState};
use crate::packet::PacketTable;
use crate::raw::RawTable;
use crate::stack::{NetStack, StackConfig};
use crate::udp::UdpCore;
use crate::wire::{Engines, Flows, Timers};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use machine::sync::{Once, SpinLock};
use machine::timer::Timer;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// The network of one machine.
pub struct NetNode {
    links: links::Links,
    config: SpinLock<NetConfig>,
    pub(crate) flows: Flows,
    pub(crate) timers: Timers,
    /// A secret for choosing among sockets that share a port.
    pub(crate) hash: KeyedState,
    published: published::Table,
    /// Node ports lent to datagram sockets that send to the wire.
    udp: SpinLock<KeyedMap<u16, Weak<UdpCore>>>,
    neighbours: neighbours::Neighbours,
    groups: groups::Groups,
    /// Packets that came in part.
    fragments: Fragments,
    identifications: Identifications,
    raw: RawTable,
    packets: PacketTable,
    control: SpinLock<Option<control::Control>>,
    control_timer: Once<Timer>,
    neighbour_timer: Once<Timer>,
    fragment_timer: Once<Timer>,
    observer: Once<Box<dyn Fn(NetEvent) + Send + Sync>>,
    resets: reset::Limit,
    /// Room on the link that segments will take which are being written, or held to be joined.
    pub(crate) promised: AtomicUsize,
    is_up: AtomicBool,
    /// The links are not to be used yet.
    is_held: AtomicBool,
    /// Number of the VLAN of all links; 0: frames have no tag.
    vlan: Arc<AtomicU16>,
    next_stack: AtomicU64,
}

impl NetNode {
    /// A machine without a link.
    #[must_use]
    #[inline(never)]
    pub fn new() -> Arc<NetNode> {
        Arc::new_cyclic(|weak: &Weak<NetNode>| NetNode {
            links: links::Links::new(),
            config: SpinLock::new(NetConfig::default()),
            flows: Flows::new(),
            timers: Timers::new(weak.clone()),
            hash: KeyedState::random(),
            published: published::Table::new(),
            udp: SpinLock::new(keyhash::map()),
            neighbours: neighbours::Neighbours::new(),
            groups: groups::Groups::new(),
            fragments: Fragments::new(),
            identifications: Identifications::new(),
            raw: RawTable::default(),
            packets: PacketTable::default(),
            control: SpinLock::new(None),
            control_timer: Once::new(),
            neighbour_timer: Once::new(),
            fragment_timer: Once::new(),
            observer: Once::new(),
            resets: reset::Limit::default(),
            promised: AtomicUsize::new(0),
            is_up: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            vlan: Arc::default(),
            next_stack: AtomicU64::new(1),
        })
    }

    /// Keeps all links silent until [`NetNode::release`]: it is not known yet how they
    /// are to be used.
    pub fn hold(&self) {
        self.is_held.store(true, Ordering::Release);
    }

    /// Uses the links from now on: in the VLAN of this number, or untagged.
    pub fn release(self: &Arc<Self>, vlan: Option<u16>) {
        self.vlan.store(vlan.unwrap_or(0), Ordering::Release);
        self.is_held.store(false, Ordering::Release);
        self.link_changed();
    }

    /// Whether the links are not to be used yet.
    fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Acquire)
    }

    /// The timers that packets of a link need.
    fn start_timers(self: &Arc<Self>) {
        let weak = Arc::downgrade(self);
        self.control_timer.call_once(|| {
            Timer::new(move || {
                if let Some(node) = weak.upgrade() {
                    node.control_poll();
                }
            })
        });
        let weak = Arc::downgrade(self);
        self.neighbour_timer.call_once(|| {
            Timer::new(move || {
                if let Some(node) = weak.upgrade() {
                    node.neighbour_poll();
                }
            })
        });
        let weak = Arc::downgrade(self);
        self.fragment_timer.call_once(|| {
            Timer::new(move || {
                if let Some(node) = weak.upgrade() {
                    node.fragments_poll();
                }
            })
        });
    }

    /// The link in use, if there is one.
    #[inline]
    pub(crate) fn link(&self) -> Option<&Arc<dyn Link>> {
        self.links.active().map(|a| &a.link)
    }

    /// The links there are, by name.
    #[must_use]
    pub fn links(&self) -> Vec<(String, Arc<dyn Link>)> {
        self.links.all()
    }

    pub(crate) fn engines(&self) -> Option<&Engines> {
        self.links.active().map(|a| &a.engines)
    }

    /// Bytes of an IP packet that the link carries.
    #[must_use]
    pub fn mtu(&self) -> usize {
        self.link().map_or(1500, |l| l.mtu())
    }

    /// The hardware address, zeros without a link.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.link().map_or([0; 6], |l| l.mac())
    }

    /// Whether the link is up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Tells `observer` of changes of link and addresses; the first call counts.
    pub fn observe(&self, observer: impl Fn(NetEvent) + Send + Sync + 'static) {
        self.observer.call_once(|| Box::new(observer));
    }

    pub(crate) fn tell(&self, event: NetEvent) {
        if let Some(o) = self.observer.get() {
            o(event);
        }
    }

    /// A network for one capsule.
    ///
    /// # Errors
    /// [`crate::Error::AddressInUse`] if a port it publishes is published already.
    pub fn new_stack(self: &Arc<Self>, config: StackConfig) -> crate::Result<Arc<NetStack>> {
        let id = self.next_stack.fetch_add(1, Ordering::Relaxed);
        let stack = NetStack::new(self.clone(), id, config);
        self.published.publish(&stack)?;
        Ok(stack)
    }

    /// A copy of addresses and routes.
    #[must_use]
    pub fn config(&self) -> NetConfig {
        self.config.lock().clone()
    }

    pub(crate) fn with_config<R>(&self, f: impl FnOnce(&NetConfig) -> R) -> R {
        f(&self.config.lock())
    }

    /// Whether `ip` is one of the machine's addresses beyond loopback.
    #[must_use]
    pub fn is_local(&self, ip: IpAddr) -> bool {
        self.with_config(|c| c.owns(ip))
    }

    /// The machine's first IPv4 address, if it has one.
    #[must_use]
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.with_config(|c| c.v4.map(|n| n.address()))
    }

    pub(crate) fn for_each_neighbour(&self, f: impl FnMut(IpAddr, [u8; 6])) {
        self.neighbours.for_each(f);
    }

    /// The capsule that publishes a node port, and the port it has there.
    pub(crate) fn published(&self, protocol: Protocol, port: u16) -> Option<(Arc<NetStack>, u16)> {
        self.published.find(protocol, port)
    }

    /// The node port under which `stack` publishes its own `port`.
    pub(crate) fn published_as(
        &self,
        stack: &NetStack,
        protocol: Protocol,
        port: u16,
    ) -> Option<u16> {
        let list = stack.published();
        list.iter()
            .find(|p| p.protocol == protocol && p.capsule == port)
            .map(|p| p.node)
    }

    pub(crate) fn unpublish(&self, stack: &NetStack) {
        self.published.withdraw(stack);
    }

    pub(crate) fn packets(&self) -> &PacketTable {
        &self.packets
    }

    pub(crate) fn raw(&self) -> &RawTable {
        &self.raw
    }

    pub(crate) fn udp_ports(&self) -> &SpinLock<KeyedMap<u16, Weak<UdpCore>>> {
        &self.udp
    }
}
