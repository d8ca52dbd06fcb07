//! Raw sockets (raw(7)) and the sockets that `ping` has without rights (icmp(7)).
//!
//! A raw socket gets a copy of every packet of its protocol that comes to this
//! machine, whichever capsule it is for: only a manifest's `raw_network` gives one. A
//! ping socket sends echo requests under an identifier that is its own, as datagram
//! sockets have ports, and gets the replies to them.

mod bytes;

use crate::checksum;
use crate::error::{Error, Result};
use crate::groups::{LINK, LOOPBACK, Memberships};
use crate::message::{Message, MessageQueue, Origin};
use crate::node::{ETHERNET_HEADER, NetNode};
use crate::options::{Options, Switch};
use crate::stack::{NetStack, Route};
use crate::udp::{Header, set_class};
use crate::watchers::Watchers;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
pub(crate) use bytes::echo_reply;
use bytes::{finish_packet, zeroed};
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering::{AcqRel, Relaxed};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU16};
use machine::sync::SpinLock;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet};
use vfs::{Events, PollHub};

/// `IPPROTO_ICMP`.
pub const ICMP: u8 = 1;
/// `IPPROTO_ICMPV6`.
pub const ICMPV6: u8 = 58;
/// `IPPROTO_RAW`: sends packets with their header, and gets none.
pub const ANY: u8 = 255;
/// Bytes of an IPv4 header without options.
const V4_HEADER: usize = 20;
/// Longest packet: what the length in its header can say.
pub(crate) const PACKET_MAX: usize = 65_535;

/// Kinds of ICMP messages that a socket does not want, a bit each; IPv4 knows 32.
pub type Unwanted = [u32; 8];

/// What the input path needs of a raw or ping socket.
pub struct RawCore {
    queue: MessageQueue,
    hub: Arc<PollHub>,
    stack: Weak<NetStack>,
    v6: bool,
    protocol: u8,
    is_ping: bool,
    /// Identifier of a ping socket's requests, 0 for none yet.
    id: AtomicU16,
    /// The only address of ours it takes from, and sends from.
    local: SpinLock<Option<IpAddr>>,
    /// The only sender it takes from.
    remote: SpinLock<Option<IpAddr>>,
    unwanted: SpinLock<Unwanted>,
    error: AtomicU16,
    shut_read: AtomicBool,
    options: Arc<Options>,
    groups: Memberships,
}

/// The state of one raw or ping socket.
pub struct Raw {
    core: Arc<RawCore>,
    /// Where in a packet of IPv6 the kernel writes a checksum (`IPV6_CHECKSUM`);
    /// negative for nowhere.
    checksum_at: AtomicI32,
    shut_write: AtomicBool,
}

/// The raw and ping sockets of a machine.
pub(crate) type RawTable = Watchers<RawCore>;

/// A packet on its way to raw sockets.
#[derive(Clone, Copy)]
pub(crate) struct Arrived<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) ttl: u8,
    pub(crate) tos: u8,
    /// The packet as IPv4 sockets get it: with its header.
    pub(crate) whole: &'a [u8],
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

impl RawTable {
    /// Gives a packet to all sockets that want it: those of the capsule `only`, if it
    /// never was on the link.
    pub(crate) fn deliver(&self, packet: &Arrived<'_>, only: Option<u64>) {
        for core in self.matching(|core| core.wants(packet, only)) {
            core.take(packet);
        }
    }

    /// Gives a ping socket its identifier: this one, or one that nobody has.
    fn identify(&self, core: &RawCore, wanted: u16) -> Result<u16> {
        self.with_all(|list| {
            let taken = |id: u16| {
                let others = list.iter().filter_map(Weak::upgrade);
                others
                    .filter(|o| o.is_ping && o.v6 == core.v6 && !core::ptr::eq(&**o, core))
                    .any(|o| o.id.load(Relaxed) == id)
            };
            let id = match wanted {
                0 => {
                    let start = machine::random::next_u64() as u16;
                    let all = (0..=u16::MAX).map(|i| start.wrapping_add(i));
                    all.filter(|id| *id != 0).find(|id| !taken(*id))
                }
                id => Some(id).filter(|id| !taken(*id)),
            };
            let id = id.ok_or(Error::AddressInUse)?;
            core.id.store(id, Relaxed);
            Ok(id)
        })
    }
}

