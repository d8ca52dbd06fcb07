//! Programs from elsewhere do on a node what they do on Linux, each tried in a way of
//! its own.

use anyhow::Result;
use skep_qemu::{
    Artifacts,
    ramdisk::Image,
    suite,
    twin::{Room, ensure_same, on_a_node, on_the_host, same_script},
};

/// busybox: its shell and most of its applets.
#[test]
fn busybox() -> Result<()> {
    let image = Image::open(&Artifacts::new().shell_image())?;
    same_script(
        "programs-busybox",
        &image,
        &["/bin/busybox", "sh"],
        include_str!("scripts/busybox.sh"),
    )
}

/// A static Rust program on tokio: TCP, UDP and unix sockets, timers, files, signals, processes.
#[test]
fn tokio() -> Result<()> {
    let program = Artifacts::new().program("bustle");
    let host = on_the_host(&program.to_string_lossy(), &[])?;
    let node = on_a_node(
        "programs-tokio",
        &Image::program("bustle")?,
        &["/bin/bustle"],
        Room::default(),
    )?;
    ensure_same("programs-tokio", &node, &host)
}

/// A thread that yields, beside one that computes, on one CPU.
#[test]
fn yields() -> Result<()> {
    // Programs spin and yield until somebody else has done something. Not compared with
    // the host: newer Linux lets who has had less go on all the same.
    let image = Image::program("polite")?;
    on_a_node("programs-yields", &image, &["/bin/polite"], Room::default())?;
    Ok(())
}

/// busybox's shell: a crowd of processes that ends together, again and again.
#[test]
fn crowd() -> Result<()> {
    let image = Image::open(&Artifacts::new().shell_image())?;
    same_script(
        "programs-crowd",
        &image,
        &["/bin/busybox", "sh"],
        include_str!("scripts/crowd.sh"),
    )
}

/// stress-ng: every stressor, checking its own work; [what became of each](suites/stress_ng.tsv).
#[test]
#[ignore = "long: `scripts/test compat` runs it"]
fn stress_ng() -> Result<()> {
    suite::stress_ng::suite()?.check()
}
