//! Making and ending processes and threads, and waiting for them.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::usage::Rusage;
use crate::{pidfd, signal};
use linux_raw_sys::general as c;
use machine::user;
use process::clone::{CloneFlags, CloneRequest, NewTask, clone, wait_for_release};
use process::exit;
use process::signal::{SigInfo, Signal};
use process::trace::Event;
use process::wait::{WaitOptions, Waited, Which};
use vfs::OpenFlags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where `clone` tells the parent about the child; 0 for nowhere.
#[derive(Clone, Copy, Default)]
struct Report {
    tid: usize,
    pidfd: usize,
}

/// fork(2)
pub(crate) fn sys_fork(ctx: &mut Ctx<'_>) -> SysResult {
    make(ctx, &CloneRequest::fork(), Report::default())
}

/// vfork(2)
pub(crate) fn sys_vfork(ctx: &mut Ctx<'_>) -> SysResult {
    let request = CloneRequest {
        flags: CloneFlags::VFORK | CloneFlags::VM,
        ..CloneRequest::fork()
    };
    make(ctx, &request, Report::default())
}

/// clone(2), with the arguments in the order of x86-64.
pub(crate) fn sys_clone(
    ctx: &mut Ctx<'_>,
    flags: usize,
    stack: usize,
    parent_tid: usize,
    child_tid: usize,
    tls: usize,
) -> SysResult {
    /// The part of `flags` that is a signal (`CSIGNAL`).
    const SIGNAL: usize = 0xff;
    let exit_signal = match flags & SIGNAL {
        0 => None,
        n => Some(signal::decode(n)?),
    };
    // The upper half of the register does not count.
    let flags = CloneFlags::from_bits_truncate((flags & !SIGNAL) as u32 as u64);
    let request = CloneRequest {
        flags,
        stack,
        tls,
        child_tid,
        exit_signal,
    };
    // The pidfd goes where otherwise the number would.
    let both = CloneFlags::PIDFD | CloneFlags::PARENT_SETTID;
    if flags.contains(both) {
        return Err(Errno::EINVAL);
    }
    let report = Report {
        tid: parent_tid,
        pidfd: parent_tid,
    };
    make(ctx, &request, report)
}

/// `struct clone_args`.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// Reads a structure of `size` bytes: older ones end earlier, and what newer
    /// ones add must be zero.
    fn read(addr: usize, size: usize) -> Result<CloneArgs, Errno> {
        const FIRST_VERSION: usize = 64;
        if size > machine::addr::PAGE_SIZE {
            return Err(Errno::E2BIG);
        }
        if size < FIRST_VERSION {
            return Err(Errno::EINVAL);
        }
        let mut args = CloneArgs::default();
        let known = size.min(size_of::<CloneArgs>());
        user::read(addr, &mut args.as_mut_bytes()[..known])?;
        for at in known..size {
            if user::read_value::<u8>(addr.wrapping_add(at))? != 0 {
                return Err(Errno::E2BIG);
            }
        }
        Ok(args)
    }

    fn request(&self) -> Result<CloneRequest, Errno> {
        let flags = CloneFlags::from_bits(self.flags).ok_or(Errno::EINVAL)?;
        let task = CloneFlags::THREAD | CloneFlags::PARENT;
        if flags.contains(CloneFlags::DETACHED)
            || self.set_tid != 0
            || self.set_tid_size != 0
            || (self.stack == 0) != (self.stack_size == 0)
            || flags.intersects(task) && self.exit_signal != 0
        {
            return Err(Errno::EINVAL);
        }
        let exit_signal = match self.exit_signal {
            0 => None,
            n @ 1..=64 => Signal::new(n as usize),
            _ => return Err(Errno::EINVAL),
        };
        let stack = self.stack.checked_add(self.stack_size);
        Ok(CloneRequest {
            flags,
            stack: stack.ok_or(Errno::EINVAL)? as usize,
            tls: self.tls as usize,
            child_tid: self.child_tid as usize,
            exit_signal,
        })
    }
}

