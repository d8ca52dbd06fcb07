//! The messages between the 3Bot and the kernel over the control device `/dev/skep`.
//!
//! # Transport
//!
//! Only the system capsule (the 3Bot) can open `/dev/skep`; every other capsule gets `EACCES`.
//! The device is an ordinary file descriptor and needs no `ioctl` and no `unsafe`:
//!
//! - each `write()` carries exactly **one** framed [`Request`] of at most [`FRAME_BYTES_MAX`]
//!   bytes. A partial, oversized or doubled frame fails with `EINVAL` and changes nothing. When
//!   the reply queue is full, `write()` fails with `EAGAIN` (or blocks on a blocking descriptor);
//! - `read()` returns one or more **whole** frames ([`Message`]s: replies and events, in the order
//!   in which they happened). A buffer shorter than the next frame fails with `EMSGSIZE`, so
//!   readers offer [`FRAME_BYTES_MAX`] bytes;
//! - it is pollable (`POLLIN`: a frame is waiting, `POLLOUT`: a request would be taken) and
//!   honours `O_NONBLOCK`. At most eight openings at a time: a ninth fails with `EBUSY`. Each has
//!   replies and a subscription of its own. Closing forgets both and touches no capsule.
//!
//! Every accepted request is answered by exactly one reply with its id. The kernel answers without
//! waiting for what was asked to come true: `Stop` is answered when the signal is sent, and
//! the exit is reported by [`Event::CapsuleExited`]. A request that cannot be decoded, or
//! has another protocol version, is answered by [`ControlError::Malformed`] or
//! [`ControlError::Version`] under the id of its header.
//!
//! # Capsules: identity and life
//!
//! A capsule has a small integer id and a name (that of its manifest). **An id is never reused in
//! one boot**; each [`Request::Start`] makes a new, higher id. At most one capsule of a name is alive. The
//! record of an exited capsule stays readable until the next start of the same name. The captured
//! log belongs to the *name*: it goes on over restarts, and its offsets only ever grow.
//!
//! Capsules outlive the 3Bot: when it dies the kernel restarts it, and it finds them again with
//! [`Request::ListCapsules`] (subscribe first, list second: then nothing falls between). What the
//! 3Bot itself must remember over its own restart it leaves with [`Request::SaveState`].
//!
//! # Probing a capsule's port
//!
//! The kernel treats a loopback connect **of the system capsule** to a published node port
//! (`127.0.0.1:node_port`) as a connect to the capsule that publishes it, without touching
//! the wire. The 3Bot's TCP and HTTP probes therefore just connect there. A node port that
//! nobody listens on refuses the connection (`ECONNREFUSED`). A port that the system capsule itself
//! listens on (8080, the API) stays its own.
//!
//! # Wire format
//!
//! See [`frame`]: a 12-byte header and a [postcard](https://postcard.jamesmunns.com/wire-format)
//! body. Postcard numbers enum variants in order, so **any** change of these types raises
//! [`PROTOCOL_VERSION`]; kernel and 3Bot ship in one image and must agree exactly.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

mod event;
pub mod frame;
pub mod hardware;
mod limits;
mod profile;
mod slots;
mod state;

pub use event::{Event, EventMask, EventRecord};
pub use frame::{FRAME_BYTES_MAX, FrameError, PROTOCOL_VERSION};
pub use profile::{
    CallProfile, LATENCY_CLASSES, PROFILE_CALLS_MAX, PROFILE_HZ_MAX, PROFILE_PLACES_MAX,
    PROFILE_SECONDS_MAX, Profile, Samples,
};
pub use slots::{
    SlotInfo, SlotStatus, SlotsInfo, UPDATE_CHUNK_BYTES_MAX, UpdateProgress, UpdateRefusal,
};
pub use state::{
    BootStep, CapsuleHealth, CapsuleInfo, CapsuleState, CrashRecord, ExitCause, ExitStatus,
    ExitSummary, LimitKind, Limits, ManifestEntry, ManifestRole, NodeInfo, PortState, Protocol,
    Refusal, SettingsInfo, StartCause, UnknownCall, Usage, WatchdogInfo,
};

