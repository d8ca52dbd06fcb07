//! Releases: their terms, and `skep release`, which writes one for `skep update`.

use super::make::SystemArgs;
use crate::key;
use crate::units::show_bytes;
use anyhow::Result;
use skep_api::boot::release::HEALTH_SECONDS_DEFAULT;
use skep_api::boot::state::{TRIES_DEFAULT, TRIES_MAX};
use skep_image::release::Signing;
use skep_image::write_release;
use std::fs;
use std::path::PathBuf;

/// What a release is signed with, and what it asks of a node.
#[derive(Debug, clap::Args)]
pub(crate) struct Terms {
    /// Number of the release: a node takes none that is not higher than the one it runs
    #[arg(long = "release-number", value_name = "NUMBER", default_value_t = 1)]
    number: u64,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = "")]
    command_line: String,
    /// Seconds that a node has to become healthy with it
    #[arg(long, value_name = "SECONDS", default_value_t = HEALTH_SECONDS_DEFAULT)]
    health_seconds: u32,
    /// How often it may be started without having been healthy
    #[arg(long, value_name = "TIMES", default_value_t = TRIES_DEFAULT,
          value_parser = clap::value_parser!(u8).range(1..=i64::from(TRIES_MAX)))]
    tries: u8,
    /// The owner's secret key, which signs it: nodes that were made with it take its releases
    #[arg(
        short,
        long,
        value_name = "FILE",
        env = "SKEP_KEY",
        default_value = "owner.key"
    )]
    pub(super) key: PathBuf,
}

impl Terms {
    /// With the key read from its file.
    pub(super) fn signing(&self) -> Result<Signing> {
        Ok(Signing {
            key: key::load(&self.key)?,
            version: self.number,
            command_line: self.command_line.clone(),
            health_seconds: self.health_seconds,
            tries: self.tries,
        })
    }
}

/// `skep release`.
#[derive(Debug, clap::Args)]
pub(crate) struct ReleaseArgs {
    /// Write the release to this file
    #[arg(short, long, value_name = "FILE", default_value = "skep.release")]
    output: PathBuf,
    #[command(flatten)]
    system: SystemArgs,
    #[command(flatten)]
    terms: Terms,
}

/// Writes a release that nodes can be updated with.
pub(crate) fn run(args: &ReleaseArgs) -> Result<()> {
    let signing = args.terms.signing()?;
    let system = args.system.load()?;
    let ramdisk = args.system.ramdisk(&system.folder)?.unwrap_or_default();
    write_release(&system.kernel, &ramdisk, &signing, &args.output)?;
    let len = fs::metadata(&args.output)?.len();
    println!(
        "release {} in {} ({})",
        signing.version,
        args.output.display(),
        show_bytes(len)
    );
    Ok(())
}
