//! Threads on the metal: their states, stacks and the switch between them.

mod space;

pub(crate) use space::{set_space, user_mapping};

use super::fpu::Area;

use super::paging::PageTable;
use super::sched::{self, Leave};
use super::stacks::KernelStack;
use super::turn::Turn;
use super::{control, gdt, percpu};
use crate::breakpoints::Breakpoints;
use crate::error::AllocError;
use crate::sync::IrqLock;
use crate::thread::{self, Builder, FpuInit, Thread};
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::arch::global_asm;
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::AcqRel, Ordering::Acquire,
    Ordering::Relaxed, Ordering::Release, Ordering::SeqCst,
};
pub(super) use space::let_go;
use space::{enter_space, is_in, leave_space};
use x86_64::instructions::interrupts;

/// Runs or is about to.
pub(super) const RUNNING: u32 = 0;
/// In a ready queue.
pub(super) const READY: u32 = 1;
/// Sleeps until it is unparked.
const PARKED: u32 = 2;
/// Has ended; nothing makes it ready again.
const EXITED: u32 = 3;
/// Ready, and to be queued for another CPU once it is saved.
pub(super) const MOVING: u32 = 4;

/// Registers of a user thread as the entry code pushes them.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct UserRegs {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The system call's number; all ones when it was no system call.
    pub orig_rax: u64,
    pub rip: u64,
    /// Always the user's code segment when user mode goes on.
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    /// Always the user's data segment when user mode goes on.
    pub ss: u64,
}

impl Default for UserRegs {
    fn default() -> UserRegs {
        // SAFETY: all fields are integers.
        let zero: UserRegs = unsafe { core::mem::zeroed() };
        UserRegs {
            cs: u64::from(gdt::USER_CODE.0),
            ss: u64::from(gdt::USER_DATA.0),
            rflags: 0x202,
            orig_rax: u64::MAX,
            ..zero
        }
    }
}

/// What the metal keeps of a thread. Cells are touched by the thread itself, or
/// by the CPU that switches it.
pub(crate) struct ThreadState {
    pub(super) state: AtomicU32,
    /// An `unpark` that found it awake.
    token: AtomicBool,
    started: AtomicBool,
    /// Its registers are in a CPU, not yet or no longer on its stack.
    on_cpu: AtomicBool,
    pub(super) cpu: AtomicU32,
    pub(super) vruntime: AtomicU64,
    pub(super) turn: Turn,
    pub(super) ready_place: AtomicUsize,
    pub(super) sleep_place: AtomicUsize,
    pub(super) sleep_cpu: AtomicU32,
    pub(super) next_dead: AtomicPtr<Thread>,
    rsp: UnsafeCell<usize>,
    stack: IrqLock<Option<KernelStack>>,
    stack_top: usize,
    user: Option<User>,
}

struct User {
    fpu: Area,
    space: IrqLock<Option<Arc<PageTable>>>,
    /// Where that is, to compare without the lock; the thread itself changes both.
    space_at: AtomicPtr<PageTable>,
    fs: Cell<u64>,
    gs: Cell<u64>,
    breakpoints: Cell<Option<Box<Breakpoints>>>,
}

// SAFETY: see the type's doc: the cells have one user at a time, ordered by the
// queue locks and `on_cpu`.
unsafe impl Sync for ThreadState {}
// SAFETY: nothing in it is bound to a CPU.
unsafe impl Send for ThreadState {}

impl ThreadState {
    fn new(stack: Option<KernelStack>, user: Option<User>) -> ThreadState {
        let stack_top = stack.as_ref().map_or(0, KernelStack::top);
        ThreadState {
            state: AtomicU32::new(RUNNING),
            token: AtomicBool::new(false),
            started: AtomicBool::new(false),
            on_cpu: AtomicBool::new(false),
            cpu: AtomicU32::new(0),
            vruntime: AtomicU64::new(0),
            turn: Turn::default(),
            ready_place: AtomicUsize::new(0),
            sleep_place: AtomicUsize::new(0),
            sleep_cpu: AtomicU32::new(0),
            next_dead: AtomicPtr::new(ptr::null_mut()),
            rsp: UnsafeCell::new(0),
            stack: IrqLock::new(stack),
            stack_top,
            user,
        }
    }
}

impl ThreadState {
    /// The break points of a user thread.
    pub(super) fn breakpoints(&self) -> Option<&Cell<Option<Box<Breakpoints>>>> {
        self.user.as_ref().map(|u| &u.breakpoints)
    }
}

