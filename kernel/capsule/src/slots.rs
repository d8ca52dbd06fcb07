//! The slots of the disk that the node was started from: which release runs, whether it
//! has been healthy, and the next one on its way in.
//!
//! The 3Bot has no access to the disk. It hands over a release piece by piece, and the
//! kernel alone decides where the bytes go and whether the slot is ever started
//! ([`update`]). What keeps the disk bootable at every moment is told in
//! `skep_api::boot::state`.

mod bytes;
mod install;
mod update;

use crate::disks::Disks;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use install::Install;
use machine::block::{BlockDevice, BlockError};
use machine::sync::Mutex;
use skep_api::boot::disk::{ENTRIES_BYTES_MAX, Extent, Header};
use skep_api::boot::handover::BootSlot;
use skep_api::boot::release::{HEAD_AT, HEAD_BYTES, HEAD_END, HEALTH_SECONDS_DEFAULT};
use skep_api::boot::state::{COPY_STRIDE, STATE_BYTES, Status};
use skep_api::boot::{BootState, Release, Slot};
use skep_api::control::{ControlError, SlotInfo, SlotStatus, SlotsInfo, UpdateRefusal};
use update::Update;

/// Who holds the disk with the slots, for a capsule that asks for it.
const HOLDER: &str = "the node itself";

/// What a node was started from.
#[derive(Clone, Copy, Debug)]
pub enum Started {
    /// A loader that says nothing of slots: a hypervisor.
    Untold,
    /// The network: whatever is on this machine's disks does not run.
    Network,
    /// A slot, by a loader that says which.
    Slot(BootSlot),
}

/// The slots, once their disk is found.
pub(crate) struct Slots {
    inner: Mutex<Inner>,
}

struct Inner {
    /// What the node was started from.
    started: Started,
    disk: Option<SlotDisk>,
    update: Option<Update>,
    install: Option<Install>,
}

/// A disk with slots.
struct SlotDisk {
    bytes: Bytes,
    guid: [u8; 16],
    /// The table's header and entries, as they are on the disk.
    table: (Vec<u8>, Vec<u8>),
    state_at: Extent,
    slots: [Extent; 2],
    /// What runs.
    running: BootSlot,
}

type Done<T> = Result<T, UpdateRefusal>;

impl Slots {
    /// Of a node that was started from `started`.
    pub(crate) fn new(started: Started) -> Slots {
        Slots {
            inner: Mutex::new(Inner {
                started,
                disk: None,
                update: None,
                install: None,
            }),
        }
    }

    /// Seconds from the start within which the running release must be healthy; `None`
    /// for one that has been, or on a node without slots.
    pub(crate) fn trial_seconds(&self, disks: &Disks) -> Option<u32> {
        // Without its disk, which may yet come, the loader's word counts.
        match self.inner.lock().started {
            Started::Slot(slot) => return slot.is_trial.then_some(slot.health_seconds),
            Started::Network => return None,
            Started::Untold => {}
        }
        self.with(disks, |inner| {
            let disk = inner.disk()?;
            let (state, _) = disk.state()?;
            let is_trial = matches!(state.slot(state.active).status, Status::Trying { .. });
            Ok(is_trial.then_some(disk.running.health_seconds))
        })
        .ok()
        .flatten()
    }

    /// What is in the slots.
    ///
    /// # Errors
    /// [`ControlError::Unsupported`]: the node was not started from a slot.
    pub(crate) fn info(&self, disks: &Disks) -> Result<SlotsInfo, ControlError> {
        self.with(disks, |inner| {
            let update = inner.update.as_ref().map(|update| update.progress());
            let disk = inner.disk()?;
            let (state, _) = disk.state()?;
            let slots = state.slots.map(|slot| SlotInfo {
                status: match slot.status {
                    Status::Empty => SlotStatus::Empty,
                    Status::Trying { tries_left } => SlotStatus::Trying { tries_left },
                    Status::Good => SlotStatus::Good,
                    Status::Bad => SlotStatus::Bad,
                },
                version: slot.version,
            });
            Ok(SlotsInfo {
                running: disk.running.slot.index() as u8,
                version: disk.running.version,
                release_key: disk.running.key.0,
                slots,
                update,
            })
        })
    }

