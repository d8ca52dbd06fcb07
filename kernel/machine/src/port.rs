//! Registers of devices behind I/O ports.

use crate::arch;

/// A range of ports that one device answers at. Accesses outside of it are not
/// made: reads give all ones, as a bus without an answer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    base: u16,
    len: u16,
}

macro_rules! access {
    ($read:ident, $write:ident, $port_read:ident, $port_write:ident, $t:ty) => {
        /// Reads a register; all ones if it is outside.
        #[must_use]
        pub fn $read(&self, offset: u16) -> $t {
            match self.at(offset, size_of::<$t>() as u16) {
                Some(port) => arch::$port_read(port),
                None => <$t>::MAX,
            }
        }

        /// Writes a register, unless it is outside.
        pub fn $write(&self, offset: u16, value: $t) {
            if let Some(port) = self.at(offset, size_of::<$t>() as u16) {
                arch::$port_write(port, value);
            }
        }
    };
}

impl Ports {
    /// The `len` ports from `base` on, which are a device's own; `None` if they go
    /// beyond the last port.
    pub(crate) fn new(base: u16, len: u16) -> Option<Ports> {
        base.checked_add(len.checked_sub(1)?)?;
        Some(Ports { base, len })
    }

    /// A single port that is a device's own.
    pub(crate) const fn one(port: u16) -> Ports {
        Ports { base: port, len: 1 }
    }

    /// How many ports.
    #[must_use]
    pub fn len(&self) -> u16 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn at(&self, offset: u16, size: u16) -> Option<u16> {
        let end = offset.checked_add(size)?;
        (end <= self.len).then(|| self.base + offset)
    }

    access!(read_u8, write_u8, port_read_u8, port_write_u8, u8);
    access!(read_u16, write_u16, port_read_u16, port_write_u16, u16);
    access!(read_u32, write_u32, port_read_u32, port_write_u32, u32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_reached() {
        let ports = Ports::new(0x660, 0x20).unwrap();
        assert_eq!(ports.at(0x1f, 1), Some(0x67f));
        assert_eq!(ports.at(0x1e, 2), Some(0x67e));
        assert_eq!(ports.at(0x1f, 2), None);
        assert_eq!(ports.at(u16::MAX, 2), None);
        assert_eq!(Ports::new(0xfff0, 0x10).unwrap().at(0xf, 1), Some(0xffff));
        assert!(Ports::new(0xfff0, 0x11).is_none() && Ports::new(1, 0).is_none());
    }
}
