//! Fragments that strangers make by hand.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;
use std::net::Ipv6Addr;
use std::sync::{Arc, Mutex};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 9);
const FAR6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
const EVERYTHING: Checked = Checked {
    header: true,
    transport: true,
};

/// A link that keeps what was sent.
#[derive(Default)]
struct Tap(Mutex<Vec<Vec<u8>>>);

impl Link for Tap {
    fn mac(&self) -> [u8; 6] {
        MAC
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn is_up(&self) -> bool {
        true
    }
    fn transmit(&self, frame: &[u8]) -> bool {
        assert!(frame.len() <= 1514);
        self.0.lock().unwrap().push(frame.to_vec());
        true
    }
    fn room(&self) -> usize {
        64
    }
    fn flush(&self) {}
}

struct Target {
    port: Arc<Port>,
    tap: Arc<Tap>,
    socket: Arc<Socket>,
    node: Arc<NetNode>,
}

/// A node with the address [`A`] and a socket on port 53 for both versions.
fn target() -> Target {
    let _ = machine::timer::start();
    let (node, tap) = (node(), Arc::new(Tap::default()));
    let port = node.attach_link("tap", tap.clone()).unwrap();
    assert!(node.configure_static(&StaticConfig {
        address: A,
        prefix: 24,
        gateway: None,
        dns: Default::default(),
    }));
    let stack = stack_on(&node, publish(Protocol::Udp, 53, 53), false);
    let socket = Socket::new(&stack, INET6, DGRAM, 0).unwrap();
    socket.bind(at("[::]:53")).unwrap();
    Target {
        port,
        tap,
        socket,
        node,
    }
}

impl Target {
    /// The device has looked at all of it, it says.
    fn give(&self, frame: &[u8]) {
        self.port.receive_checked(frame, EVERYTHING);
    }

