//! Connected byte streams: two rings and what each side has shut.
//!
//! Unix stream sockets and TCP over loopback are the two sides of one [`Pair`]; a
//! TCP connection over the wire is a pair whose second side is the protocol
//! engine. So every reader and writer runs the same short path.

use crate::ancillary::Ancillary;
use crate::error::{Error, Result};
use crate::message::{Message, MessageQueue};
use crate::pool::PagePool;
use crate::ring::{Ring, Taken};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU8, AtomicU16, Ordering};
use machine::io::{Sink, Source};
use machine::{Account, Frame};
use vfs::{Events, PollHub};

/// This side writes no more (`SHUT_WR`, or a FIN was sent).
const WRITE_SHUT: u8 = 1;
/// This side reads no more (`SHUT_RD`).
const READ_SHUT: u8 = 2;
/// This side is closed.
const GONE: u8 = 4;
/// Bytes that go out to a TCP peer that is gone before its reset is here: those of the
/// largest segment.
const SEGMENT: usize = 65_483;

/// How a side behaves once the other is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// As unix(7): the writer learns at once that nobody reads.
    Unix,
    /// As tcp(7): closing ends one direction; the first write after that brings
    /// the reset, the second the error.
    Tcp,
}

struct Side {
    /// What this side has shut.
    shut: AtomicU8,
    /// The error pending on this side (`SO_ERROR`), 0 for none.
    error: AtomicU16,
    /// Who waits on this side.
    hub: Arc<PollHub>,
}

/// What carries one direction of a connection.
pub trait Channel {
    /// Whether nothing waits.
    fn is_empty(&self) -> bool;
    /// Whether a writer that waits should go on.
    fn is_roomy(&self) -> bool;
    /// Drops all that waits; whether there was anything.
    fn clear(&self) -> bool;
}

impl Channel for Ring {
    #[inline]
    fn is_empty(&self) -> bool {
        Ring::is_empty(self)
    }
    #[inline]
    fn is_roomy(&self) -> bool {
        Ring::is_roomy(self)
    }
    fn clear(&self) -> bool {
        Ring::clear(self)
    }
}

impl Channel for MessageQueue {
    #[inline]
    fn is_empty(&self) -> bool {
        MessageQueue::is_empty(self)
    }
    #[inline]
    fn is_roomy(&self) -> bool {
        MessageQueue::is_roomy(self)
    }
    fn clear(&self) -> bool {
        MessageQueue::clear(self)
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Both sides may write.
    Established,
    /// The other side has not agreed yet.
    Connecting,
    /// It never did; the error is pending.
    Failed,
}

/// Both sides of a connection.
pub struct Pair<C> {
    manners: Manners,
    phase: AtomicU8,
    /// `channels[i]` is read by side `i` and written by the other.
    channels: [C; 2],
    sides: [Side; 2],
}

/// One side of a connection: of bytes ([`Ring`]) or messages ([`MessageQueue`]).
pub struct Endpoint<C = Ring> {
    pair: Arc<Pair<C>>,
    side: u8,
}

impl<C> Clone for Endpoint<C> {
    fn clone(&self) -> Self {
        Endpoint {
            pair: self.pair.clone(),
            side: self.side,
        }
    }
}

impl Pair<Ring> {
    /// A connection between the owners of two hubs. Each ring's pages come from
    /// the pool of its writer.
    #[must_use]
    pub fn connect(
        manners: Manners,
        hubs: [Arc<PollHub>; 2],
        pools: [&Arc<PagePool>; 2],
        capacities: [usize; 2],
    ) -> (Endpoint, Endpoint) {
        let channels = [
            Ring::new(pools[1].clone(), capacities[1]),
            Ring::new(pools[0].clone(), capacities[0]),
        ];
        Pair::join(manners, hubs, channels)
    }
}

impl Pair<MessageQueue> {
    /// A connection that keeps messages apart, between sockets of one stack.
    #[must_use]
    pub fn connect_messages(
        hubs: [Arc<PollHub>; 2],
        account: &Arc<Account>,
        capacities: [usize; 2],
    ) -> (Endpoint<MessageQueue>, Endpoint<MessageQueue>) {
        let channels = [
            MessageQueue::new(account.clone(), capacities[1]),
            MessageQueue::new(account.clone(), capacities[0]),
        ];
        Pair::join(Manners::Unix, hubs, channels)
    }
}

impl<C> Pair<C> {
    fn join(
        manners: Manners,
        hubs: [Arc<PollHub>; 2],
        channels: [C; 2],
    ) -> (Endpoint<C>, Endpoint<C>) {
        let sides = hubs.map(|hub| Side {
            shut: AtomicU8::new(0),
            error: AtomicU16::new(0),
            hub,
        });
        let pair = Arc::new(Pair {
            manners,
            phase: AtomicU8::new(Phase::Established as u8),
            channels,
            sides,
        });
        let other = Endpoint {
            pair: pair.clone(),
            side: 1,
        };
        (Endpoint { pair, side: 0 }, other)
    }
}

/// What of two belongs to side 0 or 1.
#[inline]
fn of_side<T>([zero, one]: &[T; 2], side: u8) -> &T {
    if side & 1 == 0 { zero } else { one }
}

impl<C: Channel> Endpoint<C> {
    #[inline]
    fn me(&self) -> &Side {
        of_side(&self.pair.sides, self.side)
    }

