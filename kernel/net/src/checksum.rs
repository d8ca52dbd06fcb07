//! The Internet checksum (RFC 1071), eight bytes at a time.
//!
//! Of a large transfer every byte is summed, and smoltcp adds two of them at a time. The
//! sum of larger words, folded, is the same, and in the memory's order of bytes it comes
//! out in the network's (RFC 1071, section 2).

mod joined;
mod partial;

pub use joined::Joined;
pub use partial::{PartialChecksum, Transport, complete_checksum};

use core::net::IpAddr;

/// Bytes of a turn of the loop, which is unrolled.
const BLOCK: usize = 32;

/// The sum of the 16-bit words of `bytes`; an odd last byte is followed by a zero.
pub(crate) fn sum(bytes: &[u8]) -> u16 {
    // 2^64 words fit: two instructions for each, an addition and its carry.
    let mut large: u128 = 0;
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for word in words {
            large += u128::from(u64::from_ne_bytes(*word));
        }
    }
    let mut total = narrow(large);
    let (words, rest) = rest.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total += u64::from(u32::from_ne_bytes(last));
    u16::from_be(fold(total))
}

/// The same sum with less than 36 bits.
fn narrow(total: u128) -> u64 {
    let part = |n: u32| (total >> (32 * n)) as u64 & 0xffff_ffff;
    part(0) + part(1) + part(2) + part(3)
}

/// Adds carries in until there are none.
fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// What the checksum of `len` bytes of `protocol` begins with (RFC 9293, 3.1; RFC 8200, 8.1).
pub(crate) fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, len: usize) -> u16 {
    let address = |address: IpAddr| match address {
        IpAddr::V4(address) => sum(&address.octets()),
        IpAddr::V6(address) => sum(&address.octets()),
    };
    let parts = u64::from(address(from)) + u64::from(address(to)) + u64::from(protocol);
    fold(parts + len as u64)
}

/// Whether `bytes` of `protocol`, with the checksum in them, are as they were sent.
pub(crate) fn is_right(from: IpAddr, to: IpAddr, protocol: u8, bytes: &[u8]) -> bool {
    let seed = pseudo_header(from, to, protocol, bytes.len());
    fold(u64::from(sum(bytes)) + u64::from(seed)) == 0xffff
}

/// Writes the checksum of `bytes`, which begins with `seed`, at `at`.
pub(crate) fn put(bytes: &mut [u8], at: usize, seed: u16) {
    let Some(field) = bytes.get_mut(at..at + 2) else {
        return;
    };
    field.copy_from_slice(&[0, 0]);
    let value = !fold(u64::from(sum(bytes)) + u64::from(seed));
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smoltcp::wire::{IpProtocol, TcpPacket};

    /// As RFC 1071 says it.
    fn plain(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|w| match w {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(*high) << 8,
            _ => 0,
        });
        fold(words.sum())
    }

    #[test]
    fn the_largest_sum_fits() {
        assert_eq!(sum(&[0xff; 65535]), plain(&[0xff; 65535]));
        assert_eq!(sum(&[]), 0);
        assert_eq!(sum(&[0x12]), 0x1200);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_words_of_16_bits(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(sum(&bytes), plain(&bytes));
        }

        #[test]
        fn smoltcp_finds_it_right_and_so_do_we(
            mut bytes in proptest::collection::vec(any::<u8>(), 20..100),
            v6 in any::<bool>(),
            (from, to) in (any::<u128>(), any::<u128>()),
            wrong in (any::<proptest::sample::Index>(), 1..=255u8),
        ) {
            let address = |bits: u128| match v6 {
                true => IpAddr::V6(bits.into()),
                false => IpAddr::V4((bits as u32).into()),
            };
            let (from, to) = (address(from), address(to));
            let seed = pseudo_header(from, to, 6, bytes.len());
            put(&mut bytes, 16, seed);
            prop_assert!(TcpPacket::new_unchecked(&bytes).verify_checksum(&from.into(), &to.into()));
            prop_assert!(is_right(from, to, u8::from(IpProtocol::Tcp), &bytes));
            let at = wrong.0.index(bytes.len());
            bytes[at] ^= wrong.1;
            prop_assert!(!is_right(from, to, u8::from(IpProtocol::Tcp), &bytes));
        }
    }
}