impl RawCore {
    fn wants(&self, p: &Arrived<'_>, only: Option<u64>) -> bool {
        let fits = self.v6 == p.to.is_ipv6()
            && self.protocol == p.protocol
            && self.local.lock().is_none_or(|local| local == p.to)
            && self.remote.lock().is_none_or(|remote| remote == p.from)
            && !self.shut_read.load(Relaxed);
        if !fits {
            return false;
        }
        let Some(stack) = self.stack.upgrade() else {
            return false;
        };
        if only.is_some_and(|id| id != stack.id()) {
            return false;
        }
        let kind = p.payload.first().copied().unwrap_or(0);
        if self.is_ping {
            let reply = if self.v6 { 129 } else { 0 };
            let id = self.id.load(Relaxed).to_be_bytes();
            return kind == reply && p.payload.get(4..6) == Some(&id);
        }
        if p.to.is_multicast() && !self.takes_group(&stack, p, only.is_some()) {
            return false;
        }
        !(matches!(p.protocol, ICMP | ICMPV6) && self.is_unwanted(kind))
    }

    fn takes_group(&self, stack: &NetStack, p: &Arrived<'_>, loopback: bool) -> bool {
        let link = if loopback { LOOPBACK } else { LINK };
        let mut is_member = false;
        stack.for_each_group(|group, on, _| is_member |= (group, on) == (p.to, link));
        let all = self.options.on(Switch::MulticastAll);
        is_member && self.groups.take(p.to, link, p.from, all)
    }

    fn is_unwanted(&self, kind: u8) -> bool {
        let unwanted = self.unwanted.lock();
        // IPv4 has a word, and what it does not name is wanted.
        if !self.v6 && kind >= 32 {
            return false;
        }
        let word = unwanted.get(usize::from(kind / 32)).copied().unwrap_or(0);
        word >> (kind % 32) & 1 != 0
    }

    fn take(&self, p: &Arrived<'_>) {
        let bytes = match self.v6 || self.is_ping {
            true => p.payload,
            false => p.whole,
        };
        let mut data = Vec::new();
        if data.try_reserve_exact(bytes.len()).is_err() {
            return;
        }
        data.extend_from_slice(bytes);
        let origin = Origin::Inet {
            from: SocketAddr::new(p.from, 0),
            to: p.to,
            ttl: p.ttl,
            tos: p.tos,
        };
        let message = Message {
            data,
            origin,
            time: self.options.arrival(),
            note: None,
        };
        if self.queue.push(message).is_ok() {
            self.hub.notify_one(Events::READABLE);
        }
    }
}

impl Raw {
    /// A socket for one protocol; with `is_ping`, for echo requests only.
    ///
    /// # Errors
    /// No memory.
    pub fn new(
        (v6, protocol, is_ping): (bool, u8, bool),
        stack: &Arc<NetStack>,
        hub: &Arc<PollHub>,
        options: &Arc<Options>,
    ) -> Result<Raw> {
        options.switch(Switch::HeaderIncluded, protocol == ANY && !v6);
        let core = Arc::new(RawCore {
            queue: stack.queue(options.rcvbuf()),
            hub: hub.clone(),
            stack: Arc::downgrade(stack),
            v6,
            protocol,
            is_ping,
            id: AtomicU16::new(0),
            local: SpinLock::new(None),
            remote: SpinLock::new(None),
            unwanted: SpinLock::new([0; 8]),
            error: AtomicU16::new(0),
            shut_read: AtomicBool::new(false),
            options: options.clone(),
            groups: Memberships::default(),
        });
        stack.node().raw().add(&core)?;
        let own_checksum = v6 && protocol == ICMPV6;
        Ok(Raw {
            core,
            checksum_at: AtomicI32::new(if own_checksum { 2 } else { -1 }),
            shut_write: AtomicBool::new(false),
        })
    }

    /// Whether it is a ping socket.
    #[must_use]
    pub fn is_ping(&self) -> bool {
        self.core.is_ping
    }

