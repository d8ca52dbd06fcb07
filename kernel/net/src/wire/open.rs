//! Connections begin: a program connects, or a SYN comes in.

use super::settings::prepare;
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

/// Lets packets find `conn`, unless its capsule has ended. Its end resets what packets
/// find by then; what comes later, because a SYN was on its way to a listener, must see
/// for itself.
fn enter(stack: &NetStack, conn: &Arc<Conn>) -> Result<()> {
    let flows = &stack.node().flows;
    flows.insert(conn.flow, conn.clone())?;
    if stack.is_closed() {
        flows.remove(&conn.flow, Arc::as_ptr(conn));
        return Err(Error::NetworkDown);
    }
    Ok(())
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
    if enter(stack, &conn).is_err() {
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
/// [`Error::AddressNotAvailable`] when no port is free, [`Error::NetworkDown`] after the
/// capsule's end, no memory.
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
    enter(stack, &conn)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::AcceptQueue;
    use crate::node::{NetNode, Nowhere};
    use crate::stack::StackConfig;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use core::sync::atomic::AtomicUsize;
    use machine::Account;
    use machine::sync::SpinLock;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{
        IpAddress, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
    };

    fn flow() -> Flow {
        Flow {
            local: "10.0.0.1:80".parse().unwrap(),
            remote: "10.0.0.2:5000".parse().unwrap(),
        }
    }

    fn syn() -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: flow().remote.port(),
            dst_port: flow().local.port(),
            control: TcpControl::Syn,
            seq_number: TcpSeqNumber(7),
            ack_number: None,
            window_len: 1000,
            window_scale: None,
            max_seg_size: Some(1460),
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: &[],
        };
        let [from, to] = [flow().remote, flow().local].map(|a| IpAddress::from(a.ip()));
        let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
        let mut packet = alloc::vec![0; ip.buffer_len()];
        let caps = ChecksumCapabilities::default();
        ip.emit(&mut packet[..], &caps);
        let mut segment = TcpPacket::new_unchecked(&mut packet[ip.header_len()..]);
        tcp.emit(&mut segment, &from, &to, &caps);
        packet
    }

    fn stack_and_listener() -> (Arc<NetStack>, Arc<TcpListener>) {
        let node = NetNode::new();
        node.attach_link("nowhere", Arc::new(Nowhere));
        let stack = node.new_stack(StackConfig {
            ports: Vec::new(),
            outbound: true,
            raw: false,
            system: false,
            account: Arc::new(Account::new(4096).unwrap()),
            sockets_max: 10,
        });
        let listener = TcpListener {
            queue: AcceptQueue::new(Arc::new(PollHub::new()), 8),
            half_open: AtomicUsize::new(0),
            handshakes: SpinLock::new(VecDeque::new()),
            options: Arc::new(Options::default()),
        };
        (stack.unwrap(), Arc::new(listener))
    }

    fn flows(stack: &NetStack) -> usize {
        let mut count = 0;
        stack.node().flows.for_each(|_| count += 1);
        count
    }

    /// The listener was found before the end, the connection comes after it.
    #[test]
    fn a_syn_that_meets_the_end_leaves_nothing() {
        let (stack, listener) = stack_and_listener();
        open(&stack, 80, &listener, flow(), &syn());
        assert_eq!(flows(&stack), 1);
        assert!(stack.account().used() > 0);
        stack.shutdown();
        assert_eq!((flows(&stack), stack.account().used()), (0, 0));
        open(&stack, 80, &listener, flow(), &syn());
        assert_eq!((flows(&stack), stack.account().used()), (0, 0));
        assert_eq!(listener.half_open.load(Relaxed), 0);
    }

    /// The end comes between the entry in the table and the first packet.
    #[test]
    fn a_connection_that_ends_before_it_begins_goes() {
        let (stack, listener) = stack_and_listener();
        let mut socket = stack.sockets().take().unwrap();
        prepare(socket.tcp(), &listener.options);
        socket.tcp().listen(flow().local.port()).unwrap();
        let (mine, wire) = pair(&stack, Arc::new(PollHub::new()), 4096, 4096);
        let node = stack.node().clone();
        let pool = stack.sockets().clone();
        let conn = Conn::new(node, pool, stack.id(), flow(), wire, socket);
        enter(&stack, &conn).unwrap();
        listener.half_open.fetch_add(1, Relaxed);
        let handshake = Handshake {
            listener: listener.clone(),
            link: Some(TcpLink {
                endpoint: mine,
                local: flow().local,
                remote: flow().remote,
                conn: Some(conn.clone()),
            }),
        };
        stack.shutdown();
        let engines = stack.node().engines().unwrap();
        conn.begin(Some(&syn()), Some(handshake), engines.fresh());
        let weak = Arc::downgrade(&conn);
        drop(conn);
        assert_eq!(weak.strong_count(), 0, "it refers to itself");
        assert_eq!(listener.half_open.load(Relaxed), 0);
        assert_eq!(stack.account().used(), 0);
    }
}
