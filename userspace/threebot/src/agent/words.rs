//! What the kernel says, in words for people.

use skep_api::control::{ExitCause, ExitStatus, ExitSummary, LimitKind, Refusal};

use crate::supervisor::Exit;

/// How a capsule ended.
pub fn exit(summary: &ExitSummary) -> Exit {
    let status = match summary.status {
        ExitStatus::Code(code) => format!("exit code {code}"),
        ExitStatus::Signal(signal) => format!("killed by {}", signal_name(signal)),
    };
    let how = match summary.cause {
        ExitCause::Own | ExitCause::Stopped => status,
        ExitCause::OutOfMemory => "out of memory".to_owned(),
    };
    let clean = summary.status == ExitStatus::Code(0);
    Exit {
        at: summary.time_ns / 1_000_000,
        how,
        clean,
    }
}

/// Why a manifest or image was refused.
pub fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Malformed(what) => format!("malformed: {what}"),
        Refusal::UnknownVersion(version) => format!("unknown format version {version}"),
        Refusal::UnknownKey => "signed by a key that does not own this node".to_owned(),
        Refusal::BadSignature => "the signature does not fit".to_owned(),
        Refusal::Expired { since_unix_ms } => {
            format!("expired at {} (seconds since 1970)", since_unix_ms / 1000)
        }
        Refusal::NotYetValid { from_unix_ms } => {
            format!(
                "not valid before {} (seconds since 1970)",
                from_unix_ms / 1000
            )
        }
        Refusal::OldSequence(newest) => format!("older than number {newest}, seen before"),
        Refusal::Unsupported(what) => format!("not supported: {what}"),
        Refusal::PortTaken(port) => format!("node port {port} is taken"),
        Refusal::BlobMissing(hash) => format!("a file is missing: {}", short(hash)),
        Refusal::BlobCorrupt(hash) => format!("a file is corrupt: {}", short(hash)),
        Refusal::DeviceMissing(device) => format!("this node has no device {device} to give"),
        Refusal::DeviceTaken { device, holder } => {
            format!("device {device} is held by the capsule {holder}")
        }
    }
}

/// The limit that a capsule ran into.
pub fn limit(limit: LimitKind) -> &'static str {
    match limit {
        LimitKind::Memory => "memory",
        LimitKind::Cpu => "processor time",
        LimitKind::Processes => "processes",
        LimitKind::Files => "open files",
        LimitKind::Sockets => "sockets",
    }
}

/// The first digits of a hash: enough to find it.
pub fn short(hash: &[u8; 32]) -> String {
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>()
        + "…"
}

/// The name of a Linux signal.
pub fn signal_name(signal: u8) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        18 => "SIGCONT",
        19 => "SIGSTOP",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}
