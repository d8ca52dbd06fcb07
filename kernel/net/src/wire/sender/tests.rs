//! Whatever the engine sends leaves as it wrote it, and in its order.

use super::*;
use crate::checksum::{Joined, PartialChecksum};
use crate::node::{Checked, Link, StaticConfig, Upper};
use core::net::Ipv4Addr;
use core::sync::atomic::Ordering::Relaxed;
use machine::sync::SpinLock;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpAddress, IpProtocol, IpRepr, Ipv4Packet, TcpPacket};
use std::sync::Arc;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const PEER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const MTU: usize = 1500;

/// A link that keeps the packets that leave, each as it is on the wire.
struct Tap {
    left: SpinLock<Vec<Vec<u8>>>,
    joined_max: usize,
    room: usize,
}

impl Tap {
    fn put(&self, packet: &[u8]) {
        let mut packet = packet.to_vec();
        let mut header = Ipv4Packet::new_unchecked(&mut packet);
        header.set_ident(0);
        header.fill_checksum();
        self.left.lock().push(packet);
    }
}

impl Link for Tap {
    fn mac(&self) -> [u8; 6] {
        MAC
    }
    fn mtu(&self) -> usize {
        MTU
    }
    fn is_up(&self) -> bool {
        true
    }
    fn transmit(&self, frame: &[u8]) -> bool {
        if frame[12..14] == [8, 0] {
            if self.room() == 0 {
                return false;
            }
            self.put(&frame[14..]);
        }
        true
    }
    fn joined_max(&self) -> usize {
        self.joined_max
    }
    fn joins(&self, is_v6: bool) -> bool {
        !is_v6
    }
    fn transmit_joined(&self, frame: &mut [u8], joined: Joined) -> bool {
        assert!(frame.len() - 14 <= self.joined_max);
        let (head, data) = frame.split_at(joined.headers());
        let count = data.len().div_ceil(joined.size());
        assert!(count > 1);
        if count > self.room() {
            return false;
        }
        for (n, part) in data.chunks(joined.size()).enumerate() {
            let mut frame = [head, part].concat();
            let len = frame.len() - 14;
            Ipv4Packet::new_unchecked(&mut frame[14..]).set_total_len(len as u16);
            let mut tcp = TcpPacket::new_unchecked(&mut frame[34..]);
            tcp.set_seq_number(tcp.seq_number() + n * joined.size());
            if n + 1 < count {
                tcp.set_psh(false);
                tcp.set_fin(false);
            }
            let partial = PartialChecksum::prepare(&mut frame, 14, Transport::Tcp);
            partial.unwrap().complete(&mut frame);
            self.put(&frame[14..]);
        }
        true
    }
    fn room(&self) -> usize {
        self.room.saturating_sub(self.left.lock().len())
    }
    fn flush(&self) {}
}

fn tap(joined_max: usize, room: usize) -> Arc<Tap> {
    Arc::new(Tap {
        left: SpinLock::new(Vec::new()),
        joined_max,
        room,
    })
}

fn node_on(tap: &Arc<Tap>) -> Arc<NetNode> {
    let _ = machine::timer::start();
    let node = NetNode::new();
    let port = node.attach_link("tap", tap.clone()).unwrap();
    assert!(node.configure_static(&StaticConfig {
        address: OWN,
        prefix: 24,
        gateway: None,
        dns: Default::default(),
    }));
    // The peer says where it is.
    let mut answer = MAC.to_vec();
    answer.extend_from_slice(&PEER_MAC);
    answer.extend_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend_from_slice(&PEER_MAC);
    answer.extend_from_slice(&PEER.octets());
    answer.extend_from_slice(&MAC);
    answer.extend_from_slice(&OWN.octets());
    port.receive_checked(&answer, Checked::default());
    tap.left.lock().clear();
    node
}

/// One packet, and what it changes compared with the one before.
#[derive(Clone, Copy, Debug)]
struct Step {
    data: usize,
    flags: u8,
    options: u8,
    /// 0 to 2: a gap before it, another acknowledgement, another window.
    changes: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let data = prop_oneof![6 => Just(1460usize), 1 => 0..300usize, 1 => 1200..=1460usize];
    let flags = prop_oneof![6 => Just(0x10u8), 1 => Just(0x18), 1 => Just(0x11), 1 => Just(0x19), 1 => Just(0x14)];
    let options = prop_oneof![8 => Just(0u8), 1 => Just(3)];
    let changes = prop_oneof![8 => Just(3u8), 1 => 0..3u8];
    (data, flags, options, changes).prop_map(|(data, flags, options, changes)| Step {
        data: data.min(1460 - usize::from(options) * 4),
        flags,
        options,
        changes,
    })
}

