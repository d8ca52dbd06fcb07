//! Waiting for files: poll(2), select(2), epoll(7).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::sync::Arc;
use core::time::Duration;
use machine::time::Instant;
use machine::user;
use process::signal::SigSet;
use smallvec::SmallVec;
use vfs::epoll::{Epoll, ReadyList};
use vfs::file::{OpenFile, OpenFlags};
use vfs::poll::{Entry, wait};
use vfs::{Error, Events, FdTable};
use zerocopy::IntoBytes;

const NS: u64 = 1_000_000_000;
/// Size of the kernel's `sigset_t`.
const SIGSET_SIZE: usize = 8;
/// `struct pollfd`, and where its `revents` is.
const POLLFD_SIZE: usize = 8;
const REVENTS_AT: usize = 6;
/// `struct epoll_event`, packed on x86-64.
const EPOLL_EVENT_SIZE: usize = 12;
/// Entries that need no allocation.
type Entries = SmallVec<[Entry; 16]>;

/// A time limit: already over, at an instant, or none.
type Deadline = Option<Instant>;
const NOW: Deadline = Some(Instant(0));

fn after_millis(ms: i32) -> Deadline {
    match u64::try_from(ms) {
        Ok(0) => NOW,
        Ok(ms) => Some(Instant::now().after(Duration::from_millis(ms))),
        Err(_) => None,
    }
}

/// A relative time as a program gives it: seconds, and `per_second`ths.
fn after_parts(addr: usize, per_second: u64) -> Result<Deadline, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    let [sec, part]: [i64; 2] = user::read_value(addr)?;
    let sec = u64::try_from(sec).map_err(|_| Errno::EINVAL)?;
    let part = u64::try_from(part).map_err(|_| Errno::EINVAL)?;
    // `select` takes any number of microseconds, the others less than a second.
    if per_second == NS && part >= NS {
        return Err(Errno::EINVAL);
    }
    if (sec, part) == (0, 0) {
        return Ok(NOW);
    }
    let ns = part.saturating_mul(NS / per_second);
    let all = sec.saturating_mul(NS).saturating_add(ns);
    Ok(Some(Instant::now().after(Duration::from_nanos(all))))
}

/// Writes back how much of the time is left. A place that cannot be written is
/// no error, because the call has done its work.
fn give_back(ctx: &Ctx<'_>, addr: usize, deadline: Deadline, per_second: u64) {
    /// Time-outs stay as they are (personality(2)).
    const STICKY_TIMEOUTS: u32 = 0x400_0000;
    if addr == 0 || ctx.process().personality() & STICKY_TIMEOUTS != 0 {
        return;
    }
    let left = deadline.map_or(Duration::ZERO, |d| d.since(Instant::now()));
    let part = u64::from(left.subsec_nanos()) / (NS / per_second);
    let _ = user::write_value(addr, &[left.as_secs(), part]);
}

/// Runs `f` with the signal mask at `mask`, if there is one.
fn masked<T>(
    ctx: &Ctx<'_>,
    mask: usize,
    size: usize,
    f: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    if mask == 0 {
        return f();
    }
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = SigSet(user::read_value(mask)?);
    ctx.thread().begin_temporary_mask(set);
    let done = f();
    // A signal's handler runs with the mask of the call, then the old comes back.
    if !matches!(&done, Err(e) if e.restarts() || *e == Errno::EINTR) {
        ctx.thread().end_temporary_mask();
    }
    done
}

fn waited(result: vfs::Result<usize>) -> SysResult {
    result.map_err(|e| Errno::from(e).or_restart_without_handler())
}

/// Entries of a `struct pollfd` array read from the program at one go.
const CHUNK: usize = 16;

