//! The acting part: carries the supervisor's actions to the kernel, and what happens to the
//! supervisor and the journal.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use rustix::rand::{GetRandomFlags, getrandom};
use skep_api::control::{
    CapsuleHealth, CapsuleId, ControlError, KillScope, ManifestEntry, Refusal, STOP_GRACE_MS_MAX,
};
use skep_api::manifest::Manifest;
use skep_api::owner::Verifier;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::journal::Journal;
use crate::runtime::{Control, Failure};
use crate::supervisor::{
    Action, Command, CommandError, Input, ProbeKind, RecordKind, StartError, Supervisor, Unit,
};

mod begin;
mod events;
mod exec;
mod memory;
mod probe;
mod release;
pub mod words;

/// SIGKILL's number.
const SIGKILL: u8 = 9;

/// One agent. It lives on one thread; no borrow is held over an await.
#[derive(Debug)]
pub struct Agent {
    /// The way to the kernel.
    pub control: Control,
    /// The node's time.
    pub clock: Clock,
    /// The node's name.
    pub node_name: String,
    /// How often the 3Bot was started in this boot.
    pub agent_starts: u32,
    /// What is known of each manifest, ordered by entry name.
    pub manifests: Vec<Known>,
    /// The deciding part.
    pub supervisor: RefCell<Supervisor>,
    /// What happened.
    pub journal: RefCell<Journal>,
    /// Judges signed requests.
    pub verifier: RefCell<Verifier>,
    execs: exec::Execs,
    names: RefCell<BTreeMap<CapsuleId, String>>,
    quiet: RefCell<events::Quiet>,
    /// What the kernel was last told of running capsules.
    judged: RefCell<BTreeMap<u32, CapsuleHealth>>,
    /// The supervisor's deadline may have changed.
    changed: Notify,
    /// There is something to save.
    unsaved: Notify,
    resyncing: Cell<bool>,
}

/// A manifest of the boot bundle.
#[derive(Debug)]
pub struct Known {
    /// The kernel's entry.
    pub entry: ManifestEntry,
    /// What it says, if it is accepted.
    pub manifest: Option<Manifest>,
    /// Why not, if it is refused.
    pub refusal: Option<String>,
}

impl Agent {
    /// Hands the supervisor an input and does what it decides.
    pub fn feed(self: &Rc<Self>, input: Input) {
        let mut actions = Vec::new();
        self.supervisor
            .borrow_mut()
            .step(self.clock.now(), input, &mut actions);
        self.perform(actions);
    }

    /// Hands the supervisor an owner's command and does what it decides.
    ///
    /// # Errors
    ///
    /// Why it does not apply.
    pub fn command(self: &Rc<Self>, name: &str, command: Command) -> Result<(), CommandError> {
        let mut actions = Vec::new();
        let answer =
            self.supervisor
                .borrow_mut()
                .command(self.clock.now(), name, command, &mut actions);
        self.perform(actions);
        answer
    }

    /// Writes into the journal, and on the console.
    pub fn record(&self, kind: RecordKind, capsule: Option<&str>, text: String) {
        let capsule = capsule.map(str::to_owned);
        let (now, unix) = (self.clock.now(), self.clock.unix_ms());
        let mut journal = self.journal.borrow_mut();
        let entry = journal.append(now, unix, kind, capsule, text);
        let name = entry.capsule.as_deref().unwrap_or("node");
        let kind = crate::journal::kind_name(kind);
        crate::console::say(format_args!("{name}: {kind}: {}", entry.text));
        self.unsaved.notify_one();
    }

