//! prctl(2) and arch_prctl(2).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::{ids, seccomp, signal};
use linux_raw_sys::prctl as c;
use machine::{thread, user};
use process::{COMM_LEN, Process};
use vfs::Caps;
use vfs::cred::CAP_LAST;

/// prctl(2)
pub(crate) fn sys_prctl(
    ctx: &mut Ctx<'_>,
    option: usize,
    a: usize,
    b: usize,
    d: usize,
    e: usize,
) -> SysResult {
    let process = ctx.process();
    match option as u32 {
        c::PR_SET_NAME => set_name(ctx, a),
        c::PR_GET_NAME => {
            user::write(a, &ctx.thread().comm_bytes())?;
            Ok(0)
        }
        c::PR_SET_PDEATHSIG => {
            let signal = match a {
                0 => None,
                n => Some(signal::decode(n)?),
            };
            process.set_parent_death_signal(signal);
            Ok(0)
        }
        c::PR_GET_PDEATHSIG => {
            let number = process.parent_death_signal().map_or(0, |s| s.number());
            user::write_value(a, &i32::from(number))?;
            Ok(0)
        }
        c::PR_GET_DUMPABLE
        | c::PR_SET_DUMPABLE
        | c::PR_GET_KEEPCAPS
        | c::PR_SET_KEEPCAPS
        | c::PR_SET_CHILD_SUBREAPER
        | c::PR_GET_CHILD_SUBREAPER
        | c::PR_SET_NO_NEW_PRIVS
        | c::PR_GET_NO_NEW_PRIVS
        | c::PR_SET_THP_DISABLE
        | c::PR_GET_THP_DISABLE => switches(process, option as u32, [a, b, d, e]),
        c::PR_CAPBSET_READ | c::PR_CAPBSET_DROP | c::PR_CAP_AMBIENT => {
            capabilities(ctx, option as u32, [a, b, d, e])
        }
        c::PR_GET_SECUREBITS => Ok(0),
        // There are none that could be set.
        c::PR_SET_SECUREBITS => match (ctx.cred()?.has(Caps::SETPCAP), a) {
            (false, _) => Err(Errno::EPERM),
            (true, 0) => Ok(0),
            (true, _) => Err(Errno::EINVAL),
        },
        // Names are for the reader of /proc/PID/maps; refusing one is what a
        // kernel without CONFIG_ANON_VMA_NAME does.
        c::PR_SET_VMA => Err(Errno::EINVAL),
        c::PR_GET_TIMERSLACK => Ok(TIMER_SLACK_NS),
        // Timers here are not late on purpose, so there is nothing to set.
        c::PR_SET_TIMERSLACK => Ok(0),
        c::PR_SET_SECCOMP => seccomp::set(ctx, a, b),
        c::PR_GET_SECCOMP => seccomp::get(ctx),
        c::PR_GET_TSC => {
            user::write_value(a, &c::PR_TSC_ENABLE)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// What Linux says by default.
const TIMER_SLACK_NS: usize = 50_000;

fn set_name(ctx: &Ctx<'_>, addr: usize) -> SysResult {
    let mut name = [0; COMM_LEN];
    // A longer name is cut off.
    user::read_cstr(addr, &mut name)?;
    ctx.thread().set_comm(&name);
    Ok(0)
}

/// Holds arguments that have no meaning to being 0.
fn unused(rest: &[usize]) -> Result<(), Errno> {
    match rest.iter().all(|r| *r == 0) {
        true => Ok(()),
        false => Err(Errno::EINVAL),
    }
}

/// Options that are on or off.
fn switches(process: &Process, option: u32, [a, b, d, e]: [usize; 4]) -> SysResult {
    match option {
        c::PR_GET_DUMPABLE => Ok(usize::from(process.dumpable())),
        c::PR_SET_DUMPABLE => {
            if a > 1 {
                return Err(Errno::EINVAL);
            }
            process.set_dumpable(a as u8);
            Ok(0)
        }
        c::PR_GET_KEEPCAPS => Ok(usize::from(process.keep_caps())),
        c::PR_SET_KEEPCAPS => {
            if a > 1 {
                return Err(Errno::EINVAL);
            }
            process.set_keep_caps(a == 1);
            Ok(0)
        }
        c::PR_SET_CHILD_SUBREAPER => {
            process.set_subreaper(a != 0);
            Ok(0)
        }
        c::PR_GET_CHILD_SUBREAPER => {
            user::write_value(a, &i32::from(process.is_subreaper()))?;
            Ok(0)
        }
        c::PR_SET_NO_NEW_PRIVS => {
            unused(&[b, d, e])?;
            if a != 1 {
                return Err(Errno::EINVAL);
            }
            process.set_no_new_privs();
            Ok(0)
        }
        c::PR_GET_NO_NEW_PRIVS => {
            unused(&[a, b, d, e])?;
            Ok(usize::from(process.no_new_privs()))
        }
        c::PR_SET_THP_DISABLE => {
            unused(&[b, d, e])?;
            process.set_small_pages_only(a != 0);
            Ok(0)
        }
        c::PR_GET_THP_DISABLE => {
            unused(&[a, b, d, e])?;
            Ok(usize::from(process.small_pages_only()))
        }
        _ => Err(Errno::EINVAL),
    }
}

fn capabilities(ctx: &Ctx<'_>, option: u32, [a, b, d, e]: [usize; 4]) -> SysResult {
    let cap = |n: usize| match u32::try_from(n) {
        Ok(n) if n <= CAP_LAST => Ok(Caps::from_bits_retain(1 << n)),
        _ => Err(Errno::EINVAL),
    };
    if option == c::PR_CAP_AMBIENT {
        unused(&[d, e])?;
    }
    match (option, a as u32) {
        (c::PR_CAPBSET_READ, _) => {
            let wanted = cap(a)?;
            Ok(usize::from(ctx.cred()?.bounding.contains(wanted)))
        }
        (c::PR_CAPBSET_DROP, _) => {
            let gone = cap(a)?;
            ids::change_caps(ctx, |c| match c.has(Caps::SETPCAP) {
                true => {
                    c.bounding.remove(gone);
                    Ok(())
                }
                false => Err(Errno::EPERM),
            })
        }
        (_, c::PR_CAP_AMBIENT_CLEAR_ALL) => {
            unused(&[b])?;
            ids::change_caps(ctx, |c| {
                c.ambient = Caps::empty();
                Ok(())
            })
        }
        (_, c::PR_CAP_AMBIENT_IS_SET) => {
            let wanted = cap(b)?;
            Ok(usize::from(ctx.cred()?.ambient.contains(wanted)))
        }
        (_, c::PR_CAP_AMBIENT_RAISE) => {
            let more = cap(b)?;
            ids::change_caps(ctx, |c| {
                if !(c.permitted & c.inheritable).contains(more) {
                    return Err(Errno::EPERM);
                }
                c.ambient |= more;
                Ok(())
            })
        }
        (_, c::PR_CAP_AMBIENT_LOWER) => {
            let less = cap(b)?;
            ids::change_caps(ctx, |c| {
                c.ambient.remove(less);
                Ok(())
            })
        }
        _ => Err(Errno::EINVAL),
    }
}

/// arch_prctl(2)
pub(crate) fn sys_arch_prctl(_: &mut Ctx<'_>, code: usize, addr: usize) -> SysResult {
    const SET_GS: usize = 0x1001;
    const SET_FS: usize = 0x1002;
    const GET_FS: usize = 0x1003;
    const GET_GS: usize = 0x1004;
    const GET_CPUID: usize = 0x1011;
    const SET_CPUID: usize = 0x1012;
    let set = |fs, gs| match thread::set_segment_bases(fs, gs) {
        true => Ok(0),
        false => Err(Errno::EPERM),
    };
    match code {
        SET_FS => set(Some(addr), None),
        SET_GS => set(None, Some(addr)),
        GET_FS => {
            user::write_value(addr, &(thread::segment_bases().0 as u64))?;
            Ok(0)
        }
        GET_GS => {
            user::write_value(addr, &(thread::segment_bases().1 as u64))?;
            Ok(0)
        }
        // The instruction cannot be made to fault.
        GET_CPUID => Ok(1),
        SET_CPUID => Err(Errno::ENODEV),
        _ => Err(Errno::EINVAL),
    }
}
