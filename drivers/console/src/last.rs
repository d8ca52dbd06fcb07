//! The screen of a kernel that ends.
//!
//! Painted while nothing else runs: from constants and what is on the stack, without a
//! lock and without memory of its own.

use core::fmt::{self, Write};
use machine::framebuffer::Framebuffer;
use machine::panic_screen::{Panic, SHOWN};
use noto_sans_mono_bitmap::{FontWeight, RasterHeight, get_raster, get_raster_width};

const HEIGHT: RasterHeight = RasterHeight::Size20;
const WEIGHT: FontWeight = FontWeight::Regular;
/// A cell's width and height in pixels.
const CELL: (usize, usize) = (get_raster_width(WEIGHT, HEIGHT), HEIGHT as usize);

/// The colours of the terminal that shows the log.
const PAPER: [u8; 3] = [0x15; 3];
const INK: [u8; 3] = [0xf5; 3];
/// The bar at the top, which tells this screen from all others.
const ALARM: [u8; 3] = [0xac, 0x41, 0x42];

/// Paints the last words on the screen.
pub(crate) fn paint(screen: &mut Framebuffer, panic: &Panic<'_>) {
    let size = screen.size();
    let mut page = Page {
        set: |x, y, rgb| screen.set(x, y, rgb),
        columns: size.0 / CELL.0,
        rows: size.1 / CELL.1,
        at: (0, 0),
    };
    page.clear(size);
    page.fill(panic);
}

/// Lines of text, from the top; what does not fit is left out.
struct Page<F: FnMut(usize, usize, [u8; 3])> {
    set: F,
    columns: usize,
    rows: usize,
    /// Column and row of the next character.
    at: (usize, usize),
}

impl<F: FnMut(usize, usize, [u8; 3])> Page<F> {
    fn clear(&mut self, (width, height): (usize, usize)) {
        for y in 0..height {
            let colour = if y < CELL.1 { ALARM } else { PAPER };
            for x in 0..width {
                (self.set)(x, y, colour);
            }
        }
    }

    fn fill(&mut self, panic: &Panic<'_>) {
        let text = panic.text.trim_ascii_start();
        let end = text.iter().position(|b| *b == b'\n').unwrap_or(text.len());
        let (why, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
        let (up, shown) = (panic.up.as_millis(), SHOWN.as_secs());
        self.at = (0, 2);
        self.bytes(b"The kernel of this node has ended, and the node starts again.\n\n");
        // Writing to a page cannot fail.
        let _ = writeln!(self, "Record  {:08x}", panic.id);
        self.bytes(b"Why     ");
        self.bytes(why);
        let _ = writeln!(
            self,
            "\nWhere   CPU {}, {}.{:03} s after the boot",
            panic.cpu,
            up / 1000,
            up % 1000
        );
        let _ = writeln!(
            self,
            "\nThis stays for {shown} seconds. The record is kept until its owner clears it:"
        );
        self.bytes(b"skep status, or /api/v1/crash on the node.\n\n");
        let rows = self.rows.saturating_sub(self.at.1);
        self.bytes(last_lines(rest.trim_ascii(), self.columns, rows));
    }

    fn bytes(&mut self, text: &[u8]) {
        for byte in text {
            self.byte(*byte);
        }
    }

    fn byte(&mut self, byte: u8) {
        if byte == b'\n' {
            self.at = (0, self.at.1 + 1);
            return;
        }
        if self.at.0 >= self.columns {
            self.at = (0, self.at.1 + 1);
        }
        if self.at.1 < self.rows {
            self.draw(if (b' '..=b'~').contains(&byte) {
                byte
            } else {
                b'.'
            });
        }
        self.at.0 += 1;
    }

    fn draw(&mut self, byte: u8) {
        let Some(raster) = get_raster(char::from(byte), WEIGHT, HEIGHT) else {
            return;
        };
        let (left, top) = (self.at.0 * CELL.0, self.at.1 * CELL.1);
        for (y, line) in raster.raster().iter().enumerate() {
            for (x, ink) in line.iter().enumerate() {
                (self.set)(left + x, top + y, mix(*ink));
            }
        }
    }
}

impl<F: FnMut(usize, usize, [u8; 3])> Write for Page<F> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes());
        Ok(())
    }
}

