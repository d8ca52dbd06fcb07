//! Where the node talks to people: the serial line and the screen.
//!
//! Until the configuration is known messages go to the serial line, and a panic is
//! told there whatever it says. The screen shows the log from its beginning.

use log::LevelFilter;
use machine::klog;
use skep_api::node::{Console, LogLevel};

/// Shows what `console` wants to be shown, where it wants it.
pub(crate) fn set(console: &Console) {
    log::set_max_level(match console.level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    });
    if console.screen {
        match skep_console::start() {
            Ok(true) => {}
            Ok(false) => log::debug!("there is no screen"),
            Err(e) => log::warn!("the screen shows nothing: {e:?}"),
        }
    }
    if !console.serial {
        log::info!("no more is told here: the node's configuration says so");
        klog::set_serial(false);
    }
}
