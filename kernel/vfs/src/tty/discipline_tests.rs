use super::super::termios::Output;
use super::*;
use proptest::prelude::*;
use std::vec::Vec;

fn line() -> Discipline {
    Discipline::default()
}

fn with(change: impl FnOnce(&mut Termios)) -> Discipline {
    let mut d = line();
    let mut t = *d.termios();
    change(&mut t);
    d.set_termios(t);
    d
}

fn shown(d: &mut Discipline) -> Vec<u8> {
    let mut out = [0; 4096];
    let n = d.take_output(&mut out);
    out[..n].to_vec()
}

fn read(d: &mut Discipline) -> Vec<u8> {
    let mut out = [0; 4096];
    let (n, _) = d.read(&mut out);
    out[..n].to_vec()
}

fn set(t: &mut Termios, which: Control, c: u8) {
    let mut b = t.to_bytes();
    b[17 + which as usize] = c;
    *t = t.with_bytes(&b);
}

#[test]
fn a_line_is_read_when_it_is_complete() {
    let mut d = line();
    d.receive(b"echo hi");
    assert!(!d.readable(1));
    assert_eq!(d.pending(), 0);
    d.receive(b"\r");
    assert!(d.readable(1));
    assert_eq!(d.pending(), 8);
    assert_eq!(read(&mut d), b"echo hi\n");
    assert_eq!(shown(&mut d), b"echo hi\r\n");
    assert!(!d.readable(1));
}

#[test]
fn end_of_file_ends_a_line_without_a_byte() {
    let mut d = line();
    d.receive(b"abc\x04\x04de\n");
    let mut three = [0; 3];
    // A buffer that is full just before the mark uses the mark up, too.
    assert_eq!(d.read(&mut three), (3, true));
    assert_eq!(d.read(&mut three), (0, true));
    assert_eq!(d.read(&mut three), (3, true));
    assert_eq!(&three, b"de\n");
}

#[test]
fn editing_works_on_the_line_and_on_the_screen() {
    let mut d = line();
    d.receive(b"abX\x7fc\n");
    assert_eq!(read(&mut d), b"abc\n");
    assert_eq!(shown(&mut d), b"abX\x08 \x08c\r\n");
    d.receive(b"one two\x17three\n");
    assert_eq!(read(&mut d), b"one three\n");
    shown(&mut d);
    d.receive(b"gone\x15kept\n");
    assert_eq!(read(&mut d), b"kept\n");
    assert_eq!(
        shown(&mut d),
        b"gone\x08 \x08\x08 \x08\x08 \x08\x08 \x08kept\r\n"
    );
    // Nothing before the line can be erased.
    d.receive(b"\x7f\x7f\x17\x15x\n");
    assert_eq!(read(&mut d), b"x\n");
}

#[test]
fn control_characters_are_shown_and_erased_as_two_cells() {
    let mut d = line();
    d.receive(b"\x01\x7f\n");
    assert_eq!(shown(&mut d), b"^A\x08 \x08\x08 \x08\r\n");
    assert_eq!(read(&mut d), b"\n");
    let mut d = with(|t| t.local -= Local::ECHOCTL);
    d.receive(b"\x01\n");
    assert_eq!(shown(&mut d), b"\x01\r\n");
}

#[test]
fn a_tab_is_erased_to_where_it_began() {
    let mut d = line();
    d.receive(b"ab\t\x7f");
    assert_eq!(shown(&mut d), b"ab\t\x08\x08\x08\x08\x08\x08");
    // After a prompt of two columns.
    let mut d = line();
    d.write(b"$ ");
    d.receive(b"\t\x7f");
    assert_eq!(shown(&mut d), b"$ \t\x08\x08\x08\x08\x08\x08");
}

#[test]
fn utf8_is_erased_by_the_character() {
    let mut d = with(|t| t.input |= Input::IUTF8);
    d.receive("aé€\x7f\x7fb\n".as_bytes());
    assert_eq!(read(&mut d), b"ab\n");
    let mut d = line();
    d.receive("é\x7f\n".as_bytes());
    assert_eq!(read(&mut d), b"\xc3\n");
}

