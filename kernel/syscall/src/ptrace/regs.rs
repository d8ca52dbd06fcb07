//! Registers of a stopped tracee, in the layouts programs know (`sys/user.h`).

use super::With;
use crate::errno::{Errno, SysResult};
use alloc::vec::Vec;
use machine::addr::USER_END;
use machine::thread::{self, UserRegs};
use machine::user;
use process::trace::{General, Stopped};
use zerocopy::{FromBytes, IntoBytes};

/// Where `struct user` has the debug registers.
const DEBUG_AT: usize = 848;
/// Registers that there are not.
const DEBUG_GAP: core::ops::RangeInclusive<usize> = 4..=5;
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
const FLAGS_USER: u64 = 0x25_4dd5;

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

/// Puts registers in force; selectors stay as they are.
fn apply(all: &General, s: &mut Stopped) -> SysResult {
    let base = |b: u64| {
        let fits = usize::try_from(b).ok().filter(|b| *b < USER_END);
        fits.ok_or(Errno::EIO)
    };
    s.bases = (base(all.fs_base)?, base(all.gs_base)?);
    s.regs = UserRegs {
        r15: all.r15,
        r14: all.r14,
        r13: all.r13,
        r12: all.r12,
        rbp: all.rbp,
        rbx: all.rbx,
        r11: all.r11,
        r10: all.r10,
        r9: all.r9,
        r8: all.r8,
        rax: all.rax,
        rcx: all.rcx,
        rdx: all.rdx,
        rsi: all.rsi,
        rdi: all.rdi,
        orig_rax: all.orig_rax,
        rip: all.rip,
        rflags: s.regs.rflags & !FLAGS_USER | all.rflags & FLAGS_USER,
        rsp: all.rsp,
        ..s.regs
    };
    Ok(0)
}

/// The word of `struct user` at `addr`.
pub(super) fn peek(s: &Stopped, addr: usize) -> Result<u64, Errno> {
    if let Some(n) = debug_register(addr)? {
        return Ok(s.debug.read(n));
    }
    let all = General::of(&s.regs, s.bases);
    let word = all.as_bytes().get(addr..addr + size_of::<u64>());
    // What follows the registers is not kept.
    Ok(word.and_then(|w| u64::read_from_bytes(w).ok()).unwrap_or(0))
}

/// Sets that word.
pub(super) fn poke(s: &mut Stopped, addr: usize, value: u64) -> SysResult {
    match debug_register(addr)? {
        Some(n) if DEBUG_GAP.contains(&n) => return Err(Errno::EIO),
        Some(n) => {
            s.debug.write(n, value)?;
            return Ok(0);
        }
        None => {}
    }
    let mut all = General::of(&s.regs, s.bases);
    let word = all.as_mut_bytes().get_mut(addr..addr + size_of::<u64>());
    word.ok_or(Errno::EIO)?.copy_from_slice(value.as_bytes());
    apply(&all, s)
}

/// The number of the debug register at `addr` of `struct user`, if there is one.
fn debug_register(addr: usize) -> Result<Option<usize>, Errno> {
    let word = size_of::<u64>();
    if !addr.is_multiple_of(word) || addr >= USER_SIZE {
        return Err(Errno::EIO);
    }
    Ok(addr.checked_sub(DEBUG_AT).map(|at| at / word))
}

/// Copies the first `len` bytes of `set` to `to`.
pub(super) fn get(with: &With<'_>, set: Set, to: usize, len: usize) -> SysResult {
    let mut out = Vec::new();
    out.try_reserve_exact(set.len())?;
    with(&mut |s| {
        match set {
            Set::General => out.extend_from_slice(General::of(&s.regs, s.bases).as_bytes()),
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
            let mut all = General::of(&s.regs, s.bases);
            let part = all.as_mut_bytes().get_mut(..len);
            part.ok_or(Errno::EINVAL)?.copy_from_slice(&bytes);
            apply(&all, s)
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
