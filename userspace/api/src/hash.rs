//! The name of content: its BLAKE3 hash.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The BLAKE3 hash of some content, which is also its address.
///
/// As text it is 64 lower-case hexadecimal digits; in binary formats it is the
/// 32 bytes themselves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Number of bytes of a hash.
    pub const LEN: usize = 32;

    /// The hash of `content`.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self(*blake3::hash(content).as_bytes())
    }

    /// The bytes of the hash.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The hash of content that comes in pieces.
#[derive(Clone)]
pub struct Hasher(blake3::Hasher);

impl Hasher {
    /// Of nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(&self) -> Hash {
        Hash(*self.0.finalize().as_bytes())
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a text is not a hash or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// The text does not have the right number of digits.
    #[error("expected {need} hexadecimal digits, found {have} characters")]
    Length {
        /// Digits needed.
        need: usize,
        /// Bytes found.
        have: usize,
    },
    /// A character is not a hexadecimal digit.
    #[error("character {position} is not a hexadecimal digit")]
    Digit {
        /// Position of the character, counted from 0.
        position: usize,
    },
}

/// Reads exactly `2 * N` hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return Err(HexError::Length {
            need: 2 * N,
            have: digits.len(),
        });
    }
    let mut bytes = [0u8; N];
    for (position, digit) in digits.iter().enumerate() {
        let value = (*digit as char)
            .to_digit(16)
            .ok_or(HexError::Digit { position })?;
        if let Some(byte) = bytes.get_mut(position / 2) {
            // `to_digit(16)` is below 16, and every byte takes two digits.
            *byte = (*byte << 4) | value as u8;
        }
    }
    Ok(bytes)
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Writes them.
pub(crate) fn write_hex(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// Serde for a newtype over bytes: hexadecimal where people read, bytes elsewhere.
macro_rules! hex_newtype {
    ($name:ident, $len:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                $crate::hash::write_hex(&self.0, out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, out)
            }
        }

        impl FromStr for $name {
            type Err = $crate::hash::HexError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::hash::from_hex::<$len>(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; $len]>::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}
pub(crate) use hex_newtype;

hex_newtype!(Hash, 32);

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn text_form_round_trips() {
        let hash = Hash::of(b"abc");
        // The test vector of the BLAKE3 paper's reference implementation.
        assert_eq!(
            hash.to_string(),
            "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"
        );
        assert_eq!(hash.to_string().parse(), Ok(hash));
    }

    #[test]
    fn bad_text_is_named() {
        assert_eq!(
            "12".parse::<Hash>(),
            Err(HexError::Length { need: 64, have: 2 })
        );
        let text = "g".repeat(64);
        assert_eq!(text.parse::<Hash>(), Err(HexError::Digit { position: 0 }));
        let wide = "é".repeat(32);
        assert_eq!(wide.parse::<Hash>(), Err(HexError::Digit { position: 0 }));
    }
}
