//! How an agent begins: greet the kernel, remember, adopt, start. Nothing else comes first.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use skep_api::control::{
    CapsuleState, CapsuleSummary, EventMask, ManifestEntry, ManifestRole, StartCause,
};
use skep_api::manifest::SignedManifest;
use skep_api::owner::Verifier;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Agent, Known, events, exec, memory, random, words};
use crate::clock::Clock;
use crate::runtime::{Control, Failure};
use crate::supervisor::{Observed, RecordKind, Supervisor, UnitSpec};

impl Agent {
    /// Greets the kernel, adopts what runs and has everything else started.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer: there is nothing to do but end and be started again.
    pub async fn begin(control: Control) -> Result<Rc<Self>, Failure> {
        // All questions go out together, in this order, for one wait instead of six. Subscribe
        // first, list second: nothing falls between.
        let wanted = EventMask::CAPSULE
            .union(EventMask::TROUBLE)
            .union(EventMask::DEVICE);
        let (greeting, subscribed, node, saved, entries, capsules) = tokio::join!(
            control.hello(),
            control.subscribe(wanted),
            control.node(),
            control.load_state(),
            control.manifests(),
            control.list(),
        );
        let (greeting, node) = (greeting?, node?);
        let clock = Clock::new(&node);
        subscribed?;
        // Without its memory the 3Bot begins afresh; without a kernel it cannot begin.
        let saved = memory::decode(&unless_refused(saved)?);
        let manifests = known_manifests(&control, entries?).await?;
        let capsules = capsules?;

        let specs = manifests.iter().filter_map(|known| known.manifest.as_ref());
        let secret = random().ok_or(Failure::NoAnswer)?;
        let jitter = u64::from_le_bytes(random().ok_or(Failure::NoAnswer)?);
        let mut supervisor = Supervisor::new(specs.map(UnitSpec::from_manifest).collect(), jitter);
        supervisor.restore(saved.units);
        for known in &manifests {
            if let Some(manifest) = known.manifest.as_ref()
                && known.entry.role == ManifestRole::Idle
            {
                supervisor.leave_idle(&manifest.name);
            }
        }
        let verifier = Verifier::new(greeting.node_name.clone(), greeting.owner_keys, secret);
        let agent = Rc::new(Self {
            control,
            clock,
            node_name: greeting.node_name,
            agent_starts: greeting.agent_starts,
            manifests,
            supervisor: RefCell::new(supervisor),
            journal: RefCell::new(saved.journal),
            verifier: RefCell::new(verifier),
            execs: exec::Execs::default(),
            names: RefCell::new(BTreeMap::new()),
            quiet: RefCell::new(events::Quiet::default()),
            judged: RefCell::default(),
            changed: Notify::new(),
            unsaved: Notify::new(),
            resyncing: Cell::new(false),
        });
        agent.adopt_and_start(&capsules);
        agent.spawn(|agent| agent.record_beginning(node.settings.problem));
        Ok(agent)
    }

    fn adopt_and_start(self: &Rc<Self>, capsules: &[CapsuleSummary]) {
        for summary in capsules {
            self.remember(summary.capsule, &summary.name);
        }
        let observed: Vec<_> = capsules.iter().map(observed).collect();
        let mut actions = Vec::new();
        self.supervisor
            .borrow_mut()
            .begin(self.clock.now(), &observed, &mut actions);
        self.perform(actions);
    }

