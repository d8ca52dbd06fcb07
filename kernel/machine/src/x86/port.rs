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

macro_rules! device {
    ($name:ident, $write:ident, $read_port:ident, $write_port:ident, $t:ty) => {
        /// Reads a port of a device that [`crate::port::Ports`] stands for.
        pub(crate) fn $name(port: u16) -> $t {
            // SAFETY: the range was made in this room for a device whose registers
            // do not reach memory.
            unsafe { $read_port(port) }
        }

        /// Writes one.
        pub(crate) fn $write(port: u16, value: $t) {
            // SAFETY: as for reading.
            unsafe { $write_port(port, value) };
        }
    };
}

device!(port_read_u8, port_write_u8, read_u8, write_u8, u8);
device!(port_read_u16, port_write_u16, read_u16, write_u16, u16);
device!(port_read_u32, port_write_u32, read_u32, write_u32, u32);
