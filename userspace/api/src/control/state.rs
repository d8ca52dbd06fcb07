//! What the kernel tells about capsules, manifests, the node and its last crash.

use crate::identity::Identity;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

use super::CapsuleId;

/// Where a capsule is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CapsuleState {
    /// Being set up; no process has run yet.
    Created,
    /// Its init process is alive.
    Running,
    /// Asked to stop; its init process is still alive.
    Stopping,
    /// All its processes have ended.
    Exited(ExitSummary),
    /// It never ran: its image was refused after the manifest had been accepted.
    Refused(Refusal),
}

/// How and when a capsule ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitSummary {
    /// What its init process's parent would have got from `wait4`.
    pub status: ExitStatus,
    /// Who wanted it.
    pub cause: ExitCause,
    /// Nanoseconds since boot.
    pub time_ns: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By `exit`, with this code.
    Code(u8),
    /// By this signal.
    Signal(u8),
}

/// Who wanted a capsule to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// It ended of itself, or by a signal from inside or by [`super::Request::Kill`].
    Own,
    /// [`super::Request::Stop`] within its grace, or SIGKILL after it.
    Stopped,
    /// Its init process was killed for want of memory.
    OutOfMemory,
}

/// Everything about one capsule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsuleInfo {
    /// Its number.
    pub capsule: CapsuleId,
    /// Its name, from the manifest.
    pub name: String,
    /// Where it is in its life.
    pub state: CapsuleState,
    /// When its first process started, in nanoseconds since boot.
    pub started_ns: u64,
    /// The same by the wall clock, in milliseconds since 1970, if the node knows the time.
    pub started_unix_ms: Option<u64>,
    /// BLAKE3 of the signed manifest it was started from.
    pub manifest_hash: [u8; 32],
    /// Its processes as numbered inside it (init is 1), lowest first, at most 64 of them;
    /// [`Usage::processes`] counts all.
    pub pids: Vec<u32>,
    /// What it uses now.
    pub usage: Usage,
    /// What it may use at most.
    pub limits: Limits,
    /// The node ports it publishes.
    pub ports: Vec<PortState>,
}

/// What a capsule uses now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Memory charged to it, in bytes.
    pub memory_bytes: u64,
    /// The most memory it ever had charged, in bytes.
    pub memory_peak_bytes: u64,
    /// Processor time of all its threads, past ones included, in nanoseconds.
    pub cpu_ns: u64,
    /// Processes.
    pub processes: u32,
    /// Open file descriptions, sockets included.
    pub files: u32,
    /// Sockets.
    pub sockets: u32,
}

/// What a capsule may use at most; 0 means that the limit is the node's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Processor time, in thousandths of one CPU.
    pub cpu_milli: u32,
    /// Processes and threads together.
    pub processes: u32,
    /// Open file descriptions, sockets included.
    pub files: u32,
    /// Sockets.
    pub sockets: u32,
}

/// One of the [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LimitKind {
    /// [`Limits::memory_bytes`].
    Memory,
    /// [`Limits::cpu_milli`].
    Cpu,
    /// [`Limits::processes`].
    Processes,
    /// [`Limits::files`].
    Files,
    /// [`Limits::sockets`].
    Sockets,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port that a capsule publishes on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port on the node's addresses.
    pub node_port: u16,
    /// The port that the program binds inside the capsule.
    pub capsule_port: u16,
}

/// A manifest of the boot bundle, and what verification says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestEntry {
    /// The entry's name: unique in the bundle, what [`super::ManifestSource::Bundle`] takes.
    pub name: String,
    /// Length of the signed bytes.
    pub bytes: u32,
    /// BLAKE3 of the signed bytes.
    pub hash: [u8; 32],
    /// What the node configuration wants with it.
    pub role: ManifestRole,
    /// `None`: signature, version and validity are good. Otherwise why not.
    pub refusal: Option<Refusal>,
}

/// What the node configuration wants with a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestRole {
    /// The system capsule's: the kernel starts it, the 3Bot does not.
    System,
    /// The 3Bot starts it.
    Start,
    /// It lies ready for the owner to start.
    Idle,
}

