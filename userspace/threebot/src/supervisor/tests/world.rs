//! A kernel made of a few variables, misbehaving on request.

use super::*;

/// One thing that may happen.
#[derive(Clone, Debug)]
pub(super) enum Op {
    /// Time passes (stopping at every deadline).
    Wait(Millis),
    /// Time passes until the supervisor wants a tick.
    ToDeadline,
    /// A capsule's process ends.
    Crash { unit: usize, clean: bool },
    /// The oldest open start is answered: succeeds, fails, or (rarely) is refused.
    AnswerStart { dice: u8 },
    /// The oldest open probe is answered: well, badly, or never.
    AnswerProbe { dice: u8 },
    /// The oldest stop or kill takes effect.
    ObeyStop,
    /// The owner commands.
    Owner { unit: usize, what: u8 },
    /// Events were lost.
    Resync,
    /// The 3Bot is killed and starts again.
    AgentDies,
}

struct Live {
    instance: u32,
    started: Millis,
}

/// The simulated node.
pub(super) struct World {
    pub(super) supervisor: Supervisor,
    pub(super) now: Millis,
    pub(super) log: Vec<(Millis, Action)>,
    specs: Vec<UnitSpec>,
    seed: u64,
    instances: u32,
    live: BTreeMap<String, Live>,
    ended: BTreeMap<String, Observed>,
    starts: Vec<String>,
    probes: Vec<(String, u32, ProbeKind)>,
    stops: Vec<(String, u32)>,
    stopped_by_owner: BTreeSet<String>,
}

