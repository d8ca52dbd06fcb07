//! TCP sockets whose connection is taken back (connect(2) with `AF_UNSPEC`), as Linux
//! answers it.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use vfs::Events;

const EPIPE: Error = Error::BROKEN_PIPE;
const ECONNRESET: Error = Error::File(vfs::Error::Foreign(104));

fn take_back(s: &Socket) {
    s.connect(&Address::Unspecified, me(), false).unwrap();
}

fn connect(s: &Socket, to: &Address) -> Result<()> {
    s.connect(to, me(), false)
}

/// `SO_ERROR`.
fn error(s: &Socket) -> u32 {
    u32::from_ne_bytes(s.option(1, 4).unwrap().try_into().unwrap())
}

fn port(s: &Socket) -> u16 {
    match s.local() {
        Address::Inet(a) => a.port(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_socket_has_many_connections_one_after_the_other() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    let c = tcp(&s);
    for round in 0..5 {
        connect(&c, &l.local()).unwrap();
        let (peer, from) = l.accept(false).unwrap();
        assert_eq!(from, c.local());
        assert_eq!(connect(&c, &l.local()), Err(Error::IsConnected));
        send(&c, b"there").unwrap();
        assert_eq!(recv(&peer, 9).unwrap(), b"there");
        send(&peer, b"unread").unwrap();
        take_back(&c);
        assert_eq!(recv(&peer, 9), Err(ECONNRESET), "round {round}");
        assert_eq!(c.remote(), Err(Error::NotConnected));
        let ready = c.readiness();
        assert_eq!(
            ready,
            Events::WRITABLE | Events::ERR | Events::HUP,
            "{round}"
        );
        match round % 3 {
            0 => assert_eq!((error(&c), error(&c)), (104, 0)),
            1 => {
                assert_eq!(send(&c, b"x"), Err(ECONNRESET));
                assert_eq!(send(&c, b"x"), Err(EPIPE));
            }
            _ => {
                assert_eq!(recv(&c, 9), Err(ECONNRESET));
                assert_eq!(recv(&c, 9), Err(Error::NotConnected));
            }
        }
        assert_eq!(c.readiness(), Events::WRITABLE | Events::HUP);
    }
    // Nothing to take back, and an error that a new connection forgets.
    connect(&c, &l.local()).unwrap();
    take_back(&c);
    take_back(&c);
    connect(&c, &l.local()).unwrap();
    assert_eq!(error(&c), 0);
}

#[test]
fn a_chosen_port_stays_and_another_one_goes() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    for (asked, stays) in [("127.0.0.1:700", true), ("127.0.0.1:0", false)] {
        let c = tcp(&s);
        c.bind(at(asked)).unwrap();
        let held = port(&c);
        for _ in 0..2 {
            connect(&c, &l.local()).unwrap();
            assert_eq!(l.accept(false).unwrap().1, c.local());
            take_back(&c);
        }
        let again = c.bind(at("127.0.0.1:0"));
        match stays {
            true => assert_eq!((port(&c), again), (held, Err(Error::INVALID))),
            false => assert_eq!(again, Ok(())),
        }
    }
}

#[test]
fn connections_that_have_ended_leave_no_error() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    let c = tcp(&s);
    for ours_too in [true, false] {
        connect(&c, &l.local()).unwrap();
        let (peer, _) = l.accept(false).unwrap();
        if ours_too {
            c.shutdown(false, true).unwrap();
        }
        drop(peer);
        take_back(&c);
        assert_eq!(error(&c), if ours_too { 0 } else { 104 });
    }
    // One that was refused does, unless that was heard.
    let nobody = at("127.0.0.1:9");
    c.connect(&nobody, me(), true).unwrap_err();
    take_back(&c);
    connect(&c, &l.local()).unwrap();
    let (peer, _) = l.accept(false).unwrap();
    send(&peer, b"fresh").unwrap();
    assert_eq!(recv(&c, 9).unwrap(), b"fresh");
}

#[test]
fn who_waits_on_it_hears_of_it() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    let c = tcp(&s);
    for _ in 0..3 {
        connect(&c, &l.local()).unwrap();
        let _peer = l.accept(false).unwrap();
        let reader = {
            let c = c.clone();
            thread::spawn(move || recv(&c, 1))
        };
        thread::sleep(Duration::from_millis(50));
        take_back(&c);
        assert_eq!(reader.join().unwrap(), Err(EPIPE));
        assert_eq!(error(&c), 104);
    }
}

#[test]
fn a_listener_becomes_a_socket_again() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:700", 8);
    let other = listener(&s, "127.0.0.1:0", 8);
    let waits = tcp(&s);
    connect(&waits, &l.local()).unwrap();
    let held = port(&l);
    take_back(&l);
    assert_eq!(recv(&waits, 1), Err(ECONNRESET));
    assert_eq!(connect(&tcp(&s), &l.local()), Err(Error::Refused));
    assert_eq!(l.accept(true).err(), Some(Error::INVALID));
    assert_eq!(
        (error(&l), l.readiness()),
        (0, Events::WRITABLE | Events::HUP)
    );
    connect(&l, &other.local()).unwrap();
    assert_eq!(port(&l), held);
    take_back(&l);
    l.listen(8, me()).unwrap();
    connect(&tcp(&s), &l.local()).unwrap();
    l.accept(false).unwrap();
}

#[test]
fn what_an_accepted_socket_takes_back_is_taken_back_too() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    let c = tcp(&s);
    connect(&c, &l.local()).unwrap();
    let (peer, _) = l.accept(false).unwrap();
    take_back(&peer);
    assert_eq!(recv(&c, 9), Err(ECONNRESET));
    connect(&peer, &l.local()).unwrap();
    let (third, _) = l.accept(false).unwrap();
    send(&peer, b"on").unwrap();
    assert_eq!(recv(&third, 9).unwrap(), b"on");
}

#[test]
fn memory_does_not_grow_with_connections() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    let c = tcp(&s);
    let mut used = Vec::new();
    for _ in 0..200 {
        connect(&c, &l.local()).unwrap();
        let (peer, _) = l.accept(false).unwrap();
        send(&c, &pattern(100_000)).unwrap();
        send(&peer, &pattern(100_000)).unwrap();
        take_back(&c);
        drop(peer);
        used.push(s.account().used());
    }
    assert!(used[199] <= used[1], "{} then {}", used[1], used[199]);
}

#[test]
fn connections_over_the_wire_are_reset_and_made_again() {
    let (a, b, _cable) = joined(Faults::default());
    let server = stack_on(&b, publish(Protocol::Tcp, 80, 8080), false);
    let l = listener(&server, "0.0.0.0:80", 8);
    let s = stack_on(&a, vec![], false);
    let c = tcp(&s);
    for _ in 0..3 {
        connect(&c, &at("10.0.0.2:8080")).unwrap();
        let (peer, _) = l.accept(false).unwrap();
        send(&c, b"there").unwrap();
        assert_eq!(recv(&peer, 5).unwrap(), b"there");
        take_back(&c);
        assert_eq!(recv(&peer, 5), Err(ECONNRESET));
        assert_eq!(error(&c), 104);
    }
    // An attempt, which somebody waits for.
    let c = tcp(&s);
    let waiting = {
        let c: Arc<Socket> = c.clone();
        thread::spawn(move || connect(&c, &at("10.0.0.77:80")))
    };
    thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    take_back(&c);
    assert_eq!(waiting.join().unwrap(), Err(ECONNRESET));
    assert!(begun.elapsed() < Duration::from_millis(900), "not woken");
    connect(&c, &at("10.0.0.2:8080")).unwrap();
}
