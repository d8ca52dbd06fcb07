//! The image as other programs read it.

use super::{
    Config, Contents, gpt::SECTOR, layout::ALIGNMENT, loaders::Loaders, release::Signing,
    write_image,
};
use skep_api::{
    KeyPair,
    boot::{
        BootState, LOADER_KEY_MARKER, Release, Slot,
        disk::{ENTRIES_BYTES_MAX, Header},
        release::{HEAD_AT, HEAD_END},
    },
};
use std::{
    fs,
    io::{Cursor, Read as _},
    path::{Path, PathBuf},
    process::Command,
};

fn contents(ramdisk_len: usize) -> Contents {
    Contents {
        kernel: (0..100_000u32).map(|i| i as u8).collect(),
        ramdisk: Some((0..ramdisk_len).map(|i| (i / 7) as u8).collect()),
        loaders: Loaders {
            bios: [
                vec![0x90; 428],
                vec![0; 0x400 - 428],
                vec![2; 100_000],
                LOADER_KEY_MARKER.to_vec(),
                vec![0; 32],
            ]
            .concat(),
            uefi: [
                vec![5; 200_000],
                LOADER_KEY_MARKER.to_vec(),
                vec![0; 50_000],
            ]
            .concat(),
        },
        config: Config {
            toml: b"name = \"a\"\n".to_vec(),
            manifests: vec![("nginx.manifest".to_string(), vec![6; 5000])],
        },
        signing: Signing::new(KeyPair::from_seed([7; 32]).unwrap(), 3),
    }
}

/// An image that goes when this is dropped.
struct Image(PathBuf);

impl Image {
    fn new(contents: &Contents, name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("skep-image-{}-{name}", std::process::id()));
        write_image(contents, &path).unwrap();
        Self(path)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }

    /// First sector and number of sectors of a partition, by its number from 1 on.
    fn partition(&self, number: usize) -> (u64, u64) {
        let bytes = self.bytes();
        let entry = &bytes[1024 + 128 * (number - 1)..][..128];
        let word = |at: usize| u64::from_le_bytes(entry[at..at + 8].try_into().unwrap());
        (word(32), word(40) - word(32) + 1)
    }

    /// First sectors and numbers of sectors in the master boot record.
    fn boot_record(&self) -> [(u64, u64); 4] {
        let bytes = self.bytes();
        std::array::from_fn(|index| {
            let entry = &bytes[446 + 16 * index..][..16];
            let word =
                |at: usize| u64::from(u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()));
            (word(8), word(12))
        })
    }

    /// The volume in a partition, as another implementation of FAT sees it.
    fn volume(&self, number: usize) -> fatfs::FileSystem<Cursor<Vec<u8>>> {
        let (start, sectors) = self.partition(number);
        let volume = &self.bytes()[(start * SECTOR) as usize..][..(sectors * SECTOR) as usize];
        fatfs::FileSystem::new(Cursor::new(volume.to_vec()), fatfs::FsOptions::new()).unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn read(volume: &fatfs::FileSystem<Cursor<Vec<u8>>>, name: &str) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    let mut file = volume.root_dir().open_file(name).ok()?;
    file.read_to_end(&mut data).ok()?;
    Some(data)
}

/// An independent reader must find every file, whatever the cluster size.
#[test]
fn another_fat_implementation_reads_the_files_back() {
    for (index, ramdisk_len) in [0, 1, 5_000_000, 70_000_000].into_iter().enumerate() {
        let contents = contents(ramdisk_len);
        let image = Image::new(&contents, &format!("read-back-{index}.img"));
        let slot = image.volume(5);
        assert_eq!(slot.fat_type(), fatfs::FatType::Fat16);
        assert_eq!(slot.volume_label(), "SKEP-SLOT");
        assert!(read(&slot, "kernel-x86_64") == Some(contents.kernel));
        assert!(read(&slot, "ramdisk") == contents.ramdisk.filter(|data| !data.is_empty()));
        let boot = image.volume(2);
        assert_eq!(boot.volume_label(), "SKEP-BOOT");
        let loader = read(&boot, "EFI/BOOT/BOOTX64.EFI").unwrap();
        assert!(loader[..200_032] == contents.loaders.uefi[..200_032]);
        assert!(loader[200_032..][..32] == contents.signing.key.public().0);
        assert!(loader[200_064..] == contents.loaders.uefi[200_064..]);
        let config = image.volume(3);
        assert_eq!(config.volume_label(), "SKEP");
        assert!(read(&config, "skep.toml") == Some(contents.config.toml));
        assert!(read(&config, "README.TXT").is_some_and(|text| text.ends_with(b"\r\n")));
        let manifest = read(&config, "manifests/nginx.manifest");
        assert!(manifest.as_ref() == Some(&contents.config.manifests[0].1));
    }
}

