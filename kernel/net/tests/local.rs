//! Sockets that stay inside the machine.

mod common;
use common::*;
use net::*;
use std::sync::Arc;
use std::thread;
use vfs::{Events, OpenFile, OpenFlags};

const EPIPE: Error = Error::BROKEN_PIPE;
const AGAIN: Error = Error::WOULD_BLOCK;
const ECONNRESET: Error = Error::File(vfs::Error::Foreign(104));

fn tcp_pair(s: &Arc<NetStack>) -> (Arc<Socket>, Arc<Socket>) {
    let l = listener(s, "127.0.0.1:0", 8);
    let c = tcp(s);
    c.connect(&l.local(), me(), false).unwrap();
    let (a, from) = l.accept(false).unwrap();
    assert_eq!(from, c.local());
    (c, a)
}

fn unix_pair(s: &Arc<NetStack>, style: u32) -> [Arc<Socket>; 2] {
    Socket::pair(s, UNIX, style, 0, me()).unwrap()
}

fn open(s: &Arc<Socket>) -> Arc<OpenFile> {
    OpenFile::new(
        s.clone(),
        OpenFlags::READ_WRITE,
        None,
        machine::FileCharge::kernel(),
    )
}

#[test]
fn bytes_cross_a_stream_in_order_under_pressure() {
    let s = stack();
    let (c, a) = tcp_pair(&s);
    let [ua, ub] = unix_pair(&s, STREAM);
    for (w, r) in [(c, a), (ua, ub)] {
        let data = pattern(3 << 20);
        let sent = data.clone();
        let t = thread::spawn(move || {
            let mut at = 0;
            let mut step = 1;
            while at < sent.len() {
                let end = (at + step).min(sent.len());
                at += send(&w, &sent[at..end]).unwrap();
                step = (step * 7 + 1) % 70_001 + 1;
            }
        });
        assert!(read_all(&r).unwrap() == data);
        t.join().unwrap();
    }
}

#[test]
fn one_byte_to_and_fro_does_not_grow_memory() {
    let s = stack();
    let (c, a) = tcp_pair(&s);
    for _ in 0..10_000 {
        send(&c, b"x").unwrap();
        assert_eq!(recv(&a, 8).unwrap(), b"x");
    }
    assert!(s.account().used() <= 4, "{} pages", s.account().used());
}

#[test]
fn nobody_listens() {
    let s = stack();
    let c = tcp(&s);
    let to = at("127.0.0.1:9");
    assert_eq!(c.connect(&to, me(), false), Err(Error::Refused));
    // The same socket may try again.
    let l = listener(&s, "127.0.0.1:9", 1);
    // One that may not wait learns of its connection when it asks again.
    assert_eq!(c.connect(&to, me(), true), Err(Error::InProgress));
    assert!(c.readiness().contains(Events::WRITABLE));
    assert!(l.accept(true).is_ok());
    assert_eq!(c.connect(&to, me(), true), Ok(()));
    assert_eq!(c.connect(&to, me(), true), Err(Error::IsConnected));
    let n = tcp(&s);
    assert_eq!(send(&n, b"x"), Err(EPIPE));
    assert_eq!(recv(&n, 1), Err(Error::NotConnected));
    assert_eq!(n.readiness(), Events::HUP | Events::WRITABLE);
}

/// A program that has accepted a connection may use its other end at once, though the
/// thread that connects it has not come back yet.
#[test]
fn what_was_accepted_is_connected_at_its_other_end() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    for _ in 0..2000 {
        let c = tcp(&s);
        let (same, to) = (c.clone(), l.local());
        let connects = thread::spawn(move || same.connect(&to, me(), false));
        let (a, _) = l.accept(false).unwrap();
        drop(a);
        assert!(c.readiness().contains(Events::IN | Events::RDHUP));
        assert_eq!(recv(&c, 1), Ok(Vec::new()));
        assert_eq!(connects.join().unwrap(), Ok(()));
    }
}