    #[inline]
    fn peer(&self) -> &Side {
        of_side(&self.pair.sides, !self.side)
    }

    /// The ring this side reads.
    #[inline]
    #[must_use]
    pub fn incoming(&self) -> &C {
        of_side(&self.pair.channels, self.side)
    }

    /// The ring this side writes.
    #[inline]
    #[must_use]
    pub fn outgoing(&self) -> &C {
        of_side(&self.pair.channels, !self.side)
    }

    /// Who waits on this side.
    #[inline]
    #[must_use]
    pub fn hub(&self) -> &Arc<PollHub> {
        &self.me().hub
    }

    /// How far the connection has come.
    #[inline]
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.pair.phase.load(Ordering::Acquire) {
            0 => Phase::Established,
            1 => Phase::Connecting,
            _ => Phase::Failed,
        }
    }

    /// Sets how far the connection has come; who waits is told separately.
    pub fn set_phase(&self, phase: Phase) {
        self.pair.phase.store(phase as u8, Ordering::Release);
    }

    fn shut(&self, bits: u8) -> bool {
        self.me().shut.load(Ordering::Acquire) & bits != 0
    }

    fn peer_shut(&self, bits: u8) -> bool {
        self.peer().shut.load(Ordering::Acquire) & bits != 0
    }

    /// Takes the pending error.
    #[must_use]
    pub fn take_error(&self) -> u16 {
        self.me().error.swap(0, Ordering::AcqRel)
    }

    fn pending(&self) -> Result<()> {
        if self.me().error.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        match self.take_error() {
            0 => Ok(()),
            32 => Err(Error::BROKEN_PIPE),
            n => Err(Error::File(vfs::Error::Foreign(n))),
        }
    }

    /// Whether writing can only fail now.
    #[must_use]
    pub fn is_write_closed(&self) -> bool {
        self.shut(WRITE_SHUT | GONE)
            || match self.pair.manners {
                Manners::Unix => self.peer_shut(READ_SHUT | GONE),
                Manners::Tcp => false,
            }
    }

    /// Whether what waits is all that will ever come.
    #[must_use]
    pub fn is_read_closed(&self) -> bool {
        self.shut(READ_SHUT | GONE) || self.peer_shut(WRITE_SHUT | GONE)
    }

    /// Whether this side has ended its writing.
    #[must_use]
    pub fn is_write_shut(&self) -> bool {
        self.shut(WRITE_SHUT | GONE)
    }

