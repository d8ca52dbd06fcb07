//! Machines without a virtio device, on Intel's network controllers: they serve, their
//! cables are pulled and moved, their devices hang and go.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::{
    Board, Bus, Machine, Node, Visitor,
    ability::has_device,
    http,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, standard_manifest},
    seconds,
};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const NGINX: u16 = 8081;
/// The network device that every machine has, and a second one.
const FIRST: &str = "net0-device";
const SECOND: &str = "net1-device";
/// Bytes of the file that goes both ways.
const FILE: usize = 10 << 20;
const CLIENTS: usize = 4;
/// How long a page may take once there is a carrier again, at the same port or at another.
/// QEMU's devices negotiate for half a second of it; the rest is milliseconds, as the node
/// goes on with its address while it asks the DHCP server anew.
const BACK: Duration = seconds(1);

/// nginx that takes files too, and keeps them in memory.
const CONFIG: &str = "user root; worker_processes 2; daemon off; pid /run/nginx.pid;
error_log stderr warn;
events { worker_connections 64; }
http {
	access_log off;
	server {
		listen 80;
		root /var/www/html;
		index index.nginx-debian.html;
		client_max_body_size 64m;
		client_body_temp_path /up/body;
		location /up/ { root /; dav_methods PUT DELETE; }
	}
}
";

/// Bytes of which no two pages are alike.
fn file(seed: u32) -> Vec<u8> {
    (0..FILE as u32 / 4)
        .flat_map(|n| n.wrapping_add(seed).wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect()
}

fn ramdisk(name: &str) -> Result<PathBuf> {
    let image = Image::nginx()?.with_files(&[
        ("/var/www/html/download", 0o644, &file(1)),
        ("/etc/nginx/upload.conf", 0o644, CONFIG.as_bytes()),
        ("/up/.folder", 0o644, b""),
    ])?;
    let mut manifest = standard_manifest("nginx", &image)?;
    manifest.command = ["/usr/sbin/nginx", "-c", "/etc/nginx/upload.conf"]
        .map(String::from)
        .to_vec();
    manifest.limits.memory_bytes = 128 << 20;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&manifest, &image)?;
    ramdisk.write(name)
}

fn machine(name: &str, board: Board) -> Result<Machine> {
    let machine = Machine::new(name).physical(board, Bus::Ahci).cpus(2);
    Ok(machine.ramdisk(&ramdisk(name)?))
}

/// A machine that was started, and serves.
fn start(machine: &Machine) -> Result<Node> {
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(90))?;
    node.wait_http(8080, "/", seconds(60))?;
    Ok(node)
}

/// Adds a second network of its own, on which the host reaches nginx at this address.
fn second_network(machine: Machine, model: &str) -> Result<(Machine, SocketAddr)> {
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = held.local_addr()?;
    let forward = format!("user,id=net1,hostfwd=tcp:{address}-:{NGINX}");
    let device = format!("{model},id={SECOND},netdev=net1,romfile=");
    let machine = machine
        .option("-netdev", &forward)
        .option("-device", &device);
    Ok((machine, address))
}

/// Fetches a page at `address` until it comes; how long that took.
fn wait_page(address: SocketAddr, limit: Duration) -> Result<Duration> {
    let start = Instant::now();
    loop {
        let got = http::get(address, "/", Duration::from_millis(300));
        match got {
            Ok(answer) if answer.status == 200 => return Ok(start.elapsed()),
            _ if start.elapsed() < limit => thread::sleep(Duration::from_millis(5)),
            other => anyhow::bail!("no page within {limit:?}; last: {other:?}"),
        }
    }
}

