//! Checksums that the sender of a frame writes: most devices can.

use super::{fold, pseudo_header, sum};
use crate::node::ETHERNET_HEADER;
use core::net::IpAddr;
use core::ops::Range;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

/// Where the checksum is in the header of IPv4 (RFC 791, 3.1).
const IPV4_CHECKSUM: usize = 10;

/// What is behind the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp,
    /// A UDP datagram. One over IPv6 is never partial: a sum of 0 must leave as 0xffff
    /// there (RFC 8200, 8.1), and no manual promises that a device does that.
    Udp,
}

impl Transport {
    /// Where the checksum is, in bytes from its header on (RFC 9293, 3.1; RFC 768).
    #[must_use]
    pub const fn field(self) -> usize {
        match self {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }

    fn number(self) -> u8 {
        u8::from(match self {
            Transport::Tcp => IpProtocol::Tcp,
            Transport::Udp => IpProtocol::Udp,
        })
    }
}

/// The checksums of a frame that are not complete: that of an IPv4 header is 0, and that
/// of the segment or datagram, which fills the rest of the frame, is the sum of its
/// pseudo-header, not inverted (as virtio 1.2, 5.1.6.2, and Intel's manuals have it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    network: u8,
    segment: u8,
    is_v4: bool,
    transport: Transport,
}

impl PartialChecksum {
    /// Prepares the packet in `frame` behind a header of `network` bytes. `None`, and
    /// nothing is changed, if there is no such packet or something follows it.
    #[must_use]
    pub fn prepare(frame: &mut [u8], network: usize, transport: Transport) -> Option<Self> {
        let packet = frame.get_mut(network..)?;
        let len = packet.len();
        let (header, from, to) = match packet.first()? >> 4 {
            4 => {
                let p = Ipv4Packet::new_checked(&*packet).ok()?;
                let is_whole = usize::from(p.total_len()) == len && !p.more_frags();
                let (from, to) = (p.src_addr().into(), p.dst_addr().into());
                let header = usize::from(p.header_len());
                (is_whole && p.frag_offset() == 0).then_some((header, from, to))?
            }
            _ => {
                let p = Ipv6Packet::new_checked(&*packet).ok()?;
                let is_whole = p.total_len() == len && p.version() == 6;
                let (from, to) = (p.src_addr().into(), p.dst_addr().into());
                is_whole.then_some((p.header_len(), from, to))?
            }
        };
        let partial = PartialChecksum {
            network: u8::try_from(network).ok()?,
            segment: u8::try_from(network + header).ok()?,
            is_v4: matches!(from, IpAddr::V4(_)),
            transport,
        };
        let seed = pseudo_header(from, to, transport.number(), len.checked_sub(header)?);
        let field = partial.field();
        let to = frame.get_mut(field..field + 2)?;
        to.copy_from_slice(&seed.to_be_bytes());
        if let Some(to) = partial
            .header_field()
            .and_then(|at| frame.get_mut(at..at + 2))
        {
            to.copy_from_slice(&[0, 0]);
        }
        Some(partial)
    }

    /// The same, of a frame whose IP header is `by` bytes further back.
    #[must_use]
    pub(crate) fn moved(self, by: u8) -> Self {
        PartialChecksum {
            network: self.network.saturating_add(by),
            segment: self.segment.saturating_add(by),
            ..self
        }
    }

    /// Where the IP header begins in the frame.
    #[must_use]
    pub fn network(self) -> usize {
        self.network.into()
    }

    /// Where the segment or datagram begins in the frame; its checksum is about
    /// everything from here on.
    #[must_use]
    pub fn segment(self) -> usize {
        self.segment.into()
    }

    /// Where in the frame the checksum of the segment or datagram is.
    #[must_use]
    pub fn field(self) -> usize {
        self.segment() + self.transport.field()
    }

    /// What is behind the IP header.
    #[must_use]
    pub fn transport(self) -> Transport {
        self.transport
    }

    /// Where in the frame the checksum of the header of IPv4 is, if it is IPv4.
    #[must_use]
    pub fn header_field(self) -> Option<usize> {
        self.is_v4.then_some(self.network() + IPV4_CHECKSUM)
    }

    /// Writes the checksum of the IPv4 header, for devices that write only the other.
    pub fn complete_header(self, frame: &mut [u8]) {
        if let Some(at) = self.header_field()
            && let Some(value) = checksum(frame, self.network()..self.segment())
        {
            set(frame, at, value);
        }
    }

    /// Writes the checksums.
    pub fn complete(self, frame: &mut [u8]) {
        self.complete_header(frame);
        let _ = complete_checksum(frame, self.segment(), self.transport.field());
    }
}

/// Completes the checksum of a frame that came in, which counts from `start` to the end
/// and is `offset` bytes behind that; whether both are in the frame behind its Ethernet
/// header. Nothing is written if they are not.
#[must_use]
pub fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) -> bool {
    let field = start.saturating_add(offset);
    let is_inside = start >= ETHERNET_HEADER && field.saturating_add(2) <= frame.len();
    let value = checksum(frame, start..frame.len()).filter(|_| is_inside);
    match value {
        // Which is the same to who adds it up, but does not say that there is none.
        Some(0) => set(frame, field, 0xffff),
        Some(value) => set(frame, field, value),
        None => return false,
    }
    true
}

