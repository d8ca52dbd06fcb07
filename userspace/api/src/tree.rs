//! The tree blob: the files of a capsule's image as one blob.
//!
//! A node table in breadth-first order is followed by the names and link
//! targets in the same order. A directory's children are therefore contiguous,
//! and they are sorted by name: looking a name up is a binary search in place,
//! without allocation. The encoding is canonical: one tree has exactly one
//! encoding and so one hash, and [`TreeView::parse`] refuses any other.
//!
//! [`TreeView::parse`] checks everything once, in one pass and without
//! allocating; after that the accessors cannot fail.

mod builder;
mod view;

pub use builder::{Meta, TreeBuilder};
pub use view::{Children, Node, NodeKind, TreeView};

/// First bytes of a tree blob.
pub const MAGIC: [u8; 8] = *b"SKEPTREE";
/// Version of the layout that this module reads and writes.
pub const VERSION: u32 = 1;
/// Bytes before the node table.
pub const HEADER_LEN: usize = 32;
/// Bytes of one node in the table.
pub const NODE_LEN: usize = 80;

/// Most nodes of a tree.
pub const MAX_NODES: u32 = 1 << 20;
/// Most directories between the root and a node, the node included.
pub const MAX_DEPTH: u32 = 64;
/// Longest name, in bytes (`NAME_MAX`).
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, in bytes (`PATH_MAX` without the final NUL).
pub const MAX_TARGET: usize = 4095;

/// Kinds of nodes as they stand in the table.
const KIND_DIRECTORY: u8 = 1;
const KIND_FILE: u8 = 2;
const KIND_SYMLINK: u8 = 3;

/// Why bytes are not a tree, or a tree cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The first bytes are not [`MAGIC`].
    #[error("not a tree: wrong magic number")]
    BadMagic,
    /// The layout is of another version.
    #[error("tree of version {0}, this program knows {VERSION}")]
    UnknownVersion(u32),
    /// The bytes end before the tree does.
    #[error("tree is cut short: {have} bytes of {need}")]
    Truncated {
        /// Bytes that the header demands.
        need: u64,
        /// Bytes found.
        have: u64,
    },
    /// There are bytes after the tree, or reserved bytes are not zero.
    #[error("tree has bytes that mean nothing")]
    Excess,
    /// No node, or more than [`MAX_NODES`].
    #[error("tree of {0} nodes, allowed are 1 to {MAX_NODES}")]
    NodeCount(u64),
    /// The first node is not a directory without name.
    #[error("tree does not begin with its root directory")]
    BadRoot,
    /// A node is of no known kind.
    #[error("node {node} is of unknown kind {kind}")]
    UnknownKind {
        /// Position in the table.
        node: u32,
        /// Kind found.
        kind: u8,
    },
    /// The permission bits are more than `0o7777`.
    #[error("node {node} has permission bits beyond 7777")]
    BadMode {
        /// Position in the table.
        node: u32,
    },
    /// A name is empty, longer than [`MAX_NAME`], `.`, `..`, or holds `/` or NUL.
    #[error("node {node} has a name that is no file name")]
    BadName {
        /// Position in the table.
        node: u32,
    },
    /// A link target is empty, longer than [`MAX_TARGET`], or holds NUL.
    #[error("node {node} has a link target that is no path")]
    BadTarget {
        /// Position in the table.
        node: u32,
    },
    /// The children of a directory are not where breadth-first order puts them.
    #[error("node {node} is out of breadth-first order")]
    BadOrder {
        /// Position in the table.
        node: u32,
    },
    /// The names of a directory are not in strictly ascending order of their bytes.
    #[error("node {node} is not sorted after the name before it")]
    Unsorted {
        /// Position in the table.
        node: u32,
    },
    /// Names and targets do not follow each other in the order of the nodes.
    #[error("node {node} does not find its text where it belongs")]
    BadText {
        /// Position in the table.
        node: u32,
    },
    /// A field that the node's kind does not use is not zero.
    #[error("node {node} has a value in a field that its kind does not use")]
    UnusedField {
        /// Position in the table.
        node: u32,
    },
    /// A file is larger than a blob can be.
    #[error("node {node} is a file larger than a blob can be")]
    TooLarge {
        /// Position in the table.
        node: u32,
    },
    /// The directories are nested deeper than [`MAX_DEPTH`].
    #[error("tree is deeper than {MAX_DEPTH} directories")]
    TooDeep,
    /// The builder was given the same path twice.
    #[error("the same path was added twice")]
    Duplicate,
    /// The builder was given a path below something that is not a directory.
    #[error("a path leads through something that is not a directory")]
    NotADirectory,
    /// The builder was given a path that is empty or has an unfit component.
    #[error("a path has a component that is no file name")]
    BadPath,
}

/// Whether `name` may be the name of a node.
fn is_file_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
}

/// Whether `target` may be the target of a symbolic link.
fn is_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() <= MAX_TARGET && !target.contains(&0)
}
