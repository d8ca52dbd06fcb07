//! A TPM in use: how commands are sent to it, and what it says of itself.

use crate::TpmError;
use crate::pcr::{Bank, SHA256, read_selections};
use crate::transport::Transport;
use crate::wire::{Command, HEADER_BYTES, NO_SESSIONS, Reader, SESSIONS, wipe};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use machine::sync::Mutex;

/// Command codes (part 2, 6.5.2).
pub(crate) const SELF_TEST: u32 = 0x143;
pub(crate) const STARTUP: u32 = 0x144;
const SHUTDOWN: u32 = 0x145;
const GET_CAPABILITY: u32 = 0x17a;
const GET_RANDOM: u32 = 0x17b;

/// Response codes (part 2, 6.6).
const SUCCESS: u32 = 0;
pub(crate) const INITIALIZE: u32 = 0x100;
const FAILURE: u32 = 0x101;
const NEEDS_TEST: u32 = 0x153;
pub(crate) const YIELDED: u32 = 0x908;
pub(crate) const TESTING: u32 = 0x90a;
pub(crate) const RETRY: u32 = 0x922;
/// The tag of a TPM 1.2's responses.
const OLD_RESPONSE: u16 = 0x00c4;

/// What there is to ask for (part 2, 6.12 and 6.13).
const CAPABILITY_HANDLES: u32 = 1;
const CAPABILITY_PCRS: u32 = 5;
const CAPABILITY_PROPERTIES: u32 = 6;
const PROPERTY_MANUFACTURER: u32 = 0x105;
const PROPERTY_FIRMWARE_HIGH: u32 = 0x10b;
const PROPERTY_FIRMWARE_LOW: u32 = 0x10c;
/// Properties from the manufacturer to the firmware's version.
const PROPERTIES: u32 = PROPERTY_FIRMWARE_LOW - PROPERTY_MANUFACTURER + 1;

/// Longest response that is taken.
const RESPONSE_BYTES_MAX: usize = 4096;
/// Times a command is sent again to a TPM that says it is busy, with growing pauses of
/// which the longest is the last.
const BUSY_TRIES: u32 = 8;
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Most random bytes of one response: what the smallest hash gives.
const RANDOM_BYTES_MAX: usize = 16;

/// How long a command may take. The profile (1.05, table 17) allows 2 s and less to all but
/// those that make keys; these are longer, as an emulated TPM shares its CPU.
pub(crate) struct Patience(pub(crate) Duration);

impl Patience {
    /// Commands that look up or hash.
    pub(crate) const SHORT: Patience = Patience(Duration::from_secs(5));
    /// Commands that make a key or write memory that stays.
    pub(crate) const LONG: Patience = Patience(Duration::from_secs(60));
}

/// What a TPM says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its maker, four letters.
    pub manufacturer: String,
    /// Version of its firmware, four numbers.
    pub firmware: [u16; 4],
    /// The banks of registers that are in use.
    pub banks: Vec<Bank>,
}

impl Description {
    /// Whether its registers of SHA-256 are in use.
    #[must_use]
    pub fn has_sha256(&self) -> bool {
        self.banks.contains(&Bank(SHA256))
    }
}

/// A TPM in use.
pub struct Tpm {
    transport: Box<dyn Transport>,
    /// Holds responses; one command at a time.
    buffer: Mutex<Vec<u8>>,
    description: Description,
}

impl Tpm {
    /// Starts it, unless the firmware has, and asks what it is.
    pub(crate) fn open(transport: Box<dyn Transport>) -> Result<Tpm, TpmError> {
        let mut buffer = Vec::new();
        let reserved = buffer.try_reserve_exact(RESPONSE_BYTES_MAX);
        reserved.map_err(|_| TpmError::NoMemory)?;
        buffer.resize(RESPONSE_BYTES_MAX, 0);
        let mut tpm = Tpm {
            transport,
            buffer: Mutex::new(buffer),
            description: Description::default(),
        };
        tpm.start()?;
        tpm.description = tpm.describe()?;
        Ok(tpm)
    }

