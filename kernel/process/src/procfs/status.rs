//! `/proc/PID/status` and `/proc/PID/limits`.

use super::stat::state;
use crate::limits::INFINITE;
use crate::seccomp::Mode;
use crate::signal::SigSet;
use crate::{Pid, Process, Thread};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering::SeqCst;
use vfs::Credentials;
use vfs::pseudo::Text;

pub(super) fn status(
    process: &Process,
    thread: Option<&Thread>,
    tid: Option<Pid>,
    out: &mut Text,
) -> fmt::Result {
    let comm = thread.map_or_else(|| process.comm(), Thread::comm);
    let (letter, name) = state(process, thread);
    let umask = thread.and_then(|t| t.fs.get()).map_or(0, |f| f.umask());
    writeln!(
        out,
        "Name:\t{comm}\nUmask:\t{umask:04o}\nState:\t{letter} ({name})"
    )?;
    let (pid, tid) = (process.pid(), tid.unwrap_or(process.pid()));
    writeln!(
        out,
        "Tgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\nPPid:\t{}\nTracerPid:\t{}",
        process.ppid(),
        thread.map_or(0, Thread::tracer_pid),
    )?;
    if let Some(cred) = thread.and_then(|t| t.cred.get()) {
        identity(&cred, thread, out)?;
    }
    let (group, session) = (process.group().unwrap_or(0), process.session().unwrap_or(0));
    writeln!(
        out,
        "NStgid:\t{pid}\nNSpid:\t{tid}\nNSpgid:\t{group}\nNSsid:\t{session}"
    )?;
    memory(thread, out)?;
    writeln!(out, "Threads:\t{}", process.thread_count().max(1))?;
    signals(process, thread, out)?;
    if let Some(cred) = thread.and_then(|t| t.cred.get()) {
        capabilities(&cred, out)?;
    }
    let no_new_privs = u8::from(process.no_new_privs());
    writeln!(out, "NoNewPrivs:\t{no_new_privs}")?;
    let (mode, filters) =
        thread.map_or((Mode::Free, 0), |t| (t.seccomp_mode(), t.seccomp_filters()));
    writeln!(out, "Seccomp:\t{}\nSeccomp_filters:\t{filters}", mode as u8)?;
    cpus(thread, out)
}

fn identity(c: &Credentials, thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    writeln!(out, "Uid:\t{}\t{}\t{}\t{}", c.uid, c.euid, c.suid, c.fsuid)?;
    writeln!(out, "Gid:\t{}\t{}\t{}\t{}", c.gid, c.egid, c.sgid, c.fsgid)?;
    let files = thread.and_then(|t| t.files.get());
    let slots = files.map_or(0, |f| f.len().next_multiple_of(64));
    write!(out, "FDSize:\t{slots}\nGroups:\t")?;
    for g in c.groups.as_slice() {
        write!(out, "{g} ")?;
    }
    writeln!(out)
}

fn memory(thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let Some(space) = thread.and_then(|t| t.space.get()) else {
        return Ok(());
    };
    let s = space.stats();
    let shared = space.shared_resident();
    let lines = [
        ("VmPeak", s.mapped_peak),
        ("VmSize", s.mapped),
        ("VmLck", s.locked),
        ("VmPin", 0),
        // The most there ever was is not kept.
        ("VmHWM", s.resident),
        ("VmRSS", s.resident),
        ("RssAnon", s.resident.saturating_sub(shared)),
        ("RssFile", shared),
        ("RssShmem", 0),
        ("VmData", s.data),
        ("VmStk", s.stack),
        ("VmExe", s.text),
        ("VmLib", 0),
        ("VmSwap", 0),
    ];
    for (name, pages) in lines {
        writeln!(out, "{name}:\t{:8} kB", pages * 4)?;
    }
    Ok(())
}

fn signals(process: &Process, thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let limit = process
        .limits()
        .soft(crate::limits::Resource::PendingSignals);
    writeln!(out, "SigQ:\t{}/{limit}", process.queued_signals())?;
    let (own, blocked) = thread.map_or((SigSet::EMPTY, SigSet::EMPTY), |t| {
        (t.signals.pending_set(), t.signals.blocked())
    });
    let shared = SigSet(process.pending_set.load(SeqCst));
    let (ignored, caught) = process
        .actions()
        .map_or((SigSet::EMPTY, SigSet::EMPTY), |a| {
            (a.ignored(), a.caught())
        });
    let sets = [
        ("SigPnd", own),
        ("ShdPnd", shared),
        ("SigBlk", blocked),
        ("SigIgn", ignored),
        ("SigCgt", caught),
    ];
    for (name, set) in sets {
        writeln!(out, "{name}:\t{:016x}", set.0)?;
    }
    Ok(())
}

fn capabilities(c: &Credentials, out: &mut Text) -> fmt::Result {
    let known = (1u64 << (vfs::cred::CAP_LAST + 1)) - 1;
    let sets = [
        ("CapInh", c.inheritable),
        ("CapPrm", c.permitted),
        ("CapEff", c.effective),
        ("CapBnd", c.bounding),
        ("CapAmb", c.ambient),
    ];
    for (name, set) in sets {
        writeln!(out, "{name}:\t{:016x}", set.bits() & known)?;
    }
    Ok(())
}

fn cpus(thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let count = machine::cpu::count().clamp(1, 64);
    let online = u64::MAX >> (64 - count);
    let mask = thread
        .and_then(Thread::machine)
        .map_or(online, |m| m.affinity() & online);
    write!(out, "Cpus_allowed:\t{mask:x}\nCpus_allowed_list:\t")?;
    let mut comma = "";
    for cpu in (0..count).filter(|c| mask >> c & 1 != 0) {
        write!(out, "{comma}{cpu}")?;
        comma = ",";
    }
    writeln!(out, "\nMems_allowed:\t1\nMems_allowed_list:\t0")
}

/// Names and units, in the order of the numbers.
const LIMITS: [(&str, &str); 16] = [
    ("Max cpu time", "seconds"),
    ("Max file size", "bytes"),
    ("Max data size", "bytes"),
    ("Max stack size", "bytes"),
    ("Max core file size", "bytes"),
    ("Max resident set", "bytes"),
    ("Max processes", "processes"),
    ("Max open files", "files"),
    ("Max locked memory", "bytes"),
    ("Max address space", "bytes"),
    ("Max file locks", "locks"),
    ("Max pending signals", "signals"),
    ("Max msgqueue size", "bytes"),
    ("Max nice priority", ""),
    ("Max realtime priority", ""),
    ("Max realtime timeout", "us"),
];

pub(super) fn limits(process: &Process, out: &mut Text) -> fmt::Result {
    writeln!(
        out,
        "{:<25} {:<20} {:<20} {:<10}",
        "Limit", "Soft Limit", "Hard Limit", "Units"
    )?;
    for (number, (name, unit)) in LIMITS.iter().enumerate() {
        let Some(limit) = process.limits().get(number) else {
            continue;
        };
        write!(out, "{name:<25} ")?;
        for value in [limit.soft, limit.hard] {
            match value {
                INFINITE => write!(out, "{:<20} ", "unlimited")?,
                v => write!(out, "{v:<20} ")?,
            }
        }
        writeln!(out, "{unit:<10}")?;
    }
    Ok(())
}
