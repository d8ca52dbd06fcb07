//! What a disk is asked and what it answers (SPC-4 and SBC-3, as sticks know them).

use alloc::string::String;
use machine::addr::PAGE_SIZE;
use machine::block::{BlockError, SECTOR};

/// A command, in the form it has inside a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    bytes: [u8; 16],
    len: u8,
}

impl Command {
    fn new<const N: usize>(bytes: [u8; N]) -> Command {
        let mut command = Command {
            bytes: [0; 16],
            len: N as u8,
        };
        for (to, from) in command.bytes.iter_mut().zip(bytes) {
            *to = from;
        }
        command
    }

    /// All of its room, and how many bytes of it count.
    pub(crate) fn bytes(&self) -> (&[u8; 16], u8) {
        (&self.bytes, self.len)
    }
}

/// Bytes that are read of answers.
pub(crate) const INQUIRY_LEN: usize = 36;
pub(crate) const SENSE_LEN: usize = 18;
pub(crate) const CAPACITY_LEN: usize = 8;
pub(crate) const CAPACITY_16_LEN: usize = 32;
/// What other systems ask for: some sticks hang when they are asked for less.
pub(crate) const MODE_LEN: usize = 192;

pub(crate) fn test_unit_ready() -> Command {
    Command::new([0; 6])
}

pub(crate) fn request_sense() -> Command {
    Command::new([0x03, 0, 0, 0, SENSE_LEN as u8, 0])
}

pub(crate) fn inquiry() -> Command {
    Command::new([0x12, 0, 0, 0, INQUIRY_LEN as u8, 0])
}

/// All mode pages, for the header before them.
pub(crate) fn mode_sense() -> Command {
    Command::new([0x1a, 0, 0x3f, 0, MODE_LEN as u8, 0])
}

