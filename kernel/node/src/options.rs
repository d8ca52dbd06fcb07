//! The kernel's command line: words, each `name=value`.
//!
//! It is for whoever looks for a fault; what a node is to be says its configuration.

use skep_api::node::{Console, LogLevel};

/// What the command line changes.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// `log=LEVEL`: instead of the configuration's.
    level: Option<LogLevel>,
}

impl Options {
    /// Reads the line. A word that means nothing is named and left out.
    pub(crate) fn parse(line: &str) -> Options {
        let mut options = Options::default();
        for word in line.split_whitespace() {
            let level = word.strip_prefix("log=").and_then(level);
            match level {
                Some(level) => options.level = Some(level),
                None => log::warn!("the command line has no use for {}", word.escape_debug()),
            }
        }
        options
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
