//! Open files: the [`FileOps`] of an object and the [`OpenFile`] (Linux's "open
//! file description") that descriptors refer to.

use crate::block::Disk;
use crate::cred::Credentials;
use crate::error::{Error, Result};
use crate::event::{Events, PollHub};
use crate::inode::{Inode, Stat};
use crate::inotify::{self, Mask};
use crate::locks::Owner;
use crate::mount::Path;
pub use crate::openflags::OpenFlags;
pub use crate::seek::Seek;
use crate::sigio::{Async, Target};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use machine::addr::PAGE_SIZE;
use machine::io::{Sink, Source};
use machine::sync::{Mutex, SpinLock};
use machine::{FileCharge, PageCharge};

/// Who opens what, and how.
pub struct Opening<'a> {
    /// The flags of the open.
    pub flags: OpenFlags,
    /// Whose rights count.
    pub cred: &'a Credentials,
    /// Where the object was found.
    pub path: &'a Path,
}

/// What mmap(2) of a file maps.
pub enum Mappable {
    /// The pages of an object.
    Object(Arc<dyn mm::Backing>),
    /// Fresh memory (`/dev/zero`).
    Anonymous,
}

/// What an open object can do. Everything has a default, namely that it cannot.
///
/// A transfer that moved some bytes before it failed gives their number, not the
/// error.
pub trait FileOps: Any + Send + Sync {
    /// Itself, for a room that looks for its own type behind a descriptor.
    fn as_any(&self) -> &dyn Any;

    /// Whether it has a position, so that reads and writes come as
    /// [`FileOps::pread`] and [`FileOps::pwrite`]. Asked once, when it is opened.
    fn is_positional(&self) -> bool {
        false
    }

    /// Reads from a stream, waiting for the first byte unless the file is
    /// non-blocking; 0 is the end.
    ///
    /// # Errors
    /// [`Error::WouldBlock`], [`Error::Interrupted`], [`Error::Invalid`] if it
    /// cannot be read at all.
    fn read(&self, _file: &OpenFile, _sink: &mut Sink<'_>) -> Result<usize> {
        Err(Error::Invalid)
    }

    /// Writes to a stream, waiting for room unless the file is non-blocking.
    ///
    /// # Errors
    /// [`Error::BrokenPipe`], [`Error::WouldBlock`], [`Error::Interrupted`],
    /// [`Error::Invalid`].
    fn write(&self, _file: &OpenFile, _source: &mut Source<'_>) -> Result<usize> {
        Err(Error::Invalid)
    }

    /// Reads from `offset` on.
    ///
    /// # Errors
    /// [`Error::NotSeekable`] for streams.
    fn pread(&self, _file: &OpenFile, _sink: &mut Sink<'_>, _offset: u64) -> Result<usize> {
        Err(Error::NotSeekable)
    }

    /// Writes from `offset` on.
    ///
    /// # Errors
    /// [`Error::NotSeekable`] for streams.
    fn pwrite(&self, _file: &OpenFile, _source: &mut Source<'_>, _offset: u64) -> Result<usize> {
        Err(Error::NotSeekable)
    }

    /// Writes to the end, wherever that is by then; bytes written and the new end.
    ///
    /// # Errors
    /// As [`FileOps::pwrite`].
    fn append(&self, file: &OpenFile, source: &mut Source<'_>) -> Result<(usize, u64)> {
        self.pwrite(file, source, 0).map(|n| (n, 0))
    }

    /// Computes a new position from the old one.
    ///
    /// # Errors
    /// [`Error::NotSeekable`]; [`Error::Invalid`] before the start; `NoDevice`
    /// when there is no more data or hole.
    fn seek(&self, _file: &OpenFile, _from: u64, _to: Seek) -> Result<u64> {
        Err(Error::NotSeekable)
    }

    /// What can be done without waiting now. Must not wait.
    fn poll(&self, _file: &OpenFile) -> Events {
        Events::READABLE | Events::WRITABLE
    }

    /// Where changes of [`FileOps::poll`] are announced; `None` if its answer
    /// never changes.
    fn hub(&self) -> Option<&PollHub> {
        None
    }

    /// Device control. `arg` is often the address of a structure of the program.
    ///
    /// # Errors
    /// [`Error::NotTerminal`] for commands that are not this object's.
    fn ioctl(&self, _file: &OpenFile, _command: u32, _arg: usize) -> Result<usize> {
        Err(Error::NotTerminal)
    }

