//! Interrupts of devices, as events that threads wait for.
//!
//! An interrupt only counts and wakes; whoever waits does the work in a thread.
//! A message-signalled interrupt ([`IrqEvent::new`]) has a vector of its own. A
//! wired one ([`IrqEvent::line`]) may be shared with other devices and stays
//! masked from the moment it comes until everyone it woke has looked after its
//! device and said so with [`IrqEvent::rearm`].

use crate::arch;
use crate::error::WaitError;
use crate::sync::IrqLock;
use crate::wait::{Until, WaitQueue};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// First vector of devices.
const FIRST: u8 = 0x30;
/// How many there are: up to 0xef.
const COUNT: usize = 0xf0 - FIRST as usize;

/// A wire that leads to an I/O APIC, and how it is signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Global interrupt number: the pin, counted over all I/O APICs.
    pub gsi: u32,
    /// A low voltage is an interrupt.
    pub active_low: bool,
    /// It is an interrupt for as long as the voltage stays, not when it changes.
    pub level: bool,
}

impl Wire {
    /// The wire of ISA interrupt `irq`.
    #[must_use]
    pub fn isa(irq: u8) -> Wire {
        arch::irq_wire(irq)
    }
}

/// An interrupt of a device.
#[derive(Debug)]
pub struct IrqEvent {
    vector: u8,
    line: Option<u32>,
    listener: Arc<Listener>,
}

struct Listener {
    name: &'static str,
    /// Interrupts since the last look.
    count: AtomicU32,
    /// Interrupts since boot.
    total: AtomicU64,
    /// Of a wired interrupt: it came, and the device is not yet looked after.
    owes_rearm: AtomicBool,
    queue: WaitQueue,
}

impl core::fmt::Debug for Listener {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name)
    }
}

/// What a vector leads to.
struct Slot {
    /// Free, if nobody listens and no function is called.
    listeners: Vec<Arc<Listener>>,
    call: Option<fn()>,
    /// The wire it comes by.
    line: Option<u32>,
}

static SLOTS: [IrqLock<Slot>; COUNT] = [const {
    IrqLock::new(Slot {
        listeners: Vec::new(),
        call: None,
        line: None,
    })
}; COUNT];

/// Interrupts that nobody listened to.
static STRAY: AtomicU64 = AtomicU64::new(0);

impl Slot {
    fn is_free(&self) -> bool {
        self.listeners.is_empty() && self.call.is_none()
    }
}

fn slot(vector: u8) -> Option<&'static IrqLock<Slot>> {
    SLOTS.get(usize::from(vector.checked_sub(FIRST)?))
}

/// Puts something into the first free slot; its vector.
fn claim(mut fill: impl FnMut(&mut Slot)) -> Option<u8> {
    (FIRST..).zip(&SLOTS).find_map(|(vector, slot)| {
        let mut slot = slot.lock();
        slot.is_free().then(|| {
            fill(&mut slot);
            vector
        })
    })
}

/// A vector whose interrupts call `f`, with interrupts off: for this room's own
/// handlers of a few instructions.
#[cfg(target_os = "none")]
pub(crate) fn claim_call(f: fn()) -> Option<u8> {
    claim(|slot| slot.call = Some(f))
}

/// An interrupt came in on `vector`.
#[cfg(any(target_os = "none", test))]
pub(crate) fn signal(vector: u8) {
    let Some(slot) = slot(vector) else {
        STRAY.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let slot = slot.lock();
    if slot.is_free() {
        STRAY.fetch_add(1, Ordering::Relaxed);
    }
    // A wire that stays up until its device is served would interrupt again at
    // once. It is masked before anyone wakes, who would unmask it.
    if let Some(line) = slot.line {
        arch::irq_set_masked(line, true);
    }
    for listener in &slot.listeners {
        listener.owes_rearm.store(true, Ordering::Relaxed);
        listener.wake();
    }
    if let Some(f) = slot.call {
        f();
    }
}

impl Listener {
    fn new(name: &'static str) -> Arc<Listener> {
        Arc::new(Listener {
            name,
            count: AtomicU32::new(0),
            total: AtomicU64::new(0),
            owes_rearm: AtomicBool::new(false),
            queue: WaitQueue::new(),
        })
    }

    fn wake(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Release);
        self.queue.wake_all();
    }
}

