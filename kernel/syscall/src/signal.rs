//! Signals.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::ids;
use crate::time_types::Timespec;
use alloc::sync::Arc;
use linux_raw_sys::general as c;
use machine::user;
use machine::wait::Until;
use process::signal::{
    Action, AltStack, Origin, Restart, SIGINFO_SIZE, SigInfo, SigSet, Signal, code, sigreturn,
    wait_for_signal,
};
use process::{Error, Process, SignalFd, Thread};
use vfs::{OpenFile, OpenFlags};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of the kernel's `sigset_t`.
const SIGSET_SIZE: usize = 8;
/// Least size of an alternate stack (`MINSIGSTKSZ`).
const ALT_STACK_MIN: usize = 2048;

/// The signal of that number.
///
/// # Errors
/// `EINVAL`.
pub(crate) fn decode(number: usize) -> Result<Signal, Errno> {
    // An `int`; the upper half of the register does not count.
    usize::try_from(number as i32)
        .ok()
        .and_then(Signal::new)
        .ok_or(Errno::EINVAL)
}

/// As [`decode`], with `None` for 0, which only asks whether one could send.
fn decode_or_probe(number: usize) -> Result<Option<Signal>, Errno> {
    match number as i32 {
        0 => Ok(None),
        _ => decode(number).map(Some),
    }
}

/// A set in the program's memory; `None` at address 0.
///
/// # Errors
/// `EINVAL` for a wrong size, `EFAULT`.
pub(crate) fn read_set(addr: usize, size: usize) -> Result<Option<SigSet>, Errno> {
    if addr == 0 {
        return Ok(None);
    }
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SigSet(user::read_value(addr)?)))
}

/// rt_sigaction(2)
pub(crate) fn sys_rt_sigaction(
    ctx: &mut Ctx<'_>,
    number: usize,
    new: usize,
    old: usize,
    size: usize,
) -> SysResult {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let signal = decode(number)?;
    let mut action = match new {
        0 => Action::default(),
        addr => user::read_value::<Action>(addr)?,
    };
    let process = ctx.process();
    let done = process.with_actions(|a| {
        if new == 0 {
            action = a.get(signal);
            return Some(false);
        }
        let done = a.exchange(signal, &mut action);
        done.then(|| a.ignores(signal))
    });
    if done.flatten().ok_or(Errno::EINVAL)? {
        process.forget_ignored(signal);
    }
    if old != 0 {
        user::write_value(old, &action)?;
    }
    Ok(0)
}

/// rt_sigprocmask(2)
pub(crate) fn sys_rt_sigprocmask(
    ctx: &mut Ctx<'_>,
    how: usize,
    new: usize,
    old: usize,
    size: usize,
) -> SysResult {
    if size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let thread = ctx.thread();
    let before = thread.signals.blocked();
    if let Some(set) = read_set(new, size)? {
        let mask = match how as u32 {
            c::SIG_BLOCK => before.or(set),
            c::SIG_UNBLOCK => before.without(set),
            c::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        thread.set_blocked(mask);
    }
    if old != 0 {
        user::write_value(old, &before.0)?;
    }
    Ok(0)
}

/// rt_sigpending(2)
pub(crate) fn sys_rt_sigpending(ctx: &mut Ctx<'_>, out: usize, size: usize) -> SysResult {
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let thread = ctx.thread();
    let set = thread.pending_signals().and(thread.signals.blocked());
    user::write(out, &set.0.as_bytes()[..size])?;
    Ok(0)
}

/// rt_sigsuspend(2)
pub(crate) fn sys_rt_sigsuspend(ctx: &mut Ctx<'_>, mask: usize, size: usize) -> SysResult {
    let mask = read_set(mask, size)?.ok_or(Errno::EFAULT)?;
    ctx.thread().begin_temporary_mask(mask);
    // Only a signal ends this; its handler's return brings the old mask back.
    sleep_for_signal();
    Err(Errno::ERESTARTNOHAND)
}

/// pause(2)
pub(crate) fn sys_pause(_: &mut Ctx<'_>) -> SysResult {
    sleep_for_signal();
    Err(Errno::ERESTARTNOHAND)
}

fn sleep_for_signal() {
    while machine::thread::park(Until::INTERRUPTED).is_ok() {}
}

/// rt_sigtimedwait(2)
pub(crate) fn sys_rt_sigtimedwait(
    ctx: &mut Ctx<'_>,
    set: usize,
    info: usize,
    timeout: usize,
    size: usize,
) -> SysResult {
    let wanted = read_set(set, size)?.ok_or(Errno::EFAULT)?;
    let until = Until::deadline(Timespec::read_deadline(timeout)?);
    let (signal, why) = wait_for_signal(ctx.thread(), wanted, until).map_err(|e| match e {
        Error::TimedOut => Errno::EAGAIN,
        Error::Interrupted => Errno::EINTR,
        e => e.into(),
    })?;
    if info != 0 {
        user::write(info, &why.to_user())?;
    }
    Ok(usize::from(signal.number()))
}

/// rt_sigreturn(2)
pub(crate) fn sys_rt_sigreturn(ctx: &mut Ctx<'_>) -> SysResult {
    sigreturn(ctx.thread(), ctx.regs);
    // What the frame says is in `rax` is the answer, whatever it is.
    Ok(ctx.regs.rax as usize)
}

/// `stack_t`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct UserStack {
    base: u64,
    flags: u32,
    pad: u32,
    size: u64,
}

