//! Memory: mmap(2) and its relatives.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::sync::Arc;
use linux_raw_sys::general as abi;
use machine::addr::{PAGE_SIZE, USER_END, page_ceil};
use machine::paging::Access;
use machine::user;
use mm::{
    AddressSpace, Advice, AreaFlags, Error, LockFuture, LockMode, MapRequest, OldRange, Placement,
    Populate, RemapRequest, RemapTarget, Source, SyncMode,
};
use vfs::file::{Mappable, OpenFile};
use vfs::seals::Seals;
use vfs::tmpfs::TmpFile;

/// `personality(READ_IMPLIES_EXEC)`.
const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
/// Flags `MAP_SHARED_VALIDATE` knows; `MAP_SYNC` needs persistent memory.
const MAP_KNOWN: u32 = abi::MAP_TYPE
    | abi::MAP_FIXED
    | abi::MAP_ANONYMOUS
    | abi::MAP_32BIT
    | abi::MAP_POPULATE
    | abi::MAP_NONBLOCK
    | abi::MAP_STACK
    | abi::MAP_HUGETLB
    | abi::MAP_FIXED_NOREPLACE
    | abi::MAP_GROWSDOWN
    | abi::MAP_DENYWRITE
    | abi::MAP_EXECUTABLE
    | abi::MAP_LOCKED
    | abi::MAP_NORESERVE
    | abi::MAP_HUGE_MASK << abi::MAP_HUGE_SHIFT;
/// Pages whose residency `mincore` reports in one go.
const MINCORE_PAGES: usize = 512;

fn space(ctx: &Ctx<'_>) -> Result<Arc<AddressSpace>, Errno> {
    // Only a thread that has ended has none.
    ctx.thread().space.get().ok_or(Errno::ENOMEM)
}

/// The space, in which the caller is going to lock memory: with `CAP_IPC_LOCK`
/// beyond `RLIMIT_MEMLOCK` (mlock(2)).
///
/// # Errors
/// `EPERM` where nothing may be locked.
fn space_to_lock(ctx: &Ctx<'_>) -> Result<Arc<AddressSpace>, Errno> {
    let space = space(ctx)?;
    let own = ctx.process().limits().of_memory().locked;
    let locked = match ctx.cred()?.has(vfs::Caps::IPC_LOCK) {
        true => usize::MAX,
        false if own == 0 => return Err(Errno::EPERM),
        false => own,
    };
    let limits = space.limits();
    if limits.locked != locked {
        space.set_limits(mm::Limits { locked, ..limits });
    }
    Ok(space)
}

fn access(prot: u32) -> Access {
    let right = |bit, access| {
        if prot & bit != 0 {
            access
        } else {
            Access::empty()
        }
    };
    right(abi::PROT_READ, Access::READ)
        | right(abi::PROT_WRITE, Access::WRITE)
        | right(abi::PROT_EXEC, Access::EXEC)
}

/// Rights as asked for, and what the program's personality makes of them.
fn effective_access(ctx: &Ctx<'_>, prot: u32) -> Access {
    let a = access(prot);
    let implied = ctx.process().personality() & READ_IMPLIES_EXEC != 0;
    if implied && a.contains(Access::READ) {
        a | Access::EXEC
    } else {
        a
    }
}

/// mmap(2).
pub(crate) fn sys_mmap(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    prot: usize,
    flags: usize,
    fd: usize,
    offset: usize,
) -> SysResult {
    let flags = flags as u32;
    if !offset.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    // A descriptor is looked at before anything else.
    let file = match flags & abi::MAP_ANONYMOUS {
        0 => Some(ctx.file(fd)?),
        _ => None,
    };
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let shared = match flags & abi::MAP_TYPE {
        abi::MAP_PRIVATE => false,
        abi::MAP_SHARED => true,
        abi::MAP_SHARED_VALIDATE if flags & !MAP_KNOWN != 0 => return Err(Errno::EOPNOTSUPP),
        abi::MAP_SHARED_VALIDATE => true,
        _ => return Err(Errno::EINVAL),
    };
    if flags & abi::MAP_GROWSDOWN != 0 && (shared || flags & abi::MAP_ANONYMOUS == 0) {
        return Err(Errno::EINVAL);
    }
    if flags & abi::MAP_HUGETLB != 0 {
        // As on a Linux without reserved huge pages.
        return Err(Errno::ENOMEM);
    }
    let mut request = MapRequest::anonymous(len, effective_access(ctx, prot as u32))
        .at(placement(addr, flags))
        .with(area_flags(flags, shared));
    if let Some(file) = file {
        add_file(&mut request, &file, offset as u64)?;
    }
    if flags & abi::MAP_POPULATE != 0 && flags & abi::MAP_NONBLOCK == 0 {
        request.populate = Populate::Now;
    }
    let space = match flags & abi::MAP_LOCKED {
        0 => space(ctx)?,
        _ => space_to_lock(ctx)?,
    };
    Ok(space.map(request)?)
}

