//! A process: what its threads share.

use crate::core_dump::Gathering;
use crate::limits::Limits;
use crate::signal::{Actions, Origin, Queue, SigInfo, Signal};
use crate::slot::Slot;
use crate::status::{Change, ExitStatus};
use crate::terminal::Controlling;
use crate::thread::comm_text;
use crate::timers::Timers;
use crate::trace::Tracing;
use crate::usage::Usage;
use crate::{COMM_LEN, Error, Pid, Result, Thread, World};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::Relaxed};
use core::sync::atomic::{AtomicU8, Ordering::SeqCst};
use machine::sync::SpinLock;
use machine::time::Instant;
use machine::wait::WaitQueue;
use vfs::PollHub;
use vfs::mount::Path;
use vfs::writers::Running;

/// A group stop in force.
pub(crate) struct Stop {
    pub(crate) signal: Signal,
    /// All threads have stopped.
    pub(crate) complete: bool,
}

/// What the process's lock guards.
pub(crate) struct Inner {
    /// Threads that have not ended.
    pub(crate) threads: Vec<Arc<Thread>>,
    /// Signals for any of them.
    pub(crate) pending: Queue,
    pub(crate) stop: Option<Stop>,
    /// A stop or continuation its parent has not waited for.
    pub(crate) news: Option<Change>,
}

/// What is known of the program that runs.
#[derive(Clone, Default)]
pub(crate) struct Program {
    /// The file.
    pub(crate) exe: Option<Arc<Running>>,
    /// Where its arguments lie in memory: start and end.
    pub(crate) arguments: (usize, usize),
    /// Where its environment lies.
    pub(crate) environment: (usize, usize),
    /// The auxiliary vector as it was given to the program.
    pub(crate) auxv: Arc<[u8]>,
}

/// What the threads of a program share.
pub struct Process {
    pid: Pid,
    /// Kept beside the family tree, so that `getppid` takes no lock.
    pub(crate) ppid: AtomicU32,
    world: Arc<World>,
    pub(crate) inner: SpinLock<Inner>,
    /// A copy of the pending queue's set, to look at without the lock.
    pub(crate) pending_set: AtomicU64,
    pub(crate) actions: Slot<Actions>,
    /// The first process of a world, until a fault of its own.
    pub(crate) unkillable: AtomicBool,
    pub(crate) stopping: AtomicBool,
    /// Counts stops, so that a tracee stops once for each.
    pub(crate) stop_serial: AtomicU64,
    /// It ends by a `SIGKILL`, or got one on its way out.
    killed: AtomicBool,
    /// It has traced somebody: others need not look at what follows.
    pub(crate) traces: AtomicBool,
    /// Its side of ptrace(2) as a tracer.
    pub(crate) tracing: SpinLock<Tracing>,
    /// Who traced its first thread, or its last, when that ended.
    pub(crate) traced_by: SpinLock<Option<Weak<Process>>>,
    pub(crate) go_on_queue: WaitQueue,
    /// How it ends, packed; 0 while nobody has said.
    exit: AtomicU32,
    /// Where its threads meet when it leaves a core file.
    pub(crate) core: Gathering,
    /// The thread that calls `execve` and whose siblings have to end; 0 for none.
    pub(crate) exec_by: AtomicU32,
    /// Told when a thread ends.
    pub(crate) threads_queue: WaitQueue,
    /// What the parent gets when it ends; 0 for nothing.
    pub(crate) exit_signal: AtomicU8,
    /// What it gets when its parent ends; 0 for nothing.
    pub(crate) parent_death_signal: AtomicU8,
    /// Parents wait for their children here.
    pub(crate) child_queue: WaitQueue,
    /// It has ended or runs another program: a `vfork` parent may go on.
    pub(crate) released: AtomicBool,
    pub(crate) released_queue: WaitQueue,
    exit_hub: PollHub,
    signal_hub: PollHub,
    limits: Limits,
    pub(crate) usage: SpinLock<Usage>,
    pub(crate) timers: Timers,
    pub(crate) program: SpinLock<Program>,
    started: Instant,
    dumpable: AtomicU8,
    personality: AtomicU32,
    /// Who has logged in.
    pub(crate) login: crate::login::Kept,
    /// Real user, as its zombie and `/proc` show it.
    pub(crate) uid: AtomicU32,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub(crate) no_new_privs: AtomicBool,
    keep_caps: AtomicBool,
    small_pages_only: AtomicBool,
    /// Name of the last thread that ended, which a zombie keeps.
    pub(crate) last_comm: SpinLock<[u8; COMM_LEN]>,
    /// `oom_score_adj`, -1000 to 1000.
    oom_adjust: AtomicI32,
    /// What the privileged set last: nobody else goes below.
    oom_adjust_min: AtomicI32,
    pub(crate) controlling: Controlling,
    /// Memory barriers it means to use ([`crate::Barrier`]).
    pub(crate) barriers: AtomicU32,
}

