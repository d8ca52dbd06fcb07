//! A QR code, as squares of pixels.

use alloc::vec;
use alloc::vec::Vec;
use qrcodegen_no_heap::{QrCode, QrCodeEcc, Version};

/// The largest code that is made: 57 squares, for 150 characters and more.
const VERSION_MAX: Version = Version::new(10);
/// Light squares that must be around a code.
pub(crate) const QUIET: usize = 4;

/// A code: dark squares are set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Code {
    size: usize,
    dark: Vec<bool>,
}

impl Code {
    /// The code of `text`; `None` if that is too long.
    pub(crate) fn new(text: &str) -> Option<Code> {
        let mut work = vec![0; VERSION_MAX.buffer_len()];
        let mut out = vec![0; VERSION_MAX.buffer_len()];
        // The least, and more where it fits: a screen does not get dirty, and a terminal is small.
        let level = QrCodeEcc::Low;
        let code = QrCode::encode_text(
            text,
            &mut work,
            &mut out,
            level,
            Version::MIN,
            VERSION_MAX,
            None,
            true,
        );
        let code = code.ok()?;
        let side = 0..code.size();
        let dark = side
            .clone()
            .flat_map(|y| side.clone().map(move |x| (x, y)))
            .map(|(x, y)| code.get_module(x, y))
            .collect();
        let size = usize::try_from(code.size()).ok()?;
        Some(Code { size, dark })
    }

    /// Squares along a side, the light ones around it included.
    pub(crate) fn side(&self) -> usize {
        self.size + 2 * QUIET
    }

    /// Whether the square there is dark.
    pub(crate) fn is_dark(&self, x: usize, y: usize) -> bool {
        let inside = |n: usize| n.checked_sub(QUIET).filter(|n| *n < self.size);
        match (inside(x), inside(y)) {
            (Some(x), Some(y)) => self.dark.get(y * self.size + x).is_some_and(|d| *d),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_three_eyes_and_a_quiet_zone() {
        let code = Code::new("http://192.0.2.10:8080/").unwrap();
        assert_eq!(code.side(), 25 + 2 * QUIET);
        let last = QUIET + code.size - 1;
        for (x, y) in [(QUIET, QUIET), (last, QUIET), (QUIET, last)] {
            assert!(code.is_dark(x, y));
        }
        assert!(!code.is_dark(0, QUIET) && !code.is_dark(code.side(), QUIET));
        // The ring of light around the dark middle of an eye.
        assert!(!code.is_dark(QUIET + 1, QUIET + 1) && code.is_dark(QUIET + 3, QUIET + 3));
    }

    #[test]
    fn too_long_a_text_has_none() {
        assert_eq!(Code::new(&"x".repeat(1000)), None);
    }
}
