//! devpts: the names of pseudo-terminals, one tree for each capsule (pts(4)).

use super::{Jobs, Master, Slave, Terminal};
use crate::error::{Error, Result};
use crate::file::{FileOps, OpenFlags, Opening};
use crate::inode::{Attr, DirEntry, Emit, Inode, Kind, NewAttr, SetAttr, Stat};
use crate::mount::{FileSystem, FsStat, Tree, next_device};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use machine::Account;
use machine::sync::SpinLock;

/// `DEVPTS_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0x1cd1;
/// Most terminals of a capsule.
pub const TERMINALS_MAX: usize = 1024;
/// The group that slaves belong to ("tty" of all distributions), and their mode.
const GROUP: u32 = 5;
const MODE: u32 = 0o620;
/// Inode numbers: the directory, `ptmx`, and the slaves from here on.
const FIRST_INO: u64 = 3;

/// The pseudo-terminals of a capsule.
pub struct Terminals {
    jobs: Arc<dyn Jobs>,
    account: Arc<Account>,
    dev: u64,
    /// By number.
    table: SpinLock<Vec<Option<Arc<Device>>>>,
}

impl Terminals {
    /// None yet.
    #[must_use]
    pub fn new(jobs: Arc<dyn Jobs>, account: Arc<Account>) -> Arc<Terminals> {
        Arc::new(Terminals {
            jobs,
            account,
            dev: next_device(),
            table: SpinLock::new(Vec::new()),
        })
    }

    /// How many there are (`kernel.pty.nr`).
    #[must_use]
    pub fn count(&self) -> usize {
        self.table.lock().iter().flatten().count()
    }

    /// Makes a pair; its master.
    ///
    /// # Errors
    /// [`Error::NoSpace`] if there are too many; [`Error::NoMemory`].
    fn create(self: &Arc<Self>, uid: u32) -> Result<Arc<Master>> {
        let mut table = self.table.lock();
        let number = match table.iter().position(Option::is_none) {
            Some(free) => free,
            None if table.len() >= TERMINALS_MAX => return Err(Error::NoSpace),
            None => {
                table.try_reserve(1)?;
                table.push(None);
                table.len() - 1
            }
        };
        let terminal = Terminal::new(number as u32, self.jobs.clone(), self.account.clone())?;
        let new = NewAttr {
            kind: Kind::CharDevice,
            mode: MODE,
            uid,
            gid: GROUP,
        };
        let node = Arc::new(Device {
            attr: Attr::new(self.dev, FIRST_INO + number as u64, new),
            rdev: terminal.device(),
            opens: Opens::Slave(terminal.clone()),
        });
        if let Some(slot) = table.get_mut(number) {
            *slot = Some(node);
        }
        Ok(Arc::new(Master {
            terminal,
            owner: self.clone(),
        }))
    }

    /// The name `number` is free again.
    pub(super) fn forget(&self, number: u32) {
        let gone = self
            .table
            .lock()
            .get_mut(number as usize)
            .and_then(Option::take);
        drop(gone);
    }

    /// The inode of a slave.
    pub(super) fn inode(&self, number: u32) -> Option<Arc<dyn Inode>> {
        let node = self.table.lock().get(number as usize)?.clone()?;
        Some(node)
    }

    /// Opens the controlling terminal of the caller (`/dev/tty`).
    ///
    /// # Errors
    /// [`Error::NoDevice`] without one.
    pub fn open_controlling(&self, how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        let terminal = self.jobs.caller().and_then(|j| j.terminal);
        let terminal = terminal.ok_or(Error::NoDevice)?;
        let slave: Arc<Slave> = terminal.open_slave(how.flags | OpenFlags::NOCTTY, how.cred)?;
        Ok(slave)
    }

    /// The file system, to mount on `/dev/pts`.
    #[must_use]
    pub fn tree(self: &Arc<Self>) -> Arc<Tree> {
        let attr = |ino, kind, mode| {
            let new = NewAttr {
                kind,
                mode,
                uid: 0,
                gid: 0,
            };
            Attr::new(self.dev, ino, new)
        };
        let root = Root {
            attr: attr(1, Kind::Directory, 0o755),
            ptmx: Arc::new(Device {
                attr: attr(2, Kind::CharDevice, 0o666),
                rdev: 5 << 8 | 2,
                opens: Opens::Pair(self.clone()),
            }),
            terminals: self.clone(),
        };
        Tree::new(Arc::new(DevPts), Arc::new(root))
    }
}

struct DevPts;

impl FileSystem for DevPts {
    fn name(&self) -> &'static str {
        "devpts"
    }

    fn stat(&self) -> FsStat {
        FsStat {
            magic: MAGIC,
            block_size: 4096,
            ..FsStat::default()
        }
    }

    fn options(&self) -> String {
        alloc::format!(",gid={GROUP},mode={MODE:o},ptmxmode=666")
    }
}

struct Root {
    attr: Attr,
    ptmx: Arc<Device>,
    terminals: Arc<Terminals>,
}

impl Inode for Root {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn is_cacheable(&self) -> bool {
        false
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if name == b"ptmx" {
            return Ok(self.ptmx.clone());
        }
        let number = crate::procfs::number(name).ok_or(Error::NotFound)?;
        self.terminals.inode(number).ok_or(Error::NotFound)
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> Result<()> {
        let ptmx = DirEntry {
            name: b"ptmx",
            ino: 2,
            kind: Kind::CharDevice,
            next: FIRST_INO,
        };
        if from < FIRST_INO && !emit(ptmx) {
            return Ok(());
        }
        let table = self.terminals.table.lock();
        let there: Vec<u64> = table
            .iter()
            .flatten()
            .map(|n| n.attr.ino)
            .filter(|ino| *ino >= from)
            .collect();
        drop(table);
        for ino in there {
            let name = alloc::format!("{}", ino - FIRST_INO);
            let entry = DirEntry {
                name: name.as_bytes(),
                ino,
                kind: Kind::CharDevice,
                next: ino + 1,
            };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// A device of the tree.
struct Device {
    attr: Attr,
    rdev: u64,
    opens: Opens,
}

/// What opening a device gives.
enum Opens {
    /// A new pair's master (`ptmx`).
    Pair(Arc<Terminals>),
    /// The slave whose name it is.
    Slave(Arc<Terminal>),
}

impl Inode for Device {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> Stat {
        let mut s = self.attr.stat(0);
        s.rdev = self.rdev;
        s
    }

    fn open(self: Arc<Self>, how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        Ok(match &self.opens {
            Opens::Pair(terminals) => terminals.create(how.cred.fsuid)?,
            Opens::Slave(terminal) => terminal.open_slave(how.flags, how.cred)?,
        })
    }
}
