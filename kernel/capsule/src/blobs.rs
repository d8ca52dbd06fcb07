//! The blob store: verified content out of the ramdisk, without a copy.
//!
//! A blob's pages are the ramdisk's own frames, shared by all capsules and charged
//! to nobody. Before a page is handed out, the 16 KiB group that holds it has been
//! hashed once and compared (design D4). Nothing is hashed that nobody reads, and
//! nothing twice: under emulation a group costs some 200,000 instructions.

use crate::medium::Medium;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use hashbrown::HashMap;
use machine::Frame;
use machine::addr::PAGE_SIZE;
use machine::sync::{Mutex, SpinLock};
use skep_api::Hash;
use skep_api::blob::{BlobVerifier, GROUP_LEN};
use skep_api::bundle::{BundleError, BundleView};

const PAGES_PER_GROUP: u64 = (GROUP_LEN / PAGE_SIZE) as u64;
const BITS: u64 = 64;

/// Why content cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobError {
    /// The bundle does not hold it, or not all of it.
    Missing(Hash),
    /// It is not what its hash says.
    Corrupt(Hash),
    /// It has no such page.
    PastEnd,
    /// The kernel has no memory to keep track of it.
    NoMemory,
}

/// All blobs of a bundle.
pub struct BlobStore {
    medium: Box<dyn Medium>,
    bundle: BundleView<'static>,
    /// What was asked for before, refused ones included.
    known: SpinLock<HashMap<Hash, Result<Arc<Blob>, BlobError>>>,
}

/// One blob of the store.
pub struct Blob {
    verifier: BlobVerifier<&'static [u8]>,
    /// The content with the padding of its last page.
    pages: &'static [u8],
    /// The frames of `pages`, where the medium has some: computed, not kept.
    first: usize,
    /// Bit by group: hashed and right.
    good: Box<[AtomicU64]>,
    /// Bit by group: hashed and wrong.
    bad: Box<[AtomicU64]>,
    /// Held while a group is hashed, so that two CPUs do not hash the same one.
    hashing: Mutex<()>,
}

fn bitmap(groups: u64) -> Result<Box<[AtomicU64]>, BlobError> {
    let words = usize::try_from(groups.div_ceil(BITS)).map_err(|_| BlobError::NoMemory)?;
    let mut map = Vec::new();
    map.try_reserve_exact(words)
        .map_err(|_| BlobError::NoMemory)?;
    map.resize_with(words, || AtomicU64::new(0));
    Ok(map.into_boxed_slice())
}

#[inline]
fn is_set(map: &[AtomicU64], group: u64) -> bool {
    let word = usize::try_from(group / BITS).ok().and_then(|w| map.get(w));
    word.is_some_and(|w| w.load(Ordering::Acquire) >> (group % BITS) & 1 != 0)
}

fn set(map: &[AtomicU64], group: u64) {
    if let Some(word) = usize::try_from(group / BITS).ok().and_then(|w| map.get(w)) {
        word.fetch_or(1 << (group % BITS), Ordering::Release);
    }
}

impl BlobStore {
    /// The store of the bundle in `medium`.
    ///
    /// # Errors
    /// What is wrong with the bundle's header or index.
    pub fn open(medium: Box<dyn Medium>) -> Result<Arc<BlobStore>, BundleError> {
        let bundle = BundleView::parse(medium.bytes())?;
        Ok(Arc::new(BlobStore {
            medium,
            bundle,
            known: SpinLock::new(HashMap::new()),
        }))
    }

    /// The bundle.
    #[must_use]
    pub fn bundle(&self) -> BundleView<'static> {
        self.bundle
    }

    /// The blob called `hash`. What proves its groups is checked, its content not
    /// yet.
    ///
    /// # Errors
    /// [`BlobError`].
    pub fn get(&self, hash: Hash) -> Result<Arc<Blob>, BlobError> {
        if let Some(known) = self.known.lock().get(&hash) {
            return known.clone();
        }
        let found = self.find(hash);
        let mut known = self.known.lock();
        known.try_reserve(1).map_err(|_| BlobError::NoMemory)?;
        // Somebody else may have found it meanwhile; all must have the same one.
        known.entry(hash).or_insert(found).clone()
    }

    fn find(&self, hash: Hash) -> Result<Arc<Blob>, BlobError> {
        let blob = self.bundle.blob(hash).map_err(|e| match e {
            BundleError::NoSuchBlob(_) | BundleError::BlobTruncated { .. } => {
                BlobError::Missing(hash)
            }
            _ => BlobError::Corrupt(hash),
        })?;
        let groups = blob.verifier.group_count();
        Ok(Arc::new(Blob {
            verifier: blob.verifier,
            pages: blob.pages,
            first: usize::try_from(blob.offset).map_err(|_| BlobError::Missing(hash))?,
            good: bitmap(groups)?,
            bad: bitmap(groups)?,
            hashing: Mutex::new(()),
        }))
    }

    /// Page `index` of `blob`, verified. Bytes past the blob's end are zero.
    ///
    /// # Errors
    /// [`BlobError`].
    #[inline]
    pub fn page(&self, blob: &Blob, index: u64) -> Result<Frame, BlobError> {
        let group = index / PAGES_PER_GROUP;
        if !is_set(&blob.good, group) {
            blob.verify(group)?;
        }
        let inside = usize::try_from(index)
            .ok()
            .and_then(|i| i.checked_mul(PAGE_SIZE))
            .filter(|at| *at < blob.pages.len());
        let at = inside.ok_or(BlobError::PastEnd)?;
        self.medium
            .frame(blob.first + at)
            .ok_or(BlobError::Missing(blob.hash()))
    }
}

impl Blob {
    /// Its name.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.verifier.root()
    }

    /// Its bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.verifier.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.verifier.is_empty()
    }

    /// Hashes group `group` unless that has been done.
    #[cold]
    fn verify(&self, group: u64) -> Result<(), BlobError> {
        let corrupt = Err(BlobError::Corrupt(self.hash()));
        let len = self.verifier.group_len(group).ok_or(BlobError::PastEnd)?;
        let _one = self.hashing.lock();
        if is_set(&self.good, group) {
            return Ok(());
        }
        if is_set(&self.bad, group) {
            return corrupt;
        }
        // Inside the blob, which is inside the medium: no overflow.
        let start = group as usize * GROUP_LEN;
        let Some(data) = self.pages.get(start..start + len) else {
            return corrupt;
        };
        if self.verifier.verify_group(group, data).is_err() {
            set(&self.bad, group);
            return corrupt;
        }
        set(&self.good, group);
        Ok(())
    }

    /// The whole content, verified where that was not done yet.
    ///
    /// # Errors
    /// [`BlobError::Corrupt`].
    pub fn bytes(&self) -> Result<&'static [u8], BlobError> {
        for group in 0..self.verifier.group_count() {
            if !is_set(&self.good, group) {
                self.verify(group)?;
                machine::thread::cond_resched();
            }
        }
        let len = usize::try_from(self.len()).map_err(|_| BlobError::PastEnd)?;
        self.pages.get(..len).ok_or(BlobError::PastEnd)
    }
}

#[cfg(test)]
#[path = "blobs_tests.rs"]
mod tests;
