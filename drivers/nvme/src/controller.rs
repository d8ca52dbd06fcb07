//! A controller: how it is set up and reset, and its admin commands.

use crate::command::Command;
use crate::health;
use crate::identify::{self, ControllerInfo, Data, Shape};
use crate::namespace::Namespace;
use crate::queue::{ENTRIES_MAX, Failure, Misbehaved, Pair, Payload, State, Ticket};
use crate::registers::{self, Capabilities};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use core::time::Duration;
use machine::Account;
use machine::addr::PAGE_SIZE;
use machine::block::{BlockError, Health, Operation, Request};
use machine::bus::Bus;
use machine::dma::Direction;
use machine::frame::Frame;
use machine::pci::PciError;
use machine::sync::{Once, SpinLock};
use machine::thread::{self, Builder};
use machine::time::Instant;
use machine::wait::Until;

/// Entries of the admin queues.
const ADMIN_ENTRIES: u16 = 16;
/// Entries of a pair of I/O queues.
const ENTRIES: u16 = 64;
/// Namespaces that are taken into use.
const NAMESPACES_MAX: usize = 16;
/// Time for an admin command.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(4);
/// Whatever the controller says, it gets no longer to become ready.
const READY_MAX: Duration = Duration::from_secs(20);
/// Failures that wait to be told of.
const UNTOLD_MAX: usize = 16;

/// What went wrong with a controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NvmeError {
    /// Its PCI side.
    Pci(PciError),
    /// It lacks the NVM command set, pages of 4 KiB, or queues.
    Unsupported,
    /// It does not become ready, or does not stop.
    NotReady,
    /// It says that it has failed.
    Fatal,
    /// An admin command failed, with this status, or had no answer (`None`).
    Command(&'static str, Option<u16>),
    /// It is another one since it was reset.
    Changed,
    /// It answered what it was not asked.
    Misbehaved,
    /// It is not there any more.
    Gone,
    /// Memory ran out.
    NoMemory,
}

impl fmt::Display for NvmeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NvmeError::Pci(e) => e.fmt(f),
            NvmeError::Unsupported => f.write_str("it lacks what is needed of a controller"),
            NvmeError::NotReady => f.write_str("it does not become ready"),
            NvmeError::Fatal => f.write_str("it says that it has failed"),
            NvmeError::Command(what, Some(status)) => {
                write!(f, "{what} failed with status {status:#x}")
            }
            NvmeError::Command(what, None) => write!(f, "{what} had no answer"),
            NvmeError::Changed => f.write_str("it is another one than before"),
            NvmeError::Misbehaved => f.write_str("it answered what it was not asked"),
            NvmeError::Gone => f.write_str("it is gone"),
            NvmeError::NoMemory => f.write_str("no memory"),
        }
    }
}

/// Counters since the driver started.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commands that the controller reported as failed.
    pub failed: AtomicU64,
    /// Commands that were aborted because they took too long.
    pub aborted: AtomicU64,
    /// Times the controller was reset because it hung or broke the rules.
    pub resets: AtomicU64,
}

/// What the driver's thread is called for.
pub(crate) mod call {
    /// The controller is not there, or says that it has failed, or has stopped.
    pub(crate) const BROKEN: u32 = 1 << 0;
    /// It broke the rules.
    pub(crate) const RESET: u32 = 1 << 1;
    /// It takes too long.
    pub(crate) const LATE: u32 = 1 << 2;
}

/// A controller.
pub struct Nvme<B: Bus> {
    pub(crate) bus: B,
    capabilities: Capabilities,
    pub(crate) admin: Pair,
    pairs: Once<Vec<Pair>>,
    info: Once<ControllerInfo>,
    pub(crate) namespaces: Once<Vec<Arc<Namespace<B>>>>,
    /// Of [`call`].
    pub(crate) calls: AtomicU32,
    pub(crate) untold: SpinLock<Vec<Failure>>,
    pub(crate) counters: Counters,
}

