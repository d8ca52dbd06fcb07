//! Links the front end at 1 MiB, where `qemu -kernel` loads it, and tells it
//! which kernel to carry.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins=-T{here}/pvh.ld");
    println!("cargo::rustc-link-arg-bins=--no-pie");
    println!("cargo::rerun-if-changed=pvh.ld");
    println!("cargo::rerun-if-env-changed=SKEP_KERNEL");
}
