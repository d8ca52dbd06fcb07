//! A port: its registers, and the way of a command through it.

use crate::command::Task;
use crate::hba::call;
use crate::identify::Identity;
use crate::registers::{
    ALL_ONES, CI, CLB, CMD, CMD_ACTIVE, CMD_POWER, CMD_RECEIVE, CMD_RECEIVING, CMD_RUNNING,
    CMD_SPIN_UP, CMD_START, FB, IE_WANTED, IS_CONNECT, IS_LINK, IS_PHY, IS_TASK, PX_IE, PX_IS,
    SACT, SCTL, SCTL_NO_SLEEP, SCTL_RESET, SERR, SSTS, SSTS_UP, TFD, TFD_BUSY, port,
};
use crate::slots::{Refused, Slots, State, Ticket};
use crate::unflushed::Unflushed;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use machine::AllocError;
use machine::block::{BlockError, Lead, Observer, Trouble};
use machine::bus::Bus;
use machine::dma::Reach;
use machine::frame::Frame;
use machine::sync::{Once, SpinLock};
use machine::thread;
use machine::time::Instant;
use machine::wait::WaitQueue;

/// Time for an engine to stop (AHCI 10.1.2).
const STOP_TIME: Duration = Duration::from_millis(500);
/// Time for a link to come up.
const LINK_TIME: Duration = Duration::from_secs(1);
/// Time for a disk to be ready: it may have to spin up.
const READY_TIME: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 15 });

/// A port.
pub(crate) struct Port {
    pub(crate) number: u8,
    base: usize,
    pub(crate) slots: SpinLock<Slots>,
    /// Waits for a free slot.
    room: WaitQueue,
    pub(crate) lead: Lead,
    /// Commands that wait to come alone: queued ones let them go first.
    alone_waiting: AtomicU32,
    /// Of [`call`].
    pub(crate) calls: AtomicU32,
    pub(crate) identity: Once<Identity>,
    pub(crate) observer: Once<Observer>,
    pub(crate) unflushed: Unflushed,
}

impl Port {
    pub(crate) fn new(number: u8, reach: Reach) -> Result<Port, AllocError> {
        Ok(Port {
            number,
            base: port(number),
            slots: SpinLock::new(Slots::new(reach)?),
            room: WaitQueue::new(),
            lead: Lead::new(),
            alone_waiting: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            identity: Once::new(),
            observer: Once::new(),
            unflushed: Unflushed::default(),
        })
    }

    pub(crate) fn read(&self, bus: &impl Bus, register: usize) -> u32 {
        bus.read_u32(self.base + register)
    }

    pub(crate) fn write(&self, bus: &impl Bus, register: usize, value: u32) {
        bus.write_u32(self.base + register, value);
    }

    pub(crate) fn tell(&self, trouble: Trouble) {
        if let Some(observer) = self.observer.get() {
            observer(trouble);
        }
    }

