//! Where the other CPUs were when one panicked. It interrupts them, and before they rest they
//! lay down here where they were, so that the record of a CPU that stands still tells where.

use super::{Text, walk_stack};
use crate::cpu::{CPUS_MAX, PerCpu};
use crate::time::Instant;
use crate::x86::kmap::IMAGE;
use crate::x86::percpu;
use crate::x86::thread::UserRegs;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Acquire, Ordering::Relaxed};
use core::sync::atomic::{AtomicU8, Ordering::Release};
use core::time::Duration;

/// Addresses that are kept of each CPU, the innermost first.
const DEPTH: usize = 16;
/// How long the others have to lay down where they were.
const PATIENCE: Duration = Duration::from_millis(200);

struct Place {
    /// Addresses in it; the rest is there once it is `known`.
    depth: AtomicU8,
    addresses: [AtomicUsize; DEPTH],
    in_program: AtomicBool,
    known: AtomicBool,
}

static PLACES: PerCpu<Place> = PerCpu::new(
    [const {
        Place {
            depth: AtomicU8::new(0),
            addresses: [const { AtomicUsize::new(0) }; DEPTH],
            in_program: AtomicBool::new(false),
            known: AtomicBool::new(false),
        }
    }; CPUS_MAX],
);

/// Lays down where this CPU was interrupted for the last time.
pub(in super::super) fn lay_down(regs: &UserRegs) {
    let place = PLACES.here();
    if place.known.load(Relaxed) {
        return;
    }
    place.in_program.store(regs.cs & 3 != 0, Relaxed);
    if regs.cs & 3 == 0 {
        place.push(regs.rip as usize);
        walk_stack(regs.rbp as usize, |address| place.push(address));
    }
    place.known.store(true, Release);
}

impl Place {
    fn push(&self, address: usize) {
        let depth = self.depth.load(Relaxed);
        if let Some(slot) = self.addresses.get(usize::from(depth)) {
            slot.store(address, Relaxed);
            self.depth.store(depth + 1, Relaxed);
        }
    }
}

/// Writes a line for each CPU but this one.
pub(super) fn tell(text: &mut Text) {
    let own = percpu::cpu_current();
    let others = || (0..percpu::cpu_count()).filter(move |cpu| *cpu != own);
    let deadline = Instant::now().after(PATIENCE);
    while !others().all(|cpu| PLACES.of(cpu).known.load(Acquire)) && Instant::now() < deadline {
        core::hint::spin_loop();
    }
    for cpu in others() {
        let place = PLACES.of(cpu);
        let _ = write!(text, "CPU {cpu}:");
        if !place.known.load(Acquire) {
            let _ = write!(text, " does not answer");
        } else if place.in_program.load(Relaxed) {
            let _ = write!(text, " in a program");
        }
        let depth = usize::from(place.depth.load(Relaxed));
        for address in place.addresses.iter().take(depth) {
            let _ = write!(text, " {:#x}", address.load(Relaxed).wrapping_sub(IMAGE));
        }
        let _ = writeln!(text);
    }
}
