//! Copies between kernel and user memory.
//!
//! The copy routines run with SMAP opened and may fault on the user's side. The
//! page-fault handler finds the faulting instruction between `usercopy_start` and
//! `usercopy_end`, lets the hook resolve the fault and tries again, or goes on at
//! `usercopy_fixup`, where the routine returns what is left in `rdx`.

use super::control::features;
use crate::error::Fault;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};

// copy(rdi = to, rsi = from, rdx = bytes) -> rax = bytes not copied.
// `rdx` counts what is left at every point, so a fault needs no other state.
//
// copy_wide is the same with 32-byte registers for long copies. The user's
// registers are live in the CPU, so it keeps those it needs on the stack; a fault
// in it goes to a fixup that restores them.
global_asm!(
    r#"
.pushsection .text.usercopy, "ax"
.global usercopy_start, usercopy_end, usercopy_fixup, usercopy
.global usercopy_wide, usercopy_wide_start, usercopy_wide_end, usercopy_wide_fixup
.global usercopy_load, usercopy_cmpxchg
.global usercopy_str, usercopy_str_word, usercopy_str_byte, usercopy_refused
.global usercopy_fpu_start, usercopy_fpu_end
.global usercopy_xsave, usercopy_xrstor, usercopy_fxsave, usercopy_fxrstor
usercopy_wide:
    sub rsp, 128
    vmovdqu [rsp], ymm0
    vmovdqu [rsp + 32], ymm1
    vmovdqu [rsp + 64], ymm2
    vmovdqu [rsp + 96], ymm3
usercopy_wide_start:
1:  vmovdqu ymm0, [rsi]
    vmovdqu ymm1, [rsi + 32]
    vmovdqu ymm2, [rsi + 64]
    vmovdqu ymm3, [rsi + 96]
    vmovdqu [rdi], ymm0
    vmovdqu [rdi + 32], ymm1
    vmovdqu [rdi + 64], ymm2
    vmovdqu [rdi + 96], ymm3
    sub rsi, -128
    sub rdi, -128
    add rdx, -128
    cmp rdx, 128
    jae 1b
usercopy_wide_end:
    vmovdqu ymm0, [rsp]
    vmovdqu ymm1, [rsp + 32]
    vmovdqu ymm2, [rsp + 64]
    vmovdqu ymm3, [rsp + 96]
    add rsp, 128
    test rdx, rdx
    jnz usercopy
    xor eax, eax
    ret
usercopy_wide_fixup:
    vmovdqu ymm0, [rsp]
    vmovdqu ymm1, [rsp + 32]
    vmovdqu ymm2, [rsp + 64]
    vmovdqu ymm3, [rsp + 96]
    add rsp, 128
    mov rax, rdx
    ret
// str(rdi = to, rsi = from, rdx = most bytes) -> rax = bytes left of these from the NUL
// on; 0 if there is none. Takes words as long as they end in the same page, so that a
// string just before unmapped memory can be read.
usercopy_str:
    mov r8, 0x0101010101010101
    mov r9, 0x8080808080808080
1:  cmp rdx, 8
    jb 3f
    mov eax, esi
    and eax, 4095
    cmp eax, 4088
    ja 3f
usercopy_str_word:
    mov rax, [rsi]
    mov [rdi], rax
    mov rcx, rax
    sub rcx, r8
    not rax
    and rcx, rax
    and rcx, r9
    jnz 2f
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    jmp 1b
2:  bsf rcx, rcx
    shr ecx, 3
    mov rax, rdx
    sub rax, rcx
    ret
3:  test rdx, rdx
    jz 4f
usercopy_str_byte:
    mov al, [rsi]
    mov [rdi], al
    test al, al
    jz 4f
    inc rsi
    inc rdi
    dec rdx
    jmp 1b
4:  mov rax, rdx
    ret
// xsave and its like (rdi = image, rsi = components) -> rax = 0. Loading an image that no
// processor would have written is a general-protection fault.
usercopy_fpu_start:
usercopy_xsave:
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    xsave64 [rdi]
    xor eax, eax
    ret
usercopy_xrstor:
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    xrstor64 [rdi]
    xor eax, eax
    ret
usercopy_fxsave:
    fxsave64 [rdi]
    xor eax, eax
    ret
usercopy_fxrstor:
    fxrstor64 [rdi]
    xor eax, eax
    ret
usercopy_fpu_end:
usercopy_refused:
    mov rax, -1
    ret
usercopy_start:
usercopy:
    cmp rdx, 64
    jb 2f
1:  mov rax, [rsi]
    mov rcx, [rsi + 8]
    mov r8, [rsi + 16]
    mov r9, [rsi + 24]
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], r8
    mov [rdi + 24], r9
    mov rax, [rsi + 32]
    mov rcx, [rsi + 40]
    mov r8, [rsi + 48]
    mov r9, [rsi + 56]
    mov [rdi + 32], rax
    mov [rdi + 40], rcx
    mov [rdi + 48], r8
    mov [rdi + 56], r9
    add rsi, 64
    add rdi, 64
    sub rdx, 64
    cmp rdx, 64
    jae 1b
