//! Packets that are longer than the link's MTU, in fragments.

use super::V6_HEADER;
use crate::error::{Error, Result};
use crate::keyhash::KeyedState;
use crate::node::ETHERNET_HEADER;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv6Packet};

/// Bytes of a Fragment header (RFC 8200, 4.5).
const FRAGMENT_HEADER: usize = 8;
/// Counters of identifications.
const COUNTERS: usize = 64;

/// Identifications of packets that are cut: a counter for each peer that begins at a secret
/// number, so that they come back as late as they can and tell nobody else the next one
/// (RFC 7739, 5.3).
pub(crate) struct Identifications {
    secret: KeyedState,
    /// Peers whose hashes are alike share one.
    counters: [AtomicU32; COUNTERS],
}

impl Identifications {
    #[inline(never)]
    pub(crate) fn new() -> Identifications {
        Identifications {
            secret: KeyedState::random(),
            counters: core::array::from_fn(|_| AtomicU32::new(machine::random::next_u64() as u32)),
        }
    }

    /// One for a packet of `protocol` from `from` to `to`. IPv4 has room for its lower half.
    pub(crate) fn next(&self, from: IpAddr, to: IpAddr, protocol: u8) -> u32 {
        let hash = self.secret.hash_one((from, to, protocol));
        let counter = self.counters.get((hash >> 32) as usize % COUNTERS);
        let count = counter.map_or(0, |counter| counter.fetch_add(1, Relaxed));
        (hash as u32).wrapping_add(count)
    }
}

/// Lets routers cut a packet of IPv4, which needs an identification then (RFC 6864, 4.1).
pub(crate) fn allow_cutting(packet: &mut [u8], id: u32) {
    let mut packet = Ipv4Packet::new_unchecked(packet);
    packet.set_dont_frag(false);
    packet.set_ident(id as u16);
    packet.fill_checksum();
}

/// The fragments of a packet, one after the other.
pub(crate) struct Cut<'a> {
    header: &'a [u8],
    payload: &'a [u8],
    /// Bytes of the payload that have left.
    done: usize,
    /// Bytes of it in each fragment but the last: a multiple of eight.
    step: usize,
    id: u32,
    is_v4: bool,
    /// The frame of the fragment that is leaving.
    frame: Vec<u8>,
}

impl<'a> Cut<'a> {
    /// Cuts `packet`, whose header has no options and whose checksums are right, for a link
    /// with this MTU.
    ///
    /// # Errors
    /// [`Error::MessageSize`] if not even eight bytes would fit, [`Error::INVALID`] for what is
    /// no packet, no memory.
    pub(crate) fn new(packet: &'a [u8], mtu: usize, id: u32) -> Result<Cut<'a>> {
        let first = *packet.first().ok_or(Error::INVALID)?;
        let (header, extra) = match first {
            0x45 => (20, 0),
            _ => (V6_HEADER, FRAGMENT_HEADER),
        };
        let (header, payload) = packet.split_at_checked(header).ok_or(Error::INVALID)?;
        let step = mtu.saturating_sub(header.len() + extra) & !7;
        if step == 0 {
            return Err(Error::MessageSize);
        }
        let mut frame = Vec::new();
        frame.try_reserve_exact(ETHERNET_HEADER + header.len() + extra + step)?;
        Ok(Cut {
            header,
            payload,
            done: 0,
            step,
            id,
            is_v4: extra == 0,
            frame,
        })
    }

    /// The next fragment, behind room for an Ethernet header.
    pub(crate) fn next_frame(&mut self) -> Option<&mut [u8]> {
        let left = self.payload.get(self.done..)?;
        let data = left.get(..self.step).unwrap_or(left);
        if data.is_empty() {
            return None;
        }
        let start = u16::try_from(self.done).ok()?;
        let is_last = data.len() == left.len();
        self.done += data.len();
        // There is room for all of it.
        self.frame.clear();
        self.frame.resize(ETHERNET_HEADER, 0);
        self.frame.extend_from_slice(self.header);
        if !self.is_v4 {
            let next = *self.header.get(6)?;
            let [high, low] = (start | u16::from(!is_last)).to_be_bytes();
            self.frame.extend_from_slice(&[next, 0, high, low]);
            self.frame.extend_from_slice(&self.id.to_be_bytes());
        }
        self.frame.extend_from_slice(data);
        let packet = self.frame.get_mut(ETHERNET_HEADER..)?;
        let len = packet.len();
        if self.is_v4 {
            let mut packet = Ipv4Packet::new_unchecked(packet);
            packet.set_total_len(u16::try_from(len).ok()?);
            packet.set_ident(self.id as u16);
            packet.set_dont_frag(false);
            packet.set_more_frags(!is_last);
            packet.set_frag_offset(start);
            packet.fill_checksum();
        } else {
            let mut packet = Ipv6Packet::new_unchecked(packet);
            packet.set_payload_len(u16::try_from(len - V6_HEADER).ok()?);
            packet.set_next_header(IpProtocol::Ipv6Frag);
        }
        Some(&mut self.frame)
    }
}