/// Most bytes of state that [`Request::SaveState`] takes.
pub const STATE_BYTES_MAX: usize = 60 * 1024;
/// Most bytes of log that one [`Reply::Log`] carries.
pub const LOG_CHUNK_BYTES_MAX: usize = 60 * 1024;
/// Most bytes of a signed manifest that crosses the control device.
pub const MANIFEST_BYTES_MAX: usize = 60 * 1024;
/// Most bytes of a capsule's or manifest entry's name.
pub const NAME_BYTES_MAX: usize = 64;
/// Most arguments, and most environment entries, of an [`Request::Exec`].
pub const EXEC_STRINGS_MAX: usize = 64;
/// Most bytes of all arguments and environment entries of an [`Request::Exec`] together.
pub const EXEC_BYTES_MAX: usize = 8 * 1024;
/// Longest time-out of an [`Request::Exec`], in milliseconds.
pub const EXEC_TIMEOUT_MS_MAX: u32 = 600_000;
/// Longest grace of a [`Request::Stop`] before SIGKILL follows, in milliseconds.
pub const STOP_GRACE_MS_MAX: u32 = 600_000;
/// Most capsules that one node knows at a time, exited ones included.
pub const CAPSULES_MAX: usize = 256;

/// A capsule's number: unique within one boot, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CapsuleId(pub u32);

/// The number of one [`Request::Exec`]: unique within one boot, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecId(pub u32);

