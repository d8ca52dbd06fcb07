//! Floating-point and vector state of user threads.
//!
//! The kernel itself is built without vector registers, so a user thread's state
//! stays in the CPU through system calls and is exchanged only when the CPU goes
//! to another user thread.

use super::control::features;
use super::usercopy;
use crate::addr::is_user_range;
use crate::error::{AllocError, Fault};
use crate::sync::Once;
use crate::user;
use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Bytes of the legacy region and the header (SDM vol. 1, 13.4).
const LEGACY: usize = 512;
const HEADER: usize = 64;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const XSTATE_BV: usize = 512;

static SIZE: AtomicUsize = AtomicUsize::new(LEGACY + HEADER);
static MXCSR_OK: AtomicUsize = AtomicUsize::new(0xffbf);

/// Asks the CPU for the size of its state. Once, after `control::init`.
pub(super) fn init() {
    if features().xsave {
        // CPUID.(EAX=0DH,ECX=0):EBX: size for what XCR0 enables now.
        let bytes = raw_cpuid::cpuid!(0xd, 0).ebx as usize;
        SIZE.store(bytes.max(LEGACY + HEADER), Relaxed);
    }
    if let Ok(area) = Area::new() {
        area.save();
        let mask = area.word(MXCSR_MASK);
        if mask != 0 {
            MXCSR_OK.store(mask as usize, Relaxed);
        }
    }
}

/// What [`Area::new`] holds, for all.
static INITIAL: Once<Option<Area>> = Once::new();

/// Gives the running program the state after `execve`.
pub(super) fn load_initial() {
    if let Some(area) = INITIAL.call_once(|| Area::new().ok()) {
        area.load();
    }
}

/// Where the notes of software are in the legacy region, and where they end: at the header.
const NOTES: usize = 464;
const NOTE_WORDS: usize = (LEGACY - NOTES) / 8;

/// See [`crate::thread::fpu_push`].
pub(crate) fn fpu_push(image: usize, note: [u64; NOTE_WORDS]) -> Result<(), Fault> {
    if !is_user_range(image, fpu_size()) {
        return Err(Fault);
    }
    // The rest of the header has to be zero, and the processor does not write it.
    let mut words = [0u64; NOTE_WORDS + HEADER / 8];
    words[..NOTE_WORDS].copy_from_slice(&note);
    if !features().xsave {
        // x87 and SSE are there.
        words[NOTE_WORDS] = 3;
    }
    user::write_value(image + NOTES, &words)?;
    usercopy::fpu_to_user(image)
}

/// See [`crate::thread::fpu_pop`].
pub(crate) fn fpu_pop(image: usize) -> Result<(), Fault> {
    if !is_user_range(image, fpu_size()) {
        return Err(Fault);
    }
    usercopy::fpu_from_user(image).inspect_err(|_| load_initial())
}

/// Bytes of an `XSAVE` image.
pub(crate) fn fpu_size() -> usize {
    SIZE.load(Relaxed)
}

/// A save area of one thread.
#[derive(Debug)]
pub(super) struct Area {
    at: NonNull<u8>,
}

// SAFETY: an area is plain memory that its owner alone uses.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

fn layout() -> Option<Layout> {
    Layout::from_size_align(fpu_size(), 64).ok()
}

impl Area {
    /// The state after `execve`: all registers clear, all exceptions masked.
    pub(super) fn new() -> Result<Area, AllocError> {
        let layout = layout().ok_or(AllocError::OutOfMemory)?;
        // SAFETY: the layout has a size.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(AllocError::OutOfMemory)?;
        let area = Area { at };
        area.reset();
        Ok(area)
    }

    fn bytes(&self) -> *mut u8 {
        self.at.as_ptr()
    }

    fn word(&self, at: usize) -> u32 {
        // SAFETY: within the legacy region, aligned.
        unsafe { self.bytes().add(at).cast::<u32>().read() }
    }

