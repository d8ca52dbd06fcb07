//! One image boots anywhere: what `skep image` makes, on each kind of medium and board,
//! under both firmwares, in machines that have no virtio device.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_qemu::{Board, Bridges, Bus, Firmware, Machine, Node, medium::Medium, seconds};

const NGINX: u16 = 8081;
/// Where firmware reads slowly, and emulation slower still.
const PATIENCE: u64 = 180;
/// Vendor number of all virtio devices behind PCI.
const VIRTIO: u64 = 0x1af4;

/// The image boots from a medium on `bus`: nginx's page comes over the machine's only
/// network device, and the node names that device's driver and the medium.
fn boots(board: Board, firmware: Firmware, bus: Bus) -> Result<()> {
    let name = format!("physical-boot-{board:?}-{firmware:?}-{bus:?}").to_lowercase();
    let machine = Machine::new(&name).firmware(firmware).cpus(2);
    serves(&machine.physical(board, bus)).map(drop)
}

/// The image boots and serves on this machine; gives the hardware report.
fn serves(machine: &Machine) -> Result<Value> {
    let medium = Medium::new(None)?;
    let mut node = machine.clone().image(&medium.path()).start()?;
    let page = node.wait_http(NGINX, "/", seconds(PATIENCE))?;
    println!("first page after {:.3} s", node.uptime().as_secs_f64());
    ensure!(page.text().contains("nginx"), "not nginx's page");
    has_no_virtio(&mut node)?;
    node.wait_http(8080, "/", seconds(30))?;
    let report = node.api().get("hardware")?;
    is_driven(&report, &machine.nic)?;
    let disks = report["disks"].as_array().context("no disks")?;
    let wanted = if machine.boot_bus == Bus::Nvme {
        "nvme0n1"
    } else {
        "sda"
    };
    ensure!(
        disks.len() == 1 && disks[0]["name"] == wanted,
        "not {wanted}: {disks:?}"
    );
    node.shut_down(seconds(60))?;
    Ok(report)
}

/// Asks QEMU in three ways, as each knows what the others may not: the tree of buses,
/// the objects of the machine, and the functions that answer on PCI.
fn has_no_virtio(node: &mut Node) -> Result<()> {
    let tree = node.qmp().monitor("info qtree")?;
    ensure!(!tree.contains("virtio"), "there is a virtio device: {tree}");
    let parts = node.qmp().parts()?;
    let virtio: Vec<_> = parts.iter().filter(|p| p.contains("virtio")).collect();
    ensure!(
        parts.len() > 20 && virtio.is_empty(),
        "of {} kinds of parts: {virtio:?}",
        parts.len()
    );
    let buses = node.qmp().execute("query-pci")?;
    let buses = buses.as_array().context("no PCI")?.iter();
    let mut functions: Vec<&Value> = buses
        .flat_map(|bus| bus["devices"].as_array().into_iter().flatten())
        .collect();
    let mut looked = 0;
    while let Some(bridge) = functions.get(looked).map(|f| &f["pci_bridge"]["devices"]) {
        functions.extend(bridge.as_array().into_iter().flatten());
        looked += 1;
    }
    let is_virtio = |f: &&Value| f["id"]["vendor"] == VIRTIO;
    ensure!(
        functions.len() > 3 && !functions.iter().any(is_virtio),
        "a virtio function: {functions:?}"
    );
    Ok(())
}

/// The only network controller has the driver of that name, and its link has carried
/// frames.
fn is_driven(report: &Value, nic: &str) -> Result<()> {
    /// Base class of network controllers (PCI Code and ID Assignment).
    const NETWORK: u64 = 2;
    let functions = report["pci"].as_array().context("no functions")?;
    let nics = functions.iter().filter(|f| f["class"][0] == NETWORK);
    let drivers: Vec<_> = nics.map(|f| &f["driver"]).collect();
    ensure!(drivers == [nic], "not {nic} alone: {drivers:?}");
    let links = report["links"].as_array().context("no links")?;
    ensure!(
        links.len() == 1 && links[0]["received"]["frames"].as_u64() > Some(5),
        "the link is not told: {links:?}"
    );
    Ok(())
}

#[test]
fn pc_bios_sata() -> Result<()> {
    boots(Board::Pc, Firmware::Bios, Bus::Ahci)
}

#[test]
#[ignore = "long"]
fn pc_uefi_sata() -> Result<()> {
    boots(Board::Pc, Firmware::Uefi, Bus::Ahci)
}

