//! The controller: how it is started, stopped and told what to do (xHCI 1.2).
//!
//! Everything it reports comes in by one ring of events, which a thread of the driver
//! empties when the controller interrupts. Who waits for a command or a transfer does
//! so for a bounded time, and has the ring looked at now and then in case an interrupt
//! was lost. A controller that breaks down is stopped (or else cut off from memory),
//! all that is under way ends with [`UsbError::Gone`], and the bus thread starts it
//! anew.

pub(crate) mod context;
mod events;
mod port;
mod registers;
mod ring;
pub(crate) mod slot;
pub(crate) mod transfer;
pub(crate) mod trb;

use crate::work::{Task, Work};
use crate::{UsbError, limit};
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use core::time::Duration;
use machine::bus::Bus;
use machine::dma::DmaRing;
use machine::sync::{Mutex, SpinLock};
use machine::time::Instant;
use machine::wait::{Until, WaitQueue};
use registers::{Capabilities, Registers, poll};
use ring::{EventRing, Ring};
use slot::Slot;
use trb::{Trb, code};

/// Slots that are used of those a controller has.
const SLOTS_MAX: u8 = 64;
/// Pages a controller may want for itself.
const SCRATCHPADS_MAX: usize = 1023;
/// How long it may take to stop: 16 ms, says 5.4.1.1.
const HALT: Duration = Duration::from_millis(100);
/// How long it may take to reset and to start.
const READY: Duration = Duration::from_secs(1);
/// Within this time a command is answered, even one that talks to a device.
const COMMAND: Duration = limit(2000);
/// How long giving a command up may take.
const ABORT: Duration = limit(1000);
/// Time after which the event ring is looked at without an interrupt.
const LOOK: Duration = limit(250);

/// Counters since the driver started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Events that were there without an interrupt.
    pub lost_interrupts: AtomicU64,
    /// Times the controller was reset because it broke down.
    pub resets: AtomicU64,
    /// Times a device was set up again because it misbehaved.
    pub device_resets: AtomicU64,
}

/// Memory the controller has from its start to its next reset.
struct Shared {
    commands: Ring,
    events: EventRing,
    /// Where each slot's contexts are.
    contexts: DmaRing,
    _scratchpads: (Option<DmaRing>, Vec<DmaRing>),
    /// The command under way: the address of its block, and who waits for it.
    command: Option<(u64, Arc<Command>)>,
}

struct Command {
    answer: SpinLock<Option<Result<Trb, UsbError>>>,
    done: WaitQueue,
}

impl Command {
    fn finish(&self, answer: Result<Trb, UsbError>) {
        *self.answer.lock() = Some(answer);
        self.done.wake_all();
    }
}

/// An xHCI controller.
pub(crate) struct Controller {
    /// Number of its bus, for messages.
    pub(crate) number: u8,
    registers: Registers,
    capabilities: Capabilities,
    /// Nothing while it is stopped.
    shared: SpinLock<Option<Shared>>,
    slots: SpinLock<Vec<Option<Arc<Slot>>>>,
    /// Held by who has a command under way.
    turn: Mutex<()>,
    /// Held by who starts or stops it.
    life: Mutex<()>,
    pub(crate) work: Work,
    pub(crate) counters: Counters,
    /// Nobody shall wait for events any more.
    is_given_up: AtomicBool,
    /// Somebody who waits had the events looked at.
    was_called: AtomicBool,
}

