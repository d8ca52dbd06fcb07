//! execve(2): the calling thread becomes another program.
//!
//! [`prepare`] has done all that can fail; from then on there is no way back.

use crate::elf::Arguments;
use crate::limits::{INFINITE, Limits, Resource};
use crate::program::{Invocation, Ready, prepare};
use crate::signal::{AltStack, Signal};
use crate::{Error, Result, Thread, exit};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::SeqCst;
use machine::thread::{self, UserRegs};
use mm::Randomize;
use vfs::{Caller, Path};

/// `personality(2)`: no random addresses.
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;

/// Runs the program at `path`, called `name` by the caller, in the calling
/// thread. On success `regs` are those of the new program.
///
/// # Errors
/// Those of execve(2); nothing has happened then. [`Error::Interrupted`] if the
/// process ends meanwhile.
pub fn replace(
    me: &Arc<Thread>,
    regs: &mut UserRegs,
    path: &Path,
    name: &[u8],
    arguments: Arguments,
) -> Result<()> {
    let process = me.process();
    let ready = {
        let fs = me.fs.get().ok_or(Error::NoProcess)?;
        let cred = me.cred.get().ok_or(Error::NoProcess)?;
        let what = Invocation {
            caller: Caller {
                fs: &fs,
                cred: &cred,
            },
            account: process.world().account().clone(),
            limits: process.limits().of_memory(),
            randomize: match process.personality() & ADDR_NO_RANDOMIZE {
                0 => Randomize::Yes,
                _ => Randomize::No,
            },
            no_new_privs: process.no_new_privs() || me.is_traced_by_the_unprivileged(),
            name,
            arguments,
        };
        prepare(what, path)?
    };
    let former = me.tid();
    exit::end_siblings(me)?;
    commit(me, regs, ready);
    me.trace_exec(regs, former);
    Ok(())
}

fn commit(me: &Arc<Thread>, regs: &mut UserRegs, ready: Ready) {
    let process = me.process();
    if let Some(old) = me.space.get() {
        exit::leave_memory(me, &old);
    }
    thread::set_space(ready.space.page_table().clone());
    ready
        .space
        .set_small_pages_only(me.process().small_pages_only());
    me.space.set(ready.space);
    process.release_parent();
    me.set_robust_list(0);
    me.rseq.clear();
    me.clear_debug();
    thread::current().watch_switches(false);
    process.barriers.store(0, SeqCst);
    forget_handlers(me);
    close_files(me);
    let c = &ready.credentials;
    let plain = !ready.secure && c.uid == c.euid && c.gid == c.egid;
    if ready.secure {
        process.set_parent_death_signal(None);
    }
    process.set_dumpable(u8::from(plain));
    process.set_keep_caps(false);
    me.cred.set(Arc::new(ready.credentials));
    me.set_comm(&ready.comm);
    let old = core::mem::replace(&mut *process.program.lock(), ready.program);
    drop(old);
    process.exit_signal.store(Signal::CHLD.number(), SeqCst);
    process.world().family.lock().set_executed(process.pid());
    *regs = ready.regs;
    thread::fpu_reset();
    // Zero is a valid base.
    let _ = thread::set_segment_bases(Some(0), Some(0));
}

/// Handlers lie in memory that is gone; pending signals and the mask stay.
fn forget_handlers(me: &Thread) {
    let process = me.process();
    if let Some(actions) = process.actions() {
        process.actions.set(Arc::new(actions.without_handlers()));
    }
    me.signals.set_alt_stack(AltStack::default());
    me.signals.take_restart();
    process.drop_timers(false);
}

/// The new program has descriptors of its own, without those that close now.
fn close_files(me: &Thread) {
    let Some(mut files) = me.files.get() else {
        return;
    };
    // One reference is the slot's, one this function's. Without memory for a copy
    // the sharing goes on.
    if Arc::strong_count(&files) > 2
        && let Ok(own) = files.duplicate()
    {
        files = Arc::new(own);
        me.files.set(files.clone());
    }
    files.close_cloexec();
}

impl Limits {
    /// What the memory room holds a program to.
    #[must_use]
    pub fn of_memory(&self) -> mm::Limits {
        let bytes = |r: Resource| match self.soft(r) {
            INFINITE => usize::MAX,
            n => usize::try_from(n).unwrap_or(usize::MAX),
        };
        mm::Limits {
            address_space: bytes(Resource::AddressSpace),
            data: bytes(Resource::Data),
            stack: bytes(Resource::Stack),
            locked: bytes(Resource::LockedMemory),
        }
    }
}
