//! Fragments that come in, and what is longer than the link's MTU.

use super::{ETHERNET_HEADER, NetNode};
use crate::checksum;
use crate::error::Result;
use crate::fragments::{Cut, Key, Piece, V6_HEADER};
use crate::raw::{Arrived, ICMP, echo_reply};
use alloc::vec::Vec;
use core::net::IpAddr;
use machine::time::Instant;
use smoltcp::wire::{Icmpv6Message, IpProtocol, Ipv4Packet, Ipv6Packet};

/// Where the next header is in a header of IPv6.
const V6_NEXT_HEADER: usize = 6;

impl NetNode {
    /// Takes in a fragment of IPv4; the frame with the whole packet, if it was the last one
    /// that was missing.
    #[cold]
    pub(super) fn ipv4_fragment(
        &self,
        frame: &[u8],
        packet: &Ipv4Packet<&[u8]>,
    ) -> Option<Vec<u8>> {
        let key = Key {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol: packet.next_header().into(),
            id: packet.ident().into(),
        };
        let is_last = !packet.more_frags();
        let piece = Piece::new(packet.frag_offset().into(), is_last, packet.payload())?;
        let header = ETHERNET_HEADER + usize::from(packet.header_len());
        self.fragment(&key, frame.get(..header)?, &piece)
    }

    /// The same for IPv6, where the header of fragments follows that of IPv6 at once. Nothing
    /// else that could be between them is looked into here.
    #[cold]
    pub(super) fn ipv6_fragment(
        &self,
        frame: &[u8],
        packet: &Ipv6Packet<&[u8]>,
    ) -> Option<Vec<u8>> {
        let (fragment, data) = packet.payload().split_first_chunk::<8>()?;
        let [next, _, high, low, id @ ..] = *fragment;
        let place = u16::from_be_bytes([high, low]);
        let (start, is_last) = (place & !7, place & 1 == 0);
        let key = Key {
            from: packet.src_addr().into(),
            to: packet.dst_addr().into(),
            protocol: 0,
            id: u32::from_be_bytes(id),
        };
        if packet.src_addr().is_unspecified() || !may_be_cut(next) {
            return None;
        }
        let piece = Piece::new(start.into(), is_last, data)?;
        let mut header = [0; ETHERNET_HEADER + V6_HEADER];
        header.copy_from_slice(frame.get(..ETHERNET_HEADER + V6_HEADER)?);
        if let Some(field) = header.get_mut(ETHERNET_HEADER + V6_NEXT_HEADER) {
            *field = next;
        }
        let whole = self.fragment(&key, &header, &piece)?;
        // Neighbours say what they have to say in one piece (RFC 6980, 5).
        let kind = whole.get(ETHERNET_HEADER + V6_HEADER).copied();
        let is_discovery = next == u8::from(IpProtocol::Icmpv6)
            && kind.is_none_or(|kind| Icmpv6Message::from(kind).is_ndisc());
        (!is_discovery).then_some(whole)
    }

    fn fragment(&self, key: &Key, header: &[u8], piece: &Piece<'_>) -> Option<Vec<u8>> {
        // Memory is for packets that somebody here may want.
        let is_broadcast = matches!(key.to, IpAddr::V4(to) if to.is_broadcast());
        if !is_broadcast && !self.is_local(key.to) && !self.has_group(key.to) {
            return None;
        }
        let taken = self.fragments.add(key, header, piece, Instant::now());
        if let (Some(at), Some(timer)) = (taken.expire_at, self.fragment_timer.get()) {
            timer.set(Some(at));
        }
        taken.whole
    }

    /// Forgets packets that will not be whole any more.
    pub(super) fn fragments_poll(&self) {
        let next = self.fragments.expire(Instant::now());
        // Who adds the first one after this sets it.
        if let (Some(at), Some(timer)) = (next, self.fragment_timer.get()) {
            timer.set(Some(at));
        }
    }

