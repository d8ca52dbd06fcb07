//! Datagrams and pings that are longer than the MTU, over a cable between two nodes.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use machine::Account;
use net::*;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

const SOL_IP: i32 = 0;
const SOL_IPV6: i32 = 41;
const IP_MTU_DISCOVER: i32 = 10;
const IPV6_MTU_DISCOVER: i32 = 23;
const IPV6_DONTFRAG: i32 = 62;
const RAW: u32 = 3;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;
const UDP: u32 = 17;
const REFUSED: Error = Error::File(vfs::Error::Foreign(111));
const TOO_LONG: Result<usize> = Err(Error::MessageSize);

/// A socket on port 5000, published as the same, on each of two nodes.
struct Pair {
    sockets: [Arc<Socket>; 2],
    at: [SocketAddr; 2],
    nodes: [Arc<NetNode>; 2],
    cable: Cable,
}

fn address(node: &NetNode, v6: bool) -> IpAddr {
    match v6 {
        false => node.ipv4().unwrap().into(),
        true => node.config().v6[0].address().into(),
    }
}

fn pair(v6: bool, faults: Faults) -> Pair {
    let (a, b, cable) = joined(faults);
    let nodes = [a, b];
    let sockets = [0, 1].map(|i| {
        let stack = stack_on(&nodes[i], publish(Protocol::Udp, 5000, 5000), false);
        let family = if v6 { INET6 } else { INET };
        let s = Socket::new(&stack, family, DGRAM, 0).unwrap();
        let any = if v6 { "[::]:5000" } else { "0.0.0.0:5000" };
        s.bind(at(any)).unwrap();
        s
    });
    let at = [0, 1].map(|i| SocketAddr::new(address(&nodes[i], v6), 5000));
    Pair {
        sockets,
        at,
        nodes,
        cable,
    }
}

/// What comes within a while.
fn wait_for(s: &Socket, time: Duration) -> Option<Vec<u8>> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        if let Ok(got) = recv_now(s, 70_000) {
            return Some(got);
        }
        thread::sleep(Duration::from_millis(1));
    }
    None
}

fn wait(s: &Socket) -> Option<Vec<u8>> {
    wait_for(s, Duration::from_secs(10))
}

fn sent(p: &Pair, i: usize) -> usize {
    p.cable.ends[i].sent.load(SeqCst)
}

/// Lengths of datagrams and the frames that they take, over each version.
const LENGTHS: [(bool, [(usize, usize); 7]); 2] = [
    (
        false,
        [
            (65_507, 45),
            (1472, 1),
            (1473, 2),
            (4000, 3),
            (2952, 2),
            (2953, 3),
            (0, 1),
        ],
    ),
    (
        true,
        [
            (65_527, 46),
            (1452, 1),
            (1453, 2),
            (4000, 3),
            (2888, 2),
            (2889, 3),
            (0, 1),
        ],
    ),
];

