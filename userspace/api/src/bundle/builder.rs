//! Writing a bundle.

use super::view::hash_index;
use super::{
    BLOB_LEN, BundleError, ENTRY_LEN, EntryKind, HASHED_HEADER_LEN, HEADER_LEN, MAGIC, MAX_BLOBS,
    MAX_ENTRIES, MAX_ENTRY_LEN, MAX_ENTRY_NAME, PAGE_LEN, VERSION,
};
use crate::blob::{BlobError, MAX_BLOB_LEN, Outboard};
use crate::hash::Hash;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// Collects entries and blobs and writes the bundle. The order of adding does
/// not matter: the same set gives the same bytes.
#[derive(Debug, Default)]
pub struct BundleBuilder {
    entries: BTreeMap<(EntryKind, String), Vec<u8>>,
    /// Content and outboard by hash.
    blobs: BTreeMap<Hash, (Vec<u8>, Vec<u8>)>,
}

impl BundleBuilder {
    /// An empty bundle.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a named entry; one of the same kind and name is replaced.
    ///
    /// # Errors
    /// [`BundleError::BadIndex`] when the name or the content is too long for a bundle.
    pub fn add_entry(
        &mut self,
        kind: EntryKind,
        name: &str,
        content: Vec<u8>,
    ) -> Result<(), BundleError> {
        let name_fits = !name.is_empty() && name.len() <= MAX_ENTRY_NAME;
        if !name_fits || content.len() as u64 > MAX_ENTRY_LEN {
            return Err(BundleError::BadIndex);
        }
        self.entries.insert((kind, name.into()), content);
        Ok(())
    }

    /// Adds a blob and returns its hash; adding it again changes nothing.
    ///
    /// # Errors
    /// [`BundleError::Blob`] when it is larger than a blob can be.
    pub fn add_blob(&mut self, content: Vec<u8>) -> Result<Hash, BundleError> {
        let outboard = Outboard::build(&content);
        let len = content.len() as u64;
        if len > MAX_BLOB_LEN {
            let error = BlobError::TooLong { len };
            return Err(BundleError::Blob {
                hash: outboard.root,
                error,
            });
        }
        self.blobs
            .entry(outboard.root)
            .or_insert((content, outboard.bytes));
        Ok(outboard.root)
    }

    /// Whether the blob is there already.
    #[must_use]
    pub fn has_blob(&self, hash: Hash) -> bool {
        self.blobs.contains_key(&hash)
    }

    /// Writes the bundle: header, index, entries, outboards, then the blobs' pages.
    ///
    /// # Errors
    /// [`BundleError::BadIndex`] when there are more entries or blobs than a bundle can list.
    pub fn finish(self) -> Result<Vec<u8>, BundleError> {
        let entry_count = count_of(self.entries.len(), MAX_ENTRIES)?;
        let blob_count = count_of(self.blobs.len(), MAX_BLOBS)?;
        let (mut index, data_len) = self.index();

        let mut bundle = Vec::with_capacity(data_len);
        bundle.extend_from_slice(&MAGIC);
        for number in [VERSION, entry_count, blob_count, 0] {
            bundle.extend_from_slice(&number.to_le_bytes());
        }
        push_u64(&mut bundle, index.len());
        push_u64(&mut bundle, data_len);
        bundle.resize(HASHED_HEADER_LEN, 0);
        let hash = hash_index(&bundle, &index);
        bundle.extend_from_slice(hash.as_bytes());
        bundle.append(&mut index);
        self.entries
            .values()
            .for_each(|content| bundle.extend_from_slice(content));
        self.blobs
            .values()
            .for_each(|(_, outboard)| bundle.extend_from_slice(outboard));
        bundle.resize(bundle.len().next_multiple_of(PAGE_LEN), 0);
        for (content, _) in self.blobs.into_values() {
            bundle.extend_from_slice(&content);
            bundle.resize(bundle.len().next_multiple_of(PAGE_LEN), 0);
        }
        Ok(bundle)
    }

    /// The index, and the length of the whole bundle.
    fn index(&self) -> (Vec<u8>, usize) {
        let names_len: usize = self.entries.keys().map(|(_, name)| name.len()).sum();
        let index_len = self.entries.len() * ENTRY_LEN + self.blobs.len() * BLOB_LEN + names_len;
        let mut index = Vec::with_capacity(index_len);
        let mut names = String::with_capacity(names_len);
        let mut at = HEADER_LEN + index_len;
        for ((kind, name), content) in &self.entries {
            index.extend_from_slice(Hash::of(content).as_bytes());
            push_u64(&mut index, at);
            push_u64(&mut index, content.len());
            // At most MAX_ENTRIES * MAX_ENTRY_NAME bytes: the casts keep the values.
            for number in [kind.code(), 0, names.len() as u32, name.len() as u32] {
                index.extend_from_slice(&number.to_le_bytes());
            }
            names.push_str(name);
            at += content.len();
        }
        let outboards: usize = self
            .blobs
            .values()
            .map(|(_, outboard)| outboard.len())
            .sum();
        let mut blob_at = (at + outboards).next_multiple_of(PAGE_LEN);
        for (hash, (content, outboard)) in &self.blobs {
            index.extend_from_slice(hash.as_bytes());
            push_u64(&mut index, blob_at);
            push_u64(&mut index, content.len());
            push_u64(&mut index, at);
            at += outboard.len();
            blob_at += content.len().next_multiple_of(PAGE_LEN);
        }
        index.extend_from_slice(names.as_bytes());
        (index, blob_at)
    }
}

fn push_u64(bytes: &mut Vec<u8>, number: usize) {
    bytes.extend_from_slice(&(number as u64).to_le_bytes());
}

fn count_of(count: usize, limit: u32) -> Result<u32, BundleError> {
    u32::try_from(count)
        .ok()
        .filter(|count| *count <= limit)
        .ok_or(BundleError::BadIndex)
}
