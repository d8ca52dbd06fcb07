//! TCP sockets as programs see them (tcp(7)).
//!
//! Over loopback a connection is just a [`Pair`] of rings. Over the wire the
//! other side of the pair is a [`Conn`]; beyond connecting and closing, nothing
//! here tells the two apart.

mod again;

pub(crate) use again::Link;

use crate::error::{Error, Result};
use crate::listener::{AcceptQueue, Pending};
use crate::options::{Options, Switch};
use crate::ports::{Binding, Claim};
use crate::stack::{NetStack, Route};
use crate::stream::{Endpoint, Manners, Pair, Phase};
use crate::wire::Conn;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize};
use machine::sync::{Once, SpinLock};
use machine::time::Instant;
use machine::wait::Until;
use vfs::{Events, PollHub};

/// Buffers of a TCP socket that did not ask for others, in bytes.
pub const TCP_BUFFER: usize = 256 << 10;

/// A connection that is made or being made.
pub struct TcpLink {
    /// Our side.
    pub endpoint: Endpoint,
    /// Our address.
    pub local: SocketAddr,
    /// The other side's.
    pub remote: SocketAddr,
    /// The protocol engine, if it goes over the wire.
    pub conn: Option<Arc<Conn>>,
}

impl TcpLink {
    /// Bytes were written, or an end was shut: send them.
    #[inline]
    pub(crate) fn kick(&self) {
        if let Some(c) = &self.conn {
            c.kick();
        }
    }

    /// Bytes are about to be written, which more will follow at once or not (`MSG_MORE`).
    #[inline]
    pub(crate) fn expect_more(&self, more: bool) {
        if let Some(c) = &self.conn {
            c.expect_more(more);
        }
    }

    /// Bytes were read: the window may open.
    #[inline]
    pub(crate) fn drained(&self) {
        if let Some(c) = &self.conn {
            c.drained();
        }
    }

    fn close(&self, reset: bool) {
        let unread = self.endpoint.close(reset);
        if let Some(c) = &self.conn {
            if unread || reset {
                c.abort();
            } else {
                c.kick();
            }
        }
    }
}

impl Pending for TcpLink {
    fn admitted(&self) {
        self.endpoint.set_phase(Phase::Established);
        self.endpoint.notify_peer(Events::WRITABLE);
    }

    fn refused(&self) {
        if self.endpoint.phase() != Phase::Connecting {
            self.close(true);
            return;
        }
        // Whoever sees that it has failed must find out why: the error comes first, and
        // there is no reset that would take its place.
        self.endpoint.fail_peer(Error::Refused);
        self.close(false);
        self.endpoint.set_phase(Phase::Failed);
        self.endpoint.notify_peer(Events::ERR | Events::WRITABLE);
    }
}

/// A listening socket.
pub struct TcpListener {
    /// Who waits to be accepted.
    pub(crate) queue: AcceptQueue<TcpLink>,
    /// Connections from the wire whose handshake is not complete.
    pub(crate) half_open: AtomicUsize,
    /// These and some that are complete by now, oldest first.
    pub(crate) handshakes: SpinLock<VecDeque<Weak<Conn>>>,
    /// The listening socket's options, which accepted ones inherit.
    pub(crate) options: Arc<Options>,
}

struct Bound {
    binding: Binding<Arc<TcpListener>>,
    addr: Option<IpAddr>,
    /// The program chose the port: it stays when a connection is taken back.
    chosen_port: bool,
}

/// The state of one TCP socket.
pub struct Tcp {
    v6: bool,
    /// Set once the first connection is established.
    link: Once<TcpLink>,
    /// That connection was taken back, see [`Tcp::disconnect`].
    is_over: AtomicBool,
    /// A connection that was established after that.
    later: SpinLock<Option<Arc<TcpLink>>>,
    /// A connection that is not established yet.
    attempt: SpinLock<Option<Arc<TcpLink>>>,
    /// The error pending while there is neither (`SO_ERROR`), 0 for none.
    error: AtomicU16,
    bound: SpinLock<Option<Bound>>,
    listener: SpinLock<Option<Arc<TcpListener>>>,
}

impl Tcp {
    /// A socket of `AF_INET` or, with `v6`, `AF_INET6`.
    #[must_use]
    pub fn new(v6: bool) -> Tcp {
        Tcp {
            v6,
            link: Once::new(),
            is_over: AtomicBool::new(false),
            later: SpinLock::new(None),
            attempt: SpinLock::new(None),
            error: AtomicU16::new(0),
            bound: SpinLock::new(None),
            listener: SpinLock::new(None),
        }
    }

