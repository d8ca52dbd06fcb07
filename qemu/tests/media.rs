//! Boot media as their owner makes them: `skep image`, and the partition `SKEP` that any
//! computer can edit.

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use skep_api::{KeyPair, manifest::SignedManifest, settings::TEMPLATE};
use skep_qemu::{
    Firmware, Machine, Node,
    medium::Medium,
    ramdisk::{Image, Ramdisk, port, standard_manifest},
    screen::wait_screen,
    seconds,
    switch::Switch,
};
use std::sync::atomic::Ordering::Relaxed;

const NGINX: u16 = 8081;
/// Where firmware reads slowly, and emulation slower still.
const PATIENCE: u64 = 180;

/// A node that is started directly and has the medium as its disk: the same kernel
/// sees the same partition, much sooner.
fn as_disk(medium: &Medium, name: &str) -> Machine {
    Machine::new(name).disk("medium", &medium.path())
}

/// The template with these lines in the place of commented ones.
fn settings(lines: &[&str]) -> Vec<u8> {
    let mut text = TEMPLATE.to_string();
    for line in lines {
        let key = line.split(' ').next().unwrap_or_default();
        let old = TEMPLATE
            .lines()
            .find(|l| l.starts_with(&format!("#{key} ")));
        text = text.replace(old.unwrap_or_else(|| panic!("no {key}")), line);
    }
    // As Windows' editor writes it.
    text.replace('\n', "\r\n").into_bytes()
}

fn addresses(node: &Node) -> Result<String> {
    Ok(node.api().get("node")?["addresses"].to_string())
}

/// Booted by firmware from a disk, the node does what its owner wrote with mtools.
#[test]
fn settings_from_the_boot_disk() -> Result<()> {
    let medium = Medium::new(None)?;
    medium.put(
        "skep.toml",
        &settings(&[
            "name = \"garden\"",
            "address = \"10.0.2.15/25\"",
            "gateway = \"10.0.2.2\"",
        ]),
    )?;
    let machine = Machine::new("media-settings").firmware(Firmware::Bios);
    let mut node = machine.image(&medium.path()).start()?;
    node.wait_http(NGINX, "/", seconds(PATIENCE))?;
    node.wait_http(8080, "/", seconds(30))?;
    let told = node.api().get("node")?;
    ensure!(told["name"] == "garden", "{told}");
    ensure!(told["settings"]["disk"] == "vda", "{told}");
    // The network's DHCP server gives /24.
    let addresses = addresses(&node)?;
    ensure!(addresses.contains("10.0.2.15/25"), "{addresses}");
    Ok(())
}

#[test]
#[ignore = "long"]
fn the_console_goes_where_its_owner_says() -> Result<()> {
    let medium = Medium::new(None)?;
    medium.put("skep.toml", &settings(&["serial = false"]))?;
    let mut node = as_disk(&medium, "media-console").start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    let serial = node.serial();
    ensure!(serial.contains("no more is told here"), "{serial}");
    ensure!(!serial.contains("capsule nginx started"), "{serial}");
    Ok(())
}

/// One wrong line: told with its number and key in all places, and the node starts as
/// if there were no file.
#[test]
fn a_wrong_line_is_told_everywhere() -> Result<()> {
    let medium = Medium::new(None)?;
    let wrong = "name = \"garden\"\n\n[network]\naddress = \"10.0.2.300/24\"\n";
    medium.put("skep.toml", wrong.as_bytes())?;
    let told =
        "skep.toml on vda: line 4, network.address: \"10.0.2.300/24\" is not an IPv4 address";
    let machine = as_disk(&medium, "media-wrong").option("-device", "VGA");
    let mut node = machine.start()?;
    node.wait_serial(told, seconds(60))?;
    node.wait_http(NGINX, "/", seconds(60))?;
    node.wait_http(8080, "/", seconds(30))?;
    let status = node.api().get("node")?;
    ensure!(status["name"] == "node", "{status}");
    let problem = status["settings"]["problem"].as_str().unwrap_or_default();
    ensure!(problem.starts_with(told), "{status}");
    let events = node.api().wait_events(0, "warning", None, 1, seconds(10))?;
    ensure!(
        events[0]["text"].to_string().contains("line 4"),
        "{events:?}"
    );
    Ok(())
}

