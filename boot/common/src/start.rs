//! Which slot is started, and what happens to one that cannot be.

use crate::disk::{Blocks, Disk, StoredState};
use crate::{Failure, Machine, release};
use core::convert::Infallible;
use skep_api::PublicKey;
use skep_api::boot::Slot;
use skep_api::boot::handover::BootSlot;
use skep_api::boot::state::Status;

/// Starts a slot of the disk, the other one if the first is not fit for it; comes back only
/// when neither is. `started` is what the counter showed when the loader was.
///
/// # Errors
/// [`Failure::NothingLeft`]; why each slot was not started has been said.
pub fn start_slot<M: Machine, B: Blocks>(
    mut disk: Disk<B>,
    key: &PublicKey,
    started: u64,
) -> Result<Infallible, Failure> {
    let mut stored = disk.state();
    let mut choice = stored.state.choose();
    for _ in Slot::BOTH {
        let slot = choice.slot;
        let is_stored = choice.store.is_none_or(|new| disk.store(&mut stored, new));
        if may_start::<M>(&stored, slot, is_stored) {
            let Err(why) = enter_slot::<M, B>(&mut disk, &stored, slot, key, started);
            M::say(format_args!("slot {} is not started: {why}", slot.name()));
        }
        choice = stored.state.refuse(slot);
    }
    Err(Failure::NothingLeft)
}

/// A new release whose tries cannot be counted is not started while the other slot holds
/// one that was healthy: it might be started for ever.
fn may_start<M: Machine>(stored: &StoredState, slot: Slot, is_stored: bool) -> bool {
    let has_other = stored.state.slot(slot.other()).status == Status::Good;
    if !is_stored {
        M::say(format_args!("the boot state cannot be written"));
    }
    is_stored || !stored.is_trial(slot) || !has_other
}

/// Reads the release in `slot` and starts it, if it may be.
fn enter_slot<M: Machine, B: Blocks>(
    disk: &mut Disk<B>,
    stored: &StoredState,
    slot: Slot,
    key: &PublicKey,
    started: u64,
) -> Result<Infallible, Failure> {
    let mut volume = disk.volume(slot)?;
    let loaded = release::load::<M>(&mut volume, key)?;
    let from = BootSlot {
        slot,
        is_trial: stored.is_trial(slot),
        disk: disk.guid,
        version: loaded.release.version,
        health_seconds: loaded.release.health_seconds,
        key: *key,
    };
    loaded.enter::<M>(Some(from), started)
}