    /// Gives a command to the adapter, which does not look before [`Port::notify`].
    pub(crate) fn submit(
        &self,
        task: Task,
        frames: &[Frame],
        len: usize,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Refused> {
        let is_yielding = self.alone_waiting.load(SeqCst) > 0;
        let mut slots = self.slots.lock();
        slots.submit(task, frames, len, is_yielding, ticket)?;
        if task.is_write() {
            self.unflushed.add();
        }
        Ok(())
    }

    /// As [`Port::submit`], but sleeps until there is room. Only for who has no command
    /// under way: those who have must look after it first.
    pub(crate) fn submit_waiting(
        &self,
        task: Task,
        frames: &[Frame],
        len: usize,
        ticket: &Arc<Ticket>,
    ) -> Result<(), Refused> {
        let is_alone = !task.is_transfer();
        if is_alone {
            self.alone_waiting.fetch_add(1, SeqCst);
        }
        let answer = self
            .room
            .wait(|| match self.submit(task, frames, len, ticket) {
                Err(Refused::Busy) => None,
                other => Some(other),
            });
        if is_alone {
            self.alone_waiting.fetch_sub(1, SeqCst);
            self.room.wake_all();
        }
        answer
    }

    /// Tells the adapter of new commands.
    pub(crate) fn notify(&self, bus: &impl Bus) {
        let mut slots = self.slots.lock();
        let new = core::mem::take(&mut slots.untold);
        if new == 0 || slots.state != State::Open {
            slots.untold = new;
            return;
        }
        if !slots.is_alone {
            self.write(bus, SACT, new);
        }
        self.write(bus, CI, new);
    }

    /// Looks at the port's interrupts and takes back what is finished; how many.
    /// Trouble is noted in [`Port::calls`].
    pub(crate) fn reap(&self, bus: &impl Bus) -> usize {
        let mut slots = self.slots.lock();
        if slots.state == State::Closed {
            // Who repairs it looks after its interrupts.
            return 0;
        }
        let interrupts = self.read(bus, PX_IS);
        if interrupts == ALL_ONES {
            self.calls.fetch_or(call::GONE, SeqCst);
            return 0;
        }
        if interrupts & (IS_CONNECT | IS_PHY) != 0 {
            // These are cleared where the link keeps its errors.
            self.write(bus, SERR, 1 << 26 | 1 << 16);
            self.note_plug();
        }
        if interrupts != 0 {
            self.write(bus, PX_IS, interrupts);
        }
        if slots.state != State::Open {
            return 0;
        }
        let given = slots.held & !slots.untold;
        let active = if slots.is_alone {
            0
        } else {
            self.read(bus, SACT)
        };
        let mut done = given & !(active | self.read(bus, CI));
        if interrupts & (IS_TASK | IS_LINK) != 0 {
            slots.state = State::Closed;
            self.write(bus, PX_IE, 0);
            let why = if interrupts & IS_TASK != 0 {
                call::FAILED
            } else {
                call::LINK
            };
            self.calls.fetch_or(why, SeqCst);
            // Whether a command that came alone has failed is not seen from this.
            if slots.is_alone {
                done = 0;
            }
        }
        // Where nothing answers, some buses read zeros: then nothing is done, but gone.
        if done != 0 && !self.is_running(bus) {
            slots.state = State::Closed;
            self.calls.fetch_or(call::GONE, SeqCst);
            return 0;
        }
        let answer = slots.answer();
        let mut finished = taken(done, &mut slots);
        drop(slots);
        let count = finished.len();
        for ticket in finished.drain(..) {
            ticket.answer.store(answer, Relaxed);
            ticket.request.finish(Ok(()));
        }
        if count > 0 {
            self.room.wake_all();
        }
        count
    }

    /// The link went down or came up without the driver's doing.
    pub(crate) fn note_plug(&self) {
        self.unflushed.doubt();
        self.calls.fetch_or(call::PLUG, SeqCst);
    }

    /// Whether the adapter is there and the port started.
    pub(crate) fn is_running(&self, bus: &impl Bus) -> bool {
        let command = self.read(bus, CMD);
        command != ALL_ONES && command & CMD_START != 0
    }

    /// Has one of those who wait look whether to lead.
    pub(crate) fn wake_next(&self) {
        for number in Slots::numbers(u32::MAX) {
            let ticket = {
                let slots = self.slots.lock();
                slots.held_in(number).map(|h| h.ticket.clone())
            };
            if ticket.is_some_and(|t| t.request.wake()) {
                return;
            }
        }
    }

    /// When the oldest command under way was given to the adapter.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        let slots = self.slots.lock();
        let held = Slots::numbers(slots.held).filter_map(|n| slots.held_in(n));
        held.map(|h| h.ticket.request.since()).min()
    }

    /// Takes no commands from here on, and no completions; interrupts stay away.
    pub(crate) fn close(&self, bus: &impl Bus) {
        let mut slots = self.slots.lock();
        slots.state = State::Closed;
        self.write(bus, PX_IE, 0);
    }

    /// Takes commands, and gives the disk once more what it had.
    pub(crate) fn open(&self, bus: &impl Bus) {
        self.clear_errors(bus);
        let mut slots = self.slots.lock();
        slots.state = State::Open;
        slots.untold = 0;
        for number in Slots::numbers(slots.held) {
            slots.push(number);
        }
        self.write(bus, PX_IE, IE_WANTED);
        drop(slots);
        self.notify(bus);
        self.wake(bus);
    }

    pub(crate) fn state(&self) -> State {
        self.slots.lock().state
    }

    /// Ends everything under way, with `state` from here on. The port is stopped.
    pub(crate) fn end(&self, bus: &impl Bus, state: State, why: BlockError) {
        let mut slots = self.slots.lock();
        slots.state = state;
        // A disk that comes back interrupts.
        self.write(bus, PX_IE, IS_CONNECT | IS_PHY);
        let mask = slots.held;
        let mut ended = taken(mask, &mut slots);
        drop(slots);
        for ticket in ended.drain(..) {
            ticket.request.finish(Err(why));
        }
        self.wake(bus);
    }

