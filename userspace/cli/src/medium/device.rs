//! What a disk of this machine is, and what is on it, as the system tells.
//!
//! Read from `/sys` and `/proc` below a given root, so that tests bring their own.

use anyhow::{Context, Result, bail};
use skep_volume::{Error, ReadAt, Volume, Window};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The unit of sizes in `/sys`, whatever the device's blocks are.
const SECTOR: u64 = 512;

/// A device that is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// Where it was named.
    pub(super) path: PathBuf,
    /// Its length in bytes.
    pub(super) len: u64,
    /// Whether it is a plain file and no device at all.
    pub(super) is_file: bool,
    /// Maker and model, for people.
    pub(super) model: String,
    /// Whether it is made to be taken out, or hangs on USB.
    pub(super) is_removable: bool,
    /// Whether the system lets nobody write it.
    pub(super) is_read_only: bool,
    /// Bytes of a block.
    pub(super) block_len: u64,
    /// Its partitions.
    pub(super) parts: Vec<Part>,
    /// What of it is in use, for people.
    pub(super) uses: Vec<String>,
}

/// One partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Its device's name, such as `sdb1`.
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) len: u64,
    /// Its name in the partition table, or its volume's label.
    pub(super) label: String,
}

/// The system that is asked: `/`, or a test's folder.
pub(super) struct System(pub(super) PathBuf);

impl System {
    /// Looks at the device, or plain file, at `path`.
    pub(super) fn examine(&self, path: &Path) -> Result<Target> {
        let shown = path.display();
        let found = fs::metadata(path).with_context(|| format!("cannot look at {shown}"))?;
        if found.is_file() {
            return Ok(Target {
                path: path.to_path_buf(),
                len: found.len(),
                is_file: true,
                model: "a plain file".into(),
                block_len: SECTOR,
                ..Target::default()
            });
        }
        if !found.file_type().is_block_device() {
            bail!("{shown} is neither a disk nor a file");
        }
        let (major, minor) = (major(found.rdev()), minor(found.rdev()));
        self.device(path, &format!("{major}:{minor}"))
    }

    /// The disk of that number, such as `8:16`.
    fn device(&self, path: &Path, number: &str) -> Result<Target> {
        let shown = path.display();
        let folder = self.0.join("sys/dev/block").join(number);
        let folder = fs::canonicalize(&folder)
            .with_context(|| format!("the system does not know {shown}"))?;
        if folder.join("partition").exists() {
            let whole = folder
                .parent()
                .and_then(Path::file_name)
                .unwrap_or_default();
            bail!(
                "{shown} is a partition; an image takes the whole disk, /dev/{}",
                whole.display()
            );
        }
        let text = |name: &str| -> String {
            let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
            text.trim().to_string()
        };
        let number_in = |name: &str| text(name).parse::<u64>().ok();
        let on_usb = folder.components().any(|part| {
            let name = part.as_os_str().to_string_lossy();
            name.strip_prefix("usb").is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit())
            })
        });
        let model = format!("{} {}", text("device/vendor"), text("device/model"));
        let backing = text("loop/backing_file");
        let mut target = Target {
            path: path.to_path_buf(),
            len: number_in("size").context("the system does not tell its size")? * SECTOR,
            is_file: false,
            model: match (model.trim(), backing.as_str()) {
                ("", "") => "a disk of unknown make".into(),
                ("", file) => format!("loop device over {file}"),
                (model, _) => model.to_string(),
            },
            is_removable: number_in("removable") == Some(1) || on_usb,
            is_read_only: number_in("ro") == Some(1),
            block_len: number_in("queue/logical_block_size").unwrap_or(SECTOR),
            parts: parts(&folder, path),
            uses: Vec::new(),
        };
        self.uses(&folder, &mut target);
        Ok(target)
    }

    /// Finds mounts, swap and what is built upon the disk in `folder` or a part of it.
    fn uses(&self, folder: &Path, target: &mut Target) {
        let read = |name: &str| fs::read_to_string(self.0.join(name)).unwrap_or_default();
        let (mounts, swaps) = (read("proc/self/mountinfo"), read("proc/swaps"));
        let names = target.parts.iter().map(|part| folder.join(&part.name));
        for place in [folder.to_path_buf()].into_iter().chain(names) {
            let name = place.file_name().unwrap_or_default().to_string_lossy();
            let number = fs::read_to_string(place.join("dev")).unwrap_or_default();
            // proc(5): the third field is major:minor, the fifth the mount point.
            let mounted = mounts.lines().filter_map(|line| {
                let mut fields = line.split(' ').skip(2);
                (fields.next() == Some(number.trim())).then(|| fields.nth(1))?
            });
            target
                .uses
                .extend(mounted.map(|at| format!("{name} is mounted at {at}")));
            let swap = swaps
                .lines()
                .filter_map(|line| line.split_whitespace().next());
            if swap.into_iter().any(|used| used == format!("/dev/{name}")) {
                target.uses.push(format!("{name} is used for swapping"));
            }
            for holder in fs::read_dir(place.join("holders"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let holder = holder.file_name();
                target
                    .uses
                    .push(format!("{name} is part of {}", holder.to_string_lossy()));
            }
        }
    }
}

