//! I/O ports.

use x86_64::instructions::port::{PortReadOnly, PortWriteOnly};

/// Reads a byte.
///
/// # Safety
/// Reading `port` has no effect that memory safety rests on.
#[inline]
pub(crate) unsafe fn read_u8(port: u16) -> u8 {
    // SAFETY: the caller's.
    unsafe { PortReadOnly::new(port).read() }
}

/// Writes a byte.
///
/// # Safety
/// Writing `port` has no effect that memory safety rests on.
#[inline]
pub(crate) unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: the caller's.
    unsafe { PortWriteOnly::new(port).write(value) };
}

/// Reads a word.
///
/// # Safety
/// As [`read_u8`].
#[inline]
pub(crate) unsafe fn read_u16(port: u16) -> u16 {
    // SAFETY: the caller's.
    unsafe { PortReadOnly::new(port).read() }
}

/// Writes a word.
///
/// # Safety
/// As [`write_u8`].
#[inline]
pub(crate) unsafe fn write_u16(port: u16, value: u16) {
    // SAFETY: the caller's.
    unsafe { PortWriteOnly::new(port).write(value) };
}

/// Reads a double word.
///
/// # Safety
/// As [`read_u8`].
#[inline]
pub(crate) unsafe fn read_u32(port: u16) -> u32 {
    // SAFETY: the caller's.
    unsafe { PortReadOnly::new(port).read() }
}

/// Writes a double word.
///
/// # Safety
/// As [`write_u8`].
#[inline]
pub(crate) unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: the caller's.
    unsafe { PortWriteOnly::new(port).write(value) };
}
