//! nginx under many clients.

use anyhow::{Result, ensure};
use skep_qemu::{Machine, Visitor, long, seconds};
use std::thread;

const NGINX: u16 = 8081;

/// Many clients at once, each with a connection for every page: nobody is turned
/// away, and nothing of the connections is left behind.
#[test]
fn many_clients() -> Result<()> {
    let mut node = Machine::new("serve-many").cpus(2).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let api = node.api();
    let before = api.capsule("nginx")?["usage"]["sockets"].as_u64();
    let visitors: Vec<_> = (0..16)
        .map(|_| Visitor::start(node.address(NGINX), "/"))
        .collect();
    thread::sleep(seconds(if long() { 120 } else { 5 }));
    for (number, visitor) in visitors.into_iter().enumerate() {
        let what = format!("client {number} of 16");
        visitor.finish().expect_all_served(&what, 10)?;
    }
    api.wait_capsule("nginx", seconds(30), |nginx| {
        nginx["usage"]["sockets"].as_u64() == before
    })?;
    let restarts = api.capsule("nginx")?["restarts"].clone();
    ensure!(restarts == 0, "nginx was restarted");
    Ok(())
}