    /// A socket for an accepted connection.
    #[must_use]
    pub fn accepted(v6: bool, link: TcpLink) -> Tcp {
        Tcp {
            link: Once::initialized(link),
            ..Tcp::new(v6)
        }
    }

    /// The established connection.
    ///
    /// # Errors
    /// [`Error::NotConnected`]; [`Error::WOULD_BLOCK`] while it is being made.
    #[inline]
    pub(crate) fn link(&self) -> Result<Link<'_>> {
        match self.first() {
            Some(l) => Ok(Link::First(l)),
            None => self.settle(),
        }
    }

    /// Looks whether an attempt has succeeded meanwhile.
    #[cold]
    fn settle(&self) -> Result<Link<'_>> {
        let mut attempt = self.attempt.lock();
        let Some(link) = attempt.clone() else {
            return self.established().ok_or(Error::NotConnected);
        };
        match link.endpoint.phase() {
            Phase::Connecting => Err(Error::WOULD_BLOCK),
            Phase::Failed => {
                let e = link.endpoint.take_error();
                if e != 0 {
                    *attempt = None;
                    return Err(vfs::Error::Foreign(e).into());
                }
                Err(Error::NotConnected)
            }
            Phase::Established => {
                // The link first: other threads find the one or the other.
                let made = self.establish(link);
                *attempt = None;
                Ok(made)
            }
        }
    }

    fn current(&self) -> Option<Arc<TcpLink>> {
        self.attempt.lock().clone()
    }

    /// Whether it listens.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listener.lock().is_some()
    }

    fn listener(&self) -> Option<Arc<TcpListener>> {
        self.listener.lock().clone()
    }

    /// Our address; all zeros while there is none.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        if let Some(l) = self.established() {
            return l.local;
        }
        if let Some(l) = self.current() {
            return l.local;
        }
        let unspecified = crate::addr::any(self.v6);
        match &*self.bound.lock() {
            Some(b) => SocketAddr::new(b.addr.unwrap_or(unspecified), b.binding.port()),
            None => SocketAddr::new(unspecified, 0),
        }
    }

    /// The other side's address.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn remote(&self) -> Result<SocketAddr> {
        match self.link() {
            // One that was reset, or that both sides have ended, is closed: programs tell
            // by this whether what they read was sent by somebody who is still there.
            Ok(l) if l.endpoint.is_write_shut() && l.endpoint.is_peer_done() => {
                Err(Error::NotConnected)
            }
            Ok(l) => Ok(l.remote),
            Err(_) => Err(Error::NotConnected),
        }
    }

    /// Holds a port.
    ///
    /// # Errors
    /// [`Error::INVALID`] if it has one, [`Error::AddressInUse`],
    /// [`Error::AddressNotAvailable`].
    pub fn bind(&self, stack: &NetStack, options: &Options, addr: SocketAddr) -> Result<()> {
        if self.established().is_some() || self.attempt.lock().is_some() {
            return Err(Error::INVALID);
        }
        let mut bound = self.bound.lock();
        if bound.is_some() {
            return Err(Error::INVALID);
        }
        let ip = stack.check_bind(self.v6, addr.ip(), options)?;
        let binding = stack
            .tcp()
            .bind(claim(self.v6, ip, options), addr.port(), None)?;
        *bound = Some(Bound {
            binding,
            addr: ip,
            chosen_port: addr.port() != 0,
        });
        Ok(())
    }

    /// Lets others connect to it.
    ///
    /// # Errors
    /// [`Error::INVALID`] when connected, [`Error::AddressInUse`].
    pub fn listen(
        &self,
        stack: &NetStack,
        hub: &Arc<PollHub>,
        options: &Arc<Options>,
        backlog: usize,
    ) -> Result<()> {
        if self.established().is_some() || self.attempt.lock().is_some() {
            return Err(Error::INVALID);
        }
        let unbound = self.bound.lock().is_none();
        if unbound {
            self.bind(
                stack,
                options,
                SocketAddr::new(crate::addr::any(self.v6), 0),
            )?;
        }
        let make = || {
            Arc::new(TcpListener {
                queue: AcceptQueue::new(hub.clone(), backlog),
                half_open: AtomicUsize::new(0),
                handshakes: SpinLock::new(VecDeque::new()),
                options: options.clone(),
            })
        };
        let listener = self.listener.lock().get_or_insert_with(make).clone();
        listener.queue.set_backlog(backlog);
        match &*self.bound.lock() {
            Some(b) => b.binding.set_target(Some(listener)),
            None => Err(Error::INVALID),
        }
    }

    /// Most connections that may wait to be accepted, and how many do; nothing unless it
    /// listens.
    pub(crate) fn backlog(&self) -> Option<(usize, usize)> {
        self.listener().map(|l| l.queue.depth())
    }

    /// Shows `f` the connections that wait to be accepted.
    pub(crate) fn for_each_waiting(&self, f: impl FnMut(&TcpLink)) {
        if let Some(l) = self.listener() {
            l.queue.for_each(f);
        }
    }

    /// The engine's side of a connection that is being made, if one is.
    pub(crate) fn attempted(&self) -> Option<Option<Arc<Conn>>> {
        let link = self.current()?;
        (link.endpoint.phase() == Phase::Connecting).then(|| link.conn.clone())
    }

    /// Takes the next connection without waiting.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`], [`Error::INVALID`] if it does not listen.
    pub fn accept(&self) -> Result<TcpLink> {
        let listener = self.listener().ok_or(Error::INVALID)?;
        match listener.queue.accept() {
            Some(link) => Ok(link),
            None if listener.queue.is_closed() => Err(Error::INVALID),
            None => Err(Error::WOULD_BLOCK),
        }
    }

    /// Whether a connection waits to be accepted, or never will.
    pub(crate) fn may_accept(&self) -> bool {
        self.listener()
            .is_none_or(|l| !l.queue.is_empty() || l.queue.is_closed())
    }

    /// Connects it.
    ///
    /// # Errors
    /// [`Error::InProgress`] if it may not wait, [`Error::Refused`] and the other
    /// errors of connect(2).
    pub fn connect(
        &self,
        stack: &Arc<NetStack>,
        hub: &Arc<PollHub>,
        options: &Arc<Options>,
        remote: SocketAddr,
        nonblocking: bool,
    ) -> Result<()> {
        if self.established().is_some() || self.is_listening() {
            return Err(Error::IsConnected);
        }
        let under_way = self.current();
        if let Some(link) = under_way {
            return match link.endpoint.phase() {
                Phase::Connecting if nonblocking => Err(Error::Already),
                Phase::Connecting => self.wait_connected(hub, options, &link),
                _ => self.settle().map(|_| ()),
            };
        }
        let link = self.start(stack, hub, options, remote)?;
        match link.endpoint.phase() {
            // Linux makes no connection while a program waits for nothing, not even one
            // to the same machine: the program asks again, or for writability.
            Phase::Connecting | Phase::Established if nonblocking => Err(Error::InProgress),
            Phase::Connecting => self.wait_connected(hub, options, &link),
            _ => self.settle().map(|_| ()),
        }
    }

    fn wait_connected(&self, hub: &PollHub, options: &Options, link: &TcpLink) -> Result<()> {
        let limit = Options::timeout(&options.send_timeout);
        let until = Until::deadline(limit.map(|t| Instant::now().after(t)));
        let done = || (link.endpoint.phase() != Phase::Connecting).then_some(());
        match hub.wait_writable(until, done) {
            Err(vfs::Error::TimedOut) => Err(Error::InProgress),
            Err(e) => Err(e.into()),
            Ok(()) => self.settle().map(|_| ()).map_err(|e| link.taken_back(e)),
        }
    }

    /// Begins to connect it: the attempt is the socket's from here on.
    fn start(
        &self,
        stack: &Arc<NetStack>,
        hub: &Arc<PollHub>,
        options: &Arc<Options>,
        remote: SocketAddr,
    ) -> Result<Arc<TcpLink>> {
        self.error.store(0, Relaxed);
        let (bound_ip, bound_port) = match &*self.bound.lock() {
            Some(b) => (b.addr, Some(b.binding.port())),
            None => (None, None),
        };
        let remote = stack.check_target(self.v6, options, remote)?;
        match stack.route(remote.ip())? {
            Route::Local { source } => {
                let port = match bound_port {
                    Some(p) => p,
                    None => stack.tcp().ephemeral().ok_or(Error::AddressNotAvailable)?,
                };
                let local = SocketAddr::new(bound_ip.unwrap_or(source), port);
                self.connect_local(stack, hub, options, local, remote)
            }
            Route::Wire { source } => {
                let source = bound_ip.unwrap_or(source);
                let link = crate::wire::connect(stack, hub, options, source, bound_port, remote)?;
                let link = Arc::new(link);
                *self.attempt.lock() = Some(link.clone());
                Ok(link)
            }
        }
    }

    /// A connection that never leaves the machine.
    fn connect_local(
        &self,
        stack: &Arc<NetStack>,
        hub: &Arc<PollHub>,
        options: &Options,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Arc<TcpLink>> {
        let found = stack.find_listener(remote, u64::from(local.port()));
        let (their_stack, their_port, listener) = found.ok_or(Error::Refused)?;
        let (mine, theirs) = Pair::connect(
            Manners::Tcp,
            [hub.clone(), Arc::new(PollHub::new())],
            [stack.pool(), their_stack.pool()],
            [options.sndbuf(), listener.options.sndbuf()],
        );
        let theirs = TcpLink {
            endpoint: theirs,
            local: SocketAddr::new(remote.ip(), their_port),
            remote: local,
            conn: None,
        };
        mine.set_phase(Phase::Connecting);
        let link = Arc::new(TcpLink {
            endpoint: mine,
            local,
            remote,
            conn: None,
        });
        // The socket has its attempt before the other side can see the connection: a
        // program that has accepted it may read here at once, whatever the thread that
        // connects has come to.
        *self.attempt.lock() = Some(link.clone());
        if listener.queue.offer(theirs, true).is_ok() {
            return Ok(link);
        }
        *self.attempt.lock() = None;
        hub.notify(Events::HUP | Events::WRITABLE);
        Err(if listener.queue.is_closed() {
            Error::Refused
        } else {
            // As if every SYN had been dropped.
            Error::TIMED_OUT
        })
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        if let Some(l) = self.listener() {
            if read {
                l.queue.close();
            }
            return Ok(());
        }
        let link = self.link().map_err(|_| Error::NotConnected)?;
        if write {
            link.endpoint.shut_write();
            link.kick();
        }
        if read {
            link.endpoint.shut_read();
        }
        Ok(())
    }

    /// Readiness, as `tcp_poll` reports it.
    #[must_use]
    pub fn poll(&self) -> Events {
        if let Some(l) = self.established() {
            return l.endpoint.poll();
        }
        if let Some(l) = self.listener() {
            let waiting = if l.queue.is_empty() {
                Events::empty()
            } else {
                Events::READABLE
            };
            let closed = if l.queue.is_closed() {
                Events::HUP | Events::READABLE | Events::RDHUP
            } else {
                Events::empty()
            };
            return waiting | closed;
        }
        match self.current() {
            Some(l) => match l.endpoint.phase() {
                Phase::Connecting => Events::empty(),
                Phase::Established => l.endpoint.poll(),
                Phase::Failed => {
                    Events::READABLE
                        | Events::WRITABLE
                        | Events::RDHUP
                        | l.endpoint.poll()
                        | Events::HUP
                }
            },
            // Another thread may have found it connected since the first look.
            None => match self.established() {
                Some(l) => l.endpoint.poll(),
                None => self.poll_unconnected(),
            },
        }
    }

    /// Takes the pending error (`SO_ERROR`).
    #[must_use]
    pub fn take_error(&self) -> u16 {
        if let Some(l) = self.established() {
            return l.endpoint.take_error();
        }
        let mut attempt = self.attempt.lock();
        let Some(link) = &*attempt else {
            return self.error.swap(0, Relaxed);
        };
        let error = link.endpoint.take_error();
        if error != 0 {
            // The attempt is over; the socket may try again.
            *attempt = None;
        }
        error
    }

    /// The state of a connection without an engine, numbered as Linux does.
    #[must_use]
    pub fn state(&self) -> u8 {
        let Ok(l) = self.link() else { return 7 };
        match (l.endpoint.is_write_shut(), l.endpoint.is_read_closed()) {
            (false, false) => 1,
            (true, false) => 5,
            (false, true) => 8,
            (true, true) => 7,
        }
    }

    /// Options changed: tell the engine.
    pub(crate) fn configure(&self, options: &Options) {
        let attempt = || self.current().map(Link::Later);
        if let Some(l) = self.established().or_else(attempt) {
            if let Some(conn) = &l.conn {
                conn.configure(options);
            }
            l.endpoint.outgoing().set_capacity(options.sndbuf());
        }
    }

    /// Closes it; what was written still goes out, unless `SO_LINGER` says to
    /// reset.
    pub(crate) fn close(&self, options: &Options) {
        let reset = options.linger.load(Relaxed) == 0;
        if let Some(l) = self.listener() {
            l.queue.close();
        }
        *self.bound.lock() = None;
        if let Some(l) = self.established() {
            l.close(reset);
        }
        let attempt = self.attempt.lock().take();
        if let Some(l) = attempt {
            l.close(l.endpoint.phase() != Phase::Established || reset);
        }
    }
}

pub(crate) fn claim(v6: bool, addr: Option<IpAddr>, options: &Options) -> Claim {
    Claim {
        addr,
        v6,
        v6_only: options.on(Switch::V6Only),
        reuse_addr: options.on(Switch::ReuseAddr),
        reuse_port: options.on(Switch::ReusePort),
    }
}
