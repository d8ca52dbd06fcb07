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

/// Makes `space` this CPU's address space; interrupts are off.
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
    // If this was the last reference, its owner has unmapped all before: little is
    // left to free, and only by locks that are fine here.
    if let Some(old) = slot.replace(space.clone()) {
        old.active.fetch_and(!bit, SeqCst);
    }
}

pub(crate) fn set_space(space: Arc<PageTable>) {
    // SAFETY: the running thread.
    let me = unsafe { &*percpu::current_thread() };
    let Some(u) = &me.arch.user else { return };
    let old = u.space.lock().replace(space.clone());
    u.space_at.store(Arc::as_ptr(&space).cast_mut(), Relaxed);
    interrupts::without_interrupts(|| enter_space(&space));
    drop(old);
}

/// What the running thread's program has mapped at `va`.
pub(crate) fn user_mapping(va: usize) -> Option<Mapping> {
    // SAFETY: the running thread.
    let me = unsafe { &*percpu::current_thread() };
    let space = me.arch.user.as_ref()?.space.lock().clone()?;
    space.query(va)
}
