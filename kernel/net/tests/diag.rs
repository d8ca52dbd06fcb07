//! What sock_diag(7) tells.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use std::sync::Arc;

const DUMP: u16 = 0x301;
const BY_FAMILY: u16 = 20;
const LISTEN: u8 = 10;
const ALL: u32 = u32::MAX;

fn asker(s: &Arc<NetStack>) -> Arc<Socket> {
    Socket::new(s, 16, 3, 4).unwrap()
}

fn ask(n: &Socket, kind: u16, flags: u16, body: &[u8]) {
    let mut m = Vec::new();
    m.extend((16 + body.len() as u32).to_ne_bytes());
    m.extend(kind.to_ne_bytes());
    m.extend(flags.to_ne_bytes());
    m.extend([7, 0, 0, 0, 0, 0, 0, 0]);
    m.extend(body);
    send(n, &m).unwrap();
}

fn inet(family: u8, protocol: u8, states: u32) -> Vec<u8> {
    let mut body = vec![family, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.resize(56, 0);
    body
}

fn unix(states: u32) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend([0; 4]);
    body.extend(0x15u32.to_ne_bytes());
    body.resize(24, 0);
    body
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(b[at..at + 4].try_into().unwrap())
}

/// All messages of a dump, without their headers.
fn told(n: &Socket) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        // As `ss` does it: first how much there is.
        let (_, first) = recv_with(n, 16, MsgFlags::PEEK).unwrap();
        let part = recv(n, 1 << 16).unwrap();
        assert_eq!(part.len(), first.full);
        let mut rest = &part[..];
        while !rest.is_empty() {
            let len = word(rest, 0) as usize;
            match rest[4] {
                3 => {
                    assert_eq!(recv_now(n, 16), Err(Error::WOULD_BLOCK));
                    return all;
                }
                20 => all.push(rest[16..len].to_vec()),
                kind => panic!("{kind}: {rest:?}"),
            }
            rest = &rest[len.next_multiple_of(4)..];
        }
    }
}

fn attribute(message: &[u8], skip: usize, kind: u8) -> Option<&[u8]> {
    let mut rest = &message[skip..];
    while !rest.is_empty() {
        let len = usize::from(rest[0]);
        if rest[2] == kind {
            return Some(&rest[4..len]);
        }
        rest = &rest[len.next_multiple_of(4)..];
    }
    None
}

/// State, queues and ports.
fn brief(m: &[u8]) -> (u8, u32, u32, u16, u16) {
    let port = |at: usize| u16::from_be_bytes([m[at], m[at + 1]]);
    (m[1], word(m, 56), word(m, 60), port(4), port(6))
}

#[test]
fn a_capsule_sees_its_own_sockets_and_no_others() {
    let node = NetNode::new();
    let (s, other) = (
        stack_on(&node, Vec::new(), false),
        stack_on(&node, Vec::new(), false),
    );
    let l = listener(&s, "127.0.0.1:80", 4);
    let _theirs = listener(&other, "127.0.0.1:81", 4);
    let c = tcp(&s);
    c.bind(at("127.0.0.1:1000")).unwrap();
    c.connect(&l.local(), me(), false).unwrap();
    let (a, _) = l.accept(false).unwrap();
    send(&c, b"abc").unwrap();
    let waits = tcp(&s);
    waits.bind(at("127.0.0.1:1001")).unwrap();
    waits.connect(&l.local(), me(), false).unwrap();
    // Neither bound nor connected: nothing to tell.
    let _idle = tcp(&s);
    let n = asker(&s);
    ask(&n, BY_FAMILY, DUMP, &inet(2, 6, ALL));
    let mut all: Vec<_> = told(&n).iter().map(|m| brief(m)).collect();
    all.sort_unstable();
    let want = [
        (1, 0, 0, 80, 1001),
        (1, 0, 0, 1000, 80),
        (1, 0, 0, 1001, 80),
        (1, 3, 0, 80, 1000),
        (LISTEN, 1, 4, 80, 0),
    ];
    assert_eq!(all, want);
    ask(&n, BY_FAMILY, DUMP, &inet(2, 6, 1 << LISTEN));
    assert_eq!(told(&n).len(), 1);
    ask(&n, BY_FAMILY, DUMP, &inet(10, 6, ALL));
    assert!(told(&n).is_empty());
    ask(&n, BY_FAMILY, DUMP, &inet(2, 17, ALL));
    assert!(told(&n).is_empty());
    // What is closed is forgotten.
    drop((a, c, l, waits));
    ask(&n, BY_FAMILY, DUMP, &inet(2, 6, ALL));
    assert!(told(&n).is_empty());
}

#[test]
fn connections_over_the_wire_are_their_capsules_own() {
    let (a, b, _cable) = joined(Faults::default());
    let client = stack_on(&a, vec![], false);
    let server = stack_on(&b, publish(Protocol::Tcp, 80, 8080), false);
    let stranger = stack_on(&b, vec![], false);
    let l = listener(&server, "0.0.0.0:80", 4);
    let c = tcp(&client);
    c.connect(&at("10.0.0.2:8080"), me(), false).unwrap();
    let (accepted, _) = l.accept(false).unwrap();
    let seen = |s: &Arc<NetStack>| {
        let n = asker(s);
        ask(&n, BY_FAMILY, DUMP, &inet(2, 6, !(1 << LISTEN)));
        told(&n).len()
    };
    assert_eq!((seen(&server), seen(&stranger)), (1, 0));
    // Nor when their sockets are gone and the other end has not let go.
    drop(accepted);
    assert_eq!((seen(&server), seen(&stranger)), (1, 0));
}

