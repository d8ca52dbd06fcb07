//! How a capsule does, for whoever stands before the machine.

use super::{Phase, Unit};
use skep_api::control::CapsuleHealth;

impl Unit {
    /// The run there is, and how it does.
    pub fn running_health(&self) -> Option<(u32, CapsuleHealth)> {
        let Phase::Running(run) = &self.phase else {
            return None;
        };
        let health = match (run.probing.is_ready(), run.probing.failures()) {
            (false, _) => CapsuleHealth::Starting,
            (true, 0) => CapsuleHealth::Ready,
            (true, _) => CapsuleHealth::Failing,
        };
        Some((run.instance, health))
    }
}
