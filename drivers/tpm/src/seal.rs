//! Secrets that the TPM keeps and gives out only to a machine that was started in the same
//! way: an object that stays in the TPM's own memory, so that a node needs no disk for it.

use crate::TpmError;
use crate::command::{Patience, Tpm};
use crate::pcr::{DIGEST_BYTES, Digest, PcrSet, SHA256};
use crate::wire::{Command, Reader, Session};

/// Longest secret (part 2, 11.1.14 allows 128 bytes).
pub const SECRET_BYTES_MAX: usize = 128;

/// Command codes (part 2, 6.5.2).
const EVICT_CONTROL: u32 = 0x120;
const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const LOAD: u32 = 0x157;
pub(crate) const UNSEAL: u32 = 0x15e;
const FLUSH_CONTEXT: u32 = 0x165;
const START_AUTH_SESSION: u32 = 0x176;
const POLICY_PCR: u32 = 0x17f;
const POLICY_GET_DIGEST: u32 = 0x189;

/// Handles that are always there (part 2, 7.4).
const OWNER: u32 = 0x4000_0001;
const NULL_HANDLE: u32 = 0x4000_0007;

/// Algorithms and curves (part 2, 6.3 and 6.4).
const AES: u16 = 0x0006;
const KEYED_HASH: u16 = 0x0008;
const NULL: u16 = 0x0010;
const ECC: u16 = 0x0023;
const CFB: u16 = 0x0043;
const NIST_P256: u16 = 0x0003;

/// Attributes of objects (part 2, 8.3.2).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const NO_DICTIONARY_ATTACKS: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;

/// A policy session that counts (part 2, 6.11).
const POLICY_SESSION: u8 = 1;

/// A failed check of a policy, of whichever session; and a register that changed in
/// between (part 2, 6.6.3).
const POLICY_FAIL: u32 = 0x9d;
const FORMAT_ONE: u32 = 0xbf;
const PCR_CHANGED: u32 = 0x128;

