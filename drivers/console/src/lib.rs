//! The screen: shows the kernel's log as a terminal would.
//!
//! A thread follows the log's ring and draws what is new, some ten times a second
//! at most, because scrolling means drawing all of the screen. The log itself only
//! wakes that thread, so that logging never waits for pixels.
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

mod text;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use machine::framebuffer::Framebuffer;
use machine::klog::{self, LogSink};
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::wait::WaitQueue;
use os_terminal::font::BitmapFont;
use os_terminal::{DrawTarget, Rgb, Terminal};

/// What there must be of a screen for text to make sense.
const SIZE_MIN: (usize, usize) = (320, 200);
/// Time between two drawings.
const PAUSE: Duration = Duration::from_millis(80);

/// Wakes the thread that draws.
struct Follower {
    /// Where the drawing is, in bytes of the log.
    drawn: AtomicU64,
    news: WaitQueue,
}

static FOLLOWER: Follower = Follower {
    drawn: AtomicU64::new(0),
    news: WaitQueue::new(),
};

impl LogSink for Follower {
    fn line(&self, _: &[u8]) {
        self.news.wake_one();
    }
}

/// Pixels drawn before others get the CPU, if they want it.
const PIXELS: usize = 4096;

struct Screen {
    pixels: Framebuffer,
    drawn: usize,
}

impl DrawTarget for Screen {
    fn size(&self) -> (usize, usize) {
        self.pixels.size()
    }

    #[inline]
    fn draw_pixel(&mut self, x: usize, y: usize, (r, g, b): Rgb) {
        self.pixels.set(x, y, [r, g, b]);
        self.drawn += 1;
        if self.drawn == PIXELS {
            self.drawn = 0;
            thread::cond_resched();
        }
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
    let screen = Screen {
        pixels: screen,
        drawn: 0,
    };
    Builder::new("screen").spawn(move || show(screen))?;
    Ok(true)
}

fn show(screen: Screen) {
    // This draws all of the screen, over what the boot loader wrote.
    let mut terminal = Terminal::new(screen, Box::new(BitmapFont));
    terminal.set_auto_flush(false);
    terminal.set_history_size(0);
    // Nobody types here.
    terminal.process(b"\x1b[?25l");
    loop {
        FOLLOWER
            .news
            .wait(|| (klog::written() > FOLLOWER.drawn.load(Relaxed)).then_some(()));
        take_news(|bytes| terminal.process(bytes));
        terminal.flush();
        // A sleep without interruption ends at its time only.
        let _ = thread::sleep_until(Instant::now().after(PAUSE), false);
    }
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