/// The checksum of a part of a frame, with what is in its field.
fn checksum(frame: &[u8], part: Range<usize>) -> Option<u16> {
    frame.get(part).map(|bytes| !fold(sum(bytes).into()))
}

fn set(frame: &mut [u8], at: usize, value: u16) {
    if let Some(field) = frame.get_mut(at..at.saturating_add(2)) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpAddress, IpRepr, TcpPacket, UdpPacket, UdpRepr};

    /// A frame with a packet behind `network` bytes, its checksums left out.
    fn frame(network: usize, v6: bool, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
        let address = |n: u16| match v6 {
            true => IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, n),
            false => IpAddress::v4(10, 0, 0, n as u8),
        };
        let ip = IpRepr::new(address(1), address(2), protocol, payload.len(), 64);
        let mut frame = vec![0xaa; network + ip.buffer_len()];
        ip.emit(&mut frame[network..], &ChecksumCapabilities::ignored());
        frame[network + ip.header_len()..].copy_from_slice(payload);
        frame
    }

    /// Whether the checksums behind `network` bytes are right.
    fn is_right(frame: &[u8], network: usize, transport: Transport) -> bool {
        let packet = &frame[network..];
        let (from, to, segment) = if packet[0] >> 4 == 4 {
            let p = Ipv4Packet::new_checked(packet).unwrap();
            assert!(p.verify_checksum());
            (p.src_addr().into(), p.dst_addr().into(), p.payload())
        } else {
            let p = Ipv6Packet::new_checked(packet).unwrap();
            (p.src_addr().into(), p.dst_addr().into(), p.payload())
        };
        match transport {
            Transport::Tcp => TcpPacket::new_unchecked(segment).verify_checksum(&from, &to),
            Transport::Udp => UdpPacket::new_unchecked(segment).verify_checksum(&from, &to),
        }
    }

    proptest! {
        #[test]
        fn completed_frames_are_right(
            payload in proptest::collection::vec(any::<u8>(), 20..200),
            v6 in any::<bool>(),
            is_tagged in any::<bool>(),
        ) {
            let mut f = frame(14, v6, IpProtocol::Tcp, &payload);
            let mut partial = PartialChecksum::prepare(&mut f, 14, Transport::Tcp).unwrap();
            let mut network = 14;
            if is_tagged {
                f.splice(12..12, [0x81, 0, 0, 7]);
                partial = partial.moved(4);
                network += 4;
            }
            prop_assert_eq!(partial.network(), network);
            partial.complete(&mut f);
            prop_assert!(is_right(&f, network, Transport::Tcp));
            let at = partial.segment() + 20;
            prop_assert_eq!(&f[at..], &payload[20..]);
        }
    }

    #[test]
    fn a_datagram_whose_sum_is_0_says_so() {
        let udp = UdpRepr {
            src_port: 1,
            dst_port: 2,
        };
        for n in 0..=u16::MAX {
            let mut payload = vec![0; 10];
            let (from, to) = (IpAddress::v4(10, 0, 0, 1), IpAddress::v4(10, 0, 0, 2));
            let mut packet = UdpPacket::new_unchecked(&mut payload);
            let caps = ChecksumCapabilities::ignored();
            let fill = |room: &mut [u8]| room.copy_from_slice(&n.to_be_bytes());
            udp.emit(&mut packet, &from, &to, 2, fill, &caps);
            let mut f = frame(14, false, IpProtocol::Udp, &payload);
            let partial = PartialChecksum::prepare(&mut f, 14, Transport::Udp).unwrap();
            partial.complete(&mut f);
            assert!(is_right(&f, 14, Transport::Udp));
            assert_ne!(f[partial.field()..][..2], [0, 0], "{n}");
        }
    }

    #[test]
    fn what_is_not_a_whole_packet_is_left_alone() {
        let good = frame(14, false, IpProtocol::Tcp, &[1; 24]);
        let mut longer = good.clone();
        longer.push(0);
        let mut fragment = good.clone();
        fragment[14 + 6] = 0x20;
        let mut later = good.clone();
        later[14 + 7] = 1;
        let short = frame(14, false, IpProtocol::Tcp, &[1; 10]);
        let cut = good[..30].to_vec();
        let mut six = frame(14, true, IpProtocol::Tcp, &[1; 24]);
        six.push(0);
        for f in [
            longer,
            fragment,
            later,
            short,
            cut,
            six,
            vec![0; 14],
            vec![],
        ] {
            let mut after = f.clone();
            let partial = PartialChecksum::prepare(&mut after, 14, Transport::Tcp);
            assert_eq!((partial, after), (None, f));
        }
        assert!(PartialChecksum::prepare(&mut good.clone(), 14, Transport::Tcp).is_some());
    }
}
