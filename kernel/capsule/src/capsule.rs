//! One capsule: what it is, where it is in its life, what it uses.

use crate::disks::Grant;
use crate::image::Lower;
use crate::keeper::Job;
use crate::log_ring::Log;
use crate::room::Capsules;
use crate::verify::Accepted;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use machine::Account;
use machine::addr::PAGE_SIZE;
use machine::sync::{Mutex, Once, SpinLock};
use machine::thread::CpuGroup;
use machine::time::Instant;
use machine::timer::Timer;
use net::NetStack;
use process::signal::Signal;
use process::{Limited, Pid, World};
use skep_api::Hash;
use skep_api::control::{
    CapsuleHealth, CapsuleId, CapsuleInfo, CapsuleState, CapsuleSummary, Event, ExitCause,
    ExitStatus, ExitSummary, LimitKind, Limits, PortState, Protocol, Usage,
};
use skep_api::manifest::{self, Manifest};
use vfs::Mount;

/// Most process numbers that [`CapsuleInfo`] lists.
const PIDS_MAX: usize = 64;

/// The limits whose hits are reported, and how often each may be.
const LIMITS: [LimitKind; 4] = [
    LimitKind::Memory,
    LimitKind::Processes,
    LimitKind::Files,
    LimitKind::Sockets,
];
const LIMIT_PAUSE_NS: u64 = 1_000_000_000;

/// What a capsule holds while it is alive. Dropping it gives everything back.
pub(crate) struct Parts {
    pub(crate) account: Arc<Account>,
    pub(crate) group: Arc<CpuGroup>,
    pub(crate) world: Arc<World>,
    pub(crate) stack: Arc<NetStack>,
    pub(crate) root: Arc<Mount>,
    /// Name servers are written there when the node learns of others.
    pub(crate) owns_resolvers: bool,
    /// Its disks; last, so that nothing that leads to them is left when others may
    /// have them.
    pub(crate) _disks: Vec<Grant>,
}

/// Where a capsule is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Created,
    Running,
    /// Its first process has ended, the others are ending.
    Ending,
    Exited(ExitSummary),
}

/// One start of a manifest.
pub struct Capsule {
    id: CapsuleId,
    manifest: Manifest,
    hash: Hash,
    is_system: bool,
    log: Arc<Log>,
    room: Weak<Capsules>,
    phase: SpinLock<Phase>,
    /// How and when its first process ended.
    status: Once<(ExitStatus, Instant)>,
    asked_to_stop: AtomicBool,
    /// When each of [`LIMITS`] was last reported, in nanoseconds since boot.
    limits_told: [AtomicU64; LIMITS.len()],
    init_out_of_memory: AtomicBool,
    /// When its first process was started, and UTC then, in milliseconds.
    started: Once<(Instant, Option<u64>)>,
    parts: Mutex<Option<Arc<Parts>>>,
    /// Kills what is left after the grace of a stop.
    kill_timer: Once<Timer>,
    /// What the 3Bot thinks of it.
    health: SpinLock<CapsuleHealth>,
    /// Memory at the most, in pages, and CPU time, when it had ended.
    peak: AtomicU64,
    cpu_ns: AtomicU64,
}

impl Capsule {
    pub(crate) fn new(
        room: &Arc<Capsules>,
        id: CapsuleId,
        accepted: Accepted,
        is_system: bool,
        log: Arc<Log>,
    ) -> Arc<Capsule> {
        Arc::new(Capsule {
            id,
            manifest: accepted.manifest,
            hash: accepted.hash,
            is_system,
            log,
            room: Arc::downgrade(room),
            phase: SpinLock::new(Phase::Created),
            status: Once::new(),
            asked_to_stop: AtomicBool::new(false),
            limits_told: [const { AtomicU64::new(0) }; LIMITS.len()],
            init_out_of_memory: AtomicBool::new(false),
            started: Once::new(),
            parts: Mutex::new(None),
            kill_timer: Once::new(),
            health: SpinLock::new(CapsuleHealth::Unknown),
            peak: AtomicU64::new(0),
            cpu_ns: AtomicU64::new(0),
        })
    }

    /// What the 3Bot thinks of it.
    pub(crate) fn health(&self) -> CapsuleHealth {
        *self.health.lock()
    }

    /// Notes that.
    pub(crate) fn judge(&self, health: CapsuleHealth) {
        *self.health.lock() = health;
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> CapsuleId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The manifest it was started from.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether it is the node's system capsule, which alone has the control device.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.is_system
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// When its first process was started.
    #[must_use]
    pub fn started(&self) -> Option<Instant> {
        self.started.get().map(|s| s.0)
    }

    /// Whether any of its processes lives, or may begin to.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !matches!(*self.phase.lock(), Phase::Exited(_))
    }

    /// Whether its first process lives.
    #[must_use]
    pub fn is_running(&self) -> bool {
        *self.phase.lock() == Phase::Running
    }

