//! The supervisor: keeps capsules alive. Pure: time, randomness and everything that happens come
//! in as arguments, and what is to be done goes out as [`Action`]s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub mod backoff;
mod health;
mod order;
pub mod probing;
pub mod spec;
pub mod unit;

pub use probing::ProbeKind;
pub use spec::{Check, Probe, RestartPolicy, UnitSpec};
pub use unit::{Phase, Unit, UnitMemory};

/// Milliseconds since the node's boot.
pub type Millis = u64;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The kernel started a capsule.
    Started {
        /// Its name.
        name: String,
        /// The kernel's number of this run.
        instance: u32,
        /// When.
        at: Millis,
    },
    /// The kernel did not start a capsule.
    StartFailed {
        /// Its name.
        name: String,
        /// Why.
        error: StartError,
    },
    /// A capsule ended.
    Exited {
        /// Its name.
        name: String,
        /// Which run.
        instance: u32,
        /// How and when.
        exit: Exit,
    },
    /// A probe was answered.
    Probed {
        /// Whose.
        name: String,
        /// Which run was asked.
        instance: u32,
        /// Which probe.
        kind: ProbeKind,
        /// `Err` says what was wrong.
        answer: Result<(), String>,
    },
    /// Time passed.
    Tick,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start it, and report [`Input::Started`] or [`Input::StartFailed`].
    Start {
        /// Its name.
        name: String,
    },
    /// Ask it to end.
    Stop {
        /// Its name.
        name: String,
        /// Which run.
        instance: u32,
        /// With this signal.
        signal: u8,
        /// SIGKILL follows after this time.
        grace: Millis,
    },
    /// Kill every process of it.
    Kill {
        /// Its name.
        name: String,
        /// Which run.
        instance: u32,
    },
    /// Ask it, and report [`Input::Probed`].
    Probe {
        /// Its name.
        name: String,
        /// Which run.
        instance: u32,
        /// Which probe.
        kind: ProbeKind,
    },
    /// Write it into the journal.
    Record {
        /// The capsule it is about.
        name: Option<String>,
        /// What kind of thing.
        kind: RecordKind,
        /// For people.
        text: String,
    },
}

/// How a capsule ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When.
    pub at: Millis,
    /// For people, such as `exit code 1`.
    pub how: String,
    /// With exit code 0.
    pub clean: bool,
}

/// Why a capsule was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// Its manifest or image is not accepted: trying again would not help.
    Refused(String),
    /// Something that may pass.
    Failed(String),
}

/// A capsule as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// The kernel's number of this run.
    pub instance: u32,
    /// When it started.
    pub started: Millis,
    /// How it ended, if it has.
    pub exit: Option<Exit>,
}

/// Why an owner's command was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// There is no capsule of that name.
    Unknown,
    /// It runs already.
    AlreadyRunning,
    /// It does not run.
    NotRunning,
}

/// What an owner may ask about a capsule's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Run, if it does not.
    Start,
    /// End, and stay so.
    Stop,
    /// End and start again; or just start.
    Restart,
}

/// The kinds of journal entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// The 3Bot itself started.
    Agent,
    /// A capsule started.
    Started,
    /// A capsule was found running by a restarted 3Bot.
    Adopted,
    /// A capsule's start-up probe succeeded.
    Ready,
    /// A capsule ended.
    Exited,
    /// A capsule could not be started.
    StartFailed,
    /// A manifest or image was refused.
    Refused,
    /// A probe failed so often that the capsule is killed.
    Hung,
    /// A capsule is in a crash loop.
    CrashLoop,
    /// A crash loop is over.
    Settled,
    /// The owner asked for something.
    Owner,
    /// A capsule ran into a limit.
    Limit,
    /// A device or link changed or failed.
    Device,
    /// The kernel crashed in an earlier boot.
    Crash,
    /// Something is odd.
    Warning,
}

/// What a step gets from outside, and where its actions go.
#[derive(Debug)]
pub struct Cx<'a> {
    /// The time.
    pub now: Millis,
    random: &'a mut u64,
    out: &'a mut Vec<Action>,
}

impl Cx<'_> {
    /// Adds an action.
    pub fn push(&mut self, action: Action) {
        self.out.push(action);
    }

    /// The next number of the seeded sequence (splitmix64).
    pub fn random(&mut self) -> u32 {
        *self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 32) as u32
    }
}

/// All capsules under supervision.
#[derive(Clone, Debug)]
pub struct Supervisor {
    units: BTreeMap<String, Unit>,
    random: u64,
}

impl Supervisor {
    /// Supervises capsules of these specifications. `seed` feeds the jitter.
    pub fn new(specs: Vec<UnitSpec>, seed: u64) -> Self {
        let units = specs
            .into_iter()
            .map(|spec| (spec.name.clone(), Unit::new(spec)))
            .collect();
        Self {
            units,
            random: seed,
        }
    }