    /// The running release is healthy: it stays. Whether that is news.
    ///
    /// # Errors
    /// As [`Slots::info`], and [`ControlError::Update`] when it cannot be recorded.
    pub(crate) fn confirm(&self, disks: &Disks) -> Result<bool, ControlError> {
        self.with(disks, |inner| {
            let disk = inner.disk()?;
            let (state, _) = disk.state()?;
            // After an update the active slot is the next one to be tried.
            match state.confirm() {
                Some(good) if state.active == disk.running.slot => disk.store(good).map(|()| true),
                // It says so already, if only in the disk's cache: an earlier flush may have failed.
                _ => disk.bytes.flush().map_err(disk_error).map(|()| false),
            }
        })
    }

    /// Begins to take in the release with this head.
    ///
    /// # Errors
    /// As [`Slots::info`], and [`ControlError::Update`] with the reason.
    #[inline(never)]
    pub(crate) fn begin_update(&self, disks: &Disks, head: &[u8]) -> Result<(), ControlError> {
        self.with(disks, |inner| {
            inner.update = None;
            let update = Update::begin(inner.disk()?, head)?;
            inner.update = Some(update);
            Ok(())
        })
    }

    /// Takes the next bytes of the release.
    ///
    /// # Errors
    /// As [`Slots::begin_update`]; then the update is over.
    pub(crate) fn write_update(
        &self,
        disks: &Disks,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), ControlError> {
        self.step(disks, |disk, update| update.write(disk, offset, bytes))
    }

    /// Reads a part of it back; bytes checked and all.
    ///
    /// # Errors
    /// As [`Slots::write_update`].
    #[inline(never)]
    pub(crate) fn check_update(&self, disks: &Disks) -> Result<(u64, u64), ControlError> {
        self.step(disks, |disk, update| update.check(disk))
    }

    /// Has the next start of the node try it.
    ///
    /// # Errors
    /// As [`Slots::write_update`].
    #[inline(never)]
    pub(crate) fn finish_update(&self, disks: &Disks) -> Result<(), ControlError> {
        self.with(disks, |inner| {
            let update = inner.update.take().ok_or(UpdateRefusal::NotBegun)?;
            update.finish(inner.disk()?)
        })
    }

    /// Begins to make the disk of this name one that the node starts from.
    ///
    /// # Errors
    /// As [`Slots::begin_update`].
    #[inline(never)]
    pub(crate) fn begin_install(&self, disks: &Disks, name: &str) -> Result<(), ControlError> {
        self.with(disks, |inner| {
            inner.install = None;
            let install = Install::begin(inner.disk()?, disks, name)?;
            inner.install = Some(install);
            Ok(())
        })
    }

    /// Copies the next part; bytes done and all.
    ///
    /// # Errors
    /// As [`Slots::begin_update`]; then the installation is over.
    #[inline(never)]
    pub(crate) fn step_install(&self, disks: &Disks) -> Result<(u64, u64), ControlError> {
        self.with(disks, |inner| {
            let mut install = inner.install.take().ok_or(UpdateRefusal::NotBegun)?;
            let (done, total) = install.step(inner.disk()?)?;
            if done < total {
                inner.install = Some(install);
            }
            Ok((done, total))
        })
    }

    fn step<T>(
        &self,
        disks: &Disks,
        step: impl FnOnce(&mut SlotDisk, &mut Update) -> Done<T>,
    ) -> Result<T, ControlError> {
        self.with(disks, |inner| {
            let mut update = inner.update.take().ok_or(UpdateRefusal::NotBegun)?;
            let done = step(inner.disk()?, &mut update)?;
            inner.update = Some(update);
            Ok(done)
        })
    }