/// Why a manifest or an image is not accepted. The texts are at most 128 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// It does not decode, or breaks a rule of the format; what and where, for people.
    Malformed(String),
    /// It is of a format version that this kernel does not know.
    UnknownVersion(u32),
    /// The signer's key is none of the owner's.
    UnknownKey,
    /// The signature does not fit the bytes.
    BadSignature,
    /// Its validity ended; milliseconds since 1970.
    Expired {
        /// When.
        since_unix_ms: u64,
    },
    /// Its validity has not begun; milliseconds since 1970.
    NotYetValid {
        /// When it does.
        from_unix_ms: u64,
    },
    /// The node has accepted a manifest of that capsule with this higher sequence number.
    OldSequence(u64),
    /// It asks for what this kernel or node does not offer; what, for people.
    Unsupported(String),
    /// A node port it publishes belongs to someone else.
    PortTaken(u16),
    /// The bundle does not hold a blob that it needs.
    BlobMissing([u8; 32]),
    /// A blob does not have its hash.
    BlobCorrupt([u8; 32]),
    /// The node has no device of that name to give.
    DeviceMissing(String),
    /// Another capsule holds the device.
    DeviceTaken {
        /// Its name.
        device: String,
        /// Who holds it.
        holder: String,
    },
}

/// The state of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Kernel name and version.
    pub kernel: String,
    /// Nanoseconds since the kernel was entered.
    pub uptime_ns: u64,
    /// The wall clock in milliseconds since 1970, if the node knows the time.
    pub unix_ms: Option<u64>,
    /// Usable memory, in bytes.
    pub memory_total_bytes: u64,
    /// Free memory, in bytes.
    pub memory_free_bytes: u64,
    /// CPUs running.
    pub cpus: u32,
    /// Time that all CPUs together were not idle, in nanoseconds.
    pub cpu_busy_ns: u64,
    /// Addresses of the node, as text with prefix length, such as `10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// Calls answered with ENOSYS because the table has none of that number; at most 128,
    /// ordered by number.
    pub unknown_calls: Vec<UnknownCall>,
    /// The steps of this boot in order; at most 64.
    pub boot_steps: Vec<BootStep>,
    /// Why the machine started.
    pub start_cause: StartCause,
    /// The hardware watchdog, if the machine has one that can be used.
    pub watchdog: Option<WatchdogInfo>,
    /// What the owner wrote on the boot medium.
    pub settings: SettingsInfo,
    /// The node's own key, if it has one.
    pub identity: Option<Identity>,
}

/// Why a machine started, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartCause {
    /// It was switched on, or restarted by someone, or nothing tells.
    Other,
    /// The kernel panicked and restarted it.
    Crash,
    /// The hardware watchdog reset it, because nobody fed it.
    Watchdog,
}

/// A hardware watchdog that resets the machine when the kernel locks up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchdogInfo {
    /// What it is, such as `iTCO`.
    pub device: String,
    /// How long it waits, in milliseconds.
    pub timeout_ms: u32,
    /// Why it is not fed at the moment, for people; `None` while it is.
    pub withheld: Option<String>,
}

/// What became of `skep.toml` on the partition `SKEP`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsInfo {
    /// The disk that has the partition; `None`: no disk has one.
    pub place: Option<String>,
    /// Why the file is not used, for people, with line and key.
    pub problem: Option<String>,
}

/// How often a Linux call that the kernel does not have was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownCall {
    /// The x86-64 call number.
    pub number: u32,
    /// How often since boot.
    pub count: u64,
}

/// How a running capsule does, by its probes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CapsuleHealth {
    /// Nobody has said.
    #[default]
    Unknown,
    /// It has yet to do its work for the first time.
    Starting,
    /// It does its work.
    Ready,
    /// Its last probe failed.
    Failing,
}

/// When a step of the boot was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootStep {
    /// What, such as `devices` or `system capsule started`.
    pub name: String,
    /// When on the node's clock, in nanoseconds since it began; what was before the kernel had
    /// one is less than 0.
    pub done_ns: i64,
}

/// What the machine room wrote down when the kernel last panicked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// What the screen called it, in hexadecimal.
    pub id: u32,
    /// When, in milliseconds since 1970, if the node knew.
    pub unix_ms: Option<u64>,
    /// When, in nanoseconds since the boot that crashed.
    pub uptime_ns: u64,
    /// On which CPU.
    pub cpu: u32,
    /// Kernel name and version that crashed.
    pub kernel: String,
    /// The panic message with its place, in one line.
    pub reason: String,
    /// Registers, back trace and the last console lines, as text; at most 32 KiB.
    pub detail: String,
}
