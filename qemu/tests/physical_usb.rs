//! USB: sticks in the hands of capsules, behind hubs, failing, pulled and put back, and
//! a keyboard.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use skep_qemu::{
    Board, Bus, Firmware, Machine, Node, Visitor,
    disks::{
        a_while, broken_disk, disk_image, ensure_durable, error, run_beside_nginx, scripted,
        start_with_nginx, tools,
    },
    machine::escape,
    node::TempFolder,
    screen::wait_screen,
    seconds,
};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const NGINX: u16 = 8081;

/// Seconds of load: a stick fills its parts of the disk slowly, one block after another.
fn load_time() -> String {
    a_while().max(30).to_string()
}

/// A machine with a controller `usb` and these devices at it.
fn with_usb(name: &str, devices: &[&str]) -> Machine {
    let machine = Machine::new(name).option("-device", "qemu-xhci,id=usb");
    devices
        .iter()
        .fold(machine, |m, device| m.option("-device", device))
}

/// A raw image as block node `id`, which outlives the device it is behind.
fn drive(machine: Machine, id: &str, image: &Path) -> Machine {
    let node = format!("driver=file,node-name={id},filename={}", escape(image));
    machine.option("-blockdev", &node)
}

/// Programs of Debian and a load on a stick: they see it as on Linux, and what they made
/// durable is in the host's file. A second one hangs behind a hub, at full speed.
#[test]
#[ignore = "long"]
fn a_stick_for_a_capsule() -> Result<()> {
    let folder = TempFolder::new()?;
    let (file, other) = (disk_image(&folder, "a")?, disk_image(&folder, "b")?);
    let image = tools()?;
    let script = include_str!("scripts/disk-tools.sh");
    let time = load_time();
    let words = [time.as_str(), "sda", "sdb"];
    let tools = scripted("tools", &image, script, &words, &["sda", "sdb"]);
    let machine = drive(Machine::new("physical-usb"), "d0", &file);
    let machine = drive(machine, "d1", &other)
        .option("-device", "qemu-xhci,id=usb")
        .option("-device", "usb-storage,bus=usb.0,port=1,drive=d0")
        .option("-device", "usb-hub,bus=usb.0,port=2")
        .option("-device", "usb-storage,bus=usb.0,port=2.3,drive=d1");
    let mut node = start_with_nginx(machine, &image, &[], &[&tools])?;
    let log = run_beside_nginx(&node, "tools", seconds(300))?;
    for line in [
        "device: block special file 8:0 0 660",
        "bytes: 33554432",
        "blocks: 512 512 0",
        "dd: error reading '/dev/sda': Invalid argument",
        "dd: error writing '/dev/sda': No space left on device",
    ] {
        let said = log.lines().any(|said| said.trim() == line);
        ensure!(said, "{line:?} is missing: {log}");
    }
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&file)?)
}

/// A stick that fails at some places, once or always: the program gets EIO where it
/// always fails, hears nothing of what went well when it was tried again, and gets right
/// bytes everywhere else, while the stick is under load and nginx serves.
#[test]
#[ignore = "long"]
fn a_stick_with_errors() -> Result<()> {
    const SCRIPT: &str = "disk load /dev/sda $1 & load=$!
        disk expect /dev/sda read 10485760 always || exit 11
        disk expect /dev/sda write 12582912 always || exit 12
        disk expect /dev/sda read 14680064 once && exit 13
        disk expect /dev/sda write 16777216 once && exit 14
        good=$(dd if=/dev/sda bs=1M count=1 iflag=skip_bytes skip=10420224 2>/dev/null | wc -c)
        echo \"good before the bad: $good\"
        wait $load || exit 17";
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let time = load_time();
    let capsule = scripted("load", &image, SCRIPT, &[&time], &["sda"]);
    let places = json!([
        error("read", Some(10 << 20), false),
        error("write", Some(12 << 20), false),
        error("read", Some(14 << 20), true),
        error("write", Some(16 << 20), true),
    ]);
    let machine = Machine::new("physical-usb-errors");
    let machine = broken_disk(machine, Bus::Usb, "d0", &file, &places);
    let mut node = start_with_nginx(machine, &image, &[], &[&capsule])?;
    let before = node.api().last_event()?;
    let log = run_beside_nginx(&node, "load", seconds(240))?;
    ensure!(log.contains("good before the bad: 65536"), "{log}");
    let told = events(&node, before, 1)?;
    let failed = "sda: reading at sector 20480 failed";
    ensure!(told.iter().any(|text| text == failed), "{told:?}");
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&file)?)
}

/// The text of the device events after `before`.
fn events(node: &Node, before: u64, count: usize) -> Result<Vec<String>> {
    let told = node
        .api()
        .wait_events(before, "device", None, count, seconds(20))?;
    let text = |event: &Value| event["text"].as_str().unwrap_or_default().to_string();
    Ok(told.iter().map(text).collect())
}

