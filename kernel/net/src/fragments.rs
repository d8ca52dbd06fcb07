//! Packets in fragments: put together on the way in (RFC 791, RFC 8200 4.5), cut on the way out.
//!
//! Fragments are kept until their packet is whole or too old. Anybody can send them, so the
//! table has bounds: in all, for each sender, and for each packet. Who comes last has room made
//! for it, by what is oldest: a sender whose packets are never whole is in its own way first.

mod cut;
mod making;
#[cfg(test)]
mod tests;

pub(crate) use cut::{Cut, Identifications, allow_cutting};
pub(crate) use making::Piece;

use crate::keyhash::{self, KeyedMap};
use crate::node::ETHERNET_HEADER;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;
use machine::sync::SpinLock;
use machine::time::Instant;
use making::Making;
use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

/// Most bytes of memory that fragments take: a dozen of the longest packets. Linux has four
/// times as much (`net.ipv4.ipfrag_high_thresh`) and larger machines.
const BYTES_MAX: usize = 1 << 20;
/// Most packets in the making.
const PACKETS_MAX: usize = 512;
/// What one sender may have of both, so that it takes four or eight to crowd out the others.
const SENDER_BYTES_MAX: usize = BYTES_MAX / 4;
const SENDER_PACKETS_MAX: usize = PACKETS_MAX / 8;
/// What a packet in the making costs beside its fragments: its place in the table.
const PACKET_COST: usize = 256;
/// How long fragments wait for the others: as Linux has it (`net.ipv4.ipfrag_time`), and RFC
/// 8200, 4.5.
const LIFE_V4: Duration = Duration::from_secs(30);
const LIFE_V6: Duration = Duration::from_secs(60);
/// Bytes of a header of IPv6.
pub(crate) const V6_HEADER: usize = 40;

/// Fragments with the same one are of the same packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// Over IPv4; 0 over IPv6, where the first fragment has it.
    pub(crate) protocol: u8,
    /// The packet's identification, which has 16 bits over IPv4.
    pub(crate) id: u32,
}

impl Key {
    fn life(&self) -> Duration {
        match self.from {
            IpAddr::V4(_) => LIFE_V4,
            IpAddr::V6(_) => LIFE_V6,
        }
    }
}

struct Entry {
    /// When the first fragment came.
    since: Instant,
    making: Making,
}

impl Entry {
    fn cost(&self) -> usize {
        PACKET_COST + self.making.cost()
    }

    fn until(&self, key: &Key) -> Instant {
        self.since.after(key.life())
    }
}

struct Table {
    packets: KeyedMap<Key, Entry>,
    /// What all of them cost.
    bytes: usize,
    /// Whether somebody will call [`Fragments::expire`].
    is_timed: bool,
}

/// The packets in the making.
pub(crate) struct Fragments(SpinLock<Table>);

/// What came of a fragment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The frame with the whole packet, as if it had come in one.
    pub(crate) whole: Option<Vec<u8>>,
    /// When to call [`Fragments::expire`], if that is not known yet.
    pub(crate) expire_at: Option<Instant>,
}

impl Fragments {
    pub(crate) fn new() -> Fragments {
        Fragments(SpinLock::new(Table {
            packets: keyhash::map(),
            bytes: 0,
            is_timed: false,
        }))
    }

    /// Takes in a fragment that came now. `header` is what its packet has in front of the
    /// payload, a frame's header first: as it would be were it whole, but for lengths and what
    /// IPv4 says of fragments.
    pub(crate) fn add(&self, key: &Key, header: &[u8], piece: &Piece<'_>, now: Instant) -> Taken {
        // Some senders put the header of fragments into whole packets (RFC 6946).
        if piece.is_whole() {
            let mut making = Making::default();
            making.add(header, piece);
            return Taken {
                whole: making.finish().and_then(closed),
                expire_at: None,
            };
        }
        let mut table = self.0.lock();
        let whole = table.add(key, header, piece, now);
        let is_first = !table.is_timed && !table.packets.is_empty();
        table.is_timed |= is_first;
        drop(table);
        Taken {
            whole: whole.and_then(Making::finish).and_then(closed),
            expire_at: is_first.then(|| now.after(key.life())),
        }
    }

