//! What a connection sends during one poll. Segments that follow each other are joined to one
//! frame while they are written, if the link's device cuts it again: everything between here
//! and the device is done once for all of them.
//!
//! The engine writes each packet where its data belongs, right behind the data of those before
//! it. Its headers come to lie over the end of that data, which is kept meanwhile.

use super::meter::Meter;
use crate::checksum::Transport;
use crate::node::{ETHERNET_HEADER, NetNode};
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering::{Acquire, Release};

/// Most bytes of the headers of IP and TCP of segments that are joined.
const HEADERS_MAX: usize = 40 + 60;
/// The headers of a packet may not come to lie over those of the first one.
const DATA_MIN: usize = HEADERS_MAX;
/// Flags of TCP (RFC 9293, 3.1): of the segments before the last one, and those that the
/// last one may have besides.
const ACK: u8 = 0x10;
const LAST: u8 = 0x08 | 0x01;

/// Room for one frame, of joined segments or not.
pub(super) struct Room {
    scratch: Vec<u8>,
    /// Bytes of an IP packet in one frame on the wire.
    mtu: usize,
}

impl Room {
    /// For packets of up to `mtu` bytes, and joined ones of up to `joined_max`.
    pub(super) fn new(mtu: usize, joined_max: usize) -> Room {
        // Longer ones cannot say how long they are.
        let joined_max = joined_max.min(u16::MAX.into());
        Room {
            scratch: vec![0; mtu.max(joined_max) + ETHERNET_HEADER],
            mtu,
        }
    }
}

/// What a poll has sent.
#[derive(Clone, Copy, Default)]
pub(super) struct Sent {
    /// Segments.
    pub(super) count: usize,
    /// Sequence and acknowledgement number of the last one.
    pub(super) last: Option<(u32, u32)>,
    /// The link was full.
    pub(super) blocked: bool,
}

/// Takes the packets of one connection during one poll.
pub(super) struct Sender<'a> {
    node: &'a NetNode,
    remote: IpAddr,
    room: &'a mut Room,
    held: Option<Held>,
    /// Room on the link for one more packet is kept for it ([`Sender::has_room`]).
    is_reserved: bool,
    /// Whether packets may be joined.
    joins: bool,
    /// Who wants to know of each packet.
    pub(super) meter: Option<&'a mut Meter>,
    pub(super) sent: Sent,
}

/// Segments at the beginning of the scratch, behind the room for an Ethernet header, that wait
/// for more.
#[derive(Clone, Copy, Debug)]
struct Held {
    first: Parsed,
    count: usize,
    /// Bytes of the packet.
    len: usize,
}

impl Held {
    fn end(&self) -> usize {
        ETHERNET_HEADER + self.len
    }
}

/// A packet of TCP.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parsed {
    /// Bytes of the header of IP, and of both headers.
    pub(super) network: usize,
    pub(super) headers: usize,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
    /// Bytes of data.
    pub(super) data: usize,
}

impl Parsed {
    pub(super) fn of(packet: &[u8]) -> Option<Parsed> {
        let first = *packet.first()?;
        let network = match first >> 4 {
            4 => usize::from(first & 0xf) * 4,
            _ => 40,
        };
        let segment = packet.get(network..)?;
        let word = |at: usize| -> Option<u32> {
            let bytes = segment.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let headers = network + usize::from(segment.get(12)? >> 4) * 4;
        Some(Parsed {
            network,
            headers,
            sequence: word(4)?,
            acknowledged: word(8)?,
            flags: *segment.get(13)?,
            data: packet.len().checked_sub(headers)?,
        })
    }

    /// Whether others may be joined to it.
    fn may_begin(&self) -> bool {
        self.flags == ACK && self.data >= DATA_MIN && self.headers <= HEADERS_MAX
    }
}

impl<'a> Sender<'a> {
    pub(super) fn new(node: &'a NetNode, remote: IpAddr, room: &'a mut Room) -> Sender<'a> {
        Sender {
            joins: room.scratch.len() > ETHERNET_HEADER + room.mtu && node.joins(remote.is_ipv6()),
            node,
            remote,
            room,
            held: None,
            is_reserved: false,
            meter: None,
            sent: Sent::default(),
        }
    }

