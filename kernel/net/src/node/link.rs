//! What the node needs of a network device.

use core::net::IpAddr;

/// A link that carries Ethernet frames. A driver implements it, and gives what
/// comes in to [`super::NetNode::receive`] from a thread of its own, never from
/// inside [`Link::transmit`].
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
    /// since, the driver calls [`super::NetNode::transmit_ready`].
    fn room(&self) -> usize;

    /// Tells the device of the frames queued since the last call.
    fn flush(&self);
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
