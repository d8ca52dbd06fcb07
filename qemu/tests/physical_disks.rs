//! NVMe and SATA disks: in the hands of capsules, failing, silent, reset
//! by somebody else, and pulled. Power cuts are in `power.rs`.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_qemu::{
    Board, Bus, Machine, Node, Visitor,
    disks::{
        a_while, broken_disk, disk_image, ensure_durable, error, run_beside_nginx, scripted,
        start_with_nginx, throttle, tools,
    },
    machine::escape,
    node::TempFolder,
    qtest::Qtest,
    seconds,
};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const NGINX: u16 = 8081;
/// Controller configuration of an NVMe controller, in its registers.
const NVME_CC: u64 = 0x14;

/// Programs of Debian and a load on the disk `name`, which is drive `d0` of the machine:
/// they see it as on Linux, and what they made durable is in the host's file.
fn serves_a_capsule(machine: Machine, file: &Path, names: [&str; 2], says: &[&str]) -> Result<()> {
    let image = tools()?;
    let script = include_str!("scripts/disk-tools.sh");
    let time = a_while().to_string();
    let words = [time.as_str(), names[0], names[1]];
    let tools = scripted("tools", &image, script, &words, &names);
    let mut node = start_with_nginx(machine, &image, &[], &[&tools])?;
    let log = run_beside_nginx(&node, "tools", seconds(240))?;
    for line in says {
        let said = log.lines().any(|said| said.trim() == *line);
        ensure!(said, "{line:?} is missing: {log}");
    }
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(file)?)
}

/// Two controllers, one with blocks of 512 bytes and one of 4096.
#[test]
fn nvme_for_a_capsule() -> Result<()> {
    let folder = TempFolder::new()?;
    let (file, other) = (disk_image(&folder, "a")?, disk_image(&folder, "b")?);
    let drive = format!("if=none,id=d1,format=raw,file={}", escape(&other));
    let large = "nvme,id=d1-device,drive=d1,serial=large,logical_block_size=4096,\
                 physical_block_size=4096";
    let machine = Machine::new("physical-nvme")
        .disk_on(Bus::Nvme, "d0", &file)
        .option("-drive", &drive)
        .option("-device", large);
    let says = [
        "device: block special file 103:0 0 660",
        "bytes: 33554432",
        "blocks: 512 512 0",
        "dd: error reading '/dev/nvme0n1': Invalid argument",
        "dd: error writing '/dev/nvme0n1': No space left on device",
    ];
    serves_a_capsule(machine, &file, ["nvme0n1", "nvme1n1"], &says)
}

/// A disk on an adapter of its own and one on the board's.
#[test]
#[ignore = "long"]
fn sata_for_a_capsule() -> Result<()> {
    let folder = TempFolder::new()?;
    let (file, other) = (disk_image(&folder, "a")?, disk_image(&folder, "b")?);
    let drive = format!("if=none,id=d1,format=raw,file={}", escape(&other));
    let machine = Machine::new("physical-sata")
        .disk_on(Bus::Ahci, "d0", &file)
        .option("-drive", &drive)
        .option("-device", "ide-hd,bus=ide.2,drive=d1");
    let says = [
        "device: block special file 8:0 0 660",
        "bytes: 33554432",
        "blocks: 512 512 0",
        "dd: error reading '/dev/sda': Invalid argument",
        "dd: error writing '/dev/sda': No space left on device",
    ];
    serves_a_capsule(machine, &file, ["sda", "sdb"], &says)
}

