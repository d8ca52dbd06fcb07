//! Unix datagram sockets.

use super::names::Target;
use super::{Style, Unix};
use crate::addr::UnixName;
use crate::error::{Error, Result};
use crate::message::{Message, MessageQueue, Origin};
use crate::options::BUFFER_DEFAULT;
use crate::stack::NetStack;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, Ordering};
use machine::sync::SpinLock;
use machine::wait::{Until, WaitQueue};
use vfs::{Events, PollHub};

const READ_SHUT: u8 = 1;
const WRITE_SHUT: u8 = 2;
const CLOSED: u8 = 4;

/// Where the datagrams of one socket come in.
pub(crate) struct Inbox {
    queue: MessageQueue,
    hub: Arc<PollHub>,
    shut: AtomicU8,
    /// The owner's name, as senders see it.
    name: SpinLock<UnixName>,
    /// The only sender it takes from, once it is connected.
    only: SpinLock<Option<Weak<Inbox>>>,
    /// Blocked senders, and the hubs of sockets connected to this one.
    room: WaitQueue,
    senders: SpinLock<Vec<Weak<PollHub>>>,
}

impl Inbox {
    pub(super) fn new(stack: &NetStack, hub: Arc<PollHub>) -> Arc<Inbox> {
        Arc::new(Inbox {
            queue: MessageQueue::new(stack.account().clone(), BUFFER_DEFAULT),
            hub,
            shut: AtomicU8::new(0),
            name: SpinLock::new(UnixName::Unnamed),
            only: SpinLock::new(None),
            room: WaitQueue::new(),
            senders: SpinLock::new(Vec::new()),
        })
    }

    pub(crate) fn queue(&self) -> &MessageQueue {
        &self.queue
    }

    pub(super) fn set_name(&self, name: UnixName) {
        *self.name.lock() = name;
    }

    /// Whether a socket was connected to this one and is there.
    pub(super) fn is_chosen(&self) -> bool {
        !self.senders.lock().is_empty()
    }

    /// What is shut, numbered as Linux does.
    pub(super) fn shut_bits(&self) -> u8 {
        self.shut.load(Ordering::Acquire) & (READ_SHUT | WRITE_SHUT)
    }

    fn is_shut(&self, bits: u8) -> bool {
        self.shut.load(Ordering::Acquire) & bits != 0
    }

    pub(super) fn shut(&self, read: bool, write: bool) {
        let bits = (u8::from(read) * READ_SHUT) | (u8::from(write) * WRITE_SHUT);
        self.shut.fetch_or(bits, Ordering::AcqRel);
        self.hub
            .notify(Events::READABLE | Events::WRITABLE | Events::RDHUP);
        self.tell_senders();
    }

    pub(super) fn close(&self) {
        self.shut.fetch_or(CLOSED, Ordering::AcqRel);
        self.queue.clear();
        self.tell_senders();
    }

    fn tell_senders(&self) {
        self.room.wake_all();
        let hubs = core::mem::take(&mut *self.senders.lock());
        for hub in hubs.iter().filter_map(Weak::upgrade) {
            hub.notify(Events::WRITABLE);
        }
        let mut list = self.senders.lock();
        for hub in hubs {
            if hub.strong_count() > 0 && list.try_reserve(1).is_ok() {
                list.push(hub);
            }
        }
    }

    /// Takes the next datagram without waiting; `None` after `SHUT_RD`.
    pub(crate) fn receive(&self, peek: bool) -> Result<Option<Message>> {
        if self.queue.is_empty() {
            return if self.is_shut(READ_SHUT) {
                Ok(None)
            } else {
                Err(Error::WOULD_BLOCK)
            };
        }
        if peek {
            return self.queue.peek().map(Some);
        }
        let was_roomy = self.queue.is_roomy();
        let message = self.queue.pop().ok_or(Error::WOULD_BLOCK)?;
        if !was_roomy && self.queue.is_roomy() {
            self.tell_senders();
        }
        Ok(Some(message))
    }
}

impl Unix {
    pub(super) fn set_peer(&self, inbox: Option<&Arc<Inbox>>, name: UnixName) {
        let Some(inbox) = inbox else { return };
        if let Some(mine) = &self.inbox {
            let mut senders = inbox.senders.lock();
            if senders.try_reserve(1).is_ok() {
                senders.push(Arc::downgrade(&mine.hub));
            }
            drop(senders);
            *mine.only.lock() = Some(Arc::downgrade(inbox));
        }
        *self.peer.lock() = Some((Arc::downgrade(inbox), name));
    }

