//! A runtime of plain processes on a Linux machine, for tests and development.
//!
//! It answers the same messages as the kernel and keeps the same promises about order and
//! identity, but **isolates nothing**: a capsule's command is a path on the host, its limits are
//! not enforced, and its ports are the host's. What the host cannot do is refused, not pretended.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use skep_api::control::{
    CapsuleId, ControlError, CrashRecord, Event, EventMask, EventRecord, ExecId, ManifestSource,
    Reply, Request,
};
use tokio::sync::mpsc;

use crate::runtime::{Call, Runtime};

mod bundle;
mod capsule;
mod exec;
mod log;
mod procfs;
pub mod socket;

pub use bundle::Bundle;
use capsule::HostCapsule;
use log::Ring;

/// Capsules as processes of this machine. Clones are the same machine; only one at a time is
/// served.
#[derive(Clone)]
pub struct HostRuntime {
    machine: Rc<RefCell<Machine>>,
}

struct Machine {
    bundle: Bundle,
    clock: procfs::BootClock,
    capsules: BTreeMap<String, HostCapsule>,
    logs: BTreeMap<String, Ring>,
    next_capsule: u32,
    next_exec: u32,
    next_event: u64,
    agent_starts: u32,
    subscription: Option<(EventMask, mpsc::Sender<EventRecord>)>,
    state: Vec<u8>,
}

impl HostRuntime {
    /// A machine that has just "booted" with this bundle.
    ///
    /// # Errors
    ///
    /// When `/proc` cannot be read.
    pub fn new(bundle: Bundle) -> io::Result<Self> {
        let machine = Machine {
            bundle,
            clock: procfs::BootClock::new()?,
            capsules: BTreeMap::new(),
            logs: BTreeMap::new(),
            next_capsule: 1,
            next_exec: 1,
            next_event: 1,
            agent_starts: 0,
            subscription: None,
            state: Vec::new(),
        };
        Ok(Self {
            machine: Rc::new(RefCell::new(machine)),
        })
    }

    /// Kills every process of every capsule.
    pub fn shut_down(&self) {
        for capsule in self.machine.borrow().capsules.values() {
            capsule.kill_all(rustix::process::Signal::KILL);
        }
    }

    fn answer(&self, request: Request) -> Reply {
        self.try_answer(request).unwrap_or_else(Reply::Error)
    }

    fn try_answer(&self, request: Request) -> Result<Reply, ControlError> {
        Ok(match request {
            Request::Hello { .. } => self.hello(),
            Request::ListCapsules => self.list(),
            Request::Start {
                manifest: ManifestSource::Bundle(name),
            } => capsule::start(self, &name)?,
            Request::Stop {
                capsule,
                signal,
                grace_ms,
            } => capsule::stop(self, capsule, signal, grace_ms)?,
            Request::Kill {
                capsule,
                signal,
                scope,
            } => capsule::kill(self, capsule, signal, scope)?,
            Request::Exec {
                capsule,
                argv,
                env,
                timeout_ms,
            } => exec::exec(self, capsule, &argv, &env, timeout_ms)?,
            Request::Inspect { capsule } => capsule::inspect(self, capsule)?,
            Request::ReadLog {
                name,
                from_offset,
                bytes_max,
            } => {
                let machine = self.machine.borrow();
                let log = machine.logs.get(&name).ok_or(ControlError::NotFound)?;
                log.read(from_offset, bytes_max)
            }
            Request::NodeInfo => {
                let machine = self.machine.borrow();
                let info = procfs::node_info(&machine.clock);
                Reply::Node(Box::new(info.map_err(|_| ControlError::NoResources)?))
            }
            Request::Subscribe { events } => {
                if let Some((mask, _)) = &mut self.machine.borrow_mut().subscription {
                    *mask = events;
                }
                Reply::Done
            }
            Request::ListManifests => Reply::Manifests(self.machine.borrow().bundle.entries()),
            Request::ReadManifest { name } => {
                let machine = self.machine.borrow();
                let bytes = machine.bundle.bytes(&name).ok_or(ControlError::NotFound)?;
                Reply::Manifest(bytes.to_vec())
            }
            Request::SaveState { bytes } => {
                self.machine.borrow_mut().state = bytes;
                Reply::Done
            }
            // There is no console to show it on.
            Request::Judge { .. } => Reply::Done,
            Request::LoadState => Reply::State(self.machine.borrow().state.clone()),
            Request::ReadCrash => Reply::Crash(self.machine.borrow().bundle.crash()),
            Request::ClearCrash => {
                self.machine.borrow().bundle.clear_crash();
                Reply::Done
            }
            Request::Pong { .. } => Reply::Done,
            Request::ReadProfile => Reply::Profile(None),
            // What only a kernel or a machine can do.
            _ => return Err(ControlError::Unsupported),
        })
    }

    fn hello(&self) -> Reply {
        let mut machine = self.machine.borrow_mut();
        machine.agent_starts += 1;
        Reply::Hello {
            kernel: procfs::kernel(),
            boot_id: [0; 16],
            node_name: machine.bundle.node.name.clone(),
            owner_keys: vec![machine.bundle.node.owner.0],
            agent_starts: machine.agent_starts,
        }
    }

    fn list(&self) -> Reply {
        let machine = self.machine.borrow();
        let mut list: Vec<_> = machine
            .capsules
            .values()
            .map(HostCapsule::summary)
            .collect();
        list.sort_by_key(|summary| summary.capsule);
        Reply::Capsules(list)
    }

    /// The name of a living or remembered capsule.
    fn name_of(&self, id: CapsuleId) -> Result<String, ControlError> {
        let machine = self.machine.borrow();
        let mut capsules = machine.capsules.values();
        let found = capsules
            .find(|capsule| capsule.id == id)
            .ok_or(ControlError::NotFound)?;
        Ok(found.name.clone())
    }

    fn exec_id(&self) -> ExecId {
        let mut machine = self.machine.borrow_mut();
        let id = ExecId(machine.next_exec);
        machine.next_exec += 1;
        id
    }

    /// Sends an event of a family, or one that everyone gets.
    fn emit(&self, family: Option<EventMask>, event: Event) {
        let mut machine = self.machine.borrow_mut();
        let record = EventRecord {
            sequence: machine.next_event,
            time_ns: machine.clock.now_ns(),
            event,
        };
        machine.next_event += 1;
        if let Some((mask, sender)) = &machine.subscription
            && family.is_none_or(|family| mask.contains(family))
        {
            // A full queue loses the event, as the kernel's would; the test that needs it fails.
            let _ = sender.try_send(record);
        }
    }
}

impl Runtime for HostRuntime {
    async fn serve(
        self,
        mut calls: mpsc::Receiver<Call>,
        events: mpsc::Sender<EventRecord>,
    ) -> io::Error {
        self.machine.borrow_mut().subscription = Some((EventMask::NONE, events));
        while let Some(call) = calls.recv().await {
            let reply = self.answer(call.request);
            let _ = call.reply.send(reply); // whoever asked may have given up
        }
        self.machine.borrow_mut().subscription = None;
        io::ErrorKind::BrokenPipe.into()
    }
}

/// A crash record made of a file's first line and the rest.
fn crash_of(text: &str) -> CrashRecord {
    let (reason, detail) = text.split_once('\n').unwrap_or((text, ""));
    CrashRecord {
        id: 0,
        unix_ms: None,
        uptime_ns: 0,
        cpu: 0,
        kernel: procfs::kernel(),
        reason: reason.to_owned(),
        detail: detail.to_owned(),
    }
}
