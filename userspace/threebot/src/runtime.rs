//! The node as the agent sees it: requests go in, replies and events come out.

use std::time::Duration;

use skep_api::control::hardware::Hardware;
use skep_api::control::{
    CapsuleHealth, CapsuleId, CapsuleInfo, CapsuleSummary, ControlError, CrashRecord, EventMask,
    EventRecord, ExecId, KillScope, ManifestEntry, ManifestSource, NodeInfo, Profile, Reply,
    Request, SlotsInfo,
};
use tokio::sync::{mpsc, oneshot};

/// No reply is waited for longer than this: the kernel answers at once or not at all.
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests and events that may queue up between the agent and the runtime.
const QUEUE_MAX: usize = 1024;

/// Something that runs capsules: the kernel, or a stand-in on a Linux machine.
pub trait Runtime {
    /// Answers every call and sends every event until `calls` is closed or the runtime is lost;
    /// returns why it ended.
    fn serve(
        self,
        calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<EventRecord>,
    ) -> impl Future<Output = std::io::Error>;
}

/// One request on its way.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Reply>,
}

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel said no.
    Refused(ControlError),
    /// No answer in time, or no answer that fits the question.
    NoAnswer,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(ControlError::Refused(refusal)) => {
                f.write_str(&crate::agent::words::refusal(refusal))
            }
            Self::Refused(ControlError::ExecFailed { errno }) => write!(
                f,
                "the program could not be started: {}",
                std::io::Error::from_raw_os_error(i32::from(*errno))
            ),
            Self::Refused(ControlError::NoResources) => f.write_str("the node has no room for it"),
            Self::Refused(ControlError::Unsupported) => f.write_str("this node cannot do that"),
            Self::Refused(ControlError::Update(why)) => why.fmt(f),
            Self::Refused(ControlError::NotFound) => f.write_str("not found"),
            Self::Refused(ControlError::NotRunning) => f.write_str("it does not run"),
            Self::Refused(other) => write!(f, "the kernel refused: {other:?}"),
            Self::NoAnswer => f.write_str("the kernel did not answer"),
        }
    }
}

/// What [`Control::hello`] tells.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The node's name.
    pub node_name: String,
    /// Who may sign requests.
    pub owner_keys: Vec<[u8; 32]>,
    /// How often the 3Bot was started in this boot.
    pub agent_starts: u32,
}

/// A piece of a capsule's log.
#[derive(Clone, Debug)]
pub struct LogChunk {
    /// Offset of the first byte.
    pub from_offset: u64,
    /// Offset after the newest byte that there is.
    pub end_offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The asking side of a [`Runtime`].
#[derive(Clone, Debug)]
pub struct Control {
    calls: mpsc::Sender<Call>,
}

/// Both ends of the two channels between an agent and its runtime.
pub fn channels() -> (
    Control,
    mpsc::Receiver<Call>,
    mpsc::Sender<EventRecord>,
    Events,
) {
    let (calls, called) = mpsc::channel(QUEUE_MAX);
    let (send, events) = mpsc::channel(QUEUE_MAX);
    (Control { calls }, called, send, events)
}

/// Where the agent gets its events.
pub type Events = mpsc::Receiver<EventRecord>;

/// Takes the expected reply apart; any other is no answer.
macro_rules! expect {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply? {
            $pattern => Ok($value),
            _ => Err(Failure::NoAnswer),
        }
    };
}

impl Control {
    async fn ask(&self, request: Request) -> Result<Reply, Failure> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.calls.send(Call { request, reply }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(REPLY_TIMEOUT, asked).await {
            Ok(Some(Reply::Error(error))) => Err(Failure::Refused(error)),
            Ok(Some(reply)) => Ok(reply),
            Ok(None) | Err(_) => Err(Failure::NoAnswer),
        }
    }

    /// See [`Request::Hello`].
    ///
    /// # Errors
    ///
    /// As all of these: [`Failure`].
    pub async fn hello(&self) -> Result<Greeting, Failure> {
        let client = concat!("threebot ", env!("CARGO_PKG_VERSION")).to_owned();
        expect!(self.ask(Request::Hello { client }).await,
            Reply::Hello { node_name, owner_keys, agent_starts, .. } =>
                Greeting { node_name, owner_keys, agent_starts })
    }

