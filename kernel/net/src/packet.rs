//! Packet sockets (packet(7)): frames as the link carries them, in and out.
//!
//! Only a manifest's `raw_network` gives one: it sees the frames of the whole machine.
//! There are no frames on loopback, and no rings shared with the program.

use crate::addr::{Address, Hardware};
use crate::checksum::{Joined, PartialChecksum};
use crate::error::{Error, Result};
use crate::filter::{About, Filter};
use crate::groups::{LINK, LOOPBACK};
use crate::message::{Message, MessageQueue, Origin};
use crate::node::{ETHERNET_HEADER, NetNode};
use crate::options::Options;
use crate::stack::NetStack;
use crate::watchers::Watchers;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU16, AtomicU32};
use machine::sync::SpinLock;
use vfs::{Events, PollHub};

/// `ETH_P_ALL`: frames of every type, those that leave among them.
const ALL: u16 = 3;
const PACKET_HOST: u8 = 0;
const PACKET_BROADCAST: u8 = 1;
const PACKET_MULTICAST: u8 = 2;
const PACKET_OTHER_HOST: u8 = 3;
const PACKET_OUTGOING: u8 = 4;
/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`.
const ETHER: u16 = 1;
const LOOPBACK_HARDWARE: u16 = 772;

/// What the path of frames needs of a packet socket.
pub struct PacketCore {
    queue: MessageQueue,
    hub: Arc<PollHub>,
    /// Without the header of the link (`SOCK_DGRAM`).
    cooked: bool,
    /// The Ethernet type it takes, 0 for none, [`ALL`].
    protocol: AtomicU16,
    /// The interface it is bound to, 0 for all.
    link: AtomicU32,
    filter: SpinLock<Option<Arc<Filter>>>,
    /// Frames it took and frames that found no room, since they were asked for.
    taken: AtomicU32,
    lost: AtomicU32,
    options: Arc<Options>,
}

/// The packet sockets of a machine.
pub(crate) type PacketTable = Watchers<PacketCore>;

/// The state of one packet socket.
pub struct Packet {
    core: Arc<PacketCore>,
}

impl PacketCore {
    fn take(&self, frame: &[u8], from: &Hardware) {
        let shown = match self.cooked {
            true => frame.get(ETHERNET_HEADER..).unwrap_or_default(),
            false => frame,
        };
        let filter = self.filter.lock().clone();
        let about = About {
            protocol: from.protocol,
            kind: from.kind,
            interface: from.link,
        };
        let pass = filter.map_or(usize::MAX, |f| f.run(shown, about));
        let shown = shown.get(..pass).unwrap_or(shown);
        if pass == 0 {
            return;
        }
        let mut data = Vec::new();
        let room = data.try_reserve_exact(shown.len()).is_ok();
        if room {
            data.extend_from_slice(shown);
        }
        let message = Message {
            data,
            origin: Origin::Hardware(*from),
            time: self.options.arrival(),
            note: None,
        };
        if room && self.queue.push(message).is_ok() {
            self.taken.fetch_add(1, Relaxed);
            self.hub.notify_one(Events::READABLE);
        } else {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Packet {
    /// A socket that takes frames of this Ethernet type; without the link's header if
    /// `cooked`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(
        cooked: bool,
        protocol: u16,
        stack: &NetStack,
        hub: &Arc<PollHub>,
        options: &Arc<Options>,
    ) -> Result<Packet> {
        let core = Arc::new(PacketCore {
            queue: stack.queue(options.rcvbuf()),
            hub: hub.clone(),
            cooked,
            protocol: AtomicU16::new(protocol),
            link: AtomicU32::new(0),
            filter: SpinLock::new(None),
            taken: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            options: options.clone(),
        });
        stack.node().packets().add(&core)?;
        Ok(Packet { core })
    }

    /// Takes frames of one interface, 0 for all, and of one type unless it is 0.
    ///
    /// # Errors
    /// No device.
    pub fn bind(&self, stack: &NetStack, to: &Hardware) -> Result<()> {
        match to.link {
            0 | LOOPBACK => {}
            LINK if stack.node().link().is_some() => {}
            _ => return Err(Error::NO_DEVICE),
        }
        self.core.link.store(to.link, Relaxed);
        if to.protocol != 0 {
            self.core.protocol.store(to.protocol, Relaxed);
        }
        Ok(())
    }

    /// Its own address.
    #[must_use]
    pub fn local(&self, stack: &NetStack) -> Address {
        let link = self.core.link.load(Relaxed);
        let mut own = Hardware {
            protocol: self.core.protocol.load(Relaxed),
            link,
            ..Hardware::default()
        };
        if link == LINK {
            own.hardware = ETHER;
            own.set_address(stack.node().mac());
        } else if link == LOOPBACK {
            own.hardware = LOOPBACK_HARDWARE;
            own.set_address([0; 6]);
        }
        Address::Hardware(own)
    }

    /// Sends one frame, or the packet of one. It never waits: what finds no room is
    /// lost.
    ///
    /// # Errors
    /// No such address without an interface, [`Error::MessageSize`],
    /// [`Error::INVALID`] for a frame without a header, [`Error::NetworkDown`].
    pub fn send(&self, stack: &NetStack, to: Option<&Hardware>, data: &[u8]) -> Result<usize> {
        let link = to.map_or_else(|| self.core.link.load(Relaxed), |to| to.link);
        let node = stack.node();
        match link {
            // Nobody takes frames there.
            LOOPBACK => return Ok(data.len()),
            LINK if node.link().is_some() => {}
            _ => return Err(Error::NO_SUCH_ADDRESS),
        }
        if !node.is_up() {
            return Err(Error::NetworkDown);
        }
        let mut frame = Vec::new();
        frame.try_reserve_exact(ETHERNET_HEADER + data.len())?;
        if self.core.cooked {
            let to = to.ok_or(Error::DestinationRequired)?;
            let target = to.address.first_chunk::<6>().filter(|_| to.len == 6);
            let protocol = match to.protocol {
                0 => self.core.protocol.load(Relaxed),
                protocol => protocol,
            };
            frame.extend_from_slice(target.ok_or(Error::INVALID)?);
            frame.extend_from_slice(&node.mac());
            frame.extend_from_slice(&protocol.to_be_bytes());
        }
        frame.extend_from_slice(data);
        if frame.len() < ETHERNET_HEADER {
            return Err(Error::INVALID);
        }
        if frame.len() > node.mtu() + ETHERNET_HEADER {
            return Err(Error::MessageSize);
        }
        node.put_frame(&frame);
        node.flush();
        Ok(data.len())
    }

    /// Takes the next frame without waiting.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`].
    pub fn receive(&self, peek: bool) -> Result<Option<Message>> {
        if peek {
            return self.core.queue.peek().map(Some);
        }
        self.core.queue.pop().map(Some).ok_or(Error::WOULD_BLOCK)
    }

    /// The queue of what came.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        &self.core.queue
    }

    /// Attaches a filter, or takes it away.
    pub fn set_filter(&self, filter: Option<Filter>) {
        let new = filter.map(Arc::new);
        let old = core::mem::replace(&mut *self.core.filter.lock(), new);
        drop(old);
    }

    /// Frames that came and those of them that were lost, since the last time
    /// (`PACKET_STATISTICS`).
    #[must_use]
    pub fn statistics(&self) -> [u32; 2] {
        let lost = self.core.lost.swap(0, Relaxed);
        [self.core.taken.swap(0, Relaxed).wrapping_add(lost), lost]
    }

    /// Readiness.
    #[must_use]
    pub fn poll(&self) -> Events {
        match self.core.queue.is_empty() {
            true => Events::WRITABLE,
            false => Events::WRITABLE | Events::READABLE,
        }
    }

    /// Gets nothing any more.
    pub(crate) fn close(&self, stack: &NetStack) {
        stack.node().packets().remove(&self.core);
        self.core.queue.clear();
    }
}

