//! Sockets that are connected more than once.
//!
//! Nearly all sockets have one connection, which every read and write finds without a lock.
//! One that a program takes back (connect(2) with `AF_UNSPEC`) stays where it is, empty, for
//! others may be looking at it; those after it are behind a lock.

use super::{Tcp, TcpLink};
use crate::error::{Error, Result};
use crate::stream::Phase;
use alloc::sync::Arc;
use core::ops::Deref;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use vfs::Events;

/// A connection in the hands of who uses it.
pub(crate) enum Link<'a> {
    /// The socket's first one.
    First(&'a TcpLink),
    /// One after that.
    Later(Arc<TcpLink>),
}

impl Deref for Link<'_> {
    type Target = TcpLink;

    #[inline]
    fn deref(&self) -> &TcpLink {
        match self {
            Link::First(link) => link,
            Link::Later(link) => link,
        }
    }
}

impl TcpLink {
    /// Why an attempt that was waited for ended: what `error` says, unless somebody has
    /// taken it back meanwhile.
    pub(super) fn taken_back(&self, error: Error) -> Error {
        match self.endpoint.take_error() {
            0 => error,
            n => vfs::Error::Foreign(n).into(),
        }
    }
}

impl Tcp {
    /// The socket's first connection, while it lasts.
    #[inline]
    pub(super) fn first(&self) -> Option<&TcpLink> {
        let link = self.link.get()?;
        (!self.is_over.load(Acquire)).then_some(link)
    }

    /// The connection that is established, if one is.
    #[inline]
    pub(super) fn established(&self) -> Option<Link<'_>> {
        match self.first() {
            Some(link) => Some(Link::First(link)),
            None => self.later.lock().clone().map(Link::Later),
        }
    }

    /// An attempt has succeeded. The caller holds the lock on attempts.
    pub(super) fn establish(&self, link: Arc<TcpLink>) -> Link<'_> {
        if self.is_over.load(Acquire) {
            *self.later.lock() = Some(link.clone());
            return Link::Later(link);
        }
        Link::First(self.link.call_once(|| TcpLink {
            endpoint: link.endpoint.clone(),
            local: link.local,
            remote: link.remote,
            conn: link.conn.clone(),
        }))
    }

    /// Takes a connection, an attempt, or the listening back: the socket may be connected
    /// again, and keeps the port that the program chose (connect(2), `tcp_disconnect` of
    /// Linux). A peer that is still there gets a reset.
    pub fn disconnect(&self) {
        let listener = self.listener.lock().take();
        if let Some(listener) = listener {
            if let Some(bound) = &*self.bound.lock() {
                // To have no target nobody can refuse.
                _ = bound.binding.set_target(None);
            }
            listener.queue.close();
        }
        let (made, tried) = {
            // Attempts succeed under this lock.
            let mut attempt = self.attempt.lock();
            let made = self.established();
            if self.link.is_completed() {
                self.is_over.store(true, Release);
                *self.later.lock() = None;
            }
            (made, attempt.take())
        };
        let unchosen = self.bound.lock().take_if(|b| !b.chosen_port);
        // Ports have a lock of their own.
        drop(unchosen);
        let error = match (made, tried) {
            (Some(link), _) => abandon(&link),
            (None, Some(link)) => abandon(&link),
            (None, None) => return,
        };
        self.error.store(error, Relaxed);
    }

    /// The error that is pending on a socket without a connection.
    ///
    /// # Errors
    /// That.
    pub(crate) fn pending(&self) -> Result<()> {
        match self.error.swap(0, Relaxed) {
            0 => Ok(()),
            32 => Err(Error::BROKEN_PIPE),
            n => Err(vfs::Error::Foreign(n).into()),
        }
    }

    /// Readiness of a socket that was never connected, or is no more.
    pub(super) fn poll_unconnected(&self) -> Events {
        let error = match self.error.load(Relaxed) {
            0 => Events::empty(),
            _ => Events::ERR,
        };
        Events::HUP | Events::WRITABLE | error
    }
}

/// Ends a connection, for those as well who wait on it; the error that is pending on the
/// socket from now on, 0 for none.
fn abandon(link: &TcpLink) -> u16 {
    let end = &link.endpoint;
    let unheard = end.take_error();
    if end.phase() == Phase::Connecting {
        end.set_phase(Phase::Failed);
        end.fail(Error::Reset);
        link.close(true);
        return Error::Reset.pending_number();
    }
    if end.phase() == Phase::Failed || end.is_write_shut() && end.is_peer_done() {
        link.close(false);
        return unheard;
    }
    end.fail(Error::BROKEN_PIPE);
    link.close(true);
    Error::Reset.pending_number()
}
