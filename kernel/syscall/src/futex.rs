//! Futexes.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::time::{Clock, instant_of};
use crate::time_types::Timespec;
use linux_raw_sys::general as c;
use machine::time::Instant;
use machine::user;
use machine::wait::Until;
use mm::FutexKey;
use process::Error;
use process::futex::{self, MATCH_ANY, WATCHED_MAX, Watched};
use process::signal::Restart;
use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The key of the word at `addr`.
#[inline]
fn key(ctx: &Ctx<'_>, addr: usize, shared: bool) -> Result<FutexKey, Errno> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if !shared {
        let key = ctx.thread().space.with(|s| s.private_futex_key(addr));
        return key.ok_or(Errno::ESRCH);
    }
    // Brings the page in, so that it is known what is mapped there.
    user::load_u32(addr)?;
    ctx.space()?.futex_key(addr).map_err(|_| Errno::EFAULT)
}

/// futex(2). `timeout` is a number for the operations that move waiters.
pub(crate) fn sys_futex(
    ctx: &mut Ctx<'_>,
    addr: usize,
    op: usize,
    value: usize,
    timeout: usize,
    addr2: usize,
    value3: usize,
) -> SysResult {
    let (value, value3) = (value as u32, value3 as u32);
    let shared = op as u32 & c::FUTEX_PRIVATE_FLAG == 0;
    let wall = op as u32 & c::FUTEX_CLOCK_REALTIME != 0;
    let command = op as u32 & !(c::FUTEX_PRIVATE_FLAG | c::FUTEX_CLOCK_REALTIME);
    let timed = [
        c::FUTEX_WAIT_BITSET,
        c::FUTEX_WAIT_REQUEUE_PI,
        c::FUTEX_LOCK_PI2,
    ];
    if wall && !timed.contains(&command) {
        return Err(Errno::ENOSYS);
    }
    let until = |wall: bool| {
        let clock = if wall { Clock::Wall } else { Clock::Boot };
        match timeout {
            0 => Ok(None),
            at => Timespec::read_ns(at).map(|ns| Some(instant_of(clock, ns))),
        }
    };
    match command {
        c::FUTEX_WAIT => {
            let deadline = Timespec::read_deadline(timeout)?;
            wait(ctx, addr, shared, value, MATCH_ANY, deadline)
        }
        c::FUTEX_WAIT_BITSET => wait(ctx, addr, shared, value, value3, until(wall)?),
        c::FUTEX_WAKE => wake(ctx, addr, shared, value, MATCH_ANY),
        c::FUTEX_WAKE_BITSET => wake(ctx, addr, shared, value, value3),
        c::FUTEX_REQUEUE => requeue(ctx, [addr, addr2], shared, [value, timeout as u32], None),
        c::FUTEX_CMP_REQUEUE => {
            let counts = [value, timeout as u32];
            requeue(ctx, [addr, addr2], shared, counts, Some(value3))
        }
        c::FUTEX_WAKE_OP => {
            let counts = [value, timeout as u32];
            wake_op(ctx, [addr, addr2], shared, counts, value3)
        }
        c::FUTEX_LOCK_PI => lock(ctx, addr, shared, Some(until(true)?)),
        c::FUTEX_LOCK_PI2 => lock(ctx, addr, shared, Some(until(wall)?)),
        c::FUTEX_TRYLOCK_PI => lock(ctx, addr, shared, None),
        c::FUTEX_UNLOCK_PI => {
            let key = key(ctx, addr, shared)?;
            ctx.world().pi().unlock(ctx.thread(), key, addr)?;
            Ok(0)
        }
        c::FUTEX_WAIT_REQUEUE_PI => {
            let deadline = until(wall)?;
            wait_then_lock(ctx, [addr, addr2], shared, value, deadline)
        }
        c::FUTEX_CMP_REQUEUE_PI => {
            let counts = [value, timeout as u32];
            wake_lockers(ctx, [addr, addr2], shared, counts, value3)
        }
        _ => Err(Errno::ENOSYS),
    }
}

