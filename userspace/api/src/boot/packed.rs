//! A ramdisk that is packed for its way over media and networks: blocks of LZ4.
//!
//! The kernel unpacks it, whoever has loaded it: loaders need not know of it, old ones
//! neither. The header says exactly how long the ramdisk is, and every block of it comes out
//! of its own bytes, so that nothing can grow beyond what the header says, and damage stays
//! in its block. Whoever checks the file's hash has checked the header too.
//!
//! ```text
//! 0      SKEPPACK, version, number of blocks (4 each)
//! 16     bytes of the ramdisk, bytes of all of this (8 each)
//! 32     BLAKE3 of bytes 0 to 31 and of the table
//! 64     the table: 4 bytes for each block, its length; the highest bit: as it is
//!        the blocks, one behind the other
//! ```

use super::put;
use crate::Hash;
use crate::bytes::{array, index, u32_at, u64_at};
use crate::hash::Hasher;
use core::ops::Range;

/// Bytes of the ramdisk in a block; the last one may be shorter.
pub const BLOCK_BYTES: usize = 256 << 10;
/// Most bytes of a ramdisk: as a release.
pub const RAMDISK_BYTES_MAX: u64 = super::release::RELEASE_BYTES_MAX;
/// Bytes of the header without the table.
pub const HEADER_BYTES: usize = 64;
/// In the table: the block is not compressed.
pub const AS_IT_IS: u32 = 1 << 31;

const MAGIC: [u8; 8] = *b"SKEPPACK";
const VERSION: u32 = 1;
const BLOCKS_AT: usize = 12;
const RAMDISK_LEN_AT: usize = 16;
const LEN_AT: usize = 24;
const HASH_AT: usize = 32;
const ENTRY_BYTES: usize = 4;
/// A byte of LZ4 says no more than 255 bytes of what was packed.
const GROWTH_MAX: usize = 255;

/// Why a packed ramdisk cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackedError {
    /// It is of a version that this program does not know.
    #[error(
        "it is packed in version {0}, which this system does not know; start it with the system it was made for"
    )]
    UnknownVersion(u32),
    /// The header or the table is not whole.
    #[error("the header of its packing is damaged; write the boot medium anew")]
    BadHeader,
    /// The header is whole and says what cannot be.
    #[error("its packing contradicts itself; make it anew")]
    Senseless,
    /// It would be too long.
    #[error("unpacked it would have {0} bytes, which is too much")]
    TooLong(u64),
    /// Not one block of it is there.
    #[error("it is cut short behind the header of its packing; write the boot medium anew")]
    CutShort,
    /// There is less room for it than it needs.
    #[error("unpacked it has {0} bytes, and there is no room for them")]
    NoRoom(u64),
}

/// A packed ramdisk whose header is whole and makes sense.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    bytes: &'a [u8],
    table: &'a [u8],
    ramdisk_len: usize,
    /// Bytes of the ramdisk in the blocks that are there.
    present: usize,
}

/// One block, by the table.
struct Block {
    /// Where it lies in the file.
    packed: Range<usize>,
    /// Where its content belongs in the ramdisk.
    content: Range<usize>,
    is_as_it_is: bool,
}

/// Whether these bytes are a packed ramdisk, of any version.
#[must_use]
pub fn is_packed(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC)
}

