//! The local APIC: end of interrupt, interrupts to other CPUs, the timer of each
//! CPU. Registers as in the Intel SDM, vol. 3A, chapter 11.
//!
//! It is used in x2APIC mode (registers are MSRs) where the CPU has it, else
//! through its page of memory.

use super::kmap;
use super::vectors::{APIC_ERROR, SPURIOUS, TIMER};
use crate::cpu::CPUS_MAX;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering::Relaxed};
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::Msr;

const MSR_APIC_BASE: u32 = 0x1b;
const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLE: u64 = 1 << 11;
/// x2APIC register = this + offset in the page / 16.
const MSR_X2APIC: u32 = 0x800;
const MSR_TSC_DEADLINE: u32 = 0x6e0;

const ID: u32 = 0x20;
/// Bits 16 to 23: the number of the last local vector.
const VERSION: u32 = 0x30;
const TASK_PRIORITY: u32 = 0x80;
const EOI: u32 = 0xb0;
const SPURIOUS_VECTOR: u32 = 0xf0;
const ERROR_STATUS: u32 = 0x280;
const ICR_LOW: u32 = 0x300;
const ICR_HIGH: u32 = 0x310;
const LVT_TIMER: u32 = 0x320;
const LVT_THERMAL: u32 = 0x330;
const LVT_PERFORMANCE: u32 = 0x340;
const LVT_LINT0: u32 = 0x350;
const LVT_LINT1: u32 = 0x360;
const LVT_ERROR: u32 = 0x370;
const TIMER_INITIAL: u32 = 0x380;
const TIMER_CURRENT: u32 = 0x390;
const TIMER_DIVIDE: u32 = 0x3e0;

const SOFTWARE_ENABLE: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const DELIVER_NMI: u32 = 0b100 << 8;
const DELIVER_INIT: u32 = 0b101 << 8;
const DELIVER_STARTUP: u32 = 0b110 << 8;
const LEVEL_ASSERT: u32 = 1 << 14;
const DELIVERY_PENDING: u32 = 1 << 12;
const TIMER_DEADLINE: u32 = 0b10 << 17;
/// Divide by 16: the count of 32 bits then lasts for a minute and more.
const DIVIDE_16: u32 = 0b0011;

static X2APIC: AtomicBool = AtomicBool::new(false);
/// The register page in xAPIC mode.
static PAGE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
/// Local APIC ID of each CPU that runs.
static IDS: [AtomicU32; CPUS_MAX] = [const { AtomicU32::new(u32::MAX) }; CPUS_MAX];

fn read(register: u32) -> u32 {
    if X2APIC.load(Relaxed) {
        // SAFETY: an x2APIC register; the mode is on.
        return unsafe { Msr::new(MSR_X2APIC + (register >> 4)).read() } as u32;
    }
    let page = PAGE.load(Relaxed);
    if page.is_null() {
        return 0;
    }
    // SAFETY: the page is mapped for ever and the register lies in it.
    unsafe { page.add(register as usize).cast::<u32>().read_volatile() }
}

fn write(register: u32, value: u32) {
    if X2APIC.load(Relaxed) {
        // SAFETY: an x2APIC register that may be written; the mode is on. What it
        // sets off are interrupts, which are handled.
        return unsafe { Msr::new(MSR_X2APIC + (register >> 4)).write(u64::from(value)) };
    }
    let page = PAGE.load(Relaxed);
    if !page.is_null() {
        // SAFETY: as in `read`.
        unsafe {
            page.add(register as usize)
                .cast::<u32>()
                .write_volatile(value)
        };
    }
}

fn cpu_has_x2apic() -> bool {
    core::arch::x86_64::__cpuid(1).ecx & 1 << 21 != 0
}

/// Turns this CPU's local APIC on, where it is and in the best mode there is.
fn turn_on() {
    let mut base = Msr::new(MSR_APIC_BASE);
    // SAFETY: every x86-64 CPU has this register.
    let value = unsafe { base.read() } | BASE_ENABLE;
    if !cpu_has_x2apic() && PAGE.load(Relaxed).is_null() {
        let phys = (value & 0x000f_ffff_ffff_f000) as usize;
        let page = kmap::map_mmio(phys, 4096);
        PAGE.store(page.map_or(core::ptr::null_mut(), |p| p.as_ptr()), Relaxed);
    }
    // SAFETY: turns the APIC on where it is; interrupts are still masked in it.
    unsafe { base.write(value) };
    if cpu_has_x2apic() {
        // By a write of its own: from off there is no way into this mode but through the
        // other one (SDM vol. 3A, 11.12.5).
        // SAFETY: the CPU has the mode, and all that uses the registers asks which it is.
        unsafe { base.write(value | BASE_X2APIC) };
        X2APIC.store(true, Relaxed);
    }
}

