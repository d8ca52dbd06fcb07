//! Message queues of System V.

use super::{
    IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, PERM_BYTES, Record, Who, answer, place,
    read_owner, wanted,
};
use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::vec::Vec;
use machine::user;
use process::ipc::Entry;
use process::ipc::msg::{MESSAGE_MAX, Message, QUEUE_BYTES, QUEUES_MAX, Queue, Which};

const MSG_NOERROR: usize = 0o10_000;
const MSG_EXCEPT: usize = 0o20_000;
const MSG_COPY: usize = 0o40_000;
const MSG_STAT: usize = 11;
const MSG_INFO: usize = 12;
const MSG_STAT_ANY: usize = 13;
/// Bytes of the type before a message's text.
const TYPE_BYTES: usize = 8;

/// msgget(2)
pub(crate) fn sys_msgget(ctx: &mut Ctx<'_>, key: usize, flags: usize) -> SysResult {
    let who = Who::new(ctx)?;
    let world = ctx.world();
    let id = world
        .ipc()
        .msgget(wanted(key, flags), world.account(), who.caller())?;
    Ok(id as usize)
}

/// msgsnd(2)
pub(crate) fn sys_msgsnd(
    ctx: &mut Ctx<'_>,
    id: usize,
    from: usize,
    len: usize,
    flags: usize,
) -> SysResult {
    let kind: i64 = user::read_value(from)?;
    if len > MESSAGE_MAX || kind < 1 || (id as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let mut text = Vec::new();
    text.try_reserve_exact(len)?;
    text.resize(len, 0);
    user::read(from.wrapping_add(TYPE_BYTES), &mut text)?;
    let who = Who::new(ctx)?;
    let wait = flags & IPC_NOWAIT == 0;
    ctx.world()
        .ipc()
        .msgsnd(id as i32, Message { kind, text }, wait, who.caller())?;
    Ok(0)
}

/// msgrcv(2)
pub(crate) fn sys_msgrcv(
    ctx: &mut Ctx<'_>,
    id: usize,
    to: usize,
    len: usize,
    kind: usize,
    flags: usize,
) -> SysResult {
    if isize::try_from(len).is_err() || (id as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let kind = kind as i64;
    let which = if flags & MSG_COPY != 0 {
        if flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0 {
            return Err(Errno::EINVAL);
        }
        Which::Copy(usize::try_from(kind).map_err(|_| Errno::ENOMSG)?)
    } else {
        match kind {
            0 => Which::First,
            k if k < 0 => Which::UpTo(k.checked_neg().unwrap_or(i64::MAX)),
            k if flags & MSG_EXCEPT != 0 => Which::Not(k),
            k => Which::Kind(k),
        }
    };
    let who = Who::new(ctx)?;
    let (cut, wait) = (flags & MSG_NOERROR != 0, flags & IPC_NOWAIT == 0);
    let caller = who.caller();
    let message = ctx
        .world()
        .ipc()
        .msgrcv(id as i32, which, len, cut, wait, caller)?;
    user::write_value(to, &message.kind)?;
    user::write(to.wrapping_add(TYPE_BYTES), &message.text)?;
    Ok(message.text.len())
}

/// Writes a `struct msqid64_ds`.
fn tell(entry: &Entry<Queue>, to: usize) -> Result<(), Errno> {
    const AT: usize = PERM_BYTES;
    let s = entry.object.status();
    Record::<120>::of(entry)
        .long(AT, s.sent)
        .long(AT + 8, s.received)
        .long(AT + 16, entry.changed)
        .long(AT + 24, s.bytes as i64)
        .long(AT + 32, s.messages as i64)
        .long(AT + 40, s.bytes_max as i64)
        .int(AT + 48, i64::from(s.sender))
        .int(AT + 52, i64::from(s.receiver))
        .write(to)
}

/// msgctl(2)
pub(crate) fn sys_msgctl(ctx: &mut Ctx<'_>, id: usize, command: usize, to: usize) -> SysResult {
    let who = Who::new(ctx)?;
    let (caller, ipc) = (who.caller(), ctx.world().ipc());
    let queue = id as i32;
    if queue < 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        IPC_RMID => ipc.msg_remove(queue, caller)?,
        IPC_SET => {
            let owner = read_owner(to)?;
            let bytes: u64 = user::read_value(to.wrapping_add(PERM_BYTES + 40))?;
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            ipc.msg_set(queue, caller, owner, bytes)?;
        }
        IPC_STAT => tell(&ipc.msg_entry(queue, caller)?, to)?,
        MSG_STAT | MSG_STAT_ANY => {
            let found = ipc.msg_entry_at(place(id), command == MSG_STAT_ANY, caller)?;
            tell(&found, to)?;
            return Ok(found.id as usize);
        }
        IPC_INFO | MSG_INFO => {
            let (count, last, messages, bytes) = ipc.msg_totals();
            let (pool, map, headers) = match command {
                MSG_INFO => (count as i64, messages as i64, bytes as i64),
                _ => (
                    (QUEUES_MAX * QUEUE_BYTES / 1024) as i64,
                    QUEUE_BYTES as i64,
                    0,
                ),
            };
            let total = match command {
                MSG_INFO => headers,
                _ => QUEUE_BYTES as i64,
            };
            Record::<32>::new()
                .int(0, pool)
                .int(4, map)
                .int(8, MESSAGE_MAX as i64)
                .int(12, QUEUE_BYTES as i64)
                .int(16, QUEUES_MAX as i64)
                .int(20, 16)
                .int(24, total)
                .write(to)?;
            return answer(last);
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}
