//! Programs people deploy serve their own clients outside the node as they do on Linux.
//! `skep_qemu::compat::clients` says how each is tried.
//!
//! What is marked as long runs when it is named, or in `scripts/test --long`.

use anyhow::{Context as _, Result, ensure};
use skep_qemu::{Node, Visitor, compat::clients::Served, http, kept_open::KeptOpen, long, seconds};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// Port of nginx, in the capsule and on the node.
const NGINX: u16 = 8000;
/// Time after which a request has failed.
const PATIENCE: Duration = seconds(60);

#[test]
fn redis() -> Result<()> {
    Served::named("redis")?.check()
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn postgres() -> Result<()> {
    Served::named("postgres")?.check()
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn nginx_tls() -> Result<()> {
    Served::named("nginx_tls")?.check()
}

/// QEMU listens with a backlog of one, so they come one after the other, each when the
/// one before has its first answer; then all ask at once.
#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn nginx_connections() -> Result<()> {
    const CONNECTIONS: usize = 1000;
    room_for_files(4096)?;
    let mut node = Served::named("nginx_connections")?.machine()?.start()?;
    node.wait_http(NGINX, "/small", seconds(120))?;
    let before = sockets(&node)?;
    let address = node.address(NGINX);
    let start = Instant::now();
    let mut open = Vec::new();
    for number in 0..CONNECTIONS {
        let mut connection = KeptOpen::connect(address, PATIENCE)?;
        ask(&mut connection).with_context(|| format!("connection {number}"))?;
        open.push(connection);
    }
    println!("{CONNECTIONS} connections opened in {:?}", start.elapsed());
    for round in 0..if long() { 30 } else { 3 } {
        let start = Instant::now();
        for connection in &mut open {
            connection.ask("/small")?;
        }
        for (number, connection) in open.iter_mut().enumerate() {
            let what = || format!("connection {number}, round {round}");
            expect_small(connection).with_context(what)?;
        }
        println!("{CONNECTIONS} requests at once: {:?}", start.elapsed());
    }
    let now = sockets(&node)?;
    ensure!(
        now >= before + CONNECTIONS as u64,
        "the capsule has {now} sockets, {before} before"
    );
    drop(open);
    let usual = |capsule: &serde_json::Value| capsule["usage"]["sockets"] == before;
    node.api().wait_capsule("program", seconds(60), usual)?;
    Ok(())
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn nginx_reload() -> Result<()> {
    const CLIENTS: u16 = 4;
    /// Below the ports that the host's kernel gives away (see `serve::many_clients`).
    const SOURCE_PORTS: u16 = 28_000;
    const SOURCE_PORTS_EACH: u16 = 1000;
    /// Shell, its `sleep`, master and workers, and the same of a reload under way.
    const PROCESSES: u64 = 8;
    let mut machine = Served::named("nginx_reload")?.machine()?;
    machine.guest_ports.extend([NGINX; CLIENTS as usize]);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/small", seconds(120))?;
    let mut addresses = node.addresses(NGINX).into_iter();
    let watched = addresses.next().context("no port")?;
    let visitors: Vec<_> = addresses
        .zip((SOURCE_PORTS..).step_by(usize::from(SOURCE_PORTS_EACH)))
        .map(|(address, first)| {
            Visitor::start_from(first..first + SOURCE_PORTS_EACH, address, "/small")
        })
        .collect();
    let first = generation(watched)?;
    let last = first + if long() { 60 } else { 6 };
    let deadline = Instant::now() + seconds(if long() { 600 } else { 120 });
    while generation(watched)? < last {
        ensure!(Instant::now() < deadline, "it is not reloaded any more");
        std::thread::sleep(seconds(1));
    }
    for (number, visitor) in visitors.into_iter().enumerate() {
        let what = format!("client {number} of {CLIENTS}");
        visitor.finish().expect_all_served(&what, 20)?;
    }
    node.api().wait_capsule("program", seconds(60), |capsule| {
        capsule["usage"]["processes"].as_u64() <= Some(PROCESSES)
    })?;
    Ok(())
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn express() -> Result<()> {
    Served::named("express")?.check()
}

#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn curl_outside() -> Result<()> {
    Served::named("curl_outside")?.check_outwards()
}

fn ask(connection: &mut KeptOpen) -> Result<()> {
    connection.ask("/small")?;
    expect_small(connection)
}

fn expect_small(connection: &mut KeptOpen) -> Result<()> {
    let answer = connection.answer()?;
    ensure!(
        answer.status == 200 && answer.body == b"hello\n",
        "{answer:?}"
    );
    Ok(())
}

/// How often nginx has been reloaded.
fn generation(address: SocketAddr) -> Result<u64> {
    let answer = http::get(address, "/generation", PATIENCE)?;
    let text = answer.text();
    text.trim()
        .parse()
        .with_context(|| format!("not a number: {text:?}"))
}

fn sockets(node: &Node) -> Result<u64> {
    let capsule = node.api().capsule("program")?;
    capsule["usage"]["sockets"].as_u64().context("no sockets")
}

/// Lets this process, and QEMU as its child, have this many files open.
fn room_for_files(files: u64) -> Result<()> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < files) {
        limit.current = Some(files);
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}