/// What the 3Bot asks of the kernel. The reply to each is named in its comment; any
/// may instead be answered by [`Reply::Error`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// First request on a descriptor; others before it are refused with
    /// [`ControlError::NotGreeted`]. Answered by [`Reply::Hello`].
    Hello {
        /// Name and version of the client program, for the kernel's log.
        client: String,
    },
    /// Answered by [`Reply::Capsules`], the system capsule excluded, ordered by id.
    ListCapsules,
    /// Verifies a manifest and starts its capsule. Answered by [`Reply::Started`] once the first
    /// process exists (its files are verified page by page as they are read).
    Start {
        /// Which manifest.
        manifest: ManifestSource,
    },
    /// Sends `signal` to the capsule's init process and SIGKILL to all of its processes after
    /// the grace. Answered by [`Reply::Done`].
    Stop {
        /// Whom.
        capsule: CapsuleId,
        /// A Linux signal number, 1..=64; usually SIGTERM (15) or what the manifest says.
        signal: u8,
        /// Milliseconds, at most [`STOP_GRACE_MS_MAX`]; 0 kills at once.
        grace_ms: u32,
    },
    /// Sends a signal and does nothing else. Answered by [`Reply::Done`].
    Kill {
        /// Whom.
        capsule: CapsuleId,
        /// A Linux signal number, 1..=64.
        signal: u8,
        /// Which of its processes.
        scope: KillScope,
    },
    /// Runs a program inside a running capsule, beside its init process and under its limits;
    /// its output goes nowhere. Answered by [`Reply::ExecStarted`]; the end is reported by
    /// [`Event::ExecFinished`], which needs no subscription.
    Exec {
        /// Where.
        capsule: CapsuleId,
        /// Program path and arguments; at least one.
        argv: Vec<String>,
        /// `NAME=value` entries added to the capsule's own environment.
        env: Vec<String>,
        /// Milliseconds until SIGKILL, 1..=[`EXEC_TIMEOUT_MS_MAX`].
        timeout_ms: u32,
    },
    /// Answered by [`Reply::Capsule`].
    Inspect {
        /// Whom.
        capsule: CapsuleId,
    },
    /// Reads captured standard output and standard error, interleaved as written. Answered by
    /// [`Reply::Log`].
    ReadLog {
        /// The capsule's *name*: the log goes on over restarts.
        name: String,
        /// First byte wanted, counted from the first byte captured since boot. Bytes that have
        /// already been overwritten are skipped ([`Reply::Log`] says where it really begins).
        from_offset: u64,
        /// Most bytes wanted; the kernel caps it at [`LOG_CHUNK_BYTES_MAX`].
        bytes_max: u32,
    },
    /// Replaces the set of events delivered on this descriptor. Answered by [`Reply::Done`].
    Subscribe {
        /// What to deliver.
        events: EventMask,
    },
    /// Answered by [`Reply::Node`].
    NodeInfo,
    /// Asks what the machine is made of. Answered by [`Reply::Hardware`].
    Hardware,
    /// Reads the record of the last kernel panic. Answered by [`Reply::Crash`].
    ReadCrash,
    /// Forgets the record of the last kernel panic. Answered by [`Reply::Done`].
    ClearCrash,
    /// Lists the manifests of the boot bundle with what verification says of each.
    /// Answered by [`Reply::Manifests`].
    ListManifests,
    /// Answered by [`Reply::Manifest`] with the signed bytes, even if verification failed.
    ReadManifest {
        /// The entry's name, as listed.
        name: String,
    },
    /// Keeps bytes for the next life of the 3Bot in this boot, replacing what was kept.
    /// Answered by [`Reply::Done`].
    SaveState {
        /// At most [`STATE_BYTES_MAX`]; the kernel does not look inside.
        bytes: Vec<u8>,
    },
    /// Answered by [`Reply::State`].
    LoadState,
    /// Answers [`Event::Ping`]: the 3Bot is alive. Answered by [`Reply::Done`].
    Pong {
        /// The token of the ping.
        token: u64,
    },
    /// Stops all capsules (SIGTERM, short grace) and restarts the machine. Answered by
    /// [`Reply::Done`], then the machine goes down.
    Reboot,
    /// Stops all capsules (SIGTERM, short grace) and switches the machine off. Answered by
    /// [`Reply::Done`], then the machine goes down.
    PowerOff,
    /// Counts system calls and samples the kernel for a time that ends by itself, in place of
    /// any profile before. Answered by [`Reply::Done`].
    StartProfile {
        /// 1..=[`PROFILE_SECONDS_MAX`].
        seconds: u16,
        /// Samples a second on each CPU, at most [`PROFILE_HZ_MAX`]; 0 for none.
        hz: u16,
        /// Whose system calls; `None` for everybody's.
        capsule: Option<CapsuleId>,
    },
    /// Answered by [`Reply::Profile`].
    ReadProfile,
    /// What the 3Bot knows of a running capsule and the kernel does not, for whoever stands
    /// before the machine. Answered by [`Reply::Done`].
    Judge {
        /// Whom.
        capsule: CapsuleId,
        /// How it does.
        health: CapsuleHealth,
    },
    /// Has the node sign a challenge with its own key. Answered by [`Reply::Proof`], or by
    /// [`ControlError::Unsupported`] where it has none.
    ProveIdentity {
        /// [`CHALLENGE_BYTES_MIN`](crate::identity::CHALLENGE_BYTES_MIN) to
        /// [`CHALLENGE_BYTES_MAX`](crate::identity::CHALLENGE_BYTES_MAX) bytes.
        challenge: Vec<u8>,
    },
    /// Has the TPM keep the key of this boot, in place of any other. Answered by
    /// [`Reply::Done`], or by [`ControlError::Unsupported`] without a TPM that can.
    KeepIdentity,
    /// What is in the slots of the boot disk. Answered by [`Reply::Slots`]; this and the requests
    /// below by [`ControlError::Unsupported`] on a node that was not started from a slot.
    Slots,
    /// The node is healthy: the release that runs is kept. Answered by [`Reply::Done`].
    ConfirmHealthy,
    /// Begins to take in a release; one under way is given up. The kernel checks the signature and
    /// that it is newer than what runs. Answered by [`Reply::Done`], as the next two when all is
    /// well, or by [`ControlError::Update`], which ends the update.
    UpdateBegin {
        /// The signed head: see [`crate::boot::release`].
        head: Vec<u8>,
    },
    /// The next bytes of the release, from its first on.
    UpdateWrite {
        /// Where in the release.
        offset: u64,
        /// At most [`UPDATE_CHUNK_BYTES_MAX`].
        bytes: Vec<u8>,
    },
    /// Reads the next part of what was written back from the disk; asked again until all of it is
    /// checked. Answered by [`Reply::Progress`].
    UpdateCheck,
    /// Has the next start of the node try the new release. Answered by [`Reply::Done`].
    UpdateFinish,
    /// Begins to make another disk of the node one that it starts from: everything on it is lost.
    /// Answered by [`Reply::Done`].
    InstallBegin {
        /// Its name, such as `vdb`.
        disk: String,
    },
    /// Copies the next part; asked again until all is done. Answered by [`Reply::Progress`].
    InstallStep,
}

/// Where the kernel takes a manifest from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ManifestSource {
    /// An entry of the boot bundle, by name.
    Bundle(String),
    /// The signed bytes themselves, at most [`MANIFEST_BYTES_MAX`].
    Signed(Vec<u8>),
}

/// Which processes of a capsule a signal goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillScope {
    /// The capsule's init process (pid 1 inside it) only.
    Init,
    /// Every process of the capsule.
    All,
}

/// What the kernel sends: everything that `read()` returns is one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The answer to the request whose id is in the frame's header.
    Reply(Reply),
    /// Something happened; the header's id is 0.
    Event(EventRecord),
}