#[test]
fn datagram_sockets_and_numbers() {
    let s = stack();
    let u = udp(&s);
    u.bind(at("127.0.0.1:53")).unwrap();
    let v = udp(&s);
    v.connect(&u.local(), me(), false).unwrap();
    let _unbound = udp(&s);
    let n = asker(&s);
    ask(&n, BY_FAMILY, DUMP, &inet(2, 17, ALL));
    let all = told(&n);
    assert_eq!(all.len(), 2);
    let number = |s: &Socket| vfs::FileOps::stat(s).ino as u32;
    assert_eq!((all[0][1], word(&all[0], 68)), (7, number(&u)));
    assert_eq!((all[1][1], word(&all[1], 68)), (1, number(&v)));
    assert_eq!(all[0][8..12], [127, 0, 0, 1]);
}

#[test]
fn unix_sockets_with_names_and_peers() {
    let s = stack();
    let number = |s: &Socket| vfs::FileOps::stat(s).ino as u32;
    let [a, b] = Socket::pair(&s, UNIX, 1, 0, me()).unwrap();
    let [c, gone] = Socket::pair(&s, UNIX, 2, 0, me()).unwrap();
    drop(gone);
    let l = Socket::new(&s, UNIX, 1, 0).unwrap();
    l.bind(Address::Unix(UnixName::Abstract(b"name"[..].into())))
        .unwrap();
    l.listen(3, me()).unwrap();
    send(&a, b"four").unwrap();
    let n = asker(&s);
    ask(&n, BY_FAMILY, DUMP, &unix(ALL));
    let all = told(&n);
    let find = |s: &Socket| all.iter().find(|m| word(m, 4) == number(s)).unwrap();
    let peer = |s: &Socket| attribute(find(s), 16, 2).map(|v| word(v, 0));
    assert_eq!((peer(&a), peer(&b)), (Some(number(&b)), Some(number(&a))));
    assert_eq!((peer(&c), peer(&l)), (Some(0), None));
    assert_eq!(find(&l)[..3], [1, 1, LISTEN]);
    assert_eq!(attribute(find(&l), 16, 0), Some(&b"\0name"[..]));
    assert_eq!(
        attribute(find(&l), 16, 4),
        Some(&[0, 0, 0, 0, 3, 0, 0, 0][..])
    );
    assert_eq!(word(attribute(find(&b), 16, 4).unwrap(), 0), 4);
    ask(&n, BY_FAMILY, DUMP, &unix(1 << LISTEN));
    assert_eq!(told(&n).len(), 1);
}

#[test]
fn long_dumps_come_in_parts_and_end() {
    let s = stack();
    let all: Vec<_> = (0..50)
        .map(|i| {
            let u = udp(&s);
            u.bind(at(&format!("127.0.0.1:{}", 2000 + i))).unwrap();
            u
        })
        .collect();
    let n = asker(&s);
    ask(&n, BY_FAMILY, DUMP, &inet(2, 17, ALL));
    assert!(n.readiness().contains(vfs::Events::READABLE));
    // Another one has to wait; that is told behind what there is.
    assert_eq!(told(&n).len(), all.len());
    ask(&n, BY_FAMILY, DUMP, &inet(2, 17, ALL));
    ask(&n, BY_FAMILY, DUMP, &inet(2, 17, ALL));
    let busy = recv(&n, 64).unwrap();
    assert_eq!((busy[4], word(&busy, 16) as i32), (2, -16));
    assert_eq!(told(&n).len(), all.len());
    assert!(!n.readiness().contains(vfs::Events::READABLE));
}

#[test]
fn what_there_is_not_is_refused() {
    const ENOENT: i32 = -2;
    const EINVAL: i32 = -22;
    const EOPNOTSUPP: i32 = -95;
    let s = stack();
    let n = asker(&s);
    let whole = inet(2, 6, ALL);
    for (kind, flags, body, error) in [
        (BY_FAMILY, DUMP, &inet(2, 33, ALL)[..], ENOENT),
        (BY_FAMILY, DUMP, &inet(40, 6, ALL), ENOENT),
        (BY_FAMILY, DUMP, &whole[..55], EINVAL),
        (BY_FAMILY, DUMP, &unix(ALL)[..23], EINVAL),
        (BY_FAMILY, DUMP, &whole[..1], EINVAL),
        (BY_FAMILY, 1, &whole, EOPNOTSUPP),
        // SOCK_DESTROY
        (21, 5, &whole, EOPNOTSUPP),
    ] {
        ask(&n, kind, flags, body);
        let answer = recv(&n, 64).unwrap();
        assert_eq!((answer[4], word(&answer, 16) as i32), (2, error));
    }
}
