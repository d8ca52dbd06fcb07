//! The socket: one object behind a descriptor, whatever its family.

pub(crate) mod diag;
mod groups;
mod ioctl;
mod ops;
mod sockopt;
mod tcp_info;
mod transfer;

pub use transfer::{MsgFlags, Outgoing, Received};

use crate::addr::{AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, Address, UnixName};
use crate::ancillary::Identity;
use crate::error::{Error, Result};
use crate::netlink::Netlink;
use crate::options::{Options, Switch};
use crate::packet::Packet;
use crate::raw::{self, Raw};
use crate::stack::{NetStack, Seat};
use crate::tcp::{TCP_BUFFER, Tcp};
use crate::udp::Udp;
use crate::unix::{Style, Unix};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use machine::time::Instant;
use machine::wait::Until;
use vfs::{Events, PollHub};

/// `SOCK_STREAM`.
pub const SOCK_STREAM: u32 = 1;
/// `SOCK_DGRAM`.
pub const SOCK_DGRAM: u32 = 2;
/// `SOCK_RAW`.
pub const SOCK_RAW: u32 = 3;
/// `SOCK_SEQPACKET`.
pub const SOCK_SEQPACKET: u32 = 5;

const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_ICMP: u32 = 1;
const IPPROTO_ICMPV6: u32 = 58;
const NETLINK_ROUTE: u32 = 0;
const NETLINK_SOCK_DIAG: u32 = 4;

enum Kind {
    Tcp(Tcp),
    Udp(Udp),
    Raw(Raw),
    Packet(Packet),
    Unix(Unix),
    Netlink(Netlink),
}

/// A socket.
pub struct Socket {
    kind: Kind,
    family: u16,
    /// `SOCK_*`.
    style: u32,
    /// `IPPROTO_*`.
    protocol: u32,
    hub: Arc<PollHub>,
    options: Arc<Options>,
    stack: Arc<NetStack>,
    /// Its inode number, as `/proc` and `fstat` tell it.
    number: u64,
    /// Where the stack has it.
    place: usize,
    _seat: Seat,
}

fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(10_000);
    NEXT.fetch_add(1, Relaxed)
}

impl Socket {
    fn build(
        stack: &Arc<NetStack>,
        (family, style, protocol): (u16, u32, u32),
        hub: Arc<PollHub>,
        options: Arc<Options>,
        kind: Kind,
    ) -> Result<Arc<Socket>> {
        let seat = stack.sit()?;
        let place = stack.registry().place()?;
        let socket = Arc::new(Socket {
            kind,
            family,
            style,
            protocol,
            hub,
            options,
            stack: stack.clone(),
            number: number(),
            place,
            _seat: seat,
        });
        stack.registry().add(place, &socket);
        Ok(socket)
    }

    /// Whether it is one of AF_NETLINK.
    #[must_use]
    pub fn is_netlink(&self) -> bool {
        matches!(self.kind, Kind::Netlink(_))
    }

    /// Gives a netlink socket something of the kernel's to read.
    ///
    /// # Errors
    /// [`Error::INVALID`] for another socket; [`Error::NoBuffers`].
    pub fn deliver_netlink(&self, data: &[u8]) -> Result<()> {
        let Kind::Netlink(n) = &self.kind else {
            return Err(Error::INVALID);
        };
        let mut own = alloc::vec::Vec::new();
        own.try_reserve_exact(data.len())
            .map_err(|_| Error::NoBuffers)?;
        own.extend_from_slice(data);
        n.queue(own)?;
        self.hub.notify(Events::READABLE);
        Ok(())
    }

