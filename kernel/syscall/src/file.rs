//! Transfers through a descriptor, and descriptors themselves.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::{RW_MAX, read_iovec};
use alloc::sync::Arc;
use machine::io::{Sink, Source, UserBuf};
use process::Counter;
use process::limits::{INFINITE, Resource};
use process::signal::Signal;
use vfs::file::{OpenFile, OpenFlags, Seek};

/// Flags of `preadv2` and `pwritev2` (`RWF_*`).
const RWF_HIPRI: usize = 1;
const RWF_DSYNC: usize = 2;
const RWF_SYNC: usize = 4;
const RWF_NOWAIT: usize = 8;
const RWF_APPEND: usize = 16;
/// `close_range`: a descriptor table of one's own first; only mark.
const CLOSE_RANGE_UNSHARE: usize = 2;
const CLOSE_RANGE_CLOEXEC: usize = 4;

fn buffer(addr: usize, len: usize) -> UserBuf {
    UserBuf {
        addr,
        len: len.min(RW_MAX),
    }
}

/// What a write answers: a broken pipe is also a signal.
#[inline]
pub(crate) fn written(ctx: &Ctx<'_>, result: vfs::Result<usize>) -> SysResult {
    match result {
        Ok(n) => Ok(n),
        Err(e) => Err(write_failed(ctx, e.into())),
    }
}

#[cold]
fn write_failed(ctx: &Ctx<'_>, e: Errno) -> Errno {
    if e == Errno::EPIPE {
        ctx.thread().raise(Signal::PIPE);
    }
    e
}

/// What a read or write answers, which counts for `/proc/PID/io`.
#[inline]
fn counted(counter: &Counter, file: &OpenFile, result: SysResult) -> SysResult {
    match result {
        Ok(n) => {
            counter.add(n, file.is_disk());
            Ok(n)
        }
        Err(e) => Err(count_failed(counter, e)),
    }
}

/// One that failed is a call as well, unless the descriptor is not for such calls, which
/// Linux finds before it counts (`vfs_read`).
#[cold]
fn count_failed(counter: &Counter, e: Errno) -> Errno {
    if !matches!(e, Errno::EBADF | Errno::ESPIPE) {
        counter.add(0, false);
    }
    e
}

/// Reads into `sink`, from `at` or where the file stands.
#[inline]
fn read_into(ctx: &Ctx<'_>, file: &OpenFile, mut sink: Sink<'_>, at: Option<u64>) -> SysResult {
    let done = match at {
        None => file.read(&mut sink),
        Some(at) => file.pread(&mut sink, at),
    };
    counted(&ctx.thread().reads, file, done.map_err(Errno::from))
}

/// Cuts a write at `RLIMIT_FSIZE`.
#[inline]
pub(crate) fn limit_size(
    ctx: &Ctx<'_>,
    file: &OpenFile,
    source: &mut Source<'_>,
    at: Option<u64>,
) -> Result<(), Errno> {
    let limit = ctx.process().limits().soft(Resource::FileSize);
    if limit == INFINITE || !file.is_positional() {
        return Ok(());
    }
    let at = match at {
        _ if file.flags().contains(OpenFlags::APPEND) => file.stat().size,
        Some(at) => at,
        None => file.position(),
    };
    if at >= limit && source.left() > 0 {
        ctx.process().raise(Signal::XFSZ);
        return Err(Errno::EFBIG);
    }
    source.limit(usize::try_from(limit - at).unwrap_or(usize::MAX));
    Ok(())
}

/// A file offset as a program gives it.
pub(crate) fn offset(raw: usize) -> Result<u64, Errno> {
    i64::try_from(raw)
        .map(|o| o as u64)
        .map_err(|_| Errno::EINVAL)
}

/// read(2)
pub(crate) fn sys_read(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    let file = ctx.file(fd)?;
    read_into(ctx, &file, Sink::user(buffer(addr, len)), None)
}

/// Writes what `source` has, at `at` or where the file stands, as far as the limit on
/// file sizes allows.
#[inline]
fn write_from(
    ctx: &Ctx<'_>,
    file: &OpenFile,
    mut source: Source<'_>,
    at: Option<u64>,
) -> SysResult {
    let done = limit_size(ctx, file, &mut source, at).and_then(|()| {
        let done = match at {
            None => file.write(&mut source),
            Some(at) => file.pwrite(&mut source, at),
        };
        written(ctx, done)
    });
    counted(&ctx.thread().writes, file, done)
}

