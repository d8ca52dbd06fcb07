//! The queues as files: what is mounted at `/dev/mqueue` (mq_overview(7)).
//!
//! Names can be listed and removed there; reading one tells its status, and what is opened
//! there is a queue like one from mq_open(3). Only that makes queues.

use super::{MessageQueue, Names, OpenQueue};
use crate::World;
use crate::ipc::Error;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use vfs::file::{FileOps, Opening};
use vfs::inode::{Attr, DirEntry, Emit, Inode, Kind, SetAttr, Stat};
use vfs::mount::Tree;
use vfs::pseudo::PseudoFs;

/// `MQUEUE_MAGIC` of statfs(2).
const MAGIC: u64 = 0x1980_0202;
/// Position of the first name in a listing; `.` and `..` come before.
const NAMES_AT: u64 = 2;

/// The file system of the queues of `world`.
#[must_use]
pub fn tree(world: Arc<World>) -> Arc<Tree> {
    let fs = PseudoFs::new("mqueue", MAGIC);
    let root = Root {
        attr: fs.attr(Kind::Directory, 0o1777, (0, 0)),
        fs: fs.clone(),
        world,
    };
    fs.tree(Arc::new(root))
}

struct Root {
    attr: Attr,
    fs: Arc<PseudoFs>,
    world: Arc<World>,
}

impl Root {
    fn names(&self) -> &Names {
        self.world.ipc().mqueues()
    }

    fn node(&self, queue: Arc<MessageQueue>) -> Arc<dyn Inode> {
        let perm = *queue.perm.lock();
        let owner = (perm.uid, perm.gid);
        let attr = self
            .fs
            .attr_with(queue.number(), Kind::File, perm.mode, owner);
        Arc::new(Node { attr, queue })
    }
}

/// What the calls on files say where those on queues say something of their own.
fn told(e: Error) -> vfs::Error {
    match e {
        Error::NotFound => vfs::Error::NotFound,
        Error::NoMemory => vfs::Error::NoMemory,
        _ => vfs::Error::Invalid,
    }
}

impl Inode for Root {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> vfs::Result<()> {
        Err(vfs::Error::NotPermitted)
    }

    fn is_cacheable(&self) -> bool {
        false
    }

    fn lookup(&self, name: &[u8]) -> vfs::Result<Arc<dyn Inode>> {
        let queue = self.names().find(name).ok_or(vfs::Error::NotFound)?;
        Ok(self.node(queue))
    }

    fn unlink(&self, name: &[u8]) -> vfs::Result<()> {
        self.names().remove(name).map_err(told)
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> vfs::Result<()> {
        let mut at = from.max(NAMES_AT);
        let mut name = Vec::new();
        loop {
            let index = usize::try_from(at - NAMES_AT).unwrap_or(usize::MAX);
            let Some(ino) = self.names().nth(index, &mut name).map_err(told)? else {
                return Ok(());
            };
            at += 1;
            let entry = DirEntry {
                name: &name,
                ino,
                kind: Kind::File,
                next: at,
            };
            if !emit(entry) {
                return Ok(());
            }
        }
    }
}

/// A queue as a file.
struct Node {
    attr: Attr,
    queue: Arc<MessageQueue>,
}

impl Inode for Node {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> Stat {
        self.queue.stat()
    }

    fn set_attr(&self, change: &SetAttr) -> vfs::Result<()> {
        let mut perm = self.queue.perm.lock();
        perm.mode = change.mode.map_or(perm.mode, |m| m & 0o777);
        perm.uid = change.uid.unwrap_or(perm.uid);
        perm.gid = change.gid.unwrap_or(perm.gid);
        Ok(())
    }

    fn open(self: Arc<Self>, _: &Opening<'_>) -> vfs::Result<Arc<dyn FileOps>> {
        Ok(Arc::new(OpenQueue(self.queue.clone())))
    }
}
