//! Message queues (msgget(2), msgop(2), msgctl(2)).

use super::charge::Charge;
use super::{Caller, Entry, Error, Ipc, Result, Wanted, now};
use crate::Pid;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::Account;
use machine::sync::SpinLock;
use machine::wait::{Until, WaitQueue};
use vfs::Caps;

/// Most bytes of a message, and of a queue unless its owner sets more
/// (`kernel.msgmax`, `kernel.msgmnb`).
pub const MESSAGE_MAX: usize = 8192;
/// Most bytes of a queue.
pub const QUEUE_BYTES: usize = 16_384;
/// Most messages of a queue, however many bytes its owner lets in: a receiver may have
/// to look at all of them.
const MESSAGES_MAX: usize = QUEUE_BYTES;
/// Most queues (`kernel.msgmni`).
pub const QUEUES_MAX: usize = 32_000;

/// A message.
#[derive(Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type, above 0.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

impl Message {
    fn copied(&self) -> Result<Message> {
        let mut text = Vec::new();
        text.try_reserve_exact(self.text.len())?;
        text.extend_from_slice(&self.text);
        let kind = self.kind;
        Ok(Message { kind, text })
    }
}

/// Which message is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The first.
    First,
    /// The first of this type.
    Kind(i64),
    /// The first of another type (`MSG_EXCEPT`).
    Not(i64),
    /// The first of the lowest type up to this.
    UpTo(i64),
    /// A copy of the one at this place (`MSG_COPY`).
    Copy(usize),
}

/// What msgctl(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of msgctl(2)")]
pub struct Status {
    pub sent: i64,
    pub received: i64,
    pub bytes: usize,
    pub messages: usize,
    pub bytes_max: usize,
    pub sender: Pid,
    pub receiver: Pid,
}

struct State {
    messages: VecDeque<Message>,
    status: Status,
    charge: Charge,
    removed: bool,
}

/// A message queue.
pub struct Queue {
    state: SpinLock<State>,
    senders: WaitQueue,
    receivers: WaitQueue,
}

impl State {
    fn find(&self, which: Which) -> Option<usize> {
        let position = |f: &dyn Fn(&Message) -> bool| self.messages.iter().position(f);
        match which {
            Which::First => (!self.messages.is_empty()).then_some(0),
            Which::Kind(k) => position(&|m| m.kind == k),
            Which::Not(k) => position(&|m| m.kind != k),
            Which::Copy(at) => (at < self.messages.len()).then_some(at),
            Which::UpTo(most) => {
                let fits = self
                    .messages
                    .iter()
                    .enumerate()
                    .filter(|(_, m)| m.kind <= most);
                fits.min_by_key(|(at, m)| (m.kind, *at)).map(|(at, _)| at)
            }
        }
    }

    fn has_room(&self, len: usize) -> bool {
        let s = &self.status;
        s.bytes + len <= s.bytes_max && s.messages < s.bytes_max.min(MESSAGES_MAX)
    }

    /// Pays for what is queued: texts, and what each message takes besides.
    fn pay(&mut self, bytes: usize, messages: usize) -> Result<()> {
        self.charge
            .set(bytes + messages * size_of::<Message>() + size_of::<Queue>())
    }

    fn add(&mut self, message: Message, pid: Pid) -> Result<()> {
        let s = self.status;
        self.pay(s.bytes + message.text.len(), s.messages + 1)?;
        self.messages.try_reserve(1)?;
        self.status.bytes += message.text.len();
        self.status.messages += 1;
        (self.status.sent, self.status.sender) = (now(), pid);
        self.messages.push_back(message);
        Ok(())
    }

    fn take(&mut self, at: usize, pid: Pid) -> Option<Message> {
        let message = self.messages.remove(at)?;
        self.status.bytes -= message.text.len();
        self.status.messages -= 1;
        (self.status.received, self.status.receiver) = (now(), pid);
        let s = self.status;
        // Paying for less does not fail.
        let _ = self.pay(s.bytes, s.messages);
        Some(message)
    }
}

impl Queue {
    /// What is known of it.
    #[must_use]
    pub fn status(&self) -> Status {
        self.state.lock().status
    }

    fn send(&self, message: Message, wait: bool, pid: Pid) -> Result<()> {
        let mut message = Some(message);
        let mut look = || {
            let mut state = self.state.lock();
            if state.removed {
                return Some(Err(Error::Removed));
            }
            let len = message.as_ref().map_or(0, |m| m.text.len());
            if !state.has_room(len) {
                return (!wait).then_some(Err(Error::WouldBlock));
            }
            Some(message.take().map_or(Ok(()), |m| state.add(m, pid)))
        };
        self.senders.wait_until(Until::INTERRUPTED, &mut look)??;
        self.receivers.wake_all();
        Ok(())
    }

