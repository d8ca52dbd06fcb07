//! What `/proc` shows of processes (proc(5)); the file room makes files of it.

mod memory;
mod stat;
mod status;

use crate::{Pid, Process, Thread, World};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt::{self, Write};
use mm::AddressSpace;
use vfs::procfs::{ProcMemory, ProcProcess, ProcSource};
use vfs::pseudo::Text;
use vfs::{Credentials, FdTable, FsContext, Path};

/// What `/proc` shows of `world`.
#[must_use]
pub fn source(world: Arc<World>) -> Arc<dyn ProcSource> {
    Arc::new(Source(world))
}

struct Source(Arc<World>);

impl ProcSource for Source {
    fn pids(&self) -> Vec<u32> {
        self.0.processes().iter().map(|p| p.pid()).collect()
    }

    fn process(&self, pid: u32) -> Option<Arc<dyn ProcProcess>> {
        let of_thread = || self.0.thread(pid).map(|t| t.process().clone());
        let process = self.0.process(pid).or_else(of_thread)?;
        Some(Arc::new(View(process)))
    }

    fn current(&self) -> Option<(u32, u32)> {
        let current = machine::thread::current();
        let me = current.data::<Arc<Thread>>()?;
        // A reader from outside is nobody in this world.
        Arc::ptr_eq(me.process().world(), &self.0).then(|| (me.process().pid(), me.tid()))
    }

    fn load(&self) -> (usize, usize, u32) {
        let (threads, last) = self.0.thread_count();
        // Whoever asks runs.
        (threads, 1, last)
    }

    fn forks(&self) -> u64 {
        self.0.forks()
    }

    fn threads_max(&self) -> u32 {
        self.0.threads_max()
    }

    fn host_name(&self) -> String {
        self.0.host_name()
    }

    fn set_host_name(&self, name: &[u8]) -> vfs::Result<()> {
        self.0.set_host_name(written_name(name)?);
        Ok(())
    }

    fn domain_name(&self) -> String {
        self.0.domain_name()
    }

    fn set_domain_name(&self, name: &[u8]) -> vfs::Result<()> {
        self.0.set_domain_name(written_name(name)?);
        Ok(())
    }
}

/// A name as it is written to a file, perhaps with a line feed.
fn written_name(bytes: &[u8]) -> vfs::Result<String> {
    let name = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    match name.len() {
        0..=crate::HOST_NAME_MAX => Ok(String::from_utf8_lossy(name).into_owned()),
        _ => Err(vfs::Error::Invalid),
    }
}

/// The memory of a process, which does not outlive it.
struct Memory(Weak<AddressSpace>);

impl ProcMemory for Memory {
    fn read(&self, addr: usize, out: &mut [u8]) -> usize {
        self.0.upgrade().map_or(0, |s| s.read(addr, out))
    }

    fn write(&self, addr: usize, bytes: &[u8]) -> usize {
        self.0.upgrade().map_or(0, |s| s.write_forced(addr, bytes))
    }
}

/// One process, or one of its threads.
struct View(Arc<Process>);

/// Files of a process's directory and their modes.
const FILES: [(&str, u32); 19] = [
    ("auxv", 0o400),
    ("cmdline", 0o444),
    ("comm", 0o644),
    ("coredump_filter", 0o444),
    ("environ", 0o400),
    ("io", 0o400),
    ("limits", 0o444),
    ("loginuid", 0o644),
    ("maps", 0o444),
    ("oom_score", 0o444),
    ("oom_score_adj", 0o644),
    ("personality", 0o400),
    ("sessionid", 0o444),
    ("smaps", 0o444),
    ("smaps_rollup", 0o444),
    ("stat", 0o444),
    ("statm", 0o444),
    ("status", 0o444),
    ("wchan", 0o444),
];

impl View {
    /// The thread of that number, or any of the process's.
    fn thread(&self, tid: Option<Pid>) -> Option<Arc<Thread>> {
        match tid {
            None => self.0.first_thread(),
            Some(tid) => self.0.own_thread(tid),
        }
    }

    /// Copies a part of the program's memory, at most a megabyte.
    fn memory(&self, (start, end): (usize, usize), out: &mut Text) -> fmt::Result {
        const MOST: usize = 1 << 20;
        let space = self.thread(None).and_then(|t| t.space.get());
        let Some(space) = space else {
            return Ok(());
        };
        let len = end.saturating_sub(start).min(MOST);
        let at = out.0.len();
        out.0.try_reserve(len).map_err(|_| fmt::Error)?;
        out.0.resize(at + len, 0);
        let done = space.read(start, out.0.get_mut(at..).unwrap_or_default());
        out.0.truncate(at + done);
        Ok(())
    }

