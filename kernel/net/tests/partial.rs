//! Checksums that the link writes: they are left out only for a link that does, and only
//! in what the node makes itself.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::addr::Hardware;
use net::*;
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};
use std::sync::{Arc, Mutex};

const RAW: u32 = 3;
const PACKET: u32 = 17;
/// As `socket(2)` has it, big-endian.
const ETH_ALL: u32 = 0x0300;

/// Frames as they leave, and what was still missing in them.
type Left = Vec<(Vec<u8>, Option<PartialChecksum>)>;

/// A link that keeps what was sent; it writes checksums itself or has the node do it.
struct Tap {
    mac: [u8; 6],
    offloads: bool,
    is_up: std::sync::atomic::AtomicBool,
    left: Mutex<Left>,
}

impl Tap {
    fn new(n: u8, offloads: bool) -> Arc<Tap> {
        Arc::new(Tap {
            mac: [2, 0, 0, 0, 0, n],
            offloads,
            is_up: true.into(),
            left: Mutex::default(),
        })
    }

    fn take(&self) -> Left {
        std::mem::take(&mut self.left.lock().unwrap())
    }

    fn set_up(&self, up: bool) {
        self.is_up.store(up, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Link for Tap {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn is_up(&self) -> bool {
        self.is_up.load(std::sync::atomic::Ordering::SeqCst)
    }
    fn transmit(&self, frame: &[u8]) -> bool {
        self.left.lock().unwrap().push((frame.to_vec(), None));
        true
    }
    fn transmit_partial(&self, frame: &mut [u8], checksum: PartialChecksum) -> bool {
        if !self.offloads {
            checksum.complete(frame);
            return self.transmit(frame);
        }
        let left = (frame.to_vec(), Some(checksum));
        self.left.lock().unwrap().push(left);
        true
    }
    fn room(&self) -> usize {
        64
    }
    fn flush(&self) {}
}

/// Whether the checksums of a frame are right; `None` if it has none that are looked at.
fn is_right(frame: &[u8]) -> Option<bool> {
    let network = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let packet = &frame[network..];
    let (from, to, protocol, header, segment): (IpAddress, IpAddress, u8, bool, &[u8]) =
        match frame[network - 2..network] {
            [8, 0] => {
                let p = Ipv4Packet::new_checked(packet).unwrap();
                let (from, to) = (p.src_addr().into(), p.dst_addr().into());
                (
                    from,
                    to,
                    p.next_header().into(),
                    p.verify_checksum(),
                    p.payload(),
                )
            }
            [0x86, 0xdd] => {
                let p = Ipv6Packet::new_checked(packet).unwrap();
                let (from, to) = (p.src_addr().into(), p.dst_addr().into());
                (from, to, p.next_header().into(), true, p.payload())
            }
            _ => return None,
        };
    match protocol {
        6 => Some(header && TcpPacket::new_unchecked(segment).verify_checksum(&from, &to)),
        17 => {
            let udp = UdpPacket::new_unchecked(segment);
            Some(header && udp.checksum() != 0 && udp.verify_checksum(&from, &to))
        }
        _ => None,
    }
}

/// A node whose links these are, with the address [`A`] and a neighbour [`B`].
fn node_on(taps: &[&Arc<Tap>]) -> Arc<NetNode> {
    let _ = machine::timer::start();
    let node = node();
    for tap in taps {
        node.attach_link("tap", (*tap).clone());
    }
    assert!(node.configure_static(&StaticConfig {
        address: A,
        prefix: 24,
        gateway: None,
        dns: Default::default(),
    }));
    node
}

/// [`B`] says where it is.
fn answer(node: &Arc<NetNode>, tap: &Tap, tag: &[u8]) {
    let mut frame = tap.mac.to_vec();
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 99]);
    frame.extend_from_slice(tag);
    frame.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 99]);
    frame.extend_from_slice(&B.octets());
    frame.extend_from_slice(&tap.mac);
    frame.extend_from_slice(&A.octets());
    node.receive(&frame);
}

fn send_datagram(stack: &Arc<NetStack>, data: &[u8]) {
    let to = Address::Inet((B, 9).into());
    assert_eq!(send_to(&udp(stack), data, to), Ok(data.len()));
}

