//! What the node needs of a network device.

use crate::checksum::{Joined, PartialChecksum};
use core::net::IpAddr;

/// A link that carries Ethernet frames. A driver implements it, and gives what
/// comes in to its [`Upper`] from a thread of its own, never from inside
/// [`Link::transmit`].
pub trait Link: Send + Sync {
    /// The hardware address.
    fn mac(&self) -> [u8; 6];

    /// Bytes of an IP packet in one frame (1500 on Ethernet): the frame's length
    /// without its header.
    fn mtu(&self) -> usize;

    /// Whether there is a carrier.
    fn is_up(&self) -> bool;

    /// Queues a whole frame; `false` if the queue is full, and the frame is lost.
    /// Does not wait. The device may be told only with [`Link::flush`].
    fn transmit(&self, frame: &[u8]) -> bool;

    /// Queues a whole frame like [`Link::transmit`], but its checksums are not all
    /// written: the device writes them, or this function. Either way the frame leaves
    /// with the right ones, so that nobody above has to know what a device can do, and
    /// the node may move from one link to another at any time.
    fn transmit_partial(&self, frame: &mut [u8], checksum: PartialChecksum) -> bool {
        checksum.complete(frame);
        self.transmit(frame)
    }

    /// Bytes of the largest IP packet that [`Link::transmit_joined`] may ever take; 0 if it
    /// takes none.
    fn joined_max(&self) -> usize {
        0
    }

    /// Whether [`Link::transmit_joined`] takes packets of this version of IP now.
    fn joins(&self, is_v6: bool) -> bool {
        let _ = is_v6;
        false
    }

    /// Queues a frame that holds several segments, which the device cuts; it takes no more of
    /// [`Link::room`] than they would one by one. `false` if the queue is full or the device
    /// does not cut, and the frame is lost: segments are sent again.
    fn transmit_joined(&self, frame: &mut [u8], joined: Joined) -> bool {
        let _ = (frame, joined);
        false
    }

    /// How many frames can be queued now. When it was 0 and frames have left
    /// since, the driver calls [`Upper::transmit_ready`].
    fn room(&self) -> usize;

    /// Tells the device of the frames queued since the last call.
    fn flush(&self);

    /// Takes another hardware address; `false` if it cannot.
    fn set_mac(&self, mac: [u8; 6]) -> bool {
        let _ = mac;
        false
    }

    /// Speed and duplex of the line, and what has passed over it. Does not wait.
    fn status(&self) -> LinkStatus {
        LinkStatus::default()
    }
}

/// How a link does, for people and their graphs. `None` is what is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStatus {
    /// Speed in Mbit/s; `None` also while there is no carrier.
    pub speed_mbit: Option<u32>,
    /// Whether both ends may send at the same time; `None` as for the speed.
    pub is_full_duplex: Option<bool>,
    /// What came in.
    pub received: LinkCounters,
    /// What went out.
    pub sent: LinkCounters,
    /// Times the device was reset because it hung or broke the rules.
    pub resets: u64,
}

/// Counters of one direction of a link since its driver started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Whole frames.
    pub frames: u64,
    /// Their bytes, without preamble and checksum.
    pub bytes: u64,
    /// Frames that were lost because they were damaged (checksum, length, collision).
    pub errors: u64,
    /// Frames that were lost because there was no room.
    pub dropped: u64,
}

/// Which checksums of a frame that came in are known to be right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// That of the IPv4 header.
    pub header: bool,
    /// That of the TCP segment or UDP datagram in it.
    pub transport: bool,
}

/// Where a device's frames and news go. All are called from the driver's threads.
pub trait Upper: Send + Sync {
    /// A frame came in.
    fn receive(&self, frame: &[u8]);
    /// A frame came in of which the device found these checksums right. Answers may wait for
    /// [`Upper::received_all`], which the driver calls soon.
    fn receive_checked(&self, frame: &[u8], checked: Checked) {
        let _ = checked;
        self.receive(frame);
    }
    /// The frames at hand, some dozens at most, have been given.
    fn received_all(&self) {}
    /// The link went up or down.
    fn link_changed(&self);
    /// The sending queue was full and has room again.
    fn transmit_ready(&self);
}

/// News of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// The link came up.
    LinkUp,
    /// The link went down.
    LinkDown,
    /// Another link carries the node's packets from now on.
    LinkMoved,
    /// The machine has this address now.
    AddressAcquired(IpAddr),
    /// The machine has lost this address.
    AddressLost(IpAddr),
}

/// For tests: a link on which nobody listens.
#[cfg(test)]
pub(crate) struct Nowhere;

#[cfg(test)]
impl Link for Nowhere {
    fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, 1]
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
