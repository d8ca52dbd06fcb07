//! Physical memory: counted 4 KiB frames over a buddy allocator.
//!
//! A [`Frame`] is a counted reference, like an `Arc`, to one page of memory; the
//! last one to go gives the page back and credits its account. The count lies in
//! a table indexed by frame number ([`Meta`]), so that a page-table entry can own
//! a reference too.
//!
//! What programs see of a frame is shared memory: other CPUs may write it at any
//! time. So no Rust reference to its bytes leaves this room; [`Frame::read`] and
//! [`Frame::write`] copy.

mod buddy;
mod cache;

use crate::account::{self, Account};
use crate::addr::PAGE_SIZE;
use crate::arch;
use crate::error::AllocError;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering};

pub(crate) use buddy::Block;
#[cfg(target_os = "none")]
pub(crate) use buddy::{ORDER_MAX, Run};

/// What is known of each frame of the machine.
#[repr(C)]
pub(crate) struct Meta {
    /// References; 0 for a free frame and for memory that is no frame.
    refs: AtomicU32,
    /// Who pays.
    account: AtomicU16,
    /// [`FREE_HEAD`] with the order in the low byte, [`FIXED`].
    flags: AtomicU16,
}

impl Meta {
    /// Keeps the frame from ever being allocated.
    #[cfg(target_os = "none")]
    pub(crate) fn hold(&self) {
        self.refs.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether anything refers to the frame.
    #[cfg(target_os = "none")]
    pub(crate) fn is_held(&self) -> bool {
        self.refs.load(Ordering::Relaxed) != 0
    }
}

/// First frame of a free block; the low byte is its order.
const FREE_HEAD: u16 = 1 << 8;
/// Part of the boot image: never freed, never writable.
const FIXED: u16 = 1 << 9;

/// A counted reference to one page of physical memory.
#[derive(Debug)]
pub struct Frame {
    number: u32,
}

/// Frames of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Frames that can be allocated at all.
    pub total: usize,
    /// Frames free now.
    pub free: usize,
}

/// Frames only the kernel's own account may take: 1/64 of all, at least 2 MiB of a
/// machine that has 32.
static RESERVE: AtomicUsize = AtomicUsize::new(0);

/// How much memory there is and how much of it is free.
#[must_use]
pub fn stats() -> Stats {
    buddy::stats()
}

/// Frames that programs may still get of those that are free.
#[must_use]
pub fn available() -> usize {
    stats().free.saturating_sub(RESERVE.load(Ordering::Relaxed))
}

/// Whether so little is left that programs get no more of it, not even through what
/// the kernel needs for them (stacks, page tables): the rest is for the kernel's
/// own small objects, whose allocation must not fail.
#[cfg(target_os = "none")]
pub(crate) fn is_short() -> bool {
    buddy::free_about() < RESERVE.load(Ordering::Relaxed) / 2
}

/// Gives the frames of `numbers` to the allocator.
///
/// # Safety
/// They are RAM, mapped, covered by the frame table, and nobody uses them.
pub(crate) unsafe fn add_range(numbers: core::ops::Range<usize>) {
    // SAFETY: passed on.
    unsafe { buddy::add_range(numbers) };
    let total = buddy::total();
    RESERVE.store((total / 64).max((total / 16).min(512)), Ordering::Relaxed);
}

/// Marks the frames of `numbers` as part of the boot image: they hold one
/// reference for ever and are mapped read-only only.
///
/// # Safety
/// They are RAM that nothing ever writes again.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "the host has no boot image")
)]
pub(crate) unsafe fn fix_range(numbers: core::ops::Range<usize>) {
    for n in numbers {
        if let Some(m) = arch::frame_table().get(n) {
            m.refs.store(1, Ordering::Relaxed);
            m.flags.store(FIXED, Ordering::Relaxed);
        }
    }
}

/// A run of frames for the boot image, which programs' memory must not miss.
#[cfg(target_os = "none")]
pub(crate) fn alloc_run(frames: usize) -> Option<Run> {
    Run::alloc(frames, RESERVE.load(Ordering::Relaxed))
}

/// Gives frames of [`fix_range`] to the allocator.
///
/// # Safety
/// As for [`add_range`]: nobody uses them any more.
#[cfg(target_os = "none")]
pub(crate) unsafe fn unfix_range(numbers: core::ops::Range<usize>) {
    for m in numbers.clone().filter_map(|n| arch::frame_table().get(n)) {
        m.refs.store(0, Ordering::Relaxed);
        m.flags.store(0, Ordering::Relaxed);
    }
    // SAFETY: passed on.
    unsafe { add_range(numbers) };
}

fn meta(number: u32) -> &'static Meta {
    &arch::frame_table()[number as usize]
}

