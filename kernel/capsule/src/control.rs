//! What the 3Bot asks for, answered.

use crate::lifecycle::explain;
use crate::room::Capsules;
use crate::session::Session;
use crate::verify::{Accepted, words};
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use machine::addr::PAGE_SIZE;
use machine::thread::CpuGroup;
use machine::time::Instant;
use process::signal::Signal;
use skep_api::control::{
    CapsuleHealth, CapsuleId, ControlError, KillScope, ManifestSource, NodeInfo, Reply, Request,
    StartCause, UnknownCall,
};
use vfs::Error;

/// Name and version of the kernel.
pub const KERNEL: &str = concat!("skep ", env!("CARGO_PKG_VERSION"));
/// Most openings of the device at a time.
pub const SESSIONS_MAX: usize = 8;
/// Most unknown calls that are listed.
const UNKNOWN_MAX: usize = 128;

type Answer = Result<Reply, ControlError>;

impl Capsules {
    /// A new opening of the control device.
    pub(crate) fn open_session(&self) -> vfs::Result<Arc<Session>> {
        let session = Session::new()?;
        if self.sessions.fetch_add(1, Relaxed) >= SESSIONS_MAX {
            self.sessions.fetch_sub(1, Relaxed);
            return Err(Error::Busy);
        }
        if let Err(e) = self.hub.join(&session) {
            self.sessions.fetch_sub(1, Relaxed);
            return Err(e.into());
        }
        Ok(session)
    }

    /// The opening is over.
    pub(crate) fn close_session(&self, session: &Session) {
        self.hub.leave(session);
        self.sessions.fetch_sub(1, Relaxed);
    }

    /// Answers one request.
    pub(crate) fn answer(self: &Arc<Self>, session: &Session, request: Request) -> Reply {
        let greets = matches!(request, Request::Hello { .. });
        if !greets && !session.is_greeted() {
            return Reply::Error(ControlError::NotGreeted);
        }
        self.try_answer(session, request)
            .unwrap_or_else(Reply::Error)
    }

    fn try_answer(self: &Arc<Self>, session: &Session, request: Request) -> Answer {
        match request {
            Request::Hello { client } => Ok(self.hello(session, &client)),
            Request::ListCapsules => Ok(self.list()),
            Request::Start { manifest } => self.start(&manifest),
            Request::Stop {
                capsule,
                signal,
                grace_ms,
            } => self.stop(capsule, signal, grace_ms),
            Request::Kill {
                capsule,
                signal,
                scope,
            } => self.kill(capsule, signal, scope),
            Request::Exec {
                capsule,
                argv,
                env,
                timeout_ms,
            } => {
                let capsule = self.by_id(capsule).ok_or(ControlError::NotFound)?;
                let timeout = Duration::from_millis(u64::from(timeout_ms));
                let exec = self.exec(&capsule, &argv, &env, timeout)?;
                Ok(Reply::ExecStarted { exec })
            }
            Request::Inspect { capsule } => {
                let capsule = self.by_id(capsule).ok_or(ControlError::NotFound)?;
                Ok(Reply::Capsule(capsule.info()))
            }
            Request::ReadLog {
                name,
                from_offset,
                bytes_max,
            } => self.read_log(&name, from_offset, bytes_max),
            Request::Subscribe { events } => {
                session.subscribe(events);
                Ok(Reply::Done)
            }
            Request::NodeInfo => Ok(Reply::Node(Box::new(self.node_info()))),
            Request::Hardware => Ok(Reply::Hardware(Box::new(self.hardware()))),
            Request::ReadCrash => Ok(Reply::Crash(self.platform.crash())),
            Request::ClearCrash => {
                self.platform.clear_crash();
                Ok(Reply::Done)
            }
            Request::ListManifests => Ok(Reply::Manifests(self.manifests.list())),
            Request::ReadManifest { name } => {
                let bytes = self.manifests.bytes(&name).ok_or(ControlError::NotFound)?;
                Ok(Reply::Manifest(bytes.to_vec()))
            }
            Request::SaveState { bytes } => {
                *self.saved.lock() = bytes;
                Ok(Reply::Done)
            }
            Request::LoadState => Ok(Reply::State(self.saved.lock().clone())),
            Request::Pong { token } => self.pong(session, token),
            Request::StartProfile {
                seconds,
                hz,
                capsule,
            } => self.start_profile(seconds, hz, capsule),
            Request::ReadProfile => self.read_profile(),
            Request::Judge { capsule, health } => self.judge(capsule, health),
            Request::Reboot => self.go_down(false),
            Request::PowerOff => self.go_down(true),
            other => self.answer_about_identity(other),
        }
    }

