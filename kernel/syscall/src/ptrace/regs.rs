//! Registers of a stopped tracee, in the layouts programs know (`sys/user.h`).

use super::With;
use crate::errno::{Errno, SysResult};
use alloc::vec::Vec;
use machine::addr::USER_END;
use machine::thread::{self, UserRegs};
use machine::user;
use process::trace::Stopped;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `struct user_regs_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct General {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    rbp: u64,
    rbx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    orig_rax: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
    fs_base: u64,
    gs_base: u64,
    /// Data segment selectors: not used in 64-bit mode.
    ds: u64,
    es: u64,
    fs: u64,
    gs: u64,
}

/// Selectors of 64-bit programs as Linux has them, which debuggers know them by.
const USER_CS: u64 = 0x33;
const USER_SS: u64 = 0x2b;
/// Where `struct user` has the debug registers. They cannot be used: all are 0.
const DEBUG_AT: usize = 848;
/// Bytes of `struct user`, of which the registers are the beginning.
const USER_SIZE: usize = 912;
/// Bytes of the part that `fxsave` writes.
const LEGACY_LEN: usize = 512;
/// Where an `XSAVE` image says what it holds.
const PRESENT_AT: usize = 512;
/// Where a debugger looks for what it could hold.
const FEATURES_AT: usize = 464;
/// x87 and SSE state.
const LEGACY_FEATURES: u64 = 3;
/// Flags a program may have, as the machine room lets it.
const FLAGS_USER: u64 = 0x24_4dd5;

/// A set of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// `struct user_regs_struct` (`NT_PRSTATUS`).
    General,
    /// `struct user_fpregs_struct` (`NT_PRFPREG`).
    Legacy,
    /// An `XSAVE` image (`NT_X86_XSTATE`).
    Extended,
}

impl Set {
    /// The set of that ELF note type.
    pub(super) fn of_note(kind: usize) -> Option<Set> {
        match kind {
            1 => Some(Set::General),
            2 => Some(Set::Legacy),
            0x202 if thread::fpu_size() > LEGACY_LEN => Some(Set::Extended),
            _ => None,
        }
    }

    /// Its size in bytes.
    pub(super) fn len(self) -> usize {
        match self {
            Set::General => size_of::<General>(),
            Set::Legacy => LEGACY_LEN,
            Set::Extended => thread::fpu_size(),
        }
    }
}

impl General {
    fn of(s: &Stopped) -> General {
        let r = &s.regs;
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
            fs_base: s.bases.0 as u64,
            gs_base: s.bases.1 as u64,
            ds: 0,
            es: 0,
            fs: 0,
            gs: 0,
        }
    }

    /// Puts them in force; selectors stay as they are.
    fn apply(&self, s: &mut Stopped) -> SysResult {
        let base = |b: u64| {
            let fits = usize::try_from(b).ok().filter(|b| *b < USER_END);
            fits.ok_or(Errno::EIO)
        };
        s.bases = (base(self.fs_base)?, base(self.gs_base)?);
        s.regs = UserRegs {
            r15: self.r15,
            r14: self.r14,
            r13: self.r13,
            r12: self.r12,
            rbp: self.rbp,
            rbx: self.rbx,
            r11: self.r11,
            r10: self.r10,
            r9: self.r9,
            r8: self.r8,
            rax: self.rax,
            rcx: self.rcx,
            rdx: self.rdx,
            rsi: self.rsi,
            rdi: self.rdi,
            orig_rax: self.orig_rax,
            rip: self.rip,
            rflags: s.regs.rflags & !FLAGS_USER | self.rflags & FLAGS_USER,
            rsp: self.rsp,
            ..s.regs
        };
        Ok(0)
    }
}

/// The word of `struct user` at `addr`.
pub(super) fn peek(s: &Stopped, addr: usize) -> Result<u64, Errno> {
    check(addr)?;
    let all = General::of(s);
    let word = all.as_bytes().get(addr..addr + size_of::<u64>());
    // What follows the registers is not kept.
    Ok(word.and_then(|w| u64::read_from_bytes(w).ok()).unwrap_or(0))
}

/// Sets that word.
pub(super) fn poke(s: &mut Stopped, addr: usize, value: u64) -> SysResult {
    check(addr)?;
    if addr >= DEBUG_AT && value == 0 {
        // Debuggers clear them in every new thread.
        return Ok(0);
    }
    let mut all = General::of(s);
    let word = all.as_mut_bytes().get_mut(addr..addr + size_of::<u64>());
    word.ok_or(Errno::EIO)?.copy_from_slice(value.as_bytes());
    all.apply(s)
}

fn check(addr: usize) -> Result<(), Errno> {
    let fits = addr.is_multiple_of(size_of::<u64>()) && addr < USER_SIZE;
    fits.then_some(()).ok_or(Errno::EIO)
}

/// Copies the first `len` bytes of `set` to `to`.
pub(super) fn get(with: &With<'_>, set: Set, to: usize, len: usize) -> SysResult {
    let mut out = Vec::new();
    out.try_reserve_exact(set.len())?;
    with(&mut |s| {
        match set {
            Set::General => out.extend_from_slice(General::of(s).as_bytes()),
            Set::Legacy | Set::Extended => {
                let image = s.image.get(..set.len()).ok_or(Errno::ENOMEM)?;
                out.extend_from_slice(image);
            }
        }
        Ok(0)
    })?;
    if set == Set::Extended
        && let Some(note) = out.get_mut(FEATURES_AT..FEATURES_AT + 8)
    {
        note.copy_from_slice(thread::fpu_features().as_bytes());
    }
    user::write(to, out.get(..len).ok_or(Errno::EINVAL)?)?;
    Ok(0)
}

/// Sets the first `len` bytes of `set` from those at `from`.
pub(super) fn set(with: &With<'_>, set: Set, from: usize, len: usize) -> SysResult {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len)?;
    bytes.resize(len, 0);
    user::read(from, &mut bytes)?;
    if set == Set::General {
        return with(&mut |s| {
            let mut all = General::of(s);
            let part = all.as_mut_bytes().get_mut(..len);
            part.ok_or(Errno::EINVAL)?.copy_from_slice(&bytes);
            all.apply(s)
        });
    }
    if len != set.len() {
        return Err(Errno::EINVAL);
    }
    let mut image = Vec::new();
    image.try_reserve_exact(thread::fpu_size())?;
    with(&mut |s| {
        image.clear();
        image.extend_from_slice(&s.image);
        Ok(0)
    })?;
    let part = image.get_mut(..len).ok_or(Errno::ENOMEM)?;
    part.copy_from_slice(&bytes);
    tidy(&mut image, set);
    if !thread::fpu_accepts(&image) {
        return Err(Errno::EINVAL);
    }
    with(&mut |s| {
        // What was there goes when the lock is free.
        core::mem::swap(&mut s.image, &mut image);
        s.image_changed = true;
        Ok(0)
    })
}

/// Makes of an image that a debugger has edited one the processor takes.
fn tidy(image: &mut [u8], set: Set) {
    if let Some(note) = image.get_mut(FEATURES_AT..LEGACY_LEN) {
        note.fill(0);
    }
    let present = image.get_mut(PRESENT_AT..PRESENT_AT + 8);
    if let (Set::Legacy, Some(present)) = (set, present)
        && let Ok(old) = u64::read_from_bytes(present)
    {
        present.copy_from_slice((old | LEGACY_FEATURES).as_bytes());
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
