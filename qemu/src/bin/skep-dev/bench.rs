//! `skep-dev bench`: Skep beside Linux guests, measured by the project's shared
//! harness, whose programs run as one capsule.
//!
//! The harness starts each system by a TOML file that is written here ([`describe`]);
//! before each start of ours it calls back ([`start`]) for a ramdisk whose capsule runs
//! the command of that start, and for the medium it is booted from. [`system`] has the
//! names of the systems.

mod describe;
mod devices;
mod linux;
mod programs;
mod publish;
mod start;
mod system;
mod web;

use crate::{
    build::{Part, build_parts},
    ramdisk,
};
use anyhow::{Context as _, Result, bail, ensure};
use describe::{Places, describe};
use skep_qemu::Artifacts;
use std::{
    env, fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};
use system::{Guest, Start, System};

/// Where the shared harness lies, beside a checkout.
const HARNESS: &str = "../shared/bench";
/// Where the harness keeps guests, programs and results.
const OUT: &str = "/tmp/skep-bench";

fn out() -> PathBuf {
    env::var_os("BENCH_OUT").map_or_else(|| PathBuf::from(OUT), PathBuf::from)
}

/// Builds the node, describes it to the harness, and passes on the words.
pub(crate) fn bench(words: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["publish"] => publish::publish(&out(), "")?,
        ["publish", tag] => publish::publish(&out(), tag)?,
        ["prepare"] => {
            build_parts(&[Part::User])?;
            programs::prepare(&out())?;
        }
        ["prepare-linux"] => linux::prepare(&out())?,
        _ => return measure(&words),
    }
    Ok(ExitCode::SUCCESS)
}

/// `bench-start ...` and `bench-web FOLDER`: what the harness and QEMU call.
pub(crate) fn called_back(command: &str, words: &[String]) -> Result<ExitCode> {
    match (command, words) {
        ("bench-start", words) => start::start(words)?,
        ("bench-web", [folder]) => {
            // Standard output itself would cut each answer in two at its last newline, and
            // the second part would wait for the first to be acknowledged.
            let output = fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
            let mut output = io::BufWriter::with_capacity(1 << 16, output);
            let mut input = io::stdin().lock();
            web::serve(Path::new(folder), &mut input, &mut output)?;
        }
        _ => bail!("usage: skep-dev bench-web FOLDER"),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(words: &[&str]) -> Result<ExitCode> {
    let artifacts = Artifacts::new();
    let harness = artifacts.root().join(HARNESS).join("bench.py");
    ensure!(
        harness.exists(),
        "the benchmark harness is not at {}",
        harness.display()
    );
    ensure!(
        out().join("micro").exists(),
        "the benchmark's programs are not in {}: run build.sh of the harness first",
        out().display()
    );
    let named: Vec<_> = words
        .iter()
        .map(|word| Ok((*word, System::named(word)?)))
        .collect::<Result<_>>()?;
    let systems = || named.iter().filter_map(|(_, system)| system.as_ref());
    build_parts(&parts(systems()))?;
    if systems().any(|system| system.guest == Guest::Skep) {
        // With it come the key and the 3Bot, packed and signed.
        ramdisk::build()?;
    }
    if systems().any(|system| system.guest == Guest::Linux) {
        linux::ensure_prepared(&out())?;
    }
    let words = named
        .iter()
        .map(|(word, system)| match system {
            Some(system) => write(&artifacts, word, system),
            None => Ok((*word).to_string()),
        })
        .collect::<Result<Vec<_>>>()?;
    let mut run = Command::new("python3").arg(&harness).args(words).spawn()?;
    let folder = out().join(format!("skep-{}", run.id()));
    let status = run.wait()?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What must be built for these systems.
fn parts<'a>(systems: impl Iterator<Item = &'a System>) -> Vec<Part> {
    let ours: Vec<_> = systems
        .filter(|system| system.guest == Guest::Skep)
        .collect();
    let mut parts = Vec::new();
    if !ours.is_empty() {
        parts = vec![Part::Kernel, Part::User, Part::Direct];
    }
    let on_media = ours
        .iter()
        .any(|system| matches!(system.start, Start::Firmware(..)));
    if on_media {
        parts.push(Part::Image);
    }
    parts
}

/// Writes the file that describes a system to the harness, and returns its path.
fn write(artifacts: &Artifacts, name: &str, system: &System) -> Result<String> {
    let tool = env::current_exe().context("cannot find this program")?;
    let places = Places {
        tool: &tool,
        direct: &artifacts.direct(),
    };
    let path = out().join(format!("{name}.toml"));
    fs::write(&path, describe(system, &places))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}
