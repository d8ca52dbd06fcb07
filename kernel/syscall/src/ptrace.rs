//! ptrace(2): decoding its requests. What they do is in the process room.

mod regs;

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::ids::may_inspect;
use alloc::sync::Arc;
use machine::user;
use process::Thread;
use process::signal::{Origin, SigInfo, SigSet, Signal};
use process::trace::{CallStop, Options, Resume, Stopped};
use vfs::Caps;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const TRACEME: usize = 0;
const PEEKTEXT: usize = 1;
const PEEKDATA: usize = 2;
const PEEKUSER: usize = 3;
const POKETEXT: usize = 4;
const POKEDATA: usize = 5;
const POKEUSER: usize = 6;
const CONT: usize = 7;
const KILL: usize = 8;
const SINGLESTEP: usize = 9;
const GETREGS: usize = 12;
const SETREGS: usize = 13;
const GETFPREGS: usize = 14;
const SETFPREGS: usize = 15;
const ATTACH: usize = 16;
const DETACH: usize = 17;
const SYSCALL: usize = 24;
const SETOPTIONS: usize = 0x4200;
const GETEVENTMSG: usize = 0x4201;
const GETSIGINFO: usize = 0x4202;
const SETSIGINFO: usize = 0x4203;
const GETREGSET: usize = 0x4204;
const SETREGSET: usize = 0x4205;
const SEIZE: usize = 0x4206;
const INTERRUPT: usize = 0x4207;
const LISTEN: usize = 0x4208;
const PEEKSIGINFO: usize = 0x4209;
const GETSIGMASK: usize = 0x420a;
const SETSIGMASK: usize = 0x420b;
const GET_SYSCALL_INFO: usize = 0x420e;

/// ptrace(2)
pub(crate) fn sys_ptrace(
    ctx: &mut Ctx<'_>,
    request: usize,
    pid: usize,
    addr: usize,
    data: usize,
) -> SysResult {
    if request == TRACEME {
        ctx.thread().trace_me()?;
        return Ok(0);
    }
    let tid = u32::try_from(pid as i32).map_err(|_| Errno::ESRCH)?;
    let tracee = ctx.world().thread(tid).ok_or(Errno::ESRCH)?;
    match request {
        ATTACH => attach(ctx, &tracee, None),
        SEIZE if addr != 0 => Err(Errno::EIO),
        SEIZE => attach(ctx, &tracee, Some(options(data).map_err(|_| Errno::EIO)?)),
        INTERRUPT => {
            tracee.interrupt(ctx.process()).map_err(not_interrupted)?;
            Ok(0)
        }
        KILL => {
            if !tracee.is_traced_by(ctx.process()) {
                return Err(Errno::ESRCH);
            }
            let info = SigInfo::kernel(Signal::KILL);
            tracee.signal(Signal::KILL, info, Origin::Inside)?;
            Ok(0)
        }
        _ => on_stopped(ctx, &tracee, request, addr, data),
    }
}

fn not_interrupted(e: process::Error) -> Errno {
    match e {
        process::Error::Invalid => Errno::EIO,
        e => e.into(),
    }
}

fn options(bits: usize) -> Result<Options, Errno> {
    let known = u32::try_from(bits).ok().and_then(Options::from_bits);
    known.ok_or(Errno::EINVAL)
}

fn attach(ctx: &Ctx<'_>, tracee: &Arc<Thread>, seize: Option<Options>) -> SysResult {
    if !may_inspect(ctx, tracee.process())? {
        return Err(Errno::EPERM);
    }
    let privileged = ctx.cred()?.has(Caps::SYS_PTRACE);
    tracee.attach(ctx.process(), privileged, seize)?;
    tracee.enter_stop(ctx.thread());
    Ok(0)
}

/// A signal to go on with; 0 for none.
fn signal_number(data: usize) -> Result<u8, Errno> {
    let number = u8::try_from(data).map_err(|_| Errno::EIO)?;
    let known = number == 0 || Signal::new(usize::from(number)).is_some();
    known.then_some(number).ok_or(Errno::EIO)
}

