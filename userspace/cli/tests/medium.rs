//! `skep image` and `skep verify`, on a made-up system.

mod common;

use common::{fails, ok, workplace};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A folder with an owner's key and a system: any bytes will do for its files.
fn place() -> tempfile::TempDir {
    let place = workplace();
    let system = place.path().join("system");
    fs::create_dir_all(system.join("stages")).unwrap();
    let files = [
        ("skep-kernel", 400_000),
        ("ramdisk", 3_000_000),
        ("stages/boot-sector", 512),
        ("stages/stage-2", 30_000),
        ("stages/stage-3", 70_000),
        ("stages/stage-4", 5_000),
        ("stages/uefi", 250_000),
    ];
    for (index, (name, len)) in files.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..len).map(|i: usize| (i / 3 + index) as u8).collect();
        fs::write(system.join(name), bytes).unwrap();
    }
    place
}

fn image(folder: &Path, more: &[&str]) -> String {
    let arguments = ["image", "usb", "--system", "system"];
    ok(folder, &[&arguments, more].concat())
}

#[test]
fn an_image_is_the_same_again_and_its_seal_holds() {
    let place = place();
    let folder = place.path();
    image(folder, &["--compress"]);
    image(folder, &["-o", "other.img"]);
    let first = fs::read(folder.join("skep.img")).unwrap();
    assert!(first == fs::read(folder.join("other.img")).unwrap());
    // The word is another, the image is not.
    let arguments = ["image", "disk", "--system", "system", "-o", "disk.img"];
    ok(folder, &arguments);
    assert!(first == fs::read(folder.join("disk.img")).unwrap());
    let coreutils = Command::new("sha256sum")
        .args(["-c", "skep.img.sha256"])
        .current_dir(folder)
        .status();
    assert!(coreutils.unwrap().success());
    let unpacked = Command::new("gzip")
        .args(["-dc", "skep.img.gz"])
        .current_dir(folder)
        .output();
    assert!(unpacked.unwrap().stdout == first);
    for file in ["skep.img", "skep.img.gz"] {
        assert!(ok(folder, &["verify", file]).contains("is whole and signed by"));
        ok(folder, &["verify", file, "-k", "owner.key.pub"]);
    }
}

#[test]
fn what_was_changed_or_signed_by_others_is_told() {
    let place = place();
    let folder = place.path();
    image(folder, &["--compress"]);
    ok(folder, &["keygen", "-o", "stranger.key"]);
    let other = fails(folder, &["verify", "skep.img", "-k", "stranger.key"]);
    assert!(other.contains("not by"), "{other}");
    let path = folder.join("skep.img");
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[3_000_000] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert!(fails(folder, &["verify"]).contains("SHA-256"));
    // With the sum made to fit, the signature tells.
    fs::remove_file(folder.join("skep.img.sha256")).unwrap();
    assert!(fails(folder, &["verify"]).contains("signature is wrong"));
    fs::write(&path, &whole).unwrap();
    ok(folder, &["verify"]);
    let compressed = folder.join("skep.img.gz");
    let mut bytes = fs::read(&compressed).unwrap();
    bytes.truncate(bytes.len() / 2);
    fs::write(&compressed, bytes).unwrap();
    assert!(fails(folder, &["verify", "skep.img.gz"]).contains("cannot read"));
    fs::remove_file(folder.join("skep.img.sig")).unwrap();
    assert!(fails(folder, &["verify"]).contains("is not signed"));
}

#[test]
fn an_unsigned_image_has_no_old_signature_beside_it() {
    let place = place();
    let folder = place.path();
    image(folder, &[]);
    assert!(folder.join("skep.img.sig").exists());
    image(folder, &["--unsigned", "--no-ramdisk"]);
    assert!(!folder.join("skep.img.sig").exists());
    let missing = fails(folder, &["image", "usb", "--system", "nowhere"]);
    assert!(missing.contains("nowhere"), "{missing}");
    let keyless = fails(
        folder,
        &["image", "usb", "--system", "system", "-k", "none.key"],
    );
    assert!(keyless.contains("skep keygen"), "{keyless}");
}
