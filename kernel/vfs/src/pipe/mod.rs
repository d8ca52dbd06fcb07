//! Pipes (pipe(7)) and named pipes (fifo(7)).
//!
//! A [`Pipe`] is a ring of segments behind a sleeping lock, which is held during
//! the copy from or to the program, so that writes of up to `PIPE_BUF` bytes are
//! atomic. What blocked and polling threads look at, the number of bytes and of
//! the ends, is kept in atomics beside it.

mod fifo;
mod ring;
#[cfg(test)]
mod tests;

pub use fifo::FifoSlot;

use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use crate::file::{FileOps, OpenFile, OpenFlags, Opening};
use crate::inode::{Kind, Stat};
use alloc::sync::Arc;
use core::any::Any;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use machine::Account;
use machine::addr::PAGE_SIZE;
use machine::io::{Sink, Source};
use machine::sync::Mutex;
use machine::thread;
use machine::wait::Until;
use ring::Ring;

/// Segments of a new pipe: 64 KiB.
const SLOTS_DEFAULT: usize = 16;
/// The most bytes anybody without `CAP_SYS_RESOURCE` can ask for
/// (`fs.pipe-max-size`).
pub const SIZE_MAX: usize = 1 << 20;
/// `FIONREAD` of ioctl_tty(2).
const FIONREAD: u32 = 0x541b;

/// A pipe, shared by its ends.
pub struct Pipe {
    ino: u64,
    account: Arc<Account>,
    ring: Mutex<Ring>,
    hub: PollHub,
    /// What the ring holds, for those who look without the lock.
    bytes: AtomicUsize,
    full: AtomicBool,
    readers: AtomicUsize,
    writers: AtomicUsize,
    /// How often an end was opened, for those who wait for it.
    readers_seen: AtomicU64,
    writers_seen: AtomicU64,
}

impl Pipe {
    fn new(account: Arc<Account>) -> Arc<Pipe> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Arc::new(Pipe {
            ino: NEXT.fetch_add(1, Relaxed),
            account,
            ring: Mutex::new(Ring::new(SLOTS_DEFAULT)),
            hub: PollHub::new(),
            bytes: AtomicUsize::new(0),
            full: AtomicBool::new(false),
            readers: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            readers_seen: AtomicU64::new(0),
            writers_seen: AtomicU64::new(0),
        })
    }

    /// Publishes what the ring holds after a change.
    #[inline]
    fn publish(&self, ring: &Ring) {
        self.bytes.store(ring.bytes(), Relaxed);
        self.full.store(ring.is_full(), Relaxed);
    }

    fn read(&self, sink: &mut Sink<'_>, wait: bool) -> Result<usize> {
        if sink.left() == 0 {
            return Ok(0);
        }
        loop {
            let mut ring = self.ring.lock();
            if ring.bytes() > 0 {
                let was_full = ring.is_full();
                let n = ring.drain(sink);
                self.publish(&ring);
                let (freed, left) = (was_full && !ring.is_full(), ring.bytes() > 0);
                drop(ring);
                if freed {
                    self.hub.notify(Events::WRITABLE);
                }
                if left {
                    self.hub.pass_on(Events::READABLE);
                }
                return n;
            }
            drop(ring);
            if self.writers.load(Relaxed) == 0 {
                return Ok(0);
            }
            if !wait {
                return Err(Error::WouldBlock);
            }
            let ready = || self.bytes.load(Relaxed) > 0 || self.writers.load(Relaxed) == 0;
            self.hub
                .wait_readable(Until::INTERRUPTED, || ready().then_some(()))?;
        }
    }

    fn write(&self, source: &mut Source<'_>, wait: bool, packet: bool) -> Result<usize> {
        let before = source.moved();
        let total = source.left();
        loop {
            if self.readers.load(Relaxed) == 0 {
                return partial(source.moved() - before, Error::BrokenPipe);
            }
            if source.left() == 0 {
                return Ok(total);
            }
            let mut ring = self.ring.lock();
            let fits = ring.takes(source.left());
            if fits {
                let n = ring.fill(source, packet, &self.account);
                self.publish(&ring);
                drop(ring);
                self.hub.notify_one(Events::READABLE);
                if let Err(e) = n {
                    return partial(source.moved() - before, e);
                }
                // A reader on another CPU may make room as fast as this fills it.
                thread::cond_resched();
                continue;
            }
            drop(ring);
            if !wait {
                return partial(source.moved() - before, Error::WouldBlock);
            }
            let ready = || !self.full.load(Relaxed) || self.readers.load(Relaxed) == 0;
            if let Err(e) = self
                .hub
                .wait_writable(Until::INTERRUPTED, || ready().then_some(()))
            {
                return partial(source.moved() - before, e);
            }
        }
    }
}

/// What a transfer that was stopped by `e` after `n` bytes answers.
fn partial(n: usize, e: Error) -> Result<usize> {
    if n > 0 { Ok(n) } else { Err(e) }
}

/// One end of a pipe, or both of a named pipe opened for reading and writing.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// Writers there had been when this end was opened: without a new one since,
    /// their absence is no hang-up.
    writers_before: u64,
}

/// A new pipe: its reading and its writing end (pipe2(2)).
///
/// # Errors
/// [`Error::NoMemory`], [`Error::FilesExhausted`].
pub fn pipe(account: Arc<Account>, flags: OpenFlags) -> Result<(Arc<OpenFile>, Arc<OpenFile>)> {
    let charge = || account.charge_file().ok_or(Error::FilesExhausted);
    let charges = (charge()?, charge()?);
    let pipe = Pipe::new(account);
    let keep = flags.intersection(OpenFlags::NONBLOCK | OpenFlags::DIRECT);
    let read = PipeEnd::new(&pipe, true, false);
    let write = PipeEnd::new(&pipe, false, true);
    Ok((
        OpenFile::new(Arc::new(read), keep, None, charges.0),
        OpenFile::new(
            Arc::new(write),
            keep | OpenFlags::WRITE_ONLY,
            None,
            charges.1,
        ),
    ))
}

