//! What a node says on its serial line and on its screen.

use anyhow::{Context as _, Result, ensure};
use skep_qemu::{
    Artifacts, Firmware, Machine, Node,
    command::output,
    ramdisk::{Image, Ramdisk, standard_manifest},
    screen::{screen_code, wait_screen},
    seconds,
};
use std::{collections::BTreeMap, fs, ops::Range, path::Path, process::Command};

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
    let enrol = format!("skep enrol http://10.0.2.15:8080/#{id}");
    ensure!(status.contains(&enrol), "no enrolment code: {status}");
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

/// The screen's memory as QEMU's PCI bus tells it: where it begins and ends.
fn frame_buffer(node: &mut Node) -> Result<Range<u64>> {
    let buses = node.qmp().execute("query-pci")?;
    let devices = buses.as_array().into_iter().flatten();
    let devices = devices.flat_map(|bus| bus["devices"].as_array().into_iter().flatten());
    let screen = devices.filter(|device| device["class_info"]["class"] == 0x300);
    let regions = screen.flat_map(|device| device["regions"].as_array().into_iter().flatten());
    let mut first = regions.filter(|region| region["bar"] == 0);
    let first = first.next().context("no screen on the bus")?;
    let number = |name: &str| first[name].as_u64().context("no number");
    let start = number("address")?;
    Ok(start..start + number("size")?)
}

/// What is drawn goes to the screen's memory in whole lines of the cache, and nothing else of
/// the kernel's knows that memory by another kind of caching, which processors forbid (SDM
/// vol. 3, 12.12.4).
#[test]
fn the_screens_memory_is_mapped_once_to_combine_writes() -> Result<()> {
    let mut node = serving("console-memory", true, true)?;
    wait_screen(&mut node, STARTED, seconds(30))?;
    let memory = frame_buffer(&mut node)?;
    let table = node.qmp().monitor("info tlb")?;
    // "ADDRESS: FRAME XGPDACTUW", with - for what is not set.
    let parse = |line: &str| {
        let mut words = line.split([':', ' ']).filter(|word| !word.is_empty());
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let (address, frame) = (number()?, number()?);
        Some((frame, address, words.next()?.to_string()))
    };
    let all: Vec<_> = table.lines().filter_map(parse).collect();
    ensure!(all.len() > 1000, "no table: {table}");
    let mut frames = BTreeMap::new();
    for (frame, address, flags) in all {
        if memory.contains(&frame) {
            // D and A are set as it is used.
            let kind: String = flags
                .chars()
                .filter(|flag| !"DA-".contains(*flag))
                .collect();
            ensure!(kind == "XGW", "{frame:#x} is mapped by {flags}");
            ensure!(
                frames.insert(frame, address).is_none(),
                "{frame:#x} is mapped twice"
            );
        }
    }
    // 1024 by 768 pixels of three bytes, at least.
    ensure!(frames.len() >= 576, "only {} pages", frames.len());
    for address in [frames.first_key_value(), frames.last_key_value()] {
        let (frame, address) = address.context("none")?;
        let leaf = leaf(&mut node, *address)?;
        // Entry 4 of the PAT: its highest bit (7) alone, neither PCD (4) nor PWT (3). QEMU shows no
        // such bit of small pages.
        ensure!(leaf & 0x98 == 0x80, "{frame:#x} is mapped by {leaf:#x}");
    }
    Ok(())
}

/// The entry that maps the small page at this address, in the tables of the running CPU.
fn leaf(node: &mut Node, address: u64) -> Result<u64> {
    let registers = node.qmp().monitor("info registers")?;
    let mut words = registers.split_whitespace();
    let root = words.find_map(|word| word.strip_prefix("CR3="));
    let mut entry = u64::from_str_radix(root.context("no CR3")?, 16)?;
    for shift in [39, 30, 21, 12] {
        let table = entry & 0x000f_ffff_ffff_f000;
        let at = table + (address >> shift & 511) * 8;
        let line = node.qmp().monitor(&format!("xp /1gx {at:#x}"))?;
        let word = line.split_whitespace().last().context("nothing")?;
        entry = u64::from_str_radix(word.trim_start_matches("0x"), 16)?;
        ensure!(entry & 1 != 0, "{address:#x} is not mapped: {line}");
    }
    Ok(entry)
}
