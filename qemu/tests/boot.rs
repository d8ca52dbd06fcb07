//! Boots: every firmware, several numbers of CPUs, little and much memory, large
//! and missing ramdisks.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::{
    Artifacts, Firmware, Machine, Node,
    command::output,
    http,
    ramdisk::{Image, Ramdisk, standard_manifest},
    seconds,
};
use std::{path::PathBuf, process::Command, thread, time::Instant};

/// Port of nginx's page.
const NGINX: u16 = 8081;
/// A download that takes many segments, and clients that fetch it at once.
const DOWNLOAD_BYTES: usize = 10 << 20;
const CLIENTS: usize = 4;

/// Bytes that repeat nowhere near, so that a lost or doubled piece is seen.
fn download() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(DOWNLOAD_BYTES);
    while bytes.len() < DOWNLOAD_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// A ramdisk with the 3Bot and an nginx that has these files beside its page.
fn ramdisk_with(name: &str, files: &[(&str, u16, &[u8])]) -> Result<PathBuf> {
    let image = Image::nginx()?.with_files(files)?;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
    ramdisk.write(name)
}

/// Boots a node and expects nginx's page, then the same bytes for all clients.
fn serves(name: &str, firmware: Firmware, cpus: u32) -> Result<()> {
    let expected = download();
    let ramdisk = ramdisk_with(name, &[("/var/www/html/download", 0o644, &expected)])?;
    let machine = Machine::new(name)
        .firmware(firmware)
        .cpus(cpus)
        .ramdisk(&ramdisk);
    let mut node = machine.start()?;
    let page = node.wait_http(NGINX, "/", seconds(60))?;
    ensure!(
        page.text().contains("Welcome to nginx!"),
        "not nginx's page: {}",
        page.text()
    );
    println!("first page after {:.3} s", node.uptime().as_secs_f64());
    tells_its_steps(&node, firmware)?;
    let address = node.address(NGINX);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(|| http::get(address, "/download", seconds(120))))
            .collect();
        for client in clients {
            let response = client.join().expect("the client does not panic")?;
            ensure!(response.body == expected, "a client got other bytes");
        }
        Ok(())
    })
}

/// The node tells what its boot took, from the power on, and no longer than it did.
fn tells_its_steps(node: &Node, firmware: Firmware) -> Result<()> {
    let deadline = Instant::now() + seconds(20);
    let steps = loop {
        let steps = steps(node)?;
        if steps.iter().any(|(name, _)| name == "nginx ready") {
            break steps;
        }
        ensure!(Instant::now() < deadline, "nginx is never ready: {steps:?}");
        thread::sleep(seconds(1));
    };
    let took = node.uptime().as_secs_f64() * 1000.0;
    let mut wanted = vec!["power on", "kernel entered", "machine", "devices"];
    if firmware != Firmware::Direct {
        wanted.splice(1..1, ["firmware", "release read and checked"]);
    }
    wanted.push("nginx started");
    wanted.push("nginx ready");
    let mut at = steps.iter();
    for name in &wanted {
        ensure!(
            at.any(|(step, _)| step == name),
            "no {name} in its place: {steps:?}"
        );
    }
    ensure!(
        steps.iter().any(|(name, _)| name == "first address"),
        "{steps:?}"
    );
    let (first, last) = (steps[0].1, steps[steps.len() - 1].1);
    ensure!(
        first < 0.0 && last > 0.0 && last - first < took,
        "{:.0} ms for what took {took:.0}: {steps:?}",
        last - first
    );
    let url = format!("http://{}", node.address(8080));
    let mut skep = Command::new(Artifacts::new().cli());
    let shown = output(skep.args(["status", "--boot", "--node", &url]))?;
    println!("{shown}");
    ensure!(shown.lines().count() > wanted.len(), "{shown}");
    Ok(())
}

/// The steps of its boot, each with the milliseconds after which it was done.
fn steps(node: &Node) -> Result<Vec<(String, f64)>> {
    let told = node.api().get("node")?;
    let steps = told["boot"].as_array().context("no steps")?.iter();
    let step = |step: &Value| {
        let name = step["step"].as_str()?.to_string();
        Some((name, step["done_ms"].as_f64()?))
    };
    steps.map(|told| step(told).context("no step")).collect()
}

/// Boots a node with this much memory and expects nginx's page.
fn serves_in(name: &str, memory_mib: u32) -> Result<()> {
    let mut node = Machine::new(name).memory_mib(memory_mib).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    Ok(())
}

#[test]
fn direct_1_cpu() -> Result<()> {
    serves("boot-direct-1", Firmware::Direct, 1)
}

#[test]
fn direct_2_cpus() -> Result<()> {
    serves("boot-direct-2", Firmware::Direct, 2)
}