    /// As [`Area::new`].
    pub(super) fn reset(&self) {
        // SAFETY: the area has `fpu_size` bytes; the offsets are the legacy region's.
        unsafe {
            self.bytes().write_bytes(0, fpu_size());
            self.bytes().cast::<u16>().write(0x37f);
            self.bytes().add(MXCSR).cast::<u32>().write(0x1f80);
        }
    }

    /// Stores the CPU's registers here.
    #[inline]
    pub(super) fn save(&self) {
        let f = features();
        let p = self.bytes();
        let (lo, hi) = (f.xcr0 as u32, (f.xcr0 >> 32) as u32);
        // SAFETY: the area is large enough for all of XCR0 and 64-byte aligned.
        unsafe {
            if f.xsaveopt {
                core::arch::asm!("xsaveopt64 [{}]", in(reg) p, in("eax") lo, in("edx") hi, options(nostack));
            } else if f.xsave {
                core::arch::asm!("xsave64 [{}]", in(reg) p, in("eax") lo, in("edx") hi, options(nostack));
            } else {
                core::arch::asm!("fxsave64 [{}]", in(reg) p, options(nostack));
            }
        }
    }

    /// Loads the CPU's registers from here.
    #[inline]
    pub(super) fn load(&self) {
        let f = features();
        let p = self.bytes();
        let (lo, hi) = (f.xcr0 as u32, (f.xcr0 >> 32) as u32);
        // SAFETY: the image is valid: made by `reset`, `save` or `accept`.
        unsafe {
            if f.xsave {
                core::arch::asm!("xrstor64 [{}]", in(reg) p, in("eax") lo, in("edx") hi, options(nostack));
            } else {
                core::arch::asm!("fxrstor64 [{}]", in(reg) p, options(nostack));
            }
        }
    }

    /// Copies another thread's saved state.
    pub(super) fn copy_from(&self, other: &Area) {
        // SAFETY: both have `fpu_size` bytes and are different.
        unsafe {
            self.bytes()
                .copy_from_nonoverlapping(other.bytes(), fpu_size())
        };
    }

    /// Copies the saved state out, as far as `out` goes.
    pub(super) fn copy_to(&self, out: &mut [u8]) {
        let n = out.len().min(fpu_size());
        // SAFETY: `n` bytes are in both.
        unsafe { self.bytes().copy_to_nonoverlapping(out.as_mut_ptr(), n) };
        if !features().xsave && n >= LEGACY + HEADER {
            // Without XSAVE the header says: x87 and SSE are there.
            out[XSTATE_BV] = 3;
        }
    }

    /// Takes an image from user memory if loading it cannot fault: no state that
    /// XCR0 does not have, standard format, reserved bytes clear, MXCSR without
    /// reserved bits (SDM vol. 1, 13.8).
    pub(super) fn accept(&self, image: &[u8]) -> bool {
        let full = image.len() >= fpu_size();
        let Some(legacy) = image.get(..LEGACY) else {
            return false;
        };
        let mxcsr = u32::from_le_bytes([legacy[24], legacy[25], legacy[26], legacy[27]]);
        if mxcsr as usize & !MXCSR_OK.load(Relaxed) != 0 {
            return false;
        }
        if full && features().xsave {
            let word = |at: usize| {
                let mut b = [0; 8];
                b.copy_from_slice(&image[at..at + 8]);
                u64::from_le_bytes(b)
            };
            let rest_clear = image[XSTATE_BV + 8..XSTATE_BV + HEADER]
                .iter()
                .all(|b| *b == 0);
            if word(XSTATE_BV) & !features().xcr0 != 0 || !rest_clear {
                return false;
            }
        }
        if !full {
            self.reset();
        }
        let n = if full { fpu_size() } else { LEGACY };
        // SAFETY: the area has at least `n` bytes.
        unsafe { self.bytes().copy_from_nonoverlapping(image.as_ptr(), n) };
        if !full {
            // SAFETY: inside the header; x87 and SSE come from the legacy region.
            unsafe { self.bytes().add(XSTATE_BV).write(3) };
        }
        true
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        if let Some(layout) = layout() {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.bytes(), layout) };
        }
    }
}
