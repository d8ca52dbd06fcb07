//! Connections over a cable between two nodes.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};
use vfs::Events;

const ECONNRESET: Error = Error::File(vfs::Error::Foreign(104));
const ABORTED: Error = Error::File(vfs::Error::Foreign(103));
const REFUSED: Error = Error::File(vfs::Error::Foreign(111));

const IPPROTO_TCP: i32 = 6;
const TCP_USER_TIMEOUT: i32 = 18;

struct Pair {
    client: Arc<NetStack>,
    server: Arc<NetStack>,
    _nodes: [Arc<NetNode>; 2],
    cable: Cable,
}

/// A client's capsule on one node, a server's that publishes 80 as 8080 on the
/// other.
fn pair(faults: Faults) -> Pair {
    let (a, b, cable) = joined(faults);
    Pair {
        client: stack_on(&a, vec![], false),
        server: stack_on(&b, publish(Protocol::Tcp, 80, 8080), false),
        _nodes: [a, b],
        cable,
    }
}

impl Pair {
    fn connect(&self) -> Arc<Socket> {
        let c = tcp(&self.client);
        c.connect(&at("10.0.0.2:8080"), me(), false).unwrap();
        c
    }
}

fn eventually(what: &str, mut cond: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !cond() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// So many bytes.
fn read_some(from: &Socket, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < len {
        got.extend(recv(from, len - got.len()).unwrap());
    }
    got
}

/// Sends `data` from one side and reads it on the other.
fn transfer(from: Arc<Socket>, to: &Socket, data: &[u8]) {
    let copy = data.to_vec();
    let t = thread::spawn(move || {
        assert_eq!(send(&from, &copy).unwrap(), copy.len());
        from.shutdown(false, true).unwrap();
        from
    });
    let got = read_all(to).unwrap();
    assert_eq!(got.len(), data.len());
    assert!(got == data, "bytes differ");
    t.join().unwrap();
}

#[test]
fn both_directions_carry_megabytes_unchanged() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, from) = l.accept(false).unwrap();
    let Address::Inet(from) = from else { panic!() };
    assert_eq!(from.ip(), A);
    assert_eq!(c.local(), Address::Inet(from));
    assert_eq!(a.local(), at("10.0.0.2:80"), "the capsule's own port");
    assert_eq!(c.remote().unwrap(), at("10.0.0.2:8080"));
    let data = pattern(4 << 20);
    let start = Instant::now();
    transfer(c.clone(), &a, &data);
    transfer(a.clone(), &c, &data);
    println!("8 MiB in {:?}", start.elapsed());
    drop((a, c));
    p.server.shutdown();
    p.client.shutdown();
    drop(l);
    for s in [&p.server, &p.client] {
        eventually("no pages", || s.account().used() == 0);
    }
}

/// Segments that come in one batch are acknowledged together.
#[test]
fn a_batch_is_answered_once() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    // Until the peer may send more than a few segments at one time.
    let data = pattern(256 << 10);
    thread::scope(|s| {
        s.spawn(|| assert_eq!(send(&c, &data).unwrap(), data.len()));
        assert!(read_some(&a, data.len()) == data, "bytes differ");
    });
    let data = &data[..12 * 1460];
    p.cable.hold(0);
    assert_eq!(send(&c, data).unwrap(), data.len());
    eventually("the segments", || p.cable.held(0) >= 12);
    let answers = &p.cable.ends[1].sent;
    let before = answers.load(SeqCst);
    p.cable.release(0);
    assert!(read_some(&a, data.len()) == data, "bytes differ");
    thread::sleep(Duration::from_millis(50));
    let answered = answers.load(SeqCst) - before;
    assert!((1..=3).contains(&answered), "{answered} answers");
}

/// More connections in one batch than may wait at one time.
#[test]
fn everybody_in_a_batch_is_answered() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 64);
    let pairs: Vec<_> = (0..40)
        .map(|_| (p.connect(), l.accept(false).unwrap().0))
        .collect();
    p.cable.hold(0);
    for (n, (c, _)) in pairs.iter().enumerate() {
        assert_eq!(send(c, &[n as u8]).unwrap(), 1);
    }
    eventually("the segments", || p.cable.held(0) >= pairs.len());
    let start = Instant::now();
    p.cable.release(0);
    for (n, (_, a)) in pairs.iter().enumerate() {
        eventually("the byte", || {
            recv_now(a, 4).is_ok_and(|got| got == [n as u8])
        });
    }
    // And not only when its timer looks after it.
    let waited = start.elapsed();
    assert!(waited < Duration::from_millis(500), "it took {waited:?}");
}