    /// What it holds; `None` before its start and after its end.
    pub(crate) fn parts(&self) -> Option<Arc<Parts>> {
        self.parts.lock().clone()
    }

    /// Takes away what it holds, keeping the figures that outlive it.
    pub(crate) fn take_parts(&self) -> Option<Arc<Parts>> {
        let parts = self.parts.lock().take()?;
        self.peak.store(parts.account.peak() as u64, Relaxed);
        self.cpu_ns.store(cpu_ns(&parts), Relaxed);
        Some(parts)
    }

    /// Its first process, of those `parts`, is about to run.
    pub(crate) fn set_running(&self, parts: Parts) {
        *self.parts.lock() = Some(Arc::new(parts));
        let unix_ms = crate::verify::now().map(|_| unix_ms());
        self.started.call_once(|| (Instant::now(), unix_ms));
        *self.phase.lock() = Phase::Running;
    }

    /// Everything it held is free again: how it ended.
    pub(crate) fn set_exited(&self) -> ExitSummary {
        let (status, time) = *self
            .status
            .call_once(|| (ExitStatus::Signal(Signal::KILL.number()), Instant::now()));
        let cause = if self.asked_to_stop.load(Relaxed) {
            ExitCause::Stopped
        } else if self.init_out_of_memory.load(Relaxed) {
            ExitCause::OutOfMemory
        } else {
            ExitCause::Own
        };
        let exit = ExitSummary {
            status,
            cause,
            time_ns: time.0,
        };
        *self.phase.lock() = Phase::Exited(exit);
        exit
    }

    /// How its first process ended, for the console.
    pub(crate) fn end_in_words(&self) -> String {
        match self.status.get().map(|s| s.0) {
            Some(ExitStatus::Code(code)) => alloc::format!("exit code {code}"),
            Some(ExitStatus::Signal(signal)) => alloc::format!("signal {signal}"),
            None => String::from("killed"),
        }
    }

    fn state(&self) -> CapsuleState {
        match &*self.phase.lock() {
            Phase::Created => CapsuleState::Created,
            Phase::Running if self.asked_to_stop.load(Relaxed) => CapsuleState::Stopping,
            Phase::Running => CapsuleState::Running,
            Phase::Ending => CapsuleState::Stopping,
            Phase::Exited(exit) => CapsuleState::Exited(*exit),
        }
    }

    /// Sends `signal` to its first process and kills all of them after `grace`.
    /// Whether there was one.
    pub(crate) fn stop(self: &Arc<Self>, signal: Signal, grace: core::time::Duration) -> bool {
        let Some(parts) = self.parts().filter(|_| self.is_running()) else {
            return false;
        };
        self.asked_to_stop.store(true, Relaxed);
        if grace.is_zero() {
            parts.world.kill_all();
            return true;
        }
        let weak = Arc::downgrade(self);
        let timer = self.kill_timer.call_once(|| {
            Timer::new(move || {
                if let Some(parts) = weak.upgrade().and_then(|c| c.parts()) {
                    parts.world.kill_all();
                }
            })
        });
        let due = Instant::now().after(grace);
        // A second stop may hurry the first one, not delay it.
        timer.set(Some(timer.due().map_or(due, |d| d.min(due))));
        parts.world.signal_init(signal)
    }

    /// It has run into `limit`.
    fn limit_hit(&self, limit: LimitKind) {
        let told = LIMITS.iter().position(|l| *l == limit);
        let Some(told) = told.and_then(|at| self.limits_told.get(at)) else {
            return;
        };
        let (last, now) = (told.load(Relaxed), Instant::now().0);
        let soon = last != 0 && now.saturating_sub(last) < LIMIT_PAUSE_NS;
        if soon || told.compare_exchange(last, now, Relaxed, Relaxed).is_err() {
            return;
        }
        if let Some(room) = self.room.upgrade() {
            room.hub.emit(Event::LimitHit {
                capsule: self.id,
                limit,
            });
        }
    }

    /// The line of it in a list.
    #[must_use]
    pub fn summary(&self) -> CapsuleSummary {
        CapsuleSummary {
            capsule: self.id,
            name: self.manifest.name.clone(),
            state: self.state(),
            started_ns: self.started().map_or(0, |t| t.0),
            manifest_hash: self.hash.0,
        }
    }

    /// Everything about it.
    #[must_use]
    pub fn info(&self) -> CapsuleInfo {
        let parts = self.parts();
        let processes = parts.as_ref().map(|p| p.world.processes());
        let pids = processes.iter().flatten().map(|p| p.pid());
        CapsuleInfo {
            capsule: self.id,
            name: self.manifest.name.clone(),
            state: self.state(),
            started_ns: self.started().map_or(0, |t| t.0),
            started_unix_ms: self.started.get().and_then(|s| s.1),
            manifest_hash: self.hash.0,
            pids: pids.take(PIDS_MAX).collect(),
            usage: self.usage(parts.as_deref()),
            limits: limits(&self.manifest.limits),
            ports: self.manifest.ports.iter().map(port).collect(),
        }
    }