    /// Whether this side is closed.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shut(GONE)
    }

    #[inline]
    fn may_write(&self) -> Result<()> {
        self.pending()?;
        if self.is_write_closed() {
            return Err(Error::BROKEN_PIPE);
        }
        Ok(())
    }

    /// Ends this side's writing: the peer reads to the end.
    pub fn shut_write(&self) {
        if self.me().shut.fetch_or(WRITE_SHUT, Ordering::AcqRel) & WRITE_SHUT == 0 {
            let hup = if self.peer_shut(WRITE_SHUT) {
                Events::HUP
            } else {
                Events::empty()
            };
            self.peer()
                .hub
                .notify(Events::READABLE | Events::RDHUP | hup);
            self.me().hub.notify(Events::WRITABLE | hup);
        }
    }

    /// Ends this side's reading.
    pub fn shut_read(&self) {
        self.me().shut.fetch_or(READ_SHUT, Ordering::AcqRel);
        self.me().hub.notify(Events::READABLE | Events::RDHUP);
        if self.pair.manners == Manners::Unix {
            self.peer().hub.notify(Events::WRITABLE);
        }
    }

    /// Puts an error on this side and wakes whoever waits there.
    pub fn fail(&self, error: Error) {
        self.me()
            .error
            .store(error.pending_number(), Ordering::Release);
        self.me()
            .hub
            .notify(Events::ERR | Events::HUP | Events::READABLE | Events::WRITABLE);
    }

    /// Closes this side. If bytes were left unread, or `reset` asks for it, the
    /// peer gets `ECONNRESET`, as both unix(7) and tcp(7) have it.
    ///
    /// Whether bytes were left unread.
    pub fn close(&self, reset: bool) -> bool {
        let unread = self.incoming().clear();
        let before = self.me().shut.fetch_or(GONE, Ordering::AcqRel);
        if before & GONE != 0 {
            return false;
        }
        // Bytes that came between `clear` and the flag have nobody to read them.
        let unread = self.incoming().clear() || unread;
        if (unread || reset) && !self.peer_shut(GONE) {
            self.peer().shut.fetch_or(WRITE_SHUT, Ordering::AcqRel);
            self.peer()
                .error
                .store(Error::Reset.pending_number(), Ordering::Release);
        }
        self.notify_peer(Events::READABLE | Events::WRITABLE | Events::RDHUP | Events::HUP);
        unread
    }

    /// Whether the other side is closed.
    #[must_use]
    pub fn is_peer_gone(&self) -> bool {
        self.peer_shut(GONE)
    }

    /// Whether the other side will write nothing more.
    #[must_use]
    pub fn is_peer_done(&self) -> bool {
        self.peer_shut(GONE | WRITE_SHUT)
    }

    /// Whether the other side has ended its reading.
    #[must_use]
    pub fn is_peer_deaf(&self) -> bool {
        self.peer_shut(READ_SHUT)
    }

    /// Tells the other side's waiters that `events` may hold.
    pub fn notify_peer(&self, events: Events) {
        self.peer().hub.notify(events);
    }

    /// Puts an error on the other side and wakes whoever waits there.
    pub fn fail_peer(&self, error: Error) {
        self.peer()
            .error
            .store(error.pending_number(), Ordering::Release);
        self.notify_peer(Events::ERR | Events::HUP | Events::READABLE | Events::WRITABLE);
    }

    /// Ends both directions at once, without bytes being lost that were written
    /// before: what is unread can still be read.
    pub fn hang_up(&self) {
        self.me().shut.fetch_or(GONE, Ordering::AcqRel);
        self.peer().shut.fetch_or(WRITE_SHUT, Ordering::AcqRel);
        self.notify_peer(Events::READABLE | Events::WRITABLE | Events::RDHUP | Events::HUP);
    }

    /// Readiness, as `unix_poll` and `tcp_poll` report it.
    #[inline]
    #[must_use]
    pub fn poll(&self) -> Events {
        let mut e = Events::empty();
        let me = self.me().shut.load(Ordering::Acquire);
        let peer = self.peer().shut.load(Ordering::Acquire);
        let read_ended = me & (READ_SHUT | GONE) != 0 || peer & (WRITE_SHUT | GONE) != 0;
        let write_ended = self.is_write_closed();
        if read_ended {
            e |= Events::READABLE | Events::RDHUP;
        } else if !self.incoming().is_empty() {
            e |= Events::READABLE;
        }
        if read_ended && write_ended {
            e |= Events::HUP;
        }
        if write_ended || self.outgoing().is_roomy() {
            e |= Events::WRITABLE;
        }
        if self.me().error.load(Ordering::Relaxed) != 0 {
            e |= Events::ERR;
        }
        e
    }
}

