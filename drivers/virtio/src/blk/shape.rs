//! What a block device says of itself (virtio 1.2, 5.2.3 and 5.2.4), checked.

use machine::addr::PAGE_SIZE;
use machine::block::SECTOR;
use machine::virtio::{Config, VirtioError};

/// Feature bits.
const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_TOPOLOGY: u64 = 1 << 10;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// The features that the driver uses where they are offered.
pub(super) const WANTED: u64 =
    F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_DISCARD | F_WRITE_ZEROES;

/// Data segments of a request, of a page each: what the queue takes beside header
/// and status.
pub(super) const SEGMENTS_MAX: usize = 32;

/// The configuration space, as it is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raw {
    capacity: u64,
    size_max: u32,
    seg_max: u32,
    blk_size: u32,
    physical_exponent: u8,
    discard_max: u32,
    zeroes_max: u32,
}

impl Raw {
    pub(super) fn read(c: &Config<'_>) -> Raw {
        Raw {
            capacity: c.u64(0),
            size_max: c.u32(8),
            seg_max: c.u32(12),
            blk_size: c.u32(20),
            physical_exponent: c.u8(24),
            discard_max: c.u32(36),
            zeroes_max: c.u32(48),
        }
    }
}

/// A device's measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Sectors, in whole blocks.
    pub(super) sectors: u64,
    pub(super) block_len: usize,
    pub(super) physical_block_len: usize,
    /// Pages of a request.
    pub(super) segments_max: usize,
    /// Most sectors of a discard, and of a zeroing: 0 if it cannot.
    pub(super) discard_max: u32,
    pub(super) zeroes_max: u32,
    pub(super) is_read_only: bool,
    /// Without it the device writes through.
    pub(super) has_flush: bool,
}

impl Shape {
    /// The shape of a device with these features.
    ///
    /// # Errors
    /// [`VirtioError::Features`]: it takes less than a page at once, or its blocks
    /// are larger than one.
    pub(super) fn new(features: u64, raw: Raw) -> Result<Shape, VirtioError> {
        let has = |f: u64| features & f != 0;
        let said = |f, value: u32| has(f).then_some(value as usize);
        if said(F_SIZE_MAX, raw.size_max).is_some_and(|max| max < PAGE_SIZE) {
            return Err(VirtioError::Features);
        }
        let block_len = said(F_BLK_SIZE, raw.blk_size).unwrap_or(SECTOR);
        if !block_len.is_power_of_two() || !(SECTOR..=PAGE_SIZE).contains(&block_len) {
            return Err(VirtioError::Features);
        }
        let exponent = if has(F_TOPOLOGY) {
            // Beyond this it is nonsense (32 MiB with sectors).
            raw.physical_exponent.min(16)
        } else {
            0
        };
        let segments = said(F_SEG_MAX, raw.seg_max).unwrap_or(SEGMENTS_MAX);
        let per_block = (block_len / SECTOR) as u64;
        let limit = |f, max: u32| if has(f) { max } else { 0 };
        Ok(Shape {
            sectors: raw.capacity - raw.capacity % per_block,
            block_len,
            physical_block_len: block_len << exponent,
            segments_max: segments.clamp(1, SEGMENTS_MAX),
            discard_max: limit(F_DISCARD, raw.discard_max),
            zeroes_max: limit(F_WRITE_ZEROES, raw.zeroes_max),
            is_read_only: has(F_RO),
            has_flush: has(F_FLUSH),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: Raw = Raw {
        capacity: 1003,
        size_max: 4096,
        seg_max: 254,
        blk_size: 4096,
        physical_exponent: 3,
        discard_max: 7,
        zeroes_max: 9,
    };

    #[test]
    fn fields_count_only_with_their_feature() {
        let plain = Shape::new(0, RAW).unwrap();
        assert_eq!((plain.sectors, plain.block_len), (1003, 512));
        assert_eq!(plain.physical_block_len, 512);
        assert_eq!((plain.discard_max, plain.zeroes_max), (0, 0));
        assert!(!plain.is_read_only && !plain.has_flush);
        let all = Shape::new(WANTED, RAW).unwrap();
        assert_eq!((all.sectors, all.block_len), (1000, 4096));
        assert_eq!(all.physical_block_len, 4096 << 3);
        assert_eq!((all.discard_max, all.zeroes_max), (7, 9));
        assert_eq!(all.segments_max, SEGMENTS_MAX);
    }

    #[test]
    fn nonsense_is_refused_or_cut() {
        let with = |change: fn(&mut Raw)| {
            let mut raw = RAW;
            change(&mut raw);
            Shape::new(WANTED, raw)
        };
        assert!(with(|r| r.size_max = 512).is_err());
        assert!(with(|r| r.blk_size = 0).is_err());
        assert!(with(|r| r.blk_size = 1000).is_err());
        assert!(with(|r| r.blk_size = 8192).is_err());
        assert_eq!(with(|r| r.seg_max = 0).unwrap().segments_max, 1);
        assert!(with(|r| r.physical_exponent = 255).is_ok());
        assert_eq!(with(|r| r.capacity = u64::MAX).unwrap().sectors % 8, 0);
    }
}