/// The frames with checksums among them: whether those still miss them, and that they
/// are right once they do not.
fn missing(left: Left) -> Vec<bool> {
    let mut missing = Vec::new();
    for (mut frame, partial) in left {
        let is_partial = partial.is_some();
        if let Some(partial) = partial {
            assert_eq!(is_right(&frame), Some(false));
            partial.complete(&mut frame);
        }
        if let Some(right) = is_right(&frame) {
            assert!(right, "wrong checksums: {frame:x?}");
            missing.push(is_partial);
        }
    }
    missing
}

#[test]
fn a_frame_that_waits_for_a_neighbour_is_complete() {
    let tap = Tap::new(1, true);
    let node = node_on(&[&tap]);
    let stack = stack_on(&node, vec![], false);
    send_datagram(&stack, b"odd");
    assert!(missing(tap.take()).is_empty(), "nobody knows the neighbour");
    answer(&node, &tap, &[]);
    assert_eq!(missing(tap.take()), [false]);
    send_datagram(&stack, b"even");
    assert_eq!(missing(tap.take()), [true]);
}

/// A node that moves to a device that can do less, and back.
#[test]
fn links_of_both_kinds_take_turns() {
    let (first, second) = (Tap::new(1, true), Tap::new(2, false));
    second.set_up(false);
    let node = node_on(&[&first, &second]);
    let stack = stack_on(&node, vec![], false);
    answer(&node, &first, &[]);
    first.take();
    send_datagram(&stack, b"one");
    assert_eq!(missing(first.take()), [true]);
    first.set_up(false);
    second.set_up(true);
    node.link_changed();
    answer(&node, &second, &[]);
    second.take();
    send_datagram(&stack, b"two");
    assert_eq!(missing(second.take()), [false]);
    assert!(first.take().is_empty());
    second.set_up(false);
    first.set_up(true);
    node.link_changed();
    answer(&node, &first, &[]);
    first.take();
    send_datagram(&stack, b"three");
    assert_eq!(missing(first.take()), [true]);
}

#[test]
fn a_tag_moves_the_places() {
    for offloads in [false, true] {
        let tap = Tap::new(1, offloads);
        let node = node_on(&[&tap]);
        node.release(Some(7));
        let stack = stack_on(&node, vec![], false);
        answer(&node, &tap, &[0x81, 0, 0, 7]);
        tap.take();
        send_datagram(&stack, b"tagged");
        let left = tap.take();
        assert_eq!(left[0].0[12..16], [0x81, 0, 0, 7]);
        assert_eq!(missing(left), [offloads]);
    }
}

#[test]
fn connections_leave_it_to_the_link() {
    let tap = Tap::new(1, true);
    let node = node_on(&[&tap]);
    let stack = stack_on(&node, vec![], false);
    answer(&node, &tap, &[]);
    tap.take();
    let to = Address::Inet((B, 80).into());
    let socket = tcp(&stack);
    assert_eq!(socket.connect(&to, me(), true), Err(Error::InProgress));
    let left = tap.take();
    assert_eq!(left[0].1.unwrap().transport(), Transport::Tcp);
    assert_eq!(missing(left), [true]);
}

/// Who listens sees whole frames, and what a program made itself leaves as it is.
#[test]
fn packet_sockets_see_and_send_whole_frames() {
    let tap = Tap::new(1, true);
    let node = node_on(&[&tap]);
    let account = Arc::new(machine::Account::new(1000).unwrap());
    let config = StackConfig {
        ports: vec![],
        outbound: true,
        raw: true,
        system: false,
        account,
        sockets_max: 100,
    };
    let stack = node.new_stack(config).unwrap();
    answer(&node, &tap, &[]);
    tap.take();
    let listener = Socket::new(&stack, PACKET, RAW, ETH_ALL).unwrap();
    send_datagram(&stack, b"seen");
    assert_eq!(missing(tap.take()), [false]);
    let seen = recv_now(&listener, 2000).unwrap();
    assert_eq!(is_right(&seen), Some(true));
    // With a wrong checksum: it is the program's.
    let mut own = seen;
    own[14 + 20 + 6] ^= 0xff;
    let to = Hardware {
        link: 2,
        ..Hardware::default()
    };
    send_to(&listener, &own, Address::Hardware(to)).unwrap();
    let left = tap.take();
    assert_eq!(left, [(own, None)]);
}
