//! The settings of a terminal (termios(3)), in the layouts the kernel interface
//! has them in.

use bitflags::bitflags;

bitflags! {
    /// Input modes (`c_iflag`). Those of real lines alone are kept and shown.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Input: u32 {
        /// A byte 255 is read as two.
        const PARMRK = 0o10;
        /// The eighth bit is cut off.
        const ISTRIP = 0o40;
        /// A new-line becomes a carriage return.
        const INLCR = 0o100;
        /// Carriage returns vanish.
        const IGNCR = 0o200;
        /// A carriage return becomes a new-line.
        const ICRNL = 0o400;
        /// Upper case becomes lower case.
        const IUCLC = 0o1000;
        /// The start and stop characters control output.
        const IXON = 0o2000;
        /// Any character starts stopped output.
        const IXANY = 0o4000;
        /// A bell answers what does not fit the line.
        const IMAXBEL = 0o20000;
        /// Erasing knows UTF-8.
        const IUTF8 = 0o40000;
        /// The rest is stored.
        const _ = !0;
    }

    /// Output modes (`c_oflag`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Output: u32 {
        /// Output is processed at all.
        const OPOST = 0o1;
        /// Lower case becomes upper case.
        const OLCUC = 0o2;
        /// A new-line becomes carriage return and new-line.
        const ONLCR = 0o4;
        /// A carriage return becomes a new-line.
        const OCRNL = 0o10;
        /// No carriage return at column 0.
        const ONOCR = 0o20;
        /// A new-line returns to column 0, too.
        const ONLRET = 0o40;
        /// Both bits: tabs become spaces.
        const XTABS = 0o14000;
        /// The rest is stored.
        const _ = !0;
    }

    /// Local modes (`c_lflag`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Local: u32 {
        /// Some characters are signals.
        const ISIG = 0o1;
        /// Input comes in lines that can be edited.
        const ICANON = 0o2;
        /// Input is shown.
        const ECHO = 0o10;
        /// The erase character erases on the screen.
        const ECHOE = 0o20;
        /// A new line follows the kill character.
        const ECHOK = 0o40;
        /// A new-line is shown even without `ECHO`.
        const ECHONL = 0o100;
        /// Signals leave the queues alone.
        const NOFLSH = 0o200;
        /// Writing in the background is `SIGTTOU`.
        const TOSTOP = 0o400;
        /// Control characters are shown as `^X`.
        const ECHOCTL = 0o1000;
        /// Erased characters are shown between `\` and `/`.
        const ECHOPRT = 0o2000;
        /// The kill character erases the line on the screen.
        const ECHOKE = 0o4000;
        /// The extensions: `LNEXT`, `WERASE`, `REPRINT`, `EOL2`, `IUCLC`.
        const IEXTEN = 0o100_000;
        /// The line is edited elsewhere (`TIOCPKT` users).
        const EXTPROC = 0o200_000;
        /// The rest is stored.
        const _ = !0;
    }
}

/// Places of the control characters in `c_cc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Intr = 0,
    Quit = 1,
    Erase = 2,
    Kill = 3,
    Eof = 4,
    Time = 5,
    Min = 6,
    Start = 8,
    Stop = 9,
    Suspend = 10,
    Eol = 11,
    Reprint = 12,
    Werase = 14,
    Literal = 15,
    Eol2 = 16,
}

/// Control characters there are.
const CONTROLS: usize = 19;
/// Bytes of `struct termios` of the kernel interface.
pub(super) const TERMIOS_BYTES: usize = 36;
/// Bytes of `struct termios2`.
pub(super) const TERMIOS2_BYTES: usize = 44;
/// Bytes of `struct termio`, its padding included.
pub(super) const TERMIO_BYTES: usize = 18;

/// Bits of the speed in `c_cflag`, and "see the speed fields".
const CBAUD: u32 = 0o010_017;
const BOTHER: u32 = 0o010_000;
/// Character size and parity, which a pseudo-terminal does not have: 8 bits, none.
const CSIZE: u32 = 0o60;
const CS8: u32 = 0o60;
const CREAD: u32 = 0o200;
const PARENB: u32 = 0o400;

/// The settings of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termios {
    /// Input modes.
    pub input: Input,
    /// Output modes.
    pub output: Output,
    /// Modes of a line, which are kept and shown.
    pub control: u32,
    /// Local modes.
    pub local: Local,
    /// The line discipline's number.
    pub line: u8,
    chars: [u8; CONTROLS],
    speeds: (u32, u32),
}

