//! Starting the other CPUs.
//!
//! All are sent the start-up sequence at once (Intel SDM vol. 3A, 9.4.4). Each
//! comes up in real mode in a page below 1 MiB, goes to long mode on a table of
//! its own that also maps that page, draws the next number, and takes the stack of
//! that number. Numbers follow the order of arrival, so a CPU that never comes
//! leaves no gap. When time is up the numbers run out: whoever comes later halts.

use super::{acpi, apic, boot, clock, kmap, percpu, phys_ptr};
use crate::addr::PAGE_SIZE;
use crate::cpu::CPUS_MAX;
use crate::time::Instant;
use alloc::vec::Vec;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use core::time::Duration;

/// The page the CPUs start in, and the three that hold their first page tables.
/// Memory below 1 MiB is never handed out (see `boot`).
const START: usize = 0x8000;
const TABLES: [usize; 3] = [0x9000, 0xa000, 0xb000];

global_asm!(
    r#"
.section .rodata.ap_start, "a"
.global ap_start, ap_root, ap_entry, ap_stacks, ap_ticket, ap_limit, ap_end
ap_start:
.code16
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl {start} + ap_gdt_pointer - ap_start
    movl %cr4, %eax
    orl $0x20, %eax                 // PAE
    movl %eax, %cr4
    movl {start} + ap_root - ap_start, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx          // EFER: LME, NXE
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9fffffff, %eax          // caches on
    orl $0x80000001, %eax           // PG, PE
    movl %eax, %cr0
    ljmpl $0x08, $({start} + ap_long - ap_start)
.code64
ap_long:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $1, %edi
    lock xaddl %edi, ap_ticket(%rip)
    cmpl ap_limit(%rip), %edi
    jae 1f
    movq ap_stacks(%rip), %rax
    movq (%rax,%rdi,8), %rsi
    movq %rsi, %rsp
    xorl %ebp, %ebp
    call *ap_entry(%rip)
1:  cli
    hlt
    jmp 1b
.balign 8
ap_gdt:
    .quad 0
    .quad 0x00af9b000000ffff        // code, 64 bits
    .quad 0x00cf93000000ffff        // data
ap_gdt_pointer:
    .word ap_gdt_pointer - ap_gdt - 1
    .long {start} + ap_gdt - ap_start
.balign 8
ap_root:    .quad 0
ap_entry:   .quad 0
ap_stacks:  .quad 0
ap_ticket:  .long 0
ap_limit:   .long 0
ap_end:
.text
"#,
    start = const START,
    options(att_syntax)
);

unsafe extern "C" {
    static ap_start: u8;
    static ap_root: u8;
    static ap_entry: u8;
    static ap_stacks: u8;
    static ap_ticket: u8;
    static ap_limit: u8;
    static ap_end: u8;
}

/// CPUs that have finished setting themselves up.
static READY: AtomicUsize = AtomicUsize::new(0);
/// The boot CPU's TSC, published again and again while others start, and the
/// highest they have seen.
static BOOT_TSC: AtomicU64 = AtomicU64::new(0);
static OTHERS_TSC: AtomicU64 = AtomicU64::new(0);
static TSC_WENT_BACK: AtomicBool = AtomicBool::new(false);

/// Where `label` of the start-up code lies in the page it runs in.
fn placed<T>(label: *const u8) -> *mut T {
    let offset = label as usize - (&raw const ap_start) as usize;
    phys_ptr(START + offset).cast()
}

/// Copies the start-up code down and fills in its variables.
fn prepare(stacks: &[usize]) {
    let len = (&raw const ap_end) as usize - (&raw const ap_start) as usize;
    let [root, second, third] = TABLES;
    let word = |table: usize, index: usize| phys_ptr(table + 8 * index).cast::<u64>();
    const PRESENT_WRITABLE: u64 = 0b11;
    const HUGE: u64 = 1 << 7;
    // SAFETY: pages below 1 MiB belong to nobody else; the labels lie inside what
    // is copied, and no CPU runs it yet.
    unsafe {
        phys_ptr(START).copy_from_nonoverlapping(&raw const ap_start, len);
        for table in TABLES {
            phys_ptr(table).write_bytes(0, PAGE_SIZE);
        }
        // The first 2 MiB where they are, besides the kernel's half.
        word(root, 0).write(second as u64 | PRESENT_WRITABLE);
        word(second, 0).write(third as u64 | PRESENT_WRITABLE);
        word(third, 0).write(PRESENT_WRITABLE | HUGE);
        kmap::copy_kernel_half(root);
        placed::<u64>(&raw const ap_root).write(root as u64);
        placed::<u64>(&raw const ap_entry).write(ap_main as *const () as u64);
        placed::<u64>(&raw const ap_stacks).write(stacks.as_ptr() as u64);
        placed::<u32>(&raw const ap_limit).write(stacks.len() as u32);
    }
}