2:  cmp rdx, 8
    jb 6f
    test dl, 32
    jz 3f
    mov rax, [rsi]
    mov rcx, [rsi + 8]
    mov r8, [rsi + 16]
    mov r9, [rsi + 24]
    mov [rdi], rax
    mov [rdi + 8], rcx
    mov [rdi + 16], r8
    mov [rdi + 24], r9
    add rsi, 32
    add rdi, 32
    sub rdx, 32
    jz 9f
3:  test dl, 16
    jz 4f
    mov rax, [rsi]
    mov rcx, [rsi + 8]
    mov [rdi], rax
    mov [rdi + 8], rcx
    add rsi, 16
    add rdi, 16
    sub rdx, 16
    jz 9f
4:  test dl, 8
    jz 6f
    mov rax, [rsi]
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    jz 9f
6:  test dl, 4
    jz 7f
    mov eax, [rsi]
    mov [rdi], eax
    add rsi, 4
    add rdi, 4
    sub rdx, 4
7:  test dl, 2
    jz 8f
    movzx eax, word ptr [rsi]
    mov [rdi], ax
    add rsi, 2
    add rdi, 2
    sub rdx, 2
8:  test dl, 1
    jz 9f
    movzx eax, byte ptr [rsi]
    mov [rdi], al
9:  xor eax, eax
    ret
// load(rdi = word, rsi = where to put it)
usercopy_load:
    mov edx, 4
    mov eax, [rdi]
    mov [rsi], eax
    xor eax, eax
    ret
// cmpxchg(rdi = word, rsi = where the old value is and goes, edx = new)
usercopy_cmpxchg:
    mov ecx, edx
    mov edx, 4
    mov eax, [rsi]
    lock cmpxchg [rdi], ecx
    mov [rsi], eax
    xor eax, eax
    ret
usercopy_end:
usercopy_fixup:
    mov rax, rdx
    ret
.popsection
"#
);

