//! Time: the time-stamp counter as the clock, the local APIC's timer as the
//! alarm of each CPU.
//!
//! The TSC's frequency comes from CPUID where the CPU or the hypervisor tells it,
//! else from a measurement against the HPET, the ACPI timer or the PIT. If the
//! TSC changes its pace, or those of two CPUs disagree ([`distrust_tsc`]), the HPET
//! becomes the clock; on a machine without one, readings are held to never go back.

use super::reference::{Hpet, Pit, Reference};
use super::{acpi, apic, rtc};
use crate::firmware::acpi::{Register, Tables};
use crate::scale::{Scale, frequency};
use crate::sync::Once;
use crate::time::{self, Instant};
use crate::vdso::{self, UserClock};
use core::arch::x86_64::{__cpuid, __cpuid_count, _mm_lfence, _rdtsc};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const BY_TSC: u8 = 0;
const BY_HPET: u8 = 1;
const BY_TSC_HELD: u8 = 2;

static SOURCE: AtomicU8 = AtomicU8::new(BY_TSC);
/// The TSC at [`init`]; nanoseconds count from there.
static TSC_BASE: AtomicU64 = AtomicU64::new(0);
/// [`Scale`] from TSC ticks to nanoseconds; 0 before [`init`].
static TSC_TO_NS: AtomicU64 = AtomicU64::new(0);
/// [`Scale`] from nanoseconds to ticks of the alarm.
static NS_TO_ALARM: AtomicU64 = AtomicU64::new(0);
/// The alarm compares with the TSC instead of counting down.
static ALARM_IS_DEADLINE: AtomicU8 = AtomicU8::new(0);
/// The latest reading, where readings are held.
static LATEST: AtomicU64 = AtomicU64::new(0);
static HPET: Once<HpetClock> = Once::new();

struct HpetClock {
    hpet: Hpet,
    to_ns: Scale,
    /// HPET ticks and nanoseconds at the moment it took over.
    base: u64,
    base_ns: u64,
}

/// The TSC, not read before what precedes it in the program.
#[inline]
pub(crate) fn tsc() -> u64 {
    // SAFETY: both instructions exist on every x86-64 CPU and only order and read.
    unsafe {
        _mm_lfence();
        _rdtsc()
    }
}

#[inline]
fn tsc_ns() -> u64 {
    let ticks = tsc().wrapping_sub(TSC_BASE.load(Relaxed));
    // Never zero, which means "no time" to some.
    Scale(TSC_TO_NS.load(Relaxed)).apply(ticks) + 1
}

/// Nanoseconds since boot.
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    if SOURCE.load(Relaxed) == BY_TSC {
        return tsc_ns();
    }
    other_ns()
}

#[cold]
fn other_ns() -> u64 {
    match HPET.get() {
        Some(c) if SOURCE.load(Relaxed) == BY_HPET => {
            c.base_ns + c.to_ns.apply(c.hpet.counter().wrapping_sub(c.base))
        }
        _ => {
            let now = tsc_ns();
            LATEST.fetch_max(now, Relaxed).max(now)
        }
    }
}

/// The clock as user programs read it; `None` while another clock than the TSC is
/// in use.
pub(crate) fn user_clock() -> Option<UserClock> {
    let factor = TSC_TO_NS.load(Relaxed);
    (SOURCE.load(Relaxed) == BY_TSC && factor != 0).then(|| UserClock {
        base: TSC_BASE.load(Relaxed),
        factor,
        // As in `tsc_ns`.
        origin: 1,
    })
}

/// Starts the clock and this CPU's alarm, and sets UTC from the real-time clock.
/// Needs the local APIC ([`apic::init_cpu`]).
pub(crate) fn init() {
    let tables = acpi::tables();
    let steady = is_steady();
    let deadline = steady && cpu_has_deadline();
    let told = told_hz();
    let measured = if told.is_some() && deadline {
        None
    } else {
        measure(tables)
    };
    let hz = told.or(measured.map(|m| m.tsc_hz)).unwrap_or_else(|| {
        log::warn!("no clock tells the TSC's frequency: taking 1 GHz");
        1_000_000_000
    });
    TSC_BASE.store(tsc(), Relaxed);
    TSC_TO_NS.store(Scale::to_ns(hz).0, Relaxed);
    let alarm_hz = match measured {
        _ if deadline => hz,
        Some(m) => m.alarm_hz,
        // Nothing to measure with: early alarms are harmless, late ones are not.
        None => 1_000_000,
    };
    NS_TO_ALARM.store(Scale::from_ns(alarm_hz).0, Relaxed);
    ALARM_IS_DEADLINE.store(u8::from(deadline), Relaxed);
    init_cpu();
    log::info!(
        "clock: TSC {}.{:03} MHz ({}), alarm by {}",
        hz / 1_000_000,
        hz / 1_000 % 1_000,
        if told.is_some() { "told" } else { "measured" },
        if deadline { "TSC deadline" } else { "count" },
    );
    if !steady {
        distrust_tsc("the TSC changes its pace with the CPU's");
    }
    if let Some(seconds) = rtc::unix_seconds() {
        time::set_wall(seconds.saturating_mul(1_000_000_000));
    }
    Pit::stop_ticks();
}