    /// Bytes of an IP packet in one frame.
    pub(super) fn mtu(&self) -> usize {
        self.room.mtu
    }

    /// Whether the link takes one more beside all that is held, here or on other CPUs; if not,
    /// that is noted. The room is kept for it then: what the engine has sent must not be lost
    /// because another CPU was told of the same room.
    pub(super) fn has_room(&mut self) -> bool {
        if self.is_reserved || self.reserve() {
            return true;
        }
        let is_holding = self.held.is_some();
        self.send_held();
        self.sent.blocked = !(is_holding && self.reserve());
        !self.sent.blocked
    }

    fn reserve(&mut self) -> bool {
        // Who takes room says so before it looks, and takes that back only when the frame is
        // with the link.
        let promised = self.node.promised.fetch_add(1, Acquire);
        let room = self.node.link().map_or(0, |link| link.room());
        self.is_reserved = room > promised;
        if !self.is_reserved {
            self.node.promised.fetch_sub(1, Release);
        }
        self.is_reserved
    }

    /// What is held becomes one more.
    fn promise(&mut self) {
        if !core::mem::take(&mut self.is_reserved) {
            self.node.promised.fetch_add(1, Acquire);
        }
    }

    /// What was reserved is with the link, or is not needed.
    fn release(&mut self) {
        if core::mem::take(&mut self.is_reserved) {
            self.node.promised.fetch_sub(1, Release);
        }
    }

    /// Lets `f` write a packet of `len` bytes, and sends it now or with others.
    pub(super) fn send<R>(&mut self, len: usize, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let joined = self.held.filter(|held| {
            let end = held.end() + len.saturating_sub(held.first.headers);
            end <= self.room.scratch.len()
        });
        if joined.is_none() {
            self.send_held();
        }
        // Over the end of what is held, or at the beginning.
        let over = joined.map_or(0, |held| held.first.headers);
        let begin = joined.map_or(ETHERNET_HEADER, |held| held.end() - over);
        let mut kept = [0; HEADERS_MAX];
        if let (Some(kept), Some(old)) = (kept.get_mut(..over), self.part(begin, over)) {
            kept.copy_from_slice(old);
        }
        // smoltcp never exceeds the MTU; if it did, the packet would be cut and dropped by its
        // receiver.
        let len = len.min(self.room.mtu);
        let Some(packet) = self.part(begin, len) else {
            return f(&mut []);
        };
        let r = f(packet);
        let parsed = Parsed::of(packet);
        self.sent.last = parsed.map_or(self.sent.last, |p| Some((p.sequence, p.acknowledged)));
        if let (Some(meter), Some(parsed)) = (&mut self.meter, &parsed) {
            meter.sent(parsed);
        }
        self.sent.count += 1;
        let kept = kept.get(..over).unwrap_or_default();
        match (joined, parsed) {
            (Some(held), Some(parsed)) if self.follows(&held, &parsed, begin) => {
                self.join(held, &parsed, begin, kept);
            }
            (Some(_), _) => self.send_apart(begin, len, kept, parsed),
            (None, _) => self.hold(len, parsed),
        }
        r
    }

    /// Sends what is held. What has been sent.
    pub(super) fn finish(mut self) -> Sent {
        self.send_held();
        self.release();
        self.sent
    }

    fn part(&mut self, begin: usize, len: usize) -> Option<&mut [u8]> {
        self.room.scratch.get_mut(begin..begin.checked_add(len)?)
    }

    /// Whether the packet at `begin` continues what is held, with the same headers but for
    /// what differs from segment to segment.
    fn follows(&self, held: &Held, next: &Parsed, begin: usize) -> bool {
        let first = &held.first;
        let so_far = (held.len - first.headers) as u32;
        let header = |at: usize, part: core::ops::Range<usize>| {
            let at = at + first.network;
            self.room.scratch.get(at + part.start..at + part.end)
        };
        let same = |part: core::ops::Range<usize>| {
            let both = (header(ETHERNET_HEADER, part.clone()), header(begin, part));
            matches!(both, (Some(a), Some(b)) if a == b)
        };
        next.network == first.network
            && next.headers == first.headers
            && next.sequence == first.sequence.wrapping_add(so_far)
            && next.acknowledged == first.acknowledged
            && next.flags & !LAST == ACK
            && (1..=first.data).contains(&next.data)
            // Window and options.
            && same(14..16)
            && same(20..first.headers - first.network)
    }