impl IrqEvent {
    /// An event with a vector of its own, for a message-signalled interrupt; `None`
    /// when all vectors are taken.
    #[must_use]
    pub fn new(name: &'static str) -> Option<IrqEvent> {
        let listener = Listener::new(name);
        // Grown before the lock is taken: no allocation with interrupts off.
        let mut room = Vec::with_capacity(1);
        room.push(listener.clone());
        let vector = claim(|slot| {
            slot.listeners = core::mem::take(&mut room);
            slot.line = None;
        })?;
        Some(IrqEvent {
            vector,
            line: None,
            listener,
        })
    }

    /// An event for the wired interrupt `irq` of the ISA numbering, perhaps shared;
    /// `None` if it cannot be brought in.
    #[must_use]
    pub fn line(name: &'static str, irq: u8) -> Option<IrqEvent> {
        IrqEvent::wired(name, Wire::isa(irq))
    }

    /// An event for the interrupt that comes by `wire`, perhaps shared; `None` if it
    /// cannot be brought in.
    #[must_use]
    pub fn wired(name: &'static str, wire: Wire) -> Option<IrqEvent> {
        let gsi = wire.gsi;
        let listener = Listener::new(name);
        let shared = (FIRST..).zip(&SLOTS).find_map(|(vector, slot)| {
            let mut slot = slot.lock();
            (slot.line == Some(gsi) && !slot.is_free()).then(|| {
                slot.listeners.push(listener.clone());
                vector
            })
        });
        let vector = match shared {
            Some(v) => v,
            None => {
                let v = claim(|slot| {
                    slot.listeners.push(listener.clone());
                    slot.line = Some(gsi);
                })?;
                if !arch::irq_route(wire, v) {
                    slot(v)?.lock().listeners.clear();
                    return None;
                }
                v
            }
        };
        Some(IrqEvent {
            vector,
            line: Some(gsi),
            listener,
        })
    }

    /// Interrupts since the last call; 0 if none came.
    pub fn take_count(&self) -> u32 {
        self.listener.count.swap(0, Ordering::Acquire)
    }

    /// Sleeps until at least one interrupt has come, and takes the count.
    ///
    /// # Errors
    /// [`WaitError`] when `until` ended the sleep first.
    pub fn wait(&self, until: Until) -> Result<u32, WaitError> {
        self.listener
            .queue
            .wait_until(until, || Some(self.take_count()).filter(|count| *count > 0))
    }

    /// Sleeps until `cond` gives something, which is tried again at every interrupt.
    ///
    /// # Errors
    /// [`WaitError`] when `until` ended the sleep first.
    pub fn wait_until<T>(
        &self,
        until: Until,
        cond: impl FnMut() -> Option<T>,
    ) -> Result<T, WaitError> {
        self.listener.queue.wait_until(until, cond)
    }

    /// The device has been looked after: a wired interrupt may come again. Nothing
    /// to do for one by message.
    pub fn rearm(&self) {
        let Some(line) = self.line else { return };
        self.listener.owes_rearm.store(false, Ordering::Relaxed);
        let Some(slot) = slot(self.vector) else {
            return;
        };
        let slot = slot.lock();
        let owed = |l: &Arc<Listener>| l.owes_rearm.load(Ordering::Relaxed);
        if !slot.listeners.iter().any(owed) {
            arch::irq_set_masked(line, false);
        }
    }

    /// Whether it is a wired interrupt.
    #[must_use]
    pub fn is_line(&self) -> bool {
        self.line.is_some()
    }

    /// Wakes whoever waits, as an interrupt would.
    pub fn raise(&self) {
        self.listener.wake();
    }