fn placement(addr: usize, flags: u32) -> Placement {
    if flags & abi::MAP_FIXED_NOREPLACE != 0 {
        Placement::FixedNoReplace(addr)
    } else if flags & abi::MAP_FIXED != 0 {
        Placement::Fixed(addr)
    } else if flags & abi::MAP_32BIT != 0 {
        Placement::Low
    } else {
        Placement::Hint(addr)
    }
}

fn area_flags(flags: u32, shared: bool) -> AreaFlags {
    let mut area = AreaFlags::empty();
    area.set(AreaFlags::SHARED, shared);
    area.set(AreaFlags::GROWS_DOWN, flags & abi::MAP_GROWSDOWN != 0);
    area.set(AreaFlags::NO_RESERVE, flags & abi::MAP_NORESERVE != 0);
    area.set(AreaFlags::LOCKED, flags & abi::MAP_LOCKED != 0);
    area
}

/// Makes `request` one for this file.
fn add_file(request: &mut MapRequest, file: &OpenFile, offset: u64) -> Result<(), Errno> {
    let mode = file.flags();
    let shared = request.flags.contains(AreaFlags::SHARED);
    let writes = request.access.contains(Access::WRITE);
    if !mode.reads() || shared && writes && !mode.writes() {
        return Err(Errno::EACCES);
    }
    let sealed = shared
        && file
            .downcast::<TmpFile>()
            .and_then(TmpFile::seals)
            .is_some_and(Seals::seal_writes);
    if sealed && writes {
        return Err(Errno::EPERM);
    }
    if shared && !mode.writes() || sealed {
        request.max_access -= Access::WRITE;
    }
    let to_write = shared && request.max_access.contains(Access::WRITE);
    match file.ops().clone().mapping(file, to_write)? {
        Mappable::Object(backing) => request.source = Source::Object { backing, offset },
        Mappable::Anonymous => request.source = Source::Anonymous,
    }
    Ok(())
}

