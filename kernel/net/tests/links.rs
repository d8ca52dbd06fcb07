//! Several links: which one is used, and what happens when its carrier goes.

mod common;

use common::node;
use net::{Link, NetEvent, NetNode, Port, StaticConfig, Upper};
use smoltcp::wire::{ArpPacket, EthernetFrame, EthernetProtocol};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

/// A link whose cable can be pulled and which keeps what was sent.
struct Plug {
    mac: Mutex<[u8; 6]>,
    takes_mac: bool,
    up: AtomicBool,
    sent: Mutex<Vec<Vec<u8>>>,
}

impl Plug {
    fn new(n: u8, takes_mac: bool) -> Arc<Plug> {
        Arc::new(Plug {
            mac: Mutex::new([2, 0, 0, 0, 0, n]),
            takes_mac,
            up: AtomicBool::new(false),
            sent: Mutex::default(),
        })
    }

    fn set(&self, port: &Port, up: bool) {
        self.up.store(up, SeqCst);
        port.link_changed();
    }

    fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.sent.lock().unwrap())
    }

    /// Hardware address of the last ARP packet that told of [`OWN`].
    fn announced(&self) -> Option<[u8; 6]> {
        self.take_sent().iter().rev().find_map(|frame| {
            let frame = EthernetFrame::new_checked(&frame[..]).ok()?;
            if frame.ethertype() != EthernetProtocol::Arp {
                return None;
            }
            let arp = ArpPacket::new_checked(frame.payload()).ok()?;
            let own = arp.source_protocol_addr() == OWN.octets();
            own.then(|| frame.src_addr().0)
        })
    }
}

impl Link for Plug {
    fn mac(&self) -> [u8; 6] {
        *self.mac.lock().unwrap()
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn is_up(&self) -> bool {
        self.up.load(SeqCst)
    }
    fn transmit(&self, frame: &[u8]) -> bool {
        self.sent.lock().unwrap().push(frame.to_vec());
        true
    }
    fn room(&self) -> usize {
        64
    }
    fn flush(&self) {}
    fn set_mac(&self, mac: [u8; 6]) -> bool {
        if self.takes_mac {
            *self.mac.lock().unwrap() = mac;
        }
        self.takes_mac
    }
}

struct Setup {
    node: Arc<NetNode>,
    plugs: [Arc<Plug>; 2],
    ports: [Arc<Port>; 2],
    events: Arc<Mutex<Vec<NetEvent>>>,
}

/// A node with two links that have no carrier yet.
fn two(takes_mac: bool) -> Setup {
    let _ = machine::timer::start();
    let node = node();
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = events.clone();
    node.observe(move |e| told.lock().unwrap().push(e));
    let plugs = [Plug::new(1, takes_mac), Plug::new(2, takes_mac)];
    let ports = [0, 1].map(|i| {
        node.attach_link(["one", "two"][i], plugs[i].clone())
            .unwrap()
    });
    assert!(node.configure_static(&StaticConfig {
        address: OWN,
        prefix: 24,
        gateway: None,
        dns: Default::default(),
    }));
    Setup {
        node,
        plugs,
        ports,
        events,
    }
}

fn moved(s: &Setup) -> usize {
    let events = s.events.lock().unwrap();
    events.iter().filter(|e| **e == NetEvent::LinkMoved).count()
}

#[test]
fn the_first_with_carrier_is_taken() {
    let s = two(true);
    assert!(!s.node.is_up());
    s.plugs[1].set(&s.ports[1], true);
    assert!(s.node.is_up());
    assert_eq!(s.node.link_name(), Some("two"));
    // Its own address: no other was ever in use.
    assert_eq!(s.node.mac(), [2, 0, 0, 0, 0, 2]);
    assert_eq!(s.plugs[1].announced(), Some([2, 0, 0, 0, 0, 2]));
    // The one before it is taken instead if it comes soon, with its own address.
    s.plugs[0].set(&s.ports[0], true);
    assert_eq!(s.node.link_name(), Some("one"));
    assert_eq!(s.node.mac(), [2, 0, 0, 0, 0, 1]);
    assert_eq!(moved(&s), 0);
}

#[test]
fn a_moved_cable_is_followed_with_address_and_all() {
    let s = two(true);
    s.plugs[0].set(&s.ports[0], true);
    s.plugs[0].set(&s.ports[0], false);
    assert!(!s.node.is_up());
    s.plugs[0].take_sent();
    s.plugs[1].set(&s.ports[1], true);
    assert_eq!(s.node.link_name(), Some("two"));
    assert_eq!(s.node.ipv4(), Some(OWN));
    sleep(Duration::from_millis(3100));
    // No way back while this one works.
    s.plugs[0].set(&s.ports[0], true);
    assert_eq!(s.node.link_name(), Some("two"));
    s.plugs[1].set(&s.ports[1], false);
    assert_eq!(s.node.link_name(), Some("one"));
    assert_eq!(s.plugs[0].announced(), Some(s.node.mac()));
    assert!(moved(&s) >= 1);
}

#[test]
fn the_address_goes_along_where_it_can() {
    for takes_mac in [true, false] {
        let s = two(takes_mac);
        s.plugs[0].set(&s.ports[0], true);
        sleep(Duration::from_millis(3100));
        s.plugs[1].set(&s.ports[1], true);
        assert_eq!(s.node.link_name(), Some("one"));
        s.plugs[0].set(&s.ports[0], false);
        assert_eq!(s.node.link_name(), Some("two"));
        let mac = [2, 0, 0, 0, 0, if takes_mac { 1 } else { 2 }];
        assert_eq!(s.node.mac(), mac);
        assert_eq!(s.plugs[1].announced(), Some(mac));
        assert_eq!(moved(&s), 1);
        assert!(s.node.is_up());
    }
}

#[test]
fn what_comes_in_on_a_link_that_stands_by_is_not_heard() {
    let s = two(true);
    s.plugs[0].set(&s.ports[0], true);
    sleep(Duration::from_millis(3100));
    s.plugs[1].set(&s.ports[1], true);
    let question = arp_question(s.node.mac());
    s.plugs.iter().for_each(|p| drop(p.take_sent()));
    s.ports[1].receive(&question);
    assert!(s.plugs.iter().all(|p| p.announced().is_none()));
    s.ports[0].receive(&question);
    assert_eq!(s.plugs[0].announced(), Some(s.node.mac()));
}

/// Somebody asks who has [`OWN`].
fn arp_question(to: [u8; 6]) -> Vec<u8> {
    use smoltcp::wire::{ArpOperation, ArpRepr, EthernetAddress};
    let from = EthernetAddress([2, 0, 0, 0, 0, 9]);
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: from,
        source_protocol_addr: Ipv4Addr::new(10, 0, 0, 9),
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: OWN,
    };
    let mut bytes = vec![0; 14 + repr.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    frame.set_src_addr(from);
    frame.set_dst_addr(EthernetAddress(to));
    frame.set_ethertype(EthernetProtocol::Arp);
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}

#[test]
fn there_is_an_end_to_links() {
    let node = node();
    let all: Vec<_> = (0..20)
        .filter_map(|n| node.attach_link("more", Plug::new(n, true)))
        .collect();
    assert_eq!(all.len(), 8);
}
