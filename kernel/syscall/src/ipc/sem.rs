//! Semaphore sets.

use super::{
    IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, PERM_BYTES, Record, Who, answer, place,
    read_owner, wanted,
};
use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::time_types::Timespec;
use machine::user;
use process::ipc::sem::{
    OPERATIONS_MAX, Operation, PER_SET_MAX, SEMAPHORES_MAX, SETS_MAX, Set, VALUE_MAX,
};
use process::ipc::{self, Entry};
use smallvec::SmallVec;

const SEM_UNDO: i16 = 0x1000;
const GETPID: usize = 11;
const GETVAL: usize = 12;
const GETALL: usize = 13;
const GETNCNT: usize = 14;
const GETZCNT: usize = 15;
const SETVAL: usize = 16;
const SETALL: usize = 17;
const SEM_STAT: usize = 18;
const SEM_INFO: usize = 19;
const SEM_STAT_ANY: usize = 20;

/// semget(2)
pub(crate) fn sys_semget(ctx: &mut Ctx<'_>, key: usize, count: usize, flags: usize) -> SysResult {
    let who = Who::new(ctx)?;
    let world = ctx.world();
    let id = world.ipc().semget(
        wanted(key, flags),
        place(count),
        world.account(),
        who.caller(),
    )?;
    Ok(id as usize)
}

/// semop(2)
pub(crate) fn sys_semop(ctx: &mut Ctx<'_>, id: usize, from: usize, count: usize) -> SysResult {
    sys_semtimedop(ctx, id, from, count, 0)
}

/// semtimedop(2)
pub(crate) fn sys_semtimedop(
    ctx: &mut Ctx<'_>,
    id: usize,
    from: usize,
    count: usize,
    timeout: usize,
) -> SysResult {
    let deadline = Timespec::read_deadline(timeout)?;
    let count = count as u32 as usize;
    if count == 0 || (id as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    if count > OPERATIONS_MAX {
        return Err(Errno::E2BIG);
    }
    let mut operations: SmallVec<[Operation; 8]> = SmallVec::new();
    operations
        .try_reserve_exact(count)
        .map_err(|_| Errno::ENOMEM)?;
    for i in 0..count {
        let [number, change, flags]: [i16; 3] = user::read_value(from.wrapping_add(6 * i))?;
        operations.push(Operation {
            number: number as u16,
            change,
            nowait: flags & IPC_NOWAIT as i16 != 0,
            undo: flags & SEM_UNDO != 0,
        });
    }
    let who = Who::new(ctx)?;
    ctx.world()
        .ipc()
        .semop(id as i32, &operations, deadline, who.caller())
        .map_err(never_again)?;
    Ok(0)
}

/// A call that a signal ended is never made again, handler or not (signal(7)).
fn never_again(e: ipc::Error) -> Errno {
    match e {
        ipc::Error::Interrupted => Errno::EINTR,
        other => other.into(),
    }
}

/// Writes a `struct semid64_ds`.
fn tell(entry: &Entry<Set>, to: usize) -> Result<(), Errno> {
    const AT: usize = PERM_BYTES;
    Record::<104>::of(entry)
        .long(AT, entry.object.operated())
        .long(AT + 16, entry.changed)
        .long(AT + 32, entry.object.count() as i64)
        .write(to)
}

/// semctl(2)
pub(crate) fn sys_semctl(
    ctx: &mut Ctx<'_>,
    id: usize,
    number: usize,
    command: usize,
    arg: usize,
) -> SysResult {
    let who = Who::new(ctx)?;
    let (caller, ipc) = (who.caller(), ctx.world().ipc());
    let set = id as i32;
    if set < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_RMID => ipc.sem_remove(set, caller)?,
        IPC_SET => ipc.sem_set(set, caller, read_owner(arg)?)?,
        IPC_STAT => tell(&ipc.sem_entry(set, caller)?, arg)?,
        SEM_STAT | SEM_STAT_ANY => {
            let found = ipc.sem_entry_at(place(id), command == SEM_STAT_ANY, caller)?;
            tell(&found, arg)?;
            return Ok(found.id as usize);
        }
        IPC_INFO | SEM_INFO => return tell_limits(ctx, command == SEM_INFO, arg),
        GETVAL | GETPID | GETNCNT | GETZCNT => {
            let look = ipc.sem_look(set, place(number), caller)?;
            return Ok(match command {
                GETVAL => look.value as usize,
                GETPID => look.pid as usize,
                GETNCNT => look.growing as usize,
                _ => look.zero as usize,
            });
        }
        GETALL => {
            for (i, v) in ipc.sem_values(set, caller)?.iter().enumerate() {
                user::write_value(arg.wrapping_add(2 * i), v)?;
            }
        }
        SETVAL => ipc.sem_assign(set, place(number), &[arg as i32], caller)?,
        SETALL => {
            let count = ipc.sem_count(set, caller, 2)?;
            let mut values = alloc::vec::Vec::new();
            values.try_reserve_exact(count)?;
            for i in 0..count {
                let v: u16 = user::read_value(arg.wrapping_add(2 * i))?;
                values.push(i32::from(v));
            }
            ipc.sem_assign(set, 0, &values, caller)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Writes a `struct seminfo`.
fn tell_limits(ctx: &Ctx<'_>, used: bool, to: usize) -> SysResult {
    let (sets, last, all) = ctx.world().ipc().sem_totals();
    let (usz, aem) = match used {
        true => (sets as i64, all as i64),
        false => (20, i64::from(VALUE_MAX)),
    };
    let numbers = [
        SEMAPHORES_MAX as i64,
        SETS_MAX as i64,
        SEMAPHORES_MAX as i64,
        SEMAPHORES_MAX as i64,
        PER_SET_MAX as i64,
        OPERATIONS_MAX as i64,
        OPERATIONS_MAX as i64,
        usz,
        i64::from(VALUE_MAX),
        aem,
    ];
    let mut record = Record::<40>::new();
    for (i, n) in numbers.iter().enumerate() {
        record = record.int(4 * i, *n);
    }
    record.write(to)?;
    answer(last)
}
