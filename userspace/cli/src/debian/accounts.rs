//! What every Debian system has and no single package brings: the merged `/usr`,
//! the usual directories, accounts, and the names of this host.

use super::add_default;
use crate::image::files::{Entry, Existing, Files, Kind};
use anyhow::{Context, Result};
use skep_api::tree::Meta;

/// Directories with their permissions.
const DIRECTORIES: [(&str, u16); 16] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib64", 0o755),
    ("usr/sbin", 0o755),
    ("var/lib", 0o755),
    ("var/tmp", 0o1777),
];

/// Links with their targets: the merged `/usr`, and the old names of `/run`.
const LINKS: [(&str, &str); 6] = [
    ("bin", "usr/bin"),
    ("lib", "usr/lib"),
    ("lib64", "usr/lib64"),
    ("sbin", "usr/sbin"),
    ("var/lock", "/run/lock"),
    ("var/run", "/run"),
];

const NSSWITCH: &str = "\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
";

const HOSTS: &str = "\
127.0.0.1 localhost
::1 localhost ip6-localhost ip6-loopback
";

fn owned_by_root(mode: u16, kind: Kind) -> Entry {
    Entry {
        meta: Meta {
            mode,
            uid: 0,
            gid: 0,
            mtime: 0,
        },
        kind,
    }
}

/// Adds directories and links, before any package is unpacked: packages still ship
/// paths such as `/lib/...` and must find the links there.
pub(super) fn add_skeleton(files: &mut Files) -> Result<()> {
    for (path, mode) in DIRECTORIES {
        let entry = owned_by_root(mode, Kind::Directory);
        files.insert(path.as_bytes(), entry, Existing::Replace)?;
    }
    for (path, target) in LINKS {
        let entry = owned_by_root(0o777, Kind::Symlink(target.into()));
        files.insert(path.as_bytes(), entry, Existing::Replace)?;
    }
    Ok(())
}

/// Adds `/etc/passwd` and `/etc/group` as Debian's base-passwd, which is unpacked in
/// `base`, describes them, and the files that tell programs to use them.
pub(super) fn add_accounts(files: &mut Files, base: &Files) -> Result<()> {
    for name in ["passwd", "group"] {
        let master = format!("usr/share/base-passwd/{name}.master");
        let content = base
            .read(master.as_bytes())
            .with_context(|| format!("Debian's base-passwd has no {master}; report this"))?;
        add_default(
            files,
            &format!("etc/{name}"),
            owned_by_root(0o644, Kind::File(content)),
        )?;
    }
    for (path, content) in [("etc/nsswitch.conf", NSSWITCH), ("etc/hosts", HOSTS)] {
        let content = Kind::File(content.as_bytes().into());
        add_default(files, path, owned_by_root(0o644, content))?;
    }
    Ok(())
}