    fn got(&self) -> Option<Vec<u8>> {
        recv_now(&self.socket, 70_000).ok()
    }
}

fn ends(v6: bool) -> (IpAddress, IpAddress) {
    match v6 {
        true => (FAR6.into(), OWN6.into()),
        false => (B.into(), A.into()),
    }
}

/// A datagram to the node with this text and the right checksum.
fn datagram(v6: bool, text: &[u8]) -> Vec<u8> {
    let (from, to) = ends(v6);
    let udp = UdpRepr {
        src_port: 4000,
        dst_port: 53,
    };
    let mut bytes = vec![0; 8 + text.len()];
    let mut packet = UdpPacket::new_unchecked(&mut bytes[..]);
    let fill = |room: &mut [u8]| room.copy_from_slice(text);
    let caps = ChecksumCapabilities::default();
    udp.emit(&mut packet, &from, &to, text.len(), fill, &caps);
    bytes
}

/// A frame to the node with these bytes behind the IP header.
fn frame(v6: bool, next: u8, payload: &[u8]) -> Vec<u8> {
    let (from, to) = ends(v6);
    let ip = IpRepr::new(from, to, next.into(), payload.len(), 64);
    let mut frame = [&MAC[..], &THEIRS, if v6 { &[0x86, 0xdd] } else { &[8, 0] }].concat();
    frame.resize(14 + ip.header_len(), 0);
    ip.emit(&mut frame[14..], &ChecksumCapabilities::default());
    frame.extend_from_slice(payload);
    frame
}

/// A fragment: `place` is the field of its offset and flags.
fn piece(v6: bool, next: u8, (place, id): (u16, u16), data: &[u8]) -> Vec<u8> {
    let [high, low] = place.to_be_bytes();
    let [id_high, id_low] = id.to_be_bytes();
    if v6 {
        let fragment = [next, 0, high, low, 0, 0, id_high, id_low];
        return frame(true, 44, &[&fragment, data].concat());
    }
    let mut frame = frame(false, next, data);
    frame[18..20].copy_from_slice(&[id_high, id_low]);
    let units = place >> 3 | (place & 1) << 13;
    frame[20..22].copy_from_slice(&units.to_be_bytes());
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    frame
}

/// Two fragments of a message that is cut at `at`.
fn halves(v6: bool, next: u8, id: u16, message: &[u8], at: usize) -> [Vec<u8>; 2] {
    let (first, second) = message.split_at(at);
    [
        piece(v6, next, (1, id), first),
        piece(v6, next, (at as u16, id), second),
    ]
}

#[test]
fn no_device_has_seen_the_whole_packet() {
    let t = target();
    for v6 in [false, true] {
        let good = datagram(v6, b"0123456789abcdef");
        let mut wrong = good.clone();
        wrong[6] ^= 0x55;
        for f in halves(v6, 17, 1, &wrong, 16) {
            t.give(&f);
        }
        assert_eq!(t.got(), None);
        for f in halves(v6, 17, 2, &good, 16) {
            assert_eq!(t.got(), None);
            t.give(&f);
        }
        assert_eq!(t.got().unwrap(), b"0123456789abcdef");
    }
}

/// Halves that differ in anything that tells packets apart are of two packets.
#[test]
fn packets_are_not_mixed() {
    for v6 in [false, true] {
        let t = target();
        let good = datagram(v6, b"0123456789abcdef");
        let [first, second] = halves(v6, 17, 1, &good, 16);
        let [_, of_other_id] = halves(v6, 17, 2, &good, 16);
        let address = if v6 { 14 + 8 + 15 } else { 14 + 12 + 3 };
        let mut of_other_sender = second.clone();
        of_other_sender[address] = 77;
        let mut of_other_protocol = second.clone();
        of_other_protocol[14 + 9] = 6;
        for f in [&mut of_other_sender, &mut of_other_protocol] {
            Ipv4Packet::new_unchecked(&mut f[14..]).fill_checksum();
        }
        let others = [of_other_id, of_other_sender, of_other_protocol];
        t.give(&first);
        for f in others.iter().take(if v6 { 2 } else { 3 }) {
            t.give(f);
            assert_eq!(t.got(), None);
        }
        t.give(&second);
        assert!(t.got().is_some());
    }
}

/// A device in between has cut a segment.
#[test]
fn connections_begin_with_segments_in_fragments() {
    let t = target();
    let stack = stack_on(&t.node, publish(Protocol::Tcp, 80, 80), false);
    let _listener = listener(&stack, "0.0.0.0:80", 4);
    let tcp = TcpRepr {
        src_port: 4000,
        dst_port: 80,
        control: TcpControl::Syn,
        seq_number: TcpSeqNumber(1),
        ack_number: None,
        window_len: 1000,
        window_scale: Some(7),
        max_seg_size: Some(1460),
        sack_permitted: true,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (from, to) = ends(false);
    let mut segment = vec![0; tcp.buffer_len()];
    let caps = ChecksumCapabilities::default();
    let mut packet = TcpPacket::new_unchecked(&mut segment[..]);
    tcp.emit(&mut packet, &from, &to, &caps);
    // The neighbour is known.
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 2];
    let arp = [&MAC[..], &THEIRS, &[8, 6], &arp, &[0; 6], &A.octets()].concat();
    t.give(&arp);
    t.tap.0.lock().unwrap().clear();
    for f in halves(false, 6, 1, &segment, 8) {
        assert!(t.tap.0.lock().unwrap().is_empty());
        t.give(&f);
    }
    let answers = t.tap.0.lock().unwrap().clone();
    assert_eq!(answers.len(), 1);
    let answer = TcpPacket::new_checked(&answers[0][34..]).unwrap();
    assert!(answer.syn() && answer.ack());
}

/// RFC 6946: it has nothing to do with others of the same number.
#[test]
fn a_packet_in_one_fragment_is_taken_alone() {
    let t = target();
    let good = datagram(true, b"0123456789abcdef");
    let [first, second] = halves(true, 17, 1, &good, 16);
    t.give(&first);
    t.give(&piece(true, 17, (0, 1), &datagram(true, b"alone")));
    assert_eq!(t.got().unwrap(), b"alone");
    t.give(&second);
    assert_eq!(t.got().unwrap(), b"0123456789abcdef");
}

/// Fragments in fragments could go on for ever.
#[test]
fn fragments_in_fragments_are_dropped() {
    let t = target();
    let good = datagram(true, b"deep");
    let mut inner = good.clone();
    for next in [17].into_iter().chain([44; 180]) {
        inner = [&[next, 0, 0, 0, 0, 0, 0, 1][..], &inner].concat();
    }
    t.give(&frame(true, 44, &inner));
    assert_eq!(t.got(), None);
    for f in halves(true, 44, 1, &inner, 800) {
        t.give(&f);
    }
    assert_eq!(t.got(), None);
    t.give(&piece(true, 17, (0, 1), &good));
    assert_eq!(t.got().unwrap(), b"deep");
}

/// RFC 6980.
#[test]
fn neighbours_are_not_heard_in_fragments() {
    let t = target();
    let solicit = |far: Ipv6Addr| {
        let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
            target_addr: OWN6,
            lladdr: Some(EthernetAddress(THEIRS).into()),
        });
        let mut bytes = vec![0; repr.buffer_len()];
        let mut packet = Icmpv6Packet::new_unchecked(&mut bytes[..]);
        repr.emit(&far, &OWN6, &mut packet, &ChecksumCapabilities::default());
        bytes
    };
    let message = solicit(FAR6);
    let answers = |frames: &[Vec<u8>]| {
        t.tap.0.lock().unwrap().clear();
        for f in frames {
            let mut f = f.clone();
            f[14 + 7] = 255;
            t.give(&f);
        }
        t.tap.0.lock().unwrap().len()
    };
    assert_eq!(answers(&[piece(true, 58, (0, 1), &message)]), 0);
    assert_eq!(answers(&halves(true, 58, 1, &message, 16)), 0);
    assert_eq!(answers(&[frame(true, 58, &message)]), 1);
}

