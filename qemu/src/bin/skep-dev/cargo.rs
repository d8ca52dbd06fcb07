//! The ways this project calls cargo.
//!
//! Each kind of code has a target folder of its own, because a change of flags
//! would otherwise throw away what the other kind has built.

use skep_qemu::Artifacts;
use std::process::Command;

/// Target of the kernel, of the PVH front end and of the BIOS loader.
pub(crate) const BARE: &str = "x86_64-unknown-none";

/// Target of the UEFI loader.
pub(crate) const UEFI: &str = "x86_64-unknown-uefi";

/// Target of the programs that run on nodes and on the owner's machine.
pub(crate) const LINUX: &str = "x86_64-unknown-linux-gnu";

/// Flags of the kernel. Frame pointers for its crash reports; what each function takes
/// of its stack, for [`crate::frames`]; the rest keeps the cryptographic crates off
/// vector registers, which the kernel's target does not have.
const KERNEL_FLAGS: &str = "-C force-frame-pointers=yes -Z emit-stack-sizes \
     --cfg chacha20_backend=\"soft\" --cfg chacha20_force_soft \
     --cfg sha2_backend=\"soft\"";

/// Flags of what is linked at a fixed place in low memory.
const LOW_FLAGS: &str = "-C relocation-model=static";

/// Cargo in the checkout, with no settings of the caller's in its way.
pub(crate) fn cargo(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(words).current_dir(artifacts.root());
    for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR"] {
        command.env_remove(variable);
    }
    command
}

/// Cargo for the kernel: `core` and `alloc` are built from source, which the
/// stable compiler does only when told to pass for a nightly one.
pub(crate) fn kernel_cargo(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = cargo(artifacts, words);
    command
        .args(["--target", BARE, "-Zbuild-std=core,alloc,compiler_builtins"])
        .arg("-Zbuild-std-features=compiler-builtins-mem")
        .arg("--target-dir")
        .arg(artifacts.target().join("kernel"))
        .env("RUSTC_BOOTSTRAP", "1")
        // The rooms are separate crates, and a system call crosses most of them.
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", KERNEL_FLAGS);
    command
}

/// Cargo in the workspace of the boot side, for the host.
pub(crate) fn boot_cargo(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = cargo(artifacts, words);
    command
        .current_dir(artifacts.root().join("boot"))
        .arg("--target-dir")
        .arg(artifacts.target().join("boot/build"))
        // The loaders need it, and build scripts that ask for it would run again, and all
        // that depends on them be built again, wherever it changes.
        .env("RUSTC_BOOTSTRAP", "1");
    command
}

/// Cargo for the PVH front end around `kernel`.
pub(crate) fn pvh_cargo(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = boot_cargo(artifacts, words);
    command
        .args(["-p", "skep-pvh", "--bin", "skep-pvh", "--target", BARE])
        .args(["-Zbuild-std=core,compiler_builtins"])
        .arg("-Zbuild-std-features=compiler-builtins-mem")
        .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", LOW_FLAGS)
        .env("SKEP_KERNEL", artifacts.kernel());
    command
}

/// Cargo for the BIOS loader.
pub(crate) fn bios_cargo(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = boot_cargo(artifacts, words);
    command
        .args(["-p", "skep-bios", "--target", BARE])
        .args(["-Zbuild-std=core,alloc,compiler_builtins"])
        .arg("-Zbuild-std-features=compiler-builtins-mem")
        .env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", LOW_FLAGS)
        // It has 384 KiB below 512 KiB.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "z")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    command
}

/// Cargo for the UEFI loader.
pub(crate) fn uefi_cargo(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = boot_cargo(artifacts, words);
    command
        .args(["-p", "skep-uefi", "--target", UEFI])
        .args(["-Zbuild-std=core,alloc,compiler_builtins"])
        .arg("-Zbuild-std-features=compiler-builtins-mem");
    command
}

/// Cargo for static Linux programs.
pub(crate) fn user_cargo(artifacts: &Artifacts, words: &[&str]) -> Command {
    let mut command = cargo(artifacts, words);
    command
        .args(["--target", LINUX, "--target-dir"])
        .arg(artifacts.target().join("user"))
        .env(
            "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS",
            "-C target-feature=+crt-static",
        );
    command
}
