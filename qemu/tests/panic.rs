//! The kernel dies on purpose, and comes back with a record of why.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::{Machine, long, seconds};
use std::time::Instant;

const NGINX: u16 = 8081;

/// An interrupt that cannot be masked, as an operator's button sends: panic, record,
/// restart, service, record readable, and forgotten when told.
#[test]
fn an_nmi_leaves_a_record_and_a_serving_node() -> Result<()> {
    let mut node = Machine::new("panic-nmi").cpus(2).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let record = node.api().get("crash")?;
    ensure!(record.is_null(), "a record before any crash: {record}");
    let rounds = if long() { 10 } else { 2 };
    for round in 0..rounds {
        let uptime = node.api().get("node")?["uptime_ms"]
            .as_u64()
            .context("no uptime")?;
        node.qmp().clear_events()?;
        let begin = Instant::now();
        node.qmp().inject_nmi()?;
        node.qmp()
            .wait_event("RESET", seconds(30))
            .context("the kernel did not restart")?;
        node.wait_http(NGINX, "/", seconds(60))?;
        println!(
            "page back {:.0} ms after the NMI",
            begin.elapsed().as_secs_f64() * 1e3
        );
        let record = node.api().get("crash")?;
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_lowercase();
        ensure!(
            text("reason").contains("nmi") || text("reason").contains("non-maskable"),
            "the reason is not told: {record}"
        );
        ensure!(
            (0..2).any(|cpu| text("detail").contains(&format!("\ncpu {cpu}: 0x"))),
            "where the other processor was is not told: {record}"
        );
        ensure!(!text("kernel").is_empty(), "no kernel version");
        let crashed = record["uptime_ms"]
            .as_u64()
            .context("no uptime in the record")?;
        ensure!(
            crashed >= uptime && crashed < uptime + 60_000,
            "the record is of {crashed} ms, the NMI came after {uptime} ms"
        );
        let told = node.api().events(0, "crash", None)?;
        ensure!(
            !told.is_empty(),
            "round {round}: the event log does not tell of the crash"
        );
    }
    node.api().command("crash/clear", &Value::Null)?;
    let record = node.api().get("crash")?;
    ensure!(record.is_null(), "the record was not forgotten: {record}");
    Ok(())
}

/// A reset without a crash leaves no record: the node did not die of itself.
#[test]
fn a_reset_leaves_no_record() -> Result<()> {
    let mut node = Machine::new("panic-reset").start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.qmp().clear_events()?;
    node.qmp().reset()?;
    node.qmp().wait_event("RESET", seconds(10))?;
    // Not the page of the boot before: its connections died with it.
    node.wait_http(NGINX, "/", seconds(60))?;
    let record = node.api().get("crash")?;
    ensure!(record.is_null(), "a record of no crash: {record}");
    Ok(())
}

/// Commands of the owner: a reboot ends in a new boot, a power-off ends QEMU cleanly.
#[test]
fn the_owner_reboots_and_switches_off() -> Result<()> {
    let mut node = Machine::new("panic-owner").start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.qmp().clear_events()?;
    node.api().command("node/reboot", &Value::Null)?;
    node.qmp().wait_event("RESET", seconds(30))?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/api/v1/node", seconds(30))?;
    node.api().command("node/poweroff", &Value::Null)?;
    let status = node.wait_exit(seconds(30))?;
    ensure!(status == 0, "QEMU ended with {status}");
    Ok(())
}