/// sigaltstack(2)
pub(crate) fn sys_sigaltstack(ctx: &mut Ctx<'_>, new: usize, old: usize) -> SysResult {
    const AUTODISARM: u32 = 1 << 31;
    let signals = &ctx.thread().signals;
    let now = signals.alt_stack();
    let in_use = now.holds(ctx.regs.rsp as usize);
    if new != 0 {
        let wanted: UserStack = user::read_value(new)?;
        if in_use {
            return Err(Errno::EPERM);
        }
        let mode = wanted.flags & !AUTODISARM;
        let stack = match mode {
            c::SS_DISABLE => AltStack::default(),
            0 | c::SS_ONSTACK if (wanted.size as usize) < ALT_STACK_MIN => {
                return Err(Errno::ENOMEM);
            }
            0 | c::SS_ONSTACK => AltStack {
                base: wanted.base as usize,
                size: wanted.size as usize,
                autodisarm: wanted.flags & AUTODISARM != 0,
            },
            _ => return Err(Errno::EINVAL),
        };
        signals.set_alt_stack(stack);
    }
    if old != 0 {
        let mode = match now.size {
            0 => c::SS_DISABLE,
            _ if in_use => c::SS_ONSTACK,
            _ => 0,
        };
        let answer = UserStack {
            base: now.base as u64,
            flags: mode | if now.autodisarm { AUTODISARM } else { 0 },
            pad: 0,
            size: now.size as u64,
        };
        user::write_value(old, &answer)?;
    }
    Ok(0)
}

/// Whether the caller may send `signal` to `target` (kill(2), "DESCRIPTION").
fn may_signal(ctx: &Ctx<'_>, target: &Process, signal: Option<Signal>) -> Result<bool, Errno> {
    if core::ptr::eq(&raw const **ctx.process(), target) || ids::may_act_on(ctx, target)? {
        return Ok(true);
    }
    // A shell may continue whatever is in its session.
    Ok(signal == Some(Signal::CONT) && ctx.process().same_session(target))
}

fn sent_by(ctx: &Ctx<'_>, signal: Signal, how: i32) -> SigInfo {
    SigInfo::sent(signal, how, ctx.process().pid(), ctx.process().uid())
}

fn send(ctx: &Ctx<'_>, target: &Process, signal: Option<Signal>) -> Result<(), Errno> {
    if !may_signal(ctx, target, signal)? {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        target.signal(signal, sent_by(ctx, signal, code::SI_USER), Origin::Inside)?;
    }
    Ok(())
}

/// Sends to all of `targets`: fine if one of them got it.
fn send_all(ctx: &Ctx<'_>, targets: &[Arc<Process>], signal: Option<Signal>) -> SysResult {
    let mut outcome = Err(Errno::ESRCH);
    for target in targets {
        match send(ctx, target, signal) {
            Ok(()) => outcome = Ok(0),
            Err(e) if outcome.is_err() => outcome = Err(e),
            Err(_) => {}
        }
        machine::thread::cond_resched();
    }
    outcome
}

