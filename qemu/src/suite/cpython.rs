//! CPython's own tests, as Debian packages them.

use super::{Case, End, Entry, Outcome, Ran, Suite, host::Parts, layer::Layer};
use crate::twin::Packages;
use anyhow::Result;

/// Packages with the tests and what they run.
const PACKAGES: &[&str] = &[
    "libpython3.11-testsuite",
    "python3.11",
    "base-files",
    "openssl",
    "dash",
    "coreutils",
    "netbase",
    "libc-bin",
];
/// Runs modules, and says what became of every test method.
const SCRIPT: &str = include_str!("../../tests/suites/cpython.py");
/// The modules of what the kernel provides.
const MODULES: &str = "test_asyncio.test_base_events test_asyncio.test_buffered_proto \
    test_asyncio.test_context test_asyncio.test_events test_asyncio.test_futures \
    test_asyncio.test_futures2 test_asyncio.test_locks test_asyncio.test_pep492 \
    test_asyncio.test_protocols test_asyncio.test_queues test_asyncio.test_runners \
    test_asyncio.test_selector_events test_asyncio.test_sendfile test_asyncio.test_server \
    test_asyncio.test_sock_lowlevel test_asyncio.test_ssl test_asyncio.test_sslproto \
    test_asyncio.test_streams test_asyncio.test_subprocess test_asyncio.test_taskgroups \
    test_asyncio.test_tasks test_asyncio.test_threads test_asyncio.test_timeouts \
    test_asyncio.test_transports test_asyncio.test_unix_events test_asyncio.test_waitfor \
    test_concurrent_futures test_eintr test_epoll test_faulthandler test_fcntl test_file \
    test_fileio test_fork1 test_httpservers test_io test_ioctl test_largefile test_mailbox \
    test_mmap test_multiprocessing_fork test_multiprocessing_forkserver \
    test_multiprocessing_main_handling test_multiprocessing_spawn test_openpty test_os \
    test_pathlib test_poll test_popen test_posix test_pty test_pwd test_resource test_select \
    test_selectors test_shutil test_signal test_socket test_socketserver test_ssl \
    test_subprocess test_tarfile test_tempfile test_thread test_threading test_time \
    test_wait3 test_wait4";
/// How long a module may take; the script ends single tests earlier.
const SECONDS: u64 = 2400;

/// The suite of this machine's Debian.
pub fn suite() -> Result<Suite> {
    let layer = Layer::empty("cpython")?;
    layer.add("/suite.py", 0o755, SCRIPT.as_bytes())?;
    let entries = MODULES.split_whitespace().map(|module| Entry {
        name: module.to_string(),
        command: format!("exec python3.11 /suite.py {module}"),
        seconds: SECONDS,
    });
    Parts {
        name: "cpython",
        packages: Packages::pack("suite-cpython", PACKAGES)?,
        layer,
        environment: &[("LANG", "C.UTF-8")],
        memory_mib: 1024,
        entries: entries.collect(),
        judge,
    }
    .suite()
}

/// A case for each line of the script, and one for a script that did not end well.
fn judge(entry: &Entry, ran: &Ran) -> Vec<Case> {
    let mut cases: Vec<_> = ran.output.lines().filter_map(case).collect();
    if ran.end != End::Exit(0) {
        let last = ran.output.lines().last().unwrap_or_default();
        cases.push(Case::new(&entry.name, Outcome::of(&ran.end), last));
    }
    cases
}

fn case(line: &str) -> Option<Case> {
    let mut fields = line.strip_prefix("@\t")?.split('\t');
    let (name, word) = (fields.next()?, fields.next()?);
    let outcome = match word {
        "pass" => Outcome::Pass,
        "skip" => Outcome::Skipped,
        "late" => Outcome::Late,
        "killed" => Outcome::Killed,
        _ => Outcome::Fail,
    };
    // A traceback says last what is wrong.
    let seen = fields.next().unwrap_or_default();
    let tail = seen.char_indices().rev().nth(99).map_or(0, |(at, _)| at);
    Some(Case::new(name, outcome, seen.get(tail..)?))
}

#[cfg(test)]
mod tests {
    use super::{End, Entry, Outcome, Ran, judge};
    use std::time::Duration;

    #[test]
    fn lines_of_the_script_are_cases() {
        let entry = Entry {
            name: "test_os".to_string(),
            command: String::new(),
            seconds: 1,
        };
        let output = "noise\n@\ttest_os.A.b\tpass\t\n@\ttest_os.A.c\tfail\tTraceback 1 != 2\n";
        let mut ran = Ran {
            end: End::Exit(0),
            output: output.to_string(),
            time: Duration::ZERO,
        };
        let cases = judge(&entry, &ran);
        let outcomes: Vec<_> = cases.iter().map(|case| case.outcome).collect();
        assert_eq!(outcomes, [Outcome::Pass, Outcome::Fail]);
        assert_eq!(cases[1].note, "Traceback 1 != 2");
        ran.end = End::Late;
        assert_eq!(judge(&entry, &ran).len(), 3);
    }
}