    /// The packet at `begin`, whose headers lie over `kept`, is joined to what is held.
    fn join(&mut self, held: Held, next: &Parsed, begin: usize, kept: &[u8]) {
        if let Some(over) = self.part(begin, kept.len()) {
            over.copy_from_slice(kept);
        }
        // The headers of the first are those of all.
        let flags = ETHERNET_HEADER + held.first.network + 13;
        if let Some(flags) = self.room.scratch.get_mut(flags) {
            *flags |= next.flags;
        }
        self.promise();
        self.held = Some(Held {
            count: held.count + 1,
            len: held.len + next.data,
            ..held
        });
        if next.flags != ACK || next.data < held.first.data {
            self.send_held();
        }
    }

    /// The packet at `begin`, whose headers lie over `kept`, does not follow what is held,
    /// which leaves before it.
    fn send_apart(&mut self, begin: usize, len: usize, kept: &[u8], parsed: Option<Parsed>) {
        let mut head = [0; HEADERS_MAX];
        let over = kept.len();
        if let (Some(head), Some(at)) = (head.get_mut(..over), self.part(begin, over)) {
            head.copy_from_slice(at);
            at.copy_from_slice(kept);
        }
        self.send_held();
        let rest = begin + over..begin + len.max(over);
        if rest.end <= self.room.scratch.len() {
            self.room.scratch.copy_within(rest, ETHERNET_HEADER + over);
        }
        if let (Some(head), Some(to)) = (head.get(..over), self.part(ETHERNET_HEADER, over)) {
            to.copy_from_slice(head);
        }
        self.hold(len, parsed);
    }

    /// The packet at the beginning of the scratch waits for more, if more may come.
    fn hold(&mut self, len: usize, parsed: Option<Parsed>) {
        match parsed {
            Some(first) if self.joins && first.may_begin() => {
                self.promise();
                self.held = Some(Held {
                    first,
                    count: 1,
                    len,
                });
            }
            // The answer to a packet, for which nobody has asked for room, is not sent in the
            // place of what has some.
            _ if self.is_reserved || self.reserve() => {
                self.transmit(len);
                self.release();
            }
            _ => {}
        }
    }

    fn send_held(&mut self) {
        let Some(held) = self.held.take() else {
            return;
        };
        let (node, remote) = (self.node, self.remote);
        if held.count == 1 {
            self.transmit(held.len);
        } else if let Some(frame) = self.part(0, held.end()) {
            set_length(frame, &held);
            node.transmit_joined(remote, frame, held.first.data);
        }
        node.promised.fetch_sub(held.count, Release);
    }

    /// Sends the packet at the beginning of the scratch.
    fn transmit(&mut self, len: usize) {
        let (node, remote) = (self.node, self.remote);
        if let Some(frame) = self.part(0, ETHERNET_HEADER + len) {
            node.transmit_unsummed(remote, frame, Transport::Tcp);
        }
    }
}

/// Makes joined segments one packet. One of IPv4 gets a number by which pieces of it are told
/// from those of another, for devices that do not cut it where they should, into segments,
/// but where they may not (RFC 6864, 4).
fn set_length(frame: &mut [u8], held: &Held) {
    let is_v4 = frame.get(ETHERNET_HEADER).is_some_and(|b| b >> 4 == 4);
    let (at, len) = match is_v4 {
        true => (2, held.len),
        false => (4, held.len - held.first.network),
    };
    let mut set = |at: usize, value: u16| {
        let at = ETHERNET_HEADER + at;
        if let Some(field) = frame.get_mut(at..at + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    };
    set(at, len as u16);
    if is_v4 {
        set(4, held.first.sequence as u16);
    }
}

#[cfg(test)]
mod tests;
