//! What the screen shows: the log as it grows, a part of it that somebody looks at, or
//! the node's status.

use alloc::vec::Vec;
use core::time::Duration;
use machine::keys::Key;
use machine::time::Instant;

/// After the last key the screen goes back to where it was.
const ATTENTION: Duration = Duration::from_secs(120);

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The log's end, as it grows.
    Log,
    /// The log, with so many lines left out at its end.
    Past(usize),
    /// The node's status.
    Status,
}

/// Decides what is shown.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) view: View,
    /// There is a status to be shown.
    has_status: bool,
    /// It is shown when somebody asks for it, not by itself.
    is_asked: bool,
    /// When somebody last pressed a key.
    touched: Option<Instant>,
}

impl Viewer {
    pub(crate) fn new() -> Viewer {
        Viewer {
            view: View::Log,
            has_status: false,
            is_asked: false,
            touched: None,
        }
    }

    /// One that shows the log as it grows, and anything else only to somebody who asks.
    pub(crate) fn on_request() -> Viewer {
        Viewer {
            is_asked: true,
            ..Viewer::new()
        }
    }

    /// The view when nobody looks at anything else.
    fn home(&self) -> View {
        if self.has_status && !self.is_asked {
            View::Status
        } else {
            View::Log
        }
    }

    /// There is a status now, or none any more.
    pub(crate) fn set_status(&mut self, there: bool) {
        if self.has_status != there {
            self.has_status = there;
            if self.touched.is_none() || self.view == View::Status {
                self.view = self.home();
            }
        }
    }

    /// Somebody pressed `key`, before a screen of `rows` lines; the log has `lines`.
    pub(crate) fn press(&mut self, key: Key, rows: usize, lines: usize, now: Instant) {
        self.touched = Some(now);
        let page = rows.saturating_sub(1).max(1);
        let most = lines.saturating_sub(rows);
        let back = match self.view {
            View::Past(back) => back,
            View::Log | View::Status => 0,
        };
        let past = |back: usize| View::Past(back.min(most));
        self.view = match key {
            Key::PageUp => past(back.saturating_add(page)),
            Key::Up => past(back.saturating_add(1)),
            Key::Home => past(most),
            Key::PageDown => past(back.saturating_sub(page)),
            Key::Down => past(back.saturating_sub(1)),
            Key::End => View::Log,
            Key::Char(b'\n') if self.is_asked && self.has_status && self.view == View::Log => {
                View::Status
            }
            Key::Escape | Key::Char(b'\n') => {
                self.touched = None;
                self.home()
            }
            _ => self.view,
        };
    }

    /// Goes back when nobody has pressed a key for long; when to ask again.
    pub(crate) fn rest(&mut self, now: Instant) -> Option<Instant> {
        let end = self.touched?.after(ATTENTION);
        if now < end {
            return Some(end);
        }
        self.touched = None;
        self.view = self.home();
        None
    }
}

/// Text cut into lines that fit a screen of `columns`.
pub(crate) fn lines(text: &[u8], columns: usize) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = Vec::new();
    for line in text.split(|b| *b == b'\n') {
        if line.is_empty() {
            lines.push(line);
        } else {
            lines.extend(line.chunks(columns.max(1)));
        }
    }
    // Behind the last new line there is nothing.
    if lines.last().is_some_and(|l| l.is_empty()) {
        lines.pop();
    }
    lines
}

/// The `rows` lines that end `back` before the last.
pub(crate) fn window<'a, 'b>(lines: &'b [&'a [u8]], rows: usize, back: usize) -> &'b [&'a [u8]] {
    let end = lines.len().saturating_sub(back);
    let start = end.saturating_sub(rows);
    lines.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    const NOW: Instant = Instant(1_000_000_000);

    #[test]
    fn the_log_can_be_paged_and_left() {
        let mut v = Viewer::new();
        let press = |v: &mut Viewer, key| v.press(key, 10, 25, NOW);
        press(&mut v, Key::PageUp);
        assert_eq!(v.view, View::Past(9));
        press(&mut v, Key::PageUp);
        // Not beyond the first line.
        assert_eq!(v.view, View::Past(15));
        press(&mut v, Key::Down);
        assert_eq!(v.view, View::Past(14));
        press(&mut v, Key::PageDown);
        press(&mut v, Key::PageDown);
        assert_eq!(v.view, View::Past(0));
        press(&mut v, Key::Home);
        assert_eq!(v.view, View::Past(15));
        press(&mut v, Key::Char(b'x'));
        assert_eq!(v.view, View::Past(15));
        press(&mut v, Key::End);
        assert_eq!(v.view, View::Log);
    }

    #[test]
    fn a_short_log_has_no_past() {
        let mut v = Viewer::new();
        v.press(Key::PageUp, 10, 3, NOW);
        assert_eq!(v.view, View::Past(0));
    }

    #[test]
    fn the_status_comes_by_itself_but_not_before_somebody_who_reads() {
        let mut v = Viewer::new();
        v.press(Key::PageUp, 10, 25, NOW);
        v.set_status(true);
        assert_eq!(v.view, View::Past(9));
        let end = NOW.after(ATTENTION);
        assert_eq!(v.rest(NOW), Some(end));
        assert_eq!(v.rest(end), None);
        assert_eq!(v.view, View::Status);
        v.press(Key::PageUp, 10, 25, end);
        v.press(Key::Escape, 10, 25, end);
        assert_eq!((v.view, v.rest(end)), (View::Status, None));
        v.set_status(false);
        assert_eq!(v.view, View::Log);
    }

    #[test]
    fn on_request_enter_goes_there_and_back() {
        let mut v = Viewer::on_request();
        let enter = Key::Char(b'\n');
        v.press(enter, 10, 25, NOW);
        assert_eq!(v.view, View::Log);
        v.set_status(true);
        assert_eq!(v.view, View::Log);
        v.press(enter, 10, 25, NOW);
        assert_eq!(v.view, View::Status);
        v.press(Key::PageUp, 10, 25, NOW);
        assert_eq!(v.view, View::Past(9));
        v.press(enter, 10, 25, NOW);
        assert_eq!((v.view, v.rest(NOW)), (View::Log, None));
        v.press(enter, 10, 25, NOW);
        assert_eq!(v.rest(NOW.after(ATTENTION)), None);
        assert_eq!(v.view, View::Log);
        v.press(enter, 10, 25, NOW);
        v.set_status(false);
        assert_eq!(v.view, View::Log);
    }

    #[test]
    fn long_lines_are_cut_and_windows_end_where_asked() {
        let all = lines(b"abcdef\n\nxy\n", 4);
        assert_eq!(all, vec![&b"abcd"[..], b"ef", b"", b"xy"]);
        assert_eq!(window(&all, 2, 0), [&b""[..], b"xy"]);
        assert_eq!(window(&all, 2, 1), [&b"ef"[..], b""]);
        assert_eq!(window(&all, 9, 0).len(), 4);
        assert!(window(&all, 2, 9).is_empty());
        assert!(lines(b"", 4).is_empty());
    }
}
