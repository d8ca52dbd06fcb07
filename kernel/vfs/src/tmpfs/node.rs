//! What all nodes of a tmpfs share, symbolic links, and named pipes and sockets.

use super::dir::TmpDir;
use super::file::TmpFile;
use super::{LowerKind, TmpFs};
use crate::error::{Error, Result};
use crate::file::{FileOps, Opening};
use crate::inode::{Attr, Inode, Kind, Link, NewAttr, SetAttr, SocketSlot, Stat, XattrSet};
use crate::pipe::FifoSlot;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use machine::addr::PAGE_SIZE;
use machine::sync::SpinLock;

/// Bytes that all extended attributes of a node may have.
const XATTR_BYTES_MAX: usize = 64 << 10;

type Xattrs = BTreeMap<Box<[u8]>, Arc<Vec<u8>>>;

/// The part that every node has.
pub(super) struct Node {
    pub(super) attr: Attr,
    pub(super) fs: Arc<TmpFs>,
    xattrs: SpinLock<Option<Box<Xattrs>>>,
}

impl Node {
    /// A node that a program makes.
    pub(super) fn new(fs: &Arc<TmpFs>, new: &NewAttr, ino: u64) -> Result<Node> {
        fs.check_room()?;
        Node::with(fs, Attr::new(fs.dev, ino, *new)).map_err(|e| fs.told(e))
    }

    fn with(fs: &Arc<TmpFs>, attr: Attr) -> Result<Node> {
        fs.take_node()?;
        Ok(Node {
            attr,
            fs: fs.clone(),
            xattrs: SpinLock::new(None),
        })
    }

    pub(super) fn xattr(&self, name: &[u8]) -> Result<Arc<Vec<u8>>> {
        let have = self.xattrs.lock();
        have.as_ref()
            .and_then(|x| x.get(name))
            .cloned()
            .ok_or(Error::NoData)
    }

    pub(super) fn set_xattr(&self, name: &[u8], value: &[u8], how: XattrSet) -> Result<()> {
        let mut copy = Vec::new();
        copy.try_reserve_exact(value.len())?;
        copy.extend_from_slice(value);
        let (name, value) = (Box::<[u8]>::from(name), Arc::new(copy));
        let mut have = self.xattrs.lock();
        let map = have.get_or_insert_default();
        let old = map.get(&name).map_or(0, |v| entry_bytes(&name, v));
        match how {
            XattrSet::Create if old != 0 => return Err(Error::Exists),
            XattrSet::Replace if old == 0 => return Err(Error::NoData),
            _ => {}
        }
        let (before, new) = (bytes(map), entry_bytes(&name, &value));
        let after = before - old + new;
        if after > XATTR_BYTES_MAX {
            return Err(Error::NoSpace);
        }
        let (had, needs) = (before.div_ceil(PAGE_SIZE), after.div_ceil(PAGE_SIZE));
        if needs > had {
            self.fs.check_room()?;
            let paid = self.fs.account.charge(needs - had);
            paid.map_err(|e| self.fs.told(e.into()))?;
        }
        map.insert(name, value);
        self.fs.account.uncharge(had.saturating_sub(needs));
        self.attr.touch_changed();
        Ok(())
    }

    pub(super) fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let mut have = self.xattrs.lock();
        let map = have.as_mut().ok_or(Error::NoData)?;
        let before = bytes(map).div_ceil(PAGE_SIZE);
        map.remove(name).ok_or(Error::NoData)?;
        self.fs
            .account
            .uncharge(before - bytes(map).div_ceil(PAGE_SIZE));
        self.attr.touch_changed();
        Ok(())
    }

    pub(super) fn list_xattrs(&self) -> Result<Vec<u8>> {
        let have = self.xattrs.lock();
        let mut out = Vec::new();
        for name in have.iter().flat_map(|m| m.keys()) {
            out.try_reserve(name.len() + 1)?;
            out.extend_from_slice(name);
            out.push(0);
        }
        Ok(out)
    }
}

/// Bytes an attribute counts, with its share of the map; never 0.
fn entry_bytes(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + 64
}

fn bytes(map: &Xattrs) -> usize {
    map.iter().map(|(n, v)| entry_bytes(n, v)).sum()
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(map) = self.xattrs.get_mut() {
            self.fs.account.uncharge(bytes(map).div_ceil(PAGE_SIZE));
        }
        self.fs.give_node();
    }
}

