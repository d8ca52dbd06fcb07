//! What each CPU keeps for itself, found through the GS base.
//!
//! The first fields are read by the entry code in assembly by their offsets; the
//! constants below are checked against the layout at compile time.

use super::paging::PageTable;
use crate::cpu::CPUS_MAX;
use crate::thread::Thread;
use alloc::sync::Arc;
use core::cell::{Cell, UnsafeCell};
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// Data of one CPU. All but the atomics is touched by that CPU alone.
#[repr(C)]
pub(super) struct PerCpu {
    /// Its own address.
    this: Cell<*const PerCpu>,
    /// The running thread.
    pub(super) thread: Cell<*const Thread>,
    /// Top of the running thread's kernel stack, where `syscall` enters.
    pub(super) stack_top: Cell<usize>,
    /// Where `syscall` entry parks the user's stack pointer.
    user_rsp: Cell<usize>,
    /// The scheduler wants the running thread to yield.
    pub(super) need_resched: AtomicBool,
    /// In an interrupt handler (debugging: allocation is forbidden there).
    pub(super) in_irq: Cell<bool>,
    pub(super) index: Cell<u32>,
    pub(super) apic_id: Cell<u32>,
    /// The address space that CR3 points to, kept alive.
    pub(super) space: UnsafeCell<Option<Arc<PageTable>>>,
    /// The one it pointed to before the last switch of threads, to be let go after that.
    pub(super) space_left: UnsafeCell<Option<Arc<PageTable>>>,
    /// The thread this CPU switched away from, until its state is saved.
    pub(super) switched_from: Cell<*const Thread>,
    pub(super) idle: Cell<*const Thread>,
    /// When the running thread was given the CPU, in cycles.
    pub(super) since: Cell<u64>,
    /// When its turn ends if somebody waits, in nanoseconds since boot.
    pub(super) slice_end: Cell<u64>,
}

pub(super) const OFF_THREAD: usize = 8;
pub(super) const OFF_STACK_TOP: usize = 16;
pub(super) const OFF_USER_RSP: usize = 24;
pub(super) const OFF_NEED_RESCHED: usize = 32;

const _: () = {
    assert!(offset_of!(PerCpu, this) == 0);
    assert!(offset_of!(PerCpu, thread) == OFF_THREAD);
    assert!(offset_of!(PerCpu, stack_top) == OFF_STACK_TOP);
    assert!(offset_of!(PerCpu, user_rsp) == OFF_USER_RSP);
    assert!(offset_of!(PerCpu, need_resched) == OFF_NEED_RESCHED);
    assert!(offset_of!(PerCpu, index) == 36);
};

// SAFETY: a `PerCpu` is shared only as a place to find the atomics of another
// CPU; the cells are touched by the CPU they belong to.
unsafe impl Sync for PerCpu {}

static ALL: [AtomicPtr<PerCpu>; CPUS_MAX] = [const { AtomicPtr::new(ptr::null_mut()) }; CPUS_MAX];
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// CPUs that have called [`install`].
pub(crate) fn cpu_count() -> usize {
    COUNT.load(Ordering::Relaxed).max(1)
}

/// This CPU's number.
#[inline]
pub(crate) fn cpu_current() -> usize {
    let n: u32;
    // SAFETY: GS points to this CPU's data from `install` on, and before that to
    // address 0 of nothing: nobody asks before.
    unsafe {
        core::arch::asm!("mov {0:e}, gs:[36]", out(reg) n, options(nostack, preserves_flags, readonly));
    }
    n as usize
}

/// The running thread.
#[inline]
pub(crate) fn current_thread() -> *const Thread {
    let t: *const Thread;
    // SAFETY: as above. The thread of this code never changes under it, so the
    // compiler may keep the value.
    unsafe {
        core::arch::asm!("mov {}, gs:[8]", out(reg) t, options(nostack, preserves_flags, pure, nomem));
    }
    t
}

/// Whether the running thread should yield.
#[inline]
pub(crate) fn resched_due() -> bool {
    let due: u8;
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("mov {}, gs:[32]", out(reg_byte) due, options(nostack, preserves_flags, readonly));
    }
    due != 0
}

/// This CPU's data.
#[inline]
pub(super) fn here() -> &'static PerCpu {
    let p: *const PerCpu;
    // SAFETY: as above; the data lives for ever.
    unsafe {
        core::arch::asm!("mov {}, gs:[0]", out(reg) p, options(nostack, preserves_flags, readonly));
        &*p
    }
}

/// The data of CPU `index`, if it is up.
pub(super) fn of(index: usize) -> Option<&'static PerCpu> {
    let p = ALL.get(index)?.load(Ordering::Acquire);
    // SAFETY: stored by `install`, never freed.
    unsafe { p.as_ref() }
}

static BOOT: PerCpu = blank();

const fn blank() -> PerCpu {
    PerCpu {
        this: Cell::new(ptr::null()),
        thread: Cell::new(ptr::null()),
        stack_top: Cell::new(0),
        user_rsp: Cell::new(0),
        need_resched: AtomicBool::new(false),
        in_irq: Cell::new(false),
        index: Cell::new(0),
        apic_id: Cell::new(0),
        space: UnsafeCell::new(None),
        space_left: UnsafeCell::new(None),
        switched_from: Cell::new(ptr::null()),
        idle: Cell::new(ptr::null()),
        since: Cell::new(0),
        slice_end: Cell::new(u64::MAX),
    }
}

/// Points GS at the boot CPU's data, before there is a heap.
pub(super) fn install_boot() {
    place(&BOOT, 0);
    adopt(0);
}

/// Makes the data of a further CPU, on the CPU that starts it.
pub(super) fn prepare(index: usize) {
    place(
        alloc::boxed::Box::leak(alloc::boxed::Box::new(blank())),
        index,
    );
}

fn place(data: &'static PerCpu, index: usize) {
    data.this.set(data);
    data.index.set(index as u32);
    ALL[index].store(ptr::from_ref(data).cast_mut(), Ordering::Release);
}

/// Points GS at the data of CPU `index`, which is this one.
pub(super) fn adopt(index: usize) {
    let data = ALL[index].load(Ordering::Acquire);
    // SAFETY: placed before, lives for ever, and this CPU alone uses it.
    unsafe { super::control::set_gs_base(data as u64) };
    super::control::set_cpu_number(index as u32);
}

/// The CPU is ready to run threads: it counts from now on.
pub(super) fn join() {
    COUNT.fetch_add(1, Ordering::AcqRel);
}
