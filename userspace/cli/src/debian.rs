//! Images from Debian packages, without root and without touching this machine's
//! own packages.
//!
//! apt resolves the names against an empty list of installed packages and fetches
//! the archives, its signatures checked; their files are then unpacked here.
//! Installation scripts never run. What they would have done, and what a bare set
//! of packages lacks, is made in [`accounts`].

mod accounts;
mod apt;
mod closure;

use crate::image::files::{Existing, Files, show};
use crate::image::tarball;
use anyhow::{Context, Result, bail};
use apt::Apt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to take from Debian.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// Names as apt takes them: `nginx`, `nginx=1.22.1-9`.
    pub(crate) packages: &'a [String],
    /// Packages to leave out although others depend on them.
    pub(crate) without: &'a [String],
    /// Whether documentation and translations stay.
    pub(crate) keep_docs: bool,
    /// Where archives are kept between runs.
    pub(crate) cache: Option<PathBuf>,
}

/// What was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Packages in the image, as `name version`.
    pub(crate) packages: Vec<String>,
    /// Names of packages that apt would have installed but that were cut.
    pub(crate) cut: Vec<String>,
    /// Devices and the like that were left out.
    pub(crate) skipped: Vec<String>,
}

/// Fills `files` with the packages.
pub(crate) fn add(files: &mut Files, request: &Request<'_>) -> Result<Taken> {
    let cache = match &request.cache {
        Some(cache) => cache.clone(),
        None => default_cache()?,
    };
    let apt = Apt::new(&cache)?;
    let solution = apt.resolve(request.packages)?;
    let relations = apt.relations(&solution)?;
    let names: Vec<&str> = request
        .packages
        .iter()
        .map(|name| bare_name(name))
        .collect();
    let kept = closure::keep(&names, request.without, &relations);
    let (mut packages, cut): (Vec<_>, Vec<_>) = solution
        .into_iter()
        .partition(|package| kept.contains(&package.name));
    packages.sort();
    for name in &names {
        // A virtual name ("httpd") is kept under the name of its provider.
        if request.without.iter().any(|without| without == name) {
            bail!("{name} is both asked for and left out; drop one of --deb and --without");
        }
    }
    let masters = apt.candidate("base-passwd")?;
    eprintln!("fetching {} packages", packages.len());
    let archives = apt.download(&packages)?;

    accounts::add_skeleton(files)?;
    let leave_out = |path: &[u8]| !request.keep_docs && is_documentation(path);
    let mut skipped = Vec::new();
    for archive in &archives {
        skipped.extend(unpack(files, archive, leave_out)?);
    }
    let mut base = Files::default();
    for archive in apt.download(&[masters])? {
        unpack(&mut base, &archive, |_| false)?;
    }
    accounts::add_accounts(files, &base)?;
    Ok(Taken {
        packages: packages
            .iter()
            .map(|it| format!("{} {}", it.name, it.version))
            .collect(),
        cut: cut.into_iter().map(|package| package.name).collect(),
        skipped,
    })
}

/// The name in `name=version`, `name/suite` and `name:arch`.
fn bare_name(name: &str) -> &str {
    name.split(['=', '/', ':']).next().unwrap_or(name)
}

fn default_cache() -> Result<PathBuf> {
    let absolute = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|it| it.is_absolute())
    };
    let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    Ok(base
        .context("no place to keep packages: set HOME or use --cache FOLDER")?
        .join("skep/deb"))
}

fn unpack(
    files: &mut Files,
    archive: &Path,
    leave_out: impl Fn(&[u8]) -> bool,
) -> Result<Vec<String>> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb; install the package 'dpkg'")?;
    let output = child.stdout.take().context("dpkg-deb has no output")?;
    let unpacked = tarball::add(files, output, leave_out);
    let status = child.wait().context("dpkg-deb was lost")?;
    let name = archive.display();
    if !status.success() {
        bail!("dpkg-deb cannot read {name}; delete the file and try again");
    }
    unpacked.with_context(|| format!("cannot unpack {name}"))
}

/// Files that a running program does not need.
const DOCUMENTATION: [&[u8]; 9] = [
    b"usr/share/doc",
    b"usr/share/doc-base",
    b"usr/share/man",
    b"usr/share/info",
    b"usr/share/locale",
    b"usr/share/lintian",
    b"usr/share/bug",
    b"usr/share/apport",
    b"usr/share/vim",
];

fn is_documentation(path: &[u8]) -> bool {
    DOCUMENTATION.iter().any(|folder| {
        path.strip_prefix(*folder)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    })
}

/// Adds one made-up entry, unless a package has brought its own.
fn add_default(files: &mut Files, path: &str, entry: crate::image::files::Entry) -> Result<()> {
    let at = files.resolve_parent(path.as_bytes())?;
    if files.get(&at).is_none() {
        files
            .insert(path.as_bytes(), entry, Existing::Keep)
            .with_context(|| format!("cannot add {}", show(path.as_bytes())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_is_known_by_its_folder() {
        assert!(is_documentation(b"usr/share/doc"));
        assert!(is_documentation(b"usr/share/man/man8/x.8.gz"));
        assert!(!is_documentation(b"usr/share/docker/x"));
        assert!(!is_documentation(b"usr/share"));
    }
}
