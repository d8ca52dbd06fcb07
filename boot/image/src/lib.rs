//! Builds the disk image from which real firmware starts a node.
//!
//! One image boots under BIOS and under UEFI: for each a loader of ours, where that firmware
//! looks for it ([`loaders`]), and two slots for releases of the system: kernel and ramdisk
//! ([`release`]). One more partition is for people. [`layout`] is the one place that says where everything is.
//!
//! The same input always gives the same bytes.

mod bios;
pub mod fat;
pub mod gpt;
mod guide;
pub mod layout;
pub mod loaders;
mod lz4;
pub mod pack;
pub mod release;

use anyhow::{Context as _, Result};
use loaders::Loaders;
use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
};

/// What an image is made of.
pub struct Contents {
    /// The kernel ELF, stripped: the loader reads all of it.
    pub kernel: Vec<u8>,
    /// The ramdisk; `None` or empty leaves the file out, so that the kernel finds none.
    pub ramdisk: Option<Vec<u8>>,
    /// The loaders.
    pub loaders: Loaders,
    /// What the partition `SKEP` holds.
    pub config: Config,
    /// The terms of the release in slot A.
    pub signing: release::Signing,
}

/// The files of the partition `SKEP`.
#[derive(Default)]
pub struct Config {
    /// `skep.toml`.
    pub toml: Vec<u8>,
    /// Signed manifests, by file name.
    pub manifests: Vec<(String, Vec<u8>)>,
}

/// Writes the disk image to `out`, replacing it only once it is whole.
pub fn write_image(contents: &Contents, out: &Path) -> Result<()> {
    whole(out, |disk| layout::write(contents, disk))
}

/// Has `out` written, and there only once it is whole.
fn whole(out: &Path, write: impl FnOnce(&File) -> Result<()>) -> Result<()> {
    let partial = partial(out);
    let disk = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&partial)
        .with_context(|| format!("cannot create {}", partial.display()))?;
    let written = write(&disk)
        .and_then(|()| Ok(disk.sync_all()?))
        .and_then(|()| Ok(fs::rename(&partial, out)?));
    written.with_context(|| {
        let _ = fs::remove_file(&partial);
        format!("cannot write {}", out.display())
    })
}

/// Writes a release to `out`, replacing it only once it is whole.
pub fn write_release(
    kernel: &[u8],
    ramdisk: &[u8],
    signing: &release::Signing,
    out: &Path,
) -> Result<()> {
    let plan = release::Plan::new(kernel, ramdisk)?;
    whole(out, |file| {
        file.set_len(plan.bytes())?;
        plan.write(signing, file, 0)
    })
}

/// Where a file is written until it is whole: beside its place, so that it can be
/// renamed to it.
fn partial(out: &Path) -> PathBuf {
    let mut name = OsString::from(out.file_name().unwrap_or_default());
    name.push(".part");
    out.with_file_name(name)
}

#[cfg(test)]
mod tests;
