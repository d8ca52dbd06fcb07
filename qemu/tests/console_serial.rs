//! What somebody sees who connects a terminal to a node's serial line.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_qemu::{Machine, Node, code::read_squares, seconds, terminal::Terminal};
use std::time::Duration;

const NGINX: u16 = 8081;
const ENTER: &[u8] = b"\r";
const PAGE_UP: &[u8] = b"\x1b[5~";
const HOME: &[u8] = b"\x1b[1~";

fn serving(name: &str) -> Result<Node> {
    let mut node = Machine::new(name).cpus(2).typed_serial().start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let ready = |capsule: &Value| capsule["health"] == "ready";
    node.api().wait_capsule("nginx", seconds(30), ready)?;
    Ok(node)
}

/// Enter shows what the API says, the code of its address, and that a capsule was killed;
/// Enter goes back to the messages, of which none is lost.
#[test]
fn enter_shows_the_status_and_the_messages_again() -> Result<()> {
    let node = serving("console-serial-status")?;
    ensure!(!node.serial().contains('\x1b'), "drawn to nobody");
    let mut terminal = node.terminal()?;
    terminal.types(ENTER)?;
    // The health is in its last line, which the line brings last.
    let text = terminal.wait(seconds(10), |t| t.contains("nginx: ready"))?;
    println!("{text}");
    shows_what_the_api_says(&node, &terminal, &text)?;
    // Nothing changes and nothing is sent, but for the time of day and of what runs.
    terminal.watch(seconds(3))?;
    let sent = terminal.watch(seconds(4))?;
    ensure!(sent < 400, "{sent} bytes in four seconds without news");

    let kill = json!({ "signal": 9, "scope": "all" });
    node.api().command("capsules/nginx/kill", &kill)?;
    let text = terminal.wait(seconds(20), |t| t.contains("killed by SIGKILL"))?;
    println!("{text}");
    terminal.wait(seconds(30), |t| t.contains("nginx: ready"))?;
    node.api().command("capsules/nginx/stop", &Value::Null)?;
    let text = terminal.wait(seconds(30), |t| !t.contains("running for"))?;
    println!("{text}");

    let before = terminal.received().len();
    terminal.types(ENTER)?;
    terminal.wait(seconds(10), |t| !t.contains("Node ID"))?;
    terminal.watch(seconds(1))?;
    let after = String::from_utf8_lossy(&terminal.received()[before..]).into_owned();
    let held = after
        .lines()
        .find(|line| line.contains("killed by SIGKILL"));
    ensure!(
        held.is_some_and(|line| line.contains("] threebot: 3bot: nginx: ")),
        "what was said meanwhile is lost: {after}"
    );
    Ok(())
}

fn shows_what_the_api_says(node: &Node, terminal: &Terminal, text: &str) -> Result<()> {
    let said = node.api().get("node")?;
    let name = said["name"].as_str().context("no name")?;
    ensure!(
        text.contains(&format!(" {name}   skep ")),
        "no name:\n{text}"
    );
    let addresses = said["addresses"].as_array().context("no addresses")?;
    let shown = |address: &&Value| text.contains(address.as_str().unwrap_or("?"));
    ensure!(addresses.iter().any(|a| shown(&a)), "no address:\n{text}");
    ensure!(text.contains("Node ID"), "no node ID:\n{text}");
    let row = text.lines().find(|line| line.starts_with("   nginx "));
    let row = row.context("no row of nginx")?;
    ensure!(row.contains("running for "), "{row}");
    ensure!(text.contains("Last messages"), "no messages:\n{text}");
    ensure!(text.lines().count() <= 24, "more than a screen:\n{text}");
    let id = said["identity"]["id"].as_str().context("no identity")?;
    ensure!(text.contains(id), "another node ID:\n{text}");
    let enrol = format!("skep enrol http://10.0.2.15:8080/#{id}\n");
    ensure!(text.contains(&enrol), "no enrolment code:\n{text}");
    let code = read_squares(&terminal.code()?)?;
    ensure!(
        code == format!("http://10.0.2.15:8080/#{id}"),
        "{code}:\n{text}"
    );
    Ok(())
}

/// Earlier messages can be read page by page, and the line goes back by a key.
#[test]
fn pages_of_the_messages() -> Result<()> {
    let node = serving("console-serial-pages")?;
    let mut terminal = node.terminal()?;
    // Of what is no key nothing comes.
    terminal.types(b"ATZ 5~\0\xff hello")?;
    ensure!(terminal.watch(seconds(2))? == 0, "it answers to noise");
    terminal.types(HOME)?;
    let first = terminal.wait(seconds(10), |t| t.contains("Page Up, Page Down"))?;
    println!("{first}");
    ensure!(first.contains("clock: TSC"), "not the first:\n{first}");
    terminal.types(b"q")?;
    terminal.wait(seconds(10), |t| !t.contains("Page Up, Page Down"))?;
    terminal.types(PAGE_UP)?;
    terminal.wait(seconds(10), |t| t.contains("Page Up, Page Down"))?;
    terminal.types(ENTER)?;
    terminal.wait(Duration::from_secs(10), |t| !t.contains("Page Up"))?;
    // Messages go on.
    let kill = json!({ "signal": 9, "scope": "all" });
    node.api().command("capsules/nginx/kill", &kill)?;
    terminal.wait(seconds(20), |t| t.contains("killed by SIGKILL"))?;
    Ok(())
}
