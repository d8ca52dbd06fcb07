//! What a device says of checksums that came in is believed as far as it says it.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, UdpPacket, UdpRepr};
use std::sync::Arc;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const PORT: u16 = 5000;

/// A link that sends nowhere.
struct Plug;

impl Link for Plug {
    fn mac(&self) -> [u8; 6] {
        MAC
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn is_up(&self) -> bool {
        true
    }
    fn transmit(&self, _: &[u8]) -> bool {
        true
    }
    fn room(&self) -> usize {
        64
    }
    fn flush(&self) {}
}

/// A datagram to the node with this text, its checksums right.
fn datagram(v6: bool, text: &[u8]) -> Vec<u8> {
    let (from, to) = match v6 {
        true => {
            // RFC 4862, 5.3: the address of a link with this hardware address.
            let own = IpAddress::v6(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 9);
            (IpAddress::v6(0xfe80, 0, 0, 0, 0, 0, 0, 2), own)
        }
        false => (B.into(), A.into()),
    };
    let udp = UdpRepr {
        src_port: 4000,
        dst_port: PORT,
    };
    let caps = ChecksumCapabilities::default();
    let ip = IpRepr::new(from, to, IpProtocol::Udp, 8 + text.len(), 64);
    let mut frame = vec![0; 14 + ip.buffer_len()];
    frame[..6].copy_from_slice(&MAC);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
    ip.emit(&mut frame[14..], &caps);
    let mut packet = UdpPacket::new_unchecked(&mut frame[14 + ip.header_len()..]);
    let fill = |room: &mut [u8]| room.copy_from_slice(text);
    udp.emit(&mut packet, &from, &to, text.len(), fill, &caps);
    frame
}

/// Where the checksum of the datagram is.
fn field(v6: bool) -> usize {
    14 + if v6 { 40 } else { 20 } + 6
}

struct Setup {
    port: Arc<Port>,
    socket: Arc<Socket>,
    _node: Arc<NetNode>,
}

fn start(v6: bool) -> Setup {
    let _ = machine::timer::start();
    let node = node();
    let port = node.attach_link("plug", Arc::new(Plug)).unwrap();
    assert!(node.configure_static(&StaticConfig {
        address: A,
        prefix: 24,
        gateway: None,
        dns: Default::default(),
    }));
    let stack = stack_on(&node, publish(Protocol::Udp, PORT, PORT), false);
    let socket = Socket::new(&stack, if v6 { INET6 } else { INET }, DGRAM, 0).unwrap();
    let any = if v6 { "[::]:5000" } else { "0.0.0.0:5000" };
    socket.bind(at(any)).unwrap();
    Setup {
        port,
        socket,
        _node: node,
    }
}

impl Setup {
    /// Whether a frame reaches the program when the device says this of it.
    fn reaches(&self, frame: &[u8], header: bool, transport: bool) -> bool {
        self.port
            .receive_checked(frame, Checked { header, transport });
        recv_now(&self.socket, 100).is_ok()
    }
}

#[test]
fn wrong_checksums_pass_only_by_the_devices_word() {
    for v6 in [false, true] {
        let s = start(v6);
        let good = datagram(v6, b"text");
        let mut wrong = good.clone();
        wrong[field(v6)] ^= 0x55;
        for header in [false, true] {
            for transport in [false, true] {
                assert!(s.reaches(&good, header, transport));
                assert_eq!(s.reaches(&wrong, header, transport), transport, "{v6}");
            }
        }
        s.port.receive(&good);
        assert!(recv_now(&s.socket, 100).is_ok());
        s.port.receive(&wrong);
        assert!(recv_now(&s.socket, 100).is_err());
    }
}

#[test]
fn the_header_has_a_word_of_its_own() {
    let s = start(false);
    let mut wrong = datagram(false, b"text");
    wrong[14 + 10] ^= 1;
    for transport in [false, true] {
        assert!(!s.reaches(&wrong, false, transport));
        assert!(s.reaches(&wrong, true, transport));
    }
}

/// The device adds up a packet; the datagram in it may be shorter.
#[test]
fn a_datagram_that_is_shorter_than_its_packet_is_checked_here() {
    let s = start(false);
    let mut frame = datagram(false, b"text");
    let len = field(false) - 2;
    frame[len..len + 2].copy_from_slice(&10u16.to_be_bytes());
    assert!(!s.reaches(&frame, true, true));
}

#[test]
fn no_checksum_at_all_is_for_ipv4_only() {
    for v6 in [false, true] {
        let s = start(v6);
        let mut frame = datagram(v6, b"text");
        frame[field(v6)..field(v6) + 2].copy_from_slice(&[0, 0]);
        for transport in [false, true] {
            assert_eq!(s.reaches(&frame, true, transport), !v6);
        }
    }
}
