//! The owner installs and updates a node with the command line and nothing else.

use anyhow::{Context as _, Result, ensure};
use skep_qemu::{
    Artifacts, Firmware, Machine, Node,
    command::output,
    node::TempFolder,
    slots::{BOOT_TIMEOUT, BootDisk},
};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

const NGINX: u16 = 8081;
/// Bytes of the disk that is installed to: more than the medium has.
const DISK_BYTES: u64 = 512 << 20;

/// The owner's shell, in a folder of its own.
struct Owner {
    folder: TempFolder,
}

impl Owner {
    fn new() -> Result<Self> {
        let folder = TempFolder::new()?;
        Ok(Self { folder })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `skep` with these words; what it prints.
    fn skep(&self, words: &[&str]) -> Result<String> {
        let artifacts = Artifacts::new();
        let mut cli = Command::new(artifacts.require(artifacts.cli())?);
        cli.args(words).current_dir(self.folder.path());
        output(cli.env("SKEP_KEY", artifacts.owner_key()))
    }

    /// The same with the words that name a node.
    fn ask(&self, node: &Node, words: &[&str]) -> Result<String> {
        let url = format!("http://{}", node.address(8080));
        self.skep(&[words, &["--node", &url]].concat())
    }
}

fn machine(name: &str, boot: &Path) -> Machine {
    Machine::new(name).firmware(Firmware::Uefi).boot_disk(boot)
}

/// From a medium to a disk, and on that disk to the next release; what is older is
/// refused, and so is a disk that nobody said may be erased.
#[test]
fn a_node_is_installed_and_updated() -> Result<()> {
    let owner = Owner::new()?;
    owner.skep(&["image", "usb", "-o", "skep.img"])?;
    owner.skep(&["release", "--release-number", "2", "-o", "second"])?;
    let disk = owner.file("disk");
    File::create(&disk)?.set_len(DISK_BYTES)?;

    let medium = owner.file("skep.img");
    let with_disk = machine("slots-cli-install", &medium).disk("disk", &disk);
    let mut node = with_disk.start()?;
    node.wait_release(1, BOOT_TIMEOUT)?;
    let refused = owner.ask(&node, &["install", "vdb"]);
    let refused = refused.err().context("it erases without being told to")?;
    ensure!(refused.to_string().contains("--erase"), "{refused}");
    owner.ask(&node, &["install", "vdb", "--erase"])?;
    node.kill();

    let mut node = machine("slots-cli-update", &disk).start()?;
    node.wait_release(1, BOOT_TIMEOUT)?;
    node.wait_http(NGINX, "/", BOOT_TIMEOUT)?;
    let slots = owner.ask(&node, &["slots"])?;
    ensure!(slots.contains("slot A: release 1, good  (runs)"), "{slots}");
    owner.ask(&node, &["update", "second"])?;
    node.wait_release(2, BOOT_TIMEOUT)?;
    let slots = owner.ask(&node, &["slots"])?;
    ensure!(slots.contains("slot B: release 2, good  (runs)"), "{slots}");
    node.wait_http(NGINX, "/", BOOT_TIMEOUT)?;
    let refused = owner.ask(&node, &["update", "second"]);
    let refused = refused.err().context("it takes the same release twice")?;
    ensure!(refused.to_string().contains("not newer"), "{refused}");
    node.kill();
    ensure!(BootDisk::open(&disk)?.would_start()? == 2, "not release 2");
    Ok(())
}
