//! `/proc/PID` and `/proc/PID/task/TID`.

use super::fd::{FdDir, FdView};
use super::mem::MemFile;
use super::{Proc, ProcProcess, number};
use crate::error::{Error, Result};
use crate::inode::{Attr, DirEntry, Emit, Inode, Kind, Link, SetAttr};
use crate::mount::{Mount, MountFlags, Path};
use crate::pseudo::{Content, Text, TextFile};
use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt::Write;

/// What is in the directory besides the text files of the process room.
const LINKS: [&str; 3] = ["cwd", "root", "exe"];
const DIRS: [&str; 4] = ["fd", "fdinfo", "task", "ns"];
const TEXTS: [&str; 4] = ["mounts", "mountinfo", "cgroup", "mem"];
/// Namespaces: there is one of each, which is the capsule.
const NAMESPACES: [(&str, u64); 7] = [
    ("cgroup", 4_026_531_835),
    ("ipc", 4_026_531_839),
    ("mnt", 4_026_531_841),
    ("net", 4_026_531_840),
    ("pid", 4_026_531_836),
    ("user", 4_026_531_837),
    ("uts", 4_026_531_838),
];

/// The number of an inode of process `pid`.
pub(super) fn ino(pid: u32, which: u64) -> u64 {
    1 << 40 | u64::from(pid) << 16 | which
}

/// The directory of a process, or of one of its threads.
pub(super) struct ProcessDir {
    attr: Attr,
    proc: Arc<Proc>,
    process: Arc<dyn ProcProcess>,
    tid: Option<u32>,
}

impl ProcessDir {
    pub(super) fn node(
        proc: &Arc<Proc>,
        process: Arc<dyn ProcProcess>,
        tid: Option<u32>,
    ) -> Arc<dyn Inode> {
        let ino = ino(tid.unwrap_or(process.pid()), u64::from(tid.is_some()));
        Arc::new(ProcessDir {
            attr: proc
                .fs
                .attr_with(ino, Kind::Directory, 0o555, process.owner()),
            proc: proc.clone(),
            process,
            tid,
        })
    }

    /// The process, unless this is the directory of a single thread.
    pub(super) fn whole(&self) -> Option<&Arc<dyn ProcProcess>> {
        self.tid.is_none().then_some(&self.process)
    }

    fn attr_of(&self, kind: Kind, mode: u32) -> Attr {
        self.proc.fs.attr(kind, mode, self.process.owner())
    }

    fn text(&self, name: &'static str, mode: u32) -> Arc<dyn Inode> {
        let content = ProcessText {
            process: self.process.clone(),
            tid: self.tid,
            name,
        };
        TextFile::inode(self.attr_of(Kind::File, mode), Arc::new(content))
    }

    fn link(&self, path: Path) -> Arc<dyn Inode> {
        Arc::new(PathLink {
            attr: self.attr_of(Kind::Symlink, 0o777),
            path,
        })
    }

    fn place(&self, name: &[u8]) -> Option<Path> {
        match name {
            b"exe" => self.process.exe(),
            b"cwd" => self.process.places().map(|p| p.cwd()),
            b"root" => self.process.places().map(|p| p.root()),
            _ => None,
        }
    }

    fn fd_dir(&self, view: FdView) -> Arc<dyn Inode> {
        let mode = if view == FdView::Info { 0o555 } else { 0o500 };
        let attr = self.attr_of(Kind::Directory, mode);
        FdDir::node(&self.proc, attr, self.process.clone(), view)
    }

    fn namespaces(&self) -> Arc<dyn Inode> {
        let dir = self.proc.fs.dir();
        for (name, number) in NAMESPACES {
            let target = alloc::format!("{name}:[{number}]");
            dir.add(name, self.proc.fs.link(&target));
        }
        dir
    }

    fn mounts(&self, name: &[u8]) -> Option<Arc<dyn Inode>> {
        let process = self.process.clone();
        let content: Arc<dyn Content> = match name {
            b"mounts" => Arc::new(Mounts {
                process,
                line: mounts_line,
            }),
            b"mountinfo" => Arc::new(Mounts {
                process,
                line: mountinfo_line,
            }),
            b"cgroup" => Arc::new(|out: &mut Text| out.write_str("0::/\n")),
            _ => return None,
        };
        Some(TextFile::inode(self.attr_of(Kind::File, 0o444), content))
    }
}

