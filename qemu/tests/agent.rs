//! The 3Bot dies, and nobody notices.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::{Machine, Visitor, long, seconds};
use std::{thread, time::Instant};

const NGINX: u16 = 8081;

#[test]
fn capsules_outlive_the_3bot() -> Result<()> {
    let mut node = Machine::new("agent-dies").cpus(2).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let ready = |capsule: &Value| capsule["health"] == "ready";
    let before = node.api().wait_capsule("nginx", seconds(30), ready)?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    let rounds = if long() { 20 } else { 3 };
    for round in 1..=rounds {
        thread::sleep(seconds(1));
        let killed = Instant::now();
        node.api().command("agent/restart", &Value::Null)?;
        let deadline = killed + seconds(60);
        let status = loop {
            let status = node.api().get("node");
            if let Ok(status) = &status
                && status["agent_starts"] == round + 1
            {
                break status["agent_starts"].clone();
            }
            ensure!(
                Instant::now() < deadline,
                "the 3Bot is not back: {status:?}"
            );
            thread::sleep(std::time::Duration::from_millis(20));
        };
        println!(
            "3Bot back after {:.0} ms ({status} starts)",
            killed.elapsed().as_secs_f64() * 1e3
        );
        let after = node.api().wait_capsule("nginx", seconds(30), ready)?;
        for field in ["id", "started_uptime_ms", "started_unix_ms", "restarts"] {
            ensure!(
                before[field] == after[field],
                "{field} was {} and is {}",
                before[field],
                after[field]
            );
        }
    }
    visitor
        .finish()
        .expect_all_served("nginx without its 3Bot", 20)?;
    let adopted = node.api().events(0, "adopted", Some("nginx"))?;
    ensure!(
        !adopted.is_empty(),
        "the event log does not tell that nginx was found running"
    );
    let first = node.api().events(0, "agent", None)?;
    let told = first.len() as u64;
    ensure!(
        told == rounds + 1,
        "the log knows {told} starts of the 3Bot"
    );
    Ok(())
}

/// What the owner stopped stays stopped over a restart of the 3Bot, and what dies
/// while the 3Bot is away is healed when it is back.
#[test]
fn the_owners_word_outlives_the_3bot() -> Result<()> {
    let mut node = Machine::new("agent-word").cpus(2).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let api = node.api();
    api.command("capsules/nginx/stop", &Value::Null)?;
    api.wait_capsule("nginx", seconds(30), |capsule| {
        capsule["state"] == "stopped"
    })?;
    api.command("agent/restart", &Value::Null)?;
    let back = api.wait_events(0, "agent", None, 2, seconds(60))?;
    ensure!(back.len() == 2, "the log does not go on: {back:?}");
    thread::sleep(seconds(2));
    let state = api.capsule("nginx")?["state"].clone();
    ensure!(state == "stopped", "nginx is {state}");
    api.command("capsules/nginx/start", &Value::Null)?;
    node.wait_http(NGINX, "/", seconds(30))
        .context("started by the new 3Bot")?;
    Ok(())
}
