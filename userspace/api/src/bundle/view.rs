//! Reading a bundle in place.

use super::{
    BLOB_LEN, BundleError, ENTRY_LEN, EntryKind, HASHED_HEADER_LEN, HEADER_LEN, MAGIC, MAX_BLOBS,
    MAX_ENTRIES, MAX_ENTRY_LEN, MAX_ENTRY_NAME, PAGE_LEN, VERSION,
};
use crate::blob::{BlobVerifier, MAX_BLOB_LEN, outboard_len};
use crate::bytes::{array, index, slice_at, u32_at, u64_at};
use crate::hash::Hash;

/// A bundle whose index has been checked. Copying it copies references.
#[derive(Clone, Copy, Debug)]
pub struct BundleView<'a> {
    bytes: &'a [u8],
    entries: &'a [u8],
    blobs: &'a [u8],
    names: &'a [u8],
    declared_len: u64,
}

/// A named entry as the index lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What it holds.
    pub kind: EntryKind,
    /// Its name, such as that of the capsule.
    pub name: &'a str,
    /// BLAKE3 hash of its content.
    pub hash: Hash,
    offset: u64,
    len: u64,
}

/// A blob as the index lists it.
#[derive(Clone, Copy)]
struct BlobRecord {
    hash: Hash,
    offset: u64,
    len: u64,
    outboard_at: u64,
}

/// A blob of the bundle, all there and ready to be verified group by group.
#[derive(Clone, Copy, Debug)]
pub struct BundleBlob<'a> {
    /// Checks groups of [`pages`](Self::pages). **Nothing here is verified before that.**
    pub verifier: BlobVerifier<&'a [u8]>,
    /// Where the content begins in the bundle: a multiple of [`PAGE_LEN`].
    pub offset: u64,
    /// The content and the zeros behind it: whole pages.
    pub pages: &'a [u8],
}

impl<'a> BundleBlob<'a> {
    /// The content without the padding. Not verified.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        let len = usize::try_from(self.verifier.len()).unwrap_or(usize::MAX);
        self.pages.get(..len).unwrap_or(self.pages)
    }

    /// The whole content, verified.
    ///
    /// # Errors
    /// [`BundleError::Blob`] when a group is damaged.
    pub fn verified_data(&self) -> Result<&'a [u8], BundleError> {
        let data = self.data();
        let hash = self.verifier.root();
        self.verifier
            .verify_all(data)
            .map_err(|error| BundleError::Blob { hash, error })?;
        Ok(data)
    }
}

