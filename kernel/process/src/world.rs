//! A capsule's world of processes.

use crate::family::{Family, INIT};
use crate::futex::Pi;
use crate::ipc::Ipc;
use crate::limits::{Limits, Resource};
use crate::login::Sessions;
use crate::signal::{Origin, SigInfo, Signal};
use crate::status::ExitStatus;
use crate::unknown::UnknownCalls;
use crate::{Pid, Process, Thread};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use machine::Account;
use machine::sync::SpinLock;
use machine::thread::CpuGroup;
use net::NetStack;
use vfs::block::Disk;

/// Most bytes of a host or domain name (`__NEW_UTS_LEN`).
pub const HOST_NAME_MAX: usize = 64;

/// What programs can have only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// Threads of all processes.
    Threads,
    /// Open files of all processes, or descriptors of one.
    Files,
    /// Sockets, or memory for what they hold.
    Sockets,
}

/// What the capsule room hears of its processes.
pub trait Events: Send + Sync {
    /// The first process has ended; the others are being killed.
    fn init_exited(&self, status: ExitStatus);
    /// The last process is gone, and so is all it held.
    fn emptied(&self);
    /// Process `pid`, called `name`, was killed for want of memory.
    fn out_of_memory(&self, pid: Pid, name: &str);
    /// Something was refused because there is as much of it as there may be. Called
    /// as often as programs try.
    fn limit_reached(&self, _limit: Limited) {}
}

/// What a world is made of.
pub struct WorldSpec {
    /// The capsule's name, for messages.
    pub name: String,
    /// What `uname` calls the node.
    pub host_name: String,
    /// Who pays for memory.
    pub account: Arc<Account>,
    /// Whose CPU time the threads share.
    pub group: Arc<CpuGroup>,
    /// Its sockets, ports and names.
    pub network: Arc<NetStack>,
    /// Most threads and zombies at one time.
    pub threads_max: u32,
    /// Most descriptors of a process (hard `RLIMIT_NOFILE`).
    pub files_max: u64,
    /// Its disks.
    pub disks: Vec<Arc<Disk>>,
    /// Who hears of it.
    pub events: Box<dyn Events>,
}

/// What the processes of one capsule share, and all they can see of each other.
pub struct World {
    name: String,
    host_name: SpinLock<String>,
    domain_name: SpinLock<String>,
    account: Arc<Account>,
    group: Arc<CpuGroup>,
    network: Arc<NetStack>,
    threads_max: u32,
    files_max: u64,
    disks: Vec<Arc<Disk>>,
    events: Box<dyn Events>,
    unknown: UnknownCalls,
    filtered: UnknownCalls,
    ipc: Ipc,
    pub(crate) pi: Pi,
    pub(crate) family: SpinLock<Family<Arc<Process>, Arc<Thread>>>,
    /// The first process has ended: nothing new begins here.
    closing: AtomicBool,
    /// Processes made so far (`/proc/stat`).
    forks: AtomicU64,
    pub(crate) sessions: Sessions,
    oom_kills: AtomicU64,
}

impl World {
    /// A world without processes.
    #[must_use]
    pub fn new(spec: WorldSpec) -> Arc<World> {
        Arc::new(World {
            name: spec.name,
            host_name: SpinLock::new(spec.host_name),
            domain_name: SpinLock::new(String::from("(none)")),
            account: spec.account,
            group: spec.group,
            network: spec.network,
            threads_max: spec.threads_max,
            files_max: spec.files_max,
            disks: spec.disks,
            events: spec.events,
            unknown: UnknownCalls::new(),
            filtered: UnknownCalls::new(),
            ipc: Ipc::default(),
            pi: Pi::default(),
            family: SpinLock::new(Family::new()),
            closing: AtomicBool::new(false),
            forks: AtomicU64::new(0),
            sessions: Sessions::default(),
            oom_kills: AtomicU64::new(0),
        })
    }

    /// The capsule's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What `uname` calls the node.
    #[must_use]
    pub fn host_name(&self) -> String {
        self.host_name.lock().clone()
    }

    /// Sets that.
    pub fn set_host_name(&self, name: String) {
        let old = core::mem::replace(&mut *self.host_name.lock(), name);
        drop(old);
    }

    /// The NIS domain name.
    #[must_use]
    pub fn domain_name(&self) -> String {
        self.domain_name.lock().clone()
    }

    /// Sets that.
    pub fn set_domain_name(&self, name: String) {
        let old = core::mem::replace(&mut *self.domain_name.lock(), name);
        drop(old);
    }

    /// Who pays for memory.
    #[must_use]
    pub fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Whose CPU time the threads share.
    #[must_use]
    pub fn group(&self) -> &Arc<CpuGroup> {
        &self.group
    }

    /// Its sockets, ports and names.
    #[must_use]
    pub fn network(&self) -> &Arc<NetStack> {
        &self.network
    }

    /// Most threads at one time.
    #[must_use]
    pub fn threads_max(&self) -> u32 {
        self.threads_max
    }

