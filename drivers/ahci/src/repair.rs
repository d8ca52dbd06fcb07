//! The driver's thread: it repairs ports after errors, sees disks come and go, and
//! tells of trouble.

use crate::command::Task;
use crate::hba::{AhciError, Hba, call};
use crate::identify::{self, Identity};
use crate::port::{Port, wait};
use crate::registers::{
    CI, CMD, CMD_CLO, IS_LINK, IS_TASK, PX_IS, SIG, SIG_DISK, TFD, TFD_BUSY, TFD_ERROR,
};
use crate::slots::{Slots, State};
use alloc::sync::Arc;
use core::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use machine::Account;
use machine::block::{BlockError, Trouble};
use machine::bus::Bus;
use machine::frame::Frame;
use machine::thread;
use machine::time::Instant;

/// Silence after which a disk's link is begun anew. A disk may need seconds for a
/// flush; a reset then costs time and no data.
const TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 300 } else { 4000 });
/// How often who waits makes sure that the port is well.
pub(crate) const CHECK: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 250 });
/// Times a command is given to the disk before it counts as failed.
const TRIES: u32 = 3;
/// Resets that are tried one after the other.
const RESETS: u32 = 3;
/// How long a link has to stay down or up before it counts.
const SETTLE: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 100 });

impl<B: Bus> Hba<B> {
    /// Serves until the adapter is gone.
    pub(crate) fn serve(&self) {
        let mut is_away = false;
        loop {
            is_away = self.sleep(is_away);
            self.look(None);
            for port in &self.ports {
                let calls = port.calls.swap(0, SeqCst);
                if calls & call::GONE != 0 && !self.bus.is_present() {
                    self.give_up();
                    return;
                }
                if calls != 0 {
                    self.repair(port, calls);
                }
            }
            self.tell_failures();
        }
    }

    /// Looks whether the port is well, and what it waits for not late.
    pub(crate) fn check(&self, port: &Port) {
        if port.state() != State::Open {
            return;
        }
        if !port.is_running(&self.bus) {
            port.calls.fetch_or(call::GONE, SeqCst);
        } else if !port.is_up(&self.bus) {
            port.note_plug();
        } else if is_late(port) {
            port.calls.fetch_or(call::LATE, SeqCst);
        } else {
            return;
        }
        self.call();
    }

    fn repair(&self, port: &Port, calls: u32) {
        match port.state() {
            State::Gone => return,
            State::Pulled => return self.put_back(port),
            // Who said so said it before the last reset.
            State::Open if calls == call::LATE && !is_late(port) => return,
            State::Open | State::Closed => port.close(&self.bus),
        }
        if calls & call::PLUG != 0 {
            pause(SETTLE);
        }
        if !port.is_up(&self.bus) {
            return self.pulled(port);
        }
        let only_failed = calls & !call::FAILED == 0;
        let repaired = only_failed && self.restart(port) && self.after_failure(port);
        if !repaired {
            self.begin_anew(port);
        }
    }

    /// Stops the port and starts it again, as after each failure; whether that worked.
    fn restart(&self, port: &Port) -> bool {
        port.halt(&self.bus) && self.is_idle(port) && port.run(&self.bus)
    }

    /// Ends the command that failed and goes on with the others; whether that worked.
    fn after_failure(&self, port: &Port) -> bool {
        let (held, is_alone) = {
            let slots = port.slots.lock();
            (slots.held, slots.is_alone)
        };
        if is_alone {
            Slots::numbers(held).for_each(|n| self.fail(port, n));
        } else {
            match self.failed_tag(port).filter(|tag| held >> tag & 1 != 0) {
                Some(tag) => self.fail(port, tag),
                // What else the disk was told may go on in spite of the port's end, and
                // reach disk or memory when the program has long been answered (QEMU's
                // does); after a reset of the link nothing does.
                None if self.bring_up(port, true).is_err() => return false,
                None if !self.one_by_one(port, held) => return false,
                None => {}
            }
        }
        if !self.is_calm(port) {
            return false;
        }
        port.open(&self.bus);
        true
    }

    /// Has a disk that still tells of an error do something harmless, as Linux does; whether
    /// it is the one of before. QEMU's takes back a queued command too early, and does it
    /// twice, if there is an error from before it.
    fn is_calm(&self, port: &Port) -> bool {
        let has_error = port.read(&self.bus, TFD) & TFD_ERROR != 0;
        let is_known = |found| {
            port.identity
                .get()
                .is_some_and(|known| known.is_same(&found))
        };
        !has_error || self.identify(port).is_ok_and(is_known)
    }

