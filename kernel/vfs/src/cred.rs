//! Who acts: user and group ids and capabilities (credentials(7), capabilities(7)).

use crate::error::Result;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bitflags::bitflags;
use machine::addr::PAGE_SIZE;
use machine::{Account, PageCharge};

bitflags! {
    /// A set of capabilities, bit by number as in `linux/capability.h`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct Caps: u64 {
        /// Change owners of files.
        const CHOWN = 1 << 0;
        /// Ignore permissions of files and directories.
        const DAC_OVERRIDE = 1 << 1;
        /// Read any file, search any directory.
        const DAC_READ_SEARCH = 1 << 2;
        /// Do what only a file's owner may.
        const FOWNER = 1 << 3;
        /// Keep the set-id bits when a file is changed.
        const FSETID = 1 << 4;
        /// Signal any process.
        const KILL = 1 << 5;
        /// Change group ids.
        const SETGID = 1 << 6;
        /// Change user ids.
        const SETUID = 1 << 7;
        /// Change capability sets.
        const SETPCAP = 1 << 8;
        /// Bind ports below 1024.
        const NET_BIND_SERVICE = 1 << 10;
        /// Configure the network.
        const NET_ADMIN = 1 << 12;
        /// Use raw sockets.
        const NET_RAW = 1 << 13;
        /// Lock memory.
        const IPC_LOCK = 1 << 14;
        /// Ignore permissions of System V objects.
        const IPC_OWNER = 1 << 15;
        /// `chroot`.
        const SYS_CHROOT = 1 << 18;
        /// Trace any process.
        const SYS_PTRACE = 1 << 19;
        /// Administration.
        const SYS_ADMIN = 1 << 21;
        /// Raise priorities.
        const SYS_NICE = 1 << 23;
        /// Exceed resource limits.
        const SYS_RESOURCE = 1 << 24;
        /// Set the clock.
        const SYS_TIME = 1 << 25;
        /// Hang terminals up.
        const SYS_TTY_CONFIG = 1 << 26;
        /// Make device nodes.
        const MKNOD = 1 << 27;
        /// Take leases on any file.
        const LEASE = 1 << 28;
        /// Set file capabilities.
        const SETFCAP = 1 << 31;
        // All other bits are carried, too.
        const _ = !0;
    }
}

/// Number of the last capability there is (`CAP_CHECKPOINT_RESTORE`).
pub const CAP_LAST: u32 = 40;
/// Most supplementary groups (`NGROUPS_MAX`).
pub const GROUPS_MAX: usize = 65_536;

/// Supplementary groups, shared by all whose they are.
#[derive(Debug, Default)]
pub struct Groups {
    sorted: Vec<u32>,
    _charge: Option<PageCharge>,
}

impl Groups {
    /// The groups `list`, whose memory `account` pays for.
    ///
    /// # Errors
    /// [`crate::Error::NoMemory`].
    pub fn new(mut list: Vec<u32>, account: &Account) -> Result<Groups> {
        let bytes = list.capacity() * size_of::<u32>();
        let charge = account.hold(bytes / PAGE_SIZE)?;
        list.sort_unstable();
        Ok(Groups {
            sorted: list,
            _charge: Some(charge),
        })
    }

    /// Whether `gid` is one of them.
    #[must_use]
    pub fn contains(&self, gid: u32) -> bool {
        self.sorted.binary_search(&gid).is_ok()
    }

    /// Their numbers, sorted.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.sorted
    }
}

impl PartialEq for Groups {
    fn eq(&self, other: &Groups) -> bool {
        self.sorted == other.sorted
    }
}

impl Eq for Groups {}

/// Ids and capabilities of a process. Immutable once shared: a change makes a
/// new value and swaps the `Arc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Saved user id.
    pub suid: u32,
    /// User id for file permissions.
    pub fsuid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective group id.
    pub egid: u32,
    /// Saved group id.
    pub sgid: u32,
    /// Group id for file permissions.
    pub fsgid: u32,
    /// Supplementary groups.
    pub groups: Arc<Groups>,
    /// Capabilities in force.
    pub effective: Caps,
    /// Capabilities that may be put in force.
    pub permitted: Caps,
    /// Capabilities kept across `execve`, with the file's.
    pub inheritable: Caps,
    /// Capabilities `execve` can give at most.
    pub bounding: Caps,
    /// Capabilities kept across `execve` of an ordinary file.
    pub ambient: Caps,
}

impl Credentials {
    /// The superuser of a capsule with the capabilities `caps`.
    #[must_use]
    pub fn root(caps: Caps) -> Credentials {
        Credentials {
            effective: caps,
            permitted: caps,
            bounding: caps,
            ..Credentials::user(0, 0)
        }
    }

    /// An ordinary user without capabilities.
    #[must_use]
    pub fn user(uid: u32, gid: u32) -> Credentials {
        Credentials {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups: Arc::default(),
            effective: Caps::empty(),
            permitted: Caps::empty(),
            inheritable: Caps::empty(),
            bounding: Caps::empty(),
            ambient: Caps::empty(),
        }
    }

    /// Whether all of `caps` are in force.
    #[inline]
    #[must_use]
    pub fn has(&self, caps: Caps) -> bool {
        self.effective.contains(caps)
    }

    /// Whether `gid` is the file-system group or a supplementary one.
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.contains(gid)
    }

    /// Whether they own what belongs to `uid`, or may act as if.
    #[must_use]
    pub fn owns(&self, uid: u32) -> bool {
        self.fsuid == uid || self.has(Caps::FOWNER)
    }
}

bitflags! {
    /// What somebody wants to do with a file (`access(2)`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Want: u32 {
        /// Execute, or search a directory.
        const EXEC = 1;
        /// Write, or change a directory's entries.
        const WRITE = 2;
        /// Read, or list a directory.
        const READ = 4;
    }
}

/// Whether `cred` may do `want` with a file of `mode` (type bits included) that
/// belongs to `uid` and `gid` (path_resolution(7), "Permissions").
#[must_use]
pub fn permits(cred: &Credentials, mode: u32, uid: u32, gid: u32, want: Want) -> bool {
    let bits = if cred.fsuid == uid {
        mode >> 6
    } else if cred.in_group(gid) {
        mode >> 3
    } else {
        mode
    };
    if want.bits() & !bits & 7 == 0 {
        return true;
    }
    let directory = mode & crate::inode::S_IFMT == crate::inode::S_IFDIR;
    if cred.has(Caps::DAC_OVERRIDE) {
        return directory || !want.contains(Want::EXEC) || mode & 0o111 != 0;
    }
    let reads = if directory {
        Want::READ | Want::EXEC
    } else {
        Want::READ
    };
    cred.has(Caps::DAC_READ_SEARCH) && reads.contains(want)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owners_bits_count_for_the_owner() {
        let c = Credentials::user(5, 6);
        assert!(!permits(&c, 0o100_077, 5, 9, Want::READ));
        assert!(permits(&c, 0o100_040, 1, 6, Want::READ));
        assert!(permits(&c, 0o100_004, 1, 9, Want::READ));
        assert!(!permits(&c, 0o100_004, 1, 9, Want::READ | Want::WRITE));
    }

    #[test]
    fn root_executes_only_what_is_executable() {
        let c = Credentials::root(Caps::DAC_OVERRIDE);
        assert!(permits(&c, 0o100_000, 1, 1, Want::READ | Want::WRITE));
        assert!(!permits(&c, 0o100_666, 1, 1, Want::EXEC));
        assert!(permits(&c, 0o100_100, 1, 1, Want::EXEC));
        assert!(permits(&c, 0o040_000, 1, 1, Want::EXEC));
    }
}
