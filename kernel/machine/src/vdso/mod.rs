//! What programs need to read the clock without entering the kernel: machine code
//! for user mode, and the page of numbers it reads.
//!
//! A room above wraps [`code()`] in a small ELF image (the vDSO, vdso(7)) and maps
//! that image into every program, directly behind the page of [`data`]. The code
//! finds that page [`CODE_OFFSET`] bytes plus one page before itself, so it lies at
//! that offset in the image.
//!
//! The page is guarded by a sequence counter: odd while the numbers change, so a
//! reader that saw it odd or changed reads again.

mod code;

use crate::addr::PAGE_SIZE;
use crate::frame::Frame;
use crate::sync::{IrqLock, Once};
use crate::{Account, arch, time};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

pub use code::{code, functions};

/// Offset of the code in the image that is mapped for programs.
pub const CODE_OFFSET: usize = 2048;

/// A function of the code.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its name without the prefix `__vdso_`.
    pub name: &'static str,
    /// Where it starts in [`code()`].
    pub offset: usize,
    /// Its length in bytes.
    pub len: usize,
}

/// How user code gets the time.
const ASK_KERNEL: u32 = 0;
const BY_TSC: u32 = 1;

/// The numbers at the start of the page; the code knows the offsets.
#[repr(C)]
struct Data {
    /// Odd while the rest changes.
    sequence: AtomicU32,
    /// [`ASK_KERNEL`] or [`BY_TSC`].
    source: AtomicU32,
    /// The TSC at nanosecond `origin`.
    tsc_base: AtomicU64,
    /// Nanoseconds per tick times 2^32.
    factor: AtomicU64,
    /// Nanoseconds since boot at `tsc_base`.
    origin: AtomicU64,
    /// What UTC is more than the time since boot, in nanoseconds.
    wall_offset: AtomicU64,
    /// 1 if the TSC's companion register holds the CPU's number (`rdtscp`).
    cpu_by_tscp: AtomicU32,
}

/// The clock in terms of the TSC: `(tsc - base) * factor / 2^32 + origin` is
/// nanoseconds since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UserClock {
    pub(crate) base: u64,
    pub(crate) factor: u64,
    pub(crate) origin: u64,
}

static PAGE: Once<Option<Frame>> = Once::new();
/// Who changes the page.
static WRITER: IrqLock<()> = IrqLock::new(());

/// The page that the code reads, to be mapped read-only; `None` without memory.
#[must_use]
pub fn data() -> Option<Frame> {
    let page = PAGE.call_once(|| Frame::zeroed(Account::kernel()).ok());
    publish();
    page.clone()
}

/// Brings the page in line with the clock: after UTC was set, or when another
/// clock took over. Nothing happens before the first call of [`data`].
pub(crate) fn publish() {
    let Some(Some(page)) = PAGE.get() else {
        return;
    };
    const { assert!(size_of::<Data>() <= PAGE_SIZE) };
    // SAFETY: the frame is never freed and is page-aligned; all of its bytes are
    // valid for `Data`, whose fields are atomics, as programs read them meanwhile.
    let data = unsafe { &*page.ptr().cast::<Data>() };
    let _alone = WRITER.lock();
    let sequence = data.sequence.load(Relaxed);
    data.sequence.store(sequence.wrapping_add(1), SeqCst);
    match arch::user_clock() {
        Some(clock) => {
            data.tsc_base.store(clock.base, SeqCst);
            data.factor.store(clock.factor, SeqCst);
            data.origin.store(clock.origin, SeqCst);
            data.source.store(BY_TSC, SeqCst);
        }
        None => data.source.store(ASK_KERNEL, SeqCst),
    }
    let wall = time::wall_offset().cast_unsigned();
    data.wall_offset.store(wall, SeqCst);
    let by_tscp = u32::from(arch::cpu_number_by_tscp());
    data.cpu_by_tscp.store(by_tscp, SeqCst);
    data.sequence.store(sequence.wrapping_add(2), SeqCst);
}

#[cfg(test)]
mod tests;
