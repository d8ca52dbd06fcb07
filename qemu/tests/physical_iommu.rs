//! Machines with an IOMMU (Intel's VT-d): all devices work behind it, and one that is told
//! by somebody else to reach into memory does not get there.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::{
    Artifacts, Board, Bridges, Bus, Firmware, Machine, Node, Visitor,
    command::output,
    disks::{
        a_while, data, disk_image, ensure_durable, run_beside_nginx, scripted, start_with_nginx,
        tools,
    },
    http,
    machine::escape,
    node::TempFolder,
    qtest::Qtest,
    ramdisk::Ramdisk,
    seconds,
};
use std::{fs, path::PathBuf, process::Command, thread, time::Instant};

const NGINX: u16 = 8081;
const ON: &str = "on (VT-d 1.0, units 1)";
/// The network device that every machine has.
const NIC: &str = "net0-device";

/// Somewhere in the ramdisk, which lies at the end of the machine's 256 MiB: what nobody
/// ever writes.
const VICTIM: u64 = (256 << 20) - (2 << 20);
/// Bytes that are to be moved there: QEMU's `edu` ends QEMU over a whole page.
const MOVED: u64 = 2048;

/// A machine with an IOMMU that is set up so.
fn guarded(machine: Machine, settings: &str) -> Machine {
    machine
        .option("-machine", "kernel-irqchip=split")
        .option("-device", &format!("intel-iommu{settings}"))
}

/// Lets the scenario reach into the machine.
fn with_hand(machine: Machine, folder: &TempFolder) -> (Machine, PathBuf) {
    let path = folder.path().join("hand");
    let socket = format!("unix:{},server=on,wait=off", escape(&path));
    let machine = machine.option("-qtest", &socket);
    (machine.option("-qtest-log", "none"), path)
}

fn iommu(node: &Node) -> Result<Value> {
    Ok(node.api().get("hardware")?["iommu"].clone())
}

/// The IOMMU is on and nothing was refused.
fn ensure_quiet(node: &Node) -> Result<()> {
    let told = iommu(node)?;
    ensure!(told["on"] == true && told["state"] == ON, "{told}");
    ensure!(
        told["faults"].as_array().is_some_and(Vec::is_empty),
        "{told}"
    );
    ensure!(node.serial().contains(&format!("IOMMU: {ON}")), "not said");
    Ok(())
}

/// The function of the machine with this name, as QEMU describes it: its place and the
/// address of its registers.
fn function(node: &mut Node, id: &str) -> Result<(String, u32, u64)> {
    let buses = node.qmp().execute("query-pci")?;
    let all = buses[0]["devices"].as_array().context("no devices")?;
    let device = all.iter().find(|d| d["qdev_id"] == id);
    let device = device.with_context(|| format!("no device {id}"))?;
    let number = |name: &str| device[name].as_u64().context("no place");
    let (slot, function) = (number("slot")?, number("function")?);
    let registers = device["regions"][0]["address"].as_u64();
    let registers = registers.context("no registers")?;
    let place = u32::try_from(slot << 11 | function << 8)?;
    Ok((format!("00:{slot:02x}.{function}"), place, registers))
}

/// Lets a device reach memory that has no driver to do so; the machine stands still
/// meanwhile, as its kernel uses the same two ports.
fn let_at_memory(node: &mut Node, hand: &mut Qtest, place: u32) -> Result<bool> {
    const ADDRESS: u16 = 0xcf8;
    const DATA: u16 = 0xcfc;
    const COMMAND: u32 = 4;
    const MEMORY: u32 = 1 << 1;
    const MASTER: u32 = 1 << 2;
    node.qmp().execute("stop")?;
    let before = hand.in_u32(ADDRESS)?;
    hand.out_u32(ADDRESS, 1 << 31 | place | COMMAND)?;
    let command = hand.in_u32(DATA)? & 0xffff;
    hand.out_u32(DATA, command | MEMORY | MASTER)?;
    hand.out_u32(ADDRESS, before)?;
    node.qmp().execute("cont")?;
    Ok(command & MASTER != 0)
}

