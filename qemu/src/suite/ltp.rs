//! The Linux Test Project's tests of system calls (`runtest/syscalls`).

use super::{
    Case, End, Entry, Outcome, Ran, Suite,
    layer::{Files, collect},
};
use crate::twin::Packages;
use anyhow::{Context as _, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where LTP is installed unless `SKEP_LTP` says so, and where it is in the capsule.
const PREFIX: &str = "/opt/ltp";
/// Packages with what the tests run and link.
const PACKAGES: &[&str] = &[
    "base-files",
    "bash",
    "dash",
    "coreutils",
    "grep",
    "procps",
    "util-linux",
    "libc-bin",
    "netbase",
];
/// How long an entry may take; LTP itself ends most tests after `LTP_TIMEOUT_MUL` times
/// half a minute, and shortens those that run for a time of their own choice.
const SECONDS: u64 = 150;
const ENVIRONMENT: &[(&str, &str)] = &[
    ("LTPROOT", PREFIX),
    (
        "PATH",
        "/opt/ltp/testcases/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    ("HOME", "/tmp"),
    ("TMPDIR", "/tmp"),
    ("LANG", "C"),
    ("KCONFIG_SKIP_CHECK", "1"),
    ("LTP_COLORIZE_OUTPUT", "n"),
    ("LTP_TIMEOUT_MUL", "2"),
    ("LTP_RUNTIME_MUL", "0.2"),
    // An emulated machine: what measures time allows for more.
    ("LTP_VIRT_OVERRIDE", "kvm"),
];
/// Exit codes of LTP's tests are sums of these; 32 alone is a skipped test.
const TFAIL: i32 = 1;
const TCONF: i32 = 32;

/// LTP as it is installed on this machine.
pub fn suite() -> Result<Suite> {
    let prefix = std::env::var_os("SKEP_LTP").map_or_else(|| PathBuf::from(PREFIX), PathBuf::from);
    let list = prefix.join("runtest/syscalls");
    let list = fs::read_to_string(&list).with_context(|| {
        format!(
            "{} is missing: get https://github.com/linux-test-project/ltp, run `make autotools`, \
             `./configure --prefix={PREFIX}`, `make -C testcases/kernel/syscalls install` and \
             `make -C runtest install`, or set SKEP_LTP to where it is installed",
            list.display()
        )
    })?;
    let mut files = Files::new();
    collect(
        &prefix,
        &prefix.join("testcases"),
        Path::new(PREFIX),
        &mut files,
    )?;
    let files: Vec<(&str, u16, &[u8])> = files
        .iter()
        .map(|(path, mode, data)| (path.as_str(), *mode, data.as_slice()))
        .collect();
    Ok(Suite {
        name: "ltp",
        image: Packages::pack("ltp", PACKAGES)?.image(&files)?,
        environment: ENVIRONMENT
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        memory_mib: 1024,
        entries: entries(&list)?,
        judge,
        host: None,
    })
}

/// The entries of a file of `runtest/`: a name and a command in every line.
fn entries(list: &str) -> Result<Vec<Entry>> {
    let lines = list.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entries: Vec<_> = lines
        .filter_map(|line| line.split_once(char::is_whitespace))
        .map(|(name, command)| Entry {
            name: name.to_string(),
            command: format!("exec {}", command.trim()),
            seconds: SECONDS,
        })
        .collect();
    ensure!(!entries.is_empty(), "the list of tests is empty");
    Ok(entries)
}

fn judge(entry: &Entry, ran: &Ran) -> Vec<Case> {
    let outcome = match ran.end {
        End::Exit(TCONF) => Outcome::Skipped,
        End::Exit(code) if code != 0 && code & TFAIL == 0 => Outcome::Broken,
        // The shell's code for a program that is not there.
        End::Exit(127) => Outcome::Broken,
        _ => Outcome::of(&ran.end),
    };
    vec![Case::new(&entry.name, outcome, reason(&ran.output))]
}

/// The first words by which a test says why it did not pass.
fn reason(output: &str) -> &str {
    let said = ["TFAIL", "TBROK", "TCONF", "TWARN"]
        .iter()
        .filter_map(|word| output.find(word));
    let start = said.min().unwrap_or_default();
    let line = output.get(start..).unwrap_or_default().lines().next();
    line.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{End, Outcome, Ran, entries, judge};
    use std::time::Duration;

    #[test]
    fn exit_codes_are_sums_of_what_was_found() {
        let entry = &entries("# all\n\nopen01 open01 -x").unwrap()[0];
        assert_eq!(entry.command, "exec open01 -x");
        let outcome = |end| {
            let ran = Ran {
                end,
                output: "open.c:1: TPASS: one\nopen.c:7: TFAIL: not two\n".to_string(),
                time: Duration::ZERO,
            };
            let case = judge(entry, &ran).remove(0);
            (case.outcome, case.note)
        };
        let note = "TFAIL: not two".to_string();
        assert_eq!(outcome(End::Exit(0)), (Outcome::Pass, String::new()));
        assert_eq!(outcome(End::Exit(3)), (Outcome::Fail, note.clone()));
        assert_eq!(outcome(End::Exit(2)), (Outcome::Broken, note.clone()));
        assert_eq!(outcome(End::Exit(127)), (Outcome::Broken, note.clone()));
        assert_eq!(outcome(End::Exit(32)), (Outcome::Skipped, note.clone()));
        assert_eq!(outcome(End::Signal(11)), (Outcome::Killed, note));
    }
}