/// A request to a tracee that has to be stopped.
fn on_stopped(
    ctx: &Ctx<'_>,
    tracee: &Arc<Thread>,
    request: usize,
    addr: usize,
    data: usize,
) -> SysResult {
    let me = ctx.process();
    // Whatever is asked, a tracee that runs answers ESRCH.
    tracee.with_stopped(me, |_| ())?;
    let with = |f: &mut dyn FnMut(&mut Stopped) -> SysResult| tracee.with_stopped(me, f)?;
    match request {
        CONT => tracee.resume(me, Resume::Free, signal_number(data)?)?,
        SYSCALL => tracee.resume(me, Resume::Calls, signal_number(data)?)?,
        SINGLESTEP => tracee.resume(me, Resume::Step, signal_number(data)?)?,
        DETACH => tracee.detach(me, signal_number(data)?)?,
        LISTEN => tracee.listen(me).map_err(not_interrupted)?,
        SETOPTIONS => tracee.set_trace_options(me, options(data)?)?,
        PEEKTEXT | PEEKDATA => {
            let mut word = [0; 8];
            if peek(tracee, addr, &mut word)? != word.len() {
                return Err(Errno::EIO);
            }
            user::write(data, &word)?;
        }
        POKETEXT | POKEDATA => {
            let space = tracee.space.get().ok_or(Errno::ESRCH)?;
            if space.write_forced(addr, &data.to_ne_bytes()) != size_of::<usize>() {
                return Err(Errno::EIO);
            }
        }
        PEEKUSER | POKEUSER | GETREGS | GETFPREGS | SETREGS | SETFPREGS => {
            return registers(&with, request, addr, data);
        }
        GETREGSET | SETREGSET => return regset(&with, request, addr, data),
        GETEVENTMSG | GETSIGINFO | SETSIGINFO => return reason(&with, request, data),
        PEEKSIGINFO => return peek_siginfo(tracee, addr, data),
        GETSIGMASK | SETSIGMASK => return mask(tracee, request, addr, data),
        GET_SYSCALL_INFO => return call_info(&with, addr, data),
        _ => return Err(Errno::EIO),
    }
    Ok(0)
}

fn peek(tracee: &Thread, addr: usize, out: &mut [u8]) -> Result<usize, Errno> {
    let space = tracee.space.get().ok_or(Errno::ESRCH)?;
    Ok(space.read(addr, out))
}

/// What runs a closure on the stopped tracee.
type With<'a> = dyn Fn(&mut dyn FnMut(&mut Stopped) -> SysResult) -> SysResult + 'a;

/// The requests that move registers, one or all of a kind.
fn registers(with: &With<'_>, request: usize, addr: usize, data: usize) -> SysResult {
    let (general, legacy) = (regs::Set::General, regs::Set::Legacy);
    match request {
        PEEKUSER => {
            let mut word = 0;
            with(&mut |s| {
                word = regs::peek(s, addr)?;
                Ok(0)
            })?;
            user::write_value(data, &word)?;
            Ok(0)
        }
        POKEUSER => with(&mut |s| regs::poke(s, addr, data as u64)),
        GETREGS => regs::get(with, general, data, general.len()),
        SETREGS => regs::set(with, general, data, general.len()),
        GETFPREGS => regs::get(with, legacy, data, legacy.len()),
        _ => regs::set(with, legacy, data, legacy.len()),
    }
}

/// The requests about why a tracee stopped.
fn reason(with: &With<'_>, request: usize, data: usize) -> SysResult {
    if request == SETSIGINFO {
        let new: SigInfo = user::read_value(data)?;
        return with(&mut |s| {
            *s.info.as_mut().ok_or(Errno::EINVAL)? = new;
            Ok(0)
        });
    }
    let (mut message, mut info) = (0, None);
    with(&mut |s| {
        (message, info) = (s.message, s.info);
        Ok(0)
    })?;
    if request == GETEVENTMSG {
        user::write_value(data, &message)?;
    } else {
        user::write(data, &info.ok_or(Errno::EINVAL)?.to_user())?;
    }
    Ok(0)
}

