//! Whatever comes, in whatever order: a packet is what was sent, or it is not there.

use super::making::PIECES_MAX;
use super::*;
use core::net::Ipv4Addr;
use proptest::prelude::*;
use std::vec;

/// A frame's header and that of a packet of IPv4 from `from`.
fn v4_header(from: IpAddr) -> Vec<u8> {
    let mut header = vec![7; ETHERNET_HEADER + 20];
    header[ETHERNET_HEADER] = 0x45;
    if let IpAddr::V4(from) = from {
        header[ETHERNET_HEADER + 12..][..4].copy_from_slice(&from.octets());
    }
    header
}

fn v4_key(from: u32, id: u32) -> Key {
    Key {
        from: Ipv4Addr::from(0x0a00_0000 + from).into(),
        to: Ipv4Addr::LOCALHOST.into(),
        protocol: 17,
        id,
    }
}

/// Bytes of which no two stretches of eight are alike.
fn bytes(len: usize, seed: u32) -> Vec<u8> {
    let words = (0..).flat_map(|i: u32| {
        let wide = u64::from(i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        wide.to_be_bytes()
    });
    words.take(len).collect()
}

fn add(f: &Fragments, key: &Key, piece: &Piece<'_>, now: u64) -> Option<Vec<u8>> {
    f.add(key, &v4_header(key.from), piece, Instant(now)).whole
}

fn used(f: &Fragments) -> (usize, usize) {
    let table = f.0.lock();
    let all: usize = table.packets.values().map(Entry::cost).sum();
    assert_eq!(all, table.bytes, "it is counted as it is");
    (table.bytes, table.packets.len())
}

/// The payload of a whole frame, whose header is as it should be.
fn payload(frame: &[u8]) -> &[u8] {
    let packet = Ipv4Packet::new_checked(&frame[ETHERNET_HEADER..]).unwrap();
    assert!(packet.verify_checksum());
    assert!(!packet.more_frags() && packet.frag_offset() == 0);
    assert_eq!(
        usize::from(packet.total_len()),
        frame.len() - ETHERNET_HEADER
    );
    &frame[ETHERNET_HEADER + 20..]
}

#[test]
fn what_no_sender_makes_is_no_piece() {
    let data = [0; 16];
    for (start, is_last, len, good) in [
        (0, false, 16, true),
        (0, false, 15, false),
        (0, true, 15, true),
        (8, true, 0, false),
        (8, false, 0, false),
        (4, false, 8, false),
        (65_528, true, 7, true),
        (65_528, true, 8, false),
        (65_528, false, 8, false),
    ] {
        let piece = Piece::new(start, is_last, &data[..len]);
        assert_eq!(piece.is_some(), good, "{len} at {start}");
    }
}

/// Each of these spoils the packet, and what comes later does not make it good.
#[test]
fn what_contradicts_spoils_the_packet() {
    let data = bytes(64, 1);
    let other = bytes(64, 2);
    let whole = [(0, false, 0..24), (24, false, 24..48), (48, true, 48..64)];
    // When the first and the last one are there:
    for (start, is_last, bad) in [
        // Over the end and the beginning of another one, inside and around it.
        (16, false, &data[16..32]),
        (8, false, &data[8..16]),
        (0, false, &data[..32]),
        (0, false, &other[..24]),
        // Two ends, and something behind the end.
        (40, true, &data[40..48]),
        (56, true, &data[56..64]),
        (64, false, &data[..8]),
        (64, true, &data[..8]),
        (48, false, &data[48..64]),
        (24, true, &data[24..48]),
    ] {
        let f = Fragments::new();
        let (key, mut got) = (v4_key(1, 1), vec![]);
        let bad = Piece::new(start, is_last, bad).unwrap();
        let piece = |i: usize| {
            let (start, is_last, range) = whole[i].clone();
            Piece::new(start, is_last, &data[range]).unwrap()
        };
        for piece in [
            piece(2),
            piece(0),
            bad,
            piece(1),
            piece(0),
            piece(1),
            piece(2),
        ] {
            got.extend(add(&f, &key, &piece, 0));
        }
        assert!(got.is_empty(), "{start} {is_last}");
        assert_eq!(used(&f), (PACKET_COST, 1));
    }
}

#[test]
fn a_packet_too_long_for_its_header_is_dropped() {
    let f = Fragments::new();
    let (key, data) = (v4_key(1, 1), bytes(65_535, 3));
    let first = Piece::new(0, false, &data[..32_768]).unwrap();
    let last = |end| Piece::new(32_768, true, &data[32_768..end]).unwrap();
    assert_eq!(add(&f, &key, &first, 0), None);
    assert_eq!(add(&f, &key, &last(65_516), 0), None);
    assert_eq!(used(&f), (0, 0));
    assert_eq!(add(&f, &key, &first, 0), None);
    let whole = add(&f, &key, &last(65_515), 0).unwrap();
    assert!(payload(&whole) == &data[..65_515]);
}

/// Who sends what never gets whole has a share, and room is made by its own oldest packets.
#[test]
fn one_sender_does_not_crowd_out_others() {
    let f = Fragments::new();
    let data = bytes(1480 * 2, 4);
    let first = Piece::new(0, false, &data[..1480]).unwrap();
    let second = Piece::new(1480, true, &data[1480..]).unwrap();
    let victim = v4_key(1, 1);
    assert_eq!(add(&f, &victim, &first, 0), None);
    for id in 0..20_000 {
        let piece = if id % 2 == 0 { first } else { second };
        assert_eq!(add(&f, &v4_key(2, id), &piece, u64::from(id)), None);
        if id % 16 == 0 {
            let (bytes, packets) = used(&f);
            assert!(bytes <= SENDER_BYTES_MAX + 2000 && packets <= SENDER_PACKETS_MAX + 1);
        }
    }
    // The flood's newest are there, and the other sender's.
    let whole = add(&f, &v4_key(2, 19_998), &second, 20_000).unwrap();
    assert!(payload(&whole) == data);
    let whole = add(&f, &victim, &second, 20_000).unwrap();
    assert!(payload(&whole) == data);
    assert_eq!(whole[ETHERNET_HEADER + 12..][..4], [10, 0, 0, 1]);
}

/// Many senders, long and short fragments: all in bounds, and nothing is kept for ever.
#[test]
fn memory_is_bounded_and_given_back() {
    for (len, step) in [(1480, 1480), (8, 8), (65_000, 65_000)] {
        let f = Fragments::new();
        let data = bytes(len, 5);
        let mut timed = vec![];
        for n in 0..6000 {
            let piece = Piece::new(step * usize::from(len < 2000), false, &data).unwrap();
            let key = v4_key(n % 1000, n);
            let header = v4_header(key.from);
            let taken = f.add(&key, &header, &piece, Instant(u64::from(n)));
            timed.extend(taken.expire_at);
            if n % 16 == 0 {
                let (bytes, packets) = used(&f);
                assert!(bytes <= BYTES_MAX && packets <= PACKETS_MAX, "{bytes}");
            }
        }
        // The table is full, of the newest.
        let (bytes, packets) = used(&f);
        assert!(bytes + 80_000 > BYTES_MAX || packets == PACKETS_MAX);
        assert!(f.0.lock().packets.contains_key(&v4_key(999, 5999)));
        assert_eq!(timed, [Instant(0).after(LIFE_V4)], "one timer for all");
        let next = f.expire(timed[0]).expect("some are younger");
        assert!(next > timed[0] && used(&f).1 > 0);
        assert_eq!(f.expire(Instant(6000).after(LIFE_V4)), None);
        assert_eq!(used(&f), (0, 0));
        assert_eq!(f.0.lock().packets.capacity(), 0);
        // The timer is wanted again by the next one.
        let piece = Piece::new(0, false, &data).unwrap();
        let later = Instant(7000).after(LIFE_V4);
        let taken = f.add(&v4_key(1, 1), &v4_header(v4_key(1, 1).from), &piece, later);
        assert_eq!(taken.expire_at, Some(later.after(LIFE_V4)));
    }
}

#[test]
fn a_packet_has_so_many_pieces_and_no_more() {
    for count in [PIECES_MAX, PIECES_MAX + 1] {
        let f = Fragments::new();
        let data = bytes(8 * count, 6);
        let mut got = None;
        for (n, part) in data.chunks(8).enumerate() {
            let piece = Piece::new(8 * n, n + 1 == count, part).unwrap();
            got = got.or(add(&f, &v4_key(1, 1), &piece, 0));
        }
        assert_eq!(got.is_some(), count == PIECES_MAX);
    }
}

#[test]
fn what_comes_too_late_begins_anew() {
    let f = Fragments::new();
    let (old, new) = (bytes(16, 7), bytes(16, 8));
    let key = v4_key(1, 1);
    let first = |data| Piece::new(0, false, data).unwrap();
    let second = |data| Piece::new(8, true, data).unwrap();
    assert_eq!(add(&f, &key, &first(&old[..8]), 0), None);
    let late = Instant(0).after(LIFE_V4).0;
    assert_eq!(add(&f, &key, &second(&new[8..]), late), None);
    let whole = add(&f, &key, &first(&new[..8]), late).unwrap();
    assert_eq!(payload(&whole), new);
    // Fragments of IPv6 wait for twice as long.
    let v6 = Key {
        from: core::net::Ipv6Addr::LOCALHOST.into(),
        ..key
    };
    assert_eq!(add(&f, &v6, &first(&old[..8]), 0), None);
    assert_eq!(f.expire(Instant(late)), Some(Instant(0).after(LIFE_V6)));
}

/// Cuts a packet of IPv4 or IPv6 for this MTU, and reads the fragments.
fn cut(payload: &[u8], v6: bool, mtu: usize) -> Vec<(usize, bool, Vec<u8>)> {
    let mut packet = vec![0; if v6 { V6_HEADER } else { 20 }];
    packet[0] = if v6 { 0x60 } else { 0x45 };
    packet[6] = if v6 { 17 } else { 0x40 };
    packet.extend_from_slice(payload);
    let mut cut = Cut::new(&packet, mtu, 0x1234_5678).unwrap();
    let mut all = vec![];
    while let Some(frame) = cut.next_frame() {
        let fragment = &frame[ETHERNET_HEADER..];
        assert!(fragment.len() <= mtu);
        all.push(if v6 {
            let p = Ipv6Packet::new_checked(fragment).unwrap();
            assert_eq!(p.total_len(), fragment.len());
            let [44, 17, 0, high, low, 0x12, 0x34, 0x56, 0x78] =
                [&fragment[6..7], &p.payload()[..8]].concat()[..]
            else {
                panic!("{fragment:?}");
            };
            let place = u16::from_be_bytes([high, low]);
            let data = p.payload()[8..].to_vec();
            (usize::from(place & !7), place & 7 == 0, data)
        } else {
            let p = Ipv4Packet::new_checked(fragment).unwrap();
            assert_eq!(usize::from(p.total_len()), fragment.len());
            assert!(p.verify_checksum() && !p.dont_frag() && p.ident() == 0x5678);
            let data = p.payload().to_vec();
            (usize::from(p.frag_offset()), !p.more_frags(), data)
        });
    }
    all
}

#[test]
fn nothing_is_cut_for_a_link_too_small() {
    let mut packet = vec![0; 100];
    packet[0] = 0x45;
    for (mtu, good) in [(0, false), (27, false), (28, true), (100, true)] {
        assert_eq!(Cut::new(&packet, mtu, 0).is_ok(), good, "{mtu}");
    }
    assert!(Cut::new(&packet[..19], 1500, 0).is_err());
    assert!(Cut::new(&[], 1500, 0).is_err());
}

#[test]
fn identifications_do_not_repeat_soon() {
    let ids = Identifications::new();
    let (a, b) = (v4_key(1, 0).from, v4_key(2, 0).from);
    let mut seen: Vec<u16> = (0..60_000).map(|_| ids.next(a, b, 17) as u16).collect();
    let other = Identifications::new();
    assert_ne!(u32::from(seen[0]), other.next(a, b, 17) & 0xffff);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 60_000);
}