    fn judge(&self, capsule: CapsuleId, health: CapsuleHealth) -> Answer {
        let capsule = self.by_id(capsule).ok_or(ControlError::NotFound)?;
        capsule.judge(health);
        Ok(Reply::Done)
    }

    /// Answers what concerns the node's own key.
    fn answer_about_identity(&self, request: Request) -> Answer {
        match request {
            Request::ProveIdentity { challenge } => {
                let proof = self.platform.prove(&challenge);
                let proof = proof.ok_or(ControlError::Unsupported)?;
                Ok(Reply::Proof(proof.0.to_vec()))
            }
            Request::KeepIdentity => match self.platform.keep_identity() {
                true => Ok(Reply::Done),
                false => Err(ControlError::Unsupported),
            },
            about_slots => self.answer_about_slots(about_slots),
        }
    }

    /// Answers what concerns the releases on the boot disk.
    fn answer_about_slots(&self, request: Request) -> Answer {
        match request {
            Request::Slots => self.slots.info(&self.disks).map(Reply::Slots),
            Request::ConfirmHealthy => self.confirm_healthy(),
            Request::UpdateBegin { head } => {
                self.slots.begin_update(&self.disks, &head)?;
                Ok(Reply::Done)
            }
            Request::UpdateWrite { offset, bytes } => {
                self.slots.write_update(&self.disks, offset, &bytes)?;
                Ok(Reply::Done)
            }
            Request::UpdateCheck => {
                let (done, total) = self.slots.check_update(&self.disks)?;
                Ok(Reply::Progress { done, total })
            }
            Request::UpdateFinish => {
                self.slots.finish_update(&self.disks)?;
                Ok(Reply::Done)
            }
            Request::InstallBegin { disk } => {
                self.slots.begin_install(&self.disks, &disk)?;
                Ok(Reply::Done)
            }
            Request::InstallStep => {
                let (done, total) = self.slots.step_install(&self.disks)?;
                Ok(Reply::Progress { done, total })
            }
            // All others are answered above.
            _ => Err(ControlError::Unsupported),
        }
    }

    fn pong(&self, session: &Session, token: u64) -> Answer {
        if !session.pong(token) {
            return Err(ControlError::Invalid(String::from("token")));
        }
        if let Some(guard) = &self.guard {
            guard.answered();
        }
        Ok(Reply::Done)
    }

    fn hello(&self, session: &Session, client: &str) -> Reply {
        session.set_greeted();
        log::info!("{} has opened the control device", client.escape_debug());
        Reply::Hello {
            kernel: String::from(KERNEL),
            boot_id: self.boot_id,
            node_name: self.config.name.clone(),
            owner_keys: self.manifests.owners().iter().map(|k| k.0).collect(),
            agent_starts: self.agent_starts.load(Relaxed),
        }
    }

    fn list(&self) -> Reply {
        let all = self.all();
        let others = all.iter().filter(|c| !c.is_system());
        let mut list: Vec<_> = others.map(|c| c.summary()).collect();
        list.sort_unstable_by_key(|s| s.capsule);
        Reply::Capsules(list)
    }

    fn accepted(&self, source: &ManifestSource) -> Result<Accepted, ControlError> {
        let checked = match source {
            ManifestSource::Bundle(name) => {
                self.manifests.get(name).ok_or(ControlError::NotFound)?
            }
            ManifestSource::Signed(bytes) => self.manifests.check(bytes),
        };
        checked.map_err(|refusal| {
            log::warn!("a manifest is refused: {}", words(&refusal));
            ControlError::Refused(refusal)
        })
    }

    fn start(self: &Arc<Self>, source: &ManifestSource) -> Answer {
        let accepted = self.accepted(source)?;
        let name = accepted.manifest.name.clone();
        match self.start_capsule(accepted, false) {
            Ok(capsule) => Ok(Reply::Started {
                capsule: capsule.id(),
                name,
                started_ns: capsule.started().map_or(0, |t| t.0),
            }),
            Err(error) => {
                if !self.is_closing() {
                    log::warn!("capsule {name} cannot be started: {}", explain(&error));
                }
                Err(error)
            }
        }
    }

