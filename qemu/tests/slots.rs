//! Releases in two slots: signatures, and updates that fail in every way but by power cuts,
//! which are in `power.rs`.

use anyhow::{Result, ensure};
use skep_api::{
    boot::{
        BootState, Release, Slot,
        release::{HEAD_AT, HEAD_END},
        state::{SlotState, Status},
    },
    manifest::Manifest,
};
use skep_qemu::{
    Artifacts, Firmware, Machine,
    node::TempFolder,
    ramdisk::{Image, Ramdisk, manifest, stranger},
    slots::{BOOT_TIMEOUT, BootDisk},
};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// A disk of the test's own, and what it is updated with.
struct Workplace {
    folder: TempFolder,
    disk: BootDisk,
    ramdisk: PathBuf,
}

impl Workplace {
    /// Release 1 with the 3Bot alone in slot A.
    fn new(name: &str) -> Result<Self> {
        let folder = TempFolder::new()?;
        let ramdisk = Ramdisk::new()?.write(name)?;
        let disk = BootDisk::new(&folder.path().join("disk"), &ramdisk)?;
        Ok(Self {
            folder,
            disk,
            ramdisk,
        })
    }

    fn machine(&self, name: &str) -> Machine {
        self.machine_with(Firmware::Uefi, name)
    }

    fn machine_with(&self, firmware: Firmware, name: &str) -> Machine {
        Machine::new(name)
            .firmware(firmware)
            .boot_disk(self.disk.path())
    }

    /// A release that works.
    fn release(&self, version: u64) -> Result<PathBuf> {
        self.release_of(version, &Artifacts::new().kernel(), &self.ramdisk)
    }

    fn release_of(&self, version: u64, kernel: &Path, ramdisk: &Path) -> Result<PathBuf> {
        let out = self.folder.path().join(format!("release-{version}"));
        let version = version.to_string();
        let terms = ["--version", &version, "--health-seconds", "20"];
        Artifacts::new().write_release(kernel, ramdisk, &terms, &out)?;
        Ok(out)
    }
}

/// A state with these two slots, of releases 1 and 2.
fn state(active: Slot, a: Status, b: Status) -> BootState {
    let slot = |status, version| SlotState { status, version };
    BootState {
        generation: 5,
        active,
        slots: [slot(a, 1), slot(b, 2)],
    }
}

#[test]
fn an_update_is_tried_kept_and_not_taken_back() -> Result<()> {
    let place = Workplace::new("slots-update")?;
    let mut node = place.machine("slots-update").start()?;
    node.wait_release(1, BOOT_TIMEOUT)?;
    println!("release 1 runs after {:.3} s", node.uptime().as_secs_f64());
    let release = place.release(2)?;
    let began = Instant::now();
    node.api().update(&release)?;
    println!(
        "{} bytes sent and checked in {:.3} s",
        fs::metadata(&release)?.len(),
        began.elapsed().as_secs_f64()
    );
    // The owner's word is what restarts it.
    ensure!(
        node.api().get("node/slots")?["running"] == "A",
        "it runs already"
    );
    let serial = node.serial().len();
    node.api().restart()?;
    node.wait_serial_after(serial, "release 2 runs from slot B", BOOT_TIMEOUT)?;
    let slots = node.wait_release(2, BOOT_TIMEOUT)?;
    ensure!(slots["running"] == "B", "{slots}");
    // Neither the same nor an older one is taken any more.
    let refusal = node.api().update_refusal(&release)?;
    ensure!(refusal.contains("not newer"), "{refusal}");
    let older = place.release(1)?;
    let refusal = node.api().update_refusal(&older)?;
    ensure!(refusal.contains("not newer than release 2"), "{refusal}");
    node.kill();
    let mut again = place.machine("slots-update-again").start()?;
    again.wait_release(2, BOOT_TIMEOUT)?;
    Ok(())
}

#[test]
fn a_release_that_is_not_whole_or_not_ours_leaves_the_start_to_the_other() -> Result<()> {
    is_left_to_the_other(Firmware::Uefi, "slots-damaged")
}

#[test]
fn under_bios_a_release_that_is_not_whole_or_not_ours_leaves_the_start_to_the_other() -> Result<()>
{
    is_left_to_the_other(Firmware::Bios, "slots-damaged-bios")
}

/// Damages slot A in several ways, then has somebody else's release in it.
fn is_left_to_the_other(firmware: Firmware, name: &str) -> Result<()> {
    let place = Workplace::new(name)?;
    let machine = |what: &str| place.machine_with(firmware, &format!("{name}-{what}"));
    let good = place.release(2)?;
    let both_good = state(Slot::A, Status::Good, Status::Good);
    place.disk.put(Slot::B, &good, &both_good)?;
    let first = place.disk.release(Slot::A)?;
    for (what, offset, sentence) in [
        (
            "ramdisk",
            first.ramdisk.offset + first.ramdisk.len / 2,
            "its ramdisk is not the one that was signed",
        ),
        (
            "kernel",
            first.kernel.offset + 99,
            "its kernel is not the one that was signed",
        ),
        ("signature", HEAD_AT as u64 + 20, "its signature is wrong"),
    ] {
        place.disk.damage(Slot::A, offset)?;
        let mut node = machine(what).start()?;
        let said = node.wait_serial("release 2 runs from slot B", BOOT_TIMEOUT)?;
        ensure!(
            said.contains(&format!("slot A is not started: {sentence}")),
            "it does not say why: {said}"
        );
        node.kill();
        ensure!(
            place.disk.state()?.slot(Slot::A).status == Status::Bad,
            "not marked"
        );
        place.disk.put(Slot::B, &good, &both_good)?;
    }
    // A release of somebody else's, whole and signed.
    let bytes = fs::read(&good)?;
    let release = Release::decode(&bytes[HEAD_AT..HEAD_END])?;
    let mut foreign = bytes;
    foreign[HEAD_AT..HEAD_END].copy_from_slice(&release.sign(&stranger()?));
    let path = place.folder.path().join("foreign");
    fs::write(&path, foreign)?;
    place.disk.put(Slot::A, &path, &both_good)?;
    let mut node = machine("foreign").start()?;
    let said = node.wait_serial("release 2 runs from slot B", BOOT_TIMEOUT)?;
    ensure!(said.contains("signed by another key"), "{said}");
    node.kill();
    // With nothing left to start the screen says so.
    place.disk.damage(Slot::B, first.kernel.offset + 5)?;
    let mut node = machine("nothing").start()?;
    node.wait_serial("no slot holds a release that can be started", BOOT_TIMEOUT)?;
    Ok(())
}

