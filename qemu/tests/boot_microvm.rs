//! Machines without PCI, as small VMMs make them: devices in memory, told by the command
//! line or by ACPI, and no more clocks than needed.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_api::manifest::RestartPolicy;
use skep_qemu::{
    Artifacts, Bus, Machine, Node,
    disks::disk_image,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, manifest},
    seconds,
};
use std::fs;

const NGINX: u16 = 8081;
const STATUS: u16 = 8080;

/// What the capsule does: it writes to the disk and reads it back, and counts CPUs.
const SCRIPT: &str = "set -e
    alias b=/bin/busybox
    echo a message | b dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null
    b head -n 1 /dev/vda
    b nproc";

/// A node that serves nginx's page, has a disk and an entropy device, and heals nginx.
fn serves(name: &str, options: &[&str], cpus: u32) -> Result<Node> {
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = Image::open(&Artifacts::new().shell_image())?;
    let mut capsule = manifest("tools", &image, &["/bin/busybox", "sh", "-c", SCRIPT]);
    capsule.devices = vec!["vda".into()];
    capsule.restart.policy = RestartPolicy::Never;
    let mut ramdisk = Ramdisk::with_nginx()?;
    ramdisk.capsule(&capsule, &image)?;
    let mut node = Machine::new(name)
        .microvm(options)
        .cpus(cpus)
        .no_reboot()
        .disk_on(Bus::VirtioMmio, "d0", &file)
        .ramdisk(&ramdisk.write(name)?)
        .start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    println!("first page after {:.3} s", node.uptime().as_secs_f64());
    node.wait_http(STATUS, "/", seconds(30))?;
    let api = node.api();
    api.wait_capsule("nginx", seconds(30), |capsule| capsule["health"] == "ready")?;
    let how = node.api().wait_finished("tools", seconds(60))?;
    let said = node.api().log("tools")?;
    ensure!(how == "exit code 0", "{how}: {said}");
    ensure!(said == format!("a message\n{cpus}\n"), "{said}");
    works(&mut node)?;
    heals(&mut node)?;
    let written = fs::read(&file)?;
    ensure!(
        written.starts_with(b"a message\n"),
        "the disk has other bytes"
    );
    Ok(node)
}

/// Expects that the node's driver works with each of the devices, by what QEMU says.
fn works(node: &mut Node) -> Result<()> {
    let devices = node.qmp().execute("x-query-virtio")?;
    let devices = devices.as_array().context("no list of devices")?.clone();
    ensure!(devices.len() == 3, "not three devices: {devices:?}");
    for device in devices {
        let queue = json!({ "path": device["path"], "queue": 0 });
        let queue = node
            .qmp()
            .execute_with("x-query-virtio-queue-status", &queue)?;
        let used = queue["used-idx"].as_u64();
        ensure!(used > Some(0), "{device} did nothing: {queue}");
    }
    Ok(())
}

/// Kills nginx and sees it come back.
fn heals(node: &mut Node) -> Result<()> {
    let before = node.api().last_event()?;
    let kill = json!({ "signal": 9, "scope": "all" });
    node.api().command("capsules/nginx/kill", &kill)?;
    let api = node.api();
    api.wait_events(before, "exited", Some("nginx"), 1, seconds(30))?;
    api.wait_events(before, "started", Some("nginx"), 1, seconds(30))?;
    node.wait_http(NGINX, "/", seconds(30)).map(drop)
}

/// Ends the node by its owner's word; QEMU must end well.
fn powers_off(mut node: Node) -> Result<()> {
    node.api().command("node/poweroff", &Value::Null)?;
    let status = node.wait_exit(seconds(30))?;
    ensure!(status == 0, "QEMU ended with {status}");
    ensure!(
        node.serial().contains("capsule nginx"),
        "the capsules were not stopped: {}",
        node.serial()
    );
    Ok(())
}

#[test]
fn microvm_1_cpu() -> Result<()> {
    let node = serves("microvm-1", &["acpi=on"], 1)?;
    powers_off(node)
}

#[test]
fn microvm_2_cpus() -> Result<()> {
    let node = serves("microvm-2", &["acpi=on"], 2)?;
    let said = node.serial();
    ensure!(!said.contains("cannot be turned off"), "{said}");
    powers_off(node)
}

/// Devices come from the command line, CPUs and interrupts from MP tables. Nothing can
/// turn such a machine off: it resets, which is what its VMM takes for the end.
#[test]
fn microvm_without_acpi_1_cpu() -> Result<()> {
    let node = serves("microvm-no-acpi-1", &["acpi=off"], 1)?;
    powers_off(node)
}

#[test]
fn microvm_without_acpi_2_cpus() -> Result<()> {
    let node = serves("microvm-no-acpi-2", &["acpi=off"], 2)?;
    powers_off(node)
}

/// The real-time clock is all there is to measure time with.
#[test]
fn microvm_without_timers() -> Result<()> {
    let options = ["acpi=off", "pit=off", "pic=off", "rtc=on", "isa-serial=on"];
    let mut node = serves("microvm-no-timers", &options, 2)?;
    node.wait_serial("the real-time clock is the only one", seconds(1))?;
    // A second of the node is one of the host, to a tenth or so.
    let read = |node: &Node| -> Result<u64> {
        let said = node.api().get("node")?;
        Ok(said["uptime_ms"].as_u64().unwrap_or_default())
    };
    let (first, begin) = (read(&node)?, node.uptime());
    std::thread::sleep(seconds(5));
    let (second, end) = (read(&node)?, node.uptime());
    let (theirs, ours) = ((second - first) as f64, (end - begin).as_secs_f64() * 1e3);
    println!("{theirs} ms of the node in {ours:.0} ms");
    ensure!(
        (theirs / ours - 1.0).abs() < 0.2,
        "{theirs} ms in {ours} ms"
    );
    powers_off(node)
}

/// Without any clock it does not start, and says what it lacks.
#[test]
fn microvm_without_any_clock() -> Result<()> {
    let options = ["acpi=off", "pit=off", "pic=off", "rtc=off"];
    let mut node = Machine::new("microvm-no-clock").microvm(&options).start()?;
    let said = "Skep cannot start: no clock tells how fast the TSC counts";
    node.wait_serial(said, seconds(30)).map(drop)
}

/// Words that name no device are told, and nothing else suffers.
#[test]
fn microvm_with_a_bad_command_line() -> Result<()> {
    let line = "virtio_mmio.device=512@0x100000:5 virtio_mmio.device=512@x:5 \
                virtio_mmio.device=512@0xfeb00001:5 virtio_mmio.device=4K@0xfea00000:200 quiet";
    let mut node = Machine::new("microvm-bad-line")
        .microvm(&["acpi=off"])
        .option("-append", line)
        .start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let said = node.serial();
    for word in [
        "device 0x100000 (virtio): its registers would be in memory",
        "no use for virtio_mmio.device=512@x:5: no device can be at its address",
        "no use for virtio_mmio.device=512@0xfeb00001:5: no device can be",
        "device 0xfea00000 (virtio): no virtio device is there",
        "no use for quiet",
    ] {
        ensure!(said.contains(word), "not told: {word}: {said}");
    }
    Ok(())
}
