//! What the kernel tells the 3Bot without being asked.

use alloc::string::String;
use serde::{Deserialize, Serialize};

use super::{CapsuleId, ExecId, ExitSummary, LimitKind};

/// A set of event families, for [`super::Request::Subscribe`].
///
/// [`Event::ExecFinished`], [`Event::Ping`] and [`Event::Lost`] belong to no family: they
/// are delivered always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventMask(u32);

impl EventMask {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// [`Event::CapsuleStarted`] and [`Event::CapsuleExited`].
    pub const CAPSULE: Self = Self(1);
    /// [`Event::CapsuleOom`], [`Event::LimitHit`] and [`Event::BlobRefused`].
    pub const TROUBLE: Self = Self(2);
    /// [`Event::LogAvailable`].
    pub const LOG: Self = Self(4);
    /// [`Event::LinkUp`], [`Event::LinkDown`], [`Event::LinkMoved`] and
    /// [`Event::DeviceError`].
    pub const DEVICE: Self = Self(8);
    /// Every family.
    pub const ALL: Self = Self(15);

    /// The families of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all families of `other` are in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is no bit beyond [`EventMask::ALL`].
    #[must_use]
    pub const fn is_known(self) -> bool {
        self.0 & !Self::ALL.0 == 0
    }
}

/// An event with its place in the order of things.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRecord {
    /// Counts all events since boot, delivered or not.
    pub sequence: u64,
    /// When it happened, in nanoseconds since boot.
    pub time_ns: u64,
    /// What happened.
    pub event: Event,
}

/// Something that happened on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A capsule's first process runs.
    CapsuleStarted {
        /// Its number.
        capsule: CapsuleId,
        /// Its name.
        name: String,
    },
    /// A capsule's init process has ended and with it all others: everything it held is free,
    /// its ports included, so that it can be started again at once.
    CapsuleExited {
        /// Its number.
        capsule: CapsuleId,
        /// Its name.
        name: String,
        /// How it ended, and when.
        exit: ExitSummary,
    },
    /// The kernel killed a process of the capsule because its memory was exhausted.
    CapsuleOom {
        /// Whose.
        capsule: CapsuleId,
        /// The killed process, as numbered inside the capsule.
        pid: u32,
    },
    /// A capsule ran into one of its limits. Sent at most once a second per capsule and limit.
    LimitHit {
        /// Whose.
        capsule: CapsuleId,
        /// Which.
        limit: LimitKind,
    },
    /// A file of a capsule's image does not have the promised hash; whoever read it got EIO.
    BlobRefused {
        /// Whose.
        capsule: CapsuleId,
        /// The BLAKE3 that was promised.
        hash: [u8; 32],
    },
    /// There is log beyond what was last read with [`super::Request::ReadLog`]. Sent once per
    /// capsule name until the next read of its log.
    LogAvailable {
        /// Whose, by number.
        capsule: CapsuleId,
    },
    /// A network link came up.
    LinkUp {
        /// Interface name, such as `eth0`.
        interface: String,
    },
    /// A network link went down.
    LinkDown {
        /// Interface name, such as `eth0`.
        interface: String,
    },
    /// Another network device carries the node's packets: a cable was moved, or its device
    /// failed.
    LinkMoved {
        /// Interface name, such as `eth0`.
        interface: String,
        /// The device, for people.
        device: String,
    },
    /// A device failed a request, was reset, pulled out or plugged in. Sent at most once a second
    /// per device, but for its end.
    DeviceError {
        /// Device name, such as `vda`.
        device: String,
        /// What went wrong, for people.
        detail: String,
    },
    /// The end of an [`super::Request::Exec`].
    ExecFinished {
        /// Which.
        exec: ExecId,
        /// How it ended; `None`: killed by the time-out, or with its capsule.
        status: Option<super::ExitStatus>,
    },
    /// The kernel wants to see that the 3Bot is alive: answer [`super::Request::Pong`] within ten
    /// seconds. A 3Bot that never answered one is not held to it.
    Ping {
        /// To be given back.
        token: u64,
    },
    /// The queue was full, and this many events before this one were dropped: list the capsules
    /// again.
    Lost {
        /// How many.
        events: u64,
    },
}