    /// Sets the size of a regular file (ftruncate(2)).
    ///
    /// # Errors
    /// [`Error::Invalid`] for what has none.
    fn truncate(&self, _file: &OpenFile, _len: u64) -> Result<()> {
        Err(Error::Invalid)
    }

    /// What mmap(2) maps; `to_write` says that it is shared and may be written through, now or
    /// after an mprotect(2).
    ///
    /// # Errors
    /// [`Error::NotSuchDevice`] for what cannot be mapped, [`Error::NotPermitted`] for what is
    /// sealed against writing.
    fn mapping(self: Arc<Self>, _file: &OpenFile, _to_write: bool) -> Result<Mappable> {
        Err(Error::NotSuchDevice)
    }

    /// Opens an object without a path once more, through `/proc/PID/fd/N`.
    ///
    /// # Errors
    /// [`Error::NoDevice`] for what cannot be opened by name.
    fn reopen(self: Arc<Self>, _file: &OpenFile, _how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Err(Error::NoDevice)
    }

    /// What fstat(2) tells of an object without an inode.
    fn stat(&self) -> Stat {
        Stat::default()
    }

    /// Reserves or releases space (fallocate(2), `mode` as there).
    ///
    /// # Errors
    /// [`Error::NoDevice`] for what is no file; [`Error::Unsupported`].
    fn fallocate(&self, _file: &OpenFile, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Error::NotSuchDevice)
    }

    /// Makes what was written safe.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what has no storage; [`Error::Io`].
    fn sync(&self, _file: &OpenFile) -> Result<()> {
        Err(Error::Invalid)
    }

    /// The text of `/proc/PID/fdinfo/N` after the common lines.
    fn info(&self, _file: &OpenFile, _out: &mut dyn core::fmt::Write) {}

    /// What `/proc/PID/fd/N` shows for an object without a path, such as
    /// `pipe:[17]`.
    fn name(&self, out: &mut dyn core::fmt::Write) {
        let _ = out.write_str("anon_inode:[file]");
    }

    /// The last descriptor of this description is gone.
    fn release(&self, _file: &OpenFile) {}
}

/// Somebody who wants to know when an [`OpenFile`] ends (an epoll's entry).
pub trait Closing: Send + Sync {
    /// The description `file` is about to end.
    fn closed(&self, file: &OpenFile);
}

/// An open file description (open(2)): what descriptors share after `dup` and
/// `fork`.
pub struct OpenFile {
    ops: Arc<dyn FileOps>,
    path: Option<Path>,
    id: u64,
    flags: AtomicU32,
    positional: bool,
    disk: bool,
    position: Mutex<u64>,
    /// Who gets which signal about readiness.
    pub(crate) target: SpinLock<Target>,
    /// Signals about readiness, with `O_ASYNC`.
    pub(crate) signals: SpinLock<Option<Async>>,
    /// Whether `closing` has entries, so that the usual end takes no lock.
    watched: AtomicBool,
    closing: SpinLock<Vec<Weak<dyn Closing>>>,
    /// Its place among the open files of its capsule, given back when it is gone.
    charge: FileCharge,
    /// Counts among those who write its inode.
    writes: bool,
}

impl core::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "OpenFile({})", self.id)
    }
}

impl OpenFile {
    /// A description of `ops`, which was found at `path` unless it has no name.
    /// `charge` is what it takes of its capsule's open files; who makes it gets
    /// that first, before anything happens that a refusal could not undo.
    pub fn new(
        ops: Arc<dyn FileOps>,
        flags: OpenFlags,
        path: Option<Path>,
        charge: FileCharge,
    ) -> Arc<OpenFile> {
        OpenFile::opened(ops, flags, path, charge, false)
    }