fn page(hand: &mut Qtest, at: u64) -> Result<Vec<u32>> {
    (at..at + MOVED)
        .step_by(4)
        .map(|a| hand.read_u32(a))
        .collect()
}

/// Has the `edu` device, which nobody drives, move bytes, one way or the other.
fn move_page(hand: &mut Qtest, registers: u64, is_write: bool) -> Result<()> {
    /// Its own memory, as it counts.
    const INSIDE: u32 = 0x4_0000;
    const RUN: u32 = 1;
    const TO_MEMORY: u32 = 2;
    let victim = u32::try_from(VICTIM)?;
    let (from, to, way) = if is_write {
        (INSIDE, victim, TO_MEMORY)
    } else {
        (victim, INSIDE, 0)
    };
    for (offset, value) in [
        (0x80, from),
        (0x88, to),
        (0x90, u32::try_from(MOVED)?),
        (0x98, RUN | way),
    ] {
        hand.write_u32(registers + offset, value)?;
    }
    let deadline = Instant::now() + seconds(10);
    while hand.read_u32(registers + 0x98)? & RUN != 0 {
        ensure!(Instant::now() < deadline, "it is not done");
    }
    Ok(())
}

/// Waits until the report has faults of `device`; how many, and what the last was.
fn wait_faults(node: &Node, device: &str, more_than: u64) -> Result<(u64, String)> {
    let deadline = Instant::now() + seconds(15);
    loop {
        let told = iommu(node)?;
        let all = told["faults"].as_array().context("no faults")?;
        let found = all.iter().find(|f| f["device"] == device);
        let count = found.and_then(|f| f["count"].as_u64()).unwrap_or(0);
        if let Some(found) = found.filter(|_| count > more_than) {
            let last = found["last"].as_str().unwrap_or_default();
            return Ok((count, last.to_string()));
        }
        ensure!(Instant::now() < deadline, "not told: {told}");
        thread::sleep(seconds(1) / 10);
    }
}

/// Without an IOMMU the attack works: otherwise it would prove nothing.
#[test]
fn iommu_missing_lets_a_device_at_all_memory() -> Result<()> {
    let folder = TempFolder::new()?;
    let machine = Machine::new("iommu-off").option("-device", "edu,id=edu");
    let (machine, path) = with_hand(machine, &folder);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/", seconds(30))?;
    let told = iommu(&node)?;
    ensure!(told["on"] == false, "{told}");
    ensure!(
        told["state"] == "off (the firmware tells of none)",
        "{told}"
    );
    let mut hand = Qtest::connect(&path)?;
    let (_, place, registers) = function(&mut node, "edu")?;
    let before = page(&mut hand, VICTIM)?;
    ensure!(before.iter().any(|w| *w != 0), "there is nothing to lose");
    let_at_memory(&mut node, &mut hand, place)?;
    move_page(&mut hand, registers, true)?;
    let after = page(&mut hand, VICTIM)?;
    ensure!(after.iter().all(|w| *w == 0), "the page is as it was");
    node.kill();
    Ok(())
}

