//! `skep image` and `skep verify`, on a made-up system.

mod common;

use common::{fails, ok, skep, workplace};
use skep_api::boot::release::{HEAD_AT, HEAD_END};
use skep_api::boot::{LOADER_KEY_MARKER, Release};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A folder with an owner's key and a system: any bytes will do for its files.
fn place() -> tempfile::TempDir {
    let place = workplace();
    let system = place.path().join("system");
    fs::create_dir_all(system.join("loaders")).unwrap();
    let files = [
        ("skep-kernel", 400_000),
        ("ramdisk", 3_000_000),
        ("loaders/uefi", 200_000),
    ];
    for (index, (name, len)) in files.into_iter().enumerate() {
        let bytes: Vec<u8> = (0..len).map(|i: usize| (i / 3 + index) as u8).collect();
        fs::write(system.join(name), bytes).unwrap();
    }
    // Where keys and numbers are put, there must be room for them.
    let add = |name: &str, more: &[u8]| {
        let path = system.join("loaders").join(name);
        let mut bytes = fs::read(&path).unwrap_or_default();
        bytes.extend_from_slice(more);
        fs::write(path, bytes).unwrap();
    };
    add("bios", &[0; 0x400]);
    add("bios", &[1; 50_000]);
    for name in ["bios", "uefi"] {
        add(name, &LOADER_KEY_MARKER);
        add(name, &[0; 100]);
    }
    place
}

#[test]
fn a_release_is_signed_and_numbered() {
    let place = place();
    let folder = place.path();
    let arguments = ["release", "--system", "system", "--release-number", "7"];
    let said = ok(
        folder,
        &[&arguments[..], &["--command-line", "log=debug"]].concat(),
    );
    assert!(said.contains("release 7 in skep.release"), "{said}");
    let bytes = fs::read(folder.join("skep.release")).unwrap();
    let release = Release::decode(&bytes[HEAD_AT..HEAD_END]).unwrap();
    assert_eq!((release.version, &*release.command_line), (7, "log=debug"));
    assert_eq!(release.len, bytes.len() as u64);
    assert!(Release::verify(&bytes[HEAD_AT..HEAD_END], &release.key).is_ok());
    let refused = skep(folder, &[&arguments[..], &["--tries", "0"]].concat());
    assert!(!refused.status.success(), "a release that is never tried");
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

#[test]
fn a_wrong_skep_toml_does_not_get_onto_an_image() {
    let place = place();
    let folder = place.path();
    fs::write(folder.join("mine.toml"), "\nnmae = 'garden'\n").unwrap();
    let arguments = [
        "image",
        "usb",
        "--system",
        "system",
        "--config",
        "mine.toml",
    ];
    let told = fails(folder, &arguments);
    assert!(
        told.contains("line 2, nmae: there is no such key"),
        "{told}"
    );
    fs::write(folder.join("mine.toml"), "name = 'garden'\n").unwrap();
    ok(folder, &arguments);
}

#[test]
fn flashing_to_a_plain_file_needs_force_and_gives_the_image() {
    let place = place();
    let folder = place.path();
    image(folder, &["--compress"]);
    fs::write(folder.join("target"), "precious").unwrap();
    let refused = fails(folder, &["flash", "target", "--yes"]);
    assert!(
        refused.contains("plain file") && refused.contains("--force"),
        "{refused}"
    );
    let asked = fails(folder, &["flash", "target", "--force"]);
    assert!(asked.contains("nobody to ask"), "{asked}");
    assert_eq!(fs::read(folder.join("target")).unwrap(), b"precious");
    let first = fs::read(folder.join("skep.img")).unwrap();
    for source in ["skep.img", "skep.img.gz"] {
        fs::write(folder.join("target"), "precious").unwrap();
        let said = ok(
            folder,
            &["flash", "target", "-i", source, "--force", "--yes"],
        );
        assert!(said.contains("read back the same"), "{said}");
        assert!(
            fs::read(folder.join("target")).unwrap() == first,
            "{source}"
        );
    }
    let mut damaged = first.clone();
    damaged[9_000_000] ^= 1;
    fs::write(folder.join("skep.img"), damaged).unwrap();
    let told = fails(folder, &["flash", "target", "--force", "--yes"]);
    assert!(told.contains("damaged"), "{told}");
    assert!(
        fs::read(folder.join("target")).unwrap() == first,
        "it was written to"
    );
}

/// A loop device over a file, given back when this is dropped.
struct Loop(String);

impl Loop {
    fn over(file: &Path) -> Option<Self> {
        let mut losetup = Command::new("losetup");
        let output = losetup.args(["--find", "--show"]).arg(file).output().ok()?;
        let name = String::from_utf8(output.stdout).ok()?;
        output
            .status
            .success()
            .then(|| Self(name.trim().to_string()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

/// A real block device, larger than the image.
#[test]
fn flashing_to_a_device_fits_the_partition_table_to_it() {
    let place = place();
    let folder = place.path();
    image(folder, &[]);
    let disk = folder.join("disk");
    let image_bytes = fs::metadata(folder.join("skep.img")).unwrap().len();
    let more = fs::File::create(&disk).unwrap();
    more.set_len(image_bytes + (27 << 20)).unwrap();
    let Some(device) = Loop::over(&disk) else {
        eprintln!("not tested: no loop devices here");
        return;
    };
    let refused = fails(folder, &["flash", &device.0, "--yes"]);
    assert!(refused.contains("is built into this machine"), "{refused}");
    let said = ok(folder, &["flash", &device.0, "--yes", "--force"]);
    assert!(
        said.contains("loop device over") && said.contains("200.0 MiB"),
        "{said}"
    );
    assert!(said.contains("read back the same"), "{said}");
    let image = fs::read(folder.join("skep.img")).unwrap();
    let written = fs::read(&disk).unwrap();
    assert!(written[34 * 512..image.len()] == image[34 * 512..]);
    if let Ok(output) = Command::new("sgdisk").arg("--verify").arg(&disk).output() {
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains("No problems found"), "{said}");
    }
    let small = folder.join("small");
    fs::File::create(&small).unwrap().set_len(10 << 20).unwrap();
    let small = Loop::over(&small).unwrap();
    let refused = fails(folder, &["flash", &small.0, "--yes", "--force"]);
    assert!(refused.contains("the image needs"), "{refused}");
}
