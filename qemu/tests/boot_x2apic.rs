//! Interrupts by x2APIC, whose registers are MSRs and whose processors may have numbers
//! above 255. QEMU's translator has it from version 9 on.

use anyhow::{Context as _, Result, ensure};
use skep_qemu::{
    Artifacts, Machine, Node,
    ability::has_cpu_feature,
    http,
    machine::escape,
    ramdisk::{Image, Ramdisk, standard_manifest},
    seconds,
};
use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

const NGINX: u16 = 8081;
const DOWNLOAD_BYTES: u32 = 4 << 20;
/// Bits of IA32_APIC_BASE (Intel SDM, vol. 3A, 11.12.1): the boot processor, x2APIC mode,
/// on at all.
const IS_BOOT_CPU: u64 = 1 << 8;
const X2APIC_ON: u64 = 1 << 10 | 1 << 11;

/// Whether the scenario can run; says so if it cannot.
fn can_run() -> Result<bool> {
    let can = has_cpu_feature("x2apic")?;
    if !can {
        println!("not run: this QEMU's translator has no x2APIC");
    }
    Ok(can)
}

/// Bytes of which no two pages are alike.
fn download() -> Vec<u8> {
    (0..DOWNLOAD_BYTES / 4)
        .flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_le_bytes())
        .collect()
}

/// Where QEMU tells of every write to IA32_APIC_BASE.
fn trace_file(name: &str) -> PathBuf {
    Artifacts::new().logs().join(format!("{name}.apic-base"))
}

/// What was written to IA32_APIC_BASE, by all processors.
fn bases(file: &Path) -> Result<Vec<u64>> {
    let text = fs::read_to_string(file)?;
    let lines = text
        .lines()
        .filter(|line| line.contains("cpu_set_apic_base"));
    let values = lines.map(|line| {
        let digits = line.rsplit_once("0x").context("no value")?.1;
        Ok(u64::from_str_radix(digits.trim(), 16)?)
    });
    values.collect()
}

/// A node with `cpus` processors, on which nginx serves.
fn start(name: &str, cpus: usize, machine: Machine) -> Result<Node> {
    let image = Image::nginx()?.with_files(&[("/var/www/html/download", 0o644, &download())])?;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
    let trace = escape(&trace_file(name));
    let mut node = machine
        .ramdisk(&ramdisk.write(name)?)
        .option("-trace", &format!("cpu_set_apic_base,file={trace}"))
        .start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_serial(&format!(" {cpus} CPUs"), seconds(1))?;
    Ok(node)
}

/// Clients of all processors at once get what they ask for.
fn serves(node: &Node) -> Result<()> {
    let (address, expected) = (node.address(NGINX), download());
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| http::get(address, "/download", seconds(120))))
            .collect();
        for client in clients {
            let response = client.join().expect("the client does not panic")?;
            ensure!(response.body == expected, "a client got other bytes");
        }
        Ok(())
    })
}

/// Every processor was put into x2APIC mode, one of them as the boot processor.
fn all_in_x2apic_mode(name: &str, cpus: usize) -> Result<()> {
    let bases = bases(&trace_file(name))?;
    let on: Vec<_> = bases
        .iter()
        .filter(|base| *base & X2APIC_ON == X2APIC_ON)
        .collect();
    let boot = on.iter().filter(|base| **base & IS_BOOT_CPU != 0).count();
    ensure!(boot >= 1 && on.len() - boot >= cpus - 1, "{bases:x?}");
    Ok(())
}

/// To whom the first processor's last interrupt to another one went, as its register says:
/// in x2APIC mode the whole of it is the number, otherwise the highest byte.
fn last_destination(node: &mut Node) -> Result<u32> {
    let told = node.qmp().monitor("info lapic 0")?;
    let mut words = told.split_whitespace().skip_while(|word| *word != "ICR2");
    let digits = words.nth(1).and_then(|word| word.strip_prefix("0x"));
    let digits = digits.with_context(|| format!("no ICR2: {told}"))?;
    Ok(u32::from_str_radix(digits, 16)?)
}

fn boots(name: &str, cpus: u32) -> Result<Option<Node>> {
    if !can_run()? {
        return Ok(None);
    }
    let count = usize::try_from(cpus)?;
    let node = start(name, count, Machine::new(name).cpus(cpus))?;
    all_in_x2apic_mode(name, count)?;
    serves(&node)?;
    Ok(Some(node))
}

#[test]
fn one_cpu() -> Result<()> {
    if let Some(mut node) = boots("boot-x2apic-1", 1)? {
        node.shut_down(seconds(60))?;
    }
    Ok(())
}

#[test]
fn four_cpus() -> Result<()> {
    if let Some(mut node) = boots("boot-x2apic-4", 4)? {
        let to = last_destination(&mut node)?;
        ensure!((1..4).contains(&to), "interrupts go to {to:#x}");
        node.shut_down(seconds(60))?;
    }
    Ok(())
}

/// The second processor is the first one of a second socket, behind 129 empty places of the
/// first socket: it has the number 256, which only x2APIC reaches.
#[test]
fn a_cpu_numbered_above_255() -> Result<()> {
    if !can_run()? {
        return Ok(());
    }
    let name = "boot-x2apic-256";
    let machine = Machine::new(name)
        .cpus(1)
        .option("-smp", "sockets=2,cores=129,threads=1,maxcpus=258")
        .option(
            "-device",
            "max-x86_64-cpu,socket-id=1,core-id=0,thread-id=0",
        );
    let mut node = start(name, 2, machine)?;
    all_in_x2apic_mode(name, 2)?;
    serves(&node)?;
    let to = last_destination(&mut node)?;
    ensure!(to == 256, "interrupts go to {to:#x}");
    node.shut_down(seconds(60))
}