impl Process {
    /// A process without threads. `parent` gives what is inherited.
    pub(crate) fn new(
        pid: Pid,
        ppid: Pid,
        world: Arc<World>,
        actions: Arc<Actions>,
        parent: Option<&Process>,
    ) -> Process {
        let inherit = |f: fn(&Process) -> i32| parent.map_or(0, f);
        Process {
            pid,
            ppid: AtomicU32::new(ppid),
            inner: SpinLock::new(Inner {
                threads: Vec::new(),
                pending: Queue::default(),
                stop: None,
                news: None,
            }),
            pending_set: AtomicU64::new(0),
            actions: Slot::new(Some(actions)),
            unkillable: AtomicBool::new(pid == crate::family::INIT),
            stopping: AtomicBool::new(false),
            stop_serial: AtomicU64::new(0),
            killed: AtomicBool::new(false),
            traces: AtomicBool::new(false),
            tracing: SpinLock::new(Tracing::default()),
            traced_by: SpinLock::new(None),
            go_on_queue: WaitQueue::new(),
            exit: AtomicU32::new(0),
            core: Gathering::default(),
            exec_by: AtomicU32::new(0),
            threads_queue: WaitQueue::new(),
            exit_signal: AtomicU8::new(0),
            parent_death_signal: AtomicU8::new(0),
            child_queue: WaitQueue::new(),
            released: AtomicBool::new(false),
            released_queue: WaitQueue::new(),
            exit_hub: PollHub::new(),
            signal_hub: PollHub::new(),
            limits: match parent {
                Some(p) => p.limits.copied(),
                None => world.initial_limits(),
            },
            usage: SpinLock::new(Usage::default()),
            timers: Timers::default(),
            program: SpinLock::new(parent.map_or_else(Program::default, Process::program)),
            started: Instant::now(),
            dumpable: AtomicU8::new(parent.map_or(1, Process::dumpable)),
            personality: AtomicU32::new(parent.map_or(0, Process::personality)),
            login: SpinLock::new(parent.map_or_else(crate::Login::default, Process::login)),
            uid: AtomicU32::new(parent.map_or(0, Process::uid)),
            no_new_privs: AtomicBool::new(parent.is_some_and(Process::no_new_privs)),
            keep_caps: AtomicBool::new(false),
            small_pages_only: AtomicBool::new(parent.is_some_and(Process::small_pages_only)),
            last_comm: SpinLock::new([0; COMM_LEN]),
            oom_adjust: AtomicI32::new(inherit(Process::oom_adjust)),
            oom_adjust_min: AtomicI32::new(inherit(|p| p.oom_adjust_min.load(Relaxed))),
            barriers: AtomicU32::new(parent.map_or(0, |p| p.barriers.load(Relaxed))),
            controlling: parent.map_or_else(Controlling::default, |p| p.controlling.inherited()),
            world,
        }
    }

    /// Its number.
    #[inline]
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its parent's number; 0 for the first process of a capsule.
    #[inline]
    #[must_use]
    pub fn ppid(&self) -> Pid {
        self.ppid.load(Relaxed)
    }

    /// The world it lives in.
    #[inline]
    #[must_use]
    pub fn world(&self) -> &Arc<World> {
        &self.world
    }

    /// Its parent, if it has one.
    #[must_use]
    pub fn parent(&self) -> Option<Arc<Process>> {
        self.world.family.lock().process(self.ppid()).cloned()
    }

    /// What is done with signals. `None` once it has ended.
    #[must_use]
    pub fn actions(&self) -> Option<Arc<Actions>> {
        self.actions.get()
    }