/// Firmware's screen shows it too.
#[test]
#[ignore = "long"]
fn a_wrong_line_is_told_on_the_screen() -> Result<()> {
    let medium = Medium::new(None)?;
    medium.put("skep.toml", b"nmae = \"garden\"\n")?;
    let machine = Machine::new("media-screen").firmware(Firmware::Uefi);
    let mut node = machine.image(&medium.path()).start()?;
    let told = "line 1, nmae: there is no such key";
    wait_screen(&mut node, told, seconds(PATIENCE)).map(drop)
}

/// A new owner takes over a medium that somebody else has made: what is built in still
/// runs, the new owner's manifest is started, and only the new owner is obeyed.
#[test]
#[ignore = "long"]
fn a_new_owner_and_a_first_manifest() -> Result<()> {
    let ramdisk = Ramdisk::with_nginx()?.write("media-owner")?;
    let medium = Medium::new(Some(&ramdisk))?;
    let new = KeyPair::from_seed([0x77; 32]).context("not a seed")?;
    let mut second = standard_manifest("nginx", &Image::nginx()?)?;
    second.name = "second".into();
    second.ports = vec![port(80, 8082)];
    let signed = SignedManifest::sign(&second, &new)?;
    let owner = format!("owner = \"{}\"", new.public());
    medium.put("skep.toml", &settings(&[&owner]))?;
    medium.put("manifests/second.manifest", &signed.encode())?;
    let mut foreign = second.clone();
    foreign.name = "foreign".into();
    foreign.ports = vec![port(80, 8083)];
    let foreign = SignedManifest::sign(&foreign, &skep_qemu::ramdisk::owner()?)?;
    medium.put("manifests/foreign.manifest", &foreign.encode())?;
    let mut machine = as_disk(&medium, "media-owner").guest_port(8082);
    machine.ramdisk = Some(ramdisk);
    let mut node = machine.start()?;
    for port in [NGINX, 8082] {
        node.wait_http(port, "/", seconds(60))?;
    }
    node.wait_http(8080, "/", seconds(30))?;
    let manifests = node.api().get("manifests")?;
    let all = manifests.as_array().context("no list")?;
    let refused: Vec<_> = all.iter().filter(|m| m["accepted"] == false).collect();
    ensure!(
        refused.len() == 1 && refused[0]["entry"] == "foreign",
        "{manifests}"
    );
    // The harness signs as the maker.
    let stop = node.api().command("capsules/nginx/stop", &json!({}));
    ensure!(stop.is_err(), "the maker is still obeyed");
    Ok(())
}

/// Everything a node in a VLAN sends has the tag, DHCP as well as pages.
#[test]
fn a_node_in_a_vlan() -> Result<()> {
    const VLAN: u16 = 12;
    let medium = Medium::new(None)?;
    medium.put("skep.toml", &settings(&["vlan = 12"]))?;
    let switch = Switch::start(VLAN)?;
    let mut machine = as_disk(&medium, "media-vlan");
    machine.switch = Some(switch.ports);
    let mut node = machine.start()?;
    let page = node.wait_http(NGINX, "/", seconds(90))?;
    ensure!(page.text().contains("nginx"), "not nginx's page");
    let counts = &switch.counts;
    let (tagged, strange) = (counts.tagged.load(Relaxed), counts.strange.load(Relaxed));
    println!("{tagged} frames with the tag, {strange} others");
    ensure!(
        tagged > 5 && strange == 0,
        "{strange} frames without the tag"
    );
    Ok(())
}

/// The same switch, and a node that knows nothing of the VLAN: nothing passes.
#[test]
#[ignore = "long"]
fn a_node_outside_a_vlan_is_not_in_it() -> Result<()> {
    let switch = Switch::start(12)?;
    let mut machine = Machine::new("media-no-vlan");
    machine.switch = Some(switch.ports);
    let mut node = machine.start()?;
    node.wait_serial("nginx: started", seconds(60))?;
    ensure!(
        node.wait_http(NGINX, "/", seconds(8)).is_err(),
        "a page came"
    );
    ensure!(switch.counts.strange.load(Relaxed) > 0, "it sent nothing");
    ensure!(switch.counts.tagged.load(Relaxed) == 0, "it sent tags");
    Ok(())
}