    /// The interface it is reached by.
    #[must_use]
    pub fn interface(&self) -> &'static str {
        self.transport.name()
    }

    /// What it says of itself.
    #[must_use]
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Sends a command and reads the parameters of its response, which `read` must take
    /// to their end.
    pub(crate) fn call<T>(
        &self,
        command: Command,
        patience: Patience,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        self.call_with_handle(command, patience, |_| Ok(()), read)
            .map(|(_, value)| value)
    }

    /// The same of a response that has a handle before its parameters.
    pub(crate) fn call_for_handle<T>(
        &self,
        command: Command,
        patience: Patience,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, TpmError>,
    ) -> Result<(u32, T), TpmError> {
        self.call_with_handle(command, patience, |r| r.u32(), read)
    }

    fn call_with_handle<H, T>(
        &self,
        mut command: Command,
        patience: Patience,
        handle: impl FnOnce(&mut Reader<'_>) -> Result<H, TpmError>,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, TpmError>,
    ) -> Result<(H, T), TpmError> {
        let has_sessions = command.has_sessions();
        let bytes = command.finish()?;
        let mut buffer = self.buffer.lock();
        let len = self.exchange(bytes, &mut buffer, &patience)?;
        let response = buffer.get_mut(..len).ok_or(TpmError::Malformed)?;
        let done = parameters(response, has_sessions, handle, read);
        wipe(response);
        done
    }

    /// Sends a command until the TPM has time for it; the length of the response.
    fn exchange(
        &self,
        command: &[u8],
        buffer: &mut [u8],
        patience: &Patience,
    ) -> Result<usize, TpmError> {
        let mut pause = BUSY_PAUSE;
        for _ in 0..BUSY_TRIES {
            let len = self.transport.exchange(command, buffer, patience.0)?;
            let response = buffer.get(..len).ok_or(TpmError::Malformed)?;
            match response_code(response)? {
                RETRY | YIELDED | TESTING => {}
                _ => return Ok(len),
            }
            self.transport.pause(pause);
            pause *= 2;
        }
        Err(TpmError::NotReady)
    }

    fn start(&self) -> Result<(), TpmError> {
        /// All state begins anew (part 2, 6.10).
        const CLEAR: u16 = 0;
        let mut startup = Command::new(STARTUP);
        startup.u16(CLEAR);
        match self.call(startup, Patience::SHORT, |_| Ok(())) {
            // The firmware has done it.
            Ok(()) | Err(TpmError::Refused(INITIALIZE)) => {}
            Err(why) => return Err(why),
        }
        match self.random_bytes(1, |_| ()) {
            Err(TpmError::Refused(NEEDS_TEST)) => self.test(),
            Err(TpmError::Refused(FAILURE)) => Err(TpmError::Failed),
            other => other.map(drop),
        }
    }

    /// Has it test what it has not tested yet (part 3, 10.2).
    fn test(&self) -> Result<(), TpmError> {
        const NOT_ALL: u8 = 0;
        let mut command = Command::new(SELF_TEST);
        command.u8(NOT_ALL);
        self.call(command, Patience::LONG, |_| Ok(()))
    }

    fn describe(&self) -> Result<Description, TpmError> {
        let mut told = Description::default();
        let properties = self.properties()?;
        let property = |wanted| properties.iter().find(|p| p.0 == wanted).map(|p| p.1);
        if let Some(name) = property(PROPERTY_MANUFACTURER) {
            let letters = name.to_be_bytes().into_iter();
            let printable = letters.filter(|b| (b' '..0x7f).contains(b));
            let name: String = printable.map(char::from).collect();
            told.manufacturer = String::from(name.trim());
        }
        let halves = |n: u32| [(n >> 16) as u16, n as u16];
        let version = [PROPERTY_FIRMWARE_HIGH, PROPERTY_FIRMWARE_LOW];
        let [[a, b], [c, d]] = version.map(|p| halves(property(p).unwrap_or(0)));
        told.firmware = [a, b, c, d];
        told.banks = self.banks()?;
        Ok(told)
    }

    fn properties(&self) -> Result<Vec<(u32, u32)>, TpmError> {
        let ask = capability(CAPABILITY_PROPERTIES, PROPERTY_MANUFACTURER, PROPERTIES);
        self.call(ask, Patience::SHORT, |r| {
            told_of(r, CAPABILITY_PROPERTIES)?;
            let count = r.u32()?;
            if count > PROPERTIES {
                return Err(TpmError::Malformed);
            }
            (0..count).map(|_| Ok((r.u32()?, r.u32()?))).collect()
        })
    }

    fn banks(&self) -> Result<Vec<Bank>, TpmError> {
        let ask = capability(CAPABILITY_PCRS, 0, 1);
        self.call(ask, Patience::SHORT, |r| {
            told_of(r, CAPABILITY_PCRS)?;
            let all = read_selections(r)?.into_iter().flatten();
            let in_use = all.filter(|(_, registers)| !registers.is_empty());
            Ok(in_use.map(|(bank, _)| bank).collect())
        })
    }

    /// Whether there is an object that stays at `handle`.
    pub(crate) fn has_handle(&self, handle: u32) -> Result<bool, TpmError> {
        let ask = capability(CAPABILITY_HANDLES, handle, 1);
        self.call(ask, Patience::SHORT, |r| {
            told_of(r, CAPABILITY_HANDLES)?;
            match r.u32()? {
                0 => Ok(false),
                1 => Ok(r.u32()? == handle),
                _ => Err(TpmError::Malformed),
            }
        })
    }

    /// Fills `out` with random bytes of the TPM's own (part 3, 16.1).
    ///
    /// # Errors
    /// [`TpmError`]; what was filled by then is random, the rest as it was.
    pub fn random(&self, out: &mut [u8]) -> Result<(), TpmError> {
        let mut rest = out;
        while !rest.is_empty() {
            let wanted = rest.len().min(RANDOM_BYTES_MAX);
            let given = self.random_bytes(wanted as u16, |bytes| {
                for (to, from) in rest.iter_mut().zip(bytes) {
                    *to = *from;
                }
            })?;
            rest = rest.get_mut(given..).unwrap_or_default();
        }
        Ok(())
    }

    /// Hands over up to `wanted` random bytes, at least one; how many.
    fn random_bytes(&self, wanted: u16, take: impl FnOnce(&[u8])) -> Result<usize, TpmError> {
        let mut command = Command::new(GET_RANDOM);
        command.u16(wanted);
        self.call(command, Patience::SHORT, |r| {
            let bytes = r.sized()?;
            if bytes.is_empty() || bytes.len() > usize::from(wanted) {
                return Err(TpmError::Malformed);
            }
            take(bytes);
            Ok(bytes.len())
        })
    }

    /// Tells it that the machine goes down, so that it does not take that for an attack
    /// (part 3, 9.4).
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn shut_down(&self) -> Result<(), TpmError> {
        const CLEAR: u16 = 0;
        let mut command = Command::new(SHUTDOWN);
        command.u16(CLEAR);
        self.call(command, Patience::SHORT, |_| Ok(()))
    }
}