    fn text(&self, tid: Option<Pid>, name: &str, out: &mut Text) -> fmt::Result {
        let process = &self.0;
        match name {
            "auxv" => {
                let auxv = process.program().auxv;
                out.0.try_reserve(auxv.len()).map_err(|_| fmt::Error)?;
                out.0.extend_from_slice(&auxv);
                Ok(())
            }
            "cmdline" => self.memory(process.program().arguments, out),
            "environ" => self.memory(process.program().environment, out),
            "comm" => {
                let thread = self.thread(tid);
                let name = thread.map_or_else(|| process.comm(), |t| t.comm());
                writeln!(out, "{name}")
            }
            // No dumps are written, whatever this says; it is Linux's default.
            "coredump_filter" => writeln!(out, "00000033"),
            "io" => match (tid, self.thread(tid)) {
                (Some(_), Some(thread)) => thread.counted().transfers.show(out),
                // With those of children that were waited for, as on Linux.
                _ => {
                    let mut all = process.counted().transfers;
                    all += process.children_counted().transfers;
                    all.show(out)
                }
            },
            "limits" => status::limits(process, out),
            // Without a line feed, as on Linux.
            "loginuid" => write!(out, "{}", process.login().uid),
            "sessionid" => write!(out, "{}", process.login().session),
            "maps" => memory::maps(self.thread(None).as_deref(), out),
            "smaps" => memory::smaps(self.thread(None).as_deref(), out),
            "smaps_rollup" => memory::rollup(self.thread(None).as_deref(), out),
            "oom_score" => writeln!(out, "{}", process.oom_score()),
            "oom_score_adj" => writeln!(out, "{}", process.oom_adjust()),
            "personality" => writeln!(out, "{:08x}", process.personality()),
            "stat" => stat::stat(process, self.thread(tid).as_deref(), tid, out),
            "statm" => memory::statm(self.thread(None).as_deref(), out),
            "status" => status::status(process, self.thread(tid).as_deref(), tid, out),
            "wchan" => write!(out, "0"),
            _ => Ok(()),
        }
    }
}

impl ProcProcess for View {
    fn pid(&self) -> u32 {
        self.0.pid()
    }

    fn owner(&self) -> (u32, u32) {
        let cred = self.thread(None).and_then(|t| t.cred.get());
        match cred {
            Some(c) if self.0.dumpable() == 1 => (c.euid, c.egid),
            _ => (0, 0),
        }
    }

    fn threads(&self) -> Vec<u32> {
        let mut all: Vec<_> = self.0.threads().iter().map(|t| t.tid()).collect();
        all.sort_unstable();
        all
    }

    fn files(&self) -> Option<Arc<FdTable>> {
        self.thread(None)?.files.get()
    }

    fn places(&self) -> Option<Arc<FsContext>> {
        self.thread(None)?.fs.get()
    }

    fn exe(&self) -> Option<Path> {
        self.0.exe()
    }

    fn names(&self) -> &'static [(&'static str, u32)] {
        &FILES
    }

    fn read(&self, tid: Option<u32>, name: &str, out: &mut Text) -> vfs::Result<()> {
        if tid.is_some() && self.thread(tid).is_none() {
            return Err(vfs::Error::NoProcess);
        }
        self.text(tid, name, out).map_err(|_| vfs::Error::NoMemory)
    }

    fn memory(&self) -> vfs::Result<Arc<dyn ProcMemory>> {
        let current = machine::thread::current();
        let me = current.data::<Arc<Thread>>();
        // A reader from outside is nobody in this world.
        let me = me.filter(|me| Arc::ptr_eq(me.process().world(), self.0.world()));
        if !me.is_some_and(|me| me.may_trace(&self.0)) {
            return Err(vfs::Error::AccessDenied);
        }
        let space = self.thread(None).and_then(|t| t.space.get());
        let space = space.ok_or(vfs::Error::NoProcess)?;
        Ok(Arc::new(Memory(Arc::downgrade(&space))))
    }

    fn write(&self, tid: Option<u32>, name: &str, bytes: &[u8]) -> vfs::Result<()> {
        match name {
            "comm" => {
                let thread = self.thread(tid).ok_or(vfs::Error::NoProcess)?;
                thread.set_comm(bytes.strip_suffix(b"\n").unwrap_or(bytes));
                Ok(())
            }
            "oom_score_adj" => {
                let value: i32 = written_number(bytes)?;
                if !(-1000..=1000).contains(&value) {
                    return Err(vfs::Error::Invalid);
                }
                let (_, cred) = writer();
                // Root of a capsule has not that capability, but may do this.
                let privileged =
                    cred.is_some_and(|c| c.euid == 0 || c.has(vfs::Caps::SYS_RESOURCE));
                self.0
                    .set_oom_adjust(value, privileged)
                    .map_err(|_| vfs::Error::AccessDenied)
            }
            "loginuid" => {
                let uid = written_number(bytes)?;
                let (process, cred) = writer();
                // Each for itself (`proc_loginuid_write` of Linux).
                if !process.is_some_and(|p| Arc::ptr_eq(&p, &self.0)) {
                    return Err(vfs::Error::NotPermitted);
                }
                // As above.
                let privileged = cred.is_some_and(|c| c.euid == 0);
                self.0
                    .log_in(uid, privileged)
                    .map_err(|_| vfs::Error::NotPermitted)
            }
            _ => Err(vfs::Error::NotPermitted),
        }
    }
}

/// A number as it is written to a file.
fn written_number<T: core::str::FromStr>(bytes: &[u8]) -> vfs::Result<T> {
    let text = core::str::from_utf8(bytes).map_err(|_| vfs::Error::Invalid)?;
    text.trim().parse().map_err(|_| vfs::Error::Invalid)
}

/// Process and rights of the thread that runs this code.
fn writer() -> (Option<Arc<Process>>, Option<Arc<Credentials>>) {
    let current = machine::thread::current();
    let me = current.data::<Arc<Thread>>();
    (
        me.map(|me| me.process().clone()),
        me.and_then(|me| me.cred.get()),
    )
}