/// clone3(2)
pub(crate) fn sys_clone3(ctx: &mut Ctx<'_>, args: usize, size: usize) -> SysResult {
    let args = CloneArgs::read(args, size)?;
    let report = Report {
        tid: args.parent_tid as usize,
        pidfd: args.pidfd as usize,
    };
    make(ctx, &args.request()?, report)
}

/// Makes a task, tells the caller about it, and lets it run.
fn make(ctx: &mut Ctx<'_>, request: &CloneRequest, report: Report) -> SysResult {
    let flags = request.flags;
    let task = clone(ctx.thread(), request, ctx.regs).map_err(|e| match e {
        process::Error::Interrupted => Errno::ERESTARTNOINTR,
        e => e.into(),
    })?;
    let tid = task.tid();
    if flags.contains(CloneFlags::PIDFD)
        && let Err(e) = give_pidfd(ctx, &task, report.pidfd)
    {
        task.cancel();
        return Err(e);
    }
    if flags.contains(CloneFlags::PARENT_SETTID) {
        // As on Linux, an address that cannot be written is the caller's loss.
        let _ = user::write_value(report.tid, &tid);
    }
    let me = ctx.thread();
    let event = task.follow(me, request);
    let child = task.process().clone();
    task.start();
    if let Some(event) = event {
        me.trace_event(ctx.regs, event, u64::from(tid));
    }
    if flags.contains(CloneFlags::VFORK) {
        wait_for_release(me, &child);
        me.trace_event(ctx.regs, Event::VforkDone, u64::from(tid));
    }
    Ok(tid as usize)
}

fn give_pidfd(ctx: &Ctx<'_>, task: &NewTask, addr: usize) -> Result<(), Errno> {
    let flags = OpenFlags::from_bits_truncate(c::O_RDWR);
    let fd = pidfd::open(ctx, task.process().clone(), flags)?;
    if let Err(e) = user::write_value(addr, &(fd as u32)) {
        let gone = ctx.files()?.remove(fd as i32);
        drop(gone);
        return Err(e.into());
    }
    Ok(())
}

/// exit(2)
pub(crate) fn sys_exit(ctx: &mut Ctx<'_>, code: usize) -> SysResult {
    exit::end_thread(ctx.thread(), ctx.regs, code as u8)
}

/// exit_group(2)
pub(crate) fn sys_exit_group(ctx: &mut Ctx<'_>, code: usize) -> SysResult {
    exit::end_process(ctx.thread(), ctx.regs, code as u8)
}

/// wait4(2)
pub(crate) fn sys_wait4(
    ctx: &mut Ctx<'_>,
    pid: usize,
    status: usize,
    options: usize,
    usage: usize,
) -> SysResult {
    let allowed = WaitOptions::all() - WaitOptions::EXITED - WaitOptions::NOWAIT;
    let options = WaitOptions::from_bits(options as u32).filter(|o| allowed.contains(*o));
    let options = options.ok_or(Errno::EINVAL)? | WaitOptions::EXITED;
    let which = match pid as i32 {
        -1 => Which::Any,
        0 => Which::Group(ctx.process().group()?),
        // No process can have that number.
        i32::MIN => return Err(Errno::ESRCH),
        p if p < 0 => Which::Group(p.unsigned_abs()),
        p => Which::Pid(p as u32),
    };
    let Some(waited) = ctx.process().wait(which, options)? else {
        return Ok(0);
    };
    if status != 0 {
        user::write_value(status, &waited.change.word())?;
    }
    if usage != 0 {
        user::write_value(usage, &Rusage::new(&waited.counted))?;
    }
    Ok(waited.pid as usize)
}