    /// Forgets what is too old; when to call it again.
    pub(crate) fn expire(&self, now: Instant) -> Option<Instant> {
        let mut table = self.0.lock();
        let Table { packets, bytes, .. } = &mut *table;
        let mut next = None::<Instant>;
        packets.retain(|key, entry| {
            let until = entry.until(key);
            if until <= now {
                *bytes = bytes.saturating_sub(entry.cost());
                return false;
            }
            next = Some(next.map_or(until, |next| next.min(until)));
            true
        });
        if packets.is_empty() {
            packets.shrink_to(0);
        }
        table.is_timed = next.is_some();
        next
    }
}

impl Table {
    /// The packet, if this fragment was the last one that was missing.
    fn add(&mut self, key: &Key, header: &[u8], piece: &Piece<'_>, now: Instant) -> Option<Making> {
        let is_old = |entry: &Entry| entry.until(key) <= now;
        if self.packets.get(key).is_some_and(is_old) {
            drop(self.remove(key));
        }
        let is_new = !self.packets.contains_key(key);
        let cost = piece.cost(header) + if is_new { PACKET_COST } else { 0 };
        if !self.make_room(key, cost, usize::from(is_new)) {
            return None;
        }
        let entry = self.packets.entry(*key).or_insert_with(|| Entry {
            since: now,
            making: Making::default(),
        });
        let before = if is_new { 0 } else { entry.cost() };
        let is_whole = entry.making.add(header, piece);
        self.bytes = (self.bytes + entry.cost()).saturating_sub(before);
        is_whole.then(|| self.remove(key)).flatten()
    }

    fn remove(&mut self, key: &Key) -> Option<Making> {
        let entry = self.packets.remove(key)?;
        self.bytes = self.bytes.saturating_sub(entry.cost());
        Some(entry.making)
    }

    /// Makes room for `bytes` and `packets` more of the packet `key`, at the cost of its sender's
    /// oldest packets if that one has its share, else of the oldest of all.
    fn make_room(&mut self, key: &Key, bytes: usize, packets: usize) -> bool {
        let exceeds = |used: (usize, usize), most: (usize, usize)| {
            used.0 + bytes > most.0 || used.1 + packets > most.1
        };
        loop {
            let used = (self.bytes, self.packets.len());
            let share = (SENDER_BYTES_MAX, SENDER_PACKETS_MAX);
            // As long as all have less than a share, nobody has to be counted.
            let greedy = exceeds(used, share) && exceeds(self.used_by(key.from), share);
            if !greedy && !exceeds(used, (BYTES_MAX, PACKETS_MAX)) {
                return self.packets.try_reserve(1).is_ok();
            }
            let others = self.packets.iter().filter(|(k, _)| *k != key);
            let oldest = others
                .filter(|(k, _)| !greedy || k.from == key.from)
                .min_by_key(|(_, entry)| entry.since)
                .map(|(k, _)| *k);
            match oldest {
                Some(oldest) => drop(self.remove(&oldest)),
                None => return false,
            }
        }
    }

    /// Bytes and packets of one sender.
    fn used_by(&self, from: IpAddr) -> (usize, usize) {
        let own = self.packets.iter().filter(|(key, _)| key.from == from);
        own.fold((0, 0), |(bytes, packets), (_, entry)| {
            (bytes + entry.cost(), packets + 1)
        })
    }
}

/// Writes the lengths of a whole packet, and that it is one. `None` if it is too long to be one.
fn closed(mut frame: Vec<u8>) -> Option<Vec<u8>> {
    let packet = frame.get_mut(ETHERNET_HEADER..)?;
    let len = packet.len();
    match packet.first()? >> 4 {
        4 => {
            let total = u16::try_from(len).ok()?;
            let mut packet = Ipv4Packet::new_unchecked(packet);
            packet.set_total_len(total);
            packet.clear_flags();
            packet.set_frag_offset(0);
            packet.fill_checksum();
        }
        _ => {
            let payload = u16::try_from(len.checked_sub(V6_HEADER)?).ok()?;
            Ipv6Packet::new_unchecked(packet).set_payload_len(payload);
        }
    }
    Some(frame)
}