/// `PTRACE_GETREGSET` and `PTRACE_SETREGSET`: `data` leads to a buffer and its length,
/// which becomes that of the set.
fn regset(with: &With<'_>, request: usize, kind: usize, data: usize) -> SysResult {
    let [base, len]: [usize; 2] = user::read_value(data)?;
    let set = regs::Set::of_note(kind).ok_or(Errno::EINVAL)?;
    let unit = size_of::<u64>();
    if !len.is_multiple_of(unit) {
        return Err(Errno::EINVAL);
    }
    let len = len.min(set.len());
    match request {
        GETREGSET => regs::get(with, set, base, len)?,
        _ => regs::set(with, set, base, len)?,
    };
    user::write_value(data, &[base, len])?;
    Ok(0)
}

/// `struct ptrace_peeksiginfo_args`.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PeekArgs {
    offset: u64,
    flags: u32,
    count: i32,
}

/// `PTRACE_PEEKSIGINFO`: signals that wait, left where they are.
fn peek_siginfo(tracee: &Thread, addr: usize, data: usize) -> SysResult {
    const SHARED: u32 = 1;
    let args: PeekArgs = user::read_value(addr)?;
    let count = usize::try_from(args.count).map_err(|_| Errno::EINVAL)?;
    if args.flags & !SHARED != 0 {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < count {
        let at = usize::try_from(args.offset).ok();
        let at = at.and_then(|at| at.checked_add(done));
        let Some(info) = at.and_then(|at| tracee.peek_signal(args.flags == SHARED, at)) else {
            break;
        };
        let bytes = info.to_user();
        match data.checked_add(done * bytes.len()) {
            Some(to) if user::write(to, &bytes).is_ok() => done += 1,
            _ if done == 0 => return Err(Errno::EFAULT),
            _ => break,
        }
        if machine::thread::current().attention() {
            break;
        }
        machine::thread::cond_resched();
    }
    Ok(done)
}

/// `PTRACE_GETSIGMASK` and `PTRACE_SETSIGMASK`.
fn mask(tracee: &Thread, request: usize, size: usize, data: usize) -> SysResult {
    if size != size_of::<u64>() {
        return Err(Errno::EINVAL);
    }
    if request == GETSIGMASK {
        user::write_value(data, &tracee.signals.blocked().0)?;
    } else {
        tracee.set_blocked(SigSet(user::read_value(data)?));
    }
    Ok(0)
}

/// `AUDIT_ARCH_X86_64`: 64 bits, little-endian, and the number that ELF gives the machine.
const AUDIT_ARCH: u32 = 0xc000_0000 | 62;

/// `struct ptrace_syscall_info`.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct CallInfo {
    op: u8,
    pad: [u8; 3],
    arch: u32,
    instruction: u64,
    stack: u64,
    /// Number and arguments, or result and whether that is an error.
    words: [u64; 8],
}

/// `PTRACE_GET_SYSCALL_INFO`: the size of what there is, of which `size` bytes go to
/// `data`.
fn call_info(with: &With<'_>, size: usize, data: usize) -> SysResult {
    const HEAD: usize = 24;
    let mut info = CallInfo::default();
    let mut len = HEAD;
    with(&mut |s| {
        let r = &s.regs;
        info.arch = AUDIT_ARCH;
        (info.instruction, info.stack) = (r.rip, r.rsp);
        match s.call {
            CallStop::Outside => {}
            CallStop::Enter => {
                info.op = 1;
                let words = [r.orig_rax, r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9, 0];
                info.words = words;
                len = HEAD + 7 * size_of::<u64>();
            }
            CallStop::Exit => {
                info.op = 2;
                let error = Errno::of_rax(r.rax).is_some();
                (info.words[0], info.words[1]) = (r.rax, u64::from(error));
                len = HEAD + size_of::<u64>() + 1;
            }
        }
        Ok(0)
    })?;
    let part = info.as_bytes().get(..len.min(size)).unwrap_or_default();
    user::write(data, part)?;
    Ok(len)
}