/// Takes a lock that knows its owner; `None` for the time does not wait at all.
fn lock(ctx: &Ctx<'_>, addr: usize, shared: bool, deadline: Option<Option<Instant>>) -> SysResult {
    let key = key(ctx, addr, shared)?;
    let until = Until::deadline(deadline.flatten());
    let locked = ctx
        .world()
        .pi()
        .lock(ctx.thread(), key, addr, until, deadline.is_none());
    match locked {
        Ok(()) => Ok(0),
        // Made again whether a handler ran or not: the time is absolute.
        Err(Error::Interrupted) => Err(Errno::ERESTARTNOINTR),
        Err(e) => Err(e.into()),
    }
}

/// Waits for a word and takes a lock then. The kernel does not move the waiter to
/// the lock's queue: it is woken and queues there itself.
fn wait_then_lock(
    ctx: &Ctx<'_>,
    [addr, to]: [usize; 2],
    shared: bool,
    expected: u32,
    deadline: Option<Instant>,
) -> SysResult {
    if addr == to {
        return Err(Errno::EINVAL);
    }
    let first = key(ctx, addr, shared)?;
    let same = || Ok(user::load_u32(addr)? == expected);
    let until = Until::deadline(deadline);
    match futex::wait(ctx.thread().futex(), first, MATCH_ANY, until, same) {
        Ok(()) => {}
        Err(Error::Interrupted) => return Err(Errno::ERESTARTNOINTR),
        Err(e) => return Err(e.into()),
    }
    let key = key(ctx, to, shared)?;
    match ctx.world().pi().lock(ctx.thread(), key, to, until, false) {
        Ok(()) => Ok(0),
        // The wake is used up: the program tries for the lock itself.
        Err(Error::Interrupted) => Err(Errno::EAGAIN),
        Err(e) => Err(e.into()),
    }
}

/// Wakes those of [`wait_then_lock`].
fn wake_lockers(
    ctx: &Ctx<'_>,
    [addr, to]: [usize; 2],
    shared: bool,
    [wakes, moves]: [u32; 2],
    expected: u32,
) -> SysResult {
    if addr == to || wakes != 1 {
        return Err(Errno::EINVAL);
    }
    let moves = usize::try_from(moves as i32).map_err(|_| Errno::EINVAL)?;
    let (first, _) = (key(ctx, addr, shared)?, key(ctx, to, shared)?);
    if user::load_u32(addr)? != expected {
        return Err(Errno::EAGAIN);
    }
    Ok(futex::wake(&first, moves.saturating_add(1), MATCH_ANY))
}

fn wait(
    ctx: &Ctx<'_>,
    addr: usize,
    shared: bool,
    expected: u32,
    bitset: u32,
    deadline: Option<Instant>,
) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(ctx, addr, shared)?;
    let same = || Ok(user::load_u32(addr)? == expected);
    let until = Until::deadline(deadline);
    match futex::wait(ctx.thread().futex(), key, bitset, until, same) {
        Ok(()) => Ok(0),
        Err(Error::Interrupted) => match deadline {
            None => Err(Errno::ERESTARTSYS),
            Some(d) => {
                ctx.thread().signals.set_restart(Restart::Futex {
                    addr,
                    expected,
                    bitset,
                    shared,
                    deadline: d.0,
                });
                Err(Errno::ERESTART_RESTARTBLOCK)
            }
        },
        Err(e) => Err(e.into()),
    }
}

/// Goes on with a wait that was interrupted (restart_syscall(2)).
pub(crate) fn resume_wait(ctx: &Ctx<'_>, restart: Restart) -> SysResult {
    match restart {
        Restart::Futex {
            addr,
            expected,
            bitset,
            shared,
            deadline,
        } => wait(ctx, addr, shared, expected, bitset, Some(Instant(deadline))),
        _ => Err(Errno::EINTR),
    }
}

