//! What is damaged, foreign or out of date is refused, named, and stops nothing else.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use skep_api::{Hash, manifest::SignedManifest};
use skep_qemu::{
    Machine, Node,
    ramdisk::{Image, Ramdisk, manifest, owner, standard_manifest, stranger, write_bytes},
    seconds,
};
use std::time::{SystemTime, UNIX_EPOCH};

const NGINX: u16 = 8081;
const DAY: u64 = 24 * 60 * 60;

/// Boots a ramdisk and waits for nginx's page, which must come in every case.
fn boot(name: &str, bytes: &[u8]) -> Result<Node> {
    let path = write_bytes(name, bytes)?;
    let mut node = Machine::new(name).ramdisk(&path).start()?;
    node.wait_http(NGINX, "/", seconds(60))?;
    Ok(node)
}

/// Where these bytes are, once, in the ramdisk.
fn find(ramdisk: &[u8], wanted: &[u8]) -> Result<usize> {
    let mut found = ramdisk.windows(wanted.len()).enumerate();
    let at = found
        .find(|(_, bytes)| *bytes == wanted)
        .context("not in the ramdisk")?
        .0;
    ensure!(
        found.all(|(_, bytes)| bytes != wanted),
        "twice in the ramdisk"
    );
    Ok(at)
}

/// Boots a node with nginx and a capsule `odd` whose manifest is `bytes`, and expects
/// it to be refused for a reason that has these words.
fn refused(name: &str, bytes: Vec<u8>, image: &Image, words: &str) -> Result<()> {
    let mut ramdisk = Ramdisk::with_nginx()?;
    ramdisk.capsule_with_bytes("odd", bytes, image);
    let mut node = boot(name, &ramdisk.bytes()?)?;
    let answer = node.api().get("manifests")?;
    let manifests = answer.as_array().context("not a list")?;
    let of = |name: &str| manifests.iter().find(|manifest| manifest["entry"] == name);
    let odd = of("odd").context("the refused manifest is not listed")?;
    ensure!(odd["accepted"] == false, "accepted: {odd}");
    let reason = odd["reason"].as_str().unwrap_or_default();
    ensure!(
        reason.contains(words),
        "{words:?} is not in the reason {reason:?}"
    );
    let nginx = of("nginx").context("nginx is not listed")?;
    ensure!(nginx["accepted"] == true, "nginx is refused: {nginx}");
    told(&mut node, "odd")?;
    if let Ok(odd) = node.api().capsule("odd") {
        ensure!(
            odd["state"] == "refused" && odd["id"].is_null(),
            "it was started: {odd}"
        );
    }
    Ok(())
}

/// The event log and the console name it.
fn told(node: &mut Node, name: &str) -> Result<()> {
    let events = node.api().events(0, "refused", None)?;
    let says = |event: &Value| {
        event["capsule"] == name
            || event["text"]
                .as_str()
                .is_some_and(|text| text.contains(name))
    };
    ensure!(events.iter().any(says), "no event names {name}: {events:?}");
    let serial = node.serial();
    ensure!(
        serial
            .lines()
            .any(|line| line.contains(name) && line.contains("refused")),
        "the console does not name {name}"
    );
    Ok(())
}

/// A small image that would run if its manifest were good.
fn small() -> Result<Image> {
    Image::program("hog")
}

#[test]
fn a_good_manifest_of_the_same_kind_is_accepted() -> Result<()> {
    let image = small()?;
    let signed = SignedManifest::sign(
        &manifest("odd", &image, &["/bin/hog", "spin", "1"]),
        &owner()?,
    );
    let mut ramdisk = Ramdisk::with_nginx()?;
    ramdisk.capsule_with_bytes(
        "odd",
        signed.map_err(|error| anyhow::anyhow!("{error}"))?.encode(),
        &image,
    );
    let node = boot("refuse-nothing", &ramdisk.bytes()?)?;
    node.api()
        .wait_capsule("odd", seconds(30), |odd| odd["state"] == "running")?;
    let events = node.api().events(0, "refused", None)?;
    ensure!(events.is_empty(), "refused: {events:?}");
    Ok(())
}

#[test]
fn the_wrong_key() -> Result<()> {
    let image = small()?;
    let signed = SignedManifest::sign(&manifest("odd", &image, &["/bin/hog"]), &stranger()?);
    let bytes = signed.map_err(|error| anyhow::anyhow!("{error}"))?.encode();
    refused("refuse-key", bytes, &image, "key")
}

#[test]
fn a_changed_manifest() -> Result<()> {
    let image = small()?;
    let signed = SignedManifest::sign(&manifest("odd", &image, &["/bin/hog"]), &owner()?);
    let mut bytes = signed.map_err(|error| anyhow::anyhow!("{error}"))?.encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    refused("refuse-signature", bytes, &image, "signature")
}

