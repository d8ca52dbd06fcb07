//! A capsule cannot see or hurt what is not its own.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_api::manifest::RestartPolicy;
use skep_qemu::{
    Machine, Node, Visitor,
    api::Api,
    long,
    ramdisk::{Image, Ramdisk, manifest, port},
    seconds,
    trend::slope,
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
/// By how many KiB each further run may lessen it, once the first half has filled the
/// caches, which grow ever more slowly: by 2,000 KiB in twelve runs, of which the last
/// six took 10 each. Of what is lost in every round of calls, two pages show.
const KEPT_PER_RUN: f64 = 32.0;
/// So many runs tell a trend.
const RUNS_FOR_A_TREND: usize = 6;

/// Seeds whose rounds of calls have ended badly once, one to a line, `0x...`; words
/// after `#` say what it was.
const SEEDS: &str = include_str!("isolation_seeds.txt");

/// A node with nginx, the neighbour, and the idle capsule `odd` that runs this.
fn node(name: &str, cpus: u32, program: &str, words: &[&str]) -> Result<Node> {
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
        .cpus(cpus)
        .ramdisk(&ramdisk)
        .guest_port(NEIGHBOUR);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(NEIGHBOUR, "/", seconds(60))?;
    Ok(node)
}

/// Runs `odd` to its end, again and again for `time`, while nginx and the neighbour
/// are visited and see nothing of it. It must end with status 0; if it is run often, now
/// and then because the capsule's memory is used up.
fn harmless(node: &Node, time: Duration, limit: Duration) -> Result<()> {
    let api = node.api();
    // What the kernel keeps for itself after a first run is no leak.
    one_run(&api, limit, true)?;
    thread::sleep(seconds(1));
    let start = api.get("node")?;
    let visitors = [NGINX, NEIGHBOUR].map(|port| Visitor::start(node.address(port), "/"));
    let begun = Instant::now();
    let (mut samples, mut before) = (Vec::new(), free(&start)?);
    let ended = loop {
        let ended = one_run(&api, limit, !time.is_zero());
        thread::sleep(seconds(1));
        let left = free(&api.get("node")?)?;
        println!("{} KiB are free", left >> 10);
        samples.push(left);
        if ended.is_err() || begun.elapsed() >= time {
            break ended;
        }
        if begun.elapsed() < time / 2 {
            before = before.min(left);
        }
    };
    let took = begun.elapsed().as_secs_f32();
    println!("{} runs in {took:.0} s", samples.len());
    let [nginx, neighbour] = visitors.map(Visitor::finish);
    ended?;
    nginx.expect_all_served("nginx", 5)?;
    neighbour.expect_all_served("the neighbour", 5)?;
    for name in ["nginx", "neighbour"] {
        let capsule = api.capsule(name)?;
        ensure!(capsule["restarts"] == 0, "{name} was restarted: {capsule}");
    }
    let end = settled(&api, before)?;
    no_trend(&samples)?;
    ensure!(end["agent_starts"] == 1, "the 3Bot was restarted");
    let uptime = |node: &Value| node["uptime_ms"].as_u64().context("no uptime");
    ensure!(uptime(&end)? > uptime(&start)?, "the node was restarted");
    let serial = node.serial();
    let kept = serial.lines().find(|line| line.contains("not given back"));
    ensure!(kept.is_none(), "{kept:?}");
    Ok(())
}

/// Runs `odd` once.
fn one_run(api: &Api, limit: Duration, may_run_out: bool) -> Result<()> {
    let before = api.last_event()?;
    api.command("capsules/odd/start", &Value::Null)?;
    let deadline = Instant::now() + limit;
    let mut said = String::new();
    // It is the end of this run that counts.
    while let Err(error) = api.wait_events(before, "exited", Some("odd"), 1, seconds(1)) {
        // Seen from time to time, in case the node cannot tell at the end.
        said = last_words(api).unwrap_or(said);
        ensure!(
            Instant::now() < deadline,
            "{said:?} was printed, then: {error:#}"
        );
    }
    let how = api.wait_finished("odd", seconds(10))?;
    let said = last_words(api).unwrap_or(said);
    ensure!(
        how == "exit code 0" || may_run_out && how == "out of memory",
        "it ended with {how} and printed last {said:?}"
    );
    println!("{said}");
    Ok(())
}

/// The last line that `odd` has printed: of rounds of calls, the seed or the tally.
fn last_words(api: &Api) -> Result<String> {
    let log = api.log("odd")?;
    Ok(log.lines().last().unwrap_or_default().to_string())
}

fn free(node: &Value) -> Result<u64> {
    node["memory_free_bytes"].as_u64().context("no memory")
}

/// The node's report once about as much memory is free as `before`.
fn settled(api: &Api, before: u64) -> Result<Value> {
    let deadline = Instant::now() + seconds(10);
    loop {
        let now = api.get("node")?;
        let after = free(&now)?;
        if after + MEMORY_KEPT >= before {
            println!(
                "free: {} KiB before, {} KiB after",
                before >> 10,
                after >> 10
            );
            return Ok(now);
        }
        ensure!(
            Instant::now() < deadline,
            "{} KiB are not free again",
            (before - after) >> 10
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Fails if every run has left less memory free than the one before it.
fn no_trend(free: &[u64]) -> Result<()> {
    let warm = free.get(free.len() / 2..).unwrap_or_default();
    if warm.len() < RUNS_FOR_A_TREND {
        return Ok(());
    }
    let kib: Vec<_> = warm.iter().map(|bytes| (bytes >> 10) as f64).collect();
    let lost = -slope(&kib);
    println!("{lost:.1} KiB less are free after every run");
    ensure!(
        lost <= KEPT_PER_RUN,
        "every run loses {lost:.0} KiB: {kib:?}"
    );
    Ok(())
}

#[test]
fn nothing_of_another_capsule_can_be_reached() -> Result<()> {
    let node = node("isolation-probe", 2, "prober", &[])?;
    harmless(&node, Duration::ZERO, seconds(120))
}

#[test]
fn nothing_of_the_machine_can_be_reached() -> Result<()> {
    let node = node("isolation-machine", 2, "hostile", &["instructions"])?;
    harmless(&node, Duration::ZERO, seconds(120))
}

/// Rounds of calls on so many CPUs: those that have ended badly once, then the first
/// ones of all, or new ones, in the long form for half an hour.
fn calls(name: &str, cpus: u32) -> Result<()> {
    let seeds = SEEDS
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut words = vec!["calls"];
    words.extend(if long() { ["60", "clock"] } else { ["10", "1"] });
    words.extend(seeds.filter(|word| word.starts_with("0x")));
    let time = if long() { 1800 } else { 0 };
    let node = node(name, cpus, "hostile", &words)?;
    harmless(&node, seconds(time), seconds(300))
}

#[test]
fn every_call_with_hostile_arguments() -> Result<()> {
    calls("isolation-calls", 1)
}

#[test]
fn every_call_on_four_processors() -> Result<()> {
    calls("isolation-calls-smp", 4)
}

#[test]
fn registers_that_no_processor_takes() -> Result<()> {
    let node = node("isolation-registers", 2, "hostile", &["registers"])?;
    harmless(&node, Duration::ZERO, seconds(300))
}

#[test]
fn work_without_end() -> Result<()> {
    let node = node("isolation-storms", 2, "hostile", &["storms"])?;
    harmless(&node, Duration::ZERO, seconds(300))
}