    /// Our address, with the protocol or a ping socket's identifier for a port.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        let ip = *self.core.local.lock();
        let number = match self.core.is_ping {
            true => self.core.id.load(Relaxed),
            false => u16::from(self.core.protocol),
        };
        SocketAddr::new(ip.unwrap_or(crate::addr::any(self.core.v6)), number)
    }

    /// Where it is connected to.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn remote(&self) -> Result<SocketAddr> {
        let remote = *self.core.remote.lock();
        remote
            .map(|ip| SocketAddr::new(ip, 0))
            .ok_or(Error::NotConnected)
    }

    /// Takes packets to one address only, and sends from it.
    ///
    /// # Errors
    /// [`Error::AddressNotAvailable`], [`Error::AddressInUse`] for an identifier.
    pub fn bind(&self, stack: &NetStack, options: &Options, addr: SocketAddr) -> Result<()> {
        let ip = match addr.ip() {
            group if group.is_multicast() && group.is_ipv6() == self.core.v6 => Some(group),
            ip => stack.check_bind(self.core.v6, ip, options)?,
        };
        if self.core.is_ping {
            if self.core.id.load(Relaxed) != 0 {
                return Err(Error::INVALID);
            }
            stack.node().raw().identify(&self.core, addr.port())?;
        }
        *self.core.local.lock() = ip;
        Ok(())
    }

    /// Sets the only peer; `None` takes it back.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`], [`Error::NoFamily`].
    pub fn connect(
        &self,
        stack: &NetStack,
        options: &Options,
        to: Option<SocketAddr>,
    ) -> Result<()> {
        let to = match to {
            Some(to) => Some(stack.check_target(self.core.v6, options, to)?.ip()),
            None => None,
        };
        if let Some(to) = to {
            let (Route::Local { source } | Route::Wire { source }) = stack.route(to)?;
            self.core.local.lock().get_or_insert(source);
        }
        *self.core.remote.lock() = to;
        Ok(())
    }

    /// Sends one packet. It never waits: what finds no room is lost.
    ///
    /// # Errors
    /// [`Error::DestinationRequired`], [`Error::MessageSize`], [`Error::INVALID`] for
    /// what a ping socket cannot send, [`Error::NetworkUnreachable`].
    pub fn send(
        &self,
        stack: &Arc<NetStack>,
        options: &Options,
        to: Option<SocketAddr>,
        header: Header,
        mut data: Vec<u8>,
    ) -> Result<usize> {
        if self.shut_write.load(Relaxed) {
            return Err(Error::BROKEN_PIPE);
        }
        let to = match to {
            Some(to) => stack.check_target(self.core.v6, options, to)?.ip(),
            None => {
                let remote = *self.core.remote.lock();
                remote.ok_or(Error::DestinationRequired)?
            }
        };
        if to.is_ipv6() != self.core.v6 {
            return Err(Error::INVALID);
        }
        let len = data.len();
        if self.core.is_ping {
            self.make_request(stack, &mut data)?;
        }
        let route = stack.route(to)?;
        let (Route::Local { source } | Route::Wire { source }) = route;
        let local = *self.core.local.lock();
        let source = local.filter(|ip| !ip.is_multicast()).unwrap_or(source);
        if let (IpAddr::V4(ip), Route::Wire { .. }) = (to, route)
            && stack.node().with_config(|c| c.is_broadcast(ip))
            && !options.on(Switch::Broadcast)
        {
            return Err(Error::ACCESS);
        }
        let has_header = options.on(Switch::HeaderIncluded);
        let mut frame = match has_header {
            true => finish_packet(source, &data)?,
            false => self.packet(options, (source, to), header, &data)?,
        };
        match route {
            Route::Local { .. } => local_input(stack, &frame),
            Route::Wire { .. } if frame.len() - ETHERNET_HEADER > stack.node().mtu() => {
                // What came with a header is the program's, and leaves as it is or not at all.
                if has_header || !options.discovery(self.core.v6).cuts() {
                    return Err(Error::MessageSize);
                }
                let (_, packet) = frame.split_at(ETHERNET_HEADER);
                stack.node().transmit_cut(source, to, packet)?;
            }
            Route::Wire { .. } => {
                stack.node().transmit(to, &mut frame);
                stack.node().flush();
            }
        }
        Ok(len)
    }

    /// Makes an echo request of what a program gave: its identifier and checksum are
    /// not the program's.
    fn make_request(&self, stack: &NetStack, data: &mut [u8]) -> Result<()> {
        let request = if self.core.v6 { 128 } else { 8 };
        let [kind, code, _, _, id_high, id_low, _, _, ..] = data else {
            return Err(Error::INVALID);
        };
        if (*kind, *code) != (request, 0) {
            return Err(Error::INVALID);
        }
        let id = match self.core.id.load(Relaxed) {
            0 => stack.node().raw().identify(&self.core, 0)?,
            id => id,
        };
        [*id_high, *id_low] = id.to_be_bytes();
        if !self.core.v6 {
            checksum::put(data, 2, 0);
        }
        Ok(())
    }

    /// A frame with room for the Ethernet header, the IP header and `data`.
    fn packet(
        &self,
        options: &Options,
        (source, to): (IpAddr, IpAddr),
        header: Header,
        data: &[u8],
    ) -> Result<Vec<u8>> {
        let protocol = IpProtocol::from(self.core.protocol);
        let (src, dst) = (IpAddress::from(source), IpAddress::from(to));
        let ip = IpRepr::new(src, dst, protocol, data.len(), header.hops(options, to));
        // The length in a header of IPv6 does not count that header.
        let counted = match to {
            IpAddr::V4(_) => ip.buffer_len(),
            IpAddr::V6(_) => data.len(),
        };
        if counted > PACKET_MAX {
            return Err(Error::MessageSize);
        }
        let mut frame = zeroed(ETHERNET_HEADER + ip.buffer_len())?;
        let (_, packet) = frame.split_at_mut(ETHERNET_HEADER);
        ip.emit(&mut *packet, &ChecksumCapabilities::default());
        set_class(packet, to, header.class(options));
        let (_, payload) = packet.split_at_mut(ip.header_len());
        payload.copy_from_slice(data);
        if let (IpAddr::V6(_), Ok(at)) = (to, usize::try_from(self.checksum_at.load(Relaxed))) {
            if payload.len() < at + 2 {
                return Err(Error::INVALID);
            }
            let seed = checksum::pseudo_header(source, to, self.core.protocol, payload.len());
            checksum::put(payload, at, seed);
        }
        Ok(frame)
    }

    /// Takes the next packet without waiting; `None` after `SHUT_RD`.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`].
    pub fn receive(&self, peek: bool) -> Result<Option<Message>> {
        if self.core.queue.is_empty() && self.core.shut_read.load(Relaxed) {
            return Ok(None);
        }
        if peek {
            return self.core.queue.peek().map(Some);
        }
        self.core.queue.pop().map(Some).ok_or(Error::WOULD_BLOCK)
    }

    /// The queue of what came in.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        &self.core.queue
    }

    /// The groups it has joined.
    pub(crate) fn groups(&self) -> &Memberships {
        &self.core.groups
    }

    /// Sets the kinds of ICMP messages that it does not want.
    pub fn set_unwanted(&self, unwanted: Unwanted) {
        *self.core.unwanted.lock() = unwanted;
    }

    /// The kinds of ICMP messages that it does not want.
    #[must_use]
    pub fn unwanted(&self) -> Unwanted {
        *self.core.unwanted.lock()
    }

    /// Where the kernel writes a checksum (`IPV6_CHECKSUM`).
    #[must_use]
    pub fn checksum_at(&self) -> &AtomicI32 {
        &self.checksum_at
    }

    /// The protocol.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.core.protocol
    }

    /// Takes the pending error (`SO_ERROR`).
    #[must_use]
    pub fn take_error(&self) -> u16 {
        self.core.error.swap(0, AcqRel)
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        self.remote()?;
        self.core.shut_read.fetch_or(read, Relaxed);
        self.shut_write.fetch_or(write, Relaxed);
        self.core.hub.notify(Events::READABLE | Events::WRITABLE);
        Ok(())
    }

    /// Readiness.
    #[must_use]
    pub fn poll(&self) -> Events {
        let mut e = Events::WRITABLE;
        if !self.core.queue.is_empty() || self.core.shut_read.load(Relaxed) {
            e |= Events::READABLE;
        }
        e
    }

    /// Gets nothing any more.
    pub(crate) fn close(&self, stack: &NetStack) {
        self.core.groups.clear(stack);
        stack.node().raw().remove(&self.core);
        self.core.queue.clear();
    }
}