impl PipeEnd {
    fn new(pipe: &Arc<Pipe>, reads: bool, writes: bool) -> PipeEnd {
        let writers_before = pipe.writers_seen.load(Relaxed);
        if reads {
            pipe.readers.fetch_add(1, Relaxed);
            pipe.readers_seen.fetch_add(1, Relaxed);
        }
        if writes {
            pipe.writers.fetch_add(1, Relaxed);
            pipe.writers_seen.fetch_add(1, Relaxed);
        }
        PipeEnd {
            pipe: pipe.clone(),
            reads,
            writes,
            writers_before: if pipe.writers.load(Relaxed) > 0 {
                u64::MAX
            } else {
                writers_before
            },
        }
    }

    /// Whether `other` is an end of the same pipe.
    #[must_use]
    pub fn same_pipe(&self, other: &PipeEnd) -> bool {
        Arc::ptr_eq(&self.pipe, &other.pipe)
    }

    /// Bytes the pipe can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pipe.ring.lock().slots() * PAGE_SIZE
    }

    /// Has the pipe hold at least `bytes` (`F_SETPIPE_SZ`); what it holds now.
    ///
    /// # Errors
    /// [`Error::Busy`] if more is in it; [`Error::NotPermitted`] above
    /// [`SIZE_MAX`] unless `privileged`; [`Error::Invalid`].
    pub fn set_capacity(&self, bytes: usize, privileged: bool) -> Result<usize> {
        // The privileged have a limit, too: slots are kernel memory.
        if bytes > 1 << 31 || bytes > SIZE_MAX * 16 {
            return Err(Error::Invalid);
        }
        if bytes > SIZE_MAX && !privileged {
            return Err(Error::NotPermitted);
        }
        let slots = bytes.div_ceil(PAGE_SIZE).max(1).next_power_of_two();
        let mut ring = self.pipe.ring.lock();
        ring.resize(slots)?;
        self.pipe.publish(&ring);
        drop(ring);
        self.pipe.hub.notify(Events::WRITABLE);
        Ok(slots * PAGE_SIZE)
    }

    /// Bytes in the pipe now.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.pipe.bytes.load(Relaxed)
    }

    /// Writes as much as there is room for.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if that is nothing; [`Error::BrokenPipe`].
    pub fn write_now(&self, source: &mut Source<'_>) -> Result<usize> {
        self.pipe.write(source, false, false)
    }

    /// Copies bytes without taking them (`tee`).
    #[must_use]
    pub fn peek(&self, out: &mut [u8]) -> usize {
        self.pipe.ring.lock().peek(out)
    }

    /// Puts bytes back in front that were read and could not be passed on.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn unread(&self, bytes: &[u8]) -> Result<()> {
        let mut ring = self.pipe.ring.lock();
        let put = ring.unread(bytes, &self.pipe.account);
        self.pipe.publish(&ring);
        drop(ring);
        self.pipe.hub.notify(Events::READABLE);
        put
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let pipe = &self.pipe;
        if self.reads && pipe.readers.fetch_sub(1, Relaxed) == 1 {
            pipe.hub.notify(Events::WRITABLE | Events::ERR);
        }
        if self.writes && pipe.writers.fetch_sub(1, Relaxed) == 1 {
            pipe.hub.notify(Events::READABLE | Events::HUP);
        }
    }
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read(&self, file: &OpenFile, sink: &mut Sink<'_>) -> Result<usize> {
        self.pipe.read(sink, !file.nonblocking())
    }

    fn write(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<usize> {
        let packet = file.flags().contains(OpenFlags::DIRECT);
        self.pipe.write(source, !file.nonblocking(), packet)
    }

    fn poll(&self, _: &OpenFile) -> Events {
        let pipe = &self.pipe;
        let mut e = Events::empty();
        if self.reads {
            if pipe.bytes.load(Relaxed) > 0 {
                e |= Events::READABLE;
            }
            let had_writers = pipe.writers_seen.load(Relaxed) != self.writers_before;
            if pipe.writers.load(Relaxed) == 0 && had_writers {
                e |= Events::HUP;
            }
        }
        if self.writes {
            if !pipe.full.load(Relaxed) {
                e |= Events::WRITABLE;
            }
            if pipe.readers.load(Relaxed) == 0 {
                e |= Events::ERR;
            }
        }
        e
    }

    fn hub(&self) -> Option<&PollHub> {
        Some(&self.pipe.hub)
    }

    fn ioctl(&self, _: &OpenFile, command: u32, arg: usize) -> Result<usize> {
        if command != FIONREAD {
            return Err(Error::NotTerminal);
        }
        let n = i32::try_from(self.queued()).unwrap_or(i32::MAX);
        machine::user::write_value(arg, &n)?;
        Ok(0)
    }

    fn stat(&self) -> Stat {
        Stat {
            ino: self.pipe.ino,
            nlink: 1,
            mode: Kind::Fifo.mode() | 0o600,
            blksize: PAGE_SIZE as u32,
            ..Stat::default()
        }
    }

    fn name(&self, out: &mut dyn Write) {
        let _ = write!(out, "pipe:[{}]", self.pipe.ino);
    }

    fn reopen(self: Arc<Self>, _: &OpenFile, how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        let (reads, writes) = (how.flags.reads(), how.flags.writes());
        Ok(Arc::new(PipeEnd::new(&self.pipe, reads, writes)))
    }
}
