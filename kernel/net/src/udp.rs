//! UDP sockets (udp(7)).
//!
//! Between sockets of this machine a datagram moves from queue to queue. Over the
//! wire there is no protocol to run either: headers are written and read with
//! smoltcp's packet types.

mod frame;
mod joined;
mod segments;

pub(crate) use frame::set_class;

use crate::error::{Error, Result};
use crate::groups::{LINK, LOOPBACK, Memberships, ToGroup};
use crate::message::{Message, MessageQueue, Origin};
use crate::node::{NetNode, Protocol};
use crate::options::{Options, Switch};
use crate::ports::{Binding, EPHEMERAL_FIRST, EPHEMERAL_LAST};
use crate::stack::{NetStack, Route};
use crate::tcp::claim;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering::{AcqRel, Relaxed};
use core::sync::atomic::{AtomicBool, AtomicU16};
use frame::{Fields, send_frame};
use joined::Joined;
use machine::sync::SpinLock;
use vfs::{Events, PollHub};

/// Most bytes of one datagram: its length has 16 bits, and counts 8 of its header.
pub const DATAGRAM_MAX: usize = 65_527;
/// The same over IPv4, whose length counts 20 of its own header, too.
const DATAGRAM_MAX_V4: usize = 65_507;

/// What the senders of datagrams need of a socket.
pub struct UdpCore {
    queue: MessageQueue,
    hub: Arc<PollHub>,
    stack: u64,
    /// The only sender it takes from, and where datagrams go by default.
    remote: SpinLock<Option<SocketAddr>>,
    is_connected: AtomicBool,
    error: AtomicU16,
    shut_read: AtomicBool,
    shut_write: AtomicBool,
    /// Multicast groups it has joined.
    groups: Memberships,
    options: Arc<Options>,
}

struct Bound {
    binding: Binding<Arc<UdpCore>>,
    addr: Option<IpAddr>,
    /// Which of address and port the program chose itself: those stay when a
    /// connection is taken back.
    chosen_addr: bool,
    chosen_port: bool,
}

/// The state of one UDP socket.
pub struct Udp {
    v6: bool,
    core: Arc<UdpCore>,
    bound: SpinLock<Option<Bound>>,
    /// The port it uses on the wire, once it has sent there.
    lent: SpinLock<Option<Lent>>,
    /// A datagram of which more follows.
    joined: Joined,
}

/// A port of the node lent to one socket.
struct Lent {
    node: Arc<NetNode>,
    port: u16,
}

impl Drop for Lent {
    fn drop(&mut self) {
        let gone = self.node.udp_ports().lock().remove(&self.port);
        drop(gone);
    }
}

impl UdpCore {
    /// Whose socket it is.
    pub(crate) fn stack(&self) -> u64 {
        self.stack
    }

    /// Takes in a datagram; it is lost if there is no room.
    pub(crate) fn deliver(&self, from: SocketAddr, to: IpAddr, data: &[u8], ttl: u8, tos: u8) {
        let mut copy = Vec::new();
        if copy.try_reserve_exact(data.len()).is_ok() {
            copy.extend_from_slice(data);
            self.accept(from, to, copy, ttl, tos);
        }
    }

    /// Whether it is to have what `sender` sent to a group.
    pub(crate) fn takes_group(&self, group: IpAddr, link: u32, sender: IpAddr) -> bool {
        let all = self.options.on(Switch::MulticastAll);
        self.groups.take(group, link, sender, all)
    }

    fn accept(&self, from: SocketAddr, to: IpAddr, data: Vec<u8>, ttl: u8, tos: u8) {
        if self.is_connected.load(Relaxed) && self.remote.lock().is_some_and(|r| r != from) {
            return;
        }
        if self.shut_read.load(Relaxed) {
            return;
        }
        let message = Message {
            data,
            origin: Origin::Inet { from, to, ttl, tos },
            time: self.options.arrival(),
            note: None,
        };
        if self.queue.push(message).is_ok() {
            self.hub.notify_one(Events::READABLE);
        }
    }

    /// An ICMP message says that a datagram to `remote` did not arrive. Only a
    /// connected socket hears of it.
    pub(crate) fn undelivered(&self, remote: SocketAddr, refused: bool) {
        if self.remote.lock().is_some_and(|r| r == remote) {
            let e = if refused {
                Error::Refused
            } else {
                Error::HostUnreachable
            };
            self.error.store(e.pending_number(), Relaxed);
            self.hub
                .notify(Events::ERR | Events::READABLE | Events::WRITABLE);
        }
    }