/// A packet that a raw socket sent to this machine: the capsule's own raw sockets get
/// it, and an echo request is answered.
fn local_input(stack: &NetStack, frame: &[u8]) {
    let Some(packet) = frame.get(ETHERNET_HEADER..) else {
        return;
    };
    let Some(arrived) = Arrived::parse(packet) else {
        return;
    };
    let raw = stack.node().raw();
    raw.deliver(&arrived, Some(stack.id()));
    if let Some(reply) = echo_reply(&arrived)
        && let Some(arrived) = Arrived::parse(&reply)
    {
        raw.deliver(&arrived, Some(stack.id()));
    }
}

impl<'a> Arrived<'a> {
    /// Reads an IP packet, whose headers were written here or checked.
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Arrived<'a>> {
        use smoltcp::wire::{IpVersion, Ipv6Packet};
        match IpVersion::of_packet(packet).ok()? {
            IpVersion::Ipv4 => {
                let p = Ipv4Packet::new_checked(packet).ok()?;
                Some(Arrived {
                    from: p.src_addr().into(),
                    to: p.dst_addr().into(),
                    protocol: p.next_header().into(),
                    ttl: p.hop_limit(),
                    tos: p.dscp() << 2 | p.ecn(),
                    whole: packet.get(..usize::from(p.total_len()))?,
                    payload: p.payload(),
                })
            }
            IpVersion::Ipv6 => {
                let p = Ipv6Packet::new_checked(packet).ok()?;
                Some(Arrived {
                    from: p.src_addr().into(),
                    to: p.dst_addr().into(),
                    protocol: p.next_header().into(),
                    ttl: p.hop_limit(),
                    tos: p.traffic_class(),
                    whole: packet,
                    payload: p.payload(),
                })
            }
        }
    }
}

impl NetNode {
    /// Shows raw sockets a packet that came in for this machine.
    #[inline]
    pub(crate) fn show_raw(&self, packet: &[u8]) {
        if self.raw().is_used()
            && let Some(arrived) = Arrived::parse(packet)
        {
            self.raw().deliver(&arrived, None);
        }
    }
}
