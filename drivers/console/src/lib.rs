//! The screen and the serial line: both show the kernel's log as a terminal would, and the
//! node's status. [`serial`] is about the line, the rest of this file about the screen.
//!
//! A thread follows the log's ring and draws what is new, some ten times a second
//! at most, because scrolling means drawing all of the screen. The log itself only
//! wakes that thread, so that logging never waits for pixels. Keys page through
//! the log; the status is drawn anew only where it has changed.
#![no_std]
// Nothing a program, a packet, a disk or an image contains may stop the kernel.
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::indexing_slicing
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod code;
mod last;
mod page;
pub mod serial;
mod terminal;
mod text;
mod typed;
mod view;

pub use page::Status;

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use code::Code;
use core::cell::RefCell;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use machine::framebuffer::Framebuffer;
use machine::keys;
use machine::klog::{self, LogSink};
use machine::panic_screen;
use machine::sync::Once;
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};
use os_terminal::font::BitmapFont;
use os_terminal::{DrawTarget, Rgb, Terminal};
use view::{View, Viewer};

/// What there must be of a screen for text to make sense.
const SIZE_MIN: (usize, usize) = (320, 200);
/// Time between two drawings.
const PAUSE: Duration = Duration::from_millis(80);
/// Time between two looks at the node's status.
const STATUS_PAUSE: Duration = Duration::from_secs(2);

/// The last line of the status.
const FOOTER: &str = " Page Up: all messages   Escape: back";

/// Wakes the thread that draws.
struct Follower {
    /// Where the drawing is, in bytes of the log.
    drawn: AtomicU64,
    /// A key was pressed.
    key: AtomicBool,
    news: WaitQueue,
}

static FOLLOWER: Follower = Follower {
    drawn: AtomicU64::new(0),
    key: AtomicBool::new(false),
    news: WaitQueue::new(),
};

impl LogSink for Follower {
    fn line(&self, _: &[u8]) {
        self.news.wake_one();
    }
}

type Source = Box<dyn Fn() -> Option<Status> + Send + Sync>;
static SOURCE: Once<Source> = Once::new();

/// Shows what `source` gives, while it gives something, unless somebody reads the log.
/// Only the first call counts.
pub fn show_status(source: impl Fn() -> Option<Status> + Send + Sync + 'static) {
    SOURCE.call_once(|| Box::new(source));
    FOLLOWER.news.wake_one();
}

/// Pixels drawn before others get the CPU, if they want it.
const PIXELS: usize = 4096;

struct Pixels {
    screen: Framebuffer,
    drawn: usize,
}

impl Pixels {
    fn set(&mut self, x: usize, y: usize, rgb: [u8; 3]) {
        self.screen.set(x, y, rgb);
        self.drawn += 1;
        if self.drawn == PIXELS {
            self.drawn = 0;
            thread::cond_resched();
        }
    }
}

/// The screen, which the terminal and the code's drawing share.
#[derive(Clone)]
struct Canvas(Rc<RefCell<Pixels>>);

impl DrawTarget for Canvas {
    fn size(&self) -> (usize, usize) {
        self.0.borrow().screen.size()
    }

    #[inline]
    fn draw_pixel(&mut self, x: usize, y: usize, (r, g, b): Rgb) {
        self.0.borrow_mut().set(x, y, [r, g, b]);
    }
}

/// Shows the log, from its beginning, on the boot loader's screen. Whether there
/// is one.
///
/// # Errors
/// No memory for the thread.
pub fn start() -> Result<bool, machine::AllocError> {
    let Some(screen) = Framebuffer::open() else {
        return Ok(false);
    };
    let (width, height) = screen.size();
    if width < SIZE_MIN.0 || height < SIZE_MIN.1 || !klog::add_sink(&FOLLOWER) {
        return Ok(false);
    }
    panic_screen::set_painter(last::paint);
    keys::listen(|| {
        FOLLOWER.key.store(true, Relaxed);
        FOLLOWER.news.wake_one();
    });
    Builder::new("screen").spawn(move || Show::new(screen).run())?;
    Ok(true)
}

/// A terminal that draws all of the screen, over whatever there was.
fn blank(canvas: &Canvas) -> Terminal<Canvas> {
    let mut terminal = Terminal::new(canvas.clone(), Box::new(BitmapFont));
    terminal.set_auto_flush(false);
    terminal.set_history_size(0);
    // Nobody types here.
    terminal.process(b"\x1b[?25l");
    terminal
}

/// The thread's own.
struct Show {
    canvas: Canvas,
    terminal: Terminal<Canvas>,
    viewer: Viewer,
    /// What is on the screen.
    shown: View,
    status: Status,
}

impl Show {
    fn new(screen: Framebuffer) -> Show {
        let canvas = Canvas(Rc::new(RefCell::new(Pixels { screen, drawn: 0 })));
        Show {
            terminal: blank(&canvas),
            canvas,
            viewer: Viewer::new(),
            shown: View::Log,
            status: Status::default(),
        }
    }

