//! What outlives the processes that made it: files, and System V objects.
//!
//! It is memory of the capsule, and a capsule that has no more loses its first
//! process. That is as it should be, but would end a run of many sweeps early.

use std::{collections::BTreeSet, ffi::OsString, fs, path::Path};

/// Folders whose whole content is left behind by somebody.
const SCRATCH: [&str; 4] = ["/tmp", "/dev/shm", "/dev/mqueue", "/var/tmp"];

/// What was there in the beginning.
pub(crate) struct Leavings(BTreeSet<OsString>);

impl Leavings {
    /// Remembers what there is now.
    pub(crate) fn before() -> Self {
        Self(names("/"))
    }

    /// Removes what has come since.
    pub(crate) fn remove(&self) {
        for name in names("/").difference(&self.0) {
            remove(&Path::new("/").join(name));
        }
        for folder in SCRATCH {
            for name in names(folder) {
                remove(&Path::new(folder).join(name));
            }
        }
        for id in ids("shm") {
            // SAFETY: removing takes no memory of ours; so for the two below.
            unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
        for id in ids("sem") {
            // SAFETY: as above.
            unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
        }
        for id in ids("msg") {
            // SAFETY: as above.
            unsafe { libc::msgctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        }
    }
}

fn names(folder: &str) -> BTreeSet<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).collect()
}

/// Removes a file or a whole folder; what cannot be removed stays.
fn remove(path: &Path) {
    if fs::remove_file(path).is_err() {
        let _ = fs::remove_dir_all(path);
    }
}

/// Numbers of the System V objects of this kind, as proc_sysvipc(5) lists them.
fn ids(kind: &str) -> Vec<i32> {
    let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
    let id = |line: &str| line.split_whitespace().nth(1)?.parse().ok();
    table.lines().skip(1).filter_map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::{Leavings, ids, names};

    #[test]
    fn what_is_there_is_remembered() {
        let before = Leavings::before();
        assert!(before.0.contains(std::ffi::OsStr::new("tmp")));
        assert!(names("/no-such-folder").is_empty());
        assert!(ids("no-such-kind").is_empty());
    }
}
