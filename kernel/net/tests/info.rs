//! What `TCP_INFO` tells of connections over the wire.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use std::sync::Arc;
use std::thread;

const SOL_TCP: i32 = 6;
const TCP_INFO: i32 = 11;

/// Fields of `struct tcp_info` (linux/tcp.h).
struct Told(Vec<u8>);

impl Told {
    fn of(s: &Socket) -> Told {
        Told(s.option(SOL_TCP, TCP_INFO).unwrap())
    }
    fn word(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }
    fn long(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }
    fn rtt(&self) -> u32 {
        self.word(68)
    }
    fn retransmitted(&self) -> u32 {
        self.word(100)
    }
    fn acknowledged(&self) -> u64 {
        self.long(120)
    }
    fn received(&self) -> u64 {
        self.long(128)
    }
    fn sent(&self) -> u64 {
        self.long(200)
    }
}

fn pair(faults: Faults) -> (Arc<Socket>, Arc<Socket>, Cable) {
    let (a, b, cable) = joined(faults);
    let server = stack_on(&b, publish(Protocol::Tcp, 80, 8080), false);
    let l = listener(&server, "0.0.0.0:80", 8);
    let client = tcp(&stack_on(&a, vec![], false));
    client.connect(&at("10.0.0.2:8080"), me(), false).unwrap();
    let (server, _) = l.accept(false).unwrap();
    (client, server, cable)
}

/// Sends `data` and its end; waits until all of it is acknowledged.
fn transfer(from: &Arc<Socket>, to: &Socket, data: &[u8]) {
    let (sender, copy) = (from.clone(), data.to_vec());
    let sending = thread::spawn(move || send(&sender, &copy).unwrap());
    let mut got = Vec::new();
    while got.len() < data.len() {
        got.extend(recv(to, 1 << 16).unwrap());
    }
    sending.join().unwrap();
    assert!(got == data);
    while Told::of(from).word(24) > 0 {
        thread::yield_now();
    }
}

#[test]
fn bytes_and_segments_are_counted() {
    let (client, server, _cable) = pair(Faults::default());
    let begin = Told::of(&client);
    assert_eq!((begin.0.len(), begin.0[0]), (232, 1));
    assert!(begin.rtt() > 0, "the handshake was timed");
    assert_eq!(begin.sent() + begin.acknowledged() + begin.received(), 0);
    transfer(&client, &server, &pattern(1_000_003));
    transfer(&server, &client, b"short");
    let (c, s) = (Told::of(&client), Told::of(&server));
    assert_eq!(
        (c.sent(), c.acknowledged(), c.received()),
        (1_000_003, 1_000_003, 5)
    );
    assert_eq!(
        (s.sent(), s.acknowledged(), s.received()),
        (5, 5, 1_000_003)
    );
    assert_eq!((c.retransmitted(), s.retransmitted()), (0, 0));
    // Data segments out, and in at the other end.
    assert!(c.word(156) >= 1_000_003 / 1460);
    assert_eq!((c.word(156), s.word(156)), (s.word(152), c.word(152)));
    for told in [c, s] {
        assert!(told.rtt() > 0 && told.word(148) > 0 && told.word(148) <= told.rtt() * 8);
        assert!(told.word(136) > 0 && told.word(140) > 0);
    }
}

#[test]
fn what_was_lost_and_left_again_is_told() {
    let (client, server, _cable) = pair(Faults {
        lost: 20,
        ..Faults::default()
    });
    transfer(&client, &server, &pattern(300_000));
    let (c, s) = (Told::of(&client), Told::of(&server));
    assert!(c.retransmitted() > 0);
    assert_eq!(c.acknowledged(), 300_000);
    assert_eq!(s.received(), 300_000);
    assert_eq!(c.sent(), 300_000 + c.long(208));
}

#[test]
fn loopback_has_no_segments() {
    let s = stack();
    let l = listener(&s, "127.0.0.1:0", 8);
    let c = tcp(&s);
    c.connect(&l.local(), me(), false).unwrap();
    let told = Told::of(&c);
    assert_eq!((told.0[0], told.rtt(), told.word(136)), (1, 0, 0));
    assert_eq!(Told::of(&l).0[0], 10);
}
