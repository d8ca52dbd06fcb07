//! From a manifest to a running capsule, and back to nothing.

use crate::capsule::{Capsule, Ear, Parts};
use crate::control::add_unknown;
use crate::launch::{self, Program};
use crate::log_ring::{Echo, Output};
use crate::room::Capsules;
use crate::root::{self, Supplies};
use crate::verify::{Accepted, brief, words};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use machine::Account;
use machine::addr::PAGE_SIZE;
use machine::thread::{self, CpuGroup};
use machine::time::Instant;
use net::{NetStack, Protocol, Published, StackConfig};
use process::clone::NewTask;
use process::signal::Signal;
use process::{World, WorldSpec};
use skep_api::control::{ControlError, Event, Refusal};
use skep_api::manifest::{self, Manifest, Outbound};
use skep_api::node::CapsuleOutput;

/// Time in which all memory of a capsule that has ended is to be back. Page tables
/// and stacks of its last threads go a moment after them.
const SETTLING: Duration = Duration::from_millis(200);
const SETTLING_STEP: Duration = Duration::from_micros(500);
/// How often a trouble that lasts is named again.
const REMINDER: Duration = Duration::from_secs(60);
/// What all capsules get when the node goes down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
/// What the system capsule gets then: its state is with the kernel, and it need not
/// handle the signal.
const SYSTEM_GRACE: Duration = Duration::from_millis(500);

impl Capsules {
    /// Starts a capsule.
    ///
    /// # Errors
    /// Why not; nothing is left behind then.
    pub(crate) fn start_capsule(
        self: &Arc<Self>,
        accepted: Accepted,
        is_system: bool,
    ) -> Result<Arc<Capsule>, ControlError> {
        let _one = self.starting.lock();
        if self.is_closing() {
            return Err(ControlError::NoResources);
        }
        let name = accepted.manifest.name.clone();
        // The system capsule's name is its own even while it is between two lives.
        if !is_system && name == self.config.system {
            let capsule = self.by_name(&name).map(|c| c.id());
            return Err(match capsule {
                Some(capsule) => ControlError::AlreadyRunning { capsule },
                None => ControlError::NotFound,
            });
        }
        let (id, log) = self.enrol(&name)?;
        let admitted = self.manifests.admit(&accepted.manifest);
        admitted.map_err(ControlError::Refused)?;
        let capsule = Capsule::new(self, id, accepted, is_system, log);
        let output = Output::new(capsule.log().clone(), self.echo(&capsule));
        let parts = self.build(&capsule, output.clone())?;
        let task = launch(&parts, &capsule, output)?;
        capsule.set_running(parts);
        self.record(&capsule);
        log::info!("capsule {name} started");
        self.hub.emit(Event::CapsuleStarted { capsule: id, name });
        task.start();
        Ok(capsule)
    }

    /// All that a capsule holds, before it has a process.
    fn build(
        self: &Arc<Self>,
        capsule: &Arc<Capsule>,
        output: Arc<Output>,
    ) -> Result<Parts, ControlError> {
        let manifest = capsule.manifest();
        let image = self.image(manifest.tree)?;
        let granted = self.disks.grant(&manifest.devices, &manifest.name);
        let granted = granted.map_err(ControlError::Refused)?;
        let limits = &manifest.limits;
        let pages = usize::try_from(limits.memory_bytes / PAGE_SIZE as u64).unwrap_or(usize::MAX);
        let account = Arc::new(Account::new(pages).ok_or(ControlError::NoResources)?);
        account.set_files_limit(usize::try_from(limits.files).unwrap_or(usize::MAX));
        let quota = limits.cpu_quota_percent.map(|q| u64::from(q) * 10);
        let group = CpuGroup::new(u64::from(limits.cpu_share), quota);
        let stack = self.network(capsule, &account)?;
        let disks: Vec<_> = granted.iter().map(|g| g.disk(&account)).collect();
        let world = World::new(WorldSpec {
            name: manifest.name.clone(),
            host_name: manifest.name.clone(),
            account: account.clone(),
            group: group.clone(),
            network: stack.clone(),
            threads_max: limits.processes,
            files_max: u64::from(limits.files),
            disks: disks.clone(),
            events: Box::new(Ear(Arc::downgrade(capsule))),
        });
        let lower = Capsule::blob_reporter(self, capsule.id(), &manifest.name, image);
        let supplies = Supplies {
            host_name: &manifest.name,
            resolvers: self.resolvers(),
            control: capsule.is_system().then_some(self),
            world: &world,
            output,
            disks,
            owner: (manifest.user, manifest.group),
        };
        let (root, owns_resolvers) =
            root::build(&account, lower, &supplies).map_err(|e| not_built(&e))?;
        Ok(Parts {
            account,
            group,
            world,
            stack,
            root,
            owns_resolvers,
            _disks: granted,
        })
    }

