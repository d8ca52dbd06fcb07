//! Disks in the hands of capsules, for scenarios: images, programs that use them, and
//! what must be on them afterwards.

use crate::{
    Artifacts, Bus, Machine, Node, Visitor, long,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, manifest},
    seconds,
    twin::Packages,
};
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_api::manifest::{Manifest, RestartPolicy};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Port of nginx's page.
const NGINX: u16 = 8081;
/// Bytes of a disk.
pub const DISK: u64 = 32 << 20;
/// Bytes of a block of `disk`.
pub const BLOCK: usize = 4096;

/// How long a disk is under load.
pub fn a_while() -> u64 {
    if long() { 120 } else { 5 }
}

/// Debian's bash, coreutils and blockdev, and our program for disks.
pub fn tools() -> Result<Image> {
    let program = fs::read(Artifacts::new().program("disk"))?;
    let packages = Packages::pack("disks", &["bash", "coreutils", "util-linux"])?;
    packages.image(&[
        ("/usr/bin/disk", 0o755, &program),
        ("/data", 0o644, &data()),
    ])
}

/// A capsule that runs a script of bash and holds these devices.
pub fn scripted(
    name: &str,
    image: &Image,
    script: &str,
    words: &[&str],
    devices: &[&str],
) -> Manifest {
    let command = [&["/bin/bash", "-c", script, "bash"], words].concat();
    let mut capsule = manifest(name, image, &command);
    capsule.devices = devices.iter().map(|name| name.to_string()).collect();
    capsule.restart.policy = RestartPolicy::Never;
    // Programs that run as process 1 do not hear SIGTERM.
    capsule.stop.grace_ms = 100;
    capsule
}

/// An empty disk image.
pub fn disk_image(folder: &TempFolder, name: &str) -> Result<PathBuf> {
    let path = folder.path().join(name);
    fs::File::create(&path)?.set_len(DISK)?;
    Ok(path)
}

/// A disk as [`Machine::disk_on`], whose requests fail as QEMU's blkdebug is told.
pub fn broken_disk(machine: Machine, bus: Bus, id: &str, image: &Path, errors: &Value) -> Machine {
    let drive = json!({
        "driver": "blkdebug",
        "node-name": id,
        "image": { "driver": "file", "filename": image },
        "inject-error": errors,
    });
    machine
        .option("-blockdev", &drive.to_string())
        .attach(bus, id)
}

/// Requests of this kind that touch the sector at `offset` fail with EIO.
pub fn error(what: &str, offset: Option<u64>, once: bool) -> Value {
    let mut error = json!({ "event": "none", "iotype": what, "errno": 5, "once": once });
    if let Some(offset) = offset {
        error["sector"] = json!(offset / 512);
    }
    error
}

/// A node of two CPUs at least with nginx and these capsules, the idle ones started by
/// the owner later.
pub fn start_with_nginx(
    machine: Machine,
    image: &Image,
    capsules: &[&Manifest],
    idle: &[&Manifest],
) -> Result<Node> {
    let mut ramdisk = Ramdisk::with_nginx()?;
    for capsule in capsules {
        ramdisk.capsule(capsule, image)?;
    }
    for capsule in idle {
        ramdisk.idle_capsule(capsule, image)?;
    }
    let path = ramdisk.write(&machine.name)?;
    let cpus = machine.cpus.max(2);
    let mut node = machine.cpus(cpus).ramdisk(&path).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/", seconds(30))?;
    Ok(node)
}

/// Starts a capsule, waits for its end with status 0 while nginx is visited, and
/// gives what it printed.
pub fn run_beside_nginx(node: &Node, name: &str, limit: Duration) -> Result<String> {
    let api = node.api();
    let visitor = Visitor::start(node.address(NGINX), "/");
    api.command(&format!("capsules/{name}/start"), &Value::Null)?;
    let ended = api.wait_finished(name, limit);
    let visits = visitor.finish();
    let log = api.log(name)?;
    let how = ended.with_context(|| format!("it printed: {log}"))?;
    ensure!(how == "exit code 0", "{how}: {log}");
    visits.expect_all_served("nginx beside the disk", 5)?;
    let restarts = api.capsule("nginx")?["restarts"].clone();
    ensure!(restarts == 0, "nginx was restarted");
    println!("{log}");
    Ok(log)
}

/// The checksum that `disk load` prints of a part, of these bytes.
pub fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    words.fold(0xcbf2_9ce4_8422_2325, |sum: u64, word| {
        let number = word
            .iter()
            .rev()
            .fold(0, |n, byte| n << 8 | u64::from(*byte));
        (sum ^ number).wrapping_mul(0x100_0000_01b3)
    })
}

/// Whether the image holds what each thread of `disk load` had made durable.
pub fn ensure_durable(log: &str, image: &[u8]) -> Result<()> {
    let sums: Vec<_> = log
        .lines()
        .filter(|line| line.starts_with("part "))
        .collect();
    ensure!(sums.len() == 4, "not four parts: {log}");
    for line in sums {
        let words: Vec<&str> = line.split(' ').collect();
        let part: usize = words[1].parse()?;
        let bytes = &image[part << 20..][..1 << 20];
        let sum = format!("{:016x}", checksum(bytes));
        ensure!(sum == words[2], "part {part} of the image differs: {sum}");
    }
    Ok(())
}

/// A file that the node copies to its disk: no block of it is like another, and its
/// last is not whole.
pub fn data() -> Vec<u8> {
    let words = (0..325_001u32).map(|n| n.wrapping_mul(0x9e37_79b9));
    words.flat_map(u32::to_le_bytes).collect()
}

/// Lets the disk move this many bytes a second; 0 is no limit.
pub fn throttle(node: &mut Node, drive: &str, bytes: u64) -> Result<()> {
    let limits = json!({
        "device": drive, "bps": bytes, "bps_rd": 0, "bps_wr": 0,
        "iops": 0, "iops_rd": 0, "iops_wr": 0,
    });
    let done = node.qmp().execute_with("block_set_io_throttle", &limits);
    done.map(drop)
}
