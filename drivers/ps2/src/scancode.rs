//! Scan codes of set 1 to keys, on a US layout.

use machine::keys::Key;

/// Set in the code of a key that goes up.
const UP: u8 = 0x80;
/// Begins the code of a key that the first PC did not have.
const EXTENDED: u8 = 0xe0;
/// Begins the code of the pause key, which is five more bytes long.
const PAUSE: u8 = 0xe1;
const PAUSE_REST: u8 = 5;

const LEFT_SHIFT: u8 = 0x2a;
const RIGHT_SHIFT: u8 = 0x36;
const CAPS_LOCK: u8 = 0x3a;

/// Characters by code, 0 for none: alone, and with shift.
const ALONE: &[u8; 0x3a] =
    b"\0\x1b1234567890-=\x08\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 ";
const SHIFTED: &[u8; 0x3a] =
    b"\0\x1b!@#$%^&*()_+\x08\tQWERTYUIOP{}\n\0ASDFGHJKL:\"~\0|ZXCVBNM<>?\0*\0 ";

/// Makes keys of the bytes that a keyboard sends.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    extended: bool,
    /// Bytes to be passed over.
    skip: u8,
    left_shift: bool,
    right_shift: bool,
    caps_lock: bool,
}

impl Decoder {
    /// Takes a byte; the key that goes down with it, or repeats itself.
    pub(crate) fn feed(&mut self, byte: u8) -> Option<Key> {
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        match byte {
            EXTENDED => {
                self.extended = true;
                return None;
            }
            PAUSE => {
                self.skip = PAUSE_REST;
                return None;
            }
            _ => {}
        }
        let extended = core::mem::take(&mut self.extended);
        let is_down = byte & UP == 0;
        let code = byte & !UP;
        match code {
            // An extended shift is made up by the keyboard around other keys.
            LEFT_SHIFT if !extended => self.left_shift = is_down,
            RIGHT_SHIFT if !extended => self.right_shift = is_down,
            CAPS_LOCK if is_down => self.caps_lock = !self.caps_lock,
            _ if is_down => return self.key(code, extended),
            _ => {}
        }
        None
    }

    fn key(&self, code: u8, extended: bool) -> Option<Key> {
        if let Some(key) = navigation(code) {
            return Some(key);
        }
        Some(match (code, extended) {
            (0x01, false) => Key::Escape,
            (0x3b..=0x44, false) => Key::Function(code - 0x3a),
            (0x57 | 0x58, false) => Key::Function(code - 0x57 + 11),
            // On the keypad.
            (0x1c, true) => Key::Char(b'\n'),
            (0x35, true) => Key::Char(b'/'),
            (0x4a, false) => Key::Char(b'-'),
            (0x4e, false) => Key::Char(b'+'),
            (_, false) => Key::Char(self.character(code)?),
            _ => return None,
        })
    }

    fn character(&self, code: u8) -> Option<u8> {
        let at = usize::from(code);
        let alone = *ALONE.get(at)?;
        let shift = self.left_shift || self.right_shift;
        // Caps lock turns shift around, for letters only.
        let upper = shift != (self.caps_lock && alone.is_ascii_lowercase());
        let character = if upper { *SHIFTED.get(at)? } else { alone };
        (character != 0).then_some(character)
    }
}

/// Keys that move about: those of the keypad have the same codes without the prefix.
fn navigation(code: u8) -> Option<Key> {
    Some(match code {
        0x47 => Key::Home,
        0x48 => Key::Up,
        0x49 => Key::PageUp,
        0x4b => Key::Left,
        0x4d => Key::Right,
        0x4f => Key::End,
        0x50 => Key::Down,
        0x51 => Key::PageDown,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn keys(bytes: &[u8]) -> Vec<Key> {
        let mut decoder = Decoder::default();
        bytes.iter().filter_map(|b| decoder.feed(*b)).collect()
    }

    fn text(bytes: &[u8]) -> std::string::String {
        let character = |key| match key {
            Key::Char(c) => char::from(c),
            _ => '?',
        };
        keys(bytes).into_iter().map(character).collect()
    }

    #[test]
    fn letters_with_shift_and_caps_lock() {
        assert_eq!(text(&[0x1e, 0x9e, 0x30, 0xb0]), "ab");
        assert_eq!(text(&[0x2a, 0x1e, 0x02, 0xaa, 0x1e, 0x02]), "A!a1");
        assert_eq!(text(&[0x36, 0x1e, 0xb6, 0x1e]), "Aa");
        // Caps lock, and shift on top of it; digits are not concerned.
        assert_eq!(
            text(&[0x3a, 0xba, 0x1e, 0x02, 0x2a, 0x1e, 0xaa, 0x3a, 0x1e]),
            "A1aa"
        );
        assert_eq!(text(&[0x39, 0x1c, 0x35, 0x2b, 0x29]), " \n/\\`");
    }

    #[test]
    fn keys_that_move_about() {
        let moves = [Key::PageUp, Key::PageDown, Key::Home, Key::End, Key::Up];
        let grey = [
            0xe0, 0x49, 0xe0, 0xc9, 0xe0, 0x51, 0xe0, 0x47, 0xe0, 0x4f, 0xe0, 0x48,
        ];
        assert_eq!(keys(&grey), moves);
        assert_eq!(keys(&[0x49, 0xc9, 0x51, 0x47, 0x4f, 0x48]), moves);
        // The keyboard puts made-up shifts around them; they do not count.
        assert_eq!(
            keys(&[0xe0, 0x2a, 0xe0, 0x49, 0x1e]),
            [Key::PageUp, Key::Char(b'a')]
        );
    }

    #[test]
    fn others() {
        let f = [
            Key::Function(1),
            Key::Function(10),
            Key::Function(11),
            Key::Function(12),
        ];
        assert_eq!(keys(&[0x3b, 0x44, 0x57, 0x58]), f);
        assert_eq!(keys(&[0x01, 0x81]), [Key::Escape]);
        // Pause, print screen, a Windows key: nothing, and what follows is whole.
        let odd = [0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5, 0xe0, 0x5b, 0x1e];
        assert_eq!(keys(&odd), [Key::Char(b'a')]);
    }

    proptest! {
        #[test]
        fn any_bytes_leave_it_able_to_go_on(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            for byte in bytes {
                if let Some(Key::Char(c)) = decoder.feed(byte) {
                    prop_assert!(c.is_ascii() && c != 0);
                }
            }
            // Whatever was half said is over after this.
            for _ in 0..8 {
                decoder.feed(0xaa);
            }
            decoder.feed(0xb6);
            prop_assert!(matches!(decoder.feed(0x1e), Some(Key::Char(b'a' | b'A'))));
        }
    }
}
