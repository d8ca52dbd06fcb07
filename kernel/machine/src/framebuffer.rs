//! The screen the boot loader left: pixels in memory, nothing more.

use crate::arch;
use bootloader_api::info::{FrameBufferInfo, PixelFormat};
use core::ptr::NonNull;

/// The screen's memory. There is one; who opens it has it alone.
#[derive(Debug)]
pub struct Framebuffer {
    base: NonNull<u8>,
    info: FrameBufferInfo,
}

// SAFETY: the memory is mapped for ever and belongs to this value alone.
unsafe impl Send for Framebuffer {}

impl Framebuffer {
    /// The screen; `None` if the machine has none that the loader set up in a
    /// format we know, or if it was opened before.
    #[must_use]
    pub fn open() -> Option<Framebuffer> {
        arch::take_framebuffer()
    }

    /// The screen whose memory this is, if the format is known.
    ///
    /// # Safety
    /// `info.byte_len` bytes at `base` belong to the value as long as it lives.
    #[cfg(any(test, target_os = "none"))]
    pub(crate) unsafe fn over(base: NonNull<u8>, info: FrameBufferInfo) -> Option<Framebuffer> {
        let known =
            !matches!(info.pixel_format, PixelFormat::Unknown { .. }) || info.bytes_per_pixel == 4;
        let fits = (1..=4).contains(&info.bytes_per_pixel)
            && info.width <= info.stride
            && info
                .stride
                .checked_mul(info.height)
                .and_then(|n| n.checked_mul(info.bytes_per_pixel))
                .is_some_and(|n| n <= info.byte_len);
        (known && fits).then_some(Framebuffer { base, info })
    }

    /// Width and height in pixels.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        (self.info.width, self.info.height)
    }

    /// Sets a pixel to red, green, blue; one outside of the screen is ignored.
    #[inline]
    pub fn set(&mut self, x: usize, y: usize, rgb: [u8; 3]) {
        if x >= self.info.width || y >= self.info.height {
            return;
        }
        let n = self.info.bytes_per_pixel;
        let bytes = encode(self.info.pixel_format, rgb);
        let at = (y * self.info.stride + x) * n;
        // SAFETY: inside the screen, whose lines lie inside the memory (`over`).
        unsafe {
            let p = self.base.as_ptr().add(at);
            if n == 4 && at.is_multiple_of(4) {
                p.cast::<u32>().write_volatile(u32::from_le_bytes(bytes));
            } else {
                for (i, b) in bytes.iter().take(n).enumerate() {
                    p.add(i).write_volatile(*b);
                }
            }
        }
    }
}

/// A pixel's bytes in the order of memory.
fn encode(format: PixelFormat, [r, g, b]: [u8; 3]) -> [u8; 4] {
    match format {
        PixelFormat::Rgb => [r, g, b, 0],
        PixelFormat::Bgr => [b, g, r, 0],
        PixelFormat::Unknown {
            red_position,
            green_position,
            blue_position,
        } => {
            let place = |v: u8, at: u8| u32::from(v).checked_shl(at.into()).unwrap_or(0);
            let word = place(r, red_position) | place(g, green_position) | place(b, blue_position);
            word.to_le_bytes()
        }
        // Shades of grey, by the weights of ITU-R BT.601.
        _ => {
            let grey = (u32::from(r) * 77 + u32::from(g) * 150 + u32::from(b) * 29) >> 8;
            [grey as u8; 4]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn info(bytes_per_pixel: usize, format: PixelFormat) -> FrameBufferInfo {
        FrameBufferInfo {
            byte_len: 5 * 3 * bytes_per_pixel,
            width: 4,
            height: 3,
            pixel_format: format,
            bytes_per_pixel,
            stride: 5,
        }
    }

    #[test]
    fn pixels_go_where_they_belong_and_nowhere_else() {
        for n in [3, 4] {
            let mut memory = vec![0xee_u8; 5 * 3 * n];
            let base = NonNull::new(memory.as_mut_ptr()).unwrap();
            // SAFETY: the vector outlives the last use of the value.
            let mut f = unsafe { Framebuffer::over(base, info(n, PixelFormat::Bgr)) }.unwrap();
            f.set(3, 2, [1, 2, 3]);
            f.set(4, 0, [9; 3]);
            f.set(0, 3, [9; 3]);
            f.set(usize::MAX, usize::MAX, [9; 3]);
            let at = (2 * 5 + 3) * n;
            assert_eq!(memory[at..at + 3], [3, 2, 1]);
            assert_eq!(memory.iter().filter(|b| **b != 0xee).count(), n);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let base = NonNull::dangling();
        let bad = [
            FrameBufferInfo {
                height: 1 << 60,
                ..info(4, PixelFormat::Rgb)
            },
            FrameBufferInfo {
                width: 6,
                ..info(4, PixelFormat::Rgb)
            },
            FrameBufferInfo {
                bytes_per_pixel: 0,
                ..info(4, PixelFormat::Rgb)
            },
            FrameBufferInfo {
                height: 4,
                ..info(4, PixelFormat::Rgb)
            },
        ];
        for i in bad {
            // SAFETY: refused, so never used.
            assert!(unsafe { Framebuffer::over(base, i) }.is_none());
        }
    }

    #[test]
    fn formats() {
        assert_eq!(encode(PixelFormat::Rgb, [1, 2, 3]), [1, 2, 3, 0]);
        assert_eq!(encode(PixelFormat::U8, [255; 3])[0], 255);
        let odd = PixelFormat::Unknown {
            red_position: 0,
            green_position: 16,
            blue_position: 8,
        };
        assert_eq!(encode(odd, [1, 2, 3]), [1, 3, 2, 0]);
    }
}