impl<B: Bus> Nvme<B> {
    /// Takes the controller on `bus` into use; its namespaces.
    ///
    /// # Errors
    /// [`NvmeError`].
    pub fn start(bus: B) -> Result<Vec<Arc<Namespace<B>>>, NvmeError> {
        let capabilities = Capabilities::decode(registers::read_u64(&bus, registers::CAP));
        if bus.read_u32(registers::CSTS) == registers::ALL_ONES {
            return Err(NvmeError::Gone);
        }
        let has_queues = capabilities.entries_max >= 2;
        if !(capabilities.has_nvm && capabilities.has_4k_pages && has_queues) {
            return Err(NvmeError::Unsupported);
        }
        let doorbells = capabilities.doorbells(0);
        let admin = Pair::new(0, 0, doorbells, ADMIN_ENTRIES, 1, bus.reach());
        let admin = admin.map_err(no_memory)?;
        let nvme = Nvme {
            bus,
            capabilities,
            admin,
            pairs: Once::new(),
            info: Once::new(),
            namespaces: Once::new(),
            calls: AtomicU32::new(0),
            untold: SpinLock::new(Vec::with_capacity(UNTOLD_MAX)),
            counters: Counters::default(),
        };
        // Dropped with an error, the controller is kept from memory first.
        nvme.bring_up()?;
        let shapes = nvme.shapes()?;
        let nvme = Arc::new(nvme);
        let new = |shape| Arc::new(Namespace::new(nvme.clone(), shape));
        let namespaces: Vec<_> = shapes.into_iter().map(new).collect();
        nvme.namespaces.call_once(|| namespaces.clone());
        let served = nvme.clone();
        Builder::new("nvme")
            .spawn(move || served.serve())
            .map_err(no_memory)?;
        Ok(namespaces)
    }

    /// Counters since the driver started.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What the controller says of itself.
    pub(crate) fn info(&self) -> Option<&ControllerInfo> {
        self.info.get()
    }

    /// Its pairs of I/O queues.
    pub(crate) fn pairs(&self) -> &[Pair] {
        self.pairs.get().map_or(&[], Vec::as_slice)
    }

    /// The pair for the CPU that runs this.
    pub(crate) fn pair_here(&self) -> Option<&Pair> {
        let pairs = self.pairs();
        pairs.get(machine::cpu::current() % pairs.len().max(1))
    }

    /// Disables the controller: from then on it reaches no memory.
    pub(crate) fn disable(&self) -> Result<(), NvmeError> {
        let configuration = self.bus.read_u32(registers::CC);
        if configuration & registers::CC_ENABLE != 0 {
            let off = configuration & !registers::CC_ENABLE & !registers::CC_NOTICE;
            self.bus.write_u32(registers::CC, off);
        }
        self.wait_ready(false)
    }

    /// Sets the controller up, the first time or again after [`Nvme::disable`], and
    /// opens its queues.
    pub(crate) fn bring_up(&self) -> Result<(), NvmeError> {
        self.bus.set_master(true);
        self.disable()?;
        // What it was asked before is of no use any more.
        self.admin.end(&self.bus, State::Closed, BlockError::Failed);
        self.admin.clear();
        let (submissions, completions, entries) = self.admin.place();
        let entries = u32::from(entries - 1);
        self.bus.write_u32(registers::AQA, entries << 16 | entries);
        registers::write_u64(&self.bus, registers::ASQ, submissions);
        registers::write_u64(&self.bus, registers::ACQ, completions);
        self.bus.write_u32(registers::CC, registers::CC_VALUE);
        let enabled = registers::CC_VALUE | registers::CC_ENABLE;
        self.bus.write_u32(registers::CC, enabled);
        self.wait_ready(true)?;
        self.admin.open(&self.bus);
        self.identify_controller()?;
        let wanted = match self.pairs.get() {
            Some(pairs) => pairs.len(),
            None => machine::cpu::count().min((self.bus.interrupts() - 1).max(1)),
        };
        let granted = self.set_queues(wanted)?;
        match self.pairs.get() {
            Some(pairs) if granted < pairs.len() => return Err(NvmeError::Changed),
            Some(pairs) => pairs.iter().try_for_each(|pair| self.create(pair))?,
            None => {
                let pairs = self.make_pairs(granted)?;
                self.pairs.call_once(|| pairs);
            }
        }
        // Not all have it, and nothing depends on it.
        let _ = self.admin_command("asking for events", Command::set_events(), None);
        for pair in self.pairs() {
            pair.open(&self.bus);
        }
        Ok(())
    }