/// A piece of one of the packets: which one, where it begins and how long it is in parts of eight
/// bytes, and whether its bytes are not the packet's.
type Chosen = (usize, usize, usize, bool);

fn pieces() -> impl Strategy<Value = Vec<Chosen>> {
    let piece = (
        0..3_usize,
        0..12_usize,
        1..6_usize,
        prop::bool::weighted(0.05),
    );
    proptest::collection::vec(piece, 0..60)
}

proptest! {
    /// Pieces of three packets of the same sender: any order, any overlap, some forged. What gets
    /// whole is what was sent, unless bytes of it were forged.
    #[test]
    fn a_packet_is_what_was_sent_or_is_not_there(chosen in pieces(), odd in 1..8_usize) {
        let f = Fragments::new();
        let packets: Vec<Vec<u8>> = (0..3).map(|n| bytes(8 * 12 - odd, 100 + n)).collect();
        let forged = bytes(8 * 12, 99);
        let mut is_forged = [false; 3];
        for (n, start, len, forge) in chosen {
            let source = if forge { &forged } else { &packets[n] };
            let range = 8 * start..(8 * (start + len)).min(packets[n].len());
            let is_last = range.end == packets[n].len();
            let piece = Piece::new(8 * start, is_last, &source[range]).unwrap();
            is_forged[n] |= forge;
            if let Some(whole) = add(&f, &v4_key(1, n as u32), &piece, 0) {
                let got = payload(&whole);
                prop_assert_eq!(got.len(), packets[n].len());
                prop_assert!(is_forged[n] || got == packets[n]);
                // What is of no packet here is in none.
                for (at, byte) in got.iter().enumerate() {
                    prop_assert!(*byte == packets[n][at] || *byte == forged[at]);
                }
                is_forged[n] = false;
            }
            used(&f);
        }
    }

    /// What is cut and comes in any order, some of it twice, is whole again; a fragment less,
    /// and it is not.
    #[test]
    fn what_is_cut_is_put_together(
        len in 1..66_000_usize,
        v6: bool,
        mtu in prop_oneof![Just(1500_usize), 600..9000_usize],
        seed: u64,
        missing: Option<prop::sample::Index>,
    ) {
        let len = len.min(if v6 { 65_535 } else { 65_515 });
        let data = bytes(len, 9);
        let mut parts = cut(&data, v6, mtu);
        let joined: Vec<u8> = parts.iter().flat_map(|p| p.2.clone()).collect();
        prop_assert!(joined == data);
        // In some order; the places are the fragments' own.
        parts.sort_by_key(|p| (p.0 as u64 + 1).wrapping_mul(seed | 1));
        let key = match v6 {
            true => Key { from: core::net::Ipv6Addr::LOCALHOST.into(), ..v4_key(1, 1) },
            false => v4_key(1, 1),
        };
        let mut header = v4_header(key.from);
        if v6 {
            header.resize(ETHERNET_HEADER + V6_HEADER, 0);
            header[ETHERNET_HEADER] = 0x60;
        }
        let f = Fragments::new();
        let missing = missing.filter(|_| parts.len() > 1).map(|i| i.index(parts.len()));
        let mut got = vec![];
        for (n, (start, is_last, bytes)) in parts.iter().enumerate() {
            let piece = Piece::new(*start, *is_last, bytes).unwrap();
            for _ in 0..1 + n % 2 {
                if missing != Some(n) && got.is_empty() {
                    got.extend(f.add(&key, &header, &piece, Instant(0)).whole);
                }
            }
        }
        prop_assert_eq!(got.len(), usize::from(missing.is_none()));
        if let Some(whole) = got.first() {
            prop_assert!(whole[header.len()..] == data);
        }
    }
}
