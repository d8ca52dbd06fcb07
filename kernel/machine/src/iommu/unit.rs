//! A remapping unit: which device has which domain, and the switch that turns it on
//! (Intel VT-d specification 4.1, 3.4, 9.1, 9.3, 11.4.4).

use super::domain::Domain;
use super::faults::Fault;
use super::invalidate::{Forget, Invalidator, Stuck, wait};
use super::registers::{
    Abilities, COMMAND, FAULT_ADDRESS, FAULT_CONTROL, FAULT_DATA, FAULT_STATUS,
    FAULT_UPPER_ADDRESS, PROTECTED_ENABLE, ROOT, Registers, STATUS, VERSION, fault, global,
};
use crate::addr::PAGE_SIZE;
use crate::dma::{DmaRing, Reach};
use crate::error::AllocError;
use crate::irq::Message;
use crate::pci::Address;
use crate::sync::SpinLock;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Why a unit is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// Nothing answers at its registers, or they cannot be mapped.
    NoRegisters,
    /// It walks no page tables that cover the machine's memory.
    NoTables,
    /// No memory.
    NoMemory,
    /// It does not do what it is told.
    Stuck,
    /// It is for devices that this kernel does not look for.
    OtherSegment,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnitError::NoRegisters => "it does not answer",
            UnitError::NoTables => "its page tables do not cover the memory",
            UnitError::NoMemory => "no memory for its tables",
            UnitError::Stuck => "it does not do what it is told",
            UnitError::OtherSegment => "it is for another PCI segment",
        })
    }
}

impl From<AllocError> for UnitError {
    fn from(_: AllocError) -> UnitError {
        UnitError::NoMemory
    }
}

impl From<Stuck> for UnitError {
    fn from(_: Stuck) -> UnitError {
        UnitError::Stuck
    }
}

/// A unit.
pub(super) struct Unit {
    registers: Box<dyn Registers>,
    abilities: Abilities,
    levels: usize,
    is_on: AtomicBool,
    devices: SpinLock<Devices>,
    invalidator: SpinLock<Invalidator>,
}

/// Which device has which domain.
struct Devices {
    root: DmaRing,
    /// The context table of each bus that has one.
    contexts: Vec<Option<DmaRing>>,
    domains: Vec<(Address, &'static Domain)>,
    /// Number of the next domain. Nobody has 0, which hardware that remembers absence
    /// keeps for itself (6.1).
    next: usize,
}

/// Entries of the root table, one for each bus.
const BUSES: usize = 256;
const PRESENT: u64 = 1;

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit")
            .field("abilities", &self.abilities)
            .finish_non_exhaustive()
    }
}

impl Unit {
    /// A unit that is still off, for a machine with memory up to `limit`.
    pub(super) fn new(registers: Box<dyn Registers>, limit: u64) -> Result<Unit, UnitError> {
        let abilities = Abilities::read(&*registers);
        if abilities.is_gone() {
            return Err(UnitError::NoRegisters);
        }
        let levels = abilities.levels(limit).ok_or(UnitError::NoTables)?;
        let mut contexts = Vec::new();
        contexts
            .try_reserve_exact(BUSES)
            .map_err(|_| UnitError::NoMemory)?;
        contexts.resize_with(BUSES, || None);
        let root = DmaRing::new(Reach::ALL, PAGE_SIZE)?;
        let unit = Unit {
            registers,
            abilities,
            levels,
            is_on: AtomicBool::new(false),
            devices: SpinLock::new(Devices {
                root,
                contexts,
                domains: Vec::new(),
                next: 1,
            }),
            invalidator: SpinLock::new(Invalidator::new(abilities)?),
        };
        unit.write_back(&unit.devices.lock().root, 0, PAGE_SIZE);
        Ok(unit)
    }

    pub(super) fn abilities(&self) -> Abilities {
        self.abilities
    }

    /// Major and minor version.
    pub(super) fn version(&self) -> (u8, u8) {
        let version = self.registers.read_u32(VERSION);
        ((version >> 4 & 0xf) as u8, (version & 0xf) as u8)
    }

    fn write_back(&self, table: &DmaRing, offset: usize, len: usize) {
        if !self.abilities.is_coherent() {
            table.write_back(offset, len);
        }
    }

    /// Sets or clears a bit of the command register, and waits until it is done.
    fn command(&self, bit: u32, on: bool) -> Result<(), Stuck> {
        let kept = self.registers.read_u32(STATUS) & global::KEPT;
        let value = if on { kept | bit } else { kept & !bit };
        self.registers.write_u32(COMMAND, value);
        let is_on = || self.registers.read_u32(STATUS) & bit != 0;
        match bit {
            // Answered by being cleared.
            global::FLUSH_BUFFER => wait(|| !is_on()),
            _ => wait(|| is_on() == on),
        }
    }

