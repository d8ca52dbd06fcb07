//! Running the program, as a user would.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "every test binary uses its own part"
)]

use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder to work in, with an owner's key.
pub fn workplace() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    ok(folder.path(), &["keygen", "-o", "owner.key"]);
    folder
}

/// Runs `skep` in a folder.
pub fn skep(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_skep"));
    for name in [
        "SKEP_NODE",
        "SKEP_NODE_NAME",
        "SKEP_KEY",
        "SKEP_SYSTEM",
        "SOURCE_DATE_EPOCH",
    ] {
        command.env_remove(name);
    }
    command.env("SKEP_NODES", "nodes.toml");
    command.current_dir(folder).args(args).output().unwrap()
}

/// Its standard output, after success.
pub fn ok(folder: &Path, args: &[&str]) -> String {
    let output = skep(folder, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "skep {args:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Its message, after failure: one line, and no panic.
pub fn fails(folder: &Path, args: &[&str]) -> String {
    let output = skep(folder, args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "skep {args:?}: {errors}");
    assert!(errors.starts_with("skep: "), "{errors}");
    errors
}