impl<'a> Packed<'a> {
    /// Reads and checks the header. More bytes may follow; some at the end may be missing.
    ///
    /// # Errors
    /// [`PackedError`], but for [`PackedError::NoRoom`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PackedError> {
        let word = |at| u32_at(bytes, at).ok_or(PackedError::BadHeader);
        let long = |at| u64_at(bytes, at).ok_or(PackedError::BadHeader);
        if !is_packed(bytes) {
            return Err(PackedError::BadHeader);
        }
        let version = word(8)?;
        if version != VERSION {
            return Err(PackedError::UnknownVersion(version));
        }
        let table = index(word(BLOCKS_AT)?)
            .checked_mul(ENTRY_BYTES)
            .and_then(|len| bytes.get(HEADER_BYTES..HEADER_BYTES.checked_add(len)?))
            .ok_or(PackedError::BadHeader)?;
        let mut hasher = Hasher::new();
        hasher.update(bytes.get(..HASH_AT).unwrap_or_default());
        hasher.update(table);
        if array(bytes, HASH_AT) != Some(hasher.finish().0) {
            return Err(PackedError::BadHeader);
        }
        let told = long(RAMDISK_LEN_AT)?;
        if told > RAMDISK_BYTES_MAX {
            return Err(PackedError::TooLong(told));
        }
        let ramdisk_len = usize::try_from(told).map_err(|_| PackedError::TooLong(told))?;
        let mut packed = Self {
            bytes,
            table,
            ramdisk_len,
            present: 0,
        };
        if !packed.is_sensible(long(LEN_AT)?) {
            return Err(PackedError::Senseless);
        }
        let is_there = |block: &Block| block.packed.end <= bytes.len();
        let present = packed.blocks().take_while(is_there).last();
        packed.present = present.ok_or(PackedError::CutShort)?.content.end;
        Ok(packed)
    }

    /// Whether there is a block for every part of the ramdisk, and no block that could not
    /// be one.
    fn is_sensible(&self, len: u64) -> bool {
        let can_be = |block: &Block| {
            let (packed, content) = (block.packed.len(), block.content.len());
            match block.is_as_it_is {
                true => packed == content,
                false => packed < content && packed.saturating_mul(GROWTH_MAX) >= content,
            }
        };
        let end = self.blocks().last().map_or(0, |block| block.packed.end);
        self.ramdisk_len > 0
            && self.table.len() / ENTRY_BYTES == self.ramdisk_len.div_ceil(BLOCK_BYTES)
            && self.blocks().all(|block| can_be(&block))
            && u64::try_from(end) == Ok(len)
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        let mut at = HEADER_BYTES.saturating_add(self.table.len());
        let entries = self.table.chunks_exact(ENTRY_BYTES).enumerate();
        entries.map(move |(number, entry)| {
            let entry = u32_at(entry, 0).unwrap_or_default();
            let start = number.saturating_mul(BLOCK_BYTES).min(self.ramdisk_len);
            let end = start.saturating_add(BLOCK_BYTES).min(self.ramdisk_len);
            let from = at;
            at = at.saturating_add(index(entry & !AS_IT_IS));
            Block {
                packed: from..at,
                content: start..end,
                is_as_it_is: entry & AS_IT_IS != 0,
            }
        })
    }

    /// Bytes that come out: fewer than the ramdisk had where the file is cut short.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "none is empty")]
    pub const fn len(&self) -> usize {
        self.present
    }

    /// Whether all of the ramdisk is there.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.present == self.ramdisk_len
    }

    /// Unpacks into the first [`Packed::len`] bytes of `into` and calls `pause` after each
    /// block. Returns how many blocks are damaged: in their place are zeroes.
    ///
    /// # Errors
    /// [`PackedError::NoRoom`].
    pub fn unpack(&self, into: &mut [u8], mut pause: impl FnMut()) -> Result<usize, PackedError> {
        let into = into
            .get_mut(..self.present)
            .ok_or(PackedError::NoRoom(self.present as u64))?;
        let mut damaged = 0;
        for (block, content) in self.blocks().zip(into.chunks_mut(BLOCK_BYTES)) {
            let packed = self.bytes.get(block.packed).unwrap_or_default();
            let count = match block.is_as_it_is {
                // As long as its content: `is_sensible`.
                true => {
                    content.copy_from_slice(packed);
                    Some(packed.len())
                }
                false => lz4_flex::block::decompress_into(packed, content).ok(),
            };
            if count != Some(content.len()) {
                damaged += 1;
                content.fill(0);
            }
            pause();
        }
        Ok(damaged)
    }
}

/// The header and the table of a packed ramdisk, its blocks' lengths being those of `table`;
/// [`AS_IT_IS`] marks the ones that are not compressed.
#[must_use]
pub fn header(ramdisk_len: u64, table: &[u32]) -> alloc::vec::Vec<u8> {
    let mut header = alloc::vec![0; HEADER_BYTES];
    let blocks = table
        .iter()
        .fold(0, |sum, entry| sum + u64::from(entry & !AS_IT_IS));
    let len = (HEADER_BYTES + ENTRY_BYTES * table.len()) as u64 + blocks;
    put(&mut header, 0, &MAGIC);
    put(&mut header, 8, &VERSION.to_le_bytes());
    // As many as the parts of 256 KiB that 2 GiB have at most.
    put(&mut header, BLOCKS_AT, &(table.len() as u32).to_le_bytes());
    put(&mut header, RAMDISK_LEN_AT, &ramdisk_len.to_le_bytes());
    put(&mut header, LEN_AT, &len.to_le_bytes());
    header.extend(table.iter().flat_map(|entry| entry.to_le_bytes()));
    let mut hasher = Hasher::new();
    hasher.update(header.get(..HASH_AT).unwrap_or_default());
    hasher.update(header.get(HEADER_BYTES..).unwrap_or_default());
    let Hash(hash) = hasher.finish();
    put(&mut header, HASH_AT, &hash);
    header
}

#[cfg(test)]
mod tests;