    fn network(
        &self,
        capsule: &Capsule,
        account: &Arc<Account>,
    ) -> Result<Arc<NetStack>, ControlError> {
        let manifest = capsule.manifest();
        let published = |p: &manifest::Port| Published {
            protocol: match p.protocol {
                manifest::Protocol::Tcp => Protocol::Tcp,
                manifest::Protocol::Udp => Protocol::Udp,
            },
            capsule: p.capsule,
            node: p.node,
        };
        let config = StackConfig {
            ports: manifest.ports.iter().map(published).collect(),
            outbound: manifest.outbound == Outbound::Allow,
            raw: manifest.raw_network,
            system: capsule.is_system(),
            account: account.clone(),
            sockets_max: usize::try_from(manifest.limits.files).unwrap_or(usize::MAX),
        };
        self.net.new_stack(config).map_err(|error| match error {
            net::Error::AddressInUse => {
                let port = self.clash(manifest).unwrap_or_default();
                ControlError::Refused(Refusal::PortTaken(port))
            }
            _ => ControlError::NoResources,
        })
    }

    /// The first of its node ports that a living capsule has.
    fn clash(&self, manifest: &Manifest) -> Option<u16> {
        let alive: Vec<_> = self.all().into_iter().filter(|c| c.is_alive()).collect();
        let taken = |port: &&manifest::Port| {
            let mut others = alive.iter().flat_map(|c| &c.manifest().ports);
            others.any(|o| (o.protocol, o.node) == (port.protocol, port.node))
        };
        manifest.ports.iter().find(taken).map(|p| p.node)
    }

    /// How the node's own log shows what `capsule` prints: always what the system
    /// capsule does.
    fn echo(&self, capsule: &Capsule) -> Option<Echo> {
        match self.config.console.capsules {
            CapsuleOutput::Raw if !capsule.is_system() => Some(Echo::Raw),
            CapsuleOutput::Hidden if !capsule.is_system() => None,
            _ => Some(Echo::Named(capsule.name().into())),
        }
    }

    /// Gives back what a capsule held whose last process is gone.
    pub(crate) fn clear_up(&self, capsule: &Arc<Capsule>) {
        let Some(parts) = capsule.take_parts() else {
            return;
        };
        self.remember(&parts);
        self.execs_ended(capsule.id());
        parts.stack.shutdown();
        let account = parts.account.clone();
        let weak = Arc::downgrade(&parts);
        drop(parts);
        let deadline = Instant::now().after(SETTLING);
        let held = || account.used() > 0 || account.files() > 0;
        while (weak.strong_count() > 0 || held()) && Instant::now() < deadline {
            let _ = thread::sleep_until(Instant::now().after(SETTLING_STEP), false);
        }
        let name = capsule.name();
        if held() {
            let (pages, files) = (account.used(), account.files());
            log::warn!("capsule {name}: {pages} pages, {files} files were not given back");
        }
        log::info!("capsule {name} ended: {}", capsule.end_in_words());
        let exit = capsule.set_exited();
        self.hub.emit(Event::CapsuleExited {
            capsule: capsule.id(),
            name: String::from(name),
            exit,
        });
    }

    /// Adds what a capsule has used to the figures of those that are gone.
    fn remember(&self, parts: &Parts) {
        let mut past = self.past.lock();
        let ns = u64::try_from(parts.group.run_time().as_nanos()).unwrap_or(0);
        past.cpu_ns = past.cpu_ns.saturating_add(ns);
        add_unknown(&mut past.unknown, &parts.world);
    }

