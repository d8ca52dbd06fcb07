//! `scripts/run --check`: does a node serve, and does it heal?

use anyhow::{Context as _, Result};
use serde_json::json;
use skep_qemu::{Machine, seconds};
use std::{process::ExitCode, time::Instant};

/// Port of nginx's page, and its capsule.
const NGINX_PORT: u16 = 8081;
const NGINX: &str = "nginx";
const STATUS_PORT: u16 = 8080;

/// Boots the node, waits for the page, kills nginx, waits for the page again.
pub(crate) fn check(machine: &Machine) -> Result<ExitCode> {
    match heals(machine) {
        Ok(()) => {
            println!("check: passed");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            println!("check: failed: {error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn heals(machine: &Machine) -> Result<()> {
    let mut node = machine.start()?;
    node.wait_http(NGINX_PORT, "/", seconds(120))
        .context("nginx's page did not come")?;
    println!(
        "check: nginx's page after  {:8.3} s",
        node.uptime().as_secs_f64()
    );
    node.wait_http(STATUS_PORT, "/", seconds(30))
        .context("the status page did not come")?;
    println!(
        "check: status page after   {:8.3} s",
        node.uptime().as_secs_f64()
    );

    let before = node.api().capsule(NGINX)?["restarts"].as_u64().unwrap_or(0);
    let killed = Instant::now();
    node.api()
        .command(
            &format!("capsules/{NGINX}/kill"),
            &json!({ "signal": 9, "scope": "init" }),
        )
        .context("nginx could not be killed")?;
    let capsule = node.api().wait_capsule(NGINX, seconds(30), |capsule| {
        capsule["restarts"]
            .as_u64()
            .is_some_and(|restarts| restarts > before)
    })?;
    node.wait_http(NGINX_PORT, "/", seconds(30))
        .context("the page did not come back")?;
    println!(
        "check: page back after     {:8.3} s",
        killed.elapsed().as_secs_f64()
    );
    let at = |value: &serde_json::Value| value.as_u64();
    let exited = at(&capsule["last_exit"]["uptime_ms"]);
    if let (Some(exited), Some(started)) = (exited, at(&capsule["started_uptime_ms"])) {
        println!(
            "check: of which restart    {:8.3} s",
            started.saturating_sub(exited) as f64 / 1e3
        );
    }
    node.shut_down(seconds(30))
        .context("the node did not shut down")?;
    Ok(())
}
