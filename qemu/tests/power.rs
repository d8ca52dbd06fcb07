//! Power cuts that lose what the disk had not been told to flush: in updates, and under a
//! program that was told what is durable. `SKEP_SEED` repeats a run's choices.

use anyhow::{Context as _, Result, ensure};
use skep_api::boot::state::Status;
use skep_qemu::{
    Artifacts, Bus, Firmware, Machine, Node, VolatileDisk,
    api::Api,
    dice::Dice,
    disks::{BLOCK, disk_image, scripted, tools},
    long,
    node::TempFolder,
    ramdisk::Ramdisk,
    seconds,
    slots::{BOOT_TIMEOUT, BootDisk, renumber},
    volatile::{Asked, Loss},
};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Outcomes of one cut that are judged, in which so many eighths of what was not flushed
/// have reached the disk: nothing first, for that is what a promise must bear.
const OUTCOMES: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
/// Requests of the first step of an update that change the disk: state and head, and a
/// flush after each. The last step has as many, the other way round.
const STEP: u64 = 4;
/// What the kernel of a new release says.
const TRIAL: &str = "this release is new";

/// Where the power goes.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// While the slot is declared empty.
    Beginning,
    /// Anywhere in the update.
    Writing,
    /// While head and state are written.
    Finishing,
    /// When the node has just said that the update is complete.
    Complete,
    /// With any request of the disk in the restart, most of which are the loader's.
    Loader,
    /// At any time from the new kernel's start until it is healthy.
    Trial,
    /// When the node has just said that the new release is good.
    Good,
}

/// A disk whose node is updated and loses its power, again and again.
struct Chain {
    folder: TempFolder,
    firmware: Firmware,
    disk: VolatileDisk,
    image: BootDisk,
    dice: Dice,
    round: usize,
    /// The newest release so far.
    newest: u64,
    /// What the disk is asked in a whole update, requests of it in a start, and the time
    /// that a new release takes to be good: as last seen.
    changes: Asked,
    requests: u64,
    healthy_after: Duration,
    lost: u64,
}

impl Chain {
    /// Release 1 with the 3Bot alone in slot A.
    fn new(firmware: Firmware) -> Result<Self> {
        let folder = TempFolder::new()?;
        let ramdisk = Ramdisk::new()?.write(&name(firmware))?;
        let path = folder.path().join("disk");
        let image = BootDisk::new(&path, &ramdisk)?;
        let terms = ["--version", "1", "--health-seconds", "60"];
        let release = folder.path().join("release");
        let artifacts = Artifacts::new();
        artifacts.write_release(&artifacts.kernel(), &ramdisk, &terms, &release)?;
        Ok(Self {
            disk: VolatileDisk::new(&path)?,
            folder,
            firmware,
            image,
            dice: Dice::new(),
            round: 0,
            newest: 1,
            changes: Asked::default(),
            requests: 0,
            healthy_after: seconds(5),
            lost: 0,
        })
    }

    /// Starts the node, which must come up with this release.
    fn start(&mut self, version: u64) -> Result<Node> {
        let bus = [Bus::Virtio, Bus::Nvme, Bus::Ahci][self.round % 3];
        let mut node = Machine::new(&name(self.firmware))
            .firmware(self.firmware)
            .boot_bus(bus)
            .boot_volatile(&self.disk)
            .start()?;
        node.wait_release(version, BOOT_TIMEOUT)?;
        Ok(node)
    }

