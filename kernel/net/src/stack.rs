//! The network of one capsule.

use crate::error::{Error, Result};
use crate::groups::Joined;
use crate::message::MessageQueue;
use crate::node::{NetNode, Protocol, Published};
use crate::options::{Options, Switch};
use crate::pool::PagePool;
use crate::ports::{PortTable, Sharing};
use crate::registry::Registry;
use crate::tcp::TcpListener;
use crate::udp::UdpCore;
use crate::unix::Names;
use crate::wire::SocketPool;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use machine::Account;
use machine::sync::SpinLock;
use vfs::PollHub;

/// What a capsule's network may do.
pub struct StackConfig {
    /// Ports it publishes on the node.
    pub ports: Vec<Published>,
    /// Whether it may open connections to outside, and send datagrams there.
    pub outbound: bool,
    /// Whether it may have raw and packet sockets.
    pub raw: bool,
    /// It reaches published ports of all capsules at 127.0.0.1, as the system
    /// capsule does for its probes.
    pub system: bool,
    /// Who pays for buffers.
    pub account: Arc<Account>,
    /// Most sockets at one time.
    pub sockets_max: usize,
}

/// The sockets, ports and names of one capsule.
pub struct NetStack {
    node: Arc<NetNode>,
    id: u64,
    config: StackConfig,
    pool: Arc<PagePool>,
    sockets: Arc<SocketPool>,
    tcp: Arc<PortTable<Arc<TcpListener>>>,
    udp: Arc<PortTable<Arc<UdpCore>>>,
    /// Multicast groups of its sockets.
    joined: Joined,
    names: Arc<Names>,
    registry: Registry,
    /// Files in flight between its sockets.
    in_flight: Arc<AtomicUsize>,
    /// Sockets that exist.
    count: AtomicUsize,
    closed: AtomicBool,
    /// A hub that nobody watches, for the engine's side of connections.
    no_hub: Arc<PollHub>,
}

/// Where a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To a socket of this machine.
    Local {
        /// The address it comes from.
        source: IpAddr,
    },
    /// Out on the link.
    Wire {
        /// The address it comes from.
        source: IpAddr,
    },
}

