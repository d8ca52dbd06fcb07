//! What the room needs of the machine around it and cannot name itself.

use alloc::string::String;
use alloc::vec::Vec;
use machine::sync::SpinLock;
use machine::time::Instant;
use skep_api::Signature;
use skep_api::control::hardware::Hardware;
use skep_api::control::{BootStep, CrashRecord};
use skep_api::identity::Identity;

/// Most steps of a boot that are kept.
const STEPS_MAX: usize = 64;

/// The machine as a whole. The kernel binary implements it.
pub trait Platform: Send + Sync {
    /// The record of the last kernel panic.
    fn crash(&self) -> Option<CrashRecord>;

    /// Whether a kernel panic ended the boot before this one, even if its record has
    /// been forgotten.
    fn had_crash(&self) -> bool;

    /// Forgets that record.
    fn clear_crash(&self);

    /// What the machine is made of, but for disks and links.
    fn hardware(&self) -> Hardware;

    /// The node's own key, if it has one.
    fn identity(&self) -> Option<Identity>;

    /// Signs a challenge with it.
    fn prove(&self, challenge: &[u8]) -> Option<Signature>;

    /// Has the TPM keep it from now on; whether it does.
    fn keep_identity(&self) -> bool;

    /// Whether [`Platform::power_off`] will work.
    fn can_power_off(&self) -> bool;

    /// Restarts the machine. Returns only if that failed.
    fn restart(&self);

    /// Switches the machine off. Returns only if that failed.
    fn power_off(&self);
}

/// When the steps of this boot were done.
#[derive(Default)]
pub struct BootLog {
    steps: SpinLock<Vec<BootStep>>,
}

impl BootLog {
    /// A boot that has just begun.
    #[must_use]
    pub const fn new() -> BootLog {
        BootLog {
            steps: SpinLock::new(Vec::new()),
        }
    }

    /// `name` is done now. What has no room is left out.
    pub fn done(&self, name: &str) {
        self.done_at(name, i64::try_from(Instant::now().0).unwrap_or(i64::MAX));
    }

    /// `name` was done at `done_ns` on the kernel's clock; see [`BootStep`].
    pub fn done_at(&self, name: &str, done_ns: i64) {
        let step = BootStep {
            name: String::from(name),
            done_ns,
        };
        let mut steps = self.steps.lock();
        if steps.len() < STEPS_MAX && steps.try_reserve(1).is_ok() {
            steps.push(step);
        }
    }

    /// The steps so far.
    #[must_use]
    pub fn steps(&self) -> Vec<BootStep> {
        self.steps.lock().clone()
    }
}
