//! The frame a handler finds on its stack, and the way back from it, laid out as
//! Linux does on x86-64 (`asm/sigframe.h`, `asm/sigcontext.h`):
//!
//! ```text
//! high  floating-point state (XSAVE image, then a second magic number)
//!       siginfo
//!       ucontext
//! rsp → return address: the restorer, which calls rt_sigreturn
//! ```

use super::info::SIGINFO_SIZE;
use super::number::{SigSet, Signal};
use super::state::AltStack;
use super::{Action, ActionFlags, SigInfo};
use crate::{Error, Result, Thread};
use machine::thread::{self, UserRegs};
use machine::{addr, user};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes below `rsp` that belong to the running function (System V ABI).
const RED_ZONE: usize = 128;
/// User code and data segment selectors.
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;
/// Bytes of the part that `fxsave` writes.
const FXSAVE_SIZE: usize = 512;
/// Where software may leave notes in it (`struct _fpx_sw_bytes`).
const SOFTWARE_AT: usize = 464;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// `uc_flags`: the floating-point state is an XSAVE image.
const UC_FP_XSTATE: u64 = 1;
/// `uc_flags`: `ss` is saved and strictly restored.
const UC_SS: u64 = 2 | 4;

/// `ss_flags` of `stack_t`.
const SS_ONSTACK: u32 = 1;
const SS_DISABLE: u32 = 2;
const SS_AUTODISARM: u32 = 1 << 31;

/// Flags of `rflags` a program may set for itself.
const FLAGS_SETTABLE: u64 =
    0x4_0000 | 0x1_0000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 4 | 1;
