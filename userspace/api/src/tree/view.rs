//! Reading a tree blob in place.

use super::{
    HEADER_LEN, KIND_DIRECTORY, KIND_FILE, KIND_SYMLINK, MAGIC, MAX_DEPTH, MAX_NODES, NODE_LEN,
    TreeError, VERSION, is_file_name, is_target,
};
use crate::blob::MAX_BLOB_LEN;
use crate::bytes::{array, index, u16_at, u32_at, u64_at};
use crate::hash::Hash;

/// A tree blob that has been checked. Copying it copies two references.
#[derive(Clone, Copy, Debug)]
pub struct TreeView<'a> {
    table: &'a [u8],
    text: &'a [u8],
    count: u32,
}

/// One file, directory or symbolic link of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node<'a> {
    /// Position in the tree, 0 for the root; good as a stable inode number.
    pub index: u32,
    /// Position of the directory that holds the node; the root's is 0.
    pub parent: u32,
    /// Name inside the parent; the root's is empty. Any bytes but `/` and NUL.
    pub name: &'a [u8],
    /// Permission bits, at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change of the content, seconds since 1970.
    pub mtime: i64,
    /// What the node is.
    pub kind: NodeKind<'a>,
}

/// What a node is. Hard links of one file appear as files with the same hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind<'a> {
    /// A directory; its children have the positions `first .. first + count`.
    Directory {
        /// Position of the first child.
        first: u32,
        /// Number of children.
        count: u32,
    },
    /// A file, whose content is the blob named `hash`.
    File {
        /// Bytes of the content.
        size: u64,
        /// Hash of the content.
        hash: Hash,
    },
    /// A symbolic link.
    Symlink {
        /// The path it leads to.
        target: &'a [u8],
    },
}

/// One node's bytes, decoded without looking at any other node.
struct Record {
    hash: [u8; 32],
    size: u64,
    mtime: i64,
    uid: u32,
    gid: u32,
    mode: u16,
    kind: u8,
    name_len: u8,
    name_at: u32,
    first: u32,
    count: u32,
    parent: u32,
    reserved: u32,
}

impl Record {
    fn read(table: &[u8], node: u32) -> Option<Self> {
        let start = index(node).checked_mul(NODE_LEN)?;
        let bytes = table.get(start..start.checked_add(NODE_LEN)?)?;
        Some(Self {
            hash: array(bytes, 0)?,
            size: u64_at(bytes, 32)?,
            mtime: array(bytes, 40).map(i64::from_le_bytes)?,
            uid: u32_at(bytes, 48)?,
            gid: u32_at(bytes, 52)?,
            mode: u16_at(bytes, 56)?,
            kind: *bytes.get(58)?,
            name_len: *bytes.get(59)?,
            name_at: u32_at(bytes, 60)?,
            first: u32_at(bytes, 64)?,
            count: u32_at(bytes, 68)?,
            parent: u32_at(bytes, 72)?,
            reserved: u32_at(bytes, 76)?,
        })
    }

    fn name<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let start = index(self.name_at);
        text.get(start..start.checked_add(usize::from(self.name_len))?)
    }

    /// The link target, which follows the name.
    fn target<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let start = index(self.name_at).checked_add(usize::from(self.name_len))?;
        text.get(start..start.checked_add(usize::try_from(self.size).ok()?)?)
    }
}