#[test]
fn half_close_and_end() {
    let s = stack();
    let (c, a) = tcp_pair(&s);
    send(&c, b"last").unwrap();
    c.shutdown(false, true).unwrap();
    assert_eq!(send(&c, b"x"), Err(EPIPE));
    assert!(a.readiness().contains(Events::RDHUP | Events::IN));
    assert!(!a.readiness().contains(Events::HUP));
    assert_eq!(recv(&a, 16).unwrap(), b"last");
    assert_eq!(recv(&a, 16).unwrap(), b"");
    send(&a, b"still").unwrap();
    assert_eq!(recv(&c, 16).unwrap(), b"still");
    drop(a);
    assert_eq!(recv(&c, 16).unwrap(), b"");
    assert!(c.readiness().contains(Events::HUP));
}

#[test]
fn closing_with_unread_bytes_resets() {
    let s = stack();
    let (c, a) = tcp_pair(&s);
    send(&a, b"for c").unwrap();
    send(&c, b"unread").unwrap();
    drop(a);
    assert_eq!(c.remote(), Err(Error::NotConnected));
    assert_eq!(recv(&c, 16).unwrap(), b"for c");
    assert_eq!(recv(&c, 16), Err(ECONNRESET));
    assert_eq!(recv(&c, 16).unwrap(), b"");
    assert_eq!(send(&c, b"x"), Err(EPIPE));
}

#[test]
fn writing_to_a_closed_peer_fails_the_second_time() {
    let s = stack();
    let (c, a) = tcp_pair(&s);
    drop(a);
    assert!(!c.readiness().contains(Events::ERR));
    // Without bytes no segment leaves that a reset would answer.
    for _ in 0..2 {
        assert_eq!(send(&c, b"").unwrap(), 0);
        assert!(!c.readiness().contains(Events::ERR));
    }
    assert_eq!(send(&c, b"into the void").unwrap(), 13);
    assert_eq!(send(&c, b"x"), Err(EPIPE));
    let [ua, ub] = unix_pair(&s, STREAM);
    drop(ub);
    assert_eq!(send(&ua, b"x"), Err(EPIPE));
    assert!(ua.readiness().contains(Events::HUP | Events::RDHUP));
}

#[test]
fn linger_zero_resets() {
    let s = stack();
    let (c, a) = tcp_pair(&s);
    let mut linger = 1i32.to_ne_bytes().to_vec();
    linger.extend(0i32.to_ne_bytes());
    a.set_option(1, 13, &linger).unwrap();
    assert_eq!(a.option(1, 13).unwrap(), linger);
    drop(a);
    assert_eq!(recv(&c, 1), Err(ECONNRESET));
}

#[test]
fn a_full_backlog_waits_and_overflow_is_refused_at_the_end() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 2);
    let to = l.local();
    let mut connected = Vec::new();
    // A backlog of 2 admits 3; later ones are under way.
    for i in 0..6 {
        let c = tcp(&s);
        let r = c.connect(&to, me(), i >= 3);
        assert_eq!(r.is_ok(), i < 3, "{r:?}");
        connected.push(c);
    }
    assert_eq!(connected[3].readiness(), Events::empty());
    assert_eq!(connected[3].connect(&to, me(), true), Err(Error::Already));
    let (first, from) = l.accept(true).unwrap();
    assert_eq!(from, connected[0].local());
    assert!(connected[3].readiness().contains(Events::OUT));
    assert_eq!(connected[3].option(1, 4).unwrap(), 0u32.to_ne_bytes());
    send(&connected[3], b"hi").unwrap();
    drop(l);
    assert!(connected[5].readiness().contains(Events::ERR | Events::HUP));
    assert_eq!(connected[5].option(1, 4).unwrap(), 111u32.to_ne_bytes());
    assert_eq!(recv(&connected[3], 1), Err(ECONNRESET));
    drop(first);
}

