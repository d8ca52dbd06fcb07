//! The state of the node as JSON. The fields are documented in `docs/reference/api.md`.

use std::rc::Rc;

use serde::Serialize;
use skep_api::control::hardware::Hardware;
use skep_api::control::{CapsuleId, CapsuleInfo, CrashRecord, NodeInfo, StartCause};
use skep_api::hash::hex;
use skep_api::identity::{CHALLENGE_BYTES_MAX, CHALLENGE_BYTES_MIN, Identity, Kept};

use super::boot;
use super::command::failed;
use super::reply::Problem;
use crate::agent::Agent;
use crate::journal::{Entry, kind_name};
use crate::supervisor::{Check, Millis, Phase, Probe, Unit};

#[derive(Serialize)]
pub(super) struct StatusView {
    node: Option<NodeView>,
    capsules: Vec<CapsuleView>,
    manifests: Vec<ManifestView>,
    crash: Option<CrashView>,
    last_event: u64,
}

#[derive(Serialize)]
pub(super) struct NodeView {
    name: String,
    kernel: String,
    agent: &'static str,
    agent_starts: u32,
    uptime_ms: Millis,
    unix_ms: Option<u64>,
    memory_total_bytes: u64,
    memory_free_bytes: u64,
    cpus: u32,
    cpu_busy_ms: u64,
    addresses: Vec<String>,
    unknown_calls: Vec<UnknownCallView>,
    boot: Vec<boot::Step>,
    start_cause: &'static str,
    watchdog: Option<WatchdogView>,
    settings: SettingsView,
    identity: Option<IdentityView>,
}

/// The node's own key.
#[derive(Serialize)]
pub(super) struct IdentityView {
    id: String,
    key: String,
    kept: Kept,
    problem: Option<String>,
}

/// The node's own key, with what it has signed.
#[derive(Serialize)]
pub(super) struct ProofView {
    #[serde(flatten)]
    identity: IdentityView,
    challenge: String,
    signature: String,
}

#[derive(Serialize)]
struct SettingsView {
    disk: Option<String>,
    problem: Option<String>,
}

#[derive(Serialize)]
struct UnknownCallView {
    number: u32,
    count: u64,
}

#[derive(Serialize)]
struct WatchdogView {
    device: String,
    timeout_ms: u32,
    withheld: Option<String>,
}

#[derive(Serialize)]
pub(super) struct CapsuleView {
    name: String,
    state: &'static str,
    health: &'static str,
    reason: Option<String>,
    waits_for: Vec<String>,
    next_start_in_ms: Option<Millis>,
    id: Option<u32>,
    started_uptime_ms: Option<Millis>,
    started_unix_ms: Option<u64>,
    running_ms: Option<Millis>,
    restarts: u64,
    last_exit: Option<ExitView>,
    startup_probe: Option<String>,
    liveness_probe: Option<String>,
    ports: Vec<PortView>,
    usage: Option<UsageView>,
    limits: LimitsView,
    manifest_hash: Option<String>,
}

#[derive(Serialize)]
struct ExitView {
    how: String,
    uptime_ms: Millis,
}

#[derive(Serialize)]
struct PortView {
    protocol: &'static str,
    node: u16,
    capsule: u16,
}

#[derive(Serialize)]
struct UsageView {
    memory_bytes: u64,
    memory_peak_bytes: u64,
    cpu_ms: u64,
    processes: u32,
    files: u32,
    sockets: u32,
    pids: Vec<u32>,
}

#[derive(Default, Serialize)]
struct LimitsView {
    memory_bytes: u64,
    cpu_quota_percent: Option<u32>,
    processes: u32,
    files: u32,
}

#[derive(Serialize)]
pub(super) struct ManifestView {
    entry: String,
    capsule: Option<String>,
    accepted: bool,
    reason: Option<String>,
    bytes: u32,
    hash: String,
}

#[derive(Serialize)]
pub(super) struct CrashView {
    id: String,
    reason: String,
    detail: String,
    kernel: String,
    cpu: u32,
    uptime_ms: u64,
    unix_ms: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct EventsView {
    events: Vec<EventView>,
    last: u64,
}

#[derive(Serialize)]
struct EventView {
    seq: u64,
    uptime_ms: Millis,
    unix_ms: Option<u64>,
    kind: &'static str,
    capsule: Option<String>,
    text: String,
    hash: String,
}

#[derive(Serialize)]
pub(super) struct LogsView {
    from: u64,
    next: u64,
    end: u64,
    text: String,
}

/// Where a reader of a log wants to begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum LogFrom {
    /// At this byte.
    Offset(u64),
    /// This many bytes before the end.
    Tail(u64),
}

