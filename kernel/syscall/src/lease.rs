//! Leases: fcntl(2) with `F_SETLEASE` and `F_GETLEASE`.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::sigio;
use alloc::sync::{Arc, Weak};
use process::World;
use vfs::cred::Caps;
use vfs::file::OpenFile;
use vfs::inode::{Inode, Kind};
use vfs::leases::{Lease, Leases};
use vfs::sigio::Owner;
use vfs::{Events, Observer};

const F_RDLCK: usize = 0;
const F_WRLCK: usize = 1;
const F_UNLCK: usize = 2;

/// Sends the signal of a lease that somebody wants to be given up.
struct Recall {
    world: Weak<World>,
    file: Weak<OpenFile>,
    /// The descriptor by which the lease was taken.
    fd: i32,
}

impl Observer for Recall {
    fn notify(&self, _: Events) -> bool {
        if let (Some(world), Some(file)) = (self.world.upgrade(), self.file.upgrade()) {
            sigio::tell_lease(&world, file.signal_target(), self.fd);
        }
        true
    }
}

fn leases<'a>(ctx: &Ctx<'_>, inode: &'a Arc<dyn Inode>) -> &'a Leases {
    inode.attr().locks(ctx.world().account()).leases()
}

/// `F_GETLEASE`.
pub(crate) fn get(file: &OpenFile) -> SysResult {
    let inode = file.inode().ok_or(Errno::EINVAL)?;
    let held = inode.attr().locks_if_any();
    Ok(match held.and_then(|l| l.leases().of(file.id())) {
        Some(Lease::Read) => F_RDLCK,
        Some(Lease::Write) => F_WRLCK,
        None => F_UNLCK,
    })
}

/// `F_SETLEASE`.
pub(crate) fn set(ctx: &Ctx<'_>, fd: usize, file: &Arc<OpenFile>, wanted: usize) -> SysResult {
    let inode = file.inode().ok_or(Errno::EINVAL)?;
    let attr = inode.attr();
    let cred = ctx.cred()?;
    if cred.fsuid != attr.uid() && !cred.has(Caps::LEASE) {
        return Err(Errno::EACCES);
    }
    if attr.kind != Kind::File {
        return Err(Errno::EINVAL);
    }
    let kind = match wanted {
        F_RDLCK => Lease::Read,
        F_WRLCK => Lease::Write,
        F_UNLCK => {
            let held = attr.locks_if_any().ok_or(Errno::EAGAIN)?;
            held.leases().give_back(file.id())?;
            return Ok(0);
        }
        _ => return Err(Errno::EINVAL),
    };
    let observer = Arc::new(Recall {
        world: Arc::downgrade(ctx.world()),
        file: Arc::downgrade(file),
        fd: fd as i32,
    });
    let fits = || match kind {
        // One that is open for writing cannot itself have it (fcntl(2)).
        Lease::Read => attr.writers().count() == 0,
        Lease::Write => is_alone(ctx, file, inode),
    };
    leases(ctx, inode).take(file.id(), kind, observer, fits)?;
    file.change_signal_target(|t| {
        if t.owner == Owner::Nobody {
            t.owner = Owner::Process(ctx.process().pid());
        }
    });
    Ok(0)
}

/// Whether no descriptor of the capsule leads to another description of the file.
fn is_alone(ctx: &Ctx<'_>, file: &OpenFile, inode: &Arc<dyn Inode>) -> bool {
    let own = u32::from(file.flags().writes());
    if inode.attr().writers().count() > own {
        return false;
    }
    let same = |other: &OpenFile| {
        let there = other.inode().is_some_and(|i| Arc::ptr_eq(i, inode));
        there && other.id() != file.id()
    };
    let processes = ctx.world().processes();
    let threads = processes.iter().flat_map(|p| p.threads());
    !threads.filter_map(|t| t.files.get()).any(|files| {
        const BATCH: usize = 16;
        let mut next = 0;
        loop {
            let mut batch = [0; BATCH];
            let n = files.used(next, &mut batch);
            for fd in batch.iter().take(n) {
                let number = i32::try_from(*fd).unwrap_or(-1);
                if files.get(number).is_ok_and(|f| same(&f)) {
                    return true;
                }
                next = fd + 1;
            }
            if n < BATCH {
                return false;
            }
        }
    })
}
