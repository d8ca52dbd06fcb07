//! Multicast groups: between capsules, over a cable, and what routers are told.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
const IP_MULTICAST_IF: i32 = 32;
const IP_MULTICAST_TTL: i32 = 33;
const IP_MULTICAST_LOOP: i32 = 34;
const IP_ADD_MEMBERSHIP: i32 = 35;
const IP_DROP_MEMBERSHIP: i32 = 36;
const IP_BLOCK_SOURCE: i32 = 38;
const IP_MULTICAST_ALL: i32 = 49;
const IPV6_JOIN_GROUP: i32 = 20;
const MCAST_JOIN_GROUP: i32 = 42;
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const NO_DEVICE: Error = Error::File(vfs::Error::NotSuchDevice);

fn mreq(group: Ipv4Addr, address: Ipv4Addr) -> Vec<u8> {
    [group.octets(), address.octets()].concat()
}

fn join(s: &Socket, group: Ipv4Addr) -> Result<()> {
    s.set_option(
        SOL_IP,
        IP_ADD_MEMBERSHIP,
        &mreq(group, Ipv4Addr::UNSPECIFIED),
    )
}

fn on(s: &Socket, name: i32, value: i32) {
    s.set_option(SOL_IP, name, &value.to_ne_bytes()).unwrap();
}

/// A socket on port 5000 that shares it.
fn member(stack: &Arc<NetStack>) -> Arc<Socket> {
    let s = udp(stack);
    s.set_option(1, 2, &1i32.to_ne_bytes()).unwrap();
    s.bind(at("0.0.0.0:5000")).unwrap();
    s
}

fn to_group() -> Address {
    at("239.1.2.3:5000")
}

