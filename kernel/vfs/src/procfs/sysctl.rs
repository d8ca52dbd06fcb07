//! `/proc/sys` (proc_sys(5)): what programs read of it, mostly fixed.

use super::Proc;
use crate::error::{Error, Result};
use crate::pseudo::{Content, StaticDir, Text};
use alloc::sync::Arc;
use core::fmt::Write;

/// Values that never change, by path below `/proc/sys`.
const FIXED: [(&str, &str); 60] = [
    ("kernel/ostype", "Linux"),
    ("kernel/ngroups_max", "65536"),
    ("kernel/cap_last_cap", "40"),
    ("kernel/pid_max", "4194304"),
    ("kernel/randomize_va_space", "2"),
    ("kernel/core_pattern", "core"),
    ("kernel/core_uses_pid", "0"),
    ("kernel/overflowuid", "65534"),
    ("kernel/overflowgid", "65534"),
    ("kernel/shmmax", "18446744073692774399"),
    ("kernel/shmall", "18446744073692774399"),
    ("kernel/shmmni", "4096"),
    ("kernel/sem", "32000\t1024000000\t500\t32000"),
    ("kernel/msgmax", "8192"),
    ("kernel/msgmnb", "16384"),
    ("kernel/msgmni", "32000"),
    ("kernel/tainted", "0"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/perf_event_paranoid", "4"),
    ("kernel/yama/ptrace_scope", "1"),
    ("kernel/random/entropy_avail", "256"),
    ("kernel/random/poolsize", "256"),
    ("vm/overcommit_memory", "1"),
    ("vm/overcommit_ratio", "50"),
    ("vm/max_map_count", "65530"),
    ("vm/mmap_min_addr", "65536"),
    ("vm/swappiness", "0"),
    ("vm/nr_hugepages", "0"),
    ("vm/min_free_kbytes", "0"),
    ("vm/legacy_va_layout", "0"),
    ("fs/file-max", "9223372036854775807"),
    ("fs/nr_open", "1048576"),
    ("fs/pipe-max-size", "1048576"),
    ("fs/pipe-user-pages-soft", "0"),
    ("fs/protected_hardlinks", "0"),
    ("fs/protected_symlinks", "0"),
    ("fs/suid_dumpable", "0"),
    ("fs/dentry-state", "0\t0\t45\t0\t0\t0"),
    ("fs/inode-nr", "0\t0"),
    ("fs/file-nr", "0\t0\t9223372036854775807"),
    ("fs/epoll/max_user_watches", "131072"),
    ("fs/inotify/max_queued_events", "16384"),
    ("fs/inotify/max_user_watches", "65536"),
    ("fs/aio-max-nr", "0"),
    ("fs/leases-enable", "1"),
    ("fs/lease-break-time", "45"),
    ("kernel/pty/max", "1024"),
    ("kernel/shm_rmid_forced", "0"),
    ("kernel/msg_next_id", "-1"),
    ("kernel/sem_next_id", "-1"),
    ("kernel/shm_next_id", "-1"),
    ("fs/mqueue/queues_max", "256"),
    ("fs/mqueue/msg_max", "10"),
    ("fs/mqueue/msg_default", "10"),
    ("fs/mqueue/msgsize_max", "8192"),
    ("fs/mqueue/msgsize_default", "8192"),
    ("kernel/pty/reserve", "0"),
    ("dev/tty/legacy_tiocsti", "0"),
    ("dev/tty/ldisc_autoload", "0"),
];

pub(super) fn add(proc: &Arc<Proc>, root: &StaticDir) {
    let fs = &proc.fs;
    let sys = root.subdir(fs, "sys");
    for (path, value) in FIXED {
        let content = move |out: &mut Text| writeln!(out, "{value}");
        sys.add_at(fs, path, fs.file(0o444, Arc::new(content)));
    }
    let (release, version) = (proc.config.release, proc.config.version);
    let texts: [(&str, Arc<dyn Content>); 7] = [
        (
            "kernel/osrelease",
            Arc::new(move |out: &mut Text| writeln!(out, "{release}")),
        ),
        (
            "kernel/version",
            Arc::new(move |out: &mut Text| writeln!(out, "{version}")),
        ),
        ("kernel/threads-max", {
            let p = proc.clone();
            Arc::new(move |out: &mut Text| writeln!(out, "{}", p.config.processes.threads_max()))
        }),
        ("kernel/domainname", Arc::new(DomainName(proc.clone()))),
        (
            "kernel/random/uuid",
            Arc::new(|out: &mut Text| uuid(out, &random())),
        ),
        ("kernel/random/boot_id", {
            let id = random();
            Arc::new(move |out: &mut Text| uuid(out, &id))
        }),
        ("kernel/hostname", Arc::new(HostName(proc.clone()))),
    ];
    for (path, content) in texts {
        let mode = if path.ends_with("name") { 0o644 } else { 0o444 };
        sys.add_at(fs, path, fs.file(mode, content));
    }
}

struct HostName(Arc<Proc>);

impl Content for HostName {
    fn read(&self, out: &mut Text) -> Result<()> {
        let name = self.0.config.processes.host_name();
        writeln!(out, "{name}").map_err(|_| Error::NoMemory)
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.0.config.processes.set_host_name(bytes)
    }
}

struct DomainName(Arc<Proc>);

impl Content for DomainName {
    fn read(&self, out: &mut Text) -> Result<()> {
        let name = self.0.config.processes.domain_name();
        writeln!(out, "{name}").map_err(|_| Error::NoMemory)
    }

    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.0.config.processes.set_domain_name(bytes)
    }
}

fn random() -> [u8; 16] {
    let mut id = [0; 16];
    machine::random::fill(&mut id);
    id
}

/// A random UUID (RFC 9562, version 4).
fn uuid(out: &mut Text, random: &[u8; 16]) -> core::fmt::Result {
    for (i, b) in random.iter().enumerate() {
        let b = match i {
            6 => b & 0x0f | 0x40,
            8 => b & 0x3f | 0x80,
            _ => *b,
        };
        if matches!(i, 4 | 6 | 8 | 10) {
            out.write_str("-")?;
        }
        write!(out, "{b:02x}")?;
    }
    out.write_str("\n")
}
