//! The output half of a line: what programs write and what is echoed, on its way
//! to whoever shows it (termios(3), "c_oflag").

use super::termios::{Output, Termios};
use alloc::collections::VecDeque;

/// Most bytes that wait for the reader.
pub(super) const OUTPUT_MAX: usize = 32 * 1024;
/// How far echo may go beyond that, and how much of it is kept while output is
/// stopped.
const ECHO_MAX: usize = 4096;
/// Columns between tab stops.
const TAB: usize = 8;

/// The output queue and the column the cursor is in.
#[derive(Default)]
pub(super) struct Screen {
    queue: VecDeque<u8>,
    /// Echo that came while output was stopped.
    held: VecDeque<u8>,
    pub(super) stopped: bool,
    /// Where the cursor is.
    pub(super) column: usize,
    /// Where it was when the line being typed began.
    pub(super) line_column: usize,
}

/// Whether `c` goes on with a UTF-8 character, where the terminal knows them.
#[inline]
pub(super) fn continues(c: u8, t: &Termios) -> bool {
    c & 0xc0 == 0x80 && t.input.contains(super::termios::Input::IUTF8)
}

/// What one character of output becomes: up to eight bytes.
struct Shown {
    bytes: [u8; TAB],
    len: usize,
}

impl Shown {
    fn of(bytes: &[u8]) -> Shown {
        let mut shown = Shown {
            bytes: [b' '; TAB],
            len: bytes.len().min(TAB),
        };
        for (to, from) in shown.bytes.iter_mut().zip(bytes) {
            *to = *from;
        }
        shown
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl Screen {
    /// Bytes that can be read.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Forgets all that was not read.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
        self.held.clear();
    }

    /// Whether a program may write.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        !self.stopped && self.queue.len() + TAB <= OUTPUT_MAX
    }

    /// Takes bytes out; how many.
    pub(super) fn take(&mut self, out: &mut [u8]) -> usize {
        let n = out.len().min(self.queue.len());
        for (to, from) in out.iter_mut().zip(self.queue.drain(..n)) {
            *to = from;
        }
        n
    }

    /// Lets held echo go out.
    pub(super) fn start(&mut self) {
        self.stopped = false;
        if self.queue.try_reserve(self.held.len()).is_ok() {
            self.queue.append(&mut self.held);
        }
    }

    /// Queues what a program wrote; how much of it fitted.
    pub(super) fn write(&mut self, bytes: &[u8], t: &Termios) -> usize {
        for (i, c) in bytes.iter().enumerate() {
            if !self.has_room() || self.queue.try_reserve(TAB).is_err() {
                return i;
            }
            let shown = self.process(*c, t);
            self.queue.extend(shown.bytes());
        }
        bytes.len()
    }

    /// Queues echo, processed like output; what does not fit is lost.
    pub(super) fn echo(&mut self, c: u8, t: &Termios) {
        let shown = self.process(c, t);
        self.echo_plain(shown.bytes());
    }

    /// Queues echo as it is.
    pub(super) fn echo_plain(&mut self, bytes: &[u8]) {
        let (queue, max) = match self.stopped {
            true => (&mut self.held, ECHO_MAX),
            false => (&mut self.queue, OUTPUT_MAX + ECHO_MAX),
        };
        if queue.len() + bytes.len() <= max && queue.try_reserve(bytes.len()).is_ok() {
            queue.extend(bytes);
        }
    }

    /// What `c` becomes on its way out; moves the cursor.
    fn process(&mut self, c: u8, t: &Termios) -> Shown {
        if !t.output.contains(Output::OPOST) {
            return Shown::of(&[c]);
        }
        match c {
            b'\n' => {
                if t.output.contains(Output::ONLRET) {
                    self.column = 0;
                }
                if t.output.contains(Output::ONLCR) {
                    (self.column, self.line_column) = (0, 0);
                    return Shown::of(b"\r\n");
                }
                self.line_column = self.column;
            }
            b'\r' => {
                if t.output.contains(Output::ONOCR) && self.column == 0 {
                    return Shown::of(&[]);
                }
                if t.output.contains(Output::OCRNL) {
                    if t.output.contains(Output::ONLRET) {
                        (self.column, self.line_column) = (0, 0);
                    }
                    return Shown::of(b"\n");
                }
                (self.column, self.line_column) = (0, 0);
            }
            b'\t' => {
                let spaces = TAB - self.column % TAB;
                self.column += spaces;
                if t.output.contains(Output::XTABS) {
                    return Shown::of([b' '; TAB].get(..spaces).unwrap_or(&[]));
                }
            }
            8 => self.column = self.column.saturating_sub(1),
            c if c < 32 || c == 127 => {}
            c => {
                self.column += usize::from(!continues(c, t));
                if t.output.contains(Output::OLCUC) {
                    return Shown::of(&[c.to_ascii_uppercase()]);
                }
            }
        }
        Shown::of(&[c])
    }
}