impl Drop for ThreadState {
    fn drop(&mut self) {
        // Not within the condition: the lock, which keeps interrupts off, would be held
        // in the block, where a CPU that waits for this one to forget a translation
        // waits for ever.
        let stack = self.stack.lock().take();
        if let Some(s) = stack {
            s.recycle();
            sched::dismiss();
        }
    }
}

// switch_stacks(rdi = where to keep this stack pointer, rsi = the other one)
global_asm!(
    r#"
.global switch_stacks, start_kernel, start_user
switch_stacks:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    mov [rdi], rsp
    mov rsp, rsi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
start_kernel:
    mov rdi, rbx
    xor ebp, ebp
    call start_kernel_rust
    ud2
start_user:
    xor ebp, ebp
    mov rdi, rsp
    sub rsp, 8
    call start_user_rust
    add rsp, 8
    jmp return_to_user
"#
);

unsafe extern "C" {
    fn switch_stacks(keep: *mut usize, other: usize);
    fn start_kernel();
    fn start_user();
}

/// The frame `switch_stacks` pops.
#[repr(C)]
struct SwitchFrame {
    r15: usize,
    r14: usize,
    r13: usize,
    r12: usize,
    rbp: usize,
    rbx: usize,
    rip: usize,
}

/// Writes the first frame of a new thread at `at`, to start at `rip`.
///
/// # Safety
/// `at` is inside the thread's own stack and nobody uses it yet.
unsafe fn first_frame(at: usize, rip: unsafe extern "C" fn(), rbx: usize) -> usize {
    let frame = SwitchFrame {
        r15: 0,
        r14: 0,
        r13: 0,
        r12: 0,
        rbp: 0,
        rbx,
        rip: rip as usize,
    };
    let at = at - size_of::<SwitchFrame>();
    // SAFETY: the caller's.
    unsafe { (at as *mut SwitchFrame).write(frame) };
    at
}

type Main = Box<dyn FnOnce() + Send>;

/// A stack for a thread that the scheduler has room for.
fn admitted_stack() -> Result<KernelStack, AllocError> {
    let stack = KernelStack::new().ok_or(AllocError::OutOfMemory)?;
    match sched::admit() {
        Ok(()) => Ok(stack),
        Err(e) => {
            stack.recycle();
            Err(e)
        }
    }
}

pub(crate) fn spawn_kernel(b: Builder, main: Main) -> Result<Arc<Thread>, AllocError> {
    let stack = admitted_stack()?;
    let top = stack.top();
    let t = Arc::new(b.build(ThreadState::new(Some(stack), None)));
    let main = Box::into_raw(Box::new(main));
    // SAFETY: a fresh stack. 16 bytes stay free so that `start_kernel` calls with
    // the alignment the ABI wants.
    unsafe { *t.arch.rsp.get() = first_frame(top - 16, start_kernel, main as usize) };
    start(&t);
    Ok(t)
}

#[unsafe(no_mangle)]
extern "C" fn start_kernel_rust(main: *mut Main) -> ! {
    finish_switch();
    interrupts::enable();
    let_go();
    // SAFETY: made by `spawn_kernel` for this thread alone.
    let main = unsafe { Box::from_raw(main) };
    main();
    exit()
}

pub(crate) fn make_user(
    b: Builder,
    regs: super::UserRegs,
    space: Arc<PageTable>,
    fpu: FpuInit,
) -> Result<Arc<Thread>, AllocError> {
    let area = Area::new()?;
    let (mut fs, mut gs) = (0, 0);
    if fpu == FpuInit::Inherit
        && let Some(mine) = &thread::current().arch.user
    {
        mine.fpu.save();
        area.copy_from(&mine.fpu);
        (fs, gs) = control::user_bases();
    }
    let stack = admitted_stack()?;
    let top = stack.top();
    let user = User {
        fpu: area,
        space_at: AtomicPtr::new(Arc::as_ptr(&space).cast_mut()),
        space: IrqLock::new(Some(space)),
        fs: Cell::new(fs),
        gs: Cell::new(gs),
        breakpoints: Cell::default(),
    };
    let t = Arc::new(b.build(ThreadState::new(Some(stack), Some(user))));
    let at = top - size_of::<UserRegs>();
    // SAFETY: the top of a fresh stack, where the entry code would put them.
    unsafe {
        (at as *mut UserRegs).write(regs);
        *t.arch.rsp.get() = first_frame(at, start_user, 0);
    }
    Ok(t)
}

#[unsafe(no_mangle)]
extern "C" fn start_user_rust(regs: *mut UserRegs) {
    finish_switch();
    interrupts::enable();
    let_go();
    // SAFETY: the registers `make_user` wrote, at the top of this stack.
    super::trap::leave(unsafe { &mut *regs });
}