fn capability(which: u32, from: u32, count: u32) -> Command {
    let mut command = Command::new(GET_CAPABILITY);
    command.u32(which).u32(from).u32(count);
    command
}

/// The head of an answer to [`capability`]; whether there is more does not matter.
fn told_of(reader: &mut Reader<'_>, which: u32) -> Result<(), TpmError> {
    let more = reader.u8()?;
    if more > 1 || reader.u32()? != which {
        return Err(TpmError::Malformed);
    }
    Ok(())
}

fn response_code(response: &[u8]) -> Result<u32, TpmError> {
    let mut reader = Reader::new(response);
    let (tag, len, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    if len as usize != response.len() || response.len() < HEADER_BYTES {
        return Err(TpmError::Malformed);
    }
    match tag {
        OLD_RESPONSE => Err(TpmError::Old),
        NO_SESSIONS | SESSIONS => Ok(code),
        _ => Err(TpmError::Malformed),
    }
}

/// Takes a whole response apart.
fn parameters<H, T>(
    response: &[u8],
    has_sessions: bool,
    handle: impl FnOnce(&mut Reader<'_>) -> Result<H, TpmError>,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, TpmError>,
) -> Result<(H, T), TpmError> {
    let code = response_code(response)?;
    let mut reader = Reader::new(response);
    let tag = reader.u16()?;
    reader.take(HEADER_BYTES - 2)?;
    if code != SUCCESS {
        return Err(TpmError::Refused(code));
    }
    if (tag == SESSIONS) != has_sessions {
        return Err(TpmError::Malformed);
    }
    let handle = handle(&mut reader)?;
    let mut own = reader;
    if has_sessions {
        let len = reader.u32()? as usize;
        own = Reader::new(reader.take(len)?);
        authorisation(&mut reader)?;
    }
    let value = read(&mut own)?;
    own.end()?;
    Ok((handle, value))
}

/// What the session of a command says: nonce, attributes, acknowledgement.
fn authorisation(reader: &mut Reader<'_>) -> Result<(), TpmError> {
    reader.sized()?;
    reader.u8()?;
    reader.sized()?;
    reader.end()
}
