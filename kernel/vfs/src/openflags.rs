//! The flags of open(2).

use bitflags::bitflags;

bitflags! {
    /// How a file is opened, with the numbers of open(2) on x86-64. The two bits
    /// of the access mode count together: none is read-only, `WRITE_ONLY`,
    /// `READ_WRITE`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct OpenFlags: u32 {
        /// Writing only.
        const WRITE_ONLY = 0o1;
        /// Reading and writing.
        const READ_WRITE = 0o2;
        /// Make the file if there is none.
        const CREATE = 0o100;
        /// Fail if there is one.
        const EXCLUSIVE = 0o200;
        /// Do not become the controlling terminal.
        const NOCTTY = 0o400;
        /// Cut the file to nothing.
        const TRUNCATE = 0o1000;
        /// Every write goes to the end.
        const APPEND = 0o2000;
        /// Never wait.
        const NONBLOCK = 0o4000;
        /// A write returns when the content is safe.
        const DSYNC = 0o10000;
        /// Signal on readiness.
        const ASYNC = 0o20000;
        /// Past the cache.
        const DIRECT = 0o40000;
        /// Accepted and meaningless on 64 bits.
        const LARGEFILE = 0o100_000;
        /// Must be a directory.
        const DIRECTORY = 0o200_000;
        /// The last component must not be a symbolic link.
        const NOFOLLOW = 0o400_000;
        /// Leave the access time alone.
        const NOATIME = 0o1_000_000;
        /// Close on `execve`.
        const CLOEXEC = 0o2_000_000;
        /// With `DSYNC`: also all attributes.
        const SYNC_BIT = 0o4_000_000;
        /// Names the object without opening it.
        const PATH = 0o10_000_000;
        /// With `DIRECTORY`: a file without a name.
        const TMPFILE_BIT = 0o20_000_000;
    }
}

impl OpenFlags {
    /// Both bits of the access mode.
    pub const ACCESS: OpenFlags = OpenFlags::WRITE_ONLY.union(OpenFlags::READ_WRITE);
    /// What `fcntl(F_SETFL)` can change.
    pub const SETTABLE: OpenFlags = OpenFlags::APPEND
        .union(OpenFlags::NONBLOCK)
        .union(OpenFlags::DIRECT)
        .union(OpenFlags::NOATIME);
    /// What matters only while opening, and `F_GETFL` does not tell.
    pub(crate) const OPENING_ONLY: OpenFlags = OpenFlags::CREATE
        .union(OpenFlags::EXCLUSIVE)
        .union(OpenFlags::NOCTTY)
        .union(OpenFlags::ASYNC)
        .union(OpenFlags::TRUNCATE)
        .union(OpenFlags::CLOEXEC);

    /// Whether it may be read.
    #[must_use]
    pub fn reads(self) -> bool {
        !self.contains(OpenFlags::PATH) && self.bits() & 3 != 1
    }

    /// Whether it may be written.
    #[must_use]
    pub fn writes(self) -> bool {
        !self.contains(OpenFlags::PATH) && matches!(self.bits() & 3, 1 | 2)
    }
}
