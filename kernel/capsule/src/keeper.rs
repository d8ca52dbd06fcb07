//! The room's own thread: it clears up after capsules and keeps the system capsule
//! alive, so that neither happens on the stack of a process that is ending.

use crate::capsule::Capsule;
use crate::room::Capsules;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use machine::AllocError;
use machine::sync::SpinLock;
use machine::thread::Builder;
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};
use skep_api::control::ExecId;

/// First wait before the system capsule is started again; it doubles.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// Longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A system capsule that has run this long starts again at once.
const STEADY: Duration = Duration::from_secs(10);

/// How often the 3Bot is asked whether it is alive, and how long it may take to
/// answer.
const PING: Duration = Duration::from_secs(10);

/// What the thread is told.
pub(crate) enum Job {
    /// The last process of a capsule is gone.
    Emptied(Arc<Capsule>),
    /// The program of an exec has ended, or has to.
    Exec(ExecId),
    /// The system capsule may be started.
    Begin,
    /// The node's addresses or name servers have changed.
    NetworkChanged,
}

/// The thread's list of jobs.
pub(crate) struct Keeper {
    jobs: SpinLock<VecDeque<Job>>,
    queue: WaitQueue,
    /// Programs that run beside a capsule's first one.
    pub(crate) execs: SpinLock<Vec<crate::exec::Running>>,
}

impl Keeper {
    pub(crate) fn new() -> Keeper {
        Keeper {
            jobs: SpinLock::new(VecDeque::new()),
            queue: WaitQueue::new(),
            execs: SpinLock::new(Vec::new()),
        }
    }

    /// Starts the thread.
    pub(crate) fn start(room: &Arc<Capsules>) -> Result<(), AllocError> {
        let room = room.clone();
        Builder::new("capsules").spawn(move || run(&room)).map(drop)
    }

    /// Adds a job. There are few at a time: at most one for each capsule and exec.
    pub(crate) fn tell(&self, job: Job) {
        self.jobs.lock().push_back(job);
        self.queue.wake_one();
    }

    /// The next job; `None` at `deadline`.
    fn next(&self, deadline: Option<Instant>) -> Option<Job> {
        let until = Until {
            deadline,
            interruptible: false,
        };
        self.queue
            .wait_until(until, || self.jobs.lock().pop_front())
            .ok()
    }
}

/// When the system capsule is to be started, and how long to wait next time.
struct Supervision {
    due: Option<Instant>,
    wait: Duration,
}

impl Supervision {
    /// The system capsule, which began at `began`, has ended.
    fn ended(&mut self, began: Option<Instant>) {
        let now = Instant::now();
        let steady = began.is_some_and(|b| now.since(b) >= STEADY);
        if steady {
            self.wait = Duration::ZERO;
        }
        self.due = Some(now.after(self.wait));
        self.wait = (self.wait * 2).clamp(BACKOFF_FIRST, BACKOFF_MAX);
    }
}

fn run(room: &Arc<Capsules>) {
    let mut system = Supervision {
        due: None,
        wait: Duration::ZERO,
    };
    let mut ping = (Instant::now().after(PING), 0);
    loop {
        let due = system.due.map_or(ping.0, |d| d.min(ping.0));
        match room.keeper.next(Some(due)) {
            Some(Job::Emptied(capsule)) => {
                let is_system = capsule.is_system();
                let began = capsule.started();
                room.clear_up(&capsule);
                if is_system {
                    system.ended(began);
                }
            }
            Some(Job::Exec(exec)) => room.exec_due(exec),
            Some(Job::Begin) => system.due = Some(Instant::now()),
            Some(Job::NetworkChanged) => room.refresh_resolvers(),
            None if system.due.is_some_and(|d| Instant::now() >= d) => {
                system.due = None;
                if !room.is_closing() && !room.start_system() {
                    system.ended(None);
                }
            }
            None => {
                ping = (Instant::now().after(PING), ping.1 + 1);
                if room.hub.ping(ping.1) {
                    room.kill_system();
                }
            }
        }
    }
}
