//! What the node needs of a network device.

use super::NetNode;
use alloc::sync::Arc;
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

    /// How many frames can be queued now. When it was 0 and frames have left
    /// since, the driver calls [`Upper::transmit_ready`].
    fn room(&self) -> usize;

    /// Tells the device of the frames queued since the last call.
    fn flush(&self);
}

/// Where a device's frames and news go. All are called from the driver's threads.
pub trait Upper: Send + Sync {
    /// A frame came in.
    fn receive(&self, frame: &[u8]);
    /// The frames at hand have been given; more come later.
    fn received_all(&self) {}
    /// The link went up or down.
    fn link_changed(&self);
    /// The sending queue was full and has room again.
    fn transmit_ready(&self);
}

/// The node above its link.
pub(super) struct Above(pub(super) Arc<NetNode>);

impl Upper for Above {
    fn receive(&self, frame: &[u8]) {
        self.0.receive(frame);
    }

    fn link_changed(&self) {
        self.0.link_changed();
    }

    fn transmit_ready(&self) {
        self.0.transmit_ready();
    }
}

/// News of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetEvent {
    /// The link came up.
    LinkUp,
    /// The link went down.
    LinkDown,
    /// The machine has this address now.
    AddressAcquired(IpAddr),
    /// The machine has lost this address.
    AddressLost(IpAddr),
}