    /// A new socket (socket(2)); `style` is `SOCK_*` without flags.
    ///
    /// # Errors
    /// [`Error::NoFamily`], [`Error::NoSocketType`], [`Error::NoProtocol`],
    /// [`Error::NOT_PERMITTED`] for raw sockets, [`Error::NoBuffers`] at the
    /// capsule's limit.
    pub fn new(
        stack: &Arc<NetStack>,
        family: u32,
        style: u32,
        protocol: u32,
    ) -> Result<Arc<Socket>> {
        let hub = Arc::new(PollHub::new());
        let options = Arc::new(Options::default());
        let family = u16::try_from(family).map_err(|_| Error::NoFamily)?;
        let (kind, protocol) = match family {
            AF_UNIX => {
                if protocol > 1 {
                    return Err(Error::NoProtocol);
                }
                (Kind::Unix(Unix::new(unix_style(style)?, stack, &hub)), 0)
            }
            AF_INET | AF_INET6 => {
                let v6 = family == AF_INET6;
                match (style, protocol) {
                    (SOCK_STREAM, 0 | IPPROTO_TCP) => {
                        options.send_buffer.store(TCP_BUFFER, Relaxed);
                        options.receive_buffer.store(TCP_BUFFER, Relaxed);
                        (Kind::Tcp(Tcp::new(v6)), IPPROTO_TCP)
                    }
                    (SOCK_DGRAM, 0 | IPPROTO_UDP) => {
                        let udp = Udp::new(v6, stack, &hub, &options);
                        (Kind::Udp(udp), IPPROTO_UDP)
                    }
                    (SOCK_DGRAM, IPPROTO_ICMP) if !v6 => {
                        let raw = Raw::new((v6, raw::ICMP, true), stack, &hub, &options)?;
                        (Kind::Raw(raw), protocol)
                    }
                    (SOCK_DGRAM, IPPROTO_ICMPV6) if v6 => {
                        let raw = Raw::new((v6, raw::ICMPV6, true), stack, &hub, &options)?;
                        (Kind::Raw(raw), protocol)
                    }
                    // A raw socket is for one protocol.
                    (SOCK_RAW, 1..) if !stack.may_be_raw() => return Err(Error::NOT_PERMITTED),
                    (SOCK_RAW, 1..=255) => {
                        let number = u8::try_from(protocol).map_err(|_| Error::NoProtocol)?;
                        let raw = Raw::new((v6, number, false), stack, &hub, &options)?;
                        (Kind::Raw(raw), protocol)
                    }
                    (SOCK_RAW, _) if protocol > 255 => return Err(Error::INVALID),
                    (SOCK_RAW | SOCK_STREAM | SOCK_DGRAM, _) => return Err(Error::NoProtocol),
                    _ => return Err(Error::NoSocketType),
                }
            }
            AF_PACKET if !stack.may_be_raw() => return Err(Error::NOT_PERMITTED),
            AF_PACKET => {
                let cooked = match style {
                    SOCK_RAW => false,
                    SOCK_DGRAM => true,
                    _ => return Err(Error::NoSocketType),
                };
                // A number of the network's order in the host's.
                let kind = u16::try_from(protocol).map_err(|_| Error::INVALID)?;
                let kind = u16::from_be(kind);
                let packet = Packet::new(cooked, kind, stack, &hub, &options)?;
                (Kind::Packet(packet), protocol)
            }
            AF_NETLINK => match (style, protocol) {
                (SOCK_DGRAM | SOCK_RAW, NETLINK_ROUTE | NETLINK_SOCK_DIAG) => {
                    let diag = protocol == NETLINK_SOCK_DIAG;
                    (Kind::Netlink(Netlink::new(stack, diag)), protocol)
                }
                (SOCK_DGRAM | SOCK_RAW, _) => return Err(Error::NoProtocol),
                _ => return Err(Error::NoSocketType),
            },
            _ => return Err(Error::NoFamily),
        };
        // Linux takes SOCK_RAW for SOCK_DGRAM on unix sockets.
        let style = match (family, style) {
            (AF_UNIX, SOCK_RAW) => SOCK_DGRAM,
            (_, s) => s,
        };
        Socket::build(stack, (family, style, protocol), hub, options, kind)
    }

