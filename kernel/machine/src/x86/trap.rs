//! The ways into the kernel and back: `syscall`, exceptions, interrupts.
//!
//! All push the same [`UserRegs`]. `syscall` and traps from user mode land at the
//! top of the thread's kernel stack; before user mode goes on, [`leave`] yields
//! and delivers what is due. Faults in kernel mode are either a user copy's, which
//! has a way out (see `usercopy`), or the end.

use super::thread::UserRegs;
use super::{apic, control, debug, gdt, group, kmap, percpu, sched, tlb, usercopy, vectors};
use crate::addr::USER_END;
use crate::paging::Access;
use crate::sample::Place;
use crate::thread::{self, DUE_AT, Exception, PageFault, Syscall};
use core::arch::global_asm;
use core::mem;
use core::sync::atomic::{AtomicPtr, Ordering::Relaxed};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::interrupts;
use x86_64::registers::control::Cr2;
use x86_64::structures::idt::InterruptDescriptorTable;

global_asm!(
    r#"
.macro PUSH_REGS
    push rsi
    push rdx
    push rcx
    push rax
    push r8
    push r9
    push r10
    push r11
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
.endm
.macro POP_REGS
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    pop r11
    pop r10
    pop r9
    pop r8
    pop rax
    pop rcx
    pop rdx
    pop rsi
    pop rdi
.endm

.global syscall_entry, return_to_user, trap_stubs
syscall_entry:
    swapgs
    mov gs:[{user_rsp}], rsp
    mov rsp, gs:[{stack_top}]
    push {user_ss}
    push qword ptr gs:[{user_rsp}]
    push r11
    push {user_cs}
    push rcx
    push rax
    push rdi
    PUSH_REGS
    mov rdi, rsp
    xor ebp, ebp
    sub rsp, 8
    sti
    call qword ptr [rip + {syscall}]
    // As `leave` does it, in fewer instructions.
    cli
    cmp byte ptr gs:[{need_resched}], 0
    jne 3f
    mov rdx, gs:[{thread}]
    cmp byte ptr [rdx + {due}], 0
    jne 3f
2:  add rsp, 8
    // `sysret` wants rip in rcx and the flags in r11, faults in the kernel at a rip
    // that is not canonical, and cannot set the trap and resume flags. Where a signal, execve or a
    // tracer asks for anything of that kind, `iretq` does it. (`sysret` takes any rsp.)
    mov rcx, [rsp + 88]
    cmp rcx, [rsp + 128]
    jne 1f
    mov rdx, rcx
    shr rdx, 47
    jnz 1f
    mov r11, [rsp + 48]
    cmp r11, [rsp + 144]
    jne 1f
    mov edx, r11d
    and edx, {flags_checked}
    cmp edx, {flags_fixed}
    jne 1f
    POP_REGS
    mov rsp, [rsp + 32]
    swapgs
    sysretq
1:  mov rdi, rsp
    sub rsp, 8
    call sanitize_rust
    add rsp, 8
    jmp return_to_user
3:  lea rdi, [rsp + 8]
    call attend_rust
    jmp 2b
return_to_user:
    POP_REGS
    add rsp, 8
    swapgs
    iretq

// Interrupts and exceptions: [error code or 0][vector] are on the stack.
trap_common:
    xchg [rsp], rdi
    PUSH_REGS
    cld
    mov rsi, rsp
    test byte ptr [rsp + 136], 3
    jz 1f
    swapgs
    xor ebp, ebp
    sub rsp, 8
    call trap_rust
    add rsp, 8
    jmp return_to_user
1:  mov rbx, rsp
    and rsp, -16
    call trap_rust
    mov rsp, rbx
    POP_REGS
    add rsp, 8
    iretq

// A debug exception comes where a break point is met, and after `mov ss` one instruction
// later: that may be the first one of the kernel, before `swapgs`. So it has a stack of its
// own. In kernel mode nothing is done about it: either it is such a one, or the kernel has
// touched data that a program watches, which no tracer is told of (on Linux neither). The
// kernel's GS, which a program could imitate, is not needed for that.
trap_debug:
    test byte ptr [rsp + 24], 3
    jnz 1f
    push rax
    mov eax, {dr6_nothing}
    mov dr6, rax
    pop rax
    and qword ptr [rsp + 32], {no_trap}
    add rsp, 16
    iretq
    // From user mode: to where other traps land, for this thread may sleep.
1:  xchg [rsp], rdi
    PUSH_REGS
    cld
    swapgs
    mov r12, rdi
    mov rsi, rsp
    mov rdi, gs:[{stack_top}]
    sub rdi, {frame}
    mov rbx, rdi
    mov ecx, {frame} / 8
    rep movsq
    mov rsp, rbx
    mov rdi, r12
    mov rsi, rsp
    xor ebp, ebp
    sub rsp, 8
    call trap_rust
    add rsp, 8
    jmp return_to_user

// NMI, double fault and machine check may come anywhere, between `swapgs` and
// `sysret` too: in kernel mode the register itself says what GS is. They do not
// return.
trap_fatal:
    xchg [rsp], rdi
    PUSH_REGS
    cld
    mov rsi, rsp
    test byte ptr [rsp + 136], 3
    jnz 1f
    mov ecx, 0xc0000101
    rdmsr
    test edx, edx
    js 2f
1:  swapgs
2:  xor ebp, ebp
    and rsp, -16
    call fatal_rust
    ud2

.altmacro
.macro STUB vector
    .balign 16
    .if (\vector == 8) || ((\vector >= 10) && (\vector <= 14)) || (\vector == 17) || (\vector == 21) || (\vector == 29) || (\vector == 30)
    .else
    push 0
    .endif
    push \vector
    .if (\vector == 2) || (\vector == 8) || (\vector == 18)
    jmp trap_fatal
    .elseif (\vector == 1)
    jmp trap_debug
    .else
    jmp trap_common
    .endif
.endm
.balign 16
trap_stubs:
.set v, 0
.rept 256
    STUB %v
    .set v, v + 1
.endr
"#,
    syscall = sym SYSCALL,
    due = const DUE_AT,
    need_resched = const percpu::OFF_NEED_RESCHED,
    thread = const percpu::OFF_THREAD,
    user_rsp = const percpu::OFF_USER_RSP,
    stack_top = const percpu::OFF_STACK_TOP,
    user_cs = const gdt::USER_CODE.0,
    user_ss = const gdt::USER_DATA.0,
    dr6_nothing = const debug::NOTHING,
    no_trap = const !(FLAG_TRAP as i32),
    frame = const size_of::<UserRegs>(),
    flags_checked = const !(FLAGS_USER & !FLAG_TRAP & !FLAG_RESUME) as u32,
    flags_fixed = const FLAGS_FIXED,
);

