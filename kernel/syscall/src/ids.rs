//! Who a process is: pids, users, groups, capabilities, sessions.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::user;
use process::{Pid, Process};
use vfs::cred::{GROUPS_MAX, Groups};
use vfs::{Caps, Credentials};

/// What an argument of all ones means: leave it alone.
const KEEP: u32 = u32::MAX;

/// getpid(2)
pub(crate) fn sys_getpid(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(ctx.process().pid() as usize)
}

/// gettid(2)
pub(crate) fn sys_gettid(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(ctx.thread().tid() as usize)
}

/// getppid(2)
pub(crate) fn sys_getppid(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(ctx.process().ppid() as usize)
}

/// A process named by a system call, 0 being the caller.
fn named(ctx: &Ctx<'_>, pid: usize) -> Result<Pid, Errno> {
    match pid as i32 {
        0 => Ok(ctx.process().pid()),
        p => u32::try_from(p).map_err(|_| Errno::EINVAL),
    }
}

/// getpgid(2)
pub(crate) fn sys_getpgid(ctx: &mut Ctx<'_>, pid: usize) -> SysResult {
    let pid = named(ctx, pid).map_err(|_| Errno::ESRCH)?;
    Ok(ctx.process().group_of(pid)? as usize)
}

/// getpgrp(2)
pub(crate) fn sys_getpgrp(ctx: &mut Ctx<'_>) -> SysResult {
    Ok(ctx.process().group()? as usize)
}

/// setpgid(2)
pub(crate) fn sys_setpgid(ctx: &mut Ctx<'_>, pid: usize, group: usize) -> SysResult {
    let pid = named(ctx, pid)?;
    let group = match group as i32 {
        0 => pid,
        g => u32::try_from(g).map_err(|_| Errno::EINVAL)?,
    };
    ctx.process().set_group(pid, group)?;
    Ok(0)
}

/// getsid(2)
pub(crate) fn sys_getsid(ctx: &mut Ctx<'_>, pid: usize) -> SysResult {
    let pid = named(ctx, pid).map_err(|_| Errno::ESRCH)?;
    Ok(ctx.process().session_of(pid)? as usize)
}

/// setsid(2)
pub(crate) fn sys_setsid(ctx: &mut Ctx<'_>) -> SysResult {
    ctx.process().new_session()?;
    Ok(ctx.process().pid() as usize)
}

fn field(ctx: &Ctx<'_>, f: impl FnOnce(&Credentials) -> u32) -> SysResult {
    let id = ctx.thread().cred.with(f);
    Ok(id.ok_or(Errno::ESRCH)? as usize)
}

/// getuid(2)
pub(crate) fn sys_getuid(ctx: &mut Ctx<'_>) -> SysResult {
    field(ctx, |c| c.uid)
}

/// geteuid(2)
pub(crate) fn sys_geteuid(ctx: &mut Ctx<'_>) -> SysResult {
    field(ctx, |c| c.euid)
}

/// getgid(2)
pub(crate) fn sys_getgid(ctx: &mut Ctx<'_>) -> SysResult {
    field(ctx, |c| c.gid)
}

/// getegid(2)
pub(crate) fn sys_getegid(ctx: &mut Ctx<'_>) -> SysResult {
    field(ctx, |c| c.egid)
}

fn write_three(out: [usize; 3], ids: [u32; 3]) -> SysResult {
    for (addr, id) in out.into_iter().zip(ids) {
        user::write_value(addr, &id)?;
    }
    Ok(0)
}

/// getresuid(2)
pub(crate) fn sys_getresuid(ctx: &mut Ctx<'_>, r: usize, e: usize, s: usize) -> SysResult {
    let c = ctx.cred()?;
    write_three([r, e, s], [c.uid, c.euid, c.suid])
}

/// getresgid(2)
pub(crate) fn sys_getresgid(ctx: &mut Ctx<'_>, r: usize, e: usize, s: usize) -> SysResult {
    let c = ctx.cred()?;
    write_three([r, e, s], [c.gid, c.egid, c.sgid])
}

/// Puts `new` in force.
fn commit(ctx: &Ctx<'_>, new: Credentials) {
    ctx.process().set_uid(new.uid);
    ctx.thread().cred.set(Arc::new(new));
}

/// Capabilities that come and go with the file-system user (capabilities(7)).
const FILE_CAPS: Caps = Caps::CHOWN
    .union(Caps::DAC_OVERRIDE)
    .union(Caps::DAC_READ_SEARCH)
    .union(Caps::FOWNER)
    .union(Caps::FSETID)
    .union(Caps::MKNOD);

