//! Threads: kernel threads and the kernel side of user threads.
//!
//! Every thread has a kernel stack of its own and sleeps by [`park`]ing. A user
//! thread enters user mode with the registers it is given and comes back through
//! the [`Hooks`]: system calls, faults, and work that is due before it returns.
//!
//! The room above hangs its own data on a thread ([`Builder::data`]) and finds it
//! again with [`Thread::data`].

use crate::account::PageCharge;
use crate::error::{AllocError, WaitError};
pub use crate::nice::Share;
use crate::nice::WEIGHT_0;
use crate::paging::PageTable;
use crate::run_time::Ticks;
use crate::sync::{Once, SpinLock};
use crate::wait::Until;
use crate::{arch, time::Instant};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::any::{Any, TypeId};
use core::marker::PhantomData;
use core::ops::Deref;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;

pub use crate::breakpoints::{BREAKPOINTS_MAX, Breakpoints, set_breakpoints};
pub use crate::fpu::{
    fpu_accepts, fpu_features, fpu_load, fpu_pop, fpu_push, fpu_reset, fpu_save, fpu_size,
};
pub use arch::UserRegs;

/// Pages of a thread's kernel stack.
pub const STACK_PAGES: usize = 8;

/// What a thread is to the scheduler and to the rooms above.
pub struct Thread {
    id: u64,
    name: String,
    /// With its type, which every system call asks for.
    data: Option<(TypeId, Box<dyn Any + Send + Sync>)>,
    group: Arc<CpuGroup>,
    /// CPUs it may run on, bit by bit.
    affinity: AtomicU64,
    /// Its share of the group's time, as it counts now and as it is to count.
    pub(crate) weight: AtomicU32,
    pub(crate) wanted_weight: AtomicU32,
    /// What is due before it goes on in user mode: [`ATTENTION`], [`SWITCHED`],
    /// [`REWEIGHED`].
    pub(crate) due: AtomicU8,
    /// What makes being switched out [`SWITCHED`]: see `switches`.
    pub(crate) watches_switches: AtomicU8,
    /// Nanoseconds it has run.
    pub(crate) run_ns: AtomicU64,
    /// Where that was.
    pub(crate) ticks: Ticks,
    /// Paid for its kernel stack.
    stack: SpinLock<Option<PageCharge>>,
    pub(crate) arch: arch::ThreadState,
}

/// Where the entry code finds what is due.
#[cfg(target_os = "none")]
pub(crate) const DUE_AT: usize = core::mem::offset_of!(Thread, due);

/// Attention is due: see [`Thread::raise_attention`].
const ATTENTION: u8 = 1;
/// It was switched out: see [`Thread::watch_switches`].
pub(crate) const SWITCHED: u8 = 2;
/// Its weight is to change: see [`Thread::set_share`].
const REWEIGHED: u8 = 4;

/// Threads that share CPU time as one: the threads of a capsule.
///
/// Time is first divided between groups by weight, then between the threads of
/// a group by their nice values; a quota bounds what a group gets even on an idle machine.
#[derive(Debug)]
pub struct CpuGroup {
    weight: AtomicU64,
    /// Per mille of one CPU, `u64::MAX` for no bound.
    quota_per_mille: AtomicU64,
    pub(crate) run_ns: AtomicU64,
    #[cfg(target_os = "none")]
    pub(crate) arch: arch::GroupState,
}

/// The weight of a group that did not ask for another.
pub const WEIGHT_DEFAULT: u64 = 100;

impl CpuGroup {
    /// A group of `weight` (1 to 10,000; [`WEIGHT_DEFAULT`] is usual) that gets
    /// at most `quota_per_mille` thousandths of one CPU (more than 1,000 on
    /// several).
    #[must_use]
    pub fn new(weight: u64, quota_per_mille: Option<u64>) -> Arc<CpuGroup> {
        Arc::new(CpuGroup {
            weight: AtomicU64::new(weight.clamp(1, 10_000)),
            quota_per_mille: AtomicU64::new(quota_per_mille.unwrap_or(u64::MAX)),
            run_ns: AtomicU64::new(0),
            #[cfg(target_os = "none")]
            arch: arch::GroupState::new(),
        })
    }

    /// The group of kernel threads.
    #[must_use]
    pub fn kernel() -> Arc<CpuGroup> {
        static KERNEL: Once<Arc<CpuGroup>> = Once::new();
        KERNEL.call_once(|| CpuGroup::new(10_000, None)).clone()
    }