/// Direction, resume and trap flags, which a handler starts without.
const FLAGS_CLEARED: u64 = 0x400 | 0x1_0000 | 0x100;

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Stack {
    base: u64,
    flags: u32,
    pad: u32,
    size: u64,
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SigContext {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
    cs: u16,
    gs: u16,
    fs: u16,
    ss: u16,
    error: u64,
    trap: u64,
    old_mask: u64,
    cr2: u64,
    fpstate: u64,
    reserved: [u64; 8],
}

#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct UContext {
    flags: u64,
    link: u64,
    stack: Stack,
    context: SigContext,
    mask: u64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Frame {
    restorer: u64,
    ucontext: UContext,
    info: [u8; SIGINFO_SIZE],
}

/// Bytes that the largest frame takes of a stack (`AT_MINSIGSTKSZ`).
pub(crate) fn frame_size() -> usize {
    // The red zone, and what the alignments of its parts cost.
    const SLACK: usize = 128 + 64 + 16 + 8;
    thread::fpu_size() + size_of::<u32>() + size_of::<Frame>() + SLACK
}

/// Makes the program run the handler of `action` next.
///
/// # Errors
/// The stack cannot hold the frame, or there is no restorer.
pub(super) fn push(
    me: &Thread,
    regs: &mut UserRegs,
    signal: Signal,
    info: &SigInfo,
    action: &Action,
) -> Result<()> {
    if !action.flags().contains(ActionFlags::RESTORER) {
        return Err(Error::Invalid);
    }
    let alt = me.signals.alt_stack();
    let top = stack_top(regs, &alt, action)?;
    let fp_size = thread::fpu_size();
    let fp = top
        .checked_sub(fp_size + size_of::<u32>())
        .ok_or(Error::BadAddress)?
        & !63;
    // As at a function's entry: 8 bytes off a multiple of 16.
    let at = (fp
        .checked_sub(size_of::<Frame>())
        .ok_or(Error::BadAddress)?
        & !15)
        .checked_sub(8)
        .ok_or(Error::BadAddress)?;
    if alt.covers(top) && !alt.covers(at) {
        return Err(Error::BadAddress);
    }
    save_fpu(fp, fp_size)?;
    let mask = me.signals.take_saved().unwrap_or(me.signals.blocked());
    let frame = Frame {
        restorer: action.restorer,
        ucontext: UContext {
            flags: UC_SS
                | if fp_size > FXSAVE_SIZE {
                    UC_FP_XSTATE
                } else {
                    0
                },
            link: 0,
            stack: describe(&alt, regs.rsp as usize),
            context: save(me, regs, fp, mask),
            mask: mask.0,
        },
        info: info.to_user(),
    };
    if let Err(e) = user::write_value(at, &frame) {
        me.signals.save_mask(mask);
        return Err(e.into());
    }
    if alt.autodisarm {
        me.signals.set_alt_stack(AltStack::default());
    }
    regs.rdi = u64::from(signal.number());
    regs.rsi = (at + core::mem::offset_of!(Frame, info)) as u64;
    regs.rdx = (at + core::mem::offset_of!(Frame, ucontext)) as u64;
    regs.rax = 0;
    regs.rsp = at as u64;
    regs.rip = action.handler;
    regs.rflags &= !FLAGS_CLEARED;
    regs.orig_rax = u64::MAX;
    thread::fpu_reset();
    Ok(())
}

/// Where the handler's stack begins.
fn stack_top(regs: &UserRegs, alt: &AltStack, action: &Action) -> Result<usize> {
    let sp = regs.rsp as usize;
    let wants_alt = action.flags().contains(ActionFlags::ONSTACK);
    if wants_alt && alt.size > 0 && !alt.holds(sp) {
        return alt.base.checked_add(alt.size).ok_or(Error::BadAddress);
    }
    sp.checked_sub(RED_ZONE).ok_or(Error::BadAddress)
}

fn save(me: &Thread, regs: &UserRegs, fp: usize, mask: SigSet) -> SigContext {
    let trap = *me.signals.trap.lock();
    SigContext {
        r8: regs.r8,
        r9: regs.r9,
        r10: regs.r10,
        r11: regs.r11,
        r12: regs.r12,
        r13: regs.r13,
        r14: regs.r14,
        r15: regs.r15,
        rdi: regs.rdi,
        rsi: regs.rsi,
        rbp: regs.rbp,
        rbx: regs.rbx,
        rdx: regs.rdx,
        rax: regs.rax,
        rcx: regs.rcx,
        rsp: regs.rsp,
        rip: regs.rip,
        rflags: regs.rflags,
        cs: USER_CS,
        gs: 0,
        fs: 0,
        ss: USER_SS,
        error: trap.error,
        trap: trap.number,
        old_mask: mask.0,
        cr2: trap.addr,
        fpstate: fp as u64,
        reserved: [0; 8],
    }
}

/// Writes the floating-point state to `fp`, with Linux's notes about it.
fn save_fpu(fp: usize, size: usize) -> Result<()> {
    thread::fpu_push(fp, note(size, thread::fpu_features()))?;
    if size > FXSAVE_SIZE {
        user::write_value(fp + size, &MAGIC2)?;
    }
    Ok(())
}

/// The note that tells readers how large the image is and what it can hold.
fn note(size: usize, features: u64) -> [u64; 6] {
    // Without a header there is no XSAVE: a plain image carries no note.
    if size == FXSAVE_SIZE {
        return [0; 6];
    }
    let extended = (size + size_of::<u32>()) as u64;
    [
        u64::from(MAGIC1) | extended << 32,
        features,
        size as u64,
        0,
        0,
        0,
    ]
}

fn describe(alt: &AltStack, sp: usize) -> Stack {
    let mut flags = match alt.size {
        0 => SS_DISABLE,
        _ if alt.holds(sp) => SS_ONSTACK,
        _ => 0,
    };
    if alt.autodisarm {
        flags |= SS_AUTODISARM;
    }
    Stack {
        base: alt.base as u64,
        flags,
        pad: 0,
        size: alt.size as u64,
    }
}

/// Restores what the frame at the program's stack pointer holds; the mask to set.
///
/// # Errors
/// The frame cannot be read, or holds what no program can have.
pub(super) fn pop(me: &Thread, regs: &mut UserRegs) -> Result<SigSet> {
    // The restorer's call has taken its own address off the stack.
    let uc: UContext = user::read_value(regs.rsp as usize)?;
    let c = &uc.context;
    if !addr::is_user_range(c.rip as usize, 1) {
        return Err(Error::BadAddress);
    }
    load_fpu(c.fpstate as usize)?;
    *regs = UserRegs {
        r8: c.r8,
        r9: c.r9,
        r10: c.r10,
        r11: c.r11,
        r12: c.r12,
        r13: c.r13,
        r14: c.r14,
        r15: c.r15,
        rdi: c.rdi,
        rsi: c.rsi,
        rbp: c.rbp,
        rbx: c.rbx,
        rdx: c.rdx,
        rax: c.rax,
        rcx: c.rcx,
        rsp: c.rsp,
        rip: c.rip,
        rflags: regs.rflags & !FLAGS_SETTABLE | c.rflags & FLAGS_SETTABLE,
        orig_rax: u64::MAX,
        ..*regs
    };
    // A stack that was disarmed for the handler is back.
    me.signals.set_alt_stack(AltStack {
        base: uc.stack.base as usize,
        size: match uc.stack.flags & SS_DISABLE {
            0 => uc.stack.size as usize,
            _ => 0,
        },
        autodisarm: uc.stack.flags & SS_AUTODISARM != 0,
    });
    Ok(SigSet(uc.mask))
}

/// Loads floating-point state from the program's memory; 0 for a fresh one.
fn load_fpu(fp: usize) -> Result<()> {
    if fp == 0 {
        thread::fpu_reset();
        return Ok(());
    }
    let size = thread::fpu_size();
    if size > FXSAVE_SIZE {
        let at = fp.checked_add(SOFTWARE_AT).ok_or(Error::BadAddress)?;
        let [magic, _, _, _, said]: [u32; 5] = user::read_value(at)?;
        let whole = magic == MAGIC1
            && said as usize == size
            && user::read_value::<u32>(fp.saturating_add(size))? == MAGIC2;
        if !whole {
            return load_plain(fp);
        }
    }
    Ok(thread::fpu_pop(fp)?)
}

/// Loads a plain image: x87 and SSE from it, the rest as after a reset.
#[cold]
fn load_plain(fp: usize) -> Result<()> {
    let mut image = [0; FXSAVE_SIZE];
    user::read(fp, &mut image)?;
    match thread::fpu_load(&image) {
        true => Ok(()),
        false => Err(Error::Invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_programs_look_for_them() {
        use core::mem::offset_of;
        assert_eq!(size_of::<SigContext>(), 256);
        assert_eq!(size_of::<UContext>(), 304);
        assert_eq!(size_of::<Frame>(), 440);
        // What glibc calls REG_RIP, REG_RSP and REG_CR2, counted from gregs[0].
        assert_eq!(offset_of!(UContext, context), 40);
        assert_eq!(offset_of!(SigContext, rip) / 8, 16);
        assert_eq!(offset_of!(SigContext, rsp) / 8, 15);
        assert_eq!(offset_of!(SigContext, cr2) / 8, 22);
        assert_eq!(offset_of!(SigContext, fpstate), 184);
        assert_eq!(offset_of!(UContext, mask), 296);
    }

    #[test]
    fn the_note_tells_size_and_features() {
        let words = note(832, 7);
        let bytes = words.as_bytes();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4)), (MAGIC1, 836));
        assert_eq!((word(8), word(16)), (7, 832));
        assert_eq!(note(FXSAVE_SIZE, 3), [0; 6]);
    }
}