    fn with<T>(
        &self,
        disks: &Disks,
        work: impl FnOnce(&mut Inner) -> Done<T>,
    ) -> Result<T, ControlError> {
        let mut inner = self.inner.lock();
        inner.find(disks);
        if inner.disk.is_none() {
            return Err(ControlError::Unsupported);
        }
        work(&mut inner).map_err(|refusal| {
            log::warn!("slots: {refusal}");
            if matches!(refusal, UpdateRefusal::Disk(_)) {
                // It may have gone and come back as another device.
                (inner.disk, inner.update, inner.install) = (None, None, None);
            }
            ControlError::Update(refusal)
        })
    }
}

impl Inner {
    /// Looks for the disk, unless it is known. A loader that said nothing
    /// leaves the first disk with slots, whose active slot is then what runs. What a capsule
    /// holds is not looked at: the capsule may have written anything there, and who asks here
    /// would wait for a disk that does not answer.
    fn find(&mut self, disks: &Disks) {
        if self.disk.is_some() {
            return;
        }
        let told = match self.started {
            Started::Network => return,
            Started::Untold => None,
            Started::Slot(slot) => Some(slot),
        };
        for (id, device) in disks.open_to(HOLDER) {
            let Some(mut disk) = SlotDisk::open(&device) else {
                continue;
            };
            let found = match told {
                Some(slot) if slot.disk == disk.guid => disk.set_running(slot),
                Some(_) => continue,
                None => disk.find_running(),
            };
            // A capsule may have been given it while it was read.
            if found.is_some() && disks.reserve(&id, HOLDER) {
                disk.keep_what_the_loader_wrote();
                log::info!(
                    "release {} runs from slot {} of {}",
                    disk.running.version,
                    disk.running.slot.name(),
                    id.name()
                );
                self.disk = Some(disk);
                return;
            }
        }
    }

    fn disk(&mut self) -> Done<&mut SlotDisk> {
        self.disk.as_mut().ok_or(UpdateRefusal::NotBegun)
    }
}

impl SlotDisk {
    /// Reads the partition table; `None` if there is none, or without slots.
    fn open(device: &Arc<dyn BlockDevice>) -> Option<SlotDisk> {
        let block = device.block_len();
        let last_block = (device.sectors() / bytes::sectors(block)).checked_sub(1)?;
        let mut bytes = Bytes::new(device.clone())?;
        let mut header_block = bytes::zeroed(block)?;
        let mut entries = bytes::zeroed(ENTRIES_BYTES_MAX)?;
        for at in [1, last_block] {
            bytes.read_blocks(at, &mut header_block).ok()?;
            let Some(header) = Header::parse(&header_block, last_block) else {
                continue;
            };
            let read = entries.get_mut(..header.entries_bytes.next_multiple_of(block))?;
            bytes.read_blocks(header.entries_at, read).ok()?;
            let Some(found) = header.slots(&entries) else {
                continue;
            };
            let [a, b] = found.slots;
            return Some(SlotDisk {
                bytes,
                guid: header.disk,
                table: (header_block, entries),
                state_at: found.state?,
                slots: [a?, b?],
                running: unknown(header.disk),
            });
        }
        None
    }

    /// Makes durable that this start has taken a try. A loader's word may still be in the
    /// disk's cache: BIOS has no call to flush, and OVMF passes none on to SATA disks. A
    /// release that makes the machine lose power would else be tried for ever.
    fn keep_what_the_loader_wrote(&self) {
        if let Err(error) = self.bytes.flush() {
            log::warn!("slots: {error}");
        }
    }

    fn set_running(&mut self, running: BootSlot) -> Option<()> {
        self.running = running;
        Some(())
    }

    /// Takes what runs from the disk itself: the active slot, and what its head says.
    fn find_running(&mut self) -> Option<()> {
        let (state, _) = self.state().ok()?;
        let mut head = bytes::zeroed(HEAD_END)?;
        self.read_slot(state.active, 0, &mut head).ok()?;
        let head = head.get(HEAD_AT..)?;
        let release = Release::decode(head).ok()?;
        let release = Release::verify(head, &release.key).ok()?;
        self.set_running(BootSlot {
            slot: state.active,
            is_trial: matches!(state.slot(state.active).status, Status::Trying { .. }),
            disk: self.guid,
            version: release.version,
            health_seconds: release.health_seconds,
            key: release.key,
        })
    }