#[test]
fn loaders_find_the_slots_and_their_state() {
    let image = Image::new(&contents(100_000), "slots.img");
    let bytes = image.bytes();
    let sectors = bytes.len() as u64 / SECTOR;
    let header = Header::parse(&bytes[512..1024], sectors - 1).unwrap();
    let slots = header.slots(&bytes[1024..][..ENTRIES_BYTES_MAX]).unwrap();
    let at = |start: u64| &bytes[(start * SECTOR) as usize..];
    let state = slots.state.unwrap();
    let (state, _) =
        BootState::load([&at(state.start)[..512], &at(state.start)[4096..4608]]).unwrap();
    assert_eq!(state, BootState::fresh(3));
    let slot = slots.slot(Slot::A).unwrap();
    let head = &at(slot.start)[HEAD_AT..HEAD_END];
    assert!(Release::verify(head, &contents(0).signing.key.public()).is_ok());
    let other = slots.slot(Slot::B).unwrap();
    assert_eq!(other.blocks, slot.blocks);
    assert!(other.blocks * SECTOR >= 64 << 20);
    let [bios, people, protective, none] = image.boot_record();
    assert_eq!((bios, people), (image.partition(1), image.partition(3)));
    assert_eq!((protective.0, none), (1, (0, 0)));
    // The boot sector reads the loader from there.
    assert_eq!(bytes[428..432], 34u32.to_le_bytes());
    assert_eq!(bytes[34 * 512..][..100_000], [2; 100_000]);
}

#[test]
fn a_loader_without_one_place_for_the_key_is_refused() {
    let path = std::env::temp_dir().join(format!("skep-keyless-{}.img", std::process::id()));
    for loader in [vec![5; 1000], contents(0).loaders.uefi.repeat(2)] {
        let mut contents = contents(0);
        contents.loaders.uefi = loader;
        assert!(write_image(&contents, &path).is_err());
    }
}

#[test]
fn same_input_gives_same_bytes() {
    let bytes = |contents: &Contents, name| Image::new(contents, name).bytes();
    let first = bytes(&contents(100_000), "same-1.img");
    assert!(first == bytes(&contents(100_000), "same-2.img"));
    assert!(first != bytes(&contents(100_001), "same-3.img"));
    let mut other = contents(100_000);
    other.config.toml.push(b'#');
    assert!(first != bytes(&other, "same-4.img"));
}

#[test]
fn what_has_no_room_is_refused_and_leaves_nothing() {
    let path = std::env::temp_dir().join(format!("skep-refused-{}.img", std::process::id()));
    let mut long = contents(1);
    long.loaders.bios.extend(vec![2; 2 << 20]);
    assert!(write_image(&long, &path).is_err());
    let mut full = contents(1);
    full.config.toml = vec![b'#'; 40 << 20];
    let error = format!("{:#}", write_image(&full, &path).unwrap_err());
    assert!(
        error.contains("SKEP") && error.contains("32 MiB"),
        "{error}"
    );
    let left = fs::read_dir(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let left = left.filter(|e| {
        let found = e.as_ref().unwrap().file_name();
        found.to_string_lossy().starts_with(&name)
    });
    assert_eq!(left.count(), 0);
}

/// What a tool says of the image, if it is installed; it must not fail.
fn tool(program: &str, arguments: &[&str], image: &Path) -> Option<String> {
    let mut command = Command::new(program);
    let Ok(output) = command.args(arguments).arg(image).output() else {
        eprintln!("not tested: {program} is not installed");
        return None;
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{program}: {said}");
    Some(said)
}

#[test]
fn tools_for_partitions_find_nothing_wrong() {
    let image = Image::new(&contents(3_000_000), "tools.img");
    if let Some(said) = tool("sgdisk", &["--verify"], &image.0) {
        assert!(said.contains("No problems found"), "{said}");
    }
    if let Some(said) = tool("sgdisk", &["--print"], &image.0) {
        for name in ["EF02  skep bios", "EF00  skep boot", "0700  SKEP"] {
            assert!(said.contains(name), "{said}");
        }
    }
    tool("sfdisk", &["--verify"], &image.0);
    if let Some(said) = tool("sfdisk", &["--json"], &image.0) {
        assert!(
            said.contains("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"),
            "{said}"
        );
        assert!(
            said.contains("\"label\": \"gpt\"") || said.contains("\"label\":\"gpt\""),
            "{said}"
        );
    }
    let (start, sectors) = image.partition(3);
    assert!(start.is_multiple_of(ALIGNMENT) && sectors > (32 << 20) / SECTOR);
}

#[test]
fn tools_for_fat_find_nothing_wrong() {
    let image = Image::new(&contents(3_000_000), "fsck.img");
    for index in [2, 3, 5] {
        let (start, sectors) = image.partition(index);
        let volume = &image.bytes()[(start * SECTOR) as usize..][..(sectors * SECTOR) as usize];
        let path = image.0.with_extension(format!("volume-{index}"));
        fs::write(&path, volume).unwrap();
        let said = tool("fsck.vfat", &["-n"], &path);
        fs::remove_file(&path).unwrap();
        for wrong in ["differ", "orphan", "bad", "error", "label"] {
            let said = said.clone().unwrap_or_default();
            assert!(!said.to_lowercase().contains(wrong), "{said}");
        }
    }
}
