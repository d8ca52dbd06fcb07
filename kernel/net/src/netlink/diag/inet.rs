//! TCP and UDP sockets (`linux/inet_diag.h`).

use super::super::reply::Reply;
use super::{EINVAL, ENOENT, SOCK_DIAG_BY_FAMILY, word};
use crate::error::Result;
use crate::socket::Socket;
use crate::socket::diag::{CLOSE, ESTABLISHED, InetFacts, LISTEN};
use crate::stack::NetStack;
use crate::wire::Conn;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

/// Bytes of `struct inet_diag_req_v2`.
const REQUEST: usize = 56;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// Attributes: also the places of their bits, less one, in what is asked for.
const INFO: u16 = 2;
const SHUTDOWN: u16 = 8;
const V6_ONLY: u16 = 11;

/// A request for sockets of one family and protocol.
pub(super) struct Query {
    v6: bool,
    protocol: u8,
    /// Attributes that are wanted besides.
    wanted: u8,
    /// States that are, bit by bit.
    states: u32,
    /// Connections that were told of with their sockets.
    told: Vec<usize>,
}

impl Query {
    pub(super) fn parse(body: &[u8]) -> core::result::Result<Query, i32> {
        let &[family, protocol, wanted, ..] = body else {
            return Err(EINVAL);
        };
        if body.len() < REQUEST {
            return Err(EINVAL);
        }
        if ![TCP, UDP].contains(&protocol) {
            return Err(ENOENT);
        }
        Ok(Query {
            v6: family == super::super::AF_INET6,
            protocol,
            wanted,
            states: word(body, 4).ok_or(EINVAL)?,
            told: Vec::new(),
        })
    }

    fn wants(&self, state: u8) -> bool {
        self.states >> (state & 31) & 1 != 0
    }

    /// Tells of `socket` if it is one of those.
    pub(super) fn tell(&mut self, socket: &Arc<Socket>, out: &mut Reply) -> Result<()> {
        let ours = socket.inet_protocol().is_some_and(|(_, protocol)| {
            socket.is_v6() == self.v6 && protocol == u32::from(self.protocol)
        });
        let Some(facts) = ours.then(|| socket.inet_facts()).flatten() else {
            return Ok(());
        };
        if let Some(conn) = &facts.conn {
            self.told.try_reserve(1)?;
            self.told.push(mark(conn));
        }
        if facts.state == LISTEN && self.wants(ESTABLISHED) {
            self.waiting(socket, out)?;
        }
        if !self.wants(facts.state) {
            return Ok(());
        }
        out.message(SOCK_DIAG_BY_FAMILY, |b| {
            head(b, &facts, socket.number());
            b.attribute(SHUTDOWN, &[facts.shut]);
            if facts.v6 && [LISTEN, CLOSE].contains(&facts.state) {
                b.attribute(V6_ONLY, &[u8::from(facts.v6_only)]);
            }
            if self.protocol == TCP && self.wanted & 1 << (INFO - 1) != 0 {
                b.attribute(INFO, &socket.tcp_facts());
            }
        });
        Ok(())
    }

    /// Tells of the connections that wait to be accepted from a listener.
    fn waiting(&mut self, listener: &Socket, out: &mut Reply) -> Result<()> {
        let mut room = Ok(());
        listener.for_each_waiting(|facts| {
            room = room.and_then(|()| {
                out.room()?;
                self.told.try_reserve(1)?;
                self.told.extend(facts.conn.as_ref().map(mark));
                out.message(SOCK_DIAG_BY_FAMILY, |b| head(b, &facts, 0));
                Ok(())
            });
        });
        room
    }

    /// Tells of at most `most` connections whose sockets are closed, after `skip` of them.
    pub(super) fn orphans(&mut self, stack: &NetStack, skip: usize, most: usize, out: &mut Reply) {
        if self.protocol != TCP {
            return;
        }
        self.told.sort_unstable();
        let mut found = 0;
        stack.node().flows.for_each(|c| {
            let flow = *c.flow();
            let ours = c.stack == stack.id() && flow.local.is_ipv6() == self.v6;
            if !ours || self.told.binary_search(&mark(c)).is_ok() {
                return;
            }
            let info = c.info();
            if !self.wants(info.state) {
                return;
            }
            found += 1;
            if found <= skip || found > skip + most {
                return;
            }
            let facts = InetFacts {
                v6: self.v6,
                state: info.state,
                local: flow.local,
                remote: flow.remote,
                queues: (0, info.unacknowledged),
                v6_only: false,
                shut: 3,
                conn: None,
            };
            out.message(SOCK_DIAG_BY_FAMILY, |b| head(b, &facts, 0));
        });
    }
}

/// What tells a connection from all others.
fn mark(conn: &Arc<Conn>) -> usize {
    Arc::as_ptr(conn).addr()
}

/// `struct inet_diag_msg`.
fn head(b: &mut Reply, facts: &InetFacts, number: u64) {
    let family = if facts.v6 {
        super::super::AF_INET6
    } else {
        super::super::AF_INET
    };
    // No timer.
    b.put(&[family, facts.state, 0, 0]);
    b.put(&facts.local.port().to_be_bytes());
    b.put(&facts.remote.port().to_be_bytes());
    b.put(&octets(facts.local, facts.v6));
    b.put(&octets(facts.remote, facts.v6));
    // Of any interface; a number that is never used again.
    b.put(&0u32.to_ne_bytes());
    b.put(&number.to_ne_bytes());
    let queue = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    // No timer; whose it is, is not kept.
    for n in [0, queue(facts.queues.0), queue(facts.queues.1), 0] {
        b.put(&n.to_ne_bytes());
    }
    b.put(&(number as u32).to_ne_bytes());
}

/// An address in 16 bytes, one of IPv4 in an IPv6 socket as a mapped one.
fn octets(address: SocketAddr, v6: bool) -> [u8; 16] {
    match (address.ip(), v6) {
        (IpAddr::V6(ip), _) => ip.octets(),
        (IpAddr::V4(ip), true) => ip.to_ipv6_mapped().octets(),
        (IpAddr::V4(ip), false) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
    }
}
