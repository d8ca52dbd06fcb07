//! What a node shows on its screen, read back as text.
//!
//! A picture of the screen is cut into the cells of a text terminal, and each cell
//! compared with every character as the node's own terminal would draw it. So a
//! scenario sees what a person would, and nothing that merely is in memory.

use anyhow::{Context as _, Result, ensure};
use os_terminal::{
    DrawTarget, Rgb, Terminal,
    font::{BitmapFont, FontManager as _},
};
use std::{
    cell::RefCell,
    collections::HashMap,
    fs,
    path::Path,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use crate::{Node, code};

/// Characters that are known.
const KNOWN: std::ops::RangeInclusive<char> = ' '..='~';
/// Stands for a cell that shows none of them.
const UNKNOWN: char = '\u{fffd}';
/// Pause between two pictures.
const PAUSE: Duration = Duration::from_millis(250);

/// A picture: red, green, blue of each pixel, row by row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<Rgb>,
}

impl Picture {
    /// Reads a binary PPM of 8 bits for each colour.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("no {}", path.display()))?;
        Self::parse(&bytes)
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut rest = bytes;
        let mut word = || -> Result<&str> {
            let end = rest.iter().position(u8::is_ascii_whitespace);
            let (word, more) = rest.split_at(end.context("the picture is cut short")?);
            rest = &more[1..];
            Ok(std::str::from_utf8(word)?)
        };
        ensure!(word()? == "P6", "not a PPM");
        let (width, height) = (word()?.parse::<usize>()?, word()?.parse::<usize>()?);
        ensure!(word()? == "255", "not 8 bits a colour");
        let (colours, _) = rest.as_chunks::<3>();
        ensure!(
            Some(colours.len()) == width.checked_mul(height),
            "{width}x{height} pixels were promised, {} came",
            colours.len()
        );
        Ok(Self {
            width,
            height,
            pixels: colours.iter().map(|[r, g, b]| (*r, *g, *b)).collect(),
        })
    }

    fn blank(width: usize, height: usize) -> Self {
        Self {
            width,
            height,
            pixels: vec![(0, 0, 0); width * height],
        }
    }

    /// The pixels of the terminal's cell in this column and row.
    fn cell(&self, (column, row): (usize, usize), (width, height): (usize, usize)) -> Vec<Rgb> {
        (row * height..(row + 1) * height)
            .flat_map(|y| {
                let line = y * self.width + column * width;
                self.pixels[line..line + width].iter().copied()
            })
            .collect()
    }

    /// The text of the QR code in it.
    pub fn code(&self) -> Result<String> {
        code::read(self.width, self.height, |x, y| {
            let (red, green, blue) = self.pixels[y * self.width + x];
            red.max(green).max(blue)
        })
    }

    /// What it says, all rows one after the other: a line that is longer than the
    /// screen is wide is whole again.
    pub fn text(&self) -> String {
        let size = BitmapFont.size();
        let known = alphabet(size);
        let (columns, rows) = (self.width / size.0, self.height / size.1);
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (column, row)));
        cells
            .map(|at| known.get(&self.cell(at, size)).copied())
            .map(|found| found.unwrap_or(UNKNOWN))
            .collect()
    }
}

/// A terminal's screen that others can look at.
#[derive(Clone)]
struct Canvas(Rc<RefCell<Picture>>);

impl DrawTarget for Canvas {
    fn size(&self) -> (usize, usize) {
        let picture = self.0.borrow();
        (picture.width, picture.height)
    }

    fn draw_pixel(&mut self, x: usize, y: usize, rgb: Rgb) {
        let mut picture = self.0.borrow_mut();
        let at = y * picture.width + x;
        if let Some(pixel) = picture.pixels.get_mut(at) {
            *pixel = rgb;
        }
    }
}

/// What a terminal shows after `text`.
fn shown(text: &str, width: usize, height: usize) -> Picture {
    let canvas = Canvas(Rc::new(RefCell::new(Picture::blank(width, height))));
    let mut terminal = Terminal::new(canvas.clone(), Box::new(BitmapFont));
    terminal.process(b"\x1b[?25l");
    terminal.process(text.as_bytes());
    terminal.flush();
    let picture = canvas.0.borrow();
    picture.clone()
}

/// How each character looks in a cell of this size.
fn alphabet(size: (usize, usize)) -> HashMap<Vec<Rgb>, char> {
    let text: String = KNOWN.collect();
    // A cell more, so that the line does not end at the edge.
    let picture = shown(&text, (text.len() + 1) * size.0, 2 * size.1);
    let cells = KNOWN.enumerate();
    cells
        .map(|(column, character)| (picture.cell((column, 0), size), character))
        .collect()
}

/// The text of the QR code on the node's screen.
pub fn screen_code(node: &mut Node) -> Result<String> {
    let path = node.serial_path().with_file_name("screen.ppm");
    node.qmp().screendump(&path)?;
    Picture::open(&path)?.code()
}

/// Waits until the node's screen says `words`; all that it says then.
pub fn wait_screen(node: &mut Node, words: &str, timeout: Duration) -> Result<String> {
    let path = node.serial_path().with_file_name("screen.ppm");
    let deadline = Instant::now() + timeout;
    loop {
        node.qmp().screendump(&path)?;
        let text = Picture::open(&path)?.text();
        if text.contains(words) {
            return Ok(text);
        }
        ensure!(
            Instant::now() < deadline,
            "{words:?} did not come on the screen within {timeout:?}; it is in {}",
            path.display()
        );
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_shows_is_read_back() {
        let size = BitmapFont.size();
        let text = "[   1.234] error: no \"ramdisk\" {at} ~all";
        let picture = shown(text, 20 * size.0 + 3, 5 * size.1 + 1);
        assert!(picture.text().starts_with(text));
        assert!(picture.text()[text.len()..].chars().all(|c| c == ' '));
    }

    #[test]
    fn pictures_are_checked() {
        let two = Picture::parse(b"P6\n2 1\n255\n\x01\x02\x03\x04\x05\x06").unwrap();
        assert_eq!(two.pixels, [(1, 2, 3), (4, 5, 6)]);
        for bad in [&b"P5\n1 1\n255\nabc"[..], b"P6\n2 1\n255\nabc", b"P6\n1"] {
            assert!(Picture::parse(bad).is_err());
        }
    }
}