/// The partitions that the system knows of the disk in `folder`.
fn parts(folder: &Path, disk: &Path) -> Vec<Part> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(u64, Part)> = entries
        .filter_map(|entry| {
            let place = entry.path();
            let read = |name: &str| fs::read_to_string(place.join(name)).ok();
            let number = read("partition")?.trim().parse().ok()?;
            let field = |name: &str| {
                let text = read(name)?;
                Some(text.trim().parse::<u64>().ok()? * SECTOR)
            };
            let (start, len) = (field("start")?, field("size")?);
            let uevent = read("uevent").unwrap_or_default();
            let told = uevent
                .lines()
                .find_map(|line| line.strip_prefix("PARTNAME="));
            let label = volume_label(disk, start, len).or(told.map(str::to_string));
            let name = entry.file_name().to_string_lossy().into_owned();
            let label = label.unwrap_or_default();
            Some((number, Part { name, len, label }))
        })
        .collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, part)| part).collect()
}

/// The label of a FAT or ext volume at that place of a disk, if it can be read and has
/// one.
fn volume_label(disk: &Path, start: u64, len: u64) -> Option<String> {
    /// Of ext2 to ext4: the superblock, its magic number and the label in it.
    const SUPERBLOCK: u64 = 1024;
    const MAGIC_AT: usize = 56;
    const LABEL_AT: usize = 120;
    let opened = Opened::open(disk).ok()?;
    if let Ok(volume) = Volume::open(Window::new(&opened), start, len) {
        return volume.label().ok().filter(|label| !label.is_empty());
    }
    let mut block = [0; LABEL_AT + 16];
    opened.read_at(start + SUPERBLOCK, &mut block).ok()?;
    let label = block[LABEL_AT..].split(|byte| *byte == 0).next()?;
    let is_ext = block[MAGIC_AT..MAGIC_AT + 2] == [0x53, 0xef] && !label.is_empty();
    is_ext.then(|| String::from_utf8_lossy(label).into_owned())
}

/// A disk of this machine as something to read from.
struct Opened(File, u64);

impl Opened {
    fn open(path: &Path) -> std::io::Result<Self> {
        let mut file = File::open(path)?;
        let len = std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0))?;
        Ok(Self(file, len))
    }
}

impl ReadAt for Opened {
    fn len(&self) -> u64 {
        self.1
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.0
            .read_exact_at(buffer, offset)
            .map_err(|_| Error::Read)
    }
}

/// makedev(3).
fn major(device: u64) -> u64 {
    device >> 8 & 0xfff | device >> 32 & 0xffff_f000
}

fn minor(device: u64) -> u64 {
    device & 0xff | device >> 12 & 0xffff_ff00
}