#[test]
fn datagrams_of_all_lengths_cross_in_both_directions() {
    for (v6, lengths) in LENGTHS {
        let p = pair(v6, Faults::default());
        for (n, (len, frames)) in lengths.into_iter().enumerate() {
            for (from, to) in [(0, 1), (1, 0)] {
                // The longest goes first, when nobody knows the neighbour.
                let (data, before) = (pattern(len), sent(&p, from));
                let to_whom = Address::Inet(p.at[to]);
                assert_eq!(send_to(&p.sockets[from], &data, to_whom), Ok(len));
                let got = wait(&p.sockets[to]).expect("a datagram");
                assert!(got == data, "{} instead of {len}", got.len());
                // Questions for the neighbour, and answers, come beside the first.
                let others = if n == 0 { 4 } else { 0 };
                let left = sent(&p, from) - before;
                assert!(
                    (frames..=frames + others).contains(&left),
                    "{left} for {len}"
                );
            }
        }
        let to = Address::Inet(p.at[1]);
        let long = pattern(lengths[0].0 + 1);
        assert_eq!(send_to(&p.sockets[0], &long, to), TOO_LONG);
        // Who is not there is told so of long datagrams, too.
        let nobody = Address::Inet(SocketAddr::new(p.at[1].ip(), 9));
        p.sockets[0].connect(&nobody, me(), false).unwrap();
        for len in [1, 1000, 4000] {
            assert_eq!(send(&p.sockets[0], &pattern(len)), Ok(len));
            let told = || recv_now(&p.sockets[0], 1) == Err(REFUSED);
            let end = Instant::now() + Duration::from_secs(10);
            while !told() {
                assert!(Instant::now() < end, "nobody said so of {len}");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Whole or not at all, whatever happens to the frames.
#[test]
fn bad_cables_lose_datagrams_and_do_not_damage_them() {
    for (v6, seed) in [(false, 1), (true, 2), (false, 3), (true, 4)] {
        let faults = Faults {
            lost: 10,
            twice: 50,
            late: 200,
            seed,
        };
        let p = pair(v6, faults);
        // Each datagram is its own, by its number, in every part.
        let datagram = |n: usize| -> Vec<u8> {
            let len = [1400, 4000, 20_000, 65_507][n % 4];
            let mark = (n as u32).to_be_bytes();
            let mut data = pattern(len);
            data.iter_mut()
                .enumerate()
                .for_each(|(i, b)| *b ^= mark[i % 4]);
            data[..4].copy_from_slice(&mark);
            data
        };
        let (mut got, mut long) = (0, 0);
        for n in 0..120 {
            let data = datagram(n);
            assert!(send_to(&p.sockets[0], &data, Address::Inet(p.at[1])).is_ok());
            let time = Duration::from_millis(50);
            while let Some(came) = wait_for(&p.sockets[1], time) {
                let mark: [u8; 4] = came[..4].try_into().unwrap();
                let number = u32::from_be_bytes(mark) as usize;
                assert!(came == datagram(number), "damage in {number}");
                (got, long) = (got + 1, long + usize::from(came.len() > 60_000));
                if number == n {
                    break;
                }
            }
        }
        // 45 frames of which none is lost: six of ten.
        assert!(got >= 60 && long >= 5, "{got} and {long} arrived");
    }
}

#[test]
fn who_looks_for_the_mtu_is_told_of_it() {
    let p = pair(false, Faults::default());
    let (s, to) = (&p.sockets[0], Address::Inet(p.at[1]));
    let set = |s: &Socket, level, name, n: u32| s.set_option(level, name, &n.to_ne_bytes());
    assert_eq!(
        s.option(SOL_IP, IP_MTU_DISCOVER).unwrap(),
        1u32.to_ne_bytes()
    );
    for (how, cuts) in [
        (0, true),
        (1, true),
        (2, false),
        (3, false),
        (4, false),
        (5, true),
    ] {
        set(s, SOL_IP, IP_MTU_DISCOVER, how).unwrap();
        let long = send_to(s, &[1; 1473], to.clone());
        assert_eq!(long, if cuts { Ok(1473) } else { TOO_LONG }, "{how}");
        assert_eq!(send_to(s, &[1; 1472], to.clone()), Ok(1472));
    }
    assert_eq!(set(s, SOL_IP, IP_MTU_DISCOVER, 6), Err(Error::INVALID));
    let p = pair(true, Faults::default());
    let (s, to) = (&p.sockets[0], Address::Inet(p.at[1]));
    for (name, n, cuts) in [
        (IPV6_MTU_DISCOVER, 2, false),
        (IPV6_MTU_DISCOVER, 0, true),
        (IPV6_DONTFRAG, 1, false),
        (IPV6_DONTFRAG, 0, true),
    ] {
        set(s, SOL_IPV6, name, n).unwrap();
        assert_eq!(s.option(SOL_IPV6, name).unwrap(), n.to_ne_bytes());
        let long = send_to(s, &[1; 1453], to.clone());
        assert_eq!(long, if cuts { Ok(1453) } else { TOO_LONG }, "{name} {n}");
        assert_eq!(send_to(s, &[1; 1452], to.clone()), Ok(1452));
    }
    assert_eq!(set(s, SOL_IPV6, IPV6_MTU_DISCOVER, 6), Err(Error::INVALID));
}

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

/// Raw sockets see what was put together: one packet, with a header that says so. Routers may
/// cut what a program lets them.
#[test]
fn raw_sockets_see_and_send_long_packets() {
    let p = pair(false, Faults::default());
    let (here, there) = (raw_stack(&p.nodes[0]), raw_stack(&p.nodes[1]));
    let watcher = Socket::new(&there, INET, RAW, UDP).unwrap();
    let to = Address::Inet(p.at[1]);
    let mut ids = vec![];
    for (how, len, flags) in [(1u32, 4000, 0), (1, 100, 0x40), (0, 100, 0), (0, 100, 0)] {
        let how = how.to_ne_bytes();
        p.sockets[0]
            .set_option(SOL_IP, IP_MTU_DISCOVER, &how)
            .unwrap();
        send_to(&p.sockets[0], &pattern(len), to.clone()).unwrap();
        let packet = wait(&watcher).unwrap();
        let total = u16::from_be_bytes([packet[2], packet[3]]);
        assert_eq!((packet.len(), usize::from(total)), (len + 28, len + 28));
        assert_eq!(packet[6..8], [flags, 0], "{len}");
        assert!(packet[28..] == pattern(len));
        ids.push([packet[4], packet[5]]);
    }
    assert_ne!(ids[2], ids[3], "what may be cut has a number");
    // Protocols of their own, up to the longest packet.
    for (family, longest, to) in [
        (INET, 65_515, p.at[1]),
        (
            INET6,
            65_535,
            SocketAddr::new(address(&p.nodes[1], true), 0),
        ),
    ] {
        let sender = Socket::new(&here, family, RAW, 99).unwrap();
        let peer = Socket::new(&there, family, RAW, 99).unwrap();
        let to = Address::Inet(SocketAddr::new(to.ip(), 0));
        for len in [4000, longest] {
            assert_eq!(send_to(&sender, &pattern(len), to.clone()), Ok(len));
            let got = wait(&peer).expect("a packet");
            let header = if family == INET { 20 } else { 0 };
            assert!(got[header..] == pattern(len), "{} of {len}", got.len());
        }
        let long = pattern(longest + 1);
        assert_eq!(send_to(&sender, &long, to.clone()), TOO_LONG);
        let (level, name) = match family {
            INET => (SOL_IP, IP_MTU_DISCOVER),
            _ => (SOL_IPV6, IPV6_MTU_DISCOVER),
        };
        sender.set_option(level, name, &2u32.to_ne_bytes()).unwrap();
        assert_eq!(send_to(&sender, &pattern(1500), to), TOO_LONG);
    }
}

#[test]
fn long_pings_are_answered() {
    let p = pair(false, Faults::default());
    let here = stack_on(&p.nodes[0], vec![], false);
    for (family, protocol, kind) in [(INET, ICMP, 8), (INET6, ICMPV6, 128)] {
        let ping = Socket::new(&here, family, DGRAM, protocol).unwrap();
        let to = SocketAddr::new(address(&p.nodes[1], family == INET6), 0);
        for len in [1472, 1473, 4000, 60_000] {
            let request = [&[kind, 0, 0, 0, 0, 0, 0, 7][..], &pattern(len)].concat();
            send_to(&ping, &request, Address::Inet(to)).unwrap();
            let reply = wait(&ping).expect("a reply");
            assert_eq!(reply[6..8], [0, 7]);
            assert!(reply[8..] == request[8..], "{} of {len}", reply.len());
        }
    }
}

#[test]
fn members_of_a_group_get_long_datagrams() {
    let p = pair(false, Faults::default());
    let member = &p.sockets[1];
    let group = [239, 1, 2, 3, 0, 0, 0, 0];
    let to = at("239.1.2.3:5000");
    // Without a member nobody puts them together.
    send_to(&p.sockets[0], &pattern(4000), to.clone()).unwrap();
    assert_eq!(wait_for(member, Duration::from_millis(100)), None);
    member.set_option(SOL_IP, 35, &group).unwrap();
    send_to(&p.sockets[0], &pattern(4001), to).unwrap();
    assert!(wait(member) == Some(pattern(4001)));
}
