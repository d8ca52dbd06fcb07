//! Clearing and copying whole pages.
//!
//! By string instructions, which real CPUs do fast, or by 32-byte registers where
//! the CPU has no fast strings (an emulator, mostly). The user's registers are
//! live in the CPU: those used are kept and restored.

use super::control::features;
use crate::addr::PAGE_SIZE;
use core::arch::{asm, global_asm};

global_asm!(
    r#"
.global zero_page_wide, copy_page_wide
zero_page_wide:
    sub rsp, 32
    vmovdqu [rsp], ymm0
    vpxor ymm0, ymm0, ymm0
    lea rsi, [rdi + 4096]
1:
.set disp, 0
.rept 32
    vmovdqa [rdi + disp], ymm0
.set disp, disp + 32
.endr
    add rdi, 1024
    cmp rdi, rsi
    jb 1b
    vmovdqu ymm0, [rsp]
    add rsp, 32
    ret
copy_page_wide:
    sub rsp, 64
    vmovdqu [rsp], ymm0
    vmovdqu [rsp + 32], ymm1
    lea rdx, [rsi + 4096]
1:
.set disp, 0
.rept 8
    vmovdqa ymm0, [rsi + disp]
    vmovdqa ymm1, [rsi + disp + 32]
    vmovdqa [rdi + disp], ymm0
    vmovdqa [rdi + disp + 32], ymm1
.set disp, disp + 64
.endr
    add rdi, 512
    add rsi, 512
    cmp rsi, rdx
    jb 1b
    vmovdqu ymm0, [rsp]
    vmovdqu ymm1, [rsp + 32]
    add rsp, 64
    ret
"#
);

unsafe extern "C" {
    fn zero_page_wide(page: *mut u8);
    fn copy_page_wide(to: *mut u8, from: *const u8);
}

/// Writes what the CPUs' caches hold of `len` bytes to memory, for a device that does not
/// look into caches.
pub(crate) fn write_back(start: core::ptr::NonNull<u8>, len: usize) {
    /// No CPU has shorter lines of this instruction.
    const LINE: usize = 16;
    let first = start.as_ptr() as usize & !(LINE - 1);
    for line in (first..start.as_ptr() as usize + len).step_by(LINE) {
        // SAFETY: the line holds bytes of the caller's memory; what it holds stays as it is.
        unsafe { asm!("clflush [{}]", in(reg) line, options(nostack, preserves_flags)) };
    }
    // SAFETY: waits for the write-backs and does nothing else.
    unsafe { asm!("mfence", options(nostack, preserves_flags)) };
}

/// # Safety
/// `page` is a mapped page nobody else uses.
#[inline]
pub(crate) unsafe fn zero_page(page: *mut u8) {
    // SAFETY: the caller's.
    unsafe {
        if features().wide_moves {
            zero_page_wide(page);
        } else {
            asm!(
                "rep stosq",
                inout("rcx") PAGE_SIZE / 8 => _,
                inout("rdi") page => _,
                in("rax") 0,
                options(nostack, preserves_flags),
            );
        }
    }
}

/// # Safety
/// `to` is a mapped page nobody else uses, `from` another mapped page.
#[inline]
pub(crate) unsafe fn copy_page(to: *mut u8, from: *const u8) {
    // SAFETY: the caller's.
    unsafe {
        if features().wide_moves {
            copy_page_wide(to, from);
        } else {
            asm!(
                "rep movsq",
                inout("rcx") PAGE_SIZE / 8 => _,
                inout("rdi") to => _,
                inout("rsi") from => _,
                options(nostack, preserves_flags),
            );
        }
    }
}