/// Everything that the status page shows, but the events.
pub(super) async fn status(agent: &Rc<Agent>) -> StatusView {
    StatusView {
        node: node(agent).await.ok(),
        capsules: capsules(agent).await,
        manifests: manifests(agent),
        crash: crash(agent).await.ok().flatten(),
        last_event: agent.journal.borrow().last_seq(),
    }
}

pub(super) async fn node(agent: &Agent) -> Result<NodeView, Problem> {
    let node = agent
        .control
        .node()
        .await
        .map_err(|failure| failed(&failure))?;
    agent.clock.update(&node);
    Ok(node_view(agent, node))
}

/// The node's key, and its signature over a challenge in hexadecimal digits.
pub(super) async fn identity(agent: &Agent, challenge: &str) -> Result<ProofView, Problem> {
    let bytes = from_hex(challenge).ok_or_else(|| {
        let (least, most) = (CHALLENGE_BYTES_MIN, CHALLENGE_BYTES_MAX);
        Problem::bad_request(format!(
            "challenge: {least} to {most} bytes in hexadecimal digits"
        ))
    })?;
    let node = agent.control.node().await;
    let identity = node.map_err(|failure| failed(&failure))?.identity;
    let identity = identity.ok_or_else(|| Problem::not_found("key of this node"))?;
    let proof = agent.control.prove_identity(bytes).await;
    let proof = proof.map_err(|failure| failed(&failure))?;
    Ok(ProofView {
        identity: identity_view(identity),
        challenge: challenge.to_owned(),
        signature: hex(&proof),
    })
}

/// A challenge of a length that can be.
fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let fits = (CHALLENGE_BYTES_MIN..=CHALLENGE_BYTES_MAX).contains(&(digits.len() / 2));
    if !fits || !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..digits.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok())
        .collect()
}

fn identity_view(identity: Identity) -> IdentityView {
    IdentityView {
        id: identity.id(),
        key: identity.key.to_string(),
        kept: identity.kept,
        problem: identity.problem,
    }
}

pub(super) async fn hardware(agent: &Agent) -> Result<Hardware, Problem> {
    let hardware = agent.control.hardware().await;
    hardware.map_err(|failure| failed(&failure))
}

fn node_view(agent: &Agent, node: NodeInfo) -> NodeView {
    let unknown = node.unknown_calls.into_iter();
    NodeView {
        name: agent.node_name.clone(),
        kernel: node.kernel,
        agent: concat!("threebot ", env!("CARGO_PKG_VERSION")),
        agent_starts: agent.agent_starts,
        uptime_ms: node.uptime_ns / 1_000_000,
        unix_ms: node.unix_ms,
        memory_total_bytes: node.memory_total_bytes,
        memory_free_bytes: node.memory_free_bytes,
        cpus: node.cpus,
        cpu_busy_ms: node.cpu_busy_ns / 1_000_000,
        addresses: node.addresses,
        unknown_calls: unknown
            .map(|call| UnknownCallView {
                number: call.number,
                count: call.count,
            })
            .collect(),
        boot: boot::steps(node.boot_steps, &agent.journal.borrow()),
        start_cause: match node.start_cause {
            StartCause::Other => "other",
            StartCause::Crash => "crash",
            StartCause::Watchdog => "watchdog",
        },
        watchdog: node.watchdog.map(|watchdog| WatchdogView {
            device: watchdog.device,
            timeout_ms: watchdog.timeout_ms,
            withheld: watchdog.withheld,
        }),
        settings: SettingsView {
            disk: node.settings.place,
            problem: node.settings.problem,
        },
        identity: node.identity.map(identity_view),
    }
}

pub(super) async fn capsules(agent: &Rc<Agent>) -> Vec<CapsuleView> {
    let names: Vec<String> = agent
        .supervisor
        .borrow()
        .units()
        .map(|unit| unit.spec.name.clone())
        .collect();
    let mut views = Vec::with_capacity(names.len());
    for name in names {
        views.extend(capsule(agent, &name).await);
    }
    views
}

