//! Connections begin: a program connects, or a SYN comes in.

use super::conn::prepare;
use super::{Conn, Flow};
use crate::error::{Error, Result};
use crate::node::Protocol;
use crate::options::Options;
use crate::ports::{EPHEMERAL_FIRST, EPHEMERAL_LAST};
use crate::stack::NetStack;
use crate::stream::{Endpoint, Manners, Pair, Phase};
use crate::tcp::{TcpLink, TcpListener};
use alloc::sync::Arc;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering::Relaxed;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};
use vfs::PollHub;

/// Handshakes under way that a listener with a small backlog may have, and the
/// most that any may have.
const HALF_OPEN_MIN: usize = 128;
const HALF_OPEN_MAX: usize = 512;

/// What becomes an acceptable connection when the handshake is complete.
pub(super) struct Handshake {
    listener: Arc<TcpListener>,
    link: Option<TcpLink>,
}

impl Handshake {
    /// Puts the connection into the backlog; whether there was room.
    pub(super) fn complete(mut self) -> bool {
        let Some(link) = self.link.take() else {
            return false;
        };
        // SYNs are turned away while the backlog is full, but handshakes that were
        // under way by then may end together: they wait behind it.
        self.listener.queue.offer(link, true).is_ok()
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.listener.half_open.fetch_sub(1, Relaxed);
    }
}

fn pair(stack: &NetStack, hub: Arc<PollHub>, send: usize, receive: usize) -> (Endpoint, Endpoint) {
    Pair::connect(
        Manners::Tcp,
        [hub, stack.no_hub().clone()],
        [stack.pool(), stack.pool()],
        [send, receive],
    )
}

/// Makes room for one more handshake: the oldest that is not complete goes, so
/// that a flood of SYNs cannot close the port for others.
fn make_room(listener: &TcpListener, backlog: usize) {
    let limit = backlog.clamp(HALF_OPEN_MIN, HALF_OPEN_MAX);
    while listener.half_open.load(Relaxed) >= limit {
        let oldest = listener.handshakes.lock().pop_front();
        match oldest {
            Some(conn) => _ = conn.upgrade().is_some_and(|c| c.give_up_handshake()),
            None => return,
        }
    }
}

/// Notes a handshake that has begun.
fn note(listener: &TcpListener, conn: &Arc<Conn>) {
    let mut list = listener.handshakes.lock();
    if list.len() >= 4 * HALF_OPEN_MAX {
        // Most of these were completed long ago.
        list.retain(|c| c.upgrade().is_some_and(|c| c.is_handshaking()));
    }
    if list.try_reserve(1).is_ok() {
        list.push_back(Arc::downgrade(conn));
    }
}

/// Answers a SYN for `listener`, which `port` of `stack` belongs to. While the
/// backlog is full the SYN is dropped, as Linux does: the other side sends it
/// again.
pub(crate) fn open(
    stack: &Arc<NetStack>,
    port: u16,
    listener: &Arc<TcpListener>,
    flow: Flow,
    packet: &[u8],
) {
    let (backlog, _) = listener.queue.depth();
    if !listener.queue.has_room() {
        return;
    }
    make_room(listener, backlog);
    let node = stack.node();
    let Some(engines) = node.engines() else {
        return;
    };
    let Ok(mut socket) = stack.sockets().take() else {
        return;
    };
    let options = &listener.options;
    prepare(socket.tcp(), options);
    let endpoint = IpListenEndpoint {
        addr: Some(flow.local.ip().into()),
        port: flow.local.port(),
    };
    if socket.tcp().listen(endpoint).is_err() {
        return;
    }
    let hub = Arc::new(PollHub::new());
    let (mine, wire) = pair(stack, hub, options.sndbuf(), options.rcvbuf());
    let pool = stack.sockets().clone();
    let conn = Conn::new(node.clone(), pool, stack.id(), flow, wire, socket);
    if node.flows.insert(flow, conn.clone()).is_err() {
        return;
    }
    listener.half_open.fetch_add(1, Relaxed);
    let handshake = Handshake {
        listener: listener.clone(),
        link: Some(TcpLink {
            endpoint: mine,
            local: SocketAddr::new(flow.local.ip(), port),
            remote: flow.remote,
            conn: Some(conn.clone()),
        }),
    };
    note(listener, &conn);
    conn.begin(Some(packet), Some(handshake), engines.fresh());
}

/// Begins a connection to `remote`.
///
/// # Errors
/// [`Error::AddressNotAvailable`] when no port is free, no memory.
pub(crate) fn connect(
    stack: &Arc<NetStack>,
    hub: &Arc<PollHub>,
    options: &Options,
    source: IpAddr,
    bound: Option<u16>,
    remote: SocketAddr,
) -> Result<TcpLink> {
    let node = stack.node();
    let engines = node.engines().ok_or(Error::NetworkUnreachable)?;
    let mut socket = stack.sockets().take()?;
    prepare(socket.tcp(), options);
    let port = node_port(stack, source, bound, remote)?;
    let flow = Flow {
        local: SocketAddr::new(source, port),
        remote,
    };
    let mut fresh = engines.fresh();
    let to = IpEndpoint::from(remote);
    let from = IpListenEndpoint::from((smoltcp::wire::IpAddress::from(source), port));
    socket
        .tcp()
        .connect(fresh.context(), to, from)
        .map_err(|_| Error::AddressNotAvailable)?;
    let (mine, wire) = pair(stack, hub.clone(), options.sndbuf(), options.rcvbuf());
    mine.set_phase(Phase::Connecting);
    let pool = stack.sockets().clone();
    let conn = Conn::new(node.clone(), pool, stack.id(), flow, wire, socket);
    node.flows.insert(flow, conn.clone())?;
    conn.begin(None, None, fresh);
    Ok(TcpLink {
        endpoint: mine,
        local: SocketAddr::new(source, bound.unwrap_or(port)),
        remote,
        conn: Some(conn),
    })
}

/// The node's port for a new connection: the published one of the port that the
/// program bound, if there is one, else any that is free towards `remote`.
fn node_port(
    stack: &NetStack,
    source: IpAddr,
    bound: Option<u16>,
    remote: SocketAddr,
) -> Result<u16> {
    let node = stack.node();
    let free = |port: u16| {
        !node.flows.is_taken(&Flow {
            local: SocketAddr::new(source, port),
            remote,
        })
    };
    let published = bound.and_then(|p| node.published_as(stack, Protocol::Tcp, p));
    if let Some(p) = published.filter(|p| free(*p)) {
        return Ok(p);
    }
    let span = u64::from(EPHEMERAL_LAST - EPHEMERAL_FIRST) + 1;
    let start = machine::random::next_u64() % span;
    (0..span)
        .map(|i| EPHEMERAL_FIRST + u16::try_from((start + i) % span).unwrap_or(0))
        .find(|p| node.published(Protocol::Tcp, *p).is_none() && free(*p))
        .ok_or(Error::AddressNotAvailable)
}