/// Sets up the alarm of the CPU that calls.
pub(crate) fn init_cpu() {
    apic::timer_init(ALARM_IS_DEADLINE.load(Relaxed) != 0);
}

/// Lets [`super::vectors::TIMER`] interrupt this CPU at `deadline` (at once, if
/// that is past), or not at all. It may come early, never is it forgotten.
pub(crate) fn arm(deadline: Option<Instant>) {
    let by_deadline = ALARM_IS_DEADLINE.load(Relaxed) != 0;
    let Some(deadline) = deadline else {
        return if by_deadline {
            apic::timer_deadline(0);
        } else {
            apic::timer_count(0);
        };
    };
    let ns = deadline.0.saturating_sub(monotonic_ns());
    let ticks = Scale(NS_TO_ALARM.load(Relaxed)).apply(ns).saturating_add(1);
    if by_deadline {
        apic::timer_deadline(tsc().saturating_add(ticks));
    } else {
        // What is too far for the counter comes early, and is armed again.
        apic::timer_count(u32::try_from(ticks).unwrap_or(u32::MAX));
    }
}

/// The TSC is not to be trusted: from here on another clock counts.
pub(crate) fn distrust_tsc(why: &str) {
    if SOURCE.load(Relaxed) != BY_TSC {
        return;
    }
    let hpet = acpi::tables().hpet.and_then(Hpet::new);
    let source = match hpet {
        Some(hpet) if hpet.is_wide() => {
            HPET.call_once(|| HpetClock {
                to_ns: Scale::to_ns(hpet.hz()),
                base: hpet.counter(),
                base_ns: tsc_ns(),
                hpet,
            });
            BY_HPET
        }
        _ => BY_TSC_HELD,
    };
    log::warn!(
        "{why}: {}",
        if source == BY_HPET {
            "the HPET is the clock"
        } else {
            "readings are held"
        }
    );
    LATEST.fetch_max(tsc_ns(), Relaxed);
    SOURCE.store(source, Relaxed);
    vdso::publish();
}

/// Whether the TSC keeps its pace whatever the CPU does (SDM vol. 3B, 18.17.1). A
/// virtual machine's is the host's affair, which often does not say so.
fn is_steady() -> bool {
    const POWER: u32 = 0x8000_0007;
    let hypervisor = __cpuid(1).ecx & 1 << 31 != 0;
    let invariant = __cpuid(0x8000_0000).eax >= POWER && __cpuid(POWER).edx & 1 << 8 != 0;
    hypervisor || invariant
}

fn cpu_has_deadline() -> bool {
    __cpuid(1).ecx & 1 << 24 != 0
}

/// The TSC's frequency as CPUID tells it.
fn told_hz() -> Option<u64> {
    by_crystal().or_else(by_hypervisor)
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

#[derive(Clone, Copy, Debug)]
struct Measured {
    tsc_hz: u64,
    alarm_hz: u64,
}

/// Counts TSC and alarm for 10 ms of the best reference that runs.
fn measure(tables: &Tables) -> Option<Measured> {
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
        let after = tsc();
        let alarm_left = apic::timer_left();
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

fn measure_against(reference: &Reference) -> Option<Measured> {
    /// Reads of a reference that never gets there, before it is given up.
    const READS_MAX: u32 = 2_000_000;
    let window = reference.hz() / 100;
    apic::timer_init(false);
    apic::timer_count(u32::MAX);
    let start = sample(reference);
    let arrived = (0..READS_MAX).any(|_| reference.since(start.reference) >= window);
    if !arrived {
        return None;
    }
    let end = sample(reference);
    apic::timer_count(0);
    let ref_ticks = reference.mask() & end.reference.wrapping_sub(start.reference);
    let alarm_ticks = u64::from(start.alarm_left.wrapping_sub(end.alarm_left));
    Some(Measured {
        tsc_hz: frequency(end.tsc.wrapping_sub(start.tsc), ref_ticks, reference.hz())?,
        alarm_hz: frequency(alarm_ticks, ref_ticks, reference.hz()).unwrap_or(1_000_000),
    })
}
