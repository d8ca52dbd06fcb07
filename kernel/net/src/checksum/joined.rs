//! Segments of one connection in one frame, which the device cuts again.

use super::PartialChecksum;
use super::partial::Transport;
use super::{fold, sum};

/// Where the length is in the header of IPv4 (RFC 791, 3.1) and of IPv6 (RFC 8200, 3).
const LENGTH_V4: usize = 2;
const LENGTH_V6: usize = 4;
/// Where the header of TCP says how long it is, in its high four bits in words of four bytes
/// (RFC 9293, 3.1).
const OFFSET: usize = 12;

/// How a frame that holds several segments of TCP is cut: each gets a copy of the headers with
/// its own lengths, sequence number and checksums; only the last one has FIN and PSH. The
/// frame itself is that of one long segment with a partial checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    checksum: PartialChecksum,
    /// Bytes of data in each segment but the last, which may have fewer.
    size: u16,
    /// Bytes of the header of TCP with its options.
    header: u8,
}

impl Joined {
    /// Prepares the long segment in `frame` behind a header of `network` bytes, of which each
    /// segment gets `size` bytes. `None` if that is not what the frame holds.
    #[must_use]
    pub fn prepare(frame: &mut [u8], network: usize, size: usize) -> Option<Joined> {
        let checksum = PartialChecksum::prepare(frame, network, Transport::Tcp)?;
        let words = frame.get(checksum.segment() + OFFSET)? >> 4;
        let joined = Joined {
            checksum,
            size: u16::try_from(size).ok().filter(|size| *size > 0)?,
            header: words * 4,
        };
        (words >= 5 && joined.headers() < frame.len()).then_some(joined)
    }

    /// The same, of a frame whose IP header is `by` bytes further back.
    #[must_use]
    pub(crate) fn moved(self, by: u8) -> Joined {
        Joined {
            checksum: self.checksum.moved(by),
            ..self
        }
    }

    /// What is missing in the headers.
    #[must_use]
    pub fn checksum(self) -> PartialChecksum {
        self.checksum
    }

    /// Bytes of data in each segment but the last.
    #[must_use]
    pub fn size(self) -> usize {
        self.size.into()
    }

    /// Bytes of the header of TCP with its options.
    #[must_use]
    pub fn transport_header(self) -> usize {
        self.header.into()
    }

    /// Bytes of all headers, which each segment gets a copy of.
    #[must_use]
    pub fn headers(self) -> usize {
        self.checksum.segment() + self.transport_header()
    }

    /// How many segments leave of a frame of `len` bytes.
    #[must_use]
    pub fn count(self, len: usize) -> usize {
        len.saturating_sub(self.headers()).div_ceil(self.size())
    }

    /// Takes the lengths out of the headers and out of the sum of the pseudo-header, as Intel's
    /// devices want them: they add each segment's (8254x, 3.5.3; 82576, 7.2.4).
    pub fn without_lengths(self, frame: &mut [u8]) {
        let segment = frame.len().saturating_sub(self.checksum.segment());
        let length = match self.checksum.header_field() {
            Some(_) => LENGTH_V4,
            None => LENGTH_V6,
        };
        let at = self.checksum.network() + length;
        if let Some(length) = frame.get_mut(at..at + 2) {
            length.copy_from_slice(&[0, 0]);
        }
        let at = self.checksum.field();
        if let Some(field) = frame.get_mut(at..at + 2) {
            // To take away is to add the complement.
            let seed = u64::from(sum(field)) + u64::from(!fold(segment as u64));
            field.copy_from_slice(&fold(seed).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pseudo_header;
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::IpAddr;
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpAddress, IpProtocol, IpRepr};

    fn address(v6: bool, n: u16) -> IpAddress {
        match v6 {
            true => IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, n),
            false => IpAddress::v4(10, 0, 0, n as u8),
        }
    }

    /// A long segment with a header of `words` words.
    fn frame(v6: bool, words: u8, data: usize) -> Vec<u8> {
        let len = usize::from(words) * 4 + data;
        let ip = IpRepr::new(address(v6, 1), address(v6, 2), IpProtocol::Tcp, len, 64);
        let mut frame = vec![0; 14 + ip.buffer_len()];
        ip.emit(&mut frame[14..], &ChecksumCapabilities::ignored());
        frame[14 + ip.header_len() + OFFSET] = words << 4;
        frame
    }

    proptest! {
        #[test]
        fn the_pseudo_header_has_no_length(v6 in any::<bool>(), words in 5..15u8, data in 1..60_000usize) {
            let mut f = frame(v6, words, data);
            let joined = Joined::prepare(&mut f, 14, 1000).unwrap();
            prop_assert_eq!(joined.headers(), f.len() - data);
            prop_assert_eq!(joined.count(f.len()), data.div_ceil(1000));
            joined.without_lengths(&mut f);
            let length = if v6 { 14 + 4 } else { 14 + 2 };
            prop_assert_eq!(&f[length..length + 2], &[0, 0]);
            let ip = |n| IpAddr::from(address(v6, n));
            let wanted = pseudo_header(ip(1), ip(2), 6, 0);
            let at = joined.checksum().field();
            prop_assert_eq!(&f[at..at + 2], &wanted.to_be_bytes());
        }
    }

    #[test]
    fn what_is_no_long_segment_is_not_cut() {
        let none = |mut f: Vec<u8>, size: usize| Joined::prepare(&mut f, 14, size).is_none();
        let good = frame(false, 5, 100);
        assert!(!none(good.clone(), 50));
        assert!(none(good.clone(), 0) && none(good.clone(), 0x10000));
        assert!(none(good[..100].to_vec(), 50));
        assert!(none(frame(false, 4, 100), 50), "a short header");
        assert!(none(frame(true, 5, 0), 50), "nothing to cut");
        let mut beyond = frame(false, 5, 12);
        beyond[14 + 20 + OFFSET] = 15 << 4;
        assert!(none(beyond, 50));
    }
}
