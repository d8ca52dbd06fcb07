//! Programs run beside a capsule's own.

use std::process::Stdio;
use std::time::Duration;

use skep_api::control::{CapsuleId, ControlError, Event, Reply};
use tokio::process::Command;
use tokio::task::spawn_local;

use super::HostRuntime;
use super::capsule::{exec_failed, exit_status};

pub(super) fn exec(
    host: &HostRuntime,
    capsule: CapsuleId,
    argv: &[String],
    env: &[String],
    timeout_ms: u32,
) -> Result<Reply, ControlError> {
    let name = host.name_of(capsule)?;
    let mut command = {
        let machine = host.machine.borrow();
        let capsule = machine.capsules.get(&name).ok_or(ControlError::NotFound)?;
        if !capsule.is_alive() {
            return Err(ControlError::NotRunning);
        }
        let mut command = Command::new(argv.first().map(String::as_str).unwrap_or_default());
        let own = capsule.manifest.environment.iter();
        command
            .args(argv.iter().skip(1))
            .env_clear()
            .envs(own.map(|(name, value)| (name, value)));
        command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
        command
    };
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| exec_failed(&error))?;
    let exec = host.exec_id();
    let host = host.clone();
    spawn_local(async move {
        let limit = Duration::from_millis(timeout_ms.into());
        let ended = tokio::time::timeout(limit, child.wait()).await;
        let status = ended.ok().and_then(Result::ok).and_then(exit_status);
        host.emit(None, Event::ExecFinished { exec, status });
    });
    Ok(Reply::ExecStarted { exec })
}