/// The colour of a pixel that is covered with `ink` of 255 parts, as the terminal mixes it.
fn mix(ink: u8) -> [u8; 3] {
    let part = |of: u8, on: u8| {
        let (of, on) = (u32::from(of), u32::from(on));
        ((on * 255 + of.saturating_sub(on) * u32::from(ink)) / 255) as u8
    };
    [
        part(INK[0], PAPER[0]),
        part(INK[1], PAPER[1]),
        part(INK[2], PAPER[2]),
    ]
}

/// The end of `text` that fits so many rows, from the beginning of a line on.
fn last_lines(text: &[u8], columns: usize, rows: usize) -> &[u8] {
    let (mut start, mut used) = (text.len(), 0);
    for line in text.rsplit(|b| *b == b'\n') {
        used += line.len().div_ceil(columns.max(1)).max(1);
        if used > rows {
            break;
        }
        // One more for the new line before what was counted last.
        start = start.saturating_sub(line.len() + usize::from(start < text.len()));
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::vec::Vec;

    const SIZE: (usize, usize) = (40 * CELL.0 + 3, 30 * CELL.1 + 7);

    /// How many pixels of each row of cells are neither paper nor alarm, and how often a
    /// pixel outside of the screen was set.
    fn painted(text: &[u8], size: (usize, usize)) -> (Vec<usize>, usize) {
        let (mut rows, mut outside) = (std::vec![0; size.1 / CELL.1 + 1], 0);
        let mut page = Page {
            set: |x: usize, y: usize, rgb| {
                if x >= size.0 || y >= size.1 {
                    outside += 1;
                } else if rgb != PAPER && rgb != ALARM {
                    rows[y / CELL.1] += 1;
                }
            },
            columns: size.0 / CELL.0,
            rows: size.1 / CELL.1,
            at: (0, 0),
        };
        page.clear(size);
        page.fill(&Panic {
            id: 0x1234,
            text,
            cpu: 1,
            up: Duration::from_millis(1234),
        });
        (rows, outside)
    }

    #[test]
    fn the_record_fills_the_screen_and_no_more() {
        let mut text =
            Vec::from(&b"\nkernel panic: something bad, a/b.rs:1\nstack: 1 2 3\nlog:\n"[..]);
        for _ in 0..200 {
            text.extend_from_slice(b"[   1.000] a line of the log \xff\x1b[2J\n");
        }
        let (rows, outside) = painted(&text, SIZE);
        assert_eq!(outside, 0);
        assert_eq!((rows[0], rows[1]), (0, 0), "the bar and a free line");
        assert!(rows[2] > 0 && rows[29] > 0, "{rows:?}");
        let (rows, outside) = painted(b"", SIZE);
        assert_eq!((outside, rows[29]), (0, 0));
        // A screen with room for the reason and little else.
        let (_, outside) = painted(&text, (320, 7 * CELL.1));
        assert_eq!(outside, 0);
    }

    #[test]
    fn the_last_lines_are_whole() {
        let text = b"one\ntwo three\nfour";
        assert_eq!(last_lines(text, 5, 9), text);
        assert_eq!(last_lines(text, 5, 3), b"two three\nfour");
        assert_eq!(last_lines(text, 5, 2), b"four");
        assert_eq!(last_lines(text, 5, 0), b"");
        assert_eq!(last_lines(b"", 0, 3), b"");
    }

    #[test]
    fn ink_is_mixed_as_the_terminal_does() {
        assert_eq!((mix(0), mix(255)), (PAPER, INK));
    }
}