    /// Its weight.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight.load(Relaxed)
    }

    /// Its quota in thousandths of one CPU, if it has one.
    #[must_use]
    pub fn quota_per_mille(&self) -> Option<u64> {
        Some(self.quota_per_mille.load(Relaxed)).filter(|q| *q != u64::MAX)
    }

    /// CPU time its threads have used.
    #[must_use]
    pub fn run_time(&self) -> Duration {
        Duration::from_nanos(self.run_ns.load(Relaxed))
    }
}

/// What the room above does when a user thread comes into the kernel. All run on
/// the thread's kernel stack with interrupts on, and may sleep.
pub trait Hooks: Sync {
    /// An exception in user mode. The hook resolves it or raises a signal.
    fn exception(&self, regs: &mut UserRegs, exception: Exception);
    /// A page fault on a user address, from user mode or from a copy of the
    /// kernel's on the thread's behalf. Whether the access may be tried again.
    fn page_fault(&self, fault: PageFault) -> bool;
    /// Called before returning to user mode while [`Thread::attention`] is set:
    /// delivers signals, stops, or ends the thread.
    fn attention(&self, regs: &mut UserRegs);
    /// Called before returning to user mode if the thread was switched out and
    /// [watches for that](Thread::watch_switches).
    fn switched(&self, regs: &mut UserRegs);
}

/// A page fault on a user address.
#[derive(Clone, Copy, Debug)]
pub struct PageFault {
    /// The address touched.
    pub addr: usize,
    /// What was tried.
    pub access: crate::paging::Access,
    /// Whether user mode touched it (else a kernel copy).
    pub from_user: bool,
    /// Whether a page was there that forbids the access, at that moment.
    pub present: bool,
}

/// An exception in user mode, page faults that a hook resolved aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// A page fault that [`Hooks::page_fault`] refused, at this address.
    PageFault {
        /// The address touched.
        addr: usize,
        /// What was tried.
        access: crate::paging::Access,
    },
    /// Integer division by zero or overflow.
    DivideError,
    /// `int3`.
    Breakpoint,
    /// Single step, a debug register or `int1`: which, as the bits of DR6 that differ from
    /// those of a quiet processor.
    Debug(u64),
    /// Invalid opcode.
    InvalidOpcode,
    /// General protection, with its error code.
    GeneralProtection(u64),
    /// An x87 or SIMD floating-point exception.
    FloatingPoint,
    /// Alignment check.
    AlignmentCheck,
    /// Any other vector.
    Other(u8),
}

static HOOKS: Once<&'static dyn Hooks> = Once::new();

/// What happens at a `syscall` instruction: number in `rax`, the answer goes to `rax`.
pub type Syscall = extern "C" fn(&mut UserRegs);

/// Installs the hooks; the first call counts.
pub fn set_hooks(hooks: &'static dyn Hooks, syscall: Syscall) {
    HOOKS.call_once(|| {
        arch::set_syscall(syscall);
        hooks
    });
}

pub(crate) fn hooks() -> Option<&'static dyn Hooks> {
    HOOKS.get().copied()
}

/// The thread that runs this code. It cannot leave its thread, so what it points
/// to lives as long as it does.
#[derive(Clone, Copy)]
pub struct Current {
    thread: *const Thread,
    _not_send: PhantomData<*const ()>,
}

impl Current {
    /// A counted reference that may go anywhere.
    #[must_use]
    pub fn to_arc(self) -> Arc<Thread> {
        // SAFETY: the pointer came from `Arc::as_ptr` of the running thread, whose
        // strong count the scheduler holds up while it runs.
        unsafe {
            Arc::increment_strong_count(self.thread);
            Arc::from_raw(self.thread)
        }
    }
}

impl Deref for Current {
    type Target = Thread;
    #[inline]
    fn deref(&self) -> &Thread {
        // SAFETY: the running thread is kept alive by the scheduler, and `Current`
        // cannot be sent elsewhere.
        unsafe { &*self.thread }
    }
}

/// The running thread.
#[inline]
#[must_use]
pub fn current() -> Current {
    Current {
        thread: arch::current_thread(),
        _not_send: PhantomData,
    }
}

impl Thread {
    /// A number no other thread of this boot has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The name it was built with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The data of the room above, if it has type `T`.
    #[inline]
    #[must_use]
    pub fn data<T: Any>(&self) -> Option<&T> {
        let (kind, data) = self.data.as_ref()?;
        if *kind != TypeId::of::<T>() {
            return None;
        }
        let data: *const (dyn Any + Send + Sync) = &raw const **data;
        // SAFETY: a living `T`, as its type's number says; borrowed with `self`.
        Some(unsafe { &*data.cast::<T>() })
    }

