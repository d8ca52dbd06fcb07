//! Capsules as process groups: start, stop, kill, inspect.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use skep_api::control::{
    CapsuleId, CapsuleInfo, CapsuleState, CapsuleSummary, ControlError, Event, EventMask,
    ExitCause, ExitStatus, ExitSummary, KillScope, Limits, PortState, Protocol, Refusal, Reply,
};
use skep_api::manifest::{self, Manifest};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::task::spawn_local;

use super::HostRuntime;

/// Output is read in pieces of this size.
const READ_BYTES: usize = 4096;

/// A capsule: a process that leads a group.
pub(super) struct HostCapsule {
    pub(super) id: CapsuleId,
    pub(super) name: String,
    pub(super) state: CapsuleState,
    pub(super) manifest: Manifest,
    pid: Pid,
    started_ns: u64,
    manifest_hash: [u8; 32],
}

impl HostCapsule {
    pub(super) fn summary(&self) -> CapsuleSummary {
        CapsuleSummary {
            capsule: self.id,
            name: self.name.clone(),
            state: self.state.clone(),
            started_ns: self.started_ns,
            manifest_hash: self.manifest_hash,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, CapsuleState::Running | CapsuleState::Stopping)
    }

    /// Signals the whole group; a group that is gone is no error.
    pub(super) fn kill_all(&self, signal: Signal) {
        if self.is_alive() {
            let _ = kill_process_group(self.pid, signal);
        }
    }
}

pub(super) fn start(host: &HostRuntime, entry: &str) -> Result<Reply, ControlError> {
    let (manifest, manifest_hash) = {
        let machine = host.machine.borrow();
        let (entry, manifest) = machine
            .bundle
            .manifest(entry)
            .ok_or(ControlError::NotFound)?;
        if let Some(refusal) = &entry.refusal {
            return Err(ControlError::Refused(refusal.clone()));
        }
        let malformed = || ControlError::Refused(Refusal::Malformed(String::new()));
        (manifest.cloned().ok_or_else(malformed)?, entry.hash)
    };
    if let Some(device) = manifest.devices.first() {
        let missing = Refusal::DeviceMissing(device.clone());
        return Err(ControlError::Refused(missing));
    }
    if manifest.raw_network {
        // A process of the host has its user's rights, and root is not needed here.
        return Err(ControlError::Refused(Refusal::Unsupported(
            "raw_network".into(),
        )));
    }
    if let Some(living) = host.machine.borrow().capsules.get(&manifest.name)
        && living.is_alive()
    {
        return Err(ControlError::AlreadyRunning { capsule: living.id });
    }
    let (child, output) = spawn(&manifest).map_err(|error| exec_failed(&error))?;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let pid = pid.ok_or(ControlError::NoResources)?;
    let name = manifest.name.clone();
    let (id, started_ns) = {
        let mut machine = host.machine.borrow_mut();
        let id = CapsuleId(machine.next_capsule);
        machine.next_capsule += 1;
        let started_ns = machine.clock.now_ns();
        let state = CapsuleState::Running;
        let (name, key) = (name.clone(), name.clone());
        let capsule = HostCapsule {
            id,
            name,
            state,
            manifest,
            pid,
            started_ns,
            manifest_hash,
        };
        machine.capsules.insert(key.clone(), capsule);
        machine.logs.entry(key).or_default();
        (id, started_ns)
    };
    host.emit(
        Some(EventMask::CAPSULE),
        Event::CapsuleStarted {
            capsule: id,
            name: name.clone(),
        },
    );
    spawn_local(keep_log(host.clone(), name.clone(), output));
    spawn_local(wait(host.clone(), name.clone(), id, child));
    Ok(Reply::Started {
        capsule: id,
        name,
        started_ns,
    })
}

fn spawn(manifest: &Manifest) -> io::Result<(Child, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let (program, arguments) = manifest
        .command
        .split_first()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(
            manifest
                .environment
                .iter()
                .map(|(name, value)| (name, value)),
        )
        .current_dir(&manifest.working_directory)
        .stdin(Stdio::null())
        .stdout(OwnedFd::from(writer.try_clone()?))
        .stderr(OwnedFd::from(writer))
        .process_group(0)
        .spawn()?;
    Ok((child, pipe::Receiver::from_owned_fd(reader.into())?))
}

pub(super) fn exec_failed(error: &io::Error) -> ControlError {
    let errno = error
        .raw_os_error()
        .and_then(|errno| u16::try_from(errno).ok());
    ControlError::ExecFailed {
        errno: errno.unwrap_or_default(),
    }
}

