//! What the kernel counts and samples while the owner asks for it.

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Longest profile, in seconds.
pub const PROFILE_SECONDS_MAX: u16 = 600;
/// Most samples a second on each CPU.
pub const PROFILE_HZ_MAX: u16 = 4000;
/// Most system calls that one [`Profile`] tells of, those that took longest.
pub const PROFILE_CALLS_MAX: usize = 128;
/// Most places that one [`Profile`] tells of, those met most often.
pub const PROFILE_PLACES_MAX: usize = 2048;
/// Classes of [`CallProfile::classes`].
pub const LATENCY_CLASSES: usize = 40;

/// The profile that runs, or the last one of this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Whether it goes on.
    pub running: bool,
    /// When it began, in nanoseconds since boot.
    pub began_ns: u64,
    /// How long it has lasted, in nanoseconds.
    pub lasted_ns: u64,
    /// The capsule whose system calls are counted; `None` for all, the 3Bot's included.
    pub capsule: Option<String>,
    /// Samples a second on each CPU that is busy; 0 for none.
    pub hz: u16,
    /// The system calls that were made, the one that took longest altogether first.
    pub calls: Vec<CallProfile>,
    /// How many different calls are left out of `calls`.
    pub calls_left_out: u32,
    /// What the CPUs were doing.
    pub samples: Samples,
}

/// One system call, counted over all threads of the profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallProfile {
    /// Its Linux number.
    pub number: u16,
    /// Its Linux name; empty for a number that has none.
    pub name: String,
    /// How often it began.
    pub made: u64,
    /// How often it answered with an error.
    pub failed: u64,
    /// Nanoseconds from entry to return of those that returned, waiting included.
    pub total_ns: u64,
    /// The longest of them.
    pub longest_ns: u64,
    /// How many returned within less than 2^i nanoseconds, but not less than 2^(i-1), by `i`.
    /// The last of the [`LATENCY_CLASSES`] has all that took longer, too. Trailing zeros are
    /// left out.
    pub classes: Vec<u32>,
}

/// Where the CPUs were when their clocks asked. An idle CPU is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Times in a program.
    pub user: u64,
    /// Times in the kernel, those of `lost` included.
    pub kernel: u64,
    /// Times in the kernel whose place found no room.
    pub lost: u64,
    /// Places in the kernel, as offsets from the start of its image (the addresses of its
    /// symbol file), with how often each was met; the most frequent first.
    pub places: Vec<(u32, u32)>,
}