/// The packets that the steps are.
fn packets(steps: &[Step]) -> Vec<Vec<u8>> {
    let (mut sequence, mut acknowledged, mut window) = (u32::MAX - 5000, 9u32, 1000u16);
    let mut packets = Vec::new();
    for step in steps {
        match step.changes {
            0 => sequence = sequence.wrapping_sub(1000),
            1 => acknowledged += 1,
            2 => window += 1,
            _ => {}
        }
        let header = 20 + usize::from(step.options) * 4;
        let (from, to) = (IpAddress::Ipv4(OWN), IpAddress::Ipv4(PEER));
        let len = header + step.data;
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, len, 64);
        let mut packet = vec![1; 20 + len];
        ip.emit(&mut packet[..], &ChecksumCapabilities::default());
        let tcp = &mut packet[20..];
        tcp[4..8].copy_from_slice(&sequence.to_be_bytes());
        tcp[8..12].copy_from_slice(&acknowledged.to_be_bytes());
        tcp[12] = (5 + step.options) << 4;
        tcp[13] = step.flags;
        tcp[14..16].copy_from_slice(&window.to_be_bytes());
        tcp[18..20].copy_from_slice(&[0, 0]);
        for (n, byte) in tcp[header..].iter_mut().enumerate() {
            let at = sequence.wrapping_add(n as u32);
            *byte = (at ^ at >> 8) as u8;
        }
        TcpPacket::new_unchecked(&mut *tcp).fill_checksum(&from, &to);
        // The other way to write it, see `complete_checksum`.
        if tcp[16..18] == [0, 0] {
            tcp[16..18].copy_from_slice(&[0xff, 0xff]);
        }
        packets.push(packet);
        sequence = sequence.wrapping_add(step.data as u32);
    }
    packets
}

/// Sends them in one poll; what has left, how many and whether the link was full.
fn leave(packets: &[Vec<u8>], joined_max: usize, room: usize) -> (Vec<Vec<u8>>, Sent) {
    let tap = tap(joined_max, room);
    let node = node_on(&tap);
    let mut scratch = Room::new(MTU, joined_max);
    let mut sender = Sender::new(&node, PEER.into(), &mut scratch);
    for packet in packets {
        if !sender.has_room() {
            break;
        }
        sender.send(packet.len(), |room| room.copy_from_slice(packet));
    }
    let sent = sender.finish();
    let left = core::mem::take(&mut *tap.left.lock());
    (left, sent)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn packets_leave_as_they_are(
        steps in proptest::collection::vec(step(), 1..60),
        joined_max in prop_oneof![Just(0usize), Just(4000), Just(60 << 10), Just(1 << 20)],
        room in prop_oneof![Just(100usize), 1..60usize],
    ) {
        let packets = packets(&steps);
        let (left, sent) = leave(&packets, joined_max, room);
        let count = packets.len().min(room);
        prop_assert_eq!(sent.count, count);
        prop_assert_eq!(sent.blocked, packets.len() > room);
        prop_assert_eq!(left.len(), count);
        for (n, (left, wanted)) in left.iter().zip(&packets).enumerate() {
            prop_assert!(left == wanted, "packet {n}");
        }
    }
}

/// A segment as long as the link takes it, with all that follows the same.
const FULL: Step = Step {
    data: 1460,
    flags: 0x10,
    options: 0,
    changes: 3,
};

/// Room that is promised on another CPU is not counted twice, and none stays promised.
#[test]
fn two_who_send_at_one_time_lose_nothing() {
    let packets = packets(&[FULL; 8]);
    for room in 1..=17 {
        let tap = tap(60 << 10, room);
        let node = node_on(&tap);
        let mut scratch = [(); 2].map(|()| Room::new(MTU, 60 << 10));
        let [one, other] = &mut scratch;
        let mut senders = [one, other].map(|room| Sender::new(&node, PEER.into(), room));
        for packet in &packets {
            for sender in &mut senders {
                if !sender.sent.blocked && sender.has_room() {
                    sender.send(packet.len(), |room| room.copy_from_slice(packet));
                }
            }
        }
        let sent: usize = senders.map(|sender| sender.finish().count).iter().sum();
        assert_eq!(tap.left.lock().len(), sent, "room for {room}");
        assert_eq!(sent, room.min(16));
        assert_eq!(node.promised.load(Relaxed), 0);
    }
}

/// Room that one CPU was told of is not another's, until it is not needed any more.
#[test]
fn the_last_room_is_one_senders() {
    let data = packets(&[FULL]).remove(0);
    let answer = packets(&[Step { data: 0, ..FULL }]).remove(0);
    for joined_max in [0, 60 << 10] {
        let tap = tap(joined_max, 1);
        let node = node_on(&tap);
        let mut scratch = [(); 2].map(|()| Room::new(MTU, joined_max));
        let [one, other] = &mut scratch;
        let [mut one, mut other] = [one, other].map(|room| Sender::new(&node, PEER.into(), room));
        assert!(other.has_room() && !one.has_room());
        other.finish();
        assert!(one.has_room());
        // An answer that nobody has asked room for is lost, not the data.
        let mut third = Room::new(MTU, joined_max);
        let mut third = Sender::new(&node, PEER.into(), &mut third);
        third.send(answer.len(), |room| room.copy_from_slice(&answer));
        third.finish();
        assert_eq!(tap.left.lock().len(), 0);
        one.send(data.len(), |room| room.copy_from_slice(&data));
        one.finish();
        assert_eq!(*tap.left.lock(), core::slice::from_ref(&data));
        assert_eq!(node.promised.load(Relaxed), 0);
    }
}

/// The node may move to a link that takes less than the one for which segments were joined.
#[test]
fn a_link_gets_nothing_longer_than_it_takes() {
    let packets = packets(&[FULL; 8]);
    for (joined_max, wanted) in [(4000, 0), (60 << 10, 8)] {
        let tap = tap(joined_max, 100);
        let node = node_on(&tap);
        let mut scratch = Room::new(MTU, 60 << 10);
        let mut sender = Sender::new(&node, PEER.into(), &mut scratch);
        for packet in &packets {
            assert!(sender.has_room());
            sender.send(packet.len(), |room| room.copy_from_slice(packet));
        }
        assert_eq!(sender.finish().count, 8);
        assert_eq!(tap.left.lock().len(), wanted);
        assert_eq!(node.promised.load(Relaxed), 0);
    }
}