#[test]
fn an_expired_manifest() -> Result<()> {
    let image = small()?;
    let mut old = manifest("odd", &image, &["/bin/hog"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    old.validity.not_after = Some(now - DAY);
    let signed =
        SignedManifest::sign(&old, &owner()?).map_err(|error| anyhow::anyhow!("{error}"))?;
    refused("refuse-expired", signed.encode(), &image, "expired")
}

#[test]
fn an_unknown_version() -> Result<()> {
    let image = small()?;
    let signed = SignedManifest::sign(&manifest("odd", &image, &["/bin/hog"]), &owner()?);
    let mut bytes = signed.map_err(|error| anyhow::anyhow!("{error}"))?.encode();
    // Behind the eight bytes that say what it is (docs/reference/formats.md).
    bytes[8] = 99;
    refused("refuse-version", bytes, &image, "version 99")
}

/// A flipped byte in a file: whoever reads it gets an error, the rest of the capsule
/// goes on, and the node tells.
#[test]
fn a_flipped_byte_in_a_file() -> Result<()> {
    let good: Vec<u8> = (0..200_000u32).flat_map(|n| n.to_le_bytes()).collect();
    let bad: Vec<u8> = (0..200_000u32).flat_map(|n| (!n).to_le_bytes()).collect();
    let image = Image::nginx()?.with_files(&[
        ("/var/www/html/good", 0o644, &good),
        ("/var/www/html/bad", 0o644, &bad),
    ])?;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&standard_manifest("nginx", &image)?, &image)?;
    let mut bytes = ramdisk.bytes()?;
    let at = find(&bytes, &bad[..4096])? + 300_000;
    bytes[at] ^= 0x10;
    let node = boot("refuse-file", &bytes)?;
    ensure!(
        node.get(NGINX, "/good", seconds(30))?.body == good,
        "the good file is not"
    );
    let answer = node.get(NGINX, "/bad", seconds(30));
    ensure!(
        answer.as_ref().map_or(true, |answer| answer.status != 200),
        "a damaged file was served: {} bytes",
        answer.map_or(0, |answer| answer.body.len())
    );
    node.api()
        .wait_events(0, "refused", Some("nginx"), 1, seconds(10))?;
    // The short name of its hash, as the event and the console give it.
    let hash = Hash::of(&bad).to_string();
    let events = node.api().events(0, "refused", Some("nginx"))?;
    let text = events[0]["text"].as_str().unwrap_or_default();
    ensure!(text.contains(&hash[..16]), "{text:?} does not name {hash}");
    ensure!(
        node.serial().contains(&hash[..16]),
        "the console does not name {hash}"
    );
    ensure!(
        node.get(NGINX, "/", seconds(10))?.status == 200,
        "the page is gone"
    );
    Ok(())
}

/// A flipped byte in a capsule's tree: that capsule does not start.
#[test]
fn a_flipped_byte_in_a_tree() -> Result<()> {
    let image = small()?;
    let mut ramdisk = Ramdisk::with_nginx()?;
    ramdisk.capsule(&manifest("odd", &image, &["/bin/hog", "spin", "1"]), &image)?;
    let mut bytes = ramdisk.bytes()?;
    let at = find(&bytes, image.tree())? + image.tree().len() / 2;
    bytes[at] ^= 1;
    let mut node = boot("refuse-tree", &bytes)?;
    node.api()
        .wait_capsule("odd", seconds(30), |odd| odd["state"] == "refused")?;
    told(&mut node, "odd")
}

/// A ramdisk that was cut short: what it lost is refused, what it has runs.
#[test]
fn a_truncated_ramdisk() -> Result<()> {
    // Blobs lie in the order of their hashes: the one whose hash is highest is last.
    let mut salt = 0u64;
    let mut ramdisk = Ramdisk::with_nginx()?;
    let image = loop {
        let mut filler = vec![0x77; 1 << 20];
        filler[..8].copy_from_slice(&salt.to_le_bytes());
        if Hash::of(&filler).0 > ramdisk.last_blob().0 {
            let program = std::fs::read(skep_qemu::Artifacts::new().program("hog"))?;
            break Image::of_files(&[("/bin/hog", 0o755, &program), ("/filler", 0o644, &filler)])?;
        }
        salt += 1;
    };
    ramdisk.capsule(&manifest("odd", &image, &["/bin/hog", "spin", "1"]), &image)?;
    let bytes = ramdisk.bytes()?;
    let mut node = boot("refuse-truncated", &bytes[..bytes.len() - (512 << 10)])?;
    node.api()
        .wait_capsule("odd", seconds(30), |odd| odd["state"] == "refused")?;
    told(&mut node, "odd")
}

/// A ramdisk of which not even the index is left: the node says so and does not hang
/// in silence.
#[test]
fn a_ramdisk_without_its_index() -> Result<()> {
    let bytes = Ramdisk::with_nginx()?.bytes()?;
    let path = write_bytes("refuse-index", &bytes[..200])?;
    let mut node = Machine::new("refuse-index").ramdisk(&path).start()?;
    node.wait_serial("ramdisk", seconds(30))?;
    Ok(())
}