/// munmap(2).
pub(crate) fn sys_munmap(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> SysResult {
    space(ctx)?.unmap(addr, len)?;
    Ok(0)
}

/// brk(2): answers where the heap ends, also where it could not be moved.
pub(crate) fn sys_brk(ctx: &mut Ctx<'_>, end: usize) -> SysResult {
    Ok(space(ctx)?.brk(end))
}

/// mprotect(2).
pub(crate) fn sys_mprotect(ctx: &mut Ctx<'_>, addr: usize, len: usize, prot: usize) -> SysResult {
    const GROWS: u32 = abi::PROT_GROWSDOWN | abi::PROT_GROWSUP;
    const RIGHTS: u32 = abi::PROT_READ | abi::PROT_WRITE | abi::PROT_EXEC | abi::PROT_SEM;
    let prot = u32::try_from(prot).map_err(|_| Errno::EINVAL)?;
    // Nothing grows up on this machine.
    if !addr.is_multiple_of(PAGE_SIZE) || prot & !(RIGHTS | GROWS) != 0 || prot & GROWS == GROWS {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let end = page_ceil(len).and_then(|l| addr.checked_add(l));
    let end = end.filter(|e| *e <= USER_END).ok_or(Errno::ENOMEM)?;
    let space = space(ctx)?;
    let start = match prot & GROWS {
        0 => addr,
        abi::PROT_GROWSDOWN => space.growing_area_start(addr).ok_or(Errno::EINVAL)?,
        _ => return Err(Errno::EINVAL),
    };
    space.protect(start, end - start, effective_access(ctx, prot))?;
    Ok(0)
}

/// mremap(2).
pub(crate) fn sys_mremap(
    ctx: &mut Ctx<'_>,
    addr: usize,
    old_len: usize,
    new_len: usize,
    flags: usize,
    new_addr: usize,
) -> SysResult {
    const MAY_MOVE: usize = abi::MREMAP_MAYMOVE as usize;
    const FIXED: usize = abi::MREMAP_FIXED as usize;
    const KEEP: usize = abi::MREMAP_DONTUNMAP as usize;
    let moves = flags & MAY_MOVE != 0;
    if flags & !(MAY_MOVE | FIXED | KEEP) != 0 || flags & (FIXED | KEEP) != 0 && !moves {
        return Err(Errno::EINVAL);
    }
    let target = match (flags & FIXED != 0, moves) {
        (true, _) => RemapTarget::Fixed(new_addr),
        (false, true) => RemapTarget::Anywhere,
        (false, false) => RemapTarget::InPlace,
    };
    let request = RemapRequest {
        addr,
        old_len,
        new_len,
        target,
        old_range: if flags & KEEP != 0 {
            OldRange::Keep
        } else {
            OldRange::Unmap
        },
    };
    match space(ctx)?.remap(request) {
        Ok(addr) => Ok(addr),
        Err(Error::NotMapped) => Err(Errno::EFAULT),
        Err(e) => Err(e.into()),
    }
}

/// madvise(2).
pub(crate) fn sys_madvise(ctx: &mut Ctx<'_>, addr: usize, len: usize, advice: usize) -> SysResult {
    let advice = match advice as u32 {
        abi::MADV_NORMAL
        | abi::MADV_RANDOM
        | abi::MADV_SEQUENTIAL
        | abi::MADV_COLD
        | abi::MADV_PAGEOUT => Advice::Hint,
        abi::MADV_HUGEPAGE => Advice::HugePage,
        abi::MADV_NOHUGEPAGE => Advice::NoHugePage,
        abi::MADV_WILLNEED => Advice::WillNeed,
        abi::MADV_DONTNEED => Advice::DontNeed,
        abi::MADV_FREE => Advice::Free,
        abi::MADV_REMOVE => Advice::Remove,
        abi::MADV_DONTFORK => Advice::DontFork,
        abi::MADV_DOFORK => Advice::DoFork,
        abi::MADV_WIPEONFORK => Advice::WipeOnFork,
        abi::MADV_KEEPONFORK => Advice::KeepOnFork,
        abi::MADV_DONTDUMP => Advice::DontDump,
        abi::MADV_DODUMP => Advice::DoDump,
        abi::MADV_POPULATE_READ => Advice::PopulateRead,
        abi::MADV_POPULATE_WRITE => Advice::PopulateWrite,
        // Damaging memory on purpose is a right no capsule has.
        abi::MADV_HWPOISON | abi::MADV_SOFT_OFFLINE => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let len = page_ceil(len).ok_or(Errno::EINVAL)?;
    let end = addr.checked_add(len).ok_or(Errno::EINVAL)?;
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    if end > USER_END {
        return Err(Errno::ENOMEM);
    }
    space(ctx)?.advise(addr, len, advice)?;
    Ok(0)
}

/// msync(2).
pub(crate) fn sys_msync(ctx: &mut Ctx<'_>, addr: usize, len: usize, flags: usize) -> SysResult {
    const ASYNC: usize = abi::MS_ASYNC as usize;
    const SYNC: usize = abi::MS_SYNC as usize;
    const INVALIDATE: usize = abi::MS_INVALIDATE as usize;
    let both = flags & ASYNC != 0 && flags & SYNC != 0;
    if flags & !(ASYNC | SYNC | INVALIDATE) != 0 || both || !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let space = space(ctx)?;
    if flags & INVALIDATE != 0 && space.has_locked(addr, len) {
        return Err(Errno::EBUSY);
    }
    let mode = if flags & SYNC != 0 {
        SyncMode::Wait
    } else {
        SyncMode::Async
    };
    match space.sync(addr, len, mode) {
        Ok(()) => Ok(0),
        // The address is aligned, so it is the length.
        Err(Error::BadRange) => Err(Errno::ENOMEM),
        Err(e) => Err(e.into()),
    }
}

/// A failed `mlock` of any kind.
fn lock_error(e: Error) -> Errno {
    match e {
        Error::LockLimit | Error::Denied => Errno::ENOMEM,
        e => e.into(),
    }
}

/// mlock(2).
pub(crate) fn sys_mlock(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> SysResult {
    sys_mlock2(ctx, addr, len, 0)
}

/// mlock2(2).
pub(crate) fn sys_mlock2(ctx: &mut Ctx<'_>, addr: usize, len: usize, flags: usize) -> SysResult {
    const ON_FAULT: usize = abi::MLOCK_ONFAULT as usize;
    let mode = match flags {
        0 => LockMode::Now,
        ON_FAULT => LockMode::OnFault,
        _ => return Err(Errno::EINVAL),
    };
    let space = space_to_lock(ctx)?;
    space.lock(addr, len, mode).map_err(lock_error)?;
    Ok(0)
}

/// munlock(2).
pub(crate) fn sys_munlock(ctx: &mut Ctx<'_>, addr: usize, len: usize) -> SysResult {
    space(ctx)?.unlock(addr, len)?;
    Ok(0)
}

/// mlockall(2).
pub(crate) fn sys_mlockall(ctx: &mut Ctx<'_>, flags: usize) -> SysResult {
    const CURRENT: usize = abi::MCL_CURRENT as usize;
    const FUTURE: usize = abi::MCL_FUTURE as usize;
    const ON_FAULT: usize = abi::MCL_ONFAULT as usize;
    if flags & !(CURRENT | FUTURE | ON_FAULT) != 0 || flags & (CURRENT | FUTURE) == 0 {
        return Err(Errno::EINVAL);
    }
    let mode = if flags & ON_FAULT != 0 {
        LockMode::OnFault
    } else {
        LockMode::Now
    };
    let space = space_to_lock(ctx)?;
    let future = if flags & FUTURE != 0 {
        LockFuture::Yes(mode)
    } else {
        LockFuture::No
    };
    let current = (flags & CURRENT != 0).then_some(mode);
    space.lock_all(current, future).map_err(lock_error)?;
    Ok(0)
}

/// munlockall(2).
pub(crate) fn sys_munlockall(ctx: &mut Ctx<'_>) -> SysResult {
    space(ctx)?.unlock_all()?;
    Ok(0)
}

/// mincore(2).
pub(crate) fn sys_mincore(ctx: &mut Ctx<'_>, addr: usize, len: usize, out: usize) -> SysResult {
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Errno::EINVAL);
    }
    let len = page_ceil(len).ok_or(Errno::ENOMEM)?;
    let end = addr.checked_add(len).filter(|e| *e <= USER_END);
    let end = end.ok_or(Errno::ENOMEM)?;
    let space = space(ctx)?;
    let (mut at, mut out) = (addr, out);
    while at < end {
        let next = end.min(at + MINCORE_PAGES * PAGE_SIZE);
        let resident = space.mincore(at, next - at)?;
        let mut bytes = [0; MINCORE_PAGES];
        for (byte, there) in bytes.iter_mut().zip(&resident) {
            *byte = u8::from(*there);
        }
        user::write(out, &bytes[..resident.len()])?;
        out = out.checked_add(resident.len()).ok_or(Errno::EFAULT)?;
        at = next;
        machine::thread::cond_resched();
    }
    Ok(0)
}

/// pkey_mprotect(2): without protection keys, only key -1 can be named.
pub(crate) fn sys_pkey_mprotect(
    ctx: &mut Ctx<'_>,
    addr: usize,
    len: usize,
    prot: usize,
    key: usize,
) -> SysResult {
    if key as i32 != -1 {
        return Err(Errno::EINVAL);
    }
    sys_mprotect(ctx, addr, len, prot)
}

/// pkey_alloc(2): the machine has no keys to give, as on a CPU without them.
pub(crate) fn sys_pkey_alloc(_: &mut Ctx<'_>, flags: usize, rights: usize) -> SysResult {
    // PKEY_DISABLE_ACCESS and PKEY_DISABLE_WRITE.
    if flags != 0 || rights & !3 != 0 {
        return Err(Errno::EINVAL);
    }
    Err(Errno::ENOSPC)
}

/// pkey_free(2): no key was ever given.
pub(crate) fn sys_pkey_free(_: &mut Ctx<'_>) -> SysResult {
    Err(Errno::EINVAL)
}

/// remap_file_pages(2).
pub(crate) fn sys_remap_file_pages(_: &mut Ctx<'_>) -> SysResult {
    Err(Errno::ENOSYS)
}
