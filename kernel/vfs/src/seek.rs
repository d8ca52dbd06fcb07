//! Positions in a file (lseek(2)).

use crate::error::{Error, Result};

/// Where a `lseek` goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// To this position.
    Set(u64),
    /// Relative to the current position.
    Current(i64),
    /// Relative to the end.
    End(i64),
    /// To the next data at or after this position.
    Data(u64),
    /// To the next hole at or after this position.
    Hole(u64),
}

impl Seek {
    /// The new position in an object of `size` bytes that has no holes.
    ///
    /// # Errors
    /// [`Error::Invalid`] before the start or past the largest offset;
    /// [`Error::NoDevice`] for data or a hole past the end.
    pub fn within(self, from: u64, size: u64) -> Result<u64> {
        let new = match self {
            Seek::Set(at) => Some(at),
            Seek::Current(by) => from.checked_add_signed(by),
            Seek::End(by) => size.checked_add_signed(by),
            Seek::Data(at) | Seek::Hole(at) if at >= size => return Err(Error::NoDevice),
            Seek::Data(at) => Some(at),
            Seek::Hole(_) => Some(size),
        };
        new.filter(|at| i64::try_from(*at).is_ok())
            .ok_or(Error::Invalid)
    }
}
