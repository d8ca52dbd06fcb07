//! Builds the disk image from which real firmware starts a node.
//!
//! One image boots under BIOS and under UEFI: boot sector and second stage for
//! the one, an EFI system partition for the other, and in that partition the
//! kernel, the ramdisk and the later BIOS stages that both need.
//!
//! The same input always gives the same bytes.

pub mod fat;
pub mod gpt;
pub mod stages;

use anyhow::{Context as _, Result, ensure};
use fat::{Layout, RootFile};
use gpt::{BACKUP_SECTORS, BIOS_BOOT, EFI_SYSTEM, FIRST_USABLE, Partition, SECTOR};
use stages::Stages;
use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

/// Where the partition with the files starts: 1 MiB, as every tool aligns it.
const FILES_START: u64 = 2048;

/// What the loader is told: nothing on screen or serial line but a failure.
const BOOT_CONFIG: &str = r#"{
  "frame_buffer": {},
  "log_level": "Error",
  "frame_buffer_logging": true,
  "serial_logging": true
}
"#;

/// What an image is made of.
pub struct Contents {
    /// The kernel ELF, stripped: the loader reads all of it.
    pub kernel: Vec<u8>,
    /// The ramdisk; `None` or empty leaves the file out, so that the kernel finds none.
    pub ramdisk: Option<Vec<u8>>,
    /// The boot loader.
    pub stages: Stages,
}

/// Writes the disk image to `out`, replacing it only once it is whole.
pub fn write_image(contents: &Contents, out: &Path) -> Result<()> {
    let partial = out.with_extension("part");
    let disk = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&partial)
        .with_context(|| format!("cannot create {}", partial.display()))?;
    write_disk(contents, &disk).with_context(|| format!("cannot write {}", out.display()))?;
    fs::rename(&partial, out).with_context(|| format!("cannot create {}", out.display()))
}

fn write_disk(contents: &Contents, disk: &File) -> Result<()> {
    let stages = &contents.stages;
    let mut files = vec![
        RootFile {
            name: "boot-stage-3",
            data: &stages.stage_3,
        },
        RootFile {
            name: "boot-stage-4",
            data: &stages.stage_4,
        },
        RootFile {
            name: "kernel-x86_64",
            data: &contents.kernel,
        },
        RootFile {
            name: "boot.json",
            data: BOOT_CONFIG.as_bytes(),
        },
    ];
    // The loaders stop at a file without a single cluster: to them, empty is absent.
    if let Some(ramdisk) = contents.ramdisk.as_ref().filter(|data| !data.is_empty()) {
        files.push(RootFile {
            name: "ramdisk",
            data: ramdisk,
        });
    }
    let lengths = files.iter().map(|file| file.data.len() as u64);
    let layout = Layout::for_files(lengths.chain([stages.uefi.len() as u64]))?;

    let stage_2_sectors = (stages.stage_2.len() as u64).div_ceil(SECTOR);
    ensure!(
        FIRST_USABLE + stage_2_sectors <= FILES_START,
        "the second boot stage is too long"
    );
    let fingerprint = fingerprint(&files);
    let partitions = [
        Partition {
            start: FIRST_USABLE,
            sectors: stage_2_sectors,
            type_guid: BIOS_BOOT,
            guid: guid(fingerprint, 1),
            name: "boot stage 2",
            mbr_type: 0x20,
        },
        Partition {
            start: FILES_START,
            sectors: layout.sectors(),
            type_guid: EFI_SYSTEM,
            guid: guid(fingerprint, 2),
            name: "skep boot",
            mbr_type: 0x0e,
        },
    ];
    let sectors = FILES_START + layout.sectors() + BACKUP_SECTORS;
    disk.set_len(sectors * SECTOR)?;
    let mut boot_record = stages.boot_sector.clone();
    gpt::fill_boot_record(&mut boot_record, &partitions);
    let tables = gpt::tables(sectors, guid(fingerprint, 0), &partitions);
    disk.write_all_at(&boot_record, 0)?;
    disk.write_all_at(&tables.primary, SECTOR)?;
    disk.write_all_at(&tables.backup, (sectors - BACKUP_SECTORS) * SECTOR)?;
    disk.write_all_at(&stages.stage_2, FIRST_USABLE * SECTOR)?;
    fat::write(disk, FILES_START * SECTOR, &layout, &files, &stages.uefi)
}

/// A number that differs between images of different content (FNV-1a), so that
/// two disks in one machine do not share identifiers.
fn fingerprint(files: &[RootFile<'_>]) -> u64 {
    files
        .iter()
        .flat_map(|file| file.data)
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
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

#[cfg(test)]
mod tests {
    use super::{Contents, FILES_START, SECTOR, Stages, write_image};
    use std::{
        fs,
        io::{Cursor, Read as _},
    };

    fn contents(ramdisk_len: usize) -> Contents {
        Contents {
            kernel: (0..100_000u32).map(|i| i as u8).collect(),
            ramdisk: Some((0..ramdisk_len).map(|i| (i / 7) as u8).collect()),
            stages: Stages {
                boot_sector: vec![0x90; 512],
                stage_2: vec![2; 30_000],
                stage_3: vec![3; 70_000],
                stage_4: vec![4; 5_000],
                uefi: vec![5; 250_000],
            },
        }
    }

    fn image(contents: &Contents, name: &str) -> Vec<u8> {
        let path = std::env::temp_dir().join(format!("skep-image-{}-{name}", std::process::id()));
        write_image(contents, &path).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        bytes
    }

    /// An independent reader must find every file, whatever the cluster size.
    #[test]
    fn another_fat_implementation_reads_the_files_back() {
        for (index, ramdisk_len) in [0, 1, 5_000_000, 70_000_000].into_iter().enumerate() {
            let contents = contents(ramdisk_len);
            let bytes = image(&contents, &format!("read-back-{index}.img"));
            let volume = bytes[(FILES_START * SECTOR) as usize..].to_vec();
            let fs = fatfs::FileSystem::new(Cursor::new(volume), fatfs::FsOptions::new()).unwrap();
            assert_eq!(fs.fat_type(), fatfs::FatType::Fat16);
            let read = |name: &str| {
                let mut data = Vec::new();
                fs.root_dir()
                    .open_file(name)
                    .ok()?
                    .read_to_end(&mut data)
                    .ok()?;
                Some(data)
            };
            assert!(read("kernel-x86_64") == Some(contents.kernel));
            assert!(read("ramdisk") == contents.ramdisk.filter(|data| !data.is_empty()));
            assert!(read("boot-stage-3") == Some(contents.stages.stage_3));
            assert!(read("EFI/BOOT/BOOTX64.EFI") == Some(contents.stages.uefi));
        }
    }

    #[test]
    fn same_input_gives_same_bytes() {
        let first = image(&contents(100_000), "same-1.img");
        assert!(first == image(&contents(100_000), "same-2.img"));
        assert!(first != image(&contents(100_001), "same-3.img"));
    }

    #[test]
    fn stage_2_that_would_run_into_the_files_is_refused() {
        let mut contents = contents(1);
        contents.stages.stage_2 = vec![2; 2 << 20];
        let path = std::env::temp_dir().join("skep-image-refused.img");
        assert!(write_image(&contents, &path).is_err());
    }
}
