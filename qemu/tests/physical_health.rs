//! What disks say of their health, as the node tells its owner.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_qemu::{
    Artifacts, Board, Bus, Machine, Node, command::output, machine::escape, node::TempFolder,
    seconds,
};
use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// A disk as QEMU is told to make it, and what the node is to say of it.
struct Wanted {
    name: &'static str,
    device: &'static str,
    serial: &'static str,
    mib: u64,
    /// Why it fails, if it does.
    reason: &'static str,
    celsius: i64,
}

/// QEMU's NVMe controllers are at 323 K, its SATA disks at 31 °C.
const DISKS: [Wanted; 3] = [
    Wanted {
        name: "nvme0n1",
        device: "nvme,id=d0-device",
        serial: "NV-1",
        mib: 24,
        reason: "",
        celsius: 50,
    },
    Wanted {
        name: "nvme1n1",
        device: "nvme,smart_critical_warning=4",
        serial: "NV-2",
        mib: 25,
        reason: "it is no longer reliable",
        celsius: 50,
    },
    Wanted {
        name: "sda",
        device: "ide-hd,bus=ide.2",
        serial: "SA-1",
        mib: 26,
        reason: "",
        celsius: 31,
    },
];

impl Wanted {
    /// Whether the report's entry is of it, and its health known.
    fn is(&self, disk: &Value) -> bool {
        let health = &disk["health"];
        let failing = !self.reason.is_empty();
        disk["name"] == self.name
            && disk["serial"] == self.serial
            && disk["bytes"] == self.mib << 20
            && (&health["failing"], &health["reason"]) == (&json!(failing), &json!(self.reason))
            && health["temperature"] == self.celsius
    }

    /// The words of its health that people are shown.
    fn words(&self) -> String {
        let state = match self.reason {
            "" => "good".to_string(),
            reason => format!("FAILING: {reason}"),
        };
        format!("{state}, {} °C", self.celsius)
    }
}

/// A machine with those disks and nothing of virtio, once it is up.
fn start(folder: &TempFolder) -> Result<Node> {
    let mut machine = Machine::new("physical-health").physical(Board::Q35, Bus::Ahci);
    for (n, disk) in DISKS.iter().enumerate() {
        let file = folder.path().join(disk.name);
        fs::File::create(&file)?.set_len(disk.mib << 20)?;
        let drive = format!("if=none,id=d{n},format=raw,file={}", escape(&file));
        let device = format!("{},drive=d{n},serial={}", disk.device, disk.serial);
        machine = machine.option("-drive", &drive).option("-device", &device);
    }
    let mut node = machine.start()?;
    node.wait_http(8080, "/", seconds(90))?;
    Ok(node)
}

/// The report names these disks and no others. They are asked once the node is up.
fn reported(node: &Node) -> Result<()> {
    let deadline = Instant::now() + seconds(20);
    loop {
        let report = node.api().get("hardware")?;
        let told = report["disks"].as_array().context("no disks")?;
        if told.len() == DISKS.len() && DISKS.iter().zip(told).all(|(d, told)| d.is(told)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not those disks: {told:?}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// The owner's command line shows the same.
fn shown_to_people(node: &Node) -> Result<()> {
    let url = format!("http://{}", node.address(8080));
    let mut command = Command::new(Artifacts::new().cli());
    let text = output(command.args(["status", "--hardware", "--node", &url]))?;
    println!("{text}");
    for disk in &DISKS {
        let mut lines = text.lines().filter(|line| line.starts_with(disk.name));
        let line = lines.next().unwrap_or_default();
        ensure!(
            line.contains(disk.serial) && line.contains(&disk.words()),
            "skep status --hardware says otherwise: {line:?}"
        );
    }
    Ok(())
}

/// Waits for an event about a device with this text.
fn wait_told(node: &Node, text: &str) -> Result<()> {
    let deadline = Instant::now() + seconds(20);
    loop {
        let told = node.api().events(0, "device", None)?;
        if told.iter().any(|event| event["text"] == text) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not told: {text}: {told:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Disks tell of their health; one that fails is an event, and so is one that begins to.
#[test]
fn the_health_of_disks() -> Result<()> {
    let folder = TempFolder::new()?;
    let mut node = start(&folder)?;
    reported(&node)?;
    shown_to_people(&node)?;
    wait_told(
        &node,
        "nvme1n1: the disk says that it fails: it is no longer reliable",
    )?;
    let hot = json!({
        "path": "/machine/peripheral/d0-device", "property": "smart_critical_warning", "value": 2,
    });
    node.qmp().execute_with("qom-set", &hot)?;
    wait_told(&node, "nvme0n1: it warns of its own failure")?;
    node.shut_down(seconds(60))
}