    /// Tells how it began. A question to the kernel goes first, so that the starts are already
    /// on their way when the (perhaps slow) console is written to.
    async fn record_beginning(self: Rc<Self>, settings_problem: Option<String>) {
        let crash = self.control.crash().await;
        let node = self.control.node().await;
        let text = match self.agent_starts {
            0 | 1 => "the 3Bot has begun".to_owned(),
            starts => format!("the 3Bot was restarted (start {starts} of this boot)"),
        };
        self.record(RecordKind::Agent, None, text);
        if self.agent_starts > 1 {
            return;
        }
        if let Some(problem) = settings_problem {
            self.record(RecordKind::Warning, None, format!("not used: {problem}"));
        }
        for known in &self.manifests {
            if let Some(why) = &known.refusal {
                let text = format!("manifest {}: {why}", known.entry.name);
                self.record(RecordKind::Refused, None, text);
            }
        }
        if let Ok(Some(crash)) = crash {
            self.record(
                RecordKind::Crash,
                None,
                format!("the kernel crashed: {}", crash.reason),
            );
        }
        let Ok(node) = node else { return };
        if let Some(problem) = node.identity.and_then(|identity| identity.problem) {
            self.record(RecordKind::Warning, None, problem);
        }
        if node.start_cause == StartCause::Watchdog {
            let text = "the watchdog reset the machine, which did not run any more";
            self.record(RecordKind::Crash, None, text.to_owned());
        }
    }
}

/// A capsule of the kernel's list as the supervisor sees it.
pub(super) fn observed(summary: &CapsuleSummary) -> Observed {
    let exit = match &summary.state {
        CapsuleState::Exited(exit) => Some(words::exit(exit)),
        CapsuleState::Refused(refusal) => Some(crate::supervisor::Exit {
            at: summary.started_ns / 1_000_000,
            how: words::refusal(refusal),
            clean: false,
        }),
        CapsuleState::Created | CapsuleState::Running | CapsuleState::Stopping => None,
    };
    Observed {
        name: summary.name.clone(),
        instance: summary.capsule.0,
        started: summary.started_ns / 1_000_000,
        exit,
    }
}

/// What the bundle's entries say; the system capsule's is not the 3Bot's business.
async fn known_manifests(
    control: &Control,
    mut entries: Vec<ManifestEntry>,
) -> Result<Vec<Known>, Failure> {
    entries.retain(|entry| entry.role != ManifestRole::System);
    let mut read = JoinSet::new();
    for (number, entry) in entries.into_iter().enumerate() {
        let control = control.clone();
        read.spawn_local(async move { (number, read_manifest(&control, entry).await) });
    }
    let mut known = Vec::new();
    while let Some(done) = read.join_next().await {
        let (number, one) = done.map_err(|_| Failure::NoAnswer)?;
        known.push((number, one?));
    }
    known.sort_by_key(|(number, _)| *number);
    let mut known: Vec<_> = known.into_iter().map(|(_, known)| known).collect();
    refuse_doubles(&mut known);
    Ok(known)
}

/// Of two manifests for one capsule only the first counts.
fn refuse_doubles(known: &mut [Known]) {
    let mut seen = BTreeSet::new();
    for known in known {
        if let Some(manifest) = &known.manifest
            && !seen.insert(manifest.name.clone())
        {
            known.refusal = Some(format!("another manifest is named {} too", manifest.name));
            known.manifest = None;
        }
    }
}

/// Reads the manifest of an entry that the kernel has verified.
async fn read_manifest(control: &Control, entry: ManifestEntry) -> Result<Known, Failure> {
    if let Some(refusal) = entry.refusal.as_ref().map(words::refusal) {
        return Ok(Known {
            entry,
            manifest: None,
            refusal: Some(refusal),
        });
    }
    let manifest = match control.manifest(&entry.name).await {
        Ok(bytes) => SignedManifest::decode(&bytes)
            .and_then(|signed| signed.payload_unverified())
            .map_err(|error| error.to_string()),
        Err(Failure::NoAnswer) => return Err(Failure::NoAnswer),
        Err(refused) => Err(refused.to_string()),
    };
    Ok(match manifest {
        Ok(manifest) => Known {
            entry,
            manifest: Some(manifest),
            refusal: None,
        },
        Err(why) => Known {
            entry,
            manifest: None,
            refusal: Some(why),
        },
    })
}

/// An answer, or its default if the kernel refused; no answer stays an error.
fn unless_refused<T: Default>(answer: Result<T, Failure>) -> Result<T, Failure> {
    match answer {
        Err(Failure::Refused(_)) => Ok(T::default()),
        answer => answer,
    }
}