/// Lets a new thread run.
pub(crate) fn start(t: &Arc<Thread>) {
    if t.arch.started.swap(true, SeqCst) {
        return;
    }
    // The reference that keeps it alive until it has exited.
    core::mem::forget(t.clone());
    t.arch.cpu.store(percpu::cpu_current() as u32, Relaxed);
    sched::enqueue(t, true);
}

pub(crate) fn unpark(t: &Thread) {
    if take_awake(t) {
        sched::enqueue(t, false);
    }
}

/// CPU time of a thread, that of the turn it is in included.
pub(crate) fn run_ns(t: &Thread) -> u64 {
    t.arch
        .turn
        .total(super::clock::monotonic_ns, || t.charged_ns())
}

/// See [`Thread::last_cpu`].
pub(crate) fn last_cpu(t: &Thread) -> usize {
    t.arch.cpu.load(Relaxed) as usize
}

/// See [`Thread::is_parked`].
pub(crate) fn is_parked(t: &Thread) -> bool {
    t.arch.state.load(Relaxed) == PARKED
}

/// Leaves the token, and takes the thread out of its sleep if it is asleep: then
/// the caller, and nobody else, must queue it.
pub(super) fn take_awake(t: &Thread) -> bool {
    !t.arch.token.swap(true, SeqCst)
        && t.arch
            .state
            .compare_exchange(PARKED, READY, AcqRel, Relaxed)
            .is_ok()
}

/// Sleeps until unparked or until `deadline`.
pub(crate) fn park(deadline: Option<Instant>) {
    // SAFETY: the running thread.
    let me = unsafe { &*percpu::current_thread() };
    if me.arch.token.swap(false, SeqCst) {
        return;
    }
    interrupts::disable();
    if let Some(d) = deadline {
        sched::sleep(me, d);
    }
    me.arch.state.store(PARKED, SeqCst);
    // Whoever unparked before that store has left its token and done no more;
    // whoever comes after it sees PARKED and queues the thread.
    let woken = me.arch.token.load(SeqCst)
        && me
            .arch
            .state
            .compare_exchange(PARKED, RUNNING, AcqRel, Relaxed)
            .is_ok();
    if !woken {
        sched::reschedule(Leave::Park);
    }
    interrupts::enable();
    let_go();
    if deadline.is_some() {
        sched::awake(me);
    }
    me.arch.token.store(false, SeqCst);
}

pub(crate) fn yield_now() {
    leave(Leave::Yield);
}

/// Lets whoever has had less run first.
pub(crate) fn give_way() {
    leave(Leave::Ready);
}

fn leave(how: Leave) {
    interrupts::disable();
    sched::reschedule(how);
    interrupts::enable();
    let_go();
}

/// Makes a thread that may be in user mode on another CPU come by the kernel.
pub(crate) fn kick(t: &Thread) {
    let cpu = t.arch.cpu.load(Relaxed) as usize;
    if t.arch.on_cpu.load(SeqCst) && cpu != percpu::cpu_current() {
        super::apic::send_ipi(cpu, super::vectors::RESCHEDULE);
    }
}

#[expect(clippy::unreachable, reason = "its stack may be in use already")]
pub(crate) fn exit() -> ! {
    // SAFETY: the running thread.
    let me = unsafe { &*percpu::current_thread() };
    if let Some(u) = &me.arch.user {
        // The space may be the last thing of its process; it goes while this
        // thread can still sleep for locks.
        leave_space();
        let space = u.space.lock().take();
        drop(space);
    }
    me.leave_stack();
    interrupts::disable();
    me.arch.state.store(EXITED, SeqCst);
    sched::reschedule(Leave::Park);
    unreachable!("an exited thread ran again")
}

/// Whether a CPU runs the thread, or has not saved it yet since it gave way.
pub(super) fn is_on_cpu(t: &Thread) -> bool {
    t.arch.on_cpu.load(Acquire)
}

/// Counts `t`, which does not run, as a thread of `cpu`. If it was another's, who watches for
/// switches is told.
pub(super) fn assign(t: &Thread, cpu: usize) {
    let cpu = cpu as u32;
    if t.arch.cpu.load(Relaxed) != cpu {
        t.arch.cpu.store(cpu, Relaxed);
        t.mark_switched();
    }
}