fn wake(ctx: &Ctx<'_>, addr: usize, shared: bool, count: u32, bitset: u32) -> SysResult {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = key(ctx, addr, shared)?;
    // As on Linux, even a count of 0 wakes one.
    let count = (count as i32).max(1) as usize;
    Ok(futex::wake(&key, count, bitset))
}

fn requeue(
    ctx: &Ctx<'_>,
    [from, to]: [usize; 2],
    shared: bool,
    counts: [u32; 2],
    expected: Option<u32>,
) -> SysResult {
    let limit = |n: u32| usize::try_from(n as i32).map_err(|_| Errno::EINVAL);
    let (wakes, moves) = (limit(counts[0])?, limit(counts[1])?);
    let (from_key, to_key) = (key(ctx, from, shared)?, key(ctx, to, shared)?);
    if let Some(expected) = expected
        && user::load_u32(from)? != expected
    {
        return Err(Errno::EAGAIN);
    }
    let moved = futex::requeue(&from_key, &to_key, wakes, moves)?;
    // The plain form counts only those it woke.
    Ok(match expected {
        Some(_) => moved.woken + moved.requeued,
        None => moved.woken,
    })
}

/// The operation and comparison that `FUTEX_WAKE_OP` packs into a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PackedOp {
    op: u32,
    compare: u32,
    argument: u32,
    against: u32,
}

impl PackedOp {
    fn decode(word: u32) -> PackedOp {
        // Twelve bits with a sign.
        let signed = |v: u32| (((v & 0xfff) << 20) as i32 >> 20) as u32;
        let mut op = word >> 28;
        let mut argument = signed(word >> 12);
        if op & c::FUTEX_OP_OPARG_SHIFT != 0 {
            op &= !c::FUTEX_OP_OPARG_SHIFT;
            argument = 1u32 << (argument & 31);
        }
        PackedOp {
            op,
            compare: word >> 24 & 15,
            argument,
            against: signed(word),
        }
    }

    fn apply(self, old: u32) -> Result<u32, Errno> {
        Ok(match self.op {
            c::FUTEX_OP_SET => self.argument,
            c::FUTEX_OP_ADD => old.wrapping_add(self.argument),
            c::FUTEX_OP_OR => old | self.argument,
            c::FUTEX_OP_ANDN => old & !self.argument,
            c::FUTEX_OP_XOR => old ^ self.argument,
            _ => return Err(Errno::ENOSYS),
        })
    }

    fn compares(self, old: u32) -> Result<bool, Errno> {
        let (old, against) = (old as i32, self.against as i32);
        Ok(match self.compare {
            c::FUTEX_OP_CMP_EQ => old == against,
            c::FUTEX_OP_CMP_NE => old != against,
            c::FUTEX_OP_CMP_LT => old < against,
            c::FUTEX_OP_CMP_LE => old <= against,
            c::FUTEX_OP_CMP_GT => old > against,
            c::FUTEX_OP_CMP_GE => old >= against,
            _ => return Err(Errno::ENOSYS),
        })
    }
}

fn wake_op(
    ctx: &Ctx<'_>,
    [first, second]: [usize; 2],
    shared: bool,
    counts: [u32; 2],
    packed: u32,
) -> SysResult {
    let op = PackedOp::decode(packed);
    let (a, b) = (key(ctx, first, shared)?, key(ctx, second, shared)?);
    let mut old = user::load_u32(second)?;
    // Judged before anything is changed.
    op.compares(old)?;
    loop {
        let found = user::compare_exchange_u32(second, old, op.apply(old)?)?;
        if found == old {
            break;
        }
        old = found;
        // Others may change the word as fast as it is tried.
        machine::thread::cond_resched();
        if ctx.thread().must_end() {
            return Err(Errno::EINTR);
        }
    }
    let count = |n: u32| (n as i32).max(1) as usize;
    let mut woken = futex::wake(&a, count(counts[0]), MATCH_ANY);
    if op.compares(old)? {
        woken += futex::wake(&b, count(counts[1]), MATCH_ANY);
    }
    Ok(woken)
}