unsafe extern "C" {
    fn usercopy(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn usercopy_wide(to: *mut u8, from: *const u8, len: usize) -> usize;
    fn usercopy_str(to: *mut u8, from: *const u8, max: usize) -> usize;
    fn usercopy_load(word: usize, out: *mut u32) -> usize;
    fn usercopy_cmpxchg(word: usize, old: *mut u32, new: u32) -> usize;
    static usercopy_start: u8;
    static usercopy_end: u8;
    static usercopy_fixup: u8;
    static usercopy_wide_start: u8;
    static usercopy_wide_end: u8;
    static usercopy_wide_fixup: u8;
    fn usercopy_xsave(image: usize, components: u64) -> usize;
    fn usercopy_xrstor(image: usize, components: u64) -> usize;
    fn usercopy_fxsave(image: usize) -> usize;
    fn usercopy_fxrstor(image: usize) -> usize;
    static usercopy_fpu_start: u8;
    static usercopy_fpu_end: u8;
    static usercopy_str_word: u8;
    static usercopy_str_byte: u8;
    static usercopy_refused: u8;
}

/// From here on the wide registers pay for being kept.
const WIDE_MIN: usize = 256;

static SMAP: AtomicBool = AtomicBool::new(false);
static WIDE: AtomicBool = AtomicBool::new(false);

/// Notes what the CPU has; called once at boot.
pub(super) fn init() {
    SMAP.store(features().smap, Relaxed);
    WIDE.store(features().wide_moves, Relaxed);
}

/// Bytes not copied.
///
/// # Safety
/// One side is kernel memory of `len` bytes, the other a range of user space, and
/// user memory is open.
#[inline]
unsafe fn copy(to: *mut u8, from: *const u8, len: usize) -> usize {
    // SAFETY: the caller's; faults on the user's side are handled.
    unsafe {
        if len >= WIDE_MIN && WIDE.load(Relaxed) {
            usercopy_wide(to, from, len)
        } else {
            usercopy(to, from, len)
        }
    }
}

/// Opens user memory while it lives.
struct Open;

impl Open {
    #[inline]
    fn new() -> Open {
        if SMAP.load(Relaxed) {
            // SAFETY: the CPU has SMAP; closed again by `drop`.
            unsafe { core::arch::asm!("stac", options(nostack)) };
        }
        Open
    }
}

impl Drop for Open {
    #[inline]
    fn drop(&mut self) {
        close();
    }
}

/// Closes user memory: when a copy is done, and when it faults (the fault's return
/// opens it again with the flags).
#[inline]
pub(super) fn close() {
    if SMAP.load(Relaxed) {
        // SAFETY: the CPU has SMAP.
        unsafe { core::arch::asm!("clac", options(nostack)) };
    }
}

/// Whether `rip` is in a copy routine, and where it goes on after a fault that
/// cannot be resolved.
pub(super) fn fixup(rip: u64) -> Option<u64> {
    let at = |label: *const u8| label as u64;
    if (at(&raw const usercopy_start)..at(&raw const usercopy_end)).contains(&rip) {
        return Some(at(&raw const usercopy_fixup));
    }
    let wide = at(&raw const usercopy_wide_start)..at(&raw const usercopy_wide_end);
    if wide.contains(&rip) {
        return Some(at(&raw const usercopy_wide_fixup));
    }
    let text = rip == at(&raw const usercopy_str_word) || rip == at(&raw const usercopy_str_byte);
    (text || in_fpu(rip)).then(|| at(&raw const usercopy_refused))
}

fn in_fpu(rip: u64) -> bool {
    ((&raw const usercopy_fpu_start as u64)..(&raw const usercopy_fpu_end as u64)).contains(&rip)
}

/// Where the kernel goes on after an exception other than a page fault that a copy
/// routine may raise.
pub(super) fn refusal(vector: u64, rip: u64) -> Option<u64> {
    const GENERAL_PROTECTION: u64 = 13;
    (vector == GENERAL_PROTECTION && in_fpu(rip)).then_some(&raw const usercopy_refused as u64)
}

/// Stores the floating-point and vector registers at `image`, a user range as large as
/// they are. Of an `XSAVE` image everything but the notes in the legacy region and the
/// rest of the header is written.
pub(super) fn fpu_to_user(image: usize) -> Result<(), Fault> {
    let f = features();
    let _open = Open::new();
    // SAFETY: a user range; faults are handled.
    let left = unsafe {
        match f.xsave {
            true => usercopy_xsave(image, f.xcr0),
            false => usercopy_fxsave(image),
        }
    };
    (left == 0).then_some(()).ok_or(Fault)
}

/// Loads the floating-point and vector registers from `image`, a user range as large as
/// they are. After a failure there may be anything in them.
pub(super) fn fpu_from_user(image: usize) -> Result<(), Fault> {
    let f = features();
    let _open = Open::new();
    // SAFETY: a user range; faults are handled, and an image that cannot be loaded is one.
    let left = unsafe {
        match f.xsave {
            true => usercopy_xrstor(image, f.xcr0),
            false => usercopy_fxrstor(image),
        }
    };
    (left == 0).then_some(()).ok_or(Fault)
}

/// Bytes copied from the user's `src`; the range lies in user space.
pub(crate) fn copy_from_user(src: usize, dst: &mut [u8]) -> usize {
    let _open = Open::new();
    // SAFETY: `dst` is ours, `src` is a user range; faults are handled.
    dst.len() - unsafe { copy(dst.as_mut_ptr(), src as *const u8, dst.len()) }
}

/// Copies the user's string at `src`, which has at most `max` bytes of user space before
/// it ends; its length without the NUL, or `None` if none of them is one.
///
/// # Safety
/// `dst` has `max` bytes of ours.
pub(crate) unsafe fn str_from_user(
    src: usize,
    dst: *mut u8,
    max: usize,
) -> Result<Option<usize>, Fault> {
    let _open = Open::new();
    // SAFETY: the caller's; `src` is a user range and faults there are handled.
    match unsafe { usercopy_str(dst, src as *const u8, max) } {
        usize::MAX => Err(Fault),
        0 => Ok(None),
        left => Ok(Some(max - left)),
    }
}

/// Bytes copied to the user's `dst`; the range lies in user space.
pub(crate) fn copy_to_user(dst: usize, src: &[u8]) -> usize {
    let _open = Open::new();
    // SAFETY: `src` is ours, `dst` is a user range; faults are handled.
    src.len() - unsafe { copy(dst as *mut u8, src.as_ptr(), src.len()) }
}

/// The aligned user word at `addr`.
pub(crate) fn user_load_u32(addr: usize) -> Result<u32, Fault> {
    let mut v = 0;
    let _open = Open::new();
    // SAFETY: an aligned user address; faults are handled.
    match unsafe { usercopy_load(addr, &raw mut v) } {
        0 => Ok(v),
        _ => Err(Fault),
    }
}

/// Replaces the aligned user word at `addr` if it is `old`; what it was.
pub(crate) fn user_cmpxchg_u32(addr: usize, old: u32, new: u32) -> Result<u32, Fault> {
    let mut v = old;
    let _open = Open::new();
    // SAFETY: an aligned user address; faults are handled.
    match unsafe { usercopy_cmpxchg(addr, &raw mut v, new) } {
        0 => Ok(v),
        _ => Err(Fault),
    }
}