/// A device without a driver reaches nothing, even if somebody else lets it at memory; it
/// is named, and the node goes on.
#[test]
fn iommu_keeps_a_stray_device_from_memory() -> Result<()> {
    let folder = TempFolder::new()?;
    let machine = Machine::new("iommu-stray").option("-device", "edu,id=edu");
    let (machine, path) = with_hand(guarded(machine, ",intremap=off"), &folder);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/", seconds(30))?;
    ensure_quiet(&node)?;
    let mut hand = Qtest::connect(&path)?;
    let (name, place, registers) = function(&mut node, "edu")?;
    let before = page(&mut hand, VICTIM)?;
    ensure!(before.iter().any(|w| *w != 0), "there is nothing to lose");
    let was_master = let_at_memory(&mut node, &mut hand, place)?;
    ensure!(!was_master, "a device without a driver was let at memory");
    let first = node.api().last_event()?;
    move_page(&mut hand, registers, true)?;
    ensure!(page(&mut hand, VICTIM)? == before, "the page was written");
    let (count, last) = wait_faults(&node, &name, 0)?;
    println!("{name}: {count} times, last: {last}");
    let told = format!("write at {VICTIM:#x} refused: it has no memory");
    ensure!(last.starts_with(&told), "{last}");
    let events = node
        .api()
        .wait_events(first, "device", None, 1, seconds(10))?;
    let said = |event: &Value| event["text"].as_str().is_some_and(|t| t.contains(&told));
    ensure!(events.iter().any(said), "{events:?}");
    // And it does not get to read either. A storm is told no more often than that.
    for _ in 0..20 {
        move_page(&mut hand, registers, false)?;
    }
    let (count, last) = wait_faults(&node, &name, count)?;
    ensure!(last.starts_with("read at "), "{last}");
    let lines = node.serial().matches("refused: it has no memory").count();
    println!("{count} faults, {lines} lines");
    ensure!(lines <= 3, "{lines} lines of {count} faults");
    let url = format!("http://{}", node.address(8080));
    let mut command = Command::new(Artifacts::new().cli());
    let text = output(command.args(["status", "--hardware", "--node", &url]))?;
    println!("{text}");
    let line = format!("IOMMU     {ON}");
    ensure!(text.contains(&line) && text.contains(&name), "not shown");
    node.wait_http(NGINX, "/", seconds(10))?;
    node.shut_down(seconds(60))
}

/// The network device of a running node is told, behind its driver's back, to put what
/// comes in somewhere else: it does not get there, is named, and serves on.
#[test]
fn iommu_bounds_a_device_that_has_a_driver() -> Result<()> {
    /// Where the ring of descriptors is that it fills, in its registers, and how long.
    const RING: u64 = 0x2800;
    const RING_BYTES: u64 = 0x2808;
    let folder = TempFolder::new()?;
    let machine = Machine::new("iommu-nic").physical(Board::Q35, Bus::Nvme);
    let (machine, path) = with_hand(guarded(machine, ""), &folder);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/", seconds(30))?;
    ensure_quiet(&node)?;
    let mut hand = Qtest::connect(&path)?;
    let (name, _, registers) = function(&mut node, NIC)?;
    let before = page(&mut hand, VICTIM)?;
    let first = node.api().last_event()?;
    let ring = u64::from(hand.read_u32(registers + RING)?)
        | u64::from(hand.read_u32(registers + RING + 4)?) << 32;
    let bytes = u64::from(hand.read_u32(registers + RING_BYTES)?);
    ensure!(ring != 0 && bytes != 0, "no ring");
    for at in (ring..ring + bytes).step_by(16) {
        hand.write_u32(at, u32::try_from(VICTIM)?)?;
        hand.write_u32(at + 4, 0)?;
    }
    // Frames that are lost so come again, until the ring is all the driver's again.
    let begun = Instant::now();
    node.wait_http(NGINX, "/", seconds(90))?;
    println!("a page again after {:?}", begun.elapsed());
    let (count, last) = wait_faults(&node, &name, 0)?;
    println!("{name}: {count} times, last: {last}");
    let told = format!("write at {VICTIM:#x} refused: not its memory");
    ensure!(last.starts_with(&told), "{last}");
    ensure!(page(&mut hand, VICTIM)? == before, "the page was written");
    let events = node
        .api()
        .wait_events(first, "device", None, 1, seconds(10))?;
    let said = |event: &Value| event["text"].as_str().is_some_and(|t| t.contains(&told));
    ensure!(events.iter().any(said), "{events:?}");
    node.wait_http(NGINX, "/", seconds(10))?;
    node.shut_down(seconds(60))
}

