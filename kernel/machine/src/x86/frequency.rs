//! How fast the time-stamp counter and the alarm count.
//!
//! The TSC's frequency comes from CPUID or KVM's clock where the CPU or the hypervisor
//! tells it, else from a measurement against the HPET, the ACPI timer, the PIT or, where
//! there is nothing better and at the cost of a second or two, the real-time clock. The
//! alarm's is measured with it, or against a TSC whose frequency was told.

use super::reference::{Hpet, Reference};
use super::{apic, clock::tsc, kmap, rtc};
use crate::firmware::acpi::{Register, Tables};
use crate::scale::{frequency, pvclock_hz};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use x86_64::registers::model_specific::Msr;

/// Nothing in the machine tells how fast its counters count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoFrequency;

impl NoFrequency {
    /// What the machine lacks, for whoever stands before it.
    pub(crate) fn why(self) -> &'static str {
        "no clock tells how fast the TSC counts: the machine needs a PIT, an HPET, an ACPI \
         timer, a real-time clock, KVM's clock, or a CPUID with leaf 0x15 or 0x40000010"
    }
}

/// Frequencies in hertz.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub(crate) tsc_hz: u64,
    /// Means nothing where the alarm compares with the TSC.
    pub(crate) alarm_hz: u64,
    /// How the TSC's is known.
    pub(crate) origin: &'static str,
}

/// Finds them out. With `deadline` the alarm compares with the TSC.
pub(super) fn find(tables: &Tables, deadline: bool) -> Result<Rates, NoFrequency> {
    let told = by_crystal().or_else(by_hypervisor).or_else(by_kvm);
    let Some(tsc_hz) = told else {
        return measure(tables).ok_or(NoFrequency);
    };
    let measured = || measure_against(&Reference::Tsc(tsc_hz));
    let alarm = if deadline { None } else { measured() };
    Ok(Rates {
        tsc_hz,
        // Early alarms are harmless, late ones are not.
        alarm_hz: alarm.map_or(1_000_000, |m| m.alarm_hz),
        origin: "told",
    })
}

/// Leaf 0x15, with leaf 0x16 where the crystal's frequency is left out (Intel SDM
/// vol. 3B, 18.7.3).
fn by_crystal() -> Option<u64> {
    let leaves = __cpuid(0).eax;
    if leaves < 0x15 {
        return None;
    }
    let l = __cpuid_count(0x15, 0);
    let (den, num, crystal) = (u64::from(l.eax), u64::from(l.ebx), u64::from(l.ecx));
    if den == 0 || num == 0 {
        return None;
    }
    if crystal != 0 {
        return Some(crystal * num / den);
    }
    // The base frequency then is the TSC's, in MHz.
    let base_mhz = if leaves >= 0x16 {
        u64::from(__cpuid(0x16).eax & 0xffff)
    } else {
        0
    };
    (base_mhz != 0).then(|| base_mhz * 1_000_000)
}

/// Leaf 0x40000010, kHz in EAX: VMware's convention, which KVM can follow.
fn by_hypervisor() -> Option<u64> {
    const TIMING: u32 = 0x4000_0010;
    let hypervisor = __cpuid(1).ecx & 1 << 31 != 0;
    if !hypervisor || !(TIMING..0x4000_0100).contains(&__cpuid(0x4000_0000).eax) {
        return None;
    }
    let khz = u64::from(__cpuid(TIMING).eax);
    (khz != 0).then(|| khz * 1_000)
}