    fn stop(&self, id: CapsuleId, signal: u8, grace_ms: u32) -> Answer {
        let capsule = self.by_id(id).ok_or(ControlError::NotFound)?;
        let grace = Duration::from_millis(u64::from(grace_ms));
        match capsule.stop(known_signal(signal)?, grace) {
            true => Ok(Reply::Done),
            false => Err(ControlError::NotRunning),
        }
    }

    fn kill(&self, id: CapsuleId, signal: u8, scope: KillScope) -> Answer {
        let capsule = self.by_id(id).ok_or(ControlError::NotFound)?;
        let signal = known_signal(signal)?;
        let parts = capsule.parts().filter(|_| capsule.is_running());
        let parts = parts.ok_or(ControlError::NotRunning)?;
        match scope {
            KillScope::Init => {
                parts.world.signal_init(signal);
            }
            KillScope::All => {
                parts.world.signal_all(signal);
            }
        }
        Ok(Reply::Done)
    }

    fn read_log(&self, name: &str, from: u64, max: u32) -> Answer {
        let log = self.log(name).ok_or(ControlError::NotFound)?;
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let piece = log.read(from, max).map_err(|_| ControlError::NoResources)?;
        Ok(Reply::Log {
            from_offset: piece.from,
            end_offset: piece.end,
            bytes: piece.bytes,
        })
    }

    fn node_info(&self) -> NodeInfo {
        let frames = machine::frame::stats();
        let bytes = |frames: usize| (frames as u64).saturating_mul(PAGE_SIZE as u64);
        let past = self.past.lock();
        let (mut cpu_ns, mut unknown) = (past.cpu_ns, past.unknown.clone());
        drop(past);
        cpu_ns += u64::try_from(CpuGroup::kernel().run_time().as_nanos()).unwrap_or(0);
        for capsule in self.all() {
            cpu_ns = cpu_ns.saturating_add(capsule.live_cpu_ns());
            if let Some(parts) = capsule.parts() {
                add_unknown(&mut unknown, &parts.world);
            }
        }
        let calls = unknown.iter().take(UNKNOWN_MAX);
        NodeInfo {
            kernel: String::from(KERNEL),
            uptime_ns: Instant::now().0,
            unix_ms: crate::verify::now().map(|s| s.saturating_mul(1000)),
            memory_total_bytes: bytes(frames.total),
            memory_free_bytes: bytes(frames.free),
            cpus: u32::try_from(machine::cpu::count()).unwrap_or(u32::MAX),
            cpu_busy_ns: cpu_ns,
            addresses: self.addresses(),
            unknown_calls: calls
                .map(|(number, count)| UnknownCall {
                    number: *number,
                    count: *count,
                })
                .collect(),
            boot_steps: self.boot.steps(),
            start_cause: self.start_cause(),
            watchdog: self.guard.as_ref().and_then(|g| g.info()),
            settings: self.settings.clone(),
            identity: self.platform.identity(),
        }
    }

    /// Why the machine started, as far as it shows.
    fn start_cause(&self) -> StartCause {
        if self.guard.as_ref().is_some_and(|g| g.has_fired()) {
            StartCause::Watchdog
        } else if self.platform.had_crash() {
            StartCause::Crash
        } else {
            StartCause::Other
        }
    }

    /// The node's addresses with the length of their prefix.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let config = self.net.config();
        let v4 = config.v4.iter().map(ToString::to_string);
        v4.chain(config.v6.iter().map(ToString::to_string))
            .collect()
    }

    /// Begins to take the node down. The reply reaches the 3Bot, which is stopped
    /// last.
    fn go_down(self: &Arc<Self>, power_off: bool) -> Answer {
        if power_off && !self.platform.can_power_off() {
            return Err(ControlError::Unsupported);
        }
        match self.begin_shutdown(power_off) {
            Ok(()) => Ok(Reply::Done),
            Err(_) => Err(ControlError::NoResources),
        }
    }
}

/// Adds the calls of `world` that the kernel does not have.
pub(crate) fn add_unknown(sums: &mut BTreeMap<u32, u64>, world: &process::World) {
    for (number, count) in world.unknown_calls().iter() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        *sums.entry(number).or_insert(0) += u64::from(count);
    }
}

fn known_signal(number: u8) -> Result<Signal, ControlError> {
    Signal::new(usize::from(number)).ok_or_else(|| ControlError::Invalid(String::from("signal")))
}