unsafe extern "C" {
    fn syscall_entry();
    static trap_stubs: u8;
}

const STUB_SIZE: usize = 16;
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads this CPU's interrupt table and `syscall` entry.
pub(super) fn init() {
    IDT.call_once(build).load();
    control::set_syscall_entry(syscall_entry as *const () as usize);
}

fn build() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    let stub = |v: usize| VirtAddr::new((&raw const trap_stubs as usize + v * STUB_SIZE) as u64);
    // SAFETY: each stub is entry code for its vector, and the IST slots exist.
    unsafe {
        idt.divide_error.set_handler_addr(stub(0));
        idt.debug
            .set_handler_addr(stub(1))
            .set_stack_index(gdt::IST_DEBUG);
        idt.non_maskable_interrupt
            .set_handler_addr(stub(2))
            .set_stack_index(gdt::IST_NMI);
        idt.breakpoint
            .set_handler_addr(stub(3))
            .set_privilege_level(x86_64::PrivilegeLevel::Ring3);
        idt.overflow.set_handler_addr(stub(4));
        idt.bound_range_exceeded.set_handler_addr(stub(5));
        idt.invalid_opcode.set_handler_addr(stub(6));
        idt.device_not_available.set_handler_addr(stub(7));
        idt.double_fault
            .set_handler_addr(stub(8))
            .set_stack_index(gdt::IST_DOUBLE_FAULT);
        idt.invalid_tss.set_handler_addr(stub(10));
        idt.segment_not_present.set_handler_addr(stub(11));
        idt.stack_segment_fault.set_handler_addr(stub(12));
        idt.general_protection_fault.set_handler_addr(stub(13));
        idt.page_fault.set_handler_addr(stub(14));
        idt.x87_floating_point.set_handler_addr(stub(16));
        idt.alignment_check.set_handler_addr(stub(17));
        idt.machine_check
            .set_handler_addr(stub(18))
            .set_stack_index(gdt::IST_MACHINE_CHECK);
        idt.simd_floating_point.set_handler_addr(stub(19));
        idt.virtualization.set_handler_addr(stub(20));
        idt.cp_protection_exception.set_handler_addr(stub(21));
        idt.vmm_communication_exception.set_handler_addr(stub(29));
        idt.security_exception.set_handler_addr(stub(30));
        for v in 32..=255u8 {
            idt[v].set_handler_addr(stub(usize::from(v)));
        }
    }
    idt
}