    /// Whether the disk of a stopped port is not busy, or was made to say so.
    fn is_idle(&self, port: &Port) -> bool {
        let bus = &self.bus;
        let idle = || port.read(bus, TFD) & TFD_BUSY == 0;
        if !idle() && self.can_clear_busy() {
            port.write(bus, CMD, port.read(bus, CMD) | CMD_CLO);
            wait(SETTLE, || port.read(bus, CMD) & CMD_CLO == 0);
        }
        idle()
    }

    /// The queued command that the disk says has failed (ACS-3, A.15); `None` if it has no
    /// such log, which may leave the port stopped.
    fn failed_tag(&self, port: &Port) -> Option<u32> {
        const NOT_QUEUED: u8 = 1 << 7;
        let page = Frame::zeroed(Account::kernel()).ok()?;
        self.execute(port, Task::ErrorLog, &page).ok()?;
        let mut first = [0];
        page.read(0, &mut first);
        let [first] = first;
        (first & NOT_QUEUED == 0).then_some(u32::from(first & 0x1f))
    }

    /// Does what was queued one by one, to see which fails; whether the disk answered.
    fn one_by_one(&self, port: &Port, held: u32) -> bool {
        for number in Slots::numbers(held) {
            {
                let mut slots = port.slots.lock();
                slots.is_alone = true;
                slots.push(number);
            }
            match self.run_slot(port, number) {
                Ok(()) => {
                    let held = port.slots.lock().take(number);
                    held.into_iter()
                        .for_each(|h| h.ticket.request.finish(Ok(())));
                }
                Err(BlockError::Failed) => {
                    self.fail(port, number);
                    if !self.restart(port) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Ends the command in a slot: the disk says that it has failed.
    fn fail(&self, port: &Port, number: u32) {
        if let Some(held) = port.slots.lock().take(number) {
            self.note_failure(port, held.ticket.clone());
            held.ticket.request.finish(Err(BlockError::Failed));
        }
    }

    /// Resets the disk and gives it once more what it had; gives it up if it does not
    /// come back.
    fn begin_anew(&self, port: &Port) {
        for n in 0..RESETS {
            log::warn!(
                "ahci: port {} hangs or misbehaves and is reset",
                port.number
            );
            self.counters.resets.fetch_add(1, Relaxed);
            match self.bring_up(port, true) {
                Ok(()) => {
                    self.give_again(port);
                    return port.tell(Trouble::Reset);
                }
                Err(AhciError::NoDisk) if n > 0 => return self.pulled(port),
                Err(e) => log::warn!("ahci: port {}: {e}", port.number),
            }
            pause(SETTLE);
        }
        log::error!("ahci: port {} is given up", port.number);
        if !port.stop(&self.bus) {
            // All other ports lose their disks too: better than memory overwritten.
            return self.give_up();
        }
        port.end(&self.bus, State::Gone, BlockError::Gone);
        port.tell(Trouble::GivenUp);
    }

    /// Opens a port that was reset. What its disk had too often fails.
    fn give_again(&self, port: &Port) {
        let mut over = alloc::vec::Vec::new();
        {
            let mut slots = port.slots.lock();
            let mut held = Slots::numbers(slots.held).filter_map(|n| slots.held_in(n));
            let is_alone = slots.depth == 0 || !held.all(|h| h.task.is_transfer());
            slots.is_alone = is_alone && slots.held != 0;
            for number in Slots::numbers(slots.held) {
                let held = slots.held_in(number);
                if held.is_some_and(|h| h.ticket.request.count_try() >= TRIES) {
                    over.extend(slots.take(number));
                }
            }
        }
        port.open(&self.bus);
        for held in over {
            held.ticket.request.finish(Err(BlockError::TimedOut));
        }
    }

    /// The disk is gone: all that is under way ends.
    fn pulled(&self, port: &Port) {
        log::warn!("ahci: the disk of port {} is gone", port.number);
        port.unflushed.doubt();
        if !port.stop(&self.bus) {
            return self.give_up();
        }
        port.end(&self.bus, State::Pulled, BlockError::Gone);
        port.tell(Trouble::Pulled);
    }

    /// A disk was put into a port that had lost its own: if it is the same, it is used
    /// again.
    fn put_back(&self, port: &Port) {
        pause(SETTLE);
        if !port.is_up(&self.bus) {
            return;
        }
        match self.bring_up(port, true) {
            Ok(()) => {
                port.open(&self.bus);
                port.tell(Trouble::Returned);
            }
            Err(e) => {
                log::warn!("ahci: port {}: {e}", port.number);
                if !port.stop(&self.bus) {
                    return self.give_up();
                }
                port.end(&self.bus, State::Pulled, BlockError::Gone);
            }
        }
    }

    /// Starts a port whose disk is there, after a reset of its link with `anew`, and
    /// learns what the disk is, or makes sure that it is the one of before. The port
    /// stays closed.
    pub(crate) fn bring_up(&self, port: &Port, anew: bool) -> Result<(), AhciError> {
        // What the port had may still have to be answered.
        let stopped = if anew {
            port.halt(&self.bus)
        } else {
            port.stop(&self.bus)
        };
        port.power_up(&self.bus);
        if anew && !port.reset_link(&self.bus) {
            return Err(AhciError::NoDisk);
        }
        if !stopped && !port.stop(&self.bus) {
            return Err(AhciError::NotStopped);
        }
        let (list, answers) = port.slots.lock().place();
        if !(self.reaches(list) && self.reaches(answers)) {
            return Err(AhciError::NoMemory);
        }
        if !port.run(&self.bus) {
            return Err(AhciError::NotReady);
        }
        if port.read(&self.bus, SIG) != SIG_DISK {
            return Err(AhciError::NotUsable("it is no disk"));
        }
        let identity = self.identify(port)?;
        let known = port.identity.call_once(|| identity.clone());
        if !known.is_same(&identity) {
            return Err(AhciError::Changed);
        }
        let mut slots = port.slots.lock();
        slots.dialect.is_wide = identity.is_wide;
        slots.depth = self.depth(identity.queue);
        Ok(())
    }

    fn identify(&self, port: &Port) -> Result<Identity, AhciError> {
        let page = Frame::zeroed(Account::kernel()).map_err(|_| AhciError::NoMemory)?;
        if !self.reaches(page.phys()) {
            return Err(AhciError::NoMemory);
        }
        let done = self.execute(port, Task::Identify, &page);
        done.map_err(|_| AhciError::Command)?;
        let mut answer = [0; identify::LEN];
        page.read(0, &mut answer);
        Identity::decode(&answer).map_err(AhciError::NotUsable)
    }

    /// Has the disk of a closed port do a command of the driver's own, with 512 bytes
    /// of data.
    fn execute(&self, port: &Port, task: Task, page: &Frame) -> Result<(), BlockError> {
        let given = port.slots.lock().push_own(task, page, identify::LEN);
        given.map_err(|_| BlockError::NoMemory)?;
        let done = self.run_slot(port, 0).inspect_err(|_| {
            // The page is about to be free.
            if !port.halt(&self.bus) {
                self.bus.set_master(false);
            }
        });
        port.slots.lock().end_own();
        done
    }

    /// Has the disk of a closed port do what is in a slot, alone.
    fn run_slot(&self, port: &Port, number: u32) -> Result<(), BlockError> {
        let bus = &self.bus;
        port.clear_errors(bus);
        port.write(bus, CI, 1 << number);
        let failed = || port.read(bus, PX_IS) & (IS_TASK | IS_LINK) != 0;
        let done = || port.read(bus, CI) >> number & 1 == 0;
        if !wait(TIMEOUT, || failed() || done()) {
            return Err(BlockError::TimedOut);
        }
        if failed() || port.read(bus, TFD) & TFD_ERROR != 0 {
            return Err(BlockError::Failed);
        }
        Ok(())
    }

    /// Keeps the adapter from memory for good and ends all that is under way.
    fn give_up(&self) {
        log::error!("ahci: the adapter is given up");
        self.bus.set_master(false);
        for port in &self.ports {
            port.end(&self.bus, State::Gone, BlockError::Gone);
            port.tell(Trouble::GivenUp);
        }
    }

    /// Tells of what failed.
    fn tell_failures(&self) {
        loop {
            let failure = self.untold.lock().pop();
            let Some((number, ticket)) = failure else {
                return;
            };
            let mut ports = self.ports.iter();
            if let Some(port) = ports.find(|p| p.number == number) {
                port.tell(Arc::as_ref(&ticket).request.failure());
            }
        }
    }
}

/// Whether the disk has had something for too long.
fn is_late(port: &Port) -> bool {
    let late = |since| Instant::now().since(since) >= TIMEOUT;
    port.oldest().is_some_and(late)
}

/// Sleeps for `time`.
fn pause(time: Duration) {
    let _ = thread::sleep_until(Instant::now().after(time), false);
}
