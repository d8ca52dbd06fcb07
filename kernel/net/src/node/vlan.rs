//! A VLAN under the node (IEEE 802.1Q): frames leave with its tag, and only frames
//! that have it come in, without it. What is above knows nothing of it.

use super::link::LinkStatus;
use super::{ETHERNET_HEADER, Link};
use crate::checksum::{Joined, PartialChecksum};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU16, Ordering};
use machine::sync::SpinLock;

/// Ethertype of the tag.
const TPID: [u8; 2] = [0x81, 0x00];
/// Where the tag is: behind the two addresses.
const TAG_AT: usize = 12;
const TAG_BYTES: usize = 4;
/// Bits of the number in the tag; the others are priority and drop eligibility.
const NUMBER: u16 = 0x0fff;

/// A link that tags what it sends, once its node is in a VLAN. The line must carry
/// frames with a tag, four bytes longer than others, as every one does that knows VLANs.
pub(super) struct Tagged {
    link: Arc<dyn Link>,
    /// Number of the node's VLAN; 0: there is none.
    vlan: Arc<AtomicU16>,
    /// A frame while its tag is put in.
    scratch: SpinLock<Vec<u8>>,
}

impl Tagged {
    pub(super) fn new(link: Arc<dyn Link>, vlan: Arc<AtomicU16>) -> Tagged {
        Tagged {
            link,
            vlan,
            scratch: SpinLock::new(Vec::new()),
        }
    }
}

impl Link for Tagged {
    fn mac(&self) -> [u8; 6] {
        self.link.mac()
    }

    fn set_mac(&self, mac: [u8; 6]) -> bool {
        self.link.set_mac(mac)
    }

    fn mtu(&self) -> usize {
        self.link.mtu()
    }

    fn is_up(&self) -> bool {
        self.link.is_up()
    }

    #[inline]
    fn transmit(&self, frame: &[u8]) -> bool {
        match self.vlan.load(Ordering::Relaxed) {
            0 => self.link.transmit(frame),
            number => self.tagged(frame, number, |frame| self.link.transmit(frame)),
        }
    }

    #[inline]
    fn transmit_partial(&self, frame: &mut [u8], checksum: PartialChecksum) -> bool {
        match self.vlan.load(Ordering::Relaxed) {
            0 => self.link.transmit_partial(frame, checksum),
            number => self.tagged(frame, number, |frame| {
                let moved = checksum.moved(TAG_BYTES as u8);
                self.link.transmit_partial(frame, moved)
            }),
        }
    }

    fn joined_max(&self) -> usize {
        self.link.joined_max()
    }

    fn joins(&self, is_v6: bool) -> bool {
        let has_room = || self.vlan.load(Ordering::Relaxed) == 0 || self.has_room_for_joined();
        self.link.joins(is_v6) && has_room()
    }

    fn transmit_joined(&self, frame: &mut [u8], joined: Joined) -> bool {
        match self.vlan.load(Ordering::Relaxed) {
            0 => self.link.transmit_joined(frame, joined),
            number => self.tagged(frame, number, |frame| {
                let moved = joined.moved(TAG_BYTES as u8);
                self.link.transmit_joined(frame, moved)
            }),
        }
    }

    fn room(&self) -> usize {
        self.link.room()
    }

    fn flush(&self) {
        self.link.flush();
    }

    fn status(&self) -> LinkStatus {
        self.link.status()
    }
}

impl Tagged {
    /// Whether the longest frame there can be may get a tag: it is not lost for want of memory.
    fn has_room_for_joined(&self) -> bool {
        let mut scratch = self.scratch.lock();
        scratch.clear();
        let longest = ETHERNET_HEADER + TAG_BYTES + self.link.joined_max();
        scratch.try_reserve(longest).is_ok()
    }

    /// Gives the frame with its tag to `send`; `false` also if there is no memory for it.
    fn tagged(&self, frame: &[u8], number: u16, send: impl FnOnce(&mut [u8]) -> bool) -> bool {
        let Some((addresses, rest)) = frame.split_at_checked(TAG_AT) else {
            return false;
        };
        let mut scratch = self.scratch.lock();
        scratch.clear();
        if scratch.try_reserve(frame.len() + TAG_BYTES).is_err() {
            return false;
        }
        scratch.extend_from_slice(addresses);
        scratch.extend_from_slice(&TPID);
        scratch.extend_from_slice(&(number & NUMBER).to_be_bytes());
        scratch.extend_from_slice(rest);
        send(&mut scratch)
    }
}

/// The frame without its tag, if it has that of VLAN `number`.
pub(super) fn untagged(frame: &[u8], number: u16) -> Option<Vec<u8>> {
    let (addresses, rest) = frame.split_at_checked(TAG_AT)?;
    let (tag, rest) = rest.split_first_chunk::<TAG_BYTES>()?;
    let found = u16::from_be_bytes([tag[2], tag[3]]) & NUMBER;
    if tag[..2] != TPID || found != number {
        return None;
    }
    let mut bare = Vec::new();
    bare.try_reserve_exact(frame.len() - TAG_BYTES).ok()?;
    bare.extend_from_slice(addresses);
    bare.extend_from_slice(rest);
    Some(bare)
}
