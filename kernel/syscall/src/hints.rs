//! Hints that are kept and told, and change nothing here: where memory is to lie on
//! a machine with several nodes (set_mempolicy(2)), and whose I/O goes first
//! (ioprio_set(2)).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use machine::addr::PAGE_SIZE;
use machine::user;
use process::Thread;
use vfs::Caps;

/// Memory policies, without their flags.
const DEFAULT: u32 = 0;
const PREFERRED: u32 = 1;
const LOCAL: u32 = 4;
const PREFERRED_MANY: u32 = 5;
/// Flags of a policy: static, relative, balancing.
const MODE_FLAGS: u32 = 0xe000;
/// In what is kept: the policy names the one node there is.
const NODE: u32 = 1 << 16;
/// Most bits a mask of nodes can have.
const MASK_BITS: usize = PAGE_SIZE * 8;

/// Whether a mask of nodes names the first, the only one.
fn read_mask(at: usize, bits: usize) -> Result<bool, Errno> {
    if at == 0 || bits <= 1 {
        return Ok(false);
    }
    // The call counts one bit too many (set_mempolicy(2), "BUGS").
    let bits = bits - 1;
    if bits > MASK_BITS {
        return Err(Errno::EINVAL);
    }
    let mut named = false;
    for i in 0..bits.div_ceil(64) {
        let mut word: u64 = user::read_value(at.wrapping_add(8 * i))?;
        if bits - 64 * i < 64 {
            word &= (1 << (bits - 64 * i)) - 1;
        }
        named |= i == 0 && word & 1 != 0;
        if word & !1 != 0 || i > 0 && word != 0 {
            return Err(Errno::EINVAL);
        }
    }
    Ok(named)
}

/// A policy as it is kept.
fn policy(mode: usize, mask: usize, bits: usize) -> Result<u32, Errno> {
    let mode = u32::try_from(mode).map_err(|_| Errno::EINVAL)?;
    let kind = mode & !MODE_FLAGS;
    let named = read_mask(mask, bits)?;
    let fits = match kind {
        DEFAULT => !named && mode & MODE_FLAGS == 0,
        LOCAL => !named,
        PREFERRED => true,
        _ => kind <= PREFERRED_MANY && named,
    };
    if !fits {
        return Err(Errno::EINVAL);
    }
    Ok(mode | if named { NODE } else { 0 })
}

/// set_mempolicy(2)
pub(crate) fn sys_set_mempolicy(
    ctx: &mut Ctx<'_>,
    mode: usize,
    mask: usize,
    bits: usize,
) -> SysResult {
    let new = policy(mode, mask, bits)?;
    ctx.thread().hints.memory_policy.store(new, Relaxed);
    Ok(0)
}

/// get_mempolicy(2)
pub(crate) fn sys_get_mempolicy(
    ctx: &mut Ctx<'_>,
    mode: usize,
    mask: usize,
    bits: usize,
    addr: usize,
    flags: usize,
) -> SysResult {
    const WANT_NODE: usize = 1;
    const OF_ADDRESS: usize = 2;
    const ALLOWED: usize = 4;
    let kept = ctx.thread().hints.memory_policy.load(Relaxed);
    let (value, named) = match flags {
        ALLOWED => (0, true),
        0 if addr == 0 => (kept & !NODE, kept & NODE != 0),
        OF_ADDRESS => (DEFAULT, false),
        f if f == WANT_NODE | OF_ADDRESS => {
            // Brings the page in: its node is the one there is.
            user::read_value::<u8>(addr)?;
            (0, false)
        }
        _ => return Err(Errno::EINVAL),
    };
    if mode != 0 {
        user::write_value(mode, &value)?;
    }
    if mask != 0 && bits > 0 {
        if bits > MASK_BITS {
            return Err(Errno::EINVAL);
        }
        for i in 0..bits.div_ceil(64) {
            let word = u64::from(i == 0 && named);
            user::write_value(mask.wrapping_add(8 * i), &word)?;
        }
    }
    Ok(0)
}

/// mbind(2)
pub(crate) fn sys_mbind(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    mode: usize,
    mask: usize,
    bits: usize,
    flags: usize,
) -> SysResult {
    if flags & !7 != 0 || !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    policy(mode, mask, bits)?;
    let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
    let space = ctx.space()?;
    let mut at = addr;
    while at < end {
        let region = space.next_region(at).filter(|r| r.range.start <= at);
        at = region.ok_or(Errno::EFAULT)?.range.end;
        machine::thread::cond_resched();
    }
    Ok(0)
}

/// The threads that ioprio_get(2) and ioprio_set(2) speak of.
fn those(ctx: &Ctx<'_>, which: usize, who: usize) -> Result<Vec<Arc<Thread>>, Errno> {
    const PROCESS: usize = 1;
    const GROUP: usize = 2;
    const USER: usize = 3;
    let who = who as u32;
    let mut found = Vec::new();
    match which {
        PROCESS if who == 0 => found.push(ctx.thread().clone()),
        PROCESS => found.extend(ctx.world().thread(who)),
        GROUP | USER => {
            let group = match who {
                0 if which == GROUP => ctx.process().group()?,
                n => n,
            };
            for p in ctx.world().processes() {
                let chosen = match which {
                    GROUP => p.group() == Ok(group),
                    _ => p.uid() == who,
                };
                if chosen {
                    found.extend(p.threads());
                }
            }
        }
        _ => return Err(Errno::EINVAL),
    }
    match found.is_empty() {
        true => Err(Errno::ESRCH),
        false => Ok(found),
    }
}

/// Class and level of an I/O priority.
fn parts(priority: u32) -> (u32, u32) {
    (priority >> 13, priority & 0x1fff)
}

/// ioprio_set(2)
pub(crate) fn sys_ioprio_set(
    ctx: &mut Ctx<'_>,
    which: usize,
    who: usize,
    priority: usize,
) -> SysResult {
    let new = priority as u32;
    let fits = match parts(new) {
        (0, level) => level == 0,
        (1 | 2, level) => level < 8,
        (3, _) => true,
        _ => false,
    };
    if !fits {
        return Err(Errno::EINVAL);
    }
    if parts(new).0 == 1 && !ctx.cred()?.has(Caps::SYS_ADMIN) && !ctx.cred()?.has(Caps::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let me = ctx.cred()?;
    for t in those(ctx, which, who)? {
        let uid = t.process().uid();
        if uid != me.euid && uid != me.uid && !me.has(Caps::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        t.hints.io_priority.store(new, Relaxed);
    }
    Ok(0)
}

/// ioprio_get(2): of several the best, which has the lowest number but for none.
pub(crate) fn sys_ioprio_get(ctx: &mut Ctx<'_>, which: usize, who: usize) -> SysResult {
    let all = those(ctx, which, who)?;
    let each = all.iter().map(|t| t.hints.io_priority.load(Relaxed));
    let best = each.clone().filter(|p| *p != 0).min();
    Ok(best.unwrap_or(0) as usize)
}