    /// The boot state, and which copy the next change goes to.
    fn state(&mut self) -> Done<(BootState, usize)> {
        let mut copies: [Vec<u8>; 2] = [Vec::new(), Vec::new()];
        for (index, copy) in copies.iter_mut().enumerate() {
            *copy = bytes::zeroed(self.bytes.block()).ok_or(UpdateRefusal::NoMemory)?;
            let at = self.state_block(index)?;
            // A copy that cannot be read is a damaged one.
            if self.bytes.read_blocks(at, copy).is_err() {
                copy.fill(0);
            }
            copy.truncate(STATE_BYTES);
        }
        let [first, second] = &copies;
        BootState::load([first, second]).ok_or(UpdateRefusal::NoState)
    }

    /// Makes `new` durable.
    fn store(&mut self, new: BootState) -> Done<()> {
        let (current, copy) = self.state()?;
        let (_, state) = new.store(&current);
        let mut block = bytes::zeroed(self.bytes.block()).ok_or(UpdateRefusal::NoMemory)?;
        for (to, from) in block.iter_mut().zip(state) {
            *to = from;
        }
        let at = self.state_block(copy)?;
        self.bytes.write_blocks(at, &block).map_err(disk_error)?;
        self.bytes.flush().map_err(disk_error)
    }

    fn state_block(&self, copy: usize) -> Done<u64> {
        let block = copy as u64 * COPY_STRIDE / self.bytes.block() as u64;
        if block < self.state_at.blocks {
            Ok(self.state_at.start + block)
        } else {
            Err(UpdateRefusal::NoState)
        }
    }

    fn extent(&self, slot: Slot) -> Extent {
        let [a, b] = self.slots;
        match slot {
            Slot::A => a,
            Slot::B => b,
        }
    }

    /// Bytes that a slot has room for.
    fn room(&self, slot: Slot) -> u64 {
        self.extent(slot)
            .blocks
            .saturating_mul(self.bytes.block() as u64)
    }

    /// The block at byte `offset` of a slot, if `len` bytes from there on lie inside.
    fn place(&self, slot: Slot, offset: u64, len: usize) -> Done<u64> {
        let end = offset.checked_add(len as u64);
        let block = self.bytes.block() as u64;
        let is_inside = end.is_some_and(|end| end <= self.room(slot));
        if is_inside && offset.is_multiple_of(block) {
            Ok(self.extent(slot).start + offset / block)
        } else {
            Err(UpdateRefusal::OutOfOrder)
        }
    }

    fn read_slot(&mut self, slot: Slot, offset: u64, into: &mut [u8]) -> Done<()> {
        let at = self.place(slot, offset, into.len())?;
        self.bytes.read_blocks(at, into).map_err(disk_error)
    }

    fn write_slot(&mut self, slot: Slot, offset: u64, from: &[u8]) -> Done<()> {
        let at = self.place(slot, offset, from.len())?;
        self.bytes.write_blocks(at, from).map_err(disk_error)
    }
}

/// Nothing known yet.
fn unknown(disk: [u8; 16]) -> BootSlot {
    BootSlot {
        slot: Slot::A,
        is_trial: false,
        disk,
        version: 0,
        health_seconds: HEALTH_SECONDS_DEFAULT,
        key: skep_api::PublicKey([0; 32]),
    }
}

fn disk_error(error: BlockError) -> UpdateRefusal {
    UpdateRefusal::Disk(String::from(error.to_string().as_str()))
}

/// The head of a release in a request, if it is that long.
fn head(bytes: &[u8]) -> Done<[u8; HEAD_BYTES]> {
    bytes
        .try_into()
        .map_err(|_| UpdateRefusal::Release(String::from("its head is cut short")))
}

#[cfg(test)]
mod tests;