fn ticket() -> &'static AtomicU32 {
    // SAFETY: an aligned word that CPUs change by locked instructions only.
    unsafe { AtomicU32::from_ptr(placed(&raw const ap_ticket)) }
}

/// Spins until `done` or for `limit`; whether it was done. Publishes the TSC.
fn spin_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now().after(limit);
    while !done() {
        if Instant::now() >= end {
            return false;
        }
        compare_tsc_on_boot_cpu();
        core::hint::spin_loop();
    }
    true
}

fn compare_tsc_on_boot_cpu() {
    let others = OTHERS_TSC.load(Ordering::Acquire);
    let now = clock::tsc();
    if now < others {
        TSC_WENT_BACK.store(true, Ordering::Relaxed);
    }
    BOOT_TSC.store(now, Ordering::Release);
}

fn compare_tsc_on_other_cpu() {
    for _ in 0..1_000 {
        let boot = BOOT_TSC.load(Ordering::Acquire);
        let now = clock::tsc();
        if now < boot {
            TSC_WENT_BACK.store(true, Ordering::Relaxed);
        }
        OTHERS_TSC.fetch_max(now, Ordering::AcqRel);
    }
}

/// How long a CPU needs between the reset and the start: none do today, but the
/// manual says 10 ms, and a virtual machine's certainly need nothing.
fn pause_after_init() -> Duration {
    let hypervisor = core::arch::x86_64::__cpuid(1).ecx & 1 << 31 != 0;
    if hypervisor {
        Duration::from_micros(20)
    } else {
        Duration::from_millis(10)
    }
}

/// Starts all CPUs the firmware names. Called once, by the boot CPU, when its own
/// clock and scheduler are set up; returns when they run or a second has passed.
pub(super) fn start() {
    let own = apic::own_id();
    let named = &acpi::tables().apic_ids;
    let ids: Vec<u32> = named.iter().copied().filter(|id| *id != own).collect();
    let stacks: Vec<usize> = ids
        .iter()
        .take(CPUS_MAX - 1)
        .enumerate()
        .map_while(|(i, _)| boot::prepare_cpu(i + 1))
        .collect();
    if stacks.is_empty() {
        return;
    }
    let ids = &ids[..stacks.len()];
    // The stacks' list is read by CPUs as they come.
    let stacks: &'static [usize] = Vec::leak(stacks);
    prepare(stacks);
    let arrived = || ticket().load(Ordering::Acquire) as usize;
    let nobody = || false;
    ids.iter().for_each(|id| apic::send_init(*id));
    spin_until(pause_after_init(), nobody);
    for wait in [Duration::from_millis(1), Duration::from_secs(1)] {
        // A CPU that runs already does not notice the second one.
        for id in ids {
            apic::send_startup(*id, (START / PAGE_SIZE) as u8);
        }
        if spin_until(wait, || arrived() >= ids.len()) {
            break;
        }
    }
    // Above every limit from here on.
    let came = ticket().swap(1 << 30, Ordering::AcqRel) as usize;
    let running = || READY.load(Ordering::Acquire) + 1;
    spin_until(Duration::from_secs(1), || running() > came);
    if TSC_WENT_BACK.load(Ordering::Relaxed) {
        clock::distrust_tsc("the TSCs of the CPUs disagree");
    }
    let running = running();
    if running <= ids.len() {
        log::warn!(
            "{} CPUs do not answer and are left out",
            ids.len() + 1 - running
        );
    }
    log::info!("{running} CPUs");
}

/// A further CPU's first Rust code, on its own stack: number `ticket` of those
/// that came.
extern "C" fn ap_main(ticket: u32, stack_top: usize) -> ! {
    // SAFETY: the kernel's own tables map all that this CPU uses from here on.
    unsafe {
        core::arch::asm!("mov cr3, {}", in(reg) kmap::root(), options(nostack, preserves_flags));
    }
    boot::on_another_cpu(ticket as usize + 1, stack_top)
}

/// CPU `index` is set up: compares its TSC with the boot CPU's and waits for its
/// turn, as CPUs are counted in the order of their numbers.
pub(super) fn wait_for_turn(index: usize) {
    compare_tsc_on_other_cpu();
    while percpu::cpu_count() != index {
        core::hint::spin_loop();
    }
}

/// This CPU runs threads from here on.
pub(super) fn ready() {
    READY.fetch_add(1, Ordering::AcqRel);
}