pub(super) async fn capsule(agent: &Rc<Agent>, name: &str) -> Result<CapsuleView, Problem> {
    let not_found = || Problem::not_found("capsule");
    let id = agent
        .supervisor
        .borrow()
        .unit(name)
        .map(instance)
        .ok_or_else(not_found)?;
    // Without details a capsule is still worth showing.
    let info = match id {
        Some(id) => agent.control.inspect(CapsuleId(id)).await.ok(),
        None => None,
    };
    let supervisor = agent.supervisor.borrow();
    let unit = supervisor.unit(name).ok_or_else(not_found)?;
    let waits_for = match unit.phase {
        Phase::Waiting => supervisor.waits_for(name).into_iter().collect(),
        _ => Vec::new(),
    };
    Ok(capsule_view(agent, unit, info, waits_for))
}

fn instance(unit: &Unit) -> Option<u32> {
    match &unit.phase {
        Phase::Running(run) => Some(run.instance),
        Phase::Stopping { instance, .. } => Some(*instance),
        _ => None,
    }
}

fn capsule_view(
    agent: &Agent,
    unit: &Unit,
    info: Option<CapsuleInfo>,
    waits_for: Vec<String>,
) -> CapsuleView {
    let now = agent.clock.now();
    let manifests = agent.manifests.iter();
    let known = manifests
        .filter_map(|known| Some((known, known.manifest.as_ref()?)))
        .find(|(_, manifest)| manifest.name == unit.spec.name);
    let (state, health) = state_and_health(unit);
    let started = info.as_ref().map(|info| info.started_ns / 1_000_000);
    let probe = |probe: &Option<Probe>| probe.as_ref().map(probe_text);
    CapsuleView {
        name: unit.spec.name.clone(),
        state,
        health,
        reason: reason(unit),
        waits_for,
        next_start_in_ms: match unit.phase {
            Phase::Backoff { until } => Some(until.saturating_sub(now)),
            _ => None,
        },
        id: instance(unit),
        started_uptime_ms: started,
        started_unix_ms: info.as_ref().and_then(|info| info.started_unix_ms),
        running_ms: started.map(|started| now.saturating_sub(started)),
        restarts: unit.memory.restarts,
        last_exit: unit.memory.last_exit.as_ref().map(|exit| ExitView {
            how: exit.how.clone(),
            uptime_ms: exit.at,
        }),
        startup_probe: probe(&unit.spec.startup),
        liveness_probe: probe(&unit.spec.liveness),
        ports: known
            .map(|(_, manifest)| ports(manifest))
            .unwrap_or_default(),
        limits: known
            .map(|(_, manifest)| limits(manifest))
            .unwrap_or_default(),
        usage: info.map(usage),
        manifest_hash: known.map(|(known, _)| hex(&known.entry.hash)),
    }
}

fn state_and_health(unit: &Unit) -> (&'static str, &'static str) {
    let looping = unit.memory.backoff.is_looping();
    match &unit.phase {
        Phase::Waiting => ("waiting", "down"),
        Phase::Starting { .. } => ("starting", if looping { "crash-loop" } else { "starting" }),
        Phase::Running(run) if looping && !run.probing.is_ready() => ("running", "crash-loop"),
        Phase::Running(run) if !run.probing.is_ready() => ("running", "starting"),
        Phase::Running(run) if run.probing.failures() > 0 => ("running", "failing"),
        Phase::Running(_) if looping => ("running", "crash-loop"),
        Phase::Running(_) => ("running", "ready"),
        Phase::Stopping { .. } => ("stopping", "down"),
        Phase::Backoff { .. } => ("backoff", if looping { "crash-loop" } else { "down" }),
        Phase::Held => ("stopped", "down"),
        Phase::Finished => ("finished", "down"),
        Phase::Refused(_) => ("refused", "down"),
    }
}

fn reason(unit: &Unit) -> Option<String> {
    match &unit.phase {
        Phase::Refused(why) => Some(why.clone()),
        Phase::Held if unit.memory.held => Some("stopped by the owner".to_owned()),
        Phase::Held => Some("not started: the node's configuration leaves it".to_owned()),
        Phase::Finished => unit.memory.last_exit.as_ref().map(|exit| exit.how.clone()),
        _ => None,
    }
}

fn probe_text(probe: &Probe) -> String {
    let what = match &probe.check {
        Check::Exec(argv) => argv.join(" "),
        Check::Tcp(port) => format!("tcp :{port}"),
        Check::Http { port, path } => format!("http :{port}{path}"),
    };
    format!("{what} every {} ms", probe.interval)
}

fn ports(manifest: &skep_api::manifest::Manifest) -> Vec<PortView> {
    let ports = manifest.ports.iter().map(|port| PortView {
        protocol: match port.protocol {
            skep_api::manifest::Protocol::Tcp => "tcp",
            skep_api::manifest::Protocol::Udp => "udp",
        },
        node: port.node,
        capsule: port.capsule,
    });
    ports.collect()
}

