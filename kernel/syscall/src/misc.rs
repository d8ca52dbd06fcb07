//! Odds and ends: the system's name and state, random bytes, and what a capsule
//! may not do.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::string::String;
use linux_raw_sys::general as c;
use machine::addr::PAGE_SIZE;
use machine::time::Instant;
use machine::{frame, random, user};
use process::{HOST_NAME_MAX, RELEASE, VERSION};
use vfs::Caps;
use zerocopy::{Immutable, IntoBytes};

/// Bytes of each field of `struct utsname`.
const FIELD: usize = HOST_NAME_MAX + 1;
/// The part of a personality that says whose programs run, and the one for programs
/// that are to believe in a 32-bit machine (personality(2)).
const PER_MASK: u32 = 0xff;
const PER_LINUX32: u32 = 8;

/// Calls a capsule never gets (EPERM).
pub(crate) fn sys_not_permitted(_: &mut Ctx<'_>) -> SysResult {
    Err(Errno::EPERM)
}

/// sysfs(2): the kinds of file systems there are, by name and by number.
pub(crate) fn sys_sysfs(_: &mut Ctx<'_>, what: usize, first: usize, out: usize) -> SysResult {
    let kinds = vfs::procfs::FILE_SYSTEMS;
    match what as i32 {
        1 => {
            let mut room = crate::path::PathRoom::new();
            let name = room.read(first)?;
            let found = kinds.iter().position(|k| k.as_bytes() == name.bytes());
            found.ok_or(Errno::EINVAL)
        }
        2 => {
            let name = kinds.get(first as u32 as usize).ok_or(Errno::EINVAL)?;
            user::write(out, name.as_bytes())?;
            user::write_value(out.wrapping_add(name.len()), &0u8)?;
            Ok(0)
        }
        3 => Ok(kinds.len()),
        _ => Err(Errno::EINVAL),
    }
}

/// iopl(2)
pub(crate) fn sys_iopl(_: &mut Ctx<'_>, level: usize) -> SysResult {
    match level as u32 {
        0..=3 => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// ioperm(2)
pub(crate) fn sys_ioperm(_: &mut Ctx<'_>, from: usize, count: usize) -> SysResult {
    const PORTS: usize = 1 << 16;
    match from.checked_add(count) {
        Some(end) if count > 0 && end <= PORTS => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

/// Calls whose absence programs know how to take (ENOSYS).
pub(crate) fn sys_not_there(_: &mut Ctx<'_>) -> SysResult {
    Err(Errno::ENOSYS)
}

/// uname(2)
pub(crate) fn sys_uname(ctx: &mut Ctx<'_>, out: usize) -> SysResult {
    let world = ctx.world();
    let (host, domain) = (world.host_name(), world.domain_name());
    let machine = match ctx.process().personality() & PER_MASK {
        PER_LINUX32 => "i686",
        _ => "x86_64",
    };
    let fields = ["Linux", &host, RELEASE, VERSION, machine, &domain];
    let mut all = [0u8; 6 * FIELD];
    for (slot, text) in all.chunks_mut(FIELD).zip(fields) {
        for (o, b) in slot.iter_mut().take(FIELD - 1).zip(text.bytes()) {
            *o = b;
        }
    }
    user::write(out, &all)?;
    Ok(0)
}

/// A name of `len` bytes for the world, which its administrator may set.
fn read_name(ctx: &Ctx<'_>, addr: usize, len: usize) -> Result<String, Errno> {
    if !ctx.cred()?.has(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if len > HOST_NAME_MAX {
        return Err(Errno::EINVAL);
    }
    let mut raw = [0; HOST_NAME_MAX];
    user::read(addr, &mut raw[..len])?;
    Ok(String::from_utf8_lossy(&raw[..len]).into_owned())
}

/// sethostname(2)
pub(crate) fn sys_sethostname(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> SysResult {
    let name = read_name(ctx, addr, len)?;
    ctx.world().set_host_name(name);
    Ok(0)
}

/// setdomainname(2)
pub(crate) fn sys_setdomainname(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> SysResult {
    let name = read_name(ctx, addr, len)?;
    ctx.world().set_domain_name(name);
    Ok(0)
}

/// `struct sysinfo`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct SysInfo {
    uptime: i64,
    loads: [u64; 3],
    total: u64,
    free: u64,
    shared: u64,
    buffers: u64,
    swap: [u64; 2],
    processes: u16,
    pad: [u16; 3],
    high: [u64; 2],
    unit: u32,
    tail: u32,
}

/// Bits behind the point of a load (`SI_LOAD_SHIFT`).
const LOAD_SHIFT: u32 = 16;

/// sysinfo(2): the memory is the capsule's.
pub(crate) fn sys_sysinfo(ctx: &mut Ctx<'_>, out: usize) -> SysResult {
    let account = ctx.world().account();
    let machine = frame::stats();
    let total = account.limit().min(machine.total);
    let free = total.saturating_sub(account.used()).min(machine.free);
    let info = SysInfo {
        uptime: (Instant::now().0 / 1_000_000_000) as i64,
        // There is no running average: as in /proc/loadavg, who asks runs.
        loads: [1 << LOAD_SHIFT; 3],
        total: (total * PAGE_SIZE) as u64,
        free: (free * PAGE_SIZE) as u64,
        shared: 0,
        buffers: 0,
        swap: [0; 2],
        processes: u16::try_from(ctx.world().thread_count().0).unwrap_or(u16::MAX),
        pad: [0; 3],
        high: [0; 2],
        unit: 1,
        tail: 0,
    };
    user::write_value(out, &info)?;
    Ok(0)
}

/// getrandom(2)
pub(crate) fn sys_getrandom(_: &mut Ctx<'_>, out: usize, len: usize, flags: usize) -> SysResult {
    const CHUNK: usize = 256;
    let flags = flags as u32;
    let both = c::GRND_RANDOM | c::GRND_INSECURE;
    if flags & !(both | c::GRND_NONBLOCK) != 0 || flags & both == both {
        return Err(Errno::EINVAL);
    }
    let len = len.min(i32::MAX as usize);
    let mut bytes = [0; CHUNK];
    let mut done = 0;
    while done < len {
        let part = &mut bytes[..CHUNK.min(len - done)];
        random::fill(part);
        match user::write_partial(out.wrapping_add(done), part) {
            0 if done == 0 => return Err(Errno::EFAULT),
            n if n < part.len() => return Ok(done + n),
            n => done += n,
        }
        // A long request can be interrupted between chunks.
        if done < len {
            machine::thread::cond_resched();
            if machine::thread::current().attention() {
                break;
            }
        }
    }
    Ok(done)
}

/// personality(2)
pub(crate) fn sys_personality(ctx: &mut Ctx<'_>, value: usize) -> SysResult {
    /// Asks without changing.
    const QUERY: u32 = u32::MAX;
    let old = ctx.process().personality();
    match value as u32 {
        QUERY => {}
        v => ctx.process().set_personality(v),
    }
    Ok(old as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysinfo_has_the_size_programs_expect() {
        assert_eq!(size_of::<SysInfo>(), 112);
        assert!(RELEASE.len() < FIELD && VERSION.len() < FIELD);
    }
}
