//! A bar on the terminal, for work that takes a while.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const WIDTH: usize = 40;
/// Least time between two drawings.
const PAUSE: Duration = Duration::from_millis(100);

/// The progress of one piece of work. Draws only where somebody watches.
pub(super) struct Bar {
    what: &'static str,
    is_watched: bool,
    drawn: Option<Instant>,
    begun: Instant,
}

impl Bar {
    pub(super) fn new(what: &'static str) -> Self {
        Self {
            what,
            is_watched: io::stderr().is_terminal(),
            drawn: None,
            begun: Instant::now(),
        }
    }

    /// So many thousandths are done.
    pub(super) fn show(&mut self, done: u64) {
        let is_due = self.drawn.is_none_or(|last| last.elapsed() >= PAUSE);
        if self.is_watched && is_due {
            self.drawn = Some(Instant::now());
            self.draw(&line(self.what, done, self.begun.elapsed()));
        }
    }

    /// All is done: the bar goes.
    pub(super) fn end(self) {
        if self.is_watched {
            self.draw("\x1b[K");
        }
    }

    fn draw(&self, text: &str) {
        // A terminal that cannot be written to is no reason to stop.
        let mut terminal = io::stderr();
        let _ = write!(terminal, "\r{text}\r").and_then(|()| terminal.flush());
    }
}

fn line(what: &str, done: u64, elapsed: Duration) -> String {
    let done = done.min(1000);
    let filled = WIDTH * done as usize / 1000;
    let bar = format!("{}{}", "#".repeat(filled), ".".repeat(WIDTH - filled));
    // Less than a hundredth says nothing about the rest.
    let left = match done {
        0..10 => String::new(),
        done => {
            let left = elapsed.as_secs_f64() * (1000 - done) as f64 / done as f64;
            format!(", {left:.0} s left")
        }
    };
    format!("{what:9} [{bar}] {:3} %{left}\x1b[K", done / 10)
}

#[cfg(test)]
mod tests {
    use super::line;
    use std::time::Duration;

    #[test]
    fn a_bar_grows_and_says_how_long_it_takes() {
        let begin = line("writing", 0, Duration::from_secs(1));
        assert!(begin.contains("[....") && begin.contains("  0 %") && !begin.contains("left"));
        let half = line("writing", 500, Duration::from_secs(30));
        assert!(
            half.contains("####....") && half.contains(" 50 %, 30 s left"),
            "{half}"
        );
        assert!(line("x", 2000, Duration::from_secs(1)).contains("100 %, 0 s left"));
    }
}
