//! A node with a TPM 2.0 (swtpm).

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use skep_api::{
    Hash,
    boot::{
        Slot,
        measured::{PCR_AUTHORITY, PCR_CONFIGURATION, PCR_IMAGE},
    },
};
use skep_qemu::{
    Artifacts, Machine, Node,
    command::output,
    machine::{Board, Bus, Firmware},
    node::TempFolder,
    ramdisk::{Ramdisk, owner, stranger},
    seconds,
    slots::{BOOT_TIMEOUT, BootDisk},
    swtpm::{Interface, Swtpm},
};
use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Instant,
};

const NGINX: u16 = 8081;

/// Starts a machine and waits for both of its servers.
fn start(machine: &Machine) -> Result<Node> {
    let mut node = machine.start()?;
    node.wait_http(NGINX, "/", BOOT_TIMEOUT)?;
    node.wait_http(8080, "/", seconds(30))?;
    Ok(node)
}

fn tpm(node: &Node) -> Result<Value> {
    Ok(node.api().get("hardware")?["tpm"].clone())
}

fn in_use(name: &str, machine: Machine, interface: Interface, state: &str) -> Result<()> {
    let mut swtpm = Swtpm::new(name)?;
    let mut node = start(&swtpm.plug(machine, interface)?)?;
    let told = tpm(&node)?;
    ensure!(told["on"] == true && told["state"] == state, "{told}");
    ensure!(told["manufacturer"] == "IBM", "{told}");
    let banks = told["banks"].as_array();
    ensure!(
        banks.is_some_and(|b| b.iter().any(|b| b == "sha256")),
        "{told}"
    );
    let mut skep = Command::new(Artifacts::new().cli());
    skep.args(["status", "--hardware", "--node"]);
    skep.arg(format!("http://{}", node.address(8080)));
    let shown = output(&mut skep)?;
    ensure!(
        shown.contains(&format!("TPM       {state}, IBM")),
        "{shown}"
    );
    node.shut_down(seconds(60))
}

#[test]
fn tpm_is_used_by_its_fifo() -> Result<()> {
    in_use(
        "tpm-tis",
        Machine::new("tpm-tis"),
        Interface::Tis,
        "on (TIS)",
    )
}

#[test]
fn tpm_is_used_by_its_buffer() -> Result<()> {
    in_use(
        "tpm-crb",
        Machine::new("tpm-crb"),
        Interface::Crb,
        "on (CRB)",
    )
}

/// After firmware that has started it and measured into it.
#[test]
fn tpm_is_used_after_uefi() -> Result<()> {
    let machine = Machine::new("tpm-uefi")
        .firmware(Firmware::Uefi)
        .physical(Board::Q35, Bus::Nvme);
    in_use("tpm-uefi", machine, Interface::Crb, "on (CRB)")
}

/// One that dies before it is used costs the node nothing but the TPM.
#[test]
fn tpm_that_died_is_given_up() -> Result<()> {
    let mut swtpm = Swtpm::new("tpm-died")?;
    let machine = swtpm.plug(Machine::new("tpm-died"), Interface::Tis)?;
    let mut node = machine.start()?;
    swtpm.kill();
    node.wait_http(NGINX, "/", BOOT_TIMEOUT)?;
    node.wait_http(8080, "/", seconds(30))?;
    let told = tpm(&node)?;
    let state = told["state"].as_str().unwrap_or_default();
    ensure!(
        told["on"] == false && state.starts_with("off (it "),
        "{told}"
    );
    Ok(())
}

