//! `/proc/PID/stat`.

use crate::schedule::Schedule;
use crate::{Pid, Process, Thread};
use core::fmt::{self, Write};
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;
use vfs::pseudo::Text;

/// The letter of a process's or thread's state, and its name.
pub(super) fn state(process: &Process, thread: Option<&Thread>) -> (char, &'static str) {
    let parked = |t: &Thread| t.machine().is_some_and(|m| m.is_parked());
    match thread {
        None => ('Z', "zombie"),
        Some(t) if t.is_trace_stopped() => ('t', "tracing stop"),
        _ if process.is_stopped() => ('T', "stopped"),
        Some(t) if parked(t) => ('S', "sleeping"),
        Some(_) => ('R', "running"),
    }
}

/// Clock ticks of a hundredth of a second.
pub(super) fn ticks(d: Duration) -> u128 {
    d.as_millis() / 10
}

pub(super) fn stat(
    process: &Process,
    thread: Option<&Thread>,
    tid: Option<Pid>,
    out: &mut Text,
) -> fmt::Result {
    let comm = thread.map_or_else(|| process.comm(), Thread::comm);
    let own = match (tid, thread) {
        (Some(_), Some(t)) => t.counted(),
        _ => process.counted(),
    };
    let children = process.children_counted();
    let (group, session) = (process.group().unwrap_or(0), process.session().unwrap_or(0));
    let (terminal, foreground) = process
        .terminal()
        .map_or((0, -1), |t| (t.device(), i64::from(t.foreground())));
    write!(
        out,
        "{} ({comm}) {} {} {group} {session} {terminal} {foreground} 4194304 {} {} 0 0 ",
        tid.unwrap_or(process.pid()),
        state(process, thread).0,
        process.ppid(),
        own.faults,
        children.faults,
    )?;
    for d in [
        own.times.user,
        own.times.system,
        children.times.user,
        children.times.system,
    ] {
        write!(out, "{} ", ticks(d))?;
    }
    let started = ticks(Duration::from_nanos(process.started().0));
    let schedule = thread.map_or(Schedule::FIRST, Thread::schedule);
    let nice = schedule.nice;
    write!(
        out,
        "{} {nice} {} 0 {started} ",
        20 + nice,
        process.thread_count()
    )?;
    sizes(process, thread, out)?;
    signals(process, thread, out)?;
    let cpu = thread.and_then(Thread::machine).map_or(0, |m| m.last_cpu());
    write!(
        out,
        "0 0 0 {} {cpu} 0 {} 0 0 0 ",
        process.exit_signal.load(Relaxed),
        schedule.policy.number(),
    )?;
    let program = process.program();
    let heap = thread
        .and_then(|t| t.space.get())
        .map_or(0, |s| s.heap().start);
    writeln!(
        out,
        "0 0 {heap} {} {} {} {} {}",
        program.arguments.0,
        program.arguments.1,
        program.environment.0,
        program.environment.1,
        process
            .exit_status()
            .map_or(0, |s| crate::Change::Ended(s).word()),
    )
}

/// Virtual size, resident pages, limit, and addresses that are not told.
fn sizes(process: &Process, thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    use crate::limits::Resource;
    let stats = thread.and_then(|t| t.space.get()).map(|s| s.stats());
    let stats = stats.unwrap_or_default();
    let limit = process.limits().soft(Resource::ResidentSet);
    write!(
        out,
        "{} {} {limit} 0 0 0 0 0 ",
        stats.mapped * machine::addr::PAGE_SIZE,
        stats.resident,
    )
}

/// Pending, blocked, ignored and caught signals, of the first 31.
fn signals(process: &Process, thread: Option<&Thread>, out: &mut Text) -> fmt::Result {
    let first = |set: crate::signal::SigSet| set.0 & 0x7fff_ffff;
    let (pending, blocked) = thread.map_or((0, 0), |t| {
        (first(t.pending_signals()), first(t.signals.blocked()))
    });
    let (ignored, caught) = process
        .actions()
        .map_or((0, 0), |a| (first(a.ignored()), first(a.caught())));
    write!(out, "{pending} {blocked} {ignored} {caught} ")
}
