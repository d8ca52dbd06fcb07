//! Programs from elsewhere print on a node what they print on Linux.

use anyhow::{Context as _, Result, ensure};
use skep_api::manifest::RestartPolicy;
use skep_qemu::{
    Artifacts, Machine, command,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, manifest},
    seconds,
};
use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

/// Environment of the programs, on the node and on the host.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/tmp"),
    ("LANG", "C.UTF-8"),
    ("TZ", "UTC"),
];

/// What a program prints on the host, in a fresh folder.
fn on_the_host(program: &str, words: &[&str]) -> Result<String> {
    let folder = TempFolder::new()?;
    let mut host = Command::new(program);
    host.args(words)
        .env_clear()
        .envs(ENVIRONMENT)
        .env("TMPDIR", folder.path());
    command::output(host.current_dir(folder.path()))
}

/// What a capsule of this image prints; it must end with status 0.
fn on_a_node(name: &str, image: &Image, command: &[&str]) -> Result<String> {
    let mut ramdisk = Ramdisk::new()?;
    let mut program = manifest("program", image, command);
    program.environment = ENVIRONMENT
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .to_vec();
    program
        .environment
        .push(("TMPDIR".to_string(), "/tmp".to_string()));
    program.working_directory = "/tmp".to_string();
    program.restart.policy = RestartPolicy::Never;
    ramdisk.capsule(&program, image)?;
    let path = ramdisk.write(name)?;
    let mut node = Machine::new(name).cpus(2).ramdisk(&path).start()?;
    node.wait_http(8080, "/", seconds(60))?;
    let ended = node.api().wait_finished("program", seconds(180));
    let log = node.api().log("program")?;
    let how = ended.with_context(|| format!("it printed: {log}"))?;
    ensure!(
        how == "exit code 0",
        "it ended with {how} and printed: {log}"
    );
    Ok(log)
}

/// Fails with the first line that differs.
fn ensure_same(node: &str, host: &str) -> Result<()> {
    let (mut ours, mut theirs) = (node.lines(), host.lines());
    for number in 1.. {
        match (ours.next(), theirs.next()) {
            (None, None) => break,
            (our, their) => ensure!(
                our == their,
                "line {number}: the node prints {our:?}, the host {their:?}"
            ),
        }
    }
    ensure!(!host.is_empty() && node == host, "the ends of lines differ");
    Ok(())
}

/// Runs a script by this shell of an image, and by the host's.
fn same_script(name: &str, image: &Image, shell: &[&str], script: &str) -> Result<()> {
    let folder = TempFolder::new()?;
    let file = folder.path().join("script");
    fs::write(&file, script)?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    let (program, words) = shell.split_first().context("no shell")?;
    let path = file.to_string_lossy();
    let host = on_the_host(program, &[words, &[&path]].concat())?;
    let image = image.with_files(&[
        ("/script", 0o755, script.as_bytes()),
        ("/tmp/.folder", 0o644, b""),
    ])?;
    let node = on_a_node(name, &image, &[shell, &["/script"]].concat())?;
    ensure_same(&node, &host)
}

#[test]
fn busybox() -> Result<()> {
    let image = Image::open(&Artifacts::new().shell_image())?;
    same_script(
        "programs-busybox",
        &image,
        &["/bin/busybox", "sh"],
        include_str!("scripts/busybox.sh"),
    )
}

#[test]
fn bash_and_coreutils() -> Result<()> {
    let image = Image::open(&Artifacts::new().coreutils_image())?;
    same_script(
        "programs-coreutils",
        &image,
        &["/bin/bash"],
        include_str!("scripts/coreutils.sh"),
    )
}

#[test]
fn tokio() -> Result<()> {
    let program = Artifacts::new().program("bustle");
    let host = on_the_host(&program.to_string_lossy(), &[])?;
    let node = on_a_node(
        "programs-tokio",
        &Image::program("bustle")?,
        &["/bin/bustle"],
    )?;
    ensure_same(&node, &host)
}