#[test]
fn a_bad_cable_delays_but_does_not_damage() {
    for seed in [1, 2, 3] {
        let p = pair(Faults {
            lost: 5,
            twice: 20,
            late: 50,
            seed,
        });
        let l = listener(&p.server, "0.0.0.0:80", 8);
        let c = p.connect();
        let (a, _) = l.accept(false).unwrap();
        transfer(c, &a, &pattern(300 << 10));
    }
}

/// Room that comes right after a look that found none is told of before anybody waits
/// for it.
#[test]
fn room_that_comes_at_once_is_not_missed() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    let arrives = || {
        assert_eq!(send(&a, b"word").unwrap(), 4);
        eventually("the word", || {
            recv_now(&c, 4).is_ok_and(|word| word == b"word")
        });
    };
    arrives();
    p.cable.ends[1].jams.store(1, SeqCst);
    let start = Instant::now();
    arrives();
    let waited = start.elapsed();
    assert!(waited < Duration::from_millis(500), "it took {waited:?}");
}

/// What is sent with `MSG_MORE` leaves with what follows, or by itself after 200 ms.
#[test]
fn what_more_follows_leaves_with_it() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    let more = |bytes: &[u8]| send_flags(&a, bytes, MsgFlags::MORE).unwrap();
    let sent = || p.cable.ends[1].sent.load(SeqCst);
    let before = sent();
    assert_eq!(more(&[1; 238]), 238);
    assert_eq!(more(&[2; 100]), 100);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(sent(), before, "it was not held back");
    assert_eq!(send(&a, &[3; 15]).unwrap(), 15);
    let mut got = Vec::new();
    let mut arrives = |wanted: usize| {
        let start = Instant::now();
        eventually("the bytes", || {
            got.extend(recv_now(&c, 1 << 16).unwrap_or_default());
            got.len() >= wanted
        });
        start.elapsed()
    };
    arrives(353);
    assert_eq!(sent(), before + 1, "not one segment");
    assert_eq!(more(&[4; 10]), 10);
    let waited = arrives(363);
    assert!(waited > Duration::from_millis(100), "after {waited:?}");
    // It was for that one call.
    assert_eq!(send(&a, &[5; 10]).unwrap(), 10);
    let waited = arrives(373);
    assert!(waited < Duration::from_millis(150), "after {waited:?}");
}

/// A corked connection sends whole segments only, until the cork is drawn, 200 ms are
/// over, or it ends.
#[test]
fn a_cork_holds_back_what_is_no_whole_segment() {
    const CORK: (i32, i32) = (6, 3);
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    let cork = |on: u32| a.set_option(CORK.0, CORK.1, &on.to_ne_bytes()).unwrap();
    let mut got = Vec::new();
    let mut arrived = |more: usize| {
        let start = Instant::now();
        let wanted = got.len() + more;
        eventually("the bytes", || {
            got.extend(recv_now(&c, 1 << 16).unwrap_or_default());
            got.len() >= wanted
        });
        assert_eq!(got.len(), wanted);
        start.elapsed()
    };
    let sent = || p.cable.ends[1].sent.load(SeqCst);
    // Head and body in one segment, when the cork is drawn.
    cork(1);
    let before = sent();
    assert_eq!(send(&a, &[1; 238]).unwrap(), 238);
    assert_eq!(send(&a, &[2; 615]).unwrap(), 615);
    thread::sleep(Duration::from_millis(50));
    assert_eq!(sent(), before, "it was not held back");
    cork(0);
    arrived(853);
    assert_eq!(sent(), before + 1, "not one segment");
    // Whole segments leave; the rest follows by itself.
    cork(1);
    assert_eq!(send(&a, &[3; 4000]).unwrap(), 4000);
    arrived(2 * 1460);
    let waited = arrived(4000 - 2 * 1460);
    assert!(waited > Duration::from_millis(100), "after {waited:?}");
    // The end is no reason to wait.
    assert_eq!(send(&a, &[4; 10]).unwrap(), 10);
    a.shutdown(false, true).unwrap();
    let waited = arrived(10);
    assert!(waited < Duration::from_millis(150), "after {waited:?}");
}

