//! Children that may die of what they do.

use std::{
    thread,
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
    // SAFETY: this program has one thread, so the child may do anything.
    match unsafe { libc::fork() } {
        0 => {
            let status = work();
            // SAFETY: `_exit` has no conditions.
            unsafe { libc::_exit(status) }
        }
        child if child > 0 => Ok(wait(child, limit)),
        _ => Err(format!("fork: {}", std::io::Error::last_os_error())),
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
            // It has asked to be traced; it goes on as if nobody did.
            // SAFETY: the memory of this process is not touched.
            unsafe {
                let (none, signal) = (std::ptr::null_mut::<u8>(), libc::WSTOPSIG(status));
                libc::ptrace(libc::PTRACE_CONT, child, none, i64::from(signal));
            }
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
/// Whether that worked within ten seconds.
pub(crate) fn kill_all_others() -> bool {
    let deadline = Instant::now() + DEATH;
    loop {
        // SAFETY: neither touches memory.
        let left = unsafe {
            libc::kill(-1, libc::SIGKILL);
            libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG)
        };
        if left < 0 {
            return true;
        }
        if left == 0 {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL);
        }
    }
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