fn limits(manifest: &skep_api::manifest::Manifest) -> LimitsView {
    LimitsView {
        memory_bytes: manifest.limits.memory_bytes,
        cpu_quota_percent: manifest.limits.cpu_quota_percent,
        processes: manifest.limits.processes,
        files: manifest.limits.files,
    }
}

fn usage(info: CapsuleInfo) -> UsageView {
    UsageView {
        memory_bytes: info.usage.memory_bytes,
        memory_peak_bytes: info.usage.memory_peak_bytes,
        cpu_ms: info.usage.cpu_ns / 1_000_000,
        processes: info.usage.processes,
        files: info.usage.files,
        sockets: info.usage.sockets,
        pids: info.pids,
    }
}

pub(super) fn manifests(agent: &Agent) -> Vec<ManifestView> {
    let manifests = agent.manifests.iter().map(|known| ManifestView {
        entry: known.entry.name.clone(),
        capsule: known
            .manifest
            .as_ref()
            .map(|manifest| manifest.name.clone()),
        accepted: known.refusal.is_none(),
        reason: known.refusal.clone(),
        bytes: known.entry.bytes,
        hash: hex(&known.entry.hash),
    });
    manifests.collect()
}

pub(super) async fn crash(agent: &Agent) -> Result<Option<CrashView>, Problem> {
    let crash = agent
        .control
        .crash()
        .await
        .map_err(|failure| failed(&failure))?;
    Ok(crash.map(crash_view))
}

fn crash_view(crash: CrashRecord) -> CrashView {
    CrashView {
        id: format!("{:08x}", crash.id),
        reason: crash.reason,
        detail: crash.detail,
        kernel: crash.kernel,
        cpu: crash.cpu,
        uptime_ms: crash.uptime_ns / 1_000_000,
        unix_ms: crash.unix_ms,
    }
}

/// The entries after number `after`; the newest `most` of them.
pub(super) fn events(agent: &Agent, after: u64, most: usize) -> EventsView {
    let journal = agent.journal.borrow();
    let entries: Vec<&Entry> = journal.after(after).collect();
    let skip = entries.len().saturating_sub(most);
    let events = entries[skip..].iter().map(|entry| EventView {
        seq: entry.seq,
        uptime_ms: entry.uptime_ms,
        unix_ms: entry.unix_ms,
        kind: kind_name(entry.kind),
        capsule: entry.capsule.clone(),
        text: entry.text.clone(),
        hash: hex(&entry.hash),
    });
    EventsView {
        events: events.collect(),
        last: journal.last_seq(),
    }
}

pub(super) async fn logs(
    agent: &Agent,
    name: &str,
    from: LogFrom,
    max: u32,
) -> Result<LogsView, Problem> {
    if agent.supervisor.borrow().unit(name).is_none() {
        return Err(Problem::not_found("capsule"));
    }
    let problem = |failure| failed(&failure);
    let from = match from {
        LogFrom::Offset(from) => from,
        LogFrom::Tail(tail) => {
            let end = agent
                .control
                .read_log(name, u64::MAX, 0)
                .await
                .map_err(problem)?
                .end_offset;
            end.saturating_sub(tail)
        }
    };
    let chunk = agent
        .control
        .read_log(name, from, max)
        .await
        .map_err(problem)?;
    let whole = whole_characters(&chunk.bytes);
    let next = chunk.from_offset + whole as u64;
    let text = String::from_utf8_lossy(&chunk.bytes[..whole]).into_owned();
    Ok(LogsView {
        from: chunk.from_offset,
        next,
        end: chunk.end_offset,
        text,
    })
}

/// How many of the bytes do not end within a UTF-8 character that may still be completed.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for start in (tail..bytes.len()).rev() {
        let need = match bytes[start] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        let cut = bytes.len() - start < need && start > 0;
        return if cut { start } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::whole_characters;

    #[test]
    fn logs_are_cut_between_characters() {
        assert_eq!(whole_characters("aé".as_bytes()), 3);
        assert_eq!(whole_characters(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole_characters(&"a😀".as_bytes()[..4]), 1);
        assert_eq!(whole_characters(b"a\xff"), 2);
        assert_eq!(whole_characters(b"\x80\x80\x80\x80"), 4);
        assert_eq!(whole_characters(b"\xc3"), 1, "progress even on nonsense");
        assert_eq!(whole_characters(b""), 0);
    }
}
