//! Platform configuration registers (PCRs): what a machine was started with, as a chain of
//! hashes that can only grow until it is reset.

use crate::TpmError;
use crate::command::{Patience, Tpm};
use crate::wire::{Command, Reader, Session};
use core::fmt;

/// Registers of a PC's TPM.
pub const PCR_COUNT: u32 = 24;
/// Bytes of a SHA-256.
pub const DIGEST_BYTES: usize = 32;
/// A SHA-256.
pub type Digest = [u8; DIGEST_BYTES];

/// Command codes (part 2, 6.5.2).
pub(crate) const PCR_EXTEND: u32 = 0x182;
pub(crate) const PCR_READ: u32 = 0x17e;

/// SHA-256 among the hash algorithms (part 2, 6.3).
pub(crate) const SHA256: u16 = 0x000b;
/// Bytes of a selection of registers.
const SELECT_BYTES: u8 = 3;

/// A set of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PcrSet(u32);

impl PcrSet {
    /// These; numbers beyond [`PCR_COUNT`] are left out.
    #[must_use]
    pub fn of(registers: &[u32]) -> PcrSet {
        let known = registers.iter().filter(|n| **n < PCR_COUNT);
        PcrSet(known.fold(0, |set, n| set | 1 << n))
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As a list with one selection, of SHA-256.
    pub(crate) fn write(self, command: &mut Command) {
        let [a, b, c, _] = self.0.to_le_bytes();
        let selection = [SELECT_BYTES, a, b, c];
        command.u32(1).u16(SHA256).raw(&selection);
    }

    /// The one selection of SHA-256 in a list.
    fn read(reader: &mut Reader<'_>) -> Result<PcrSet, TpmError> {
        match read_selections(reader)? {
            [Some((Bank(SHA256), set)), None, ..] => Ok(set),
            _ => Err(TpmError::Malformed),
        }
    }
}

/// A set of registers with one algorithm, by its number (part 2, 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bank(pub u16);

impl fmt::Display for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0x0004 => "sha1",
            0x000b => "sha256",
            0x000c => "sha384",
            0x000d => "sha512",
            0x0012 => "sm3",
            0x0027 => "sha3-256",
            0x0028 => "sha3-384",
            0x0029 => "sha3-512",
            other => return write!(f, "{other:#06x}"),
        })
    }
}

/// Most banks that a TPM can have (part 2, 10.9.7: one for each algorithm).
pub(crate) const BANKS_MAX: usize = 16;
pub(crate) type Selections = [Option<(Bank, PcrSet)>; BANKS_MAX];

/// A list of selections of registers (part 2, 10.9.7).
pub(crate) fn read_selections(reader: &mut Reader<'_>) -> Result<Selections, TpmError> {
    let count = reader.u32()? as usize;
    let mut selections = [None; BANKS_MAX];
    let places = selections.get_mut(..count).ok_or(TpmError::Malformed)?;
    for place in places {
        let bank = Bank(reader.u16()?);
        let len = usize::from(reader.u8()?);
        let bytes = reader.take(len)?;
        let mut set = [0; 4];
        for (to, from) in set.iter_mut().zip(bytes) {
            *to = *from;
        }
        *place = Some((bank, PcrSet(u32::from_le_bytes(set))));
    }
    Ok(selections)
}

impl Tpm {
    /// Makes register `pcr` of SHA-256 the hash of what it is and `digest` (part 3, 22.2).
    ///
    /// # Errors
    /// [`TpmError`]; `NoBank`.
    pub fn extend(&self, pcr: u32, digest: &Digest) -> Result<(), TpmError> {
        if !self.description().has_sha256() {
            return Err(TpmError::NoBank);
        }
        let mut command = Command::authorised(PCR_EXTEND, &[pcr], Session::Password);
        command.u32(1).u16(SHA256).raw(digest);
        self.call(command, Patience::SHORT, |_| Ok(()))
    }

    /// What register `pcr` of SHA-256 is (part 3, 22.4).
    ///
    /// # Errors
    /// [`TpmError`]; `NoBank`.
    pub fn read(&self, pcr: u32) -> Result<Digest, TpmError> {
        let wanted = PcrSet::of(&[pcr]);
        let mut command = Command::new(PCR_READ);
        wanted.write(&mut command);
        self.call(command, Patience::SHORT, |r| {
            let _changes = r.u32()?;
            let told = PcrSet::read(r)?;
            // A register that is not there is left out.
            match r.u32()? {
                1 if told == wanted => r.sized()?.try_into().map_err(|_| TpmError::Malformed),
                0 => Err(TpmError::NoBank),
                _ => Err(TpmError::Malformed),
            }
        })
    }
}
