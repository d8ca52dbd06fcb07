//! The metal.

pub(crate) mod acpi;
pub(crate) mod apic;
pub(crate) mod boot;
pub(crate) mod clock;
mod control;
pub mod crash;
mod debug;
mod describe;
mod entropy;
mod entry;
mod fpu;
mod frequency;
mod gdt;
mod group;
mod heap;
mod huge;
pub(crate) mod ioapic;
pub(crate) mod kmap;
mod later;
mod pages;
mod paging;
pub(crate) mod pci;
mod percpu;
pub(crate) mod port;
pub(crate) mod power;
pub(crate) mod reference;
pub(crate) mod rtc;
mod sched;
mod smp;
mod stacks;
mod tables;
mod thread;
mod tlb;
mod trap;
mod turn;
pub(crate) mod uart;
mod usercopy;
pub(crate) mod vectors;

pub(crate) use acpi::{dmar, tpm2, virtio_places};
pub(crate) use apic::id_of as apic_id;
pub(crate) use boot::{frame_table, is_ram, ranges as memory_ranges, take_framebuffer};
pub(crate) use clock::{monotonic_ns, user_clock};
pub(crate) use control::{cpu_number_by_tscp, fsgsbase};
pub(crate) use debug::{set_breakpoints, unload_breakpoints};
pub(crate) use describe::describe_cpu;
pub(crate) use entropy::entropy;
pub(crate) use group::GroupState;
pub(crate) use ioapic::{
    route_to_first as irq_route, set_masked as irq_set_masked, wire_of as irq_wire,
};
pub(crate) use kmap::map_mmio;
pub(crate) use pages::{copy_page, write_back, zero_page};
pub use paging::PageTable;
pub(crate) use pci::{pci_read, pci_read_part, pci_write, pci_write_part};
pub(crate) use percpu::{cpu_count, cpu_current, current_thread, resched_due};
pub(crate) use port::{
    port_read_u8, port_read_u16, port_read_u32, port_write_u8, port_write_u16, port_write_u32,
};
pub(crate) use sched::{begin_samples, expel};
pub use thread::UserRegs;
pub(crate) use thread::{
    ThreadState, exit, fpu_accepts, fpu_features, fpu_load, fpu_pop, fpu_push, fpu_reset, fpu_save,
    fpu_size, give_way, is_parked, kick, last_cpu, make_user, park, run_ns, segment_bases,
    set_segment_bases, set_space, spawn_kernel, start, unpark, user_mapping, yield_now,
};
pub(crate) use tlb::barrier;
pub(crate) use trap::set_syscall;
pub(crate) use uart::{receives as console_receives, write as console_write};
pub(crate) use usercopy::{
    copy_from_user, copy_to_user, str_from_user, user_cmpxchg_u32, user_load_u32,
};

use x86_64::instructions::interrupts;

/// Physical memory in the direct map.
#[inline]
pub(crate) fn phys_ptr(phys: usize) -> *mut u8 {
    kmap::direct(phys)
}

/// The allocator was filled at boot.
#[inline]
pub(crate) fn ensure_memory() {}

/// Whether interrupts were on.
#[derive(Clone, Copy)]
pub(crate) struct IrqState(bool);

#[inline]
pub(crate) fn irq_save() -> IrqState {
    let on = interrupts::are_enabled();
    interrupts::disable();
    IrqState(on)
}

#[inline]
pub(crate) fn irq_restore(state: IrqState) {
    if state.0 {
        interrupts::enable();
    }
}
