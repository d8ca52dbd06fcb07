//! A release that runs for the first time: it has a while to become healthy, or the node
//! goes back to the one before (design D9, level 7).

use crate::room::Capsules;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;
use machine::thread::{self, Builder};
use machine::time::Instant;
use skep_api::control::{ControlError, Reply};

/// Whether the release that runs has been healthy, once that is known.
#[derive(Default)]
pub(crate) struct Trial {
    passed: AtomicBool,
}

impl Capsules {
    /// Restarts the node, should the release that runs be a new one that does not become
    /// healthy in time: the loader then takes the other slot.
    pub(crate) fn watch_trial(self: &Arc<Self>) {
        // Finds the disk, and keeps it from capsules before the first one starts. A node
        // without slots has nothing to say.
        let _ = self.slots.info(&self.disks);
        let Some(seconds) = self.slots.trial_seconds(&self.disks) else {
            return;
        };
        log::info!("this release is new: it has {seconds} s to become healthy");
        let room = self.clone();
        let watch = move || {
            let deadline = Instant(0).after(Duration::from_secs(u64::from(seconds)));
            let _ = thread::sleep_until(deadline, false);
            if !room.trial.passed.load(Relaxed) {
                log::error!("this release did not become healthy in {seconds} s; going back");
                if room.begin_shutdown(false).is_err() {
                    room.platform.restart();
                }
            }
        };
        if Builder::new("trial").spawn(watch).is_err() {
            log::error!("no memory to watch over a new release; going back");
            self.platform.restart();
        }
    }

    /// The 3Bot says that the node is healthy.
    pub(crate) fn confirm_healthy(&self) -> Result<Reply, ControlError> {
        if self.slots.confirm(&self.disks)? {
            log::info!("this release has been healthy and stays");
        }
        self.trial.passed.store(true, Relaxed);
        Ok(Reply::Done)
    }
}
