//! What controllers and namespaces say of themselves (NVM Express Base 1.4, 5.15 and
//! 5.14.1.2), checked.

use alloc::string::String;
use machine::addr::PAGE_SIZE;
use machine::block::SECTOR;

/// What to identify (CNS).
pub(crate) const NAMESPACE: u32 = 0x00;
pub(crate) const CONTROLLER: u32 = 0x01;
/// Identifiers of the namespaces that are there, in order.
pub(crate) const NAMESPACE_LIST: u32 = 0x02;

/// A page of data that the controller wrote.
pub(crate) struct Data<'a>(pub(crate) &'a [u8]);

impl Data<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let part = self.0.get(at..).and_then(|rest| rest.first_chunk());
        part.copied().unwrap_or([0; N])
    }

    pub(crate) fn u8(&self, at: usize) -> u8 {
        let [byte] = self.bytes(at);
        byte
    }

    pub(crate) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// A number of 128 bits, or the most that 64 can say.
    pub(crate) fn saturated(&self, at: usize) -> u64 {
        u64::try_from(u128::from_le_bytes(self.bytes(at))).unwrap_or(u64::MAX)
    }

    /// A text that is padded with spaces.
    fn text(&self, at: usize, len: usize) -> String {
        let bytes = self.0.get(at..at + len).unwrap_or_default();
        let printable = |b: &u8| match *b {
            b @ b' '..=b'~' => char::from(b),
            _ => ' ',
        };
        let text: String = bytes.iter().map(printable).collect();
        String::from(text.trim())
    }
}

/// Pages of a transfer, whatever the controller can: the list of them then takes a
/// quarter of a page.
pub(crate) const PAGES_MAX: usize = 128;

/// What a controller says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControllerInfo {
    pub(crate) serial: String,
    pub(crate) model: String,
    pub(crate) firmware: String,
    /// Most pages of a transfer.
    pub(crate) pages_max: usize,
    /// Namespaces are numbered to here.
    pub(crate) namespaces: u32,
    pub(crate) has_discard: bool,
    pub(crate) has_zeroes: bool,
    /// There is a cache to flush.
    pub(crate) has_cache: bool,
}

impl ControllerInfo {
    pub(crate) fn decode(data: &Data<'_>) -> ControllerInfo {
        let transfer = data.u8(77);
        let commands = data.u16(520);
        ControllerInfo {
            serial: data.text(4, 20),
            model: data.text(24, 40),
            firmware: data.text(64, 8),
            // 2^n of the least pages, which are of 4 KiB here; 0: any length.
            pages_max: match transfer {
                0 => PAGES_MAX,
                n => 1usize
                    .checked_shl(n.into())
                    .map_or(PAGES_MAX, |p| p.clamp(1, PAGES_MAX)),
            },
            namespaces: data.u32(516),
            has_discard: commands & 1 << 2 != 0,
            has_zeroes: commands & 1 << 3 != 0,
            has_cache: data.u8(525) & 1 != 0,
        }
    }
}

/// The measures of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Its number.
    pub(crate) id: u32,
    /// Sectors of 512 bytes.
    pub(crate) sectors: u64,
    pub(crate) block_len: usize,
    pub(crate) physical_block_len: usize,
    pub(crate) is_read_only: bool,
}

impl Shape {
    /// The shape of namespace `id`; why it cannot be used, in words.
    pub(crate) fn decode(id: u32, data: &Data<'_>) -> Result<Shape, &'static str> {
        let blocks = data.u64(0);
        let format = data.u8(26);
        // Four bits, and two more where there are many formats.
        let index = usize::from(format & 0xf | format >> 1 & 0x30);
        let format_word = data.u32(128 + 4 * index);
        if index > usize::from(data.u8(25)) {
            return Err("its format is not in its list");
        }
        if format_word & 0xffff != 0 {
            return Err("its blocks carry metadata");
        }
        let block_len = match format_word >> 16 & 0xff {
            n @ 9..=12 => 1usize << n,
            _ => return Err("its blocks are of no length that can be used"),
        };
        let per_block = (block_len / SECTOR) as u64;
        let sectors = blocks.checked_mul(per_block).filter(|s| *s > 0);
        let sectors = sectors.ok_or("it has no blocks, or more than can be")?;
        let has_preferences = data.u8(24) & 1 << 4 != 0;
        let preferred = (usize::from(data.u16(64)) + 1) * block_len;
        let physical = if has_preferences && preferred.is_power_of_two() {
            preferred.min(PAGE_SIZE).max(block_len)
        } else {
            block_len
        };
        Ok(Shape {
            id,
            sectors,
            block_len,
            physical_block_len: physical,
            is_read_only: data.u8(99) & 1 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(change: impl Fn(&mut [u8])) -> Result<Shape, &'static str> {
        let mut page = [0; PAGE_SIZE];
        page[..8].copy_from_slice(&1000u64.to_le_bytes());
        page[25] = 1;
        page[26] = 1;
        page[130] = 9;
        page[134] = 12;
        change(&mut page);
        Shape::decode(3, &Data(&page))
    }

    #[test]
    fn shapes_of_namespaces() {
        let large = namespace(|_| ()).unwrap();
        assert_eq!((large.sectors, large.block_len), (8000, 4096));
        let small = namespace(|p| p[26] = 0).unwrap();
        assert_eq!((small.sectors, small.block_len, small.id), (1000, 512, 3));
        let preferred = namespace(|p| {
            p[26] = 0;
            p[24] = 1 << 4;
            p[64] = 7;
        });
        assert_eq!(preferred.unwrap().physical_block_len, 4096);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(namespace(|p| p[26] = 2).is_err());
        assert!(namespace(|p| p[132] = 8).is_err());
        assert!(namespace(|p| p[134] = 13).is_err());
        assert!(namespace(|p| p[134] = 200).is_err());
        assert!(namespace(|p| p[..8].fill(0)).is_err());
        assert!(namespace(|p| p[..8].fill(0xff)).is_err());
        assert!(Shape::decode(1, &Data(&[])).is_err());
    }

    #[test]
    fn a_controller() {
        let mut page = [0; PAGE_SIZE];
        page[4..24].copy_from_slice(b"S1\x00                 ");
        page[77] = 5;
        page[520] = 0b1100;
        page[525] = 1;
        let c = ControllerInfo::decode(&Data(&page));
        assert_eq!((c.serial.as_str(), c.pages_max), ("S1", 32));
        assert!(c.has_discard && c.has_zeroes && c.has_cache);
        for n in [0, 7, 20, 63, 64, 255] {
            page[77] = n;
            assert_eq!(ControllerInfo::decode(&Data(&page)).pages_max, PAGES_MAX);
        }
    }
}
