//! `skep`, the owner's command line.
//!
//! `pack` → `sign` → `bundle` → `image` make what a node boots; `status`, `logs` and the
//! others talk to the 3Bot of a running node.

mod bundle;
mod client;
mod debian;
mod image;
mod inspect;
mod key;
mod manifest;
mod medium;
mod pack;
mod pxe;
mod sign;
mod units;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Make, sign and watch the capsules of your Skep nodes.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make an owner's key: FILE (secret) and FILE.pub
    Keygen {
        /// Where the secret key goes; it must not exist
        #[arg(short, long, value_name = "FILE", default_value = "owner.key")]
        output: PathBuf,
    },
    /// Make an image from a folder, a tar archive or Debian packages
    Pack(pack::PackArgs),
    /// Sign a manifest for an image
    Sign(sign::SignArgs),
    /// Make the ramdisk of a node from its configuration, manifests and images
    Bundle(bundle::BundleArgs),
    /// Make an image that computers boot from, on a USB stick or a disk
    Image(medium::make::ImageArgs),
    /// Write a boot image to a disk, and read it back
    Flash(medium::flash::FlashArgs),
    /// Boot the machines of a network
    #[command(subcommand)]
    Pxe(pxe::PxeAction),
    /// Make a release that 'skep update' sends to nodes
    Release(medium::release::ReleaseArgs),
    /// Check that a boot image is whole and signed by its owner
    Verify(medium::seal::VerifyArgs),
    /// Show what a manifest, tree, ramdisk or image contains
    Inspect(inspect::InspectArgs),
    /// Write the files of an image to a folder
    Unpack(image::unpack::UnpackArgs),
    /// Show a node and its capsules
    Status(client::StatusArgs),
    /// Make a node one of your list, by the code on its screen: it proves who it is and that it
    /// obeys you (signed)
    Enrol(client::EnrolArgs),
    /// Have a node prove who it is
    Identity(client::IdentityArgs),
    /// Print what a capsule has written
    Logs(client::LogsArgs),
    /// Print what has happened on a node
    Events(client::EventsArgs),
    /// Count system calls and sample the kernel for a while (signed)
    Profile(client::ProfileArgs),
    /// Send a signal to a capsule (signed)
    Kill(client::KillArgs),
    /// Stop a capsule until it is started again (signed)
    Stop(client::CapsuleArgs),
    /// Start a capsule that is stopped (signed)
    Start(client::CapsuleArgs),
    /// Stop a capsule and start it again (signed)
    Restart(client::CapsuleArgs),
    /// Show the releases on a node's boot disk
    Slots(client::NodeArgs),
    /// Send a release to a node and restart it; it goes back by itself if the release is not
    /// healthy (signed)
    Update(client::UpdateArgs),
    /// Make another disk of a node one that it starts from, with the release that runs (signed)
    Install(client::InstallArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skep: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(action: &Action) -> Result<()> {
    match action {
        Action::Keygen { output } => {
            println!("{}", key::generate(output)?);
            Ok(())
        }
        Action::Pack(args) => pack::run(args),
        Action::Pxe(action) => pxe::run(action),
        Action::Sign(args) => sign::run(args),
        Action::Bundle(args) => bundle::run(args),
        Action::Image(args) => medium::make::run(args),
        Action::Flash(args) => medium::flash::run(args),
        Action::Release(args) => medium::release::run(args),
        Action::Verify(args) => medium::seal::verify(args),
        Action::Inspect(args) => inspect::run(args),
        Action::Unpack(args) => image::unpack::run(args),
        Action::Status(args) => client::status(args),
        Action::Enrol(args) => client::enrol(args),
        Action::Identity(args) => client::identity(args),
        Action::Logs(args) => client::logs(args),
        Action::Events(args) => client::events(args),
        Action::Profile(args) => client::profile(args),
        Action::Kill(args) => client::kill(args),
        Action::Stop(args) => client::change(args, "stop"),
        Action::Start(args) => client::change(args, "start"),
        Action::Restart(args) => client::change(args, "restart"),
        Action::Slots(args) => client::slots(args),
        Action::Update(args) => client::update(args),
        Action::Install(args) => client::install(args),
    }
}
