//! A node in a VLAN: everything it sends has the tag, and nothing else reaches it.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::thread;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const VLAN: u16 = 12;

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
        self.0.lock().unwrap().push(frame.to_vec());
        true
    }
    fn room(&self) -> usize {
        64
    }
    fn flush(&self) {}
}

impl Tap {
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

fn address(ip: Ipv4Addr) -> StaticConfig {
    StaticConfig {
        address: ip,
        prefix: 24,
        gateway: None,
        dns: Default::default(),
    }
}

/// Who has [`A`]? With these bytes between addresses and ethertype.
fn question(tag: &[u8]) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(THEIRS),
        source_protocol_addr: B,
        target_hardware_addr: EthernetAddress::BROADCAST,
        target_protocol_addr: A,
    };
    let mut packet = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut packet[..]));
    [&[0xff; 6], &THEIRS[..], tag, &[8, 6], &packet].concat()
}

fn tag(number: u16) -> Vec<u8> {
    [&[0x81, 0], &number.to_be_bytes()[..]].concat()
}

#[test]
fn a_held_link_is_silent_and_then_speaks_with_the_tag() {
    let _ = machine::timer::start();
    let node = node();
    let tap = Arc::new(Tap::default());
    node.hold();
    node.attach_link("eth0", tap.clone()).unwrap();
    node.receive(&question(&tag(VLAN)));
    assert!(tap.take().is_empty(), "it spoke before it was allowed to");
    node.release(Some(VLAN));
    assert!(node.configure_static(&address(A)));
    tap.take();
    // Its own tag, whatever the priority.
    for number in [VLAN, VLAN | 0xe000] {
        node.receive(&question(&tag(number)));
        let sent = tap.take();
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0][..6], THEIRS);
        assert_eq!(sent[0][12..18], [&tag(VLAN)[..], &[8, 6]].concat());
    }
    let strange = [
        vec![],
        tag(VLAN + 1),
        tag(0),
        vec![0x88, 0xa8, 0, 12],
        tag(VLAN).repeat(2),
    ];
    for tag in strange {
        node.receive(&question(&tag));
        assert!(tap.take().is_empty(), "{tag:?}");
    }
    // Nor do cut ones.
    for len in 0..20 {
        node.receive(&question(&tag(VLAN))[..len]);
    }
    assert!(tap.take().is_empty());
}

#[test]
fn without_a_vlan_tagged_frames_are_not_for_us() {
    let _ = machine::timer::start();
    let node = node();
    let tap = Arc::new(Tap::default());
    node.hold();
    node.attach_link("eth0", tap.clone()).unwrap();
    node.release(None);
    assert!(node.configure_static(&address(A)));
    tap.take();
    node.receive(&question(&tag(VLAN)));
    assert!(tap.take().is_empty());
    node.receive(&question(&[]));
    assert_eq!(tap.take()[0][12..14], [8, 6]);
}

#[test]
fn two_nodes_in_one_vlan_exchange_full_segments() {
    let cable = cable(Faults::default());
    let nodes = [node(), node()];
    for (i, ip) in [A, B].into_iter().enumerate() {
        nodes[i].release(Some(VLAN));
        cable.plug(i, &nodes[i]);
        assert!(nodes[i].configure_static(&address(ip)));
    }
    let client = stack_on(&nodes[0], vec![], false);
    let server = stack_on(&nodes[1], publish(Protocol::Tcp, 80, 8080), false);
    let l = listener(&server, "0.0.0.0:80", 8);
    let c = tcp(&client);
    c.connect(&at("10.0.0.2:8080"), me(), false).unwrap();
    let (a, _) = l.accept(false).unwrap();
    let data = pattern(1 << 20);
    let copy = data.clone();
    let sender = thread::spawn(move || {
        assert_eq!(send(&c, &copy).unwrap(), copy.len());
        c.shutdown(false, true).unwrap();
    });
    assert!(read_all(&a).unwrap() == data, "bytes differ");
    sender.join().unwrap();
}
