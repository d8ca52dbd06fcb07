//! Log text on its way to the screen.
//!
//! The log may quote what came from outside. A terminal obeys control sequences,
//! so nothing but printable ASCII and new lines goes through.

/// Bytes given on at once.
const PIECE: usize = 64;

/// Gives `text` to `draw` in pieces: `\n` as `\r\n`, a tab as a space, whatever
/// else is not printable ASCII as a dot.
pub(crate) fn harmless(text: &[u8], mut draw: impl FnMut(&[u8])) {
    let mut piece = [0; PIECE];
    for part in text.chunks(PIECE / 2) {
        let mut n = 0;
        let mut put = |byte| {
            // Each byte becomes two at most, so there is a place.
            if let Some(place) = piece.get_mut(n) {
                *place = byte;
                n += 1;
            }
        };
        for byte in part {
            match byte {
                b'\n' => {
                    put(b'\r');
                    put(b'\n');
                }
                b'\t' => put(b' '),
                b' '..=b'~' => put(*byte),
                _ => put(b'.'),
            }
        }
        draw(piece.get(..n).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn shown(text: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        harmless(text, |piece| all.extend_from_slice(piece));
        all
    }

    #[test]
    fn control_sequences_do_not_pass() {
        assert_eq!(shown(b"a\x1b[31mb\r\t\n\xc3\xa4"), b"a.[31mb. \r\n..");
    }

    proptest! {
        #[test]
        fn only_printable_text_comes_out(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let all = shown(&text);
            let lines = text.iter().filter(|b| **b == b'\n').count();
            prop_assert_eq!(all.len(), text.len() + lines);
            prop_assert!(all.iter().all(|b| matches!(b, b' '..=b'~' | b'\r' | b'\n')));
        }
    }
}