/// `struct futex_waitv`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct WaitWord {
    value: u64,
    addr: u64,
    flags: u32,
    reserved: u32,
}

/// futex_waitv(2)
pub(crate) fn sys_futex_waitv(
    ctx: &mut Ctx<'_>,
    words: usize,
    count: usize,
    flags: usize,
    timeout: usize,
    clock: usize,
) -> SysResult {
    if flags != 0 || words == 0 || !(1..=WATCHED_MAX).contains(&count) {
        return Err(Errno::EINVAL);
    }
    let until = Until::deadline(match timeout {
        0 => None,
        at => {
            let clock = match clock as u32 {
                c::CLOCK_REALTIME => Clock::Wall,
                c::CLOCK_MONOTONIC => Clock::Boot,
                _ => return Err(Errno::EINVAL),
            };
            Some(instant_of(clock, Timespec::read_ns(at)?))
        }
    });
    let mut wanted: SmallVec<[WaitWord; 8]> = SmallVec::new();
    let mut watched: SmallVec<[Watched; 8]> = SmallVec::new();
    for i in 0..count {
        let w: WaitWord = user::read_value(words.wrapping_add(i * size_of::<WaitWord>()))?;
        let size_only = w.flags & !c::FUTEX_PRIVATE_FLAG;
        if size_only != c::FUTEX_32 || w.reserved != 0 || w.value > u64::from(u32::MAX) {
            return Err(Errno::EINVAL);
        }
        let shared = w.flags & c::FUTEX_PRIVATE_FLAG == 0;
        let key = key(ctx, w.addr as usize, shared)?;
        watched.push(Watched {
            key,
            bitset: MATCH_ANY,
        });
        wanted.push(w);
    }
    let same = |i: usize| match wanted.get(i) {
        Some(w) => Ok(u64::from(user::load_u32(w.addr as usize)?) == w.value),
        None => Err(Error::Invalid),
    };
    Ok(futex::wait_any(
        ctx.thread().futex(),
        &watched,
        until,
        same,
    )?)
}

/// set_robust_list(2)
pub(crate) fn sys_set_robust_list(ctx: &mut Ctx<'_>, head: usize, len: usize) -> SysResult {
    /// Bytes of `struct robust_list_head`.
    const HEAD: usize = 24;
    if len != HEAD {
        return Err(Errno::EINVAL);
    }
    ctx.thread().set_robust_list(head);
    Ok(0)
}

/// get_robust_list(2)
pub(crate) fn sys_get_robust_list(
    ctx: &mut Ctx<'_>,
    tid: usize,
    head: usize,
    len: usize,
) -> SysResult {
    let thread = match tid {
        0 => ctx.thread().clone(),
        n => ctx.world().thread(n as u32).ok_or(Errno::ESRCH)?,
    };
    if !crate::ids::may_inspect(ctx, thread.process())? {
        return Err(Errno::EPERM);
    }
    user::write_value(len, &24u64)?;
    user::write_value(head, &(thread.robust_list() as u64))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_operations_are_decoded_as_the_header_makes_them() {
        // FUTEX_OP(FUTEX_OP_ADD, -1, FUTEX_OP_CMP_GT, 5)
        let word = 1 << 28 | 4 << 24 | 0xfff << 12 | 5;
        let op = PackedOp::decode(word);
        assert_eq!(op.apply(7), Ok(6));
        assert_eq!((op.compares(6), op.compares(5)), (Ok(true), Ok(false)));
        // FUTEX_OP_SET with a shifted argument.
        let op = PackedOp::decode(8 << 28 | 3 << 12);
        assert_eq!(op.apply(0), Ok(8));
        assert_eq!(PackedOp::decode(7 << 28).apply(0), Err(Errno::ENOSYS));
    }
}
