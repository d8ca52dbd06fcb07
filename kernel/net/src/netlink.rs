//! Netlink route sockets (rtnetlink(7)): what `getifaddrs` and `ip` ask for.
//!
//! Dumps of links, addresses and routes are answered; changes are refused.

use crate::addr::Address;
use crate::error::{Error, Result};
use crate::interfaces::{Interface, interfaces};
use crate::message::{Message, MessageQueue, Origin};
use crate::options::BUFFER_DEFAULT;
use crate::stack::NetStack;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use vfs::Events;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
/// Requests from here to the last of the route family change or read something.
const RTM_BASE: u16 = 16;
const RTM_MAX: u16 = 127;
const NLM_F_MULTI: u16 = 2;
const NLM_F_ACK: u16 = 4;
const NLM_F_ROOT: u16 = 0x100;
const NLM_F_MATCH: u16 = 0x200;
/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Most bytes in one datagram of a dump; glibc reads with 4 KiB or more.
const PART_MAX: usize = 3072;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const EPERM: i32 = 1;
const EOPNOTSUPP: i32 = 95;

/// The state of one netlink socket.
pub struct Netlink {
    queue: MessageQueue,
    port: AtomicU32,
    groups: AtomicU32,
}

/// A request's header.
#[derive(Clone, Copy)]
struct Request {
    kind: u16,
    flags: u16,
    sequence: u32,
    /// Address family asked for, 0 for all.
    family: u8,
    port: u32,
}

impl Netlink {
    /// A socket with nothing to read.
    #[must_use]
    pub fn new(stack: &NetStack) -> Netlink {
        Netlink {
            queue: stack.queue(BUFFER_DEFAULT),
            port: AtomicU32::new(0),
            groups: AtomicU32::new(0),
        }
    }

    /// `bind(2)`; port 0 asks for any.
    ///
    /// # Errors
    /// None today.
    pub fn bind(&self, port: u32, groups: u32) -> Result<()> {
        self.groups.store(groups, Relaxed);
        if port != 0 {
            self.port.store(port, Relaxed);
        }
        self.port();
        Ok(())
    }

    fn port(&self) -> u32 {
        static NEXT: AtomicU32 = AtomicU32::new(0x8000_0001);
        if self.port.load(Relaxed) == 0 {
            self.port.store(NEXT.fetch_add(1, Relaxed), Relaxed);
        }
        self.port.load(Relaxed)
    }

    /// Its own address.
    #[must_use]
    pub fn local(&self) -> Address {
        Address::Netlink {
            port: self.port(),
            groups: self.groups.load(Relaxed),
        }
    }

    /// Readiness.
    #[must_use]
    pub fn poll(&self) -> Events {
        if self.queue.is_empty() {
            Events::WRITABLE
        } else {
            Events::WRITABLE | Events::READABLE
        }
    }

    /// Takes the next answer without waiting.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`].
    pub fn receive(&self, peek: bool) -> Result<Option<Message>> {
        if peek {
            return self.queue.peek().map(Some);
        }
        self.queue.pop().map(Some).ok_or(Error::WOULD_BLOCK)
    }

    /// Bytes of the next answer.
    #[must_use]
    pub fn first_len(&self) -> usize {
        self.queue.first_len()
    }