    /// The capsules, ordered by name.
    pub fn units(&self) -> impl Iterator<Item = &Unit> {
        self.units.values()
    }

    /// One capsule.
    pub fn unit(&self, name: &str) -> Option<&Unit> {
        self.units.get(name)
    }

    /// Takes back what was remembered over a restart of the 3Bot; before [`Supervisor::begin`].
    pub fn restore(&mut self, memories: Vec<UnitMemory>) {
        for memory in memories {
            if let Some(unit) = self.units.get_mut(&memory.name) {
                unit.restore(memory);
            }
        }
    }

    /// Leaves a capsule stopped until the owner starts it; before [`Supervisor::begin`].
    pub fn leave_idle(&mut self, name: &str) {
        if let Some(unit) = self.units.get_mut(name)
            && !unit.memory.was_started
        {
            unit.phase = Phase::Held;
        }
    }

    /// What to remember over a restart of the 3Bot.
    pub fn memories(&self) -> Vec<UnitMemory> {
        self.units
            .values()
            .map(|unit| unit.memory.clone())
            .collect()
    }

    /// Begins: adopts what runs, then starts what does not.
    pub fn begin(&mut self, now: Millis, observed: &[Observed], out: &mut Vec<Action>) {
        let cut = order::break_cycles(&mut self.units);
        for (name, after) in cut {
            out.push(Action::Record {
                name: Some(name),
                kind: RecordKind::Warning,
                text: format!("starts after {after}, which starts after it: ignored"),
            });
        }
        self.observe(now, observed, out);
    }

    /// Compares with what the kernel says is there.
    pub fn observe(&mut self, now: Millis, observed: &[Observed], out: &mut Vec<Action>) {
        let mut cx = Cx {
            now,
            random: &mut self.random,
            out,
        };
        for (name, unit) in &mut self.units {
            unit.observe(
                &mut cx,
                observed.iter().find(|observed| observed.name == *name),
            );
        }
        self.start_waiting(now, out);
    }

    /// Takes one input.
    pub fn step(&mut self, now: Millis, input: Input, out: &mut Vec<Action>) {
        let Self { units, random } = self;
        let mut cx = Cx { now, random, out };
        match input {
            Input::Started { name, instance, at } => {
                if let Some(unit) = units.get_mut(&name) {
                    unit.started(&mut cx, instance, at);
                }
            }
            Input::StartFailed { name, error } => {
                if let Some(unit) = units.get_mut(&name) {
                    unit.start_failed(&mut cx, error);
                }
            }
            Input::Exited {
                name,
                instance,
                exit,
            } => {
                if let Some(unit) = units.get_mut(&name) {
                    unit.exited(&mut cx, instance, exit);
                }
            }
            Input::Probed {
                name,
                instance,
                kind,
                answer,
            } => {
                if let Some(unit) = units.get_mut(&name) {
                    unit.probed(&mut cx, instance, kind, answer);
                }
            }
            Input::Tick => units.values_mut().for_each(|unit| unit.tick(&mut cx)),
        }
        self.start_waiting(now, out);
    }

    /// Takes an owner's command.
    ///
    /// # Errors
    ///
    /// Why it does not apply.
    pub fn command(
        &mut self,
        now: Millis,
        name: &str,
        command: Command,
        out: &mut Vec<Action>,
    ) -> Result<(), CommandError> {
        let mut cx = Cx {
            now,
            random: &mut self.random,
            out,
        };
        let unit = self.units.get_mut(name).ok_or(CommandError::Unknown)?;
        match command {
            Command::Start => unit.owner_start(&mut cx)?,
            Command::Stop => unit.owner_stop(&mut cx)?,
            Command::Restart => unit.owner_restart(&mut cx)?,
        }
        self.start_waiting(now, out);
        Ok(())
    }

    /// When [`Input::Tick`] is wanted next; `None`: only when something happens.
    pub fn deadline(&self) -> Option<Millis> {
        self.units.values().filter_map(Unit::deadline).min()
    }

    /// Starts the capsules whose predecessors are ready.
    fn start_waiting(&mut self, now: Millis, out: &mut Vec<Action>) {
        let may_start = order::may_start(&self.units);
        let mut cx = Cx {
            now,
            random: &mut self.random,
            out,
        };
        for name in may_start {
            if let Some(unit) = self.units.get_mut(&name) {
                unit.start(&mut cx);
            }
        }
    }

    /// The capsules that a waiting one waits for.
    pub fn waits_for(&self, name: &str) -> BTreeSet<String> {
        self.units
            .get(name)
            .map(|unit| order::missing(&self.units, unit))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
