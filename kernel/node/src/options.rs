//! The kernel's command line: words, each `name=value`.
//!
//! It is for whoever looks for a fault, and for virtual machines that tell of their devices
//! so; what a node is to be says its configuration.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use machine::virtio::Place;
use skep_api::node::{Console, LogLevel};

/// What the command line changes.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// `log=LEVEL`: instead of the configuration's.
    level: Option<LogLevel>,
    /// `virtio_mmio.device=SIZE@ADDRESS:INTERRUPT`: devices, as Linux documents it.
    pub(crate) devices: Vec<Place>,
}

/// More devices than a machine has wires for; further ones are refused.
const DEVICES_MAX: usize = 64;

impl Options {
    /// Reads the lines. A word that means nothing is named and left out.
    #[inline(never)]
    pub(crate) fn parse(lines: &[&str]) -> Options {
        let mut options = Options::default();
        for word in lines.iter().flat_map(|line| line.split_whitespace()) {
            if let Err(why) = options.word(word) {
                let word = word.escape_debug();
                log::warn!("the command line has no use for {word}{why}");
            }
        }
        options
    }

    /// Takes one word; what is wrong with it, as the end of a sentence.
    fn word(&mut self, word: &str) -> Result<(), String> {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        match name {
            "log" => self.level = Some(level(value).ok_or_else(String::new)?),
            "virtio_mmio.device" => {
                let place = Place::parse(value).map_err(|e| format!(": {e}"))?;
                if self.devices.len() >= DEVICES_MAX {
                    return Err(String::from(": there are too many"));
                }
                self.devices.push(place);
            }
            _ => return Err(String::new()),
        }
        Ok(())
    }

    /// The console as the command line wants it.
    pub(crate) fn console(&self, mut console: Console) -> Console {
        if let Some(level) = self.level {
            console.level = level;
        }
        console
    }
}

fn level(name: &str) -> Option<LogLevel> {
    Some(match name {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => return None,
    })
}