    /// Whether such a socket is for programs that may use the network raw
    /// (`CAP_NET_RAW`).
    #[must_use]
    pub fn needs_raw(family: u32, style: u32) -> bool {
        let inet = [AF_INET, AF_INET6].map(u32::from).contains(&family);
        family == u32::from(AF_PACKET) || inet && style == SOCK_RAW
    }

    /// Two connected sockets (socketpair(2)).
    ///
    /// # Errors
    /// [`Error::NotSupported`] for other families than `AF_UNIX`, and as
    /// [`Socket::new`].
    pub fn pair(
        stack: &Arc<NetStack>,
        family: u32,
        style: u32,
        protocol: u32,
        who: Identity,
    ) -> Result<[Arc<Socket>; 2]> {
        if family != u32::from(AF_UNIX) {
            // As Linux: the family is known, but has no pairs.
            Socket::new(stack, family, style, protocol)?;
            return Err(Error::NotSupported);
        }
        if protocol > 1 {
            return Err(Error::NoProtocol);
        }
        let unix = unix_style(style)?;
        let style = if style == SOCK_RAW { SOCK_DGRAM } else { style };
        let [a, b] = Unix::pair(unix, stack, who).map(|(unix, hub)| {
            Socket::build(
                stack,
                (AF_UNIX, style, 0),
                hub,
                Arc::new(Options::default()),
                Kind::Unix(unix),
            )
        });
        Ok([a?, b?])
    }

    /// Its unix side, if it is one.
    pub(crate) fn as_unix(&self) -> Option<&Unix> {
        match &self.kind {
            Kind::Unix(u) => Some(u),
            _ => None,
        }
    }

    /// The network it belongs to.
    #[must_use]
    pub fn stack(&self) -> &Arc<NetStack> {
        &self.stack
    }

    /// `AF_*`.
    #[must_use]
    pub fn family(&self) -> u16 {
        self.family
    }

    /// `SOCK_*`.
    #[must_use]
    pub fn style(&self) -> u32 {
        self.style
    }

    /// Whether addresses appear as IPv6 addresses (see [`Address::to_raw`]).
    #[must_use]
    pub fn is_v6(&self) -> bool {
        self.family == AF_INET6
    }

