use super::{Asked, VolatileDisk};
use crate::{dice::Dice, node::TempFolder, seconds};
use std::{fs, process::Command};

const BYTES: usize = 64 << 10;

/// A disk of zeros.
fn disk(folder: &TempFolder) -> VolatileDisk {
    let image = folder.path().join("image");
    fs::write(&image, [0; BYTES]).unwrap();
    VolatileDisk::new(&image).unwrap()
}

/// QEMU's own client does these, with its cache as guests see it; whether all was answered
/// well. A disk that falls silent keeps it waiting.
fn client(disk: &VolatileDisk, commands: &[&str]) -> bool {
    let socket = disk.socket();
    let mut io = Command::new("timeout");
    io.args(["2", "qemu-io", "-f", "raw", "-t", "writeback"]);
    for command in commands {
        io.args(["-c", command]);
    }
    let output = io.arg(format!("nbd+unix:///?socket={}", socket.display()));
    let output = output.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success() && !said.contains("rror") && !said.contains("failed")
}

/// First byte of each sector of the image.
fn image(disk: &VolatileDisk) -> Vec<u8> {
    let bytes = fs::read(disk.image()).unwrap();
    bytes.chunks(512).map(|sector| sector[0]).collect()
}

/// Writes without a flush at the end, which `qemu-io` would do of its own: it is killed.
const KILLED: &str = "sigraise 9";

#[test]
fn what_was_flushed_stays_and_of_the_rest_a_part() {
    let folder = TempFolder::new().unwrap();
    let disk = disk(&folder);
    let written = [
        "write -P 1 0 16k",
        "flush",
        "write -P 2 0 16k",
        "write -P 3 0 16k",
        "read -P 3 0 16k",
        KILLED,
    ];
    client(&disk, &written);
    assert_eq!(image(&disk)[..33], [[1; 32].as_slice(), &[0]].concat());
    let asked = disk.asked();
    assert_eq!((asked.writes, asked.flushes, asked.reads), (3, 1, 1));
    disk.cut();
    let mut dice = Dice::seeded(3);
    let mut seen = [0; 4];
    for round in 0..20 {
        let loss = disk.settle(&mut dice, round % 8).unwrap();
        let found = image(&disk);
        assert_eq!(loss.unflushed, 32);
        let with = |content| found.iter().filter(|&&byte| byte == content).count();
        assert_eq!(loss.lost as usize, with(1) + with(2));
        assert_eq!(with(0), BYTES / 512 - 32);
        for content in 1..4 {
            seen[usize::from(content)] += usize::from(with(content) == 32);
        }
        seen[0] += usize::from(with(1) > 0 && with(2) > 0 && with(3) > 0);
    }
    assert!(seen[0] > 0 && seen[1] > 0 && seen[3] == 0, "{seen:?}");
    disk.restore().unwrap();
    let found = image(&disk);
    // With power again it holds what the image holds.
    let first = format!("read -P {} 0 512", found[0]);
    assert!(client(&disk, &[&first]));
}

#[test]
fn writes_past_the_cache_are_durable_and_only_they() {
    let folder = TempFolder::new().unwrap();
    let disk = disk(&folder);
    let written = [
        "write -P 1 0 4k",
        "write -P 2 4k 4k",
        "write -f -P 3 2k 4k",
        KILLED,
    ];
    client(&disk, &written);
    assert_eq!(disk.asked().durable_writes, 1);
    let found = image(&disk);
    assert_eq!(found[..4], [0; 4]);
    assert_eq!(found[4..12], [3; 8]);
    assert_eq!(found[12..16], [0; 4]);
}

#[test]
fn power_goes_with_the_request_that_was_named() {
    let folder = TempFolder::new().unwrap();
    let disk = disk(&folder);
    disk.cut_at(Asked::changes, 4);
    assert!(!disk.wait_cut(seconds(0)));
    let commands = ["write -P 1 0 512", "flush", "write -P 2 0 512"];
    client(&disk, &[&commands[..], &[KILLED]].concat());
    assert!(!disk.wait_cut(seconds(0)), "three changes are not four");
    assert!(!client(&disk, &["flush"]), "nobody is answered");
    assert!(disk.wait_cut(seconds(0)));
    assert!(!client(&disk, &["read 0 512"]), "nor afterwards");
    assert_eq!(image(&disk)[0], 1, "the flush came too late");
}