    fn pending(&self) -> Result<()> {
        if self.error.load(Relaxed) == 0 {
            return Ok(());
        }
        match self.error.swap(0, AcqRel) {
            0 => Ok(()),
            n => Err(vfs::Error::Foreign(n).into()),
        }
    }
}

impl Udp {
    /// A socket of `AF_INET` or, with `v6`, `AF_INET6`.
    #[must_use]
    pub fn new(v6: bool, stack: &NetStack, hub: &Arc<PollHub>, options: &Arc<Options>) -> Udp {
        Udp {
            v6,
            core: Arc::new(UdpCore {
                queue: stack.queue(options.rcvbuf()),
                hub: hub.clone(),
                stack: stack.id(),
                remote: SpinLock::new(None),
                is_connected: AtomicBool::new(false),
                error: AtomicU16::new(0),
                shut_read: AtomicBool::new(false),
                shut_write: AtomicBool::new(false),
                groups: Memberships::default(),
                options: options.clone(),
            }),
            bound: SpinLock::new(None),
            lent: SpinLock::new(None),
            joined: Joined::default(),
        }
    }

    /// Our address; all zeros while there is none.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        let unspecified = crate::addr::any(self.v6);
        match &*self.bound.lock() {
            Some(b) => SocketAddr::new(b.addr.unwrap_or(unspecified), b.binding.port()),
            None => SocketAddr::new(unspecified, 0),
        }
    }

    /// Where it is connected to.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn remote(&self) -> Result<SocketAddr> {
        let remote = *self.core.remote.lock();
        remote.ok_or(Error::NotConnected)
    }

    /// Holds a port.
    ///
    /// # Errors
    /// [`Error::INVALID`] if it has one, [`Error::AddressInUse`],
    /// [`Error::AddressNotAvailable`].
    pub fn bind(&self, stack: &NetStack, options: &Options, addr: SocketAddr) -> Result<()> {
        let mut bound = self.bound.lock();
        if bound.is_some() {
            return Err(Error::INVALID);
        }
        let ip = match addr.ip() {
            group if group.is_multicast() && group.is_ipv6() == self.v6 => Some(group),
            ip => stack.check_bind(self.v6, ip, options)?,
        };
        let binding = stack.udp().bind(
            claim(self.v6, ip, options),
            addr.port(),
            Some(self.core.clone()),
        )?;
        *bound = Some(Bound {
            binding,
            addr: ip,
            chosen_addr: ip.is_some(),
            chosen_port: addr.port() != 0,
        });
        Ok(())
    }

    fn ensure_bound(&self, stack: &NetStack, options: &Options) -> Result<u16> {
        if let Some(b) = &*self.bound.lock() {
            return Ok(b.binding.port());
        }
        let any = SocketAddr::new(crate::addr::any(self.v6), 0);
        match self.bind(stack, options, any) {
            Ok(()) | Err(Error::INVALID) => Ok(self.local().port()),
            Err(e) => Err(e),
        }
    }

    /// Sets the only peer; `None` takes it back.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`], [`Error::NoFamily`].
    pub fn connect(
        &self,
        stack: &NetStack,
        options: &Options,
        to: Option<SocketAddr>,
    ) -> Result<()> {
        let Some(to) = to else {
            self.disconnect();
            return Ok(());
        };
        let to = stack.check_target(self.v6, options, to)?;
        let (Route::Local { source } | Route::Wire { source }) = stack.route(to.ip())?;
        self.ensure_bound(stack, options)?;
        if let Some(b) = &mut *self.bound.lock()
            && b.addr.is_none()
        {
            b.addr = Some(source);
            b.binding.set_address(Some(source));
        }
        *self.core.remote.lock() = Some(to);
        self.core.is_connected.store(true, Relaxed);
        Ok(())
    }

    /// Takes the peer back, and with it the address and port that the program did
    /// not choose itself, as `__udp_disconnect` of Linux does.
    fn disconnect(&self) {
        self.core.is_connected.store(false, Relaxed);
        *self.core.remote.lock() = None;
        let mut bound = self.bound.lock();
        let released = match &mut *bound {
            Some(b) if !b.chosen_port && !b.chosen_addr => bound.take(),
            Some(b) if !b.chosen_addr => {
                b.addr = None;
                b.binding.set_address(None);
                None
            }
            _ => None,
        };
        // Ports have a lock of their own.
        drop(bound);
        drop(released);
    }

    /// Sends one datagram, or as many as the message makes (`UDP_SEGMENT`, udp(7)). It
    /// never waits: what finds no room is lost.
    ///
    /// # Errors
    /// [`Error::DestinationRequired`], [`Error::MessageSize`], [`Error::INVALID`] for
    /// too many segments, [`Error::NetworkUnreachable`], a pending error.
    pub fn send(
        &self,
        stack: &Arc<NetStack>,
        options: &Options,
        to: Option<SocketAddr>,
        header: Header,
        message: Message,
    ) -> Result<usize> {
        self.core.pending()?;
        if self.core.shut_write.load(Relaxed) {
            return Err(Error::BROKEN_PIPE);
        }
        let to = match to {
            Some(to) => stack.check_target(self.v6, options, to)?,
            None => {
                let remote = *self.core.remote.lock();
                remote.ok_or(Error::DestinationRequired)?
            }
        };
        let longest = if to.is_ipv4() {
            DATAGRAM_MAX_V4
        } else {
            DATAGRAM_MAX
        };
        let len = message.data.len();
        if len > longest {
            return Err(Error::MessageSize);
        }
        if to.port() == 0 {
            return Err(Error::INVALID);
        }
        let port = self.ensure_bound(stack, options)?;
        let own_ip = self.bound.lock().as_ref().and_then(|b| b.addr);
        // A socket that is bound to a group sends from the address of the link.
        let own_ip = own_ip.filter(|ip| !ip.is_multicast());
        let own = (own_ip, port);
        match segments::size(stack, to, header.segment(options), len)? {
            None => self.send_one(stack, to, own, header, message.data)?,
            Some(size) => segments::each(&message.data, size, |datagram| {
                self.send_one(stack, to, own, header, datagram)
            })?,
        }
        Ok(len)
    }

    /// Sends one datagram that is not too long, from the address and port `own`.
    fn send_one(
        &self,
        stack: &Arc<NetStack>,
        to: SocketAddr,
        (own_ip, port): (Option<IpAddr>, u16),
        header: Header,
        data: Vec<u8>,
    ) -> Result<()> {
        let options = &*self.core.options;
        if to.ip().is_multicast() {
            return self.send_to_group(stack, to, (own_ip, port), header, &data);
        }
        match stack.route(to.ip())? {
            Route::Local { source } => {
                let from = SocketAddr::new(own_ip.unwrap_or(source), port);
                match stack.find_datagram(to, u64::from(port)) {
                    Some(core) => core.accept(
                        from,
                        to.ip(),
                        data,
                        header.hops(options, to.ip()),
                        header.class(options),
                    ),
                    None => self.core.undelivered(to, true),
                }
            }
            Route::Wire { source } => {
                if let IpAddr::V4(v4) = to.ip()
                    && stack.node().with_config(|c| c.is_broadcast(v4))
                    && !options.on(Switch::Broadcast)
                {
                    return Err(Error::ACCESS);
                }
                let source = own_ip.unwrap_or(source);
                let from = SocketAddr::new(source, self.wire_port(stack, port)?);
                let fields = Fields::new(header, options, to.ip());
                send_frame(stack.node(), from, to, &data, fields)?;
            }
        }
        Ok(())
    }

    /// Sends a datagram to a group: to the members among this machine's sockets, if
    /// they are to hear it, and out on the link.
    fn send_to_group(
        &self,
        stack: &Arc<NetStack>,
        to: SocketAddr,
        (own_ip, port): (Option<IpAddr>, u16),
        header: Header,
        data: &[u8],
    ) -> Result<()> {
        let options = &*self.core.options;
        let named = match to {
            SocketAddr::V6(to) => to.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let to = SocketAddr::new(to.ip(), to.port());
        let (ttl, tos) = (header.hops(options, to.ip()), header.class(options));
        let link = match named {
            0 => options.multicast_link.load(Relaxed),
            link => link,
        };
        let copy = |from| ToGroup {
            from,
            to,
            data,
            ttl,
            tos,
        };
        let heard = options.on(Switch::MulticastLoop);
        if link == LOOPBACK {
            let source = own_ip.unwrap_or(crate::addr::loopback(to.is_ipv6()));
            if heard {
                stack.deliver_to_group(link, &copy(SocketAddr::new(source, port)));
            }
            return Ok(());
        }
        let Route::Wire { source } = stack.route(to.ip())? else {
            return Err(Error::NetworkUnreachable);
        };
        let source = own_ip.unwrap_or(source);
        let node = stack.node();
        let wire = SocketAddr::new(source, self.wire_port(stack, port)?);
        if heard {
            // Its own capsule knows the socket by its own port.
            stack.deliver_to_group(LINK, &copy(SocketAddr::new(source, port)));
            node.deliver_to_group(&copy(wire), Some(stack.id()));
        }
        match ttl {
            // Not beyond this machine.
            0 => Ok(()),
            _ => send_frame(node, wire, to, data, Fields::new(header, options, to.ip())),
        }
    }

    /// The groups it has joined.
    pub(crate) fn groups(&self) -> &Memberships {
        &self.core.groups
    }

    /// The port on the wire: the published one, or one lent for as long as the
    /// socket lives.
    fn wire_port(&self, stack: &NetStack, port: u16) -> Result<u16> {
        let node = stack.node();
        if let Some(p) = node.published_as(stack, Protocol::Udp, port) {
            return Ok(p);
        }
        let mut lent = self.lent.lock();
        if let Some(l) = &*lent {
            return Ok(l.port);
        }
        let mut ports = node.udp_ports().lock();
        let span = u64::from(EPHEMERAL_LAST - EPHEMERAL_FIRST) + 1;
        let start = machine::random::next_u64() % span;
        let port = (0..span)
            .map(|i| EPHEMERAL_FIRST + u16::try_from((start + i) % span).unwrap_or(0))
            .find(|p| !ports.contains_key(p) && node.published(Protocol::Udp, *p).is_none())
            .ok_or(Error::AddressNotAvailable)?;
        ports.try_reserve(1)?;
        let core: Weak<UdpCore> = Arc::downgrade(&self.core);
        ports.insert(port, core);
        drop(ports);
        *lent = Some(Lent {
            node: node.clone(),
            port,
        });
        Ok(port)
    }

    /// Takes the next datagram without waiting; `None` after `SHUT_RD`.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`], a pending error.
    pub fn receive(&self, peek: bool) -> Result<Option<Message>> {
        self.core.pending()?;
        if self.core.queue.is_empty() && self.core.shut_read.load(Relaxed) {
            return Ok(None);
        }
        if peek {
            return self.core.queue.peek().map(Some);
        }
        self.core.queue.pop().map(Some).ok_or(Error::WOULD_BLOCK)
    }

    /// The queue of what came in.
    #[must_use]
    pub fn queue(&self) -> &MessageQueue {
        &self.core.queue
    }

    /// Takes the pending error (`SO_ERROR`).
    #[must_use]
    pub fn take_error(&self) -> u16 {
        self.core.error.swap(0, AcqRel)
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        self.remote()?;
        self.core.shut_read.fetch_or(read, Relaxed);
        self.core.shut_write.fetch_or(write, Relaxed);
        self.core
            .hub
            .notify(Events::READABLE | Events::WRITABLE | Events::RDHUP);
        Ok(())
    }

    /// Readiness, as `udp_poll` reports it.
    #[must_use]
    pub fn poll(&self) -> Events {
        let mut e = Events::WRITABLE;
        let ended = self.core.shut_read.load(Relaxed);
        if ended || !self.core.queue.is_empty() {
            e |= Events::READABLE;
        }
        if ended {
            e |= Events::RDHUP;
        }
        if ended && self.core.shut_write.load(Relaxed) {
            e |= Events::HUP;
        }
        if self.core.error.load(Relaxed) != 0 {
            e |= Events::ERR | Events::READABLE;
        }
        e
    }

    /// Lets go of its ports.
    pub(crate) fn close(&self, stack: &NetStack) {
        self.core.groups.clear(stack);
        let bound = self.bound.lock().take();
        let lent = self.lent.lock().take();
        drop((bound, lent));
        self.core.queue.clear();
    }
}

fn low_byte(n: u32) -> u8 {
    u8::try_from(n & 0xff).unwrap_or(0)
}

/// Fields of the header of one datagram; those that are missing are the socket's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Time to live or hop limit.
    pub hops: Option<u8>,
    /// Type of service or traffic class.
    pub class: Option<u8>,
    /// Bytes of data in each datagram that the message is cut into (`UDP_SEGMENT`); 0
    /// to leave it whole.
    pub segment: Option<u16>,
}

impl Header {
    pub(crate) fn hops(self, options: &Options, to: IpAddr) -> u8 {
        let usual = match to.is_multicast() {
            true => &options.multicast_ttl,
            false => &options.ttl,
        };
        self.hops.unwrap_or_else(|| low_byte(usual.load(Relaxed)))
    }

    pub(crate) fn class(self, options: &Options) -> u8 {
        let usual = || low_byte(options.tos.load(Relaxed));
        self.class.unwrap_or_else(usual)
    }

    pub(crate) fn segment(self, options: &Options) -> u16 {
        let usual = || u16::try_from(options.segment.load(Relaxed)).unwrap_or(0);
        self.segment.unwrap_or_else(usual)
    }
}