impl Default for Termios {
    /// What a pseudo-terminal starts with.
    fn default() -> Termios {
        let mut chars = [0; CONTROLS];
        // ^C ^\ DEL ^U ^D, 0 and 1 for time and minimum, ^Q ^S ^Z, ^R ^O ^W ^V
        let first = [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22];
        if let Some(part) = chars.get_mut(..first.len()) {
            part.copy_from_slice(&first);
        }
        Termios {
            input: Input::ICRNL | Input::IXON,
            output: Output::OPOST | Output::ONLCR,
            control: 0o17 | CS8 | CREAD,
            local: Local::ISIG
                | Local::ICANON
                | Local::ECHO
                | Local::ECHOE
                | Local::ECHOK
                | Local::ECHOCTL
                | Local::ECHOKE
                | Local::IEXTEN,
            line: 0,
            chars,
            speeds: (38_400, 38_400),
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..at + 4).and_then(|b| b.try_into().ok());
    part.map_or(0, u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    let part = bytes.get(at..at + 2).and_then(|b| b.try_into().ok());
    u32::from(part.map_or(0, u16::from_ne_bytes))
}

/// The speed that the bits in `c_cflag` stand for; `None` for `BOTHER`.
fn speed(control: u32) -> Option<u32> {
    const LOW: [u32; 16] = [
        0, 50, 75, 110, 134, 150, 200, 300, 600, 1200, 1800, 2400, 4800, 9600, 19_200, 38_400,
    ];
    const HIGH: [u32; 15] = [
        57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600, 1_000_000, 1_152_000,
        1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000, 4_000_000,
    ];
    let bits = control & CBAUD;
    if bits < 16 {
        return LOW.get(bits as usize).copied();
    }
    HIGH.get((bits & 15).checked_sub(1)? as usize).copied()
}

impl Termios {
    /// The control character at `which`.
    #[inline]
    #[must_use]
    pub(crate) fn char(&self, which: Control) -> u8 {
        self.chars.get(which as usize).copied().unwrap_or(0)
    }

    /// Whether `c` is the control character at `which`, which 0 switches off.
    #[inline]
    pub(crate) fn is(&self, which: Control, c: u8) -> bool {
        c != 0 && c == self.char(which)
    }

    /// Whether input is edited in lines here.
    #[inline]
    pub(crate) fn canonical(&self) -> bool {
        self.local.contains(Local::ICANON) && !self.local.contains(Local::EXTPROC)
    }

    /// Whether flow control is the usual one, which packet mode tells of.
    pub(crate) fn usual_flow(&self) -> bool {
        self.input.contains(Input::IXON)
            && self.char(Control::Stop) == 0o23
            && self.char(Control::Start) == 0o21
    }

    /// As `struct termios2`; the first [`TERMIOS_BYTES`] are `struct termios`.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; TERMIOS2_BYTES] {
        let mut out = [0; TERMIOS2_BYTES];
        let mut put = |at: usize, bytes: &[u8]| {
            if let Some(part) = out.get_mut(at..at + bytes.len()) {
                part.copy_from_slice(bytes);
            }
        };
        put(0, &self.input.bits().to_ne_bytes());
        put(4, &self.output.bits().to_ne_bytes());
        put(8, &self.control.to_ne_bytes());
        put(12, &self.local.bits().to_ne_bytes());
        put(16, &[self.line]);
        put(17, &self.chars);
        put(36, &self.speeds.0.to_ne_bytes());
        put(40, &self.speeds.1.to_ne_bytes());
        out
    }

    /// These settings with those of `bytes`, a `struct termios` or `termios2`.
    #[must_use]
    pub fn with_bytes(&self, bytes: &[u8]) -> Termios {
        let mut new = *self;
        new.input = Input::from_bits_retain(word(bytes, 0));
        new.output = Output::from_bits_retain(word(bytes, 4));
        new.control = word(bytes, 8);
        new.local = Local::from_bits_retain(word(bytes, 12));
        new.line = bytes.get(16).copied().unwrap_or(0);
        if let Some(chars) = bytes.get(17..17 + CONTROLS) {
            new.chars.copy_from_slice(chars);
        }
        let given = (bytes.len() >= TERMIOS2_BYTES).then(|| (word(bytes, 36), word(bytes, 40)));
        new.settle(given)
    }

    /// As the old `struct termio`.
    #[must_use]
    pub fn to_termio(&self) -> [u8; TERMIO_BYTES] {
        let mut out = [0; TERMIO_BYTES];
        let flags = [
            self.input.bits(),
            self.output.bits(),
            self.control,
            self.local.bits(),
        ];
        for (part, flag) in out.chunks_exact_mut(2).zip(flags) {
            part.copy_from_slice(&(flag as u16).to_ne_bytes());
        }
        for (to, from) in out
            .iter_mut()
            .skip(8)
            .zip([self.line].iter().chain(&self.chars))
        {
            *to = *from;
        }
        // The ninth of them does not exist there.
        out[TERMIO_BYTES - 1] = 0;
        out
    }

    /// These settings with those of `bytes`, a `struct termio`.
    #[must_use]
    pub fn with_termio(&self, bytes: &[u8; TERMIO_BYTES]) -> Termios {
        let mut new = *self;
        let low = |old: u32, at: usize| old & 0xffff_0000 | half(bytes, at);
        new.input = Input::from_bits_retain(low(self.input.bits(), 0));
        new.output = Output::from_bits_retain(low(self.output.bits(), 2));
        new.control = low(self.control, 4);
        new.local = Local::from_bits_retain(low(self.local.bits(), 6));
        new.line = bytes[8];
        new.chars[..8].copy_from_slice(&bytes[9..17]);
        new.settle(None)
    }

    /// What a pseudo-terminal makes of new settings.
    fn settle(mut self, given: Option<(u32, u32)>) -> Termios {
        self.control = self.control & !(CSIZE | PARENB) | CS8 | CREAD;
        if self.control & CBAUD == BOTHER {
            self.speeds = given.unwrap_or(self.speeds);
        } else if let Some(s) = speed(self.control) {
            self.speeds = (s, s);
        }
        self
    }
}

/// Which settings cannot be changed: a bit that is set locks the same bit, a byte
/// that is not zero the whole byte (ioctl_tty(2), "Locking the termios structure").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Locks {
    modes: [u32; 4],
    line: u8,
    chars: [u8; CONTROLS],
}