    /// Takes back an earlier `connect` of a datagram socket.
    pub(crate) fn disconnect(&self) {
        if let Some(mine) = &self.inbox {
            *mine.only.lock() = None;
        }
        *self.peer.lock() = None;
    }

    pub(super) fn connect_datagrams(&self, stack: &NetStack, name: &UnixName) -> Result<()> {
        let inbox = find(stack, name)?;
        self.set_peer(Some(&inbox), name.clone());
        Ok(())
    }

    /// Where a datagram to `to` goes.
    ///
    /// # Errors
    /// [`Error::NotConnected`] without an address, [`Error::Refused`],
    /// [`Error::WrongType`].
    fn target(&self, stack: &NetStack, to: Option<&UnixName>) -> Result<Arc<Inbox>> {
        let inbox = match to {
            Some(name) => find(stack, name)?,
            None => {
                let peer = self.peer.lock();
                let (weak, _) = peer.as_ref().ok_or(Error::NotConnected)?;
                weak.upgrade().ok_or(Error::Refused)?
            }
        };
        if inbox.is_shut(CLOSED) {
            return Err(Error::Refused);
        }
        Ok(inbox)
    }

    /// Mark of the queue that a datagram to `to` goes into (see `rights`).
    pub(crate) fn target_mark(&self, stack: &NetStack, to: Option<&UnixName>) -> usize {
        match (to, &self.inbox) {
            (Some(_), Some(_)) => self
                .target(stack, to)
                .map_or(0, |inbox| Arc::as_ptr(&inbox) as usize),
            _ => self.outgoing_mark(),
        }
    }

    /// Sends one datagram, waiting for room unless `nonblocking`.
    ///
    /// # Errors
    /// [`Error::MessageSize`], [`Error::Refused`], [`Error::BROKEN_PIPE`],
    /// [`Error::NOT_PERMITTED`] if the receiver is connected to somebody else.
    pub(crate) fn send_datagram(
        &self,
        stack: &NetStack,
        to: Option<&UnixName>,
        mut message: Message,
        until: Option<Until>,
    ) -> Result<usize> {
        debug_assert_eq!(self.style, Style::Datagrams);
        let mine = self.inbox.as_ref().ok_or(Error::INVALID)?;
        let target = self.target(stack, to)?;
        if mine.is_shut(WRITE_SHUT) || target.is_shut(READ_SHUT) {
            return Err(Error::BROKEN_PIPE);
        }
        let only = target.only.lock().clone();
        if only.is_some_and(|o| !core::ptr::eq(o.as_ptr(), Arc::as_ptr(mine))) {
            return Err(Error::NOT_PERMITTED);
        }
        let len = message.data.len();
        message.origin = Origin::Unix(mine.name.lock().clone());
        loop {
            match target.queue.push(message) {
                Ok(()) => break,
                Err(back) => message = back,
            }
            let until = until.ok_or(Error::WOULD_BLOCK)?;
            let ready =
                || (target.queue.is_roomy() || target.is_shut(CLOSED | READ_SHUT)).then_some(());
            match target.room.wait_until(until, ready) {
                Err(machine::WaitError::TimedOut) => return Err(Error::WOULD_BLOCK),
                other => other?,
            }
            if target.is_shut(CLOSED) {
                return Err(Error::Refused);
            }
        }
        target.hub.notify(Events::READABLE);
        Ok(len)
    }

    pub(super) fn poll_datagrams(&self, inbox: &Inbox) -> Events {
        let mut e = Events::empty();
        if inbox.is_shut(READ_SHUT) {
            e |= Events::READABLE | Events::RDHUP;
        } else if !inbox.queue.is_empty() {
            e |= Events::READABLE;
        }
        if inbox.is_shut(READ_SHUT) && inbox.is_shut(WRITE_SHUT) {
            e |= Events::HUP;
        }
        let peer = self.peer.lock().as_ref().and_then(|(w, _)| w.upgrade());
        if peer.is_none_or(|p| p.queue.is_roomy()) {
            e |= Events::WRITABLE;
        }
        e
    }
}

fn find(stack: &NetStack, name: &UnixName) -> Result<Arc<Inbox>> {
    match stack.names().find(name)? {
        Target::Inbox(weak) => weak.upgrade().ok_or(Error::Refused),
        Target::Listener(_) | Target::Silent => Err(Error::WrongType),
    }
}
