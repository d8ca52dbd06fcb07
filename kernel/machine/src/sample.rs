//! Sampling of the kernel: where each busy CPU is, asked by its clock.
//!
//! While it is on, the clock event of a CPU with work comes at the times of [`next`] too,
//! and its handler notes the place it interrupted ([`met`]). Places with interrupts off
//! are met where they come on again. An idle CPU is left alone. Nothing is allocated in
//! the handler: each CPU has a table of its own, made before the first sample and kept.

use crate::arch;
use crate::cpu::{self, CPUS_MAX, PerCpu};
use crate::error::AllocError;
use crate::sync::Once;
use crate::time::Instant;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Places a CPU remembers.
const SLOTS: usize = 4096;
/// Slots looked at for one place.
const PROBES: usize = 16;

/// What a CPU was found doing.
#[cfg_attr(
    not(any(test, target_os = "none")),
    expect(dead_code, reason = "no clock events")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A program.
    User,
    /// The kernel, at this offset from the start of its image.
    Kernel(u32),
}

#[derive(Default)]
struct Slot {
    /// The offset and one, or 0 in a free slot.
    place: AtomicU32,
    count: AtomicU32,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    user: AtomicU64,
    kernel: AtomicU64,
    lost: AtomicU64,
}

static PERIOD_NS: AtomicU64 = AtomicU64::new(0);
static UNTIL_NS: AtomicU64 = AtomicU64::new(0);
static TABLES: PerCpu<Once<Table>> = PerCpu::new([const { Once::new() }; CPUS_MAX]);

/// What was met, all CPUs together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Times in a program.
    pub user: u64,
    /// Times in the kernel.
    pub kernel: u64,
    /// Those of them whose place found no room.
    pub lost: u64,
    /// Offset from the start of the kernel's image, and how often it was met there.
    pub places: Vec<(u32, u32)>,
}

impl Table {
    fn new() -> Result<Table, AllocError> {
        let mut slots = Vec::new();
        let room = slots.try_reserve_exact(SLOTS);
        room.map_err(|_| AllocError::OutOfMemory)?;
        slots.resize_with(SLOTS, Slot::default);
        Ok(Table {
            slots,
            ..Table::default()
        })
    }

    fn clear(&self) {
        for slot in &self.slots {
            slot.place.store(0, Relaxed);
            slot.count.store(0, Relaxed);
        }
        for count in [&self.user, &self.kernel, &self.lost] {
            count.store(0, Relaxed);
        }
    }

    fn met(&self, place: Place) {
        let Place::Kernel(offset) = place else {
            self.user.fetch_add(1, Relaxed);
            return;
        };
        self.kernel.fetch_add(1, Relaxed);
        let wanted = offset.wrapping_add(1);
        let first = offset.wrapping_mul(0x9e37_79b9) as usize >> 8;
        for i in 0..PROBES {
            let Some(slot) = self.slots.get((first + i) % SLOTS) else {
                break;
            };
            let have = slot.place.load(Relaxed);
            if have == 0 {
                slot.place.store(wanted, Relaxed);
            }
            if have == 0 || have == wanted {
                slot.count.fetch_add(1, Relaxed);
                return;
            }
        }
        self.lost.fetch_add(1, Relaxed);
    }
}

/// Samples each busy CPU `hz` times a second (0: not at all) until `until`; forgets what
/// was met before.
///
/// # Errors
/// [`AllocError`]; then nothing has changed.
pub fn start(hz: u32, until: Instant) -> Result<(), AllocError> {
    for cpu in 0..cpu::count() {
        if TABLES.of(cpu).get().is_none() {
            let table = Table::new()?;
            TABLES.of(cpu).call_once(|| table);
        }
    }
    PERIOD_NS.store(0, Relaxed);
    for table in TABLES.iter().filter_map(Once::get) {
        table.clear();
    }
    if let Some(period) = 1_000_000_000u64.checked_div(hz.into()) {
        UNTIL_NS.store(until.0, Relaxed);
        PERIOD_NS.store(period, Relaxed);
        arch::begin_samples();
    }
    Ok(())
}

/// When the CPU is to be sampled next, for nanoseconds since boot; `u64::MAX` for not at all.
///
/// Between half and one and a half periods from now, so that what a program does at equal
/// times is not always met at the same place.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "no clock events"))]
pub(crate) fn next(now: u64) -> u64 {
    let period = PERIOD_NS.load(Relaxed);
    if period == 0 || now >= UNTIL_NS.load(Relaxed) {
        return u64::MAX;
    }
    let mixed = (now ^ now >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    now + period / 2 + ((mixed * period) >> 32)
}

/// Notes that this CPU was met there. For its interrupt handler.
#[cfg_attr(not(target_os = "none"), expect(dead_code, reason = "no clock events"))]
pub(crate) fn met(place: Place) {
    if let Some(table) = TABLES.here().get() {
        table.met(place);
    }
}

/// What was met since the last [`start`], at most `max` places: those met most often.
///
/// # Errors
/// [`AllocError`].
pub fn read(max: usize) -> Result<Samples, AllocError> {
    let mut all = Samples::default();
    for table in TABLES.iter().filter_map(Once::get) {
        add(&mut all, table)?;
    }
    // The same place of several CPUs is one.
    all.places.sort_unstable();
    all.places.dedup_by(|from, to| {
        let same = from.0 == to.0;
        if same {
            to.1 = to.1.saturating_add(from.1);
        }
        same
    });
    all.places
        .sort_unstable_by_key(|(_, count)| core::cmp::Reverse(*count));
    let left_out = all.places.get(max..).unwrap_or(&[]);
    all.lost += left_out
        .iter()
        .map(|(_, count)| u64::from(*count))
        .sum::<u64>();
    all.places.truncate(max);
    Ok(all)
}

fn add(all: &mut Samples, table: &Table) -> Result<(), AllocError> {
    let room = all.places.try_reserve(table.slots.len());
    room.map_err(|_| AllocError::OutOfMemory)?;
    all.user += table.user.load(Relaxed);
    all.kernel += table.kernel.load(Relaxed);
    all.lost += table.lost.load(Relaxed);
    let used = table.slots.iter().filter_map(|slot| {
        let offset = slot.place.load(Relaxed).checked_sub(1)?;
        Some((offset, slot.count.load(Relaxed)))
    });
    all.places.extend(used);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_none_is_mistaken_for_another() {
        let table = Table::new().unwrap();
        for i in 0..1000u32 {
            for _ in 0..=i % 3 {
                table.met(Place::Kernel(i * 16));
            }
        }
        table.met(Place::User);
        let mut all = Samples::default();
        add(&mut all, &table).unwrap();
        assert_eq!((all.user, all.kernel, all.lost), (1, 1999, 0));
        all.places.sort_unstable();
        let expected: Vec<_> = (0..1000u32).map(|i| (i * 16, i % 3 + 1)).collect();
        assert_eq!(all.places, expected);
    }

    #[test]
    fn a_full_table_says_what_it_lost() {
        let table = Table::new().unwrap();
        for i in 0..2 * SLOTS as u32 {
            table.met(Place::Kernel(i));
        }
        let mut all = Samples::default();
        add(&mut all, &table).unwrap();
        let kept: u64 = all.places.iter().map(|(_, n)| u64::from(*n)).sum();
        assert!(all.lost >= SLOTS as u64, "{}", all.lost);
        assert_eq!(kept + all.lost, all.kernel);
        table.clear();
        let mut none = Samples::default();
        add(&mut none, &table).unwrap();
        assert_eq!(none, Samples::default());
    }
}
