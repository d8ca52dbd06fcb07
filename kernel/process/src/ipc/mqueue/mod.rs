//! POSIX message queues (mq_overview(7)). A queue is reached through a descriptor,
//! so it is a file: [`MessageQueue`].

mod notify;
mod tree;

pub use notify::{COOKIE_LEN, How, Notify};
pub use tree::tree;

use super::charge::Charge;
use super::table::Perm;
use super::{Caller, Error, Result};
use crate::Pid;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Write;
use machine::Account;
use machine::io::Sink;
use machine::sync::SpinLock;
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};
use vfs::event::{Events, PollHub};
use vfs::file::{FileOps, OpenFile, OpenFlags};
use vfs::inode::{Kind, Stat};
use vfs::pseudo::Text;
use vfs::{Caps, Credentials};

/// Queues of a world (`fs.mqueue.queues_max`).
pub const QUEUES_MAX: usize = 256;
/// Messages and bytes of one that a queue has unless it is made with others
/// (`fs.mqueue.msg_default`, `msgsize_default`).
pub const MESSAGES_DEFAULT: usize = 10;
/// Bytes of a message.
pub const BYTES_DEFAULT: usize = 8192;
const SIZE_DEFAULT: Size = Size {
    messages: MESSAGES_DEFAULT,
    bytes: BYTES_DEFAULT,
};
/// Bytes that a queue has as a file (`FILENT_SIZE`).
const STATUS_LEN: u64 = 80;
/// The most anybody can ask for without `CAP_SYS_RESOURCE` (`fs.mqueue.msg_max`,
/// `msgsize_max`).
pub const MESSAGES_MAX: usize = 10;
/// Bytes of a message.
pub const BYTES_MAX: usize = 8192;
/// The most anybody can ask for.
const MESSAGES_HARD_MAX: usize = 65_536;
const BYTES_HARD_MAX: usize = 16 << 20;
/// Priorities there are (`MQ_PRIO_MAX`).
pub const PRIORITIES: u32 = 32_768;

/// How a queue is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Most messages.
    pub messages: usize,
    /// Most bytes of one.
    pub bytes: usize,
}

/// Sends the signal of a [`Notify`]; with it go the sender's process and user.
pub type Notifier<'a> = dyn Fn(&Notify, Pid, u32) + 'a;

struct Message {
    priority: u32,
    text: Vec<u8>,
}

struct State {
    /// The highest priority first; of one priority, the eldest first.
    messages: VecDeque<Message>,
    bytes: usize,
    notify: Option<Notify>,
    /// Threads that wait to receive.
    receivers: usize,
    charge: Charge,
}

/// A queue.
pub struct MessageQueue {
    size: Size,
    perm: SpinLock<Perm>,
    state: SpinLock<State>,
    hub: PollHub,
    senders: WaitQueue,
    receiving: WaitQueue,
    created: i64,
}

/// An opening of a queue.
pub struct OpenQueue(Arc<MessageQueue>);

struct Named {
    name: Vec<u8>,
    queue: Arc<MessageQueue>,
}

/// The names of a world's queues.
#[derive(Default)]
pub struct Names(SpinLock<Vec<Named>>);

/// What a name may be: up to 255 bytes without a slash (the C library has taken the
/// leading one off).
fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Err(Error::Invalid);
    }
    if name.len() > 255 {
        return Err(Error::NameTooLong);
    }
    if name.contains(&b'/') || name == b"." || name == b".." {
        return Err(Error::Denied);
    }
    Ok(())
}

