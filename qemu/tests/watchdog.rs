//! A kernel that locks up: the hardware watchdog, or the kernel's own, starts the node
//! again, and the node says so (design D9, level 0).

use anyhow::{Result, ensure};
use serde_json::Value;
use skep_qemu::{Artifacts, Machine, Node, gdb::Gdb, node::TempFolder, seconds};
use std::{path::PathBuf, thread, time::Instant};

const NGINX: u16 = 8081;
/// From the lock-up to the reset.
const RESET_MAX: std::time::Duration = seconds(60);
/// Longer than the watchdog waits: a node that is well is not reset.
const WELL: std::time::Duration = seconds(35);

/// A node with a debugger port.
struct Patient {
    node: Node,
    port: PathBuf,
    _folder: TempFolder,
}

impl Patient {
    fn start(machine: Machine) -> Result<Self> {
        let folder = TempFolder::new()?;
        let port = folder.path().join("gdb");
        let mut node = machine.option("-gdb", &Gdb::option(&port)).start()?;
        node.wait_http(NGINX, "/", seconds(60))?;
        node.wait_http(8080, "/", seconds(30))?;
        Ok(Self {
            node,
            port,
            _folder: folder,
        })
    }

    fn state(&self) -> Result<Value> {
        self.node.api().get("node")
    }

    /// Parks a CPU for ever.
    fn lock_up(&mut self, cpu: usize) -> Result<()> {
        self.node.qmp().clear_events()?;
        let mut gdb = Gdb::connect(&self.port)?;
        gdb.lock_up(cpu, &Artifacts::new().kernel())?;
        gdb.detach()
    }

    /// Waits until the node serves again.
    fn wait_back(&mut self) -> Result<()> {
        self.node.wait_http(NGINX, "/", seconds(60))?;
        self.node.wait_http(8080, "/", seconds(30))?;
        Ok(())
    }
}

/// The only CPU stands still: nothing but the hardware can help.
fn resets_a_dead_machine(machine: Machine, device: &str) -> Result<()> {
    let mut patient = Patient::start(machine)?;
    let state = patient.state()?;
    ensure!(
        state["watchdog"]["device"] == device && state["watchdog"]["withheld"].is_null(),
        "not watched by {device}: {state}"
    );
    ensure!(state["start_cause"] == "other", "before anything: {state}");

    patient.lock_up(0)?;
    let locked = Instant::now();
    patient.node.qmp().wait_event("WATCHDOG", RESET_MAX)?;
    let reset = locked.elapsed();
    patient.wait_back()?;
    println!(
        "{device}: reset after {:.1} s, page back after {:.1} s",
        reset.as_secs_f64(),
        locked.elapsed().as_secs_f64()
    );
    ensure!(reset < RESET_MAX, "reset after {reset:?}");
    let state = patient.state()?;
    ensure!(
        state["start_cause"] == "watchdog",
        "it does not say why: {state}"
    );
    let told = patient
        .node
        .api()
        .wait_events(0, "crash", None, 1, seconds(10))?;
    ensure!(
        told[0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("watchdog")),
        "the log does not say why: {told:?}"
    );

    // It is fed: a node that is well stays up, and one that goes down in order is not
    // taken for one that was reset.
    patient.node.qmp().clear_events()?;
    thread::sleep(WELL);
    let uptime = patient.state()?["uptime_ms"].as_u64().unwrap_or_default();
    ensure!(uptime >= 35_000, "it was reset again: up for {uptime} ms");
    patient.node.api().command("node/reboot", &Value::Null)?;
    patient.node.qmp().wait_event("RESET", seconds(60))?;
    patient.wait_back()?;
    let state = patient.state()?;
    ensure!(state["start_cause"] == "other", "after a restart: {state}");
    Ok(())
}

#[test]
#[ignore = "long"]
fn the_i6300esb_resets_a_dead_machine() -> Result<()> {
    let machine = Machine::new("watchdog-i6300esb").option("-device", "i6300esb");
    resets_a_dead_machine(machine, "i6300esb")
}

#[test]
fn the_chipset_resets_a_dead_machine() -> Result<()> {
    let machine = Machine::new("watchdog-itco").option("-global", "ICH9-LPC.noreboot=off");
    resets_a_dead_machine(machine, "iTCO")
}

/// One CPU of two stands still. Either the other sees it and leaves a record, or it soon
/// waits for it, and the watchdog resets both.
#[test]
#[ignore = "long"]
fn one_cpu_of_two_that_stands_still_is_not_left_so() -> Result<()> {
    let machine = Machine::new("watchdog-one-of-two").option("-device", "i6300esb");
    let mut patient = Patient::start(machine.cpus(2))?;
    patient.lock_up(1)?;
    let locked = Instant::now();
    patient.node.qmp().wait_event("RESET", RESET_MAX)?;
    let reset = locked.elapsed();
    patient.wait_back()?;
    let state = patient.state()?;
    let cause = &state["start_cause"];
    println!(
        "one of two: restarted after {:.1} s ({cause})",
        reset.as_secs_f64()
    );
    ensure!(
        cause == "crash" || cause == "watchdog",
        "it does not say why: {state}"
    );
    Ok(())
}
