//! The system-wide files of `/proc`, in the capsule's own numbers.

use super::Proc;
use crate::pseudo::{Content, StaticDir, Text};
use alloc::sync::Arc;
use core::fmt::{Result, Write};
use machine::cpu;
use machine::time::{self, Instant};

/// Clock ticks per second that programs are told (`sysconf(_SC_CLK_TCK)`).
const HZ: u128 = 100;
/// Bytes of a page in KiB.
const PAGE_KIB: usize = 4;

type Writer = fn(&Proc, &mut Text) -> Result;

const FILES: [(&str, Writer); 12] = [
    ("meminfo", meminfo),
    ("cpuinfo", cpuinfo),
    ("stat", stat),
    ("uptime", uptime),
    ("loadavg", loadavg),
    ("version", version),
    ("filesystems", filesystems),
    ("cmdline", cmdline),
    ("cgroups", cgroups),
    ("swaps", swaps),
    ("devices", devices),
    ("vmstat", vmstat),
];

struct SystemFile {
    proc: Arc<Proc>,
    writer: Writer,
}

impl Content for SystemFile {
    fn read(&self, out: &mut Text) -> crate::Result<()> {
        (self.writer)(&self.proc, out).map_err(|_| crate::Error::NoMemory)
    }
}

pub(super) fn add(proc: &Arc<Proc>, dir: &StaticDir) {
    for (name, writer) in FILES {
        let content = SystemFile {
            proc: proc.clone(),
            writer,
        };
        dir.add(name, proc.fs.file(0o444, Arc::new(content)));
    }
    dir.add("mounts", proc.fs.link("self/mounts"));
}

/// Pages the capsule may have, and has.
pub(crate) fn memory(account: &machine::Account) -> (usize, usize) {
    let total = account.limit().min(machine::frame::stats().total);
    (total, account.used().min(total))
}

fn meminfo(p: &Proc, out: &mut Text) -> Result {
    let (total, used) = memory(&p.config.account);
    let (total, free) = (total * PAGE_KIB, (total - used) * PAGE_KIB);
    for (name, kib) in [
        ("MemTotal:", total),
        ("MemFree:", free),
        ("MemAvailable:", free),
        ("Buffers:", 0),
        ("Cached:", 0),
        ("SwapCached:", 0),
        ("Active:", used * PAGE_KIB),
        ("Inactive:", 0),
        ("SwapTotal:", 0),
        ("SwapFree:", 0),
        ("Dirty:", 0),
        ("Writeback:", 0),
        ("CommitLimit:", total),
        ("Committed_AS:", used * PAGE_KIB),
    ] {
        writeln!(out, "{name:<15} {kib:>8} kB")?;
    }
    writeln!(out, "HugePages_Total:       0\nHugePages_Free:        0")?;
    writeln!(out, "Hugepagesize:       2048 kB")
}

fn cpuinfo(_: &Proc, out: &mut Text) -> Result {
    let n = cpu::count();
    for i in 0..n {
        writeln!(
            out,
            "processor\t: {i}\nmodel name\t: x86-64\nphysical id\t: 0\nsiblings\t: {n}\n\
             core id\t\t: {i}\ncpu cores\t: {n}\n"
        )?;
    }
    Ok(())
}

fn stat(p: &Proc, out: &mut Text) -> Result {
    let ticks = |ns: u128| ns * HZ / 1_000_000_000;
    let run = ticks(p.config.group.run_time().as_nanos());
    let up = ticks(Instant::now().since(p.config.started).as_nanos());
    let n = cpu::count() as u128;
    let idle = (up * n).saturating_sub(run);
    writeln!(out, "cpu  {run} 0 0 {idle} 0 0 0 0 0 0")?;
    for i in 0..n {
        writeln!(out, "cpu{i} {} 0 0 {} 0 0 0 0 0 0", run / n, idle / n)?;
    }
    let since = Instant::now().since(p.config.started).as_nanos();
    let boot = (i128::from(time::wall()) - since as i128).div_euclid(1_000_000_000);
    let source = &p.config.processes;
    let (_, running, _) = source.load();
    writeln!(
        out,
        "intr 0\nctxt 0\nbtime {boot}\nprocesses {}",
        source.forks()
    )?;
    writeln!(out, "procs_running {running}\nprocs_blocked 0\nsoftirq 0")
}

fn uptime(p: &Proc, out: &mut Text) -> Result {
    let up = Instant::now().since(p.config.started);
    let all = up * u32::try_from(cpu::count()).unwrap_or(1);
    let idle = all.saturating_sub(p.config.group.run_time());
    let centi = |d: core::time::Duration| (d.as_secs(), d.subsec_millis() / 10);
    let ((a, b), (c, d)) = (centi(up), centi(idle));
    writeln!(out, "{a}.{b:02} {c}.{d:02}")
}

fn loadavg(p: &Proc, out: &mut Text) -> Result {
    let (threads, running, last) = p.config.processes.load();
    // There is no running average; what runs now stands for all three.
    writeln!(
        out,
        "{running}.00 {running}.00 {running}.00 {running}/{threads} {last}"
    )
}

fn version(p: &Proc, out: &mut Text) -> Result {
    let (release, version) = (p.config.release, p.config.version);
    writeln!(out, "Linux version {release} (skep) {version}")
}

/// The kinds of file systems there are.
pub const FILE_SYSTEMS: [&str; 5] = ["tmpfs", "proc", "sysfs", "cgroup2", "devpts"];

fn filesystems(_: &Proc, out: &mut Text) -> Result {
    for name in FILE_SYSTEMS {
        writeln!(out, "nodev\t{name}")?;
    }
    Ok(())
}

fn cmdline(_: &Proc, out: &mut Text) -> Result {
    out.write_str("\n")
}

fn cgroups(_: &Proc, out: &mut Text) -> Result {
    out.write_str("#subsys_name\thierarchy\tnum_cgroups\tenabled\n")?;
    for name in ["cpu", "memory", "pids"] {
        writeln!(out, "{name}\t0\t1\t1")?;
    }
    Ok(())
}

fn swaps(_: &Proc, out: &mut Text) -> Result {
    out.write_str("Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")
}

fn devices(_: &Proc, out: &mut Text) -> Result {
    out.write_str("Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock devices:\n")
}

fn vmstat(p: &Proc, out: &mut Text) -> Result {
    let (total, used) = memory(&p.config.account);
    writeln!(out, "nr_free_pages {}\npgpgin 0\npgpgout 0", total - used)?;
    writeln!(out, "pswpin 0\npswpout 0\noom_kill 0")
}
