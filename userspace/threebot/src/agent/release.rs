//! The health gate: a release that has been healthy is told to the kernel, which keeps it; one
//! that has not goes back to the one before.

use std::rc::Rc;
use std::time::Duration;

use skep_api::control::{ControlError, Request};

use super::Agent;
use crate::runtime::Failure;
use crate::supervisor::{Phase, Supervisor};

/// How often health is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How many looks in a row must be good: a capsule that dies at once is none.
const GOOD_LOOKS: u32 = 12;
/// The wait before the kernel is told again, after it could not take it.
const PAUSE: Duration = Duration::from_secs(5);
/// How often a node without slots is asked whether it has found some: a disk may come late.
const ASKS_WITHOUT_SLOTS: u32 = 12;

impl Agent {
    /// Waits until all capsules have been well for a while, then tells the kernel. To be called
    /// once the API answers.
    pub async fn confirm_health(self: Rc<Self>) {
        let mut good = 0;
        let mut without_slots = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            good = if is_well(&self.supervisor.borrow()) {
                good + 1
            } else {
                0
            };
            if good < GOOD_LOOKS {
                continue;
            }
            match self.control.tell(Request::ConfirmHealthy).await {
                Ok(()) => return,
                Err(Failure::Refused(ControlError::Unsupported)) => {
                    without_slots += 1;
                    if without_slots == ASKS_WITHOUT_SLOTS {
                        return;
                    }
                }
                Err(failure) => {
                    crate::console::say(format_args!("health is not recorded: {failure}"));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Whether every capsule runs, is ready and answers, but for those that need not run.
fn is_well(supervisor: &Supervisor) -> bool {
    supervisor.units().all(|unit| match &unit.phase {
        Phase::Running(run) => run.probing.is_ready() && run.probing.failures() == 0,
        Phase::Held | Phase::Finished => true,
        Phase::Waiting
        | Phase::Starting { .. }
        | Phase::Stopping { .. }
        | Phase::Backoff { .. }
        | Phase::Refused(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::is_well;
    use crate::supervisor::backoff::Pace;
    use crate::supervisor::{
        Check, Exit, Input, Probe, ProbeKind, RestartPolicy, Supervisor, UnitSpec,
    };

    fn spec(startup: Option<Probe>) -> UnitSpec {
        UnitSpec {
            name: "web".to_owned(),
            start_after: Vec::new(),
            restart: RestartPolicy::Always,
            pace: Pace {
                initial: 10,
                longest: 60_000,
                window: 60_000,
                loop_exits: 5,
            },
            startup,
            liveness: None,
            stop_signal: 15,
            stop_grace: 10_000,
        }
    }

    fn begun(startup: Option<Probe>) -> Supervisor {
        let mut supervisor = Supervisor::new(vec![spec(startup)], 1);
        supervisor.begin(0, &[], &mut Vec::new());
        supervisor
    }

    fn started() -> Input {
        Input::Started {
            name: "web".to_owned(),
            instance: 1,
            at: 5,
        }
    }

    #[test]
    fn a_node_with_nothing_to_run_is_well() {
        assert!(is_well(&Supervisor::new(Vec::new(), 1)));
    }

    #[test]
    fn a_capsule_must_run_and_stay() {
        let mut supervisor = begun(None);
        assert!(!is_well(&supervisor));
        supervisor.step(5, started(), &mut Vec::new());
        assert!(is_well(&supervisor));
        let exited = Input::Exited {
            name: "web".to_owned(),
            instance: 1,
            exit: Exit {
                at: 6,
                how: "exit code 1".to_owned(),
                clean: false,
            },
        };
        supervisor.step(6, exited, &mut Vec::new());
        assert!(!is_well(&supervisor));
    }

    #[test]
    fn a_capsule_with_a_start_up_probe_must_have_passed_it() {
        let mut supervisor = begun(Some(Probe {
            check: Check::Tcp(80),
            interval: 1_000,
            timeout: 1_000,
            failures: 3,
        }));
        supervisor.step(5, started(), &mut Vec::new());
        assert!(!is_well(&supervisor));
        supervisor.step(2_000, Input::Tick, &mut Vec::new());
        let answer = Input::Probed {
            name: "web".to_owned(),
            instance: 1,
            kind: ProbeKind::Startup,
            answer: Ok(()),
        };
        supervisor.step(2_001, answer, &mut Vec::new());
        assert!(is_well(&supervisor));
    }
}
