//! Segments that leave joined over links that cut them.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;

const JOINED_MAX: usize = 60 << 10;
/// Data in a segment, and in as many as may leave as one.
const SIZE: usize = 1460;
const MOST: usize = (JOINED_MAX - 40) / SIZE;
const PACKET: u32 = 17;
const RAW: u32 = 3;
/// As `socket(2)` has it, big-endian.
const ETH_ALL: u32 = 0x0300;

struct Pair {
    client: Arc<Socket>,
    server: Arc<Socket>,
    nodes: [Arc<NetNode>; 2],
    cable: Cable,
}

/// A connection from one node to the other over a cable whose ends cut.
fn pair(faults: Faults, vlan: Option<u16>) -> Pair {
    let (a, b, cable) = joined_by(cutting_cable(faults, JOINED_MAX));
    for node in [&a, &b] {
        node.hold();
        node.release(vlan);
    }
    let server = stack_on(&b, publish(Protocol::Tcp, 80, 8080), false);
    let l = listener(&server, "0.0.0.0:80", 8);
    let client = tcp(&stack_on(&a, vec![], false));
    client.connect(&at("10.0.0.2:8080"), me(), false).unwrap();
    let (server, _) = l.accept(false).unwrap();
    Pair {
        client,
        server,
        nodes: [a, b],
        cable,
    }
}

impl Pair {
    /// Sends `data` from the client, and its end; what arrives.
    fn transfer(&self, data: &[u8]) -> Vec<u8> {
        let (client, copy) = (self.client.clone(), data.to_vec());
        let sending = thread::spawn(move || {
            assert_eq!(send(&client, &copy).unwrap(), copy.len());
            client.shutdown(false, true).unwrap();
        });
        let got = read_all(&self.server).unwrap();
        sending.join().unwrap();
        got
    }

    /// How many segments were in each frame that end `i` cut.
    fn cuts(&self, i: usize) -> Vec<usize> {
        self.cable.ends[i].cuts.lock().unwrap().clone()
    }
}

#[test]
fn megabytes_leave_in_few_frames_and_arrive_unchanged() {
    for vlan in [None, Some(7)] {
        let p = pair(Faults::default(), vlan);
        let data = pattern((4 << 20) + 17);
        assert!(p.transfer(&data) == data);
        let cuts = p.cuts(0);
        assert!(cuts.iter().all(|n| (2..=MOST).contains(n)), "{cuts:?}");
        let joined: usize = cuts.iter().sum();
        let all = data.len() / SIZE;
        assert!(joined > all * 3 / 4, "{joined} of {all}");
        assert!(cuts.len() < joined / 4, "{} for {joined}", cuts.len());
    }
}

#[test]
fn a_bad_cable_damages_nothing() {
    for seed in 1..4 {
        let faults = Faults {
            lost: 10,
            twice: 10,
            late: 20,
            seed,
        };
        let p = pair(faults, None);
        let data = pattern(1 << 20);
        assert!(p.transfer(&data) == data);
        assert!(!p.cuts(0).is_empty());
    }
}

/// A device that makes fragments of IP of a long segment does not keep it from arriving.
#[test]
fn what_is_cut_at_the_wrong_place_is_put_together() {
    for lost in [0, 5] {
        let faults = Faults {
            lost,
            seed: 9,
            ..Faults::default()
        };
        let p = pair(faults, None);
        p.cable.ends[0].makes_fragments.store(true, SeqCst);
        let data = pattern(1 << 20);
        assert!(p.transfer(&data) == data);
        assert!(!p.cuts(0).is_empty());
    }
}

/// What has no full segments does not wait for any.
#[test]
fn short_answers_leave_at_once_and_alone() {
    let p = pair(Faults::default(), None);
    for n in 0..50u8 {
        let word = vec![n; 1 + usize::from(n) * 20];
        assert_eq!(send(&p.client, &word).unwrap(), word.len());
        let mut got = Vec::new();
        while got.len() < word.len() {
            got.extend(recv(&p.server, 4096).unwrap());
        }
        assert_eq!(got, word);
    }
    assert_eq!(p.cuts(0), []);
}

/// Whoever watches sees what is on the wire.
#[test]
fn nothing_is_joined_while_somebody_watches() {
    let p = pair(Faults::default(), None);
    let stack = p.nodes[0]
        .new_stack(StackConfig {
            ports: Vec::new(),
            outbound: true,
            raw: true,
            system: false,
            account: Arc::new(machine::Account::new(16 << 10).unwrap()),
            sockets_max: 100,
        })
        .unwrap();
    let watcher = Socket::new(&stack, PACKET, RAW, ETH_ALL).unwrap();
    let data = pattern(1 << 20);
    assert!(p.transfer(&data) == data);
    assert_eq!(p.cuts(0), []);
    assert!(recv_now(&watcher, 2000).is_ok());
}
