//! Programs whose words go to a log.

use anyhow::{Context as _, Result, bail};
use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

/// Lines of a failed program's log that are shown.
const TAIL_LINES: usize = 40;

/// Runs a program with its words going to `file`, which is `log`, and shows their end
/// when it fails.
pub(crate) fn logged(command: &mut Command, file: &File, log: &Path) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .env("CARGO_TERM_COLOR", "never")
        .env("TERM", "dumb")
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file.try_clone()?)
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<_> = said.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n      ");
    bail!("{} ends:\n      {tail}", log.display())
}