/// The kernel's answer to one [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done (or, for what takes time, begun).
    Done,
    /// Refused; nothing was changed.
    Error(ControlError),
    /// To [`Request::Hello`].
    Hello {
        /// Kernel name and version.
        kernel: String,
        /// Random number of this boot.
        boot_id: [u8; 16],
        /// The node's name from its configuration.
        node_name: String,
        /// The owner's ed25519 public keys: who may sign manifests and requests.
        owner_keys: Vec<[u8; 32]>,
        /// How often the kernel has started the 3Bot in this boot, this time included.
        agent_starts: u32,
    },
    /// To [`Request::ListCapsules`]: at most [`CAPSULES_MAX`], short form. The details of
    /// one come from [`Request::Inspect`].
    Capsules(Vec<CapsuleSummary>),
    /// To [`Request::Start`].
    Started {
        /// The new capsule.
        capsule: CapsuleId,
        /// Its name, from the manifest.
        name: String,
        /// Nanoseconds since boot.
        started_ns: u64,
    },
    /// To [`Request::Exec`].
    ExecStarted {
        /// Names the run in [`Event::ExecFinished`].
        exec: ExecId,
    },
    /// To [`Request::Inspect`].
    Capsule(CapsuleInfo),
    /// To [`Request::ReadLog`].
    Log {
        /// Offset of the first byte in `bytes`; later than asked if older bytes were overwritten.
        from_offset: u64,
        /// Offset just after the newest byte captured so far.
        end_offset: u64,
        /// The bytes, at most [`LOG_CHUNK_BYTES_MAX`]; not necessarily UTF-8.
        bytes: Vec<u8>,
    },
    /// To [`Request::NodeInfo`].
    Node(Box<NodeInfo>),
    /// To [`Request::Hardware`].
    Hardware(Box<hardware::Hardware>),
    /// To [`Request::ReadCrash`]; `None` when there is no record.
    Crash(Option<CrashRecord>),
    /// To [`Request::ListManifests`].
    Manifests(Vec<ManifestEntry>),
    /// To [`Request::ReadManifest`]: the signed bytes.
    Manifest(Vec<u8>),
    /// To [`Request::LoadState`]: what was saved last in this boot, empty if nothing was.
    State(Vec<u8>),
    /// To [`Request::ReadProfile`]; `None` if there was none in this boot.
    Profile(Option<Profile>),
    /// To [`Request::ProveIdentity`]: the signature, 64 bytes; the key is in [`NodeInfo`].
    Proof(Vec<u8>),
    /// To [`Request::Slots`].
    Slots(SlotsInfo),
    /// To [`Request::UpdateCheck`] and [`Request::InstallStep`].
    Progress {
        /// Bytes done so far.
        done: u64,
        /// All.
        total: u64,
    },
}

/// One line of [`Reply::Capsules`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapsuleSummary {
    /// Its number.
    pub capsule: CapsuleId,
    /// Its name, from the manifest.
    pub name: String,
    /// Where it is in its life.
    pub state: CapsuleState,
    /// When its first process started, in nanoseconds since boot.
    pub started_ns: u64,
    /// BLAKE3 of the signed manifest it was started from.
    pub manifest_hash: [u8; 32],
}

/// Why the kernel refused a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlError {
    /// The frame's version is not [`PROTOCOL_VERSION`]; the kernel's own is given.
    Version {
        /// The kernel's version.
        kernel: u16,
    },
    /// The body does not decode, or has bytes left over.
    Malformed,
    /// [`Request::Hello`] has not been seen on this descriptor.
    NotGreeted,
    /// A field is beyond its documented limit; the field is named.
    TooLarge(String),
    /// A field has a value that makes no sense (such as signal 0); the field is named.
    Invalid(String),
    /// There is no capsule of that id, or no log or manifest of that name.
    NotFound,
    /// A capsule of that name is already alive.
    AlreadyRunning {
        /// Which.
        capsule: CapsuleId,
    },
    /// The capsule has exited, or has not begun to run.
    NotRunning,
    /// The manifest or its image was refused.
    Refused(Refusal),
    /// The program of an [`Request::Exec`] or of the manifest could not be started.
    ExecFailed {
        /// The Linux error number that `execve` gave.
        errno: u16,
    },
    /// The node has no memory, or has reached [`CAPSULES_MAX`].
    NoResources,
    /// This kernel or machine cannot do it (such as power-off without ACPI).
    Unsupported,
    /// A step of an update is refused, and the update over.
    Update(UpdateRefusal),
}

#[cfg(test)]
mod tests;