#[cfg(test)]
mod tests {
    use super::{Part, System, major, minor};
    use std::fs;
    use std::path::Path;

    /// A machine with a USB stick `sdb`, 8:16, of two partitions.
    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let sdb = "sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/host6/block/sdb";
        for (file, text) in [
            ("dev", "8:16"),
            ("size", "15728640"),
            ("removable", "0"),
            ("ro", "0"),
            ("queue/logical_block_size", "512"),
            ("device/vendor", "SanDisk "),
            ("device/model", "Ultra Fit       "),
            ("sdb2/dev", "8:18"),
            ("sdb2/partition", "2"),
            ("sdb2/start", "4096"),
            ("sdb2/size", "2097152"),
            ("sdb2/uevent", "DEVNAME=sdb2\nPARTNAME=holiday photos\n"),
            ("sdb1/dev", "8:17"),
            ("sdb1/partition", "1"),
            ("sdb1/start", "2048"),
            ("sdb1/size", "2048"),
        ] {
            let path = root.path().join(sdb).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let numbers = root.path().join("sys/dev/block");
        fs::create_dir_all(&numbers).unwrap();
        std::os::unix::fs::symlink(root.path().join(sdb), numbers.join("8:16")).unwrap();
        let part = root.path().join(sdb).join("sdb2");
        std::os::unix::fs::symlink(part, numbers.join("8:18")).unwrap();
        root
    }

    #[test]
    fn a_stick_is_named_with_all_that_is_on_it() {
        let root = machine();
        let system = System(root.path().to_path_buf());
        let target = system.device(Path::new("/dev/none"), "8:16").unwrap();
        assert_eq!(target.model, "SanDisk  Ultra Fit".replace("  ", " "));
        assert_eq!((target.len, target.block_len), (15_728_640 * 512, 512));
        assert!(target.is_removable, "it hangs on USB");
        let part = |name: &str, len, label: &str| Part {
            name: name.into(),
            len,
            label: label.into(),
        };
        let expected = [
            part("sdb1", 1 << 20, ""),
            part("sdb2", 1 << 30, "holiday photos"),
        ];
        assert_eq!(target.parts, expected);
        assert!(target.uses.is_empty());
    }

    #[test]
    fn what_is_in_use_is_told() {
        let root = machine();
        let proc = root.path().join("proc/self");
        fs::create_dir_all(&proc).unwrap();
        let mounts = "36 35 8:17 / /boot rw - ext4 /dev/sdb1 rw\n\
                      37 35 8:1 / / rw - ext4 /dev/sda1 rw\n";
        fs::write(proc.join("mountinfo"), mounts).unwrap();
        let swaps = "Filename Type Size\n/dev/sdb2 partition 1 0 -2\n";
        fs::write(root.path().join("proc/swaps"), swaps).unwrap();
        let block = root.path().join("sys/dev/block/8:16");
        fs::create_dir_all(block.join("holders/dm-0")).unwrap();
        let system = System(root.path().to_path_buf());
        let target = system.device(Path::new("/dev/none"), "8:16").unwrap();
        let expected = [
            "sdb is part of dm-0",
            "sdb1 is mounted at /boot",
            "sdb2 is used for swapping",
        ];
        assert_eq!(target.uses, expected);
    }

    #[test]
    fn partitions_and_unknown_numbers_are_refused() {
        let root = machine();
        let system = System(root.path().to_path_buf());
        let part = system.device(Path::new("/dev/sdb2"), "8:18").unwrap_err();
        assert!(part.to_string().contains("/dev/sdb"), "{part}");
        assert!(system.device(Path::new("/dev/x"), "9:9").is_err());
        assert!(system.examine(Path::new("/dev/null")).is_err());
    }

    #[test]
    fn device_numbers() {
        assert_eq!((major(0x0810), minor(0x0810)), (8, 16));
        assert_eq!((major(0x0010_3ff5), minor(0x0010_3ff5)), (0x3f, 0x1f5));
    }
}
