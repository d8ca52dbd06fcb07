//! Unix sockets (unix(7)): streams, sequenced packets and datagrams.

mod connect;
mod datagram;
mod names;
mod rights;

pub use names::Names;
pub(crate) use rights::check_loops;

use crate::addr::UnixName;
use crate::ancillary::Identity;
use crate::error::{Error, Result};
use crate::listener::{AcceptQueue, Pending};
use crate::message::MessageQueue;
use crate::ring::Ring;
use crate::socket::diag::shut_bits;
use crate::stream::{Channel, Endpoint};
use alloc::sync::{Arc, Weak};
use datagram::Inbox;
use machine::sync::{Once, SpinLock};
use names::Held;
use vfs::Events;

/// The three types of unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `SOCK_STREAM`.
    Stream,
    /// `SOCK_SEQPACKET`.
    Packets,
    /// `SOCK_DGRAM`.
    Datagrams,
}

/// An established connection with what each side knows of the other.
pub struct Link<C> {
    /// Our side.
    pub endpoint: Endpoint<C>,
    /// Who the other side was when it connected or listened (`SO_PEERCRED`).
    pub peer: Identity,
    /// The other side's name.
    pub peer_name: UnixName,
    /// Our name, for the socket that accepts.
    pub name: UnixName,
}

impl<C: Channel> Pending for Link<C> {
    fn admitted(&self) {}

    fn refused(&self) {
        self.endpoint.close(true);
    }
}

/// A listening unix socket.
pub(crate) struct Listening<C> {
    pub(crate) queue: AcceptQueue<Link<C>>,
    pub(crate) owner: Identity,
    pub(crate) name: UnixName,
}

/// A connection of either kind.
pub(crate) enum Connected {
    Stream(Link<Ring>),
    Packets(Link<MessageQueue>),
}

#[derive(Clone)]
pub(crate) enum Listener {
    Stream(Arc<Listening<Ring>>),
    Packets(Arc<Listening<MessageQueue>>),
}

/// The state of one unix socket.
pub struct Unix {
    style: Style,
    /// Set once, when it is connected.
    connected: Once<Connected>,
    listener: Once<Listener>,
    /// The name it is bound to.
    held: SpinLock<Option<Held>>,
    /// Where datagrams come in; none for the other types.
    inbox: Option<Arc<Inbox>>,
    /// Where datagrams go without an address.
    peer: SpinLock<Option<(Weak<Inbox>, UnixName)>>,
}

impl Unix {
    /// Its type.
    #[must_use]
    pub fn style(&self) -> Style {
        self.style
    }

    fn name(&self) -> UnixName {
        if let Some(name) = self.held.lock().as_ref().map(|h| h.name().clone()) {
            return name;
        }
        match self.connected.get() {
            Some(Connected::Stream(l)) => l.name.clone(),
            Some(Connected::Packets(l)) => l.name.clone(),
            None => UnixName::Unnamed,
        }
    }

    /// The address `getsockname` tells.
    #[must_use]
    pub fn local_name(&self) -> UnixName {
        self.name()
    }

    /// The address `getpeername` tells.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn peer_name(&self) -> Result<UnixName> {
        match self.connected.get() {
            Some(Connected::Stream(l)) => Ok(l.peer_name.clone()),
            Some(Connected::Packets(l)) => Ok(l.peer_name.clone()),
            None => {
                let peer = self.peer.lock();
                let (_, name) = peer.as_ref().ok_or(Error::NotConnected)?;
                Ok(name.clone())
            }
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer_identity(&self) -> Option<Identity> {
        match (self.connected.get(), self.listener.get()) {
            (Some(Connected::Stream(l)), _) => Some(l.peer),
            (Some(Connected::Packets(l)), _) => Some(l.peer),
            (None, Some(Listener::Stream(l))) => Some(l.owner),
            (None, Some(Listener::Packets(l))) => Some(l.owner),
            (None, None) => None,
        }
    }

    /// Whether it listens.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listener.get().is_some()
    }