async fn keep_log(host: HostRuntime, name: String, mut output: pipe::Receiver) {
    let mut buffer = [0; READ_BYTES];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        if let Some(log) = host.machine.borrow_mut().logs.get_mut(&name) {
            log.append(&buffer[..count]);
        }
    }
}

async fn wait(host: HostRuntime, name: String, id: CapsuleId, mut child: Child) {
    let status = child.wait().await;
    let exit = {
        let mut machine = host.machine.borrow_mut();
        let time_ns = machine.clock.now_ns();
        let Some(capsule) = machine.capsules.get_mut(&name) else {
            return;
        };
        // With the init process everything of a capsule ends.
        capsule.kill_all(Signal::KILL);
        let cause = match capsule.state {
            CapsuleState::Stopping => ExitCause::Stopped,
            _ => ExitCause::Own,
        };
        let status = status
            .ok()
            .and_then(exit_status)
            .unwrap_or(ExitStatus::Signal(9));
        let exit = ExitSummary {
            status,
            cause,
            time_ns,
        };
        capsule.state = CapsuleState::Exited(exit);
        exit
    };
    host.emit(
        Some(EventMask::CAPSULE),
        Event::CapsuleExited {
            capsule: id,
            name,
            exit,
        },
    );
}

pub(super) fn exit_status(status: std::process::ExitStatus) -> Option<ExitStatus> {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => Some(ExitStatus::Code(code as u8)), // wait(2) gives eight bits
        (None, Some(signal)) => Some(ExitStatus::Signal(u8::try_from(signal).ok()?)),
        (None, None) => None,
    }
}

pub(super) fn stop(
    host: &HostRuntime,
    id: CapsuleId,
    signal: u8,
    grace_ms: u32,
) -> Result<Reply, ControlError> {
    let name = host.name_of(id)?;
    {
        let mut machine = host.machine.borrow_mut();
        let capsule = machine
            .capsules
            .get_mut(&name)
            .ok_or(ControlError::NotFound)?;
        if !capsule.is_alive() {
            return Err(ControlError::NotRunning);
        }
        capsule.state = CapsuleState::Stopping;
    }
    kill(
        host,
        id,
        if grace_ms == 0 { 9 } else { signal },
        KillScope::Init,
    )?;
    let host = host.clone();
    spawn_local(async move {
        tokio::time::sleep(Duration::from_millis(grace_ms.into())).await;
        if let Some(capsule) = host.machine.borrow().capsules.get(&name)
            && capsule.id == id
        {
            capsule.kill_all(Signal::KILL);
        }
    });
    Ok(Reply::Done)
}

pub(super) fn kill(
    host: &HostRuntime,
    id: CapsuleId,
    signal: u8,
    scope: KillScope,
) -> Result<Reply, ControlError> {
    let name = host.name_of(id)?;
    let machine = host.machine.borrow();
    let capsule = machine.capsules.get(&name).ok_or(ControlError::NotFound)?;
    if !capsule.is_alive() {
        return Err(ControlError::NotRunning);
    }
    let invalid = || ControlError::Invalid("signal".to_owned());
    let signal = Signal::from_named_raw(signal.into()).ok_or_else(invalid)?;
    match scope {
        KillScope::Init => kill_process(capsule.pid, signal),
        KillScope::All => kill_process_group(capsule.pid, signal),
    }
    .map_err(|_| ControlError::NotRunning)?;
    Ok(Reply::Done)
}

pub(super) fn inspect(host: &HostRuntime, id: CapsuleId) -> Result<Reply, ControlError> {
    let name = host.name_of(id)?;
    let machine = host.machine.borrow();
    let capsule = machine.capsules.get(&name).ok_or(ControlError::NotFound)?;
    let (usage, pids) = if capsule.is_alive() {
        super::procfs::group_usage(capsule.pid.as_raw_nonzero().get())
    } else {
        Default::default()
    };
    let ports = capsule.manifest.ports.iter().map(|port| PortState {
        protocol: match port.protocol {
            manifest::Protocol::Tcp => Protocol::Tcp,
            manifest::Protocol::Udp => Protocol::Udp,
        },
        node_port: port.node,
        capsule_port: port.capsule,
    });
    Ok(Reply::Capsule(CapsuleInfo {
        capsule: capsule.id,
        name: capsule.name.clone(),
        state: capsule.state.clone(),
        started_ns: capsule.started_ns,
        started_unix_ms: machine.clock.unix_ms(capsule.started_ns),
        manifest_hash: capsule.manifest_hash,
        pids,
        usage,
        limits: Limits::default(), // nothing is enforced here
        ports: ports.collect(),
    }))
}
