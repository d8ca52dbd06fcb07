//! Entries on this machine's Linux, for comparison.

use super::{End, Entry, Ran, Suite, layer::Layer};
use crate::twin::Packages;
use anyhow::Result;
use std::{
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Exit code of `timeout` for a command that it ended.
const LATE: i32 = 124;

/// The files of a suite on this machine.
pub struct Host {
    packages: Packages,
    over: PathBuf,
}

impl Host {
    /// Runs an entry in them.
    pub(super) fn run(&self, environment: &[(String, String)], entry: &Entry) -> Result<Ran> {
        // Not every image has env(1).
        let mut script = String::new();
        for (name, value) in environment {
            script += &format!("export {name}='{value}'\n");
        }
        script += &entry.command;
        let words = ["/bin/sh", "-c", &script];
        let started = Instant::now();
        let limit = Duration::from_secs(entry.seconds);
        let ran = self
            .packages
            .run_on_the_host(Some(&self.over), b"", &words, limit)?;
        let end = match (ran.status.code(), ran.status.signal()) {
            (Some(LATE), _) => End::Late,
            (Some(code), _) => End::Exit(code),
            (None, signal) => End::Signal(signal.unwrap_or_default()),
        };
        Ok(Ran {
            end,
            output: String::from_utf8_lossy(&ran.stdout).into_owned(),
            time: started.elapsed(),
        })
    }
}

/// What a suite is made of that runs in both places.
pub(super) struct Parts<'a> {
    pub(super) name: &'static str,
    pub(super) packages: Packages,
    pub(super) layer: Layer,
    pub(super) environment: &'a [(&'a str, &'a str)],
    pub(super) memory_mib: u32,
    pub(super) entries: Vec<Entry>,
    pub(super) judge: super::Judge,
}

impl Parts<'_> {
    /// The suite: its image is the packages with the layer over them.
    pub(super) fn suite(self) -> Result<Suite> {
        let files = self.layer.files()?;
        let files: Vec<(&str, u16, &[u8])> = files
            .iter()
            .map(|(path, mode, data)| (path.as_str(), *mode, data.as_slice()))
            .collect();
        let mut environment = vec![(
            "PATH".to_string(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string(),
        )];
        let fixed = [("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("TZ", "UTC")];
        let own = self.environment.iter().copied();
        environment.extend(
            fixed
                .into_iter()
                .chain(own)
                .map(|(name, value)| (name.to_string(), value.to_string())),
        );
        Ok(Suite {
            name: self.name,
            image: self.packages.image(&files)?,
            environment,
            memory_mib: self.memory_mib,
            entries: self.entries,
            judge: self.judge,
            host: Some(Host {
                over: self.layer.path().to_path_buf(),
                packages: self.packages,
            }),
        })
    }
}
