//! A cable between two nodes, good or bad.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "as in common")]

use super::common::node;
use net::{Checked, Joined, Link, NetNode, Protocol, Published, StaticConfig, Upper};
use smoltcp::wire::{Ipv4Packet, TcpPacket};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;

/// How bad a cable is, in frames per thousand.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lost: u32,
    pub twice: u32,
    pub late: u32,
    pub seed: u32,
}

/// One direction.
#[derive(Default)]
struct Wire {
    frames: Mutex<(VecDeque<Vec<u8>>, State)>,
    news: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    Whole,
    /// What is sent arrives later, all at one time.
    Held,
    Cut,
}

impl Wire {
    fn set(&self, state: State) {
        self.frames.lock().unwrap().1 = state;
        self.news.notify_all();
    }

    /// All that is there, once there is something, and whether it was full; nothing if it is cut.
    fn take(&self) -> Option<(Vec<Vec<u8>>, bool)> {
        let mut q = self.frames.lock().unwrap();
        loop {
            match q.1 {
                State::Cut => return None,
                State::Whole if !q.0.is_empty() => {
                    let was_full = q.0.len() >= QUEUE;
                    return Some((q.0.drain(..).collect(), was_full));
                }
                _ => q = self.news.wait(q).unwrap(),
            }
        }
    }
}

/// One end.
pub struct End {
    mac: [u8; 6],
    out: Arc<Wire>,
    faults: Faults,
    /// Bytes of IP of the longest segment that it cuts; 0: it cuts none.
    joined_max: usize,
    dice: Mutex<u32>,
    owner: Mutex<Weak<NetNode>>,
    pub sent: std::sync::atomic::AtomicUsize,
    /// It cuts at the wrong place, into fragments of IP, as QEMU's e1000e does before version 8.
    pub makes_fragments: std::sync::atomic::AtomicBool,
    /// Segments of frames that it cut, for each of these.
    pub cuts: Mutex<Vec<usize>>,
    /// How many looks for room find none, which is there right after the look.
    pub jams: std::sync::atomic::AtomicUsize,
}

const QUEUE: usize = 256;

impl End {
    fn roll(&self) -> u32 {
        let mut x = self.dice.lock().unwrap();
        *x ^= *x << 13;
        *x ^= *x >> 17;
        *x ^= *x << 5;
        *x % 1000
    }
}

/// Cuts a long segment as a device does, by what the frame itself says of its headers.
fn cut(frame: &[u8], joined: Joined) -> Vec<Vec<u8>> {
    let network = if frame[12..14] == [0x81, 0] { 18 } else { 14 };
    let packet = Ipv4Packet::new_checked(&frame[network..]).unwrap();
    assert_eq!(usize::from(packet.total_len()), frame.len() - network);
    let segment = network + usize::from(packet.header_len());
    let tcp = TcpPacket::new_checked(&frame[segment..]).unwrap();
    let headers = segment + usize::from(tcp.header_len());
    assert_eq!(joined.headers(), headers);
    let data = &frame[headers..];
    assert!(data.len() > joined.size(), "one segment is none too many");
    let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
    let count = data.len().div_ceil(joined.size());
    let parts = data.chunks(joined.size()).enumerate().map(|(n, part)| {
        let mut frame = [&frame[..headers], part].concat();
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[network..]);
        packet.set_total_len((headers - network + part.len()) as u16);
        packet.set_ident(packet.ident().wrapping_add(n as u16));
        packet.fill_checksum();
        let mut segment = TcpPacket::new_unchecked(&mut frame[segment..]);
        segment.set_seq_number(tcp.seq_number() + n * joined.size());
        if n + 1 < count {
            segment.set_psh(false);
            segment.set_fin(false);
        }
        segment.fill_checksum(&from, &to);
        frame
    });
    parts.collect()
}

/// Cuts the packet of a long segment into fragments.
fn fragments(frame: &mut [u8], joined: Joined) -> Vec<Vec<u8>> {
    joined.checksum().complete(frame);
    let (head, data) = frame.split_at(34);
    let size = joined.size() / 8 * 8;
    let parts = data.chunks(size).enumerate().map(|(n, part)| {
        let mut frame = [head, part].concat();
        let mut packet = Ipv4Packet::new_unchecked(&mut frame[14..]);
        packet.set_total_len((20 + part.len()) as u16);
        packet.set_more_frags((n + 1) * size < data.len());
        packet.set_frag_offset((n * size) as u16);
        packet.fill_checksum();
        frame
    });
    parts.collect()
}

