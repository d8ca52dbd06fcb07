//! The node's answers as people read them.

use crate::units::show_bytes;
use serde::Deserialize;
use std::fmt::Write;

/// `GET /api/v1/status`, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    node: Option<Node>,
    capsules: Vec<Capsule>,
    manifests: Vec<Manifest>,
    crash: Option<Crash>,
}

#[derive(Debug, Deserialize)]
struct Node {
    name: String,
    kernel: String,
    uptime_ms: u64,
    memory_total_bytes: u64,
    memory_free_bytes: u64,
    cpus: u32,
    addresses: Vec<String>,
    #[serde(default)]
    boot: Vec<BootStep>,
    settings: Option<Settings>,
}

#[derive(Debug, Deserialize)]
struct BootStep {
    step: String,
    done_ms: f64,
}

#[derive(Debug, Deserialize)]
struct Settings {
    problem: Option<String>,
}

/// One capsule, as `status`, `start` and `stop` give it.
#[derive(Debug, Deserialize)]
pub(super) struct Capsule {
    pub(super) name: String,
    pub(super) state: String,
    health: String,
    reason: Option<String>,
    running_ms: Option<u64>,
    restarts: u64,
    last_exit: Option<Exit>,
    ports: Vec<Port>,
    usage: Option<Usage>,
    limits: Limits,
}

#[derive(Debug, Deserialize)]
struct Exit {
    how: String,
}

#[derive(Debug, Deserialize)]
struct Port {
    protocol: String,
    node: u16,
    capsule: u16,
}

#[derive(Debug, Deserialize)]
struct Usage {
    memory_bytes: u64,
    cpu_ms: u64,
    processes: u32,
}

