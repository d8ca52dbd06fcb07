//! A capsule that takes all it can get, beside one that serves.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_api::manifest::{Limits, Manifest, RestartPolicy};
use skep_qemu::{
    Machine, Node, Visitor,
    api::Api,
    long,
    ramdisk::{Image, Ramdisk, manifest},
    seconds,
    twin::{Packages, Room, on_a_node},
};
use std::{
    thread,
    time::{Duration, Instant},
};

const NGINX: u16 = 8081;
/// Visits to nginx that must succeed beside the hog, however slow the host and however
/// soon the hog has had all there is.
const VISITS: usize = 2;
/// What the node's free memory may be less by after a run than after the run before
/// it: the first fills the kernel's own caches, which it keeps, and every visitor's
/// connection lingers for a while after its end.
const MEMORY_KEPT: u64 = 6 << 20;

/// How long a hog runs before memory is compared.
const WARM_UP: Duration = seconds(5);

/// How long a hog is left to itself.
fn a_while() -> Duration {
    seconds(if long() { 120 } else { 5 })
}

fn number(value: &Value, path: &str) -> Result<u64> {
    value
        .pointer(path)
        .and_then(Value::as_u64)
        .with_context(|| format!("no {path} in {value}"))
}

/// A node with nginx and, not started yet, the capsule `hog` of this manifest.
fn node(name: &str, change: impl FnOnce(&mut Manifest), words: &[&str]) -> Result<Node> {
    let mut ramdisk = Ramdisk::with_nginx()?;
    let image = Image::program("hog")?;
    let command = [&["/bin/hog"], words].concat();
    let mut hog = manifest("hog", &image, &command);
    hog.limits = Limits {
        memory_bytes: 24 << 20,
        processes: 24,
        files: 200,
        ..Limits::default()
    };
    hog.restart.policy = RestartPolicy::Never;
    // As the first process of its capsule it does not hear SIGTERM.
    hog.stop.grace_ms = 500;
    change(&mut hog);
    ramdisk.idle_capsule(&hog, &image)?;
    let path = ramdisk.write(name)?;
    let mut node = Machine::new(name).cpus(2).ramdisk(&path).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.api()
        .wait_capsule("nginx", seconds(30), |capsule| capsule["health"] == "ready")?;
    Ok(node)
}

/// Starts the hog and visits nginx while `watch` looks on; afterwards the hog is
/// stopped, and everything it had must be free again.
fn beside_the_hog(node: &mut Node, watch: impl FnOnce(&Node) -> Result<()>) -> Result<()> {
    let api = node.api();
    let quiet = Visitor::start(node.address(NGINX), "/");
    thread::sleep(seconds(1));
    quiet.finish().expect_all_served("nginx alone", 1)?;
    let free = |api: &Api| number(&api.get("node")?, "/memory_free_bytes");
    api.command("capsules/hog/start", &Value::Null)?;
    thread::sleep(WARM_UP);
    end_the_hog(&api)?;
    thread::sleep(seconds(1));
    let before = free(&api)?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    api.command("capsules/hog/start", &Value::Null)?;
    let watched = watch(node);
    let visits = visitor.finish();
    watched?;
    visits.expect_all_served("nginx beside the hog", VISITS)?;
    end_the_hog(&api)?;
    let deadline = Instant::now() + seconds(10);
    loop {
        let after = free(&api)?;
        if after + MEMORY_KEPT >= before {
            break;
        }
        ensure!(
            Instant::now() < deadline,
            "{} KiB are not free again",
            (before - after) >> 10
        );
        thread::sleep(Duration::from_millis(100));
    }
    let nginx = api.capsule("nginx")?;
    ensure!(
        number(&nginx, "/restarts")? == 0,
        "nginx was restarted: {nginx}"
    );
    let node = api.get("node")?;
    ensure!(
        number(&node, "/agent_starts")? == 1,
        "the 3Bot was restarted"
    );
    Ok(())
}

/// Stops the hog unless it has ended.
fn end_the_hog(api: &Api) -> Result<()> {
    if api.capsule("hog")?["state"] != "finished" {
        api.command("capsules/hog/stop", &Value::Null)?;
        api.wait_capsule("hog", seconds(30), |hog| hog["state"] == "stopped")?;
    }
    Ok(())
}

/// Looks at the hog again and again: `of` never exceeds `limit`, and comes to
/// `reached` at least.
fn stays_within(node: &Node, of: &str, reached: u64, limit: u64) -> Result<()> {
    let api = node.api();
    let path = format!("/usage/{of}");
    let begin = Instant::now();
    let mut most = 0;
    while begin.elapsed() < a_while() || most < reached && begin.elapsed() < seconds(60) {
        let hog = api.capsule("hog")?;
        if let Some(now) = hog.pointer(&path).and_then(Value::as_u64) {
            most = most.max(now);
        }
        ensure!(most <= limit, "{of}: {most} is over the limit of {limit}");
        thread::sleep(Duration::from_millis(50));
    }
    println!("{of}: at most {most}, limit {limit}");
    ensure!(
        most >= reached,
        "{of}: only {most}; the hog did not come near {limit}"
    );
    Ok(())
}

