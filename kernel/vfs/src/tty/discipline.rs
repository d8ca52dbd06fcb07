//! The line discipline (termios(3); `N_TTY`): what becomes of characters between
//! the keyboard and the program that reads them, and of what is shown of them.
//!
//! Pure state: bytes go in on one side and come out on the other; what else
//! happened, such as a signal, is told as [`Happened`].

use super::screen::{Screen, continues};
use super::termios::{Control, Input, Local, Termios};
use alloc::collections::VecDeque;
use bitflags::bitflags;

/// Most bytes that wait for the reader, complete lines together.
pub(super) const INPUT_MAX: usize = 16 * 1024;
/// Most bytes of a line before its end (`N_TTY_BUF_SIZE` less one, as on Linux).
pub(super) const LINE_MAX: usize = 4095;

bitflags! {
    /// What input brought about beside bytes.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
    pub struct Happened: u8 {
        /// The interrupt character.
        const INTERRUPT = 1;
        /// The quit character.
        const QUIT = 2;
        /// The suspend character.
        const SUSPEND = 4;
        /// Output was stopped.
        const STOPPED = 8;
        /// Stopped output goes on.
        const STARTED = 16;
        /// What waited in both directions was thrown away.
        const FLUSHED = 32;
    }
}

/// A byte of input, with its marks.
#[derive(Clone, Copy)]
struct Entry(u16);

impl Entry {
    /// The line ends with this byte.
    const END: u16 = 0x100;
    /// No byte: the end-of-file character stood here, and the line ends.
    const EOF: u16 = 0x200;

    fn byte(self) -> u8 {
        self.0 as u8
    }
    fn ends(self) -> bool {
        self.0 & (Entry::END | Entry::EOF) != 0
    }
    fn is_eof(self) -> bool {
        self.0 & Entry::EOF != 0
    }
}

/// A terminal's line.
#[derive(Default)]
pub struct Discipline {
    termios: Termios,
    input: VecDeque<Entry>,
    /// Complete lines in it.
    lines: usize,
    /// Bytes at its end that are still being edited.
    editing: usize,
    /// The next character is taken literally.
    literal: bool,
    /// Erased characters are being shown between `\` and `/`.
    erasing: bool,
    /// The line was just shown again.
    reprinted: bool,
    screen: Screen,
    /// Output was stopped by a program, not by the stop character.
    stopped_by_program: bool,
}

/// How much of a line the editing characters take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Erase {
    Character,
    Word,
    Line,
}

fn is_control(c: u8) -> bool {
    c < 32 || c == 127
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c >= 0xc0
}

impl Discipline {
    /// Its settings.
    #[must_use]
    pub fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Changes the settings; whether stopped output goes on by that.
    pub fn set_termios(&mut self, new: Termios) -> bool {
        let old = core::mem::replace(&mut self.termios, new);
        let changed = old.local ^ new.local;
        if changed.intersects(Local::ICANON | Local::EXTPROC) {
            // All that is there can be read at once: as bytes, or as one line.
            self.input.retain(|e| !e.is_eof());
            for e in &mut self.input {
                e.0 &= 0xff;
            }
            (self.lines, self.editing) = (0, 0);
            if let Some(last) = self.input.back_mut().filter(|_| new.canonical()) {
                last.0 |= Entry::END;
                self.lines = 1;
            }
            (self.erasing, self.literal) = (false, false);
        }
        let off = old.input.contains(Input::IXON) && !new.input.contains(Input::IXON);
        off && self.screen.stopped && !self.stopped_by_program && self.start()
    }

    fn has(&self, mode: Local) -> bool {
        self.termios.local.contains(mode)
    }

    fn start(&mut self) -> bool {
        let was = self.screen.stopped;
        self.screen.start();
        self.stopped_by_program = false;
        was
    }

    /// Stops output, or lets it go on (`tcflow`); whether that changed anything.
    pub fn set_stopped(&mut self, stop: bool) -> bool {
        if !stop {
            return self.stopped_by_program && self.start();
        }
        self.stopped_by_program = true;
        !core::mem::replace(&mut self.screen.stopped, true)
    }

