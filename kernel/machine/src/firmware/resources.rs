//! Virtio devices that are named in the DSDT: `LNRO0005`, with their registers and their
//! interrupt.
//!
//! What a device takes is told by AML, in principle by a program. Virtual machines write it
//! as constants, so it is found by its bytes and no interpreter is needed, as the value
//! that turns the machine off is ([`super::sleep`]). Section numbers are those of ACPI 6.5.

use super::acpi::{u16_at, u32_at};
use crate::irq::Wire;
use crate::virtio::Place;
use alloc::vec::Vec;

/// `Name (_HID, "LNRO0005")` (20.2.5.1, 20.2.3).
const HID: &[u8] = b"\x08_HID\x0dLNRO0005\0";
const ANY_HID: &[u8] = b"\x08_HID";
/// `Name (_CRS, Buffer`.
const CRS: &[u8] = b"\x08_CRS\x11";
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
/// More devices than any machine has.
const DEVICES_MAX: usize = 64;

/// A 32-bit fixed memory range and an extended interrupt (6.4.3.4, 6.4.3.6).
const MEMORY_32_FIXED: u8 = 0x86;
const INTERRUPT: u8 = 0x89;
const LARGE: u8 = 1 << 7;
/// In the interrupt's flags.
const EDGE: u8 = 1 << 1;
const ACTIVE_LOW: u8 = 1 << 2;

/// The devices that the AML of a table names. One that does not say all of it is left out.
pub(crate) fn virtio(aml: &[u8]) -> Vec<Place> {
    let mut found = Vec::new();
    let mut rest = aml;
    while let Some(at) = position(rest, HID) {
        rest = rest.get(at + HID.len()..).unwrap_or_default();
        // Its resources come before the next device's name.
        let end = position(rest, ANY_HID).unwrap_or(rest.len());
        let place = rest.get(..end).and_then(resources).and_then(place);
        if found.len() < DEVICES_MAX {
            found.extend(place);
        }
    }
    found
}

fn position(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|w| w == word)
}

/// The bytes of the buffer that is the device's `_CRS`.
fn resources(device: &[u8]) -> Option<&[u8]> {
    let rest = device.get(position(device, CRS)? + CRS.len()..)?;
    // The two top bits of the package's length tell how many bytes follow them (20.2.4).
    let length_bytes = 1 + usize::from(rest.first()? >> 6);
    let rest = rest.get(length_bytes..)?;
    let (len, skip) = match *rest.first()? {
        BYTE_PREFIX => (usize::from(*rest.get(1)?), 2),
        WORD_PREFIX => (usize::from(u16_at(rest, 1)?), 3),
        _ => return None,
    };
    rest.get(skip..skip + len)
}

/// The first range of memory and the first interrupt in a list of resources (6.4).
fn place(mut list: &[u8]) -> Option<Place> {
    let (mut memory, mut wire) = (None, None);
    while let Some(&tag) = list.first() {
        if tag & LARGE == 0 {
            list = list.get(1 + usize::from(tag & 0b111)..)?;
            continue;
        }
        let len = usize::from(u16_at(list, 1)?);
        let body = list.get(3..3 + len)?;
        match tag {
            MEMORY_32_FIXED => memory = memory.or(Some((u32_at(body, 1)?, u32_at(body, 5)?))),
            INTERRUPT => wire = wire.or(Some(interrupt(body)?)),
            _ => {}
        }
        list = list.get(3 + len..)?;
    }
    let (address, len) = memory?;
    Some(Place {
        address: address.into(),
        len: len as usize,
        wire: wire?,
    })
}

fn interrupt(body: &[u8]) -> Option<Wire> {
    let flags = *body.first()?;
    Some(Wire {
        gsi: u32_at(body, 2)?,
        active_low: flags & ACTIVE_LOW != 0,
        level: flags & EDGE == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    /// As QEMU's microvm writes it.
    fn device(address: u32, gsi: u32) -> Vec<u8> {
        let mut list = vec![MEMORY_32_FIXED, 9, 0, 1];
        list.extend(address.to_le_bytes());
        list.extend(512u32.to_le_bytes());
        list.extend([INTERRUPT, 6, 0, 1, 1]);
        list.extend(gsi.to_le_bytes());
        list.extend([0x79, 0]);
        let mut aml = b"\x5b\x82\x3eVR07".to_vec();
        aml.extend(HID);
        aml.extend(b"\x08_UID\x0a\x07\x08_CCA\x01");
        aml.extend(CRS);
        aml.extend([list.len() as u8 + 3, BYTE_PREFIX, list.len() as u8]);
        aml.extend(list);
        aml
    }

    #[test]
    fn devices_are_found_with_their_interrupts() {
        let mut aml = b"\x08_HID\x0dPNP0501\0\x08_CRS\x11\x02\x0a\x00".to_vec();
        aml.extend(device(0xfeb0_2e00, 47));
        aml.extend(b"\x08_HID\x0cA\xd0\x05\x01");
        aml.extend(device(0xfeb0_2c00, 46));
        let wire = |gsi| Wire {
            gsi,
            active_low: false,
            level: true,
        };
        let place = |address, gsi| Place {
            address,
            len: 512,
            wire: wire(gsi),
        };
        assert_eq!(
            virtio(&aml),
            [place(0xfeb0_2e00, 47), place(0xfeb0_2c00, 46)]
        );
    }

    #[test]
    fn a_device_without_resources_does_not_take_the_next_ones() {
        let mut aml = HID.to_vec();
        aml.extend(b"\x08_HID\x0dPNP0501\0");
        aml.extend(&device(0xfeb0_0000, 5)[7 + HID.len()..]);
        assert!(virtio(&aml).is_empty());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(hits in proptest::collection::vec((0usize..80, any::<u8>()), 0..20), len in 0usize..80) {
            let mut aml = device(0xfeb0_0000, 5);
            for (at, v) in hits {
                if let Some(b) = aml.get_mut(at) {
                    *b = v;
                }
            }
            aml.truncate(len);
            virtio(&aml);
        }
    }
}
