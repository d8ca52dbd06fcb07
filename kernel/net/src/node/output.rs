//! Packets out: next hop, hardware address, frame.

use super::neighbours::{Hop, Question};
use super::{ETHERNET_HEADER, NetNode};
use crate::checksum::{Joined, PartialChecksum, Transport};
use core::net::{IpAddr, Ipv4Addr};
use machine::time::Instant;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscRepr,
};

/// Room for an ARP request or a neighbour solicitation.
const QUESTION_MAX: usize = 14 + 40 + 32;

/// A frame on its way out.
pub(super) struct Frame<'a> {
    pub(super) bytes: &'a mut [u8],
    /// What is missing in it.
    pub(super) missing: Missing,
}

/// What a frame still needs before it is on the wire.
#[derive(Clone, Copy)]
pub(super) enum Missing {
    Nothing,
    /// Checksums.
    Sums(PartialChecksum),
    /// To be cut into segments.
    Cuts(Joined),
}

impl<'a> Frame<'a> {
    /// One in which nothing is missing.
    pub(super) fn whole(bytes: &'a mut [u8]) -> Frame<'a> {
        Frame {
            bytes,
            missing: Missing::Nothing,
        }
    }
}

impl NetNode {
    /// Sends the IP packet that `frame` holds behind room for an Ethernet header
    /// to `to`. It may be lost: there may be no route, or a full queue. The caller
    /// calls [`NetNode::flush`] when it has sent all it has.
    pub(crate) fn transmit(&self, to: IpAddr, frame: &mut [u8]) {
        self.transmit_frame(to, Frame::whole(frame));
    }

    /// The same for a packet of TCP or UDP, whose checksums may be left out: they are
    /// written by the link or on the way to it.
    pub(crate) fn transmit_unsummed(&self, to: IpAddr, bytes: &mut [u8], transport: Transport) {
        let partial = PartialChecksum::prepare(bytes, ETHERNET_HEADER, transport);
        // What is not one packet, and cannot have the right ones, stays here.
        if let Some(partial) = partial {
            let missing = Missing::Sums(partial);
            self.transmit_frame(to, Frame { bytes, missing });
        }
    }

    /// The same for segments of `size` bytes of data in one long one, not larger than the
    /// link takes them ([`super::Link::joined_max`]).
    pub(crate) fn transmit_joined(&self, to: IpAddr, bytes: &mut [u8], size: usize) {
        if let Some(joined) = Joined::prepare(bytes, ETHERNET_HEADER, size) {
            let missing = Missing::Cuts(joined);
            self.transmit_frame(to, Frame { bytes, missing });
        }
    }

    fn transmit_frame(&self, to: IpAddr, mut frame: Frame<'_>) {
        let Some(link) = self.link() else { return };
        let protocol = match to {
            IpAddr::V4(_) => EthernetProtocol::Ipv4,
            IpAddr::V6(_) => EthernetProtocol::Ipv6,
        };
        write_header(frame.bytes, link.mac(), [0; 6], protocol);
        if let Some(mac) = self.with_config(|c| group_address(to, |ip| c.is_broadcast(ip))) {
            self.send_to(&mut frame, mac);
            return;
        }
        let Some(hop) = self.with_config(|c| c.next_hop(to)) else {
            return;
        };
        let now = Instant::now();
        match self.neighbours.look_up(hop, &frame, now) {
            Hop::Known(mac) => self.send_to(&mut frame, mac),
            Hop::Stale(mac) => {
                self.send_to(&mut frame, mac);
                let mac = Some(mac);
                self.ask(&Question { to: hop, mac });
                self.neighbour_poll();
            }
            Hop::Ask => {
                self.ask(&Question { to: hop, mac: None });
                self.neighbour_poll();
            }
            Hop::Wait => {}
        }
    }

    /// Tells the device of what was sent.
    pub(crate) fn flush(&self) {
        if let Some(link) = self.link() {
            link.flush();
        }
    }

    /// Asks a neighbour for its hardware address.
    fn ask(&self, q: &Question) {
        let Some(link) = self.link() else { return };
        let mac = link.mac();
        let mut buffer = [0; QUESTION_MAX];
        let question = match q.to {
            IpAddr::V4(ip) => match self.ipv4() {
                Some(own) => arp_request(&mut buffer, mac, own, ip, q.mac),
                None => return,
            },
            IpAddr::V6(ip) => {
                let Ok(IpAddr::V6(own)) = self.with_config(|c| c.source(ip.into())) else {
                    return;
                };
                solicit(&mut buffer, mac, own, ip, q.mac)
            }
        };
        if let Some(frame) = question {
            self.put_frame(frame);
            link.flush();
        }
    }

    /// Says who we are and where, so that switches and neighbours learn it (RFC 5227,
    /// 2.3).
    pub(super) fn announce(&self) {
        let (Some(link), Some(own)) = (self.link(), self.ipv4()) else {
            return;
        };
        let mut buffer = [0; QUESTION_MAX];
        if let Some(frame) = arp_request(&mut buffer, link.mac(), own, own, None) {
            link.transmit(frame);
            link.flush();
        }
    }

