//! The manifest: everything a node is told about one capsule.
//!
//! A [`Manifest`] travels only inside a [`SignedManifest`]; what it does not
//! grant does not exist for the capsule. It is written by `skep sign` from TOML,
//! see `docs/reference/formats.md`.

mod signed;
mod validate;

pub use signed::{
    MANIFEST_VERSION, MANIFEST_VERSION_FIRST, ManifestError, SIGNING_DOMAIN, SignedManifest,
};
pub(crate) use validate::require;
pub use validate::{FieldError, Problem, is_capsule_name, is_device_name};

use crate::hash::Hash;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Largest signed manifest, in bytes: it must fit one frame of the control device.
pub const MAX_MANIFEST_LEN: usize = crate::control::MANIFEST_BYTES_MAX;
/// Longest capsule name, in bytes.
pub const MAX_NAME: usize = 63;
/// Most words of a command.
pub const MAX_COMMAND: usize = 256;
/// Most environment variables.
pub const MAX_ENVIRONMENT: usize = 256;
/// Longest word, variable or path, in bytes.
pub const MAX_TEXT: usize = 4096;
/// Most published ports.
pub const MAX_PORTS: usize = 64;
/// Most devices.
pub const MAX_DEVICES: usize = 16;
/// Longest device name, in bytes.
pub const MAX_DEVICE_NAME: usize = 31;
/// Most names in `start_after`.
pub const MAX_START_AFTER: usize = 64;
/// Longest time that a manifest can give for a wait, in milliseconds (a day).
pub const MAX_WAIT_MS: u32 = 24 * 60 * 60 * 1000;
/// Smallest memory limit, in bytes.
pub const MIN_MEMORY: u64 = 1 << 20;
/// Largest CPU share.
pub const MAX_CPU_SHARE: u32 = 10_000;

/// What a node is told about one capsule.
///
/// The order of the fields is the order on the wire: a change of it is a new
/// [`MANIFEST_VERSION`]. What a version adds stands last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name of the capsule on its node: lower-case letters, digits and `-`.
    /// Also its host name.
    pub name: String,
    /// Number of this manifest among those of the capsule. A node refuses a lower
    /// one than it has, so that an old manifest cannot be played again.
    pub sequence: u64,
    /// Hash of the tree blob of the image.
    pub tree: Hash,
    /// Absolute path of the program inside the image, and its arguments.
    pub command: Vec<String>,
    /// Environment variables, name and value; nothing else is in the environment.
    pub environment: Vec<(String, String)>,
    /// Absolute path of the directory that the program starts in.
    pub working_directory: String,
    /// User that the program starts as.
    pub user: u32,
    /// Group that the program starts as.
    pub group: u32,
    /// What the capsule may use.
    pub limits: Limits,
    /// Ports of the capsule that are ports of the node.
    pub ports: Vec<Port>,
    /// Whether the capsule may open connections to outside.
    pub outbound: Outbound,
    /// How to find out whether the capsule works.
    pub probes: Probes,
    /// What happens when it ends.
    pub restart: Restart,
    /// How it is asked to end.
    pub stop: Stop,
    /// Capsules of the same node that must be up before this one starts.
    pub start_after: Vec<String>,
    /// Whether the capsule gets the control device. Honoured only for the capsule
    /// that the node configuration names as its system capsule.
    pub system: bool,
    /// Times between which the manifest holds.
    pub validity: Validity,
    /// Names of the node's devices that the capsule gets, for itself alone, such as
    /// `vda`. Since version 2.
    pub devices: Vec<String>,
    /// Whether it may have raw and packet sockets, by which it sends and hears anything
    /// on the node's link, other capsules' packets among it. Since version 3.
    pub raw_network: bool,
}

