//! nginx under many clients.

use anyhow::{Result, ensure};
use skep_qemu::{Machine, Visitor, long, seconds};
use std::{thread, time::Duration};

const NGINX: u16 = 8081;
const CLIENTS: usize = 16;
/// Where the clients' own ports begin, below those that the host's kernel gives away,
/// and how many each has.
const SOURCE_PORTS: u16 = 12_000;
const SOURCE_PORTS_EACH: usize = 1000;
/// A lost packet costs its sender a second. What is quicker has lost none, however
/// busy the host may be.
const WITHOUT_LOSS: Duration = Duration::from_millis(500);

/// Many clients at once, each with a connection for every page: nobody is turned
/// away, nobody waits for a packet to be sent again, and nothing of the connections
/// is left behind.
///
/// QEMU listens with a backlog of one on each forwarded port, and those whom the
/// host's kernel turns away there try again a second later. So each client goes to
/// a port of its own. And each comes from ports of its own: QEMU takes two clients
/// of one source port, which the host's kernel may give to clients of two listening
/// ports, for the same one.
#[test]
fn many_clients() -> Result<()> {
    let mut machine = Machine::new("serve-many").cpus(2);
    machine.guest_ports.extend([NGINX; CLIENTS - 1]);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let api = node.api();
    let before = api.capsule("nginx")?["usage"]["sockets"].as_u64();
    let visitors: Vec<_> = node
        .addresses(NGINX)
        .into_iter()
        .zip((SOURCE_PORTS..).step_by(SOURCE_PORTS_EACH))
        .map(|(address, first)| {
            let own = first..first + SOURCE_PORTS_EACH as u16;
            Visitor::start_from(own, address, "/")
        })
        .collect();
    thread::sleep(seconds(if long() { 120 } else { 5 }));
    for (number, visitor) in visitors.into_iter().enumerate() {
        let what = format!("client {number} of {CLIENTS}");
        let visits = visitor.finish();
        visits.expect_all_served(&what, 10)?;
        let longest = visits.quantile(1.0);
        ensure!(longest < WITHOUT_LOSS, "{what} waited for {longest:?}");
    }
    api.wait_capsule("nginx", seconds(30), |nginx| {
        nginx["usage"]["sockets"].as_u64() == before
    })?;
    let restarts = api.capsule("nginx")?["restarts"].clone();
    ensure!(restarts == 0, "nginx was restarted");
    Ok(())
}