impl<'a> BundleView<'a> {
    /// Checks the header and the index of `bytes`.
    ///
    /// Bytes behind the end that the header declares are ignored: a boot loader
    /// may round the ramdisk up. A bundle cut short behind its index is accepted;
    /// see [`is_truncated`](Self::is_truncated).
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let have = bytes.len() as u64;
        let short = BundleError::Truncated {
            need: HEADER_LEN as u64,
            have,
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(if MAGIC.starts_with(bytes) {
                short
            } else {
                BundleError::BadMagic
            });
        }
        let version = u32_at(bytes, 8).ok_or(short)?;
        if version != VERSION {
            return Err(BundleError::UnknownVersion(version));
        }
        let entry_count = u32_at(bytes, 12).ok_or(short)?;
        let blob_count = u32_at(bytes, 16).ok_or(short)?;
        let index_len = u64_at(bytes, 24).ok_or(short)?;
        let declared_len = u64_at(bytes, 32).ok_or(short)?;
        let index_hash = Hash(array(bytes, HASHED_HEADER_LEN).ok_or(short)?);
        if entry_count > MAX_ENTRIES || blob_count > MAX_BLOBS {
            return Err(BundleError::BadIndex);
        }
        let need = index_len.saturating_add(HEADER_LEN as u64);
        let index_bytes = slice_at(bytes, HEADER_LEN as u64, index_len)
            .ok_or(BundleError::Truncated { need, have })?;
        if hash_index(bytes, index_bytes) != index_hash {
            return Err(BundleError::IndexMismatch);
        }
        let entries_len = index(entry_count) * ENTRY_LEN;
        let names_at = entries_len + index(blob_count) * BLOB_LEN;
        let view = Self {
            bytes,
            entries: index_bytes
                .get(..entries_len)
                .ok_or(BundleError::BadIndex)?,
            blobs: index_bytes
                .get(entries_len..names_at)
                .ok_or(BundleError::BadIndex)?,
            names: index_bytes.get(names_at..).ok_or(BundleError::BadIndex)?,
            declared_len,
        };
        view.check_entries(need)?;
        view.check_blobs(need)?;
        Ok(view)
    }

    /// Whether a piece lies between the index and the declared end, so that what
    /// is cut off is told apart from what was never written.
    fn inside(&self, index_end: u64, offset: u64, len: u64) -> bool {
        let end = offset.checked_add(len);
        offset >= index_end && end.is_some_and(|end| end <= self.declared_len)
    }

    fn check_entries(&self, index_end: u64) -> Result<(), BundleError> {
        let mut previous = None;
        for number in 0..self.entries.len() / ENTRY_LEN {
            let entry = self.entry_at(number).ok_or(BundleError::BadIndex)?;
            let key = Some((entry.kind, entry.name));
            let name_fits = !entry.name.is_empty() && entry.name.len() <= MAX_ENTRY_NAME;
            let fits =
                entry.len <= MAX_ENTRY_LEN && self.inside(index_end, entry.offset, entry.len);
            if !fits || !name_fits || key <= previous {
                return Err(BundleError::BadIndex);
            }
            previous = key;
        }
        Ok(())
    }

    fn check_blobs(&self, index_end: u64) -> Result<(), BundleError> {
        let mut previous = None;
        for number in 0..self.blobs.len() / BLOB_LEN {
            let blob = self.blob_at(number).ok_or(BundleError::BadIndex)?;
            let padded = blob.len.checked_next_multiple_of(PAGE_LEN as u64);
            let fits = blob.len <= MAX_BLOB_LEN
                && blob.offset.is_multiple_of(PAGE_LEN as u64)
                && padded.is_some_and(|padded| self.inside(index_end, blob.offset, padded))
                && self.inside(index_end, blob.outboard_at, outboard_len(blob.len));
            if !fits || Some(blob.hash) <= previous {
                return Err(BundleError::BadIndex);
            }
            previous = Some(blob.hash);
        }
        Ok(())
    }

    /// Whether bytes are missing at the end. What is missing is refused when asked for.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        (self.bytes.len() as u64) < self.declared_len
    }

    /// Bytes of the whole bundle as it was written.
    #[must_use]
    pub fn declared_len(&self) -> u64 {
        self.declared_len
    }

    /// The named entries, sorted by kind and name.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let view = *self;
        (0..self.entries.len() / ENTRY_LEN).filter_map(move |number| view.entry_at(number))
    }

    /// The content of an entry, checked against its hash in the index.
    ///
    /// # Errors
    /// [`BundleError::EntryTruncated`] or [`BundleError::EntryMismatch`].
    pub fn content(&self, entry: &Entry<'_>) -> Result<&'a [u8], BundleError> {
        let need = entry.offset.saturating_add(entry.len);
        let have = self.bytes.len() as u64;
        let content = slice_at(self.bytes, entry.offset, entry.len)
            .ok_or(BundleError::EntryTruncated { need, have })?;
        if Hash::of(content) != entry.hash {
            return Err(BundleError::EntryMismatch);
        }
        Ok(content)
    }

    /// The content of the entry of this kind and name.
    ///
    /// # Errors
    /// [`BundleError::NoSuchEntry`], or as [`content`](Self::content).
    pub fn entry(&self, kind: EntryKind, name: &str) -> Result<&'a [u8], BundleError> {
        let entry = self
            .entries()
            .find(|entry| entry.kind == kind && entry.name == name);
        self.content(&entry.ok_or(BundleError::NoSuchEntry)?)
    }

    /// Hash and length of every blob that the bundle should have, sorted by hash.
    pub fn blobs(&self) -> impl Iterator<Item = (Hash, u64)> + use<'a> {
        let view = *self;
        (0..self.blobs.len() / BLOB_LEN)
            .filter_map(move |number| view.blob_at(number))
            .map(|blob| (blob.hash, blob.len))
    }

    /// Whether all bytes of the blob named `hash` are there, its padding included, right
    /// or wrong.
    #[must_use]
    pub fn has_blob(&self, hash: Hash) -> bool {
        self.find_blob(hash).is_some_and(|record| {
            let padded = record.len.next_multiple_of(PAGE_LEN as u64);
            let content = slice_at(self.bytes, record.offset, padded);
            let outboard = slice_at(self.bytes, record.outboard_at, outboard_len(record.len));
            content.is_some() && outboard.is_some()
        })
    }

    /// The blob named `hash`: a binary search. Its outboard is checked here, its
    /// content group by group through [`BundleBlob::verifier`].
    ///
    /// # Errors
    /// [`BundleError::NoSuchBlob`], [`BundleError::BlobTruncated`],
    /// [`BundleError::BadPadding`] or [`BundleError::Blob`].
    pub fn blob(&self, hash: Hash) -> Result<BundleBlob<'a>, BundleError> {
        let record = self.find_blob(hash).ok_or(BundleError::NoSuchBlob(hash))?;
        let outboard_len = outboard_len(record.len);
        let padded = record.len.next_multiple_of(PAGE_LEN as u64);
        let end = record.offset.saturating_add(padded);
        let need = end.max(record.outboard_at.saturating_add(outboard_len));
        let cut = BundleError::BlobTruncated {
            hash,
            need,
            have: self.bytes.len() as u64,
        };
        let pages = slice_at(self.bytes, record.offset, padded).ok_or(cut)?;
        let outboard = slice_at(self.bytes, record.outboard_at, outboard_len).ok_or(cut)?;
        let padding = slice_at(pages, record.len, padded - record.len).ok_or(cut)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(BundleError::BadPadding(hash));
        }
        let verifier = BlobVerifier::new(hash, record.len, outboard)
            .map_err(|error| BundleError::Blob { hash, error })?;
        Ok(BundleBlob {
            verifier,
            offset: record.offset,
            pages,
        })
    }

    fn find_blob(&self, hash: Hash) -> Option<BlobRecord> {
        let (mut low, mut high) = (0, self.blobs.len() / BLOB_LEN);
        while low < high {
            let middle = low + (high - low) / 2;
            let found: [u8; 32] = array(self.blobs, middle * BLOB_LEN)?;
            match found.cmp(&hash.0) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
                core::cmp::Ordering::Equal => return self.blob_at(middle),
            }
        }
        None
    }

    fn blob_at(&self, number: usize) -> Option<BlobRecord> {
        let start = number.checked_mul(BLOB_LEN)?;
        let bytes = self.blobs.get(start..start.checked_add(BLOB_LEN)?)?;
        Some(BlobRecord {
            hash: Hash(array(bytes, 0)?),
            offset: u64_at(bytes, 32)?,
            len: u64_at(bytes, 40)?,
            outboard_at: u64_at(bytes, 48)?,
        })
    }

    fn entry_at(&self, number: usize) -> Option<Entry<'a>> {
        let start = number.checked_mul(ENTRY_LEN)?;
        let bytes = self.entries.get(start..start.checked_add(ENTRY_LEN)?)?;
        let name_at = u64::from(u32_at(bytes, 56)?);
        let name = slice_at(self.names, name_at, u64::from(u32_at(bytes, 60)?))?;
        // Bytes 52..56 are reserved.
        Some(Entry {
            hash: Hash(array(bytes, 0)?),
            offset: u64_at(bytes, 32)?,
            len: u64_at(bytes, 40)?,
            kind: EntryKind::from_code(u32_at(bytes, 48)?),
            name: core::str::from_utf8(name).ok()?,
        })
    }
}

/// The hash of the index, which covers the part of the header before it too.
pub(super) fn hash_index(bundle: &[u8], index: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bundle.get(..HASHED_HEADER_LEN).unwrap_or_default());
    hasher.update(index);
    Hash(*hasher.finalize().as_bytes())
}
