//! A capsule's world of processes.

use crate::unknown::UnknownCalls;
use alloc::string::String;

/// What the processes of one capsule share, and all they can see of each other.
pub struct World {
    name: String,
    unknown: UnknownCalls,
}

impl World {
    /// The capsule's name, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// System calls its programs made that the kernel does not have.
    #[must_use]
    pub fn unknown_calls(&self) -> &UnknownCalls {
        &self.unknown
    }
}
