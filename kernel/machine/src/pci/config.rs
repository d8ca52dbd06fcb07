//! Configuration space.

use super::Address;
use crate::arch;

/// Vendor ID in the low half, device ID in the high half.
pub(super) const ID: u16 = 0x00;
/// Command in the low half, status in the high half.
pub(super) const COMMAND: u16 = 0x04;
/// Revision, interface, sub-class, class.
pub(super) const CLASS: u16 = 0x08;
/// The third byte is the header type.
pub(super) const HEADER: u16 = 0x0c;
pub(super) const BAR_0: u16 = 0x10;
/// In a bridge: primary, secondary, subordinate bus, latency.
pub(super) const BUSES: u16 = 0x18;
pub(super) const SUBSYSTEM: u16 = 0x2c;
pub(super) const CAPABILITIES: u16 = 0x34;
/// Interrupt line in the low byte, pin in the second.
pub(super) const INTERRUPT: u16 = 0x3c;

/// In the status register: there is a list of capabilities.
pub(super) const HAS_CAPABILITIES: u32 = 1 << 20;

/// The registers of one function, by their offset, which is a multiple of 4.
pub trait ConfigSpace {
    /// Reads a register; all ones if nothing answers.
    fn read(&self, offset: u16) -> u32;
    /// Writes a register.
    fn write(&self, offset: u16, value: u32);
}

/// The configuration space of the machine's function at an address.
#[derive(Clone, Copy, Debug)]
pub struct Function(pub(super) Address);

impl Function {
    /// Reads the byte at `offset`, as a byte: some registers answer to their own
    /// width only.
    #[must_use]
    pub fn read_u8(&self, offset: u16) -> u8 {
        arch::pci_read_part(self.0, offset & 0xfff, 1) as u8
    }

    /// Writes a byte as one.
    pub fn write_u8(&self, offset: u16, value: u8) {
        arch::pci_write_part(self.0, offset & 0xfff, 1, value.into());
    }

    /// Reads the word at `offset`, an even number, as a word.
    #[must_use]
    pub fn read_u16(&self, offset: u16) -> u16 {
        arch::pci_read_part(self.0, offset & 0xffe, 2) as u16
    }

    /// Writes a word as one.
    pub fn write_u16(&self, offset: u16, value: u16) {
        arch::pci_write_part(self.0, offset & 0xffe, 2, value.into());
    }
}

impl ConfigSpace for Function {
    fn read(&self, offset: u16) -> u32 {
        arch::pci_read(self.0, offset & 0xffc)
    }

    fn write(&self, offset: u16, value: u32) {
        arch::pci_write(self.0, offset & 0xffc, value);
    }
}

#[cfg(test)]
pub(super) mod fake {
    use super::ConfigSpace;
    use std::cell::RefCell;
    use std::collections::HashMap;

    /// Registers as plain memory, with masks of the bits that can be written.
    #[derive(Default)]
    pub(crate) struct Fake {
        pub(crate) words: RefCell<HashMap<u16, u32>>,
        pub(crate) writable: HashMap<u16, u32>,
    }

    impl Fake {
        pub(crate) fn set(&self, offset: u16, value: u32) {
            self.words.borrow_mut().insert(offset, value);
        }
    }

    impl ConfigSpace for Fake {
        fn read(&self, offset: u16) -> u32 {
            self.words.borrow().get(&offset).copied().unwrap_or(0)
        }

        fn write(&self, offset: u16, value: u32) {
            let mask = self.writable.get(&offset).copied().unwrap_or(u32::MAX);
            let old = self.read(offset);
            self.set(offset, old & !mask | value & mask);
        }
    }
}
