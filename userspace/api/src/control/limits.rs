//! The limits of each request, checked in one place.

use alloc::string::String;
use alloc::vec::Vec;

use crate::identity::{CHALLENGE_BYTES_MAX, CHALLENGE_BYTES_MIN};

use super::{
    ControlError, EXEC_BYTES_MAX, EXEC_STRINGS_MAX, EXEC_TIMEOUT_MS_MAX, MANIFEST_BYTES_MAX,
    ManifestSource, NAME_BYTES_MAX, PROFILE_HZ_MAX, PROFILE_SECONDS_MAX, Request, STATE_BYTES_MAX,
    STOP_GRACE_MS_MAX,
};

/// The highest Linux signal number.
const SIGNAL_MAX: u8 = 64;

/// Refuses a request with a field beyond its documented limits.
pub(super) fn check(request: &Request) -> Result<(), ControlError> {
    match request {
        Request::Hello { client } => at_most("client", client.len(), NAME_BYTES_MAX),
        Request::Start {
            manifest: ManifestSource::Bundle(name),
        }
        | Request::ReadManifest { name }
        | Request::ReadLog { name, .. } => at_most("name", name.len(), NAME_BYTES_MAX),
        Request::Start {
            manifest: ManifestSource::Signed(bytes),
        } => at_most("manifest", bytes.len(), MANIFEST_BYTES_MAX),
        Request::Stop {
            signal, grace_ms, ..
        } => {
            check_signal(*signal)?;
            at_most("grace_ms", *grace_ms as usize, STOP_GRACE_MS_MAX as usize)
        }
        Request::Kill { signal, .. } => check_signal(*signal),
        Request::Exec {
            argv,
            env,
            timeout_ms,
            ..
        } => check_exec(argv, env, *timeout_ms),
        Request::Subscribe { events } if !events.is_known() => {
            Err(ControlError::Invalid(String::from("events")))
        }
        Request::ProveIdentity { challenge } if challenge.len() < CHALLENGE_BYTES_MIN => {
            Err(ControlError::Invalid(String::from("challenge")))
        }
        Request::ProveIdentity { challenge } => {
            at_most("challenge", challenge.len(), CHALLENGE_BYTES_MAX)
        }
        Request::SaveState { bytes } => at_most("bytes", bytes.len(), STATE_BYTES_MAX),
        Request::StartProfile { seconds, hz, .. } => {
            if *seconds == 0 {
                return Err(ControlError::Invalid(String::from("seconds")));
            }
            at_most("seconds", (*seconds).into(), PROFILE_SECONDS_MAX.into())?;
            at_most("hz", (*hz).into(), PROFILE_HZ_MAX.into())
        }
        _ => Ok(()),
    }
}

fn at_most(field: &str, value: usize, max: usize) -> Result<(), ControlError> {
    if value > max {
        Err(ControlError::TooLarge(String::from(field)))
    } else {
        Ok(())
    }
}

fn check_signal(signal: u8) -> Result<(), ControlError> {
    if (1..=SIGNAL_MAX).contains(&signal) {
        Ok(())
    } else {
        Err(ControlError::Invalid(String::from("signal")))
    }
}

fn check_exec(argv: &[String], env: &[String], timeout_ms: u32) -> Result<(), ControlError> {
    let invalid = |field: &str| Err(ControlError::Invalid(String::from(field)));
    if argv.first().is_none_or(String::is_empty) {
        return invalid("argv");
    }
    at_most("argv", argv.len(), EXEC_STRINGS_MAX)?;
    at_most("env", env.len(), EXEC_STRINGS_MAX)?;
    let strings: Vec<&String> = argv.iter().chain(env).collect();
    at_most(
        "argv",
        strings.iter().map(|s| s.len()).sum(),
        EXEC_BYTES_MAX,
    )?;
    if strings.iter().any(|s| s.contains('\0')) {
        return invalid("argv");
    }
    if timeout_ms == 0 {
        return invalid("timeout_ms");
    }
    at_most(
        "timeout_ms",
        timeout_ms as usize,
        EXEC_TIMEOUT_MS_MAX as usize,
    )
}
