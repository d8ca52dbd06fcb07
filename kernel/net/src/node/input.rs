//! Frames in. Everything here is a stranger's: lengths are checked by smoltcp's
//! packet types, and what does not parse is dropped.

use super::{Checked, ETHERNET_HEADER, NetNode, Protocol, vlan};
use crate::checksum;
use crate::groups::ToGroup;
use crate::wire::{Batch, Flow, Segment};
use alloc::sync::Arc;
use core::hash::BuildHasher;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4DstUnreachable,
    Icmpv4Message, Icmpv4Packet, Icmpv6DstUnreachable, Icmpv6Packet, Icmpv6Repr, IpProtocol,
    Ipv4Packet, Ipv6Packet, NdiscRepr, TcpPacket, UdpPacket,
};

/// Client port of DHCP.
const DHCP_CLIENT: u16 = 68;

/// Of a packet that was put together here, no device has seen the whole.
const REASSEMBLED: Checked = Checked {
    header: true,
    transport: false,
};

/// The part of an IP header that matters above it.
#[derive(Clone, Copy)]
struct Header {
    from: IpAddr,
    to: IpAddr,
    ttl: u8,
    tos: u8,
    /// The device found the checksum behind it right.
    is_checked: bool,
}

impl NetNode {
    /// Takes a frame that came in on the link. A driver calls this on a thread of
    /// its own; it does not wait.
    pub fn receive(self: &Arc<Self>, frame: &[u8]) {
        self.receive_as(frame, Checked::default(), None);
    }