    /// Its resource limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// When it was made.
    #[must_use]
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Its threads that have not ended.
    #[must_use]
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        self.inner.lock().threads.clone()
    }

    /// The first of its threads, or of those left.
    #[must_use]
    pub fn first_thread(&self) -> Option<Arc<Thread>> {
        self.inner.lock().threads.first().cloned()
    }

    /// How many threads have not ended.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.inner.lock().threads.len()
    }

    /// Told when it ends: what a pidfd polls.
    #[must_use]
    pub fn exit_hub(&self) -> &PollHub {
        &self.exit_hub
    }

    /// Told when a signal is sent to it or its threads: what a signalfd polls.
    #[must_use]
    pub fn signal_hub(&self) -> &PollHub {
        &self.signal_hub
    }

    /// Whether it is the first of its world and so immune to signals it does not
    /// handle.
    pub(crate) fn is_unkillable(&self) -> bool {
        self.unkillable.load(Relaxed)
    }

    /// How it ends, once that is known; threads may still be on their way out.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        ExitStatus::unpack(self.exit.load(SeqCst))
    }

    /// Has all threads end. The first who calls says how; whether that was this
    /// call.
    pub fn begin_exit(&self, status: ExitStatus) -> bool {
        let first = self
            .exit
            .compare_exchange(0, status.pack(), SeqCst, SeqCst)
            .is_ok();
        if status == ExitStatus::Killed(Signal::KILL) {
            self.killed.store(true, SeqCst);
        }
        // A thread being made looks at the status under this lock before it joins.
        for t in &self.inner.lock().threads {
            t.alert();
        }
        first
    }

    /// It ends in another way than [`Process::begin_exit`] was told, which nobody has
    /// seen yet.
    pub(crate) fn change_exit(&self, status: ExitStatus) {
        self.exit.store(status.pack(), SeqCst);
    }

    /// Whether it got a `SIGKILL`.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed.load(SeqCst)
    }

    /// Whether its process group is orphaned.
    pub(crate) fn is_orphaned_group(&self) -> bool {
        let family = self.world.family.lock();
        let group = family.group(self.pid);
        group.is_ok_and(|g| family.is_orphaned(g, None))
    }

    /// Its name: that of its first thread, or of the last one that ended.
    #[must_use]
    pub fn comm(&self) -> String {
        let first = self.first_thread().map(|t| t.comm_bytes());
        comm_text(&first.unwrap_or(*self.last_comm.lock()))
    }

    /// What is known of its program.
    pub(crate) fn program(&self) -> Program {
        self.program.lock().clone()
    }

    /// The file of its program.
    #[must_use]
    pub fn exe(&self) -> Option<Path> {
        let running = self.program.lock().exe.clone()?;
        Some(running.path().clone())
    }

    /// Real user id.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.uid.load(Relaxed)
    }

    /// Sets that.
    pub fn set_uid(&self, uid: u32) {
        self.uid.store(uid, Relaxed);
    }

    /// Whether it wants no huge pages (`PR_SET_THP_DISABLE`): this and what it executes.
    #[must_use]
    pub fn small_pages_only(&self) -> bool {
        self.small_pages_only.load(Relaxed)
    }

    /// Sets that.
    pub fn set_small_pages_only(&self, only: bool) {
        self.small_pages_only.store(only, Relaxed);
        if let Some(space) = self.first_thread().and_then(|t| t.space.get()) {
            space.set_small_pages_only(only);
        }
    }

    /// Whether it keeps capabilities when it gives up being root
    /// (`PR_SET_KEEPCAPS`).
    #[must_use]
    pub fn keep_caps(&self) -> bool {
        self.keep_caps.load(Relaxed)
    }

    /// Sets that.
    pub fn set_keep_caps(&self, keep: bool) {
        self.keep_caps.store(keep, Relaxed);
    }

    /// Whether all its threads have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.exit_status().is_some() && self.thread_count() == 0
    }

    /// `PR_SET_DUMPABLE`.
    #[must_use]
    pub fn dumpable(&self) -> u8 {
        self.dumpable.load(Relaxed)
    }

    /// Sets that.
    pub fn set_dumpable(&self, value: u8) {
        self.dumpable.store(value, Relaxed);
    }

    /// Execution domain (personality(2)).
    #[must_use]
    pub fn personality(&self) -> u32 {
        self.personality.load(Relaxed)
    }

    /// Sets that.
    pub fn set_personality(&self, value: u32) {
        self.personality.store(value, Relaxed);
    }

    /// Whether `execve` can give it no further rights.
    #[must_use]
    pub fn no_new_privs(&self) -> bool {
        self.no_new_privs.load(Relaxed)
    }

    /// Says so, for good.
    pub fn set_no_new_privs(&self) {
        self.no_new_privs.store(true, Relaxed);
    }

    /// How eagerly it is chosen when memory runs out, -1000 to 1000.
    #[must_use]
    pub fn oom_adjust(&self) -> i32 {
        self.oom_adjust.load(Relaxed)
    }

    /// Sets that, on behalf of somebody privileged or not
    /// (proc_pid_oom_score_adj(5)). It orders the processes of a capsule alone.
    ///
    /// # Errors
    /// [`Error::Denied`] to the unprivileged for less than the privileged have set.
    pub fn set_oom_adjust(&self, value: i32, privileged: bool) -> Result<()> {
        let value = value.clamp(-1000, 1000);
        if privileged {
            self.oom_adjust_min.store(value, Relaxed);
        } else if value < self.oom_adjust_min.load(Relaxed) {
            return Err(Error::Denied);
        }
        self.oom_adjust.store(value, Relaxed);
        Ok(())
    }

    /// What it gets when its parent ends.
    #[must_use]
    pub fn parent_death_signal(&self) -> Option<Signal> {
        Signal::new(usize::from(self.parent_death_signal.load(Relaxed)))
    }

    /// Sets that.
    pub fn set_parent_death_signal(&self, signal: Option<Signal>) {
        let number = signal.map_or(0, Signal::number);
        self.parent_death_signal.store(number, Relaxed);
    }

    /// Sends `signal` from the kernel because of an event in its world.
    pub fn raise(&self, signal: Signal) {
        // A standard signal is never refused.
        let _ = self.signal(signal, SigInfo::kernel(signal), Origin::Inside);
    }
}