#[test]
#[ignore = "long"]
fn q35_bios_nvme() -> Result<()> {
    boots(Board::Q35, Firmware::Bios, Bus::Nvme)
}

#[test]
fn q35_uefi_nvme() -> Result<()> {
    boots(Board::Q35, Firmware::Uefi, Bus::Nvme)
}

#[test]
#[ignore = "long"]
fn q35_bios_sata() -> Result<()> {
    boots(Board::Q35, Firmware::Bios, Bus::Ahci)
}

#[test]
#[ignore = "long"]
fn q35_uefi_sata() -> Result<()> {
    boots(Board::Q35, Firmware::Uefi, Bus::Ahci)
}

#[test]
fn q35_bios_usb() -> Result<()> {
    boots(Board::Q35, Firmware::Bios, Bus::Usb)
}

#[test]
#[ignore = "long"]
fn q35_uefi_usb() -> Result<()> {
    boots(Board::Q35, Firmware::Uefi, Bus::Usb)
}

/// PCI Express as in a server: the network device behind a port and a switch, the disk
/// behind a port of its own.
const SWITCH: Bridges = Bridges {
    all: &[
        "pcie-root-port,id=first,chassis=1,slot=1",
        "x3130-upstream,id=up,bus=first",
        "xio3130-downstream,id=down,bus=up,chassis=2,slot=2",
        "pcie-root-port,id=second,chassis=3,slot=3",
    ],
    nic: "down",
    disk: "second",
};

/// Conventional PCI behind a port of PCI Express.
const CONVENTIONAL: Bridges = Bridges {
    all: &[
        "pcie-root-port,id=first,chassis=1,slot=1",
        "pcie-pci-bridge,id=conventional,bus=first",
    ],
    nic: "conventional",
    disk: "conventional",
};

/// Conventional PCI, a bridge behind a bridge.
const CHAIN: Bridges = Bridges {
    all: &[
        "pci-bridge,id=near,chassis_nr=1",
        "pci-bridge,id=far,bus=near,chassis_nr=2",
    ],
    nic: "far",
    disk: "near",
};

/// What boots the machine is behind bridges, nothing of it on the board's own bus.
fn boots_behind(machine: Machine, bridges: Bridges) -> Result<()> {
    let machine = machine.cpus(2).behind(bridges);
    let disk = if machine.boot_bus == Bus::Nvme {
        "nvme"
    } else {
        "ahci"
    };
    let report = serves(&machine)?;
    let functions = report["pci"].as_array().context("no functions")?;
    let far = functions.iter().filter(|f| {
        let address = f["address"].as_str();
        address.is_some_and(|address| !address.starts_with("00:"))
    });
    let mut drivers: Vec<_> = far.filter_map(|f| f["driver"].as_str()).collect();
    drivers.sort_unstable();
    let mut wanted = [disk, machine.nic.as_str()];
    wanted.sort_unstable();
    ensure!(drivers == wanted, "behind bridges: {drivers:?}");
    Ok(())
}

#[test]
fn q35_uefi_behind_a_switch() -> Result<()> {
    let machine = Machine::new("physical-switch-uefi").firmware(Firmware::Uefi);
    boots_behind(machine.physical(Board::Q35, Bus::Nvme), SWITCH)
}

#[test]
#[ignore = "long"]
fn q35_bios_behind_a_switch() -> Result<()> {
    let machine = Machine::new("physical-switch-bios").firmware(Firmware::Bios);
    boots_behind(machine.physical(Board::Q35, Bus::Nvme), SWITCH)
}

#[test]
#[ignore = "long"]
fn q35_uefi_behind_conventional_pci() -> Result<()> {
    let machine = Machine::new("physical-conventional").firmware(Firmware::Uefi);
    let machine = machine.physical(Board::Q35, Bus::Ahci).nic("e1000");
    boots_behind(machine, CONVENTIONAL)
}

#[test]
fn pc_bios_behind_two_bridges() -> Result<()> {
    let machine = Machine::new("physical-bridges-bios").firmware(Firmware::Bios);
    boots_behind(machine.physical(Board::Pc, Bus::Ahci), CHAIN)
}

#[test]
#[ignore = "long"]
fn pc_uefi_behind_two_bridges() -> Result<()> {
    let machine = Machine::new("physical-bridges-uefi").firmware(Firmware::Uefi);
    boots_behind(machine.physical(Board::Pc, Bus::Ahci), CHAIN)
}