    /// Most connections that may wait to be accepted, and how many do; nothing unless it
    /// listens.
    pub(crate) fn backlog(&self) -> Option<(usize, usize)> {
        Some(match self.listener.get()? {
            Listener::Stream(l) => l.queue.depth(),
            Listener::Packets(l) => l.queue.depth(),
        })
    }

    /// Whether it is connected; a socket of datagrams counts once another one is to it.
    pub(crate) fn is_connected(&self) -> bool {
        let chosen = self.inbox.as_ref().is_some_and(|i| i.is_chosen());
        self.connected.is_completed() || chosen || self.peer.lock().is_some()
    }

    /// What it has shut: 1 to read, 2 to write.
    pub(crate) fn shut_bits(&self) -> u8 {
        match (self.connected.get(), &self.inbox) {
            (Some(Connected::Stream(l)), _) => shut_bits(&l.endpoint),
            (Some(Connected::Packets(l)), _) => shut_bits(&l.endpoint),
            (None, Some(inbox)) => inbox.shut_bits(),
            (None, None) => 0,
        }
    }

    /// The byte stream, if it is one.
    #[inline]
    pub(crate) fn stream(&self) -> Option<&Endpoint<Ring>> {
        match self.connected.get() {
            Some(Connected::Stream(l)) => Some(&l.endpoint),
            _ => None,
        }
    }

    /// The packet connection, if it is one.
    #[inline]
    pub(crate) fn packets(&self) -> Option<&Endpoint<MessageQueue>> {
        match self.connected.get() {
            Some(Connected::Packets(l)) => Some(&l.endpoint),
            _ => None,
        }
    }

    pub(crate) fn inbox(&self) -> Option<&Arc<Inbox>> {
        self.inbox.as_ref()
    }

    /// Readiness, as `unix_poll` and `unix_dgram_poll` report it.
    #[must_use]
    pub fn poll(&self) -> Events {
        if let Some(c) = self.connected.get() {
            return match c {
                Connected::Stream(l) => l.endpoint.poll(),
                Connected::Packets(l) => l.endpoint.poll(),
            };
        }
        let waiting = match self.listener.get() {
            Some(Listener::Stream(l)) => Some(!l.queue.is_empty()),
            Some(Listener::Packets(l)) => Some(!l.queue.is_empty()),
            None => None,
        };
        match (waiting, &self.inbox) {
            (Some(true), _) => Events::READABLE,
            (Some(false), _) => Events::empty(),
            (None, Some(inbox)) => self.poll_datagrams(inbox),
            (None, None) => Events::HUP | Events::WRITABLE,
        }
    }

    /// Takes the pending error (`SO_ERROR`).
    #[must_use]
    pub fn take_error(&self) -> u16 {
        match self.connected.get() {
            Some(Connected::Stream(l)) => l.endpoint.take_error(),
            Some(Connected::Packets(l)) => l.endpoint.take_error(),
            None => 0,
        }
    }

    /// `shutdown(2)`.
    ///
    /// # Errors
    /// [`Error::NotConnected`].
    pub fn shutdown(&self, read: bool, write: bool) -> Result<()> {
        fn both<C: Channel>(e: &Endpoint<C>, read: bool, write: bool) {
            if write {
                e.shut_write();
            }
            if read {
                e.shut_read();
            }
        }
        match (self.connected.get(), &self.inbox) {
            (Some(Connected::Stream(l)), _) => both(&l.endpoint, read, write),
            (Some(Connected::Packets(l)), _) => both(&l.endpoint, read, write),
            (None, Some(inbox)) if self.peer.lock().is_some() => inbox.shut(read, write),
            (None, _) => return Err(Error::NotConnected),
        }
        Ok(())
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        match self.connected.get() {
            Some(Connected::Stream(l)) => _ = l.endpoint.close(false),
            Some(Connected::Packets(l)) => _ = l.endpoint.close(false),
            None => {}
        }
        match self.listener.get() {
            Some(Listener::Stream(l)) => l.queue.close(),
            Some(Listener::Packets(l)) => l.queue.close(),
            None => {}
        }
        if let Some(inbox) = &self.inbox {
            inbox.close();
        }
    }
}
