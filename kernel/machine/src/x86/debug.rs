//! The debug registers of this CPU. They hold the break points of the running thread if it
//! has some, and are off otherwise.

use crate::breakpoints::Breakpoints;
use crate::thread;
use alloc::boxed::Box;
use core::arch::asm;
use x86_64::instructions::interrupts;
use x86_64::registers::debug::{DebugAddressRegister, Dr0, Dr1, Dr2, Dr3, Dr6, Dr7};

/// DR7 with nothing in force: its bit 10 is always set.
const OFF: u64 = 0x400;
/// DR6 as it is when nothing happened.
pub(super) const NOTHING: u32 = 0xffff_0ff0;

/// Turns off what firmware may have left.
pub(super) fn init() {
    Dr7::write_raw(OFF);
    clear();
}

/// See [`crate::breakpoints::set_breakpoints`].
pub(crate) fn set_breakpoints(points: Breakpoints) {
    if let Some(own) = thread::current().arch.breakpoints() {
        own.set((!points.is_empty()).then(|| Box::new(points)));
    }
    reload();
}

/// Puts the break points of the running thread in force.
pub(super) fn reload() {
    interrupts::without_interrupts(|| {
        // First none, lest half of the old ones and of the new ones be.
        unload_breakpoints();
        let me = thread::current();
        if let Some(own) = me.arch.breakpoints()
            && let Some(points) = own.take()
        {
            load(&points);
            own.set(Some(points));
        }
    });
}

/// Puts `points` in force.
fn load(points: &Breakpoints) {
    let [a, b, c, d] = points.addresses();
    Dr0::write(a as u64);
    Dr1::write(b as u64);
    Dr2::write(c as u64);
    Dr3::write(d as u64);
    Dr7::write_raw(u64::from(points.control()) | OFF);
}

/// Puts none in force: the running thread, which has some, leaves the CPU.
pub(crate) fn unload_breakpoints() {
    Dr7::write_raw(OFF);
}

/// What led to a debug exception, cleared for the next one: the bits of DR6 that differ
/// from those of a quiet processor.
pub(super) fn take_status() -> u64 {
    let status = Dr6::read_raw() ^ u64::from(NOTHING);
    clear();
    status
}

fn clear() {
    // SAFETY: the register only tells; the value is the one it has after reset.
    unsafe { asm!("mov dr6, {}", in(reg) u64::from(NOTHING), options(nomem, nostack)) };
}