/// What programs do on all disks: bytes there and back; then a load on the first.
/// Arguments: seconds, disks.
const USE_DISKS: &str = "set -eu
    time=$1; shift
    size=$(stat -L -c %s /data); sum=$(sha256sum </data)
    for disk in $*; do
        dd if=/data of=/dev/$disk bs=64k seek=128 conv=notrunc,fsync status=none
        read=$(dd if=/dev/$disk bs=64k skip=128 iflag=fullblock status=none | head -c $size | sha256sum)
        [ \"$read\" = \"$sum\" ]
        echo \"$disk is fine\"
    done
    disk load /dev/$1 $time";

/// A machine whose devices are all behind the IOMMU, on all kinds of disks.
fn serves(name: &str, settings: Option<&str>) -> Result<()> {
    let folder = TempFolder::new()?;
    let files = [
        disk_image(&folder, "nvme")?,
        disk_image(&folder, "sata")?,
        disk_image(&folder, "stick")?,
    ];
    let image = tools()?;
    let disks = ["nvme0n1", "sda", "sdb"];
    let time = a_while().to_string();
    let words = [time.as_str(), disks[0], disks[1], disks[2]];
    let capsule = scripted("tools", &image, USE_DISKS, &words, &disks);
    let machine = Machine::new(name)
        .physical(Board::Q35, Bus::Nvme)
        .disk_on(Bus::Nvme, "d0", &files[0])
        .disk_on(Bus::Ahci, "d1", &files[1])
        .disk_on(Bus::Usb, "d2", &files[2]);
    let machine = match settings {
        Some(settings) => guarded(machine, settings),
        None => machine,
    };
    let mut node = start_with_nginx(machine, &image, &[], &[&capsule])?;
    let log = run_beside_nginx(&node, "tools", seconds(240))?;
    ensure!(
        disks.iter().all(|d| log.contains(&format!("{d} is fine"))),
        "{log}"
    );
    if settings.is_some() {
        ensure_quiet(&node)?;
    }
    let visitor = Visitor::start(node.address(NGINX), "/");
    thread::sleep(seconds(5));
    let visits = visitor.finish();
    visits.expect_all_served("nginx behind the IOMMU", 5)?;
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&files[0])?)?;
    let data = data();
    for file in &files[1..] {
        let written = fs::read(file)?;
        let written = written.get(8 << 20..).and_then(|w| w.get(..data.len()));
        ensure!(
            written == Some(&data[..]),
            "{} has other bytes",
            file.display()
        );
    }
    Ok(())
}

#[test]
fn iommu_serves_without_virtio() -> Result<()> {
    serves("iommu-physical", Some(",intremap=off"))
}

/// As QEMU has it if nothing is said, and with hardware that remembers absence.
#[test]
#[ignore = "long"]
fn iommu_serves_in_caching_mode() -> Result<()> {
    serves("iommu-caching", Some(",caching-mode=on,aw-bits=48"))
}

/// The same without, to compare.
#[test]
#[ignore = "long"]
fn iommu_serves_without_any() -> Result<()> {
    serves("iommu-none", None)
}

/// Devices whose accesses come by another name than their own: that of the bridge they
/// are behind, or of the bus behind it.
#[test]
fn iommu_knows_devices_by_the_names_of_bridges() -> Result<()> {
    const BRIDGES: Bridges = Bridges {
        all: &[
            "pcie-root-port,id=first,chassis=1,slot=1",
            "pcie-pci-bridge,id=express,bus=first",
            "i82801b11-bridge,id=board",
        ],
        nic: "express",
        disk: "board",
    };
    let machine = Machine::new("iommu-bridges").physical(Board::Q35, Bus::Ahci);
    let machine = machine.nic("e1000").firmware(Firmware::Bios);
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    // Beside the boot disk, on the same adapter.
    let drive = format!("if=none,id=d0,format=raw,file={}", escape(&file));
    let machine = machine
        .behind(BRIDGES)
        .option("-drive", &drive)
        .option("-device", "ide-hd,bus=boot-bus.1,drive=d0");
    let image = tools()?;
    let script = "exec disk load /dev/sdb $1";
    let time = a_while().to_string();
    let capsule = scripted("load", &image, script, &[&time], &["sdb"]);
    let machine = guarded(machine, ",intremap=off");
    let mut node = start_with_nginx(machine, &image, &[], &[&capsule])?;
    let log = run_beside_nginx(&node, "load", seconds(240))?;
    ensure_quiet(&node)?;
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&file)?)
}

