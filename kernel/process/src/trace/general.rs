//! General registers as debuggers know them (`sys/user.h`), from ptrace(2) and core
//! files.

use machine::thread::UserRegs;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct user_regs_struct`.
#[expect(missing_docs, reason = "the processor's manual has the meanings")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct General {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub orig_rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
    pub fs_base: u64,
    pub gs_base: u64,
    /// Data segment selectors: not used in 64-bit mode.
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
}

/// Selectors of 64-bit programs as Linux has them, which debuggers know them by.
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
impl General {
    /// Those of a thread with these registers, FS and GS base.
    #[must_use]
    pub fn of(r: &UserRegs, bases: (usize, usize)) -> General {
        General {
            r15: r.r15,
            r14: r.r14,
            r13: r.r13,
            r12: r.r12,
            rbp: r.rbp,
            rbx: r.rbx,
            r11: r.r11,
            r10: r.r10,
            r9: r.r9,
            r8: r.r8,
            rax: r.rax,
            rcx: r.rcx,
            rdx: r.rdx,
            rsi: r.rsi,
            rdi: r.rdi,
            orig_rax: r.orig_rax,
            rip: r.rip,
            cs: USER_CS,
            rflags: r.rflags,
            rsp: r.rsp,
            ss: USER_SS,
            fs_base: bases.0 as u64,
            gs_base: bases.1 as u64,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn registers_lie_where_debuggers_look_for_them() {
        assert_eq!(size_of::<General>(), 216);
        assert_eq!(offset_of!(General, orig_rax), 120);
        assert_eq!(offset_of!(General, rip), 128);
        assert_eq!(offset_of!(General, fs_base), 168);
    }
}