/// Calls `f` with the address, the bytes and the file of each entry of a
/// `struct pollfd` array.
#[inline]
fn each_entry(
    files: &FdTable,
    addr: usize,
    count: usize,
    mut f: impl FnMut(usize, u64, Option<Arc<OpenFile>>) -> Result<(), Errno>,
) -> Result<(), Errno> {
    let mut raw = [0u64; CHUNK];
    let mut found = [const { None }; CHUNK];
    for first in (0..count).step_by(CHUNK) {
        let raw = &mut raw[..CHUNK.min(count - first)];
        let addr = addr.wrapping_add(first * POLLFD_SIZE);
        user::read(addr, raw.as_mut_bytes())?;
        files.get_each(raw.iter().map(|r| *r as i32).zip(&mut found));
        for (i, (raw, found)) in raw.iter().zip(&mut found).enumerate() {
            let file = found.take().filter(|f| !f.is_path_only());
            f(addr.wrapping_add(i * POLLFD_SIZE), *raw, file)?;
        }
    }
    Ok(())
}

/// What an entry asks for.
#[inline]
fn wanted(raw: u64) -> Events {
    Events::from_bits_truncate((raw >> 32) as u16 as u32)
}

/// What an entry without a file has: nothing if it is left out by a negative number.
#[inline]
fn without_file(raw: u64) -> Events {
    if (raw as i32) < 0 {
        Events::empty()
    } else {
        Events::NVAL
    }
}

/// Answers all entries by what holds now; how many have something. Keeps nothing,
/// so that asking many files over and over, as event loops do, costs little.
fn look(files: &FdTable, addr: usize, count: usize) -> Result<usize, Errno> {
    let mut total = 0;
    each_entry(files, addr, count, |at, raw, file| {
        let found = match file {
            Some(f) => f.poll() & (wanted(raw) | Events::ALWAYS),
            None => without_file(raw),
        };
        total += usize::from(!found.is_empty());
        let revents = found.bits() as u16;
        // Most say the same as in the last round: nothing.
        if revents != (raw >> 48) as u16 {
            user::write_value(at.wrapping_add(REVENTS_AT), &revents)?;
        }
        Ok(())
    })?;
    Ok(total)
}

fn poll(ctx: &Ctx<'_>, addr: usize, count: usize, deadline: Deadline) -> SysResult {
    if count > ctx.files_limit() {
        return Err(Errno::EINVAL);
    }
    let files = ctx.files()?;
    let n = look(&files, addr, count)?;
    if n > 0 || deadline == NOW {
        return Ok(n);
    }
    let mut entries = Entries::new();
    entries.try_reserve(count).map_err(|_| Errno::ENOMEM)?;
    each_entry(&files, addr, count, |_, raw, file| {
        let found = match &file {
            Some(_) => Events::empty(),
            None => without_file(raw),
        };
        let wanted = wanted(raw);
        entries.push(Entry {
            file,
            wanted,
            found,
        });
        Ok(())
    })?;
    drop(files);
    let n = waited(wait(&mut entries, deadline))?;
    for (i, e) in entries.iter().enumerate() {
        // The others were answered by the look before.
        if !e.found.is_empty() {
            let at = addr.wrapping_add(i * POLLFD_SIZE + REVENTS_AT);
            user::write_value(at, &(e.found.bits() as u16))?;
        }
    }
    Ok(n)
}

/// poll(2)
pub(crate) fn sys_poll(ctx: &mut Ctx<'_>, fds: usize, count: usize, timeout: usize) -> SysResult {
    poll(
        ctx,
        fds,
        count as u32 as usize,
        after_millis(timeout as i32),
    )
}

/// ppoll(2)
pub(crate) fn sys_ppoll(
    ctx: &mut Ctx<'_>,
    fds: usize,
    count: usize,
    timeout: usize,
    mask: usize,
    size: usize,
) -> SysResult {
    let deadline = after_parts(timeout, NS)?;
    let done = masked(ctx, mask, size, || {
        poll(ctx, fds, count as u32 as usize, deadline)
    });
    give_back(ctx, timeout, deadline, NS);
    done
}

