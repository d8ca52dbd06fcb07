//! Page size, address ranges and rounding.

/// Bytes in a page and in a frame.
pub const PAGE_SIZE: usize = 4096;
/// `log2` of [`PAGE_SIZE`].
pub const PAGE_SHIFT: usize = 12;
/// Bytes in a huge page.
pub const HUGE_PAGE_SIZE: usize = 2 << 20;
/// First address a program may map (the pages below catch null pointers).
pub const USER_START: usize = 0x1_0000;
/// End of the addresses a program may map: one page short of 2^47, because a
/// `syscall` as the last instruction before a non-canonical address would fault
/// in the kernel (Intel SDM vol. 2B, SYSRET).
pub const USER_END: usize = 0x7fff_ffff_f000;

/// `addr` rounded down to a page.
#[must_use]
pub const fn page_floor(addr: usize) -> usize {
    addr & !(PAGE_SIZE - 1)
}

/// `addr` rounded up to a page, or `None` past the end of the address space.
#[must_use]
pub const fn page_ceil(addr: usize) -> Option<usize> {
    match addr.checked_add(PAGE_SIZE - 1) {
        Some(a) => Some(page_floor(a)),
        None => None,
    }
}

/// Whether `addr..addr + len` lies wholly in user space.
#[must_use]
pub const fn is_user_range(addr: usize, len: usize) -> bool {
    match addr.checked_add(len) {
        Some(end) => end <= USER_END,
        None => false,
    }
}
