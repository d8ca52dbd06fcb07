//! What loaders, kernel and image builder agree on about starting a node.
//!
//! A disk carries two *slots*, each with one release of the system ([`release`]), and a
//! record of which of them is to be started ([`state`]); [`disk`] finds them. The loader
//! tells the kernel what it started behind the ramdisk ([`handover`]), and the TPM
//! ([`measured`]). A release's ramdisk may be packed ([`packed`]); the kernel unpacks it.
//!
//! All of it is fixed layouts of little-endian numbers, because half of the readers are
//! loaders, with hardly a heap.

pub mod disk;
pub mod handover;
pub mod measured;
pub mod packed;
pub mod release;
pub mod state;

pub use handover::Handover;
pub use release::{Release, ReleaseError};
pub use state::{BootState, Slot};

/// Type of the partition with the boot state, B9D2A0C1-534B-8550-8001-626F6F740000, as on disk.
pub const STATE_TYPE: [u8; 16] = type_guid(1);
/// Type of a partition that is a slot, B9D2A0C1-534B-8550-8002-626F6F740000, as on disk.
pub const SLOT_TYPE: [u8; 16] = type_guid(2);

/// Marks the place of the release key in the UEFI loader's file: the 32 bytes behind it.
pub const LOADER_KEY_MARKER: [u8; 32] = *b"skep: the release key comes next";

/// A GUID of version 8 (RFC 9562: by the maker's own rule), fields in the disk's order.
const fn type_guid(kind: u8) -> [u8; 16] {
    [
        0xc1, 0xa0, 0xd2, 0xb9, 0x4b, 0x53, 0x50, 0x85, 0x80, kind, b'b', b'o', b'o', b't', 0, 0,
    ]
}

/// The CRC-32 of IEEE 802.3, reflected. Bit by bit: what it is taken of is short.
#[must_use]
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ 0xedb8_8320
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

/// Copies `bytes` to `at`; what does not fit is left out, which a layout rules out.
fn put(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = into.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