/// What a change of user ids does to capabilities (capabilities(7), "Effect of
/// user ID changes on capabilities").
fn adjust_caps(old: &Credentials, new: &mut Credentials, keep: bool) {
    let root = |c: &Credentials| c.uid == 0 || c.euid == 0 || c.suid == 0;
    if root(old) && !root(new) {
        if !keep {
            new.permitted = Caps::empty();
            new.effective = Caps::empty();
        }
        new.ambient = Caps::empty();
    }
    if old.euid == 0 && new.euid != 0 {
        new.effective = Caps::empty();
    }
    if old.euid != 0 && new.euid == 0 {
        new.effective = new.permitted;
    }
    if old.fsuid == 0 && new.fsuid != 0 {
        new.effective.remove(FILE_CAPS);
    }
    if old.fsuid != 0 && new.fsuid == 0 {
        new.effective |= new.permitted & FILE_CAPS;
    }
}

fn change_user(ctx: &Ctx<'_>, f: impl FnOnce(&mut Credentials) -> Result<(), Errno>) -> SysResult {
    let old = ctx.cred()?;
    let mut new = (*old).clone();
    f(&mut new)?;
    adjust_caps(&old, &mut new, ctx.process().keep_caps());
    if (old.euid, old.egid) != (new.euid, new.egid) {
        ctx.process().set_dumpable(0);
    }
    commit(ctx, new);
    Ok(0)
}

/// setuid(2)
pub(crate) fn sys_setuid(ctx: &mut Ctx<'_>, id: usize) -> SysResult {
    let id = id as u32;
    change_user(ctx, |c| {
        if id == KEEP {
            return Err(Errno::EINVAL);
        }
        if c.has(Caps::SETUID) {
            (c.uid, c.suid) = (id, id);
        } else if id != c.uid && id != c.suid {
            return Err(Errno::EPERM);
        }
        (c.euid, c.fsuid) = (id, id);
        Ok(())
    })
}

/// setreuid(2)
pub(crate) fn sys_setreuid(ctx: &mut Ctx<'_>, real: usize, effective: usize) -> SysResult {
    let (real, effective) = (real as u32, effective as u32);
    change_user(ctx, |c| {
        let any = c.has(Caps::SETUID);
        let before = c.uid;
        if real != KEEP && real != c.uid && real != c.euid && !any {
            return Err(Errno::EPERM);
        }
        if effective != KEEP && ![c.uid, c.euid, c.suid].contains(&effective) && !any {
            return Err(Errno::EPERM);
        }
        if real != KEEP {
            c.uid = real;
        }
        if effective != KEEP {
            c.euid = effective;
        }
        if real != KEEP || effective != KEEP && effective != before {
            c.suid = c.euid;
        }
        c.fsuid = c.euid;
        Ok(())
    })
}

/// setresuid(2)
pub(crate) fn sys_setresuid(ctx: &mut Ctx<'_>, r: usize, e: usize, s: usize) -> SysResult {
    let wanted = [r as u32, e as u32, s as u32];
    change_user(ctx, |c| {
        let own = [c.uid, c.euid, c.suid];
        if !c.has(Caps::SETUID) && wanted.iter().any(|w| *w != KEEP && !own.contains(w)) {
            return Err(Errno::EPERM);
        }
        for (slot, w) in [&mut c.uid, &mut c.euid, &mut c.suid]
            .into_iter()
            .zip(wanted)
        {
            if w != KEEP {
                *slot = w;
            }
        }
        c.fsuid = c.euid;
        Ok(())
    })
}

/// setfsuid(2): answers the old id, whether it changed or not.
pub(crate) fn sys_setfsuid(ctx: &mut Ctx<'_>, id: usize) -> SysResult {
    let id = id as u32;
    let old = ctx.cred()?.fsuid;
    let changed = change_user(ctx, |c| {
        let allowed = [c.uid, c.euid, c.suid, c.fsuid].contains(&id) || c.has(Caps::SETUID);
        if id == KEEP || !allowed {
            return Err(Errno::EPERM);
        }
        c.fsuid = id;
        Ok(())
    });
    // As the man page has it, nothing tells failure from success.
    let _ = changed;
    Ok(old as usize)
}

/// setgid(2)
pub(crate) fn sys_setgid(ctx: &mut Ctx<'_>, id: usize) -> SysResult {
    let id = id as u32;
    change_user(ctx, |c| {
        if id == KEEP {
            return Err(Errno::EINVAL);
        }
        if c.has(Caps::SETGID) {
            (c.gid, c.sgid) = (id, id);
        } else if id != c.gid && id != c.sgid {
            return Err(Errno::EPERM);
        }
        (c.egid, c.fsgid) = (id, id);
        Ok(())
    })
}

