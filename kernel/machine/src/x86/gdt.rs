//! Segments and task state: flat segments in the order `sysret` wants, one TSS
//! for each CPU with the stacks that traps switch to.

use crate::frame::Block;
use crate::sync::Once;
use alloc::boxed::Box;
use x86_64::PrivilegeLevel::{Ring0, Ring3};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

pub(super) const KERNEL_CODE: SegmentSelector = SegmentSelector::new(1, Ring0);
pub(super) const KERNEL_DATA: SegmentSelector = SegmentSelector::new(2, Ring0);
pub(super) const USER_DATA: SegmentSelector = SegmentSelector::new(3, Ring3);
pub(super) const USER_CODE: SegmentSelector = SegmentSelector::new(4, Ring3);
const TSS: SegmentSelector = SegmentSelector::new(5, Ring0);

/// IST slots (1 to 7 in the hardware's count; the crate counts from 0).
pub(super) const IST_DOUBLE_FAULT: u16 = 0;
pub(super) const IST_NMI: u16 = 1;
pub(super) const IST_MACHINE_CHECK: u16 = 2;
pub(super) const IST_DEBUG: u16 = 3;

const IST_STACK_ORDER: usize = 2;

struct Tables {
    tss: *mut TaskStateSegment,
}

// SAFETY: each CPU touches its own TSS only.
unsafe impl Sync for Tables {}
// SAFETY: as above.
unsafe impl Send for Tables {}

static TABLES: [Once<Tables>; crate::cpu::CPUS_MAX] = [const { Once::new() }; crate::cpu::CPUS_MAX];

/// Builds and loads this CPU's GDT and TSS. The GS base must be set again after.
#[expect(
    clippy::expect_used,
    reason = "before there are programs; no CPU can run without"
)]
pub(super) fn init() {
    let mut tss = Box::new(TaskStateSegment::new());
    for slot in [IST_DOUBLE_FAULT, IST_NMI, IST_MACHINE_CHECK, IST_DEBUG] {
        let stack = Block::zeroed(IST_STACK_ORDER).expect("boot: no memory for trap stacks");
        let top = stack.ptr() as u64 + stack.len() as u64;
        stack.leak();
        tss.interrupt_stack_table[usize::from(slot)] = VirtAddr::new(top);
    }
    let tss: &'static mut TaskStateSegment = Box::leak(tss);
    let raw: *mut TaskStateSegment = tss;
    let mut gdt = Box::new(GlobalDescriptorTable::new());
    gdt.append(Descriptor::kernel_code_segment());
    gdt.append(Descriptor::kernel_data_segment());
    gdt.append(Descriptor::user_data_segment());
    gdt.append(Descriptor::user_code_segment());
    // SAFETY: the TSS is leaked, so it lives for ever.
    gdt.append(unsafe { Descriptor::tss_segment_unchecked(raw) });
    let gdt: &'static GlobalDescriptorTable = Box::leak(gdt);
    gdt.load();
    // SAFETY: the selectors name the entries just made.
    unsafe {
        CS::set_reg(KERNEL_CODE);
        SS::set_reg(KERNEL_DATA);
        DS::set_reg(USER_DATA);
        ES::set_reg(USER_DATA);
        FS::set_reg(SegmentSelector::NULL);
        load_tss(TSS);
    }
    TABLES[super::percpu::cpu_current()].call_once(|| Tables { tss: raw });
}

/// Where traps from user mode put their frame on this CPU.
pub(super) fn set_trap_stack(top: usize) {
    if let Some(t) = TABLES[super::percpu::cpu_current()].get() {
        // SAFETY: this CPU's own TSS; the hardware reads it only when a trap comes.
        unsafe { (*t.tss).privilege_stack_table[0] = VirtAddr::new(top as u64) };
    }
}
