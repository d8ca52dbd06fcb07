//! Healing: a capsule that is killed, hangs, or ends again and again.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_qemu::{
    Machine, Node, Visitor, long,
    ramdisk::{Image, Ramdisk, manifest},
    seconds,
};
use std::{thread, time::Instant};

const NGINX: u16 = 8081;

/// From the end of a run to the start of the next: what must hold even where the
/// host is slow, and what is aimed at, in milliseconds.
const RESTART_MS_MAX: u64 = 2000;
const RESTART_MS_GOAL: u64 = 100;

/// A node of two CPUs that serves nginx's page.
fn serving(name: &str) -> Result<Node> {
    let mut node = Machine::new(name).cpus(2).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.api()
        .wait_capsule("nginx", seconds(30), |capsule| capsule["health"] == "ready")?;
    Ok(node)
}

fn number(value: &Value, name: &str) -> Result<u64> {
    value[name]
        .as_u64()
        .with_context(|| format!("no {name} in {value}"))
}

/// Sends a signal to nginx and waits until another run of it serves. Returns the
/// time between the runs by the node's event log, in milliseconds.
fn healed(node: &mut Node, signal: u8, scope: &str) -> Result<u64> {
    let before = node.api().last_event()?;
    let run = node.api().capsule("nginx")?["id"].clone();
    let begin = Instant::now();
    let body = json!({ "signal": signal, "scope": scope });
    node.api().command("capsules/nginx/kill", &body)?;
    let api = node.api();
    let exited = api.wait_events(before, "exited", Some("nginx"), 1, seconds(60))?;
    let started = api.wait_events(before, "started", Some("nginx"), 1, seconds(30))?;
    node.wait_http(NGINX, "/", seconds(30))?;
    let page = begin.elapsed();
    let after = node.api().capsule("nginx")?;
    ensure!(after["id"] != run, "it is the same run: {after}");
    let ms = number(&started[0], "uptime_ms")?.saturating_sub(number(&exited[0], "uptime_ms")?);
    println!(
        "signal {signal} to {scope}: restarted in {ms} ms (goal {RESTART_MS_GOAL}), page back \
         {:.0} ms after the signal",
        page.as_secs_f64() * 1e3
    );
    Ok(ms)
}

#[test]
fn a_killed_nginx_is_back_at_once() -> Result<()> {
    let mut node = serving("heal-kill")?;
    let rounds = if long() { 50 } else { 3 };
    for _ in 0..rounds {
        let ms = healed(&mut node, 9, "init")?;
        ensure!(ms < RESTART_MS_MAX, "the restart took {ms} ms");
        if long() {
            // Runs this long are not counted against it.
            thread::sleep(seconds(11));
        }
    }
    let restarts = number(&node.api().capsule("nginx")?, "restarts")?;
    ensure!(
        restarts == rounds,
        "{restarts} restarts after {rounds} kills"
    );
    Ok(())
}

#[test]
fn a_hung_nginx_is_found_and_restarted() -> Result<()> {
    let mut node = serving("heal-hang")?;
    let before = node.api().last_event()?;
    healed(&mut node, 19, "all")?;
    let hung = node.api().events(before, "hung", Some("nginx"))?;
    ensure!(
        hung.len() == 1,
        "found otherwise than by its probe: {hung:?}"
    );
    Ok(())
}

/// A capsule that ends as soon as it starts is tried again ever more slowly and
/// reported, and disturbs nobody.
#[test]
fn a_crash_loop_is_slowed_and_reported() -> Result<()> {
    let mut ramdisk = Ramdisk::with_nginx()?;
    let image = Image::program("hog")?;
    let mut crasher = manifest("crasher", &image, &["/bin/hog", "exit", "3"]);
    crasher.restart.backoff_initial_ms = 50;
    crasher.restart.backoff_max_ms = 2000;
    ramdisk.capsule(&crasher, &image)?;
    let path = ramdisk.write("heal-loop")?;
    let mut node = Machine::new("heal-loop").ramdisk(&path).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    let api = node.api();
    api.wait_capsule("crasher", seconds(60), |capsule| {
        capsule["health"] == "crash-loop"
    })?;
    let reports = api.wait_events(0, "crash-loop", Some("crasher"), 1, seconds(10))?;
    ensure!(reports.len() == 1, "reported {} times", reports.len());

    // The waits grow to the longest and stay there: 0, 50, 100, ..., 2000, 2000.
    let starts = api.wait_events(0, "started", Some("crasher"), 10, seconds(60))?;
    let times: Vec<u64> = starts
        .iter()
        .map(|event| number(event, "uptime_ms"))
        .collect::<Result<_>>()?;
    let gaps: Vec<u64> = times.windows(2).map(|two| two[1] - two[0]).collect();
    println!("between starts: {gaps:?} ms");
    ensure!(
        gaps[8] >= 1000 && gaps[8] >= 4 * gaps[2].max(1),
        "the waits do not grow: {gaps:?}"
    );
    let crasher = api.capsule("crasher")?;
    ensure!(
        crasher["last_exit"]["how"] == "exit code 3",
        "the last exit is not told: {crasher}"
    );
    visitor
        .finish()
        .expect_all_served("nginx beside a crash loop", 20)?;
    ensure!(
        number(&api.capsule("nginx")?, "restarts")? == 0,
        "nginx was restarted"
    );
    Ok(())
}

/// What the owner stops stays stopped, and starts again when told.
#[test]
fn a_stopped_capsule_stays_so_until_it_is_started() -> Result<()> {
    let mut node = serving("heal-stop")?;
    let api = node.api();
    api.command("capsules/nginx/stop", &Value::Null)?;
    api.wait_capsule("nginx", seconds(30), |capsule| {
        capsule["state"] == "stopped"
    })?;
    thread::sleep(seconds(2));
    ensure!(
        node.get(NGINX, "/", seconds(2)).is_err(),
        "a stopped nginx answers"
    );
    ensure!(
        api.capsule("nginx")?["state"] == "stopped",
        "it came back by itself"
    );
    api.command("capsules/nginx/start", &Value::Null)?;
    node.wait_http(NGINX, "/", seconds(30))?;
    Ok(())
}

/// Only the owner may command.
#[test]
fn a_stranger_is_refused() -> Result<()> {
    let node = serving("heal-stranger")?;
    let stranger = skep_qemu::ramdisk::stranger()?;
    let answer = node
        .api()
        .command_as(&stranger, "capsules/nginx/kill", &Value::Null)?;
    ensure!(answer.status == 401, "answered {}", answer.status);
    ensure!(
        answer.json()?["reason"]
            .as_str()
            .is_some_and(|why| !why.is_empty()),
        "it does not say why"
    );
    thread::sleep(seconds(1));
    let nginx = node.api().capsule("nginx")?;
    ensure!(
        number(&nginx, "restarts")? == 0,
        "it was killed all the same"
    );
    Ok(())
}