    /// The group it shares CPU time with.
    #[must_use]
    pub fn group(&self) -> &Arc<CpuGroup> {
        &self.group
    }

    /// Lets the next (or the current) [`park`] return. Never blocks; interrupt
    /// handlers may call it.
    #[inline]
    pub fn unpark(&self) {
        arch::unpark(self);
    }

    /// Whether it sleeps in [`park`], and neither runs nor waits for a CPU.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        arch::is_parked(self)
    }

    /// The CPU that it runs on, waits for, or ran on last.
    #[must_use]
    pub fn last_cpu(&self) -> usize {
        arch::last_cpu(self)
    }

    /// Tells the thread to look at its signals: interruptible waits end, and
    /// [`Hooks::attention`] runs before it returns to user mode.
    pub fn raise_attention(&self) {
        self.due.fetch_or(ATTENTION, SeqCst);
        self.unpark();
        arch::kick(self);
    }

    /// Whether [`Thread::raise_attention`] is in force.
    #[inline]
    #[must_use]
    pub fn attention(&self) -> bool {
        self.due.load(Relaxed) & ATTENTION != 0
    }

    /// Whether anything is due before it goes on in user mode.
    #[cfg(target_os = "none")]
    #[inline]
    pub(crate) fn is_due(&self) -> bool {
        self.due.load(Relaxed) != 0
    }

    pub(crate) fn mark_reweighed(&self) {
        self.due.fetch_or(REWEIGHED, SeqCst);
    }

    #[cfg(target_os = "none")]
    pub(crate) fn take_reweighed(&self) -> bool {
        self.due.fetch_and(!REWEIGHED, SeqCst) & REWEIGHED != 0
    }

    /// The signals were looked at. Clear it first and look then, so that one that
    /// comes meanwhile is not lost.
    pub fn clear_attention(&self) {
        self.due.fetch_and(!ATTENTION, SeqCst);
    }

    /// CPUs it may run on, bit by bit.
    #[must_use]
    pub fn affinity(&self) -> u64 {
        self.affinity.load(Relaxed)
    }

    /// Restricts it to the CPUs of `mask`; a mask without any CPU that exists is
    /// refused with `false`. A thread that waits for its turn moves at once, one that runs before
    /// it goes on in user mode.
    pub fn set_affinity(&self, mask: u64) -> bool {
        let have = u64::MAX >> (64 - crate::cpu::count().clamp(1, 64));
        if mask & have == 0 {
            return false;
        }
        self.affinity.store(mask & have, Relaxed);
        arch::expel(self);
        true
    }

    /// Gives back what its stack cost: it ends, and the stack goes next.
    pub(crate) fn leave_stack(&self) {
        let charge = self.stack.lock().take();
        drop(charge);
    }
}

/// What a new thread is to be.
#[derive(Default)]
pub struct Builder {
    name: String,
    group: Option<Arc<CpuGroup>>,
    affinity: Option<u64>,
    data: Option<Box<dyn Any + Send + Sync>>,
    stack: Option<PageCharge>,
    share: Share,
}

impl Builder {
    /// A thread called `name` in the kernel's group, on any CPU.
    #[must_use]
    pub fn new(name: &str) -> Builder {
        Builder {
            name: String::from(name),
            ..Builder::default()
        }
    }

    /// Puts it into `group`.
    #[must_use]
    pub fn group(mut self, group: Arc<CpuGroup>) -> Builder {
        self.group = Some(group);
        self
    }

    /// Restricts it to the CPUs of `mask`.
    #[must_use]
    pub fn affinity(mut self, mask: u64) -> Builder {
        self.affinity = Some(mask);
        self
    }

    /// Gives it that share of what its group gets, and not that of nice value 0.
    #[must_use]
    pub fn share(mut self, share: Share) -> Builder {
        self.share = share;
        self
    }

    /// Hangs `data` on it.
    #[must_use]
    pub fn data(mut self, data: Box<dyn Any + Send + Sync>) -> Builder {
        self.data = Some(data);
        self
    }

    /// Has `charge` pay for its kernel stack of [`STACK_PAGES`].
    #[must_use]
    pub fn stack(mut self, charge: PageCharge) -> Builder {
        self.stack = Some(charge);
        self
    }