#[test]
fn the_next_character_is_literal_after_lnext() {
    let mut d = line();
    let (_, happened) = d.receive(b"\x16\x03\x16\n\n");
    assert_eq!(happened, Happened::empty());
    assert_eq!(read(&mut d), b"\x03\n\n");
    assert_eq!(shown(&mut d), b"^\x08^C^\x08^J\r\n");
}

#[test]
fn reprint_shows_the_line_again() {
    let mut d = line();
    // Which is all that one call does of it.
    assert_eq!(d.receive(b"ab\x12c\n").0, 3);
    assert_eq!(d.receive(b"c\n").0, 2);
    assert_eq!(shown(&mut d), b"ab^R\r\nabc\r\n");
    assert_eq!(read(&mut d), b"abc\n");
}

#[test]
fn printing_terminals_show_what_is_erased() {
    let mut d = with(|t| t.local |= Local::ECHOPRT);
    d.receive(b"abc\x7f\x7fd\n");
    assert_eq!(shown(&mut d), b"abc\\cb/d\r\n");
    assert_eq!(read(&mut d), b"ad\n");
}

#[test]
fn signals_flush_unless_told_otherwise() {
    let mut d = line();
    d.write(b"output");
    let (_, h) = d.receive(b"typed\x03");
    assert_eq!(h, Happened::INTERRUPT | Happened::FLUSHED);
    assert_eq!(shown(&mut d), b"^C");
    assert!(!d.readable(1));
    let mut d = with(|t| t.local |= Local::NOFLSH);
    let (_, h) = d.receive(b"typed\x1a\n");
    assert_eq!(h, Happened::SUSPEND);
    assert_eq!(read(&mut d), b"typed\n");
    let mut d = with(|t| t.local -= Local::ISIG);
    assert_eq!(d.receive(b"\x03\x1c\n").1, Happened::empty());
    assert_eq!(read(&mut d), b"\x03\x1c\n");
}

#[test]
fn flow_control_holds_output_and_echo() {
    let mut d = line();
    d.write(b"one");
    assert_eq!(d.receive(b"\x13").1, Happened::STOPPED);
    assert_eq!(d.write(b"two"), 0);
    d.receive(b"ls\n");
    assert_eq!(shown(&mut d), b"one");
    assert_eq!(d.receive(b"\x11").1, Happened::STARTED);
    assert_eq!(shown(&mut d), b"ls\r\n");
    assert_eq!(read(&mut d), b"ls\n");
    // A program's stop is not undone from the keyboard.
    assert!(d.set_stopped(true));
    assert_eq!(d.receive(b"\x11").1, Happened::empty());
    assert!(d.is_stopped());
    assert!(d.set_stopped(false));
    // With IXANY any character starts it, and counts.
    let mut d = with(|t| t.input |= Input::IXANY);
    assert_eq!(
        d.receive(b"\x13a\n").1,
        Happened::STOPPED | Happened::STARTED
    );
    assert_eq!(read(&mut d), b"a\n");
    // Switching flow control off lets output go on.
    d.receive(b"\x13");
    let mut t = *d.termios();
    t.input -= Input::IXON;
    assert!(d.set_termios(t));
}

#[test]
fn carriage_returns_and_newlines_are_mapped() {
    for (modes, want) in [
        (Input::ICRNL, &b"\n\n"[..]),
        (Input::IGNCR, b"\n"),
        (Input::INLCR, b"\r\r"),
        (Input::empty(), b"\r\n"),
    ] {
        let mut d = with(|t| {
            t.input = modes;
            t.local = Local::empty();
        });
        d.receive(b"\r\n");
        assert_eq!(read(&mut d), want, "{modes:?}");
    }
    let out = |modes: Output, text: &[u8]| {
        let mut d = with(|t| t.output = modes);
        d.write(text);
        shown(&mut d)
    };
    let post = Output::OPOST;
    assert_eq!(out(Output::ONLCR, b"a\n"), b"a\n");
    assert_eq!(out(post | Output::ONLCR, b"a\n"), b"a\r\n");
    assert_eq!(out(post | Output::OCRNL, b"a\r"), b"a\n");
    assert_eq!(out(post | Output::ONOCR, b"\ra\r"), b"a\r");
    assert_eq!(out(post | Output::XTABS, b"abc\td"), b"abc     d");
    assert_eq!(out(post | Output::OLCUC, b"aB"), b"AB");
}