/// Waits until what a capsule printed has these beginnings of lines, in this order.
fn wait_lines(node: &Node, capsule: &str, words: &[&str]) -> Result<String> {
    let deadline = Instant::now() + seconds(90);
    loop {
        let log = node.api().log(capsule)?;
        let mut lines = log.lines();
        let mut fits = |word: &&str| lines.any(|line| line.starts_with(word));
        if words.iter().all(&mut fits) {
            return Ok(log);
        }
        ensure!(Instant::now() < deadline, "not {words:?}: {log}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Pulls a stick under load and puts it back, at `port`: the program gets EIO within a
/// second, both are told, nginx serves all the time, and the next to hold the disk finds
/// it under the same name and works with it.
fn pulled_and_put_back(name: &str, hubs: &[&str], port: &str) -> Result<()> {
    let folder = TempFolder::new()?;
    let file = disk_image(&folder, "a")?;
    let image = tools()?;
    let script = "exec disk watch /dev/sda 600";
    let capsule = scripted("watch", &image, script, &[], &["sda"]);
    let again = scripted("again", &image, "disk load /dev/sda 20", &[], &["sda"]);
    let stick = json!({
        "driver": "usb-storage", "id": "stick", "bus": "usb.0", "port": port, "drive": "d0",
    });
    let machine = drive(with_usb(name, hubs), "d0", &file).option(
        "-device",
        &format!("usb-storage,id=stick,bus=usb.0,port={port},drive=d0"),
    );
    let mut node = start_with_nginx(machine, &image, &[&capsule], &[&again])?;
    let before = node.api().last_event()?;
    wait_lines(&node, "watch", &["works"])?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    node.qmp().device_del("stick")?;
    let log = wait_lines(&node, "watch", &["works", "EIO"])?;
    let failed = log.lines().find_map(|line| line.strip_prefix("EIO after "));
    let ms = failed.and_then(|rest| rest.split(' ').next());
    let ms: u64 = ms.context("no time")?.parse()?;
    println!("EIO after {ms} ms");
    ensure!(ms < 1_000, "EIO came after {ms} ms only");
    node.qmp().wait_event("DEVICE_DELETED", seconds(10))?;
    let told = events(&node, before, 1)?;
    let is_told = |told: &[String], what: &str| told.iter().any(|text| text == what);
    ensure!(is_told(&told, "sda: it was pulled out"), "{told:?}");
    let before = node.api().last_event()?;
    node.qmp().device_add(&stick)?;
    let told = events(&node, before, 1)?;
    ensure!(is_told(&told, "sda: it was plugged in"), "{told:?}");
    visitor
        .finish()
        .expect_all_served("nginx beside the stick", 5)?;
    // Who held it keeps the one that is gone; the next one gets the one that is there.
    let log = run_beside_nginx(&node, "again", seconds(120))?;
    node.api().command("capsules/watch/stop", &Value::Null)?;
    node.shut_down(seconds(60))?;
    ensure_durable(&log, &fs::read(&file)?)
}

#[test]
fn a_stick_is_pulled_and_put_back() -> Result<()> {
    pulled_and_put_back("physical-usb-pulled", &[], "1")
}

#[test]
#[ignore = "long"]
fn a_stick_behind_a_hub_is_pulled_and_put_back() -> Result<()> {
    let hub = "usb-hub,bus=usb.0,port=2";
    pulled_and_put_back("physical-usb-hub", &[hub], "2.1")
}

/// A USB keyboard, where there is no other, pages through the messages on the screen and
/// goes back to the status; pulled it does nothing, and put back it does so again.
#[test]
fn a_keyboard_pages_the_messages() -> Result<()> {
    let keyboard = json!({ "driver": "usb-kbd", "id": "keys", "bus": "usb.0", "port": "1" });
    let mut machine = with_usb(
        "physical-usb-keyboard",
        &["usb-kbd,id=keys,bus=usb.0,port=1"],
    )
    .firmware(Firmware::Bios)
    .physical(Board::Q35, Bus::Ahci);
    // Without a controller for PS/2, all keys are the keyboard's.
    machine.board_options.push("i8042=off".to_string());
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(90))?;
    let pages = |node: &mut Node| -> Result<()> {
        wait_screen(node, "Node ID", seconds(30))?;
        node.qmp().press_key("home")?;
        let log = wait_screen(node, "clock: TSC", seconds(30))?;
        ensure!(!log.contains("Node ID"), "not the messages: {log}");
        node.qmp().press_key("esc")?;
        wait_screen(node, "Node ID", seconds(30)).map(drop)
    };
    pages(&mut node)?;
    node.qmp().device_del("keys")?;
    node.qmp().wait_event("DEVICE_DELETED", seconds(10))?;
    node.qmp().press_key("home").ok();
    let other = wait_screen(&mut node, "clock: TSC", seconds(3));
    ensure!(other.is_err(), "there is another keyboard");
    node.qmp().device_add(&keyboard)?;
    // The node gets to know it.
    thread::sleep(seconds(2));
    pages(&mut node)?;
    node.shut_down(seconds(60))
}