/// What KVM says of its clock, whose page holds the factor from TSC ticks to nanoseconds
/// (Linux, Documentation/virt/kvm/x86/msr.rst and cpuid.rst).
fn by_kvm() -> Option<u64> {
    const SIGNATURE: [u32; 3] = [0x4b4d_564b, 0x564b_4d56, 0x4d];
    /// Feature bits, and the MSR of each.
    const CLOCKS: [(u32, u32); 2] = [(1 << 3, 0x4b56_4d01), (1 << 0, 0x12)];
    const ENABLE: u64 = 1;
    /// Beside the clock of another hypervisor that it plays, KVM tells of itself here.
    const BASES: [u32; 2] = [0x4000_0000, 0x4000_0100];
    /// `pvclock_vcpu_time_info`: eight words, of which two matter here.
    #[repr(C, align(64))]
    struct Page([AtomicU32; 8]);
    static PAGE: Page = Page([const { AtomicU32::new(0) }; 8]);
    let hypervisor = __cpuid(1).ecx & 1 << 31 != 0;
    let is_kvm = |base: &u32| {
        let l = __cpuid(*base);
        [l.ebx, l.ecx, l.edx] == SIGNATURE
    };
    let base = BASES.into_iter().find(|b| hypervisor && is_kvm(b))?;
    let features = __cpuid(base + 1).eax;
    let (_, register) = CLOCKS.into_iter().find(|(bit, _)| features & bit != 0)?;
    let phys = kmap::translate((&raw const PAGE) as usize)?;
    let mut clock = Msr::new(register);
    // SAFETY: KVM announces this register; it writes to the page while that is named, whose
    // words are atomic.
    unsafe { clock.write(phys as u64 | ENABLE) };
    let [_, _, _, _, _, _, factor, shift] = PAGE.0.each_ref().map(|word| word.load(Relaxed));
    // SAFETY: as above: KVM forgets the page.
    unsafe { clock.write(0) };
    pvclock_hz(factor, shift as u8 as i8)
}

/// Counts TSC and alarm for 10 ms of the best reference that runs.
fn measure(tables: &Tables) -> Option<Rates> {
    let hpet = tables.hpet.and_then(Hpet::new).map(Reference::Hpet);
    let pm_timer = tables.fixed.and_then(|f| match f.pm_timer? {
        Register::Port(port) => Some(Reference::PmTimer(port)),
        Register::Memory(_) => None,
    });
    let candidates = [hpet, pm_timer, Some(Reference::pit())];
    candidates
        .into_iter()
        .flatten()
        .find_map(|r| measure_against(&r))
        .or_else(measure_by_rtc)
}

/// One moment on all three counters.
struct Sample {
    tsc: u64,
    reference: u64,
    alarm_left: u32,
}

/// Takes the sample whose readings lie closest together.
#[expect(clippy::unreachable, reason = "the loop above has run")]
fn sample(reference: &Reference) -> Sample {
    let mut best: Option<(u64, Sample)> = None;
    for _ in 0..5 {
        let before = tsc();
        let value = reference.read();
        let alarm_left = apic::timer_left();
        let after = tsc();
        let took = after.wrapping_sub(before);
        if best.as_ref().is_none_or(|(t, _)| took < *t) {
            let s = Sample {
                tsc: before.wrapping_add(took / 2),
                reference: value,
                alarm_left,
            };
            best = Some((took, s));
        }
    }
    best.map_or_else(|| unreachable!("five samples were taken"), |(_, s)| s)
}

fn measure_against(reference: &Reference) -> Option<Rates> {
    /// Reads of a reference that never gets there, before it is given up.
    const READS_MAX: u32 = 2_000_000;
    /// Reads after which one that has not moved is not there: each takes as long as one
    /// tick of the slowest, or half of it.
    const STANDS: u32 = 1_000;
    let window = reference.hz() / 100;
    apic::timer_init(false);
    apic::timer_count(u32::MAX);
    let start = sample(reference);
    let mut since = 0;
    let arrived = (0..READS_MAX).any(|n| {
        since = reference.since(start.reference);
        since >= window || n == STANDS && since == 0
    });
    if !arrived || since == 0 {
        return None;
    }
    let end = sample(reference);
    apic::timer_count(0);
    let ref_ticks = reference.mask() & end.reference.wrapping_sub(start.reference);
    let alarm_ticks = u64::from(start.alarm_left.wrapping_sub(end.alarm_left));
    Some(Rates {
        tsc_hz: frequency(end.tsc.wrapping_sub(start.tsc), ref_ticks, reference.hz())?,
        alarm_hz: frequency(alarm_ticks, ref_ticks, reference.hz()).unwrap_or(1_000_000),
        origin: "measured",
    })
}

/// Counts TSC and alarm for a second of the real-time clock.
fn measure_by_rtc() -> Option<Rates> {
    rtc::unix_seconds()?;
    log::info!("the real-time clock is the only one: measuring for a second");
    apic::timer_init(false);
    rtc::wait_for_second()?;
    let start = tsc();
    apic::timer_count(u32::MAX);
    rtc::wait_for_second()?;
    let (end, left) = (tsc(), apic::timer_left());
    apic::timer_count(0);
    Some(Rates {
        tsc_hz: frequency(end.wrapping_sub(start), 1, 1)?,
        alarm_hz: u64::from(u32::MAX - left).max(1),
        origin: "measured",
    })
}
