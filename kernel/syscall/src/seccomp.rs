//! seccomp(2), and its older form in prctl(2).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::vec::Vec;
use machine::user;
use process::seccomp::action;
use process::seccomp::bpf::{INSTRUCTIONS_MAX, Instruction, Program};
use vfs::Caps;

/// Operations of seccomp(2) (`linux/seccomp.h`).
const SET_MODE_STRICT: u32 = 0;
const SET_MODE_FILTER: u32 = 1;
const GET_ACTION_AVAIL: u32 = 2;
/// Modes as prctl(2) has them.
const MODE_STRICT: u32 = 1;
const MODE_FILTER: u32 = 2;
/// Flags of [`SET_MODE_FILTER`].
const TSYNC: u32 = 1;
const LOG: u32 = 2;
/// About mitigations of the processor's speculation, of which there are none to leave
/// out.
const SPEC_ALLOW: u32 = 4;
const TSYNC_ESRCH: u32 = 0x10;
const FLAGS: u32 = TSYNC | LOG | SPEC_ALLOW | TSYNC_ESRCH;

/// seccomp(2)
pub(crate) fn sys_seccomp(
    ctx: &mut Ctx<'_>,
    operation: usize,
    flags: usize,
    at: usize,
) -> SysResult {
    let flags = flags as u32;
    match operation as u32 {
        SET_MODE_STRICT if flags == 0 && at == 0 => set_strict(ctx),
        SET_MODE_FILTER => add_filter(ctx, flags, at),
        GET_ACTION_AVAIL if flags == 0 => is_available(user::read_value(at)?),
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_SET_SECCOMP` of prctl(2).
pub(crate) fn set(ctx: &Ctx<'_>, mode: usize, at: usize) -> SysResult {
    match mode as u32 {
        MODE_STRICT => set_strict(ctx),
        MODE_FILTER => add_filter(ctx, 0, at),
        _ => Err(Errno::EINVAL),
    }
}

/// `PR_GET_SECCOMP` of prctl(2).
pub(crate) fn get(ctx: &Ctx<'_>) -> SysResult {
    Ok(ctx.thread().seccomp_mode() as usize)
}

fn set_strict(ctx: &Ctx<'_>) -> SysResult {
    ctx.thread().set_seccomp_strict()?;
    Ok(0)
}

fn add_filter(ctx: &Ctx<'_>, flags: u32, at: usize) -> SysResult {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    // `struct sock_fprog`: length, padding, address.
    let [length, address]: [u64; 2] = user::read_value(at)?;
    let length = usize::from(length as u16);
    if !(1..=INSTRUCTIONS_MAX).contains(&length) {
        return Err(Errno::EINVAL);
    }
    // Who can become another user by `execve` must not bring a filter there.
    if !ctx.process().no_new_privs() && !ctx.cred()?.has(Caps::SYS_ADMIN) {
        return Err(Errno::EACCES);
    }
    let program = Program::new(read_program(address as usize, length)?)?;
    let (logs, all) = (flags & LOG != 0, flags & TSYNC != 0);
    match ctx.thread().add_seccomp_filter(program, logs, all)? {
        None => Ok(0),
        Some(_) if flags & TSYNC_ESRCH != 0 => Err(Errno::ESRCH),
        Some(tid) => Ok(tid as usize),
    }
}

/// So many instructions at `at`.
fn read_program(at: usize, length: usize) -> Result<Vec<Instruction>, Errno> {
    let mut program = Vec::new();
    program
        .try_reserve_exact(length)
        .map_err(|_| Errno::ENOMEM)?;
    let nothing = Instruction {
        code: 0,
        when: 0,
        otherwise: 0,
        k: 0,
    };
    program.resize(length, nothing);
    let bytes = zerocopy::IntoBytes::as_mut_bytes(&mut program[..]);
    user::read(at, bytes)?;
    Ok(program)
}

/// Whether filters can answer so.
fn is_available(answer: u32) -> SysResult {
    match answer {
        action::KILL_PROCESS
        | action::KILL_THREAD
        | action::TRAP
        | action::ERRNO
        | action::TRACE
        | action::LOG
        | action::ALLOW => Ok(0),
        // Of those that Linux has, listeners of other processes are missing.
        _ => Err(Errno::EOPNOTSUPP),
    }
}