/// What each of the three sets of `select` asks, and what answers it.
const SELECT: [(Events, Events); 3] = [
    (Events::READABLE, {
        let hang = Events::ALWAYS;
        Events::READABLE.union(Events::RDBAND).union(hang)
    }),
    (
        Events::WRITABLE,
        Events::WRITABLE.union(Events::WRBAND).union(Events::ERR),
    ),
    (Events::PRI, Events::PRI),
];

fn select(ctx: &Ctx<'_>, count: usize, sets: [usize; 3], deadline: Deadline) -> SysResult {
    let count = usize::try_from(count as i32).map_err(|_| Errno::EINVAL)?;
    let count = count.min(vfs::fdtable::NR_OPEN);
    let files = ctx.files()?;
    let words = count.div_ceil(64);
    let mut entries = Entries::new();
    let mut which: SmallVec<[usize; 16]> = SmallVec::new();
    for word in 0..words {
        let mut asked = [0u64; 3];
        for (bits, set) in asked.iter_mut().zip(sets) {
            if set != 0 {
                *bits = user::read_value(set.wrapping_add(word * 8))?;
            }
        }
        let last = count - word * 64;
        let valid = if last >= 64 {
            u64::MAX
        } else {
            (1 << last) - 1
        };
        let mut any = (asked[0] | asked[1] | asked[2]) & valid;
        while any != 0 {
            let bit = any.trailing_zeros() as usize;
            any &= any - 1;
            let fd = word * 64 + bit;
            let mut wanted = Events::empty();
            for (bits, (ask, _)) in asked.iter().zip(SELECT) {
                wanted.set(ask, bits >> bit & 1 != 0);
            }
            let file = Some(files.get_open(fd as i32)?);
            entries.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            which.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            which.push(fd);
            entries.push(Entry {
                file,
                wanted,
                ..Entry::default()
            });
        }
    }
    waited(wait(&mut entries, deadline))?;
    let mut total = 0;
    for (set, (asked, answers)) in sets.into_iter().zip(SELECT) {
        if set == 0 {
            continue;
        }
        let mut found = which
            .iter()
            .zip(&entries)
            .filter(|(_, e)| e.wanted.intersects(asked) && e.found.intersects(answers))
            .map(|(fd, _)| *fd)
            .peekable();
        for word in 0..words {
            let mut bits = 0u64;
            while let Some(fd) = found.next_if(|fd| fd / 64 == word) {
                bits |= 1 << (fd % 64);
                total += 1;
            }
            user::write_value(set.wrapping_add(word * 8), &bits)?;
        }
    }
    Ok(total)
}

/// select(2)
pub(crate) fn sys_select(
    ctx: &mut Ctx<'_>,
    count: usize,
    read: usize,
    write: usize,
    except: usize,
    timeout: usize,
) -> SysResult {
    let deadline = after_parts(timeout, 1_000_000)?;
    let done = select(ctx, count, [read, write, except], deadline);
    give_back(ctx, timeout, deadline, 1_000_000);
    done
}

/// pselect6(2): the last argument points to a mask and its size.
pub(crate) fn sys_pselect6(
    ctx: &mut Ctx<'_>,
    count: usize,
    read: usize,
    write: usize,
    except: usize,
    timeout: usize,
    mask: usize,
) -> SysResult {
    let [mask, size]: [u64; 2] = match mask {
        0 => [0, 0],
        at => user::read_value(at)?,
    };
    let deadline = after_parts(timeout, NS)?;
    let done = masked(ctx, mask as usize, size as usize, || {
        select(ctx, count, [read, write, except], deadline)
    });
    give_back(ctx, timeout, deadline, NS);
    done
}

/// epoll_create(2)
pub(crate) fn sys_epoll_create(ctx: &mut Ctx<'_>, size: usize) -> SysResult {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    sys_epoll_create1(ctx, 0)
}

