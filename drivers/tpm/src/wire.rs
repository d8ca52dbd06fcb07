//! How commands and responses are written (TPM 2.0 Library, part 1, chapter 18): big-endian
//! fields one after the other, byte strings behind their length.

use crate::TpmError;

/// Bytes before the parameters of a command or a response.
pub(crate) const HEADER_BYTES: usize = 10;
/// Longest command that this driver makes.
const COMMAND_BYTES_MAX: usize = 1024;

/// Structure tags (part 2, 6.9).
pub(crate) const NO_SESSIONS: u16 = 0x8001;
pub(crate) const SESSIONS: u16 = 0x8002;
/// The session that stands for a password (part 2, 7.4).
const PASSWORD: u32 = 0x4000_0009;

/// A command being written. What does not fit is told at its end.
pub(crate) struct Command {
    bytes: [u8; COMMAND_BYTES_MAX],
    len: usize,
    is_cut: bool,
}

impl Command {
    /// Begins a command without sessions.
    pub(crate) fn new(code: u32) -> Command {
        let mut command = Command {
            bytes: [0; COMMAND_BYTES_MAX],
            len: 0,
            is_cut: false,
        };
        command.u16(NO_SESSIONS).u32(0).u32(code);
        command
    }

    /// Begins a command on `handle`, which the session `by` authorises with an empty
    /// secret.
    pub(crate) fn authorised(code: u32, handles: &[u32], by: Session) -> Command {
        let mut command = Command::new(code);
        command.put(0, &SESSIONS.to_be_bytes());
        for handle in handles {
            command.u32(*handle);
        }
        let (session, attributes) = match by {
            Session::Password => (PASSWORD, 0),
            Session::Policy(handle) => (handle, CONTINUE_SESSION),
        };
        // Length of the area; session, nonce, attributes, authorisation value.
        command.u32(9).u32(session).u16(0).u8(attributes).u16(0);
        command
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Command {
        self.raw(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Command {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Command {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Command {
        let end = self.len + bytes.len();
        match self.bytes.get_mut(self.len..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.len = end;
            }
            None => self.is_cut = true,
        }
        self
    }

    /// A byte string behind its length.
    pub(crate) fn sized(&mut self, bytes: &[u8]) -> &mut Command {
        match u16::try_from(bytes.len()) {
            Ok(len) => self.u16(len).raw(bytes),
            Err(_) => {
                self.is_cut = true;
                self
            }
        }
    }

    /// Whatever `fill` writes, behind its length.
    pub(crate) fn nested(&mut self, fill: impl FnOnce(&mut Command)) -> &mut Command {
        let at = self.len;
        self.u16(0);
        fill(self);
        let len = self.len.saturating_sub(at + 2);
        // No longer than the whole command.
        self.put(at, &(len as u16).to_be_bytes());
        self
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// The whole command.
    ///
    /// # Errors
    /// It is longer than this driver's commands can be.
    pub(crate) fn finish(&mut self) -> Result<&[u8], TpmError> {
        if self.is_cut {
            return Err(TpmError::TooLong);
        }
        let len = self.len as u32;
        self.put(2, &len.to_be_bytes());
        self.bytes.get(..self.len).ok_or(TpmError::TooLong)
    }

    /// Whether its response carries sessions too.
    pub(crate) fn has_sessions(&self) -> bool {
        self.bytes.starts_with(&SESSIONS.to_be_bytes())
    }
}

impl Drop for Command {
    /// It may have carried a secret.
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// What authorises a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// An empty password.
    Password,
    /// A policy session, by its handle.
    Policy(u32),
}

/// The session outlives the command (part 2, 8.4).
const CONTINUE_SESSION: u8 = 1;

/// Overwrites bytes in a way that the compiler does not leave out.
pub(crate) fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    core::hint::black_box(bytes);
}

/// The rest of a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], TpmError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(TpmError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TpmError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TpmError::Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, TpmError> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, TpmError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, TpmError> {
        self.array().map(u32::from_be_bytes)
    }

    /// A byte string behind its length.
    pub(crate) fn sized(&mut self) -> Result<&'a [u8], TpmError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), TpmError> {
        match self.0 {
            [] => Ok(()),
            _ => Err(TpmError::Malformed),
        }
    }
}

/// The length that a header says its message has, header included.
pub(crate) fn declared_len(header: &[u8; HEADER_BYTES]) -> usize {
    let [_, _, a, b, c, d, ..] = *header;
    u32::from_be_bytes([a, b, c, d]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_are_the_bytes_of_the_specification() {
        let startup = Command::new(0x144).u16(0).finish().map(<[u8]>::to_vec);
        let bytes = [0x80, 0x01, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
        assert_eq!(startup.unwrap(), bytes);
        let mut extend = Command::authorised(0x182, &[9], Session::Password);
        let bytes = [
            0x80, 0x02, 0, 0, 0, 27, 0, 0, 1, 0x82, 0, 0, 0, 9, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0,
            0, 0,
        ];
        assert_eq!(extend.finish().unwrap(), bytes);
        assert!(extend.has_sessions());
    }

    #[test]
    fn nested_fields_are_behind_their_length() {
        let mut command = Command::new(0);
        command.nested(|inner| {
            inner.sized(b"ab").nested(|one| {
                one.u8(7);
            });
        });
        let bytes = command.finish().unwrap();
        assert_eq!(bytes[10..], [0, 7, 0, 2, b'a', b'b', 0, 1, 7]);
    }

    #[test]
    fn a_command_too_long_is_not_sent() {
        let mut command = Command::new(0);
        command.sized(&[0; COMMAND_BYTES_MAX]).u8(1);
        assert_eq!(command.finish(), Err(TpmError::TooLong));
        let mut command = Command::new(0);
        command.sized(&[0; 1 << 16]);
        assert_eq!(command.finish(), Err(TpmError::TooLong));
    }

    proptest! {
        #[test]
        fn readers_end_where_the_bytes_do(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new(&bytes);
            let mut taken = 0;
            while let Ok(part) = reader.sized() {
                taken += 2 + part.len();
            }
            prop_assert!(taken <= bytes.len());
        }
    }
}
