//! Writing a tree blob.

use super::{
    HEADER_LEN, KIND_DIRECTORY, KIND_FILE, KIND_SYMLINK, MAGIC, MAX_DEPTH, MAX_NODES, TreeError,
    TreeView, VERSION, is_file_name, is_target,
};
use crate::blob::MAX_BLOB_LEN;
use crate::hash::Hash;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Permissions, owner and time of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change of the content, seconds since 1970.
    pub mtime: i64,
}

impl Meta {
    /// What a directory gets that nobody described: `rwxr-xr-x root root`, time 0.
    pub const DIRECTORY: Self = Self {
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: 0,
    };
}

/// Collects nodes by path and writes the tree blob.
///
/// Paths are relative to the root, with or without a leading `/`. Directories
/// on the way that nobody adds are made with [`Meta::DIRECTORY`].
#[derive(Debug)]
pub struct TreeBuilder {
    root: Item,
}

#[derive(Debug)]
struct Item {
    meta: Meta,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Directory {
        children: BTreeMap<Vec<u8>, Item>,
        /// Whether it was added, not only implied by a path through it.
        described: bool,
    },
    File {
        size: u64,
        hash: Hash,
    },
    Symlink {
        target: Vec<u8>,
    },
}

impl Default for TreeBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeBuilder {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self {
            root: implied_directory(),
        }
    }

    /// Adds a directory, or describes one that a path has implied; `/` describes the root.
    ///
    /// # Errors
    /// [`TreeError::Duplicate`] when the path is taken, [`TreeError::NotADirectory`]
    /// when it leads through something else, [`TreeError::BadPath`] and
    /// [`TreeError::TooDeep`] when it is no path.
    pub fn add_directory(&mut self, path: &[u8], meta: Meta) -> Result<(), TreeError> {
        let content = Content::Directory {
            children: BTreeMap::new(),
            described: true,
        };
        let Some((parent, name)) = self.place(path)? else {
            return describe(&mut self.root, meta);
        };
        match parent.get_mut(name) {
            Some(item) => describe(item, meta),
            None => {
                parent.insert(name.into(), Item { meta, content });
                Ok(())
            }
        }
    }

    /// Adds a file whose content is the blob `hash` of `size` bytes.
    ///
    /// # Errors
    /// As [`add_directory`](Self::add_directory); [`TreeError::TooLarge`].
    pub fn add_file(
        &mut self,
        path: &[u8],
        meta: Meta,
        size: u64,
        hash: Hash,
    ) -> Result<(), TreeError> {
        if size > MAX_BLOB_LEN {
            return Err(TreeError::TooLarge { node: 0 });
        }
        self.add(path, meta, Content::File { size, hash })
    }

    /// Adds a symbolic link to `target`.
    ///
    /// # Errors
    /// As [`add_directory`](Self::add_directory); [`TreeError::BadTarget`].
    pub fn add_symlink(&mut self, path: &[u8], meta: Meta, target: &[u8]) -> Result<(), TreeError> {
        if !is_target(target) {
            return Err(TreeError::BadTarget { node: 0 });
        }
        self.add(
            path,
            meta,
            Content::Symlink {
                target: target.into(),
            },
        )
    }

    fn add(&mut self, path: &[u8], meta: Meta, content: Content) -> Result<(), TreeError> {
        let (parent, name) = self.place(path)?.ok_or(TreeError::Duplicate)?;
        if parent.contains_key(name) {
            return Err(TreeError::Duplicate);
        }
        parent.insert(name.into(), Item { meta, content });
        Ok(())
    }

    /// The directory that is to hold the last component of `path`, and that
    /// component; `None` for the root itself.
    fn place<'p>(&mut self, path: &'p [u8]) -> Result<Option<Place<'_, 'p>>, TreeError> {
        let mut item = &mut self.root;
        let mut parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
            .peekable();
        let mut depth = 0;
        while let Some(part) = parts.next() {
            depth += 1;
            if !is_file_name(part) {
                return Err(TreeError::BadPath);
            }
            if depth > MAX_DEPTH {
                return Err(TreeError::TooDeep);
            }
            let Content::Directory { children, .. } = &mut item.content else {
                return Err(TreeError::NotADirectory);
            };
            if parts.peek().is_none() {
                return Ok(Some((children, part)));
            }
            item = children
                .entry(part.into())
                .or_insert_with(implied_directory);
        }
        Ok(None)
    }

    /// Writes the tree blob.
    ///
    /// # Errors
    /// [`TreeError::NodeCount`], [`TreeError::BadMode`], or [`TreeError::BadText`]
    /// when all names together exceed 4 GiB.
    pub fn finish(&self) -> Result<Vec<u8>, TreeError> {
        // Breadth first: `queue` grows while it is read.
        let mut queue: Vec<(&Item, &[u8], u32)> = Vec::new();
        queue.push((&self.root, &[], 0));
        let mut table = Vec::new();
        let mut text: Vec<u8> = Vec::new();
        let mut next = 0usize;
        while let Some(&(item, name, parent)) = queue.get(next) {
            let node = u32::try_from(next).ok().filter(|node| *node < MAX_NODES);
            let node = node.ok_or(TreeError::NodeCount(queue.len() as u64))?;
            let text_at = u32::try_from(text.len()).map_err(|_| TreeError::BadText { node })?;
            text.extend_from_slice(name);
            let (mut size, mut hash, mut first, mut count) = (0, Hash::default(), 0, 0);
            let kind = match &item.content {
                Content::Directory { children, .. } => {
                    first = count_of(queue.len())?;
                    count = count_of(children.len())?;
                    queue.extend(children.iter().map(|(name, item)| (item, &name[..], node)));
                    KIND_DIRECTORY
                }
                Content::File {
                    size: bytes,
                    hash: content,
                } => {
                    (size, hash) = (*bytes, *content);
                    KIND_FILE
                }
                Content::Symlink { target } => {
                    size = target.len() as u64;
                    text.extend_from_slice(target);
                    KIND_SYMLINK
                }
            };
            table.extend_from_slice(hash.as_bytes());
            table.extend_from_slice(&size.to_le_bytes());
            table.extend_from_slice(&item.meta.mtime.to_le_bytes());
            table.extend_from_slice(&item.meta.uid.to_le_bytes());
            table.extend_from_slice(&item.meta.gid.to_le_bytes());
            table.extend_from_slice(&item.meta.mode.to_le_bytes());
            // `is_file_name` has kept names below 256 bytes.
            table.extend_from_slice(&[kind, name.len() as u8]);
            for number in [text_at, first, count, parent, 0] {
                table.extend_from_slice(&number.to_le_bytes());
            }
            next += 1;
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN + table.len() + text.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&count_of(queue.len())?.to_le_bytes());
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&0u64.to_le_bytes());
        bytes.extend_from_slice(&table);
        bytes.extend_from_slice(&text);
        // What we write we must be able to read; this also checks the modes.
        TreeView::parse(&bytes)?;
        Ok(bytes)
    }
}

/// The children of a directory and a name among them.
type Place<'t, 'p> = (&'t mut BTreeMap<Vec<u8>, Item>, &'p [u8]);

fn implied_directory() -> Item {
    let content = Content::Directory {
        children: BTreeMap::new(),
        described: false,
    };
    Item {
        meta: Meta::DIRECTORY,
        content,
    }
}

/// Gives a directory that was only implied so far its own description.
fn describe(item: &mut Item, meta: Meta) -> Result<(), TreeError> {
    match &mut item.content {
        Content::Directory { described, .. } if !*described => {
            *described = true;
            item.meta = meta;
            Ok(())
        }
        _ => Err(TreeError::Duplicate),
    }
}

/// A number of nodes as it stands in the table.
fn count_of(count: usize) -> Result<u32, TreeError> {
    u32::try_from(count).map_err(|_| TreeError::NodeCount(count as u64))
}