/// epoll_create1(2)
pub(crate) fn sys_epoll_create1(ctx: &mut Ctx<'_>, flags: usize) -> SysResult {
    let cloexec = OpenFlags::CLOEXEC.bits() as usize;
    if flags & !cloexec != 0 {
        return Err(Errno::EINVAL);
    }
    let file = OpenFile::new(
        Epoll::new(ctx.world().account().clone()),
        OpenFlags::READ_WRITE,
        None,
        ctx.file_charge()?,
    );
    let new = ctx
        .files()?
        .insert(file, flags & cloexec != 0, 0, ctx.files_limit())?;
    Ok(new as usize)
}

fn read_event(addr: usize) -> Result<(u32, u64), Errno> {
    let mut raw = [0u8; EPOLL_EVENT_SIZE];
    user::read(addr, &mut raw)?;
    let (mut events, mut data) = ([0; 4], [0; 8]);
    events.copy_from_slice(&raw[..4]);
    data.copy_from_slice(&raw[4..]);
    Ok((u32::from_ne_bytes(events), u64::from_ne_bytes(data)))
}

/// epoll_ctl(2)
pub(crate) fn sys_epoll_ctl(
    ctx: &mut Ctx<'_>,
    epfd: usize,
    operation: usize,
    fd: usize,
    event: usize,
) -> SysResult {
    const ADD: usize = 1;
    const DEL: usize = 2;
    const MOD: usize = 3;
    let (events, data) = match operation {
        ADD | MOD => read_event(event)?,
        _ => (0, 0),
    };
    let outer = ctx.file(epfd)?;
    let file = ctx.file(fd)?;
    let epoll: &Epoll = outer.downcast().ok_or(Errno::EINVAL)?;
    match operation {
        ADD => epoll.add(fd as i32, &file, events, data)?,
        MOD => epoll.modify(fd as i32, &file, events, data)?,
        DEL => epoll.remove(fd as i32, &file)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

fn epoll_wait(ctx: &Ctx<'_>, epfd: usize, out: usize, max: usize, deadline: Deadline) -> SysResult {
    let max = usize::try_from(max as i32).ok().filter(|m| *m > 0);
    let max = max.filter(|m| *m <= i32::MAX as usize / EPOLL_EVENT_SIZE);
    let max = max.ok_or(Errno::EINVAL)?;
    let file = ctx.file(epfd)?;
    let epoll: &Epoll = file.downcast().ok_or(Errno::EINVAL)?;
    let mut ready = ReadyList::new();
    match epoll.wait(&mut ready, max, deadline) {
        Err(Error::Interrupted) => return Err(Errno::EINTR),
        other => other?,
    }
    for (i, r) in ready.iter().enumerate() {
        let mut raw = [0u8; EPOLL_EVENT_SIZE];
        raw[..4].copy_from_slice(&r.events.bits().to_ne_bytes());
        raw[4..].copy_from_slice(&r.data.to_ne_bytes());
        user::write(out.wrapping_add(i * EPOLL_EVENT_SIZE), &raw)?;
    }
    Ok(ready.len())
}

/// epoll_wait(2)
pub(crate) fn sys_epoll_wait(
    ctx: &mut Ctx<'_>,
    epfd: usize,
    out: usize,
    max: usize,
    timeout: usize,
) -> SysResult {
    epoll_wait(ctx, epfd, out, max, after_millis(timeout as i32))
}

/// epoll_pwait(2)
pub(crate) fn sys_epoll_pwait(
    ctx: &mut Ctx<'_>,
    epfd: usize,
    out: usize,
    max: usize,
    timeout: usize,
    mask: usize,
    size: usize,
) -> SysResult {
    let deadline = after_millis(timeout as i32);
    masked(ctx, mask, size, || {
        epoll_wait(ctx, epfd, out, max, deadline)
    })
}

/// epoll_pwait2(2)
pub(crate) fn sys_epoll_pwait2(
    ctx: &mut Ctx<'_>,
    epfd: usize,
    out: usize,
    max: usize,
    timeout: usize,
    mask: usize,
    size: usize,
) -> SysResult {
    let deadline = after_parts(timeout, NS)?;
    masked(ctx, mask, size, || {
        epoll_wait(ctx, epfd, out, max, deadline)
    })
}
