//! A release of the system: what fills a slot of a disk, and what updates one.
//!
//! It is a FAT volume, which every computer can look into, with a signed head in its
//! reserved sectors, by which our loaders and the kernel go: the layout is in
//! `skep_api::boot::release`. The same input always gives the same bytes.

use crate::{
    fat::{self, Identity, Item, Layout},
    gpt::SECTOR,
};
use anyhow::{Context as _, Result, ensure};
use skep_api::{
    Hash, KeyPair,
    boot::{
        Release,
        release::{
            COMMAND_LINE_BYTES_MAX, HEAD_AT, HEAD_END, HEALTH_SECONDS_DEFAULT, Piece,
            RELEASE_BYTES_MAX,
        },
        state::TRIES_DEFAULT,
    },
    hash::Hasher,
};
use std::{fs::File, os::unix::fs::FileExt as _};

const KERNEL: &str = "kernel-x86_64";
const RAMDISK: &str = "ramdisk";

/// What a release is, beside its files.
#[derive(Clone)]
pub struct Signing {
    /// The release key.
    pub key: KeyPair,
    /// Its number: nodes take none that is not higher than what they run.
    pub version: u64,
    /// What the kernel is told.
    pub command_line: String,
    /// Seconds within which a node must be healthy with it.
    pub health_seconds: u32,
    /// How often it may be started without having been healthy.
    pub tries: u8,
}

impl Signing {
    /// The usual terms.
    pub fn new(key: KeyPair, version: u64) -> Self {
        Self {
            key,
            version,
            command_line: String::new(),
            health_seconds: HEALTH_SECONDS_DEFAULT,
            tries: TRIES_DEFAULT,
        }
    }
}

/// A release that is about to be written.
pub struct Plan<'a> {
    kernel: &'a [u8],
    ramdisk: &'a [u8],
    items: Vec<Item<'a>>,
    layout: Layout,
    len: u64,
}

impl<'a> Plan<'a> {
    /// Of a kernel and a ramdisk, which may be empty.
    pub fn new(kernel: &'a [u8], ramdisk: &'a [u8]) -> Result<Self> {
        let items = items(kernel, ramdisk);
        let layout = Layout::with_head(&items)?;
        let len = layout.used_bytes(&items);
        ensure!(len <= RELEASE_BYTES_MAX, "the release is over 2 GiB");
        Ok(Self {
            kernel,
            ramdisk,
            items,
            layout,
            len,
        })
    }

    /// Its files.
    pub(crate) fn items(&self) -> &[Item<'a>] {
        &self.items
    }

    /// Its length in bytes: up to the end of its last file.
    pub fn bytes(&self) -> u64 {
        self.len
    }

    /// Bytes of the volume that it is the beginning of.
    pub(crate) fn volume_bytes(&self) -> u64 {
        self.layout.sectors() * SECTOR
    }

    /// Writes it at `offset` bytes into `disk`, which must read as zeroes there.
    pub fn write(&self, signing: &Signing, disk: &File, offset: u64) -> Result<()> {
        ensure!(
            signing.command_line.len() <= COMMAND_LINE_BYTES_MAX,
            "the kernel's command line is over {COMMAND_LINE_BYTES_MAX} bytes"
        );
        let identity = Identity {
            label: *b"SKEP-SLOT  ",
            serial: signing.version as u32,
        };
        let places = fat::write(disk, offset, &self.layout, identity, &self.items)?;
        let piece = |name: &str, data: &[u8]| -> Result<Piece> {
            let place = places.iter().find(|(found, _)| found == name);
            let offset = match data.is_empty() {
                true => 0,
                false => place.context("a file has no place in the release")?.1,
            };
            Ok(Piece {
                offset,
                len: data.len() as u64,
                hash: Hash::of(data),
            })
        };
        let release = Release {
            version: signing.version,
            len: self.len,
            kernel: piece(KERNEL, self.kernel)?,
            ramdisk: piece(RAMDISK, self.ramdisk)?,
            volume: volume_hash(disk, offset, self.len)?,
            key: signing.key.public(),
            health_seconds: signing.health_seconds,
            tries: signing.tries,
            command_line: signing.command_line.clone(),
        };
        disk.write_all_at(&release.sign(&signing.key), offset + HEAD_AT as u64)?;
        Ok(())
    }
}

fn items<'a>(kernel: &'a [u8], ramdisk: &'a [u8]) -> Vec<Item<'a>> {
    let file = |name, data| Item::File { name, data };
    let mut items = vec![file(KERNEL, kernel)];
    // A file without a single cluster has no place.
    if !ramdisk.is_empty() {
        items.push(file(RAMDISK, ramdisk));
    }
    items
}

/// The hash of all bytes of a volume but the head.
fn volume_hash(disk: &File, offset: u64, len: u64) -> Result<Hash> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    disk.read_exact_at(&mut buffer[..HEAD_AT], offset)?;
    hasher.update(&buffer[..HEAD_AT]);
    let mut at = HEAD_END as u64;
    while at < len {
        let count = usize::try_from(len - at)?.min(buffer.len());
        disk.read_exact_at(&mut buffer[..count], offset + at)?;
        hasher.update(&buffer[..count]);
        at += count as u64;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests;