impl Controller {
    /// Takes a controller from the firmware; it stands still yet.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn open(bus: Box<dyn Bus>, number: u8) -> Result<Arc<Controller>, UsbError> {
        let registers = Registers::new(bus)?;
        registers.take_from_firmware();
        let mut capabilities = registers.capabilities();
        capabilities.slots = capabilities.slots.min(SLOTS_MAX);
        if capabilities.slots == 0 || capabilities.ports == 0 {
            return Err(UsbError::Nonsense("no slots or no ports"));
        }
        if capabilities.scratchpads > SCRATCHPADS_MAX {
            return Err(UsbError::Nonsense("more scratchpads than there can be"));
        }
        let slots = (0..=capabilities.slots).map(|_| None).collect();
        Ok(Arc::new(Controller {
            number,
            registers,
            capabilities,
            shared: SpinLock::new(None),
            slots: SpinLock::new(slots),
            turn: Mutex::new(()),
            life: Mutex::new(()),
            work: Work::default(),
            counters: Counters::default(),
            is_given_up: AtomicBool::new(false),
            was_called: AtomicBool::new(false),
        }))
    }

    /// Resets the controller and starts it with empty rings.
    ///
    /// # Errors
    /// [`UsbError::NoReset`], [`UsbError::NoMemory`].
    pub(crate) fn start(&self) -> Result<(), UsbError> {
        let _life = self.life.lock();
        self.halt()?;
        // A device that was just being set up when the controller failed.
        self.release();
        let r = &self.registers;
        r.set_command(registers::RESET);
        let is_ready =
            || r.command() & registers::RESET == 0 && r.status() & registers::NOT_READY == 0;
        if !poll(READY, is_ready) {
            return Err(UsbError::NoReset);
        }
        r.bus.set_master(true);
        let shared = self.memory()?;
        r.set_up(
            self.capabilities.slots,
            shared.contexts.phys(),
            shared.commands.position(),
            shared.events.table(),
            shared.events.position(),
        );
        *self.shared.lock() = Some(shared);
        let run = registers::RUN | registers::INTERRUPTS | registers::HOST_ERROR_ENABLE;
        r.set_command(run);
        if !poll(READY, || r.status() & registers::HALTED == 0) {
            self.release();
            return Err(UsbError::NoReset);
        }
        self.power_ports();
        Ok(())
    }

    /// Memory for the next start.
    fn memory(&self) -> Result<Shared, UsbError> {
        let no_memory = |_| UsbError::NoMemory;
        let reach = self.registers.bus.reach();
        let contexts = DmaRing::new(reach, (usize::from(self.capabilities.slots) + 1) * 8);
        let contexts = contexts.map_err(no_memory)?;
        let count = self.capabilities.scratchpads;
        let mut scratchpads = (None, Vec::new());
        if count > 0 {
            let table = DmaRing::new(reach, count * 8).map_err(no_memory)?;
            for n in 0..count {
                let page = DmaRing::new(reach, self.registers.page_len()?);
                let page = page.map_err(no_memory)?;
                self.check_reach(page.phys())?;
                table.write_u64(n * 8, page.phys());
                scratchpads.1.push(page);
            }
            contexts.write_u64(0, table.phys());
            scratchpads.0 = Some(table);
        }
        let shared = Shared {
            commands: Ring::new(reach).map_err(no_memory)?,
            events: EventRing::new(reach).map_err(no_memory)?,
            contexts,
            _scratchpads: scratchpads,
            command: None,
        };
        self.check_reach(shared.contexts.phys())?;
        self.check_reach(shared.commands.position())?;
        self.check_reach(shared.events.position())?;
        Ok(shared)
    }

    /// Whether the controller reaches memory at `phys`.
    pub(crate) fn check_reach(&self, phys: u64) -> Result<(), UsbError> {
        if self.capabilities.is_wide || phys < 1 << 32 {
            return Ok(());
        }
        Err(UsbError::NoMemory)
    }

    /// Stops it; one that does not stop is cut off from memory.
    fn halt(&self) -> Result<(), UsbError> {
        let r = &self.registers;
        r.set_command(r.command() & !(registers::RUN | registers::INTERRUPTS));
        if poll(HALT, || r.status() & registers::HALTED != 0) && r.status() != u32::MAX {
            return Ok(());
        }
        r.bus.set_master(false);
        // A reset may still bring it back.
        if r.bus.is_present() && r.status() != u32::MAX {
            return Ok(());
        }
        Err(UsbError::NoReset)
    }

    /// The controller has broken down: it is stopped, and all that is under way ends.
    /// The bus thread will start it anew.
    pub(crate) fn fail(&self, why: &str) {
        let life = self.life.lock();
        if self.shared.lock().is_none() {
            return;
        }
        log::warn!("usb{}: {why}: the controller is reset", self.number);
        self.counters.resets.fetch_add(1, SeqCst);
        let _ = self.halt();
        self.release();
        drop(life);
        self.work.add(Task::Restart);
    }

    /// Ends all that is under way; the controller stands still.
    fn release(&self) {
        let shared = self.shared.lock().take();
        if let Some((_, command)) = shared.and_then(|s| s.command) {
            command.finish(Err(UsbError::Gone));
        }
        let slots: Vec<_> = {
            let mut slots = self.slots.lock();
            slots.iter_mut().filter_map(Option::take).collect()
        };
        for slot in slots {
            slot.set_gone();
            slot.give_up_all();
        }
    }

    /// Stops it for good.
    pub(crate) fn give_up(&self) {
        let _life = self.life.lock();
        self.is_given_up.store(true, SeqCst);
        let _ = self.halt();
        self.registers.bus.set_master(false);
        self.release();
        self.registers.bus.interrupt(0).raise();
    }

    /// Whether it works at present.
    pub(crate) fn is_running(&self) -> bool {
        self.shared.lock().is_some()
    }

    /// Has the controller carry a command out; the slot its answer is about.
    ///
    /// # Errors
    /// [`UsbError::Refused`], [`UsbError::TimedOut`], [`UsbError::Gone`].
    pub(crate) fn command(&self, trb: Trb) -> Result<u8, UsbError> {
        let _turn = self.turn.lock();
        let command = Arc::new(Command {
            answer: SpinLock::new(None),
            done: WaitQueue::new(),
        });
        if let Some(shared) = self.shared.lock().as_mut() {
            let mut place = 0;
            shared.commands.push(&[trb], |n| place = n);
            let address = shared.commands.address_of(place);
            shared.command = Some((address, command.clone()));
            self.registers.ring_doorbell(0, 0);
        } else {
            return Err(UsbError::Gone);
        }
        let answered = |limit| self.wait_for(&command.done, limit, || command.answer.lock().take());
        let answer = answered(COMMAND).unwrap_or_else(|| {
            let aborted = self.registers.abort_command();
            if aborted && answered(ABORT).is_some() {
                return Err(UsbError::TimedOut);
            }
            self.fail("a command is not answered");
            Err(UsbError::Gone)
        });
        match answer? {
            event if event.code() == code::SUCCESS => Ok(event.slot()),
            event => Err(UsbError::Refused(event.code())),
        }
    }

    /// Sleeps until `ended` gives something, for `limit` at most.
    fn wait_for<T>(
        &self,
        queue: &WaitQueue,
        limit: Duration,
        mut ended: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now().after(limit);
        loop {
            let next = Instant::now().after(LOOK).min(deadline);
            let until = Until {
                deadline: Some(next),
                interruptible: false,
            };
            match queue.wait_until(until, &mut ended) {
                Ok(value) => return Some(value),
                Err(_) if next == deadline => return None,
                // The interrupt may have been lost.
                Err(_) => {
                    self.was_called.store(true, SeqCst);
                    self.registers.bus.interrupt(0).raise();
                }
            }
        }
    }

    /// The slot of that number, if it is in use.
    fn slot(&self, number: u8) -> Option<Arc<Slot>> {
        let slots = self.slots.lock();
        slots.get(usize::from(number))?.clone()
    }

    /// Takes a slot for a device; the controller is told where its contexts are.
    ///
    /// # Errors
    /// [`UsbError`].
    pub(crate) fn enable_slot(&self, place: context::Place) -> Result<Arc<Slot>, UsbError> {
        let reach = self.registers.bus.reach();
        let contexts = context::Contexts::new(reach, self.capabilities.context);
        let contexts = contexts.map_err(|_| UsbError::NoMemory)?;
        self.check_reach(contexts.input())?;
        self.check_reach(contexts.output())?;
        let output = contexts.output();
        let slot_type = self.slot_type(place.path.port);
        let number = self.command(Trb::enable_slot(slot_type))?;
        let slot = Arc::new(Slot::new(number, place, contexts, reach));
        let mut slots = self.slots.lock();
        let free = slots.get_mut(usize::from(number)).filter(|s| s.is_none());
        let Some(free) = free.filter(|_| number != 0) else {
            drop(slots);
            self.fail("it gives a slot that is in use or does not exist");
            return Err(UsbError::Gone);
        };
        *free = Some(slot.clone());
        drop(slots);
        if let Some(shared) = self.shared.lock().as_ref() {
            shared.contexts.write_u64(usize::from(number) * 8, output);
        }
        Ok(slot)
    }

    /// Takes a device away: the controller forgets it, and all of it that is under
    /// way ends.
    pub(crate) fn disable_slot(&self, slot: &Arc<Slot>) {
        slot.set_gone();
        let number = slot.number;
        let is_ours = self.slot(number).is_some_and(|s| Arc::ptr_eq(&s, slot));
        if !is_ours {
            return;
        }
        let command = Trb::command(trb::kind::DISABLE_SLOT, 0, number, 0);
        match self.command(command) {
            Ok(_) => {}
            // Stopped meanwhile: all has been ended.
            Err(UsbError::Gone) => return,
            Err(e) => {
                log::warn!("usb{}: slot {number}: {e}", self.number);
                self.fail("it does not forget a device");
                return;
            }
        }
        if let Some(shared) = self.shared.lock().as_ref() {
            shared.contexts.write_u64(usize::from(number) * 8, 0);
        }
        slot.give_up_all();
        if let Some(place) = self.slots.lock().get_mut(usize::from(number)) {
            *place = None;
        }
    }
}
