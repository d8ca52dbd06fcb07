//! The layout of the boot medium: which partitions there are, and what is in them.
//!
//! | | partition | type | content |
//! | --- | --- | --- | --- |
//! | 1 | `boot stage 2` | BIOS boot | what the boot sector starts |
//! | 2 | `skep boot` | EFI system, FAT16 | loaders, kernel, ramdisk |
//! | 3 | `SKEP` | Microsoft basic data, FAT16 | what people write: `skep.toml`, manifests |
//!
//! The master boot record has all three and the protective entry beside them. The
//! second BIOS stage looks for its own partition there and takes the one after it as
//! the one with the files; UEFI asks for the protective entry; Windows shows of a
//! medium with more than that entry only what is in this record.

use crate::{
    Contents,
    fat::{self, Identity, Item, Layout},
    gpt::{
        self, BACKUP_SECTORS, BASIC_DATA, BIOS_BOOT, EFI_SYSTEM, FIRST_USABLE, Partition, SECTOR,
    },
    guide,
};
use anyhow::{Context as _, Result, ensure};
use std::{fs::File, os::unix::fs::FileExt as _};

/// Partitions begin on whole MiB, as every tool aligns them.
pub const ALIGNMENT: u64 = 2048;

/// Room for people's files, in bytes.
const CONFIG_ROOM: u64 = 32 << 20;

/// What the loader is told: nothing on screen or serial line but a failure.
pub const BOOT_CONFIG: &str = r#"{
  "frame_buffer": {},
  "log_level": "Error",
  "frame_buffer_logging": true,
  "serial_logging": true
}
"#;

/// MBR types: the one by which the second BIOS stage knows itself, and FAT16 by block
/// addresses: that stage takes no other for the files, not even the EFI system's.
const MBR_STAGE_2: u8 = 0x20;
const MBR_FAT16: u8 = 0x0e;

/// Writes the whole medium to `disk`, an empty file.
pub(crate) fn write(contents: &Contents, disk: &File) -> Result<()> {
    let boot = boot_items(contents);
    let config = config_items(contents);
    let boot_layout = Layout::for_items(&boot)?;
    let config_layout = Layout::with_room(CONFIG_ROOM)?;
    let stage_2_sectors = (contents.stages.stage_2.len() as u64).div_ceil(SECTOR);
    ensure!(
        FIRST_USABLE + stage_2_sectors <= ALIGNMENT,
        "the second boot stage is too long"
    );
    let fingerprint = fingerprint(&[&boot, &config]);
    let boot_start = ALIGNMENT;
    let config_start = align(boot_start + boot_layout.sectors());
    let partitions = [
        Partition {
            start: FIRST_USABLE,
            sectors: stage_2_sectors,
            type_guid: BIOS_BOOT,
            guid: guid(fingerprint, 1),
            name: "boot stage 2",
            mbr_type: MBR_STAGE_2,
        },
        Partition {
            start: boot_start,
            sectors: boot_layout.sectors(),
            type_guid: EFI_SYSTEM,
            guid: guid(fingerprint, 2),
            name: "skep boot",
            mbr_type: MBR_FAT16,
        },
        Partition {
            start: config_start,
            sectors: config_layout.sectors(),
            type_guid: BASIC_DATA,
            guid: guid(fingerprint, 3),
            name: "SKEP",
            mbr_type: MBR_FAT16,
        },
    ];
    let sectors = align(config_start + config_layout.sectors() + BACKUP_SECTORS);
    disk.set_len(sectors * SECTOR)?;
    let mut boot_record = contents.stages.boot_sector.clone();
    gpt::fill_boot_record(&mut boot_record, &partitions);
    disk.write_all_at(&boot_record, 0)?;
    gpt::tables(sectors, guid(fingerprint, 0), &partitions).write(disk, sectors)?;
    disk.write_all_at(&contents.stages.stage_2, FIRST_USABLE * SECTOR)?;
    let identity = |label: &[u8; 11], index: u32| Identity {
        label: *label,
        serial: (fingerprint as u32).wrapping_add(index),
    };
    let boot_at = boot_start * SECTOR;
    fat::write(
        disk,
        boot_at,
        &boot_layout,
        identity(b"SKEP-BOOT  ", 2),
        &boot,
    )
    .context("the boot partition")?;
    let config_at = config_start * SECTOR;
    fat::write(
        disk,
        config_at,
        &config_layout,
        identity(b"SKEP       ", 3),
        &config,
    )
    .context("the partition SKEP")
}

/// What the firmware and its loader read.
fn boot_items(contents: &Contents) -> Vec<Item<'_>> {
    let stages = &contents.stages;
    // The BIOS stages look for these four by the long names, in pieces no longer
    // than 13 characters.
    let mut items = vec![
        file("boot-stage-3", &stages.stage_3),
        file("boot-stage-4", &stages.stage_4),
        file("kernel-x86_64", &contents.kernel),
        file("boot.json", BOOT_CONFIG.as_bytes()),
    ];
    // The loaders stop at a file without a single cluster: to them, empty is absent.
    if let Some(ramdisk) = contents.ramdisk.as_ref().filter(|data| !data.is_empty()) {
        items.push(file("ramdisk", ramdisk));
    }
    // What firmware starts from a disk it does not know.
    let program = file("BOOTX64.EFI", &stages.uefi);
    items.push(folder("EFI", vec![folder("BOOT", vec![program])]));
    items
}

/// What people read and write.
fn config_items(contents: &Contents) -> Vec<Item<'_>> {
    let config = &contents.config;
    let manifests = config.manifests.iter();
    vec![
        file("skep.toml", &config.toml),
        file("README.TXT", guide::README.as_bytes()),
        folder(
            "manifests",
            manifests.map(|(name, data)| file(name, data)).collect(),
        ),
    ]
}

fn file<'a>(name: &'a str, data: &'a [u8]) -> Item<'a> {
    Item::File { name, data }
}

fn folder<'a>(name: &'a str, items: Vec<Item<'a>>) -> Item<'a> {
    Item::Folder { name, items }
}

fn align(sector: u64) -> u64 {
    sector.next_multiple_of(ALIGNMENT)
}

/// A number that differs between media of different content (FNV-1a), so that two
/// disks in one machine do not share identifiers.
fn fingerprint(volumes: &[&[Item<'_>]]) -> u64 {
    fn add(hash: u64, items: &[Item<'_>]) -> u64 {
        items.iter().fold(hash, |hash, item| match item {
            Item::File { data, .. } => data.iter().fold(hash, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            }),
            Item::Folder { items, .. } => add(hash, items),
        })
    }
    let volumes = volumes.iter();
    volumes.fold(0xcbf2_9ce4_8422_2325, |hash, items| add(hash, items))
}

/// A GUID of version 8 (RFC 9562: by the maker's own rule) for item `index`.
fn guid(fingerprint: u64, index: u8) -> [u8; 16] {
    let mut guid = [0u8; 16];
    guid[..8].copy_from_slice(&fingerprint.to_le_bytes());
    guid[7] = guid[7] & 0x0f | 0x80;
    guid[8] = 0x80;
    guid[9..13].copy_from_slice(b"skep");
    guid[15] = index;
    guid
}
