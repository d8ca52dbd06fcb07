//! From a folder to a ramdisk: pack, sign, bundle, inspect, unpack.

mod common;

use common::{fails, ok, skep, workplace};
use skep_api::bundle::{BundleView, EntryKind};
use skep_api::manifest::SignedManifest;
use skep_api::node::NodeConfig;
use skep_api::tree::{NodeKind, TreeView};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

const MANIFEST: &str = "name = 'web'\nsequence = 1\ncommand = ['/bin/web']\n";
const NODE: &str = "name = 'node'\nsystem = 'bot'\nstart = ['web']\n";

/// A folder with a program, data and links; `image/` is packed from it.
fn with_image() -> tempfile::TempDir {
    let place = workplace();
    let at = |path: &str| place.path().join(path);
    fs::create_dir_all(at("root/usr/bin")).unwrap();
    fs::write(at("root/usr/bin/web"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("root/usr/bin/web"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("usr/bin", at("root/bin")).unwrap();
    fs::write(at("root/data"), vec![7; 100_000]).unwrap();
    fs::hard_link(at("root/data"), at("root/same")).unwrap();
    fs::write(at("web.toml"), MANIFEST).unwrap();
    fs::write(at("bot.toml"), MANIFEST.replace("'web'", "'bot'")).unwrap();
    fs::write(at("node.toml"), NODE).unwrap();
    ok(place.path(), &["pack", "--dir", "root", "-o", "image"]);
    place
}

fn sign(folder: &Path, name: &str) {
    let (source, output) = (format!("{name}.toml"), format!("{name}.manifest"));
    ok(
        folder,
        &["sign", &source, "--image", "image", "-o", &output],
    );
}

const BUNDLE: [&str; 11] = [
    "bundle",
    "--config",
    "node.toml",
    "--owner",
    "owner.key.pub",
    "--manifest",
    "web.manifest",
    "bot.manifest",
    "--image",
    "image",
    "-oramdisk",
];

#[test]
fn a_folder_becomes_a_ramdisk_that_verifies() {
    let place = with_image();
    let folder = place.path();
    sign(folder, "web");
    sign(folder, "bot");
    ok(folder, &BUNDLE);

    let bytes = fs::read(folder.join("ramdisk")).unwrap();
    let view = BundleView::parse(&bytes).unwrap();
    let config = NodeConfig::decode(view.entry(EntryKind::Node, "node").unwrap()).unwrap();
    let signed = SignedManifest::decode(view.entry(EntryKind::Manifest, "web").unwrap()).unwrap();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let manifest = signed.verify(&[config.owner], now).unwrap();
    let tree = view.blob(manifest.tree).unwrap().verified_data().unwrap();
    let tree = TreeView::parse(tree).unwrap();
    let data = tree.lookup(&tree.root(), b"data").unwrap();
    let NodeKind::File { hash, size } = data.kind else {
        panic!("{data:?}")
    };
    assert_eq!(
        view.blob(hash).unwrap().verified_data().unwrap(),
        vec![7; size as usize]
    );
    // The tree, the program and the data that is there twice.
    assert_eq!(view.blobs().count(), 3);

    let shown = ok(folder, &["inspect", "ramdisk"]);
    assert!(shown.contains("capsule    web number 1") && shown.contains("signature  good"));
    assert!(ok(folder, &["inspect", "--files", "image"]).contains("l 0777 0:0 /bin -> usr/bin"));
}

#[test]
fn packing_is_repeatable_and_unpacking_gives_it_back() {
    let place = with_image();
    let folder = place.path();
    let first = fs::read_to_string(folder.join("image/tree")).unwrap();
    assert_eq!(ok(folder, &["pack", "--dir", "root", "-o", "image"]), first);
    ok(folder, &["unpack", "image", "-o", "again"]);
    assert_eq!(
        fs::read(folder.join("again/same")).unwrap(),
        vec![7; 100_000]
    );
    assert_eq!(
        fs::read_link(folder.join("again/bin")).unwrap(),
        Path::new("usr/bin")
    );
    let mode = fs::metadata(folder.join("again/usr/bin/web"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(fails(folder, &["unpack", "image", "-o", "again"]).contains("exists"));
}

#[test]
fn archives_overlays_and_exclusions() {
    let place = with_image();
    let folder = place.path();
    let tar = std::process::Command::new("tar")
        .args(["-C", "root", "-cf", "root.tar", "."])
        .current_dir(folder)
        .status();
    assert!(tar.unwrap().success());
    fs::create_dir_all(folder.join("over/bin")).unwrap();
    fs::write(folder.join("over/bin/extra"), "x").unwrap();
    fs::write(
        folder.join("image.toml"),
        "tar = 'root.tar'\noverlay = ['over']\nexclude = ['/same']\n",
    )
    .unwrap();
    ok(folder, &["pack", "--recipe", "image.toml", "-o", "two"]);
    let shown = ok(folder, &["inspect", "--files", "two"]);
    assert!(
        shown.contains("- 0644 0:0 /usr/bin/extra"),
        "through the link: {shown}"
    );
    assert!(
        shown.contains("/data") && !shown.contains("/same"),
        "{shown}"
    );
    let error = fails(
        folder,
        &[
            "pack",
            "--dir",
            "root",
            "--exclude",
            "/nothing",
            "-o",
            "three",
        ],
    );
    assert!(error.contains("/nothing"));
    let error = fails(folder, &["pack", "--dir", "root", "-o", "over"]);
    assert!(error.contains("is not an image"));
    assert!(folder.join("over/bin/extra").exists());
    let error = fails(folder, &["pack", "--tar", "web.toml", "-o", "three"]);
    assert!(error.contains("tar archive"), "{error}");
}

#[test]
fn keys_are_private_and_never_replaced() {
    let place = workplace();
    let folder = place.path();
    let mode = fs::metadata(folder.join("owner.key"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = fs::read(folder.join("owner.key")).unwrap();
    assert!(fails(folder, &["keygen", "-o", "owner.key"]).contains("exists"));
    assert_eq!(fs::read(folder.join("owner.key")).unwrap(), before);
    let other = ok(folder, &["keygen", "-o", "other.key"]);
    assert!(
        fs::read_to_string(folder.join("other.key.pub"))
            .unwrap()
            .contains(other.trim())
    );
}

#[test]
fn mistakes_are_named() {
    let place = with_image();
    let folder = place.path();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let sign_args = ["sign", "bad.toml", "--image", "image", "-o", "bad.manifest"];

    write("bad.toml", "name = 'web'\ncommand = ['/bin/wbe']\n");
    assert!(fails(folder, &sign_args).contains("the image has no /bin/wbe"));
    write("bad.toml", "name = 'web'\ncommand = ['/data']\n");
    assert!(fails(folder, &sign_args).contains("not executable"));
    write("bad.toml", "name = 'Web'\ncommand = ['/bin/web']\n");
    assert!(fails(folder, &sign_args).contains("name: must be"));
    assert!(fails(folder, &["inspect", "node.toml"]).contains("neither a manifest nor"));
    let no_key = [
        "sign", "web.toml", "-i", "image", "-k", "none.key", "-o", "x",
    ];
    assert!(fails(folder, &no_key).contains("skep keygen"));

    sign(folder, "web");
    sign(folder, "bot");
    write("node.toml", &NODE.replace("'web'", "'web', 'db'"));
    assert!(fails(folder, &BUNDLE).contains("starts db"));
    write("node.toml", NODE);
    ok(folder, &["keygen", "-o", "stranger.key"]);
    let stranger = ["-k", "stranger.key", "-o", "web.manifest"];
    ok(
        folder,
        &[&["sign", "web.toml", "-i", "image"], &stranger[..]].concat(),
    );
    assert!(fails(folder, &BUNDLE).contains("does not own this node"));
    ok(folder, &[&BUNDLE[..], &["--no-check"]].concat());
    let shown = ok(folder, &["inspect", "ramdisk"]);
    assert!(shown.contains("REFUSED: signed by"), "{shown}");
}

#[test]
fn damage_is_seen() {
    let place = with_image();
    let folder = place.path();
    sign(folder, "web");
    sign(folder, "bot");
    ok(folder, &BUNDLE);
    let mut bytes = fs::read(folder.join("ramdisk")).unwrap();
    let whole = bytes.len();
    let at = bytes
        .windows(1000)
        .position(|window| window == [7; 1000])
        .unwrap();
    bytes[at + 5000] ^= 1;
    fs::write(folder.join("ramdisk"), &bytes).unwrap();
    assert!(ok(folder, &["inspect", "ramdisk"]).contains("BROKEN     blob "));
    fs::write(folder.join("ramdisk"), &bytes[..whole - 4096]).unwrap();
    assert!(ok(folder, &["inspect", "ramdisk"]).contains("CUT SHORT"));

    let blobs = fs::read_dir(folder.join("image/blobs")).unwrap();
    for blob in blobs
        .flatten()
        .filter(|blob| blob.metadata().unwrap().len() == 100_000)
    {
        fs::write(blob.path(), "short").unwrap();
    }
    assert!(fails(folder, &BUNDLE).contains("is damaged; pack the image again"));
}

#[test]
fn help_and_usage() {
    let place = tempfile::tempdir().unwrap();
    for command in [
        "keygen", "pack", "sign", "bundle", "inspect", "unpack", "status", "kill",
    ] {
        assert!(
            ok(place.path(), &[command, "--help"]).contains("Usage"),
            "{command}"
        );
    }
    assert_eq!(skep(place.path(), &["pack"]).status.code(), Some(2));
    assert_eq!(
        skep(place.path(), &["kill", "Bad Name"]).status.code(),
        Some(2)
    );
}