/// The count of a page that is no counted frame, for its owner's use; it is 0
/// when the page is allocated and must be 0 again when it is freed.
#[cfg_attr(
    not(target_os = "none"),
    expect(dead_code, reason = "the host has no page tables")
)]
pub(crate) fn spare_count(number: usize) -> &'static AtomicU32 {
    &meta(number as u32).refs
}

impl Frame {
    /// A frame full of zeros, charged to `account`.
    ///
    /// # Errors
    /// The account is at its limit, or memory has run out.
    pub fn zeroed(account: &Account) -> Result<Frame, AllocError> {
        let frame = Self::alloc(account)?;
        // SAFETY: the frame was free, so nothing else refers to its page.
        unsafe { arch::zero_page(frame.ptr()) };
        Ok(frame)
    }

    /// A frame with the bytes of `self`, charged to `account`.
    ///
    /// # Errors
    /// As [`Frame::zeroed`].
    pub fn copied(&self, account: &Account) -> Result<Frame, AllocError> {
        let frame = Self::alloc(account)?;
        // SAFETY: the new frame was free; the old one is kept alive by `self`.
        unsafe { arch::copy_page(frame.ptr(), self.ptr()) };
        Ok(frame)
    }

    /// A frame with whatever bytes it had: the caller overwrites all of it.
    fn alloc(account: &Account) -> Result<Frame, AllocError> {
        account.charge(1)?;
        let spare = if account.id() == 0 {
            0
        } else {
            RESERVE.load(Ordering::Relaxed)
        };
        let Some(number) = cache::take(spare) else {
            account.uncharge(1);
            return Err(AllocError::OutOfMemory);
        };
        let m = meta(number);
        m.account.store(account.id(), Ordering::Relaxed);
        m.refs.store(1, Ordering::Release);
        Ok(Frame { number })
    }

    /// Its number: physical address / page size.
    #[must_use]
    pub fn number(&self) -> usize {
        self.number as usize
    }

    /// Its physical address, as devices see it. Whoever tells a device keeps a
    /// reference until the device is done.
    #[must_use]
    pub fn phys(&self) -> u64 {
        (self.number() * PAGE_SIZE) as u64
    }

    /// References to this frame, mappings included.
    #[must_use]
    pub fn references(&self) -> usize {
        meta(self.number).refs.load(Ordering::Acquire) as usize
    }

    /// Whether it is part of the boot image, which nobody may write.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        meta(self.number).flags.load(Ordering::Relaxed) & FIXED != 0
    }

    /// Copies bytes from `offset` on; how many there were (the page ends).
    pub fn read(&self, offset: usize, out: &mut [u8]) -> usize {
        let start = offset.min(PAGE_SIZE);
        let n = out.len().min(PAGE_SIZE - start);
        // SAFETY: the range lies in the page, which `self` keeps alive.
        unsafe { core::ptr::copy_nonoverlapping(self.ptr().add(start), out.as_mut_ptr(), n) };
        n
    }

    /// Copies bytes to `offset` on; how many fitted. A fixed frame takes none.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> usize {
        let start = offset.min(PAGE_SIZE);
        let n = if self.is_fixed() {
            0
        } else {
            bytes.len().min(PAGE_SIZE - start)
        };
        // SAFETY: the range lies in the page, which `self` keeps alive.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), self.ptr().add(start), n) };
        n
    }

    /// Fills `offset..end` (cut to the page) with zeros.
    pub fn zero(&self, offset: usize, end: usize) {
        let end = if self.is_fixed() {
            0
        } else {
            end.min(PAGE_SIZE)
        };
        if offset < end {
            // SAFETY: the range lies in the page, which `self` keeps alive.
            unsafe { core::ptr::write_bytes(self.ptr().add(offset), 0, end - offset) };
        }
    }

    /// The page, for a copy that is done in assembly or byte by byte; see the
    /// module's note on shared memory.
    pub(crate) fn with_bytes<R>(&self, f: impl FnOnce(&[u8; PAGE_SIZE]) -> R) -> R {
        // SAFETY: the page is mapped and `self` keeps it.
        f(unsafe { &*self.ptr().cast() })
    }

    /// As [`Frame::with_bytes`], to write; `None` for a fixed frame.
    pub(crate) fn with_bytes_mut<R>(&self, f: impl FnOnce(&mut [u8; PAGE_SIZE]) -> R) -> Option<R> {
        if self.is_fixed() {
            return None;
        }
        // SAFETY: the page is mapped and `self` keeps it.
        Some(f(unsafe { &mut *self.ptr().cast() }))
    }

    pub(crate) fn ptr(&self) -> *mut u8 {
        arch::phys_ptr(self.number() * PAGE_SIZE)
    }

    /// Gives the reference away as a bare number, for a page-table entry.
    #[cfg(target_os = "none")]
    pub(crate) fn into_number(self) -> usize {
        ManuallyDrop::new(self).number()
    }

    /// Takes back what [`Frame::into_number`] gave away.
    ///
    /// # Safety
    /// Once for each `into_number`.
    #[cfg(target_os = "none")]
    pub(crate) unsafe fn from_number(number: usize) -> Frame {
        Frame {
            number: number as u32,
        }
    }

    /// A further reference to a frame that a page-table entry keeps alive.
    ///
    /// # Safety
    /// The frame has a reference that outlives this call.
    #[cfg(target_os = "none")]
    pub(crate) unsafe fn another(number: usize) -> Frame {
        meta(number as u32).refs.fetch_add(1, Ordering::Relaxed);
        Frame {
            number: number as u32,
        }
    }
}

