//! Partition tables that other programs made, read back; damaged ones.

use proptest::prelude::*;
use skep_volume::{BASIC_DATA, Error, Type, partitions};
use std::io::Write as _;
use std::process::{Command, Stdio};

const MIB: u64 = 1 << 20;

/// A disk of 8 MiB with a table that `sfdisk` wrote from this script; `None` without it.
fn disk(script: &str) -> Option<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0; 8 << 20]).unwrap();
    let mut command = Command::new("sfdisk");
    command.arg("--quiet").arg(&path).stdin(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        eprintln!("not tested: sfdisk is not installed");
        return None;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    Some(std::fs::read(&path).unwrap())
}

const GPT: &str = "label: gpt\n\
    start=2048, size=2048, name=\"skep boot\", type=U\n\
    start=4096, size=4096, name=\"SKEP\", type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7\n";

fn is_that_table(disk: &[u8]) {
    let found = partitions(&disk).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(
        (found[0].name.as_str(), found[0].start, found[0].len),
        ("skep boot", MIB, MIB)
    );
    assert_eq!(
        (found[1].name.as_str(), found[1].start, found[1].len),
        ("SKEP", 2 * MIB, 2 * MIB)
    );
    assert_eq!(
        (found[1].kind, found[1].number),
        (Type::Guid(BASIC_DATA), 2)
    );
}

#[test]
fn a_guid_partition_table_and_its_backup() {
    let Some(mut disk) = disk(GPT) else { return };
    is_that_table(&disk);
    // The first copy is gone, then damaged, then the second too.
    disk[512..520].fill(0);
    is_that_table(&disk);
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[512 + 40] ^= 1;
    is_that_table(&disk);
    let last = disk.len() - 512;
    disk[last + 40] ^= 1;
    assert_eq!(
        partitions(&disk.as_slice()),
        Err(Error::Damaged("its partition table"))
    );
}

#[test]
fn a_master_boot_record() {
    let Some(disk) = disk("label: dos\nstart=2048, size=4096, type=c, bootable\n") else {
        return;
    };
    let found = partitions(&disk.as_slice()).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].kind, found[0].start, found[0].len),
        (Type::Mbr(0xc), MIB, 2 * MIB)
    );
    assert_eq!(partitions(&[0u8; 4096].as_slice()), Ok(vec![]));
    assert_eq!(partitions(&[0u8; 100].as_slice()), Ok(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_tables_are_survived(
        damage in prop::collection::vec((0..34 * 512usize, any::<u8>()), 1..8),
    ) {
        let Some(mut disk) = TABLE.clone() else { return Ok(()) };
        for (at, byte) in damage {
            disk[at] = byte;
        }
        for partition in partitions(&disk.as_slice()).unwrap_or_default() {
            prop_assert!(partition.start + partition.len <= disk.len() as u64);
        }
    }
}

static TABLE: std::sync::LazyLock<Option<Vec<u8>>> = std::sync::LazyLock::new(|| disk(GPT));
