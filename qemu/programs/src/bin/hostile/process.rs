//! Children that may die of what they do.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// It did not end in its time, and was killed.
    Late,
    /// It did not end when it was killed.
    Unkillable,
}

/// How long a process may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// Runs `work` in a child, which ends with the status it returns.
pub(crate) fn in_child(limit: Duration, work: impl FnOnce() -> i32) -> Result<End, String> {
    Ok(wait(start(work)?, limit))
}

/// Starts a child that does `work` and ends with the status it returns.
pub(crate) fn start(work: impl FnOnce() -> i32) -> Result<i32, String> {
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        0 => {
            let status = work();
            // SAFETY: `_exit` has no conditions.
            unsafe { libc::_exit(status) }
        }
        child if child > 0 => Ok(child),
        _ => Err(format!("fork: {}", std::io::Error::last_os_error())),
    }
}

/// A child that has ended and is now taken away, if there is one.
pub(crate) fn ended_child() -> Option<i32> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        let found = unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG | libc::__WALL) };
        if found <= 0 {
            return None;
        }
        if !libc::WIFSTOPPED(status) {
            return Some(found);
        }
        go_on(found, status);
    }
}

/// Lets a child that has asked to be traced go on as if nobody did.
fn go_on(child: i32, status: i32) {
    // SAFETY: the memory of this process is not touched.
    unsafe {
        let (none, signal) = (std::ptr::null_mut::<u8>(), libc::WSTOPSIG(status));
        libc::ptrace(libc::PTRACE_CONT, child, none, i64::from(signal));
    }
}

fn wait(child: i32, limit: Duration) -> End {
    if let Some(end) = ended(child, Instant::now() + limit) {
        return end;
    }
    // SAFETY: `kill` touches no memory.
    unsafe { libc::kill(child, libc::SIGKILL) };
    match ended(child, Instant::now() + DEATH) {
        Some(_) => End::Late,
        None => End::Unkillable,
    }
}

fn ended(child: i32, deadline: Instant) -> Option<End> {
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writing.
        let found = unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) };
        if found == child && libc::WIFSIGNALED(status) {
            return Some(End::Signal(libc::WTERMSIG(status)));
        }
        if found == child && libc::WIFSTOPPED(status) {
            go_on(child, status);
            continue;
        }
        if found == child {
            return Some(End::Status(libc::WEXITSTATUS(status)));
        }
        if found < 0 {
            // Somebody else has taken it away: a child of ours may have told it to.
            return Some(End::Status(0));
        }
        if Instant::now() >= deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// Kills every process but this one, the first, and takes away what is left of them.
/// Fails, naming those that are left, if that takes longer than ten seconds.
pub(crate) fn kill_all_others() -> Result<(), String> {
    let deadline = Instant::now() + DEATH;
    loop {
        // SAFETY: neither touches memory.
        let left = unsafe {
            libc::kill(-1, libc::SIGKILL);
            libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG | libc::__WALL)
        };
        if left < 0 {
            return Ok(());
        }
        if left == 0 {
            if Instant::now() >= deadline {
                return Err(format!("cannot be killed: {}", others()));
            }
            thread::sleep(POLL);
        }
    }
}

/// The other processes: their threads as `/proc` shows them.
fn others() -> String {
    let mut words = String::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let tasks = fs::read_dir(entry.path().join("task"));
        for task in tasks.into_iter().flatten().flatten() {
            let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let stat = read("stat");
            if !stat.starts_with("1 ") && entry.file_name() != "self" {
                let start: String = stat.chars().take(60).collect();
                words += &format!("[{start} | {}] ", read("syscall").trim());
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{End, in_child};
    use std::time::Duration;

    #[test]
    fn the_end_of_a_child_is_seen() {
        let limit = Duration::from_secs(20);
        assert_eq!(in_child(limit, || 3), Ok(End::Status(3)));
        // SAFETY: a signal to itself.
        let killed = in_child(limit, || unsafe {
            libc::kill(libc::getpid(), libc::SIGTERM)
        });
        assert_eq!(killed, Ok(End::Signal(libc::SIGTERM)));
        let late = in_child(Duration::from_millis(20), || {
            std::thread::sleep(Duration::from_secs(60));
            0
        });
        assert_eq!(late, Ok(End::Late));
    }
}
