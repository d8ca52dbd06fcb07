//! Segments that leave joined and are cut by the device: on a line of the host's kernel, which
//! takes them as they are, what arrives is what was sent.

use anyhow::{Context as _, Result, ensure};
use skep_qemu::{
    Artifacts,
    ability::has_device,
    command::output,
    lan::Lan,
    node::TempFolder,
    ramdisk::{Ramdisk, port, scripted},
    seconds,
    twin::Packages,
};
use std::{fs, path::Path};

const MAC: &str = "52:54:00:12:34:56";
const ADDRESS: &str = "10.9.0.50";
/// What the node makes of its hardware address, on the host's side of the line (RFC 4291, 2.5.6).
const ADDRESS_V6: &str = "[fe80::5054:ff:fe12:3456%25br0]";
/// Bytes of the file: no whole number of segments.
const BYTES: u32 = 5_000_003;
/// Ethernet's longest frame with a tag.
const FRAME_MAX: u64 = 1518;

const SERVES: &str = "exec busybox httpd -f -p 8081 -h /www\n";

fn ramdisk(name: &str, file: &[u8]) -> Result<std::path::PathBuf> {
    let packages = Packages::pack("long-segments", &["busybox-static", "bash"])?;
    let image = packages.image(&[
        ("/serves", 0o755, SERVES.as_bytes()),
        ("/www/file", 0o644, file),
        ("/www/page", 0o644, b"a page"),
    ])?;
    let mut serves = scripted("serves", &image);
    serves.ports = vec![port(8081, 8081)];
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&serves, &image)?;
    ramdisk.write(name)
}

/// A network with a DHCP server that knows the machine.
fn lan(folder: &Path) -> Result<Lan> {
    let mut lan = Lan::new()?;
    let mut command = lan.command("dnsmasq");
    command.args(["--keep-in-foreground", "--log-facility=-", "--port=0"]);
    // The file would be the one of all who run at this time.
    command.arg("--pid-file");
    command.args(["--conf-file=/dev/null", "--user=root", "--interface=br0"]);
    command.args(["--bind-interfaces", "--dhcp-range=10.9.0.0,static"]);
    command.arg(format!("--dhcp-host={MAC},{ADDRESS}"));
    let leases = folder.join("leases");
    command.arg(format!("--dhcp-leasefile={}", leases.display()));
    let log = folder.join("dnsmasq.log");
    lan.spawn(&mut command, &log)?;
    lan.wait_log(&log, "DHCP, ", seconds(20))?;
    lan.tap("t0")?;
    Ok(lan)
}

/// Powers a machine on whose line is the network's port.
fn start(lan: &mut Lan, nic: &str, ramdisk: &Path, log: &Path) -> Result<()> {
    let artifacts = Artifacts::new();
    let mut command = lan.command("qemu-system-x86_64");
    command.args(["-nodefaults", "-no-user-config", "-display", "none"]);
    command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max"]);
    command.args(["-smp", "2", "-m", "512M"]);
    command.args(["-netdev", "tap,id=net0,ifname=t0,script=no,downscript=no"]);
    command.arg("-device");
    command.arg(format!("{nic},netdev=net0,mac={MAC},romfile="));
    command
        .arg("-kernel")
        .arg(artifacts.require(artifacts.direct())?);
    command.arg("-initrd").arg(ramdisk);
    command.args(["-serial", "stdio"]);
    lan.spawn(&mut command, log)
}

/// What the port has carried from the machine, in frames and in bytes.
fn carried(lan: &Lan) -> Result<(u64, u64)> {
    let script = "cd /sys/class/net/t0/statistics && cat rx_packets rx_bytes";
    // The files are those of the network that mounted them.
    let script = format!("mount -t sysfs none /sys && {script}");
    let mut command = lan.command("unshare");
    let said = output(command.args(["--mount", "sh", "-c", &script]))?;
    let mut numbers = said.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().context("two numbers")?.context("a number");
    Ok((next()?, next()?))
}

/// Fetches the file over the IP version of this address, which must arrive unchanged; whether
/// it came in frames longer than any on a line.
fn fetch(lan: &Lan, folder: &Path, address: &str, file: &[u8]) -> Result<bool> {
    let at = format!("http://{address}:8081");
    lan.wait_page(&format!("{at}/page"), "a page", seconds(90))?;
    let before = carried(lan)?;
    let got = folder.join("file");
    let mut curl = lan.command("curl");
    curl.args(["--silent", "--fail", "--max-time", "60", "--output"]);
    output(curl.arg(&got).arg(format!("{at}/file")))?;
    let after = carried(lan)?;
    ensure!(
        fs::read(&got)? == file,
        "another file arrived from {address}"
    );
    let (frames, bytes) = (after.0 - before.0, after.1 - before.1);
    println!("{address}: {bytes} bytes in {frames} frames");
    ensure!(bytes >= BYTES.into(), "{bytes} bytes carried");
    Ok(bytes > 4 * FRAME_MAX * frames)
}

/// A node sends a large file over both versions of IP, joined over those that the device can
/// cut, and it arrives unchanged.
fn arrives(nic: &str, cuts_v6: bool) -> Result<()> {
    let file: Vec<u8> = (0..BYTES)
        .map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
    let name = format!("long-segments-{nic}");
    let ramdisk = ramdisk(&name, &file)?;
    let folder = TempFolder::new()?;
    let mut lan = lan(folder.path())?;
    let log = Artifacts::new().logs().join(format!("{name}.log"));
    start(&mut lan, nic, &ramdisk, &log)?;
    for (address, cuts) in [(ADDRESS, true), (ADDRESS_V6, cuts_v6)] {
        let joined = fetch(&lan, folder.path(), address, &file)?;
        ensure!(
            joined == cuts,
            "{nic}, {address}: joined {joined}, cut by the device {cuts}"
        );
    }
    Ok(())
}

#[test]
fn e1000e_cuts_what_is_joined() -> Result<()> {
    // IPv6 is not joined there: see `drivers/intel/src/family.rs`.
    arrives("e1000e", false)
}

#[test]
fn virtio_net_cuts_what_is_joined() -> Result<()> {
    arrives("virtio-net-pci", true)
}

/// The 82576, which QEMU has from 8.0 on.
#[test]
fn igb_cuts_what_is_joined() -> Result<()> {
    if !has_device("igb")? {
        println!("not run: this QEMU has no igb");
        return Ok(());
    }
    arrives("igb", true)
}
