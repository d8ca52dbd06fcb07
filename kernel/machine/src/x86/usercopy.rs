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
    jmp usercopy
usercopy_wide_fixup:
    vmovdqu ymm0, [rsp]
    vmovdqu ymm1, [rsp + 32]
    vmovdqu ymm2, [rsp + 64]
    vmovdqu ymm3, [rsp + 96]
    add rsp, 128
    mov rax, rdx
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
    jb 4f
3:  mov rax, [rsi]
    mov [rdi], rax
    add rsi, 8
    add rdi, 8
    sub rdx, 8
    cmp rdx, 8
    jae 3b
4:  test rdx, rdx
    jz 6f
5:  mov al, [rsi]
    mov [rdi], al
    inc rsi
    inc rdi
    dec rdx
    jnz 5b
6:  xor eax, eax
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
    fn usercopy_load(word: usize, out: *mut u32) -> usize;
    fn usercopy_cmpxchg(word: usize, old: *mut u32, new: u32) -> usize;
    static usercopy_start: u8;
    static usercopy_end: u8;
    static usercopy_fixup: u8;
    static usercopy_wide_start: u8;
    static usercopy_wide_end: u8;
    static usercopy_wide_fixup: u8;
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
    wide.contains(&rip)
        .then(|| at(&raw const usercopy_wide_fixup))
}

/// Bytes copied from the user's `src`; the range lies in user space.
pub(crate) fn copy_from_user(src: usize, dst: &mut [u8]) -> usize {
    let _open = Open::new();
    // SAFETY: `dst` is ours, `src` is a user range; faults are handled.
    dst.len() - unsafe { copy(dst.as_mut_ptr(), src as *const u8, dst.len()) }
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
