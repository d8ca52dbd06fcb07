//! A capsule cannot see or hurt what is not its own.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_api::manifest::RestartPolicy;
use skep_qemu::{
    Machine, Node, Visitor, long,
    ramdisk::{Image, Ramdisk, manifest, port},
    seconds,
};
use std::{
    thread,
    time::{Duration, Instant},
};

const NGINX: u16 = 8081;
const NEIGHBOUR: u16 = 8082;
/// What the node's free memory may be less by after a run than after the run before
/// it: the first fills the kernel's own caches, which it keeps, and every visitor's
/// connection lingers for a while after its end.
const MEMORY_KEPT: u64 = 6 << 20;

/// A node with nginx, the neighbour, and the idle capsule `odd` that runs this.
fn node(name: &str, program: &str, words: &[&str]) -> Result<Node> {
    let mut ramdisk = Ramdisk::with_nginx()?;
    let neighbour = Image::program("neighbour")?;
    let mut neighbours = manifest("neighbour", &neighbour, &["/bin/neighbour"]);
    neighbours.ports.push(port(80, NEIGHBOUR));
    ramdisk.capsule(&neighbours, &neighbour)?;
    let image = Image::program(program)?;
    let path = format!("/bin/{program}");
    let mut odd = manifest("odd", &image, &[&[path.as_str()], words].concat());
    odd.restart.policy = RestartPolicy::Never;
    odd.environment
        .push(("HOSTILE".to_string(), "1".to_string()));
    ramdisk.idle_capsule(&odd, &image)?;
    let ramdisk = ramdisk.write(name)?;
    let machine = Machine::new(name)
        .cpus(2)
        .ramdisk(&ramdisk)
        .guest_port(NEIGHBOUR);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(NEIGHBOUR, "/", seconds(60))?;
    Ok(node)
}

/// Runs `odd` to its end, which must be status 0, while nginx and the neighbour are
/// visited and see nothing of it.
fn harmless(node: &Node, limit: Duration) -> Result<()> {
    let api = node.api();
    api.command("capsules/odd/start", &Value::Null)?;
    api.wait_finished("odd", limit)?;
    thread::sleep(seconds(1));
    let before = api.last_event()?;
    let start = api.get("node")?;
    let visitors = [NGINX, NEIGHBOUR].map(|port| Visitor::start(node.address(port), "/"));
    api.command("capsules/odd/start", &Value::Null)?;
    // It is the end of this run that counts.
    let ended = api
        .wait_events(before, "exited", Some("odd"), 1, limit)
        .and_then(|_| api.wait_finished("odd", seconds(10)));
    let [nginx, neighbour] = visitors.map(Visitor::finish);
    let log = api.log("odd").unwrap_or_default();
    // What hostile calls wrote to its output is noise; its own words come last.
    let said = log.lines().last().unwrap_or_default();
    println!("it printed {} bytes", log.len());
    let how = ended?;
    ensure!(
        how == "exit code 0",
        "it ended with {how} and printed last {said:?}"
    );
    nginx.expect_all_served("nginx", 5)?;
    neighbour.expect_all_served("the neighbour", 5)?;
    for name in ["nginx", "neighbour"] {
        let capsule = api.capsule(name)?;
        ensure!(capsule["restarts"] == 0, "{name} was restarted: {capsule}");
    }
    let free = |node: &Value| node["memory_free_bytes"].as_u64().context("no memory");
    let before = free(&start)?;
    let deadline = Instant::now() + seconds(10);
    let end = loop {
        let now = api.get("node")?;
        if free(&now)? + MEMORY_KEPT >= before || Instant::now() >= deadline {
            break now;
        }
        thread::sleep(Duration::from_millis(100));
    };
    ensure!(end["agent_starts"] == 1, "the 3Bot was restarted");
    let uptime = |node: &Value| node["uptime_ms"].as_u64().context("no uptime");
    ensure!(uptime(&end)? > uptime(&start)?, "the node was restarted");
    let after = free(&end)?;
    println!(
        "free memory: {} KiB before, {} KiB after",
        before >> 10,
        after >> 10
    );
    ensure!(
        after + MEMORY_KEPT >= before,
        "{} KiB are not free again",
        (before - after) >> 10
    );
    Ok(())
}

#[test]
fn nothing_of_another_capsule_can_be_reached() -> Result<()> {
    harmless(&node("isolation-probe", "prober", &[])?, seconds(120))
}

#[test]
fn nothing_of_the_machine_can_be_reached() -> Result<()> {
    harmless(
        &node("isolation-machine", "hostile", &["instructions"])?,
        seconds(120),
    )
}

#[test]
fn every_call_with_hostile_arguments() -> Result<()> {
    let (time, limit) = if long() { ("600", 1200) } else { ("1", 300) };
    harmless(
        &node("isolation-calls", "hostile", &["calls", time])?,
        seconds(limit),
    )
}
