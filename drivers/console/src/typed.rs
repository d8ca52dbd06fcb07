//! Keys out of the bytes that a terminal sends (ECMA-48, and what xterm and the VT220
//! make of the keys with names).

use machine::keys::Key;

/// Where in a sequence the bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Ground,
    /// After an escape.
    Escape,
    /// After `ESC [` or `ESC O`, with the number so far.
    Sequence(u8),
}

/// Reads keys byte by byte.
#[derive(Debug, Default)]
pub(crate) struct Typed(State);

const ESCAPE: u8 = 0x1b;

impl Typed {
    /// The key that `byte` completes, if it does. What is no key that is known is
    /// nothing: on a line that nobody has plugged in, noise is to do nothing.
    pub(crate) fn byte(&mut self, byte: u8) -> Option<Key> {
        let (state, key) = match (self.0, byte) {
            (_, ESCAPE) => (State::Escape, None),
            (State::Ground, b'\r' | b'\n') => (State::Ground, Some(Key::Char(b'\n'))),
            (State::Ground, b'q') => (State::Ground, Some(Key::End)),
            (State::Ground, _) => (State::Ground, None),
            (State::Escape, b'[' | b'O') => (State::Sequence(0), None),
            (State::Escape, _) => (State::Ground, None),
            (State::Sequence(n), b'0'..=b'9') => {
                let digit = byte - b'0';
                let n = n.saturating_mul(10).saturating_add(digit);
                (State::Sequence(n), None)
            }
            // Modifiers behind the number.
            (State::Sequence(n), b';') => (State::Sequence(n), None),
            (State::Sequence(n), last) => (State::Ground, named(n, last)),
        };
        self.0 = state;
        key
    }
}

/// The key that a sequence with this number and this last byte means.
fn named(number: u8, last: u8) -> Option<Key> {
    match (number, last) {
        (_, b'A') => Some(Key::Up),
        (_, b'B') => Some(Key::Down),
        (_, b'H') | (1 | 7, b'~') => Some(Key::Home),
        (_, b'F') | (4 | 8, b'~') => Some(Key::End),
        (5, b'~') => Some(Key::PageUp),
        (6, b'~') => Some(Key::PageDown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut typed = Typed::default();
        bytes.iter().filter_map(|b| typed.byte(*b)).collect()
    }

    #[test]
    fn keys_with_names_are_known() {
        assert_eq!(
            keys(b"\r\x1b[5~\x1b[6~\x1b[A\x1bOB\x1b[1~\x1b[H\x1b[4~\x1bOFq"),
            vec![
                Key::Char(b'\n'),
                Key::PageUp,
                Key::PageDown,
                Key::Up,
                Key::Down,
                Key::Home,
                Key::Home,
                Key::End,
                Key::End,
                Key::End,
            ]
        );
    }

    #[test]
    fn noise_and_what_is_begun_and_left_do_nothing() {
        assert!(keys(b"\0\xff\x80ATZ 0~[5~").is_empty());
        assert!(keys(b"\x1b\x1b[99~\x1b[5\x1bx\x1b[?1c").is_empty());
        assert_eq!(keys(b"\x1b[5\x1b[5~"), vec![Key::PageUp]);
    }

    proptest! {
        #[test]
        fn after_anything_a_key_is_a_key_again(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let mut all = bytes.clone();
            // At most one sequence is left open.
            all.extend(b"zz\x1b[5~");
            let keys = keys(&all);
            prop_assert_eq!(keys.last(), Some(&Key::PageUp));
        }
    }
}
