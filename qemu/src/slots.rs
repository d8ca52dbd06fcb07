//! Boot disks with slots, and releases for them, as seen from the host.

use crate::{Artifacts, Node, api::Api, http::Response, ramdisk::owner, seconds};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_api::{
    Hash,
    boot::{
        BootState, Release, Slot,
        disk::{ENTRIES_BYTES_MAX, Extent, Header, Slots},
        release::{HEAD_AT, HEAD_END, Piece},
        state::{COPY_STRIDE, STATE_BYTES, Status},
    },
};
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

const SECTOR: u64 = 512;
/// Bytes of a release that one request carries.
const PIECE_BYTES: usize = 512 << 10;

/// A disk image with slots, in a file.
pub struct BootDisk {
    path: PathBuf,
    slots: Slots,
}

impl BootDisk {
    /// Makes one, with this ramdisk in slot A as release 1.
    pub fn new(path: &Path, ramdisk: &Path) -> Result<Self> {
        Artifacts::new().write_disk(Some(ramdisk), path)?;
        Self::open(path)
    }

    /// One that is there.
    pub fn open(path: &Path) -> Result<Self> {
        let disk = File::open(path)?;
        let last = disk.metadata()?.len() / SECTOR - 1;
        let mut header = [0; SECTOR as usize];
        disk.read_exact_at(&mut header, SECTOR)?;
        let header = Header::parse(&header, last).context("no partition table")?;
        let mut entries = vec![0; ENTRIES_BYTES_MAX];
        disk.read_exact_at(&mut entries, header.entries_at * SECTOR)?;
        Ok(Self {
            path: path.to_path_buf(),
            slots: header.slots(&entries).context("no slots")?,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its boot state.
    pub fn state(&self) -> Result<BootState> {
        let state = self.slots.state.context("no boot state")?;
        let copies = [0, COPY_STRIDE].map(|at| self.read(state, at, STATE_BYTES));
        let [first, second] = copies;
        let (state, _) = BootState::load([&first?, &second?]).context("no state is whole")?;
        Ok(state)
    }

    /// What its state says of the active slot.
    pub fn active(&self) -> Result<Status> {
        let state = self.state()?;
        Ok(state.slot(state.active).status)
    }

    /// Writes a release into a slot and this state into both copies of it.
    pub fn put(&self, slot: Slot, release: &Path, state: &BootState) -> Result<()> {
        self.write(self.extent(slot)?, 0, &fs::read(release)?)?;
        let place = self.slots.state.context("no boot state")?;
        for at in [0, COPY_STRIDE] {
            self.write(place, at, &state.encode())?;
        }
        Ok(())
    }

    /// Changes one byte of a slot.
    pub fn damage(&self, slot: Slot, offset: u64) -> Result<()> {
        let extent = self.extent(slot)?;
        let byte = self.read(extent, offset, 1)?;
        self.write(extent, offset, &[byte[0] ^ 1])
    }

    /// Fills the slot that is not active, which must be empty, with what no release is: what
    /// is written there and lost is then missed, whatever was there before.
    pub fn scribble(&self) -> Result<()> {
        let state = self.state()?;
        let slot = state.active.other();
        ensure!(state.slot(slot).status == Status::Empty, "{state:?}");
        let extent = self.extent(slot)?;
        let bytes = usize::try_from(extent.blocks * SECTOR)?;
        self.write(extent, HEAD_END as u64, &vec![0xee; bytes - HEAD_END])
    }

    /// The signed head of the release in a slot, as it is.
    pub fn head(&self, slot: Slot) -> Result<Vec<u8>> {
        self.read(self.extent(slot)?, HEAD_AT as u64, HEAD_END - HEAD_AT)
    }

    /// The head of the release in a slot, if it is one of the owner's.
    pub fn release(&self, slot: Slot) -> Result<Release> {
        Ok(Release::verify(&self.head(slot)?, &owner()?.public())?)
    }

    /// What a loader would start now: the version. That release must be whole and so must
    /// every other that the state vouches for, one of which has been healthy.
    pub fn would_start(&self) -> Result<u64> {
        let state = self.state()?;
        let next = state.choose();
        let then = next.store.unwrap_or(state);
        let mut good = 0;
        for slot in Slot::BOTH {
            let status = then.slot(slot).status;
            if matches!(status, Status::Good | Status::Trying { .. }) {
                self.check(slot, then.slot(slot).version)
                    .with_context(|| format!("{state:?}"))?;
            }
            good += u32::from(status == Status::Good);
        }
        let started = then.slot(next.slot);
        ensure!(
            good > 0 && !matches!(started.status, Status::Empty | Status::Bad),
            "slot {} would be started: {state:?}",
            next.slot.name()
        );
        Ok(started.version)
    }

    /// Whether this release is in a slot, to its last byte.
    fn check(&self, slot: Slot, version: u64) -> Result<()> {
        let name = slot.name();
        let release = self.release(slot);
        let release = release.with_context(|| format!("slot {name} holds no release"))?;
        ensure!(
            release.version == version,
            "slot {name} holds release {} and not {version}",
            release.version
        );
        let mut bytes = self.read(self.extent(slot)?, 0, usize::try_from(release.len)?)?;
        bytes.drain(HEAD_AT..HEAD_END);
        ensure!(
            Hash::of(&bytes) == release.volume,
            "slot {name} is signed and not whole"
        );
        Ok(())
    }

    /// A file of the release in a slot.
    pub fn piece(&self, slot: Slot, piece: &Piece) -> Result<Vec<u8>> {
        let len = usize::try_from(piece.len)?;
        self.read(self.extent(slot)?, piece.offset, len)
    }

    fn extent(&self, slot: Slot) -> Result<Extent> {
        self.slots.slot(slot).context("no such slot")
    }

    fn read(&self, extent: Extent, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(&self.path)?.read_exact_at(&mut bytes, extent.start * SECTOR + at)?;
        Ok(bytes)
    }

    fn write(&self, extent: Extent, at: u64, bytes: &[u8]) -> Result<()> {
        ensure!(
            at + bytes.len() as u64 <= extent.blocks * SECTOR,
            "beyond the slot"
        );
        let disk = File::options().write(true).open(&self.path)?;
        Ok(disk.write_all_at(bytes, extent.start * SECTOR + at)?)
    }
}

impl Node {
    /// Waits until the node runs this release, and the kernel knows that it is healthy.
    pub fn wait_release(&mut self, version: u64, timeout: Duration) -> Result<Value> {
        let deadline = Instant::now() + timeout;
        loop {
            let found = self.api().get("node/slots");
            if let Ok(slots) = &found
                && slots["version"] == version
                && running(slots).is_some_and(|slot| slot["status"] == "good")
            {
                return found;
            }
            ensure!(
                Instant::now() < deadline && self.exit_status()?.is_none(),
                "release {version} does not run after {timeout:?}; last: {found:?}\n{}",
                self.serial()
                    .lines()
                    .rev()
                    .take(20)
                    .collect::<Vec<_>>()
                    .join("\n")
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The same release under another number.
pub fn renumber(release: &Path, version: u64) -> Result<()> {
    let mut bytes = fs::read(release)?;
    let head = bytes
        .get_mut(HEAD_AT..HEAD_END)
        .context("it is cut short")?;
    let mut release_of = Release::decode(head)?;
    release_of.version = version;
    head.copy_from_slice(&release_of.sign(&owner()?));
    Ok(fs::write(release, bytes)?)
}

/// Of a node's answer about its slots, the one that runs.
fn running(slots: &Value) -> Option<&Value> {
    let slots_of = slots["slots"].as_array()?;
    slots_of
        .iter()
        .find(|slot| slot["name"] == slots["running"])
}

impl Api {
    /// Sends a release to the node, up to the step that makes it the next to be tried.
    pub fn update(&self, release: &Path) -> Result<()> {
        self.update_begin(release)?;
        self.update_rest(release)
    }

    /// The first step: afterwards the slot is empty.
    pub fn update_begin(&self, release: &Path) -> Result<()> {
        let bytes = fs::read(release)?;
        self.update_done("begin", &bytes[HEAD_AT..HEAD_END])
            .map(drop)
    }

    /// All other steps.
    pub fn update_rest(&self, release: &Path) -> Result<()> {
        let bytes = fs::read(release)?;
        for (index, piece) in bytes.chunks(PIECE_BYTES).enumerate() {
            self.update_done(&format!("write?offset={}", index * PIECE_BYTES), piece)?;
        }
        loop {
            let answer = self.update_done("check", b"")?;
            if answer["update"]["checked"] == answer["update"]["total"] {
                break;
            }
        }
        self.update_done("finish", b"").map(drop)
    }

    fn update_done(&self, step: &str, body: &[u8]) -> Result<Value> {
        let answer = self.update_step(step, body)?;
        ensure!(answer.status == 200, "{step}: {}", answer.text());
        answer.json()
    }

    /// One step of an update; a refusal is an answer.
    pub fn update_step(&self, step: &str, body: &[u8]) -> Result<Response> {
        self.post_as(&owner()?, &format!("node/update/{step}"), body)
    }

    /// Why the node refuses to begin with this release.
    pub fn update_refusal(&self, release: &Path) -> Result<String> {
        let bytes = fs::read(release)?;
        let answer = self.update_step("begin", &bytes[HEAD_AT..HEAD_END])?;
        ensure!(answer.status == 409, "{} {}", answer.status, answer.text());
        let text = answer.json()?["reason"].as_str().map(str::to_string);
        text.context("a refusal without a reason")
    }

    /// Restarts the node, as its owner.
    pub fn restart(&self) -> Result<()> {
        self.command("node/reboot", &Value::Null)
    }
}

/// How long a boot by firmware may take on a busy host.
pub const BOOT_TIMEOUT: Duration = seconds(300);
