//! What the supervisor must know about a capsule: the part of its manifest that is about life.

use skep_api::manifest::{self, Manifest};

pub use skep_api::manifest::RestartPolicy;

use super::Millis;
use super::backoff::{Pace, STEADY_MS};

/// How to keep one capsule alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSpec {
    /// The capsule's name.
    pub name: String,
    /// Names of capsules that must be ready before the first start of this one.
    pub start_after: Vec<String>,
    /// What to do when it ends.
    pub restart: RestartPolicy,
    /// How soon to do it.
    pub pace: Pace,
    /// Must succeed once before the capsule counts as ready; none: ready when started.
    pub startup: Option<Probe>,
    /// Asked again and again once it is ready.
    pub liveness: Option<Probe>,
    /// Signal for an ordinary stop.
    pub stop_signal: u8,
    /// Time between that signal and SIGKILL.
    pub stop_grace: Millis,
}

/// A question to a capsule, and how patiently it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// Time between two questions.
    pub interval: Millis,
    /// An answer must come within this time.
    pub timeout: Millis,
    /// This many failures in a row mean that the capsule hangs. For the start-up probe, this
    /// many intervals without success.
    pub failures: u32,
}

/// What a probe asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// A program run inside the capsule must end with exit code 0.
    Exec(Vec<String>),
    /// A TCP connection to this node port must be accepted.
    Tcp(u16),
    /// An HTTP GET must be answered with a status of 200 to 399.
    Http {
        /// The node port.
        port: u16,
        /// The path asked for.
        path: String,
    },
}

impl UnitSpec {
    /// Takes from a verified manifest what is about life.
    pub fn from_manifest(manifest: &Manifest) -> Self {
        let probe = |probe: &Option<manifest::Probe>| {
            probe
                .as_ref()
                .map(|probe| Probe::from_manifest(probe, &manifest.ports))
        };
        Self {
            name: manifest.name.clone(),
            start_after: manifest.start_after.clone(),
            restart: manifest.restart.policy,
            pace: Pace {
                initial: manifest.restart.backoff_initial_ms.into(),
                longest: manifest.restart.backoff_max_ms.into(),
                // A shorter window would forgive every exit at once: a busy loop.
                window: Millis::from(manifest.restart.crash_window_ms).max(STEADY_MS),
                loop_exits: manifest.restart.crash_limit.max(1) as usize,
            },
            startup: probe(&manifest.probes.startup),
            liveness: probe(&manifest.probes.liveness),
            stop_signal: manifest.stop.signal,
            stop_grace: manifest.stop.grace_ms.into(),
        }
    }
}

impl Probe {
    fn from_manifest(probe: &manifest::Probe, ports: &[manifest::Port]) -> Self {
        // Validation has made sure that probed ports are published.
        let node_port = |capsule_port: u16| {
            let tcp = manifest::Protocol::Tcp;
            let mut ports = ports.iter().filter(|port| port.protocol == tcp);
            ports
                .find(|port| port.capsule == capsule_port)
                .map_or(0, |port| port.node)
        };
        Self {
            check: match &probe.check {
                manifest::Check::Exec(argv) => Check::Exec(argv.clone()),
                manifest::Check::Tcp(port) => Check::Tcp(node_port(*port)),
                manifest::Check::Http { port, path } => Check::Http {
                    port: node_port(*port),
                    path: path.clone(),
                },
            },
            interval: probe.interval_ms.into(),
            timeout: probe.timeout_ms.into(),
            failures: probe.failure_threshold.max(1),
        }
    }
}