#[test]
fn tpm_missing_is_said() -> Result<()> {
    let node = start(&Machine::new("tpm-none"))?;
    let told = tpm(&node)?;
    let why = "off (the firmware tells of none)";
    ensure!(told["on"] == false && told["state"] == why, "{told}");
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes(digits: &str) -> Result<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// What a register must be by the node's log.
fn computed(told: &Value, pcr: u32) -> Result<String> {
    let mut value = [0u8; 32].to_vec();
    for entry in told["log"].as_array().context("no log")? {
        if entry["pcr"] == pcr {
            value.extend(bytes(entry["digest"].as_str().context("no digest")?)?);
            value = Sha256::digest(&value).to_vec();
        }
    }
    Ok(hex(&value))
}

/// What the TPM says that a register is.
fn register(told: &Value, pcr: u32) -> Result<String> {
    let all = told["registers"].as_array().context("no registers")?;
    let found = all.iter().find(|r| r["pcr"] == pcr);
    let value = found.and_then(|r| r["value"].as_str());
    Ok(value
        .with_context(|| format!("no register {pcr}"))?
        .to_owned())
}

/// The digest of an entry of the log.
fn digest(told: &Value, what: &str) -> Result<String> {
    let mut log = told["log"].as_array().context("no log")?.iter();
    let found = log.find(|entry| entry["what"] == what);
    let digest = found.and_then(|entry| entry["digest"].as_str());
    Ok(digest
        .with_context(|| format!("{what} is not in the log: {told}"))?
        .to_owned())
}

/// All registers of the log are what follows from it, and none is as it was at power-on.
fn follows_from_the_log(told: &Value) -> Result<()> {
    ensure!(told["complete"] == true, "{told}");
    for pcr in [PCR_IMAGE, PCR_CONFIGURATION, PCR_AUTHORITY] {
        let value = register(told, pcr)?;
        ensure!(value == computed(told, pcr)?, "register {pcr}: {told}");
        ensure!(value != hex(&[0; 32]), "register {pcr} is untouched");
    }
    ensure!(
        digest(told, "owner")? == sha256(&owner()?.public().0),
        "{told}"
    );
    Ok(())
}

/// Another ramdisk of the same owner.
fn ramdisk_called(name: &str) -> Result<PathBuf> {
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.config.name = name.to_owned();
    ramdisk.write(&format!("tpm-called-{name}"))
}

/// Boots this ramdisk and returns what is told of the TPM.
fn measured(name: &str, ramdisk: &Path) -> Result<Value> {
    let mut swtpm = Swtpm::new(name)?;
    let machine = Machine::new(name).ramdisk(ramdisk);
    let mut node = swtpm.plug(machine, Interface::Crb)?.start()?;
    node.wait_http(8080, "/", BOOT_TIMEOUT)?;
    let told = tpm(&node)?;
    follows_from_the_log(&told)?;
    ensure!(
        digest(&told, "ramdisk")? == sha256(&fs::read(ramdisk)?),
        "{told}"
    );
    Ok(told)
}

/// The owner can compute the registers from files and log; another ramdisk shows in the
/// register of images alone.
#[test]
fn tpm_registers_follow_from_the_log() -> Result<()> {
    let first = measured("tpm-log", &Ramdisk::new()?.write("tpm-log")?)?;
    let second = measured("tpm-log-other", &ramdisk_called("other-log")?)?;
    let changes = |pcr| Ok::<_, anyhow::Error>(register(&first, pcr)? != register(&second, pcr)?);
    ensure!(changes(PCR_IMAGE)?, "another ramdisk does not show");
    ensure!(
        !changes(PCR_CONFIGURATION)? && !changes(PCR_AUTHORITY)?,
        "more has changed"
    );
    Ok(())
}

/// The UEFI loader tells the TPM of the release that it has checked, and by which key.
#[test]
fn tpm_is_told_of_the_release_by_the_loader() -> Result<()> {
    let folder = TempFolder::new()?;
    let ramdisk = Ramdisk::new()?.write("tpm-release")?;
    let disk = BootDisk::new(&folder.path().join("disk"), &ramdisk)?;
    let head = disk.head(Slot::A)?;
    let mut swtpm = Swtpm::new("tpm-release")?;
    let machine = Machine::new("tpm-release")
        .firmware(Firmware::Uefi)
        .boot_disk(disk.path());
    let mut node = swtpm.plug(machine, Interface::Tis)?.start()?;
    node.wait_http(8080, "/", BOOT_TIMEOUT)?;
    let told = tpm(&node)?;
    follows_from_the_log(&told)?;
    ensure!(
        digest(&told, "release")? == sha256(&Hash::of(&head).0),
        "{told}"
    );
    ensure!(
        digest(&told, "release key")? == sha256(&owner()?.public().0),
        "{told}"
    );
    ensure!(
        digest(&told, "ramdisk")? == sha256(&fs::read(&ramdisk)?),
        "{told}"
    );
    // That of the loader itself is the firmware's work.
    ensure!(register(&told, 4)? != hex(&[0; 32]), "{told}");
    Ok(())
}

/// Who the node is, by its own command line, and what it says of its key.
fn identity(node: &Node) -> Result<Value> {
    let url = format!("http://{}", node.address(8080));
    let mut skep = Command::new(Artifacts::new().cli());
    let said = output(skep.args(["identity", "--json", "--node", &url]))?;
    Ok(serde_json::from_str(&said)?)
}

/// Starts a machine with this TPM in it, and asks who it is.
fn who(swtpm: &mut Swtpm, machine: Machine) -> Result<(Node, Value)> {
    let mut node = swtpm.plug(machine, Interface::Crb)?.start()?;
    node.wait_http(8080, "/", BOOT_TIMEOUT)?;
    let told = identity(&node)?;
    println!("{told}");
    Ok((node, told))
}

/// Asks the same node as before, after it has restarted.
fn who_again(node: &mut Node) -> Result<Value> {
    let before = node.serial().len();
    node.api().restart()?;
    node.wait_serial_after(before, "node ID", BOOT_TIMEOUT)?;
    node.wait_http(8080, "/", BOOT_TIMEOUT)?;
    identity(node)
}

/// The owner's word makes the key of this boot the node's; who it is then.
fn keeps_another(swtpm: &mut Swtpm, other: &Path) -> Result<Value> {
    let (mut node, told) = who(swtpm, Machine::new("tpm-key-kept").ramdisk(other))?;
    let refused = node
        .api()
        .post_as(&stranger()?, "node/identity/keep", b"")?;
    ensure!(
        refused.status == 401,
        "a stranger decides: {}",
        refused.text()
    );
    let taken = node.api().post_as(&owner()?, "node/identity/keep", b"")?;
    ensure!(taken.status == 200, "{}", taken.text());
    let kept = who_again(&mut node)?;
    ensure!(
        kept["key"] == told["key"] && kept["kept"] == "image",
        "{kept}"
    );
    Ok(told)
}

#[test]
fn node_key_outlives_the_boot_but_not_the_image() -> Result<()> {
    let ramdisk = Ramdisk::new()?.write("tpm-key")?;
    let mut swtpm = Swtpm::new("tpm-key")?;
    let machine = || Machine::new("tpm-key").ramdisk(&ramdisk);
    let (mut node, first) = who(&mut swtpm, machine())?;
    ensure!(
        first["kept"] == "image" && first["problem"].is_null(),
        "{first}"
    );
    let again = who_again(&mut node)?;
    ensure!(
        again["key"] == first["key"],
        "another key after a restart: {again}"
    );
    node.shut_down(seconds(60))?;
    drop(node);
    let (node, powered) = who(&mut swtpm, machine())?;
    ensure!(
        powered["key"] == first["key"],
        "another key after power-off: {powered}"
    );
    drop(node);

    // Another image does not get it, and says what to do.
    let other = ramdisk_called("other-key")?;
    let (node, other_image) = who(&mut swtpm, Machine::new("tpm-key-other").ramdisk(&other))?;
    ensure!(
        other_image["key"] != first["key"] && other_image["kept"] == "boot",
        "{other_image}"
    );
    let problem = other_image["problem"].as_str().unwrap_or_default();
    ensure!(problem.contains("skep identity --keep"), "{other_image}");
    ensure!(node.serial().contains(problem), "the log does not say it");
    let deadline = Instant::now() + seconds(20);
    while !node
        .api()
        .get("events")?
        .to_string()
        .contains("skep identity --keep")
    {
        ensure!(Instant::now() < deadline, "no event says it");
        thread::sleep(seconds(1) / 10);
    }
    drop(node);
    let (node, back) = who(&mut swtpm, machine())?;
    ensure!(
        back["key"] == first["key"],
        "the first image has lost it: {back}"
    );
    drop(node);

    let told = keeps_another(&mut swtpm, &other)?;

    // A TPM that was cleared is another node's.
    swtpm.clear()?;
    let (_node, cleared) = who(&mut swtpm, machine())?;
    ensure!(cleared["kept"] == "image", "{cleared}");
    ensure!(
        cleared["key"] != first["key"] && cleared["key"] != told["key"],
        "{cleared}"
    );
    Ok(())
}

#[test]
fn node_key_without_a_tpm_is_of_one_boot() -> Result<()> {
    let ramdisk = Ramdisk::new()?.write("tpm-none-key")?;
    let mut node = Machine::new("tpm-none-key").ramdisk(&ramdisk).start()?;
    node.wait_http(8080, "/", seconds(60))?;
    let first = identity(&node)?;
    ensure!(
        first["kept"] == "boot" && first["problem"].is_null(),
        "{first}"
    );
    let again = who_again(&mut node)?;
    ensure!(again["key"] != first["key"], "the same key: {again}");
    let keep = node.api().post_as(&owner()?, "node/identity/keep", b"")?;
    ensure!(keep.status == 501, "it is kept by nothing: {}", keep.text());
    Ok(())
}

/// A release that the owner has signed opens the key, whatever is in it; the loader vouches
/// for the signature. Another owner's does not even start.
#[test]
fn node_key_outlives_a_signed_release() -> Result<()> {
    let folder = TempFolder::new()?;
    let ramdisk = Ramdisk::new()?.write("tpm-signed")?;
    let disk = BootDisk::new(&folder.path().join("disk"), &ramdisk)?;
    let mut swtpm = Swtpm::new("tpm-signed")?;
    let machine = Machine::new("tpm-signed")
        .firmware(Firmware::Uefi)
        .boot_disk(disk.path());
    let mut node = swtpm.plug(machine, Interface::Crb)?.start()?;
    node.wait_release(1, BOOT_TIMEOUT)?;
    let first = identity(&node)?;
    ensure!(first["kept"] == "owner", "{first}");
    let image = register(&tpm(&node)?, PCR_IMAGE)?;
    let release = folder.path().join("release-2");
    let terms = ["--version", "2", "--health-seconds", "20"];
    let artifacts = Artifacts::new();
    let newer = ramdisk_called("newer")?;
    artifacts.write_release(&artifacts.kernel(), &newer, &terms, &release)?;
    node.api().update(&release)?;
    let before = node.serial().len();
    node.api().restart()?;
    node.wait_serial_after(before, "release 2 runs from slot B", BOOT_TIMEOUT)?;
    node.wait_release(2, BOOT_TIMEOUT)?;
    ensure!(
        register(&tpm(&node)?, PCR_IMAGE)? != image,
        "the release does not show"
    );
    let second = identity(&node)?;
    ensure!(
        second["key"] == first["key"] && second["kept"] == "owner",
        "{second}"
    );
    Ok(())
}
