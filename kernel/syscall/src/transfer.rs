//! Transfers from file to file inside the kernel: sendfile(2), splice(2),
//! copy_file_range(2).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::file::{limit_size, offset, written};
use crate::path::{RW_MAX, read_iovec};
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::io::{Sink, Source};
use machine::{thread, user};
use vfs::Events;
use vfs::file::{OpenFile, OpenFlags, Seek};
use vfs::inode::Kind;
use vfs::pipe::PipeEnd;
use vfs::poll::{Entry, wait};

/// Bytes moved in one step.
const STEP: usize = 16 << 10;
/// `SPLICE_F_MOVE`, `NONBLOCK`, `MORE` and `GIFT`.
const SPLICE_FLAGS: usize = 15;
const SPLICE_NONBLOCK: usize = 2;

/// Where one side of a transfer stands: at an offset of the program's, or at the
/// file's own position.
struct Side {
    file: Arc<OpenFile>,
    /// Address of the program's offset, and its value.
    given: Option<(usize, u64)>,
}

impl Side {
    fn new(file: Arc<OpenFile>, addr: usize) -> Result<Side, Errno> {
        let given = match addr {
            0 => None,
            addr => Some((addr, offset(user::read_value::<u64>(addr)? as usize)?)),
        };
        Ok(Side { file, given })
    }

    fn at(&self) -> u64 {
        self.given.map_or_else(|| self.file.position(), |g| g.1)
    }

    /// Notes that the transfer went on by `n` bytes.
    fn advance(&mut self, n: usize) -> Result<(), Errno> {
        match &mut self.given {
            Some((addr, at)) => {
                *at += n as u64;
                user::write_value(*addr, at)?;
            }
            None if self.file.is_positional() => {
                self.file.seek(Seek::Current(n as i64))?;
            }
            None => {}
        }
        Ok(())
    }

    /// Reads without moving the position of a file that has one.
    fn read(&self, sink: &mut Sink<'_>) -> vfs::Result<usize> {
        if self.file.is_positional() {
            self.file.pread(sink, self.at())
        } else {
            self.file.read(sink)
        }
    }

    fn write(&self, ctx: &Ctx<'_>, bytes: &[u8]) -> SysResult {
        let mut source = Source::kernel(bytes);
        limit_size(ctx, &self.file, &mut source, self.given.map(|g| g.1))?;
        let done = match self.given {
            Some((_, at)) => self.file.pwrite(&mut source, at),
            None => self.file.write(&mut source),
        };
        written(ctx, done)
    }
}

fn step_buffer(len: usize) -> Result<Vec<u8>, Errno> {
    let mut buf = Vec::new();
    let len = len.min(STEP);
    buf.try_reserve_exact(len)?;
    buf.resize(len, 0);
    Ok(buf)
}

/// What a transfer answers that `e` stopped after `done` bytes.
fn stopped(done: usize, e: Errno) -> SysResult {
    if done > 0 { Ok(done) } else { Err(e) }
}

/// Copies up to `len` bytes from a file with positions to anywhere.
fn copy(ctx: &Ctx<'_>, from: &mut Side, to: &mut Side, len: usize) -> SysResult {
    let len = len.min(RW_MAX);
    let mut buf = step_buffer(len)?;
    let mut done = 0;
    while done < len {
        let want = (len - done).min(buf.len());
        let n = match from.read(&mut Sink::kernel(&mut buf[..want])) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => return stopped(done, e.into()),
        };
        let moved = match to.write(ctx, &buf[..n]) {
            Ok(m) => m,
            Err(e) => return stopped(done, e),
        };
        // The file's own position of the target has moved with the write.
        if to.given.is_some() {
            to.advance(moved)?;
        }
        from.advance(moved)?;
        done += moved;
        if moved < n {
            break;
        }
        thread::cond_resched();
    }
    Ok(done)
}

/// sendfile(2)
pub(crate) fn sys_sendfile(
    ctx: &mut Ctx<'_>,
    out: usize,
    from: usize,
    at: usize,
    len: usize,
) -> SysResult {
    let mut from = Side::new(ctx.file(from)?, at)?;
    let mut to = Side::new(ctx.file(out)?, 0)?;
    from.file.check_read()?;
    to.file.check_write()?;
    if from.file.downcast::<PipeEnd>().is_some() && from.given.is_some() {
        return Err(Errno::ESPIPE);
    }
    if !from.file.is_positional() || to.file.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    let done = counted_copy(ctx, &mut from, &mut to, len)?;
    // The offset is told also where nothing was moved.
    from.advance(0)?;
    Ok(done)
}