    /// As many pairs of I/O queues as the controller makes, up to `count`.
    fn make_pairs(&self, count: usize) -> Result<Vec<Pair>, NvmeError> {
        let pages_max = self.info.get().map_or(1, |i| i.pages_max);
        let entries = u32::from(ENTRIES.min(ENTRIES_MAX)).min(self.capabilities.entries_max);
        let entries = u16::try_from(entries).unwrap_or(ENTRIES);
        let mut pairs = Vec::new();
        for n in 0..count {
            let Ok(id) = u16::try_from(n + 1) else { break };
            let vector = if self.bus.interrupts() == 1 { 0 } else { n + 1 };
            let doorbells = self.capabilities.doorbells(id);
            let reach = self.bus.reach();
            let pair = Pair::new(id, vector, doorbells, entries, pages_max, reach);
            let pair = pair.map_err(no_memory)?;
            self.bus.set_cpu(vector, n);
            match self.create(&pair) {
                Ok(()) => pairs.push(pair),
                Err(e) if pairs.is_empty() => return Err(e),
                Err(e) => {
                    log::warn!("nvme: queue {id}: {e}");
                    break;
                }
            }
        }
        Ok(pairs)
    }

    /// Has the controller use the queues of `pair`.
    fn create(&self, pair: &Pair) -> Result<(), NvmeError> {
        pair.clear();
        let (submissions, completions, entries) = pair.place();
        let vector = u16::try_from(pair.vector).unwrap_or(0);
        let command = Command::create_completion_queue(pair.id, entries, completions, vector);
        self.admin_command("creating a completion queue", command, None)?;
        let command = Command::create_submission_queue(pair.id, entries, submissions);
        self.admin_command("creating a submission queue", command, None)?;
        Ok(())
    }

    /// How many pairs of I/O queues there may be, up to `wanted`.
    fn set_queues(&self, wanted: usize) -> Result<usize, NvmeError> {
        let pairs = u16::try_from(wanted).unwrap_or(1);
        let command = Command::set_queues(pairs);
        let result = self.admin_command("setting the number of queues", command, None)?;
        let granted = (result & 0xffff).min(result >> 16) as usize + 1;
        Ok(granted.min(wanted))
    }

    /// Learns what the controller is, or makes sure that it is the same as before.
    fn identify_controller(&self) -> Result<(), NvmeError> {
        let info = self.identify(identify::CONTROLLER, 0, ControllerInfo::decode)?;
        let known = self.info.call_once(|| info.clone());
        if (&known.serial, &known.model) != (&info.serial, &info.model)
            || known.pages_max > info.pages_max
        {
            return Err(NvmeError::Changed);
        }
        Ok(())
    }

    /// The namespaces that can be used.
    fn shapes(&self) -> Result<Vec<Shape>, NvmeError> {
        let count = self.info.get().map_or(0, |i| i.namespaces);
        let listed = self.identify(identify::NAMESPACE_LIST, 0, |data| {
            let ids = (0..NAMESPACES_MAX).map(|n| data.u32(4 * n));
            ids.take_while(|id| *id != 0).collect::<Vec<_>>()
        });
        // A controller of version 1.0 has no list.
        let ids = match listed {
            Ok(ids) => ids,
            Err(NvmeError::Command(_, Some(_))) => (1..=count).take(NAMESPACES_MAX).collect(),
            Err(e) => return Err(e),
        };
        let mut shapes: Vec<Shape> = Vec::new();
        for id in ids {
            let decode = |data: &Data<'_>| Shape::decode(id, data);
            match self.identify(identify::NAMESPACE, id, decode)? {
                Ok(shape) if shapes.iter().all(|s| s.id != id) => shapes.push(shape),
                Ok(_) => log::warn!("nvme: namespace {id} is listed twice"),
                Err(why) => log::warn!("nvme: namespace {id} is left alone: {why}"),
            }
        }
        Ok(shapes)
    }

