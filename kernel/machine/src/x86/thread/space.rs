//! The address space that a CPU is in.

use crate::paging::Mapping;
use crate::x86::paging::PageTable;
use crate::x86::{kmap, percpu};
use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use x86_64::PhysAddr;
use x86_64::instructions::interrupts;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

/// Points CR3 at the kernel's own tables and lets the space go.
pub(super) fn leave_space() {
    let old = interrupts::without_interrupts(|| {
        // SAFETY: this CPU's own cell, interrupts off.
        let old = unsafe { (*percpu::here().space.get()).take() };
        load_root(kmap::root());
        if let Some(old) = &old {
            old.active.fetch_and(!(1 << percpu::cpu_current()), SeqCst);
        }
        old
    });
    drop(old);
}

fn load_root(root: usize) {
    let frame = PhysFrame::containing_address(PhysAddr::new(root as u64));
    // SAFETY: every top table has the kernel's half.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

/// Whether this CPU is in the space that lies at `at`; interrupts are off. It keeps the one it is
/// in, so no other one can lie there.
pub(super) fn is_in(at: *const PageTable) -> bool {
    // SAFETY: this CPU's own cell, interrupts off.
    let space = unsafe { &*percpu::here().space.get() };
    space.as_ref().is_some_and(|s| ptr::eq(Arc::as_ptr(s), at))
}

/// Makes `space` this CPU's address space; interrupts are off. The one that it leaves stays
/// until [`let_go`].
pub(super) fn enter_space(space: &Arc<PageTable>) {
    let here = percpu::here();
    // SAFETY: this CPU's own cell, interrupts off.
    let slot = unsafe { &mut *here.space.get() };
    if slot.as_ref().is_some_and(|s| Arc::ptr_eq(s, space)) {
        return;
    }
    let bit = 1u64 << percpu::cpu_current();
    space.active.fetch_or(bit, SeqCst);
    load_root(space.root());
    let old = slot.replace(space.clone());
    if let Some(old) = &old {
        old.active.fetch_and(!bit, SeqCst);
    }
    // SAFETY: as above.
    unsafe { *here.space_left.get() = old };
}

/// Drops the address space that the last switch left. In the middle of the switch it could be
/// the last reference, whose end takes the heap's locks: who holds one of these may wait, in an
/// interrupt handler, for the switch to be over. Interrupts are on.
#[inline]
pub(in crate::x86) fn let_go() {
    // SAFETY: this CPU's own cell; kernel code is not preempted, interrupt handlers do not
    // come here.
    drop(unsafe { (*percpu::here().space_left.get()).take() });
}

pub(crate) fn set_space(space: Arc<PageTable>) {
    // SAFETY: the running thread.
    let me = unsafe { &*percpu::current_thread() };
    let Some(u) = &me.arch.user else { return };
    let old = u.space.lock().replace(space.clone());
    u.space_at.store(Arc::as_ptr(&space).cast_mut(), Relaxed);
    interrupts::without_interrupts(|| enter_space(&space));
    let_go();
    drop(old);
}

/// What the running thread's program has mapped at `va`.
pub(crate) fn user_mapping(va: usize) -> Option<Mapping> {
    // SAFETY: the running thread.
    let me = unsafe { &*percpu::current_thread() };
    let space = me.arch.user.as_ref()?.space.lock().clone()?;
    space.query(va)
}