#[test]
fn direct_4_cpus() -> Result<()> {
    serves("boot-direct-4", Firmware::Direct, 4)
}

#[test]
fn bios_1_cpu() -> Result<()> {
    serves("boot-bios-1", Firmware::Bios, 1)
}

#[test]
fn bios_2_cpus() -> Result<()> {
    serves("boot-bios-2", Firmware::Bios, 2)
}

#[test]
fn bios_4_cpus() -> Result<()> {
    serves("boot-bios-4", Firmware::Bios, 4)
}

#[test]
fn uefi_1_cpu() -> Result<()> {
    serves("boot-uefi-1", Firmware::Uefi, 1)
}

#[test]
fn uefi_2_cpus() -> Result<()> {
    serves("boot-uefi-2", Firmware::Uefi, 2)
}

#[test]
fn uefi_4_cpus() -> Result<()> {
    serves("boot-uefi-4", Firmware::Uefi, 4)
}

#[test]
fn memory_36_mib() -> Result<()> {
    serves_in("boot-36-mib", 36)
}

#[test]
fn memory_128_mib() -> Result<()> {
    serves_in("boot-128-mib", 128)
}

#[test]
fn memory_2_gib() -> Result<()> {
    serves_in("boot-2-gib", 2048)
}

#[test]
fn memory_8_gib() -> Result<()> {
    serves_in("boot-8-gib", 8192)
}

/// A machine may have no screen at all, or one of text only, whatever its firmware.
fn serves_without_a_screen(name: &str, firmware: Firmware, screen: Option<&str>) -> Result<()> {
    let machine = Machine::new(name).firmware(firmware).screen(screen);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    Ok(())
}

#[test]
fn bios_without_a_screen() -> Result<()> {
    serves_without_a_screen("boot-bios-no-screen", Firmware::Bios, None)
}

#[test]
#[ignore = "long"]
fn bios_with_a_screen_that_only_copies() -> Result<()> {
    let screen = Some("virtio-gpu-pci");
    serves_without_a_screen("boot-bios-copies", Firmware::Bios, screen)
}

/// A ramdisk of over 64 MB reaches the kernel whole under every firmware.
fn large_ramdisk(name: &str, firmware: Firmware) -> Result<()> {
    let filler = vec![0x5a; 52 << 20];
    let ramdisk = ramdisk_with(name, &[("/var/www/html/filler", 0o644, &filler)])?;
    ensure!(
        ramdisk.metadata()?.len() > 64_000_000,
        "the ramdisk is not large"
    );
    let machine = Machine::new(name)
        .firmware(firmware)
        .memory_mib(512)
        .ramdisk(&ramdisk);
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", seconds(90))?;
    ensure!(
        node.get(NGINX, "/filler", seconds(120))?.body == filler,
        "other bytes"
    );
    Ok(())
}

#[test]
fn large_ramdisk_direct() -> Result<()> {
    large_ramdisk("boot-large-direct", Firmware::Direct)
}

#[test]
fn large_ramdisk_bios() -> Result<()> {
    large_ramdisk("boot-large-bios", Firmware::Bios)
}

#[test]
fn large_ramdisk_uefi() -> Result<()> {
    large_ramdisk("boot-large-uefi", Firmware::Uefi)
}

#[test]
fn without_a_ramdisk_it_says_so() -> Result<()> {
    for firmware in [Firmware::Direct, Firmware::Bios, Firmware::Uefi] {
        let name = format!("boot-no-ramdisk-{firmware:?}");
        let mut node = Machine::new(&name)
            .firmware(firmware)
            .no_ramdisk()
            .start()?;
        node.wait_serial("no ramdisk", seconds(30))?;
    }
    Ok(())
}

/// What a BIOS cannot start is told in a sentence.
#[test]
fn under_bios_it_says_what_is_wrong_with_the_machine() -> Result<()> {
    let start = |name: &str| Machine::new(name).firmware(Firmware::Bios);
    let mut old = start("boot-bios-32-bit");
    old.cpu_model = "qemu32".to_string();
    let mut node = old.start()?;
    node.wait_serial("processor has no 64-bit mode", seconds(30))?;
    let mut node = start("boot-bios-16-mib").memory_mib(16).start()?;
    node.wait_serial("too little memory", seconds(30))?;
    Ok(())
}

/// Enough for the kernel's file and its front end, and for nothing else.
#[test]
fn with_too_little_memory_it_says_so() -> Result<()> {
    let mut node = Machine::new("boot-6-mib")
        .memory_mib(6)
        .no_ramdisk()
        .start()?;
    node.wait_serial("too little memory", seconds(10))?;
    ensure!(
        node.wait_exit(seconds(10))? == 255,
        "not ended by the exit device"
    );
    Ok(())
}