/// write(2)
pub(crate) fn sys_write(ctx: &mut Ctx<'_>, fd: usize, addr: usize, len: usize) -> SysResult {
    let file = ctx.file(fd)?;
    write_from(ctx, &file, Source::user(buffer(addr, len)), None)
}

/// pread(2)
pub(crate) fn sys_pread64(
    ctx: &mut Ctx<'_>,
    fd: usize,
    addr: usize,
    len: usize,
    at: usize,
) -> SysResult {
    let file = ctx.file(fd)?;
    let at = offset(at)?;
    read_into(ctx, &file, Sink::user(buffer(addr, len)), Some(at))
}

/// pwrite(2)
pub(crate) fn sys_pwrite64(
    ctx: &mut Ctx<'_>,
    fd: usize,
    addr: usize,
    len: usize,
    at: usize,
) -> SysResult {
    let file = ctx.file(fd)?;
    let at = offset(at)?;
    write_from(ctx, &file, Source::user(buffer(addr, len)), Some(at))
}

/// readv(2)
pub(crate) fn sys_readv(ctx: &mut Ctx<'_>, fd: usize, iov: usize, count: usize) -> SysResult {
    let file = ctx.file(fd)?;
    let bufs = read_iovec(iov, count)?;
    read_into(ctx, &file, Sink::user_vec(bufs), None)
}

/// writev(2)
pub(crate) fn sys_writev(ctx: &mut Ctx<'_>, fd: usize, iov: usize, count: usize) -> SysResult {
    let file = ctx.file(fd)?;
    let source = Source::user_vec(read_iovec(iov, count)?);
    write_from(ctx, &file, source, None)
}

/// preadv(2). The upper half of the offset is 0 on 64 bits.
pub(crate) fn sys_preadv(
    ctx: &mut Ctx<'_>,
    fd: usize,
    iov: usize,
    count: usize,
    at: usize,
) -> SysResult {
    let file = ctx.file(fd)?;
    let bufs = read_iovec(iov, count)?;
    read_into(ctx, &file, Sink::user_vec(bufs), Some(offset(at)?))
}

/// pwritev(2)
pub(crate) fn sys_pwritev(
    ctx: &mut Ctx<'_>,
    fd: usize,
    iov: usize,
    count: usize,
    at: usize,
) -> SysResult {
    let file = ctx.file(fd)?;
    let at = offset(at)?;
    let source = Source::user_vec(read_iovec(iov, count)?);
    write_from(ctx, &file, source, Some(at))
}

/// preadv2(2): the arguments after the offset's halves are the flags.
pub(crate) fn sys_preadv2(
    ctx: &mut Ctx<'_>,
    fd: usize,
    iov: usize,
    count: usize,
    at: usize,
    _high: usize,
    flags: usize,
) -> SysResult {
    if flags & !(RWF_HIPRI | RWF_NOWAIT) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let file = ctx.file(fd)?;
    let bufs = read_iovec(iov, count)?;
    let sink = Sink::user_vec(bufs);
    let waits = !file.is_positional() && flags & RWF_NOWAIT != 0;
    if waits
        && !file
            .poll()
            .intersects(vfs::Events::READABLE | vfs::Events::ALWAYS)
    {
        return Err(Errno::EAGAIN);
    }
    if at as isize == -1 {
        return read_into(ctx, &file, sink, None);
    }
    read_into(ctx, &file, sink, Some(offset(at)?))
}

/// pwritev2(2)
pub(crate) fn sys_pwritev2(
    ctx: &mut Ctx<'_>,
    fd: usize,
    iov: usize,
    count: usize,
    at: usize,
    _high: usize,
    flags: usize,
) -> SysResult {
    let known = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_APPEND;
    if flags & !known != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let file = ctx.file(fd)?;
    let source = Source::user_vec(read_iovec(iov, count)?);
    let n = write_flagged(ctx, &file, source, at, flags)?;
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 && n > 0 && file.is_positional() {
        file.ops().sync(&file)?;
    }
    Ok(n)
}

fn write_flagged(
    ctx: &Ctx<'_>,
    file: &OpenFile,
    mut source: Source<'_>,
    at: usize,
    flags: usize,
) -> SysResult {
    if flags & RWF_APPEND != 0 && file.is_positional() {
        file.check_write()?;
        let end = Some(file.stat().size);
        limit_size(ctx, file, &mut source, end)?;
        let done = written(ctx, file.ops().append(file, &mut source).map(|(n, _)| n));
        return counted(&ctx.thread().writes, file, done);
    }
    let at = match at as isize {
        -1 => None,
        _ => Some(offset(at)?),
    };
    write_from(ctx, file, source, at)
}