    /// Interrupts since boot.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.listener.total.load(Ordering::Relaxed)
    }

    /// What a device writes, and where to, to interrupt CPU `cpu` so. CPUs whose
    /// APIC ID such a message cannot name are replaced by the first.
    pub(crate) fn message(&self, cpu: usize) -> Message {
        let id = |cpu| arch::apic_id(cpu).and_then(|id| u8::try_from(id).ok());
        Message::new(id(cpu).or_else(|| id(0)).unwrap_or(0), self.vector)
    }
}

impl Drop for IrqEvent {
    fn drop(&mut self) {
        let Some(slot) = slot(self.vector) else {
            return;
        };
        self.rearm();
        let mut slot = slot.lock();
        slot.listeners.retain(|l| !Arc::ptr_eq(l, &self.listener));
        if slot.is_free()
            && let Some(line) = slot.line.take()
        {
            arch::irq_set_masked(line, true);
        }
    }
}

/// A message-signalled interrupt (Intel SDM vol. 3A, 11.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) address: u64,
    pub(crate) data: u32,
}

impl Message {
    /// Fixed delivery, edge, to one CPU by its physical ID.
    pub(crate) fn new(apic_id: u8, vector: u8) -> Message {
        Message {
            address: 0xfee0_0000 | u64::from(apic_id) << 12,
            data: u32::from(vector),
        }
    }
}

/// One interrupt source, for `/proc/interrupts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its vector.
    pub vector: u8,
    /// Who listens.
    pub name: &'static str,
    /// How often it has come.
    pub total: u64,
}

/// All sources that somebody listens to.
#[must_use]
pub fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    for (vector, slot) in (FIRST..).zip(&SLOTS) {
        // Cloned under the lock, collected outside of it.
        let listeners: smallvec::SmallVec<[Arc<Listener>; 2]> =
            slot.lock().listeners.iter().cloned().collect();
        all.extend(listeners.iter().map(|l| Source {
            vector,
            name: l.name,
            total: l.total.load(Ordering::Relaxed),
        }));
    }
    all
}

/// Interrupts that nobody listened to.
#[must_use]
pub fn stray() -> u64 {
    STRAY.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn an_interrupt_wakes_its_waiter_only() {
        let (a, b) = (IrqEvent::new("a").unwrap(), IrqEvent::new("b").unwrap());
        assert_ne!(a.vector, b.vector);
        signal(a.vector);
        signal(a.vector);
        assert_eq!(a.wait(Until::default()), Ok(2));
        let soon = crate::time::Instant::now().after(Duration::from_millis(5));
        let until = Until {
            deadline: Some(soon),
            interruptible: false,
        };
        assert_eq!(b.wait(until), Err(WaitError::TimedOut));
        assert_eq!((a.take_count(), a.total()), (0, 2));
    }

    #[test]
    fn vectors_come_back() {
        let vectors: Vec<u8> = (0..3).map(|_| IrqEvent::new("x").unwrap().vector).collect();
        assert!(vectors.iter().all(|v| (FIRST..0xf0).contains(v)));
        let before = stray();
        signal(0xef);
        assert!(stray() > before);
    }

    #[test]
    fn a_shared_wire_waits_for_all() {
        let (a, b) = (
            IrqEvent::line("a", 11).unwrap(),
            IrqEvent::line("b", 11).unwrap(),
        );
        assert_eq!(a.vector, b.vector);
        signal(a.vector);
        assert_eq!((a.take_count(), b.take_count()), (1, 1));
        a.rearm();
        assert!(b.listener.owes_rearm.load(Ordering::Relaxed));
        b.rearm();
        drop(a);
        assert_eq!(slot(b.vector).unwrap().lock().line, Some(11));
    }

    #[test]
    fn message_format() {
        let m = Message::new(3, 0x41);
        assert_eq!((m.address, m.data), (0xfee0_3000, 0x41));
    }
}
