//! Volumes that other programs made, read back; damaged and invented ones.

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use proptest::prelude::*;
use skep_volume::{Error, Kind, Volume, Window};
use std::collections::BTreeMap;
use std::io::{Cursor, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

/// Names that need long entries, exact ones, and many pieces.
const NAMES: [&str; 6] = [
    "skep.toml",
    "README.TXT",
    "exactly-13-ab",
    "a name with spaces and a great many characters, over several entries.manifest",
    "größe-日本.txt",
    "UPPER",
];

fn content(index: usize) -> Vec<u8> {
    let len = [0, 1, 511, 70_000, 4096, 12_345][index % 6];
    (0..len).map(|i| (i * 7 + index) as u8).collect()
}

/// A volume of that many KiB with the files of [`NAMES`] in its root and in a folder.
fn formatted(kib: usize, kind: FatType) -> Vec<u8> {
    let mut disk = Cursor::new(vec![0u8; kib << 10]);
    let options = FormatVolumeOptions::new()
        .fat_type(kind)
        .volume_label(*b"SKEP       ");
    fatfs::format_volume(&mut disk, options).unwrap();
    disk.set_position(0);
    let volume = FileSystem::new(&mut disk, FsOptions::new()).unwrap();
    {
        let root = volume.root_dir();
        // Fragments: the first file is removed again, and others fill its place.
        root.create_file("hole")
            .unwrap()
            .write_all(&[1; 9000])
            .unwrap();
        root.create_file("wall")
            .unwrap()
            .write_all(&[2; 9000])
            .unwrap();
        root.remove("hole").unwrap();
        let folder = root.create_dir("Manifests").unwrap();
        for (index, name) in NAMES.iter().enumerate() {
            for place in [&root, &folder] {
                let mut file = place.create_file(name).unwrap();
                file.write_all(&content(index)).unwrap();
            }
        }
        // A folder of several clusters.
        let many = root.create_dir("many").unwrap();
        for index in 0..80 {
            many.create_file(&format!("file number {index}")).unwrap();
        }
    }
    volume.unmount().unwrap();
    disk.into_inner()
}

/// The same, made once for many tries.
fn sample(kib: usize, kind: FatType) -> Vec<u8> {
    static MADE: Mutex<BTreeMap<usize, Vec<u8>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    made.entry(kib)
        .or_insert_with(|| formatted(kib, kind))
        .clone()
}

fn open(bytes: &[u8]) -> Volume<Window<&[u8]>> {
    Volume::open(Window::new(bytes), 0, bytes.len() as u64).unwrap()
}

/// Name and length of the files of a folder.
fn files(volume: &Volume<Window<&[u8]>>, path: &str) -> BTreeMap<String, u32> {
    let entries = volume.list(path).unwrap().into_iter();
    let files = entries.filter_map(|entry| match entry.kind {
        Kind::File { len } => Some((entry.name, len)),
        Kind::Folder => None,
    });
    files.collect()
}

#[test]
fn volumes_of_another_implementation() {
    for (kib, kind) in [
        (1440, FatType::Fat12),
        (16 << 10, FatType::Fat16),
        (64 << 10, FatType::Fat32),
    ] {
        let bytes = formatted(kib, kind);
        let volume = open(&bytes);
        assert_eq!(volume.label().unwrap(), "SKEP", "{kind:?}");
        for (index, name) in NAMES.iter().enumerate() {
            let expected = content(index);
            for path in [name.to_string(), format!("/MANIFESTS/{name}")] {
                let found = volume.read(&path, 1 << 20).unwrap();
                assert!(found == expected, "{kind:?} {path}");
            }
            assert_eq!(files(&volume, "manifests")[*name] as usize, expected.len());
        }
        assert_eq!(volume.list("many").unwrap().len(), 80);
        assert_eq!(volume.read("hole", 10), Err(Error::NotFound));
        assert_eq!(volume.read("many", 10), Err(Error::NotFound));
        assert_eq!(volume.read("UPPER/more", 10), Err(Error::NotFound));
        assert_eq!(volume.read("wall", 8999), Err(Error::TooLong(8999)));
        assert_eq!(volume.list("nothing"), Err(Error::NotFound));
    }
}

/// Runs a program of the system, if it is installed.
fn run(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let Ok(output) = command.args(arguments).output() else {
        eprintln!("not tested: {program} is not installed");
        return false;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {said}");
    true
}

#[test]
fn volumes_of_dosfstools_and_mtools() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("volume");
    let file = folder.path().join("file");
    std::fs::write(&file, content(3)).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_string();
    let (image, file) = (path(&image), path(&file));
    for (bits, kib) in [("12", "2048"), ("16", "32768"), ("32", "65536")] {
        let _ = std::fs::remove_file(&image);
        let made = run("mkfs.vfat", &["-C", "-F", bits, "-n", "SKEP", &image, kib]);
        if !made || !run("mmd", &["-i", &image, "::manifests"]) {
            return;
        }
        for name in NAMES.iter().filter(|name| name.is_ascii()) {
            run("mcopy", &["-i", &image, &file, &format!("::{name}")]);
            run(
                "mcopy",
                &["-i", &image, &file, &format!("::manifests/{name}")],
            );
        }
        let bytes = std::fs::read(&image).unwrap();
        let volume = open(&bytes);
        assert_eq!(volume.label().unwrap(), "SKEP");
        for name in NAMES.iter().filter(|name| name.is_ascii()) {
            assert!(volume.read(name, 1 << 20).unwrap() == content(3), "{name}");
            assert_eq!(files(&volume, "manifests")[*name], 70_000);
        }
        // A file that is replaced, its old entries being marked as deleted.
        std::fs::write(&file, b"new").unwrap();
        run("mcopy", &["-o", "-i", &image, &file, "::skep.toml"]);
        std::fs::write(&file, content(3)).unwrap();
        let bytes = std::fs::read(&image).unwrap();
        assert_eq!(open(&bytes).read("skep.toml", 100).unwrap(), b"new");
        assert_eq!(files(&open(&bytes), "").len(), 5);
    }
}

/// Everything that can be asked of a volume; must end, and in no panic.
fn ask_everything(bytes: &[u8]) {
    let Ok(volume) = Volume::open(Window::new(bytes), 0, bytes.len() as u64) else {
        return;
    };
    let _ = volume.label();
    for path in ["", "manifests", "many"] {
        for entry in volume.list(path).unwrap_or_default().iter().take(12) {
            let _ = volume.read(&format!("{path}/{}", entry.name), 100_000);
            let _ = volume.list(&entry.name);
        }
    }
}

#[test]
fn circles_of_clusters_end() {
    let mut bytes = formatted(16 << 10, FatType::Fat16);
    let reserved = u16::from_le_bytes([bytes[14], bytes[15]]) as usize;
    let sectors = u16::from_le_bytes([bytes[22], bytes[23]]) as usize;
    // Every cluster is followed by itself.
    for (number, entry) in bytes[reserved * 512..][..sectors * 512]
        .chunks_exact_mut(2)
        .enumerate()
        .skip(2)
    {
        entry.copy_from_slice(&(number as u16).to_le_bytes());
    }
    let volume = open(&bytes);
    // The folder's first cluster again and again, up to the limit.
    let seen = volume.list("many").unwrap().len();
    assert!(
        seen > 80 && seen <= skep_volume::LIMITS.folder_bytes / 32,
        "{seen}"
    );
    assert!(volume.read("wall", 9000).is_ok());
    ask_everything(&bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Damage where it hurts: boot sector, tables, folders.
    #[test]
    fn damaged_volumes_are_survived(
        kind in 0..3usize,
        damage in prop::collection::vec((0..1usize << 20, any::<u8>()), 1..200),
        boot in prop::collection::vec((0..96usize, any::<u8>()), 0..4),
    ) {
        let (kib, kind) = [
            (1440, FatType::Fat12),
            (9 << 10, FatType::Fat16),
            (36 << 10, FatType::Fat32),
        ][kind];
        let mut bytes = sample(kib, kind);
        let len = bytes.len();
        for (at, byte) in damage.into_iter().chain(boot) {
            bytes[at % len] = byte;
        }
        ask_everything(&bytes);
    }

    #[test]
    fn inventions_are_survived(mut bytes in prop::collection::vec(any::<u8>(), 0..8192)) {
        ask_everything(&bytes);
        let _ = skep_volume::partitions(&bytes.as_slice());
        if bytes.len() >= 512 {
            // Past the first checks.
            bytes[11..17].copy_from_slice(&[0, 2, 1, 1, 0, 1]);
            bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
            ask_everything(&bytes);
            let _ = skep_volume::partitions(&bytes.as_slice());
        }
    }
}