    /// Answers the requests in `bytes`.
    ///
    /// # Errors
    /// [`Error::INVALID`] for a malformed request, [`Error::NoBuffers`] if nobody
    /// reads the answers.
    pub fn request(&self, stack: &NetStack, mut bytes: &[u8]) -> Result<()> {
        let port = self.port();
        while bytes.len() >= HEADER {
            let word = |at: usize| -> u32 {
                let b = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
                b.map_or(0, u32::from_ne_bytes)
            };
            let len = usize::try_from(word(0)).unwrap_or(0);
            if len < HEADER || len > bytes.len() {
                return Err(Error::INVALID);
            }
            let request = Request {
                kind: (word(4) & 0xffff) as u16,
                flags: (word(4) >> 16) as u16,
                sequence: word(8),
                family: bytes
                    .get(HEADER)
                    .copied()
                    .filter(|_| len > HEADER)
                    .unwrap_or(0),
                port,
            };
            let header = bytes.get(..HEADER).unwrap_or_default();
            self.answer(stack, request, header)?;
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Ok(())
    }

    fn answer(&self, stack: &NetStack, r: Request, header: &[u8]) -> Result<()> {
        if !(RTM_BASE..=RTM_MAX).contains(&r.kind) {
            return Ok(());
        }
        let dump = r.flags & (NLM_F_ROOT | NLM_F_MATCH) != 0;
        let mut out = Reply::new(r);
        match r.kind {
            RTM_GETLINK if dump => {
                for i in interfaces(stack) {
                    out.link(&i);
                    self.flush(&mut out)?;
                }
            }
            RTM_GETADDR if dump => {
                for i in interfaces(stack) {
                    out.addresses(&i);
                    self.flush(&mut out)?;
                }
            }
            RTM_GETROUTE if dump => out.routes(stack),
            kind => {
                let get = kind % 4 == 2;
                return self.refuse(r, header, if get { EOPNOTSUPP } else { EPERM });
            }
        }
        out.message(NLMSG_DONE, |b| b.put(&0i32.to_ne_bytes()));
        self.queue(out.bytes)?;
        if r.flags & NLM_F_ACK != 0 && !dump {
            self.refuse(r, header, 0)?;
        }
        Ok(())
    }

    fn refuse(&self, r: Request, header: &[u8], error: i32) -> Result<()> {
        let mut out = Reply::new(Request { flags: 0, ..r });
        out.multi = 0;
        out.message(NLMSG_ERROR, |b| {
            b.put(&(-error).to_ne_bytes());
            b.put(header);
        });
        self.queue(out.bytes)
    }

    /// Sends what has gathered once it is enough for a datagram.
    fn flush(&self, out: &mut Reply) -> Result<()> {
        if out.bytes.len() >= PART_MAX {
            self.queue(core::mem::take(&mut out.bytes))?;
        }
        Ok(())
    }

    fn queue(&self, data: Vec<u8>) -> Result<()> {
        let message = Message {
            data,
            origin: Origin::Peer,
            note: None,
        };
        self.queue.push(message).map_err(|_| Error::NoBuffers)
    }
}

/// Messages of an answer under construction.
struct Reply {
    request: Request,
    multi: u16,
    bytes: Vec<u8>,
}

impl Reply {
    fn new(request: Request) -> Reply {
        Reply {
            request,
            multi: NLM_F_MULTI,
            bytes: Vec::new(),
        }
    }

    fn put(&mut self, b: &[u8]) {
        self.bytes.extend_from_slice(b);
    }

    /// One message; its length is filled in when `f` has written its body.
    fn message(&mut self, kind: u16, f: impl FnOnce(&mut Reply)) {
        let start = self.bytes.len();
        let (multi, r) = (self.multi, self.request);
        self.put(&[0; 4]);
        self.put(&kind.to_ne_bytes());
        self.put(&multi.to_ne_bytes());
        self.put(&r.sequence.to_ne_bytes());
        self.put(&r.port.to_ne_bytes());
        f(self);
        let len = u32::try_from(self.bytes.len() - start).unwrap_or(0);
        let head = self.bytes.iter_mut().skip(start);
        for (to, from) in head.zip(len.to_ne_bytes()) {
            *to = from;
        }
        self.pad();
    }

    fn pad(&mut self) {
        let len = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(len, 0);
    }

    /// One attribute (`struct rtattr`).
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(4 + value.len()).unwrap_or(4);
        self.put(&len.to_ne_bytes());
        self.put(&kind.to_ne_bytes());
        self.put(value);
        self.pad();
    }

    /// `struct ifinfomsg` and its attributes.
    fn link(&mut self, i: &Interface) {
        self.message(RTM_NEWLINK, |b| {
            b.put(&[0, 0]);
            b.put(&i.hardware.to_ne_bytes());
            b.put(&i.index.to_ne_bytes());
            b.put(&i.flags.to_ne_bytes());
            b.put(&[0; 4]);
            let mut name: Vec<u8> = i.name.into();
            name.push(0);
            b.attribute(3, &name); // IFLA_IFNAME
            b.attribute(1, &i.mac); // IFLA_ADDRESS
            let broadcast = if i.index == 1 { [0; 6] } else { [0xff; 6] };
            b.attribute(2, &broadcast); // IFLA_BROADCAST
            let mtu = u32::try_from(i.mtu).unwrap_or(u32::MAX);
            b.attribute(4, &mtu.to_ne_bytes()); // IFLA_MTU
            b.attribute(13, &1000u32.to_ne_bytes()); // IFLA_TXQLEN
            let up = i.flags & 0x40 != 0;
            b.attribute(16, &[if up { 6 } else { 2 }]); // IFLA_OPERSTATE
        });
    }

