//! The life of one capsule as a pure state machine: time and events go in, actions come out.
//!
//! ```text
//! Waiting → Starting → Running → (exit) → Backoff → Starting …
//!               │          └→ Stopping → Held | Starting | Backoff
//!               └→ Refused        (exit, as the policy says) → Finished
//! ```
//!
//! Only the owner leaves `Held`, `Finished` and `Refused`; every other phase has an action under
//! way or a deadline, so a capsule that shall run is never given up.

use serde::{Deserialize, Serialize};

use super::backoff::Backoff;
use super::probing::{ProbeKind, Probing, Verdict};
use super::spec::{RestartPolicy, UnitSpec};
use super::{Action, CommandError, Cx, Exit, Millis, Observed, RecordKind, StartError};

/// After SIGKILL the exit must be seen within this time, or SIGKILL is sent again.
const KILL_AGAIN_MS: Millis = 5_000;

/// Where a capsule is in its supervised life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waits for the capsules it starts after.
    Waiting,
    /// A start is under way.
    Starting {
        /// What the owner asked for meanwhile.
        then: Option<AfterStop>,
    },
    /// Its init process is alive.
    Running(Run),
    /// It was told to end.
    Stopping {
        /// Which run.
        instance: u32,
        /// What comes after.
        then: AfterStop,
        /// When to send SIGKILL (again).
        kill_at: Millis,
    },
    /// Waits before its next start.
    Backoff {
        /// When that is.
        until: Millis,
    },
    /// Stopped by the owner.
    Held,
    /// Ended, and its policy is to leave it.
    Finished,
    /// The kernel refused its image; why.
    Refused(String),
}

/// What follows when a capsule that was told to end has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterStop {
    /// Stay stopped, as the owner wishes.
    Hold,
    /// Start again at once, as the owner wishes.
    Start,
    /// It hung: treat it like a failed exit.
    Heal,
}

/// One run of a capsule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The kernel's number of it.
    pub instance: u32,
    /// When its first process started.
    pub started: Millis,
    /// Its probes.
    pub probing: Probing,
}

/// What of a unit must survive a restart of the 3Bot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitMemory {
    /// The capsule's name.
    pub name: String,
    /// The owner stopped it.
    pub held: bool,
    /// It ended, and its policy was to leave it.
    pub finished: bool,
    /// It was started before: start order no longer matters.
    pub was_started: bool,
    /// The run that was ready.
    pub ready_instance: Option<u32>,
    /// The newest run known to have ended.
    pub ended_instance: u32,
    /// Restarts so far.
    pub restarts: u64,
    /// Waiting times.
    pub backoff: Backoff,
    /// Its last exit.
    pub last_exit: Option<Exit>,
}

/// One capsule under supervision.
#[derive(Clone, Debug)]
pub struct Unit {
    /// How to keep it alive.
    pub spec: UnitSpec,
    /// Where it is.
    pub phase: Phase,
    /// What must not be forgotten.
    pub memory: UnitMemory,
}

impl Unit {
    /// A capsule that has not been started yet.
    pub fn new(spec: UnitSpec) -> Self {
        let memory = UnitMemory {
            name: spec.name.clone(),
            ..UnitMemory::default()
        };
        Self {
            spec,
            phase: Phase::Waiting,
            memory,
        }
    }

    /// Takes back what was remembered over a restart of the 3Bot.
    pub fn restore(&mut self, memory: UnitMemory) {
        if memory.held {
            self.phase = Phase::Held;
        } else if memory.finished {
            self.phase = Phase::Finished;
        }
        self.memory = memory;
    }

    /// Whether it runs and its start-up probe has succeeded.
    pub fn is_ready(&self) -> bool {
        matches!(&self.phase, Phase::Running(run) if run.probing.is_ready())
    }