pub(crate) fn read_capacity() -> Command {
    Command::new([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

pub(crate) fn read_capacity_16() -> Command {
    let len = CAPACITY_16_LEN as u8;
    Command::new([0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, len, 0, 0])
}

pub(crate) fn synchronize_cache() -> Command {
    Command::new([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

/// Reads or writes `count` blocks from `block` on.
pub(crate) fn transfer(is_write: bool, block: u64, count: u32) -> Command {
    let short = u32::try_from(block).ok().zip(u16::try_from(count).ok());
    match short {
        Some((block, count)) => {
            let what = if is_write { 0x2a } else { 0x28 };
            let ([a, b, c, d], [m, n]) = (block.to_be_bytes(), count.to_be_bytes());
            Command::new([what, 0, a, b, c, d, 0, m, n, 0])
        }
        None => {
            let what = if is_write { 0x8a } else { 0x88 };
            let [a, b, c, d, e, f, g, h] = block.to_be_bytes();
            let [k, l, m, n] = count.to_be_bytes();
            Command::new([what, 0, a, b, c, d, e, f, g, h, k, l, m, n, 0, 0])
        }
    }
}

/// What a unit says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inquiry {
    /// A disk that reads and writes blocks.
    pub(crate) is_disk: bool,
    /// Maker and model.
    pub(crate) model: String,
    pub(crate) revision: String,
}

/// Printable ASCII without spaces around it.
fn text(bytes: &[u8]) -> String {
    let printable = bytes.iter().map(|byte| match byte {
        b' '..=b'~' => char::from(*byte),
        _ => ' ',
    });
    let all: String = printable.collect();
    String::from(all.trim())
}

impl Inquiry {
    pub(crate) fn parse(bytes: &[u8]) -> Inquiry {
        // One is connected, and it is a disk, or a disk that knows less.
        let is_disk = matches!(bytes.first(), Some(0 | 0x0e));
        let part = |from: usize, to: usize| text(bytes.get(from..to).unwrap_or_default());
        let (maker, model) = (part(8, 16), part(16, 32));
        let both = alloc::format!("{maker} {model}");
        Inquiry {
            is_disk,
            model: String::from(both.trim()),
            revision: part(32, 36),
        }
    }
}

/// How large a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    pub(crate) blocks: u64,
    pub(crate) block_len: usize,
}

impl Capacity {
    fn new(last: u64, block_len: u32) -> Option<Capacity> {
        let block_len = usize::try_from(block_len).ok()?;
        let is_sound = block_len.is_power_of_two() && (SECTOR..=PAGE_SIZE).contains(&block_len);
        let blocks = last.checked_add(1)?;
        // In bytes it must still be a file's length.
        let bytes = blocks.checked_mul(block_len as u64)?;
        let is_sound = is_sound && i64::try_from(bytes).is_ok();
        is_sound.then_some(Capacity { blocks, block_len })
    }

    /// The answer to the short question; `Ok(None)`: it is too large for it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Capacity>, ()> {
        let [a, b, c, d, e, f, g, h] = *bytes else {
            return Err(());
        };
        let last = u32::from_be_bytes([a, b, c, d]);
        if last == u32::MAX {
            return Ok(None);
        }
        let len = u32::from_be_bytes([e, f, g, h]);
        Capacity::new(u64::from(last), len).map(Some).ok_or(())
    }

    /// The answer to the long question.
    pub(crate) fn parse_16(bytes: &[u8]) -> Option<Capacity> {
        let [a, b, c, d, e, f, g, h, k, l, m, n, ..] = *bytes else {
            return None;
        };
        let last = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Capacity::new(last, u32::from_be_bytes([k, l, m, n]))
    }

    pub(crate) fn sectors(&self) -> u64 {
        self.blocks * (self.block_len / SECTOR) as u64
    }
}

/// Whether the header of the mode pages says that the disk is protected.
pub(crate) fn is_protected(mode: &[u8]) -> bool {
    matches!(mode, [_, _, flags, ..] if flags & 0x80 != 0)
}

/// Why a command failed, in the disk's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sense {
    key: u8,
    code: u8,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Ask once more: it only wanted to tell something.
    Again,
    /// Ask once more a little later: it is getting ready.
    Later,
    /// The medium is gone, or another one.
    Removed,
    /// It has failed so.
    Failed(BlockError),
}

impl Sense {
    /// Reads fixed and descriptor format; anything else says nothing.
    pub(crate) fn parse(bytes: &[u8]) -> Sense {
        let at = |n: usize| bytes.get(n).copied().unwrap_or(0);
        match at(0) & 0x7f {
            0x70 | 0x71 => Sense {
                key: at(2) & 0xf,
                code: at(12),
            },
            0x72 | 0x73 => Sense {
                key: at(1) & 0xf,
                code: at(2),
            },
            _ => Sense::default(),
        }
    }

    /// Whether it only tells that the disk, or the medium in it, is new.
    pub(crate) fn is_news(self) -> bool {
        (self.key, self.code) == (6, 0x28)
    }

    /// What to do about it.
    pub(crate) fn advice(self) -> Advice {
        match (self.key, self.code) {
            // No sense, recovered error.
            (0 | 1, _) => Advice::Again,
            (2, 0x04) => Advice::Later,
            (2, 0x3a) | (6, 0x28 | 0x3a) => Advice::Removed,
            (5, 0x20 | 0x24 | 0x26) => Advice::Failed(BlockError::Unsupported),
            (6, _) | (0xb, _) => Advice::Again,
            (7, _) => Advice::Failed(BlockError::ReadOnly),
            _ => Advice::Failed(BlockError::Failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_are_short_where_they_fit() {
        let (bytes, len) = (transfer(false, 0x0102_0304, 0x0506).bytes, 10);
        assert_eq!(bytes[..len], [0x28, 0, 1, 2, 3, 4, 0, 5, 6, 0]);
        let long = transfer(true, 1 << 32, 8);
        assert_eq!((long.len, long.bytes[0], long.bytes[5]), (16, 0x8a, 1));
        assert_eq!(long.bytes[13], 8);
    }

    #[test]
    fn capacities() {
        let said = [0, 0, 0xff, 0xff, 0, 0, 2, 0];
        let capacity = Capacity::parse(&said).unwrap().unwrap();
        assert_eq!((capacity.blocks, capacity.block_len), (65536, 512));
        let large = [0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0];
        assert_eq!(Capacity::parse(&large), Ok(None));
        for len in [0u32, 1, 256, 1000, 8192, u32::MAX] {
            let [e, f, g, h] = len.to_be_bytes();
            assert!(Capacity::parse(&[0, 0, 0, 9, e, f, g, h]).is_err());
        }
        assert!(Capacity::parse(&said[..7]).is_err());
        let mut said = [0xff; 32];
        [said[8], said[9], said[10], said[11]] = [0, 0, 16, 0];
        assert_eq!(Capacity::parse_16(&said), None);
        said[0] = 0;
        assert_eq!(Capacity::parse_16(&said), None, "too many sectors");
        [said[0], said[1]] = [0, 0];
        assert!(Capacity::parse_16(&said).is_some());
    }

    #[test]
    fn what_a_disk_says_of_itself() {
        let mut said = [b' '; 36];
        said[0] = 0;
        said[8..12].copy_from_slice(b"QEMU");
        said[16..23].copy_from_slice(b"HARDDIS");
        said[23] = 0x1b;
        said[32..35].copy_from_slice(b"2.5");
        let inquiry = Inquiry::parse(&said);
        assert!(inquiry.is_disk);
        assert_eq!(
            (&inquiry.model[..], &inquiry.revision[..]),
            ("QEMU HARDDIS", "2.5")
        );
        said[0] = 5;
        assert!(!Inquiry::parse(&said).is_disk);
        assert!(!Inquiry::parse(&[]).is_disk);
    }

    #[test]
    fn sense_in_both_formats() {
        let mut fixed = [0; 18];
        [fixed[0], fixed[2], fixed[12]] = [0xf0, 3, 0x11];
        let medium_error = Sense::parse(&fixed);
        assert_eq!(medium_error.advice(), Advice::Failed(BlockError::Failed));
        let protected = Sense::parse(&[0x72, 7, 0x27, 0]);
        assert_eq!(protected.advice(), Advice::Failed(BlockError::ReadOnly));
        assert_eq!(Sense::parse(&[0x72, 2, 0x3a, 0]).advice(), Advice::Removed);
        assert_eq!(Sense::parse(&[0x72, 6, 0x29, 0]).advice(), Advice::Again);
        assert_eq!(Sense::parse(&[]).advice(), Advice::Again);
    }

    proptest! {
        #[test]
        fn nothing_a_disk_says_stops_the_parsers(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Inquiry::parse(&bytes);
            let _ = Sense::parse(&bytes).advice();
            let _ = is_protected(&bytes);
            for capacity in [Capacity::parse(&bytes).ok().flatten(), Capacity::parse_16(&bytes)].into_iter().flatten() {
                prop_assert!(capacity.sectors() >= capacity.blocks);
            }
        }
    }
}