impl NetNode {
    /// Gives a frame to the device, and to who watches.
    pub(crate) fn put_frame(&self, frame: &[u8]) {
        if let Some(link) = self.link() {
            self.packets().show(frame, link.mac(), true);
            link.transmit(frame);
        }
    }

    /// The same for a frame whose checksums are partial. Who watches sees them complete.
    pub(crate) fn put_partial(&self, frame: &mut [u8], checksum: PartialChecksum) {
        if self.packets().is_used() {
            checksum.complete(frame);
            self.put_frame(frame);
        } else if let Some(link) = self.link() {
            link.transmit_partial(frame, checksum);
        }
    }

    /// The same for segments that the device cuts, of which nobody is shown anything: none
    /// are joined while somebody watches ([`NetNode::joins`]).
    pub(crate) fn put_joined(&self, frame: &mut [u8], joined: Joined) {
        let Some(link) = self.link() else { return };
        // It may be another one than that for which they were joined.
        let is_v6 = joined.checksum().header_field().is_none();
        let longest = joined.headers() + joined.size();
        let fits = frame.len() <= ETHERNET_HEADER + link.joined_max()
            && longest <= ETHERNET_HEADER + link.mtu();
        if fits && link.joins(is_v6) {
            link.transmit_joined(frame, joined);
        }
    }

    /// Whether segments of this version of IP may leave joined now.
    pub(crate) fn joins(&self, is_v6: bool) -> bool {
        self.link().is_some_and(|link| link.joins(is_v6)) && !self.packets().is_used()
    }
}

impl PacketTable {
    /// Shows a frame that goes in or out to all sockets that take its type.
    #[inline]
    pub(crate) fn show(&self, frame: &[u8], own: [u8; 6], outgoing: bool) {
        if self.is_used() {
            self.show_all(frame, own, outgoing);
        }
    }

    #[cold]
    fn show_all(&self, frame: &[u8], own: [u8; 6], outgoing: bool) {
        let &[t0, t1, t2, t3, t4, t5, s0, s1, s2, s3, s4, s5, p0, p1, ..] = frame else {
            return;
        };
        let to = [t0, t1, t2, t3, t4, t5];
        let kind = match to {
            _ if outgoing => PACKET_OUTGOING,
            to if to == own => PACKET_HOST,
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => PACKET_BROADCAST,
            [first, ..] if first & 1 != 0 => PACKET_MULTICAST,
            _ => PACKET_OTHER_HOST,
        };
        let mut from = Hardware {
            protocol: u16::from_be_bytes([p0, p1]),
            link: LINK,
            hardware: ETHER,
            kind,
            ..Hardware::default()
        };
        from.set_address([s0, s1, s2, s3, s4, s5]);
        let wants = |core: &PacketCore| {
            let protocol = core.protocol.load(Relaxed);
            let link = core.link.load(Relaxed);
            matches!(link, 0 | LINK)
                && (protocol == ALL || !outgoing && protocol != 0 && protocol == from.protocol)
        };
        for core in self.matching(wants) {
            core.take(frame, &from);
        }
    }
}