impl Tpm {
    /// Whether something is kept at `handle`.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn is_kept(&self, handle: u32) -> Result<bool, TpmError> {
        self.has_handle(handle)
    }

    /// Keeps `secret` at `handle`, for [`Tpm::unseal`] while `registers` are as they are now.
    ///
    /// # Errors
    /// [`TpmError`]; `Refused` where something is kept there already, or where the owner of
    /// the TPM has set a password.
    pub fn seal(&self, handle: u32, secret: &[u8], registers: PcrSet) -> Result<(), TpmError> {
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            return Err(TpmError::TooLong);
        }
        let policy = self.with_policy(registers, |session| self.policy_digest(session))?;
        self.with_storage_key(|parent| {
            let loaded = self.create_and_load(parent, secret, &policy)?;
            let kept = self.make_persistent(loaded, handle);
            self.flush(loaded);
            kept
        })
    }

    /// Reads what [`Tpm::seal`] keeps at `handle` under the same `registers`.
    ///
    /// # Errors
    /// [`TpmError`]; `OtherState` if the registers are not what they were.
    pub fn unseal<T>(
        &self,
        handle: u32,
        registers: PcrSet,
        take: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, TpmError> {
        self.with_policy(registers, |session| {
            let command = Command::authorised(UNSEAL, &[handle], Session::Policy(session));
            self.call(command, Patience::SHORT, |r| Ok(take(r.sized()?)))
        })
        .map_err(|e| match e {
            TpmError::Refused(code) if code & FORMAT_ONE == POLICY_FAIL => TpmError::OtherState,
            TpmError::Refused(PCR_CHANGED) => TpmError::OtherState,
            other => other,
        })
    }

    /// Forgets what is kept at `handle` (part 3, 28.5).
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn forget(&self, handle: u32) -> Result<(), TpmError> {
        self.make_persistent(handle, handle)
    }

    /// Has `work` done with a session whose policy is the registers as they are.
    fn with_policy<T>(
        &self,
        registers: PcrSet,
        work: impl FnOnce(u32) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let session = self.start_session()?;
        let mut policy = Command::new(POLICY_PCR);
        // No digest: the TPM takes the registers themselves.
        policy.u32(session).sized(&[]);
        registers.write(&mut policy);
        let done = self
            .call(policy, Patience::SHORT, |_| Ok(()))
            .and_then(|()| work(session));
        self.flush(session);
        done
    }

    fn start_session(&self) -> Result<u32, TpmError> {
        let mut nonce = [0; DIGEST_BYTES];
        machine::random::fill(&mut nonce);
        let mut command = Command::new(START_AUTH_SESSION);
        command.u32(NULL_HANDLE).u32(NULL_HANDLE);
        command.sized(&nonce).sized(&[]);
        command.u8(POLICY_SESSION).u16(NULL).u16(SHA256);
        let started = self.call_for_handle(command, Patience::SHORT, |r| r.sized().map(drop))?;
        Ok(started.0)
    }

    fn policy_digest(&self, session: u32) -> Result<Digest, TpmError> {
        let mut command = Command::new(POLICY_GET_DIGEST);
        command.u32(session);
        self.call(command, Patience::SHORT, |r| {
            r.sized()?.try_into().map_err(|_| TpmError::Malformed)
        })
    }

    /// Has `work` done with the storage key of the owner's hierarchy: the same key each
    /// time, until the TPM is cleared (part 3, 24.1; template H-2 of the TCG's EK profile).
    fn with_storage_key<T>(
        &self,
        work: impl FnOnce(u32) -> Result<T, TpmError>,
    ) -> Result<T, TpmError> {
        let mut command = Command::authorised(CREATE_PRIMARY, &[OWNER], Session::Password);
        command.nested(|sensitive| {
            sensitive.sized(&[]).sized(&[]);
        });
        command.nested(storage_template);
        command.sized(&[]).u32(0);
        let created = self.call_for_handle(command, Patience::LONG, |r| {
            created(r)?;
            r.sized().map(drop)
        });
        let (key, ()) = created?;
        let done = work(key);
        self.flush(key);
        done
    }

    /// An object under `parent` that holds `secret`, loaded (part 3, 12.1 and 12.2).
    fn create_and_load(
        &self,
        parent: u32,
        secret: &[u8],
        policy: &Digest,
    ) -> Result<u32, TpmError> {
        let mut command = Command::authorised(CREATE, &[parent], Session::Password);
        command.nested(|sensitive| {
            sensitive.sized(&[]).sized(secret);
        });
        command.nested(|public| sealed_template(public, policy));
        command.sized(&[]).u32(0);
        let mut load = Command::authorised(LOAD, &[parent], Session::Password);
        self.call(command, Patience::LONG, |r| {
            load.sized(r.sized()?);
            load.sized(created(r)?);
            Ok(())
        })?;
        let loaded = self.call_for_handle(load, Patience::SHORT, |r| r.sized().map(drop))?;
        Ok(loaded.0)
    }

    /// Has an object stay at `handle`; one that stays already goes instead.
    fn make_persistent(&self, object: u32, handle: u32) -> Result<(), TpmError> {
        let mut command = Command::authorised(EVICT_CONTROL, &[OWNER, object], Session::Password);
        command.u32(handle);
        self.call(command, Patience::LONG, |_| Ok(()))
    }

    /// Makes the TPM forget a loaded object or a session.
    fn flush(&self, handle: u32) {
        let mut command = Command::new(FLUSH_CONTEXT);
        command.u32(handle);
        if let Err(e) = self.call(command, Patience::SHORT, |_| Ok(())) {
            // At most a few of its slots are lost until the next reset.
            log::warn!("TPM: {handle:#x} is not flushed: {e}");
        }
    }
}

/// The storage key of TCG's templates: ECC on P-256, AES-128 in CFB for what it protects.
fn storage_template(public: &mut Command) {
    let attributes = FIXED_TPM
        | FIXED_PARENT
        | SENSITIVE_DATA_ORIGIN
        | USER_WITH_AUTH
        | NO_DICTIONARY_ATTACKS
        | RESTRICTED
        | DECRYPT;
    public.u16(ECC).u16(SHA256).u32(attributes).sized(&[]);
    public.u16(AES).u16(128).u16(CFB);
    public.u16(NULL).u16(NIST_P256).u16(NULL);
    public.sized(&[]).sized(&[]);
}

/// A sealed secret: read by its policy only.
fn sealed_template(public: &mut Command, policy: &Digest) {
    let attributes = FIXED_TPM | FIXED_PARENT | NO_DICTIONARY_ATTACKS;
    public.u16(KEYED_HASH).u16(SHA256).u32(attributes);
    public.sized(policy).u16(NULL).sized(&[]);
}

/// What the responses to both commands that create have in common: the public area, which
/// is returned; data, hash and ticket of the creation.
fn created<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], TpmError> {
    let public = reader.sized()?;
    reader.sized()?;
    reader.sized()?;
    let (_tag, _hierarchy) = (reader.u16()?, reader.u32()?);
    reader.sized()?;
    Ok(public)
}
