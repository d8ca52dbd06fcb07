//! procfs (proc(5)): the processes of a capsule, and its system-wide files.
//!
//! Other rooms supply what they know: processes come through [`ProcSource`],
//! further files (such as `net/tcp`) as [`Content`] at a path. Every number is
//! the capsule's own; nothing of the node or of other capsules shows.
//!
//! `process` has `/proc/PID` with descriptors and tasks; `system` has `meminfo`,
//! `stat`, `uptime` and their like; `sysctl` has `/proc/sys`.

mod fd;
mod mem;
mod process;
mod sysctl;
mod system;
pub use system::FILE_SYSTEMS;
pub(crate) use system::memory;
#[cfg(test)]
mod tests;

use crate::context::FsContext;
use crate::error::{Error, Result};
use crate::fdtable::FdTable;
use crate::inode::{Attr, DirEntry, Emit, Inode, Kind, Link, SetAttr};
use crate::mount::{Path, Tree};
use crate::pseudo::{Content, PseudoFs, StaticDir, Text};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use machine::Account;
use machine::thread::CpuGroup;
use process::ProcessDir;

/// `PROC_SUPER_MAGIC` of statfs(2).
const MAGIC: u64 = 0x9fa0;
/// Position of the first process in a listing of the root.
const PIDS_AT: u64 = 1 << 20;

/// One process as `/proc` shows it. It may end at any time; what it tells then
/// fails with [`Error::NoProcess`].
pub trait ProcProcess: Send + Sync {
    /// Its number.
    fn pid(&self) -> u32;
    /// Who its files belong to: the effective user and group, or root for a
    /// process that is not dumpable.
    fn owner(&self) -> (u32, u32);
    /// Its threads.
    fn threads(&self) -> Vec<u32>;
    /// Its descriptors.
    fn files(&self) -> Option<Arc<FdTable>>;
    /// Its root and working directory.
    fn places(&self) -> Option<Arc<FsContext>>;
    /// The file of its program.
    fn exe(&self) -> Option<Path>;
    /// The text files of its directory (`stat`, `status`, `cmdline`, `maps`, ...)
    /// and their modes. `mounts`, `mountinfo`, `cgroup`, `fd`, `fdinfo`, `task`,
    /// `ns`, `cwd`, `root`, `exe` and `net` are made here.
    fn names(&self) -> &'static [(&'static str, u32)];
    /// Appends the content of the file `name`, of thread `tid` in
    /// `/proc/PID/task/TID`.
    ///
    /// # Errors
    /// [`Error::NoProcess`].
    fn read(&self, tid: Option<u32>, name: &str, out: &mut Text) -> Result<()>;
    /// Takes what was written to the file `name`.
    ///
    /// # Errors
    /// [`Error::NotPermitted`], [`Error::Invalid`], [`Error::NoProcess`].
    fn write(&self, _tid: Option<u32>, _name: &str, _bytes: &[u8]) -> Result<()> {
        Err(Error::NotPermitted)
    }
    /// Its memory, for the calling thread.
    ///
    /// # Errors
    /// [`Error::AccessDenied`] if that may not trace it; [`Error::NoProcess`].
    fn memory(&self) -> Result<Arc<dyn ProcMemory>> {
        Err(Error::AccessDenied)
    }
}

/// The memory of a process (`/proc/PID/mem`).
pub trait ProcMemory: Send + Sync {
    /// Copies from `addr`; bytes copied before memory ended or refused to be read.
    fn read(&self, addr: usize, out: &mut [u8]) -> usize;
    /// Copies to `addr`, whatever the program itself may do there; bytes copied.
    fn write(&self, addr: usize, bytes: &[u8]) -> usize;
}

/// The processes of a capsule.
pub trait ProcSource: Send + Sync {
    /// The numbers of all processes, ascending.
    fn pids(&self) -> Vec<u32>;
    /// The process, or the process of the thread, of that number.
    fn process(&self, pid: u32) -> Option<Arc<dyn ProcProcess>>;
    /// Process and thread that run this code.
    fn current(&self) -> Option<(u32, u32)>;
    /// Threads there are, threads that run now, and the number given out last.
    fn load(&self) -> (usize, usize, u32);
    /// Processes made so far.
    fn forks(&self) -> u64;
    /// Most threads there can be.
    fn threads_max(&self) -> u32;
    /// The host's name.
    fn host_name(&self) -> String;
    /// Sets the host's name.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    fn set_host_name(&self, name: &[u8]) -> Result<()>;
    /// The domain's name.
    fn domain_name(&self) -> String;
    /// Sets the domain's name.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotPermitted`].
    fn set_domain_name(&self, name: &[u8]) -> Result<()>;
}