    /// A start, what leads to this cut, the cut, and what is on the disk then.
    fn cut(&mut self, cut: Cut) -> Result<()> {
        let running = self.image.would_start()?;
        let mut node = self.start(running)?;
        self.requests = self.disk.asked().all();
        self.newest += 1;
        let new = self.newest;
        let is_promised = match cut {
            Cut::Beginning => self.cut_update(&mut node, Asked::changes, 1, STEP)?,
            Cut::Writing => {
                self.cut_update(&mut node, Asked::changes, 1, self.changes.changes())?
            }
            // What it writes may then be lost, or not.
            Cut::Finishing => {
                let flushes = self.changes.flushes;
                self.cut_update(&mut node, |asked| asked.flushes, flushes - 1, flushes)?
            }
            Cut::Complete | Cut::Loader | Cut::Trial | Cut::Good => {
                self.update(&mut node)?;
                self.restart(&mut node, cut)?
            }
        };
        self.disk.cut();
        node.kill();
        // The node is started from the last one.
        let last = self.dice.below(8);
        for stays in OUTCOMES.into_iter().chain([last]) {
            let Loss { unflushed, lost } = self.disk.settle(&mut self.dice, stays)?;
            self.lost += lost;
            let found = self.image.would_start()?;
            println!(
                "{:?} {cut:?}: {running} -> {new}, {lost} of {unflushed} sectors lost: {found}",
                self.firmware
            );
            ensure!(found == new || found == running, "release {found}");
            ensure!(found == new || !is_promised, "a release was lost");
            // The kernel says that it is new when it has the try on the disk.
            let has_tries = matches!(
                self.image.active()?,
                Status::Trying { tries_left } if tries_left > 0
            );
            ensure!(!has_tries || !matches!(cut, Cut::Trial), "a try was lost");
        }
        self.round += 1;
        self.disk.restore()
    }

    /// The newest release.
    fn release(&self) -> Result<PathBuf> {
        let release = self.folder.path().join("release");
        renumber(&release, self.newest)?;
        Ok(release)
    }

    /// Sends a release. Releases are alike but for their numbers: had the slot still the
    /// bytes of another one, nobody would miss what is lost.
    fn send(&self, api: Api, release: &Path) -> Result<()> {
        api.update_begin(release)?;
        self.image.scribble()?;
        api.update_rest(release)
    }

    /// A whole update.
    fn update(&mut self, node: &mut Node) -> Result<()> {
        let before = self.disk.asked();
        self.send(node.api(), &self.release()?)?;
        self.changes = self.disk.asked().since(&before);
        Ok(())
    }

    /// An update that ends with one of these requests of the disk, of those that `of`
    /// counts; whether the node has said before that it is complete. By another bus
    /// than last time it may take fewer writes.
    fn cut_update(
        &mut self,
        node: &mut Node,
        of: fn(&Asked) -> u64,
        first: u64,
        last: u64,
    ) -> Result<bool> {
        let count = first + self.dice.below(last - first + 1);
        let (chain, api, release) = (&*self, node.api(), self.release()?);
        self.disk.cut_at(of, count);
        thread::scope(|scope| {
            let update = scope.spawn(|| chain.send(api, &release));
            while !update.is_finished() && !chain.disk.wait_cut(Duration::from_millis(50)) {}
            let was_cut = chain.disk.wait_cut(seconds(0));
            node.kill();
            let told = update.join().expect("it does not panic");
            ensure!(was_cut || told.is_ok(), "not cut, and {told:?}");
            Ok(told.is_ok())
        })
    }

    /// The owner's restart, as far as this cut; whether the new release may not be lost.
    fn restart(&mut self, node: &mut Node, cut: Cut) -> Result<bool> {
        if matches!(cut, Cut::Complete) {
            return Ok(true);
        }
        let before = node.serial().len();
        if matches!(cut, Cut::Loader) {
            let count = 1 + self.dice.below(self.requests);
            self.disk.cut_at(Asked::all, count);
            node.api().restart()?;
            // By another bus it may be started in fewer requests.
            let is_up = || {
                node.serial()
                    .get(before..)
                    .is_some_and(|s| s.contains(TRIAL))
            };
            let deadline = Instant::now() + BOOT_TIMEOUT;
            while !self.disk.wait_cut(Duration::from_millis(50)) {
                ensure!(
                    Instant::now() < deadline,
                    "neither request {count} nor a kernel"
                );
                if is_up() {
                    self.disk.cut();
                }
            }
            return Ok(false);
        }
        node.api().restart()?;
        node.wait_serial_after(before, TRIAL, BOOT_TIMEOUT)?;
        let began = Instant::now();
        if matches!(cut, Cut::Good) {
            node.wait_release(self.newest, BOOT_TIMEOUT)?;
            self.healthy_after = began.elapsed();
            return Ok(true);
        }
        thread::sleep(self.dice.time(self.healthy_after));
        Ok(false)
    }
}

fn name(firmware: Firmware) -> String {
    format!("power-{firmware:?}").to_lowercase()
}

