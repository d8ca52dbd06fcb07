//! `/proc/PID/fd` and `/proc/PID/fdinfo`.

use super::{Proc, ProcProcess, number};
use crate::dentry::Dentry;
use crate::error::{Error, Result};
use crate::file::{FileOps, OpenFile, Opening};
use crate::inode::{Attr, DirEntry, Emit, Inode, Kind, Link, S_IFMT, SetAttr, Stat};
use crate::mount::Path;
use crate::pseudo::{Content, Text, TextFile};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Write;

/// Descriptors looked at in one go.
const BATCH: usize = 32;

/// What a directory of descriptors shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FdView {
    /// Links to the files.
    Links,
    /// Position, flags, and what the object says.
    Info,
}

pub(super) struct FdDir {
    attr: Attr,
    proc: Arc<Proc>,
    process: Arc<dyn ProcProcess>,
    view: FdView,
}

impl FdDir {
    pub(super) fn node(
        proc: &Arc<Proc>,
        attr: Attr,
        process: Arc<dyn ProcProcess>,
        view: FdView,
    ) -> Arc<dyn Inode> {
        Arc::new(FdDir {
            attr,
            proc: proc.clone(),
            process,
            view,
        })
    }
}

impl Inode for FdDir {
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

    fn stat(&self) -> Stat {
        // Since Linux 6.2 the size is the number of descriptors.
        let n = self.process.files().map_or(0, |f| f.len());
        let mut s = self.attr.stat(n as u64);
        s.blocks = 0;
        s
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let fd = number(name).and_then(|n| i32::try_from(n).ok());
        let fd = fd.ok_or(Error::NotFound)?;
        let files = self.process.files().ok_or(Error::NotFound)?;
        let file = files.get(fd).map_err(|_| Error::NotFound)?;
        let owner = self.process.owner();
        if self.view == FdView::Info {
            let attr = self.proc.fs.attr(Kind::File, 0o444, owner);
            let cloexec = files.cloexec(fd).unwrap_or(false);
            return Ok(TextFile::inode(attr, Arc::new(FdInfo { file, cloexec })));
        }
        let root = self.process.places().ok_or(Error::NotFound)?.root();
        Ok(Arc::new(FdLink {
            attr: self.proc.fs.attr(Kind::Symlink, link_mode(&file), owner),
            file,
            root,
        }))
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> Result<()> {
        let Some(files) = self.process.files() else {
            return Ok(());
        };
        let kind = match self.view {
            FdView::Links => Kind::Symlink,
            FdView::Info => Kind::File,
        };
        let mut next = usize::try_from(from.saturating_sub(2)).unwrap_or(usize::MAX);
        loop {
            let mut batch = [0; BATCH];
            let n = files.used(next, &mut batch);
            for fd in batch.iter().take(n) {
                let name = alloc::format!("{fd}");
                let entry = DirEntry {
                    name: name.as_bytes(),
                    ino: super::process::ino(self.process.pid(), 0x1000 + *fd as u64),
                    kind,
                    next: *fd as u64 + 3,
                };
                if !emit(entry) {
                    return Ok(());
                }
                next = fd + 1;
            }
            if n < BATCH {
                return Ok(());
            }
        }
    }
}

/// The mode of a link says how the file is open.
fn link_mode(file: &OpenFile) -> u32 {
    let flags = file.flags();
    let read = if flags.reads() { 0o400 } else { 0 };
    let write = if flags.writes() { 0o200 } else { 0 };
    0o100 | read | write
}

/// A link to an open file.
struct FdLink {
    attr: Attr,
    file: Arc<OpenFile>,
    root: Path,
}

impl Inode for FdLink {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn stat(&self) -> Stat {
        let mut s = self.attr.stat(64);
        s.blocks = 0;
        s
    }

    fn link_target(&self) -> Result<Link> {
        if let Some(path) = self.file.path() {
            return Ok(Link::Object(path.clone()));
        }
        // What has no path is reached through an inode that stands for it.
        let stand_in = Arc::new(StandIn::new(self.file.clone(), &self.attr));
        Ok(Link::Object(Path {
            mount: self.root.mount.clone(),
            dentry: Dentry::root(stand_in),
        }))
    }

    fn link_text(&self) -> Result<Vec<u8>> {
        let mut text = Text::default();
        self.file.ops().name(&mut text);
        Ok(text.0)
    }
}

/// Stands for an open object that has no path.
struct StandIn {
    attr: Attr,
    file: Arc<OpenFile>,
}

impl StandIn {
    fn new(file: Arc<OpenFile>, link: &Attr) -> StandIn {
        let stat = file.stat();
        let kinds = [Kind::Fifo, Kind::Socket, Kind::File, Kind::CharDevice];
        let kind = kinds.into_iter().find(|k| k.mode() == stat.mode & S_IFMT);
        let mode = match stat.mode & 0o777 {
            0 => 0o600,
            m => m,
        };
        let new = crate::inode::NewAttr {
            kind: kind.unwrap_or(Kind::CharDevice),
            mode,
            uid: link.uid(),
            gid: link.gid(),
        };
        StandIn {
            attr: Attr::new(stat.dev, stat.ino, new),
            file,
        }
    }
}

impl Inode for StandIn {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn stat(&self) -> Stat {
        self.file.stat()
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn is_stand_in(&self) -> bool {
        true
    }

    fn truncate(&self, len: u64) -> Result<()> {
        self.file.ops().truncate(&self.file, len)
    }

    fn open(self: Arc<Self>, how: &Opening<'_>) -> Result<Arc<dyn FileOps>> {
        self.file.ops().clone().reopen(&self.file, how)
    }
}

/// `/proc/PID/fdinfo/N`.
struct FdInfo {
    file: Arc<OpenFile>,
    cloexec: bool,
}

impl Content for FdInfo {
    fn read(&self, out: &mut Text) -> Result<()> {
        let f = &self.file;
        let mut flags = f.flags();
        flags.set(crate::OpenFlags::CLOEXEC, self.cloexec);
        let mount = f.path().map_or(0, |p| p.mount.id());
        let written = write!(
            out,
            "pos:\t{}\nflags:\t0{:o}\nmnt_id:\t{mount}\nino:\t{}\n",
            f.position(),
            flags.bits(),
            f.stat().ino
        );
        written.map_err(|_| Error::NoMemory)?;
        f.ops().info(f, out);
        Ok(())
    }
}
