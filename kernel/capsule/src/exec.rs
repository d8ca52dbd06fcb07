//! Programs that the 3Bot runs inside a capsule, such as exec probes.

use crate::capsule::{Capsule, exit_status};
use crate::keeper::Job;
use crate::launch::{self, Program};
use crate::room::Capsules;
use alloc::format;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::time::Duration;
use machine::time::Instant;
use machine::timer::Timer;
use process::signal::Signal;
use process::{ExitStatus, Process};
use skep_api::control::{CapsuleId, ControlError, Event, ExecId};
use vfs::{Events, Observer};

/// Most of them on the node at a time.
const RUNNING_MAX: usize = 256;

/// A program under way.
pub(crate) struct Running {
    id: ExecId,
    capsule: CapsuleId,
    process: Arc<Process>,
    deadline: Instant,
    timed_out: bool,
    /// Wakes the keeper at the deadline.
    _timer: Timer,
}

/// Tells the keeper when the program ends.
struct Ended {
    room: Weak<Capsules>,
    id: ExecId,
}

impl Observer for Ended {
    fn notify(&self, _: Events) -> bool {
        if let Some(room) = self.room.upgrade() {
            room.keeper.tell(Job::Exec(self.id));
        }
        true
    }
}

impl Capsules {
    /// Runs `argv` in `capsule` with further environment, for at most `timeout`.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`], [`ControlError::ExecFailed`],
    /// [`ControlError::NoResources`].
    pub(crate) fn exec(
        self: &Arc<Self>,
        capsule: &Arc<Capsule>,
        argv: &[String],
        env: &[String],
        timeout: Duration,
    ) -> Result<ExecId, ControlError> {
        let parts = capsule.parts().filter(|_| capsule.is_running());
        let parts = parts.ok_or(ControlError::NotRunning)?;
        if self.keeper.execs.lock().len() >= RUNNING_MAX {
            return Err(ControlError::NoResources);
        }
        let own = capsule.manifest().environment.iter();
        let mut environment: Vec<String> = own.map(|(n, v)| format!("{n}={v}")).collect();
        environment.extend(env.iter().cloned());
        let program = Program {
            command: argv,
            environment: &environment,
        };
        let task = launch::beside(&parts, capsule, &program)?;
        let id = self.exec_id();
        let tell = |room: &Arc<Capsules>| {
            let room = Arc::downgrade(room);
            move || {
                if let Some(room) = room.upgrade() {
                    room.keeper.tell(Job::Exec(id));
                }
            }
        };
        let timer = Timer::new(tell(self));
        let deadline = Instant::now().after(timeout);
        timer.set(Some(deadline));
        let process = task.process().clone();
        let observer = Arc::new(Ended {
            room: Arc::downgrade(self),
            id,
        });
        if process
            .exit_hub()
            .watch(observer, Events::READABLE, false)
            .is_err()
        {
            task.cancel();
            return Err(ControlError::NoResources);
        }
        self.keeper.execs.lock().push(Running {
            id,
            capsule: capsule.id(),
            process,
            deadline,
            timed_out: false,
            _timer: timer,
        });
        task.start();
        Ok(id)
    }

    /// The program of `id` has ended, or its time is up.
    pub(crate) fn exec_due(&self, id: ExecId) {
        let mut execs = self.keeper.execs.lock();
        let Some(at) = execs.iter().position(|r| r.id == id) else {
            return;
        };
        let ended = execs.get(at).is_some_and(|r| r.process.has_ended());
        if ended {
            let running = execs.swap_remove(at);
            drop(execs);
            let status = running.process.exit_status().filter(|_| !running.timed_out);
            self.tell_finished(running, status.map(exit_status));
            return;
        }
        let Some(running) = execs.get_mut(at) else {
            return;
        };
        if Instant::now() >= running.deadline && !running.timed_out {
            running.timed_out = true;
            let process = running.process.clone();
            drop(execs);
            process.begin_exit(ExitStatus::Killed(Signal::KILL));
        }
    }

    /// All processes of `capsule` are gone, those of its execs too.
    pub(crate) fn execs_ended(&self, capsule: CapsuleId) {
        let next = || {
            let mut execs = self.keeper.execs.lock();
            let at = execs.iter().position(|r| r.capsule == capsule)?;
            Some(execs.swap_remove(at))
        };
        while let Some(running) = next() {
            self.tell_finished(running, None);
        }
    }

    fn tell_finished(&self, running: Running, status: Option<skep_api::control::ExitStatus>) {
        let exec = running.id;
        drop(running);
        self.hub.emit(Event::ExecFinished { exec, status });
    }
}
