//! Running other programs.

use anyhow::{Context as _, Result, bail};
use std::process::Command;

/// Runs a program to its end and returns what it printed; a failure becomes an
/// error with what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let program = name(command);
    let output = command
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program whose words go to the terminal; fails when it does.
pub fn run(command: &mut Command) -> Result<()> {
    let program = name(command);
    let status = command
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!("{program} failed ({status})");
    }
    Ok(())
}

fn name(command: &Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.get_args().next() {
        Some(first) => format!("{program} {}", first.to_string_lossy()),
        None => program,
    }
}

#[cfg(test)]
mod tests {
    use super::{output, run};
    use std::process::Command;

    #[test]
    fn failure_carries_what_the_program_said() {
        let mut command = Command::new("sh");
        let error = output(command.args(["-c", "echo why >&2; exit 3"])).unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
        assert!(run(&mut Command::new("/nonexistent/program")).is_err());
    }
}
