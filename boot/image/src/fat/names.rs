//! Names of files: the short one that every entry has, and the long one before it.

use super::ENTRY_BYTES;
use anyhow::{Result, ensure};

/// UTF-16 units of a name in one long-name entry.
pub(super) const UNITS: usize = 13;
const NAME_MAX: usize = 255;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;

/// The name of one item of a folder.
pub(super) struct Name<'a> {
    /// The short name, filled up with spaces.
    pub(super) short: [u8; 11],
    /// The name itself, where the short one is another.
    long: Option<&'a str>,
}

impl<'a> Name<'a> {
    /// The name of item `number` of its folder: short names must differ in a folder.
    pub(super) fn new(name: &'a str, number: usize) -> Result<Self> {
        let allowed = |c: char| matches!(c, ' '..='~') && !r#""*/:<>?\|"#.contains(c);
        ensure!(
            (1..=NAME_MAX).contains(&name.len())
                && name.chars().all(allowed)
                && !name.ends_with(['.', ' ']),
            "{name:?} cannot be the name of a file on the volume"
        );
        if let Some(short) = exact(name) {
            return Ok(Self { short, long: None });
        }
        ensure!(number < 1000, "too many files in one folder");
        // Nobody looks for it; it only has to be unlike the others.
        let (stem, end) = name.rsplit_once('.').unwrap_or((name, ""));
        let letters = |text: &str| -> Vec<u8> {
            let upper = text.bytes().filter(u8::is_ascii_alphanumeric);
            upper.map(|byte| byte.to_ascii_uppercase()).collect()
        };
        let mut short = [b' '; 11];
        let stem: Vec<u8> = letters(stem).into_iter().take(4).collect();
        let unique = [stem.as_slice(), format!("~{number:03}").as_bytes()].concat();
        for (place, byte) in short.iter_mut().zip(unique) {
            *place = byte;
        }
        for (place, byte) in short[8..].iter_mut().zip(letters(end)) {
            *place = byte;
        }
        Ok(Self {
            short,
            long: Some(name),
        })
    }

    /// Folder entries that an item of this name takes.
    pub(super) fn entries(name: &str) -> usize {
        1 + match exact(name) {
            Some(_) => 0,
            None => name.len().div_ceil(UNITS),
        }
    }

    /// The long-name entries, which go before the short one, the last piece first.
    pub(super) fn long_entries(&self) -> Vec<u8> {
        const LAST: u8 = 0x40;
        let units: Vec<u16> = self.long.unwrap_or_default().encode_utf16().collect();
        let count = units.len().div_ceil(UNITS);
        let mut bytes = Vec::new();
        for (index, piece) in units.chunks(UNITS).enumerate().rev() {
            let last = if index + 1 == count { LAST } else { 0 };
            // At most 20 pieces of 13 units: the length was checked.
            bytes.extend(self.long_entry(last | (index + 1) as u8, piece));
        }
        bytes
    }

    fn long_entry(&self, order: u8, piece: &[u16]) -> [u8; ENTRY_BYTES] {
        /// Where the 13 UTF-16 units stand in the entry.
        const UNITS_AT: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
        let mut entry = [0u8; ENTRY_BYTES];
        entry[0] = order;
        entry[11] = ATTRIBUTE_LONG_NAME;
        entry[13] = self
            .short
            .iter()
            .fold(0u8, |sum, &byte| sum.rotate_right(1).wrapping_add(byte));
        let units = piece.iter().copied();
        let units = units.chain([0]).chain(std::iter::repeat(0xffff));
        for (at, unit) in UNITS_AT.into_iter().zip(units) {
            entry[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry
    }
}

/// The short name, if it says all: capitals and digits, eight and three of them.
fn exact(name: &str) -> Option<[u8; 11]> {
    let (stem, end) = name.split_once('.').unwrap_or((name, ""));
    let plain = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
    };
    let fits = (1..=8).contains(&stem.len()) && end.len() <= 3 && plain(stem) && plain(end);
    if !fits || (end.is_empty() && name.contains('.')) {
        return None;
    }
    let mut short = [b' '; 11];
    short[..stem.len()].copy_from_slice(stem.as_bytes());
    short[8..8 + end.len()].copy_from_slice(end.as_bytes());
    Some(short)
}

#[cfg(test)]
mod tests {
    use super::Name;

    fn short(name: &str) -> String {
        let name = Name::new(name, 7).unwrap();
        String::from_utf8(name.short.to_vec()).unwrap()
    }

    #[test]
    fn capitals_need_no_long_name() {
        assert_eq!(short("BOOTX64.EFI"), "BOOTX64 EFI");
        assert_eq!(Name::entries("BOOTX64.EFI"), 1);
        assert!(Name::new("EFI", 0).unwrap().long_entries().is_empty());
    }

    #[test]
    fn others_have_one_in_as_many_pieces_as_it_takes() {
        assert_eq!(short("skep.toml"), "SKEP~007TOM");
        assert_eq!(Name::entries("boot-stage-3x"), 2);
        assert_eq!(Name::entries("boot-stage-3xy"), 3);
        let entries = Name::new("nginx.manifest", 0).unwrap().long_entries();
        assert_eq!((entries[0], entries[32]), (0x42, 0x01));
        assert_eq!(entries[1..3], [b't', 0]);
    }

    #[test]
    fn names_that_no_computer_could_read_are_refused() {
        for name in ["", "a/b", "a:b", "ends.", "größe", "a\n"] {
            assert!(Name::new(name, 0).is_err(), "{name:?}");
        }
        assert!(Name::new(&"a".repeat(256), 0).is_err());
    }
}