/// The methods of [`Inode`] that every node answers through its [`Node`].
macro_rules! node_methods {
    () => {
        fn attr(&self) -> &Attr {
            &self.node.attr
        }
        fn as_any(&self) -> &dyn Any {
            self
        }
        fn xattr(&self, name: &[u8]) -> Result<Arc<Vec<u8>>> {
            self.node.xattr(name)
        }
        fn set_xattr(&self, name: &[u8], value: &[u8], how: $crate::inode::XattrSet) -> Result<()> {
            self.node.set_xattr(name, value, how)
        }
        fn remove_xattr(&self, name: &[u8]) -> Result<()> {
            self.node.remove_xattr(name)
        }
        fn list_xattrs(&self) -> Result<Vec<u8>> {
            self.node.list_xattrs()
        }
    };
}
pub(super) use node_methods;

/// A new node of any kind.
pub(super) fn make(
    fs: &Arc<TmpFs>,
    attr: &NewAttr,
    target: &[u8],
    ino: u64,
) -> Result<Arc<dyn Inode>> {
    Ok(match attr.kind {
        Kind::File => TmpFile::new(fs, attr, ino)?,
        Kind::Directory => TmpDir::new(fs, attr, ino)?,
        Kind::Symlink => TmpLink::new(Node::new(fs, attr, ino)?, target)?,
        Kind::Fifo => Arc::new(TmpFifo {
            node: Node::new(fs, attr, ino)?,
            slot: FifoSlot::new(fs.account.clone()),
        }),
        Kind::Socket => Arc::new(TmpSocket {
            node: Node::new(fs, attr, ino)?,
            slot: SocketSlot::default(),
        }),
        // Devices are what the manifest grants, not what a program makes.
        Kind::CharDevice | Kind::BlockDevice => return Err(Error::NotPermitted),
    })
}

/// The node `index` of the lower tree, as this file system's own.
pub(super) fn materialise(fs: &Arc<TmpFs>, index: u32) -> Result<Arc<dyn Inode>> {
    let lower = fs.lower.as_ref().ok_or(Error::Io)?;
    let known = lower.node(index).ok_or(Error::Io)?;
    let kind = match known.kind {
        LowerKind::Directory { .. } => Kind::Directory,
        LowerKind::File { .. } => Kind::File,
        LowerKind::Symlink => Kind::Symlink,
    };
    let new = NewAttr {
        kind,
        mode: known.mode,
        uid: known.uid,
        gid: known.gid,
    };
    let attr = Attr::dated(fs.dev, u64::from(index) + 1, new, known.mtime);
    let node = Node::with(fs, attr)?;
    Ok(match known.kind {
        LowerKind::Directory { children } => TmpDir::over(node, index, children),
        LowerKind::File { size } => TmpFile::over(node, index, size),
        LowerKind::Symlink => TmpLink::new(node, &lower.target(index).ok_or(Error::Io)?)?,
    })
}

/// A symbolic link.
struct TmpLink {
    node: Node,
    target: Arc<[u8]>,
}

impl TmpLink {
    fn new(node: Node, target: &[u8]) -> Result<Arc<TmpLink>> {
        let paid = node.fs.take_bytes(target.len());
        paid.map_err(|e| node.fs.told(e))?;
        Ok(Arc::new(TmpLink {
            node,
            target: Arc::from(target),
        }))
    }
}

impl Drop for TmpLink {
    fn drop(&mut self) {
        self.node.fs.give_bytes(self.target.len());
    }
}

impl Inode for TmpLink {
    node_methods!();

    fn stat(&self) -> Stat {
        let mut s = self.node.attr.stat(self.target.len() as u64);
        s.blocks = 0;
        s
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if change.mode.is_some() {
            return Err(Error::Unsupported);
        }
        self.node.attr.apply(change);
        Ok(())
    }

    fn open(self: Arc<Self>, _: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Err(Error::TooManyLinks)
    }

    fn link_target(&self) -> Result<Link> {
        Ok(Link::Target(self.target.clone()))
    }
}

/// A named pipe.
struct TmpFifo {
    node: Node,
    slot: FifoSlot,
}

impl Inode for TmpFifo {
    node_methods!();

    fn open(self: Arc<Self>, how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        self.slot.open(how.flags)
    }
}

/// The name of a unix socket.
struct TmpSocket {
    node: Node,
    slot: SocketSlot,
}

impl Inode for TmpSocket {
    node_methods!();

    fn open(self: Arc<Self>, _: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Err(Error::NoDevice)
    }

    fn socket(&self) -> Option<&SocketSlot> {
        Some(&self.slot)
    }
}