    /// Whether output is stopped.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.screen.stopped
    }

    // Input.

    /// Whether it takes a further character. A line that nobody has ended is
    /// always gone on with, lest it could never be.
    #[inline]
    #[must_use]
    pub fn takes_input(&self) -> bool {
        self.input.len() + 2 <= INPUT_MAX || self.termios.canonical() && self.lines == 0
    }

    /// Takes characters from the keyboard; how many it had room for, and what they
    /// brought about. After one that showed the whole line again it takes no more
    /// for now, so that no call is long.
    pub fn receive(&mut self, bytes: &[u8]) -> (usize, Happened) {
        let mut happened = Happened::empty();
        for (i, c) in bytes.iter().enumerate() {
            if !self.takes_input() {
                return (i, happened);
            }
            happened |= self.receive_one(*c);
            if core::mem::take(&mut self.reprinted) {
                return (i + 1, happened);
            }
        }
        (bytes.len(), happened)
    }

    fn receive_one(&mut self, c: u8) -> Happened {
        let t = self.termios;
        let mut c = c;
        if t.input.contains(Input::ISTRIP) {
            c &= 0x7f;
        }
        if t.input.contains(Input::IUCLC) && self.has(Local::IEXTEN) {
            c = c.to_ascii_lowercase();
        }
        if self.has(Local::EXTPROC) {
            self.push(u16::from(c));
            return Happened::empty();
        }
        if core::mem::take(&mut self.literal) {
            let started = self.any_starts();
            self.type_one(c, false);
            return started;
        }
        if t.input.contains(Input::IXON) {
            if t.is(Control::Start, c) {
                return self.flow(false);
            }
            if t.is(Control::Stop, c) {
                return self.flow(true);
            }
        }
        if self.has(Local::ISIG)
            && let Some(signal) = self.signal_of(c)
        {
            return self.signal(c, signal);
        }
        let started = self.any_starts();
        match c {
            b'\r' if t.input.contains(Input::IGNCR) => return started,
            b'\r' if t.input.contains(Input::ICRNL) => c = b'\n',
            b'\n' if t.input.contains(Input::INLCR) => c = b'\r',
            _ => {}
        }
        if !(self.has(Local::ICANON) && self.edit(c)) {
            self.type_one(c, c == b'\n');
        }
        started
    }

    /// The stop or start character.
    fn flow(&mut self, stop: bool) -> Happened {
        if !stop {
            return match !self.stopped_by_program && self.start() {
                true => Happened::STARTED,
                false => Happened::empty(),
            };
        }
        match core::mem::replace(&mut self.screen.stopped, true) {
            true => Happened::empty(),
            false => Happened::STOPPED,
        }
    }

    /// Any character starts stopped output where `IXANY` says so.
    fn any_starts(&mut self) -> Happened {
        let any = Input::IXON | Input::IXANY;
        if self.screen.stopped && !self.stopped_by_program && self.termios.input.contains(any) {
            return self.flow(false);
        }
        Happened::empty()
    }

    fn signal_of(&self, c: u8) -> Option<Happened> {
        let t = &self.termios;
        [
            (Control::Intr, Happened::INTERRUPT),
            (Control::Quit, Happened::QUIT),
            (Control::Suspend, Happened::SUSPEND),
        ]
        .into_iter()
        .find_map(|(which, signal)| t.is(which, c).then_some(signal))
    }

    fn signal(&mut self, c: u8, signal: Happened) -> Happened {
        let mut happened = signal;
        if !self.has(Local::NOFLSH) {
            self.flush_input();
            self.screen.clear();
            happened |= Happened::FLUSHED;
        }
        if self.termios.input.contains(Input::IXON) {
            happened |= self.flow(false);
        }
        if self.has(Local::ECHO) {
            self.echo_char(c);
        }
        happened
    }

    /// A character of a line that is typed; `false` if it is none of those that
    /// edit or end one.
    fn edit(&mut self, c: u8) -> bool {
        let t = self.termios;
        let extended = self.has(Local::IEXTEN);
        if t.is(Control::Erase, c) {
            self.erase(Erase::Character);
        } else if t.is(Control::Kill, c) {
            self.kill();
        } else if extended && t.is(Control::Werase, c) {
            self.erase(Erase::Word);
        } else if extended && t.is(Control::Literal, c) {
            self.literal = true;
            if self.has(Local::ECHO) {
                self.finish_erasing();
                if self.has(Local::ECHOCTL) {
                    self.screen.echo_plain(b"^\x08");
                }
            }
        } else if extended && self.has(Local::ECHO) && t.is(Control::Reprint, c) {
            self.reprint(c);
        } else if c == b'\n' {
            if self.has(Local::ECHO) || self.has(Local::ECHONL) {
                self.screen.echo(c, &t);
            }
            self.end_line(u16::from(c) | Entry::END);
        } else if t.is(Control::Eof, c) {
            self.end_line(Entry::EOF);
        } else if t.is(Control::Eol, c) || extended && t.is(Control::Eol2, c) {
            if self.has(Local::ECHO) {
                self.note_column();
                self.echo_char(c);
            }
            self.mark_parity(c);
            self.end_line(u16::from(c) | Entry::END);
        } else {
            return false;
        }
        true
    }

    /// Shows an ordinary character and puts it into the queue.
    fn type_one(&mut self, c: u8, plain: bool) {
        if self.termios.canonical() && self.editing >= LINE_MAX {
            if self.termios.input.contains(Input::IMAXBEL) {
                self.screen.echo_plain(&[7]);
            }
            return;
        }
        if self.has(Local::ECHO) {
            self.finish_erasing();
            if plain {
                self.screen.echo(c, &self.termios);
            } else {
                self.note_column();
                self.echo_char(c);
            }
        }
        self.mark_parity(c);
        self.push(u16::from(c));
    }

    /// 255 is doubled where it marks errors.
    fn mark_parity(&mut self, c: u8) {
        if c == 0xff && self.termios.input.contains(Input::PARMRK) {
            self.push(0xff);
        }
    }

    fn push(&mut self, entry: u16) {
        // Without memory the character is lost, as on an overrun line.
        if self.input.try_reserve(1).is_err() {
            return;
        }
        self.input.push_back(Entry(entry));
        self.editing += usize::from(self.termios.canonical());
    }

    fn end_line(&mut self, entry: u16) {
        let before = self.input.len();
        self.push(entry);
        if self.input.len() > before {
            self.lines += 1;
            self.editing = 0;
        }
    }

    // Editing.

    fn kill(&mut self) {
        let erase = Local::ECHOK | Local::ECHOKE | Local::ECHOE;
        if !self.has(Local::ECHO) {
            self.drop_editing(self.editing);
        } else if self.termios.local.contains(erase) {
            self.erase(Erase::Line);
        } else {
            self.drop_editing(self.editing);
            self.finish_erasing();
            self.echo_char(self.termios.char(Control::Kill));
            if self.has(Local::ECHOK) {
                self.screen.echo(b'\n', &self.termios);
            }
        }
    }

    /// Takes bytes off the end of the line being typed.
    fn drop_editing(&mut self, n: usize) {
        let keep = self.input.len().saturating_sub(n);
        self.input.truncate(keep);
        self.editing = self.editing.saturating_sub(n);
    }

    /// Bytes of the last character of the line being typed, and its first byte;
    /// `None` if there is none, or not all of it.
    fn last_char(&self) -> Option<(usize, u8)> {
        for (i, e) in self.input.iter().rev().take(self.editing).enumerate() {
            if !continues(e.byte(), &self.termios) {
                return Some((i + 1, e.byte()));
            }
        }
        None
    }

    fn erase(&mut self, what: Erase) {
        let mut in_word = false;
        while let Some((len, c)) = self.last_char() {
            if what == Erase::Word {
                match is_word(c) {
                    true => in_word = true,
                    false if in_word => break,
                    false => {}
                }
            }
            let end = self.input.len();
            let mut gone = [0; 4];
            for (to, e) in gone.iter_mut().zip(self.input.range(end - len..)) {
                *to = e.byte();
            }
            self.drop_editing(len);
            if self.has(Local::ECHO) {
                self.show_erased(c, gone.get(..len.min(4)).unwrap_or(&[]), what);
            }
            if what == Erase::Character {
                break;
            }
        }
        if self.editing == 0 && self.has(Local::ECHO) {
            self.finish_erasing();
        }
    }

    /// Shows that the character `c`, of the bytes `gone`, was erased.
    fn show_erased(&mut self, c: u8, gone: &[u8], what: Erase) {
        let t = self.termios;
        if self.has(Local::ECHOPRT) {
            if !core::mem::replace(&mut self.erasing, true) {
                self.screen.echo(b'\\', &t);
            }
            self.echo_char(c);
            self.screen.echo_plain(gone.get(1..).unwrap_or(&[]));
        } else if what == Erase::Character && !self.has(Local::ECHOE) {
            self.echo_char(t.char(Control::Erase));
        } else if c == b'\t' {
            for _ in 0..self.tab_width() {
                self.screen.echo(8, &t);
            }
        } else {
            let cells = match (is_control(c), self.has(Local::ECHOCTL)) {
                (true, true) => 2,
                (true, false) => 0,
                (false, _) => 1,
            };
            for _ in 0..cells {
                for b in [8, b' ', 8] {
                    self.screen.echo(b, &t);
                }
            }
        }
    }

    /// Columns that the tab which was just taken off the line had.
    fn tab_width(&self) -> usize {
        let (mut columns, mut after_tab) = (0, false);
        for e in self.input.iter().rev().take(self.editing) {
            let c = e.byte();
            if c == b'\t' {
                after_tab = true;
                break;
            }
            columns += match is_control(c) {
                true if self.has(Local::ECHOCTL) => 2,
                true => 0,
                false => usize::from(!continues(c, &self.termios)),
            };
        }
        if !after_tab {
            columns += self.screen.line_column;
        }
        8 - columns % 8
    }

    fn finish_erasing(&mut self) {
        if core::mem::take(&mut self.erasing) {
            self.screen.echo(b'/', &self.termios);
        }
    }

    /// Shows the line being typed once more.
    fn reprint(&mut self, c: u8) {
        self.reprinted = true;
        self.finish_erasing();
        self.echo_char(c);
        self.screen.echo(b'\n', &self.termios);
        let from = self.input.len() - self.editing;
        for i in from..self.input.len() {
            if let Some(e) = self.input.get(i) {
                self.echo_char(e.byte());
            }
        }
    }

    /// Remembers where on the screen a line begins.
    fn note_column(&mut self) {
        if self.editing == 0 {
            self.screen.line_column = self.screen.column;
        }
    }

    /// Echoes a character, a control character as `^X` where that is wanted.
    fn echo_char(&mut self, c: u8) {
        if is_control(c) && c != b'\t' && self.has(Local::ECHOCTL) {
            self.screen.echo_plain(&[b'^', c ^ 0o100]);
            self.screen.column += 2;
        } else {
            self.screen.echo(c, &self.termios);
        }
    }

    // Reading.

    /// Whether a read finds something: a line, or at least `least` bytes where
    /// input does not come in lines.
    #[inline]
    #[must_use]
    pub fn readable(&self, least: usize) -> bool {
        match self.termios.canonical() {
            true => self.lines > 0,
            false => self.input.len() >= least.max(1),
        }
    }

    /// Bytes that a read can find (`FIONREAD`).
    #[must_use]
    pub fn pending(&self) -> usize {
        let all = self.input.len() - self.editing.min(self.input.len());
        let marks = self.input.iter().filter(|e| e.is_eof()).count();
        all - marks.min(all)
    }

    /// Takes input out, of one line at most; how many bytes, and whether that
    /// reached the line's end.
    pub fn read(&mut self, out: &mut [u8]) -> (usize, bool) {
        let lines = self.termios.canonical();
        if lines && self.lines == 0 {
            return (0, false);
        }
        let mut n = 0;
        loop {
            let Some(first) = self.input.front().copied() else {
                return (n, false);
            };
            if n == out.len() && !(lines && first.is_eof()) {
                return (n, false);
            }
            self.input.pop_front();
            if !first.is_eof()
                && let Some(to) = out.get_mut(n)
            {
                *to = first.byte();
                n += 1;
            }
            if lines && first.ends() {
                self.lines -= 1;
                return (n, true);
            }
        }
    }

    /// Throws away what was not read.
    pub fn flush_input(&mut self) {
        self.input.clear();
        (self.lines, self.editing) = (0, 0);
        (self.erasing, self.literal) = (false, false);
    }

    // Output.

    /// Whether a program may write.
    #[inline]
    #[must_use]
    pub fn takes_output(&self) -> bool {
        self.screen.has_room()
    }

    /// Takes what a program writes; how much of it had room.
    pub fn write(&mut self, bytes: &[u8]) -> usize {
        self.screen.write(bytes, &self.termios)
    }

    /// Bytes of output that wait.
    #[inline]
    #[must_use]
    pub fn shown(&self) -> usize {
        self.screen.len()
    }

    /// Takes output and echo out; how many bytes.
    pub fn take_output(&mut self, out: &mut [u8]) -> usize {
        self.screen.take(out)
    }

    /// Throws away output and echo.
    pub fn flush_output(&mut self) {
        self.screen.clear();
    }
}

#[cfg(test)]
#[path = "discipline_tests.rs"]
mod tests;
