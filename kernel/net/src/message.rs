//! Queues of whole messages: datagrams and sequenced packets.

use crate::addr::{Hardware, UnixName};
use crate::ancillary::Ancillary;
use crate::error::{Error, Result};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::sync::atomic::{AtomicUsize, Ordering};
use machine::Account;
use machine::addr::PAGE_SIZE;
use machine::io::Source;
use machine::sync::SpinLock;

/// What a message costs beside its bytes.
const OVERHEAD: usize = 128;

/// Where a message came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The one peer of a connection.
    #[default]
    Peer,
    /// A unix socket of this name.
    Unix(UnixName),
    /// An internet address, and which of ours it was sent to.
    Inet {
        /// The sender.
        from: SocketAddr,
        /// Our address in the packet.
        to: IpAddr,
        /// Time to live or hop limit left.
        ttl: u8,
        /// Type of service or traffic class.
        tos: u8,
    },
    /// The frame of a link.
    Hardware(Hardware),
}

/// A message.
#[derive(Default)]
pub struct Message {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its sender.
    pub origin: Origin,
    /// When it arrived, in nanoseconds since 1970, for sockets that want to know; else 0.
    pub time: i64,
    /// Its control data.
    pub note: Option<Box<Ancillary>>,
}

impl Message {
    /// Reads all of `src`.
    ///
    /// # Errors
    /// A fault in the program's memory, or no memory.
    pub fn from_source(src: &mut Source<'_>) -> Result<Message> {
        let mut data = Vec::new();
        data.try_reserve_exact(src.left())?;
        data.resize(src.left(), 0);
        src.take(&mut data)?;
        Ok(Message {
            data,
            ..Message::default()
        })
    }

    fn cost(&self) -> usize {
        self.data.len() + OVERHEAD
    }
}

#[derive(Default)]
struct Inner {
    queue: VecDeque<Message>,
    bytes: usize,
    pages: usize,
}

/// A bounded queue of messages, paid for by the receiver.
pub struct MessageQueue {
    account: Arc<Account>,
    inner: SpinLock<Inner>,
    count: AtomicUsize,
    bytes: AtomicUsize,
    capacity: AtomicUsize,
}

impl MessageQueue {
    /// An empty queue for `capacity` bytes, overhead included.
    #[must_use]
    pub fn new(account: Arc<Account>, capacity: usize) -> MessageQueue {
        MessageQueue {
            account,
            inner: SpinLock::new(Inner::default()),
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            capacity: AtomicUsize::new(capacity),
        }
    }

    /// Whether no message waits.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Whether senders that wait should go on.
    #[inline]
    #[must_use]
    pub fn is_roomy(&self) -> bool {
        self.bytes.load(Ordering::Acquire) <= self.capacity() / 2
    }

    /// Bytes that wait, overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Acquire)
    }

    /// Most bytes that may wait.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// Changes the capacity; what waits stays.
    pub fn set_capacity(&self, bytes: usize) {
        self.capacity.store(bytes, Ordering::Relaxed);
    }

    /// Appends a message.
    ///
    /// # Errors
    /// The message itself, if there is no room for it or no memory.
    pub fn push(&self, message: Message) -> core::result::Result<(), Message> {
        let cost = message.cost();
        let mut q = self.inner.lock();
        let fits = q.queue.is_empty() || q.bytes + cost <= self.capacity();
        if !fits || q.queue.try_reserve(1).is_err() {
            return Err(message);
        }
        let pages = (q.bytes + cost).div_ceil(PAGE_SIZE);
        if pages > q.pages {
            if self.account.charge(pages - q.pages).is_err() {
                return Err(message);
            }
            q.pages = pages;
        }
        q.bytes += cost;
        self.bytes.store(q.bytes, Ordering::Release);
        q.queue.push_back(message);
        self.count.store(q.queue.len(), Ordering::Release);
        Ok(())
    }

    /// Takes the first message.
    #[must_use]
    pub fn pop(&self) -> Option<Message> {
        if self.is_empty() {
            return None;
        }
        let mut q = self.inner.lock();
        let message = q.queue.pop_front()?;
        self.shrink(&mut q, message.cost());
        Some(message)
    }

    /// Puts a message back that could not be delivered after all.
    pub fn unpop(&self, message: Message) {
        let mut q = self.inner.lock();
        if q.queue.try_reserve(1).is_err() {
            return;
        }
        q.bytes += message.cost();
        let pages = q.bytes.div_ceil(PAGE_SIZE).saturating_sub(q.pages);
        if self.account.charge(pages).is_ok() {
            q.pages += pages;
        }
        q.queue.push_front(message);
        self.bytes.store(q.bytes, Ordering::Release);
        self.count.store(q.queue.len(), Ordering::Release);
    }

    fn shrink(&self, q: &mut Inner, cost: usize) {
        q.bytes = q.bytes.saturating_sub(cost);
        let pages = q.bytes.div_ceil(PAGE_SIZE);
        // A page more than needed stays charged, so that one message to and fro
        // does not go to the account every time.
        if pages + 1 < q.pages || q.queue.is_empty() && q.pages > 1 {
            let keep = pages.max(1);
            self.account.uncharge(q.pages.saturating_sub(keep));
            q.pages = keep.min(q.pages);
        }
        self.bytes.store(q.bytes, Ordering::Release);
        self.count.store(q.queue.len(), Ordering::Release);
    }

    /// Does something with the first message and leaves it.
    pub fn with_first<R>(&self, f: impl FnOnce(&Message) -> R) -> Option<R> {
        self.inner.lock().queue.front().map(f)
    }

    /// A copy of the first message (`MSG_PEEK`).
    ///
    /// # Errors
    /// [`Error::WOULD_BLOCK`] if there is none; no memory.
    pub fn peek(&self) -> Result<Message> {
        let q = self.inner.lock();
        let m = q.queue.front().ok_or(Error::WOULD_BLOCK)?;
        let mut data = Vec::new();
        data.try_reserve_exact(m.data.len())?;
        data.extend_from_slice(&m.data);
        Ok(Message {
            data,
            origin: m.origin.clone(),
            time: m.time,
            note: m.note.as_ref().map(|n| Box::new(n.again())),
        })
    }

    /// Bytes of the first message, 0 if there is none (`FIONREAD`).
    #[must_use]
    pub fn first_len(&self) -> usize {
        self.with_first(|m| m.data.len()).unwrap_or(0)
    }

    /// Shows `f` all control data that waits.
    pub(crate) fn for_each_note(&self, mut f: impl FnMut(&Ancillary)) {
        for note in self
            .inner
            .lock()
            .queue
            .iter()
            .filter_map(|m| m.note.as_ref())
        {
            f(note);
        }
    }

    /// Drops all that waits. Whether there was anything.
    pub fn clear(&self) -> bool {
        let mut q = self.inner.lock();
        let all = core::mem::take(&mut q.queue);
        self.account.uncharge(q.pages);
        (q.bytes, q.pages) = (0, 0);
        self.bytes.store(0, Ordering::Release);
        self.count.store(0, Ordering::Release);
        drop(q);
        // Files in control data may close here: no lock is held.
        !all.is_empty()
    }
}

impl Drop for MessageQueue {
    fn drop(&mut self) {
        self.clear();
    }
}