/// setregid(2)
pub(crate) fn sys_setregid(ctx: &mut Ctx<'_>, real: usize, effective: usize) -> SysResult {
    let (real, effective) = (real as u32, effective as u32);
    change_user(ctx, |c| {
        let any = c.has(Caps::SETGID);
        let before = c.gid;
        if real != KEEP && real != c.gid && real != c.egid && !any {
            return Err(Errno::EPERM);
        }
        if effective != KEEP && ![c.gid, c.egid, c.sgid].contains(&effective) && !any {
            return Err(Errno::EPERM);
        }
        if real != KEEP {
            c.gid = real;
        }
        if effective != KEEP {
            c.egid = effective;
        }
        if real != KEEP || effective != KEEP && effective != before {
            c.sgid = c.egid;
        }
        c.fsgid = c.egid;
        Ok(())
    })
}

/// setresgid(2)
pub(crate) fn sys_setresgid(ctx: &mut Ctx<'_>, r: usize, e: usize, s: usize) -> SysResult {
    let wanted = [r as u32, e as u32, s as u32];
    change_user(ctx, |c| {
        let own = [c.gid, c.egid, c.sgid];
        if !c.has(Caps::SETGID) && wanted.iter().any(|w| *w != KEEP && !own.contains(w)) {
            return Err(Errno::EPERM);
        }
        for (slot, w) in [&mut c.gid, &mut c.egid, &mut c.sgid]
            .into_iter()
            .zip(wanted)
        {
            if w != KEEP {
                *slot = w;
            }
        }
        c.fsgid = c.egid;
        Ok(())
    })
}

/// setfsgid(2): answers the old id, whether it changed or not.
pub(crate) fn sys_setfsgid(ctx: &mut Ctx<'_>, id: usize) -> SysResult {
    let id = id as u32;
    let old = ctx.cred()?;
    let allowed = [old.gid, old.egid, old.sgid, old.fsgid].contains(&id) || old.has(Caps::SETGID);
    if id != KEEP && allowed {
        let mut new = (*old).clone();
        new.fsgid = id;
        commit(ctx, new);
    }
    Ok(old.fsgid as usize)
}

/// getgroups(2)
pub(crate) fn sys_getgroups(ctx: &mut Ctx<'_>, size: usize, list: usize) -> SysResult {
    let size = usize::try_from(size as i32).map_err(|_| Errno::EINVAL)?;
    let cred = ctx.cred()?;
    if size != 0 {
        if size < cred.groups.as_slice().len() {
            return Err(Errno::EINVAL);
        }
        for (i, g) in cred.groups.as_slice().iter().enumerate() {
            user::write_value(list.wrapping_add(i * size_of::<u32>()), g)?;
        }
    }
    Ok(cred.groups.as_slice().len())
}

/// setgroups(2)
pub(crate) fn sys_setgroups(ctx: &mut Ctx<'_>, size: usize, list: usize) -> SysResult {
    let cred = ctx.cred()?;
    if !cred.has(Caps::SETGID) {
        return Err(Errno::EPERM);
    }
    if size > GROUPS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut groups = Vec::new();
    groups.try_reserve_exact(size)?;
    for i in 0..size {
        groups.push(user::read_value(list.wrapping_add(i * size_of::<u32>()))?);
    }
    let groups = Groups::new(groups, ctx.world().account())?;
    let mut new = (*cred).clone();
    new.groups = Arc::new(groups);
    commit(ctx, new);
    Ok(0)
}

/// Versions of the capability interface, and the 32-bit words each set has.
const CAP_VERSION_1: u32 = 0x1998_0330;
const CAP_VERSION_2: u32 = 0x2007_1026;
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Reads a capability header: words per set, and the process it names.
fn cap_header(header: usize) -> Result<(usize, i32), Errno> {
    let [version, pid]: [u32; 2] = user::read_value(header)?;
    let words = match version {
        CAP_VERSION_1 => 1,
        CAP_VERSION_2 | CAP_VERSION_3 => 2,
        _ => {
            // Tells the program which version there is.
            user::write_value(header, &CAP_VERSION_3)?;
            return Err(Errno::EINVAL);
        }
    };
    Ok((words, pid as i32))
}

/// Bytes of one `struct __user_cap_data_struct`.
const CAP_DATA: usize = 12;

