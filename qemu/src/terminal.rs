//! A person at the serial line: keys go to the node, and what it sends is drawn by a
//! terminal emulator, so that a scenario judges what that person sees.

use anyhow::{Context as _, Result, ensure};
use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

/// Rows and columns, as terminals have them where nobody says otherwise.
const SIZE: (u16, u16) = (24, 80);
/// How long one look at the line waits for bytes.
const PAUSE: Duration = Duration::from_millis(50);

/// A terminal of 80 by 24 on a node's serial line.
pub struct Terminal {
    line: UnixStream,
    screen: vt100::Parser,
    received: Vec<u8>,
}

impl Terminal {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let line = UnixStream::connect(socket).context("no serial line to connect to")?;
        line.set_read_timeout(Some(PAUSE))?;
        Ok(Self {
            line,
            screen: vt100::Parser::new(SIZE.0, SIZE.1, 0),
            received: Vec::new(),
        })
    }

    /// Types these bytes.
    pub fn types(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.line.write_all(bytes)?)
    }

    /// Draws what comes within `time`; how many bytes that were.
    pub fn watch(&mut self, time: Duration) -> Result<usize> {
        let deadline = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < deadline {
            let mut bytes = [0; 4096];
            match self.line.read(&mut bytes) {
                Ok(n) => {
                    ensure!(n > 0, "the serial line has ended");
                    count += n;
                    self.screen.process(&bytes[..n]);
                    self.received.extend_from_slice(&bytes[..n]);
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(count)
    }

    /// What is on the screen, line by line.
    pub fn text(&self) -> String {
        self.screen.screen().contents()
    }

    /// Everything that came, as it came.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Waits until the screen is as wanted, and gives its text.
    pub fn wait(
        &mut self,
        timeout: Duration,
        mut is_wanted: impl FnMut(&str) -> bool,
    ) -> Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            self.watch(PAUSE)?;
            let text = self.text();
            if is_wanted(&text) {
                return Ok(text);
            }
            ensure!(
                Instant::now() < deadline,
                "not on the terminal within {timeout:?}:\n{text}"
            );
        }
    }

    /// The squares of the QR code at the upper right, dark ones set, read from its half
    /// blocks; light ones around it are left out.
    pub fn code(&self) -> Result<Vec<Vec<bool>>> {
        let screen = self.screen.screen();
        let mut rows = Vec::new();
        for row in 0..SIZE.0 {
            let cells = (0..SIZE.1).filter_map(|column| screen.cell(row, column));
            // Black on white, unlike all text.
            let cells: Vec<_> = cells
                .filter(|cell| cell.bgcolor() == vt100::Color::Idx(7))
                .map(|cell| match cell.contents() {
                    "\u{2580}" => (true, false),
                    "\u{2584}" => (false, true),
                    "\u{2588}" => (true, true),
                    _ => (false, false),
                })
                .collect();
            rows.push(cells.iter().map(|(upper, _)| *upper).collect::<Vec<_>>());
            rows.push(cells.iter().map(|(_, lower)| *lower).collect());
        }
        rows.retain(|row| row.contains(&true));
        let first = rows
            .iter()
            .filter_map(|row| row.iter().position(|dark| *dark));
        let last = rows
            .iter()
            .filter_map(|row| row.iter().rposition(|dark| *dark));
        let (first, last) = first.min().zip(last.max()).context("no code is shown")?;
        let cut = |row: Vec<bool>| row[first..=last].to_vec();
        Ok(rows.into_iter().map(cut).collect())
    }
}