/// A [`Syscall`], which the entry code calls. This way a call needs fewer instructions
/// than through the hooks.
static SYSCALL: AtomicPtr<()> = AtomicPtr::new(no_syscall as Syscall as *mut ());

/// Before there are hooks no program runs.
extern "C" fn no_syscall(_: &mut UserRegs) {}

/// From now on this is called at a `syscall` instruction.
pub(crate) fn set_syscall(syscall: Syscall) {
    SYSCALL.store(syscall as *mut (), Relaxed);
}

#[unsafe(no_mangle)]
extern "C" fn attend_rust(regs: *mut UserRegs) {
    // SAFETY: the entry code's frame at the top of this thread's own stack.
    attend(unsafe { &mut *regs });
}

/// Does what is due before user mode goes on by `iretq`; returns with interrupts off.
#[inline]
pub(super) fn leave(regs: &mut UserRegs) {
    interrupts::disable();
    if percpu::resched_due() || thread::current().is_due() {
        attend(regs);
    }
    sanitize(regs);
}

/// Gives way to other threads and looks at signals until nothing is due; interrupts
/// are off before and after.
#[cold]
fn attend(regs: &mut UserRegs) {
    loop {
        let me = thread::current();
        let resched = percpu::resched_due();
        if !resched && !me.is_due() {
            return;
        }
        if resched {
            sched::reschedule(sched::Leave::Ready);
        }
        interrupts::enable();
        super::thread::let_go();
        if let Some(until) = group::throttled_until(me.group()) {
            let _ = thread::sleep_until(until, true);
        }
        if me.attention()
            && let Some(h) = thread::hooks()
        {
            h.attention(regs);
        }
        if me.is_due()
            && me.take_switched()
            && let Some(h) = thread::hooks()
        {
            h.switched(regs);
        }
        interrupts::disable();
        if me.is_due() {
            me.settle_weight();
            if me.take_unloaded() {
                debug::reload();
            }
        }
    }
}

/// Bits of RFLAGS a program may set (CF PF AF ZF SF TF DF OF NT RF AC ID), and those
/// that are always set in user mode (IF and bit 1).
const FLAGS_USER: u64 = 0x25_4dd5;
const FLAGS_FIXED: u64 = 0x202;
/// The trap flag.
const FLAG_TRAP: u64 = 0x100;
/// The resume flag: the next instruction meets no break point.
const FLAG_RESUME: u64 = 0x1_0000;

#[unsafe(no_mangle)]
extern "C" fn sanitize_rust(regs: *mut UserRegs) {
    // SAFETY: the entry code's frame at the top of this thread's own stack.
    sanitize(unsafe { &mut *regs });
}

/// Makes sure that `iretq` to user mode cannot fault in the kernel.
#[inline]
fn sanitize(regs: &mut UserRegs) {
    regs.cs = u64::from(gdt::USER_CODE.0);
    regs.ss = u64::from(gdt::USER_DATA.0);
    regs.rflags = regs.rflags & FLAGS_USER | FLAGS_FIXED;
    // A non-canonical address would fault in the kernel; the last page of the
    // lower half is never mapped, so this one faults in user mode.
    if regs.rip >= USER_END as u64 {
        regs.rip = USER_END as u64;
    }
    if regs.rsp >= 1 << 47 {
        regs.rsp = USER_END as u64;
    }
}

#[unsafe(no_mangle)]
extern "C" fn trap_rust(vector: u64, regs: *mut UserRegs) {
    // SAFETY: the entry code's frame.
    let regs = unsafe { &mut *regs };
    let error = mem::replace(&mut regs.orig_rax, u64::MAX);
    let from_user = regs.cs & 3 != 0;
    if from_user {
        // A program may set the flag that opens user memory to the kernel.
        usercopy::close();
    }
    if vector >= 32 {
        interrupt(vector as u8, regs.rip, from_user);
    } else if vector == 14 {
        let addr = Cr2::read_raw() as usize;
        page_fault(regs, error, addr, from_user);
    } else if from_user {
        // The debug registers are those of this thread as long as it is not switched out.
        let what = name(vector, error);
        interrupts::enable();
        exception(regs, what);
    } else if let Some(way_out) = usercopy::refusal(vector, regs.rip) {
        usercopy::close();
        regs.rip = way_out;
    } else {
        panic_regs(vector, error, regs);
    }
    if from_user {
        leave(regs);
    }
}

