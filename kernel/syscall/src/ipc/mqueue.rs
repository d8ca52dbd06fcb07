//! POSIX message queues.

use super::Who;
use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::PathRoom;
use crate::time_types::Timespec;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::time::Instant;
use machine::user;
use net::Socket;
use process::ipc::mqueue::{COOKIE_LEN, How, Notify, OpenQueue, PRIORITIES, Size};
use process::ipc::{self};
use process::signal::{Origin, SigInfo, Signal, code};
use vfs::file::{OpenFile, OpenFlags};

const SIGEV_SIGNAL: i32 = 0;
const SIGEV_NONE: i32 = 1;
const SIGEV_THREAD: i32 = 2;

/// Interrupted transfers are made again where the handler allows it.
fn again(e: ipc::Error) -> Errno {
    match e {
        ipc::Error::Interrupted => Errno::ERESTARTSYS,
        other => other.into(),
    }
}

/// The queue behind a descriptor.
fn queue(file: &Arc<OpenFile>) -> Result<&OpenQueue, Errno> {
    file.downcast::<OpenQueue>().ok_or(Errno::EBADF)
}

/// A deadline by UTC.
fn deadline(at: usize) -> Result<Option<Instant>, Errno> {
    if at == 0 {
        return Ok(None);
    }
    let ns = Timespec::read_ns(at)?.saturating_sub(machine::time::wall_offset());
    Ok(Some(Instant(u64::try_from(ns).unwrap_or(0))))
}

/// mq_open(2)
pub(crate) fn sys_mq_open(
    ctx: &mut Ctx<'_>,
    name: usize,
    flags: usize,
    mode: usize,
    size: usize,
) -> SysResult {
    let mut room = PathRoom::new();
    let name = room.read(name)?;
    let flags = OpenFlags::from_bits_truncate(flags as u32);
    let size = match size {
        0 => None,
        at => {
            let [_, messages, bytes, _]: [i64; 4] = user::read_value(at)?;
            Some(Size {
                messages: usize::try_from(messages).unwrap_or(0),
                bytes: usize::try_from(bytes).unwrap_or(0),
            })
        }
    };
    let who = Who::new(ctx)?;
    let mode = mode as u32 & !ctx.fs()?.umask();
    let world = ctx.world();
    let (queues, account) = (world.ipc().mqueues(), world.account());
    let file = queues.open(name.bytes(), flags, mode, size, account, who.caller())?;
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let fd = ctx.files()?.insert(file, cloexec, 0, ctx.files_limit())?;
    Ok(fd as usize)
}

/// mq_unlink(2)
pub(crate) fn sys_mq_unlink(ctx: &mut Ctx<'_>, name: usize) -> SysResult {
    let mut room = PathRoom::new();
    let name = room.read(name)?;
    let who = Who::new(ctx)?;
    let queues = ctx.world().ipc().mqueues();
    queues.unlink(name.bytes(), who.caller())?;
    Ok(0)
}

/// mq_timedsend(2)
pub(crate) fn sys_mq_timedsend(
    ctx: &mut Ctx<'_>,
    fd: usize,
    from: usize,
    len: usize,
    priority: usize,
    until: usize,
) -> SysResult {
    let priority = priority as u32;
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let deadline = deadline(until)?;
    let file = ctx.file(fd)?;
    let queue = queue(&file)?;
    if len > queue.size().0.bytes {
        return Err(Errno::EMSGSIZE);
    }
    let mut text = Vec::new();
    text.try_reserve_exact(len)?;
    text.resize(len, 0);
    user::read(from, &mut text)?;
    let who = Who::new(ctx)?;
    let world = ctx.world();
    let notifier = |notify: &Notify, pid, uid| {
        let How::Signal { number, value } = notify.how else {
            return;
        };
        let signal = Signal::new(usize::from(number));
        if let (Some(signal), Some(process)) = (signal, world.process(notify.pid)) {
            let info = SigInfo::queued(signal, code::SI_MESGQ, (pid, uid), value);
            // With too many signals queued the news is lost, as on Linux.
            let _ = process.signal(signal, info, Origin::Inside);
        }
    };
    queue
        .send(&file, text, priority, deadline, (who.caller(), &notifier))
        .map_err(again)?;
    Ok(0)
}

/// mq_timedreceive(2)
pub(crate) fn sys_mq_timedreceive(
    ctx: &mut Ctx<'_>,
    fd: usize,
    to: usize,
    len: usize,
    priority: usize,
    until: usize,
) -> SysResult {
    let deadline = deadline(until)?;
    let file = ctx.file(fd)?;
    let (text, found) = queue(&file)?.receive(&file, len, deadline).map_err(again)?;
    if priority != 0 {
        user::write_value(priority, &found)?;
    }
    user::write(to, &text)?;
    Ok(text.len())
}

/// What a C library asks for that has a thread wait for the news: a netlink socket and
/// what is to be read from it.
fn by_socket(ctx: &Ctx<'_>, fd: i32, cookie: u64) -> Result<How, Errno> {
    let cookie: [u8; COOKIE_LEN] = user::read_value(cookie as usize)?;
    let file = ctx.file(fd as usize)?;
    let socket = file.downcast::<Socket>().ok_or(Errno::ENOTSOCK)?;
    if !socket.is_netlink() {
        return Err(Errno::EINVAL);
    }
    let socket = Arc::downgrade(&file);
    Ok(How::Socket { socket, cookie })
}

/// mq_notify(2)
pub(crate) fn sys_mq_notify(ctx: &mut Ctx<'_>, fd: usize, event: usize) -> SysResult {
    let pid = ctx.process().pid();
    let notify = match event {
        0 => None,
        at => {
            let value: u64 = user::read_value(at)?;
            let [number, kind]: [i32; 2] = user::read_value(at.wrapping_add(8))?;
            let how = match kind {
                SIGEV_NONE => How::Nothing,
                SIGEV_SIGNAL => {
                    let number = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
                    let number = Signal::new(number).ok_or(Errno::EINVAL)?.number();
                    How::Signal { number, value }
                }
                SIGEV_THREAD => by_socket(ctx, number, value)?,
                _ => return Err(Errno::EINVAL),
            };
            Some(Notify { pid, how })
        }
    };
    let file = ctx.file(fd)?;
    queue(&file)?.notify(pid, notify)?;
    Ok(0)
}

/// mq_getsetattr(2)
pub(crate) fn sys_mq_getsetattr(ctx: &mut Ctx<'_>, fd: usize, new: usize, old: usize) -> SysResult {
    let nonblock = i64::from(OpenFlags::NONBLOCK.bits());
    let flags = match new {
        0 => None,
        at => {
            let [flags, ..]: [i64; 8] = user::read_value(at)?;
            if flags & !nonblock != 0 {
                return Err(Errno::EINVAL);
            }
            Some(flags)
        }
    };
    let file = ctx.file(fd)?;
    let (size, there) = queue(&file)?.size();
    let before = if file.nonblocking() { nonblock } else { 0 };
    if let Some(flags) = flags {
        file.set_nonblocking(flags != 0);
    }
    if old != 0 {
        let (messages, bytes) = (size.messages as i64, size.bytes as i64);
        let attributes = [before, messages, bytes, there as i64, 0, 0, 0, 0];
        user::write_value(old, &attributes)?;
    }
    Ok(0)
}
