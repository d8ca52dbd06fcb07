//! System V objects (sysvipc(7)) and POSIX message queues (mq_overview(7)).

mod mqueue;
mod msg;
mod sem;
mod shm;

pub(crate) use mqueue::{
    sys_mq_getsetattr, sys_mq_notify, sys_mq_open, sys_mq_timedreceive, sys_mq_timedsend,
    sys_mq_unlink,
};
pub(crate) use msg::{sys_msgctl, sys_msgget, sys_msgrcv, sys_msgsnd};
pub(crate) use sem::{sys_semctl, sys_semget, sys_semop, sys_semtimedop};
pub(crate) use shm::{sys_shmat, sys_shmctl, sys_shmdt, sys_shmget};

use crate::ctx::Ctx;
use crate::errno::Errno;
use alloc::sync::Arc;
use machine::user;
use process::ipc::{Caller, Entry, Wanted};
use vfs::Credentials;

/// Commands of all three kinds.
const IPC_RMID: usize = 0;
const IPC_SET: usize = 1;
const IPC_STAT: usize = 2;
const IPC_INFO: usize = 3;
/// Do not wait.
const IPC_NOWAIT: usize = 0o4000;
/// Bytes of `struct ipc64_perm`.
const PERM_BYTES: usize = 48;

/// Who calls, held for the time of a call.
struct Who {
    cred: Arc<Credentials>,
    pid: u32,
}

impl Who {
    fn new(ctx: &Ctx<'_>) -> Result<Who, Errno> {
        Ok(Who {
            cred: ctx.cred()?,
            pid: ctx.process().pid(),
        })
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            cred: &self.cred,
            pid: self.pid,
        }
    }
}

fn wanted(key: usize, flags: usize) -> Wanted {
    Wanted {
        key: key as i32,
        flags: flags as u32,
    }
}

/// A structure of `N` bytes that is filled for a program.
struct Record<const N: usize>([u8; N]);

impl<const N: usize> Record<N> {
    fn new() -> Record<N> {
        Record([0; N])
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(part) = self.0.get_mut(at..at + bytes.len()) {
            part.copy_from_slice(bytes);
        }
    }

    fn int(mut self, at: usize, value: i64) -> Self {
        self.put(at, &(value as i32).to_ne_bytes());
        self
    }

    fn long(mut self, at: usize, value: i64) -> Self {
        self.put(at, &value.to_ne_bytes());
        self
    }

    /// With the `struct ipc64_perm` of `entry` at its start.
    fn of<T>(entry: &Entry<T>) -> Record<N> {
        let p = entry.perm;
        let mut record = Record::new();
        let words = [p.key as u32, p.uid, p.gid, p.cuid, p.cgid, p.mode];
        for (i, w) in words.iter().enumerate() {
            record.put(4 * i, &w.to_ne_bytes());
        }
        record.put(24, &((entry.id / 32_768) as u16).to_ne_bytes());
        record
    }

    fn write(&self, to: usize) -> Result<(), Errno> {
        Ok(user::write(to, &self.0)?)
    }
}

/// Owner, group and mode of the `struct ipc64_perm` at `from` (`IPC_SET`).
fn read_owner(from: usize) -> Result<(u32, u32, u32), Errno> {
    let words: [u32; 6] = user::read_value(from)?;
    let [_, uid, gid, _, _, mode] = words;
    Ok((uid, gid, mode))
}

/// A number a program gives as `size_t`, or far too much.
fn place(n: usize) -> usize {
    usize::try_from(n as u32 as i32).unwrap_or(usize::MAX)
}

fn answer(n: usize) -> Result<usize, Errno> {
    i32::try_from(n)
        .map(|n| n as usize)
        .map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests;