/// A socket that counts; dropping it makes room for another.
pub(crate) struct Seat(Arc<NetStack>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl NetStack {
    pub(crate) fn new(node: Arc<NetNode>, id: u64, config: StackConfig) -> Arc<NetStack> {
        let account = config.account.clone();
        Arc::new(NetStack {
            node,
            id,
            pool: Arc::new(PagePool::new(account.clone())),
            sockets: Arc::new(SocketPool::new(account)),
            tcp: Arc::new(PortTable::new(Sharing::Stream)),
            udp: Arc::new(PortTable::new(Sharing::Datagram)),
            joined: SpinLock::default(),
            names: Arc::new(Names::new()),
            registry: Registry::default(),
            in_flight: Arc::new(AtomicUsize::new(0)),
            count: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            no_hub: Arc::new(PollHub::new()),
            config,
        })
    }

    /// The machine's network.
    #[must_use]
    pub fn node(&self) -> &Arc<NetNode> {
        &self.node
    }

    /// A number no other stack of this boot has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Who pays for its buffers.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.config.account
    }

    /// The ports it publishes.
    #[must_use]
    pub fn published(&self) -> &[Published] {
        &self.config.ports
    }

    /// Whether somebody listens on (or for UDP, has bound) its published port.
    #[must_use]
    pub fn is_serving(&self, port: &Published) -> bool {
        let mut found = false;
        match port.protocol {
            Protocol::Tcp => self
                .tcp
                .for_each(|p, _, l| found |= p == port.capsule && l.is_some()),
            Protocol::Udp => self
                .udp
                .for_each(|p, _, s| found |= p == port.capsule && s.is_some()),
        }
        found
    }

    /// Sockets that exist.
    #[must_use]
    pub fn socket_count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(crate) fn pool(&self) -> &Arc<PagePool> {
        &self.pool
    }

    pub(crate) fn sockets(&self) -> &Arc<SocketPool> {
        &self.sockets
    }

    pub(crate) fn tcp(&self) -> &Arc<PortTable<Arc<TcpListener>>> {
        &self.tcp
    }

    pub(crate) fn joined(&self) -> &Joined {
        &self.joined
    }

    pub(crate) fn udp(&self) -> &Arc<PortTable<Arc<UdpCore>>> {
        &self.udp
    }

    /// The unix names of this capsule.
    #[must_use]
    pub fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// All its sockets.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn in_flight(&self) -> &Arc<AtomicUsize> {
        &self.in_flight
    }

    pub(crate) fn no_hub(&self) -> &Arc<PollHub> {
        &self.no_hub
    }

    /// Whether it may send to the wire.
    #[must_use]
    pub fn may_go_out(&self) -> bool {
        self.config.outbound && !self.closed.load(Ordering::Relaxed)
    }

    /// Whether its capsule has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Whether it may have raw and packet sockets.
    #[must_use]
    pub fn may_be_raw(&self) -> bool {
        self.config.raw
    }

    /// Room for one more socket.
    ///
    /// # Errors
    /// [`Error::NoBuffers`] at the capsule's limit, [`Error::NetworkDown`] after
    /// its end.
    pub(crate) fn sit(self: &Arc<Self>) -> Result<Seat> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::NetworkDown);
        }
        let before = self.count.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self.clone());
        if before >= self.config.sockets_max {
            return Err(Error::NoBuffers);
        }
        Ok(seat)
    }

    /// Where packets to `ip` go.
    ///
    /// # Errors
    /// [`Error::NetworkUnreachable`] without a route, or when the capsule may not
    /// go out.
    pub(crate) fn route(&self, ip: IpAddr) -> Result<Route> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::NetworkDown);
        }
        match ip {
            IpAddr::V4(v4) if v4.is_loopback() => {
                return Ok(Route::Local {
                    source: Ipv4Addr::LOCALHOST.into(),
                });
            }
            IpAddr::V6(v6) if v6.is_loopback() => return Ok(Route::Local { source: ip }),
            _ => {}
        }
        if self.node.is_local(ip) {
            return Ok(Route::Local { source: ip });
        }
        if !self.config.outbound {
            return Err(Error::NetworkUnreachable);
        }
        let source = self.node.with_config(|c| c.source(ip))?;
        Ok(Route::Wire { source })
    }

    /// The target of a connect or send as it is meant: the unspecified address is
    /// this host.
    ///
    /// # Errors
    /// [`Error::NoFamily`], [`Error::NetworkUnreachable`] for an IPv4 address on a
    /// socket that refuses them.
    pub(crate) fn check_target(
        &self,
        v6: bool,
        options: &Options,
        to: SocketAddr,
    ) -> Result<SocketAddr> {
        if !v6 && to.is_ipv6() {
            return Err(Error::NoFamily);
        }
        if v6 && to.is_ipv4() && options.on(Switch::V6Only) {
            return Err(Error::NetworkUnreachable);
        }
        if !to.ip().is_unspecified() {
            return Ok(to);
        }
        let ip = match to {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        Ok(SocketAddr::new(ip, to.port()))
    }

    /// The address a socket binds to; none for all.
    ///
    /// # Errors
    /// [`Error::NoFamily`], [`Error::AddressNotAvailable`].
    pub(crate) fn check_bind(
        &self,
        v6: bool,
        ip: IpAddr,
        options: &Options,
    ) -> Result<Option<IpAddr>> {
        if !v6 && ip.is_ipv6() {
            return Err(Error::NoFamily);
        }
        if v6 && ip.is_ipv4() && options.on(Switch::V6Only) {
            return Err(Error::INVALID);
        }
        if ip.is_unspecified() {
            // `::ffff:0.0.0.0` on a dual socket means IPv4 alone, which nothing
            // binds; it is taken for all.
            return Ok(None);
        }
        let ours = ip.is_loopback() || self.node.is_local(ip) || options.on(Switch::FreeBind);
        if ours {
            Ok(Some(ip))
        } else {
            Err(Error::AddressNotAvailable)
        }
    }

    /// The listener behind an address of this machine, whose stack that is, and
    /// its port there.
    pub(crate) fn find_listener(
        self: &Arc<Self>,
        to: SocketAddr,
        flow: u64,
    ) -> Option<(Arc<NetStack>, u16, Arc<TcpListener>)> {
        let own = || {
            let l = self.tcp.find(to.ip(), to.port(), flow)?;
            Some((self.clone(), to.port(), l))
        };
        let others = || {
            let (stack, port, ip) = self.published_target(Protocol::Tcp, to)?;
            let l = stack.tcp.find(ip, port, flow)?;
            Some((stack, port, l))
        };
        if to.ip().is_loopback() {
            own().or_else(others)
        } else {
            others().or_else(own)
        }
    }

    /// The datagram socket behind an address of this machine.
    pub(crate) fn find_datagram(&self, to: SocketAddr, flow: u64) -> Option<Arc<UdpCore>> {
        let own = || self.udp.find(to.ip(), to.port(), flow);
        let others = || {
            let (stack, port, ip) = self.published_target(Protocol::Udp, to)?;
            stack.udp.find(ip, port, flow)
        };
        if to.ip().is_loopback() {
            own().or_else(others)
        } else {
            others().or_else(own)
        }
    }

    /// The capsule and port behind a published port, if this capsule may reach it
    /// at that address: who may go out at the node's own, the system capsule at
    /// loopback. The last part is the address it was sent to as the publisher
    /// sees it.
    fn published_target(
        &self,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Option<(Arc<NetStack>, u16, IpAddr)> {
        let loopback = to.ip().is_loopback();
        let may = if loopback {
            self.config.system
        } else {
            self.config.outbound
        };
        if !may {
            return None;
        }
        let (stack, port) = self.node.published(protocol, to.port())?;
        let ip = if loopback {
            // Not the publisher's loopback: what it binds there is private.
            self.node
                .ipv4()
                .map_or(Ipv4Addr::UNSPECIFIED.into(), IpAddr::V4)
        } else {
            to.ip()
        };
        Some((stack, port, ip))
    }

    /// Ends the network of a capsule: nothing comes in or goes out any more, all
    /// connections are reset, and no port, name or packet of it stays.
    pub fn shutdown(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.node.unpublish(self);
        let mut listeners = Vec::new();
        self.tcp.for_each(|_, _, l| listeners.extend(l.cloned()));
        for l in listeners {
            l.queue.close();
        }
        self.leave_all_groups();
        self.tcp.clear();
        self.udp.clear();
        self.names.clear();
        self.node.flows.for_each(|c| {
            if c.stack == self.id {
                c.abort();
            }
        });
        self.node
            .udp_ports()
            .lock()
            .retain(|_, core| core.upgrade().is_some_and(|c| c.stack() != self.id));
        self.pool.close();
        self.sockets.close();
    }

    /// A queue for messages that this capsule pays for.
    pub(crate) fn queue(&self, capacity: usize) -> MessageQueue {
        MessageQueue::new(self.config.account.clone(), capacity)
    }
}

impl Drop for NetStack {
    fn drop(&mut self) {
        self.node.unpublish(self);
    }
}
