//! What a node says on its serial line and on its screen.

use anyhow::{Context as _, Result, ensure};
use skep_qemu::{
    Artifacts, Firmware, Machine, Node,
    command::output,
    ramdisk::{Image, Ramdisk, standard_manifest},
    screen::{screen_code, wait_screen},
    seconds,
};
use std::{fs, path::Path, process::Command};

const NGINX: u16 = 8081;
/// What a node says that has nothing to do.
const IDLE: &str = "this node has nothing to run: ";

/// Boots into a node that cannot do its work, and expects `why` in both places.
fn says_why(machine: &Machine, why: &str) -> Result<()> {
    let mut node = machine.start()?;
    node.wait_serial(&format!("{IDLE}{why}"), seconds(60))?;
    wait_screen(&mut node, &format!("{IDLE}{why}"), seconds(30)).map(drop)
}

#[test]
fn a_missing_ramdisk_is_told_on_both() -> Result<()> {
    for firmware in [Firmware::Bios, Firmware::Uefi] {
        let name = format!("console-no-ramdisk-{firmware:?}");
        let machine = Machine::new(&name).firmware(firmware).no_ramdisk();
        says_why(&machine, "the boot medium has no ramdisk")?;
    }
    Ok(())
}

#[test]
fn a_bad_ramdisk_is_told_on_both() -> Result<()> {
    let path = Artifacts::new().target().join("qemu-ramdisks/console-bad");
    fs::write(&path, vec![0x5a; 1 << 20])?;
    let machine = Machine::new("console-bad-ramdisk")
        .firmware(Firmware::Bios)
        .ramdisk(&path);
    says_why(&machine, "ramdisk: ")
}

/// A node with nginx whose console is as asked, once it serves.
fn serving(name: &str, serial: bool, screen: bool) -> Result<Node> {
    let image = Image::nginx()?;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
    ramdisk.config.console.serial = serial;
    ramdisk.config.console.screen = screen;
    let path = ramdisk.write(name)?;
    let mut node = start(name, &path)?;
    node.wait_http(NGINX, "/", seconds(60))?;
    Ok(node)
}

fn start(name: &str, ramdisk: &Path) -> Result<Node> {
    let machine = Machine::new(name).firmware(Firmware::Bios);
    machine.ramdisk(ramdisk).start()
}

/// What is logged when nginx starts.
const STARTED: &str = "capsule nginx started";

#[test]
fn without_serial_the_screen_has_it() -> Result<()> {
    let mut node = serving("console-screen", false, true)?;
    wait_screen(&mut node, STARTED, seconds(30))?;
    let serial = node.serial();
    ensure!(
        serial.contains("no more is told here"),
        "it does not say why"
    );
    ensure!(!serial.contains(STARTED), "the serial line was used");
    Ok(())
}

#[test]
fn without_screen_the_serial_line_has_it() -> Result<()> {
    let mut node = serving("console-serial", true, false)?;
    node.wait_serial(STARTED, seconds(30))?;
    let other = wait_screen(&mut node, STARTED, seconds(3));
    ensure!(other.is_err(), "the screen was used");
    Ok(())
}

/// What the code says is all that the owner's command line needs, by the address that leads to
/// the node from here. By the name the node has then, commands find it.
fn enrols(node: &Node, id: &str) -> Result<()> {
    let artifacts = Artifacts::new();
    let list = node.serial_path().with_file_name("nodes.toml");
    // Of an earlier run.
    let _ = fs::remove_file(&list);
    let skep = |words: &[&str]| {
        let mut skep = Command::new(artifacts.cli());
        let key = artifacts.owner_key();
        output(
            skep.args(words)
                .env("SKEP_NODES", &list)
                .env("SKEP_KEY", key),
        )
    };
    let code = format!("http://{}/#{id}", node.address(8080));
    println!("{}", skep(&["enrol", &code, "--name", "mine"])?);
    let status = skep(&["status", "--node", "mine"])?;
    ensure!(status.contains("nginx"), "{status}");
    let other = code.replace(id, "0000-0000-0000-0000-0000");
    ensure!(
        skep(&["enrol", &other]).is_err(),
        "another node was enrolled"
    );
    Ok(())
}

/// Once the node is up its screen shows the status, not the messages; the keyboard pages
/// through these and goes back. When the kernel ends, the screen tells of the record that
/// the API has afterwards.
#[test]
fn the_screen_shows_the_status_the_messages_and_the_end() -> Result<()> {
    let mut node = serving("console-status", true, true)?;
    let status = wait_screen(&mut node, "Status at  http://10.0.2.15:8080/", seconds(30))?;
    ensure!(status.contains("Node ID"), "no node ID: {status}");
    let status = wait_screen(&mut node, "running", seconds(30))?;
    ensure!(
        status.contains("nginx") && !status.contains("clock: TSC"),
        "not the status: {status}"
    );
    let id = node.api().get("node")?["identity"]["id"].clone();
    let id = id.as_str().context("no identity")?;
    ensure!(status.contains(id), "another node ID: {status}");
    let code = screen_code(&mut node)?;
    ensure!(code == format!("http://10.0.2.15:8080/#{id}"), "{code}");
    enrols(&node, id)?;
    node.qmp().press_key("home")?;
    let log = wait_screen(&mut node, "clock: TSC", seconds(30))?;
    ensure!(!log.contains("Node ID"), "not the messages: {log}");
    node.qmp().press_key("esc")?;
    wait_screen(&mut node, "Node ID", seconds(30))?;
    node.qmp().clear_events()?;
    node.qmp().inject_nmi()?;
    // The line that is painted last but for the log.
    let end = wait_screen(&mut node, "skep status, or", seconds(10))?;
    let mut words = end.split_whitespace().skip_while(|word| *word != "Record");
    let id = words.nth(1).context("no record")?.to_string();
    let why = "kernel panic: non-maskable interrupt";
    ensure!(end.contains(why), "the reason is not told: {end}");
    node.qmp().wait_event("RESET", seconds(30))?;
    wait_screen(&mut node, &id, seconds(60))?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let crash = node.api().get("crash")?;
    ensure!(crash["id"] == id.as_str(), "not record {id}: {crash}");
    Ok(())
}
