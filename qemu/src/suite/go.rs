//! Go's own tests of its standard library, compiled on the host by Debian's Go.

use super::{Case, End, Entry, Outcome, Ran, Suite, host::Parts, layer::Layer};
use crate::{command::output, seconds, twin::Packages};
use anyhow::{Context as _, Result, ensure};
use std::{fs, process::Command};

/// Packages that compile the tests.
const COMPILER: &[&str] = &["golang-go", "dash", "coreutils", "grep", "tar"];
/// Packages that the tests run, and whose files they read.
const PACKAGES: &[&str] = &[
    "golang-1.19-src",
    "base-files",
    "bash",
    "dash",
    "coreutils",
    "netbase",
    "hostname",
];
/// The tested packages.
const TESTED: &str = "bufio io net os os/exec os/signal runtime syscall time";
/// Where the tests and the library's sources are.
const TESTS: &str = "/opt/go-tests";
const SOURCES: &str = "/usr/share/go-1.19/src";
/// Prints an archive of test programs and of lists of their tests.
const BUILD: &str = "cd /usr/share/go-1.19/src; mkdir -p /tmp/opt/go-tests
export GOCACHE=/tmp/cache CGO_ENABLED=0 GOFLAGS=-mod=mod GO111MODULE=off
for package in $TESTED; do
    test=/tmp/opt/go-tests/$(echo $package | tr / .)
    go test -c -vet=off -tags timetzdata -o $test $package >/tmp/log 2>&1 || { cat /tmp/log; exit 1; }
    (cd $package; $test -test.list . | grep -E '^(Test|Example)' >$test.list)
done
tar -C /tmp -c opt";
/// How long a test may take.
const SECONDS: u64 = 120;

/// The suite of this machine's Debian.
pub fn suite() -> Result<Suite> {
    let layer = compiled()?;
    let mut entries = Vec::new();
    for package in TESTED.split_whitespace() {
        let name = package.replace('/', ".");
        let list = layer.path().join(format!("opt/go-tests/{name}.list"));
        let list = fs::read_to_string(&list)?;
        let tests = list.lines();
        entries.extend(tests.map(|test| entry(package, &name, test)));
    }
    ensure!(!entries.is_empty(), "there are no tests");
    Parts {
        name: "go",
        packages: Packages::pack("suite-go", PACKAGES)?,
        layer,
        // With flags for the compiler set, tests do not ask for a compiler.
        environment: &[("LANG", "C.UTF-8"), ("GO_GCFLAGS", "-N")],
        memory_mib: 1024,
        entries,
        judge,
    }
    .suite()
}

/// The test programs, compiled once.
fn compiled() -> Result<Layer> {
    let layer = Layer::of("go");
    let stamp = layer.path().with_extension("built");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == BUILD) {
        return Ok(layer);
    }
    let layer = Layer::empty("go")?;
    let compiler = Packages::pack("suite-go-build", COMPILER)?;
    let script = BUILD.replace("$TESTED", TESTED);
    let words = ["/bin/sh", "-c", &script];
    let ran = compiler.run_on_the_host(None, b"", &words, seconds(3000))?;
    let archive = layer.path().with_extension("tar");
    fs::write(&archive, &ran.stdout)?;
    let said = String::from_utf8_lossy(&ran.stdout);
    let said: String = said.chars().take(2000).collect();
    ensure!(ran.status.success(), "Go's tests do not compile: {said}");
    let mut unpack = Command::new("tar");
    unpack.arg("-C").arg(layer.path()).arg("-xf").arg(&archive);
    output(&mut unpack).context("no archive of tests")?;
    fs::remove_file(&archive)?;
    fs::write(&stamp, BUILD)?;
    Ok(layer)
}

fn entry(package: &str, name: &str, test: &str) -> Entry {
    Entry {
        name: format!("{package}.{test}"),
        command: format!(
            "cd {SOURCES}/{package} && exec {TESTS}/{name} -test.v -test.short -test.run '^{test}$'"
        ),
        seconds: SECONDS,
    }
}

fn judge(entry: &Entry, ran: &Ran) -> Vec<Case> {
    let line = |word: &str| ran.output.lines().find(|line| line.trim().contains(word));
    let (outcome, note) = match ran.end {
        // Of the test itself, not of one of its parts.
        End::Exit(0) if ran.output.lines().any(|l| l.starts_with("--- SKIP: ")) => {
            (Outcome::Skipped, line("_test.go:"))
        }
        End::Exit(0) => (Outcome::Pass, None),
        _ => {
            let said = line("_test.go:")
                .or_else(|| line("panic"))
                .or_else(|| line("fatal"));
            (Outcome::of(&ran.end), said)
        }
    };
    vec![Case::new(&entry.name, outcome, note.unwrap_or_default())]
}

#[cfg(test)]
mod tests {
    use super::{End, Outcome, Ran, entry, judge};
    use std::time::Duration;

    #[test]
    fn a_test_is_skipped_as_a_whole() {
        let outcome = |end, output: &str| {
            let ran = Ran {
                end,
                output: output.to_string(),
                time: Duration::ZERO,
            };
            let case = judge(&entry("os", "os", "TestA"), &ran).remove(0);
            (case.outcome, case.note)
        };
        let part = "=== RUN   TestA\n--- PASS: TestA (0.0s)\n    --- SKIP: TestA/b (0.0s)\nPASS\n";
        assert_eq!(outcome(End::Exit(0), part), (Outcome::Pass, String::new()));
        let whole = "--- SKIP: TestA (0.0s)\n    os_test.go:1: why\nPASS\n";
        let why = "os_test.go:1: why".to_string();
        assert_eq!(
            outcome(End::Exit(0), whole),
            (Outcome::Skipped, why.clone())
        );
        let failed = "--- FAIL: TestA (0.0s)\n    os_test.go:1: why\nFAIL\n";
        assert_eq!(outcome(End::Exit(1), failed), (Outcome::Fail, why));
    }
}
