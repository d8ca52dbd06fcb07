//! What sock_diag(7) tells of a socket.

use super::{Kind, Socket};
use crate::addr::{AF_INET, AF_INET6, Address, UnixName};
use crate::options::Switch;
use crate::stream::{Channel, Endpoint};
use crate::wire::Conn;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// Numbers of `enum` in `net/tcp_states.h`, which other families use as well.
pub(crate) const ESTABLISHED: u8 = 1;
pub(crate) const SYN_SENT: u8 = 2;
pub(crate) const CLOSE: u8 = 7;
pub(crate) const LISTEN: u8 = 10;

/// What waits: to be read and to be sent; of a listener, connections and how many there may
/// be.
pub(crate) type Queues = (usize, usize);

/// A TCP or UDP socket.
pub(crate) struct InetFacts {
    pub(crate) v6: bool,
    pub(crate) state: u8,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) queues: Queues,
    /// Whether it is for IPv6 alone.
    pub(crate) v6_only: bool,
    /// What it has shut: 1 to read, 2 to write.
    pub(crate) shut: u8,
    /// The engine's side, if it has one.
    pub(crate) conn: Option<Arc<Conn>>,
}

/// A unix socket.
pub(crate) struct UnixFacts {
    /// `SOCK_*`
    pub(crate) style: u8,
    pub(crate) state: u8,
    pub(crate) name: UnixName,
    pub(crate) queues: Queues,
    /// Marks of the queue that it reads and of the one that it writes to; 0 for none.
    pub(crate) marks: (usize, usize),
    /// What it has shut: 1 to read, 2 to write.
    pub(crate) shut: u8,
}

/// What one side of a connection has shut, or the other has for it.
pub(crate) fn shut_bits<C: Channel>(e: &Endpoint<C>) -> u8 {
    u8::from(e.is_read_closed()) | u8::from(e.is_write_shut()) << 1
}

impl Socket {
    /// Its inode number.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// The protocol of the internet family, if it is of that.
    pub(crate) fn inet_protocol(&self) -> Option<(u16, u32)> {
        let inet = matches!(self.kind, Kind::Tcp(_) | Kind::Udp(_));
        let known = inet && [AF_INET, AF_INET6].contains(&self.family);
        known.then_some((self.family, self.protocol))
    }

    /// Facts of a TCP or UDP socket that has an address.
    pub(crate) fn inet_facts(&self) -> Option<InetFacts> {
        let waits = (self.readable(), self.unsent());
        let (state, queues, conn) = match &self.kind {
            Kind::Tcp(t) => match (t.backlog(), t.attempted()) {
                (Some((most, waiting)), _) => (LISTEN, (waiting, most), None),
                (None, Some(conn)) => (SYN_SENT, waits, conn),
                (None, None) => {
                    let conn = t.link().ok()?.conn.clone();
                    let state = conn.as_ref().map_or(t.state(), |c| c.info().state);
                    // What is in nobody's hands but the other side's queue is sent.
                    let unsent = if conn.is_some() { waits.1 } else { 0 };
                    (state, (waits.0, unsent), conn)
                }
            },
            Kind::Udp(u) if u.local().port() != 0 => {
                let state = u.remote().map_or(CLOSE, |_| ESTABLISHED);
                (state, (u.queue().bytes(), 0), None)
            }
            _ => return None,
        };
        let closed = matches!(self.kind, Kind::Tcp(_)) && state == CLOSE;
        let nobody = SocketAddr::new(crate::addr::any(self.is_v6()), 0);
        let Address::Inet(local) = self.local() else {
            return None;
        };
        let remote = match self.remote() {
            Ok(Address::Inet(a)) => a,
            _ => nobody,
        };
        (!closed).then_some(InetFacts {
            v6: self.is_v6(),
            state,
            local,
            remote,
            queues,
            // One that is bound to an address of IPv6 is, for Linux.
            v6_only: self.options.on(Switch::V6Only)
                || local.is_ipv6() && !local.ip().is_unspecified(),
            shut: self.inet_shut(),
            conn,
        })
    }

    fn inet_shut(&self) -> u8 {
        match &self.kind {
            Kind::Tcp(t) => t.link().map_or(0, |l| shut_bits(&l.endpoint)),
            _ => 0,
        }
    }

    /// Shows `f` the connections that wait to be accepted from a TCP listener.
    pub(crate) fn for_each_waiting(&self, mut f: impl FnMut(InetFacts)) {
        if let Kind::Tcp(t) = &self.kind {
            t.for_each_waiting(|l| {
                f(InetFacts {
                    v6: self.is_v6(),
                    state: ESTABLISHED,
                    local: l.local,
                    remote: l.remote,
                    queues: (l.endpoint.incoming().len(), 0),
                    v6_only: false,
                    shut: 0,
                    conn: l.conn.clone(),
                });
            });
        }
    }

    /// `struct tcp_info`; empty for another socket.
    pub(crate) fn tcp_facts(&self) -> Vec<u8> {
        self.tcp_info().unwrap_or_default()
    }

    /// Facts of a unix socket.
    pub(crate) fn unix_facts(&self) -> Option<UnixFacts> {
        let u = self.as_unix()?;
        let (state, queues) = match u.backlog() {
            Some((most, waiting)) => (LISTEN, (waiting, most)),
            None => {
                let state = if u.is_connected() { ESTABLISHED } else { CLOSE };
                (state, (self.readable(), self.unsent()))
            }
        };
        Some(UnixFacts {
            style: self.style as u8,
            state,
            name: u.local_name(),
            queues,
            marks: (u.incoming_mark(), u.outgoing_mark()),
            shut: u.shut_bits(),
        })
    }
}