#[test]
fn a_storm_of_connections_loses_none() {
    let s = stack();
    let l = listener(&s, "0.0.0.0:80", 16);
    let to = at("127.0.0.1:80");
    let acceptors: Vec<_> = (0..3)
        .map(|_| {
            let l = l.clone();
            thread::spawn(move || {
                let mut n = 0;
                while let Ok((a, _)) = l.accept(false) {
                    send(&a, b"x").unwrap();
                    n += 1;
                }
                n
            })
        })
        .collect();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (s, to) = (s.clone(), to.clone());
            thread::spawn(move || {
                for _ in 0..1000 {
                    let c = tcp(&s);
                    c.connect(&to, me(), false).unwrap();
                    assert_eq!(recv(&c, 4).unwrap(), b"x");
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|t| t.join().unwrap());
    l.shutdown(true, true).unwrap();
    let n: i32 = acceptors.into_iter().map(|t| t.join().unwrap()).sum();
    assert_eq!(n, 4000);
    drop(l);
    assert_eq!(s.socket_count(), 0);
    s.shutdown();
    assert_eq!(s.account().used(), 0);
}

#[test]
fn thousands_of_sockets_and_the_limit() {
    let n = node();
    let s = n
        .new_stack(StackConfig {
            ports: Vec::new(),
            raw: false,
            outbound: false,
            system: false,
            account: Arc::new(machine::Account::new(1 << 20).unwrap()),
            sockets_max: 6001,
        })
        .unwrap();
    let l = listener(&s, "127.0.0.1:0", 4096);
    let mut all = Vec::new();
    for _ in 0..3000 {
        let c = tcp(&s);
        c.connect(&l.local(), me(), false).unwrap();
        all.push((c, l.accept(true).unwrap().0));
    }
    assert_eq!(
        Socket::new(&s, INET, STREAM, 0).err(),
        Some(Error::NoBuffers)
    );
    assert_eq!(s.account().used(), 0, "idle connections hold no pages");
    all.truncate(10);
    assert!(Socket::new(&s, INET, STREAM, 0).is_ok());
}

#[test]
fn peek_waitall_and_timeouts() {
    let s = stack();
    let (c, a) = tcp_pair(&s);
    send(&c, b"abc").unwrap();
    assert_eq!(recv_with(&a, 2, MsgFlags::PEEK).unwrap().0, b"ab");
    assert_eq!(recv_now(&a, 8).unwrap(), b"abc");
    assert_eq!(recv_now(&a, 8), Err(AGAIN));
    let t = {
        let c = c.clone();
        thread::spawn(move || {
            for b in [b"12", b"34", b"56"] {
                thread::sleep(std::time::Duration::from_millis(5));
                send(&c, b).unwrap();
            }
        })
    };
    assert_eq!(recv_with(&a, 6, MsgFlags::WAITALL).unwrap().0, b"123456");
    t.join().unwrap();
    let mut ms = 0i64.to_ne_bytes().to_vec();
    ms.extend(20_000i64.to_ne_bytes());
    a.set_option(1, 20, &ms).unwrap();
    assert_eq!(recv(&a, 1), Err(AGAIN));
}

#[test]
fn datagrams_over_loopback() {
    let s = stack();
    let (a, b) = (udp(&s), udp(&s));
    a.bind(at("127.0.0.1:0")).unwrap();
    send_to(&b, b"hello", a.local()).unwrap();
    let (data, r) = recv_with(&a, 3, MsgFlags::empty()).unwrap();
    assert_eq!((data.as_slice(), r.full), (b"hel".as_slice(), 5));
    let Some(Address::Inet(from)) = r.from else {
        panic!("no sender");
    };
    assert!(from.ip().is_loopback() && from.port() != 0);
    b.connect(&a.local(), me(), false).unwrap();
    assert_eq!(b.local(), Address::Inet(from));
    send(&b, b"").unwrap();
    assert_eq!(recv(&a, 9).unwrap(), b"");
    // A sender may choose fields of the header for one datagram alone.
    let mut what = Outgoing::default();
    what.header.hops = Some(3);
    let mut data = machine::io::Source::kernel(b"near");
    b.send(&mut data, what, MsgFlags::empty(), false).unwrap();
    send(&b, b"far").unwrap();
    let fields = || recv_with(&a, 9, MsgFlags::empty()).unwrap().1.packet;
    assert_eq!(fields().map(|(_, hops, class)| (hops, class)), Some((3, 0)));
    assert_eq!(
        fields().map(|(_, hops, class)| (hops, class)),
        Some((64, 0))
    );
    let to = a.local();
    drop(a);
    send(&b, b"nobody").unwrap();
    assert_eq!(recv(&b, 1), Err(Error::File(vfs::Error::Foreign(111))));
    // A connected socket takes from its peer alone.
    let a = udp(&s);
    a.bind(to).unwrap();
    let c = udp(&s);
    send_to(&c, b"stranger", b.local()).unwrap();
    send_to(&a, b"peer", b.local()).unwrap();
    assert_eq!(recv(&b, 16).unwrap(), b"peer");
    assert_eq!(send(&c, b"x"), Err(Error::DestinationRequired));
    let big = vec![0; 65_508];
    assert_eq!(send(&b, &big), Err(Error::MessageSize));
}

/// How getaddrinfo(3) of glibc learns which source each address would have.
#[test]
fn a_connection_taken_back_gives_the_address_back_too() {
    let s = stack();
    let ip = |socket: &Socket| match socket.local() {
        Address::Inet(a) => a.ip().to_string(),
        _ => panic!("no address"),
    };
    let u = Socket::new(&s, INET6, DGRAM, 0).unwrap();
    u.connect(&at("[::1]:53"), me(), false).unwrap();
    assert_eq!(ip(&u), "::1");
    u.connect(&Address::Unspecified, me(), false).unwrap();
    assert_eq!(u.local(), at("[::]:0"));
    u.connect(&at("127.0.0.1:53"), me(), false).unwrap();
    assert_eq!(ip(&u), "127.0.0.1");
    let chosen = udp(&s);
    chosen.bind(at("127.0.0.1:4000")).unwrap();
    chosen.connect(&at("127.0.0.1:53"), me(), false).unwrap();
    chosen.connect(&Address::Unspecified, me(), false).unwrap();
    assert_eq!(chosen.local(), at("127.0.0.1:4000"));
}

#[test]
fn v6_sockets_talk_to_v4_ones() {
    let s = stack();
    let l = Socket::new(&s, INET6, STREAM, 0).unwrap();
    l.bind(at("[::]:8080")).unwrap();
    l.listen(4, me()).unwrap();
    let c = tcp(&s);
    c.connect(&at("127.0.0.1:8080"), me(), false).unwrap();
    let (a, from) = l.accept(false).unwrap();
    assert_eq!(from.to_raw(true).len(), 28);
    assert_eq!(a.local(), at("127.0.0.1:8080"));
    let c6 = Socket::new(&s, INET6, STREAM, 0).unwrap();
    c6.connect(&at("[::1]:8080"), me(), false).unwrap();
    assert_eq!(
        c.connect(&at("[::1]:1"), me(), false),
        Err(Error::IsConnected)
    );
    assert_eq!(
        tcp(&s).connect(&at("[::1]:1"), me(), false),
        Err(Error::NoFamily)
    );
    assert_eq!(tcp(&s).bind(at("0.0.0.0:8080")), Err(Error::AddressInUse));
}

fn name(text: &str) -> Address {
    Address::Unix(UnixName::Abstract(text.as_bytes().into()))
}

#[test]
fn unix_names_streams_and_credentials() {
    let s = stack();
    let l = Socket::new(&s, UNIX, STREAM, 0).unwrap();
    assert_eq!(l.listen(1, me()), Err(Error::INVALID));
    l.bind(name("service")).unwrap();
    let boss = Identity {
        pid: 1,
        uid: 0,
        gid: 0,
    };
    l.listen(0, boss).unwrap();
    let c = Socket::new(&s, UNIX, STREAM, 0).unwrap();
    assert_eq!(c.connect(&name("nobody"), me(), false), Err(Error::Refused));
    c.connect(&name("service"), me(), false).unwrap();
    // One more than the backlog, then it is full.
    let d = Socket::new(&s, UNIX, STREAM, 0).unwrap();
    assert_eq!(d.connect(&name("service"), me(), true), Err(AGAIN));
    let (a, from) = l.accept(false).unwrap();
    assert_eq!(from, Address::Unix(UnixName::Unnamed));
    assert_eq!(a.local(), name("service"));
    assert_eq!(c.remote().unwrap(), name("service"));
    let cred = |s: &Socket| s.option(1, 17).unwrap()[..4].to_vec();
    assert_eq!(cred(&a), 7u32.to_ne_bytes());
    assert_eq!(cred(&c), 1u32.to_ne_bytes());
    d.connect(&name("service"), me(), true).unwrap();
    let e = Socket::new(&s, UNIX, DGRAM, 0).unwrap();
    assert_eq!(
        e.connect(&name("service"), me(), true),
        Err(Error::WrongType)
    );
    // Another capsule has names of its own.
    let other = Socket::new(&stack(), UNIX, STREAM, 0).unwrap();
    assert_eq!(
        other.connect(&name("service"), me(), true),
        Err(Error::Refused)
    );
    drop(l);
    assert_eq!(recv(&d, 1), Err(ECONNRESET));
    let again = Socket::new(&s, UNIX, STREAM, 0).unwrap();
    again.bind(name("service")).unwrap();
}

#[test]
fn unix_datagrams_keep_their_bounds_and_wait_for_room() {
    let s = stack();
    for style in [DGRAM, SEQPACKET] {
        let [a, b] = unix_pair(&s, style);
        send(&a, b"one").unwrap();
        send(&a, b"second").unwrap();
        let (peeked, r) = recv_with(&b, 16, MsgFlags::PEEK).unwrap();
        assert_eq!((peeked.as_slice(), r.from), (b"one".as_slice(), None));
        assert_eq!(recv(&b, 16).unwrap(), b"one");
        assert_eq!(recv(&b, 16).unwrap(), b"second");
        let mut n = 0;
        while send_now(&a, &[7; 4000]).is_ok() {
            n += 1;
        }
        assert!((20..100).contains(&n), "{n}");
        assert!(!a.readiness().contains(Events::OUT));
        let t = thread::spawn(move || send(&a, &[8; 4000]).map(|_| a));
        thread::sleep(std::time::Duration::from_millis(10));
        for _ in 0..n {
            assert_eq!(recv(&b, 9000).unwrap(), [7; 4000]);
        }
        let a = t.join().unwrap().unwrap();
        assert_eq!(recv(&b, 9000).unwrap(), [8; 4000]);
        drop(b);
        assert!(send(&a, b"x").is_err());
    }
    s.shutdown();
    assert_eq!(s.account().used(), 0);
}

fn send_files(s: &Socket, data: &[u8], files: &[&Arc<OpenFile>]) -> Result<usize> {
    let what = Outgoing {
        files: files.iter().map(|f| (*f).clone()).collect(),
        ..Outgoing::default()
    };
    let src = &mut machine::io::Source::kernel(data);
    s.send(src, what, MsgFlags::empty(), false)
}

#[test]
fn files_travel_with_the_bytes_they_came_with() {
    let s = stack();
    for style in [STREAM, SEQPACKET, DGRAM] {
        let [a, b] = unix_pair(&s, style);
        let [p, q] = unix_pair(&s, STREAM);
        let (fp, fq) = (open(&p), open(&q));
        drop((p, q));
        send(&a, b"plain").unwrap();
        send_files(&a, b"with", &[&fp, &fq]).unwrap();
        send(&a, b"after").unwrap();
        drop((fp, fq));
        let (data, r) = recv_with(&b, 64, MsgFlags::empty()).unwrap();
        assert_eq!((data.as_slice(), r.files.len()), (b"plain".as_slice(), 0));
        let (data, r) = recv_with(&b, 64, MsgFlags::empty()).unwrap();
        assert_eq!((data.as_slice(), r.files.len()), (b"with".as_slice(), 2));
        assert_eq!(recv(&b, 64).unwrap(), b"after");
        let p = r.files[0].downcast::<Socket>().unwrap();
        send(p, b"through").unwrap();
        let q = r.files[1].downcast::<Socket>().unwrap();
        assert_eq!(recv(q, 64).unwrap(), b"through");
    }
    assert_eq!(s.socket_count(), 0, "files that were in flight are closed");
}

#[test]
fn files_in_flight_close_with_the_last_descriptor() {
    let s = stack();
    let [a, b] = unix_pair(&s, STREAM);
    let [p, q] = unix_pair(&s, STREAM);
    let f = open(&p);
    send_files(&a, b"x", &[&f]).unwrap();
    drop((f, p));
    drop(b);
    assert_eq!(recv(&q, 1).unwrap(), b"", "the sent end is gone");
    drop((a, q));
    assert_eq!(s.socket_count(), 0);
}

#[test]
fn a_cycle_of_sockets_in_flight_is_refused() {
    let s = stack();
    let [a, b] = unix_pair(&s, STREAM);
    let (fa, fb) = (open(&a), open(&b));
    // b's own queue would hold b.
    assert_eq!(send_files(&a, b"x", &[&fb]), Err(Error::TooManyReferences));
    // The other end is no cycle: it goes when b's queue goes.
    send_files(&a, b"x", &[&fa]).unwrap();
    let [c, d] = unix_pair(&s, STREAM);
    let fd = open(&d);
    // b waits in d's queue, so d must not wait in b's.
    send_files(&c, b"x", &[&fb]).unwrap();
    assert_eq!(send_files(&a, b"x", &[&fd]), Err(Error::TooManyReferences));
    drop((fa, fb, fd, a, b, c, d));
    assert_eq!(s.socket_count(), 0);
}

#[test]
fn published_ports_reach_across_capsules_for_those_who_may() {
    let n = node();
    let web = stack_on(
        &n,
        vec![Published {
            protocol: Protocol::Tcp,
            capsule: 80,
            node: 8081,
        }],
        false,
    );
    let (boss, other) = (stack_on(&n, vec![], true), stack_on(&n, vec![], false));
    let to = at("127.0.0.1:8081");
    assert_eq!(tcp(&boss).connect(&to, me(), true), Err(Error::Refused));
    let private = listener(&web, "127.0.0.1:80", 4);
    assert_eq!(tcp(&boss).connect(&to, me(), true), Err(Error::Refused));
    drop(private);
    let l = listener(&web, "0.0.0.0:80", 4);
    assert!(web.is_serving(&web.published()[0]));
    let c = tcp(&boss);
    c.connect(&to, me(), false).unwrap();
    let (a, _) = l.accept(true).unwrap();
    let Address::Inet(own) = a.local() else {
        panic!()
    };
    assert_eq!(own.port(), 80);
    send(&c, b"probe").unwrap();
    assert_eq!(recv(&a, 9).unwrap(), b"probe");
    assert_eq!(tcp(&other).connect(&to, me(), true), Err(Error::Refused));
    // A port is published once.
    let again = n.new_stack(StackConfig {
        ports: web.published().to_vec(),
        raw: false,
        outbound: false,
        system: false,
        account: web.account().clone(),
        sockets_max: 1,
    });
    assert_eq!(again.err(), Some(Error::AddressInUse));
    web.shutdown();
    assert_eq!(tcp(&boss).connect(&to, me(), true), Err(Error::Refused));
    assert_eq!(
        Socket::new(&web, INET, STREAM, 0).err(),
        Some(Error::NetworkDown)
    );
}

#[test]
fn reuse_port_spreads_connections() {
    let s = stack();
    let all: Vec<_> = (0..4)
        .map(|_| {
            let l = tcp(&s);
            l.set_option(1, 15, &1u32.to_ne_bytes()).unwrap();
            l.bind(at("0.0.0.0:80")).unwrap();
            l.listen(64, me()).unwrap();
            l
        })
        .collect();
    let clients: Vec<_> = (0..64)
        .map(|_| {
            let c = tcp(&s);
            c.connect(&at("127.0.0.1:80"), me(), false).unwrap();
            c
        })
        .collect();
    let got: Vec<usize> = all
        .iter()
        .map(|l| (0..).take_while(|_| l.accept(true).is_ok()).count())
        .collect();
    assert_eq!(got.iter().sum::<usize>(), clients.len());
    assert!(got.iter().filter(|n| **n > 0).count() >= 3, "{got:?}");
}

#[test]
fn options_answer_as_documented() {
    let s = stack();
    let t = tcp(&s);
    let one = 1u32.to_ne_bytes();
    t.set_option(6, 1, &one).unwrap();
    assert_eq!(t.option(6, 1).unwrap(), one);
    assert_eq!(t.option(6, 13).unwrap(), b"reno\0");
    assert!(t.set_option(6, 13, b"cubic").is_err());
    assert_eq!(t.set_option(6, 999, &one), Err(Error::NoOption));
    assert_eq!(t.set_option(99, 1, &one), Err(Error::NoOption));
    assert_eq!(t.option(99, 1), Err(Error::NotSupported));
    assert_eq!(t.set_option(6, 1, &[1]), Err(Error::INVALID));
    t.set_option(1, 7, &100_000u32.to_ne_bytes()).unwrap();
    assert_eq!(t.option(1, 7).unwrap(), 200_000u32.to_ne_bytes());
    assert_eq!(t.option(1, 38).unwrap(), 6u32.to_ne_bytes());
    let u = Socket::new(&s, UNIX, STREAM, 0).unwrap();
    assert_eq!(u.option(6, 1), Err(Error::NotSupported));
    assert_eq!(
        Socket::new(&s, INET, 3, 1).err(),
        Some(Error::NOT_PERMITTED)
    );
    assert_eq!(Socket::new(&s, 99, 1, 0).err(), Some(Error::NoFamily));
}

#[test]
fn netlink_lists_interfaces() {
    let s = stack();
    let n = Socket::new(&s, 16, 3, 0).unwrap();
    let mut ask = vec![17u8, 0, 0, 0, 18, 0, 1, 3, 5, 0, 0, 0, 0, 0, 0, 0, 0];
    send(&n, &ask).unwrap();
    let answer = recv(&n, 8192).unwrap();
    assert!(answer.windows(3).any(|w| w == b"lo\0"));
    assert_eq!(answer[4..6], [16, 0]);
    ask[4] = 22;
    send(&n, &ask).unwrap();
    let answer = recv(&n, 8192).unwrap();
    assert!(answer.windows(4).any(|w| w == [127, 0, 0, 1]));
    // Changes are refused with EPERM.
    ask[4] = 16;
    send(&n, &ask).unwrap();
    let answer = recv(&n, 8192).unwrap();
    assert_eq!(answer[4..6], [2, 0]);
    assert_eq!(answer[16..20], (-1i32).to_ne_bytes());
    // What is no message is passed over, behind one that is too.
    ask[0] = 200;
    assert_eq!(send(&n, &ask), Ok(ask.len()));
    assert_eq!(recv_now(&n, 8192), Err(Error::WOULD_BLOCK));
    (ask[0], ask[4]) = (17, 22);
    ask.resize(160, 0);
    send(&n, &ask).unwrap();
    assert!(
        recv(&n, 8192)
            .unwrap()
            .windows(4)
            .any(|w| w == [127, 0, 0, 1])
    );
}

#[test]
fn proc_net_lists_what_is_bound() {
    let s = stack();
    let _l = listener(&s, "127.0.0.1:8080", 4);
    let u = udp(&s);
    u.bind(at("0.0.0.0:53")).unwrap();
    let read = |name| {
        let mut text = String::new();
        net::tables::write(&s, name, &mut text).unwrap();
        text
    };
    assert!(read("tcp").contains("   0: 0100007F:1F90 00000000:0000 0A "));
    assert!(read("udp").contains("   0: 00000000:0035 00000000:0000 07 "));
    assert_eq!(read("tcp6").lines().count(), 1);
    assert!(read("if_inet6").starts_with("00000000000000000000000000000001 01 80 10"));
    assert!(
        net::tables::NAMES
            .iter()
            .all(|n| ["if_inet6", "igmp6"].contains(n) || !read(n).is_empty())
    );
    u.set_option(0, 35, &[239, 1, 2, 3, 127, 0, 0, 1]).unwrap();
    assert!(read("igmp").contains("lo        :     1      V2\n\t\t\t\t030201EF     1 "));
}