    /// Whether it speaks TCP.
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        matches!(self.kind, Kind::Tcp(_))
    }

    /// Whether it speaks UDP.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        matches!(self.kind, Kind::Udp(_))
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Gives it an address (bind(2)). A unix path has been made a socket file, and
    /// its key is in the name.
    ///
    /// # Errors
    /// [`Error::INVALID`] if it has one or the address is of another family,
    /// [`Error::AddressInUse`], [`Error::AddressNotAvailable`].
    pub fn bind(&self, address: Address) -> Result<()> {
        match (&self.kind, address) {
            (Kind::Tcp(t), Address::Inet(a)) => t.bind(&self.stack, &self.options, a),
            (Kind::Udp(u), Address::Inet(a)) => u.bind(&self.stack, &self.options, a),
            (Kind::Raw(r), Address::Inet(a)) => r.bind(&self.stack, &self.options, a),
            (Kind::Packet(p), Address::Hardware(to)) => p.bind(&self.stack, &to),
            (Kind::Unix(u), Address::Unix(name)) => u.bind(&self.stack, name),
            (Kind::Netlink(n), Address::Netlink { port, groups }) => n.bind(port, groups),
            (
                Kind::Tcp(_) | Kind::Udp(_) | Kind::Raw(_),
                Address::Unix(_) | Address::Netlink { .. } | Address::Hardware(_),
            ) => Err(Error::NoFamily),
            _ => Err(Error::INVALID),
        }
    }

    /// Lets others connect to it (listen(2)).
    ///
    /// # Errors
    /// [`Error::NotSupported`] for datagrams, [`Error::INVALID`],
    /// [`Error::AddressInUse`].
    pub fn listen(&self, backlog: i32, who: Identity) -> Result<()> {
        // A negative backlog is a huge one, as on Linux.
        let backlog = usize::try_from(backlog).unwrap_or(usize::MAX);
        match &self.kind {
            Kind::Tcp(t) => t.listen(&self.stack, &self.hub, &self.options, backlog),
            Kind::Unix(u) => u.listen(&self.hub, backlog, who),
            Kind::Udp(_) | Kind::Raw(_) | Kind::Packet(_) | Kind::Netlink(_) => {
                Err(Error::NotSupported)
            }
        }
    }

    /// Takes the next connection (accept(2)), waiting for one unless
    /// `nonblocking`; the new socket and the address of the other side.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`], [`Error::INVALID`] if it does not listen,
    /// [`Error::NotSupported`] for datagrams; `Interrupted`.
    pub fn accept(&self, nonblocking: bool) -> Result<(Arc<Socket>, Address)> {
        let until = self.receive_until();
        loop {
            match self.try_accept() {
                Err(Error::WOULD_BLOCK) if !nonblocking => {}
                other => return other,
            }
            let ready = || match &self.kind {
                Kind::Tcp(t) => t.may_accept().then_some(()),
                Kind::Unix(u) => u.may_accept().then_some(()),
                _ => Some(()),
            };
            self.wait(true, until, ready)?;
        }
    }

    fn try_accept(&self) -> Result<(Arc<Socket>, Address)> {
        let what = (self.family, self.style, self.protocol);
        match &self.kind {
            Kind::Tcp(t) => {
                let link = t.accept()?;
                let hub = link.endpoint.hub().clone();
                let remote = Address::Inet(link.remote);
                let tcp = Tcp::accepted(self.is_v6(), link);
                let options = Arc::new(self.options.inherit());
                let s = Socket::build(&self.stack, what, hub, options, Kind::Tcp(tcp))?;
                Ok((s, remote))
            }
            Kind::Unix(u) => {
                let new = u.accept()?;
                let options = Arc::new(Options::default());
                options.switch(Switch::PassCred, self.options.on(Switch::PassCred));
                let kind = Kind::Unix(new.unix);
                let s = Socket::build(&self.stack, what, new.hub, options, kind)?;
                Ok((s, Address::Unix(new.peer)))
            }
            Kind::Udp(_) | Kind::Raw(_) | Kind::Packet(_) | Kind::Netlink(_) => {
                Err(Error::NotSupported)
            }
        }
    }

    /// Connects it (connect(2)).
    ///
    /// # Errors
    /// [`Error::InProgress`] if it may not wait; [`Error::Refused`] and the others
    /// of connect(2).
    pub fn connect(&self, address: &Address, who: Identity, nonblocking: bool) -> Result<()> {
        match (&self.kind, address) {
            (Kind::Tcp(t), Address::Inet(a)) => {
                t.connect(&self.stack, &self.hub, &self.options, *a, nonblocking)
            }
            (Kind::Tcp(t), Address::Unspecified) => {
                t.disconnect();
                Ok(())
            }
            (Kind::Udp(u), Address::Inet(a)) => u.connect(&self.stack, &self.options, Some(*a)),
            (Kind::Udp(u), Address::Unspecified) => u.connect(&self.stack, &self.options, None),
            (Kind::Raw(r), Address::Inet(a)) => r.connect(&self.stack, &self.options, Some(*a)),
            (Kind::Raw(r), Address::Unspecified) => r.connect(&self.stack, &self.options, None),
            (Kind::Unix(u), Address::Unix(name)) => u.connect(
                &self.stack,
                &self.hub,
                name,
                who,
                &self.options,
                nonblocking,
            ),
            (Kind::Unix(u), Address::Unspecified) if u.style() == Style::Datagrams => {
                u.disconnect();
                Ok(())
            }
            (Kind::Netlink(_), Address::Netlink { .. }) => Ok(()),
            (Kind::Tcp(_) | Kind::Udp(_) | Kind::Raw(_), _) => Err(Error::NoFamily),
            (Kind::Packet(_), _) => Err(Error::NotSupported),
            _ => Err(Error::INVALID),
        }
    }

    /// Its own address (getsockname(2)).
    #[must_use]
    pub fn local(&self) -> Address {
        match &self.kind {
            Kind::Tcp(t) => Address::Inet(t.local()),
            Kind::Udp(u) => Address::Inet(u.local()),
            Kind::Raw(r) => Address::Inet(r.local()),
            Kind::Packet(p) => p.local(&self.stack),
            Kind::Unix(u) => Address::Unix(u.local_name()),
            Kind::Netlink(n) => n.local(),
        }
    }

    /// The address of the other side (getpeername(2)).
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn remote(&self) -> Result<Address> {
        match &self.kind {
            Kind::Tcp(t) => t.remote().map(Address::Inet),
            Kind::Udp(u) => u.remote().map(Address::Inet),
            Kind::Raw(r) => r.remote().map(Address::Inet),
            Kind::Packet(_) => Err(Error::NotSupported),
            Kind::Unix(u) => u.peer_name().map(Address::Unix),
            Kind::Netlink(_) => Ok(Address::Netlink { port: 0, groups: 0 }),
        }
    }

    /// Ends reading, writing, or both (shutdown(2)).
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        match &self.kind {
            Kind::Tcp(t) => t.shutdown(read, write),
            Kind::Udp(u) => u.shutdown(read, write),
            Kind::Raw(r) => r.shutdown(read, write),
            Kind::Unix(u) => u.shutdown(read, write),
            Kind::Packet(_) | Kind::Netlink(_) => Err(Error::NotSupported),
        }
    }

    /// Whether a unix path given to `connect` or `sendto` must be looked up
    /// first.
    #[must_use]
    pub fn needs_path(&self, address: &Address) -> bool {
        self.family == AF_UNIX && matches!(address, Address::Unix(UnixName::Path(_, None)))
    }

    /// Readiness.
    #[must_use]
    pub fn readiness(&self) -> Events {
        match &self.kind {
            Kind::Tcp(t) => t.poll(),
            Kind::Udp(u) => u.poll(),
            Kind::Raw(r) => r.poll(),
            Kind::Packet(p) => p.poll(),
            Kind::Unix(u) => u.poll(),
            Kind::Netlink(n) => n.poll(),
        }
    }

    /// When a receive gives up (`SO_RCVTIMEO`).
    fn receive_until(&self) -> Until {
        let limit = Options::timeout(&self.options.receive_timeout);
        Until::deadline(limit.map(|t| Instant::now().after(t)))
    }

    /// When a send gives up (`SO_SNDTIMEO`).
    fn send_until(&self) -> Until {
        let limit = Options::timeout(&self.options.send_timeout);
        Until::deadline(limit.map(|t| Instant::now().after(t)))
    }

    /// Sleeps until `ready`; a socket's time-out is `EAGAIN`.
    fn wait(&self, reading: bool, until: Until, ready: impl FnMut() -> Option<()>) -> Result<()> {
        let r = if reading {
            self.hub.wait_readable(until, ready)
        } else {
            self.hub.wait_writable(until, ready)
        };
        match r {
            Err(vfs::Error::TimedOut) => Err(Error::WOULD_BLOCK),
            other => Ok(other?),
        }
    }
}

fn unix_style(style: u32) -> Result<Style> {
    match style {
        SOCK_STREAM => Ok(Style::Stream),
        SOCK_SEQPACKET => Ok(Style::Packets),
        SOCK_DGRAM | SOCK_RAW => Ok(Style::Datagrams),
        _ => Err(Error::NoSocketType),
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.stack.registry().remove(self.place);
        match &self.kind {
            Kind::Tcp(t) => t.close(&self.options),
            Kind::Udp(u) => u.close(&self.stack),
            Kind::Raw(r) => r.close(&self.stack),
            Kind::Packet(p) => p.close(&self.stack),
            Kind::Unix(_) | Kind::Netlink(_) => {}
        }
    }
}
