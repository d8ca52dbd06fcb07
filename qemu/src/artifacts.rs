//! Where the build leaves what nodes boot from.

use crate::command::output;
use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Paths of everything built, whether it is there yet or not.
///
/// All of it lies under `target/` of the checkout this program was built from.
#[derive(Clone, Debug)]
pub struct Artifacts {
    root: PathBuf,
}

impl Default for Artifacts {
    fn default() -> Self {
        Self::new()
    }
}

impl Artifacts {
    /// The artifacts of this checkout.
    pub fn new() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("."));
        Self {
            root: root.to_path_buf(),
        }
    }

    /// The checkout.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of everything built.
    pub fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// Folder of what nodes are made of.
    pub fn out(&self) -> PathBuf {
        self.target().join("skep")
    }

    /// The kernel with its symbols, for debuggers and crash reports.
    pub fn kernel_symbols(&self) -> PathBuf {
        self.out().join("skep-kernel.debug")
    }

    /// The kernel as it is shipped.
    pub fn kernel(&self) -> PathBuf {
        self.out().join("skep-kernel")
    }

    /// Kernel and PVH front end in one file, for `qemu -kernel`.
    pub fn direct(&self) -> PathBuf {
        self.out().join("skep-direct")
    }

    /// The loaders of disks, beside the kernel.
    pub fn loaders(&self) -> PathBuf {
        self.out().join("loaders")
    }

    /// The image builder.
    pub fn image_tool(&self) -> PathBuf {
        self.out().join("skep-image")
    }

    /// The 3Bot, a static Linux program.
    pub fn threebot(&self) -> PathBuf {
        self.out().join("threebot")
    }

    /// The owner's command line.
    pub fn cli(&self) -> PathBuf {
        self.out().join("skep")
    }

    /// The owner's key, which belongs to this checkout.
    pub fn owner_key(&self) -> PathBuf {
        self.out().join("owner.key")
    }

    /// Image folder of Debian's nginx.
    pub fn nginx_image(&self) -> PathBuf {
        self.out().join("nginx")
    }

    /// Image folder of busybox with the example's script.
    pub fn shell_image(&self) -> PathBuf {
        self.out().join("shell")
    }

    /// A program of `qemu/programs`, static, that scenarios run inside capsules.
    pub fn program(&self, name: &str) -> PathBuf {
        self.out().join("programs").join(name)
    }

    /// The standard ramdisk: 3Bot and nginx.
    pub fn ramdisk(&self) -> PathBuf {
        self.out().join("ramdisk")
    }

    /// Folder of the logs of QEMU runs.
    pub fn logs(&self) -> PathBuf {
        self.target().join("qemu-logs")
    }

    /// Writes a disk image for firmware boot with this kernel and `ramdisk`.
    pub fn write_disk(&self, ramdisk: Option<&Path>, out: &Path) -> Result<()> {
        let tool = self.require(self.image_tool())?;
        let mut command = Command::new(tool);
        command.arg("--loaders").arg(self.loaders());
        command.arg("--kernel").arg(self.require(self.kernel())?);
        command.arg("--key").arg(self.require(self.owner_key())?);
        if let Some(ramdisk) = ramdisk {
            command.arg("--ramdisk").arg(ramdisk);
        }
        output(command.arg("--out").arg(out)).context("cannot make a disk image")?;
        Ok(())
    }

    /// Writes a release with this kernel, `ramdisk` and `terms`, which are more flags of
    /// the image builder, signed with the owner's key.
    pub fn write_release(
        &self,
        kernel: &Path,
        ramdisk: &Path,
        terms: &[&str],
        out: &Path,
    ) -> Result<()> {
        let mut command = Command::new(self.require(self.image_tool())?);
        command.arg("--key").arg(self.require(self.owner_key())?);
        command.arg("--kernel").arg(kernel);
        command.arg("--ramdisk").arg(ramdisk).args(terms);
        output(command.arg("--release").arg(out)).context("cannot make a release")?;
        Ok(())
    }

    /// The path itself, or an error that says how to get the missing file.
    pub fn require(&self, path: PathBuf) -> Result<PathBuf> {
        ensure!(
            path.exists(),
            "{} is missing; run scripts/build",
            path.display()
        );
        Ok(path)
    }
}