impl Inode for ProcessDir {
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
        let names = self.process.names();
        if let Some((n, mode)) = names.iter().find(|(n, _)| n.as_bytes() == name) {
            return Ok(self.text(n, *mode));
        }
        match name {
            b"mem" => Ok(Arc::new(MemFile {
                attr: self.attr_of(Kind::File, 0o600),
                process: self.process.clone(),
            })),
            b"fd" => Ok(self.fd_dir(FdView::Links)),
            b"fdinfo" => Ok(self.fd_dir(FdView::Info)),
            b"ns" => Ok(self.namespaces()),
            b"task" if self.tid.is_none() => Ok(Arc::new(TaskDir {
                attr: self.attr_of(Kind::Directory, 0o555),
                proc: self.proc.clone(),
                process: self.process.clone(),
            })),
            b"net" => Ok(self.proc.fs.link(match self.tid {
                None => "../net",
                Some(_) => "../../../net",
            })),
            b"exe" | b"cwd" | b"root" => Ok(self.link(self.place(name).ok_or(Error::NotFound)?)),
            _ => self.mounts(name).ok_or(Error::NotFound),
        }
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> Result<()> {
        let texts = self.process.names().iter().map(|(n, _)| (*n, Kind::File));
        let all = texts
            .chain(TEXTS.map(|n| (n, Kind::File)))
            .chain(LINKS.map(|n| (n, Kind::Symlink)))
            .chain([("net", Kind::Symlink)])
            .chain(DIRS.map(|n| (n, Kind::Directory)))
            .filter(|(n, _)| self.tid.is_none() || *n != "task");
        let skip = from.saturating_sub(2) as usize;
        for (i, (name, kind)) in all.enumerate().skip(skip) {
            let entry = DirEntry {
                name: name.as_bytes(),
                ino: ino(self.process.pid(), i as u64 + 2),
                kind,
                next: i as u64 + 3,
            };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// A text file of the process room's.
struct ProcessText {
    process: Arc<dyn ProcProcess>,
    tid: Option<u32>,
    name: &'static str,
}

impl Content for ProcessText {
    fn read(&self, out: &mut Text) -> Result<()> {
        self.process.read(self.tid, self.name, out)
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.process.write(self.tid, self.name, bytes)
    }
}

/// `exe`, `cwd`, `root`: a link to the very object.
struct PathLink {
    attr: Attr,
    path: Path,
}

impl Inode for PathLink {
    fn attr(&self) -> &Attr {
        &self.attr
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn set_attr(&self, _: &SetAttr) -> Result<()> {
        Err(Error::NotPermitted)
    }

    fn link_target(&self) -> Result<Link> {
        Ok(Link::Object(self.path.clone()))
    }
}

/// `/proc/PID/task`.
struct TaskDir {
    attr: Attr,
    proc: Arc<Proc>,
    process: Arc<dyn ProcProcess>,
}

impl Inode for TaskDir {
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
        let tid = number(name).filter(|t| self.process.threads().contains(t));
        let tid = tid.ok_or(Error::NotFound)?;
        Ok(ProcessDir::node(
            &self.proc,
            self.process.clone(),
            Some(tid),
        ))
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> Result<()> {
        let mut tids = self.process.threads();
        tids.sort_unstable();
        for tid in tids {
            if u64::from(tid) + 2 < from {
                continue;
            }
            let name = alloc::format!("{tid}");
            let entry = DirEntry {
                name: name.as_bytes(),
                ino: ino(tid, 1),
                kind: Kind::Directory,
                next: u64::from(tid) + 3,
            };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

type MountLine = fn(&mut Text, &Mount, &str, u64) -> core::fmt::Result;

/// A table of the mounts a process sees.
struct Mounts {
    process: Arc<dyn ProcProcess>,
    line: MountLine,
}

impl Content for Mounts {
    fn read(&self, out: &mut Text) -> Result<()> {
        let places = self.process.places().ok_or(Error::NoProcess)?;
        let root = places.root();
        for mount in root.mount.all() {
            let parent = mount.mount_point().map_or(0, |p| p.mount.id());
            let (path, reached) = match mount.mount_point() {
                None => (alloc::vec![b'/'], true),
                Some(p) => p.components(&root)?,
            };
            if reached {
                let path = escape(&path);
                (self.line)(out, &mount, &path, parent).map_err(|_| Error::NoMemory)?;
            }
        }
        Ok(())
    }
}

/// A path in a mount table: blanks and backslashes in octal.
fn escape(path: &[u8]) -> String {
    let mut out = String::new();
    for c in String::from_utf8_lossy(path).chars() {
        match c {
            ' ' | '\t' | '\n' | '\\' => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\{:03o}", c as u32);
            }
            c => out.push(c),
        }
    }
    if out.is_empty() {
        out.push('/');
    }
    out
}

fn flags(m: &Mount) -> String {
    let mut out = String::from(if m.flags().contains(MountFlags::READ_ONLY) {
        "ro"
    } else {
        "rw"
    });
    for (flag, name) in [
        (MountFlags::NOSUID, ",nosuid"),
        (MountFlags::NODEV, ",nodev"),
        (MountFlags::NOEXEC, ",noexec"),
    ] {
        if m.flags().contains(flag) {
            out.push_str(name);
        }
    }
    out.push_str(",relatime");
    out
}

fn mounts_line(out: &mut Text, m: &Mount, path: &str, _: u64) -> core::fmt::Result {
    let fs = m.tree().fs();
    let (source, flags) = (m.source(), flags(m));
    let (kind, options) = (fs.name(), fs.options());
    writeln!(out, "{source} {path} {kind} {flags}{options} 0 0")
}

fn mountinfo_line(out: &mut Text, m: &Mount, path: &str, parent: u64) -> core::fmt::Result {
    let fs = m.tree().fs();
    let dev = m.tree().root().inode().map_or(0, |i| i.attr().dev);
    let minor = dev & 0xff | dev >> 12 & 0xfff_ff00;
    let (id, source, flags) = (m.id(), m.source(), flags(m));
    let (kind, options) = (fs.name(), fs.options());
    writeln!(
        out,
        "{id} {parent} 0:{minor} / {path} {flags} - {kind} {source} rw{options}"
    )
}