    fn usage(&self, parts: Option<&Parts>) -> Usage {
        let bytes = |pages: usize| (pages as u64).saturating_mul(PAGE_SIZE as u64);
        let Some(parts) = parts else {
            return Usage {
                memory_peak_bytes: self.peak.load(Relaxed).saturating_mul(PAGE_SIZE as u64),
                cpu_ns: self.cpu_ns.load(Relaxed),
                ..Usage::default()
            };
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Usage {
            memory_bytes: bytes(parts.account.used()),
            memory_peak_bytes: bytes(parts.account.peak()),
            cpu_ns: cpu_ns(parts),
            processes: count(parts.world.process_count()),
            files: count(parts.account.files()),
            sockets: count(parts.stack.socket_count()),
        }
    }

    /// CPU time of its threads so far, in nanoseconds; 0 once it has ended, when
    /// the room counts it.
    pub(crate) fn live_cpu_ns(&self) -> u64 {
        self.parts().map_or(0, |p| cpu_ns(&p))
    }

    /// What the image's layer calls when a blob turns out bad.
    pub(crate) fn blob_reporter(
        room: &Arc<Capsules>,
        id: CapsuleId,
        name: &str,
        image: Arc<crate::image::Image>,
    ) -> Arc<Lower> {
        let (hub, name) = (room.hub.clone(), String::from(name));
        Lower::new(
            image,
            Box::new(move |error| {
                use crate::blobs::BlobError;
                let (BlobError::Missing(hash) | BlobError::Corrupt(hash)) = error else {
                    return;
                };
                log::error!("capsule {name}: blob {hash} refused: {error:?}");
                hub.emit(Event::BlobRefused {
                    capsule: id,
                    hash: hash.0,
                });
            }),
        )
    }
}

fn unix_ms() -> u64 {
    u64::try_from(machine::time::wall() / 1_000_000).unwrap_or(0)
}

fn cpu_ns(parts: &Parts) -> u64 {
    u64::try_from(parts.group.run_time().as_nanos()).unwrap_or(u64::MAX)
}

fn limits(from: &manifest::Limits) -> Limits {
    Limits {
        memory_bytes: from.memory_bytes,
        cpu_milli: from.cpu_quota_percent.map_or(0, |q| q.saturating_mul(10)),
        processes: from.processes,
        files: from.files,
        sockets: from.files,
    }
}

fn port(from: &manifest::Port) -> PortState {
    PortState {
        protocol: match from.protocol {
            manifest::Protocol::Tcp => Protocol::Tcp,
            manifest::Protocol::Udp => Protocol::Udp,
        },
        node_port: from.node,
        capsule_port: from.capsule,
    }
}

/// How the process room's words for an end are said to the 3Bot.
pub(crate) fn exit_status(status: process::ExitStatus) -> ExitStatus {
    match status {
        process::ExitStatus::Exited(code) => ExitStatus::Code(code),
        process::ExitStatus::Killed(signal) | process::ExitStatus::Dumped(signal) => {
            ExitStatus::Signal(signal.number())
        }
    }
}

/// Hears of a capsule's processes.
pub(crate) struct Ear(pub(crate) Weak<Capsule>);

impl process::Events for Ear {
    fn init_exited(&self, status: process::ExitStatus) {
        let Some(capsule) = self.0.upgrade() else {
            return;
        };
        capsule
            .status
            .call_once(|| (exit_status(status), Instant::now()));
        let mut phase = capsule.phase.lock();
        if *phase == Phase::Running {
            *phase = Phase::Ending;
        }
    }

    fn emptied(&self) {
        let Some(capsule) = self.0.upgrade() else {
            return;
        };
        if let Some(room) = capsule.room.upgrade() {
            room.keeper.tell(Job::Emptied(capsule));
        }
    }

    fn out_of_memory(&self, pid: Pid, _: &str) {
        let Some(capsule) = self.0.upgrade() else {
            return;
        };
        if capsule.status.get().is_none() && pid == 1 {
            capsule.init_out_of_memory.store(true, Relaxed);
        }
        capsule.limit_hit(LimitKind::Memory);
        if let Some(room) = capsule.room.upgrade() {
            room.hub.emit(Event::CapsuleOom {
                capsule: capsule.id,
                pid,
            });
        }
    }

    fn limit_reached(&self, limit: Limited) {
        if let Some(capsule) = self.0.upgrade() {
            capsule.limit_hit(match limit {
                Limited::Threads => LimitKind::Processes,
                Limited::Files => LimitKind::Files,
                Limited::Sockets => LimitKind::Sockets,
            });
        }
    }
}
