//! The layout of the boot medium: which partitions there are, and what is in them.
//!
//! | | partition | type | content |
//! | --- | --- | --- | --- |
//! | 1 | `skep bios` | BIOS boot | our BIOS loader, which the boot sector reads |
//! | 2 | `skep boot` | EFI system, FAT16 | our UEFI loader |
//! | 3 | `SKEP` | Microsoft basic data, FAT16 | what people write: `skep.toml`, manifests |
//! | 4 | `skep state` | ours | which slot is started (`skep_api::boot::state`) |
//! | 5 | `skep slot a` | ours, FAT16 | a release: kernel and ramdisk |
//! | 6 | `skep slot b` | ours | nothing yet: the place of the next release |
//!
//! The master boot record has the first, `SKEP` and the protective entry: some BIOSes start
//! no disk without an active entry; UEFI asks for the protective one; Windows shows of a medium
//! with more than that entry only what is in this record.

use crate::{
    Contents,
    bios::Bios,
    fat::{self, Identity, Item, Layout},
    gpt::{
        self, BACKUP_SECTORS, BASIC_DATA, BIOS_BOOT, EFI_SYSTEM, FIRST_USABLE, Partition, SECTOR,
    },
    guide,
    loaders::with_key,
    release::Plan,
};
use anyhow::{Context as _, Result, ensure};
use skep_api::boot::{BootState, SLOT_TYPE, STATE_TYPE};
use std::{fs::File, os::unix::fs::FileExt as _};

/// Partitions begin on whole MiB, as every tool aligns them.
pub const ALIGNMENT: u64 = 2048;

/// Room for people's files, in bytes.
const CONFIG_ROOM: u64 = 32 << 20;

/// MBR types: none, data without files, and FAT16 by block addresses.
const MBR_NONE: u8 = 0;
const MBR_DATA: u8 = 0xda;
const MBR_FAT16: u8 = 0x0e;

/// Sectors of the boot state: its two copies, and room.
const STATE_SECTORS: u64 = 128;
/// Least bytes of a slot: releases grow.
const SLOT_BYTES_MIN: u64 = 64 << 20;
/// What a slot's length is a multiple of.
const SLOT_STEP: u64 = 16 << 20;

/// Where everything is, in sectors.
struct Places {
    bios_sectors: u64,
    boot: Layout,
    config_start: u64,
    config: Layout,
    state_start: u64,
    slot_starts: [u64; 2],
    slot_sectors: u64,
    /// Of the whole medium.
    sectors: u64,
}

impl Places {
    fn new(bios_sectors: u64, boot: Layout, volume_bytes: u64) -> Result<Self> {
        ensure!(
            FIRST_USABLE + bios_sectors <= ALIGNMENT,
            "the BIOS loader is too long"
        );
        let config = Layout::with_room(CONFIG_ROOM)?;
        let config_start = align(ALIGNMENT + boot.sectors());
        let state_start = align(config_start + config.sectors());
        // Half as much again as the first release's volume.
        let slot_bytes = (volume_bytes + volume_bytes / 2).max(SLOT_BYTES_MIN);
        let slot_sectors = slot_bytes.next_multiple_of(SLOT_STEP) / SECTOR;
        let first_slot = align(state_start + STATE_SECTORS);
        let slot_starts = [first_slot, first_slot + slot_sectors];
        Ok(Self {
            bios_sectors,
            boot,
            config_start,
            config,
            state_start,
            slot_starts,
            slot_sectors,
            sectors: align(first_slot + 2 * slot_sectors + BACKUP_SECTORS),
        })
    }

    /// In the order of their numbers.
    fn partitions(&self, fingerprint: u64) -> [Partition; 6] {
        let [slot_a, slot_b] = self.slot_starts;
        let mut number = 0;
        let mut partition = |name, type_guid, start, sectors, mbr_type| {
            number += 1;
            Partition {
                start,
                sectors,
                type_guid,
                guid: guid(fingerprint, number),
                name,
                mbr_type,
            }
        };
        [
            partition(
                "skep bios",
                BIOS_BOOT,
                FIRST_USABLE,
                self.bios_sectors,
                MBR_DATA,
            ),
            partition(
                "skep boot",
                EFI_SYSTEM,
                ALIGNMENT,
                self.boot.sectors(),
                MBR_NONE,
            ),
            partition(
                "SKEP",
                BASIC_DATA,
                self.config_start,
                self.config.sectors(),
                MBR_FAT16,
            ),
            partition(
                "skep state",
                STATE_TYPE,
                self.state_start,
                STATE_SECTORS,
                MBR_NONE,
            ),
            partition(
                "skep slot a",
                SLOT_TYPE,
                slot_a,
                self.slot_sectors,
                MBR_NONE,
            ),
            partition(
                "skep slot b",
                SLOT_TYPE,
                slot_b,
                self.slot_sectors,
                MBR_NONE,
            ),
        ]
    }
}

/// Writes the whole medium to `disk`, an empty file.
pub(crate) fn write(contents: &Contents, disk: &File) -> Result<()> {
    let ramdisk = contents.ramdisk.as_deref().unwrap_or_default();
    let release = Plan::new(&contents.kernel, ramdisk)?;
    let (loaders, signing) = (&contents.loaders, &contents.signing);
    let bios = Bios::new(&loaders.bios, signing, FIRST_USABLE)?;
    let uefi = with_key(&loaders.uefi, signing).context("the UEFI loader")?;
    let boot = boot_items(&uefi);
    let config = config_items(contents);
    let boot_layout = Layout::for_items(&boot)?;
    let places = Places::new(bios.sectors(), boot_layout, release.volume_bytes())?;
    let fingerprint = fingerprint(&[release.items(), &boot, &config]);
    let partitions = places.partitions(fingerprint);
    disk.set_len(places.sectors * SECTOR)?;
    let mut boot_record = bios.boot_sector;
    let [bios_boot, _, people, ..] = partitions.clone();
    gpt::fill_boot_record(&mut boot_record, &[bios_boot, people]);
    disk.write_all_at(&boot_record, 0)?;
    gpt::tables(places.sectors, guid(fingerprint, 0), &partitions).write(disk, places.sectors)?;
    disk.write_all_at(&bios.loader, FIRST_USABLE * SECTOR)?;
    let identity = |label: &[u8; 11], index: u32| Identity {
        label: *label,
        serial: (fingerprint as u32).wrapping_add(index),
    };
    let boot_identity = identity(b"SKEP-BOOT  ", 2);
    fat::write(disk, ALIGNMENT * SECTOR, &places.boot, boot_identity, &boot)
        .context("the boot partition")?;
    let config_at = places.config_start * SECTOR;
    let config_identity = identity(b"SKEP       ", 3);
    fat::write(disk, config_at, &places.config, config_identity, &config)
        .context("the partition SKEP")?;
    let state = BootState::fresh(contents.signing.version).encode();
    disk.write_all_at(&state, places.state_start * SECTOR)?;
    let [slot_a, _] = places.slot_starts;
    release
        .write(&contents.signing, disk, slot_a * SECTOR)
        .context("slot A")
}

/// What UEFI firmware reads: what it starts from a disk it does not know.
fn boot_items(loader: &[u8]) -> Vec<Item<'_>> {
    let program = file("BOOTX64.EFI", loader);
    vec![folder("EFI", vec![folder("BOOT", vec![program])])]
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