impl World {
    pub(super) fn new(specs: Vec<UnitSpec>, seed: u64) -> Self {
        let mut world = Self {
            supervisor: Supervisor::new(specs.clone(), seed),
            now: 1_000,
            log: Vec::new(),
            specs,
            seed,
            instances: 0,
            live: BTreeMap::new(),
            ended: BTreeMap::new(),
            starts: Vec::new(),
            probes: Vec::new(),
            stops: Vec::new(),
            stopped_by_owner: BTreeSet::new(),
        };
        let mut out = Vec::new();
        world.supervisor.begin(world.now, &[], &mut out);
        world.take(out);
        world
    }

    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Wait(time) => self.wait(*time),
            Op::ToDeadline => {
                if let Some(deadline) = self.supervisor.deadline() {
                    self.now = self.now.max(deadline);
                    self.step(Input::Tick);
                }
            }
            Op::Crash { unit, clean } => {
                let name = self.specs[*unit].name.clone();
                self.end(&name, *clean);
            }
            Op::AnswerStart { dice } => self.answer_start(*dice),
            Op::AnswerProbe { dice } => self.answer_probe(*dice),
            Op::ObeyStop => self.obey_stop(),
            Op::Owner { unit, what } => self.owner(*unit, *what),
            Op::Resync => {
                let mut out = Vec::new();
                let observed = self.observed();
                self.supervisor.observe(self.now, &observed, &mut out);
                self.take(out);
            }
            Op::AgentDies => self.agent_dies(),
        }
    }

    pub(super) fn wait(&mut self, time: Millis) {
        let end = self.now + time;
        while let Some(deadline) = self.supervisor.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            self.step(Input::Tick);
        }
        self.now = end;
        self.step(Input::Tick);
    }

    /// Lets time pass while the kernel does all that it is asked, at once and well.
    pub(super) fn behave_for(&mut self, time: Millis) {
        let end = self.now + time;
        while self.now < end {
            while !(self.starts.is_empty() && self.probes.is_empty() && self.stops.is_empty()) {
                self.obey_stop();
                self.answer_start(0);
                self.answer_probe(0);
                self.check();
            }
            let next = self.supervisor.deadline().unwrap_or(end);
            self.now = next.clamp(self.now + 1, end);
            self.step(Input::Tick);
        }
    }

    pub(super) fn end(&mut self, name: &str, clean: bool) {
        if let Some(live) = self.live.remove(name) {
            let exit = Exit {
                at: self.now,
                how: "test".to_owned(),
                clean,
            };
            let instance = live.instance;
            let observed = Observed {
                name: name.to_owned(),
                instance,
                started: live.started,
                exit: Some(exit.clone()),
            };
            self.ended.insert(name.to_owned(), observed);
            self.stops.retain(|(_, stopped)| *stopped != instance);
            self.step(Input::Exited {
                name: name.to_owned(),
                instance,
                exit,
            });
        }
    }

    pub(super) fn answer_start(&mut self, dice: u8) {
        if self.starts.is_empty() {
            return;
        }
        let name = self.starts.remove(0);
        let error = match dice {
            250.. => Some(StartError::Refused("test".to_owned())),
            220.. => Some(StartError::Failed("test".to_owned())),
            _ => None,
        };
        if let Some(error) = error {
            return self.step(Input::StartFailed { name, error });
        }
        self.instances += 1;
        let instance = self.instances;
        let previous = self.live.insert(
            name.clone(),
            Live {
                instance,
                started: self.now,
            },
        );
        assert!(previous.is_none(), "two runs of {name} at once");
        self.ended.remove(&name);
        if dice % 16 == 15 {
            self.end(&name, false); // its end is reported before its start
        }
        self.step(Input::Started {
            name: name.clone(),
            instance,
            at: self.now,
        });
        self.step(Input::Started {
            name,
            instance,
            at: self.now,
        }); // event and reply
    }

    pub(super) fn answer_probe(&mut self, dice: u8) {
        if self.probes.is_empty() {
            return;
        }
        let (name, instance, kind) = self.probes.remove(0);
        let answer = match dice {
            240.. => return,
            160.. => Err("test".to_owned()),
            _ => Ok(()),
        };
        self.step(Input::Probed {
            name,
            instance,
            kind,
            answer,
        });
    }

    fn obey_stop(&mut self) {
        if let Some((name, _)) = self.stops.first().cloned() {
            self.end(&name, true);
        }
    }

    fn owner(&mut self, unit: usize, what: u8) {
        let name = self.specs[unit].name.clone();
        let command = match what {
            0 => Command::Start,
            1 => Command::Stop,
            _ => Command::Restart,
        };
        self.command(&name, command);
    }

    pub(super) fn command(&mut self, name: &str, command: Command) {
        let mut out = Vec::new();
        if self
            .supervisor
            .command(self.now, name, command, &mut out)
            .is_ok()
        {
            match command {
                Command::Stop => self.stopped_by_owner.insert(name.to_owned()),
                Command::Start | Command::Restart => self.stopped_by_owner.remove(name),
            };
        }
        self.take(out);
    }

    /// Open starts are finished by the kernel; nobody hears of it.
    pub(super) fn agent_dies(&mut self) {
        for name in std::mem::take(&mut self.starts) {
            self.instances += 1;
            let live = Live {
                instance: self.instances,
                started: self.now,
            };
            self.live.insert(name.clone(), live);
            self.ended.remove(&name);
        }
        self.probes.clear();
        self.stops.clear();
        let memories = self.supervisor.memories();
        self.seed += 1;
        self.supervisor = Supervisor::new(self.specs.clone(), self.seed);
        self.supervisor.restore(memories);
        let mut out = Vec::new();
        let observed = self.observed();
        self.supervisor.begin(self.now, &observed, &mut out);
        self.take(out);
    }

    fn observed(&self) -> Vec<Observed> {
        let live = self.live.iter().map(|(name, live)| Observed {
            name: name.clone(),
            instance: live.instance,
            started: live.started,
            exit: None,
        });
        live.chain(self.ended.values().cloned()).collect()
    }

    fn step(&mut self, input: Input) {
        let mut out = Vec::new();
        self.supervisor.step(self.now, input, &mut out);
        self.take(out);
    }

    fn take(&mut self, out: Vec<Action>) {
        for action in out {
            self.log.push((self.now, action.clone()));
            match action {
                Action::Start { name } => {
                    assert!(
                        !self.live.contains_key(&name),
                        "{name} is started while it runs"
                    );
                    assert!(!self.starts.contains(&name), "{name} is started twice");
                    let held = self.stopped_by_owner.contains(&name);
                    assert!(!held, "{name} is started against the owner's will");
                    self.starts.push(name);
                }
                Action::Probe {
                    name,
                    instance,
                    kind,
                } => {
                    self.probes.push((name, instance, kind));
                }
                Action::Stop { name, instance, .. } | Action::Kill { name, instance } => {
                    self.stops.push((name, instance));
                }
                Action::Record { .. } => {}
            }
        }
    }

    /// The promises that hold at every moment.
    pub(super) fn check(&self) {
        for unit in self.supervisor.units() {
            let name = &unit.spec.name;
            match &unit.phase {
                Phase::Backoff { until } => {
                    assert!(
                        *until <= self.now + backoff::CAP_MS,
                        "{name} waits too long"
                    );
                }
                Phase::Starting { .. } => assert!(self.starts.contains(name), "{name} forgotten"),
                Phase::Running(run) => {
                    assert_eq!(
                        self.live[name].instance, run.instance,
                        "{name}: not what runs"
                    );
                }
                Phase::Waiting => {
                    assert!(
                        !self.supervisor.waits_for(name).is_empty(),
                        "{name} waits for none"
                    );
                }
                Phase::Stopping { .. } => assert!(unit.deadline().is_some(), "{name} forgotten"),
                Phase::Held | Phase::Finished | Phase::Refused(_) => {}
            }
        }
    }
}