    /// The same; with `writes` its inode has counted it among its writers.
    pub(crate) fn opened(
        ops: Arc<dyn FileOps>,
        flags: OpenFlags,
        path: Option<Path>,
        charge: FileCharge,
        writes: bool,
    ) -> Arc<OpenFile> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let positional = ops.is_positional();
        let disk = positional && ops.as_any().is::<Disk>();
        Arc::new(OpenFile {
            ops,
            path,
            id: NEXT.fetch_add(1, Relaxed),
            flags: AtomicU32::new(flags.difference(OpenFlags::OPENING_ONLY).bits()),
            positional,
            disk,
            position: Mutex::new(0),
            target: SpinLock::new(Target::default()),
            signals: SpinLock::new(None),
            watched: AtomicBool::new(false),
            closing: SpinLock::new(Vec::new()),
            charge,
            writes,
        })
    }

    /// A number no other description has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Charges `bytes` that the object keeps for this description, as whole pages;
    /// less than one costs nothing.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn hold(&self, bytes: usize) -> Result<PageCharge> {
        Ok(self.charge.hold(bytes / PAGE_SIZE)?)
    }

    /// The object.
    #[inline]
    #[must_use]
    pub fn ops(&self) -> &Arc<dyn FileOps> {
        &self.ops
    }

    /// The object as a `T`, if it is one.
    #[inline]
    #[must_use]
    pub fn downcast<T: FileOps>(&self) -> Option<&T> {
        self.ops.as_any().downcast_ref()
    }

    /// Where it was found.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_ref()
    }

    /// Its inode, if it has a name.
    #[inline]
    #[must_use]
    pub fn inode(&self) -> Option<&Arc<dyn Inode>> {
        self.path.as_ref()?.dentry.inode()
    }

    /// Flags as `fcntl(F_GETFL)` tells them.
    #[inline]
    #[must_use]
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Relaxed))
    }

    /// Changes those of [`OpenFlags::SETTABLE`].
    pub fn set_flags(&self, new: OpenFlags) {
        let keep = !OpenFlags::SETTABLE.bits();
        let set = new.bits() & OpenFlags::SETTABLE.bits();
        let _ = self
            .flags
            .fetch_update(Relaxed, Relaxed, |old| Some(old & keep | set));
    }

    /// Sets or clears `O_NONBLOCK` (`ioctl(FIONBIO)`).
    pub fn set_nonblocking(&self, on: bool) {
        let bit = OpenFlags::NONBLOCK.bits();
        if on {
            self.flags.fetch_or(bit, Relaxed);
        } else {
            self.flags.fetch_and(!bit, Relaxed);
        }
    }

    /// Whether it must not wait.
    #[inline]
    #[must_use]
    pub fn nonblocking(&self) -> bool {
        self.flags.load(Relaxed) & OpenFlags::NONBLOCK.bits() != 0
    }

    /// Whether it only names an object (`O_PATH`).
    #[inline]
    #[must_use]
    pub fn is_path_only(&self) -> bool {
        self.flags.load(Relaxed) & OpenFlags::PATH.bits() != 0
    }

    /// Whether it has a position.
    #[must_use]
    pub fn is_positional(&self) -> bool {
        self.positional
    }

    /// Whether it is a disk: what is read and written goes to a device.
    #[inline]
    #[must_use]
    pub fn is_disk(&self) -> bool {
        self.disk
    }

    /// Fails unless it is open for reading.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    #[inline]
    pub fn check_read(&self) -> Result<()> {
        self.flags()
            .reads()
            .then_some(())
            .ok_or(Error::BadDescriptor)
    }

    /// Fails unless it is open for writing.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    #[inline]
    pub fn check_write(&self) -> Result<()> {
        self.flags()
            .writes()
            .then_some(())
            .ok_or(Error::BadDescriptor)
    }

    /// `read(2)`.
    ///
    /// # Errors
    /// Those of the object; [`Error::BadDescriptor`] if it is not open for reading.
    #[inline]
    pub fn read(&self, sink: &mut Sink<'_>) -> Result<usize> {
        self.check_read()?;
        if !self.positional {
            return self.ops.read(self, sink);
        }
        let mut position = self.position.lock();
        let n = self.ops.pread(self, sink, *position)?;
        *position += n as u64;
        self.happened(Mask::ACCESS);
        Ok(n)
    }

    /// `write(2)`.
    ///
    /// # Errors
    /// Those of the object; [`Error::BadDescriptor`] if it is not open for writing.
    #[inline]
    pub fn write(&self, source: &mut Source<'_>) -> Result<usize> {
        self.check_write()?;
        if !self.positional {
            return self.ops.write(self, source);
        }
        let mut position = self.position.lock();
        if self.flags().contains(OpenFlags::APPEND) {
            let (n, end) = self.ops.append(self, source)?;
            *position = end;
            self.happened(Mask::MODIFY);
            return Ok(n);
        }
        let n = self.ops.pwrite(self, source, *position)?;
        *position += n as u64;
        self.happened(Mask::MODIFY);
        Ok(n)
    }

    /// `pread(2)`.
    ///
    /// # Errors
    /// As [`OpenFile::read`]; [`Error::NotSeekable`] for streams.
    #[inline]
    pub fn pread(&self, sink: &mut Sink<'_>, offset: u64) -> Result<usize> {
        self.check_read().map_err(|e| self.unless_stream(e))?;
        let n = self.ops.pread(self, sink, offset)?;
        self.happened(Mask::ACCESS);
        Ok(n)
    }

    /// That a stream has no offsets comes before that it is not open for this.
    #[cold]
    fn unless_stream(&self, error: Error) -> Error {
        match self.positional || self.is_path_only() {
            true => error,
            false => Error::NotSeekable,
        }
    }

    /// `pwrite(2)`; as on Linux, a file opened for appending is appended to.
    ///
    /// # Errors
    /// As [`OpenFile::write`]; [`Error::NotSeekable`] for streams.
    #[inline]
    pub fn pwrite(&self, source: &mut Source<'_>, offset: u64) -> Result<usize> {
        self.check_write().map_err(|e| self.unless_stream(e))?;
        let n = if self.positional && self.flags().contains(OpenFlags::APPEND) {
            self.ops.append(self, source)?.0
        } else {
            self.ops.pwrite(self, source, offset)?
        };
        self.happened(Mask::MODIFY);
        Ok(n)
    }

    /// `ftruncate(2)`.
    ///
    /// # Errors
    /// Those of the object; [`Error::Invalid`] if it is not open for writing.
    pub fn truncate(&self, len: u64) -> Result<()> {
        self.check_write().map_err(|_| Error::Invalid)?;
        self.ops.truncate(self, len)?;
        self.happened(Mask::MODIFY);
        Ok(())
    }

    /// Tells those who watch the file, if anybody watches any.
    #[inline]
    pub(crate) fn happened(&self, mask: Mask) {
        if inotify::is_used()
            && let Some(path) = &self.path
            && !self.is_path_only()
        {
            inotify::object(&path.dentry, mask);
        }
    }

    /// `lseek(2)`; the new position.
    ///
    /// # Errors
    /// [`Error::NotSeekable`], [`Error::Invalid`].
    pub fn seek(&self, to: Seek) -> Result<u64> {
        if self.is_path_only() {
            return Err(Error::BadDescriptor);
        }
        let mut position = self.position.lock();
        let new = self.ops.seek(self, *position, to)?;
        *position = new;
        Ok(new)
    }

    /// Does something with the position while nobody else can (`sendfile`, a
    /// directory's listing).
    pub fn with_position<R>(&self, f: impl FnOnce(&mut u64) -> R) -> R {
        f(&mut self.position.lock())
    }

    /// The position, for information.
    #[must_use]
    pub fn position(&self) -> u64 {
        *self.position.lock()
    }

    /// What can be done without waiting now.
    #[inline]
    #[must_use]
    pub fn poll(&self) -> Events {
        self.ops.poll(self)
    }

    /// `fstat(2)`.
    #[must_use]
    pub fn stat(&self) -> Stat {
        match self.inode() {
            Some(i) => i.stat(),
            None => self.ops.stat(),
        }
    }

    /// Sets or clears `O_ASYNC`.
    pub(crate) fn set_async_flag(&self, on: bool) {
        let bit = OpenFlags::ASYNC.bits();
        if on {
            self.flags.fetch_or(bit, Relaxed);
        } else {
            self.flags.fetch_and(!bit, Relaxed);
        }
    }

    /// Has `who` told when this description ends.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn tell_closing(&self, who: Weak<dyn Closing>) -> Result<()> {
        let mut list = self.closing.lock();
        // Entries of watchers that are gone would pile up on a long-lived file.
        if list.len() == list.capacity() {
            list.retain(|w| w.strong_count() > 0);
        }
        list.try_reserve(1)?;
        list.push(who);
        self.watched.store(true, Relaxed);
        Ok(())
    }
}

impl OpenFile {
    /// A descriptor of the table `table` is closed: with it go all POSIX record
    /// locks of its process on the file (fcntl(2)).
    #[inline]
    pub fn descriptor_closed(&self, table: u64) {
        self.release_locks(Owner::Process(table));
    }

    #[inline]
    fn release_locks(&self, owner: Owner) {
        if let Some(locks) = self.inode().and_then(|i| i.attr().locks_if_any()) {
            locks.release(owner);
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.stop_async();
        self.release_locks(Owner::Description(self.id));
        self.happened(if self.flags().writes() {
            Mask::CLOSE_WRITE
        } else {
            Mask::CLOSE_NOWRITE
        });
        if self.watched.load(Relaxed) {
            for w in core::mem::take(self.closing.get_mut()) {
                if let Some(w) = w.upgrade() {
                    w.closed(self);
                }
            }
        }
        self.ops.release(self);
        if let Some(inode) = self.inode().filter(|_| self.writes) {
            inode.attr().writers().remove();
        }
    }
}
