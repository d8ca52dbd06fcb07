//! Time: the time-stamp counter as the clock, the local APIC's timer as the
//! alarm of each CPU.
//!
//! How fast both count finds out [`frequency`]. If the
//! TSC changes its pace, or those of two CPUs disagree ([`distrust_tsc`]), the HPET
//! becomes the clock; on a machine without one, readings are held to never go back.

use super::frequency::{self, NoFrequency};
use super::reference::{Hpet, Pit};
use super::{acpi, apic, rtc};
use crate::scale::Scale;
use crate::sync::Once;
use crate::time::{self, Instant};
use crate::vdso::{self, UserClock};
use core::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};
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

/// What [`monotonic_ns`] is, or would have been, when the TSC showed `tsc`: less than nothing
/// before [`init`].
pub(crate) fn ns_of(tsc: u64) -> i64 {
    let base = TSC_BASE.load(Relaxed);
    let ns = Scale(TSC_TO_NS.load(Relaxed)).apply(tsc.abs_diff(base));
    let ns = i64::try_from(ns).unwrap_or(i64::MAX);
    if tsc < base { -ns } else { ns }
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
///
/// # Errors
/// Nothing in the machine tells how fast its counters count.
pub(crate) fn init() -> Result<(), NoFrequency> {
    let steady = is_steady();
    let deadline = steady && cpu_has_deadline();
    let rates = frequency::find(acpi::tables(), deadline)?;
    let hz = rates.tsc_hz;
    TSC_BASE.store(tsc(), Relaxed);
    TSC_TO_NS.store(Scale::to_ns(hz).0, Relaxed);
    let alarm_hz = if deadline { hz } else { rates.alarm_hz };
    NS_TO_ALARM.store(Scale::from_ns(alarm_hz).0, Relaxed);
    ALARM_IS_DEADLINE.store(u8::from(deadline), Relaxed);
    init_cpu();
    log::info!(
        "clock: TSC {}.{:03} MHz ({}), alarm by {}",
        hz / 1_000_000,
        hz / 1_000 % 1_000,
        rates.origin,
        if deadline { "TSC deadline" } else { "count" },
    );
    if !steady {
        distrust_tsc("the TSC changes its pace with the CPU's");
    }
    if let Some(seconds) = rtc::unix_seconds() {
        time::set_wall(seconds.saturating_mul(1_000_000_000));
    }
    Pit::stop_ticks();
    Ok(())
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