#[test]
fn a_slow_reader_stops_the_sender() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    let mut sent = 0;
    let data = pattern(64 << 10);
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_millis(300) {
        if let Ok(n) = send_now(&c, &data) {
            sent += n;
            last = Instant::now();
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    assert!((256 << 10..4 << 20).contains(&sent), "{sent}");
    c.shutdown(false, true).unwrap();
    assert_eq!(read_all(&a).unwrap().len(), sent);
}

#[test]
fn refused_and_in_progress() {
    let p = pair(Faults::default());
    let c = tcp(&p.client);
    assert_eq!(c.connect(&at("10.0.0.2:81"), me(), false), Err(REFUSED));
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let r = c.connect(&at("10.0.0.2:8080"), me(), true);
    assert!(matches!(r, Err(Error::InProgress) | Ok(())), "{r:?}");
    eventually("connected", || c.readiness().contains(Events::OUT));
    assert_eq!(c.option(1, 4).unwrap(), 0u32.to_ne_bytes());
    assert!(l.accept(false).is_ok());
    // Not published, although the capsule listens there.
    let c = tcp(&p.client);
    let _own = listener(&p.server, "0.0.0.0:7000", 8);
    c.connect(&at("10.0.0.2:7000"), me(), true).unwrap_err();
    eventually("refused", || c.readiness().contains(Events::ERR));
    assert_eq!(c.option(1, 4).unwrap(), 111u32.to_ne_bytes());
}

#[test]
fn a_host_that_does_not_answer_is_unreachable() {
    let p = pair(Faults::default());
    let c = tcp(&p.client);
    let start = Instant::now();
    let r = c.connect(&at("10.0.0.99:80"), me(), false);
    assert_eq!(r, Err(Error::File(vfs::Error::Foreign(113))));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn half_close_reset_and_unread_bytes() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    send(&c, b"request").unwrap();
    c.shutdown(false, true).unwrap();
    assert_eq!(read_all(&a).unwrap(), b"request");
    send(&a, b"answer").unwrap();
    drop(a);
    assert_eq!(read_all(&c).unwrap(), b"answer");
    assert!(c.readiness().contains(Events::HUP));

    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    send(&c, b"never read").unwrap();
    eventually("arrived", || a.readiness().contains(Events::IN));
    drop(a);
    assert_eq!(recv(&c, 1), Err(ECONNRESET));

    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    let linger = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
    c.set_option(1, 13, &linger).unwrap();
    drop(c);
    assert_eq!(recv(&a, 1), Err(ECONNRESET));
}

#[test]
fn a_full_backlog_delays_connections_and_loses_none() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 2);
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let c = tcp(&p.client);
            let _ = c.connect(&at("10.0.0.2:8080"), me(), true);
            c
        })
        .collect();
    thread::sleep(Duration::from_millis(100));
    for _ in 0..clients.len() {
        let (a, _) = l.accept(false).unwrap();
        send(&a, b"x").unwrap();
    }
    for c in &clients {
        assert_eq!(recv(c, 4).unwrap(), b"x");
    }
}

#[test]
fn many_short_connections_leave_nothing() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 64);
    let t = thread::spawn(move || {
        for _ in 0..600 {
            let (a, _) = l.accept(false).unwrap();
            let data = recv(&a, 64).unwrap();
            send(&a, &data).unwrap();
        }
        l
    });
    let start = Instant::now();
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let s = p.client.clone();
            thread::spawn(move || {
                for i in 0..200u32 {
                    let c = tcp(&s);
                    c.connect(&at("10.0.0.2:8080"), me(), false).unwrap();
                    send(&c, &i.to_ne_bytes()).unwrap();
                    assert_eq!(read_all(&c).unwrap(), i.to_ne_bytes());
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|c| c.join().unwrap());
    println!("600 connections in {:?}", start.elapsed());
    drop(t.join().unwrap());
    for s in [&p.client, &p.server] {
        eventually("no sockets", || s.socket_count() == 0);
        s.shutdown();
        eventually("no pages", || s.account().used() == 0);
    }
}

#[test]
fn the_end_of_a_capsule_resets_its_connections() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    p.server.shutdown();
    assert_eq!(recv(&c, 1), Err(ECONNRESET));
    drop((a, l));
    eventually("no pages", || p.server.account().used() == 0);
    let again = tcp(&p.client);
    assert_eq!(
        again.connect(&at("10.0.0.2:8080"), me(), false),
        Err(REFUSED)
    );
}