impl Endpoint<Ring> {
    /// Writes what fits without waiting.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`] if nothing fits, [`Error::BROKEN_PIPE`], a pending
    /// error, a fault, no memory.
    #[inline]
    pub fn write(&self, src: &mut Source<'_>, note: &mut Option<Box<Ancillary>>) -> Result<usize> {
        self.may_write()?;
        if self.peer_shut(GONE) {
            return self.write_to_nobody(src);
        }
        let n = self.outgoing().write(src, note)?;
        self.wrote(n, src.left())
    }

    /// Puts part of a frame into the stream without a copy.
    ///
    /// # Errors
    /// As [`Endpoint::write`].
    pub fn write_frame(&self, frame: &Frame, start: usize, len: usize) -> Result<usize> {
        self.may_write()?;
        if self.peer_shut(GONE) {
            let some: &[u8] = if len > 0 { &[0] } else { &[] };
            return self.write_to_nobody(&mut Source::kernel(some));
        }
        let n = self.outgoing().write_frame(frame, start, len)?;
        self.wrote(n, len)
    }

    #[inline]
    fn wrote(&self, n: usize, wanted: usize) -> Result<usize> {
        if n == 0 && wanted > 0 {
            return Err(Error::WOULD_BLOCK);
        }
        self.peer().hub.notify(Events::READABLE);
        Ok(n)
    }

    /// Reads what is there without waiting; 0 bytes mean the end.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`] if nothing is there yet, a pending error, a fault.
    #[inline]
    pub fn read(&self, sink: &mut Sink<'_>) -> Result<Taken> {
        // The flag first: what the peer wrote before it shut is in the ring then.
        let ended = self.is_read_closed();
        let was_roomy = self.incoming().is_roomy();
        let taken = self.incoming().read(sink)?;
        if taken.bytes == 0 && sink.left() > 0 {
            self.pending()?;
            return if ended {
                Ok(taken)
            } else {
                Err(Error::WOULD_BLOCK)
            };
        }
        // A writer that found no room sleeps until this line is crossed.
        if !was_roomy && self.incoming().is_roomy() {
            self.peer().hub.notify(Events::WRITABLE);
        }
        Ok(taken)
    }

    /// As [`Endpoint::read`], leaving everything in place.
    ///
    /// # Errors
    /// As [`Endpoint::read`].
    pub fn peek(&self, sink: &mut Sink<'_>) -> Result<usize> {
        let ended = self.is_read_closed();
        let n = self.incoming().peek(sink, 0)?;
        if n == 0 && sink.left() > 0 {
            self.pending()?;
            return if ended {
                Ok(0)
            } else {
                Err(Error::WOULD_BLOCK)
            };
        }
        Ok(n)
    }

    /// The first write to a closed TCP peer: the bytes go out, a reset comes back. Without
    /// bytes nothing goes out, and nothing comes back (Python's `sendall(b"")` does that).
    #[cold]
    fn write_to_nobody(&self, src: &mut Source<'_>) -> Result<usize> {
        let n = src.left().min(SEGMENT);
        if n == 0 {
            return Ok(0);
        }
        self.me().shut.fetch_or(WRITE_SHUT, Ordering::AcqRel);
        self.fail(Error::BROKEN_PIPE);
        Ok(n)
    }
}

impl Endpoint<MessageQueue> {
    /// Sends a message without waiting.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`] and the message if there is no room,
    /// [`Error::BROKEN_PIPE`], a pending error.
    pub fn send(&self, message: Message) -> core::result::Result<(), (Error, Message)> {
        if let Err(e) = self.may_write() {
            return Err((e, message));
        }
        self.outgoing()
            .push(message)
            .map_err(|m| (Error::WOULD_BLOCK, m))?;
        self.peer().hub.notify(Events::READABLE);
        Ok(())
    }

    /// Takes the next message without waiting; `None` is the end.
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`], a pending error; no memory when peeking.
    pub fn receive(&self, peek: bool) -> Result<Option<Message>> {
        let ended = self.is_read_closed();
        if self.incoming().is_empty() {
            self.pending()?;
            return if ended {
                Ok(None)
            } else {
                Err(Error::WOULD_BLOCK)
            };
        }
        if peek {
            return self.incoming().peek().map(Some);
        }
        let message = self.incoming().pop().ok_or(Error::WOULD_BLOCK)?;
        if self.incoming().is_roomy() {
            self.peer().hub.notify(Events::WRITABLE);
        }
        Ok(Some(message))
    }
}