/// A disk that fails at some places, once or always: the program gets EIO there and
/// right bytes everywhere else, while the disk is under load and nginx serves.
///
/// What fails `once` is told to the program; otherwise it is tried again by the driver,
/// and the program hears nothing: QEMU's SATA disks have no log of what failed.
fn fails(bus: Bus, disk: &str, once: &str) -> Result<()> {
    const SCRIPT: &str = "disk load /dev/$2 $1 & load=$!
        disk expect /dev/$2 read 10485760 always || exit 11
        disk expect /dev/$2 write 12582912 always || exit 12
        if [ $3 = once ]; then
            disk expect /dev/$2 read 14680064 once || exit 13
            disk expect /dev/$2 write 16777216 once || exit 14
        else
            dd if=/dev/$2 of=/tmp/good bs=4096 skip=3584 count=1 || exit 13
            dd if=/tmp/good of=/dev/$2 bs=4096 seek=4096 count=1 conv=notrunc || exit 14
        fi
        good=$(dd if=/dev/$2 bs=1M count=1 iflag=skip_bytes skip=10420224 2>/dev/null | wc -c)
        echo \"good before the bad: $good\"
        wait $load || exit 17";
    let name = format!("physical-errors-{bus:?}").to_lowercase();
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let time = a_while().to_string();
    let capsule = scripted("load", &image, SCRIPT, &[&time, disk, once], &[disk]);
    let places = json!([
        error("read", Some(10 << 20), false),
        error("write", Some(12 << 20), false),
        error("read", Some(14 << 20), true),
        error("write", Some(16 << 20), true),
    ]);
    let machine = broken_disk(Machine::new(&name), bus, "d0", &file, &places);
    let mut node = start_with_nginx(machine, &image, &[], &[&capsule])?;
    let before = node.api().last_event()?;
    let log = run_beside_nginx(&node, "load", seconds(240))?;
    ensure!(log.contains("good before the bad: 65536"), "{log}");
    let told = node
        .api()
        .wait_events(before, "device", None, 1, seconds(10))?;
    let failed = format!("{disk}: reading at sector 20480 failed");
    ensure!(told.iter().any(|event| event["text"] == failed), "{told:?}");
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&file)?)
}

#[test]
#[ignore = "long"]
fn nvme_with_errors() -> Result<()> {
    fails(Bus::Nvme, "nvme0n1", "once")
}

#[test]
fn sata_with_errors() -> Result<()> {
    fails(Bus::Ahci, "sda", "never")
}

