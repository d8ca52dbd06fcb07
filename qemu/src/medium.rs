//! Boot media as their owner makes them: `skep image`.

use crate::{Artifacts, command::output, node::TempFolder};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// An image in a folder of its own, which goes with it.
pub struct Medium {
    folder: TempFolder,
}

impl Medium {
    /// Makes it with the command line, as any owner would, of this ramdisk.
    pub fn new(ramdisk: Option<&Path>) -> Result<Self> {
        let medium = Self {
            folder: TempFolder::new()?,
        };
        let artifacts = Artifacts::new();
        let mut cli = Command::new(artifacts.require(artifacts.cli())?);
        cli.args(["image", "usb", "-o"]).arg(medium.path());
        cli.arg("--key").arg(artifacts.owner_key());
        cli.arg("--ramdisk");
        cli.arg(ramdisk.unwrap_or(&artifacts.ramdisk()));
        output(&mut cli)?;
        Ok(medium)
    }

    /// The image.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("skep.img")
    }

    /// Puts a file on the partition `SKEP` with mtools, over one that is there.
    pub fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        let file = self.folder.path().join("file");
        fs::write(&file, content)?;
        let table = output(Command::new("sfdisk").arg("--json").arg(self.path()))?;
        let table: Value = serde_json::from_str(&table)?;
        let parts = table["partitiontable"]["partitions"].as_array();
        let mut parts = parts.context("no partitions")?.iter();
        let part = parts.find(|part| part["name"] == "SKEP");
        let start = part.context("no SKEP")?["start"]
            .as_u64()
            .context("no start")?;
        let image = format!("{}@@{}", self.path().display(), start * 512);
        let mut mcopy = Command::new("mcopy");
        mcopy.args(["-o", "-i", &image]).arg(&file);
        output(mcopy.arg(format!("::{name}")))?;
        Ok(())
    }
}