/// lseek(2)
pub(crate) fn sys_lseek(ctx: &mut Ctx<'_>, fd: usize, by: usize, whence: usize) -> SysResult {
    let file = ctx.file(fd)?;
    let by = by as i64;
    let absolute = || u64::try_from(by);
    let to = match whence {
        0 => Seek::Set(absolute().map_err(|_| Errno::EINVAL)?),
        1 => Seek::Current(by),
        2 => Seek::End(by),
        3 => Seek::Data(absolute().map_err(|_| Errno::ENXIO)?),
        4 => Seek::Hole(absolute().map_err(|_| Errno::ENXIO)?),
        _ => return Err(Errno::EINVAL),
    };
    Ok(file.seek(to)? as usize)
}

/// ioctl(2)
pub(crate) fn sys_ioctl(ctx: &mut Ctx<'_>, fd: usize, command: usize, arg: usize) -> SysResult {
    const FIONCLEX: u32 = 0x5450;
    const FIOCLEX: u32 = 0x5451;
    const FIONBIO: u32 = 0x5421;
    const FIOASYNC: u32 = 0x5452;
    const TIOCGPTPEER: u32 = 0x5441;
    const TIOCSLCKTRMIOS: u32 = 0x5457;
    let file = ctx.file(fd)?;
    match command as u32 {
        FIOCLEX => ctx.files()?.set_cloexec(fd as i32, true)?,
        FIONCLEX => ctx.files()?.set_cloexec(fd as i32, false)?,
        FIONBIO => {
            let on: i32 = machine::user::read_value(arg)?;
            file.set_nonblocking(on != 0);
        }
        FIOASYNC => {
            let on: i32 = machine::user::read_value(arg)?;
            crate::sigio::set(ctx, fd, &file, on != 0)?;
        }
        TIOCSLCKTRMIOS if !ctx.cred()?.has(vfs::Caps::SYS_ADMIN) => return Err(Errno::EPERM),
        TIOCGPTPEER => return crate::terminal::peer(ctx, &file, arg),
        other => return Ok(file.ops().ioctl(&file, other, arg)?),
    }
    Ok(0)
}

/// Closes what was behind a descriptor of the table `table`.
pub(crate) fn end_descriptor(file: Arc<OpenFile>, table: u64, pid: u32) {
    file.descriptor_closed(table);
    if let Some(queue) = file.downcast::<process::ipc::mqueue::OpenQueue>() {
        queue.closed_by(pid);
    }
}

/// close(2)
pub(crate) fn sys_close(ctx: &mut Ctx<'_>, fd: usize) -> SysResult {
    let taken = ctx
        .thread()
        .files
        .with(|t| t.remove(fd as i32).map(|f| (f, t.id())));
    let (file, table) = taken.ok_or(Errno::EBADF)??;
    end_descriptor(file, table, ctx.process().pid());
    Ok(0)
}

/// close_range(2)
pub(crate) fn sys_close_range(
    ctx: &mut Ctx<'_>,
    first: usize,
    last: usize,
    flags: usize,
) -> SysResult {
    let (first, last) = (first as u32 as usize, last as u32 as usize);
    if first > last || flags & !(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 {
        let own = ctx.files()?.duplicate()?;
        ctx.thread().files.set(Arc::new(own));
    }
    let files = ctx.files()?;
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        files.set_cloexec_range(first, last);
        return Ok(0);
    }
    let mut from = first;
    while let Some((at, file)) = files.remove_first(from, last) {
        end_descriptor(file, files.id(), ctx.process().pid());
        from = at + 1;
        machine::thread::cond_resched();
    }
    Ok(0)
}

/// dup(2)
pub(crate) fn sys_dup(ctx: &mut Ctx<'_>, fd: usize) -> SysResult {
    let file = ctx.any_file(fd)?;
    let new = ctx.files()?.insert(file, false, 0, ctx.files_limit())?;
    Ok(new as usize)
}

fn replace(ctx: &Ctx<'_>, file: Arc<OpenFile>, new: usize, cloexec: bool) -> SysResult {
    let files = ctx.files()?;
    let old = files.replace(new as i32, file, cloexec, ctx.files_limit())?;
    if let Some(old) = old {
        end_descriptor(old, files.id(), ctx.process().pid());
    }
    Ok(new as u32 as usize)
}