    pub(crate) fn build(self, arch: arch::ThreadState) -> Thread {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let thread = Thread {
            id: NEXT_ID.fetch_add(1, Relaxed),
            name: self.name,
            data: self.data.map(|d| ((*d).type_id(), d)),
            group: self.group.unwrap_or_else(CpuGroup::kernel),
            affinity: AtomicU64::new(self.affinity.unwrap_or(u64::MAX)),
            weight: AtomicU32::new(WEIGHT_0),
            wanted_weight: AtomicU32::new(WEIGHT_0),
            due: AtomicU8::new(0),
            watches_switches: AtomicU8::new(0),
            run_ns: AtomicU64::new(0),
            ticks: Ticks::default(),
            stack: SpinLock::new(self.stack),
            arch,
        };
        thread.born_with(self.share);
        thread
    }

    /// Starts a kernel thread that runs `main` and ends.
    ///
    /// # Errors
    /// No memory for its stack.
    pub fn spawn(self, main: impl FnOnce() + Send + 'static) -> Result<Arc<Thread>, AllocError> {
        arch::spawn_kernel(self, Box::new(main))
    }

    /// Makes a user thread that will enter user mode with `regs` in `space`. It
    /// does not run before [`Thread::start`], so that its maker can make it known
    /// first. Floating-point state is copied from the current thread when `fork`
    /// says so, and fresh otherwise.
    ///
    /// # Errors
    /// No memory for its stack.
    pub fn user(
        self,
        regs: UserRegs,
        space: Arc<PageTable>,
        fpu: FpuInit,
    ) -> Result<Arc<Thread>, AllocError> {
        arch::make_user(self, regs, space, fpu)
    }
}

/// Where a user thread's floating-point and vector state comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FpuInit {
    /// As after `execve`.
    Fresh,
    /// A copy of the calling thread's, as after `fork` and `clone`.
    Inherit,
}

impl Thread {
    /// Lets a thread made by [`Builder::user`] run; further calls do nothing.
    pub fn start(self: &Arc<Self>) {
        arch::start(self);
    }
}

/// Sleeps until somebody calls [`Thread::unpark`] on this thread, or `until`
/// ends it. An `unpark` that came before counts; a return without cause is
/// allowed, so callers check their condition.
///
/// # Errors
/// [`WaitError`] when `until` ended the sleep.
pub fn park(until: Until) -> Result<(), WaitError> {
    let me = current();
    if until.interruptible && me.attention() {
        return Err(WaitError::Interrupted);
    }
    if until.deadline.is_some_and(|d| Instant::now() >= d) {
        return Err(WaitError::TimedOut);
    }
    arch::park(until.deadline);
    if until.interruptible && me.attention() {
        return Err(WaitError::Interrupted);
    }
    Ok(())
}

/// Sleeps until `deadline`.
///
/// # Errors
/// [`WaitError::Interrupted`] by a signal, if `interruptible`.
pub fn sleep_until(deadline: Instant, interruptible: bool) -> Result<(), WaitError> {
    let until = Until {
        deadline: Some(deadline),
        interruptible,
    };
    loop {
        match park(until) {
            Err(WaitError::TimedOut) => return Ok(()),
            other => other?,
        }
    }
}

/// Lets another thread of this CPU run first, if one is ready (`sched_yield`).
pub fn yield_now() {
    arch::yield_now();
}

/// Gives way if the scheduler wants this CPU for somebody else. Long loops in the
/// kernel call it, holding no spin lock.
#[inline]
pub fn cond_resched() {
    if arch::resched_due() {
        arch::give_way();
    }
}

/// Lets others run between two steps of a long transfer; whether the program has a
/// signal to look at, so that the transfer ends with what it has moved.
#[inline]
pub fn pause() -> bool {
    cond_resched();
    current().attention()
}

/// Ends the running thread. What its stack frames own is not dropped: callers
/// drop what they hold first.
pub fn exit() -> ! {
    arch::exit()
}

/// Makes `space` the address space of the running user thread (`execve`).
pub fn set_space(space: Arc<PageTable>) {
    arch::set_space(space);
}

/// FS and GS base of the running user thread.
#[must_use]
pub fn segment_bases() -> (usize, usize) {
    arch::segment_bases()
}

/// Sets FS and GS base of the running user thread; `None` leaves one alone. An
/// address outside user space is refused with `false`.
#[must_use]
pub fn set_segment_bases(fs: Option<usize>, gs: Option<usize>) -> bool {
    if [fs, gs]
        .iter()
        .flatten()
        .any(|b| *b >= crate::addr::USER_END)
    {
        return false;
    }
    arch::set_segment_bases(fs, gs);
    true
}