/// Who waits for a connection that will not come is told so.
#[test]
fn the_end_of_a_capsule_ends_its_attempts() {
    let p = pair(Faults::default());
    let c = tcp(&p.client);
    let (told, hears) = std::sync::mpsc::channel();
    thread::spawn(move || told.send(c.connect(&at("10.0.0.99:80"), me(), false)));
    eventually("an attempt", || p.client.socket_count() == 1);
    thread::sleep(Duration::from_millis(200));
    p.client.shutdown();
    let heard = hears.recv_timeout(Duration::from_secs(10));
    assert_eq!(heard, Ok(Err(ABORTED)));
    eventually("no pages", || p.client.account().used() == 0);
}

/// What limits the time is how long something may stay unacknowledged.
#[test]
fn an_idle_connection_stays() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    for s in [&a, &c] {
        let ms = 200i32.to_ne_bytes();
        s.set_option(IPPROTO_TCP, TCP_USER_TIMEOUT, &ms).unwrap();
    }
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(700));
        send(&c, b"x").unwrap();
        assert_eq!(recv(&a, 1).unwrap(), b"x");
        send(&a, b"y").unwrap();
        assert_eq!(recv(&c, 1).unwrap(), b"y");
    }
    // Its end is one in order.
    thread::sleep(Duration::from_millis(700));
    drop(a);
    assert_eq!(recv(&c, 1).unwrap(), b"");
}

#[test]
fn what_is_never_acknowledged_ends_a_connection() {
    const ETIMEDOUT: u16 = 110;
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let _a = l.accept(false).unwrap();
    c.set_option(IPPROTO_TCP, TCP_USER_TIMEOUT, &300i32.to_ne_bytes())
        .unwrap();
    thread::sleep(Duration::from_millis(700));
    p.cable.cut();
    let start = Instant::now();
    send(&c, b"x").unwrap();
    eventually("its end", || c.readiness().contains(Events::HUP));
    let e = recv_now(&c, 1).unwrap_err();
    assert_eq!(e, Error::File(vfs::Error::Foreign(ETIMEDOUT)));
    let took = start.elapsed();
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(10));
}

#[test]
fn an_idle_connection_is_quiet() {
    let p = pair(Faults::default());
    let l = listener(&p.server, "0.0.0.0:80", 8);
    let c = p.connect();
    let (a, _) = l.accept(false).unwrap();
    send(&c, b"x").unwrap();
    assert_eq!(recv(&a, 1).unwrap(), b"x");
    thread::sleep(Duration::from_millis(300));
    let count = || -> usize {
        let sent = |e: &Arc<End>| e.sent.load(std::sync::atomic::Ordering::Relaxed);
        p.cable.ends.iter().map(sent).sum()
    };
    let before = count();
    thread::sleep(Duration::from_millis(2000));
    // Router solicitations end after the first seconds; nothing else is sent.
    assert!(count() - before <= 2, "{} frames", count() - before);
}

#[test]
fn datagrams_cross_in_both_directions() {
    let (a, b, _cable) = joined(Faults::default());
    let client = stack_on(&a, vec![], false);
    let server = stack_on(&b, publish(Protocol::Udp, 53, 5353), false);
    let s = udp(&server);
    s.bind(at("0.0.0.0:53")).unwrap();
    let c = udp(&client);
    c.connect(&at("10.0.0.2:5353"), me(), false).unwrap();
    for i in 0..50u32 {
        send(&c, &i.to_ne_bytes()).unwrap();
        let (q, r) = recv_with(&s, 64, MsgFlags::empty()).unwrap();
        assert_eq!(q, i.to_ne_bytes());
        assert_eq!(r.packet.map(|(_, _, class)| class), Some(0));
        send_to(&s, b"answer", r.from.unwrap()).unwrap();
        assert_eq!(recv(&c, 64).unwrap(), b"answer");
    }
    // The type of service and the time to live are those of the socket.
    c.set_option(0, 1, &0xb8u32.to_ne_bytes()).unwrap();
    c.set_option(0, 2, &7u32.to_ne_bytes()).unwrap();
    send(&c, b"soon").unwrap();
    let (_, r) = recv_with(&s, 64, MsgFlags::empty()).unwrap();
    assert_eq!(
        r.packet.map(|(_, hops, class)| (hops, class)),
        Some((7, 0xb8))
    );
    // A port that nobody has.
    c.connect(&at("10.0.0.2:9"), me(), false).unwrap();
    send(&c, b"x").unwrap();
    assert_eq!(recv(&c, 1), Err(REFUSED));
}