/// Waits for an event about a device whose text holds `words`.
fn wait_told(node: &Node, after: u64, words: &str) -> Result<()> {
    let deadline = Instant::now() + seconds(20);
    loop {
        let told = node.api().events(after, "device", None);
        let fits = |e: &Value| e["text"].as_str().is_some_and(|t| t.contains(words));
        if told.as_ref().is_ok_and(|t| t.iter().any(fits)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not told of {words:?}: {told:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Four downloads at once and an upload give the same bytes, and all that in a machine
/// that has no virtio device.
fn serves(machine: &Machine) -> Result<()> {
    let mut node = start(machine)?;
    let devices = node.qmp().monitor("info qtree")?;
    ensure!(!devices.contains("virtio"), "there is a virtio device");
    let address = node.address(NGINX);
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| thread::spawn(move || http::get(address, "/download", seconds(120))))
        .collect();
    for client in clients {
        let got = client.join().expect("the client does not panic")?;
        ensure!(got.status == 200 && got.body == file(1), "other bytes");
    }
    let rate = |bytes: usize, took: Duration| bytes as f64 / took.as_secs_f64() / 1e6;
    println!("down: {:.1} MB/s", rate(CLIENTS * FILE, begun.elapsed()));
    let begun = Instant::now();
    let put = http::request(address, "PUT", "/up/file", &[], &file(2), seconds(120))?;
    ensure!(put.status == 201, "PUT: {} {}", put.status, put.text());
    println!("up: {:.1} MB/s", rate(FILE, begun.elapsed()));
    let got = http::get(address, "/up/file", seconds(120))?;
    ensure!(got.body == file(2), "what was uploaded has other bytes");
    node.shut_down(seconds(60))
}

#[test]
fn e1000e_serves() -> Result<()> {
    serves(&machine("physical-e1000e", Board::Q35)?)
}

#[test]
#[ignore = "long"]
fn e1000_serves() -> Result<()> {
    serves(&machine("physical-e1000", Board::Pc)?)
}

/// The 82576, which QEMU has from 8.0 on.
#[test]
#[ignore = "long"]
fn igb_serves() -> Result<()> {
    if !has_device("igb")? {
        println!("not run: this QEMU has no igb");
        return Ok(());
    }
    serves(&machine("physical-igb", Board::Q35)?.nic("igb"))?;
    cable(&machine("physical-igb-cable", Board::Q35)?.nic("igb"))
}

/// A cable is pulled in the middle of a download and put back: nothing comes meanwhile,
/// pages come at once afterwards, and the download ends with the right bytes.
fn cable(machine: &Machine) -> Result<()> {
    let mut node = start(machine)?;
    let before = node.api().last_event()?;
    let address = node.address(NGINX);
    let download = thread::spawn(move || http::get(address, "/download", seconds(120)));
    thread::sleep(Duration::from_millis(30));
    for _ in 0..3 {
        node.qmp().set_link(FIRST, false)?;
        ensure!(
            node.get(NGINX, "/", seconds(1)).is_err(),
            "a page came through a pulled cable"
        );
        node.qmp().set_link(FIRST, true)?;
        let took = wait_page(address, BACK)?;
        println!("a page {} ms after the cable", took.as_millis());
    }
    let got = download.join().expect("the client does not panic")?;
    ensure!(got.body == file(1), "other bytes");
    wait_told(&node, before, "eth0: link down")?;
    wait_told(&node, before, "eth0: link up")?;
    node.shut_down(seconds(60))
}

#[test]
#[ignore = "long"]
fn e1000e_without_cable() -> Result<()> {
    cable(&machine("physical-e1000e-cable", Board::Q35)?)
}

#[test]
fn e1000_without_cable() -> Result<()> {
    cable(&machine("physical-e1000-cable", Board::Pc)?)
}

/// A cable is moved to another port: the node follows, there and back.
#[test]
fn a_cable_is_moved() -> Result<()> {
    let machine = machine("physical-moved", Board::Q35)?;
    let (machine, second) = second_network(machine, "e1000e")?;
    let mut node = start(&machine)?;
    let first = node.address(NGINX);
    let before = node.api().last_event()?;
    // For three seconds after the first carrier the choice of the link is open.
    thread::sleep(seconds(4));
    // The second port has no cable at first; then the first one loses its cable.
    node.qmp().set_link(SECOND, false)?;
    node.qmp().set_link(FIRST, false)?;
    thread::sleep(seconds(1));
    node.qmp().set_link(SECOND, true)?;
    println!("moved: a page after {:?}", wait_page(second, BACK)?);
    // The first one is no better than the second, and left alone.
    node.qmp().set_link(FIRST, true)?;
    thread::sleep(seconds(1));
    wait_page(second, BACK)?;
    node.qmp().set_link(SECOND, false)?;
    println!("moved back: a page after {:?}", wait_page(first, BACK)?);
    wait_told(&node, before, "eth0: moved to 82574 at ")?;
    node.shut_down(seconds(60))
}

/// Reaches into the machine from outside, by QEMU's protocol for device tests.
struct Hand {
    reader: BufReader<UnixStream>,
    writer: UnixStream,
}

impl Hand {
    fn option(machine: Machine, folder: &TempFolder) -> (Machine, PathBuf) {
        let path = folder.path().join("hand");
        let socket = format!("unix:{},server=on,wait=off", path.display());
        let machine = machine
            .option("-qtest", &socket)
            .option("-qtest-log", "none");
        (machine, path)
    }

    fn new(path: &Path) -> Result<Self> {
        let writer = UnixStream::connect(path).context("no socket for tests")?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { reader, writer })
    }

    fn tell(&mut self, command: &str) -> Result<()> {
        writeln!(self.writer, "{command}")?;
        let mut answer = String::new();
        self.reader.read_line(&mut answer)?;
        ensure!(answer.starts_with("OK"), "{command}: {answer}");
        Ok(())
    }
}

/// The device `id` of the machine, as QEMU describes it.
fn pci_device(node: &mut Node, id: &str) -> Result<Value> {
    fn find(list: &Value, id: &str) -> Option<Value> {
        list.as_array()?.iter().find_map(|device| {
            let here = (device["qdev_id"] == id).then(|| device.clone());
            here.or_else(|| find(&device["pci_bridge"]["devices"], id))
        })
    }
    let buses = node.qmp().execute("query-pci")?;
    let found = buses.as_array().context("no buses")?;
    let found = found.iter().find_map(|bus| find(&bus["devices"], id));
    found.with_context(|| format!("no device {id}"))
}

/// A device stops sending: it is reset within seconds, and serves again.
fn hangs(name: &str, board: Board) -> Result<()> {
    const TCTL: u64 = 0x400;
    let folder = TempFolder::new()?;
    let (machine, path) = Hand::option(machine(name, board)?, &folder);
    let mut node = start(&machine)?;
    let device = pci_device(&mut node, FIRST)?;
    let registers = device["regions"][0]["address"].as_u64();
    let registers = registers.context("no registers")?;
    let mut hand = Hand::new(&path)?;
    let address = node.address(NGINX);
    for _ in 0..3 {
        hand.tell(&format!("writel {:#x} 0x8", registers + TCTL))?;
        let took = wait_page(address, seconds(10))?;
        println!("a page {} ms after the hang", took.as_millis());
        ensure!(took > Duration::from_millis(500), "it did not hang");
    }
    let serial = node.serial();
    ensure!(
        serial.matches("frames do not leave any more").count() == 3,
        "not three hangs were noticed"
    );
    node.shut_down(seconds(60))
}

#[test]
#[ignore = "long"]
fn e1000e_hangs() -> Result<()> {
    hangs("physical-e1000e-hangs", Board::Q35)
}

#[test]
#[ignore = "long"]
fn e1000_hangs() -> Result<()> {
    hangs("physical-e1000-hangs", Board::Pc)
}

/// A device is gone from one moment to the next: the node moves to the other one. The
/// owner's wish to unplug, which no firmware table tells of, changes nothing.
#[test]
#[ignore = "long"]
fn a_device_is_pulled() -> Result<()> {
    let folder = TempFolder::new()?;
    let (machine, path) = Hand::option(machine("physical-pulled", Board::Pc)?, &folder);
    let (machine, second) = second_network(machine, "e1000")?;
    let mut node = start(&machine)?;
    node.qmp().device_del(SECOND)?;
    let visitor = Visitor::start(node.address(NGINX), "/");
    thread::sleep(seconds(2));
    visitor.finish().expect_all_served("nginx", 5)?;
    // Registers of a device that was torn out read as ones; this one's do once it no
    // longer decodes its addresses.
    let device = pci_device(&mut node, FIRST)?;
    let slot = device["slot"].as_u64().context("no slot")?;
    let mut hand = Hand::new(&path)?;
    hand.tell(&format!("outl 0xcf8 {:#x}", 0x8000_0004 | slot << 11))?;
    hand.tell("outw 0xcfc 0x0")?;
    println!("a page after {:?}", wait_page(second, seconds(10))?);
    // The 3Bot's port leads through the device that is gone.
    node.wait_serial("the network is reached by 82540 at ", seconds(10))?;
    node.shut_down(seconds(60))
}

/// The other chips that QEMU has serve as well.
#[test]
#[ignore = "long"]
fn older_chips_serve() -> Result<()> {
    for model in ["e1000-82544gc", "e1000-82545em"] {
        let machine = machine(&format!("physical-{model}"), Board::Pc)?.nic(model);
        let mut node = start(&machine)?;
        let got = node.get(NGINX, "/download", seconds(120))?;
        ensure!(got.body == file(1), "{model}: other bytes");
        node.shut_down(seconds(60))?;
    }
    Ok(())
}