/// waitid(2)
pub(crate) fn sys_waitid(
    ctx: &mut Ctx<'_>,
    kind: usize,
    id: usize,
    info: usize,
    options: usize,
    usage: usize,
) -> SysResult {
    let options = WaitOptions::from_bits(options as u32).ok_or(Errno::EINVAL)?;
    let events = WaitOptions::EXITED | WaitOptions::STOPPED | WaitOptions::CONTINUED;
    if !options.intersects(events) {
        return Err(Errno::EINVAL);
    }
    let positive = || u32::try_from(id as i32).map_err(|_| Errno::EINVAL);
    let which = match kind as u32 {
        c::P_ALL => Which::Any,
        c::P_PID => match positive()? {
            0 => return Err(Errno::EINVAL),
            p => Which::Pid(p),
        },
        c::P_PGID => match positive()? {
            0 => Which::Group(ctx.process().group()?),
            g => Which::Group(g),
        },
        c::P_PIDFD => Which::Pid(pidfd::process(ctx, id)?.pid()),
        _ => return Err(Errno::EINVAL),
    };
    // Of a descriptor that does not wait, the caller does not either.
    let patient = options.contains(WaitOptions::NOHANG)
        || kind as u32 != c::P_PIDFD
        || !ctx.any_file(id)?.nonblocking();
    let found = match patient {
        true => ctx.process().wait(which, options)?,
        false => {
            let found = ctx.process().wait(which, options | WaitOptions::NOHANG)?;
            Some(found.ok_or(Errno::EAGAIN)?)
        }
    };
    if info != 0 {
        // Without a child only the number and the signal are said to be zero.
        let why = found.as_ref().map_or([0; 128], |w| child_info(w).to_user());
        user::write(info, &why)?;
    }
    if let (Some(w), true) = (&found, usage != 0) {
        user::write_value(usage, &Rusage::new(&w.counted))?;
    }
    Ok(0)
}

fn child_info(w: &Waited) -> SigInfo {
    let (code, status) = w.change.code_and_status();
    SigInfo::child(code, w.pid, w.uid, status, (0, 0))
}

/// set_tid_address(2)
pub(crate) fn sys_set_tid_address(ctx: &mut Ctx<'_>, addr: usize) -> SysResult {
    ctx.thread().set_clear_child_tid(addr);
    Ok(ctx.thread().tid() as usize)
}

/// unshare(2): threads can stop sharing files and places; namespaces are what a
/// capsule is made of.
pub(crate) fn sys_unshare(ctx: &mut Ctx<'_>, flags: usize) -> SysResult {
    let flags = CloneFlags::from_bits(flags as u64).ok_or(Errno::EINVAL)?;
    if flags.intersects(CloneFlags::NAMESPACES) {
        return Err(Errno::EPERM);
    }
    let shared = CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM;
    let known = shared | CloneFlags::FILES | CloneFlags::FS | CloneFlags::SYSVSEM;
    if !known.contains(flags) || flags.intersects(shared) && ctx.process().thread_count() > 1 {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::FILES) {
        let own = ctx.files()?.duplicate()?;
        ctx.thread().files.set(alloc::sync::Arc::new(own));
    }
    if flags.contains(CloneFlags::FS) {
        let own = (*ctx.fs()?).clone();
        ctx.thread().fs.set(alloc::sync::Arc::new(own));
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> CloneArgs {
        CloneArgs::default()
    }

    #[test]
    fn clone3_takes_a_stack_as_base_and_size() {
        let a = CloneArgs {
            stack: 0x1000,
            stack_size: 0x2000,
            exit_signal: 17,
            ..args()
        };
        let r = a.request().unwrap();
        assert_eq!((r.stack, r.exit_signal), (0x3000, Some(Signal::CHLD)));
        let half = CloneArgs {
            stack: 0x1000,
            ..args()
        };
        assert_eq!(half.request().err(), Some(Errno::EINVAL));
        let wraps = CloneArgs {
            stack: u64::MAX,
            stack_size: 2,
            ..args()
        };
        assert_eq!(wraps.request().err(), Some(Errno::EINVAL));
        let unknown = CloneArgs {
            flags: 1 << 40,
            ..args()
        };
        assert_eq!(unknown.request().err(), Some(Errno::EINVAL));
        let signal = CloneArgs {
            exit_signal: 65,
            ..args()
        };
        assert_eq!(signal.request().err(), Some(Errno::EINVAL));
    }
}