    /// `batch` is for connections that may wait with their answers, if there is an end to wait
    /// for.
    pub(super) fn receive_as(
        self: &Arc<Self>,
        frame: &[u8],
        checked: Checked,
        batch: Option<&Batch>,
    ) {
        let Some(link) = self.link() else { return };
        let bare;
        let frame = match self.vlan.load(Ordering::Relaxed) {
            _ if self.is_held() => return,
            0 => frame,
            number => {
                let Some(found) = vlan::untagged(frame, number) else {
                    return;
                };
                bare = found;
                &bare
            }
        };
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return;
        };
        let to = ethernet.dst_addr();
        self.packets().show(frame, link.mac(), false);
        if to.0 != link.mac() && !to.is_broadcast() && !to.is_multicast() {
            return;
        }
        // What we send ourselves comes back on some links.
        if ethernet.src_addr().0 == link.mac() || !ethernet.src_addr().is_unicast() {
            return;
        }
        match ethernet.ethertype() {
            EthernetProtocol::Arp => self.arp(frame, ethernet.payload()),
            EthernetProtocol::Ipv4 => self.ipv4_input(frame, checked, batch),
            EthernetProtocol::Ipv6 => self.ipv6_input(frame, ethernet.src_addr().0, checked, batch),
            EthernetProtocol::Unknown(_) => {}
        }
    }

    fn arp(self: &Arc<Self>, frame: &[u8], packet: &[u8]) {
        let Ok(packet) = ArpPacket::new_checked(packet) else {
            return;
        };
        let Ok(ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        }) = ArpRepr::parse(&packet)
        else {
            return;
        };
        let from = IpAddr::V4(source_protocol_addr);
        let for_us = self.is_local(target_protocol_addr.into());
        let near = self.with_config(|c| c.next_hop(from)) == Some(from);
        let usable = source_hardware_addr.is_unicast() && near && !self.is_local(from);
        if usable && (for_us || self.neighbours.knows(from)) {
            self.neighbour_heard(from, source_hardware_addr.0, for_us);
        }
        if for_us && operation == ArpOperation::Request {
            self.control_input(Some(frame));
        }
    }

    fn ipv4_input(self: &Arc<Self>, frame: &[u8], checked: Checked, batch: Option<&Batch>) {
        let Ok(packet) = Ipv4Packet::new_checked(behind_header(frame)) else {
            return;
        };
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        // An address that is no host's cannot have sent this; answers would go
        // astray. (DHCP servers have one.)
        if from.is_unspecified() || from.is_multicast() || from.is_broadcast() {
            return;
        }
        if from.is_loopback() || to.is_loopback() {
            return;
        }
        if !checked.header && !packet.verify_checksum() {
            return;
        }
        if packet.more_frags() || packet.frag_offset() != 0 {
            if let Some(whole) = self.ipv4_fragment(frame, &packet) {
                self.ipv4_input(&whole, REASSEMBLED, batch);
            }
            return;
        }
        let header = Header {
            from: from.into(),
            to: to.into(),
            ttl: packet.hop_limit(),
            tos: packet.dscp() << 2 | packet.ecn(),
            is_checked: checked.transport,
        };
        let local = self.is_local(to.into());
        if local || to.is_multicast() || to.is_broadcast() {
            self.show_raw(behind_header(frame));
        }
        match packet.next_header() {
            IpProtocol::Tcp if local => {
                self.tcp_input(header, behind_header(frame), packet.payload(), batch);
            }
            IpProtocol::Udp => {
                let dhcp = UdpPacket::new_checked(packet.payload())
                    .is_ok_and(|u| u.dst_port() == DHCP_CLIENT);
                if dhcp {
                    self.control_input(Some(frame));
                } else if to.is_multicast() {
                    self.group_input(header, packet.payload());
                } else if local || to.is_broadcast() {
                    let taken = self.udp_input(header, packet.payload());
                    // The control interface has no sockets either, and says so.
                    if !taken && local && self.resets.take() {
                        self.control_input(Some(frame));
                    }
                }
            }
            IpProtocol::Icmp if local => {
                self.icmpv4_error(packet.payload());
                if !self.answer_long(frame) {
                    self.control_input(Some(frame));
                }
            }
            IpProtocol::Igmp => self.control_input(Some(frame)),
            _ => {}
        }
    }

    fn ipv6_input(
        self: &Arc<Self>,
        frame: &[u8],
        mac: [u8; 6],
        checked: Checked,
        batch: Option<&Batch>,
    ) {
        let Ok(packet) = Ipv6Packet::new_checked(behind_header(frame)) else {
            return;
        };
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        if from.is_multicast() || from.is_loopback() || to.is_loopback() || to.is_unspecified() {
            return;
        }
        let header = Header {
            from: from.into(),
            to: to.into(),
            ttl: packet.hop_limit(),
            tos: packet.traffic_class(),
            is_checked: checked.transport,
        };
        let local = self.is_local(to.into());
        if local || to.is_multicast() {
            self.show_raw(behind_header(frame));
        }
        match packet.next_header() {
            IpProtocol::Tcp if local && !from.is_unspecified() => {
                self.tcp_input(header, behind_header(frame), packet.payload(), batch);
            }
            IpProtocol::Udp if local && !from.is_unspecified() => {
                let taken = self.udp_input(header, packet.payload());
                if !taken && self.resets.take() {
                    self.control_input(Some(frame));
                }
            }
            IpProtocol::Udp if to.is_multicast() => self.group_input(header, packet.payload()),
            IpProtocol::Icmpv6 if local || to.is_multicast() => {
                self.icmpv6_input(header, packet.payload(), mac);
                if !self.answer_long(frame) {
                    self.control_input(Some(frame));
                }
            }
            IpProtocol::Ipv6Frag => {
                if let Some(whole) = self.ipv6_fragment(frame, &packet) {
                    self.ipv6_input(&whole, mac, REASSEMBLED, batch);
                }
            }
            IpProtocol::HopByHop if local || to.is_multicast() => {
                self.control_input(Some(frame));
            }
            _ => {}
        }
    }

    fn tcp_input(
        self: &Arc<Self>,
        h: Header,
        packet: &[u8],
        payload: &[u8],
        batch: Option<&Batch>,
    ) {
        let Ok(tcp) = TcpPacket::new_checked(payload) else {
            return;
        };
        let flow = Flow {
            local: SocketAddr::new(h.to, tcp.dst_port()),
            remote: SocketAddr::new(h.from, tcp.src_port()),
        };
        if flow.local.port() == 0 || flow.remote.port() == 0 {
            return;
        }
        // The engines rely on it.
        let protocol = u8::from(IpProtocol::Tcp);
        if !h.is_checked && !checksum::is_right(h.from, h.to, protocol, payload) {
            return;
        }
        if let Some(conn) = self.flows.find(&flow) {
            let is_plain = !tcp.syn() && !tcp.fin() && !tcp.rst();
            match batch.filter(|_| is_plain) {
                Some(batch) => batch.input(conn, packet),
                None => conn.input(packet),
            }
            return;
        }
        let opens = tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin();
        if !opens {
            let segment = Segment::of(&tcp);
            if !self.flows.answer_late(self, &flow, &segment) {
                self.refuse(h.from.into(), h.to.into(), &tcp);
            }
            return;
        }
        let hash = self.hash.hash_one(flow);
        let listener =
            self.published(Protocol::Tcp, flow.local.port())
                .and_then(|(stack, port)| {
                    let listener = stack.tcp().find(h.to, port, hash)?;
                    Some((stack, port, listener))
                });
        match listener {
            Some((stack, port, listener)) => {
                crate::wire::open(&stack, port, &listener, flow, packet);
            }
            None => self.refuse(h.from.into(), h.to.into(), &tcp),
        }
    }

    /// A datagram to a group: every member gets a copy, and nobody is told if there
    /// is none.
    fn group_input(&self, h: Header, payload: &[u8]) {
        if let Some(udp) = datagram(h, payload) {
            let to_group = ToGroup {
                from: SocketAddr::new(h.from, udp.src_port()),
                to: SocketAddr::new(h.to, udp.dst_port()),
                data: udp.payload(),
                ttl: h.ttl,
                tos: h.tos,
            };
            self.deliver_to_group(&to_group, None);
        }
    }

    /// Whether there was a socket for it, or it was not worth an answer.
    fn udp_input(self: &Arc<Self>, h: Header, payload: &[u8]) -> bool {
        let Some(udp) = datagram(h, payload) else {
            return true;
        };
        let from = SocketAddr::new(h.from, udp.src_port());
        let hash = self.hash.hash_one((from, udp.dst_port()));
        let core = match self.published(Protocol::Udp, udp.dst_port()) {
            Some((stack, port)) => stack.udp().find(h.to, port, hash),
            None => {
                let lent = self.udp_ports().lock();
                lent.get(&udp.dst_port())
                    .and_then(alloc::sync::Weak::upgrade)
            }
        };
        let found = core.is_some();
        if let Some(core) = core {
            core.deliver(from, h.to, udp.payload(), h.ttl, h.tos);
        }
        found
    }

    /// A router or host says that a packet of ours did not arrive. It quotes the packet's
    /// beginning (RFC 792; RFC 1812, 4.3.2.3), where smoltcp wants all of it.
    fn icmpv4_error(&self, payload: &[u8]) {
        let Ok(icmp) = Icmpv4Packet::new_checked(payload) else {
            return;
        };
        if icmp.msg_type() != Icmpv4Message::DstUnreachable || !icmp.verify_checksum() {
            return;
        }
        let reason = Icmpv4DstUnreachable::from(icmp.msg_code());
        let quote = icmp.data();
        let len = quote.first().map_or(0, |b| usize::from(b & 15) * 4);
        let (Some(data), true) = (quote.get(len..), len >= 20) else {
            return;
        };
        let header = Ipv4Packet::new_unchecked(quote);
        // Ports are in the first fragment only, and who is too far away for a long packet is
        // there.
        if header.frag_offset() != 0 || reason == Icmpv4DstUnreachable::FragRequired {
            return;
        }
        let refused = reason == Icmpv4DstUnreachable::PortUnreachable;
        let (from, to) = (header.src_addr().into(), header.dst_addr().into());
        self.undelivered(header.next_header(), from, to, data, refused);
    }

    fn icmpv6_input(&self, h: Header, payload: &[u8], mac: [u8; 6]) {
        let Ok(icmp) = Icmpv6Packet::new_checked(payload) else {
            return;
        };
        let (IpAddr::V6(from), IpAddr::V6(to)) = (h.from, h.to) else {
            return;
        };
        let caps = ChecksumCapabilities::default();
        match Icmpv6Repr::parse(&from, &to, &icmp, &caps) {
            Ok(Icmpv6Repr::Ndisc(n)) if h.ttl == 255 => match n {
                NdiscRepr::NeighborAdvert {
                    target_addr,
                    lladdr,
                    ..
                } => {
                    let mac = lladdr_bytes(lladdr).unwrap_or(mac);
                    self.neighbour_heard(target_addr.into(), mac, false);
                }
                NdiscRepr::NeighborSolicit { target_addr, .. }
                    if self.is_local(target_addr.into()) && !from.is_unspecified() =>
                {
                    self.neighbour_heard(h.from, mac, true);
                }
                NdiscRepr::RouterAdvert { .. } if from.is_unicast_link_local() => {
                    self.neighbour_heard(h.from, mac, true);
                }
                _ => {}
            },
            Ok(Icmpv6Repr::DstUnreachable {
                reason,
                header,
                data,
            }) => {
                let refused = reason == Icmpv6DstUnreachable::PortUnreachable;
                let (from, to) = (header.src_addr.into(), header.dst_addr.into());
                self.undelivered(header.next_header, from, to, data, refused);
            }
            _ => {}
        }
    }

    /// `data` is the start of what we sent from `from` to `to`.
    fn undelivered(&self, what: IpProtocol, from: IpAddr, to: IpAddr, data: &[u8], refused: bool) {
        let [a, b, c, d, ..] = *data else { return };
        let (source, target) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let remote = SocketAddr::new(to, target);
        match what {
            IpProtocol::Udp => {
                let core = match self.published(Protocol::Udp, source) {
                    Some((stack, port)) => stack.udp().find(from, port, 0),
                    None => {
                        let lent = self.udp_ports().lock();
                        lent.get(&source).and_then(alloc::sync::Weak::upgrade)
                    }
                };
                if let Some(core) = core {
                    core.undelivered(remote, refused);
                }
            }
            IpProtocol::Tcp => {
                let local = SocketAddr::new(from, source);
                if let Some(conn) = self.flows.find(&Flow { local, remote }) {
                    conn.undelivered(refused);
                }
            }
            _ => {}
        }
    }

    /// The link has room again: connections that found it full go on.
    pub fn transmit_ready(&self) {
        self.flows.resume();
    }
}

/// The datagram in a packet, if it came whole: with the right checksum, or over IPv4
/// with none (RFC 768).
fn datagram(h: Header, payload: &[u8]) -> Option<UdpPacket<&[u8]>> {
    let udp = UdpPacket::new_checked(payload).ok()?;
    let (len, protocol) = (usize::from(udp.len()), u8::from(IpProtocol::Udp));
    let is_right = match udp.checksum() {
        0 => h.from.is_ipv4(),
        // What a device has looked at is the packet, which may go on behind the datagram.
        _ if h.is_checked && len == payload.len() => true,
        _ => checksum::is_right(h.from, h.to, protocol, payload.get(..len)?),
    };
    (is_right && udp.src_port() != 0 && udp.dst_port() != 0).then_some(udp)
}

/// The packet in a frame.
fn behind_header(frame: &[u8]) -> &[u8] {
    frame.get(ETHERNET_HEADER..).unwrap_or_default()
}

/// An Ethernet address out of a neighbour discovery option.
fn lladdr_bytes(raw: Option<smoltcp::wire::RawHardwareAddress>) -> Option<[u8; 6]> {
    raw?.as_bytes().try_into().ok()
}