    /// Has everyone look again who waits for room, or leads.
    pub(crate) fn wake(&self, bus: &impl Bus) {
        self.room.wake_all();
        bus.interrupt(0).raise();
    }

    /// Whether a device is there and its link works.
    pub(crate) fn is_up(&self, bus: &impl Bus) -> bool {
        self.read(bus, SSTS) & 0xf == SSTS_UP
    }

    /// Stops the list of commands: then the adapter reaches no memory but the place for
    /// answers. Whether it did.
    ///
    /// QEMU's disks go on with what is under way all the same. It has to be able to say
    /// so: what ended while answers were not taken is told with a later answer, as the
    /// end of whatever has the same number then.
    pub(crate) fn halt(&self, bus: &impl Bus) -> bool {
        let command = self.read(bus, CMD) & !CMD_START;
        self.write(bus, CMD, command);
        wait(STOP_TIME, || self.read(bus, CMD) & CMD_RUNNING == 0)
    }

    /// Stops the port: then the adapter reaches none of its memory. Whether it did.
    pub(crate) fn stop(&self, bus: &impl Bus) -> bool {
        let halted = self.halt(bus);
        let command = self.read(bus, CMD) & !CMD_RECEIVE;
        self.write(bus, CMD, command);
        halted && wait(STOP_TIME, || self.read(bus, CMD) & CMD_RECEIVING == 0)
    }

    /// Begins the link anew, which resets the disk (AHCI 10.4.2); the list is stopped.
    pub(crate) fn reset_link(&self, bus: &impl Bus) -> bool {
        self.write(bus, SCTL, SCTL_NO_SLEEP | SCTL_RESET);
        let pause = Instant::now().after(Duration::from_millis(2));
        let _ = thread::sleep_until(pause, false);
        self.write(bus, SCTL, SCTL_NO_SLEEP);
        wait(LINK_TIME, || self.is_up(bus))
    }

    /// Gives the port its memory and powers the disk up; the list is stopped. Whether
    /// the disk had no power before.
    pub(crate) fn power_up(&self, bus: &impl Bus) -> bool {
        let (list, answers) = self.slots.lock().place();
        for (register, phys) in [(CLB, list), (FB, answers)] {
            for (register, half) in [(register, phys), (register + 4, phys >> 32)] {
                // While answers are taken their place may not be written, not even anew.
                if self.read(bus, register) != half as u32 {
                    self.write(bus, register, half as u32);
                }
            }
        }
        self.write(bus, SCTL, SCTL_NO_SLEEP);
        let command = self.read(bus, CMD);
        let on = CMD_POWER | CMD_SPIN_UP;
        self.write(bus, CMD, command | on | CMD_ACTIVE);
        command & CMD_SPIN_UP == 0
    }

    /// Starts the port, whose link is up; whether the disk became ready.
    pub(crate) fn run(&self, bus: &impl Bus) -> bool {
        self.clear_errors(bus);
        let command = self.read(bus, CMD) | CMD_RECEIVE;
        self.write(bus, CMD, command);
        let is_ready = wait(READY_TIME, || {
            self.read(bus, TFD) & TFD_BUSY == 0 || !self.is_up(bus)
        });
        if !is_ready || !self.is_up(bus) {
            return false;
        }
        self.clear_errors(bus);
        self.write(bus, CMD, command | CMD_START);
        true
    }

    pub(crate) fn clear_errors(&self, bus: &impl Bus) {
        self.write(bus, SERR, u32::MAX);
        self.write(bus, PX_IS, u32::MAX);
    }
}

/// Tickets that were taken out of their slots.
type Tickets = smallvec::SmallVec<[Arc<Ticket>; 32]>;

/// Takes the commands of a mask out of their slots.
fn taken(mask: u32, slots: &mut Slots) -> Tickets {
    let held = Slots::numbers(mask).filter_map(|n| slots.take(n));
    held.map(|h| h.ticket).collect()
}

/// Sleeps until `what` holds, for `limit` at most; whether it does.
pub(crate) fn wait(limit: Duration, what: impl Fn() -> bool) -> bool {
    let deadline = Instant::now().after(limit);
    loop {
        if what() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        // A sleep without interruption ends at its time only.
        let pause = Instant::now().after(Duration::from_millis(1));
        let _ = thread::sleep_until(pause, false);
    }
}