/// Cuts the power in updates, first in these ways: the first tells how long things take.
fn updates(firmware: Firmware, first: &[Cut]) -> Result<()> {
    use Cut::{Beginning, Complete, Finishing, Good, Loader, Trial, Writing};
    let all = [
        Beginning, Writing, Finishing, Complete, Loader, Trial, Trial, Good,
    ];
    let rounds = if long() { 150 } else { first.len() };
    let mut chain = Chain::new(firmware)?;
    for round in 0..rounds {
        let any = all[chain.dice.below(all.len() as u64) as usize];
        let cut = *first.get(round).unwrap_or(&any);
        chain
            .cut(cut)
            .with_context(|| format!("round {round}, {cut:?}"))?;
    }
    let last = chain.image.would_start()?;
    chain.start(last)?;
    ensure!(chain.lost > 0, "no cut has lost anything");
    Ok(())
}

#[test]
fn updates_under_bios() -> Result<()> {
    updates(Firmware::Bios, &[Cut::Complete, Cut::Writing, Cut::Trial])
}

#[test]
fn updates_under_uefi() -> Result<()> {
    updates(
        Firmware::Uefi,
        &[Cut::Complete, Cut::Finishing, Cut::Loader],
    )
}

/// A block of `disk log`.
fn block(number: u64) -> Vec<u8> {
    let words =
        (0..BLOCK as u64 / 8).map(|at| (number << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at);
    words.flat_map(u64::to_le_bytes).collect()
}

/// Cuts the power under a program that writes and flushes: what it was told to be durable
/// is on the disk.
fn a_disk_keeps_what_was_flushed(bus: Bus, device: &str) -> Result<()> {
    let name = format!("power-{bus:?}").to_lowercase();
    let script = "exec disk log /dev/$1 600";
    let tools = tools()?;
    let capsule = scripted("log", &tools, script, &[device], &[device]);
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&capsule, &tools)?;
    let ramdisk = ramdisk.write(&name)?;
    let mut dice = Dice::new();
    let mut lost = 0;
    for _ in 0..if long() { 30 } else { 3 } {
        let folder = TempFolder::new()?;
        let disk = VolatileDisk::new(&disk_image(&folder, "a")?)?;
        let mut node = Machine::new(&name)
            .cpus(2)
            .ramdisk(&ramdisk)
            .volatile_disk(bus, "d0", &disk)
            .start()?;
        node.wait_http(8080, "/", seconds(60))?;
        disk.cut_at(Asked::changes, 50 + dice.below(500));
        let mut durable = 0;
        let deadline = Instant::now() + seconds(90);
        while !disk.wait_cut(Duration::from_millis(20)) {
            durable = told_durable(&node)?.max(durable);
            ensure!(Instant::now() < deadline, "only {durable} blocks");
        }
        // What was flushed just before may have been told since.
        durable = told_durable(&node)?.max(durable);
        let asked = disk.asked();
        node.kill();
        println!("{durable} blocks were durable; {asked:?}");
        ensure!(durable > 0, "nothing was told to be durable");
        for stays in OUTCOMES {
            lost += disk.settle(&mut dice, stays)?.lost;
            ensure_kept(disk.image(), durable)?;
        }
    }
    ensure!(lost > 0, "no cut has lost anything");
    Ok(())
}

/// How many blocks the program says are durable.
fn told_durable(node: &Node) -> Result<u64> {
    let log = node.api().log("log")?;
    let last = log.lines().rev().find_map(|l| l.strip_prefix("durable "));
    Ok(last.map_or(Ok(0), str::parse)?)
}

fn ensure_kept(image: &Path, blocks: u64) -> Result<()> {
    let mut image = File::open(image)?;
    let mut found = vec![0; BLOCK];
    for number in 0..blocks {
        image.read_exact(&mut found)?;
        ensure!(found == block(number), "block {number} of {blocks} is lost");
    }
    Ok(())
}

#[test]
fn a_virtio_disk_keeps_what_was_flushed() -> Result<()> {
    a_disk_keeps_what_was_flushed(Bus::Virtio, "vda")
}

#[test]
fn an_nvme_disk_keeps_what_was_flushed() -> Result<()> {
    a_disk_keeps_what_was_flushed(Bus::Nvme, "nvme0n1")
}

#[test]
fn a_sata_disk_keeps_what_was_flushed() -> Result<()> {
    a_disk_keeps_what_was_flushed(Bus::Ahci, "sda")
}
