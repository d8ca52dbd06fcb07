//! Blobs: content that can be verified one piece at a time.
//!
//! BLAKE3 hashes content as a binary tree. This module keeps the tree's values
//! at the level of *groups* of 16 KiB, the blob's **outboard**: 32 bytes per
//! group, none for a blob of one group. With it any group is checked against the
//! blob's hash without reading the rest.
//!
//! [`BlobVerifier::new`] checks the whole outboard against the hash once (one
//! compression per group); after that [`verify_group`](BlobVerifier::verify_group)
//! costs hashing the group and one comparison.

use crate::hash::Hash;
use alloc::vec::Vec;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// Bytes of one group, the unit of verification. A power-of-two number of pages.
pub const GROUP_LEN: usize = 16 * 1024;

/// Largest blob, in bytes (1 TiB).
pub const MAX_BLOB_LEN: u64 = 1 << 40;

/// Bytes of one group's value in the outboard.
const CV_LEN: usize = 32;

/// Why a blob or a piece of it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// The blob claims more bytes than [`MAX_BLOB_LEN`].
    #[error("blob of {len} bytes is larger than the limit")]
    TooLong {
        /// Bytes claimed.
        len: u64,
    },
    /// The outboard does not have the length that the blob's length demands.
    #[error("outboard has {have} bytes, the blob's length demands {need}")]
    OutboardLength {
        /// Bytes demanded.
        need: u64,
        /// Bytes found.
        have: u64,
    },
    /// The outboard does not hash to the blob's hash.
    #[error("outboard does not belong to the blob's hash")]
    OutboardMismatch,
    /// There is no such group.
    #[error("group {index} does not exist, the blob has {count}")]
    NoSuchGroup {
        /// Group asked for.
        index: u64,
        /// Groups of the blob.
        count: u64,
    },
    /// The data handed in is not as long as the group.
    #[error("group {index} has {need} bytes, got {have}")]
    GroupLength {
        /// Group asked for.
        index: u64,
        /// Bytes of the group.
        need: usize,
        /// Bytes handed in.
        have: usize,
    },
    /// The data is not what was hashed.
    #[error("group {index} does not match the blob's hash")]
    GroupMismatch {
        /// The damaged group.
        index: u64,
    },
}

/// Number of groups of a blob of `len` bytes; the empty blob has one empty group.
#[must_use]
pub const fn group_count(len: u64) -> u64 {
    if len == 0 {
        1
    } else {
        len.div_ceil(GROUP_LEN as u64)
    }
}

/// Bytes of the outboard of a blob of `len` bytes.
#[must_use]
pub const fn outboard_len(len: u64) -> u64 {
    if len <= GROUP_LEN as u64 {
        0
    } else {
        // 512 bytes of content per byte of outboard: cannot overflow.
        group_count(len) * CV_LEN as u64
    }
}

/// The hash of some content together with the values that verify its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outboard {
    /// BLAKE3 hash of the content.
    pub root: Hash,
    /// One value of 32 bytes per group; empty when there is one group.
    pub bytes: Vec<u8>,
}

impl Outboard {
    /// Hashes `content`.
    #[must_use]
    pub fn build(content: &[u8]) -> Self {
        if content.len() <= GROUP_LEN {
            return Self {
                root: Hash::of(content),
                bytes: Vec::new(),
            };
        }
        let mut bytes = Vec::with_capacity(content.len().div_ceil(GROUP_LEN) * CV_LEN);
        for (index, group) in content.chunks(GROUP_LEN).enumerate() {
            bytes.extend_from_slice(&group_cv(index as u64, group));
        }
        Self {
            root: root_of(&bytes),
            bytes,
        }
    }
}

/// Verifies groups of one blob. `B` holds the outboard: borrowed or owned bytes.
#[derive(Clone, Copy, Debug)]
pub struct BlobVerifier<B> {
    root: Hash,
    len: u64,
    outboard: B,
}

impl<B: AsRef<[u8]>> BlobVerifier<B> {
    /// A verifier for the blob named `root` of `len` bytes.
    ///
    /// The outboard is checked here against `root`, so that each group costs only
    /// its own hashing. The length is proven by the last group: a wrong `len`
    /// makes that group fail.
    ///
    /// # Errors
    /// [`BlobError::TooLong`], [`BlobError::OutboardLength`] or
    /// [`BlobError::OutboardMismatch`].
    pub fn new(root: Hash, len: u64, outboard: B) -> Result<Self, BlobError> {
        if len > MAX_BLOB_LEN {
            return Err(BlobError::TooLong { len });
        }
        let need = outboard_len(len);
        let have = outboard.as_ref().len() as u64;
        if need != have {
            return Err(BlobError::OutboardLength { need, have });
        }
        if need != 0 && root_of(outboard.as_ref()) != root {
            return Err(BlobError::OutboardMismatch);
        }
        Ok(Self {
            root,
            len,
            outboard,
        })
    }

    /// The blob's hash.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Bytes of the blob.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the blob has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of groups, at least one.
    #[must_use]
    pub fn group_count(&self) -> u64 {
        group_count(self.len)
    }

    /// Bytes of group `index`, or `None` when there is no such group.
    #[must_use]
    pub fn group_len(&self, index: u64) -> Option<usize> {
        if index >= self.group_count() {
            return None;
        }
        let start = index * GROUP_LEN as u64;
        // At most GROUP_LEN, so the cast keeps the value.
        Some((self.len - start).min(GROUP_LEN as u64) as usize)
    }