    /// When [`Unit::tick`] wants to be called next.
    pub fn deadline(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Running(run) => {
                let settle = self
                    .memory
                    .backoff
                    .is_looping()
                    .then_some(run.started + self.spec.pace.window);
                [run.probing.deadline(), settle].into_iter().flatten().min()
            }
            Phase::Stopping { kill_at, .. } => Some(*kill_at),
            Phase::Backoff { until } => Some(*until),
            _ => None,
        }
    }

    /// Starts it now, from any phase in which nothing of it is alive.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        self.memory.finished = false;
        self.phase = Phase::Starting { then: None };
        cx.push(Action::Start {
            name: self.spec.name.clone(),
        });
    }

    /// The kernel has started it.
    pub fn started(&mut self, cx: &mut Cx<'_>, instance: u32, at: Millis) {
        let Phase::Starting { then } = self.phase else {
            return; // the event and the reply both tell: the second is no news
        };
        if instance <= self.memory.ended_instance {
            return; // it has already ended
        }
        self.memory.was_started = true;
        let text = match &self.memory.last_exit {
            Some(exit) => format!("started, {} ms after its exit", at.saturating_sub(exit.at)),
            None => "started".to_owned(),
        };
        self.record(cx, RecordKind::Started, text);
        let probing = Probing::new(cx.now, &self.spec, false);
        let ready = probing.is_ready();
        self.phase = Phase::Running(Run {
            instance,
            started: at,
            probing,
        });
        self.memory.ready_instance = ready.then_some(instance);
        match then {
            Some(AfterStop::Hold) => self.stop_run(cx, AfterStop::Hold),
            Some(after) => self.stop_run(cx, after),
            None => {}
        }
    }

    /// The kernel has not started it.
    pub fn start_failed(&mut self, cx: &mut Cx<'_>, error: StartError) {
        let Phase::Starting { then } = self.phase else {
            return;
        };
        match error {
            StartError::Refused(why) => {
                self.record(cx, RecordKind::Refused, why.clone());
                self.phase = Phase::Refused(why);
            }
            StartError::Failed(why) if then == Some(AfterStop::Hold) => {
                self.record(cx, RecordKind::StartFailed, why);
                self.hold();
            }
            StartError::Failed(why) => {
                let wait =
                    self.memory
                        .backoff
                        .after_failed_start(cx.now, &self.spec.pace, cx.random());
                let text = format!("{why}; next try in {wait} ms");
                self.record(cx, RecordKind::StartFailed, text);
                self.memory.restarts += 1;
                self.phase = Phase::Backoff {
                    until: cx.now + wait,
                };
            }
        }
    }

    /// It has ended.
    pub fn exited(&mut self, cx: &mut Cx<'_>, instance: u32, exit: Exit) {
        if instance <= self.memory.ended_instance {
            return;
        }
        let (started, then) = match &self.phase {
            Phase::Running(run) if run.instance == instance => (run.started, None),
            Phase::Stopping {
                instance: own,
                then,
                ..
            } if *own == instance => (exit.at, Some(*then)),
            // It ended before its start was reported.
            Phase::Starting { then } => (exit.at, *then),
            _ => return,
        };
        self.memory.ended_instance = instance;
        self.memory.was_started = true;
        self.memory.last_exit = Some(exit.clone());
        match then {
            Some(AfterStop::Hold) => {
                self.record(
                    cx,
                    RecordKind::Exited,
                    format!("{}; stopped by the owner", exit.how),
                );
                self.hold();
            }
            Some(AfterStop::Start) => {
                self.record(cx, RecordKind::Exited, format!("{}; restarting", exit.how));
                self.memory.restarts += 1;
                self.start(cx);
            }
            after => self.heal(cx, &exit, started, after == Some(AfterStop::Heal)),
        }
    }

    /// Decides after an exit that nobody asked for.
    fn heal(&mut self, cx: &mut Cx<'_>, exit: &Exit, started: Millis, hung: bool) {
        let leave = match self.spec.restart {
            RestartPolicy::Always => false,
            RestartPolicy::OnFailure => exit.clean && !hung,
            RestartPolicy::Never => true,
        };
        if leave {
            self.record(
                cx,
                RecordKind::Exited,
                format!("{}; left as its policy says", exit.how),
            );
            self.memory.finished = true;
            self.phase = Phase::Finished;
            return;
        }
        let was_looping = self.memory.backoff.is_looping();
        let ran = exit.at.saturating_sub(started);
        let wait = self
            .memory
            .backoff
            .after_exit(cx.now, ran, &self.spec.pace, cx.random());
        self.memory.restarts += 1;
        let text = match wait {
            0 => format!("{} after {}; restarting at once", exit.how, seconds(ran)),
            _ => format!(
                "{} after {}; restarting in {wait} ms",
                exit.how,
                seconds(ran)
            ),
        };
        self.record(cx, RecordKind::Exited, text);
        if self.memory.backoff.is_looping() && !was_looping {
            let pace = &self.spec.pace;
            let within = pace.window / 1000;
            let text = format!(
                "{} exits within {within} s; the waits grow",
                pace.loop_exits
            );
            self.record(cx, RecordKind::CrashLoop, text);
        }
        if wait == 0 {
            self.start(cx);
        } else {
            self.phase = Phase::Backoff {
                until: cx.now + wait,
            };
        }
    }

    /// A probe was answered.
    pub fn probed(
        &mut self,
        cx: &mut Cx<'_>,
        instance: u32,
        kind: ProbeKind,
        answer: Result<(), String>,
    ) {
        let Phase::Running(run) = &mut self.phase else {
            return;
        };
        if run.instance != instance {
            return;
        }
        let waited = cx.now.saturating_sub(run.started);
        match run.probing.answer(cx.now, &self.spec, kind, answer) {
            Verdict::Unchanged => {}
            Verdict::Ready => {
                self.memory.ready_instance = Some(instance);
                self.record(
                    cx,
                    RecordKind::Ready,
                    format!("ready {waited} ms after its start"),
                );
            }
            Verdict::Hung(why) => {
                self.record(cx, RecordKind::Hung, format!("{why}; killing it"));
                self.kill_run(cx, instance);
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, cx: &mut Cx<'_>) {
        match &mut self.phase {
            Phase::Backoff { until } if *until <= cx.now => self.start(cx),
            Phase::Stopping {
                instance, kill_at, ..
            } if *kill_at <= cx.now => {
                let instance = *instance;
                *kill_at = cx.now + KILL_AGAIN_MS;
                cx.push(Action::Kill {
                    name: self.spec.name.clone(),
                    instance,
                });
            }
            Phase::Running(_) => self.tick_run(cx),
            _ => {}
        }
    }

    fn tick_run(&mut self, cx: &mut Cx<'_>) {
        let Phase::Running(run) = &mut self.phase else {
            return;
        };
        let instance = run.instance;
        if self.memory.backoff.is_looping() && run.started + self.spec.pace.window <= cx.now {
            self.memory.backoff.settle();
            cx.push(Action::Record {
                name: Some(self.spec.name.clone()),
                kind: RecordKind::Settled,
                text: "has run long enough: the crash loop is over".to_owned(),
            });
        }
        if run.probing.is_overdue(cx.now) {
            let kind = if run.probing.is_ready() {
                ProbeKind::Liveness
            } else {
                ProbeKind::Startup
            };
            self.probed(cx, instance, kind, Err("no answer".to_owned()));
        } else if let Some(kind) = run.probing.poll(cx.now, &self.spec) {
            cx.push(Action::Probe {
                name: self.spec.name.clone(),
                instance,
                kind,
            });
        }
    }

    /// The owner wants it to run.
    ///
    /// # Errors
    ///
    /// When it already does.
    pub fn owner_start(&mut self, cx: &mut Cx<'_>) -> Result<(), CommandError> {
        match &mut self.phase {
            Phase::Running(_)
            | Phase::Starting {
                then: None | Some(AfterStop::Start),
            } => {
                return Err(CommandError::AlreadyRunning);
            }
            Phase::Starting { then } => *then = None,
            Phase::Stopping { then, .. } => *then = AfterStop::Start,
            _ => {
                self.memory.backoff.reset();
                self.record(cx, RecordKind::Owner, "start".to_owned());
                self.start(cx);
                self.memory.held = false;
                return Ok(());
            }
        }
        self.memory.held = false;
        self.record(cx, RecordKind::Owner, "start".to_owned());
        Ok(())
    }

    /// The owner wants it to end and to stay so.
    ///
    /// # Errors
    ///
    /// When it already is.
    pub fn owner_stop(&mut self, cx: &mut Cx<'_>) -> Result<(), CommandError> {
        match &mut self.phase {
            Phase::Held => return Err(CommandError::NotRunning),
            Phase::Starting { then } => *then = Some(AfterStop::Hold),
            Phase::Stopping { then, .. } => *then = AfterStop::Hold,
            Phase::Running(_) => self.stop_run(cx, AfterStop::Hold),
            _ => self.hold(),
        }
        self.memory.held = true;
        self.record(cx, RecordKind::Owner, "stop".to_owned());
        Ok(())
    }

    /// The owner wants a fresh run.
    ///
    /// # Errors
    ///
    /// None today; the type leaves room for capsules that may not be restarted.
    pub fn owner_restart(&mut self, cx: &mut Cx<'_>) -> Result<(), CommandError> {
        match &mut self.phase {
            Phase::Running(_) => {
                self.memory.backoff.reset();
                self.record(cx, RecordKind::Owner, "restart".to_owned());
                self.stop_run(cx, AfterStop::Start);
                Ok(())
            }
            Phase::Starting { then: None } => Ok(()), // a fresh run is just being made
            _ => self.owner_start(cx),
        }
    }

    /// Compares with what the kernel says is there: after a restart of the 3Bot, or when events
    /// were lost. `None`: the kernel knows no capsule of this name.
    pub fn observe(&mut self, cx: &mut Cx<'_>, observed: Option<&Observed>) {
        let Some(observed) = observed else {
            if let Some(instance) = self.live_instance() {
                let exit = Exit {
                    at: cx.now,
                    how: "vanished".to_owned(),
                    clean: false,
                };
                self.exited(cx, instance, exit);
            }
            return;
        };
        match &observed.exit {
            Some(exit) => self.observe_ended(cx, observed, exit),
            None => self.observe_alive(cx, observed),
        }
    }

    fn observe_alive(&mut self, cx: &mut Cx<'_>, observed: &Observed) {
        if self.live_instance() == Some(observed.instance) {
            return;
        }
        match self.phase {
            // The start's own reply is on its way.
            Phase::Starting { .. } => self.started(cx, observed.instance, observed.started),
            Phase::Held => {
                // The 3Bot died between the owner's stop and the capsule's end.
                self.adopt(cx, observed);
                self.stop_run(cx, AfterStop::Hold);
            }
            _ => {
                self.adopt(cx, observed);
                self.record(
                    cx,
                    RecordKind::Adopted,
                    "found running, left untouched".to_owned(),
                );
            }
        }
    }

    fn observe_ended(&mut self, cx: &mut Cx<'_>, observed: &Observed, exit: &Exit) {
        if observed.instance <= self.memory.ended_instance {
            return;
        }
        if self.live_instance() == Some(observed.instance) {
            self.exited(cx, observed.instance, exit.clone());
        } else if matches!(self.phase, Phase::Waiting) {
            // It ended while the 3Bot was away.
            self.adopt(cx, observed);
            self.exited(cx, observed.instance, exit.clone());
        } else if matches!(self.phase, Phase::Held) {
            self.memory.ended_instance = observed.instance;
            self.memory.last_exit = Some(exit.clone());
        }
    }

    fn adopt(&mut self, cx: &mut Cx<'_>, observed: &Observed) {
        let ready = self.memory.ready_instance == Some(observed.instance);
        let probing = Probing::new(cx.now, &self.spec, ready);
        self.memory.was_started = true;
        self.memory.ready_instance = probing.is_ready().then_some(observed.instance);
        let Observed {
            instance, started, ..
        } = *observed;
        self.phase = Phase::Running(Run {
            instance,
            started,
            probing,
        });
    }

    fn live_instance(&self) -> Option<u32> {
        match &self.phase {
            Phase::Running(run) => Some(run.instance),
            Phase::Stopping { instance, .. } => Some(*instance),
            _ => None,
        }
    }

    fn stop_run(&mut self, cx: &mut Cx<'_>, then: AfterStop) {
        let Phase::Running(run) = &self.phase else {
            return;
        };
        let instance = run.instance;
        let UnitSpec {
            stop_signal: signal,
            stop_grace: grace,
            ..
        } = self.spec;
        let name = self.spec.name.clone();
        cx.push(Action::Stop {
            name,
            instance,
            signal,
            grace,
        });
        let kill_at = cx.now + grace + KILL_AGAIN_MS;
        self.phase = Phase::Stopping {
            instance,
            then,
            kill_at,
        };
    }

    fn kill_run(&mut self, cx: &mut Cx<'_>, instance: u32) {
        cx.push(Action::Kill {
            name: self.spec.name.clone(),
            instance,
        });
        let kill_at = cx.now + KILL_AGAIN_MS;
        self.phase = Phase::Stopping {
            instance,
            then: AfterStop::Heal,
            kill_at,
        };
    }

    fn hold(&mut self) {
        self.memory.held = true;
        self.phase = Phase::Held;
    }

    fn record(&self, cx: &mut Cx<'_>, kind: RecordKind, text: String) {
        cx.push(Action::Record {
            name: Some(self.spec.name.clone()),
            kind,
            text,
        });
    }
}

/// A time span for people.
fn seconds(ms: Millis) -> String {
    if ms < 10_000 {
        format!("{ms} ms")
    } else {
        format!("{} s", ms / 1000)
    }
}
