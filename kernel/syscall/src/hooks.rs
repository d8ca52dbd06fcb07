//! How user threads come into the kernel: the machine room's hooks.

use crate::ctx::Ctx;
use crate::errno::Errno;
use crate::table;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use machine::thread::{self, Exception, PageFault, UserRegs};
use process::seccomp::Verdict;
use process::{Limited, Thread, profile};

/// Whether every call and its answer is logged; then all are watched.
static TRACE: AtomicBool = AtomicBool::new(false);

/// Logs every call and its answer from now on, or stops doing so.
pub fn set_trace(on: bool) {
    if TRACE.swap(on, Relaxed) != on {
        process::trace::watch_all(on);
    }
}

/// The kernel's side of every user thread.
pub struct Hooks;

/// Installs the hooks. The kernel calls it once at boot.
pub fn install() {
    process::profile::set_names(&table::NAMES);
    thread::set_hooks(&Hooks, syscall);
}

/// A `syscall` instruction of the thread that runs this code.
pub(crate) extern "C" fn syscall(regs: &mut UserRegs) {
    let current = thread::current();
    let Some(me) = current.data::<Arc<Thread>>() else {
        regs.rax = Errno::ENOSYS.to_rax();
        return;
    };
    if process::trace::some_watched() {
        return watched(regs, me);
    }
    run(regs, me);
}

impl thread::Hooks for Hooks {
    fn exception(&self, regs: &mut UserRegs, exception: Exception) {
        process::fault::exception(regs, exception);
    }

    fn page_fault(&self, fault: PageFault) -> bool {
        process::fault::page_fault(fault)
    }

    fn attention(&self, regs: &mut UserRegs) {
        process::signal::attention(regs);
    }

    fn switched(&self, regs: &mut UserRegs) {
        let current = thread::current();
        if let Some(me) = current.data::<Arc<Thread>>() {
            me.resume_rseq(regs);
        }
    }
}

#[inline]
fn run(regs: &mut UserRegs, me: &Arc<Thread>) {
    let mut ctx = Ctx::new(regs, me);
    regs.rax = table::dispatch(&mut ctx);
    if Errno::is_rax(regs.rax) {
        failed(regs, me);
    }
}

/// After a call that failed. (`rt_sigreturn` may bring any `rax` back, and says so in
/// `orig_rax`.)
fn failed(regs: &UserRegs, me: &Thread) {
    let Some(e) = Errno::of_rax(regs.rax).filter(|_| regs.orig_rax != u64::MAX) else {
        return;
    };
    if e.restarts() {
        // The signal code turns this into what the program sees.
        me.alert();
    }
    match e {
        Errno::EMFILE | Errno::ENFILE => me.process().world().tell_limit(Limited::Files),
        Errno::ENOBUFS => me.process().world().tell_limit(Limited::Sockets),
        _ => {}
    }
}

/// A call while somebody's calls are watched, perhaps this thread's.
#[cold]
fn watched(regs: &mut UserRegs, me: &Arc<Thread>) {
    let timed = profile::begin(me, regs.orig_rax as usize);
    let traced = me.is_traced();
    if !traced || me.before_call(regs) {
        match me.judge_call(regs) {
            Verdict::Made if TRACE.load(Relaxed) => logged(regs, me),
            Verdict::Made => run(regs, me),
            Verdict::NotMade => {}
            Verdict::ThreadEnds => process::exit::end_thread(me, regs, 0),
        }
    }
    // Without the time in the hands of a tracer.
    if let Some(call) = timed {
        profile::end(&call, Errno::is_rax(regs.rax));
    }
    if traced {
        me.after_call(regs);
    }
}

fn logged(regs: &mut UserRegs, me: &Arc<Thread>) {
    let number = regs.orig_rax as usize;
    let name = table::NAMES.get(number).copied().unwrap_or("?");
    let (a, b, c) = (regs.rdi, regs.rsi, regs.rdx);
    let tid = me.tid();
    log::info!("{tid} {name}({a:#x}, {b:#x}, {c:#x}, ...)");
    run(regs, me);
    match Errno::of_rax(regs.rax) {
        Some(e) => log::info!("{tid} {name} = -{}", e.name()),
        None => log::info!("{tid} {name} = {:#x}", regs.rax),
    }
}
