//! Where the node talks to people: the serial line and the screen.
//!
//! Until the configuration is known messages go to the serial line, and a panic is
//! told there whatever it says. The screen shows the log from its beginning, then the
//! node's status; it begins when the disks have been searched for the owner's settings.
//! The keyboard pages through the log. The serial line carries messages, and shows the
//! same status to somebody who presses Enter there.

use alloc::sync::Arc;
use capsule::Capsules;
use log::LevelFilter;
use machine::klog;
use skep_api::node::{Console, LogLevel};
use skep_console::Status;

/// Shows what `console` wants to be shown, where it wants it.
pub(crate) fn set(console: &Console) {
    if console.screen {
        match skep_console::start() {
            Ok(true) => {}
            Ok(false) => log::debug!("there is no screen"),
            Err(e) => log::warn!("the screen shows nothing: {e:?}"),
        }
    }
    set_serial(console);
}

/// The same, of the serial line alone.
pub(crate) fn set_serial(console: &Console) {
    log::set_max_level(match console.level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    });
    if !console.serial && klog::has_serial() {
        log::info!("no more is told here: the node's configuration says so");
    }
    klog::set_serial(console.serial);
}

/// Lets whoever presses a key on the serial line see more than messages.
fn listen() {
    if klog::has_serial()
        && let Err(e) = skep_console::serial::start()
    {
        log::warn!("the serial line listens to nobody: {e:?}");
    }
}

/// Has the screen show the node's status once there is one, and the keyboard page
/// through the messages.
#[inline(never)]
pub(crate) fn show_status(capsules: &Arc<Capsules>) {
    let capsules = capsules.clone();
    skep_console::show_status(move || {
        let page = capsules.status_page()?;
        Some(Status {
            head: page.head,
            capsules: page.capsules,
            messages: page.messages,
            code: page.code,
        })
    });
    listen();
    if let Err(e) = skep_ps2::start() {
        log::debug!("PS/2: {e}");
    }
}
