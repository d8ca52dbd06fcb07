//! Where virtio devices are whose registers are memory (virtio 1.2, 4.2), as the firmware
//! or the kernel's command line says.

use crate::arch;
use crate::irq::Wire;
use core::fmt;

/// Registers in memory and the wire of their interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Physical address of the registers.
    pub address: u64,
    /// Their length in bytes, configuration included.
    pub len: usize,
    /// The interrupt.
    pub wire: Wire,
}

/// Why a text names no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceError {
    /// It is not `SIZE@ADDRESS:INTERRUPT[:ID]`.
    Form,
    /// The size is no number, or less than the registers take.
    Size,
    /// The address is no number, or not a multiple of 4, or the registers end beyond what
    /// an address can be.
    Address,
    /// The interrupt is no number below 256.
    Interrupt,
    /// The device's number is none.
    Id,
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PlaceError::Form => "it is not SIZE@ADDRESS:INTERRUPT",
            PlaceError::Size => "its size is not that of a device",
            PlaceError::Address => "no device can be at its address",
            PlaceError::Interrupt => "its interrupt is no number below 256",
            PlaceError::Id => "its last part is no number",
        })
    }
}

/// The registers end here and the configuration begins (4.2.2).
pub(super) const REGISTERS: usize = 0x100;

/// Longer than any device's.
const LEN_MAX: u64 = 1 << 20;

/// What an address is at most.
const ADDRESS_MAX: u64 = 1 << 46;

impl Place {
    /// Reads what Linux documents for `virtio_mmio.device=`
    /// (admin-guide/kernel-parameters): a size, perhaps in `K`, an address, an interrupt,
    /// and perhaps a number, which Linux names the device by and nobody else.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn parse(text: &str) -> Result<Place, PlaceError> {
        let (size, rest) = text.split_once('@').ok_or(PlaceError::Form)?;
        let mut parts = rest.split(':');
        let address = parts.next().ok_or(PlaceError::Form)?;
        let interrupt = parts.next().ok_or(PlaceError::Form)?;
        if let Some(id) = parts.next() {
            number(id).ok_or(PlaceError::Id)?;
        }
        if parts.next().is_some() {
            return Err(PlaceError::Form);
        }
        let len = match size.strip_suffix(['k', 'K']) {
            Some(kib) => number(kib).and_then(|n| n.checked_mul(1024)),
            None => number(size),
        };
        let fits = |len: &u64| (REGISTERS as u64..=LEN_MAX).contains(len);
        let len = len.filter(fits).ok_or(PlaceError::Size)?;
        let reachable = |at: &u64| at.is_multiple_of(4) && *at <= ADDRESS_MAX - len;
        let address = number(address).filter(reachable);
        let irq = number(interrupt).and_then(|n| u8::try_from(n).ok());
        Ok(Place {
            address: address.ok_or(PlaceError::Address)?,
            len: len as usize,
            wire: wire(irq.ok_or(PlaceError::Interrupt)?),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.address)
    }
}

/// The wire of interrupt `irq`: ISA's numbers as the firmware has wired them, pins beyond.
/// A device holds its wire up until the interrupt is acknowledged (4.2.2), whatever the
/// bus does otherwise.
fn wire(irq: u8) -> Wire {
    let gsi = if irq < 16 {
        Wire::isa(irq).gsi
    } else {
        u32::from(irq)
    };
    Wire {
        gsi,
        active_low: false,
        level: true,
    }
}

/// A number as C writes it: decimal, or hexadecimal behind `0x`.
fn number(text: &str) -> Option<u64> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // The library would take a sign.
    let plain = digits.bytes().all(|b| b.is_ascii_alphanumeric());
    u64::from_str_radix(digits, radix).ok().filter(|_| plain)
}

/// The devices that the firmware tells of.
#[must_use]
pub fn told() -> &'static [Place] {
    arch::virtio_places()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_virtual_machines_write() {
        let qemu = Place::parse("512@0xfeb00e00:12").unwrap();
        assert_eq!((qemu.address, qemu.len), (0xfeb0_0e00, 512));
        assert_eq!(
            qemu.wire,
            Wire {
                gsi: 12,
                active_low: false,
                level: true
            }
        );
        let firecracker = Place::parse("4K@0xd0000000:5").unwrap();
        assert_eq!((firecracker.address, firecracker.len), (0xd000_0000, 4096));
        let numbered = Place::parse("0x200@3488612352:255:3").unwrap();
        assert_eq!((numbered.address, numbered.wire.gsi), (0xcff0_0000, 255));
    }

    #[test]
    fn every_mistake_is_told() {
        use PlaceError::{Address, Form, Id, Interrupt, Size};
        for (text, why) in [
            ("", Form),
            ("512", Form),
            ("512@0x1000", Form),
            ("512@0x1000:1:2:3", Form),
            ("x@0x1000:1", Size),
            ("+512@0x1000:1", Size),
            ("255@0x1000:1", Size),
            ("18446744073709551615K@0x1000:1", Size),
            ("2000K@0x1000:1", Size),
            ("512@:1", Address),
            ("512@0xg:1", Address),
            ("512@-4096:1", Address),
            ("512@0x1002:1", Address),
            ("512@0xfffffffffffffffc:1", Address),
            ("512@0x1000:", Interrupt),
            ("512@0x1000:256", Interrupt),
            ("512@0x1000:1:x", Id),
        ] {
            assert_eq!(Place::parse(text), Err(why), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "[0-9a-fxkK@:+-]{0,40}|.*") {
            if let Ok(place) = Place::parse(&text) {
                prop_assert!(place.address + place.len as u64 <= ADDRESS_MAX);
                prop_assert!(place.len >= REGISTERS);
            }
        }
    }
}
