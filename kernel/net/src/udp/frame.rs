//! Datagrams in frames.

use super::Header;
use crate::checksum::{PartialChecksum, Transport};
use crate::error::{Error, Result};
use crate::fragments::allow_cutting;
use crate::node::{ETHERNET_HEADER, NetNode};
use crate::options::{Discovery, Options};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, Ipv6Packet, UdpPacket, UdpRepr};

/// What a program chooses of the IP header.
#[derive(Clone, Copy)]
pub(super) struct Fields {
    hops: u8,
    class: u8,
    discovery: Discovery,
}

impl Fields {
    pub(super) fn new(header: Header, options: &Options, to: IpAddr) -> Fields {
        Fields {
            hops: header.hops(options, to),
            class: header.class(options),
            discovery: options.discovery(to.is_ipv6()),
        }
    }
}

/// Writes the type of service or traffic class into the header of a packet to `to`.
pub(crate) fn set_class(packet: &mut [u8], to: IpAddr, class: u8) {
    match to {
        IpAddr::V4(_) => {
            let mut packet = Ipv4Packet::new_unchecked(packet);
            packet.set_dscp(class >> 2);
            packet.set_ecn(class & 3);
            packet.fill_checksum();
        }
        IpAddr::V6(_) => Ipv6Packet::new_unchecked(packet).set_traffic_class(class),
    }
}

/// Writes a datagram into a frame and sends it, in fragments if it is too long for one.
pub(super) fn send_frame(
    node: &NetNode,
    from: SocketAddr,
    to: SocketAddr,
    data: &[u8],
    fields: Fields,
) -> Result<()> {
    let (source, target) = (from.ip(), to.ip());
    let (src, dst) = (IpAddress::from(source), IpAddress::from(target));
    let udp = UdpRepr {
        src_port: from.port(),
        dst_port: to.port(),
    };
    let payload = udp.header_len() + data.len();
    let ip = IpRepr::new(src, dst, IpProtocol::Udp, payload, fields.hops);
    let is_long = ip.buffer_len() > node.mtu();
    if is_long && !fields.discovery.cuts() {
        return Err(Error::MessageSize);
    }
    // The device may write those of a whole packet over IPv4, see `Transport::Udp`.
    let is_partial = is_long || to.is_ipv4();
    let caps = match is_partial {
        true => ChecksumCapabilities::ignored(),
        false => ChecksumCapabilities::default(),
    };
    let len = ETHERNET_HEADER + ip.buffer_len();
    let mut frame = Vec::new();
    frame.try_reserve_exact(len)?;
    frame.resize(len, 0);
    let (_, packet) = frame.split_at_mut(ETHERNET_HEADER);
    ip.emit(&mut *packet, &caps);
    if fields.class != 0 {
        set_class(packet, target, fields.class);
    }
    if to.is_ipv4() && !is_long && !fields.discovery.forbids_cutting() {
        allow_cutting(
            packet,
            node.fresh_id(source, target, IpProtocol::Udp.into()),
        );
    }
    let (_, datagram) = packet.split_at_mut(ip.header_len());
    udp.emit(
        &mut UdpPacket::new_unchecked(datagram),
        &src,
        &dst,
        data.len(),
        |room| room.copy_from_slice(data),
        &caps,
    );
    if is_long {
        if let Some(partial) = PartialChecksum::prepare(&mut frame, ETHERNET_HEADER, Transport::Udp)
        {
            partial.complete(&mut frame);
        }
        let (_, packet) = frame.split_at(ETHERNET_HEADER);
        return node.transmit_cut(source, target, packet);
    }
    match is_partial {
        true => node.transmit_unsummed(target, &mut frame, Transport::Udp),
        false => node.transmit(target, &mut frame),
    }
    node.flush();
    Ok(())
}
