//! What a disk says of itself (ACS-3, 7.12), checked.

use alloc::string::String;
use machine::addr::PAGE_SIZE;
use machine::block::SECTOR;

/// Bytes of the answer.
pub(crate) const LEN: usize = 512;

/// A disk's measures and abilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    /// Sectors of 512 bytes.
    pub(crate) sectors: u64,
    pub(crate) block_len: usize,
    pub(crate) physical_block_len: usize,
    /// Addresses of 48 bits.
    pub(crate) is_wide: bool,
    /// Commands that it queues; 0 if it does not.
    pub(crate) queue: u32,
    pub(crate) has_trim: bool,
    pub(crate) has_smart: bool,
}

/// The answer as words.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn word(&self, n: usize) -> u16 {
        let pair = self.0.get(2 * n..).and_then(|rest| rest.first_chunk());
        pair.map_or(0, |p| u16::from_le_bytes(*p))
    }

    fn long(&self, n: usize) -> u64 {
        (0..4)
            .map(|i| u64::from(self.word(n + i)) << (16 * i))
            .sum()
    }

    /// A text, two characters in each word, the first in the high byte.
    fn text(&self, words: core::ops::Range<usize>) -> String {
        let chars = words.flat_map(|n| self.word(n).to_be_bytes());
        let printable = |b: u8| match b {
            b @ b' '..=b'~' => char::from(b),
            _ => ' ',
        };
        let text: String = chars.map(printable).collect();
        String::from(text.trim())
    }

    /// A word whose upper bits say that it means something (01b).
    fn valid(&self, n: usize) -> u16 {
        let word = self.word(n);
        if word >> 14 == 0b01 { word } else { 0 }
    }
}

impl Identity {
    /// Decodes an answer; why the disk cannot be used, in words.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Identity, &'static str> {
        let w = Words(bytes);
        if w.word(0) & 1 << 15 != 0 || w.word(49) & 1 << 9 == 0 {
            return Err("it is no disk that is addressed by blocks");
        }
        let is_wide = w.valid(83) & 1 << 10 != 0;
        let blocks = if is_wide {
            w.long(100)
        } else {
            w.long(60) & 0xfff_ffff
        };
        let sizes = w.valid(106);
        let block_len = if sizes & 1 << 12 != 0 {
            (w.long(117) & 0xffff_ffff) as usize * 2
        } else {
            SECTOR
        };
        if !block_len.is_power_of_two() || !(SECTOR..=PAGE_SIZE).contains(&block_len) {
            return Err("its blocks are of no length that can be used");
        }
        let exponent = if sizes & 1 << 13 != 0 { sizes & 0xf } else { 0 };
        let per_block = (block_len / SECTOR) as u64;
        let sectors = blocks
            .checked_mul(per_block)
            .filter(|s| *s > 0 && blocks < 1 << 48);
        let sectors = sectors.ok_or("it has no blocks, or more than can be")?;
        let has_queue = w.word(76) & 1 << 8 != 0 && w.word(76) != u16::MAX && is_wide;
        let depth = u32::from(w.word(75) & 0x1f) + 1;
        Ok(Identity {
            serial: w.text(10..20),
            firmware: w.text(23..27),
            model: w.text(27..47),
            sectors,
            block_len,
            physical_block_len: block_len << exponent.min(8),
            is_wide,
            queue: if has_queue { depth } else { 0 },
            has_trim: w.word(169) & 1 != 0 && is_wide,
            has_smart: w.word(82) & 1 != 0 && w.word(85) & 1 != 0,
        })
    }

    /// Whether `other` is the same disk with the same measures.
    pub(crate) fn is_same(&self, other: &Identity) -> bool {
        (&self.serial, &self.model, self.sectors, self.block_len)
            == (&other.serial, &other.model, other.sectors, other.block_len)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn set(bytes: &mut [u8], word: usize, value: u16) {
        bytes[2 * word..2 * word + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// The answer of a disk that has everything.
    pub(crate) fn answer(blocks: u64, queue: bool, serial: &str) -> [u8; LEN] {
        let mut b = [0; LEN];
        for (n, pair) in serial.as_bytes().chunks(2).enumerate() {
            let text = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(b' ')]);
            set(&mut b, 10 + n, text);
        }
        set(&mut b, 49, 1 << 9 | 1 << 8);
        set(&mut b, 60, blocks as u16);
        set(&mut b, 75, 31);
        set(&mut b, 76, if queue { 1 << 8 } else { 0 });
        set(&mut b, 82, 1);
        set(&mut b, 83, 1 << 14 | 1 << 10);
        set(&mut b, 85, 1);
        set(&mut b, 100, blocks as u16);
        set(&mut b, 101, (blocks >> 16) as u16);
        set(&mut b, 106, 1 << 14 | 1 << 13 | 3);
        set(&mut b, 169, 1);
        b
    }

    #[test]
    fn a_disk() {
        let i = Identity::decode(&answer(1 << 20, true, "AB1")).unwrap();
        assert_eq!(
            (i.serial.as_str(), i.sectors, i.queue),
            ("AB1", 1 << 20, 32)
        );
        assert_eq!((i.block_len, i.physical_block_len), (512, 4096));
        assert!(i.is_wide && i.has_trim && i.has_smart);
        let mut large = answer(1 << 20, true, "");
        set(&mut large, 106, 1 << 14 | 1 << 12);
        set(&mut large, 117, 2048);
        let large = Identity::decode(&large).unwrap();
        assert_eq!((large.block_len, large.sectors), (4096, 8 << 20));
        assert!(!large.is_same(&i) && i.is_same(&i));
    }

    #[test]
    fn old_disks_and_nonsense() {
        let mut old = answer(1000, true, "");
        set(&mut old, 83, 0);
        let i = Identity::decode(&old).unwrap();
        assert!(!i.is_wide && i.queue == 0 && i.sectors == 1000);
        for (word, value) in [(0, 1 << 15), (49, 0), (103, 0xffff)] {
            let mut bad = answer(1000, true, "");
            set(&mut bad, word, value);
            assert!(Identity::decode(&bad).is_err(), "word {word}");
        }
        let mut odd = answer(1000, true, "");
        set(&mut odd, 106, 1 << 14 | 1 << 12);
        set(&mut odd, 117, 300);
        assert!(Identity::decode(&odd).is_err());
        assert!(Identity::decode(&[]).is_err());
        assert!(Identity::decode(&answer(0, true, "")).is_err());
    }
}
