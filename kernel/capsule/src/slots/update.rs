//! A release on its way into the slot that does not run.
//!
//! ```text
//! begin   head verified, newer than what runs    state: slot empty     flush
//! write   piece after piece, in order            first 4 KiB held back
//! check   all of it read back and hashed         flush before
//! finish  hash is the signed one                 first 4 KiB   flush   state: trying   flush
//! ```
//!
//! Until the last line the slot is empty to every loader, and whatever happens the
//! running release is what starts.

use super::{Done, SlotDisk, bytes, disk_error, head};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use skep_api::boot::release::{HEAD_AT, HEAD_BYTES, HEAD_END};
use skep_api::boot::{BootState, Release, Slot};
use skep_api::control::{UpdateProgress, UpdateRefusal};
use skep_api::hash::Hasher;

/// Bytes that one check reads: what takes a moment, not a second.
const CHECK_BYTES: usize = 512 << 10;

/// An update that has begun.
pub(super) struct Update {
    slot: Slot,
    release: Release,
    head: [u8; HEAD_BYTES],
    /// The boot sector of the volume, as it came.
    first: Vec<u8>,
    written: u64,
    checked: u64,
    hasher: Hasher,
}

impl Update {
    /// Checks the head and makes the slot empty.
    pub(super) fn begin(disk: &mut SlotDisk, bytes: &[u8]) -> Done<Update> {
        let head = head(bytes)?;
        let release = Release::verify(&head, &disk.running.key)
            .map_err(|why| UpdateRefusal::Release(why.to_string()))?;
        if release.version <= disk.running.version {
            return Err(UpdateRefusal::Downgrade {
                running: disk.running.version,
                offered: release.version,
            });
        }
        // An update that waits for its first start makes room for this one.
        let state = BootState {
            active: disk.running.slot,
            ..disk.state()?.0
        };
        if !state.may_update() {
            return Err(UpdateRefusal::OnTrial);
        }
        let slot = state.active.other();
        if release.len > disk.room(slot) {
            return Err(UpdateRefusal::TooLarge {
                room: disk.room(slot),
                release: release.len,
            });
        }
        disk.store(state.begin_update())?;
        let empty = bytes::zeroed(HEAD_END).ok_or(UpdateRefusal::NoMemory)?;
        disk.write_slot(slot, 0, &empty)?;
        disk.bytes.flush().map_err(disk_error)?;
        log::info!(
            "update: release {} goes to slot {}",
            release.version,
            slot.name()
        );
        Ok(Update {
            slot,
            release,
            head,
            first: Vec::new(),
            written: 0,
            checked: 0,
            hasher: Hasher::new(),
        })
    }

    /// How far it is.
    pub(super) fn progress(&self) -> UpdateProgress {
        UpdateProgress {
            version: self.release.version,
            written: self.written,
            checked: self.checked,
            total: self.release.len,
        }
    }

    /// Writes the next piece: whole blocks of 4 KiB, in order.
    pub(super) fn write(&mut self, disk: &mut SlotDisk, offset: u64, piece: &[u8]) -> Done<()> {
        let end = offset.checked_add(piece.len() as u64);
        let end = end.filter(|end| *end <= self.release.len);
        let end = end.ok_or(UpdateRefusal::OutOfOrder)?;
        let is_whole = !piece.is_empty() && piece.len().is_multiple_of(HEAD_END);
        if offset != self.written || !is_whole {
            return Err(UpdateRefusal::OutOfOrder);
        }
        let (rest, at) = match offset {
            0 => {
                let (first, rest) = piece.split_at(HEAD_END);
                // What is in the place of the head is not looked at: `begin` has it.
                self.first = first.iter().copied().take(HEAD_AT).collect();
                (rest, HEAD_END as u64)
            }
            _ => (piece, offset),
        };
        if !rest.is_empty() {
            disk.write_slot(self.slot, at, rest)?;
        }
        self.written = end;
        Ok(())
    }

    /// Reads the next part back; bytes checked so far and all.
    pub(super) fn check(&mut self, disk: &mut SlotDisk) -> Done<(u64, u64)> {
        if self.written != self.release.len {
            return Err(UpdateRefusal::NotWhole);
        }
        if self.checked == 0 {
            disk.bytes.flush().map_err(disk_error)?;
            self.hasher.update(&self.first);
            self.checked = HEAD_END as u64;
        }
        let left = self.release.len.saturating_sub(self.checked);
        let len = usize::try_from(left)
            .unwrap_or(CHECK_BYTES)
            .min(CHECK_BYTES);
        if len > 0 {
            let mut part = bytes::zeroed(len).ok_or(UpdateRefusal::NoMemory)?;
            disk.read_slot(self.slot, self.checked, &mut part)?;
            self.hasher.update(&part);
            self.checked += len as u64;
        }
        Ok((self.checked, self.release.len))
    }

    /// Puts the head in its place, then makes the slot the one to try.
    pub(super) fn finish(self, disk: &mut SlotDisk) -> Done<()> {
        if self.checked != self.release.len {
            return Err(UpdateRefusal::NotWhole);
        }
        if self.hasher.finish() != self.release.volume {
            return Err(UpdateRefusal::Release(String::from(
                "its bytes are not those that were signed",
            )));
        }
        let mut first = self.first;
        first.extend_from_slice(&self.head);
        disk.write_slot(self.slot, 0, &first)?;
        disk.bytes.flush().map_err(disk_error)?;
        let mut found = bytes::zeroed(HEAD_END).ok_or(UpdateRefusal::NoMemory)?;
        disk.read_slot(self.slot, 0, &mut found)?;
        if found != first {
            return Err(UpdateRefusal::Disk(String::from(
                "it gives back other bytes than were written",
            )));
        }
        let (state, _) = disk.state()?;
        disk.store(state.finish_update(self.release.version, self.release.tries))?;
        log::info!(
            "update: release {} is tried at the next start",
            self.release.version
        );
        Ok(())
    }
}
