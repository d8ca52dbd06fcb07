//! What npm installs beside a server.

use crate::{Artifacts, command::output};
use anyhow::{Context as _, Result};
use std::{fs, path::PathBuf, process::Command};

/// A program of a folder below `/srv`, with the packages it names.
#[derive(Clone, Copy)]
pub(super) struct Npm {
    pub(super) name: &'static str,
    /// Its own files.
    pub(super) files: &'static [(&'static str, &'static str)],
}

impl Npm {
    /// A folder that lies over the packages' files, with everything that npm installs
    /// for these; made once.
    pub(super) fn install(self) -> Result<PathBuf> {
        let over = Artifacts::new().out().join("compat-npm").join(self.name);
        let folder = over.join("srv").join(self.name);
        let done = over.with_extension("done");
        let wanted: String = self.files.iter().map(|(_, text)| *text).collect();
        if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
            return Ok(over);
        }
        if over.exists() {
            fs::remove_dir_all(&over)?;
        }
        fs::create_dir_all(&folder)?;
        for (name, text) in self.files {
            fs::write(folder.join(name), text)?;
        }
        let mut npm = Command::new("npm");
        npm.args(["ci", "--omit=dev", "--no-audit", "--no-fund"]);
        output(npm.current_dir(&folder)).context("npm is needed, and its registry")?;
        fs::write(done, wanted)?;
        Ok(over)
    }
}