impl Link for End {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn is_up(&self) -> bool {
        true
    }
    fn transmit(&self, frame: &[u8]) -> bool {
        // A tag makes a frame four bytes longer.
        let max = if frame[12..14] == [0x81, 0] {
            1518
        } else {
            1514
        };
        assert!(frame.len() <= max, "a frame of {} bytes", frame.len());
        self.sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (lost, twice, late) = (self.roll(), self.roll(), self.roll());
        let mut q = self.out.frames.lock().unwrap();
        if q.0.len() >= QUEUE {
            return false;
        }
        if lost < self.faults.lost {
            return true;
        }
        if late < self.faults.late && !q.0.is_empty() {
            let at = q.0.len() - 1;
            q.0.insert(at, frame.to_vec());
        } else {
            q.0.push_back(frame.to_vec());
        }
        if twice < self.faults.twice {
            q.0.push_back(frame.to_vec());
        }
        drop(q);
        self.out.news.notify_one();
        true
    }
    fn joined_max(&self) -> usize {
        self.joined_max
    }
    fn joins(&self, _is_v6: bool) -> bool {
        self.joined_max > 0
    }
    fn transmit_joined(&self, frame: &mut [u8], joined: Joined) -> bool {
        assert!(frame.len() <= 18 + self.joined_max);
        let segments = match self.makes_fragments.load(SeqCst) {
            true => fragments(frame, joined),
            false => cut(frame, joined),
        };
        self.cuts.lock().unwrap().push(segments.len());
        segments.iter().all(|segment| self.transmit(segment))
    }
    fn room(&self) -> usize {
        let jam = self.jams.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
        if jam.is_ok() {
            if let Some(owner) = self.owner.lock().unwrap().upgrade() {
                owner.transmit_ready();
            }
            return 0;
        }
        QUEUE.saturating_sub(self.out.frames.lock().unwrap().0.len())
    }
    fn flush(&self) {}
}

/// Both ends; dropping it cuts the cable.
pub struct Cable {
    wires: [Arc<Wire>; 2],
    pub ends: [Arc<End>; 2],
}

impl Cable {
    /// From here on nothing arrives.
    pub fn cut(&self) {
        for w in &self.wires {
            w.set(State::Cut);
        }
    }

    /// What end `i` sends arrives no more, until [`Cable::release`].
    pub fn hold(&self, i: usize) {
        self.wires[i].set(State::Held);
    }

    /// What is held arrives at one time.
    pub fn release(&self, i: usize) {
        self.wires[i].set(State::Whole);
    }

    /// Frames of end `i` that have not arrived.
    pub fn held(&self, i: usize) -> usize {
        self.wires[i].frames.lock().unwrap().0.len()
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A cable, its ends not yet in a node.
pub fn cable(faults: Faults) -> Cable {
    cutting_cable(faults, 0)
}

/// The same with ends that cut long segments of up to `joined_max` bytes of IP.
pub fn cutting_cable(faults: Faults, joined_max: usize) -> Cable {
    let _ = machine::timer::start();
    let wires = [(); 2].map(|()| Arc::new(Wire::default()));
    let end = |i: usize| {
        Arc::new(End {
            mac: [2, 0, 0, 0, 0, i as u8 + 1],
            out: wires[i].clone(),
            faults,
            joined_max,
            dice: Mutex::new(faults.seed ^ (i as u32 + 77)),
            owner: Mutex::new(Weak::new()),
            sent: 0.into(),
            makes_fragments: false.into(),
            cuts: Mutex::default(),
            jams: 0.into(),
        })
    };
    let ends = [end(0), end(1)];
    Cable { wires, ends }
}

impl Cable {
    /// Puts end `i` into `node`; what the other end sends comes in there.
    pub fn plug(&self, i: usize, node: &Arc<NetNode>) {
        *self.ends[i].owner.lock().unwrap() = Arc::downgrade(node);
        let port = node.attach_link("cable", self.ends[i].clone()).unwrap();
        let wire = self.wires[1 - i].clone();
        let sender = self.ends[1 - i].clone();
        thread::spawn(move || {
            while let Some((frames, was_full)) = wire.take() {
                for frame in frames {
                    port.receive_checked(&frame, Checked::default());
                }
                port.received_all();
                if was_full && let Some(s) = sender.owner.lock().unwrap().upgrade() {
                    s.transmit_ready();
                }
            }
        });
    }
}

pub const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// Two nodes with addresses [`A`] and [`B`], joined by a cable.
pub fn joined(faults: Faults) -> (Arc<NetNode>, Arc<NetNode>, Cable) {
    joined_by(cable(faults))
}

/// The same with this cable.
pub fn joined_by(c: Cable) -> (Arc<NetNode>, Arc<NetNode>, Cable) {
    let nodes = [node(), node()];
    for (i, ip) in [A, B].into_iter().enumerate() {
        c.plug(i, &nodes[i]);
        assert!(nodes[i].configure_static(&StaticConfig {
            address: ip,
            prefix: 24,
            gateway: Some(B),
            dns: Default::default(),
        }));
    }
    let [a, b] = nodes;
    (a, b, c)
}

pub fn publish(protocol: Protocol, capsule: u16, node: u16) -> Vec<Published> {
    vec![Published {
        protocol,
        capsule,
        node,
    }]
}