    /// See [`Request::Subscribe`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn subscribe(&self, events: EventMask) -> Result<(), Failure> {
        expect!(self.ask(Request::Subscribe { events }).await, Reply::Done => ())
    }

    /// See [`Request::ListCapsules`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn list(&self) -> Result<Vec<CapsuleSummary>, Failure> {
        expect!(self.ask(Request::ListCapsules).await, Reply::Capsules(list) => list)
    }

    /// See [`Request::Start`]; gives the capsule's number and when it started, in nanoseconds
    /// since boot.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn start(&self, entry: &str) -> Result<(CapsuleId, u64), Failure> {
        let manifest = ManifestSource::Bundle(entry.to_owned());
        expect!(self.ask(Request::Start { manifest }).await,
            Reply::Started { capsule, started_ns, .. } => (capsule, started_ns))
    }

    /// See [`Request::Stop`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn stop(&self, capsule: CapsuleId, signal: u8, grace_ms: u32) -> Result<(), Failure> {
        let request = Request::Stop {
            capsule,
            signal,
            grace_ms,
        };
        expect!(self.ask(request).await, Reply::Done => ())
    }

    /// See [`Request::Judge`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn judge(&self, capsule: CapsuleId, health: CapsuleHealth) -> Result<(), Failure> {
        let request = Request::Judge { capsule, health };
        expect!(self.ask(request).await, Reply::Done => ())
    }

    /// See [`Request::Kill`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn kill(
        &self,
        capsule: CapsuleId,
        signal: u8,
        scope: KillScope,
    ) -> Result<(), Failure> {
        expect!(self.ask(Request::Kill { capsule, signal, scope }).await, Reply::Done => ())
    }

    /// See [`Request::Exec`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn exec(
        &self,
        capsule: CapsuleId,
        argv: Vec<String>,
        timeout_ms: u32,
    ) -> Result<ExecId, Failure> {
        let request = Request::Exec {
            capsule,
            argv,
            env: Vec::new(),
            timeout_ms,
        };
        expect!(self.ask(request).await, Reply::ExecStarted { exec } => exec)
    }

    /// See [`Request::Inspect`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn inspect(&self, capsule: CapsuleId) -> Result<CapsuleInfo, Failure> {
        expect!(self.ask(Request::Inspect { capsule }).await, Reply::Capsule(info) => info)
    }

    /// See [`Request::ReadLog`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn read_log(
        &self,
        name: &str,
        from_offset: u64,
        bytes_max: u32,
    ) -> Result<LogChunk, Failure> {
        let request = Request::ReadLog {
            name: name.to_owned(),
            from_offset,
            bytes_max,
        };
        expect!(self.ask(request).await,
            Reply::Log { from_offset, end_offset, bytes } =>
                LogChunk { from_offset, end_offset, bytes })
    }

    /// See [`Request::NodeInfo`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn node(&self) -> Result<NodeInfo, Failure> {
        expect!(self.ask(Request::NodeInfo).await, Reply::Node(node) => *node)
    }

    /// See [`Request::Hardware`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn hardware(&self) -> Result<Hardware, Failure> {
        expect!(self.ask(Request::Hardware).await, Reply::Hardware(hardware) => *hardware)
    }

    /// See [`Request::ProveIdentity`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn prove_identity(&self, challenge: Vec<u8>) -> Result<Vec<u8>, Failure> {
        expect!(self.ask(Request::ProveIdentity { challenge }).await, Reply::Proof(proof) => proof)
    }

    /// See [`Request::ReadCrash`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn crash(&self) -> Result<Option<CrashRecord>, Failure> {
        expect!(self.ask(Request::ReadCrash).await, Reply::Crash(crash) => crash)
    }

    /// See [`Request::ListManifests`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn manifests(&self) -> Result<Vec<ManifestEntry>, Failure> {
        expect!(self.ask(Request::ListManifests).await, Reply::Manifests(list) => list)
    }

    /// See [`Request::ReadManifest`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn manifest(&self, name: &str) -> Result<Vec<u8>, Failure> {
        let request = Request::ReadManifest {
            name: name.to_owned(),
        };
        expect!(self.ask(request).await, Reply::Manifest(bytes) => bytes)
    }

    /// See [`Request::SaveState`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn save_state(&self, bytes: Vec<u8>) -> Result<(), Failure> {
        expect!(self.ask(Request::SaveState { bytes }).await, Reply::Done => ())
    }

    /// See [`Request::LoadState`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn load_state(&self) -> Result<Vec<u8>, Failure> {
        expect!(self.ask(Request::LoadState).await, Reply::State(bytes) => bytes)
    }

    /// See [`Request::ReadProfile`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn profile(&self) -> Result<Option<Profile>, Failure> {
        expect!(self.ask(Request::ReadProfile).await, Reply::Profile(profile) => profile)
    }

    /// See [`Request::Slots`].
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn slots(&self) -> Result<SlotsInfo, Failure> {
        expect!(self.ask(Request::Slots).await, Reply::Slots(slots) => slots)
    }

    /// See [`Request::UpdateCheck`]: bytes read back so far, and all.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn check_update(&self) -> Result<(u64, u64), Failure> {
        expect!(self.ask(Request::UpdateCheck).await,
            Reply::Progress { done, total } => (done, total))
    }

    /// See [`Request::InstallStep`]: bytes done so far, and all.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn install_step(&self) -> Result<(u64, u64), Failure> {
        expect!(self.ask(Request::InstallStep).await,
            Reply::Progress { done, total } => (done, total))
    }

    /// Any request that is answered by [`Reply::Done`]: pong, clear crash, reboot, power off.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub async fn tell(&self, request: Request) -> Result<(), Failure> {
        expect!(self.ask(request).await, Reply::Done => ())
    }
}
