//! A release as the loader, the kernel and another FAT implementation read it.

use super::{Plan, Signing};
use skep_api::{
    Hash, KeyPair,
    boot::{
        Release,
        release::{HEAD_AT, HEAD_END},
    },
    hash::Hasher,
};
use std::{
    fs::{self, File},
    io::{Cursor, Read as _},
};

fn signing() -> Signing {
    Signing::new(KeyPair::from_seed([7; 32]).unwrap(), 12)
}

/// The bytes of a release, written at `offset` of a file.
fn written(kernel: &[u8], ramdisk: &[u8], offset: u64) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!(
        "skep-release-{}-{}-{offset}",
        std::process::id(),
        ramdisk.len()
    ));
    let mut file = File::options();
    let file = file.read(true).write(true).create(true).truncate(true);
    let file = file.open(&path).unwrap();
    let plan = Plan::new(kernel, ramdisk).unwrap();
    file.set_len(offset + plan.bytes()).unwrap();
    plan.write(&signing(), &file, offset).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    bytes[offset as usize..].to_vec()
}

#[test]
fn the_head_says_where_everything_is_and_holds_for_all_of_it() {
    let kernel: Vec<u8> = (0..300_001u32).map(|i| (i % 251) as u8).collect();
    for ramdisk_len in [0, 1, 4096, 20_000_000, 70_000_000] {
        let ramdisk: Vec<u8> = (0..ramdisk_len).map(|i| (i / 7) as u8).collect();
        let bytes = written(&kernel, &ramdisk, 0);
        let key = signing().key.public();
        let release = Release::verify(&bytes[HEAD_AT..HEAD_END], &key).unwrap();
        assert_eq!((release.version, release.len), (12, bytes.len() as u64));
        let piece = |piece: skep_api::boot::release::Piece| {
            &bytes[piece.offset as usize..][..piece.len as usize]
        };
        assert!(piece(release.kernel) == kernel && release.kernel.hash == Hash::of(&kernel));
        assert!(piece(release.ramdisk) == ramdisk && release.ramdisk.hash == Hash::of(&ramdisk));
        let mut volume = Hasher::new();
        volume.update(&bytes[..HEAD_AT]);
        volume.update(&bytes[HEAD_END..]);
        assert_eq!(volume.finish(), release.volume);
    }
}

#[test]
fn another_fat_implementation_finds_the_files_behind_the_head() {
    let bytes = written(&[1; 100_000], &[2; 5_000_000], 0);
    let volume = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
    assert_eq!(volume.fat_type(), fatfs::FatType::Fat16);
    let mut ramdisk = Vec::new();
    let mut file = volume.root_dir().open_file("ramdisk").unwrap();
    file.read_to_end(&mut ramdisk).unwrap();
    assert!(ramdisk == [2; 5_000_000]);
    assert!(volume.root_dir().open_file("kernel-x86_64").is_ok());
}

#[test]
fn a_release_is_the_same_wherever_it_lies() {
    let at = |offset| written(&[1; 100_000], &[2; 1_000_000], offset);
    assert!(at(0) == at(1 << 20));
}
