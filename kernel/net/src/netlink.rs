//! Netlink sockets: those of routes (rtnetlink(7)), which `getifaddrs` and `ip` ask, and
//! those that tell of sockets (`diag`), which `ss` asks.
//!
//! Links, addresses, routes and neighbours are told, all or the one that is asked for;
//! changes are refused.

mod diag;
mod reply;

use self::diag::{Dump, SOCK_DIAG_BY_FAMILY};
use self::reply::Reply;
use crate::addr::Address;
use crate::error::{Error, Result};
use crate::interfaces::interfaces;
use crate::message::{Message, MessageQueue, Origin};
use crate::options::BUFFER_DEFAULT;
use crate::stack::NetStack;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use machine::sync::Mutex;
use vfs::Events;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_GETNEIGH: u16 = 30;
/// Requests from here to the last of the route family change or read something.
const RTM_BASE: u16 = 16;
const RTM_MAX: u16 = 127;
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
const EBUSY: i32 = 16;
const ENODEV: i32 = 19;
const EINVAL: i32 = 22;
const ENETUNREACH: i32 = 101;
const EOPNOTSUPP: i32 = 95;

/// The state of one netlink socket.
pub struct Netlink {
    queue: MessageQueue,
    port: AtomicU32,
    groups: AtomicU32,
    /// It tells of sockets, not of routes.
    diag: bool,
    /// A dump of sockets, made as it is read.
    dump: Mutex<Option<Dump>>,
    /// Whether there is one, for who must not wait.
    dumping: AtomicBool,
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
    /// A socket with nothing to read: of routes, or with `diag` one that tells of sockets.
    #[must_use]
    pub fn new(stack: &NetStack, diag: bool) -> Netlink {
        Netlink {
            queue: stack.queue(BUFFER_DEFAULT),
            port: AtomicU32::new(0),
            groups: AtomicU32::new(0),
            diag,
            dump: Mutex::new(None),
            dumping: AtomicBool::new(false),
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
        if self.queue.is_empty() && !self.dumping.load(Relaxed) {
            Events::WRITABLE
        } else {
            Events::WRITABLE | Events::READABLE
        }
    }

    /// Takes the next answer without waiting.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`]; no memory.
    pub fn receive(&self, stack: &NetStack, peek: bool) -> Result<Option<Message>> {
        if self.queue.is_empty() && self.dumping.load(Relaxed) {
            self.go_on(stack)?;
        }
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
    /// [`Error::NoBuffers`] if nobody reads the answers.
    pub fn request(&self, stack: &NetStack, mut bytes: &[u8]) -> Result<()> {
        let port = self.port();
        while bytes.len() >= HEADER {
            let word = |at: usize| -> u32 {
                let b = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
                b.map_or(0, u32::from_ne_bytes)
            };
            let len = usize::try_from(word(0)).unwrap_or(0);
            // Linux passes over what is no message: iproute2 sends its whole buffer,
            // zeros behind the request.
            if len < HEADER || len > bytes.len() {
                return Ok(());
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
            let message = bytes.get(..len).unwrap_or_default();
            self.answer(stack, request, message)?;
            bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Ok(())
    }

    /// Queues the next part of a dump.
    fn go_on(&self, stack: &NetStack) -> Result<()> {
        let mut dump = self.dump.lock();
        let Some(d) = dump.as_mut() else {
            return Ok(());
        };
        let (part, last) = d.next(stack)?;
        if last {
            *dump = None;
            self.dumping.store(false, Relaxed);
        }
        self.queue(part)
    }

    /// Answers a request about sockets.
    fn answer_diag(&self, stack: &NetStack, r: Request, message: &[u8]) -> Result<()> {
        let header = message.get(..HEADER).unwrap_or_default();
        let dumps = r.flags & (NLM_F_ROOT | NLM_F_MATCH) != 0;
        if r.kind < RTM_BASE {
            return Ok(());
        }
        if r.kind != SOCK_DIAG_BY_FAMILY || !dumps {
            return self.refuse(r, header, EOPNOTSUPP);
        }
        let mut dump = self.dump.lock();
        if dump.is_some() {
            return self.refuse(r, header, EBUSY);
        }
        match Dump::new(r, message, stack) {
            Ok(new) => {
                *dump = Some(new);
                self.dumping.store(true, Relaxed);
                Ok(())
            }
            Err(error) => self.refuse(r, header, error),
        }
    }

    fn answer(&self, stack: &NetStack, r: Request, message: &[u8]) -> Result<()> {
        if self.diag {
            return self.answer_diag(stack, r, message);
        }
        let header = message.get(..HEADER).unwrap_or_default();
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
            RTM_GETNEIGH if dump => {
                let family = |ip: IpAddr| if ip.is_ipv4() { AF_INET } else { AF_INET6 };
                stack.node().for_each_neighbour(|ip, mac| {
                    if r.family == 0 || r.family == family(ip) {
                        out.neighbour(ip, mac);
                    }
                });
            }
            RTM_GETLINK | RTM_GETROUTE => {
                out.flags = 0;
                let found = match r.kind {
                    RTM_GETLINK => one_link(stack, message, &mut out),
                    _ => one_route(stack, r.family, message, &mut out),
                };
                return match found {
                    Ok(()) => self.queue(out.bytes),
                    Err(error) => self.refuse(r, header, error),
                };
            }
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
        out.flags = 0;
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

    /// Puts `data` into its queue as the kernel's.
    ///
    /// # Errors
    /// [`Error::NoBuffers`] if nobody reads.
    pub fn queue(&self, data: Vec<u8>) -> Result<()> {
        let message = Message {
            data,
            origin: Origin::Peer,
            ..Message::default()
        };
        self.queue.push(message).map_err(|_| Error::NoBuffers)
    }
}

/// The value of an attribute of this kind behind the first `skip` bytes of a message.
fn attribute(message: &[u8], skip: usize, kind: u16) -> Option<&[u8]> {
    let mut rest = message.get(skip..)?;
    while let &[l0, l1, k0, k1, ..] = rest {
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        // The highest bits say how the value is to be read.
        let found = u16::from_ne_bytes([k0, k1]) & 0x3fff;
        let value = rest.get(4..len)?;
        if found == kind {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

/// The link that a request names by number or by name.
fn one_link(stack: &NetStack, message: &[u8], out: &mut Reply) -> core::result::Result<(), i32> {
    let index = message.get(HEADER + 4..HEADER + 8);
    let index = index
        .and_then(|b| b.try_into().ok())
        .map(u32::from_ne_bytes);
    let name = attribute(message, HEADER + 16, 3); // IFLA_IFNAME
    let name = name.and_then(|n| n.split(|b| *b == 0).next());
    let all = interfaces(stack);
    let found = all.iter().find(|i| match index {
        Some(0) | None => name == Some(i.name.as_bytes()),
        Some(index) => i.index == index,
    });
    out.link(found.ok_or(ENODEV)?);
    Ok(())
}

/// The route to the address that a request names.
fn one_route(
    stack: &NetStack,
    family: u8,
    message: &[u8],
    out: &mut Reply,
) -> core::result::Result<(), i32> {
    let to = attribute(message, HEADER + 12, 1).ok_or(EINVAL)?; // RTA_DST
    let to = match family {
        AF_INET => to
            .first_chunk::<4>()
            .map(|b| IpAddr::from(Ipv4Addr::from(*b))),
        AF_INET6 => to
            .first_chunk::<16>()
            .map(|b| IpAddr::from(Ipv6Addr::from(*b))),
        _ => None,
    };
    let to = to.ok_or(EINVAL)?;
    let route = stack.route(to).map_err(|_| ENETUNREACH)?;
    let hop = stack.node().with_config(|c| c.next_hop(to));
    let via = hop.filter(|hop| *hop != to && matches!(route, crate::stack::Route::Wire { .. }));
    out.route_to(to, route, via);
    Ok(())
}
