//! What the boot path left: the bytes of the ramdisk and their frames.

use machine::Frame;

/// Read-only memory that holds a bundle and stays for ever. The kernel's is the
/// ramdisk (`machine::boot::Ramdisk`); tests bring a vector.
pub trait Medium: Send + Sync {
    /// All of its bytes.
    fn bytes(&self) -> &'static [u8];

    /// The frame that holds the page at byte `offset`, so that programs map it
    /// without a copy. Bytes after the medium's end in its last page may be
    /// anything. `None` unless `offset` is the start of a page inside it.
    fn frame(&self, offset: usize) -> Option<Frame>;
}

#[cfg(target_os = "none")]
impl Medium for machine::boot::Ramdisk {
    fn bytes(&self) -> &'static [u8] {
        machine::boot::Ramdisk::bytes(self)
    }

    fn frame(&self, offset: usize) -> Option<Frame> {
        machine::boot::Ramdisk::frame(self, offset)
    }
}
