//! Packing Debian packages for real: `cargo test -p skep -- --ignored`.

mod common;

use common::{fails, ok};
use std::path::Path;

#[test]
#[ignore = "needs Debian's apt with its lists, and its archive"]
fn nginx_is_small_complete_and_the_same_every_time() {
    let place = tempfile::tempdir().unwrap();
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../capsules/nginx/image.toml");
    let recipe = recipe.to_str().unwrap();
    let pack = |name: &str| ok(place.path(), &["pack", "--recipe", recipe, "-o", name]);
    assert_eq!(pack("one"), pack("two"));
    let shown = ok(place.path(), &["inspect", "--files", "one"]);
    for path in [
        "/usr/sbin/nginx",
        "/usr/lib64/ld-linux-x86-64.so.2",
        "/etc/passwd",
        "/tmp",
    ] {
        assert!(shown.contains(path), "{path} is missing");
    }
    for path in ["/usr/share/man", "perl", "debconf", "gconv"] {
        assert!(!shown.contains(path), "{path} should not be there");
    }
    let contents = shown
        .lines()
        .find(|line| line.starts_with("contents"))
        .unwrap();
    let mebibytes: f32 = contents.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(contents.contains("MiB") && mebibytes < 16.0, "{contents}");

    let error = fails(
        place.path(),
        &["pack", "--deb", "no-such-package", "-o", "three"],
    );
    assert!(
        error.contains("Unable to locate package no-such-package"),
        "{error}"
    );
}
