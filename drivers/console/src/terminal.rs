//! What is drawn on a terminal at the other end of the serial line: pages of text with a
//! QR code beside it, in the control sequences that every terminal since the VT100 knows.

use crate::code::{Code, QUIET};
use crate::text;
use alloc::format;
use alloc::vec::Vec;

/// The size that terminals have that do not say another; nobody can be asked.
pub(crate) const COLUMNS: usize = 80;
/// Rows of it.
pub(crate) const ROWS: usize = 24;

/// To a page of its own, where the terminal has one, and cleared; back again.
pub(crate) const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[0m\x1b[2J";
/// Ends what [`ENTER`] began.
pub(crate) const LEAVE: &[u8] = b"\x1b[0m\x1b[2J\x1b[H\x1b[?25h\x1b[?1049l";

/// Light squares around the code: less than on a screen, which has more room.
const MARGIN: usize = 2;
/// Black on white, whatever the terminal's colours are, and back.
const CODE_ON: &[u8] = b"\x1b[30;47m";
const CODE_OFF: &[u8] = b"\x1b[0m";

/// The bytes of each row of a page, without what moves the cursor.
pub(crate) fn page(lines: &[impl AsRef<str>], code: Option<&Code>) -> Vec<Vec<u8>> {
    let side = code.map_or(0, |c| c.side() - 2 * (QUIET - MARGIN));
    // A page that has no room for the code is shown without.
    let code = code.filter(|_| side + 1 < COLUMNS && side.div_ceil(2) <= ROWS);
    let row = |number: usize| {
        let line = lines.get(number).map_or("", |line| line.as_ref());
        let beside = code.filter(|_| 2 * number < side);
        let columns = match beside {
            Some(_) => COLUMNS - side - 1,
            None => COLUMNS,
        };
        let mut bytes = Vec::new();
        let cut = line.as_bytes();
        let cut = cut.get(..columns).unwrap_or(cut);
        text::harmless(cut, |piece| bytes.extend_from_slice(piece));
        if let Some(code) = beside {
            bytes.resize(COLUMNS - side, b' ');
            draw_code(code, side, number, &mut bytes);
        }
        bytes
    };
    (0..ROWS).map(row).collect()
}

/// Two rows of the code's squares as one of half blocks.
fn draw_code(code: &Code, side: usize, row: usize, out: &mut Vec<u8>) {
    let skip = QUIET - MARGIN;
    let dark = |x: usize, y: usize| y < side && code.is_dark(x + skip, y + skip);
    out.extend_from_slice(CODE_ON);
    for x in 0..side {
        let block = match (dark(x, 2 * row), dark(x, 2 * row + 1)) {
            (false, false) => " ",
            (true, false) => "\u{2580}",
            (false, true) => "\u{2584}",
            (true, true) => "\u{2588}",
        };
        out.extend_from_slice(block.as_bytes());
    }
    out.extend_from_slice(CODE_OFF);
}

/// What turns `before` into `after` on a terminal: only rows that differ are sent. The
/// cursor stays below the last row that has text.
pub(crate) fn changes(before: &[Vec<u8>], after: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, row) in after.iter().enumerate() {
        if before.get(number) != Some(row) {
            out.extend_from_slice(format!("\x1b[{};1H", number + 1).as_bytes());
            out.extend_from_slice(row);
            // To the end of the line: a row that reaches it is whole, and its last
            // character would be taken away.
            if shown_columns(row) < COLUMNS {
                out.extend_from_slice(b"\x1b[K");
            }
        }
    }
    out
}

/// Columns that a row of [`page`] takes.
fn shown_columns(row: &[u8]) -> usize {
    // Only a row with a part of the code has other bytes than printable ones, and that
    // fills the row.
    if row.contains(&0x1b) {
        COLUMNS
    } else {
        row.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn text_of(row: &[u8]) -> String {
        String::from_utf8(row.to_vec()).unwrap()
    }

    #[test]
    fn the_code_is_at_the_right_and_the_text_beside_it() {
        let code = Code::new("http://10.0.2.15:8080/").unwrap();
        let long = "x".repeat(200);
        let rows = page(&[&long; ROWS], Some(&code));
        assert_eq!(rows.len(), ROWS);
        // 25 squares and two on each side.
        let side = 29;
        for row in rows.iter().take(15) {
            let row = text_of(row);
            let (text, code) = row.split_once("\x1b[30;47m").unwrap();
            assert_eq!(text, format!("{} ", "x".repeat(COLUMNS - side - 1)));
            assert_eq!(code.strip_suffix("\x1b[0m").unwrap().chars().count(), side);
        }
        assert_eq!(rows[15], long.as_bytes()[..COLUMNS]);
        // The first row is the margin, the second has the upper edges of two eyes.
        assert!(!text_of(&rows[0]).contains('\u{2588}'));
        assert!(
            text_of(&rows[1]).contains(&format!("  \u{2588}{}\u{2588} ", "\u{2580}".repeat(5)))
        );
    }

    #[test]
    fn only_rows_that_differ_are_sent() {
        let before = page(&["a", "b", "c"], None);
        let after = page(&["a", "B\x1b[2J", "c"], None);
        assert_eq!(changes(&before, &after), b"\x1b[2;1HB.[2J\x1b[K");
        assert!(changes(&after, &after).is_empty());
        let first = changes(&[], &after);
        assert_eq!(first.iter().filter(|b| **b == b'H').count(), ROWS);
        let full = page(&["x".repeat(COLUMNS)], None);
        assert!(!changes(&[], &full[..1]).ends_with(b"\x1b[K"));
    }
}
