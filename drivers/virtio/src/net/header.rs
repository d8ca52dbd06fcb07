//! What is said of a frame beside it (virtio 1.2, 5.1.6): its checksums, and how it is cut.

use net::{Checked, Joined, PartialChecksum};

/// Bytes of `virtio_net_hdr`.
pub(super) const HEADER: usize = 12;
/// Flags: a checksum is not complete; the device has found it right.
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
/// Where in it are what is cut, bytes of the headers, and of data in each segment.
const GSO: usize = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// Where in it are the place from which a checksum counts and its own, from there on.
const CSUM_START: usize = 6;
const CSUM_OFFSET: usize = 8;

/// The header of a frame that leaves, of which the device completes this checksum
/// (5.1.6.2).
pub(super) fn leaving(checksum: Option<PartialChecksum>) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let places = checksum.and_then(|checksum| {
        let start = u16::try_from(checksum.segment()).ok()?;
        let offset = u16::try_from(checksum.transport().field()).ok()?;
        Some((start.to_le_bytes(), offset.to_le_bytes()))
    });
    if let Some(([s0, s1], [o0, o1])) = places {
        header = [NEEDS_CSUM, 0, 0, 0, 0, 0, s0, s1, o0, o1, 0, 0];
    }
    header
}

/// The header of a frame that the device cuts into segments (5.1.6.2.1).
pub(super) fn joined(joined: Joined) -> [u8; HEADER] {
    let mut header = leaving(Some(joined.checksum()));
    let kind = match joined.checksum().header_field() {
        Some(_) => GSO_TCPV4,
        None => GSO_TCPV6,
    };
    // Both are less than a frame on the wire.
    let ([h0, h1], [s0, s1]) = (
        (joined.headers() as u16).to_le_bytes(),
        (joined.size() as u16).to_le_bytes(),
    );
    if let Some(said) = header.get_mut(GSO..GSO + 5) {
        said.copy_from_slice(&[kind, h0, h1, s0, s1]);
    }
    header
}

/// What a header says of the frame that came behind it (5.1.6.4). One whose checksum is
/// not complete, as frames from the same host may be, is completed: it was never on a
/// line, and the device answers for it. The header of IPv4 is not looked at by devices.
pub(super) fn arrived(header: &[u8], frame: &mut [u8]) -> Checked {
    let flags = header.first().copied().unwrap_or(0);
    let word = |at: usize| match header.get(at..at + 2) {
        Some(&[low, high]) => usize::from(u16::from_le_bytes([low, high])),
        _ => usize::MAX,
    };
    let is_right = if flags & NEEDS_CSUM != 0 {
        net::complete_checksum(frame, word(CSUM_START), word(CSUM_OFFSET))
    } else {
        flags & DATA_VALID != 0
    };
    Checked {
        header: false,
        transport: is_right,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use net::Transport;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpPacket};
    use std::vec;
    use std::vec::Vec;

    const FROM: IpAddress = IpAddress::v4(10, 0, 0, 1);
    const TO: IpAddress = IpAddress::v4(10, 0, 0, 2);

    /// A frame of TCP whose checksums are left out, and where they are.
    fn partial(len: usize) -> (Vec<u8>, PartialChecksum) {
        let ip = IpRepr::new(FROM, TO, IpProtocol::Tcp, 20 + len, 64);
        let mut frame = vec![0x5a; 14 + 40 + len];
        ip.emit(&mut frame[14..], &ChecksumCapabilities::ignored());
        let checksum = PartialChecksum::prepare(&mut frame, 14, Transport::Tcp).unwrap();
        (frame, checksum)
    }

    fn is_right(frame: &[u8]) -> bool {
        let packet = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        TcpPacket::new_unchecked(packet.payload()).verify_checksum(&FROM, &TO)
    }

    #[test]
    fn a_header_says_where_the_checksum_is() {
        let (_, checksum) = partial(3);
        let said = leaving(Some(checksum));
        assert_eq!(said, [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert_eq!(leaving(None), [0; HEADER]);
    }

    #[test]
    fn a_header_says_how_a_frame_is_cut() {
        let (mut frame, _) = partial(3000);
        frame[34 + 12] = 8 << 4;
        let cut = Joined::prepare(&mut frame, 14, 1448).unwrap();
        let [s0, s1] = 1448u16.to_le_bytes();
        let wanted = [1, 1, 14 + 20 + 32, 0, s0, s1, 34, 0, 16, 0, 0, 0];
        assert_eq!(joined(cut), wanted);
    }

    /// What one node says, another one understands.
    #[test]
    fn a_frame_of_the_same_host_is_completed() {
        for len in [0, 1, 2, 1459, 1460] {
            let (mut frame, checksum) = partial(len);
            assert!(!is_right(&frame));
            let checked = arrived(&leaving(Some(checksum)), &mut frame);
            assert!(checked.transport && !checked.header);
            assert!(is_right(&frame));
        }
    }

    #[test]
    fn only_the_devices_word_counts() {
        let (mut frame, checksum) = partial(100);
        checksum.complete(&mut frame);
        let whole = frame.clone();
        for (flags, wanted) in [(0, false), (2, true), (4, false), (0xfc, false)] {
            let mut header = [0; HEADER];
            header[0] = flags;
            assert_eq!(arrived(&header, &mut frame).transport, wanted, "{flags}");
        }
        assert_eq!(arrived(&[], &mut frame), Checked::default());
        assert_eq!(frame, whole);
    }

    /// Places that are not in the frame are not believed, and nothing is written.
    #[test]
    fn a_device_that_lies_writes_nowhere() {
        let (frame, _) = partial(10);
        let len = frame.len() as u16;
        let places = [
            (len, 0),
            (len - 1, 0),
            (34, len - 34),
            (34, len - 35),
            (u16::MAX, u16::MAX),
            (34, u16::MAX),
            (0, 0),
            (13, 2),
        ];
        for (start, offset) in places {
            let ([s0, s1], [o0, o1]) = (start.to_le_bytes(), offset.to_le_bytes());
            let mut after = frame.clone();
            let said = [1, 0, 0, 0, 0, 0, s0, s1, o0, o1, 0, 0];
            assert_eq!(arrived(&said, &mut after), Checked::default());
            assert_eq!(after, frame, "{start} {offset}");
        }
    }
}
