//! A read-only tree under a tmpfs: a capsule's verified image.

use crate::error::Result;
use alloc::sync::Arc;
use machine::Frame;

/// What a node of a lower tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LowerKind {
    /// A directory with this many entries.
    Directory {
        /// Its entries.
        children: u32,
    },
    /// A file of this many bytes.
    File {
        /// Its size in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink,
}

/// What is known of a node of a lower tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LowerNode {
    /// What it is.
    pub kind: LowerKind,
    /// Permission bits (`07777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change, in nanoseconds since 1970.
    pub mtime: i64,
}

/// Takes one child of a directory: its name, its index, and what it is.
pub type EmitChild<'a> = dyn FnMut(&[u8], u32, LowerKind) + 'a;

/// A read-only tree of nodes `0..count()`, of which 0 is the root directory. It
/// never changes.
///
/// All but [`LowerTree::page`] are called with spin locks held and must not wait.
pub trait LowerTree: Send + Sync {
    /// How many nodes there are.
    fn count(&self) -> u32;

    /// The node `index`.
    fn node(&self, index: u32) -> Option<LowerNode>;

    /// The child called `name` of the directory `dir`.
    fn lookup(&self, dir: u32, name: &[u8]) -> Option<u32>;

    /// Gives the child number `n` (from 0) of the directory `dir` to `emit`, if
    /// there is one.
    fn child(&self, dir: u32, n: u32, emit: &mut EmitChild<'_>);

    /// Where the symbolic link `index` leads.
    fn target(&self, index: u32) -> Option<Arc<[u8]>>;

    /// The frame with page `page` of the file `index`; bytes past its end are
    /// zero. The frame may be shared with other capsules: nobody writes it. May
    /// wait for a device.
    ///
    /// # Errors
    /// [`crate::Error::Io`] if the content is not what its hash says.
    fn page(&self, index: u32, page: u64) -> Result<Frame>;
}