impl<'a> TreeView<'a> {
    /// Checks `bytes` and returns a view of them.
    ///
    /// # Errors
    /// The first fault found, see [`TreeError`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TreeError> {
        let have = bytes.len() as u64;
        let short = TreeError::Truncated {
            need: HEADER_LEN as u64,
            have,
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(if MAGIC.starts_with(bytes) {
                short
            } else {
                TreeError::BadMagic
            });
        }
        let version = u32_at(bytes, 8).ok_or(short)?;
        if version != VERSION {
            return Err(TreeError::UnknownVersion(version));
        }
        let count = u32_at(bytes, 12).ok_or(short)?;
        let text_len = u64_at(bytes, 16).ok_or(short)?;
        let reserved = u64_at(bytes, 24).ok_or(short)?;
        if count == 0 || count > MAX_NODES {
            return Err(TreeError::NodeCount(u64::from(count)));
        }
        let table_len = index(count) * NODE_LEN;
        let need = (HEADER_LEN as u64 + table_len as u64).saturating_add(text_len);
        if have < need {
            return Err(TreeError::Truncated { need, have });
        }
        if have > need || reserved != 0 {
            return Err(TreeError::Excess);
        }
        let (table, text) = bytes.split_at(HEADER_LEN).1.split_at(table_len);
        let view = Self { table, text, count };
        view.check()?;
        Ok(view)
    }

    /// Checks every node, in order. The order of the nodes makes the checks cheap:
    /// the next directory's children must begin where the last one's ended.
    fn check(&self) -> Result<(), TreeError> {
        let mut next_child = 1u32;
        let mut next_text = 0u64;
        let mut level_end = 1u32;
        let mut depth = 0u32;
        for node in 0..self.count {
            let record = Record::read(self.table, node).ok_or(TreeError::BadOrder { node })?;
            // A node that no directory before it has claimed is nobody's child.
            if node >= next_child {
                return Err(TreeError::BadOrder { node });
            }
            if node == level_end {
                level_end = next_child;
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(TreeError::TooDeep);
                }
            }
            next_text = self.check_node(node, &record, next_text)?;
            if record.kind == KIND_DIRECTORY {
                next_child = self.check_children(node, &record, next_child)?;
            }
        }
        if next_child != self.count {
            return Err(TreeError::BadOrder {
                node: self.count - 1,
            });
        }
        if next_text != self.text.len() as u64 {
            return Err(TreeError::Excess);
        }
        Ok(())
    }

    /// Checks one node by itself; returns where the next node's text begins.
    fn check_node(&self, node: u32, record: &Record, text_at: u64) -> Result<u64, TreeError> {
        let bad_text = TreeError::BadText { node };
        if record.mode > 0o7777 {
            return Err(TreeError::BadMode { node });
        }
        if u64::from(record.name_at) != text_at {
            return Err(bad_text);
        }
        let name = record.name(self.text).ok_or(bad_text)?;
        let is_root = node == 0;
        if is_root && !(name.is_empty() && record.kind == KIND_DIRECTORY && record.parent == 0) {
            return Err(TreeError::BadRoot);
        }
        if !is_root && !is_file_name(name) {
            return Err(TreeError::BadName { node });
        }
        let no_children = record.first == 0 && record.count == 0;
        let no_hash = record.hash == [0; 32];
        let mut text_end = text_at + name.len() as u64;
        let unused_is_zero = match record.kind {
            KIND_DIRECTORY => record.size == 0 && no_hash,
            KIND_FILE if record.size > MAX_BLOB_LEN => return Err(TreeError::TooLarge { node }),
            KIND_FILE => no_children,
            KIND_SYMLINK => {
                let target = record
                    .target(self.text)
                    .ok_or(TreeError::BadTarget { node })?;
                if !is_target(target) {
                    return Err(TreeError::BadTarget { node });
                }
                text_end += target.len() as u64;
                no_children && no_hash
            }
            kind => return Err(TreeError::UnknownKind { node, kind }),
        };
        if !unused_is_zero || record.reserved != 0 {
            return Err(TreeError::UnusedField { node });
        }
        Ok(text_end)
    }

    /// Checks that a directory's children follow the children before them, name it
    /// as their parent and are sorted; returns where the next children begin.
    fn check_children(&self, node: u32, record: &Record, first: u32) -> Result<u32, TreeError> {
        let end = first
            .checked_add(record.count)
            .filter(|end| *end <= self.count);
        let (true, Some(end)) = (record.first == first, end) else {
            return Err(TreeError::BadOrder { node });
        };
        let mut previous: Option<&[u8]> = None;
        for child in first..end {
            let record =
                Record::read(self.table, child).ok_or(TreeError::BadOrder { node: child })?;
            if record.parent != node {
                return Err(TreeError::BadOrder { node: child });
            }
            let name = record
                .name(self.text)
                .ok_or(TreeError::BadText { node: child })?;
            if previous.is_some_and(|previous| previous >= name) {
                return Err(TreeError::Unsorted { node: child });
            }
            previous = Some(name);
        }
        Ok(end)
    }

    /// Number of nodes, the root included.
    #[must_use]
    pub fn node_count(&self) -> u32 {
        self.count
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> Node<'a> {
        self.node(0).unwrap_or(Node {
            // Never taken: a parsed tree has its root.
            index: 0,
            parent: 0,
            name: &[],
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: 0,
            kind: NodeKind::Directory { first: 0, count: 0 },
        })
    }

    /// The node at position `node`, or `None` beyond the end.
    #[must_use]
    pub fn node(&self, node: u32) -> Option<Node<'a>> {
        let record = Record::read(self.table, node)?;
        let kind = match record.kind {
            KIND_FILE => NodeKind::File {
                size: record.size,
                hash: Hash(record.hash),
            },
            KIND_SYMLINK => NodeKind::Symlink {
                target: record.target(self.text)?,
            },
            _ => NodeKind::Directory {
                first: record.first,
                count: record.count,
            },
        };
        Some(Node {
            index: node,
            parent: record.parent,
            name: record.name(self.text)?,
            mode: record.mode,
            uid: record.uid,
            gid: record.gid,
            mtime: record.mtime,
            kind,
        })
    }

    /// The children of `node` in the order of their names; none unless it is a directory.
    #[must_use]
    pub fn children(&self, node: &Node<'a>) -> Children<'a> {
        let (first, count) = match node.kind {
            NodeKind::Directory { first, count } => (first, count),
            NodeKind::File { .. } | NodeKind::Symlink { .. } => (0, 0),
        };
        Children {
            tree: *self,
            next: first,
            end: first.saturating_add(count).min(self.count),
        }
    }

    /// The child of `directory` called `name`: a binary search, nothing allocated.
    #[must_use]
    pub fn lookup(&self, directory: &Node<'a>, name: &[u8]) -> Option<Node<'a>> {
        let NodeKind::Directory { first, count } = directory.kind else {
            return None;
        };
        let (mut low, mut high) = (first, first.checked_add(count)?);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name_of(middle)?.cmp(name) {
                core::cmp::Ordering::Less => low = middle + 1,
                core::cmp::Ordering::Greater => high = middle,
                core::cmp::Ordering::Equal => return self.node(middle),
            }
        }
        None
    }

    /// The name of a node, without decoding the rest of it.
    fn name_of(&self, node: u32) -> Option<&'a [u8]> {
        let bytes = self.table.get(index(node).checked_mul(NODE_LEN)?..)?;
        let len = usize::from(*bytes.get(59)?);
        let start = index(u32_at(bytes, 60)?);
        self.text.get(start..start.checked_add(len)?)
    }

    /// Every node, parents before children.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'a>> + use<'a> {
        Children {
            tree: *self,
            next: 0,
            end: self.count,
        }
    }
}

/// The children of a directory, in the order of their names.
#[derive(Clone, Debug)]
pub struct Children<'a> {
    tree: TreeView<'a>,
    next: u32,
    end: u32,
}

impl<'a> Iterator for Children<'a> {
    type Item = Node<'a>;

    fn next(&mut self) -> Option<Node<'a>> {
        if self.next >= self.end {
            return None;
        }
        let node = self.tree.node(self.next);
        self.next += 1;
        node
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = index(self.end.saturating_sub(self.next));
        (left, Some(left))
    }
}

impl ExactSizeIterator for Children<'_> {}
