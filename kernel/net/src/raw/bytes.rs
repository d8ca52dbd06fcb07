//! Packets as bytes: headers that raw sockets have filled in, checksums, and the answer
//! to an echo request of this machine's own.

use super::{Arrived, ICMP, ICMPV6, V4_HEADER};
use crate::checksum;
use crate::error::{Error, Result};
use crate::node::ETHERNET_HEADER;
use alloc::vec::Vec;
use core::net::IpAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, IpRepr, Ipv4Packet};

/// So many zeros, if there is memory for them.
pub(super) fn zeroed(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// A frame around a packet that came with its header; what raw(7) says is filled in.
pub(super) fn finish_packet(source: IpAddr, data: &[u8]) -> Result<Vec<u8>> {
    let header = data.first().map_or(0, |b| usize::from(b & 15) * 4);
    if data.len() < V4_HEADER || header < V4_HEADER || header > data.len() {
        return Err(Error::INVALID);
    }
    let total = u16::try_from(data.len()).map_err(|_| Error::MessageSize)?;
    let mut frame = zeroed(ETHERNET_HEADER + data.len())?;
    let (_, bytes) = frame.split_at_mut(ETHERNET_HEADER);
    bytes.copy_from_slice(data);
    let mut packet = Ipv4Packet::new_unchecked(bytes);
    packet.set_total_len(total);
    if let (true, IpAddr::V4(source)) = (packet.src_addr().is_unspecified(), source) {
        packet.set_src_addr(source);
    }
    if packet.ident() == 0 {
        packet.set_ident(machine::random::next_u64() as u16);
    }
    packet.fill_checksum();
    Ok(frame)
}

/// The answer to an echo request, as a packet.
pub(crate) fn echo_reply(request: &Arrived<'_>) -> Option<Vec<u8>> {
    let (ask, answer, protocol) = match request.to {
        IpAddr::V4(_) => (8, 0, ICMP),
        IpAddr::V6(_) => (128, 129, ICMPV6),
    };
    let [kind, 0, ..] = *request.payload else {
        return None;
    };
    if (kind, request.protocol) != (ask, protocol) || request.payload.len() < 8 {
        return None;
    }
    let (from, to) = (request.to, request.from);
    let len = request.payload.len();
    let ip = IpRepr::new(from.into(), to.into(), IpProtocol::from(protocol), len, 64);
    let mut packet = zeroed(ip.buffer_len()).ok()?;
    ip.emit(&mut *packet, &ChecksumCapabilities::default());
    let (_, message) = packet.split_at_mut(ip.header_len());
    message.copy_from_slice(request.payload);
    *message.first_mut()? = answer;
    let seed = match to {
        IpAddr::V4(_) => 0,
        IpAddr::V6(_) => checksum::pseudo_header(from, to, protocol, len),
    };
    checksum::put(message, 2, seed);
    Some(packet)
}
