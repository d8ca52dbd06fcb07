//! Links the loader where the boot sector puts it.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    println!("cargo::rustc-link-arg-bins=-T{here}/bios.ld");
    println!("cargo::rustc-link-arg-bins=--no-pie");
    println!("cargo::rerun-if-changed=bios.ld");
    println!("cargo::rerun-if-changed=src/boot_sector.s");
    println!("cargo::rerun-if-changed=src/modes.s");
}