/// Updates to a release that is no good, and expects release 1 back without a hand.
fn comes_back(
    firmware: Firmware,
    name: &str,
    spoil: impl FnOnce(&Workplace) -> Result<PathBuf>,
    said: &str,
) -> Result<()> {
    let place = Workplace::new(name)?;
    let release = spoil(&place)?;
    let mut node = place.machine_with(firmware, name).start()?;
    node.wait_release(1, BOOT_TIMEOUT)?;
    node.api().update(&release)?;
    let before = node.serial().len();
    node.api().restart()?;
    node.wait_serial_after(before, said, BOOT_TIMEOUT)?;
    node.wait_serial_after(before, "release 1 runs from slot A", BOOT_TIMEOUT)?;
    let slots = node.wait_release(1, BOOT_TIMEOUT)?;
    ensure!(slots["slots"][1]["status"] == "bad", "{slots}");
    // And it is ready for a better one.
    node.api().update(&place.release(3)?)?;
    node.api().restart()?;
    node.wait_release(3, BOOT_TIMEOUT)?;
    Ok(())
}

#[test]
fn a_release_that_does_not_boot_goes_back() -> Result<()> {
    does_not_boot(Firmware::Uefi, "slots-no-boot")
}

#[test]
fn under_bios_a_release_that_does_not_boot_goes_back() -> Result<()> {
    does_not_boot(Firmware::Bios, "slots-no-boot-bios")
}

/// Updates to a release whose kernel is none.
fn does_not_boot(firmware: Firmware, name: &str) -> Result<()> {
    let spoil = |place: &Workplace| {
        let kernel = place.folder.path().join("no-kernel");
        fs::write(&kernel, vec![0x7f; 100_000])?;
        place.release_of(2, &kernel, &place.ramdisk)
    };
    comes_back(firmware, name, spoil, "cannot start the kernel")
}

#[test]
#[ignore = "long"]
fn a_release_without_its_ramdisk_goes_back() -> Result<()> {
    let spoil = |place: &Workplace| {
        let ramdisk = place.folder.path().join("no-ramdisk");
        fs::write(&ramdisk, b"this is no bundle")?;
        place.release_of(2, &Artifacts::new().kernel(), &ramdisk)
    };
    comes_back(Firmware::Uefi, "slots-no-ramdisk", spoil, "going back")
}

#[test]
#[ignore = "long"]
fn a_release_that_does_not_become_healthy_goes_back() -> Result<()> {
    let spoil = |place: &Workplace| {
        // A capsule that ends as soon as it is started, again and again.
        let image = Image::program("hog")?;
        let ends: Manifest = manifest("ends", &image, &["/bin/hog", "exit", "3"]);
        let mut ramdisk = Ramdisk::new()?;
        ramdisk.capsule(&ends, &image)?;
        let path = ramdisk.write("slots-unhealthy-2")?;
        place.release_of(2, &Artifacts::new().kernel(), &path)
    };
    comes_back(
        Firmware::Uefi,
        "slots-unhealthy",
        spoil,
        "did not become healthy",
    )
}

/// Under BIOS the loader goes by the same state: it starts slot B, takes its try, and
/// without any left comes back to slot A.
#[test]
fn under_bios_tries_are_counted_and_the_other_slot_comes_back() -> Result<()> {
    let place = Workplace::new("slots-bios")?;
    let trying = |tries_left| Status::Trying { tries_left };
    let release = place.release(2)?;
    place
        .disk
        .put(Slot::B, &release, &state(Slot::B, Status::Good, trying(1)))?;
    let machine = |name: &str| place.machine_with(Firmware::Bios, name);
    let mut node = machine("slots-bios-try").start()?;
    node.wait_serial("release 2 runs from slot B", BOOT_TIMEOUT)?;
    ensure!(
        place.disk.state()?.slot(Slot::B).status == trying(0),
        "the try is not taken: {:?}",
        place.disk.state()?
    );
    node.kill();
    let mut node = machine("slots-bios-back").start()?;
    node.wait_release(1, BOOT_TIMEOUT)?;
    let found = place.disk.state()?;
    ensure!(
        (found.active, found.slot(Slot::B).status) == (Slot::A, Status::Bad),
        "{found:?}"
    );
    Ok(())
}

/// Machines without a screen that is memory start as well.
#[test]
#[ignore = "long"]
fn without_a_screen_and_with_one_that_only_copies() -> Result<()> {
    for (name, screen) in [("none", None), ("blit", Some("virtio-gpu-pci"))] {
        let mut node = Machine::new(&format!("slots-screen-{name}"))
            .firmware(Firmware::Uefi)
            .screen(screen)
            .start()?;
        node.wait_http(8081, "/", BOOT_TIMEOUT)?;
    }
    Ok(())
}
