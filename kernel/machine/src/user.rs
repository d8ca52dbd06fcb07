//! Copies from and to the memory of the running thread's program.
//!
//! An address is a number until a copy has succeeded. Every function checks that
//! the range lies in user space, resolves page faults through
//! [`crate::thread::Hooks::page_fault`] (so it may sleep), and reports
//! [`Fault`] where that is refused. Never call one with a spin lock held.

use crate::addr::{PAGE_SIZE, USER_END, is_user_range};
use crate::arch;
use crate::error::Fault;
use crate::frame::Frame;
use crate::paging::Access;
use core::mem::MaybeUninit;
use core::slice;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Copies `dst.len()` bytes from `src`.
///
/// # Errors
/// [`Fault`]; part of `dst` may have been written.
#[inline]
pub fn read(src: usize, dst: &mut [u8]) -> Result<(), Fault> {
    match read_partial(src, dst) {
        n if n == dst.len() => Ok(()),
        _ => Err(Fault),
    }
}

/// Copies to `dst`.
///
/// # Errors
/// [`Fault`]; part of the target may have been written.
#[inline]
pub fn write(dst: usize, src: &[u8]) -> Result<(), Fault> {
    match write_partial(dst, src) {
        n if n == src.len() => Ok(()),
        _ => Err(Fault),
    }
}

/// Copies from `src` as far as it can; bytes copied.
#[inline]
pub fn read_partial(src: usize, dst: &mut [u8]) -> usize {
    if !is_user_range(src, dst.len()) {
        return 0;
    }
    arch::copy_from_user(src, dst)
}

/// Copies to `dst` as far as it can; bytes copied.
#[inline]
pub fn write_partial(dst: usize, src: &[u8]) -> usize {
    if !is_user_range(dst, src.len()) {
        return 0;
    }
    arch::copy_to_user(dst, src)
}

/// Writes `len` zero bytes.
///
/// # Errors
/// [`Fault`]; part of the target may have been written.
pub fn zero(mut dst: usize, mut len: usize) -> Result<(), Fault> {
    const ZEROS: [u8; 256] = [0; 256];
    while len > 0 {
        let n = len.min(ZEROS.len());
        write(dst, &ZEROS[..n])?;
        (dst, len) = (dst + n, len - n);
    }
    Ok(())
}

/// Reads a value.
///
/// # Errors
/// [`Fault`].
#[inline]
pub fn read_value<T: FromBytes + IntoBytes>(src: usize) -> Result<T, Fault> {
    let mut v = T::new_zeroed();
    read(src, v.as_mut_bytes())?;
    Ok(v)
}

/// Writes a value.
///
/// # Errors
/// [`Fault`].
#[inline]
pub fn write_value<T: IntoBytes + Immutable>(dst: usize, value: &T) -> Result<(), Fault> {
    write(dst, value.as_bytes())
}

/// Reads a NUL-terminated string into `buf`; its length without the NUL, or
/// `None` if no NUL is among the first `buf.len()` bytes.
///
/// # Errors
/// [`Fault`] if memory ends before the NUL.
pub fn read_cstr(src: usize, buf: &mut [u8]) -> Result<Option<usize>, Fault> {
    // SAFETY: `buf` has that many bytes.
    unsafe { string(src, buf.as_mut_ptr(), buf.len()) }
}

/// Room for a short string of a program, which is not cleared before it is used.
pub struct Text<const N: usize>(MaybeUninit<[u8; N]>);

impl<const N: usize> Text<N> {
    /// Room for `N` bytes, the NUL included.
    #[inline]
    #[must_use]
    pub const fn new() -> Text<N> {
        Text(MaybeUninit::uninit())
    }

    /// As [`read_cstr`], with the string itself.
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn read(&mut self, src: usize) -> Result<Option<&[u8]>, Fault> {
        let at = self.0.as_mut_ptr().cast::<u8>();
        // SAFETY: there are `N` bytes.
        let len = unsafe { string(src, at, N) }?;
        // SAFETY: the string's bytes, and the NUL behind them, have just been written.
        Ok(len.map(|n| unsafe { slice::from_raw_parts(at, n) }))
    }
}

impl<const N: usize> Default for Text<N> {
    #[inline]
    fn default() -> Self {
        Text::new()
    }
}

/// As [`read_cstr`].
///
/// # Safety
/// `buf` has `max` bytes of ours.
#[inline]
unsafe fn string(src: usize, buf: *mut u8, max: usize) -> Result<Option<usize>, Fault> {
    let room = USER_END.checked_sub(src).ok_or(Fault)?;
    // SAFETY: the caller's; no more is read than there is user space.
    match unsafe { arch::str_from_user(src, buf, max.min(room)) }? {
        None if room < max => Err(Fault),
        len => Ok(len),
    }
}

/// Loads an aligned 32-bit word atomically (`futex`).
///
/// # Errors
/// [`Fault`], also for an unaligned address.
pub fn load_u32(addr: usize) -> Result<u32, Fault> {
    check_word(addr)?;
    arch::user_load_u32(addr)
}

/// Replaces the aligned word at `addr` with `new` if it is `old`, atomically;
/// the value found.
///
/// # Errors
/// [`Fault`], also for an unaligned address.
pub fn compare_exchange_u32(addr: usize, old: u32, new: u32) -> Result<u32, Fault> {
    check_word(addr)?;
    arch::user_cmpxchg_u32(addr, old, new)
}

/// The frame of the page at `addr`, whose start it is, for a device that reads it, or
/// with [`Access::WRITE`] writes it. The page is brought in, made the program's own
/// and, to be written, marked so. It stays mapped or not as the program likes; the
/// frame stays as long as the reference.
///
/// # Errors
/// [`Fault`], also where the program may not do what the device is to do.
pub fn page(addr: usize, access: Access) -> Result<Frame, Fault> {
    /// Other threads may unmap and share pages as fast as they are brought in.
    const TRIES: usize = 16;
    if !addr.is_multiple_of(PAGE_SIZE) {
        return Err(Fault);
    }
    for _ in 0..TRIES {
        let word = load_u32(addr)?;
        if access.contains(Access::WRITE) {
            // A write that changes nothing: it copies a shared page.
            compare_exchange_u32(addr, word, word)?;
        }
        let mapping = arch::user_mapping(addr);
        if let Some(m) = mapping.filter(|m| m.access.contains(access)) {
            return Ok(m.frame);
        }
    }
    Err(Fault)
}

fn check_word(addr: usize) -> Result<(), Fault> {
    (addr.is_multiple_of(4) && is_user_range(addr, 4))
        .then_some(())
        .ok_or(Fault)
}