/// Waits until what a capsule printed begins its lines so.
fn wait_lines(node: &Node, capsule: &str, words: &[&str]) -> Result<String> {
    let deadline = Instant::now() + seconds(90);
    loop {
        let log = node.api().log(capsule)?;
        let said: Vec<&str> = log.lines().collect();
        let fits = |(said, word): (&&str, &&str)| said.starts_with(word);
        if said.len() >= words.len() && said.iter().zip(words).all(fits) {
            return Ok(log);
        }
        ensure!(Instant::now() < deadline, "not {words:?}: {log}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The text of the device events after `before`.
fn events(node: &Node, before: u64, count: usize) -> Result<Vec<String>> {
    let told = node
        .api()
        .wait_events(before, "device", None, count, seconds(10))?;
    let text = |event: &Value| event["text"].as_str().unwrap_or_default().to_string();
    Ok(told.iter().map(text).collect())
}

/// An NVMe disk that stops answering: what is under way ends with EIO, nothing hangs,
/// and the disk works again when it answers again.
#[test]
#[ignore = "long"]
fn nvme_that_does_not_answer() -> Result<()> {
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let script = "exec disk watch /dev/nvme0n1 600";
    let capsule = scripted("watch", &image, script, &[], &["nvme0n1"]);
    let machine = Machine::new("physical-silent").disk_on(Bus::Nvme, "d0", &file);
    let mut node = start_with_nginx(machine, &image, &[&capsule], &[])?;
    let before = node.api().last_event()?;
    wait_lines(&node, "watch", &["works"])?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    throttle(&mut node, "d0", 1)?;
    wait_lines(&node, "watch", &["works", "EIO"])?;
    throttle(&mut node, "d0", 0)?;
    visitor
        .finish()
        .expect_all_served("nginx beside the disk", 5)?;
    wait_lines(&node, "watch", &["works", "EIO", "works"])?;
    let told = events(&node, before, 1)?;
    let reset = "nvme0n1: it did not answer and was reset";
    ensure!(told.iter().any(|text| text == reset), "{told:?}");
    Ok(())
}

/// Somebody else resets the NVMe controller again and again under load: every time it is
/// set up again within a second, the load sees no error and what it made durable is
/// there.
#[test]
#[ignore = "long"]
fn nvme_reset_under_load() -> Result<()> {
    const RESETS: usize = 5;
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let script = "exec disk load /dev/nvme0n1 $1";
    let time = a_while() + 15;
    let capsule = scripted("load", &image, script, &[&time.to_string()], &["nvme0n1"]);
    let socket = folder.path().join("qtest");
    let machine = Machine::new("physical-reset")
        .disk_on(Bus::Nvme, "d0", &file)
        .option(
            "-qtest",
            &format!("unix:{},server=on,wait=off", escape(&socket)),
        )
        .option("-qtest-log", "none");
    let mut node = start_with_nginx(machine, &image, &[&capsule], &[])?;
    let registers = registers_of(&mut node, "d0-device")?;
    let mut outside = Qtest::connect(&socket)?;
    let api = node.api();
    api.wait_capsule("load", seconds(30), |c| c["state"] == "running")?;
    thread::sleep(seconds(1));
    let before = api.last_event()?;
    let reset = "warning: nvme0n1: it did not answer and was reset";
    for n in 1..=RESETS {
        let configuration = outside.read_u32(registers + NVME_CC)?;
        ensure!(configuration & 1 == 1, "the controller is not enabled");
        outside.write_u32(registers + NVME_CC, configuration & !1)?;
        let begun = Instant::now();
        while outside.read_u32(registers + NVME_CC)? & 1 == 0 {
            ensure!(begun.elapsed() < seconds(5), "it is not set up again");
            thread::sleep(Duration::from_millis(5));
        }
        println!("set up again after {:.3} s", begun.elapsed().as_secs_f64());
        ensure!(begun.elapsed() < seconds(1), "that took too long");
        // Trouble of one kind is told once a second at most.
        thread::sleep(Duration::from_millis(1500));
        let told = node.serial().matches(reset).count();
        ensure!(told == n, "{told} resets of {n} were told");
    }
    let told = events(&node, before, 1)?;
    ensure!(reset.ends_with(&told[0]), "{told:?}");
    let how = api.wait_finished("load", seconds(time + 120))?;
    let log = api.log("load")?;
    ensure!(how == "exit code 0", "{how}: {log}");
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&file)?)
}

/// Where the registers of a PCI device are: the address of its first memory BAR.
fn registers_of(node: &mut Node, id: &str) -> Result<u64> {
    let buses = node.qmp().execute("query-pci")?;
    let devices = buses[0]["devices"].as_array().context("no devices")?;
    let device = devices.iter().find(|d| d["qdev_id"] == id);
    let regions = device.context("no such device")?["regions"].as_array();
    let region = regions
        .into_iter()
        .flatten()
        .find(|r| r["type"] == "memory");
    region
        .and_then(|r| r["address"].as_u64())
        .context("it has no memory")
}

/// Pulls the controller of the disk out of the machine while it is under load: the
/// program gets an error within a second, it is told, and the node goes on.
fn pulled(bus: Bus, disk: &str, controller: &str) -> Result<()> {
    let name = format!("physical-pulled-{bus:?}").to_lowercase();
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let script = "exec disk watch /dev/$1 600";
    let capsule = scripted("watch", &image, script, &[disk], &[disk]);
    let mut machine = Machine::new(&name).disk_on(bus, "d0", &file);
    machine.board = Board::Pc;
    let mut node = start_with_nginx(machine, &image, &[&capsule], &[])?;
    let before = node.api().last_event()?;
    wait_lines(&node, "watch", &["works"])?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    pull(&mut node, controller)?;
    let log = wait_lines(&node, "watch", &["works", "EIO"])?;
    visitor
        .finish()
        .expect_all_served("nginx beside the disk", 1)?;
    let ms = log.lines().nth(1).and_then(|line| line.split(' ').nth(2));
    let ms: u64 = ms.context("no time")?.parse()?;
    println!("EIO after {ms} ms");
    ensure!(ms < 1_000, "EIO came after {ms} ms only");
    let told = events(&node, before, 1)?;
    let gone = format!("{disk}: it did not come back from a reset and is given up");
    ensure!(told.contains(&gone), "{told:?}");
    node.shut_down(seconds(60))
}

/// Takes a PCI device out as a hand would: the node is not asked.
fn pull(node: &mut Node, id: &str) -> Result<()> {
    let buses = node.qmp().execute("query-pci")?;
    let devices = buses[0]["devices"].as_array().context("no devices")?;
    let device = devices.iter().find(|d| d["qdev_id"] == id);
    let slot = device.context("no such device")?["slot"].as_u64();
    let slot = slot.context("no slot")?;
    node.qmp().device_del(id)?;
    // What firmware would write to let it go (docs/specs/acpi_pci_hotplug.rst): the bus,
    // and the slot as a bit.
    node.qmp().monitor("o /4 0xae10 0")?;
    node.qmp()
        .monitor(&format!("o /4 0xae08 {:#x}", 1u64 << slot))?;
    node.qmp().wait_event("DEVICE_DELETED", seconds(10))?;
    Ok(())
}

#[test]
fn nvme_pulled() -> Result<()> {
    pulled(Bus::Nvme, "nvme0n1", "d0-device")
}

#[test]
#[ignore = "long"]
fn sata_pulled() -> Result<()> {
    pulled(Bus::Ahci, "sda", "d0-bus")
}