/// Whether the running user thread came into the kernel by a system call.
fn is_in_call(me: &Thread) -> bool {
    let frame = (me.arch.stack_top - size_of::<UserRegs>()) as *const UserRegs;
    // SAFETY: in the kernel, the registers of a user thread lie at the top of its own stack.
    unsafe { (*frame).orig_rax != u64::MAX }
}

/// Goes on as `next`; interrupts are off, and `me` is queued, parked or gone.
pub(super) fn switch(me: &Thread, next: &Thread) {
    let here = percpu::here();
    if let Some(u) = &me.arch.user {
        me.note_switch(|| is_in_call(me));
        u.fpu.save();
        let (fs, gs) = control::user_bases();
        u.fs.set(fs);
        u.gs.set(gs);
    }
    // Its last CPU has saved it: nobody queues a thread elsewhere before that. To wait
    // for it here could be for ever, if that CPU switched to `me` at the same time.
    debug_assert!(!is_on_cpu(next), "a thread on two CPUs");
    next.arch.on_cpu.store(true, Relaxed);
    assign(next, percpu::cpu_current());
    here.switched_from.set(me);
    here.thread.set(next);
    here.stack_top.set(next.arch.stack_top);
    if let Some(u) = &next.arch.user {
        gdt::set_trap_stack(next.arch.stack_top);
        if !is_in(u.space_at.load(Relaxed))
            && let Some(space) = &*u.space.lock()
        {
            enter_space(space);
        }
        control::set_user_bases(u.fs.get(), u.gs.get());
        u.fpu.load();
    }
    // SAFETY: `next` is not on any CPU, so its stack pointer is the one it saved
    // (or was born with); `me` keeps its own until somebody switches back.
    unsafe { switch_stacks(me.arch.rsp.get(), *next.arch.rsp.get()) };
    finish_switch();
}

/// The first thing a thread does after it was switched to: its predecessor's
/// registers are saved now, so others may run it, or it may be let go.
fn finish_switch() {
    let prev = percpu::here().switched_from.replace(ptr::null());
    // SAFETY: alive: an exited thread's last reference is dropped here.
    let Some(t) = (unsafe { prev.as_ref() }) else {
        return;
    };
    let state = t.arch.state.load(Relaxed);
    t.arch.on_cpu.store(false, Release);
    if state == EXITED {
        // SAFETY: the reference `start` forgot; nobody switches to it again.
        super::later::drop_thread(unsafe { Arc::from_raw(prev) });
    } else if state == MOVING {
        sched::enqueue(t, false);
    }
}

/// The thread the boot code (or a starting CPU) already is: its idle thread.
pub(super) fn adopt_idle(stack_top: usize) -> Result<(), AllocError> {
    let mut state = ThreadState::new(None, None);
    state.stack_top = stack_top;
    let t = Arc::new(Builder::new("idle").build(state));
    t.arch.on_cpu.store(true, Relaxed);
    t.arch.cpu.store(percpu::cpu_current() as u32, Relaxed);
    t.arch.turn.begin(super::clock::monotonic_ns());
    let here = percpu::here();
    let raw = Arc::into_raw(t);
    here.thread.set(raw);
    here.idle.set(raw);
    sched::join(raw)
}

pub(crate) fn fpu_reset() {
    super::fpu::load_initial();
}

pub(crate) use super::fpu::{fpu_pop, fpu_push, fpu_size};

pub(crate) fn fpu_save(out: &mut [u8]) {
    if let Some(u) = &thread::current().arch.user {
        u.fpu.save();
        u.fpu.copy_to(out);
    }
}

pub(crate) fn fpu_accepts(image: &[u8]) -> bool {
    Area::new().is_ok_and(|area| area.accept(image))
}

pub(crate) fn fpu_features() -> u64 {
    control::features().xcr0 | 3
}

pub(crate) fn fpu_load(image: &[u8]) -> bool {
    let me = thread::current();
    let Some(u) = &me.arch.user else { return false };
    interrupts::without_interrupts(|| {
        let ok = u.fpu.accept(image);
        if ok {
            u.fpu.load();
        }
        ok
    })
}

pub(crate) fn segment_bases() -> (usize, usize) {
    let (fs, gs) = control::user_bases();
    (fs as usize, gs as usize)
}

pub(crate) fn set_segment_bases(fs: Option<usize>, gs: Option<usize>) {
    let (old_fs, old_gs) = control::user_bases();
    control::set_user_bases(
        fs.map_or(old_fs, |v| v as u64),
        gs.map_or(old_gs, |v| v as u64),
    );
}

const _: () = assert!(size_of::<UserRegs>() == 21 * 8 && offset_of!(UserRegs, orig_rax) == 120);
