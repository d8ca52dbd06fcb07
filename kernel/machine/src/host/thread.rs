//! Threads of the host as the machine room's threads.

use super::{PageTable, UserRegs};
use crate::breakpoints::Breakpoints;
use crate::error::{AllocError, Fault};
use crate::frame::Frame;
use crate::paging::{Access, Mapping};
use crate::sync::SpinLock;
use crate::thread::{self, Builder, FpuInit, PageFault, Thread};
use crate::time::Instant;
use crate::user;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::cell::OnceCell;
use std::sync::{Condvar, Mutex, OnceLock};

#[derive(Default)]
pub(crate) struct ThreadState {
    token: Mutex<bool>,
    woken: Condvar,
    parked: AtomicBool,
    space: SpinLock<Option<Arc<PageTable>>>,
    fs: AtomicUsize,
    breakpoints: SpinLock<Breakpoints>,
    gs: AtomicUsize,
    /// What a user thread will run, until it is started.
    pending: SpinLock<Option<UserRegs>>,
    started: AtomicBool,
}

std::thread_local! {
    static CURRENT: OnceCell<Arc<Thread>> = const { OnceCell::new() };
}

fn adopt() -> Arc<Thread> {
    Arc::new(Builder::new("host").build(ThreadState::default()))
}

pub(crate) fn current_thread() -> *const Thread {
    CURRENT.with(|c| Arc::as_ptr(c.get_or_init(adopt)))
}

pub(crate) fn unpark(t: &Thread) {
    let mut token = t.arch.token.lock().expect("no holder panics");
    *token = true;
    t.arch.woken.notify_one();
}

pub(crate) fn park(deadline: Option<Instant>) {
    let me = thread::current();
    let mut token = me.arch.token.lock().expect("no holder panics");
    me.arch.parked.store(true, Ordering::Relaxed);
    while !*token {
        match deadline {
            None => token = me.arch.woken.wait(token).expect("no holder panics"),
            Some(d) => {
                let now = Instant::now();
                if now >= d {
                    break;
                }
                let left = d.since(now);
                token = me
                    .arch
                    .woken
                    .wait_timeout(token, left)
                    .expect("no holder panics")
                    .0;
            }
        }
    }
    me.arch.parked.store(false, Ordering::Relaxed);
    *token = false;
}

pub(crate) fn run_ns(t: &Thread) -> u64 {
    t.charged_ns()
}

pub(crate) fn is_parked(t: &Thread) -> bool {
    t.arch.parked.load(Ordering::Relaxed)
}

pub(crate) fn last_cpu(_: &Thread) -> usize {
    0
}

pub(crate) fn kick(_: &Thread) {}

pub(crate) fn expel(_: &Thread) {}

pub(crate) fn yield_now() {
    std::thread::yield_now();
}

pub(crate) fn give_way() {
    std::thread::yield_now();
}

pub(crate) fn resched_due() -> bool {
    false
}

pub(crate) fn exit() -> ! {
    thread::current().leave_stack();
    // The host cannot end a thread from within without unwinding; nothing wakes it.
    loop {
        std::thread::park();
    }
}

fn run(t: &Arc<Thread>, main: impl FnOnce() + Send + 'static) {
    let me = t.clone();
    std::thread::spawn(move || {
        CURRENT.with(|c| c.set(me).is_ok());
        main();
    });
}

pub(crate) fn spawn_kernel(
    b: Builder,
    main: Box<dyn FnOnce() + Send>,
) -> Result<Arc<Thread>, AllocError> {
    let t = Arc::new(b.build(ThreadState::default()));
    run(&t, main);
    Ok(t)
}

pub(crate) fn make_user(
    b: Builder,
    regs: UserRegs,
    space: Arc<PageTable>,
    _: FpuInit,
) -> Result<Arc<Thread>, AllocError> {
    let state = ThreadState::default();
    *state.space.lock() = Some(space);
    *state.pending.lock() = Some(regs);
    Ok(Arc::new(b.build(state)))
}

type Program = fn(&mut UserRegs);
static PROGRAM: OnceLock<Program> = OnceLock::new();

/// What user threads run in place of user mode; the first call counts.
pub fn set_program(program: Program) {
    PROGRAM.get_or_init(|| program);
}

/// Gives the calling test thread an address space, for user copies.
pub fn enter_space(space: Arc<PageTable>) {
    set_space(space);
}

pub(crate) fn start(t: &Arc<Thread>) {
    if t.arch.started.swap(true, Ordering::SeqCst) {
        return;
    }
    let regs = t.arch.pending.lock().take();
    if let Some(mut regs) = regs {
        run(t, move || {
            if let Some(p) = PROGRAM.get() {
                p(&mut regs);
            }
        });
    }
}

pub(crate) fn set_space(space: Arc<PageTable>) {
    *thread::current().arch.space.lock() = Some(space);
}

/// What the running thread's space has mapped at `va`.
pub(crate) fn user_mapping(va: usize) -> Option<Mapping> {
    let space = thread::current().arch.space.lock().clone()?;
    space.query(va)
}

/// The frame behind a user address, faulting it in as the hardware would.
pub(super) fn resolve(addr: usize, access: Access) -> Option<Frame> {
    for _ in 0..16 {
        let space = thread::current().arch.space.lock().clone()?;
        if let Some(f) = space.touch(addr, access) {
            return Some(f);
        }
        let fault = PageFault {
            addr,
            access,
            from_user: false,
            present: space.query(addr).is_some_and(|m| !m.access.is_empty()),
        };
        if !thread::hooks()?.page_fault(fault) {
            return None;
        }
    }
    None
}

pub(crate) fn fpu_reset() {}

pub(crate) fn fpu_size() -> usize {
    512
}

pub(crate) fn fpu_save(out: &mut [u8]) {
    out.fill(0);
}

pub(crate) fn fpu_push(image: usize, note: [u64; 6]) -> Result<(), Fault> {
    user::zero(image, 464)?;
    user::write_value(image + 464, &note)
}

pub(crate) fn fpu_pop(image: usize) -> Result<(), Fault> {
    user::read(image, &mut [0; 512])
}

pub(crate) fn fpu_accepts(image: &[u8]) -> bool {
    fpu_load(image)
}

pub(crate) fn fpu_features() -> u64 {
    3
}

pub(crate) fn fpu_load(image: &[u8]) -> bool {
    image.len() >= 512
}

pub(crate) fn set_breakpoints(points: Breakpoints) {
    *thread::current().arch.breakpoints.lock() = points;
}

/// The break points that the calling thread would have in the processor.
pub fn breakpoints() -> Breakpoints {
    *thread::current().arch.breakpoints.lock()
}

pub(crate) fn segment_bases() -> (usize, usize) {
    let a = &thread::current().arch;
    (a.fs.load(Ordering::Relaxed), a.gs.load(Ordering::Relaxed))
}

pub(crate) fn set_segment_bases(fs: Option<usize>, gs: Option<usize>) {
    let a = &thread::current().arch;
    for (slot, v) in [(&a.fs, fs), (&a.gs, gs)] {
        if let Some(v) = v {
            slot.store(v, Ordering::Relaxed);
        }
    }
}