fn interrupt(vector: u8, rip: u64, from_user: bool) {
    let here = percpu::here();
    here.in_irq.set(true);
    match vector {
        vectors::TIMER => {
            apic::eoi();
            sched::clock_event(match from_user {
                true => Place::User,
                false => Place::Kernel(rip.wrapping_sub(kmap::IMAGE as u64) as u32),
            });
        }
        vectors::RESCHEDULE => {
            apic::eoi();
            sched::asked();
        }
        vectors::TLB_FLUSH => {
            tlb::answer();
            apic::eoi();
        }
        _ => vectors::dispatch(vector),
    }
    here.in_irq.set(false);
}

fn name(vector: u64, error: u64) -> Exception {
    match vector {
        0 => Exception::DivideError,
        1 => Exception::Debug(debug::take_status()),
        3 => Exception::Breakpoint,
        6 => Exception::InvalidOpcode,
        13 => Exception::GeneralProtection(error),
        16 | 19 => Exception::FloatingPoint,
        17 => Exception::AlignmentCheck,
        v => Exception::Other(v as u8),
    }
}

fn exception(regs: &mut UserRegs, e: Exception) {
    match thread::hooks() {
        Some(h) => h.exception(regs, e),
        None => thread::exit(),
    }
}

/// Page-fault error code (SDM vol. 3, 4.7).
const WRITE: u64 = 2;
const USER: u64 = 4;
const RESERVED: u64 = 8;
const FETCH: u64 = 16;

fn page_fault(regs: &mut UserRegs, error: u64, addr: usize, from_user: bool) {
    let access = match error {
        e if e & FETCH != 0 => Access::EXEC,
        e if e & WRITE != 0 => Access::WRITE,
        _ => Access::READ,
    };
    if error & RESERVED != 0 {
        panic_regs(14, error, regs);
    }
    if from_user && error & USER == 0 {
        // The processor's own access on behalf of an instruction that no program may
        // use: QEMU's translator reads the stack so for `iretq`, against SMAP.
        interrupts::enable();
        exception(regs, Exception::GeneralProtection(0));
        return interrupts::disable();
    }
    let way_out = if from_user {
        None
    } else {
        usercopy::fixup(regs.rip)
    };
    if !from_user && (way_out.is_none() || addr >= USER_END) {
        panic_fault(regs, error, addr);
    }
    if !from_user {
        usercopy::close();
    }
    interrupts::enable();
    let fault = PageFault {
        addr,
        access,
        from_user,
        present: error & 1 != 0,
    };
    let resolved = thread::hooks().is_some_and(|h| h.page_fault(fault));
    match (resolved, way_out) {
        (true, _) => {}
        (false, Some(rip)) => regs.rip = rip,
        (false, None) => exception(regs, Exception::PageFault { addr, access }),
    }
    interrupts::disable();
}

#[expect(clippy::panic, reason = "a fault of the kernel itself")]
fn panic_fault(regs: &UserRegs, error: u64, addr: usize) -> ! {
    panic!(
        "page fault in the kernel at {addr:#x} (error {error:#x}), rip {:#x}, rsp {:#x}",
        regs.rip, regs.rsp
    );
}

#[expect(clippy::panic, reason = "a fault of the kernel itself")]
fn panic_regs(vector: u64, error: u64, regs: &UserRegs) -> ! {
    panic!("exception {vector} (error {error:#x}) in the kernel: {regs:x?}");
}

#[expect(
    clippy::panic,
    reason = "the machine is broken, or its owner wants a record"
)]
#[unsafe(no_mangle)]
extern "C" fn fatal_rust(vector: u64, regs: *const UserRegs) -> ! {
    // SAFETY: the entry code's frame.
    let regs = unsafe { &*regs };
    super::crash::lay_down(regs);
    if super::crash::in_progress() {
        // Another CPU is writing the crash record; this one only has to be quiet.
        super::crash::halt();
    }
    percpu::here().need_resched.store(false, Relaxed);
    match vector {
        2 => panic!("non-maskable interrupt at rip {:#x}", regs.rip),
        8 => panic!("double fault: {regs:x?}"),
        _ => panic!("machine check at rip {:#x}", regs.rip),
    }
}