    /// A `struct ifaddrmsg` with its attributes for each address.
    fn addresses(&mut self, i: &Interface) {
        let family = self.request.family;
        if let Some((ip, prefix)) = i.v4.filter(|_| family != AF_INET6) {
            self.message(RTM_NEWADDR, |b| {
                let scope = if i.index == 1 { 254 } else { 0 };
                b.put(&[AF_INET, prefix, 0x80, scope]);
                b.put(&i.index.to_ne_bytes());
                b.attribute(1, &ip.octets()); // IFA_ADDRESS
                b.attribute(2, &ip.octets()); // IFA_LOCAL
                let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
                if i.index != 1 {
                    let broadcast = u32::from(ip) | host;
                    b.attribute(4, &broadcast.to_be_bytes()); // IFA_BROADCAST
                }
                let mut label: Vec<u8> = i.name.into();
                label.push(0);
                b.attribute(3, &label); // IFA_LABEL
            });
        }
        for (ip, prefix) in i.v6.iter().filter(|_| family != AF_INET) {
            self.message(RTM_NEWADDR, |b| {
                let scope = if ip.is_loopback() {
                    254
                } else if ip.is_unicast_link_local() {
                    253
                } else {
                    0
                };
                b.put(&[AF_INET6, *prefix, 0x80, scope]);
                b.put(&i.index.to_ne_bytes());
                b.attribute(1, &ip.octets());
            });
        }
    }

    /// A `struct rtmsg` with its attributes for each route.
    fn routes(&mut self, stack: &NetStack) {
        let config = stack.node().config();
        if self.request.family != AF_INET6 {
            if let Some(net) = config.v4 {
                let network = IpAddr::V4(net.network().address());
                self.route(network, net.prefix_len(), None, Some(net.address().into()));
            }
            if let Some(gateway) = config.gateway {
                let any = IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);
                self.route(any, 0, Some(gateway.into()), None);
            }
        }
        if self.request.family != AF_INET {
            for net in &config.v6 {
                let bits = u128::MAX
                    .checked_shl(128 - u32::from(net.prefix_len()))
                    .unwrap_or(0);
                let network = core::net::Ipv6Addr::from(u128::from(net.address()) & bits);
                self.route(network.into(), net.prefix_len(), None, None);
            }
            if let Some(gateway) = config.gateway6 {
                let any = IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED);
                self.route(any, 0, Some(gateway.into()), None);
            }
        }
    }

    fn route(&mut self, to: IpAddr, prefix: u8, via: Option<IpAddr>, source: Option<IpAddr>) {
        fn bytes(ip: IpAddr) -> Vec<u8> {
            match ip {
                IpAddr::V4(ip) => ip.octets().into(),
                IpAddr::V6(ip) => ip.octets().into(),
            }
        }
        self.message(RTM_NEWROUTE, |b| {
            let family = if to.is_ipv4() { AF_INET } else { AF_INET6 };
            let scope = if via.is_some() { 0 } else { 253 };
            // Main table, made by the kernel, an ordinary route.
            b.put(&[family, prefix, 0, 0, 254, 2, scope, 1]);
            b.put(&[0; 4]);
            b.attribute(15, &254u32.to_ne_bytes()); // RTA_TABLE
            if prefix > 0 {
                b.attribute(1, &bytes(to)); // RTA_DST
            }
            if let Some(via) = via {
                b.attribute(5, &bytes(via)); // RTA_GATEWAY
            }
            if let Some(source) = source {
                b.attribute(7, &bytes(source)); // RTA_PREFSRC
            }
            b.attribute(4, &2u32.to_ne_bytes()); // RTA_OIF
        });
    }
}