    /// Starts the system capsule. Whether it runs.
    pub(crate) fn start_system(self: &Arc<Self>) -> bool {
        let name = &self.config.system;
        let Some(verdict) = self.manifests.get(name) else {
            self.complain(&format!(
                "the ramdisk has no manifest of the system capsule {name}"
            ));
            return false;
        };
        let accepted = match verdict {
            Ok(accepted) => accepted,
            Err(refusal) => {
                self.complain(&format!(
                    "the manifest of the system capsule {name} is refused: {}",
                    words(&refusal)
                ));
                return false;
            }
        };
        self.agent_starts.fetch_add(1, Relaxed);
        match self.start_capsule(accepted, true) {
            Ok(_) => {
                self.boot.done("system capsule started");
                true
            }
            Err(error) => {
                self.complain(&format!(
                    "the system capsule {name} cannot be started: {}",
                    explain(&error)
                ));
                false
            }
        }
    }

    /// Kills the system capsule, which does not answer; it is started again.
    pub(crate) fn kill_system(&self) {
        let capsule = self.by_name(&self.config.system);
        if let Some(parts) = capsule.and_then(|c| c.parts()) {
            log::error!("the system capsule does not answer and is killed");
            parts.world.kill_all();
        }
    }

    /// Says on the console what keeps the node from doing its work: at once when it
    /// is news, and now and then while it stays so.
    fn complain(&self, what: &str) {
        let mut last = self.complaint.lock();
        let said = last.as_ref().filter(|c| c.0 == what).map(|c| c.1);
        if said.is_none_or(|at| Instant::now().since(at) >= REMINDER) {
            log::error!("{what}");
            *last = Some((String::from(what), Instant::now()));
        }
    }

    /// Whether the node goes down.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }

    /// Stops all capsules and then the machine, on a thread of its own. Only the
    /// first call counts.
    ///
    /// # Errors
    /// No memory for the thread.
    pub fn begin_shutdown(self: &Arc<Self>, power_off: bool) -> Result<(), machine::AllocError> {
        if self.closing.swap(true, Relaxed) {
            return Ok(());
        }
        if let Some(guard) = &self.guard {
            guard.going_down();
        }
        let room = self.clone();
        let run = move || {
            log::info!("the node goes down");
            room.stop_all();
            room.disks.flush();
            if let Some(guard) = &room.guard {
                guard.end();
            }
            if power_off {
                room.platform.power_off();
                log::error!("this machine cannot be switched off by its kernel");
            } else {
                room.platform.restart();
                log::error!("this machine cannot be restarted by its kernel");
            }
        };
        let started = thread::Builder::new("shutdown").spawn(run);
        if started.is_err() {
            self.closing.store(false, Relaxed);
        }
        started.map(drop)
    }

    /// Stops all capsules, the system capsule last, and waits for their end.
    fn stop_all(&self) {
        let _none_is_starting = self.starting.lock();
        let all: Vec<_> = self.all().into_iter().filter(|c| c.is_alive()).collect();
        for (last, grace) in [(false, SHUTDOWN_GRACE), (true, SYSTEM_GRACE)] {
            let some = || all.iter().filter(|c| c.is_system() == last);
            for capsule in some() {
                capsule.stop(Signal::TERM, grace);
            }
            let deadline = Instant::now().after(grace * 2);
            while some().any(|c| c.is_alive()) && Instant::now() < deadline {
                let _ = thread::sleep_until(Instant::now().after(SETTLING_STEP), false);
            }
        }
    }
}

/// Makes the first process.
fn launch(parts: &Parts, capsule: &Capsule, output: Arc<Output>) -> Result<NewTask, ControlError> {
    let manifest = capsule.manifest();
    let variables = manifest.environment.iter();
    let environment: Vec<String> = variables.map(|(n, v)| format!("{n}={v}")).collect();
    let program = Program {
        command: &manifest.command,
        environment: &environment,
    };
    launch::first(parts, capsule, &program, output)
}

/// Why a file tree could not be set up.
fn not_built(error: &vfs::Error) -> ControlError {
    match error {
        vfs::Error::NoMemory | vfs::Error::NoSpace => ControlError::NoResources,
        other => ControlError::Refused(Refusal::Malformed(brief(&format!(
            "the image cannot hold a capsule's file tree: {other:?}"
        )))),
    }
}

/// A control error in words for the console.
pub(crate) fn explain(error: &ControlError) -> String {
    match error {
        ControlError::Refused(refusal) => words(refusal),
        ControlError::ExecFailed { errno } => {
            format!("its program cannot be executed (errno {errno})")
        }
        ControlError::NoResources => String::from("the node has no memory left"),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