    /// Asks what is due to be asked, and gives up on who does not answer.
    pub(super) fn neighbour_poll(&self) {
        let (questions, gone, next) = self.neighbours.poll(Instant::now());
        for q in &questions {
            self.ask(q);
        }
        if let Some(t) = self.neighbour_timer.get() {
            t.set(next);
        }
        for ip in gone {
            self.flows
                .unreachable(|remote| self.with_config(|c| c.next_hop(remote)) == Some(ip));
        }
    }

    /// A neighbour told its address: what waited for it leaves.
    pub(super) fn neighbour_heard(&self, ip: IpAddr, mac: [u8; 6], create: bool) {
        let held = self.neighbours.learn(ip, mac, create, Instant::now());
        let Some(link) = self.link() else { return };
        for mut frame in held {
            self.send_to(&mut Frame::whole(&mut frame), mac);
        }
        link.flush();
    }

    fn send_to(&self, frame: &mut Frame<'_>, mac: [u8; 6]) {
        let Some(to) = frame.bytes.get_mut(..6) else {
            return;
        };
        to.copy_from_slice(&mac);
        match frame.missing {
            Missing::Nothing => self.put_frame(frame.bytes),
            Missing::Sums(partial) => self.put_partial(frame.bytes, partial),
            Missing::Cuts(joined) => self.put_joined(frame.bytes, joined),
        }
    }
}

fn write_header(frame: &mut [u8], from: [u8; 6], to: [u8; 6], protocol: EthernetProtocol) {
    if frame.len() >= ETHERNET_HEADER {
        let mut f = EthernetFrame::new_unchecked(frame);
        f.set_src_addr(EthernetAddress(from));
        f.set_dst_addr(EthernetAddress(to));
        f.set_ethertype(protocol);
    }
}

/// The hardware address of a group (RFC 1112, RFC 2464), if `ip` is one.
fn group_address(ip: IpAddr, is_broadcast: impl Fn(Ipv4Addr) -> bool) -> Option<[u8; 6]> {
    match ip {
        IpAddr::V4(ip) if is_broadcast(ip) => Some([0xff; 6]),
        IpAddr::V4(ip) if ip.is_multicast() => {
            let o = ip.octets();
            Some([1, 0, 0x5e, o[1] & 0x7f, o[2], o[3]])
        }
        IpAddr::V6(ip) if ip.is_multicast() => {
            let o = ip.octets();
            Some([0x33, 0x33, o[12], o[13], o[14], o[15]])
        }
        _ => None,
    }
}

fn arp_request(
    buffer: &mut [u8; QUESTION_MAX],
    mac: [u8; 6],
    own: Ipv4Addr,
    ip: Ipv4Addr,
    known: Option<[u8; 6]>,
) -> Option<&[u8]> {
    let to = known.unwrap_or([0xff; 6]);
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(mac),
        source_protocol_addr: own,
        target_hardware_addr: EthernetAddress(to),
        target_protocol_addr: ip,
    };
    let len = ETHERNET_HEADER + repr.buffer_len();
    let frame = buffer.get_mut(..len)?;
    write_header(frame, mac, to, EthernetProtocol::Arp);
    let packet = frame.get_mut(ETHERNET_HEADER..)?;
    repr.emit(&mut ArpPacket::new_unchecked(packet));
    Some(frame)
}

fn solicit(
    buffer: &mut [u8; QUESTION_MAX],
    mac: [u8; 6],
    own: core::net::Ipv6Addr,
    ip: core::net::Ipv6Addr,
    known: Option<[u8; 6]>,
) -> Option<&[u8]> {
    let o = ip.octets();
    // RFC 4291, 2.7.1: the solicited-node group.
    let group = core::net::Ipv6Addr::from([
        0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, o[13], o[14], o[15],
    ]);
    let to = known.unwrap_or([0x33, 0x33, 0xff, o[13], o[14], o[15]]);
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: ip,
        lladdr: Some(EthernetAddress(mac).into()),
    });
    let ip_repr = Ipv6Repr {
        src_addr: own,
        dst_addr: if known.is_some() { ip } else { group },
        next_header: IpProtocol::Icmpv6,
        payload_len: repr.buffer_len(),
        hop_limit: 255,
    };
    let len = ETHERNET_HEADER + ip_repr.buffer_len() + repr.buffer_len();
    let frame = buffer.get_mut(..len)?;
    write_header(frame, mac, to, EthernetProtocol::Ipv6);
    let packet = frame.get_mut(ETHERNET_HEADER..)?;
    ip_repr.emit(&mut Ipv6Packet::new_unchecked(&mut *packet));
    repr.emit(
        &ip_repr.src_addr,
        &ip_repr.dst_addr,
        &mut Icmpv6Packet::new_unchecked(packet.get_mut(ip_repr.buffer_len()..)?),
        &ChecksumCapabilities::default(),
    );
    Some(frame)
}