#[derive(Debug, Deserialize)]
struct Limits {
    memory_bytes: u64,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    entry: String,
    accepted: bool,
    reason: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Crash {
    #[serde(default)]
    id: String,
    reason: String,
    uptime_ms: u64,
}

/// `GET /api/v1/events`.
#[derive(Debug, Deserialize)]
pub(super) struct Events {
    events: Vec<Event>,
    /// Number of the newest event.
    pub(super) last: u64,
}

#[derive(Debug, Deserialize)]
struct Event {
    uptime_ms: u64,
    kind: String,
    capsule: Option<String>,
    text: String,
}

/// Text without control characters but newline and tab: what a capsule writes must
/// not be able to steer the owner's terminal.
pub(super) fn plain(text: &str) -> String {
    let keep = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars()
        .map(|c| {
            if keep(c) {
                c
            } else {
                char::REPLACEMENT_CHARACTER
            }
        })
        .collect()
}

/// A duration in its two largest units.
fn show_age(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0..60 => format!("{}.{}s", seconds, milliseconds % 1000 / 100),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// The node in one line, its capsules as a table, then what is wrong.
pub(super) fn status(status: &Status) -> String {
    let mut out = String::new();
    if let Some(node) = &status.node {
        let used = node
            .memory_total_bytes
            .saturating_sub(node.memory_free_bytes);
        let _ = writeln!(
            out,
            "{} ({}) up {}, {} CPUs, {} of {} used, {}\n",
            plain(&node.name),
            plain(&node.kernel),
            show_age(node.uptime_ms),
            node.cpus,
            show_bytes(used),
            show_bytes(node.memory_total_bytes),
            plain(&node.addresses.join(" "))
        );
    }
    let header = [
        "NAME",
        "STATE",
        "HEALTH",
        "UP",
        "RESTARTS",
        "MEMORY",
        "CPU",
        "PROCESSES",
        "PORTS",
    ];
    let mut rows = vec![header.map(String::from)];
    rows.extend(status.capsules.iter().map(row));
    out.push_str(&table(&rows));
    let wrong = wrong(status);
    if !wrong.is_empty() {
        let _ = write!(out, "\n{wrong}");
    }
    out
}

/// What is wrong, a line for each: how capsules ended, what was refused, a crash.
fn wrong(status: &Status) -> String {
    let mut wrong = String::new();
    for capsule in &status.capsules {
        let exit = capsule
            .last_exit
            .as_ref()
            .map(|exit| format!("last ended: {}", exit.how));
        for text in capsule.reason.iter().chain(&exit) {
            let _ = writeln!(wrong, "{}: {}", plain(&capsule.name), plain(text));
        }
    }
    for manifest in status
        .manifests
        .iter()
        .filter(|manifest| !manifest.accepted)
    {
        let reason = manifest.reason.as_deref().unwrap_or("no reason given");
        let _ = writeln!(
            wrong,
            "manifest {} refused: {}",
            plain(&manifest.entry),
            plain(reason)
        );
    }
    let settings = status.node.as_ref().and_then(|node| node.settings.as_ref());
    if let Some(problem) = settings.and_then(|settings| settings.problem.as_ref()) {
        let _ = writeln!(wrong, "not used: {}", plain(problem));
    }
    if let Some(crash) = &status.crash {
        let age = show_age(crash.uptime_ms);
        let _ = writeln!(
            wrong,
            "the kernel crashed after {age}, record {}: {}",
            plain(&crash.id),
            plain(&crash.reason)
        );
    }
    wrong
}

/// The steps of a node's boot: when each was done, and what it took.
pub(super) fn boot(status: &Status) -> String {
    let steps: Vec<_> = status.node.iter().flat_map(|node| &node.boot).collect();
    let mut rows = vec![["STEP", "TOOK", "DONE AFTER"].map(String::from)];
    // Usually the machine's power, before the kernel had a clock.
    let began = steps.first().map_or(0.0, |step| step.done_ms.min(0.0));
    let mut before = began;
    for step in steps {
        let took = step.done_ms - before;
        rows.push([
            plain(&step.step),
            format!("{took:.1} ms"),
            format!("{:.1} ms", step.done_ms - began),
        ]);
        before = step.done_ms;
    }
    table(&rows)
}

fn row(capsule: &Capsule) -> [String; 9] {
    let none = || String::from("-");
    let port = |port: &Port| match &*port.protocol {
        "tcp" => format!("{}->{}", port.node, port.capsule),
        protocol => format!("{}->{}/{}", port.node, port.capsule, plain(protocol)),
    };
    let ports: Vec<String> = capsule.ports.iter().map(port).collect();
    let usage = capsule.usage.as_ref();
    let limit = show_bytes(capsule.limits.memory_bytes);
    [
        plain(&capsule.name),
        plain(&capsule.state),
        plain(&capsule.health),
        capsule.running_ms.map_or_else(none, show_age),
        capsule.restarts.to_string(),
        usage.map_or_else(none, |usage| {
            format!("{} of {limit}", show_bytes(usage.memory_bytes))
        }),
        usage.map_or_else(none, |usage| show_age(usage.cpu_ms)),
        usage.map_or_else(none, |usage| usage.processes.to_string()),
        if ports.is_empty() {
            none()
        } else {
            ports.join(" ")
        },
    ]
}

/// Columns as wide as their widest cell, two spaces apart.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// One line per event.
pub(super) fn events(events: &Events) -> String {
    let mut out = String::new();
    for event in &events.events {
        let _ = writeln!(
            out,
            "{:>10}.{:03}  {:<12} {:<16} {}",
            event.uptime_ms / 1000,
            event.uptime_ms % 1000,
            plain(&event.kind),
            plain(event.capsule.as_deref().unwrap_or("-")),
            plain(&event.text)
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = r#"{
        "node": {"name": "node", "kernel": "skep 0.1.0", "agent": "threebot 0.1.0", "uptime_ms": 61000,
            "memory_total_bytes": 134217728, "memory_free_bytes": 67108864, "cpus": 2,
            "addresses": ["10.0.2.15/24"],
            "boot": [{"step": "power on", "done_ms": -900}, {"step": "machine", "done_ms": 12.5}, {"step": "ramdisk", "done_ms": 20.25}],
            "settings": {"disk": "vda", "problem": "skep.toml on vda: line 3, name: 3 is not"}},
        "capsules": [
            {"name": "nginx", "state": "running", "health": "ready", "reason": null,
             "running_ms": 1500, "restarts": 2, "last_exit": {"how": "SIGKILL", "uptime_ms": 1},
             "ports": [{"protocol": "tcp", "node": 8081, "capsule": 80}],
             "usage": {"memory_bytes": 2097152, "cpu_ms": 40, "processes": 3},
             "limits": {"memory_bytes": 67108864}},
            {"name": "bad", "state": "refused", "health": "down", "reason": "blob \u001b[31m missing",
             "running_ms": null, "restarts": 0, "last_exit": null, "ports": [], "usage": null,
             "limits": {"memory_bytes": 1}}],
        "manifests": [{"entry": "old", "accepted": false, "reason": "expired"}],
        "crash": {"id": "00001234", "reason": "NMI", "uptime_ms": 3000}
    }"#;

    #[test]
    fn a_status_is_a_table_and_what_is_wrong() {
        let text = status(&serde_json::from_str(STATUS).unwrap());
        assert!(text.starts_with("node (skep 0.1.0) up 1m01s, 2 CPUs, 64.0 MiB of 128.0 MiB used"));
        assert!(text.contains("nginx  running  ready   1.5s  2         2.0 MiB of 64.0 MiB  0.0s"));
        assert!(text.contains("8081->80\n"));
        assert!(text.contains("nginx: last ended: SIGKILL\n"));
        assert!(text.contains("manifest old refused: expired\n"));
        assert!(text.contains("not used: skep.toml on vda: line 3, name"));
        assert!(text.contains("the kernel crashed after 3.0s, record 00001234: NMI\n"));
        assert!(
            !text.contains('\u{1b}'),
            "a capsule must not steer the terminal"
        );
    }

    #[test]
    fn a_boot_is_told_step_by_step() {
        let text = boot(&serde_json::from_str(STATUS).unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[1], "power on  0.0 ms    0.0 ms");
        assert_eq!(lines[2], "machine   912.5 ms  912.5 ms");
        assert_eq!(lines[3], "ramdisk   7.8 ms    920.2 ms");
    }

    #[test]
    fn ages() {
        let shown = [950, 60_000, 3_660_000, 90_000_000].map(show_age);
        assert_eq!(shown, ["0.9s", "1m00s", "1h01m", "1d01h"]);
    }
}