    /// Turns the unit on: from then on devices reach what their domain has, and those
    /// without one reach nothing. Whatever firmware had set up is turned off first.
    pub(super) fn turn_on(&self) -> Result<(), Stuck> {
        let status = || self.registers.read_u32(STATUS);
        for bit in [global::TRANSLATION, global::INTERRUPTS, global::QUEUE] {
            if status() & bit != 0 {
                self.command(bit, false)?;
            }
        }
        // Nor are faults of before of interest, or what the queue had stumbled over.
        self.take_faults(drop);
        self.registers
            .write_u32(FAULT_STATUS, fault::OVERFLOW | fault::QUEUE);
        self.registers
            .write_u64(ROOT, self.devices.lock().root.phys());
        self.command(global::SET_ROOT, true)?;
        if self.invalidator.lock().place(&*self.registers) {
            self.command(global::QUEUE, true)?;
        }
        self.is_on.store(true, SeqCst);
        self.forget(&[Forget::Contexts, Forget::AllPages])?;
        self.command(global::TRANSLATION, true)?;
        if self.abilities.has_protected_memory() {
            // What firmware kept all devices from (11.4.10.1) is kept by tables now.
            self.registers.write_u32(PROTECTED_ENABLE, 0);
            wait(|| self.registers.read_u32(PROTECTED_ENABLE) & 1 == 0)?;
        }
        Ok(())
    }

    /// Lets everything through again: it could not be turned on in order.
    pub(super) fn turn_off(&self) {
        // There is nothing more that could be done.
        let _ = self.command(global::TRANSLATION, false);
    }

    /// Has the unit forget. One that is off has nothing to forget.
    pub(super) fn forget(&self, what: &[Forget]) -> Result<(), Stuck> {
        if !self.is_on.load(SeqCst) {
            return Ok(());
        }
        let mut invalidator = self.invalidator.lock();
        if self.abilities.has_write_buffer() {
            self.command(global::FLUSH_BUFFER, true)?;
        }
        invalidator.run(&*self.registers, what)
    }

    /// The domain of the device whose accesses come as `names`, by which the tables know
    /// it: those behind a bridge that gives them its own name share a domain.
    ///
    /// # Errors
    /// No memory, or no domain is left.
    pub(super) fn attach(&'static self, names: &[Address]) -> Result<&'static Domain, UnitError> {
        let mut devices = self.devices.lock();
        let known = devices.domains.iter().find(|(at, _)| names.contains(at));
        let domain = match known {
            Some((_, domain)) => domain,
            None => {
                let id = devices.next;
                if id >= self.abilities.domains() {
                    return Err(UnitError::NoMemory);
                }
                let id = u16::try_from(id).map_err(|_| UnitError::NoMemory)?;
                let domain = Domain::new(self, id, self.levels)?;
                devices.next += 1;
                &*Box::leak(Box::new(domain))
            }
        };
        let mut is_new = false;
        for name in names {
            if devices.domains.iter().any(|(at, _)| at == name) {
                continue;
            }
            let room = devices.domains.try_reserve(1);
            room.map_err(|_| UnitError::NoMemory)?;
            self.set_context(&mut devices, *name, domain)?;
            devices.domains.push((*name, domain));
            is_new = true;
        }
        if is_new && self.abilities.caches_absence() {
            self.forget(&[Forget::Contexts, Forget::AllPages])?;
        }
        Ok(domain)
    }

    /// Writes a context entry (9.3) that was not present, the half that says so last.
    fn set_context(
        &self,
        devices: &mut Devices,
        at: Address,
        domain: &Domain,
    ) -> Result<(), UnitError> {
        let bus = usize::from(at.bus);
        let place = devices.contexts.get_mut(bus);
        let place = place.ok_or(UnitError::NoTables)?;
        if place.is_none() {
            let table = DmaRing::new(Reach::ALL, PAGE_SIZE)?;
            self.write_back(&table, 0, PAGE_SIZE);
            devices.root.write_u64(16 * bus, table.phys() | PRESENT);
            self.write_back(&devices.root, 16 * bus, 16);
            *place = Some(table);
        }
        let table = place.as_ref().ok_or(UnitError::NoMemory)?;
        let offset = 16 * (usize::from(at.device & 31) << 3 | usize::from(at.function & 7));
        let (phys, levels) = domain.table();
        let width = (levels - 2) as u64;
        table.write_u64(offset + 8, u64::from(domain.id()) << 8 | width);
        table.write_u64(offset, phys | PRESENT);
        self.write_back(table, offset, 16);
        Ok(())
    }

    /// Has faults interrupt with `message`.
    pub(super) fn interrupt_with(&self, message: Message) {
        self.registers.write_u32(FAULT_DATA, message.data);
        self.registers
            .write_u32(FAULT_ADDRESS, message.address as u32);
        self.registers
            .write_u32(FAULT_UPPER_ADDRESS, (message.address >> 32) as u32);
        self.registers.write_u32(FAULT_CONTROL, 0);
    }

    /// Takes the faults that are recorded (11.4.14) and makes room for others.
    pub(super) fn take_faults(&self, mut take: impl FnMut(Fault)) {
        const IS_FAULT: u64 = 1 << 63;
        let (place, count) = self.abilities.fault_records();
        for at in (place..).step_by(16).take(count) {
            let high = self.registers.read_u64(at + 8);
            if high & IS_FAULT == 0 {
                continue;
            }
            take(Fault::decode(self.registers.read_u64(at), high));
            self.registers.write_u32(at + 12, (IS_FAULT >> 32) as u32);
        }
        self.registers.write_u32(FAULT_STATUS, fault::OVERFLOW);
    }
}