/// Virtio devices behind the IOMMU, where they ask for it, beside some that go past it.
#[test]
fn iommu_takes_virtio_devices() -> Result<()> {
    let folder = TempFolder::new()?;
    let (file, other) = (disk_image(&folder, "a")?, disk_image(&folder, "b")?);
    let image = tools()?;
    let disks = ["vda", "vdb"];
    let time = a_while().to_string();
    let words = [time.as_str(), disks[0], disks[1]];
    let capsule = scripted("tools", &image, USE_DISKS, &words, &disks);
    let drive = format!("if=none,id=d0,format=raw,file={}", escape(&file));
    let machine = Machine::new("iommu-virtio")
        .nic("virtio-net-pci,iommu_platform=on,disable-legacy=on")
        .option("-drive", &drive)
        .option(
            "-device",
            "virtio-blk-pci,drive=d0,iommu_platform=on,disable-legacy=on",
        )
        .disk("d1", &other);
    let mut node = start_with_nginx(guarded(machine, ""), &image, &[], &[&capsule])?;
    let log = run_beside_nginx(&node, "tools", seconds(240))?;
    ensure_quiet(&node)?;
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&file)?)
}

/// What single pages of 4 KiB cost, in processor time of the program that moves them: under
/// `-icount` a nanosecond is an instruction.
const COUNT_PAGES: &str = "set -eu
    TIMEFORMAT='%3U + %3S s'
    for n in 1 2 3; do
        echo read; time dd if=/dev/$1 of=/dev/null bs=4k count=8000 iflag=direct status=none
        echo write; time dd if=/dev/zero of=/dev/$1 bs=4k count=8000 oflag=direct conv=notrunc status=none
        echo large; time dd if=/dev/$1 of=/dev/null bs=1M count=32 iflag=direct status=none
    done";

/// Figures with and without an IOMMU, for `docs/performance.md`.
#[test]
#[ignore = "long"]
fn iommu_costs() -> Result<()> {
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "nvme")?;
    let image = tools()?;
    for (name, settings) in [("none", None), ("on", Some(",intremap=off"))] {
        let machine = |kind: &str| {
            let machine = Machine::new(&format!("iommu-costs-{kind}-{name}"))
                .physical(Board::Q35, Bus::Nvme)
                .disk_on(Bus::Nvme, "d0", &file);
            match settings {
                Some(settings) => guarded(machine, settings),
                None => machine,
            }
        };
        let script = format!("({COUNT_PAGES}) 2>&1");
        let count = scripted("count", &image, &script, &["nvme0n1"], &["nvme0n1"]);
        let counted = machine("count").icount();
        let mut ramdisk = Ramdisk::with_nginx()?;
        ramdisk.idle_capsule(&count, &image)?;
        let path = ramdisk.write(&counted.name)?;
        let mut node = counted.ramdisk(&path).start()?;
        node.wait_http(8080, "/", seconds(120))?;
        node.api().command("capsules/count/start", &Value::Null)?;
        let how = node.api().wait_finished("count", seconds(300))?;
        println!("IOMMU {name}, {how}:\n{}", node.api().log("count")?);
        node.kill();
        let mut node = machine("pages").cpus(2).start()?;
        node.wait_http(NGINX, "/", seconds(60))?;
        let rates: Vec<_> = (0..5)
            .map(|_| {
                let (begun, mut pages) = (Instant::now(), 0);
                while begun.elapsed() < seconds(4) {
                    let got = http::get(node.address(NGINX), "/", seconds(10));
                    pages += u32::from(got.is_ok_and(|g| g.status == 200));
                }
                pages / 4
            })
            .collect();
        println!("IOMMU {name}: pages a second over the e1000e: {rates:?}");
        node.kill();
    }
    Ok(())
}
