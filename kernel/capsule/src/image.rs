//! A capsule's image: its tree over the blob store, as the read-only layer under
//! the capsule's root file system.

use crate::blobs::{Blob, BlobError, BlobStore};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use machine::Frame;
use machine::sync::{Once, SpinLock};
use skep_api::Hash;
use skep_api::tree::{Node, NodeKind, TreeView};
use vfs::tmpfs::{EmitChild, LowerKind, LowerNode, LowerTree};

/// Most damaged blobs that one capsule reports; further ones only give errors.
const REPORTS_MAX: usize = 64;
const NS: i64 = 1_000_000_000;

/// A tree whose every byte has been verified, and the blobs of its files as far
/// as they were used. All capsules of the same tree share one.
pub struct Image {
    store: Arc<BlobStore>,
    root: Hash,
    tree: TreeView<'static>,
    /// By node: the content of a file, once it was asked for.
    contents: Box<[Once<Arc<Blob>>]>,
}

impl Image {
    /// The image of the tree called `root`.
    ///
    /// # Errors
    /// [`BlobError`] if the tree is missing, damaged or malformed, or if a file's
    /// blob is missing. Whether files are damaged is seen when they are read.
    pub fn open(store: &Arc<BlobStore>, root: Hash) -> Result<Arc<Image>, BlobError> {
        let bytes = store.get(root)?.bytes()?;
        let tree = TreeView::parse(bytes).map_err(|_| BlobError::Corrupt(root))?;
        let needed = tree.nodes().filter_map(|node| match node.kind {
            NodeKind::File { hash, .. } => Some(hash),
            _ => None,
        });
        let bundle = store.bundle();
        for hash in needed {
            if !bundle.has_blob(hash) {
                return Err(BlobError::Missing(hash));
            }
        }
        let count = tree.node_count() as usize;
        let mut contents = Vec::new();
        contents
            .try_reserve_exact(count)
            .map_err(|_| BlobError::NoMemory)?;
        contents.resize_with(count, Once::new);
        Ok(Arc::new(Image {
            store: store.clone(),
            root,
            tree,
            contents: contents.into_boxed_slice(),
        }))
    }

    /// The tree's name.
    #[must_use]
    pub fn root(&self) -> Hash {
        self.root
    }

    /// The tree.
    #[must_use]
    pub fn tree(&self) -> TreeView<'static> {
        self.tree
    }

    fn content(&self, node: u32) -> Result<&Arc<Blob>, BlobError> {
        let slot = self.contents.get(node as usize).ok_or(BlobError::PastEnd)?;
        slot.try_call_once(|| {
            let Some(NodeKind::File { size, hash }) = self.tree.node(node).map(|n| n.kind) else {
                return Err(BlobError::PastEnd);
            };
            let blob = self.store.get(hash)?;
            // The hash proves the length too; a tree that says another one lies.
            if blob.len() != size {
                return Err(BlobError::Corrupt(hash));
            }
            Ok(blob)
        })
    }

    #[inline]
    fn page(&self, node: u32, page: u64) -> Result<Frame, BlobError> {
        let known = self.contents.get(node as usize).and_then(Once::get);
        let blob = match known {
            Some(blob) => blob,
            None => self.content(node)?,
        };
        self.store.page(blob, page)
    }
}

type Report = dyn Fn(BlobError) + Send + Sync;

/// One capsule's look at an image: it knows whom to blame for damage.
pub struct Lower {
    image: Arc<Image>,
    report: Box<Report>,
    reported: SpinLock<Vec<BlobError>>,
}

impl Lower {
    /// A look at `image` that calls `report` once for every blob found missing or
    /// damaged.
    #[must_use]
    pub fn new(image: Arc<Image>, report: Box<Report>) -> Arc<Lower> {
        Arc::new(Lower {
            image,
            report,
            reported: SpinLock::new(Vec::new()),
        })
    }

    #[cold]
    fn refuse(&self, error: BlobError) -> vfs::Error {
        match error {
            BlobError::NoMemory => return vfs::Error::NoMemory,
            BlobError::PastEnd => return vfs::Error::Io,
            BlobError::Missing(_) | BlobError::Corrupt(_) => {}
        }
        let mut reported = self.reported.lock();
        let news = reported.len() < REPORTS_MAX
            && !reported.contains(&error)
            && reported.try_reserve(1).is_ok();
        if news {
            reported.push(error);
        }
        drop(reported);
        if news {
            (self.report)(error);
        }
        vfs::Error::Io
    }
}

fn kind(node: &Node<'_>) -> LowerKind {
    match node.kind {
        NodeKind::Directory { count, .. } => LowerKind::Directory { children: count },
        NodeKind::File { size, .. } => LowerKind::File { size },
        NodeKind::Symlink { .. } => LowerKind::Symlink,
    }
}

impl LowerTree for Lower {
    fn count(&self) -> u32 {
        self.image.tree.node_count()
    }

    fn node(&self, index: u32) -> Option<LowerNode> {
        let node = self.image.tree.node(index)?;
        Some(LowerNode {
            kind: kind(&node),
            mode: u32::from(node.mode),
            uid: node.uid,
            gid: node.gid,
            mtime: node.mtime.saturating_mul(NS),
        })
    }

    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32> {
        let tree = &self.image.tree;
        tree.lookup(&tree.node(dir)?, name).map(|n| n.index)
    }

    fn child(&self, dir: u32, n: u32, emit: &mut EmitChild<'_>) {
        let tree = &self.image.tree;
        let Some(NodeKind::Directory { first, count }) = tree.node(dir).map(|d| d.kind) else {
            return;
        };
        let found = (n < count).then(|| first.checked_add(n)).flatten();
        if let Some(child) = found.and_then(|i| tree.node(i)) {
            emit(child.name, child.index, kind(&child));
        }
    }

    fn target(&self, index: u32) -> Option<Arc<[u8]>> {
        match self.image.tree.node(index)?.kind {
            NodeKind::Symlink { target } => Some(Arc::from(target)),
            _ => None,
        }
    }

    #[inline]
    fn page(&self, index: u32, page: u64) -> vfs::Result<Frame> {
        self.image.page(index, page).map_err(|e| self.refuse(e))
    }
}

#[cfg(test)]
#[path = "image_tests.rs"]
mod tests;
