//! The multicast groups of the node on its link: the union of its capsules'.

use super::{ETHERNET_HEADER, NetNode};
use crate::error::{Error, Result};
use crate::groups::ToGroup;
use crate::keyhash::{self, KeyedMap};
use crate::stack::NetStack;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;
use machine::sync::SpinLock;
use smallvec::SmallVec;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6Packet,
};

/// Members of a group.
type Members = SmallVec<[Weak<NetStack>; 2]>;

/// Which capsules are members of which group.
pub(super) struct Groups(SpinLock<KeyedMap<IpAddr, Members>>);

/// A report on one group (RFC 3810, 5.2) in an IPv6 packet that asks routers to look
/// at it (RFC 2711): 40 bytes of header, 8 of the option, 28 of the message.
const REPORT: usize = 40 + 8 + 28;

impl Groups {
    pub(super) fn new() -> Groups {
        Groups(SpinLock::new(keyhash::map()))
    }
}

impl NetNode {
    /// Makes a capsule a member; with the first one, the node.
    ///
    /// # Errors
    /// [`Error::NoBuffers`] if the node is in too many groups, no device without a
    /// link.
    pub(crate) fn join_group(self: &Arc<Self>, stack: &Arc<NetStack>, group: IpAddr) -> Result<()> {
        let mut groups = self.groups.0.lock();
        groups.try_reserve(1)?;
        let members = groups.entry(group).or_default();
        members.try_reserve(1).map_err(|_| Error::NoBuffers)?;
        let first = members.is_empty();
        members.push(Arc::downgrade(stack));
        if first && let Err(e) = self.control_group(group, true) {
            groups.remove(&group);
            return Err(e);
        }
        drop(groups);
        if first {
            self.announce_group(group, true);
        }
        Ok(())
    }

    /// Takes a capsule out of a group; with the last one, the node.
    pub(crate) fn leave_group(self: &Arc<Self>, stack: u64, group: IpAddr) {
        let mut groups = self.groups.0.lock();
        let Some(members) = groups.get_mut(&group) else {
            return;
        };
        members.retain(|m| m.upgrade().is_some_and(|m| m.id() != stack));
        let last = members.is_empty();
        if last {
            groups.remove(&group);
            // It fails only for addresses that are no groups.
            let _ = self.control_group(group, false);
        }
        drop(groups);
        if last {
            self.announce_group(group, false);
        }
    }

    /// Gives a datagram to every capsule that is a member of its group. Whether
    /// anybody took it; `but` is a capsule that does not get it.
    pub(crate) fn deliver_to_group(&self, d: &ToGroup<'_>, but: Option<u64>) -> bool {
        let mut members: SmallVec<[Arc<NetStack>; 4]> = SmallVec::new();
        if let Some(found) = self.groups.0.lock().get(&d.to.ip()) {
            let others = found.iter().filter_map(Weak::upgrade);
            for stack in others.filter(|s| Some(s.id()) != but) {
                if members.try_reserve(1).is_ok() {
                    members.push(stack);
                }
            }
        }
        let mut taken = false;
        for stack in &members {
            taken |= stack.deliver_from_link(d);
        }
        taken
    }

    /// Whether a capsule is a member of this group.
    pub(super) fn has_group(&self, group: IpAddr) -> bool {
        group.is_multicast() && self.groups.0.lock().contains_key(&group)
    }

    /// All groups that the node is a member of for its capsules.
    pub(super) fn joined_groups(&self) -> Vec<IpAddr> {
        let groups = self.groups.0.lock();
        let mut all = Vec::new();
        if all.try_reserve_exact(groups.len()).is_ok() {
            all.extend(groups.keys().copied());
        }
        all
    }

    /// Sends what has to be told to routers now.
    fn announce_group(self: &Arc<Self>, group: IpAddr, joined: bool) {
        self.control_poll();
        // smoltcp 0.14 has the two kinds of records the wrong way round in its
        // unasked reports; switches that listen to them must hear the right one last.
        let IpAddr::V6(group) = group else { return };
        let Ok(IpAddr::V6(own)) = self.with_config(|c| c.source(group.into())) else {
            return;
        };
        let mut frame = [0; ETHERNET_HEADER + REPORT];
        if let Some((_, packet)) = frame.split_first_chunk_mut::<ETHERNET_HEADER>() {
            write_report(packet, own, group, joined);
        }
        self.transmit(ROUTERS.into(), &mut frame);
        self.flush();
    }
}

/// How long a router waits for reports, if this frame is its query: RFC 2236, 2.2 and
/// RFC 3810, 5.1.3, with the long times of the latter cut.
pub(super) fn time_for_reports(frame: &[u8]) -> Option<Duration> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            match (packet.next_header(), packet.payload()) {
                // Tenths of a second; version 1 has none and waits for ten.
                (IpProtocol::Igmp, [0x11, 0, ..]) => Some(Duration::from_secs(10)),
                (IpProtocol::Igmp, [0x11, tenths, ..]) => {
                    Some(Duration::from_millis(u64::from(*tenths) * 100))
                }
                _ => None,
            }
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            // Behind the option of 8 bytes that asks routers to look.
            match (packet.next_header(), packet.payload()) {
                (IpProtocol::HopByHop, [58, 0, _, _, _, _, _, _, 130, _, _, _, high, low, ..]) => {
                    let time = u16::from_be_bytes([*high, *low]).clamp(100, 30_000);
                    Some(Duration::from_millis(time.into()))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

/// All routers that speak version 2 (RFC 3810, 5.2.14).
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// Writes a report into `packet`, which has room for it.
fn write_report(packet: &mut [u8], own: Ipv6Addr, group: Ipv6Addr, joined: bool) {
    // Version, length, next header (hop-by-hop options), hop limit.
    let head = [0x60, 0, 0, 0, 0, (REPORT - 40) as u8, 0, 1];
    // Next header (ICMPv6), 8 bytes, router alert for MLD, padding.
    let option = [58, 0, 5, 2, 0, 0, 1, 0];
    // Kind of record: a change to "all but nobody", or to "nobody".
    let kind = if joined { 4 } else { 3 };
    let message = [143, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0];
    let parts: [&[u8]; 6] = [
        &head,
        &own.octets(),
        &ROUTERS.octets(),
        &option,
        &message,
        &group.octets(),
    ];
    let bytes = parts.into_iter().flatten();
    for (to, from) in packet.iter_mut().zip(bytes) {
        *to = *from;
    }
    if let Some(message) = packet.get_mut(48..) {
        Icmpv6Packet::new_unchecked(message).fill_checksum(&own, &ROUTERS);
    }
}

#[cfg(test)]
mod tests {
    use super::{REPORT, ROUTERS, write_report};
    use smoltcp::wire::{Icmpv6Packet, Ipv6Packet};

    #[test]
    fn a_report_is_what_its_reader_expects() {
        let own = "fe80::1".parse().unwrap();
        for (joined, kind) in [(true, 4), (false, 3)] {
            let mut packet = [0; REPORT];
            write_report(&mut packet, own, "ff02::fb".parse().unwrap(), joined);
            let ip = Ipv6Packet::new_checked(&packet[..]).unwrap();
            assert_eq!((ip.dst_addr(), ip.hop_limit()), (ROUTERS, 1));
            assert_eq!(ip.payload().len(), 36);
            let message = Icmpv6Packet::new_checked(&packet[48..]).unwrap();
            assert!(message.verify_checksum(&own, &ROUTERS));
            assert_eq!(packet[48], 143, "a report of version 2");
            assert_eq!(packet[56], kind);
            assert_eq!(packet[60..62], [0xff, 2]);
        }
    }
}