#[test]
fn netlink_tells_of_one_link_and_one_route() {
    let (a, _b, _cable) = joined(Faults::default());
    let s = stack_on(&a, vec![], false);
    let n = Socket::new(&s, 16, 3, 0).unwrap();
    let ask = |kind: u8, flags: [u8; 2], body: &[u8]| {
        let len = 16 + body.len() as u8;
        let head = [
            len, 0, 0, 0, kind, 0, flags[0], flags[1], 7, 0, 0, 0, 0, 0, 0, 0,
        ];
        send(&n, &[&head[..], body].concat()).unwrap();
        recv(&n, 8192).unwrap()
    };
    let error = |answer: &[u8]| {
        assert_eq!(answer[4..6], [2, 0], "an error");
        i32::from_ne_bytes(answer[16..20].try_into().unwrap())
    };
    let has = |answer: &[u8], what: &[u8]| answer.windows(what.len()).any(|w| w == what);
    // By number, by name, and what there is not.
    let mut link = [0u8; 16];
    link[4] = 2;
    let answer = ask(18, [1, 0], &link);
    assert!(has(&answer, b"eth0\0") && !has(&answer, b"lo\0"));
    assert_eq!(answer[4..8], [16, 0, 0, 0], "one message, nothing follows");
    let named = [&[0u8; 16][..], &[7, 0, 3, 0], b"lo\0\0"].concat();
    assert!(has(&ask(18, [1, 0], &named), b"lo\0"));
    link[4] = 9;
    assert_eq!(error(&ask(18, [1, 0], &link)), -19);
    // `ip route get`.
    let route = |ip: [u8; 4]| {
        [
            &[2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[8, 0, 1, 0],
            &ip,
        ]
        .concat()
    };
    let far = ask(26, [1, 0], &route([192, 0, 2, 1]));
    assert!(has(&far, &[8, 0, 5, 0, 10, 0, 0, 2]), "by the gateway");
    assert!(has(&far, &[8, 0, 7, 0, 10, 0, 0, 1]), "from our address");
    let near = ask(26, [1, 0], &route([10, 0, 0, 7]));
    assert!(!has(&near, &[8, 0, 5, 0]));
    let own = ask(26, [1, 0], &route([10, 0, 0, 1]));
    assert_eq!((own[16 + 4], own[16 + 7]), (255, 2), "the local table");
    assert_eq!(
        error(&ask(26, [1, 0], &[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])),
        -22
    );
    // Attributes that do not fit are none.
    let cut = [
        &[2, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[0, 0, 1, 0],
        &[1, 2, 3, 4],
    ]
    .concat();
    assert_eq!(error(&ask(26, [1, 0], &cut)), -22);
    // Neighbours, once there is one.
    let u = udp(&s);
    send_to(&u, b"x", at("10.0.0.2:9")).unwrap();
    eventually("a neighbour", || {
        has(&ask(30, [1, 3], &[0; 12]), &[10, 0, 0, 2])
    });
}

#[test]
fn a_capsule_that_may_not_go_out_cannot() {
    let (a, b, _cable) = joined(Faults::default());
    let account = Arc::new(machine::Account::new(1000).unwrap());
    let inside = a
        .new_stack(StackConfig {
            ports: publish(Protocol::Tcp, 80, 80),
            raw: false,
            outbound: false,
            system: false,
            account,
            sockets_max: 10,
        })
        .unwrap();
    let c = tcp(&inside);
    let r = c.connect(&at("10.0.0.2:80"), me(), false);
    assert_eq!(r, Err(Error::NetworkUnreachable));
    let u = udp(&inside);
    let r = send_to(&u, b"x", at("10.0.0.2:53"));
    assert_eq!(r, Err(Error::NetworkUnreachable));
    // What it publishes answers.
    let l = listener(&inside, "0.0.0.0:80", 4);
    let out = tcp(&stack_on(&b, vec![], false));
    out.connect(&at("10.0.0.1:80"), me(), false).unwrap();
    let (s, _) = l.accept(false).unwrap();
    send(&s, b"reply").unwrap();
    assert_eq!(recv(&out, 9).unwrap(), b"reply");
    // And its own node reaches it without the wire.
    let near = tcp(&stack_on(&a, vec![], false));
    near.connect(&at("10.0.0.1:80"), me(), false).unwrap();
    assert!(l.accept(true).is_ok());
}
