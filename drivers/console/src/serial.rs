//! The serial line: messages for whoever records them, and for a person who presses a key
//! the node's status or earlier messages.
//!
//! Nothing is drawn on a line that nobody talks to, so that what a program records is
//! messages and nothing else. While a page is shown messages are kept; they follow when
//! it is left, by a key or because nobody has pressed one for two minutes.

use crate::code::Code;
use crate::page;
use crate::terminal::{self, COLUMNS, ROWS};
use crate::typed::Typed;
use crate::view::{self, View, Viewer};
use crate::{SOURCE, whole_log};
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use core::time::Duration;
use machine::klog;
use machine::serial;
use machine::thread::Builder;
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};

/// Time between two looks at the status while it is shown.
const PAUSE: Duration = Duration::from_secs(1);
/// Keys taken in at one look.
const KEYS_MAX: usize = 64;
/// The last line of each kind of page.
const STATUS_FOOTER: &str = " Enter: messages as they come   Page Up: earlier messages";
const PAST_FOOTER: &str = " Page Up, Page Down, Home: other messages   q: messages as they come";

/// Something was typed.
static TYPED: AtomicBool = AtomicBool::new(false);
static NEWS: WaitQueue = WaitQueue::new();

/// Listens to the serial line, if one is there that tells of what it receives.
///
/// # Errors
/// No memory for the thread.
pub fn start() -> Result<(), machine::AllocError> {
    let listens = serial::listen(|| {
        TYPED.store(true, Relaxed);
        NEWS.wake_one();
    });
    if listens {
        Builder::new("serial").spawn(|| Talk::new().run())?;
    }
    Ok(())
}

/// The thread's own.
struct Talk {
    typed: Typed,
    viewer: Viewer,
    /// What is on the terminal.
    shown: View,
    /// Its rows; none while messages come.
    rows: Vec<Vec<u8>>,
}

impl Talk {
    fn new() -> Talk {
        Talk {
            typed: Typed::default(),
            viewer: Viewer::on_request(),
            shown: View::Log,
            rows: Vec::new(),
        }
    }

    fn run(mut self) {
        loop {
            let end = self.viewer.rest(Instant::now());
            let look = (self.shown == View::Status).then(|| Instant::now().after(PAUSE));
            let until = Until {
                deadline: end.into_iter().chain(look).min(),
                interruptible: false,
            };
            // What is typed and the end of the time lead to the same look.
            let _ = NEWS.wait_until(until, || TYPED.load(Relaxed).then_some(()));
            self.look();
        }
    }

    /// Takes in keys, and draws what has changed.
    fn look(&mut self) {
        TYPED.store(false, Relaxed);
        let mut keys = Vec::new();
        while let Some(byte) = serial::take() {
            keys.extend(self.typed.byte(byte));
            if keys.len() == KEYS_MAX {
                // The rest at the next look, which comes at once.
                TYPED.store(true, Relaxed);
                break;
            }
        }
        if keys.is_empty() && self.shown == View::Log {
            // Noise: not worth a look at the node.
            return;
        }
        let status = SOURCE.get().and_then(|source| source());
        self.viewer.set_status(status.is_some());
        for key in keys {
            let log = whole_log();
            let lines = view::lines(&log, COLUMNS).len();
            self.viewer.press(key, ROWS - 1, lines, Instant::now());
        }
        self.viewer.rest(Instant::now());
        let (view, before) = (self.viewer.view, self.shown);
        self.shown = view;
        match view {
            View::Log if before == View::Log => {}
            View::Log => self.leave(),
            View::Past(_) if view == before => {}
            View::Past(back) => self.draw(&past(back), None),
            View::Status => {
                let status = status.unwrap_or_default();
                let code = Code::new(&status.code).filter(|_| !status.code.is_empty());
                let lines = page::lines(&status, ROWS, STATUS_FOOTER);
                self.draw(&lines, code.as_ref());
            }
        }
    }

    fn draw(&mut self, lines: &[String], code: Option<&Code>) {
        if self.rows.is_empty() {
            klog::hold_serial();
            serial::write(terminal::ENTER);
        }
        let rows = terminal::page(lines, code);
        serial::write(&terminal::changes(&self.rows, &rows));
        self.rows = rows;
    }

    fn leave(&mut self) {
        self.rows = Vec::new();
        serial::write(terminal::LEAVE);
        klog::release_serial();
    }
}

/// A page of the log, `back` lines before its end.
fn past(back: usize) -> Vec<String> {
    let log = whole_log();
    let lines = view::lines(&log, COLUMNS);
    let window = view::window(&lines, ROWS - 1, back);
    let text = |line: &&[u8]| String::from_utf8_lossy(line).into_owned();
    let mut page: Vec<String> = window.iter().map(text).collect();
    page.resize(ROWS - 1, String::new());
    page.push(String::from(PAST_FOOTER));
    page
}