    fn run(mut self) {
        loop {
            let deadline = self.viewer.rest(Instant::now());
            let look = SOURCE.get().map(|_| Instant::now().after(STATUS_PAUSE));
            let until = Until {
                deadline: deadline.into_iter().chain(look).min(),
                interruptible: false,
            };
            let follows = self.shown == View::Log;
            // News and the end of the time lead to the same look.
            let _ = FOLLOWER.news.wait_until(until, || {
                let grown = follows && klog::written() > FOLLOWER.drawn.load(Relaxed);
                (grown || FOLLOWER.key.load(Relaxed)).then_some(())
            });
            self.look();
            // A sleep without interruption ends at its time only.
            let _ = thread::sleep_until(Instant::now().after(PAUSE), false);
        }
    }

    /// Takes in keys and the status, and draws what has changed.
    fn look(&mut self) {
        FOLLOWER.key.store(false, Relaxed);
        while let Some(key) = keys::take() {
            let log = whole_log();
            let lines = view::lines(&log, self.terminal.columns()).len();
            let rows = self.terminal.rows();
            self.viewer.press(key, rows, lines, Instant::now());
        }
        let status = SOURCE.get().and_then(|source| source());
        self.viewer.set_status(status.is_some());
        let view = self.viewer.view;
        let status = status.unwrap_or_default();
        match view {
            View::Log => self.follow(),
            View::Past(_) if view == self.shown => {}
            View::Past(back) => self.draw_past(back),
            View::Status if view == self.shown && status == self.status => {}
            View::Status => self.draw_status(status),
        }
        self.shown = view;
    }

    /// Draws the log's end, and goes on with what is new.
    fn follow(&mut self) {
        if self.shown != View::Log {
            self.clear();
            let rows = self.terminal.rows() as u64;
            let screen = rows * self.terminal.columns() as u64;
            // Too much is no harm: it scrolls away.
            let from = klog::written().saturating_sub(screen);
            FOLLOWER.drawn.store(from, Relaxed);
        }
        let terminal = &mut self.terminal;
        take_news(|bytes| terminal.process(bytes));
        terminal.flush();
    }

    fn draw_past(&mut self, back: usize) {
        let log = whole_log();
        let lines = view::lines(&log, self.terminal.columns());
        self.clear();
        self.draw_lines(view::window(&lines, self.terminal.rows(), back));
        self.terminal.flush();
    }

    fn draw_status(&mut self, status: Status) {
        let columns = self.terminal.columns();
        let page = page::lines(&status, self.terminal.rows(), FOOTER);
        let cut = |line: &'_ str| line.len().min(columns);
        let lines: Vec<&[u8]> = page
            .iter()
            .map(|line| line.as_bytes().get(..cut(line)).unwrap_or_default())
            .collect();
        self.clear();
        self.draw_lines(&lines);
        self.terminal.flush();
        if let Some(code) = Code::new(&status.code).filter(|_| !status.code.is_empty()) {
            self.draw_code(&code);
        }
        self.status = status;
    }

    fn clear(&mut self) {
        if self.shown == View::Status {
            // The code was drawn behind the terminal's back.
            self.terminal = blank(&self.canvas);
        } else {
            self.terminal.process(b"\x1b[2J\x1b[H");
        }
    }

    /// Draws lines from the top, the last without going to a new one.
    fn draw_lines(&mut self, lines: &[&[u8]]) {
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                self.terminal.process(b"\r\n");
            }
            let terminal = &mut self.terminal;
            text::harmless(line, |bytes| terminal.process(bytes));
        }
    }

    /// Draws the code into the upper right corner, in squares of as many pixels as fit a
    /// third of the screen.
    fn draw_code(&mut self, code: &Code) {
        let mut pixels = self.canvas.0.borrow_mut();
        let (width, height) = pixels.screen.size();
        let scale = (width / 3).min(height / 2) / code.side();
        if scale == 0 {
            return;
        }
        let side = code.side() * scale;
        let left = width - side;
        for y in 0..side {
            for x in 0..side {
                let dark = code.is_dark(x / scale, y / scale);
                let shade = if dark { 0 } else { 255 };
                pixels.set(left + x, y, [shade; 3]);
            }
        }
    }
}

/// All that the log's ring holds; empty without memory for it.
fn whole_log() -> Vec<u8> {
    let mut log = Vec::new();
    if log.try_reserve_exact(klog::RING_BYTES).is_err() {
        return log;
    }
    log.resize(klog::RING_BYTES, 0);
    let (_, n) = klog::read(0, &mut log);
    log.truncate(n);
    // The ring may begin in the middle of a line.
    if klog::written() > klog::RING_BYTES as u64 {
        let first = log.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1);
        log.drain(..first);
    }
    log
}

/// Gives all that the log has and was not drawn to `draw`, made harmless.
fn take_news(mut draw: impl FnMut(&[u8])) {
    let mut bytes = [0; 256];
    loop {
        let (from, n) = klog::read(FOLLOWER.drawn.load(Relaxed), &mut bytes);
        if n == 0 {
            return;
        }
        text::harmless(bytes.get(..n).unwrap_or_default(), &mut draw);
        FOLLOWER.drawn.store(from + n as u64, Relaxed);
        thread::cond_resched();
    }
}