/// What comes within a while, and its sender.
fn heard(s: &Socket) -> Option<(Vec<u8>, Address)> {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if let Ok((data, r)) = recv_with(s, 100, MsgFlags::DONTWAIT) {
            return Some((data, r.from.unwrap()));
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

fn silent(s: &Socket) -> bool {
    thread::sleep(Duration::from_millis(30));
    matches!(recv_now(s, 100), Err(Error::WOULD_BLOCK))
}

#[test]
fn members_on_another_machine_hear_and_others_do_not() {
    let (a, b, _cable) = joined(Faults::default());
    let (here, there) = (stack_on(&a, vec![], false), stack_on(&b, vec![], false));
    let stranger = member(&stack_on(&b, vec![], false));
    let (one, two) = (member(&there), member(&there));
    join(&one, GROUP).unwrap();
    let sender = udp(&here);
    on(&sender, IP_MULTICAST_TTL, 3);
    assert_eq!(send_to(&sender, b"first", to_group()), Ok(5));
    let (data, from) = heard(&one).expect("a member hears");
    assert_eq!(data, b"first");
    let Address::Inet(from) = from else { panic!() };
    assert_eq!(from.ip(), A);
    // The other socket of the capsule too, until it wants its own groups only.
    assert!(heard(&two).is_some());
    on(&two, IP_MULTICAST_ALL, 0);
    send_to(&sender, b"second", to_group()).unwrap();
    assert!(heard(&one).is_some());
    assert!(silent(&two) && silent(&stranger));
    // A sender that is not wanted.
    let blocked = [GROUP.octets(), B.octets(), A.octets()].concat();
    one.set_option(SOL_IP, IP_BLOCK_SOURCE, &blocked).unwrap();
    send_to(&sender, b"third", to_group()).unwrap();
    assert!(silent(&one));
    let leave = mreq(GROUP, B);
    one.set_option(SOL_IP, IP_DROP_MEMBERSHIP, &leave).unwrap();
    let again = one.set_option(SOL_IP, IP_DROP_MEMBERSHIP, &leave);
    assert_eq!(again, Err(Error::AddressNotAvailable));
    on(&two, IP_MULTICAST_ALL, 1);
    send_to(&sender, b"fourth", to_group()).unwrap();
    assert!(silent(&one) && silent(&two));
}

#[test]
fn the_machine_of_the_sender_hears_unless_he_says_no() {
    let (a, _b, _cable) = joined(Faults::default());
    let (mine, other) = (stack_on(&a, vec![], false), stack_on(&a, vec![], false));
    let (own, neighbour) = (member(&mine), member(&other));
    join(&own, GROUP).unwrap();
    join(&neighbour, GROUP).unwrap();
    let sender = udp(&mine);
    // Time to live 0: nothing leaves the machine.
    on(&sender, IP_MULTICAST_TTL, 0);
    let sent = _cable.ends[0]
        .sent
        .load(std::sync::atomic::Ordering::Relaxed);
    send_to(&sender, b"x", to_group()).unwrap();
    let (_, from) = heard(&own).expect("its own capsule hears");
    let Address::Inet(from) = from else { panic!() };
    let Address::Inet(bound) = sender.local() else {
        panic!()
    };
    assert_eq!(from.port(), bound.port());
    assert!(heard(&neighbour).is_some());
    on(&sender, IP_MULTICAST_LOOP, 0);
    send_to(&sender, b"y", to_group()).unwrap();
    assert!(silent(&own) && silent(&neighbour));
    let now = _cable.ends[0]
        .sent
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(now, sent, "a packet left the machine");
    // The end of a capsule is the end of its membership.
    other.shutdown();
    on(&sender, IP_MULTICAST_LOOP, 1);
    send_to(&sender, b"z", to_group()).unwrap();
    assert!(heard(&own).is_some());
}

#[test]
fn loopback_groups_stay_inside_and_need_no_permission() {
    let inside = node()
        .new_stack(StackConfig {
            ports: vec![],
            outbound: false,
            raw: false,
            system: false,
            account: Arc::new(machine::Account::new(1000).unwrap()),
            sockets_max: 100,
        })
        .unwrap();
    let m = member(&inside);
    assert_eq!(join(&m, GROUP), Err(NO_DEVICE));
    let request = mreq(GROUP, Ipv4Addr::LOCALHOST);
    m.set_option(SOL_IP, IP_ADD_MEMBERSHIP, &request).unwrap();
    let twice = m.set_option(SOL_IP, IP_ADD_MEMBERSHIP, &request);
    assert_eq!(twice, Err(Error::AddressInUse));
    let sender = udp(&inside);
    assert_eq!(
        send_to(&sender, b"x", to_group()),
        Err(Error::NetworkUnreachable)
    );
    let lo = Ipv4Addr::LOCALHOST.octets();
    sender.set_option(SOL_IP, IP_MULTICAST_IF, &lo).unwrap();
    assert_eq!(sender.option(SOL_IP, IP_MULTICAST_IF).unwrap(), lo);
    send_to(&sender, b"x", to_group()).unwrap();
    let (data, _) = heard(&m).expect("a member on loopback hears");
    assert_eq!(data, b"x");
    let elsewhere = [10, 9, 9, 9];
    let refused = sender.set_option(SOL_IP, IP_MULTICAST_IF, &elsewhere);
    assert_eq!(refused, Err(Error::AddressNotAvailable));
    assert_eq!(join(&m, Ipv4Addr::LOCALHOST), Err(Error::INVALID));
    assert_eq!(join(&tcp(&inside), GROUP), Err(Error::Protocol));
}

#[test]
fn groups_of_ipv6_by_number_of_the_link() {
    let (a, b, _cable) = joined(Faults::default());
    let there = stack_on(&b, vec![], false);
    let s = Socket::new(&there, INET6, DGRAM, 0).unwrap();
    s.bind(at("[::]:5000")).unwrap();
    let Address::Inet(group) = at("[ff12::77]:5000") else {
        panic!()
    };
    // `struct group_req`.
    let mut request = vec![2, 0, 0, 0, 0, 0, 0, 0];
    request.extend_from_slice(&Address::Inet(group).to_raw(true));
    request.resize(136, 0);
    s.set_option(SOL_IPV6, MCAST_JOIN_GROUP, &request).unwrap();
    let mut old = group
        .ip()
        .to_string()
        .parse::<std::net::Ipv6Addr>()
        .unwrap()
        .octets()
        .to_vec();
    old.extend_from_slice(&2u32.to_ne_bytes());
    let twice = s.set_option(SOL_IPV6, IPV6_JOIN_GROUP, &old);
    assert_eq!(twice, Err(Error::AddressInUse));
    request[0] = 9;
    let nowhere = s.set_option(SOL_IPV6, MCAST_JOIN_GROUP, &request);
    assert_eq!(nowhere, Err(NO_DEVICE));
    let sender = Socket::new(&stack_on(&a, vec![], false), INET6, DGRAM, 0).unwrap();
    send_to(&sender, b"six", Address::Inet(group)).unwrap();
    let (data, from) = heard(&s).expect("a member hears");
    assert_eq!(data, b"six");
    let Address::Inet(from) = from else { panic!() };
    assert!(from.to_string().starts_with("[fe80::"), "{from}");
}

/// A link that keeps what is sent.
#[derive(Default)]
struct Recorder(Mutex<Vec<Vec<u8>>>);

impl Link for Recorder {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn is_up(&self) -> bool {
        true
    }
    fn transmit(&self, frame: &[u8]) -> bool {
        self.0.lock().unwrap().push(frame.to_vec());
        true
    }
    fn room(&self) -> usize {
        64
    }
    fn flush(&self) {}
}

impl Recorder {
    /// Kind and target of the IGMP messages that were sent.
    fn igmp(&self) -> Vec<(u8, Ipv4Addr)> {
        let frames = std::mem::take(&mut *self.0.lock().unwrap());
        let igmp = frames.iter().filter(|f| f[12..14] == [8, 0] && f[23] == 2);
        igmp.map(|f| {
            let header = usize::from(f[14] & 15) * 4;
            let to = Ipv4Addr::new(f[30], f[31], f[32], f[33]);
            (f[14 + header], to)
        })
        .collect()
    }
}

/// A general query of a router, as IGMP version 2 has it (RFC 2236).
const QUERY: [u8; 42] = [
    1, 0, 0x5e, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0, // Ethernet
    0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0xcf, 0xd6, 10, 0, 0, 9, 224, 0, 0, 1, // IPv4
    0x11, 1, 0xee, 0xfe, 0, 0, 0, 0,
];

#[test]
fn routers_hear_of_the_first_member_and_the_last() {
    let _ = machine::timer::start();
    let (link, node) = (Arc::new(Recorder::default()), node());
    node.attach_link("test", link.clone()).unwrap();
    assert!(node.configure_static(&StaticConfig {
        address: A,
        prefix: 24,
        gateway: Some(B),
        dns: Default::default(),
    }));
    let (one, two) = (
        stack_on(&node, vec![], false),
        stack_on(&node, vec![], false),
    );
    let (m, n) = (member(&one), member(&two));
    join(&m, GROUP).unwrap();
    assert_eq!(link.igmp(), [(0x16, GROUP)]);
    join(&n, GROUP).unwrap();
    assert_eq!(link.igmp(), []);
    node.receive(&QUERY);
    let end = Instant::now() + Duration::from_secs(5);
    let mut answers = Vec::new();
    while answers.is_empty() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
        answers = link.igmp();
    }
    assert_eq!(answers, [(0x16, GROUP)], "a query is answered");
    drop(m);
    assert_eq!(link.igmp(), []);
    two.shutdown();
    assert_eq!(link.igmp(), [(0x17, Ipv4Addr::new(224, 0, 0, 2))]);
    // More than the node can be in.
    let sockets: Vec<_> = (0..8).map(|_| member(&one)).collect();
    let joins =
        (0..160u8).map(|i| join(&sockets[usize::from(i) / 20], Ipv4Addr::new(239, 9, 9, i)));
    let refused = joins.filter(|r| *r == Err(Error::NoBuffers)).count();
    assert!((96..160).contains(&refused), "{refused} were refused");
}