/// What a capsule may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory: anonymous memory, files in RAM, page tables and kernel stacks.
    pub memory_bytes: u64,
    /// Weight when CPUs are contended, 1 to [`MAX_CPU_SHARE`]; 100 is the usual.
    pub cpu_share: u32,
    /// Ceiling of CPU time, in percent of one CPU; none when absent.
    pub cpu_quota_percent: Option<u32>,
    /// Threads of all processes together.
    pub processes: u32,
    /// Open file descriptions of all processes together, sockets included.
    pub files: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            cpu_share: 100,
            cpu_quota_percent: None,
            processes: 64,
            files: 1024,
        }
    }
}

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port of the capsule published on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// The port that the program binds.
    pub capsule: u16,
    /// The port of the node that others connect to.
    pub node: u16,
    /// Transport protocol of both.
    pub protocol: Protocol,
}

/// Whether a capsule may open connections to outside the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outbound {
    /// It may not; replies on its published ports still leave.
    #[default]
    Deny,
    /// It may, from the node's address.
    Allow,
}

/// How to find out whether a capsule works.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probes {
    /// Repeated from the start until it succeeds; then the capsule counts as up.
    pub startup: Option<Probe>,
    /// Repeated while the capsule is up; failing it restarts the capsule.
    pub liveness: Option<Probe>,
}

/// One probe and its pace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// What is tried.
    pub check: Check,
    /// Time between the starts of two tries, in milliseconds. After a failure, and while a
    /// capsule starts, tries may come sooner.
    pub interval_ms: u32,
    /// Time after which a try has failed, in milliseconds.
    pub timeout_ms: u32,
    /// Failures in a row after which the probe has failed.
    pub failure_threshold: u32,
}

/// What a probe tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// Run a command in the capsule; status 0 is success.
    Exec(Vec<String>),
    /// Connect to a published port of the capsule, given as the capsule's number.
    Tcp(u16),
    /// `GET` a path; a status of 200 to 399 is success.
    Http {
        /// A published TCP port of the capsule, given as the capsule's number.
        port: u16,
        /// Path with its leading `/`.
        path: String,
    },
}

/// When a capsule that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// However it ended.
    #[default]
    Always,
    /// When it ended by a signal, with a status other than 0, or by a failed probe.
    OnFailure,
    /// Never.
    Never,
}

/// When and how a capsule that has ended is started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// When.
    pub policy: RestartPolicy,
    /// The first restart is immediate; this is the wait before the second in a row, in
    /// milliseconds, at least 10. It doubles with each further one.
    pub backoff_initial_ms: u32,
    /// Longest wait, in milliseconds.
    pub backoff_max_ms: u32,
    /// A capsule that has run for this long starts again with the first wait, in
    /// milliseconds.
    pub crash_window_ms: u32,
    /// This many ends within the window are reported as a crash loop.
    pub crash_limit: u32,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::Always,
            backoff_initial_ms: 10,
            backoff_max_ms: 30_000,
            crash_window_ms: 60_000,
            crash_limit: 5,
        }
    }
}

/// How a capsule is asked to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Signal sent to the first process, as its Linux number (15 is SIGTERM).
    pub signal: u8,
    /// Time until everything left is killed, in milliseconds.
    pub grace_ms: u32,
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            signal: 15,
            grace_ms: 10_000,
        }
    }
}

/// Times between which a manifest holds, in seconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Validity {
    /// Not before this time.
    pub valid_from: Option<u64>,
    /// Not after this time.
    pub not_after: Option<u64>,
}

impl Validity {
    /// Whether the manifest is not valid at `now`, and why.
    ///
    /// # Errors
    /// [`ManifestError::NotYetValid`] or [`ManifestError::Expired`].
    pub fn check(&self, now: u64) -> Result<(), ManifestError> {
        if let Some(from) = self.valid_from.filter(|from| now < *from) {
            return Err(ManifestError::NotYetValid {
                valid_from: from,
                now,
            });
        }
        if let Some(until) = self.not_after.filter(|until| now > *until) {
            return Err(ManifestError::Expired {
                not_after: until,
                now,
            });
        }
        Ok(())
    }
}