/// kill(2)
pub(crate) fn sys_kill(ctx: &mut Ctx<'_>, pid: usize, number: usize) -> SysResult {
    let signal = decode_or_probe(number)?;
    let me = ctx.process();
    match pid as i32 {
        p if p == me.pid() as i32 => send(ctx, me, signal).map(|()| 0),
        p if p > 0 => {
            let target = process_named(ctx, p as u32)?;
            send(ctx, &target, signal).map(|()| 0)
        }
        0 => {
            let group = me.group()?;
            send_all(ctx, &ctx.world().group_members(group), signal)
        }
        -1 => {
            let mut all = ctx.world().processes();
            all.retain(|p| p.pid() != 1 && p.pid() != me.pid());
            send_all(ctx, &all, signal)
        }
        i32::MIN => Err(Errno::ESRCH),
        p => send_all(ctx, &ctx.world().group_members(p.unsigned_abs()), signal),
    }
}

/// The process of that number; as on Linux also that of a thread of that number.
fn process_named(ctx: &Ctx<'_>, pid: u32) -> Result<Arc<Process>, Errno> {
    let world = ctx.world();
    let of_thread = || Some(world.thread(pid)?.process().clone());
    world.process(pid).or_else(of_thread).ok_or(Errno::ESRCH)
}

/// The thread `tid`, of the process `tgid` if that is given.
fn find_thread(ctx: &Ctx<'_>, tgid: Option<usize>, tid: usize) -> Result<Arc<Thread>, Errno> {
    let positive = |n: usize| u32::try_from(n as i32).ok().filter(|n| *n > 0);
    let tid = positive(tid).ok_or(Errno::EINVAL)?;
    let tgid = tgid.map(|n| positive(n).ok_or(Errno::EINVAL)).transpose()?;
    if tid == ctx.thread().tid() && tgid.is_none_or(|g| g == ctx.process().pid()) {
        return Ok(ctx.thread().clone());
    }
    let thread = ctx.world().thread(tid).ok_or(Errno::ESRCH)?;
    match tgid {
        Some(g) if thread.process().pid() != g => Err(Errno::ESRCH),
        _ => Ok(thread),
    }
}

fn send_to_thread(
    ctx: &Ctx<'_>,
    tgid: Option<usize>,
    tid: usize,
    number: usize,
    info: Option<SigInfo>,
) -> SysResult {
    let signal = decode_or_probe(number)?;
    let target = find_thread(ctx, tgid, tid)?;
    if !may_signal(ctx, target.process(), signal)? {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        let info = info.unwrap_or_else(|| sent_by(ctx, signal, code::SI_TKILL));
        target.signal(signal, info, Origin::Inside)?;
    }
    Ok(0)
}

/// tkill(2)
pub(crate) fn sys_tkill(ctx: &mut Ctx<'_>, tid: usize, number: usize) -> SysResult {
    send_to_thread(ctx, None, tid, number, None)
}

/// tgkill(2)
pub(crate) fn sys_tgkill(ctx: &mut Ctx<'_>, tgid: usize, tid: usize, number: usize) -> SysResult {
    send_to_thread(ctx, Some(tgid), tid, number, None)
}

/// A `siginfo_t` a program made, for `signal`.
fn read_info(addr: usize, number: usize) -> Result<SigInfo, Errno> {
    let mut raw = [0u8; SIGINFO_SIZE];
    user::read(addr, &mut raw)?;
    let (mut info, rest) = SigInfo::read_from_prefix(&raw).map_err(|_| Errno::EINVAL)?;
    // What would be lost is refused, but for those whose parts are known.
    let known = (code::SI_DETHREAD..=0).contains(&info.code) || info.code == code::SI_KERNEL;
    if !known && rest.iter().any(|b| *b != 0) {
        return Err(Errno::E2BIG);
    }
    info.signo = number as i32;
    Ok(info)
}