/// What a procfs is made of.
pub struct ProcConfig {
    /// The processes.
    pub processes: Arc<dyn ProcSource>,
    /// The capsule's memory.
    pub account: Arc<Account>,
    /// The capsule's CPU time.
    pub group: Arc<CpuGroup>,
    /// When it started, for `uptime`.
    pub started: machine::time::Instant,
    /// Release of the kernel, as `uname -r` tells it.
    pub release: &'static str,
    /// Version of the kernel, as `uname -v` tells it.
    pub version: &'static str,
    /// Files of other rooms, by their path below `/proc`.
    pub files: Vec<(&'static str, Arc<dyn Content>)>,
}

/// What all nodes of a procfs share.
pub(crate) struct Proc {
    fs: Arc<PseudoFs>,
    config: ProcConfig,
}

/// The process whose directory `/proc/PID` this is.
#[must_use]
pub fn process_of(inode: &dyn Inode) -> Option<&Arc<dyn ProcProcess>> {
    inode.as_any().downcast_ref::<ProcessDir>()?.whole()
}

/// The procfs of a capsule.
#[must_use]
pub fn tree(mut config: ProcConfig) -> Arc<Tree> {
    let fs = PseudoFs::new("proc", MAGIC);
    let files = core::mem::take(&mut config.files);
    let proc = Arc::new(Proc {
        fs: fs.clone(),
        config,
    });
    let fixed = fs.dir();
    system::add(&proc, &fixed);
    sysctl::add(&proc, &fixed);
    for (path, content) in files {
        fixed.add_at(&fs, path, fs.file(0o444, content));
    }
    let root = Root {
        attr: fs.attr(Kind::Directory, 0o555, (0, 0)),
        fixed,
        proc,
    };
    fs.tree(Arc::new(root))
}

/// The root directory: the fixed files, `self`, and a directory per process.
struct Root {
    attr: Attr,
    fixed: Arc<StaticDir>,
    proc: Arc<Proc>,
}

/// A decimal number without leading zeros, as names of processes are.
pub(crate) fn number(name: &[u8]) -> Option<u32> {
    let text = core::str::from_utf8(name).ok()?;
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
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
        match name {
            b"self" => return Ok(SelfLink::node(&self.proc, false)),
            b"thread-self" => return Ok(SelfLink::node(&self.proc, true)),
            _ => {}
        }
        if let Some(pid) = number(name) {
            let source = &self.proc.config.processes;
            let process = source.process(pid).ok_or(Error::NotFound)?;
            return Ok(ProcessDir::node(&self.proc, process, None));
        }
        self.fixed.get(name).ok_or(Error::NotFound)
    }

    fn list(&self, from: u64, emit: &mut Emit<'_>) -> Result<()> {
        const SELF: [&str; 2] = ["self", "thread-self"];
        for (i, name) in SELF
            .iter()
            .enumerate()
            .skip(from.saturating_sub(2) as usize)
        {
            let entry = DirEntry {
                name: name.as_bytes(),
                ino: self.attr.ino,
                kind: Kind::Symlink,
                next: i as u64 + 3,
            };
            if !emit(entry) {
                return Ok(());
            }
        }
        if from < PIDS_AT && !self.fixed.list_from(4, from.max(4), emit) {
            return Ok(());
        }
        let first = u32::try_from(from.saturating_sub(PIDS_AT)).unwrap_or(u32::MAX);
        for pid in self.proc.config.processes.pids() {
            if pid < first {
                continue;
            }
            let name = alloc::format!("{pid}");
            let entry = DirEntry {
                name: name.as_bytes(),
                ino: process::ino(pid, 0),
                kind: Kind::Directory,
                next: PIDS_AT + u64::from(pid) + 1,
            };
            if !emit(entry) {
                break;
            }
        }
        Ok(())
    }
}

/// `/proc/self` and `/proc/thread-self`.
struct SelfLink {
    attr: Attr,
    proc: Arc<Proc>,
    thread: bool,
}

impl SelfLink {
    fn node(proc: &Arc<Proc>, thread: bool) -> Arc<dyn Inode> {
        Arc::new(SelfLink {
            attr: proc.fs.attr_with(2, Kind::Symlink, 0o777, (0, 0)),
            proc: proc.clone(),
            thread,
        })
    }
}

impl Inode for SelfLink {
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
        let (pid, tid) = self
            .proc
            .config
            .processes
            .current()
            .ok_or(Error::NotFound)?;
        let text = if self.thread {
            alloc::format!("{pid}/task/{tid}")
        } else {
            alloc::format!("{pid}")
        };
        Ok(Link::Target(Arc::from(text.as_bytes())))
    }
}
