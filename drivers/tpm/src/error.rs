//! What can go wrong.

use core::fmt;

/// Why a TPM did not do what it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TpmError {
    /// Nothing answers where its registers should be, or no more.
    Gone,
    /// It can be reached only with firmware's help: the start method of its table.
    NeedsFirmware(u32),
    /// Somebody else has it and does not let go.
    NoLocality,
    /// It does not become ready in time.
    NotReady,
    /// It did not answer a command in time.
    Silent,
    /// It takes more or fewer bytes than the command has.
    OutOfStep,
    /// It says that it has failed for good.
    Failed,
    /// A response is longer than any that is waited for, or a command than it takes.
    TooLong,
    /// A response is not what the specification says it is.
    Malformed,
    /// It answers as a TPM 1.2 does, or as one that has failed.
    Old,
    /// It has no registers of SHA-256 that are in use.
    NoBank,
    /// It does not open what was sealed: the machine was started differently.
    OtherState,
    /// It refuses a command, by its response code (part 2, 6.6).
    Refused(u32),
    /// No memory for its buffer.
    NoMemory,
}

impl TpmError {
    /// What a wait that came to nothing means here.
    pub(crate) fn instead_of_silence(self, meaning: TpmError) -> TpmError {
        match self {
            TpmError::NotReady => meaning,
            other => other,
        }
    }
}

impl fmt::Display for TpmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TpmError::Gone => "nothing answers at its registers",
            TpmError::NeedsFirmware(method) => {
                return write!(
                    f,
                    "it is reached by start method {method}, which is not known"
                );
            }
            TpmError::NoLocality => "somebody else holds it",
            TpmError::NotReady => "it does not become ready",
            TpmError::Silent => "it does not answer",
            TpmError::OutOfStep => "it takes another number of bytes than it was sent",
            TpmError::Failed => "it says that it has failed",
            TpmError::TooLong => "a message is longer than can be",
            TpmError::Malformed => "its response cannot be read",
            TpmError::Old => "it answers as a TPM 1.2 does, or one that has failed",
            TpmError::NoBank => "its registers of SHA-256 are not in use",
            TpmError::OtherState => "what it seals was sealed by another start of the machine",
            TpmError::Refused(code) => return write!(f, "it refuses: response code {code:#x}"),
            TpmError::NoMemory => "no memory for its buffer",
        })
    }
}
