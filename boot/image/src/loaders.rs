//! The programs that firmware starts from a disk.

use crate::release::Signing;
use anyhow::{Context as _, Result, ensure};
use skep_api::boot::LOADER_KEY_MARKER;
use std::{fs, path::Path};

/// The loaders as they were built, with no release key in them yet.
#[derive(Clone)]
pub struct Loaders {
    /// What a BIOS starts (`boot/bios`), from the boot sector on.
    pub bios: Vec<u8>,
    /// What UEFI firmware starts (`boot/uefi`).
    pub uefi: Vec<u8>,
}

impl Loaders {
    /// Reads them from the folder that `scripts/build` leaves them in.
    ///
    /// # Errors
    /// They are not there.
    pub fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(Self {
            bios: read("bios")?,
            uefi: read("uefi")?,
        })
    }
}

/// A loader with the public half of the release key in its place.
///
/// # Errors
/// The program is not our loader.
pub fn with_key(program: &[u8], signing: &Signing) -> Result<Vec<u8>> {
    let marker = &LOADER_KEY_MARKER;
    let mut found = (0..program.len()).filter(|&at| program[at..].starts_with(marker));
    let key_at = found.next().context("the loader has no place for a key")? + marker.len();
    ensure!(
        found.next().is_none(),
        "the loader has several places for a key"
    );
    let mut program = program.to_vec();
    program
        .get_mut(key_at..key_at + 32)
        .context("the loader is cut short")?
        .copy_from_slice(&signing.key.public().0);
    Ok(program)
}
