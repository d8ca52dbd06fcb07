//! The files that a suite lays over those of its packages.

use crate::{Artifacts, command::output};
use anyhow::{Context as _, Result};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Path in the capsule, mode and content of files.
pub(crate) type Files = Vec<(String, u16, Vec<u8>)>;

/// A folder of this machine whose files are to be found in the capsule.
pub(super) struct Layer(PathBuf);

impl Layer {
    /// Where the files of a suite are gathered; what an earlier run left may be there.
    pub(super) fn of(suite: &str) -> Self {
        Self(Artifacts::new().out().join("suites").join(suite))
    }

    /// An empty one.
    pub(super) fn empty(suite: &str) -> Result<Self> {
        let layer = Self::of(suite);
        if layer.0.exists() {
            fs::remove_dir_all(&layer.0)?;
        }
        fs::create_dir_all(&layer.0)?;
        Ok(layer)
    }

    /// The folder.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Adds a file, by its path in the capsule.
    pub(super) fn add(&self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        let path = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, data)?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    /// Adds everything in a folder of this machine, as what `path` is in the capsule.
    pub(super) fn copy(&self, from: &Path, path: &str) -> Result<()> {
        let to = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(&to)?;
        let mut copy = Command::new("cp");
        copy.args(["-a", "--no-preserve=ownership"]);
        output(copy.arg(from.join(".")).arg(to))?;
        Ok(())
    }

    /// All its files; symbolic links are what they lead to.
    pub(super) fn files(&self) -> Result<Files> {
        let mut files = Files::new();
        collect(&self.0, &self.0, Path::new("/"), &mut files)?;
        Ok(files)
    }
}

/// Everything below `folder` in `root`, which is `inside` in the capsule.
pub(crate) fn collect(root: &Path, folder: &Path, inside: &Path, files: &mut Files) -> Result<()> {
    let listed = fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))?;
    for entry in listed {
        let path = entry?.path();
        let meta = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?;
        if meta.is_dir() {
            collect(root, &path, inside, files)?;
            continue;
        }
        let mode = u16::try_from(meta.permissions().mode() & 0o7777)?;
        let name = inside.join(path.strip_prefix(root)?);
        files.push((name.to_string_lossy().into_owned(), mode, fs::read(&path)?));
    }
    Ok(())
}