    /// Checks that `data` is exactly group `index` of the blob.
    ///
    /// # Errors
    /// [`BlobError::NoSuchGroup`], [`BlobError::GroupLength`] or
    /// [`BlobError::GroupMismatch`].
    pub fn verify_group(&self, index: u64, data: &[u8]) -> Result<(), BlobError> {
        let count = self.group_count();
        let need = self
            .group_len(index)
            .ok_or(BlobError::NoSuchGroup { index, count })?;
        if data.len() != need {
            return Err(BlobError::GroupLength {
                index,
                need,
                have: data.len(),
            });
        }
        let matches = if count == 1 {
            Hash::of(data) == self.root
        } else {
            // Below 2^26 groups (`MAX_BLOB_LEN`), so the cast keeps the value.
            let start = index as usize * CV_LEN;
            self.outboard.as_ref().get(start..start + CV_LEN) == Some(&group_cv(index, data)[..])
        };
        if matches {
            Ok(())
        } else {
            Err(BlobError::GroupMismatch { index })
        }
    }

    /// Checks the whole content, group by group.
    ///
    /// # Errors
    /// As [`verify_group`](Self::verify_group), for the first group that fails.
    pub fn verify_all(&self, content: &[u8]) -> Result<(), BlobError> {
        if content.is_empty() {
            return self.verify_group(0, content);
        }
        for (index, group) in content.chunks(GROUP_LEN).enumerate() {
            self.verify_group(index as u64, group)?;
        }
        let last = self.group_count() - 1;
        if content.len() as u64 != self.len {
            let need = self.group_len(last).unwrap_or(0);
            return Err(BlobError::GroupLength {
                index: last,
                need,
                have: 0,
            });
        }
        Ok(())
    }
}

/// The value of one group in the hash tree of a blob with several groups.
///
/// `group` is not empty and at most [`GROUP_LEN`] bytes: both callers see to it,
/// because the hazard functions of blake3 assert it.
fn group_cv(index: u64, group: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher
        .set_input_offset(index * GROUP_LEN as u64)
        .update(group);
    hasher.finalize_non_root()
}

/// The root of two or more group values.
fn root_of(cvs: &[u8]) -> Hash {
    let (left, right) = cvs.split_at(left_len(cvs.len()));
    Hash(*merge_subtrees_root(&subtree_cv(left), &subtree_cv(right), Mode::Hash).as_bytes())
}

/// The value of the subtree over one or more group values. Depth: log2 of the groups.
fn subtree_cv(cvs: &[u8]) -> ChainingValue {
    if let Ok(cv) = cvs.try_into() {
        return cv;
    }
    let (left, right) = cvs.split_at(left_len(cvs.len()));
    merge_subtrees_non_root(&subtree_cv(left), &subtree_cv(right), Mode::Hash)
}

/// BLAKE3's left subtree is the largest power of two of groups that leaves some for the right.
fn left_len(bytes: usize) -> usize {
    let groups = bytes / CV_LEN;
    CV_LEN << (groups - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn root_is_plain_blake3_at_every_edge() {
        let edges = [
            0,
            1,
            1023,
            1024,
            1025,
            GROUP_LEN - 1,
            GROUP_LEN,
            GROUP_LEN + 1,
        ];
        let more = [2, 3, 4, 5, 7, 8, 9, 31, 33].map(|groups| groups * GROUP_LEN);
        for len in edges.into_iter().chain(more).chain(more.map(|len| len - 1)) {
            let data = content(len);
            let outboard = Outboard::build(&data);
            assert_eq!(outboard.root, Hash::of(&data), "length {len}");
            assert_eq!(outboard.bytes.len() as u64, outboard_len(len as u64));
            let verifier =
                BlobVerifier::new(outboard.root, len as u64, &outboard.bytes[..]).unwrap();
            verifier.verify_all(&data).unwrap();
        }
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let data = content(3 * GROUP_LEN - 5);
        let outboard = Outboard::build(&data);
        let verifier =
            BlobVerifier::new(outboard.root, data.len() as u64 + 1, &outboard.bytes[..]).unwrap();
        let mut longer = data.clone();
        longer.push(0);
        assert_eq!(
            verifier.verify_all(&longer),
            Err(BlobError::GroupMismatch { index: 2 })
        );
        assert!(matches!(
            verifier.verify_all(&data),
            Err(BlobError::GroupLength { .. })
        ));
        let short = BlobVerifier::new(outboard.root, data.len() as u64, &outboard.bytes[..]);
        assert!(short.unwrap().verify_all(&data[..GROUP_LEN]).is_err());
        let huge = BlobVerifier::new(outboard.root, u64::MAX, &outboard.bytes[..]);
        assert!(matches!(huge, Err(BlobError::TooLong { .. })));
    }

    #[test]
    fn groups_cannot_change_places() {
        let data = vec![0u8; 4 * GROUP_LEN];
        let mut outboard = Outboard::build(&data);
        outboard.bytes.rotate_left(CV_LEN);
        let verifier = BlobVerifier::new(outboard.root, data.len() as u64, &outboard.bytes[..]);
        assert!(matches!(verifier, Err(BlobError::OutboardMismatch)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_flipped_bit_is_found(len in 1usize..6 * GROUP_LEN, at in any::<prop::sample::Index>(), bit in 0..8) {
            let mut data = content(len);
            let outboard = Outboard::build(&data);
            let verifier = BlobVerifier::new(outboard.root, len as u64, &outboard.bytes[..]).unwrap();
            let at = at.index(len);
            data[at] ^= 1u8 << bit;
            let index = (at / GROUP_LEN) as u64;
            prop_assert_eq!(verifier.verify_all(&data), Err(BlobError::GroupMismatch { index }));
        }
    }
}
