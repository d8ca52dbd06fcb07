//! Control registers and model-specific registers: the state every CPU is put
//! into, whatever the boot path left (it differs: CR4 is 0x20 under BIOS and
//! 0x668 under UEFI).

use raw_cpuid::CpuId;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::{FsBase, GsBase, KernelGsBase, LStar, SFMask, Star};
use x86_64::registers::rflags::RFlags;
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

/// What of the CPU's abilities the kernel uses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Features {
    pub(super) smap: bool,
    pub(super) xsave: bool,
    pub(super) xsaveopt: bool,
    pub(super) gib_pages: bool,
    /// Block moves by 32-byte registers are the best way: the CPU has AVX, no fast
    /// string instructions, and no 64-byte registers whose upper half a 32-byte
    /// move would clear.
    pub(super) wide_moves: bool,
    fsgsbase: bool,
    rdtscp: bool,
    smep: bool,
    umip: bool,
    /// Bits for XCR0.
    pub(super) xcr0: u64,
}

static FEATURES: Once<Features> = Once::new();

/// The CPU's abilities, the boot CPU standing for all.
#[inline]
pub(super) fn features() -> Features {
    *FEATURES.call_once(detect)
}

fn detect() -> Features {
    let id = CpuId::new();
    let mut f = Features::default();
    if let Some(x) = id.get_extended_feature_info() {
        f.smap = x.has_smap();
        f.smep = x.has_smep();
        f.umip = x.has_umip();
        f.fsgsbase = x.has_fsgsbase();
    }
    if let Some(x) = id.get_extended_processor_and_feature_identifiers() {
        f.gib_pages = x.has_1gib_pages();
        f.rdtscp = x.has_rdtscp();
    }
    f.xsave = id.get_feature_info().is_some_and(|i| i.has_xsave());
    if f.xsave
        && let Some(state) = id.get_extended_state_info()
    {
        f.xsaveopt = state.has_xsaveopt();
        // x87, SSE, AVX and AVX-512 (opmask, ZMM_Hi256, Hi16_ZMM; all or none).
        let can = raw_xcr0_supported();
        f.xcr0 = can & 0b111;
        if can & 0xe0 == 0xe0 {
            f.xcr0 |= 0xe0;
        }
        let avx = f.xcr0 & 0b100 != 0;
        let fast_strings = id
            .get_extended_feature_info()
            .is_some_and(|x| x.has_rep_movsb_stosb());
        f.wide_moves = avx && f.xcr0 & 0xe0 == 0 && !fast_strings;
    }
    f
}

/// CPUID.(EAX=0DH,ECX=0):EDX:EAX (SDM vol. 1, 13.2).
fn raw_xcr0_supported() -> u64 {
    let r = raw_cpuid::cpuid!(0xd, 0);
    u64::from(r.eax) | u64::from(r.edx) << 32
}

/// Whether programs may use the `FSGSBASE` instructions.
pub(crate) fn fsgsbase() -> bool {
    features().fsgsbase
}

/// Whether `rdtscp` gives programs the number of their CPU.
pub(crate) fn cpu_number_by_tscp() -> bool {
    features().rdtscp
}

/// Lets `rdtscp` give `cpu` on this CPU.
pub(super) fn set_cpu_number(cpu: u32) {
    const IA32_TSC_AUX: u32 = 0xc000_0103;
    if features().rdtscp {
        // SAFETY: the register exists where `rdtscp` does, and only user mode
        // reads it.
        unsafe { x86_64::registers::model_specific::Msr::new(IA32_TSC_AUX).write(cpu.into()) };
    }
}

/// Brings this CPU's control registers into the state the kernel relies on.
pub(super) fn init() {
    let f = features();
    let cr0 = Cr0Flags::PROTECTED_MODE_ENABLE
        | Cr0Flags::MONITOR_COPROCESSOR
        | Cr0Flags::EXTENSION_TYPE
        | Cr0Flags::NUMERIC_ERROR
        | Cr0Flags::WRITE_PROTECT
        | Cr0Flags::ALIGNMENT_MASK
        | Cr0Flags::PAGING;
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::MACHINE_CHECK_EXCEPTION
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE;
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, f.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, f.smap);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, f.umip);
    cr4.set(Cr4Flags::OSXSAVE, f.xsave);
    // FSGSBASE lets programs write their own FS and GS base (Linux allows it).
    // The kernel's GS comes from `swapgs`, which a program cannot reach.
    cr4.set(Cr4Flags::FSGSBASE, f.fsgsbase);
    // SAFETY: long mode stays as it is; every bit set is a feature the CPU has.
    unsafe {
        Efer::update(|e| {
            e.insert(EferFlags::NO_EXECUTE_ENABLE | EferFlags::SYSTEM_CALL_EXTENSIONS);
        });
        Cr0::write(cr0);
        Cr4::write(cr4);
        if f.xsave {
            XCr0::write(XCr0Flags::from_bits_truncate(f.xcr0));
        }
    }
    set_pat();
    super::debug::init();
}

/// PAT: as after reset, but entry 4 is write-combining (for frame buffers).
fn set_pat() {
    const IA32_PAT: u32 = 0x277;
    const VALUE: u64 = 0x0007_0401_0007_0406;
    // SAFETY: entries 0 to 3 stay what they are after reset, so no mapping made
    // so far changes its type.
    unsafe { x86_64::registers::model_specific::Msr::new(IA32_PAT).write(VALUE) };
}

/// Makes `syscall` enter at `entry`, with interrupts and direction flag off.
#[expect(
    clippy::unreachable,
    reason = "constants of this kernel, checked at boot"
)]
pub(super) fn set_syscall_entry(entry: usize) {
    use super::gdt::{KERNEL_CODE, KERNEL_DATA, USER_CODE, USER_DATA};
    LStar::write(VirtAddr::new(entry as u64));
    SFMask::write(
        RFlags::INTERRUPT_FLAG
            | RFlags::DIRECTION_FLAG
            | RFlags::TRAP_FLAG
            | RFlags::NESTED_TASK
            | RFlags::ALIGNMENT_CHECK,
    );
    if Star::write(USER_CODE, USER_DATA, KERNEL_CODE, KERNEL_DATA).is_err() {
        unreachable!("the GDT's order is what STAR wants");
    }
}

/// Sets the active GS base.
///
/// # Safety
/// The kernel's GS must point to this CPU's data while the kernel runs.
pub(super) unsafe fn set_gs_base(base: u64) {
    GsBase::write(VirtAddr::new(base));
}

/// The user's FS and (swapped out) GS base.
pub(super) fn user_bases() -> (u64, u64) {
    (FsBase::read().as_u64(), KernelGsBase::read().as_u64())
}

/// Sets the user's FS and (swapped out) GS base; both are below `USER_END`.
#[inline]
pub(super) fn set_user_bases(fs: u64, gs: u64) {
    FsBase::write(VirtAddr::new_truncate(fs));
    KernelGsBase::write(VirtAddr::new_truncate(gs));
}