    /// Sends a packet that may be longer than the link's MTU, as [`NetNode::transmit`] does:
    /// in fragments. Once one of them finds no room, the others would be in vain.
    ///
    /// # Errors
    /// No memory.
    pub(crate) fn transmit_cut(&self, from: IpAddr, to: IpAddr, packet: &[u8]) -> Result<()> {
        let Some(link) = self.link() else {
            return Ok(());
        };
        let protocol = match packet.first() {
            Some(0x45) => packet.get(9),
            _ => packet.get(V6_NEXT_HEADER),
        };
        let id = self.fresh_id(from, to, protocol.copied().unwrap_or(0));
        let mut cut = Cut::new(packet, link.mtu(), id)?;
        while let Some(frame) = cut.next_frame() {
            if link.room() == 0 {
                break;
            }
            self.transmit(to, frame);
        }
        self.flush();
        Ok(())
    }

    /// An identification for a packet that may be cut.
    pub(crate) fn fresh_id(&self, from: IpAddr, to: IpAddr, protocol: u8) -> u32 {
        self.identifications.next(from, to, protocol)
    }

    /// Answers an echo request that came in fragments, if `frame` is one whose answer has to
    /// leave so. The control interface cannot: smoltcp drops what is longer than the MTU.
    pub(super) fn answer_long(&self, frame: &[u8]) -> bool {
        if frame.len() <= ETHERNET_HEADER + self.mtu() {
            return false;
        }
        let request = frame.get(ETHERNET_HEADER..).and_then(Arrived::parse);
        let Some(request) = request.filter(|r| self.is_local(r.to)) else {
            return true;
        };
        let is_right = match request.protocol {
            ICMP => checksum::sum(request.payload) == 0xffff,
            other => checksum::is_right(request.from, request.to, other, request.payload),
        };
        if is_right && let Some(reply) = echo_reply(&request) {
            // Without memory it is lost.
            let _ = self.transmit_cut(request.to, request.from, &reply);
        }
        true
    }
}

/// Whether a packet whose fragments name this header as the next one is taken: not one that
/// has fragments in fragments, which nobody sends in good faith and which could go on for ever, and
/// none with options that come first (RFC 8200, 4.1).
fn may_be_cut(next: u8) -> bool {
    !matches!(
        IpProtocol::from(next),
        IpProtocol::Ipv6Frag | IpProtocol::HopByHop
    )
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::node::{Nowhere, StaticConfig};
    use alloc::sync::Arc;
    use core::net::Ipv4Addr;

    /// A fragment of which nothing more comes is not kept for ever, even if nothing else does.
    #[test]
    fn a_timer_ends_what_is_not_whole() {
        let node = NetNode::new();
        node.attach_link("nowhere", Arc::new(Nowhere));
        let own = Ipv4Addr::new(10, 0, 0, 1);
        assert!(node.configure_static(&StaticConfig {
            address: own,
            prefix: 24,
            gateway: None,
            dns: Default::default(),
        }));
        let key = Key {
            from: Ipv4Addr::new(10, 0, 0, 2).into(),
            to: own.into(),
            protocol: 17,
            id: 1,
        };
        let due = || {
            node.fragment_timer
                .get()
                .and_then(machine::timer::Timer::due)
        };
        assert_eq!(due(), None);
        let piece = Piece::new(0, false, &[0; 8]).unwrap();
        // Nothing of what others get is kept.
        let other = Key {
            to: key.from,
            ..key
        };
        assert_eq!(node.fragment(&other, &[0x45; 34], &piece), None);
        assert_eq!(due(), None);
        let before = Instant::now();
        assert_eq!(node.fragment(&key, &[0x45; 34], &piece), None);
        let after = due().expect("a time").since(before);
        assert!((30..40).contains(&after.as_secs()), "{after:?}");
        node.fragments_poll();
        assert!(due().is_some(), "it is not old yet");
        assert_eq!(node.fragments.expire(before.after(after * 2)), None);
    }
}