    /// What no limit on `resource` can be raised above, not even by the capsule's
    /// own root.
    #[must_use]
    pub fn ceiling(&self, resource: usize) -> u64 {
        let initial = self.initial_limits().get(resource);
        const FILES: usize = Resource::Files as usize;
        const PROCESSES: usize = Resource::Processes as usize;
        // The queues of signals are not charged to the account.
        const SIGNALS: usize = Resource::PendingSignals as usize;
        match (resource, initial) {
            (FILES | PROCESSES | SIGNALS, Some(l)) => l.hard,
            _ => u64::MAX,
        }
    }

    pub(crate) fn initial_limits(&self) -> Limits {
        Limits::initial(u64::from(self.threads_max), self.files_max)
    }

    /// System calls its programs made that the kernel does not have.
    #[must_use]
    pub fn unknown_calls(&self) -> &UnknownCalls {
        &self.unknown
    }

    /// System calls of its programs that their filters did not let pass silently.
    #[must_use]
    pub fn filtered_calls(&self) -> &UnknownCalls {
        &self.filtered
    }

    /// System V objects and POSIX message queues.
    #[must_use]
    pub fn ipc(&self) -> &Ipc {
        &self.ipc
    }

    /// Has all its disks make durable what was written.
    ///
    /// # Errors
    /// The first disk's that fails, after the others were flushed, too.
    pub fn sync_disks(&self) -> vfs::Result<()> {
        let mut outcome = Ok(());
        for disk in &self.disks {
            outcome = outcome.and(disk.flush());
        }
        outcome
    }

    pub(crate) fn events(&self) -> &dyn Events {
        &*self.events
    }

    /// Tells the capsule room that something was refused.
    #[cold]
    pub fn tell_limit(&self, limit: Limited) {
        self.events.limit_reached(limit);
    }

    /// The process of that number, zombies included.
    #[must_use]
    pub fn process(&self, pid: Pid) -> Option<Arc<Process>> {
        self.family.lock().process(pid).cloned()
    }

    /// The living thread of that number.
    #[must_use]
    pub fn thread(&self, tid: Pid) -> Option<Arc<Thread>> {
        self.family.lock().thread(tid).cloned()
    }

    /// The first process.
    #[must_use]
    pub fn init(&self) -> Option<Arc<Process>> {
        self.process(INIT)
    }

    /// All processes, zombies included, by number.
    #[must_use]
    pub fn processes(&self) -> Vec<Arc<Process>> {
        let mut all: Vec<_> = self.family.lock().all().map(|(_, p)| p.clone()).collect();
        all.sort_unstable_by_key(|p| p.pid());
        all
    }

    /// Threads that have not ended, and the number handed out last.
    #[must_use]
    pub fn thread_count(&self) -> (usize, Pid) {
        let family = self.family.lock();
        (family.threads(), family.last_number())
    }

    /// Threads and zombies: what counts against [`World::threads_max`].
    #[must_use]
    pub fn task_count(&self) -> usize {
        self.family.lock().tasks()
    }

    /// Processes, zombies included.
    #[must_use]
    pub fn process_count(&self) -> usize {
        self.family.lock().processes()
    }

    /// Processes made so far.
    #[must_use]
    pub fn forks(&self) -> u64 {
        self.forks.load(Relaxed)
    }

    pub(crate) fn count_fork(&self) {
        self.forks.fetch_add(1, Relaxed);
    }

    /// Processes killed for want of memory so far.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills.load(Relaxed)
    }

    pub(crate) fn count_oom_kill(&self) {
        self.oom_kills.fetch_add(1, Relaxed);
    }

    /// Whether the first process has ended.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// The members of the process group `group`.
    #[must_use]
    pub fn group_members(&self, group: Pid) -> Vec<Arc<Process>> {
        let family = self.family.lock();
        let members = family.group_members(group).iter();
        members
            .filter_map(|p| family.process(*p).cloned())
            .collect()
    }

    /// Sends `signal` to every process of `group`, as the terminal or the kernel
    /// does.
    pub fn signal_group(&self, group: Pid, signal: Signal) {
        for p in self.group_members(group) {
            p.raise(signal);
        }
    }

    /// Sends `signal` to the first process on the owner's behalf; whether there
    /// is one.
    pub fn signal_init(&self, signal: Signal) -> bool {
        let Some(init) = self.init() else {
            return false;
        };
        // A standard signal is never refused.
        let _ = init.signal(signal, SigInfo::kernel(signal), Origin::Outside);
        init.exit_status().is_none() || signal == Signal::KILL
    }

    /// Sends `signal` to every process on the owner's behalf.
    pub fn signal_all(&self, signal: Signal) {
        for p in self.processes() {
            // A standard signal is never refused; another may find its queue full.
            let _ = p.signal(signal, SigInfo::kernel(signal), Origin::Outside);
        }
    }

    /// Ends all processes (the owner stops the capsule, or its first process has
    /// ended).
    pub fn kill_all(&self) {
        self.closing.store(true, SeqCst);
        for p in self.processes() {
            p.begin_exit(ExitStatus::Killed(Signal::KILL));
        }
    }
}
