//! Raw, ping and packet sockets, over loopback and over a cable.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use machine::Account;
use net::addr::Hardware;
use net::*;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

const RAW: u32 = 3;
const PACKET: u32 = 17;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;
const SOL_RAW: i32 = 255;
/// Big-endian numbers of `socket(2)` and of frames.
const ETH_ALL: u32 = 0x0300;
const ETH_ARP: u16 = 0x0806;

/// A capsule with the right to raw sockets.
fn raw_stack(node: &Arc<NetNode>) -> Arc<NetStack> {
    node.new_stack(StackConfig {
        ports: vec![],
        outbound: true,
        raw: true,
        system: false,
        account: Arc::new(Account::new(1000).unwrap()),
        sockets_max: 100,
    })
    .unwrap()
}

fn request(kind: u8, id: u16, text: &[u8]) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    let mut m = vec![kind, 0, 0, 0, high, low, 0, 7];
    m.extend_from_slice(text);
    m
}

/// The sum of RFC 1071, 0 for a message whose checksum is right.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | c.get(1).map_or(0, |b| u32::from(*b)));
    let sum = words.sum::<u32>();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

fn wait(s: &Socket) -> Option<(Vec<u8>, Received)> {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        if let Ok(got) = recv_with(s, 2000, MsgFlags::DONTWAIT) {
            return Some(got);
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

fn nothing(s: &Socket) -> bool {
    thread::sleep(Duration::from_millis(30));
    matches!(recv_now(s, 2000), Err(Error::WOULD_BLOCK))
}

#[test]
fn anybody_may_ping_and_hears_his_own_replies_only() {
    let (a, _b, _cable) = joined(Faults::default());
    let here = stack_on(&a, vec![], false);
    for (family, protocol, kind, to) in [
        (INET, ICMP, 8, "127.0.0.1:0"),
        (INET, ICMP, 8, "10.0.0.1:0"),
        (INET, ICMP, 8, "10.0.0.2:0"),
        (INET6, ICMPV6, 128, "[::1]:0"),
    ] {
        let s = Socket::new(&here, family, DGRAM, protocol).unwrap();
        let other = Socket::new(&here, family, DGRAM, protocol).unwrap();
        send_to(&other, &request(kind, 1, b"other"), at(to)).unwrap();
        assert!(wait(&other).is_some());
        send_to(&s, &request(kind, 99, b"payload"), at(to)).unwrap();
        let (reply, r) = wait(&s).expect(to);
        assert_eq!(reply[0], if kind == 8 { 0 } else { 129 }, "{to}");
        let Address::Inet(own) = s.local() else {
            panic!()
        };
        let id = u16::from_be_bytes([reply[4], reply[5]]);
        assert_eq!(id, own.port(), "the identifier is the socket's");
        assert_eq!(&reply[8..], b"payload");
        assert_eq!(r.from, Some(at(to)));
        if kind == 8 {
            assert_eq!(checksum(&reply), 0);
        }
        assert!(nothing(&other) && nothing(&s));
        let bad = send_to(&s, &request(13, 1, b""), at(to));
        assert_eq!(bad, Err(Error::INVALID), "only echo requests");
        assert_eq!(send_to(&s, &[kind, 0], at(to)), Err(Error::INVALID));
    }
    let (s, t) = (
        Socket::new(&here, INET, DGRAM, ICMP).unwrap(),
        Socket::new(&here, INET, DGRAM, ICMP).unwrap(),
    );
    s.bind(at("0.0.0.0:77")).unwrap();
    assert_eq!(t.bind(at("0.0.0.0:77")), Err(Error::AddressInUse));
    drop(s);
    t.bind(at("0.0.0.0:77")).unwrap();
}

#[test]
fn raw_sockets_are_granted() {
    let node = node();
    let plain = stack_on(&node, vec![], false);
    for (family, style) in [(INET, RAW), (INET6, RAW), (PACKET, RAW), (PACKET, DGRAM)] {
        let refused = Socket::new(&plain, family, style, 1).err();
        assert_eq!(refused, Some(Error::NOT_PERMITTED));
        assert!(Socket::new(&raw_stack(&node), family, style, 1).is_ok());
        assert!(Socket::needs_raw(family, style));
    }
    assert!(!Socket::needs_raw(INET, DGRAM) && !Socket::needs_raw(UNIX, RAW));
}

#[test]
fn a_raw_socket_gets_packets_with_their_header() {
    let (a, b, _cable) = joined(Faults::default());
    let (here, there) = (raw_stack(&a), raw_stack(&b));
    let s = Socket::new(&here, INET, RAW, ICMP).unwrap();
    let peer = Socket::new(&there, INET, RAW, ICMP).unwrap();
    let stranger = Socket::new(&there, INET, RAW, 89).unwrap();
    let mut echo = request(8, 5, b"abc");
    let sum = checksum(&echo);
    echo[2..4].copy_from_slice(&sum.to_be_bytes());
    send_to(&s, &echo, at("10.0.0.2:0")).unwrap();
    let (packet, r) = wait(&peer).expect("the request on the other machine");
    assert_eq!((packet[0], packet[9]), (0x45, 1));
    assert_eq!(packet[20..], echo);
    assert_eq!(r.from, Some(at("10.0.0.1:0")));
    let (reply, _) = wait(&s).expect("its reply");
    assert_eq!(reply[20], 0);
    assert!(nothing(&stranger));
    // Replies are not wanted any more (ICMP_FILTER).
    s.set_option(SOL_RAW, 1, &1u32.to_ne_bytes()).unwrap();
    assert_eq!(s.option(SOL_RAW, 1).unwrap(), 1u32.to_ne_bytes());
    send_to(&s, &echo, at("10.0.0.2:0")).unwrap();
    assert!(wait(&peer).is_some());
    assert!(nothing(&s));
    // With a header of its own.
    let whole = Socket::new(&here, INET, RAW, 255).unwrap();
    let mut own = vec![
        0x45, 0, 0, 0, 0, 0, 0, 0, 9, 89, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2,
    ];
    own.extend_from_slice(b"ospf");
    send_to(&whole, &own, at("10.0.0.2:0")).unwrap();
    let (packet, r) = wait(&stranger).expect("a packet of another protocol");
    assert_eq!((&packet[20..], packet[8]), (&b"ospf"[..], 9));
    assert_eq!(r.from, Some(at("10.0.0.1:0")), "the kernel filled it in");
    let short = send_to(&whole, &own[..12], at("10.0.0.2:0"));
    assert_eq!(short, Err(Error::INVALID));
    own.resize(1501, 0);
    let long = send_to(&whole, &own, at("10.0.0.2:0"));
    assert_eq!(long, Err(Error::MessageSize));
}

#[test]
fn packet_sockets_see_frames_in_and_out() {
    let (a, _b, _cable) = joined(Faults::default());
    let here = raw_stack(&a);
    let all = Socket::new(&here, PACKET, RAW, ETH_ALL).unwrap();
    let arp = Socket::new(&here, PACKET, DGRAM, u32::from(ETH_ARP.to_be())).unwrap();
    let filtered = Socket::new(&here, PACKET, RAW, ETH_ALL).unwrap();
    // "the second byte of the type is 6": ret #64 or ret #0.
    let program: Vec<u8> = [
        (0x30u16, 0u8, 0u8, 13u32),
        (0x15, 0, 1, 6),
        (6, 0, 0, 64),
        (6, 0, 0, 0),
    ]
    .iter()
    .flat_map(|(c, t, f, k)| [&c.to_ne_bytes()[..], &[*t, *f], &k.to_ne_bytes()].concat())
    .collect();
    filtered.attach_filter(&program).unwrap();
    assert_eq!(filtered.attach_filter(&program[..16]), Err(Error::INVALID));
    assert_eq!(udp(&here).attach_filter(&program), Err(Error::NoOption));
    let mut who_has = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1];
    who_has.extend_from_slice(&[0, 0, 0, 0, 0, 0, 10, 0, 0, 2]);
    let mut to = Hardware {
        protocol: ETH_ARP,
        link: 2,
        ..Hardware::default()
    };
    to.set_address([0xff; 6]);
    send_to(&arp, &who_has, Address::Hardware(to)).unwrap();
    let (frame, r) = wait(&all).expect("what was sent");
    assert_eq!(frame[..6], [0xff; 6]);
    assert_eq!(frame[14..], who_has);
    let Some(Address::Hardware(from)) = r.from else {
        panic!()
    };
    assert_eq!((from.kind, from.link, from.protocol), (4, 2, ETH_ARP));
    let (answer, r) = wait(&arp).expect("the answer");
    assert_eq!(answer[..8], [0, 1, 8, 0, 6, 4, 0, 2]);
    let Some(Address::Hardware(from)) = r.from else {
        panic!()
    };
    assert_eq!(
        (from.kind, &from.address[..6]),
        (0, &[2, 0, 0, 0, 0, 2][..])
    );
    // Requests and answers pass the filter, a ping does not.
    let ping = Socket::new(&here, INET, DGRAM, ICMP).unwrap();
    send_to(&ping, &request(8, 0, b""), at("10.0.0.2:0")).unwrap();
    assert!(wait(&ping).is_some());
    while let Ok(frame) = recv_now(&filtered, 2000) {
        assert_eq!(frame[12..14], ETH_ARP.to_be_bytes());
    }
    let seen = filtered.option(263, 6).unwrap();
    assert!(u32::from_ne_bytes(seen[..4].try_into().unwrap()) >= 2);
    assert_eq!(filtered.option(263, 6).unwrap(), [0; 8], "counted anew");
    // Nowhere to go, and too long.
    to.link = 0;
    let nowhere = send_to(&arp, &who_has, Address::Hardware(to));
    assert_eq!(nowhere, Err(Error::NO_SUCH_ADDRESS));
    to.link = 2;
    let long = send_to(&all, &[0; 1515], Address::Hardware(to));
    assert_eq!(long, Err(Error::MessageSize));
    all.bind(Address::Hardware(Hardware { link: 1, ..to }))
        .unwrap();
    while recv_now(&all, 2000).is_ok() {}
    send_to(&arp, &who_has, Address::Hardware(to)).unwrap();
    assert!(nothing(&all), "it is bound to loopback");
}

#[test]
fn time_of_arrival_is_told_to_who_asks() {
    let s = udp(&stack());
    s.bind(at("127.0.0.1:5000")).unwrap();
    send_to(&s, b"x", at("127.0.0.1:5000")).unwrap();
    assert_eq!(recv_with(&s, 10, MsgFlags::empty()).unwrap().1.time, None);
    s.set_option(1, 29, &1i32.to_ne_bytes()).unwrap();
    let before = machine::time::wall();
    send_to(&s, b"x", at("127.0.0.1:5000")).unwrap();
    let time = recv_with(&s, 10, MsgFlags::empty())
        .unwrap()
        .1
        .time
        .unwrap();
    assert!((before..=machine::time::wall()).contains(&time));
}