    fn perform(self: &Rc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Record { name, kind, text } => self.record(kind, name.as_deref(), text),
                Action::Start { name } => self.spawn(|agent| agent.start(name)),
                Action::Stop {
                    name,
                    instance,
                    signal,
                    grace,
                } => {
                    let grace = u32::try_from(grace)
                        .unwrap_or(u32::MAX)
                        .min(STOP_GRACE_MS_MAX);
                    self.spawn(move |agent| agent.stop(name, CapsuleId(instance), signal, grace));
                }
                Action::Kill { name, instance } => {
                    self.spawn(move |agent| agent.kill(name, CapsuleId(instance)));
                }
                Action::Probe {
                    name,
                    instance,
                    kind,
                } => {
                    self.spawn(move |agent| agent.probe(name, instance, kind));
                }
            }
        }
        self.judge();
        self.changed.notify_one();
        self.unsaved.notify_one();
    }

    /// Tells the kernel how capsules do, where that has changed.
    fn judge(self: &Rc<Self>) {
        let supervisor = self.supervisor.borrow();
        let running: BTreeMap<u32, CapsuleHealth> = supervisor
            .units()
            .filter_map(Unit::running_health)
            .collect();
        let before = self.judged.replace(running.clone());
        for (instance, health) in running {
            if before.get(&instance) != Some(&health) {
                // One that has just ended needs none.
                self.spawn(move |agent| async move {
                    let _ = agent.control.judge(CapsuleId(instance), health).await;
                });
            }
        }
    }

    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        task: impl FnOnce(Rc<Self>) -> F,
    ) {
        tokio::task::spawn_local(task(Rc::clone(self)));
    }

    async fn start(self: Rc<Self>, name: String) {
        let Some(entry) = self.entry_of(&name) else {
            return;
        };
        let input = match self.control.start(&entry).await {
            Ok((capsule, started_ns)) => {
                self.remember(capsule, &name);
                Input::Started {
                    name,
                    instance: capsule.0,
                    at: started_ns / 1_000_000,
                }
            }
            // An earlier life of the 3Bot started it, or the reply was lost.
            Err(Failure::Refused(ControlError::AlreadyRunning { capsule })) => {
                self.remember(capsule, &name);
                let at = match self.control.inspect(capsule).await {
                    Ok(info) => info.started_ns / 1_000_000,
                    Err(_) => self.clock.now(),
                };
                Input::Started {
                    name,
                    instance: capsule.0,
                    at,
                }
            }
            Err(failure) => {
                let why = failure.to_string();
                let error = if is_final(&failure) {
                    StartError::Refused(why)
                } else {
                    StartError::Failed(why)
                };
                Input::StartFailed { name, error }
            }
        };
        self.feed(input);
    }

    async fn stop(self: Rc<Self>, name: String, capsule: CapsuleId, signal: u8, grace_ms: u32) {
        if let Err(failure) = self.control.stop(capsule, signal, grace_ms).await {
            self.not_obeyed(&name, "stop", &failure);
        }
    }

    async fn kill(self: Rc<Self>, name: String, capsule: CapsuleId) {
        if let Err(failure) = self.control.kill(capsule, SIGKILL, KillScope::All).await {
            self.not_obeyed(&name, "kill", &failure);
        }
    }

    /// A stop or kill did not reach its capsule: usually it has just ended, or its end was missed.
    fn not_obeyed(self: &Rc<Self>, name: &str, what: &str, failure: &Failure) {
        let gone = [ControlError::NotFound, ControlError::NotRunning].map(Failure::Refused);
        if !gone.contains(failure) {
            self.record(
                RecordKind::Warning,
                Some(name),
                format!("{what} failed: {failure}"),
            );
        }
        self.resync();
    }

    async fn probe(self: Rc<Self>, name: String, instance: u32, kind: ProbeKind) {
        let probe = self
            .supervisor
            .borrow()
            .unit(&name)
            .and_then(|unit| match kind {
                ProbeKind::Startup => unit.spec.startup.clone(),
                ProbeKind::Liveness => unit.spec.liveness.clone(),
            });
        if let Some(probe) = probe {
            let answer = probe::ask(&self, CapsuleId(instance), &probe).await;
            self.feed(Input::Probed {
                name,
                instance,
                kind,
                answer,
            });
        }
    }

    /// The name of the bundle's entry that describes a capsule.
    fn entry_of(&self, capsule: &str) -> Option<String> {
        let describes = |known: &&Known| known.manifest.as_ref().is_some_and(|m| m.name == capsule);
        self.manifests
            .iter()
            .find(describes)
            .map(|known| known.entry.name.clone())
    }

    fn remember(&self, capsule: CapsuleId, name: &str) {
        let mut names = self.names.borrow_mut();
        names.retain(|_, known| known != name);
        names.insert(capsule, name.to_owned());
    }

    fn name_of(&self, capsule: CapsuleId) -> Option<String> {
        self.names.borrow().get(&capsule).cloned()
    }
}

/// Random bytes from the kernel; `None` if it has none, without which no challenge is safe.
pub fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let count = getrandom(&mut bytes, GetRandomFlags::empty()).ok()?;
    (count == N).then_some(bytes)
}

/// Whether trying the same again cannot help.
fn is_final(failure: &Failure) -> bool {
    match failure {
        Failure::Refused(ControlError::Refused(refusal)) => {
            !matches!(refusal, Refusal::PortTaken(_) | Refusal::NotYetValid { .. })
        }
        _ => false,
    }
}