/// Only a process itself may pretend that the kernel or `kill` sent a signal.
fn check_forgery(ctx: &Ctx<'_>, info: &SigInfo, target: u32) -> Result<(), Errno> {
    let kernels = info.code >= 0 || info.code == code::SI_TKILL;
    if kernels && target != ctx.process().pid() {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// rt_sigqueueinfo(2)
pub(crate) fn sys_rt_sigqueueinfo(
    ctx: &mut Ctx<'_>,
    pid: usize,
    number: usize,
    info: usize,
) -> SysResult {
    let info = read_info(info, number)?;
    let pid = u32::try_from(pid as i32).map_err(|_| Errno::ESRCH)?;
    check_forgery(ctx, &info, pid)?;
    let signal = decode_or_probe(number)?;
    let target = process_named(ctx, pid)?;
    if !may_signal(ctx, &target, signal)? {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        target.signal(signal, info, Origin::Inside)?;
    }
    Ok(0)
}

/// rt_tgsigqueueinfo(2)
pub(crate) fn sys_rt_tgsigqueueinfo(
    ctx: &mut Ctx<'_>,
    tgid: usize,
    tid: usize,
    number: usize,
    info: usize,
) -> SysResult {
    let info = read_info(info, number)?;
    check_forgery(ctx, &info, tgid as u32)?;
    send_to_thread(ctx, Some(tgid), tid, number, Some(info))
}

/// pidfd_send_signal(2)
pub(crate) fn sys_pidfd_send_signal(
    ctx: &mut Ctx<'_>,
    fd: usize,
    number: usize,
    info: usize,
    flags: usize,
) -> SysResult {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let target = crate::pidfd::process_to_signal(ctx, fd)?;
    let signal = decode_or_probe(number)?;
    if info == 0 {
        return send(ctx, &target, signal).map(|()| 0);
    }
    // Unlike elsewhere, it must say the same number.
    if user::read_value::<i32>(info)? != number as i32 {
        return Err(Errno::EINVAL);
    }
    let info = read_info(info, number)?;
    check_forgery(ctx, &info, target.pid())?;
    if !may_signal(ctx, &target, signal)? {
        return Err(Errno::EPERM);
    }
    if let Some(signal) = signal {
        target.signal(signal, info, Origin::Inside)?;
    }
    Ok(0)
}

/// restart_syscall(2)
pub(crate) fn sys_restart_syscall(ctx: &mut Ctx<'_>) -> SysResult {
    match ctx.thread().signals.take_restart() {
        Some(Restart::Sleep {
            clock,
            deadline,
            remaining,
        }) => crate::time::resume_sleep(ctx, clock, deadline, remaining),
        Some(wait @ Restart::Futex { .. }) => crate::futex::resume_wait(ctx, wait),
        None => Err(Errno::EINTR),
    }
}

/// signalfd(2)
pub(crate) fn sys_signalfd(ctx: &mut Ctx<'_>, fd: usize, mask: usize, size: usize) -> SysResult {
    sys_signalfd4(ctx, fd, mask, size, 0)
}

/// signalfd4(2)
pub(crate) fn sys_signalfd4(
    ctx: &mut Ctx<'_>,
    fd: usize,
    mask: usize,
    size: usize,
    flags: usize,
) -> SysResult {
    let flags = flags as u32;
    if flags & !(c::O_CLOEXEC | c::O_NONBLOCK) != 0 || size != SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let set = read_set(mask, size)?.ok_or(Errno::EFAULT)?;
    if fd as i32 != -1 {
        let file = ctx.file(fd)?;
        let known = file.downcast::<SignalFd>().ok_or(Errno::EINVAL)?;
        known.set(set);
        return Ok(fd);
    }
    let ops = Arc::new(SignalFd::new(set, ctx.process().clone()));
    let open = OpenFlags::from_bits_truncate(c::O_RDWR | flags & c::O_NONBLOCK);
    let file = OpenFile::new(ops, open, None, ctx.file_charge()?);
    let cloexec = flags & c::O_CLOEXEC != 0;
    let fd = ctx.files()?.insert(file, cloexec, 0, ctx.files_limit())?;
    Ok(fd as usize)
}
