//! What a node says of the machine under it and of the time, and how it switches the
//! machine off.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::{
    Artifacts, Firmware, Machine, Node,
    command::output,
    disks::{scripted, start_with_nginx, tools},
    machine::{Board, Bus},
    seconds,
};
use std::{collections::BTreeSet, fs, process::Command, thread};

const NGINX: u16 = 8081;
const SERIAL: &str = "SN-4711";
const UUID: &str = "12345678-9abc-def0-1234-56789abcdef0";
const DISK: u64 = 24 << 20;

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value[name]
        .as_array()
        .with_context(|| format!("no list {name} in {value}"))
}

/// Vendor and device numbers of all PCI functions, as QEMU itself lists them.
fn functions(node: &mut Node) -> Result<BTreeSet<(u64, u64, u64)>> {
    fn add(buses: &Value, found: &mut BTreeSet<(u64, u64, u64)>) {
        for device in buses["devices"].as_array().into_iter().flatten() {
            let number = |value: &Value| value.as_u64().unwrap_or_default();
            found.insert((
                number(&device["slot"]) << 3 | number(&device["function"]),
                number(&device["id"]["vendor"]),
                number(&device["id"]["device"]),
            ));
        }
    }
    let mut found = BTreeSet::new();
    for bus in node
        .qmp()
        .execute("query-pci")?
        .as_array()
        .into_iter()
        .flatten()
    {
        add(bus, &mut found);
    }
    Ok(found)
}

/// The place of a function within its bus, from `00:1f.2`.
fn place(address: &str) -> Result<u64> {
    let rest = address.split(':').next_back().unwrap_or_default();
    let (slot, function) = rest.split_once('.').context("no PCI address")?;
    Ok(u64::from_str_radix(slot, 16)? << 3 | function.parse::<u64>()?)
}

/// The report names what QEMU was told to build, no more and no less.
fn reports(firmware: Firmware) -> Result<()> {
    let name = format!("hardware-{firmware:?}").to_lowercase();
    let disk = Artifacts::new()
        .target()
        .join(format!("qemu-ramdisks/{name}.disk"));
    fs::File::create(&disk)?.set_len(DISK)?;
    let product = format!("type=1,manufacturer=Acme,product=Box,serial={SERIAL},uuid={UUID}");
    let mut node = Machine::new(&name)
        .firmware(firmware)
        .cpus(2)
        .disk("d0", &disk)
        .option("-smbios", &product)
        .option("-device", "i6300esb")
        // Nobody has a driver for it.
        .option("-device", "edu")
        .start()?;
    node.wait_http(NGINX, "/", seconds(90))?;
    node.wait_http(8080, "/", seconds(30))?;
    let report = node.api().get("hardware")?;

    tells_the_board(&report)?;
    tells_pci(&report, &mut node)?;
    tells_disks_and_links(&report)?;
    shown_to_people(&node)?;
    node.shut_down(seconds(60))
}

/// Product, processors, memory and tables.
fn tells_the_board(report: &Value) -> Result<()> {
    let product = &report["product"];
    ensure!(
        product["serial"] == SERIAL && product["uuid"] == UUID && product["maker"] == "Acme",
        "not the product that QEMU was given: {product}"
    );
    ensure!(
        report["processor"]["count"] == 2
            && report["processor"]["model"]
                .as_str()
                .is_some_and(|m| m.contains("QEMU")),
        "processors: {}",
        report["processor"]
    );
    let memory = list(report, "memory")?.iter();
    let usable = memory.filter(|range| range["kind"] == "usable");
    let usable: u64 = usable.filter_map(|range| range["bytes"].as_u64()).sum();
    ensure!(
        (200 << 20..=256 << 20).contains(&usable),
        "{usable} bytes of 256 MiB are usable"
    );
    let acpi = list(report, "acpi")?;
    for wanted in ["APIC", "FACP", "DSDT", "MCFG"] {
        ensure!(
            acpi.iter().any(|table| table["signature"] == wanted),
            "no table {wanted}: {acpi:?}"
        );
    }
    Ok(())
}

/// Every function of the machine, and who drives it.
fn tells_pci(report: &Value, node: &mut Node) -> Result<()> {
    let mut told = BTreeSet::new();
    for function in list(report, "pci")? {
        let number = |name: &str| function[name].as_u64().unwrap_or_default();
        let at = place(function["address"].as_str().unwrap_or_default())?;
        told.insert((at, number("vendor"), number("device")));
    }
    let there = functions(node)?;
    ensure!(told == there, "PCI: told {told:x?}, there are {there:x?}");
    let driver = |vendor: u64, device: u64| {
        let all = report["pci"].as_array().into_iter().flatten();
        let mut such = all.filter(|f| f["vendor"] == vendor && f["device"] == device);
        such.next().map(|f| f["driver"].clone()).unwrap_or_default()
    };
    ensure!(
        driver(0x1234, 0x11e8).is_null(),
        "somebody drives the edu device"
    );
    ensure!(
        driver(0x8086, 0x25ab) == "i6300esb",
        "the watchdog has no driver"
    );
    ensure!(
        driver(0x1af4, 0x1000) == "virtio-net",
        "the network has no driver"
    );
    Ok(())
}