/// copy_file_range(2)
pub(crate) fn sys_copy_file_range(
    ctx: &mut Ctx<'_>,
    from: usize,
    from_at: usize,
    to: usize,
    to_at: usize,
    len: usize,
    flags: usize,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mut from = Side::new(ctx.file(from)?, from_at)?;
    let mut to = Side::new(ctx.file(to)?, to_at)?;
    from.file.check_read()?;
    to.file.check_write()?;
    if to.file.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EBADF);
    }
    for f in [&from.file, &to.file] {
        match f.inode().map(|i| i.attr().kind) {
            Some(Kind::File) => {}
            Some(Kind::Directory) => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    let same = match (from.file.inode(), to.file.inode()) {
        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    let len = len.min(RW_MAX);
    let (a, b) = (from.at(), to.at());
    let apart = a.abs_diff(b) >= len as u64;
    let end = b
        .checked_add(len as u64)
        .filter(|e| i64::try_from(*e).is_ok());
    if end.is_none() {
        return Err(Errno::EOVERFLOW);
    }
    if same && !apart {
        return Err(Errno::EINVAL);
    }
    counted_copy(ctx, &mut from, &mut to, len)
}

/// As [`copy`], which counts as a read and a write for `/proc/PID/io`.
fn counted_copy(ctx: &Ctx<'_>, from: &mut Side, to: &mut Side, len: usize) -> SysResult {
    let done = copy(ctx, from, to, len);
    let bytes = done.as_ref().map_or(0, |n| *n);
    ctx.thread().reads.add(bytes, from.file.is_disk());
    ctx.thread().writes.add(bytes, to.file.is_disk());
    done
}

/// Waits until `file` has one of `wanted`.
fn wait_for(file: &Arc<OpenFile>, wanted: Events, block: bool) -> Result<(), Errno> {
    let mut entry = [Entry {
        file: Some(file.clone()),
        wanted,
        ..Entry::default()
    }];
    if vfs::poll::ask(&mut entry) > 0 {
        return Ok(());
    }
    if !block {
        return Err(Errno::EAGAIN);
    }
    wait(&mut entry, None)?;
    Ok(())
}

/// Moves what is in a pipe on, at least a byte unless it has ended.
fn from_pipe(ctx: &Ctx<'_>, from: &Side, to: &mut Side, len: usize, block: bool) -> SysResult {
    let pipe: &PipeEnd = from.file.downcast().ok_or(Errno::EINVAL)?;
    wait_for(&from.file, Events::READABLE, block)?;
    let mut buf = step_buffer(len)?;
    let mut done = 0;
    while done < len && pipe.queued() > 0 {
        let want = (len - done).min(buf.len());
        let n = match from.file.read(&mut Sink::kernel(&mut buf[..want])) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) => return stopped(done, e.into()),
        };
        let moved = to.write(ctx, &buf[..n]);
        let taken = *moved.as_ref().unwrap_or(&0);
        if taken < n {
            pipe.unread(&buf[taken..n])?;
        }
        if let Err(e) = moved {
            return stopped(done, e);
        }
        if to.given.is_some() {
            to.advance(taken)?;
        }
        done += taken;
        if taken < n {
            break;
        }
        thread::cond_resched();
    }
    Ok(done)
}