/// capget(2)
pub(crate) fn sys_capget(ctx: &mut Ctx<'_>, header: usize, data: usize) -> SysResult {
    let (words, pid) = match cap_header(header) {
        // Without a place for the answer this asks for the version.
        Err(Errno::EINVAL) if data == 0 => return Ok(0),
        other => other?,
    };
    let cred = match pid {
        0 => ctx.cred()?,
        p => {
            let tid = u32::try_from(p).map_err(|_| Errno::EINVAL)?;
            let thread = ctx.world().thread(tid).ok_or(Errno::ESRCH)?;
            thread.cred.get().ok_or(Errno::ESRCH)?
        }
    };
    if data == 0 {
        return Ok(0);
    }
    for i in 0..words {
        let part = |c: Caps| (c.bits() >> (32 * i)) as u32;
        let sets = [cred.effective, cred.permitted, cred.inheritable].map(part);
        user::write_value(data.wrapping_add(i * CAP_DATA), &sets)?;
    }
    Ok(0)
}

/// capset(2)
pub(crate) fn sys_capset(ctx: &mut Ctx<'_>, header: usize, data: usize) -> SysResult {
    let (words, pid) = cap_header(header)?;
    if pid != 0 && pid != ctx.thread().tid() as i32 {
        return Err(Errno::EPERM);
    }
    let mut sets = [0u64; 3];
    for i in 0..words {
        let part: [u32; 3] = user::read_value(data.wrapping_add(i * CAP_DATA))?;
        for (s, p) in sets.iter_mut().zip(part) {
            *s |= u64::from(p) << (32 * i);
        }
    }
    let [effective, permitted, inheritable] = sets.map(Caps::from_bits_retain);
    let old = ctx.cred()?;
    let inheritable_limit = match old.has(Caps::SETPCAP) {
        true => old.inheritable | old.bounding,
        false => (old.inheritable | old.permitted) & (old.inheritable | old.bounding),
    };
    if !old.permitted.contains(permitted)
        || !permitted.contains(effective)
        || !inheritable_limit.contains(inheritable)
    {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.ambient &= permitted & inheritable;
    (new.effective, new.permitted, new.inheritable) = (effective, permitted, inheritable);
    commit(ctx, new);
    Ok(0)
}

/// Changes the capability sets as `f` says, for prctl(2).
pub(crate) fn change_caps(
    ctx: &Ctx<'_>,
    f: impl FnOnce(&mut Credentials) -> Result<(), Errno>,
) -> SysResult {
    let mut new = (*ctx.cred()?).clone();
    f(&mut new)?;
    commit(ctx, new);
    Ok(0)
}

/// Whether the caller may do to `target` what only its user may: send signals,
/// change priorities.
pub(crate) fn may_act_on(ctx: &Ctx<'_>, target: &Process) -> Result<bool, Errno> {
    let me = ctx.cred()?;
    if me.has(Caps::KILL) {
        return Ok(true);
    }
    let first = target.first_thread();
    let cred = first.and_then(|t| t.cred.get());
    let theirs = match cred {
        Some(c) => [c.uid, c.suid],
        None => [target.uid(); 2],
    };
    Ok(theirs.contains(&me.uid) || theirs.contains(&me.euid))
}

/// Whether the caller may look into `target` (ptrace(2), "Ptrace access mode").
pub(crate) fn may_inspect(ctx: &Ctx<'_>, target: &Process) -> Result<bool, Errno> {
    Ok(ctx.thread().may_trace(target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_up_root_gives_up_capabilities() {
        let old = Credentials::root(Caps::all());
        let mut new = old.clone();
        (new.uid, new.euid, new.suid, new.fsuid) = (5, 5, 5, 5);
        adjust_caps(&old, &mut new, false);
        assert!(new.permitted.is_empty() && new.effective.is_empty());
        let mut kept = old.clone();
        (kept.uid, kept.euid, kept.suid, kept.fsuid) = (5, 5, 5, 5);
        adjust_caps(&old, &mut kept, true);
        assert!(kept.permitted == Caps::all() && kept.effective.is_empty());
        // Only the effective user changes: they sleep, and come back.
        let mut asleep = old.clone();
        (asleep.euid, asleep.fsuid) = (5, 5);
        adjust_caps(&old, &mut asleep, false);
        assert!(asleep.effective.is_empty());
        let mut awake = asleep.clone();
        (awake.euid, awake.fsuid) = (0, 0);
        adjust_caps(&asleep, &mut awake, false);
        assert_eq!(awake.effective, Caps::all());
    }
}