/// Frames of a huge page.
pub const HUGE_FRAMES: usize = 512;
/// Of blocks as long as a huge page; they begin where one may.
const HUGE_ORDER: usize = 9;

/// The frames of a huge page: one piece of memory, full of zeros. Each is counted and given back
/// like any other.
#[derive(Debug)]
pub struct HugeFrames {
    first: u32,
}

impl HugeFrames {
    /// All of them, charged to `account`.
    ///
    /// # Errors
    /// The account is at its limit, or there is no such piece left.
    pub fn zeroed(account: &Account) -> Result<HugeFrames, AllocError> {
        // Neither the reserve of the machine nor the last of an account goes into what is only
        // a convenience: single frames are to be had when others ask at the same time.
        if available() < 2 * HUGE_FRAMES {
            return Err(AllocError::OutOfMemory);
        }
        if account.room() < 2 * HUGE_FRAMES {
            return Err(AllocError::OverLimit);
        }
        account.charge(HUGE_FRAMES)?;
        let Some(block) = buddy::Block::alloc(HUGE_ORDER) else {
            account.uncharge(HUGE_FRAMES);
            return Err(AllocError::OutOfMemory);
        };
        let first = (block.leak() / PAGE_SIZE) as u32;
        for number in first..first + HUGE_FRAMES as u32 {
            // SAFETY: the frame was free, so nothing else refers to its page.
            unsafe { arch::zero_page(arch::phys_ptr(number as usize * PAGE_SIZE)) };
            let m = meta(number);
            m.account.store(account.id(), Ordering::Relaxed);
            m.refs.store(1, Ordering::Release);
        }
        Ok(HugeFrames { first })
    }

    /// Their physical address.
    #[cfg(target_os = "none")]
    pub(crate) fn phys(&self) -> u64 {
        u64::from(self.first) * PAGE_SIZE as u64
    }

    /// Each of them, in order.
    pub(crate) fn into_frames(self) -> impl Iterator<Item = Frame> {
        let first = ManuallyDrop::new(self).first;
        (first..first + HUGE_FRAMES as u32).map(|number| Frame { number })
    }
}

impl Drop for HugeFrames {
    fn drop(&mut self) {
        for number in self.first..self.first + HUGE_FRAMES as u32 {
            drop(Frame { number });
        }
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Frame {
        meta(self.number).refs.fetch_add(1, Ordering::Relaxed);
        Frame {
            number: self.number,
        }
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        let m = meta(self.number);
        if m.refs.fetch_sub(1, Ordering::Release) == 1 {
            core::sync::atomic::fence(Ordering::Acquire);
            account::uncharge(m.account.load(Ordering::Relaxed), 1);
            cache::give(self.number);
        }
    }
}

impl PartialEq for Frame {
    fn eq(&self, other: &Frame) -> bool {
        self.number == other.number
    }
}

impl Eq for Frame {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_charged_and_credited() {
        let a = Account::new(2).unwrap();
        let f = Frame::zeroed(&a).unwrap();
        f.write(10, b"hello");
        let g = f.copied(&a).unwrap();
        assert_eq!(Frame::zeroed(&a).unwrap_err(), AllocError::OverLimit);
        let mut b = [0; 5];
        assert_eq!(g.read(10, &mut b), 5);
        assert_eq!(&b, b"hello");
        let h = g.clone();
        drop(g);
        assert_eq!(a.used(), 2);
        drop(h);
        assert_eq!(a.used(), 1);
        drop(f);
        assert_eq!((a.used(), a.peak()), (0, 2));
    }

    #[test]
    fn a_fresh_frame_never_shows_old_bytes() {
        let a = Account::new(64).unwrap();
        for _ in 0..300 {
            let f = Frame::zeroed(&a).unwrap();
            let mut b = [1; 64];
            f.read(100, &mut b);
            assert_eq!(b, [0; 64]);
            f.write(100, &[7; 64]);
        }
    }
}