impl Locks {
    /// From a `struct termios`.
    pub(super) fn from_bytes(bytes: &[u8; TERMIOS_BYTES]) -> Locks {
        let mut chars = [0; CONTROLS];
        chars.copy_from_slice(&bytes[17..17 + CONTROLS]);
        Locks {
            modes: [0, 4, 8, 12].map(|at| word(bytes, at)),
            line: bytes[16],
            chars,
        }
    }

    /// As a `struct termios`.
    pub(super) fn to_bytes(self) -> [u8; TERMIOS_BYTES] {
        let mut out = [0; TERMIOS_BYTES];
        for (part, mode) in out.chunks_exact_mut(4).zip(self.modes) {
            part.copy_from_slice(&mode.to_ne_bytes());
        }
        out[16] = self.line;
        out[17..17 + CONTROLS].copy_from_slice(&self.chars);
        out
    }

    /// The settings `new` with what is locked as in `old`.
    pub(super) fn hold(&self, old: &Termios, mut new: Termios) -> Termios {
        let bits = |locked: u32, old: u32, new: u32| new & !locked | old & locked;
        let [input, output, control, local] = self.modes;
        new.input = Input::from_bits_retain(bits(input, old.input.bits(), new.input.bits()));
        new.output = Output::from_bits_retain(bits(output, old.output.bits(), new.output.bits()));
        new.control = bits(control, old.control, new.control);
        new.local = Local::from_bits_retain(bits(local, old.local.bits(), new.local.bits()));
        if self.line != 0 {
            new.line = old.line;
        }
        let chars = new.chars.iter_mut().zip(old.chars).zip(self.chars);
        for ((to, from), _) in chars.filter(|(_, lock)| *lock != 0) {
            *to = from;
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_survive_both_ways() {
        let t = Termios::default();
        assert_eq!(t.with_bytes(&t.to_bytes()), t);
        assert_eq!(t.with_bytes(&t.to_bytes()[..TERMIOS_BYTES]), t);
        assert_eq!(t.with_termio(&t.to_termio()), t);
    }

    #[test]
    fn speeds_follow_the_bits_or_the_fields() {
        let t = Termios::default();
        let mut b = t.to_bytes();
        b[8..12].copy_from_slice(&0o010_002_u32.to_ne_bytes());
        let fast = t.with_bytes(&b[..TERMIOS_BYTES]);
        assert_eq!(fast.speeds, (115_200, 115_200));
        b[8..12].copy_from_slice(&BOTHER.to_ne_bytes());
        b[36..40].copy_from_slice(&12_345_u32.to_ne_bytes());
        b[40..44].copy_from_slice(&678_u32.to_ne_bytes());
        let odd = t.with_bytes(&b);
        assert_eq!(odd.speeds, (12_345, 678));
        // A pseudo-terminal has 8 bits and no parity whatever is asked for.
        assert_eq!(odd.control & (CSIZE | PARENB | CREAD), CS8 | CREAD);
    }

    #[test]
    fn what_is_locked_stays() {
        let old = Termios::default();
        let mut new = old;
        new.local = Local::empty();
        new.chars = [7; CONTROLS];
        let mut bytes = [0; TERMIOS_BYTES];
        bytes[12..16].copy_from_slice(&Local::ECHO.bits().to_ne_bytes());
        bytes[17] = 1;
        let locks = Locks::from_bytes(&bytes);
        assert_eq!(locks.to_bytes(), bytes);
        let held = locks.hold(&old, new);
        assert_eq!(held.local, Local::ECHO);
        assert_eq!((held.chars[0], held.chars[1]), (3, 7));
        assert_eq!(Locks::default().hold(&old, new), new);
    }
}