/// Fills a pipe as far as there is room.
fn to_pipe(ctx: &Ctx<'_>, from: &mut Side, to: &Side, len: usize, block: bool) -> SysResult {
    let pipe: &PipeEnd = to.file.downcast().ok_or(Errno::EINVAL)?;
    wait_for(&to.file, Events::WRITABLE, block)?;
    // What is taken from a stream must fit, because it cannot be put back.
    let room = pipe.capacity().saturating_sub(pipe.queued()).max(1);
    let mut buf = step_buffer(len.min(room))?;
    let n = from.read(&mut Sink::kernel(&mut buf))?;
    let mut done = 0;
    while done < n {
        match to.write(ctx, &buf[done..n]) {
            Ok(m) => done += m,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
        if from.file.is_positional() {
            break;
        }
    }
    from.advance(done)?;
    Ok(done)
}

/// The two files of a splice or tee, if the one can be read and the other written.
fn both_ends(
    ctx: &Ctx<'_>,
    from: usize,
    to: usize,
    flags: usize,
) -> Result<[Arc<OpenFile>; 2], Errno> {
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let (source, target) = (ctx.file(from)?, ctx.file(to)?);
    source.check_read()?;
    target.check_write()?;
    Ok([source, target])
}

/// splice(2)
pub(crate) fn sys_splice(
    ctx: &mut Ctx<'_>,
    from: usize,
    from_at: usize,
    to: usize,
    to_at: usize,
    len: usize,
    flags: usize,
) -> SysResult {
    let [source, target] = both_ends(ctx, from, to, flags)?;
    let (a, b) = (source.downcast::<PipeEnd>(), target.downcast::<PipeEnd>());
    if source
        .inode()
        .is_some_and(|i| i.attr().kind == Kind::Directory)
    {
        return Err(Errno::EINVAL);
    }
    if (a.is_some() && from_at != 0) || (b.is_some() && to_at != 0) {
        return Err(Errno::ESPIPE);
    }
    if let (Some(a), Some(b)) = (a, b)
        && a.same_pipe(b)
    {
        return Err(Errno::EINVAL);
    }
    if target.flags().contains(OpenFlags::APPEND) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let asked = flags & SPLICE_NONBLOCK != 0;
    let (from_pipe_side, to_pipe_side) = (a.is_some(), b.is_some());
    let mut from = Side::new(source, from_at)?;
    let mut to = Side::new(target, to_at)?;
    let len = len.min(RW_MAX);
    if from_pipe_side {
        let block = !asked && !from.file.nonblocking();
        if to_pipe_side && (asked || to.file.nonblocking()) {
            wait_for(&to.file, Events::WRITABLE, false)?;
        }
        from_pipe(ctx, &from, &mut to, len, block)
    } else if to_pipe_side {
        let block = !asked && !to.file.nonblocking();
        to_pipe(ctx, &mut from, &to, len, block)
    } else {
        Err(Errno::EINVAL)
    }
}

/// tee(2)
pub(crate) fn sys_tee(
    ctx: &mut Ctx<'_>,
    from: usize,
    to: usize,
    len: usize,
    flags: usize,
) -> SysResult {
    let [source, target] = both_ends(ctx, from, to, flags)?;
    let a: &PipeEnd = source.downcast().ok_or(Errno::EINVAL)?;
    let b: &PipeEnd = target.downcast().ok_or(Errno::EINVAL)?;
    if a.same_pipe(b) {
        return Err(Errno::EINVAL);
    }
    let block = flags & SPLICE_NONBLOCK == 0;
    wait_for(&source, Events::READABLE, block)?;
    wait_for(&target, Events::WRITABLE, block)?;
    let room = b.capacity().saturating_sub(b.queued()).max(1);
    let mut buf = step_buffer(len.min(room))?;
    let n = a.peek(&mut buf);
    written(ctx, target.write(&mut Source::kernel(&buf[..n])))
}

/// vmsplice(2): the pages are copied, which the call allows.
pub(crate) fn sys_vmsplice(
    ctx: &mut Ctx<'_>,
    fd: usize,
    iov: usize,
    count: usize,
    flags: usize,
) -> SysResult {
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.file(fd)?;
    let pipe: &PipeEnd = file.downcast().ok_or(Errno::EBADF)?;
    let bufs = read_iovec(iov, count)?;
    let block = flags & SPLICE_NONBLOCK == 0;
    if file.flags().writes() {
        // As much as there is room for, once there is any.
        let mut source = Source::user_vec(bufs);
        loop {
            wait_for(&file, Events::WRITABLE, block)?;
            match pipe.write_now(&mut source) {
                Err(vfs::Error::WouldBlock) if block => {}
                done => return written(ctx, done),
            }
        }
    }
    wait_for(&file, Events::READABLE, block)?;
    Ok(file.read(&mut Sink::user_vec(bufs))?)
}
