//! Resource limits (getrlimit(2)).

use machine::sync::SpinLock;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// No limit (`RLIM_INFINITY`).
pub const INFINITE: u64 = u64::MAX;
/// Resources there are.
pub const RESOURCES: usize = 16;

/// A soft limit, which counts, and a hard one, up to which it can be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// Ceiling of `soft`.
    pub hard: u64,
}

/// What is limited, by Linux's number.
#[expect(missing_docs, reason = "getrlimit(2) has the meanings")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Resource {
    Cpu = 0,
    FileSize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    ResidentSet = 5,
    Processes = 6,
    Files = 7,
    LockedMemory = 8,
    AddressSpace = 9,
    Locks = 10,
    PendingSignals = 11,
    MessageQueue = 12,
    Nice = 13,
    RealtimePriority = 14,
    RealtimeTime = 15,
}

/// The limits of a process.
pub struct Limits(SpinLock<[Limit; RESOURCES]>);

const fn both(n: u64) -> Limit {
    Limit { soft: n, hard: n }
}

impl Limits {
    /// Those of the first process of a world: at most `processes` threads and
    /// `files` descriptors, the rest as Linux has it.
    #[must_use]
    pub fn initial(processes: u64, files: u64) -> Limits {
        let mut all = [both(INFINITE); RESOURCES];
        let mut put = |r: Resource, l: Limit| all[r as usize] = l;
        let stack = Limit {
            soft: 8 << 20,
            hard: INFINITE,
        };
        put(Resource::Stack, stack);
        let core = Limit {
            soft: 0,
            hard: INFINITE,
        };
        put(Resource::Core, core);
        put(Resource::Processes, both(processes));
        put(
            Resource::Files,
            Limit {
                soft: files.min(1024),
                hard: files,
            },
        );
        put(Resource::LockedMemory, both(8 << 20));
        put(Resource::PendingSignals, both(4096));
        put(Resource::MessageQueue, both(819_200));
        put(Resource::Nice, both(0));
        put(Resource::RealtimePriority, both(0));
        Limits(SpinLock::new(all))
    }

    /// A copy (`fork`).
    #[must_use]
    pub fn copied(&self) -> Limits {
        Limits(SpinLock::new(*self.0.lock()))
    }

    /// The limit on the resource of that number.
    #[must_use]
    pub fn get(&self, resource: usize) -> Option<Limit> {
        self.0.lock().get(resource).copied()
    }

    /// The soft limit on `resource`.
    #[must_use]
    pub fn soft(&self, resource: Resource) -> u64 {
        self.0.lock()[resource as usize].soft
    }

    /// Sets the limit on the resource of that number.
    pub fn set(&self, resource: usize, limit: Limit) {
        if let Some(l) = self.0.lock().get_mut(resource) {
            *l = limit;
        }
    }
}