/// dup2(2)
pub(crate) fn sys_dup2(ctx: &mut Ctx<'_>, old: usize, new: usize) -> SysResult {
    let file = ctx.any_file(old)?;
    if old as i32 == new as i32 {
        return Ok(new as u32 as usize);
    }
    replace(ctx, file, new, false)
}

/// dup3(2)
pub(crate) fn sys_dup3(ctx: &mut Ctx<'_>, old: usize, new: usize, flags: usize) -> SysResult {
    let cloexec = OpenFlags::CLOEXEC.bits() as usize;
    if flags & !cloexec != 0 || old as i32 == new as i32 {
        return Err(Errno::EINVAL);
    }
    let file = ctx.any_file(old)?;
    replace(ctx, file, new, flags & cloexec != 0)
}

/// fsync(2) and fdatasync(2)
pub(crate) fn sys_fsync(ctx: &mut Ctx<'_>, fd: usize) -> SysResult {
    let file = ctx.file(fd)?;
    file.ops().sync(&file)?;
    Ok(0)
}

/// syncfs(2): files lie in memory; what can be made durable is on the capsule's
/// disks.
pub(crate) fn sys_syncfs(ctx: &mut Ctx<'_>, fd: usize) -> SysResult {
    ctx.file(fd)?;
    ctx.world().sync_disks()?;
    Ok(0)
}

/// sync(2), which cannot fail.
pub(crate) fn sys_sync(ctx: &mut Ctx<'_>) -> SysResult {
    let _ = ctx.world().sync_disks();
    Ok(0)
}

/// sync_file_range(2)
pub(crate) fn sys_sync_file_range(
    ctx: &mut Ctx<'_>,
    fd: usize,
    at: usize,
    len: usize,
    flags: usize,
) -> SysResult {
    let file = ctx.file(fd)?;
    let (at, len) = (offset(at)?, offset(len)?);
    if flags & !7 != 0
        || at
            .checked_add(len)
            .is_none_or(|e| i64::try_from(e).is_err())
    {
        return Err(Errno::EINVAL);
    }
    if !file.is_positional() {
        return Err(Errno::ESPIPE);
    }
    file.ops().sync(&file)?;
    Ok(0)
}

/// ftruncate(2)
pub(crate) fn sys_ftruncate(ctx: &mut Ctx<'_>, fd: usize, len: usize) -> SysResult {
    let len = offset(len)?;
    let file = ctx.file(fd)?;
    check_length(ctx, len)?;
    file.truncate(len)?;
    Ok(0)
}

/// A new length against `RLIMIT_FSIZE`.
pub(crate) fn check_length(ctx: &Ctx<'_>, len: u64) -> Result<(), Errno> {
    let limit = ctx.process().limits().soft(Resource::FileSize);
    if limit != INFINITE && len > limit {
        ctx.process().raise(Signal::XFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(())
}

/// fallocate(2)
pub(crate) fn sys_fallocate(
    ctx: &mut Ctx<'_>,
    fd: usize,
    mode: usize,
    at: usize,
    len: usize,
) -> SysResult {
    let file = ctx.file(fd)?;
    let (at, len) = (offset(at)?, offset(len)?);
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    file.check_write()?;
    if !file.is_positional() {
        // A pipe says so in its own way (fallocate(2)).
        return Err(if file.downcast::<vfs::pipe::PipeEnd>().is_some() {
            Errno::ESPIPE
        } else {
            Errno::ENODEV
        });
    }
    let end = at.checked_add(len).ok_or(Errno::EFBIG)?;
    check_length(ctx, end.min(i64::MAX as u64))?;
    file.ops().fallocate(&file, mode as u32, at, len)?;
    Ok(0)
}

/// fadvise64(2): everything is in memory already.
pub(crate) fn sys_fadvise64(
    ctx: &mut Ctx<'_>,
    fd: usize,
    _at: usize,
    len: usize,
    advice: usize,
) -> SysResult {
    let file = ctx.file(fd)?;
    if file.downcast::<vfs::pipe::PipeEnd>().is_some() {
        return Err(Errno::ESPIPE);
    }
    offset(len)?;
    if advice > 5 {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}

/// readahead(2)
pub(crate) fn sys_readahead(ctx: &mut Ctx<'_>, fd: usize, at: usize, _len: usize) -> SysResult {
    let file = ctx.file(fd)?;
    file.check_read()?;
    offset(at)?;
    if !file.is_positional() {
        return Err(Errno::EINVAL);
    }
    Ok(0)
}