    fn identify<T>(
        &self,
        what: u32,
        namespace: u32,
        decode: impl FnOnce(&Data<'_>) -> T,
    ) -> Result<T, NvmeError> {
        let frame = Frame::zeroed(Account::kernel()).map_err(no_memory)?;
        let command = Command::identify(what, namespace);
        self.admin_command("identifying", command, Some(&frame))?;
        let mut page = Vec::new();
        page.try_reserve_exact(PAGE_SIZE).map_err(no_memory)?;
        page.resize(PAGE_SIZE, 0);
        frame.read(0, &mut page);
        Ok(decode(&Data(&page)))
    }

    /// Gives an admin command, on the driver's thread or before there is one, and
    /// sleeps until it has ended; its result.
    pub(crate) fn admin_command(
        &self,
        what: &'static str,
        command: Command,
        page: Option<&Frame>,
    ) -> Result<u32, NvmeError> {
        let ticket = self.give_admin_command(what, command, page)?;
        let until = Until {
            deadline: Some(Instant::now().after(ADMIN_TIMEOUT)),
            interruptible: false,
        };
        let vector = self.admin.vector;
        let ended = self.bus.interrupt(vector).wait_until(until, || {
            let looked = self.look(&self.admin);
            ticket
                .request
                .outcome()
                .or(looked.is_err().then_some(Err(BlockError::Failed)))
        });
        match ended {
            Ok(Ok(())) => Ok(ticket.result.load(Relaxed)),
            Ok(Err(_)) => Err(NvmeError::Command(what, Some(ticket.status().0))),
            Err(_) => Err(NvmeError::Command(what, None)),
        }
    }

    /// Gives an admin command. The driver's thread takes it back.
    pub(crate) fn give_admin_command(
        &self,
        what: &'static str,
        command: Command,
        page: Option<&Frame>,
    ) -> Result<Arc<Ticket>, NvmeError> {
        let ticket = Ticket::new(Request::new(Operation::Flush, 0));
        let payload = match page {
            // All of these commands ask for something.
            Some(frame) => Payload::Pages(core::slice::from_ref(frame), Direction::FromDevice),
            None => Payload::None,
        };
        let given = self.admin.submit(command, payload, &ticket);
        given.map_err(|_| NvmeError::Command(what, None))?;
        self.admin.notify(&self.bus);
        Ok(ticket)
    }

    /// Asks the controller how it is, from any thread.
    pub(crate) fn health(&self) -> Result<Health, BlockError> {
        let page = Frame::zeroed(Account::kernel()).map_err(|_| BlockError::NoMemory)?;
        let command = Command::log(health::LOG, health::LEN);
        let given = self.give_admin_command("reading the log of health", command, Some(&page));
        let ticket = given.map_err(|_| BlockError::Gone)?;
        let deadline = Instant::now().after(ADMIN_TIMEOUT);
        let Some(outcome) = ticket.request.wait_until(deadline) else {
            self.call(call::RESET);
            return Err(BlockError::TimedOut);
        };
        outcome?;
        let mut log = [0; health::LEN as usize];
        page.read(0, &mut log);
        Ok(health::decode(&Data(&log)))
    }

    /// Takes back what is finished of `pair`.
    pub(crate) fn look(&self, pair: &Pair) -> Result<(), Misbehaved> {
        let mut failures = Vec::new();
        let result = pair.reap(&self.bus, &mut failures);
        if self.bus.is_wired() {
            self.bus.interrupt(pair.vector).rearm();
        }
        if !failures.is_empty() {
            self.counters
                .failed
                .fetch_add(failures.len() as u64, Relaxed);
            let mut untold = self.untold.lock();
            let room = UNTOLD_MAX.saturating_sub(untold.len());
            untold.extend(failures.into_iter().take(room));
            drop(untold);
            self.call(0);
        }
        result
    }

    /// Calls the driver's thread.
    pub(crate) fn call(&self, why: u32) {
        self.calls.fetch_or(why, SeqCst);
        self.bus.interrupt(self.admin.vector).raise();
    }

    /// Sleeps until the controller is ready, or is not, for as long as it may take.
    fn wait_ready(&self, ready: bool) -> Result<(), NvmeError> {
        let limit = Duration::from_millis(self.capabilities.ready_ms.max(500).into());
        let deadline = Instant::now().after(limit.min(READY_MAX));
        loop {
            let status = self.bus.read_u32(registers::CSTS);
            if status == registers::ALL_ONES {
                return Err(NvmeError::Gone);
            }
            if (status & registers::CSTS_READY != 0) == ready {
                return Ok(());
            }
            if ready && status & registers::CSTS_FATAL != 0 {
                return Err(NvmeError::Fatal);
            }
            // Where nothing answers, some buses read zeros.
            if !self.bus.is_present() {
                return Err(NvmeError::Gone);
            }
            if Instant::now() >= deadline {
                return Err(NvmeError::NotReady);
            }
            let pause = Instant::now().after(Duration::from_millis(1));
            let _ = thread::sleep_until(pause, false);
        }
    }

    /// Keeps the controller from memory for good and ends all that is under way.
    pub(crate) fn give_up(&self) {
        self.bus.set_master(false);
        for pair in self.pairs() {
            pair.end(&self.bus, State::Gone, BlockError::Gone);
        }
        self.admin.end(&self.bus, State::Gone, BlockError::Gone);
    }
}

impl<B: Bus> Drop for Nvme<B> {
    fn drop(&mut self) {
        // Its memory is about to be free.
        self.bus.set_master(false);
        let _ = self.disable();
    }
}

fn no_memory<E>(_: E) -> NvmeError {
    NvmeError::NoMemory
}
