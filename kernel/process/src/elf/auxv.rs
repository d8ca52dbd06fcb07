//! The auxiliary vector: what the kernel tells a new program (getauxval(3)).

use super::Loaded;
use machine::addr::PAGE_SIZE;

/// The identity a program starts with.
#[expect(missing_docs, reason = "credentials(7) has the meanings")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
}

/// What the loader cannot know by itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuxInput {
    /// Who runs it; a difference between real and effective makes it secure
    /// (`AT_SECURE`).
    pub credentials: Credentials,
    /// Where the vDSO is mapped.
    pub vdso: Option<usize>,
    /// Bits of `AT_HWCAP2` (bit 1: `FSGSBASE` instructions may be used).
    pub hwcap2: u64,
    /// Least size of an alternate signal stack in bytes (`AT_MINSIGSTKSZ`).
    pub signal_stack_min: usize,
}

/// Addresses of what lies on the stack itself.
pub(super) struct OnStack {
    pub(super) random: usize,
    pub(super) file_name: usize,
    pub(super) platform: usize,
}

/// Ticks per second in `times(2)` and `/proc` (`AT_CLKTCK`).
const CLOCK_TICKS: u64 = 100;

/// Entries that are always there, and the optional one.
pub(super) const ENTRIES_MAX: usize = 24;

/// The vector, its terminating entry included.
pub(super) fn entries(
    loaded: &Loaded,
    input: &AuxInput,
    on_stack: &OnStack,
) -> impl Iterator<Item = (u64, u64)> {
    let c = input.credentials;
    let secure = c.uid != c.euid || c.gid != c.egid;
    let n = |v: usize| v as u64;
    let vdso = input.vdso.map(|at| (AT_SYSINFO_EHDR, n(at)));
    vdso.into_iter().chain([
        (AT_HWCAP, u64::from(core::arch::x86_64::__cpuid(1).edx)),
        (AT_PAGESZ, n(PAGE_SIZE)),
        (AT_CLKTCK, CLOCK_TICKS),
        (AT_PHDR, n(loaded.headers)),
        (AT_PHENT, n(size_of::<super::header::ProgramHeader>())),
        (AT_PHNUM, n(loaded.header_count)),
        (AT_BASE, n(loaded.interpreter_base)),
        (AT_FLAGS, 0),
        (AT_ENTRY, n(loaded.entry)),
        (AT_UID, c.uid.into()),
        (AT_EUID, c.euid.into()),
        (AT_GID, c.gid.into()),
        (AT_EGID, c.egid.into()),
        (AT_SECURE, secure.into()),
        (AT_RANDOM, n(on_stack.random)),
        (AT_HWCAP2, input.hwcap2),
        (AT_RSEQ_FEATURE_SIZE, crate::rseq::FEATURE_BYTES),
        (AT_RSEQ_ALIGN, crate::rseq::ALIGN),
        (AT_EXECFN, n(on_stack.file_name)),
        (AT_PLATFORM, n(on_stack.platform)),
        (AT_MINSIGSTKSZ, n(input.signal_stack_min)),
        (AT_NULL, 0),
    ])
}

// Linux, include/uapi/linux/auxvec.h and arch/x86/include/uapi/asm/auxvec.h.
pub(super) const AT_NULL: u64 = 0;
pub(super) const AT_PHDR: u64 = 3;
pub(super) const AT_PHENT: u64 = 4;
pub(super) const AT_PHNUM: u64 = 5;
pub(super) const AT_PAGESZ: u64 = 6;
pub(super) const AT_BASE: u64 = 7;
pub(super) const AT_FLAGS: u64 = 8;
pub(super) const AT_ENTRY: u64 = 9;
pub(super) const AT_UID: u64 = 11;
pub(super) const AT_EUID: u64 = 12;
pub(super) const AT_GID: u64 = 13;
pub(super) const AT_EGID: u64 = 14;
pub(super) const AT_PLATFORM: u64 = 15;
pub(super) const AT_HWCAP: u64 = 16;
pub(super) const AT_CLKTCK: u64 = 17;
pub(super) const AT_SECURE: u64 = 23;
pub(super) const AT_RANDOM: u64 = 25;
pub(super) const AT_HWCAP2: u64 = 26;
pub(super) const AT_RSEQ_FEATURE_SIZE: u64 = 27;
pub(super) const AT_RSEQ_ALIGN: u64 = 28;
pub(super) const AT_EXECFN: u64 = 31;
pub(super) const AT_SYSINFO_EHDR: u64 = 33;
pub(super) const AT_MINSIGSTKSZ: u64 = 51;