#[test]
fn raw_input_is_there_at_once() {
    let mut d = with(|t| t.local = Local::empty());
    d.receive(b"a\x04\x7f");
    assert!(d.readable(3) && !d.readable(4));
    assert_eq!(d.pending(), 3);
    assert_eq!(read(&mut d), b"a\x04\x7f");
    assert_eq!(shown(&mut d), b"");
}

#[test]
fn switching_modes_keeps_what_was_typed() {
    let mut d = line();
    d.receive(b"one\ntwo\x04thr");
    let lines = *d.termios();
    let mut raw = lines;
    raw.local -= Local::ICANON;
    d.set_termios(raw);
    assert_eq!(d.pending(), 10);
    d.set_termios(lines);
    assert!(d.readable(1));
    assert_eq!(read(&mut d), b"one\ntwothr");
    // Editing does not reach into it.
    d.receive(b"\x7fx\n");
    assert_eq!(read(&mut d), b"x\n");
}

#[test]
fn other_line_ends_and_doubled_255() {
    let mut d = with(|t| {
        set(t, Control::Eol, b';');
        t.input |= Input::PARMRK;
    });
    d.receive(b"a;b\xff\n");
    assert_eq!(read(&mut d), b"a;");
    assert_eq!(read(&mut d), b"b\xff\xff\n");
}

#[test]
fn long_lines_are_cut_and_full_queues_wait() {
    let mut d = with(|t| t.local -= Local::ECHO);
    let long = [b'x'; LINE_MAX + 100];
    assert_eq!(d.receive(&long).0, long.len());
    d.receive(b"\n");
    let mut out = [0; LINE_MAX + 100];
    assert_eq!(d.read(&mut out), (LINE_MAX + 1, true));
    let lines = b"0123456\n".repeat(INPUT_MAX / 4);
    let (taken, _) = d.receive(&lines);
    assert!(taken < lines.len() && taken > INPUT_MAX - 16);
    assert_eq!(read(&mut d), b"0123456\n");
    assert!(d.receive(&lines).0 > 0);
    // The screen takes so much and no more.
    let text = [b'y'; 64 * 1024];
    let n = d.write(&text);
    assert!(n < text.len() && !d.takes_output());
    assert_eq!(d.shown(), n);
}

proptest! {
    /// Whatever is typed in whatever mode, the books stay right, lines come out
    /// whole, and nothing is read twice.
    #[test]
    fn books_balance(
        keys in proptest::collection::vec(any::<u8>(), 0..600),
        modes in any::<(u16, u16, u16)>(),
        change in any::<u32>(),
        cut in 0usize..600,
    ) {
        let mut d = line();
        let mut t = *d.termios();
        t.input = Input::from_bits_retain(u32::from(modes.0));
        t.output = super::super::termios::Output::from_bits_retain(u32::from(modes.1));
        t.local = Local::from_bits_retain(u32::from(modes.2));
        d.set_termios(t);
        let cut = cut.min(keys.len());
        d.receive(&keys[..cut]);
        t.local = Local::from_bits_retain(change);
        d.set_termios(t);
        d.receive(&keys[cut..]);
        let marked = d.input.iter().filter(|e| e.ends()).count();
        prop_assert_eq!(marked, d.lines);
        prop_assert!(d.editing <= d.input.len());
        let mut total = 0;
        let pending = d.pending();
        let mut buffer = [0; 7];
        while d.readable(1) {
            let (n, ended) = d.read(&mut buffer);
            prop_assert!(n > 0 || ended);
            total += n;
        }
        prop_assert_eq!(total, pending);
        prop_assert_eq!(d.lines, 0);
    }

    /// A plain line is read as it was typed, however it comes in.
    #[test]
    fn plain_text_passes(text in "[ -~]{0,200}", step in 1usize..20) {
        let mut d = line();
        let text = text.as_bytes();
        for part in text.chunks(step) {
            d.receive(part);
        }
        d.receive(b"\n");
        let mut want = text.to_vec();
        want.push(b'\n');
        prop_assert_eq!(read(&mut d), want);
    }
}
