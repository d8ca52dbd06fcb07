//! What `/proc` tells about the machine and its processes.

use std::fs;
use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use skep_api::control::{NodeInfo, SettingsInfo, StartCause, Usage};

/// Length of a page and of a clock tick on x86-64 Linux, as `/proc` counts them.
const PAGE_BYTES: u64 = 4096;
const TICK_NS: u64 = 10_000_000;

/// Nanoseconds since the machine's boot.
#[derive(Debug)]
pub(super) struct BootClock {
    base: Instant,
    base_ns: u64,
}

impl BootClock {
    pub(super) fn new() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/uptime")?;
        let seconds = text
            .split(' ')
            .next()
            .and_then(|word| word.parse::<f64>().ok());
        let seconds = seconds.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self {
            base: Instant::now(),
            base_ns: (seconds * 1e9) as u64,
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.base_ns + u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The calendar time of a time since boot, in milliseconds since 1970.
    pub(super) fn unix_ms(&self, ns: u64) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let now_ms = u64::try_from(now.as_millis()).ok()?;
        Some(now_ms.saturating_sub(self.now_ns().saturating_sub(ns) / 1_000_000))
    }
}

/// Name and version of the host's kernel.
pub(super) fn kernel() -> String {
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("Linux {} (host runtime)", version.trim())
}

pub(super) fn node_info(clock: &BootClock) -> io::Result<NodeInfo> {
    let memory = fs::read_to_string("/proc/meminfo")?;
    let stat = fs::read_to_string("/proc/stat")?;
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let uptime_ns = clock.now_ns();
    Ok(NodeInfo {
        kernel: kernel(),
        uptime_ns,
        unix_ms: clock.unix_ms(uptime_ns),
        memory_total_bytes: memory_line(&memory, "MemTotal:"),
        memory_free_bytes: memory_line(&memory, "MemAvailable:"),
        cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        cpu_busy_ns: busy_ticks(&stat) * TICK_NS,
        addresses: vec!["127.0.0.1/8".to_owned()],
        unknown_calls: Vec::new(),
        boot_steps: Vec::new(), // that of the host is not ours to tell
        start_cause: StartCause::Other,
        watchdog: None,
        settings: SettingsInfo::default(),
        identity: None,
    })
}

fn memory_line(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// User, nice and system time of all CPUs together.
fn busy_ticks(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    line.split_whitespace()
        .skip(1)
        .take(3)
        .filter_map(|word| word.parse::<u64>().ok())
        .sum()
}

/// What the processes of a group use, and their numbers.
pub(super) fn group_usage(group: i32) -> (Usage, Vec<u32>) {
    let mut usage = Usage::default();
    let mut pids = Vec::new();
    let Ok(folder) = fs::read_dir("/proc") else {
        return (usage, pids);
    };
    for entry in folder.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok());
        if let Some(pid) = pid
            && let Some((own_group, ticks, pages)) = process_stat(pid)
            && own_group == group
        {
            usage.memory_bytes += pages * PAGE_BYTES;
            usage.cpu_ns += ticks * TICK_NS;
            usage.processes += 1;
            let files = fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
            usage.files += u32::try_from(files).unwrap_or(u32::MAX);
            pids.push(pid);
        }
    }
    usage.memory_peak_bytes = usage.memory_bytes;
    pids.sort_unstable();
    pids.truncate(64);
    (usage, pids)
}

/// Process group, CPU ticks and resident pages; see proc(5), `/proc/pid/stat`.
fn process_stat(pid: u32) -> Option<(i32, u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?; // the name may hold anything
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let group = fields.get(2)?.parse().ok()?;
    Some((group, number(11)? + number(12)?, number(21)?))
}