    /// Receives a message of at most `max` bytes; a longer one is cut if `cut`.
    fn receive(
        &self,
        which: Which,
        max: usize,
        cut: bool,
        wait: bool,
        pid: Pid,
    ) -> Result<Message> {
        let mut look = || {
            let mut state = self.state.lock();
            if state.removed {
                return Some(Err(Error::Removed));
            }
            let Some(at) = state.find(which) else {
                return (!wait).then_some(Err(Error::NoMessage));
            };
            let len = state.messages.get(at).map_or(0, |m| m.text.len());
            if len > max && !cut {
                return Some(Err(Error::TooBig));
            }
            match which {
                Which::Copy(_) => state.messages.get(at).map(Message::copied),
                _ => state.take(at, pid).map(Ok),
            }
        };
        let mut message = self.receivers.wait_until(Until::INTERRUPTED, &mut look)??;
        message.text.truncate(max);
        if !matches!(which, Which::Copy(_)) {
            self.senders.wake_all();
        }
        Ok(message)
    }
}

impl Ipc {
    /// msgget(2)
    ///
    /// # Errors
    /// See there.
    pub fn msgget(
        &self,
        wanted: Wanted,
        account: &Arc<Account>,
        caller: Caller<'_>,
    ) -> Result<i32> {
        let make = |_| {
            let mut charge = Charge::new(account.clone());
            charge.set(size_of::<Queue>())?;
            Ok(Arc::new(Queue {
                state: SpinLock::new(State {
                    messages: VecDeque::new(),
                    status: Status {
                        bytes_max: QUEUE_BYTES,
                        ..Status::default()
                    },
                    charge,
                    removed: false,
                }),
                senders: WaitQueue::new(),
                receivers: WaitQueue::new(),
            }))
        };
        let mut table = self.msg.lock();
        table.get(wanted, caller, QUEUES_MAX, |_| Ok(()), make)
    }

    /// msgsnd(2)
    ///
    /// # Errors
    /// See there.
    pub fn msgsnd(&self, id: i32, message: Message, wait: bool, caller: Caller<'_>) -> Result<()> {
        if message.kind < 1 || message.text.len() > MESSAGE_MAX {
            return Err(Error::Invalid);
        }
        let queue = self.msg.lock().open(id, caller, 2)?;
        queue.send(message, wait, caller.pid)
    }

    /// msgrcv(2): a message of at most `max` bytes; a longer one is cut if `cut`.
    ///
    /// # Errors
    /// See there.
    pub fn msgrcv(
        &self,
        id: i32,
        which: Which,
        max: usize,
        cut: bool,
        wait: bool,
        caller: Caller<'_>,
    ) -> Result<Message> {
        let queue = self.msg.lock().open(id, caller, 4)?;
        queue.receive(which, max, cut, wait, caller.pid)
    }

    /// Removes a queue; those who wait learn it (`IPC_RMID`).
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    pub fn msg_remove(&self, id: i32, caller: Caller<'_>) -> Result<()> {
        let gone = self.msg.lock().remove(id, caller)?;
        gone.object.state.lock().removed = true;
        gone.object.senders.wake_all();
        gone.object.receivers.wake_all();
        Ok(())
    }

    /// Sets owner, mode, and most bytes (`IPC_SET`).
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotPermitted`], also for more bytes than
    /// [`QUEUE_BYTES`] without `CAP_SYS_RESOURCE`.
    pub fn msg_set(
        &self,
        id: i32,
        caller: Caller<'_>,
        new: (u32, u32, u32),
        bytes_max: usize,
    ) -> Result<()> {
        let mut table = self.msg.lock();
        table.entry(id)?.perm.check_owner(caller)?;
        if bytes_max > QUEUE_BYTES && !caller.cred.has(Caps::SYS_RESOURCE) {
            return Err(Error::NotPermitted);
        }
        let queue = table.set(id, caller, new)?.clone();
        drop(table);
        queue.state.lock().status.bytes_max = bytes_max;
        queue.senders.wake_all();
        queue.receivers.wake_all();
        Ok(())
    }

    /// A queue, by identifier, for a caller who may read it.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn msg_entry(&self, id: i32, caller: Caller<'_>) -> Result<Entry<Queue>> {
        let entry = self.msg.lock().entry(id)?.clone();
        entry.perm.check(caller, 4)?;
        Ok(entry)
    }

    /// The same by place in the table; `any` asks for no right.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Denied`].
    pub fn msg_entry_at(
        &self,
        place: usize,
        any: bool,
        caller: Caller<'_>,
    ) -> Result<Entry<Queue>> {
        let entry = self.msg.lock().at(place)?.clone();
        if !any {
            entry.perm.check(caller, 4)?;
        }
        Ok(entry)
    }

    /// Queues there are, the highest place taken, messages and bytes of all.
    #[must_use]
    pub fn msg_totals(&self) -> (usize, usize, usize, usize) {
        let table = self.msg.lock();
        let (mut messages, mut bytes) = (0, 0);
        for e in table.iter() {
            let s = e.object.status();
            messages += s.messages;
            bytes += s.bytes;
        }
        (table.len(), table.last_place(), messages, bytes)
    }
}
