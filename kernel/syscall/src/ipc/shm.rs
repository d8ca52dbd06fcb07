//! Shared memory segments.

use super::{
    IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, PERM_BYTES, Record, Who, answer, place, read_owner,
    wanted,
};
use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use process::ipc::Entry;
use process::ipc::shm::{Attach, BYTES_MAX, SEGMENTS_MAX, Segment, Status};

const SHM_RDONLY: usize = 0o10_000;
const SHM_RND: usize = 0o20_000;
const SHM_REMAP: usize = 0o40_000;
const SHM_EXEC: usize = 0o100_000;
const SHM_HUGETLB: usize = 0o4000;

const SHM_LOCK: usize = 11;
const SHM_UNLOCK: usize = 12;
const SHM_STAT: usize = 13;
const SHM_INFO: usize = 14;
const SHM_STAT_ANY: usize = 15;

/// shmget(2)
pub(crate) fn sys_shmget(ctx: &mut Ctx<'_>, key: usize, size: usize, flags: usize) -> SysResult {
    if flags & SHM_HUGETLB != 0 {
        // As on a Linux without reserved huge pages.
        return Err(Errno::ENOMEM);
    }
    let who = Who::new(ctx)?;
    let world = ctx.world();
    let (account, size) = (world.account(), size as u64);
    let id = world
        .ipc()
        .shmget(wanted(key, flags), size, account, who.caller())?;
    Ok(id as usize)
}

/// shmat(2)
pub(crate) fn sys_shmat(ctx: &mut Ctx<'_>, id: usize, addr: usize, flags: usize) -> SysResult {
    let who = Who::new(ctx)?;
    let how = Attach {
        addr,
        round: flags & SHM_RND != 0,
        read_only: flags & SHM_RDONLY != 0,
        exec: flags & SHM_EXEC != 0,
        replace: flags & SHM_REMAP != 0,
    };
    let space = ctx.space()?;
    Ok(ctx
        .world()
        .ipc()
        .shmat(id as i32, how, &space, who.caller())?)
}

/// shmdt(2)
pub(crate) fn sys_shmdt(ctx: &mut Ctx<'_>, addr: usize) -> SysResult {
    let who = Who::new(ctx)?;
    let space = ctx.space()?;
    ctx.world().ipc().shmdt(addr, &space, who.caller())?;
    Ok(0)
}

/// Writes a `struct shmid64_ds`.
fn tell((entry, s): &(Entry<Segment>, Status), to: usize) -> Result<(), Errno> {
    const AT: usize = PERM_BYTES;
    Record::<112>::of(entry)
        .long(AT, s.bytes as i64)
        .long(AT + 8, s.attached)
        .long(AT + 16, s.detached)
        .long(AT + 24, entry.changed)
        .int(AT + 32, i64::from(s.maker))
        .int(AT + 36, i64::from(s.last))
        .long(AT + 40, s.attachments as i64)
        .write(to)
}

/// shmctl(2)
pub(crate) fn sys_shmctl(ctx: &mut Ctx<'_>, id: usize, command: usize, to: usize) -> SysResult {
    let who = Who::new(ctx)?;
    let (caller, ipc) = (who.caller(), ctx.world().ipc());
    let number = id as i32;
    if number < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_RMID => ipc.shm_remove(number, caller)?,
        IPC_SET => ipc.shm_set(number, caller, read_owner(to)?)?,
        IPC_STAT => tell(&ipc.shm_status(number, caller)?, to)?,
        SHM_STAT | SHM_STAT_ANY => {
            let any = command == SHM_STAT_ANY;
            let found = ipc.shm_status_at(place(id), any, caller)?;
            tell(&found, to)?;
            return Ok(found.0.id as usize);
        }
        SHM_LOCK | SHM_UNLOCK => ipc.shm_lock(number, caller, command == SHM_LOCK)?,
        IPC_INFO => {
            let most = BYTES_MAX as i64;
            Record::<72>::new()
                .long(0, most)
                .long(8, 1)
                .long(16, SEGMENTS_MAX as i64)
                .long(24, SEGMENTS_MAX as i64)
                .long(32, most)
                .write(to)?;
            return answer(ipc.shm_totals()?.1);
        }
        SHM_INFO => {
            let (count, last, total, resident) = ipc.shm_totals()?;
            Record::<48>::new()
                .int(0, count as i64)
                .long(8, total as i64)
                .long(16, resident as i64)
                .write(to)?;
            return answer(last);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