#[test]
fn a_long_ping_with_a_wrong_checksum_is_not_answered() {
    let t = target();
    for v6 in [false, true] {
        let (from, to) = ends(v6);
        let mut message = pattern(2400);
        let kind = if v6 { 128 } else { 8 };
        message[..2].copy_from_slice(&[kind, 0]);
        match (v6, from, to) {
            (true, IpAddress::Ipv6(from), IpAddress::Ipv6(to)) => {
                Icmpv6Packet::new_unchecked(&mut message[..]).fill_checksum(&from, &to);
            }
            _ => Icmpv4Packet::new_unchecked(&mut message[..]).fill_checksum(),
        }
        let next = if v6 { 58 } else { 1 };
        for (id, good) in [(1, false), (2, true)] {
            t.tap.0.lock().unwrap().clear();
            let mut sent = message.clone();
            sent[100] ^= u8::from(!good);
            for f in halves(v6, next, id, &sent, 1200) {
                t.give(&f);
            }
            // The question where to send the answer.
            let asked = !t.tap.0.lock().unwrap().is_empty();
            assert_eq!(asked, good, "{v6}");
        }
    }
}

/// Who connected hears that nobody is there, from a quote that has been cut; not that a packet
/// was too long, and nothing of what is no first fragment.
#[test]
fn errors_that_quote_a_part_are_heard() {
    let t = target();
    let client = &t.socket;
    let far = Address::Inet((B, 4000).into());
    client.connect(&far, me(), false).unwrap();
    let mut quote = frame(false, 17, &datagram(false, &pattern(1400)))[14..14 + 28].to_vec();
    quote[12..16].copy_from_slice(&A.octets());
    quote[16..20].copy_from_slice(&B.octets());
    quote[20..24].copy_from_slice(&[0, 53, 15, 160]);
    let refused = Err(net::Error::File(vfs::Error::Foreign(111)));
    let quiet = Err(net::Error::WOULD_BLOCK);
    for (code, fragment, heard) in [(4, 0, false), (3, 1, false), (3, 0, true)] {
        quote[7] = fragment;
        let mut error = [&[3, code, 0, 0, 0, 0, 5, 0], &quote[..]].concat();
        t.give(&frame(false, 1, &error));
        assert_eq!(recv_now(client, 1), quiet, "the checksum");
        Icmpv4Packet::new_unchecked(&mut error[..]).fill_checksum();
        t.give(&frame(false, 1, &error));
        let told = if heard { &refused } else { &quiet };
        assert_eq!(recv_now(client, 1), *told, "{code} {fragment}");
    }
}

/// Nobody's fragments are kept who is not spoken to.
#[test]
fn what_is_for_others_is_not_put_together() {
    let t = target();
    let good = datagram(false, b"0123456789abcdef");
    for f in halves(false, 17, 1, &good, 16) {
        let mut f = f;
        f[14 + 19] = 200;
        Ipv4Packet::new_unchecked(&mut f[14..]).fill_checksum();
        t.give(&f);
    }
    assert_eq!(t.got(), None);
    // A datagram to everybody is.
    let udp = UdpRepr {
        src_port: 4000,
        dst_port: 53,
    };
    let mut bytes = vec![0; 8 + 16];
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &B.into(),
        &IpAddress::v4(255, 255, 255, 255),
        16,
        |room| room.copy_from_slice(b"0123456789abcdef"),
        &ChecksumCapabilities::default(),
    );
    for f in halves(false, 17, 2, &bytes, 16) {
        let mut f = f;
        f[14 + 16..14 + 20].fill(255);
        Ipv4Packet::new_unchecked(&mut f[14..]).fill_checksum();
        t.give(&f);
    }
    assert_eq!(t.got().unwrap(), b"0123456789abcdef");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    /// Whatever strangers send of fragments, the node goes on, and gives programs nothing but
    /// datagrams that somebody has sent.
    #[test]
    fn no_fragments_upset_a_node(
        v6: bool,
        pieces in proptest::collection::vec(
            (0..40_u16, 0..2_u16, 0..3_u16, 0..60_usize,
             prop_oneof![Just(17_u8), Just(17), Just(6), Just(1), Just(58), Just(44), any::<u8>()]),
            0..40,
        ),
        far in prop::bool::weighted(0.1),
    ) {
        static TARGET: std::sync::OnceLock<Target> = std::sync::OnceLock::new();
        let t = TARGET.get_or_init(target);
        let source = datagram(v6, &pattern(300));
        for (at, more, id, len, next) in pieces {
            let start = usize::from(at) * 8;
            let end = (start + len).min(source.len());
            let data = source.get(start..end).unwrap_or(&[]);
            let place = if far { 0xfff8 - at * 8 } else { at * 8 };
            t.give(&piece(v6, next, (place | more, id), data));
            while let Some(got) = t.got() {
                prop_assert!(got == pattern(300));
            }
        }
    }
}