/// The disk beside the one it boots from, and the one link.
fn tells_disks_and_links(report: &Value) -> Result<()> {
    let disks = list(report, "disks")?;
    ensure!(
        disks
            .iter()
            .any(|disk| disk["bytes"] == DISK && disk["holder"].is_null()),
        "the disk is not told: {disks:?}"
    );
    let links = list(report, "links")?;
    ensure!(
        links.len() == 1
            && links[0]["mac"] == "52:54:00:12:34:56"
            && links[0]["up"] == true
            && links[0]["received"]["frames"].as_u64() > Some(10)
            && links[0]["sent"]["bytes"].as_u64() > Some(1000),
        "the link is not told: {links:?}"
    );
    Ok(())
}

/// The owner's command line shows the same.
fn shown_to_people(node: &Node) -> Result<()> {
    let url = format!("http://{}", node.address(8080));
    let mut command = Command::new(Artifacts::new().cli());
    let text = output(command.args(["status", "--hardware", "--node", &url]))?;
    println!("{text}");
    let edu = text.lines().find(|line| line.contains("1234:11e8"));
    ensure!(
        edu.is_some_and(|line| line.ends_with("no driver")) && text.contains(SERIAL),
        "skep status --hardware says otherwise"
    );
    Ok(())
}

#[test]
#[ignore = "long"]
fn the_report_under_bios() -> Result<()> {
    reports(Firmware::Bios)
}

#[test]
fn the_report_under_uefi() -> Result<()> {
    reports(Firmware::Uefi)
}

/// The power button takes the node down in order on every board, and the owner's
/// command restarts it.
#[test]
fn the_power_button_on_every_board() -> Result<()> {
    for board in [Board::Q35, Board::Pc] {
        for firmware in [Firmware::Bios, Firmware::Uefi] {
            let name = format!("hardware-power-{board:?}-{firmware:?}").to_lowercase();
            let mut machine = Machine::new(&name).firmware(firmware);
            machine.board = board;
            machine.boot_bus = Bus::Virtio;
            let mut node = machine.start()?;
            node.wait_http(NGINX, "/", seconds(90))?;
            node.wait_http(8080, "/", seconds(30))?;
            node.qmp().clear_events()?;
            node.api().command("node/reboot", &Value::Null)?;
            node.qmp().wait_event("RESET", seconds(60))?;
            node.wait_http(NGINX, "/", seconds(90))?;
            node.shut_down(seconds(60))?;
            let serial = node.serial();
            let told = serial.matches("the node goes down").count();
            ensure!(told == 2, "{name}: went down {told} times in order");
        }
    }
    Ok(())
}

/// The node's time is that of the real-time clock, for the API and for programs.
#[test]
fn the_time_is_that_of_the_real_time_clock() -> Result<()> {
    const THEN: &str = "2030-01-02T03:04:05";
    let base = output(Command::new("date").args(["-u", "+%s", "-d", &format!("{THEN}Z")]))?;
    let base: i64 = base.trim().parse()?;
    let image = tools()?;
    let script = "while true; do date -u '+%s %Y'; sleep 1; done";
    let capsule = scripted("clock", &image, script, &[], &[]);
    let machine = Machine::new("hardware-time")
        .physical(Board::Q35, Bus::Ahci)
        .option("-rtc", &format!("base={THEN}"));
    let node = start_with_nginx(machine, &image, &[&capsule], &[])?;
    for _ in 0..3 {
        thread::sleep(seconds(2));
        let told = node.api().get("node")?["unix_ms"].as_i64();
        let told = told.context("no time")? / 1000 - base;
        let log = node.api().log("clock")?;
        let last = log.lines().next_back().context("nothing was printed")?;
        let (printed, year) = last.split_once(' ').context("no date")?;
        let printed = printed.parse::<i64>()? - base;
        let real = i64::try_from(node.uptime().as_secs())?;
        println!("{real} s after power-on: API {told} s, program {printed} s, {year}");
        // The clock is read to the second, QEMU needs a moment before it runs, and what
        // was printed is up to two seconds old on a busy host.
        ensure!((real - 3..=real + 1).contains(&told), "the API's time");
        ensure!((real - 5..=real + 1).contains(&printed), "the program's");
        ensure!(year == "2030", "the year");
    }
    Ok(())
}
