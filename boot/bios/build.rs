//! Links the selector at 0, the beginning of its segment.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins=-T{here}/selector.ld");
    println!("cargo::rerun-if-changed=selector.ld");
    println!("cargo::rerun-if-changed=src/selector.s");
}