/// Turns on this CPU's local APIC as CPU `cpu`: all sources masked but errors and
/// the pin the firmware wires to NMI. On the first CPU it also decides the mode.
pub(crate) fn init_cpu(cpu: usize, nmi_pin: Option<u8>) {
    turn_on();
    let (nmi, other) = match nmi_pin {
        Some(0) => (LVT_LINT0, LVT_LINT1),
        _ => (LVT_LINT1, LVT_LINT0),
    };
    write(TASK_PRIORITY, 0);
    for lvt in [LVT_TIMER, other] {
        write(lvt, MASKED);
    }
    // In x2APIC mode a register that is not there is a fault (11.5.1, 11.12.1.2).
    let last = read(VERSION) >> 16 & 0xff;
    for (lvt, number) in [(LVT_PERFORMANCE, 4), (LVT_THERMAL, 5)] {
        if last >= number {
            write(lvt, MASKED);
        }
    }
    write(nmi, DELIVER_NMI);
    write(ERROR_STATUS, 0);
    write(LVT_ERROR, u32::from(APIC_ERROR));
    write(SPURIOUS_VECTOR, SOFTWARE_ENABLE | u32::from(SPURIOUS));
    // Whatever was in service when the firmware left would block its priority.
    eoi();
    IDS[cpu % CPUS_MAX].store(own_id(), Relaxed);
}

/// This CPU's local APIC ID.
pub(crate) fn own_id() -> u32 {
    let id = read(ID);
    if X2APIC.load(Relaxed) { id } else { id >> 24 }
}

/// Local APIC ID of CPU `cpu`, if it runs.
pub(crate) fn id_of(cpu: usize) -> Option<u32> {
    let id = IDS.get(cpu)?.load(Relaxed);
    (id != u32::MAX).then_some(id)
}

/// Ends the interrupt being served.
#[inline]
pub(crate) fn eoi() {
    write(EOI, 0);
}

/// Logs and clears what the APIC complains about.
pub(crate) fn report_error() {
    write(ERROR_STATUS, 0);
    log::warn!("local APIC error {:#x}", read(ERROR_STATUS));
}

fn command(destination: u32, low: u32) {
    if X2APIC.load(Relaxed) {
        // Writing this MSR does not wait for earlier stores, and the other CPU
        // must see them when the interrupt arrives (SDM vol. 3A, 11.12.3).
        // SAFETY: fences have no effect but order.
        unsafe {
            core::arch::x86_64::_mm_mfence();
            core::arch::x86_64::_mm_lfence();
        }
        let value = u64::from(destination) << 32 | u64::from(low);
        // SAFETY: sends an interrupt that its receiver handles.
        return unsafe { Msr::new(MSR_X2APIC + (ICR_LOW >> 4)).write(value) };
    }
    // Two writes that an interrupt handler's own command must not come between.
    without_interrupts(|| {
        // Bounded: an APIC that never gets a command out must not hang a panic.
        let _ = (0..100_000).any(|_| read(ICR_LOW) & DELIVERY_PENDING == 0);
        write(ICR_HIGH, destination << 24);
        write(ICR_LOW, low);
    });
}

/// Interrupts CPU `cpu` with `vector`.
pub(crate) fn send_ipi(cpu: usize, vector: u8) {
    if let Some(id) = id_of(cpu) {
        command(id, LEVEL_ASSERT | u32::from(vector));
    }
}

/// Sends a non-maskable interrupt to CPU `cpu`: a panic stops the others so.
pub(crate) fn send_nmi(cpu: usize) {
    if let Some(id) = id_of(cpu) {
        command(id, LEVEL_ASSERT | DELIVER_NMI);
    }
}

/// Resets the CPU with this local APIC ID, which then waits for a start-up.
pub(crate) fn send_init(apic_id: u32) {
    command(apic_id, LEVEL_ASSERT | DELIVER_INIT);
}

/// Starts a reset CPU in real mode at the 4 KiB page `page` below 1 MiB.
pub(crate) fn send_startup(apic_id: u32, page: u8) {
    command(apic_id, LEVEL_ASSERT | DELIVER_STARTUP | u32::from(page));
}

/// Sets up this CPU's timer, disarmed, to interrupt with [`TIMER`]: at a value of
/// the time-stamp counter (`deadline`) or after a count.
pub(crate) fn timer_init(deadline: bool) {
    let vector = u32::from(TIMER);
    if deadline {
        write(LVT_TIMER, TIMER_DEADLINE | vector);
        // The mode must be set before the first deadline is (SDM 11.5.4.1).
        // SAFETY: a fence.
        unsafe { core::arch::x86_64::_mm_mfence() };
    } else {
        write(TIMER_DIVIDE, DIVIDE_16);
        write(LVT_TIMER, vector);
        write(TIMER_INITIAL, 0);
    }
}

/// Arms the timer for a value of the time-stamp counter; 0 disarms.
#[inline]
pub(crate) fn timer_deadline(tsc: u64) {
    // SAFETY: only used where CPUID announces the register; a timer interrupt is
    // all it causes.
    unsafe { Msr::new(MSR_TSC_DEADLINE).write(tsc) };
}

/// Arms the timer for `count` ticks; 0 disarms.
#[inline]
pub(crate) fn timer_count(count: u32) {
    write(TIMER_INITIAL, count);
}

/// Ticks left of the timer's count.
pub(crate) fn timer_left() -> u32 {
    read(TIMER_CURRENT)
}