impl Names {
    /// mq_open(2). `mode` has the umask taken off; `size` is for a queue that is
    /// made, `None` for the default.
    ///
    /// # Errors
    /// See there.
    pub fn open(
        &self,
        name: &[u8],
        flags: OpenFlags,
        mode: u32,
        size: Option<Size>,
        account: &Arc<Account>,
        caller: Caller<'_>,
    ) -> Result<Arc<OpenFile>> {
        check_name(name)?;
        let charge = account.charge_file().ok_or(Error::FilesExhausted)?;
        let mut names = self.0.lock();
        let queue = match names.iter().find(|n| n.name == name) {
            Some(_) if flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) => {
                return Err(Error::Exists);
            }
            Some(n) => {
                let wanted = (u32::from(flags.reads()) << 2) | (u32::from(flags.writes()) << 1);
                n.queue.perm.lock().check(caller, wanted)?;
                n.queue.clone()
            }
            None if flags.contains(OpenFlags::CREATE) => {
                let size = check_size(size, caller.cred)?;
                add(&mut names, name, || {
                    MessageQueue::new(size, Perm::new(0, mode, caller), account)
                })?
            }
            None => return Err(Error::NotFound),
        };
        drop(names);
        let keep = OpenFlags::ACCESS | OpenFlags::NONBLOCK;
        Ok(OpenFile::new(
            Arc::new(OpenQueue(queue)),
            flags & keep,
            None,
            charge,
        ))
    }

    /// The queue called `name`.
    fn find(&self, name: &[u8]) -> Option<Arc<MessageQueue>> {
        let names = self.0.lock();
        let found = names.iter().find(|n| n.name == name)?;
        Some(found.queue.clone())
    }

    /// Removes the name `name`.
    fn remove(&self, name: &[u8]) -> Result<()> {
        let mut names = self.0.lock();
        let at = names.iter().position(|n| n.name == name);
        // In their order: whoever lists them goes by number.
        let gone = names.remove(at.ok_or(Error::NotFound)?);
        drop(names);
        drop(gone);
        Ok(())
    }

    /// Puts the name of that number into `name`; its queue's number.
    fn nth(&self, index: usize, name: &mut Vec<u8>) -> Result<Option<u64>> {
        let names = self.0.lock();
        let Some(found) = names.get(index) else {
            return Ok(None);
        };
        name.clear();
        name.try_reserve(found.name.len())?;
        name.extend_from_slice(&found.name);
        Ok(Some(found.queue.number()))
    }

    /// The process `pid` has ended: nobody has to be told on its behalf.
    pub(crate) fn forget(&self, pid: Pid) {
        // One after the other: what a queue tells then takes locks of its own.
        let mut at = 0;
        loop {
            let queue = match self.0.lock().get(at) {
                Some(n) => n.queue.clone(),
                None => return,
            };
            queue.forget(pid);
            at += 1;
        }
    }

    pub(crate) fn clear(&self) {
        let gone = core::mem::take(&mut *self.0.lock());
        drop(gone);
    }

    /// mq_unlink(2)
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Denied`].
    pub fn unlink(&self, name: &[u8], caller: Caller<'_>) -> Result<()> {
        check_name(name)?;
        let queue = self.find(name).ok_or(Error::NotFound)?;
        let owner = queue.perm.lock().uid;
        if owner != caller.cred.fsuid && !caller.cred.has(Caps::FOWNER) {
            return Err(Error::Denied);
        }
        self.remove(name)
    }
}

/// Adds the queue that `new` makes.
fn add(
    names: &mut Vec<Named>,
    name: &[u8],
    new: impl FnOnce() -> Result<Arc<MessageQueue>>,
) -> Result<Arc<MessageQueue>> {
    if names.len() >= QUEUES_MAX {
        return Err(Error::NoSpace);
    }
    let mut own = Vec::new();
    own.try_reserve_exact(name.len())?;
    own.extend_from_slice(name);
    names.try_reserve(1)?;
    let queue = new()?;
    names.push(Named {
        name: own,
        queue: queue.clone(),
    });
    Ok(queue)
}

impl MessageQueue {
    fn new(size: Size, perm: Perm, account: &Arc<Account>) -> Result<Arc<MessageQueue>> {
        let mut charge = Charge::new(account.clone());
        charge.set(size_of::<MessageQueue>())?;
        let queue = MessageQueue {
            size,
            perm: SpinLock::new(perm),
            state: SpinLock::new(State {
                messages: VecDeque::new(),
                bytes: 0,
                notify: None,
                receivers: 0,
                charge,
            }),
            hub: PollHub::new(),
            senders: WaitQueue::new(),
            receiving: WaitQueue::new(),
            created: machine::time::wall(),
        };
        Ok(Arc::new(queue))
    }

    fn forget(&self, pid: Pid) {
        let mut state = self.state.lock();
        let gone = state.notify.take_if(|n| n.pid == pid);
        drop(state);
        if let Some(notify) = gone {
            notify.withdrawn();
        }
    }

    /// A number that no other queue has.
    fn number(self: &Arc<Self>) -> u64 {
        Arc::as_ptr(self).addr() as u64
    }

    fn stat(self: &Arc<Self>) -> Stat {
        let perm = *self.perm.lock();
        Stat {
            ino: self.number(),
            nlink: 1,
            mode: Kind::File.mode() | perm.mode,
            uid: perm.uid,
            gid: perm.gid,
            size: STATUS_LEN,
            blksize: 4096,
            atime: self.created,
            mtime: self.created,
            ctime: self.created,
            ..Stat::default()
        }
    }
}

fn check_size(size: Option<Size>, cred: &Credentials) -> Result<Size> {
    let size = size.unwrap_or(SIZE_DEFAULT);
    let (messages, bytes) = match cred.has(Caps::SYS_RESOURCE) {
        true => (MESSAGES_HARD_MAX, BYTES_HARD_MAX),
        false => (MESSAGES_MAX, BYTES_MAX),
    };
    if !(1..=messages).contains(&size.messages) || !(1..=bytes).contains(&size.bytes) {
        return Err(Error::Invalid);
    }
    Ok(size)
}

impl State {
    /// Pays for what is queued.
    fn pay(&mut self, bytes: usize, messages: usize) -> Result<()> {
        let own = size_of::<MessageQueue>();
        self.charge
            .set(own + bytes + messages * size_of::<Message>())
    }

    fn insert(&mut self, message: Message) -> Result<()> {
        self.pay(self.bytes + message.text.len(), self.messages.len() + 1)?;
        self.messages.try_reserve(1)?;
        let at = self
            .messages
            .partition_point(|m| m.priority >= message.priority);
        self.bytes += message.text.len();
        self.messages.insert(at, message);
        Ok(())
    }

    fn take(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.text.len();
        // Paying for less does not fail.
        let _ = self.pay(self.bytes, self.messages.len());
        Some(message)
    }
}

impl OpenQueue {
    /// Most messages and bytes of one, and messages there are.
    #[must_use]
    pub fn size(&self) -> (Size, usize) {
        (self.0.size, self.0.state.lock().messages.len())
    }

    /// mq_timedsend(2)
    ///
    /// # Errors
    /// See there.
    pub fn send(
        &self,
        file: &OpenFile,
        text: Vec<u8>,
        priority: u32,
        deadline: Option<Instant>,
        (caller, notifier): (Caller<'_>, &Notifier<'_>),
    ) -> Result<()> {
        let q = &self.0;
        file.check_write().map_err(|_| Error::BadDescriptor)?;
        if text.len() > q.size.bytes {
            return Err(Error::MessageSize);
        }
        let mut message = Some(Message { priority, text });
        let mut told = None;
        let mut look = || {
            let mut state = q.state.lock();
            if state.messages.len() >= q.size.messages {
                return file.nonblocking().then_some(Err(Error::WouldBlock));
            }
            let outcome = message.take().map_or(Ok(()), |m| state.insert(m));
            // Somebody who waits takes it before anybody is told of it.
            if outcome.is_ok() && state.messages.len() == 1 && state.receivers == 0 {
                told = state.notify.take();
            }
            Some(outcome)
        };
        q.senders
            .wait_until(Until::deadline(deadline), &mut look)??;
        q.receiving.wake_one();
        q.hub.notify(Events::READABLE);
        if let Some(notify) = told {
            notify.come();
            notifier(&notify, caller.pid, caller.cred.uid);
        }
        Ok(())
    }

    /// mq_timedreceive(2): the message and its priority.
    ///
    /// # Errors
    /// See there.
    pub fn receive(
        &self,
        file: &OpenFile,
        max: usize,
        deadline: Option<Instant>,
    ) -> Result<(Vec<u8>, u32)> {
        let q = &self.0;
        file.check_read().map_err(|_| Error::BadDescriptor)?;
        if max < q.size.bytes {
            return Err(Error::MessageSize);
        }
        let mut waits = false;
        let mut look = || {
            let mut state = q.state.lock();
            let found = state.take();
            let wait = found.is_none() && !file.nonblocking();
            if wait != waits {
                state.receivers = match wait {
                    true => state.receivers + 1,
                    false => state.receivers.saturating_sub(1),
                };
                waits = wait;
            }
            match found {
                Some(m) => Some(Ok(m)),
                None if wait => None,
                None => Some(Err(Error::WouldBlock)),
            }
        };
        let outcome = q.receiving.wait_until(Until::deadline(deadline), &mut look);
        if waits {
            let mut state = q.state.lock();
            state.receivers = state.receivers.saturating_sub(1);
        }
        let message = outcome??;
        q.senders.wake_one();
        q.hub.notify(Events::WRITABLE);
        Ok((message.text, message.priority))
    }

    /// mq_notify(2): has `notify` told; `None` withdraws what `pid` asked for.
    ///
    /// # Errors
    /// [`Error::Busy`] if another process is to be told.
    pub fn notify(&self, pid: Pid, notify: Option<Notify>) -> Result<()> {
        let Some(notify) = notify else {
            self.0.forget(pid);
            return Ok(());
        };
        let mut state = self.0.state.lock();
        if state.notify.is_some() {
            return Err(Error::Busy);
        }
        state.notify = Some(notify);
        Ok(())
    }

    /// A descriptor of the process `pid` was closed, and with it its wish to be
    /// told.
    pub fn closed_by(&self, pid: Pid) {
        self.0.forget(pid);
    }
}

impl FileOps for OpenQueue {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_positional(&self) -> bool {
        true
    }

    fn pread(&self, _: &OpenFile, sink: &mut Sink<'_>, offset: u64) -> vfs::Result<usize> {
        let (bytes, notify) = {
            let state = self.0.state.lock();
            (state.bytes, state.notify.clone())
        };
        let mut text = Text::default();
        let (kind, signal, pid) =
            notify.map_or((0, 0, 0), |n| (n.how.kind(), n.how.signal(), n.pid));
        writeln!(
            text,
            "QSIZE:{bytes:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}"
        )
        .map_err(|_| vfs::Error::NoMemory)?;
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        Ok(sink.put(text.0.get(at..).unwrap_or(&[]))?)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        let state = self.0.state.lock();
        let mut e = Events::empty();
        if !state.messages.is_empty() {
            e |= Events::READABLE;
        }
        if state.messages.len() < self.0.size.messages {
            e |= Events::WRITABLE;
        }
        e
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.0.hub)
    }

    fn stat(&self) -> Stat {
        self.0.stat()
    }

    fn name(&self, out: &mut dyn Write) {
        let _ = out.write_str("/dev/mqueue");
    }
}
