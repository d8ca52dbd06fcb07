//! sysfs and cgroup2: what programs read there to size themselves.

mod cpus;
mod interfaces;

pub use interfaces::Interface;

use crate::block::{self, Disk};
use crate::mount::Tree;
use crate::procfs::memory;
use crate::pseudo::{PseudoFs, Text};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use machine::Account;
use machine::thread::CpuGroup;

/// `SYSFS_MAGIC` and `CGROUP2_SUPER_MAGIC` of statfs(2).
const SYSFS_MAGIC: u64 = 0x6265_6572;
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Period of `cpu.max` in microseconds.
const PERIOD_US: u64 = 100_000;
const PAGE: usize = machine::addr::PAGE_SIZE;

/// Values that never change.
const FIXED: [(&str, &str); 11] = [
    (
        "devices/system/clocksource/clocksource0/current_clocksource",
        "tsc",
    ),
    (
        "devices/system/clocksource/clocksource0/available_clocksource",
        "tsc",
    ),
    ("devices/system/cpu/kernel_max", "63"),
    ("devices/system/cpu/offline", ""),
    ("devices/system/node/online", "0"),
    ("devices/system/node/possible", "0"),
    (
        "kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never",
    ),
    (
        "kernel/mm/transparent_hugepage/defrag",
        "always defer defer+madvise [madvise] never",
    ),
    (
        "kernel/mm/transparent_hugepage/shmem_enabled",
        "always within_size advise [never] deny force",
    ),
    ("kernel/mm/transparent_hugepage/hpage_pmd_size", "2097152"),
    ("kernel/mm/transparent_hugepage/use_zero_page", "0"),
];

/// The sysfs of a capsule that holds `disks` and has `interfaces`. `fs/cgroup` is an empty directory to
/// mount [`cgroup_tree`] on.
#[must_use]
pub fn tree(disks: &[Arc<Disk>], interfaces: Vec<Interface>) -> Arc<Tree> {
    let fs = PseudoFs::new("sysfs", SYSFS_MAGIC);
    let root = fs.dir();
    for (path, value) in FIXED {
        let content = move |out: &mut Text| writeln!(out, "{value}");
        root.add_at(&fs, path, fs.file(0o444, Arc::new(content)));
    }
    cpus::add(&fs, &root);
    interfaces::add(interfaces, &fs, &root);
    let cpulist = |out: &mut Text| writeln!(out, "{}", cpus::online());
    root.add_at(&fs, "devices/system/node/node0/cpulist", {
        fs.file(0o444, Arc::new(cpulist))
    });
    root.add_at(&fs, "kernel/mm/hugepages", fs.dir());
    root.add_at(&fs, "fs/cgroup", fs.dir());
    block::add_to_sysfs(disks, &fs, &root);
    fs.clone().tree(root)
}

/// What a capsule's cgroup tells.
pub struct CgroupConfig {
    /// Its memory.
    pub account: Arc<Account>,
    /// Its CPU time.
    pub group: Arc<CpuGroup>,
    /// Most threads, and threads there are.
    pub threads: Arc<dyn Fn() -> (u64, u64) + Send + Sync>,
}

/// The cgroup (version 2) file system of a capsule: one group, its own.
#[must_use]
pub fn cgroup_tree(config: &CgroupConfig) -> Arc<Tree> {
    let fs = PseudoFs::new("cgroup2", CGROUP2_MAGIC);
    let root = fs.dir();
    let add = |name: &str, content: Arc<dyn crate::pseudo::Content>| {
        root.add(name, fs.file(0o444, content));
    };
    for (name, value) in [
        ("cgroup.controllers", "cpu memory pids"),
        ("cgroup.subtree_control", ""),
        ("cgroup.type", "domain"),
        ("memory.high", "max"),
        ("memory.low", "0"),
        ("memory.min", "0"),
        ("memory.swap.max", "0"),
        ("memory.swap.current", "0"),
    ] {
        add(
            name,
            Arc::new(move |out: &mut Text| writeln!(out, "{value}")),
        );
    }
    let a = config.account.clone();
    add("memory.max", Arc::new(move |out: &mut Text| limit(out, &a)));
    let a = config.account.clone();
    add(
        "memory.current",
        Arc::new(move |out: &mut Text| writeln!(out, "{}", memory(&a).1 * PAGE)),
    );
    let a = config.account.clone();
    add(
        "memory.peak",
        Arc::new(move |out: &mut Text| writeln!(out, "{}", a.peak() * PAGE)),
    );
    let a = config.account.clone();
    add(
        "memory.stat",
        Arc::new(move |out: &mut Text| {
            let used = memory(&a).1 * PAGE;
            writeln!(
                out,
                "anon {used}\nfile 0\ninactive_file 0\nactive_file 0\nshmem 0"
            )
        }),
    );
    let g = config.group.clone();
    add("cpu.max", Arc::new(move |out: &mut Text| quota(out, &g)));
    let g = config.group.clone();
    add(
        "cpu.weight",
        Arc::new(move |out: &mut Text| writeln!(out, "{}", g.weight())),
    );
    let g = config.group.clone();
    add(
        "cpu.stat",
        Arc::new(move |out: &mut Text| {
            let us = g.run_time().as_micros();
            writeln!(out, "usage_usec {us}\nuser_usec {us}\nsystem_usec 0")
        }),
    );
    let t = config.threads.clone();
    add(
        "pids.max",
        Arc::new(move |out: &mut Text| writeln!(out, "{}", t().0)),
    );
    let t = config.threads.clone();
    add(
        "pids.current",
        Arc::new(move |out: &mut Text| writeln!(out, "{}", t().1)),
    );
    fs.clone().tree(root)
}

fn limit(out: &mut Text, account: &Account) -> core::fmt::Result {
    match account.limit().checked_mul(PAGE) {
        Some(bytes) => writeln!(out, "{bytes}"),
        None => writeln!(out, "max"),
    }
}

fn quota(out: &mut Text, group: &CpuGroup) -> core::fmt::Result {
    match group.quota_per_mille() {
        Some(q) => writeln!(out, "{} {PERIOD_US}", q.saturating_mul(PERIOD_US) / 1000),
        None => writeln!(out, "max {PERIOD_US}"),
    }
}
