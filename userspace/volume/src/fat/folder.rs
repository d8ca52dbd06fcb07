//! The entries of a folder: short names, the long ones before them, labels.

use crate::bytes::{array, u8_at, u16_at, u32_at};
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of one entry.
pub(super) const ENTRY_BYTES: usize = 32;

const READ_ONLY_HIDDEN_SYSTEM_LABEL: u8 = 0x0f;
const LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const DELETED: u8 = 0xe5;
/// Stands for a first byte that is 0xe5 indeed.
const NOT_DELETED: u8 = 0x05;
/// Marks the first of the long-name entries, which has the last piece.
const LAST_PIECE: u8 = 0x40;
const UNITS: usize = 13;
const PIECES_MAX: u8 = 20;
/// Windows NT's marks that a short name is in small letters: stem, extension.
const SMALL_STEM: u8 = 0x08;
const SMALL_END: u8 = 0x10;

/// A file or folder in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its long name, or its short one where it has no other.
    pub name: String,
    /// The short name, such as `SKEP~1.TOM`.
    pub short: String,
    /// What it is.
    pub kind: Kind,
    /// Where its content begins.
    pub(super) cluster: u32,
}

/// What an [`Entry`] is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    File {
        /// Its length in bytes.
        len: u32,
    },
    /// A folder.
    Folder,
}

impl Entry {
    /// Whether `name` names it, be it in capitals or not.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name) || self.short.eq_ignore_ascii_case(name)
    }
}

/// What one entry turns out to be.
pub(super) enum Record {
    /// A file or folder.
    Entry(Entry),
    /// The volume's label.
    Label([u8; 11]),
    /// Nothing by itself.
    Nothing,
    /// There are no more.
    End,
}

/// Reads entries in their order and puts long names together.
pub(super) struct Reader {
    /// The pieces so far, in the order of the entries: the last first.
    pieces: Vec<[u16; UNITS]>,
    /// Number of the piece that must come next; 0: the short entry.
    awaited: u8,
    /// Check sum of the short name that the pieces belong to.
    sum: u8,
    /// Whether `awaited` and `sum` mean anything.
    is_within: bool,
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            pieces: Vec::new(),
            awaited: 0,
            sum: 0,
            is_within: false,
        }
    }

    /// Takes the next entry.
    pub(super) fn take(&mut self, raw: &[u8; ENTRY_BYTES]) -> Record {
        let first = u8_at(raw, 0);
        if first == 0 {
            return Record::End;
        }
        let attributes = u8_at(raw, 11) & 0x3f;
        if first != DELETED && attributes == READ_ONLY_HIDDEN_SYSTEM_LABEL {
            self.piece(first, raw);
            return Record::Nothing;
        }
        let long = self.long_name(raw);
        self.is_within = false;
        self.pieces.clear();
        if first == DELETED || first == b'.' {
            return Record::Nothing;
        }
        if attributes & LABEL != 0 {
            return Record::Label(array(raw, 0));
        }
        let short = short_name(raw);
        let high = u32::from(u16_at(raw, 20)) << 16;
        Record::Entry(Entry {
            name: long.unwrap_or_else(|| short.clone()),
            short,
            kind: match attributes & FOLDER {
                0 => Kind::File {
                    len: u32_at(raw, 28),
                },
                _ => Kind::Folder,
            },
            cluster: high | u32::from(u16_at(raw, 26)),
        })
    }

    fn piece(&mut self, first: u8, raw: &[u8; ENTRY_BYTES]) {
        /// Where the 13 UTF-16 units stand in the entry.
        const UNITS_AT: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        let number = first & !LAST_PIECE;
        let sum = u8_at(raw, 13);
        if first & LAST_PIECE != 0 {
            self.pieces.clear();
            self.sum = sum;
            self.is_within = (1..=PIECES_MAX).contains(&number);
        } else {
            self.is_within &= number == self.awaited && sum == self.sum && number > 0;
        }
        if !self.is_within || self.pieces.try_reserve(1).is_err() {
            self.is_within = false;
            return;
        }
        self.awaited = number.saturating_sub(1);
        self.pieces.push(UNITS_AT.map(|at| u16_at(raw, at)));
    }

    /// The long name of the short entry `raw`, if the pieces before it are its.
    fn long_name(&self, raw: &[u8; ENTRY_BYTES]) -> Option<String> {
        let sum = raw.iter().take(11);
        let sum = sum.fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
        if !self.is_within || self.awaited != 0 || sum != self.sum {
            return None;
        }
        let units = self.pieces.iter().rev().flatten().copied();
        let units = units.take_while(|unit| *unit != 0);
        let name = char::decode_utf16(units);
        Some(
            name.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
        )
    }
}

/// `NAME.EXT` out of an entry.
fn short_name(raw: &[u8; ENTRY_BYTES]) -> String {
    let marks = u8_at(raw, 12);
    let part = |from: usize, to: usize, small: u8| -> String {
        let bytes = raw.get(from..to).unwrap_or_default();
        let letters = bytes.iter().enumerate().map(|(index, &byte)| {
            let byte = match (index + from, byte) {
                (0, NOT_DELETED) => DELETED,
                _ => byte,
            };
            let letter = letter(byte);
            match marks & small {
                0 => letter,
                _ => letter.to_ascii_lowercase(),
            }
        });
        let text: String = letters.collect();
        String::from(text.trim_end_matches(' '))
    };
    let (stem, end) = (part(0, 8, SMALL_STEM), part(8, 11, SMALL_END));
    match end.is_empty() {
        true => stem,
        false => alloc::format!("{stem}.{end}"),
    }
}

/// A character of a short name. Which alphabet the upper half is of, the volume does
/// not say.
pub(super) fn letter(byte: u8) -> char {
    match byte {
        0..0x80 => char::from(byte),
        _ => char::REPLACEMENT_CHARACTER,
    }
}