/// Expects the event log to tell that the hog was refused more of `what`.
fn told_of(node: &Node, what: &str) -> Result<()> {
    let deadline = Instant::now() + seconds(10);
    loop {
        let told = node.api().events(0, "limit", Some("hog"))?;
        if told.iter().any(|event| event.to_string().contains(what)) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the event log does not tell of {what}: {told:?}"
        );
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn memory_without_end() -> Result<()> {
    let limit = 24 << 20;
    let mut node = node("limits-memory", |_| (), &["memory"])?;
    beside_the_hog(&mut node, |node| {
        let how = node.api().wait_finished("hog", seconds(60))?;
        ensure!(how == "out of memory", "it ended otherwise: {how}");
        let told = node.api().events(0, "limit", Some("hog"))?;
        ensure!(!told.is_empty(), "the event log does not tell of it");
        Ok(())
    })?;
    // Again and again: each run must end in the same way, and cost nobody anything.
    for _ in 0..if long() { 50 } else { 3 } {
        beside_the_hog(&mut node, |node| {
            let run = node.api().last_event()?;
            let mut most = 0;
            let deadline = Instant::now() + seconds(60);
            while node
                .api()
                .events(run.saturating_sub(1), "exited", Some("hog"))?
                .is_empty()
            {
                let hog = node.api().capsule("hog")?;
                let peak = hog
                    .pointer("/usage/memory_peak_bytes")
                    .and_then(Value::as_u64);
                most = most.max(peak.unwrap_or(0));
                ensure!(Instant::now() < deadline, "it does not end");
            }
            ensure!(most <= limit, "it had {most} bytes, over its {limit}");
            Ok(())
        })?;
    }
    Ok(())
}

/// What `scripts/full-disk.sh` prints where nothing goes wrong.
const ON_A_FULL_DISK: &str = "\
free before: 1
dd 1 No space left on device
free: 0, as df says: 0
used as du says: 0
mkdir: No space left on device
symlink: No space left on device
create: No space left on device
append: No space left on device
sparse: No space left on device
2000

back
16777216
status 137
status 137
26214400
";

/// Files end before a capsule's memory does: its shell goes on, and what it removes
/// can be written again. A program that takes too much ends alone.
#[test]
fn a_full_disk() -> Result<()> {
    let packages = Packages::pack("full-disk", &["bash", "coreutils", "grep"])?;
    let script = include_bytes!("scripts/full-disk.sh");
    let image = packages.image(&[("/script", 0o755, script)])?;
    let room = Room {
        memory_mib: 48,
        time: seconds(180),
    };
    let told = on_a_node("limits-full-disk", &image, &["/bin/bash", "/script"], room)?;
    ensure!(told == ON_A_FULL_DISK, "it printed otherwise: {told}");
    Ok(())
}

#[test]
fn processes_without_end() -> Result<()> {
    let more = |hog: &mut Manifest| hog.limits.memory_bytes = 48 << 20;
    let mut node = node("limits-processes", more, &["processes"])?;
    beside_the_hog(&mut node, |node| {
        stays_within(node, "processes", 24, 24)?;
        let told = node.api().events(0, "limit", Some("hog"))?;
        ensure!(
            !told.is_empty(),
            "the event log does not tell that the hog is at its limit"
        );
        Ok(())
    })
}

#[test]
fn files_without_end() -> Result<()> {
    let mut node = node("limits-files", |_| (), &["files"])?;
    beside_the_hog(&mut node, |node| {
        stays_within(node, "files", 199, 200)?;
        told_of(node, "open files")
    })
}

/// The limit is one for the capsule, not for each process: none of these comes near
/// it alone.
#[test]
fn files_of_many_processes() -> Result<()> {
    let words = ["files-of-many", "8"];
    let mut node = node("limits-files-of-many", |_| (), &words)?;
    beside_the_hog(&mut node, |node| {
        stays_within(node, "files", 199, 200)?;
        let hog = node.api().capsule("hog")?;
        ensure!(hog["state"] == "running", "it ended: {hog}");
        ensure!(number(&hog, "/usage/processes")? == 8, "not 8: {hog}");
        told_of(node, "open files")
    })
}

#[test]
fn sockets_without_end() -> Result<()> {
    let more = |hog: &mut Manifest| hog.limits.memory_bytes = 48 << 20;
    let mut node = node("limits-sockets", more, &["sockets"])?;
    beside_the_hog(&mut node, |node| {
        stays_within(node, "sockets", 100, 200)?;
        told_of(node, "open files")
    })
}

#[test]
fn spinning_on_all_cpus() -> Result<()> {
    let mut node = node("limits-spin", |_| (), &["spin", "8"])?;
    beside_the_hog(&mut node, |_| {
        thread::sleep(a_while());
        Ok(())
    })
}

/// A ceiling of half a CPU is kept although both are idle.
#[test]
fn cpu_quota() -> Result<()> {
    let half = |hog: &mut Manifest| hog.limits.cpu_quota_percent = Some(50);
    let mut node = node("limits-quota", half, &["spin", "4"])?;
    beside_the_hog(&mut node, |node| {
        let api = node.api();
        api.wait_capsule("hog", seconds(30), |hog| hog["state"] == "running")?;
        let look = || -> Result<(u64, u64)> {
            let hog = api.capsule("hog")?;
            Ok((number(&hog, "/usage/cpu_ms")?, number(&hog, "/running_ms")?))
        };
        let (used, at) = look()?;
        thread::sleep(a_while());
        let (used_later, at_later) = look()?;
        let percent = (used_later - used) * 100 / (at_later - at).max(1);
        println!("CPU used: {percent} % of one, ceiling 50 %");
        // Not far below either: it may use what it was given.
        ensure!(
            (30..=60).contains(&percent),
            "it used {percent} % of one CPU"
        );
        Ok(())
    })
}
