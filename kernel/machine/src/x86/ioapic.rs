//! The I/O APICs, which bring in interrupts that come by wire, and the 8259 pair
//! they replace. Intel 82093AA data sheet.

use super::{acpi, apic, kmap, port, vectors};
use crate::irq::Wire;
use crate::sync::IrqLock;
use core::ptr::NonNull;

const COUNT_MAX: usize = 16;

struct Chip {
    registers: NonNull<u8>,
    gsi_base: u32,
    pins: u32,
}

// SAFETY: the registers are reached only under the lock around the chips.
unsafe impl Send for Chip {}

static CHIPS: IrqLock<[Option<Chip>; COUNT_MAX]> = IrqLock::new([const { None }; COUNT_MAX]);

const INDEX: usize = 0x00;
const WINDOW: usize = 0x10;
const VERSION: u32 = 1;
const ENTRY: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

impl Chip {
    fn read(&mut self, register: u32) -> u32 {
        let r = self.registers.as_ptr();
        // SAFETY: both registers lie in the mapped page; `&mut` keeps the pair of
        // accesses together.
        unsafe {
            r.add(INDEX).cast::<u32>().write_volatile(register);
            r.add(WINDOW).cast::<u32>().read_volatile()
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        let r = self.registers.as_ptr();
        // SAFETY: as in `read`.
        unsafe {
            r.add(INDEX).cast::<u32>().write_volatile(register);
            r.add(WINDOW).cast::<u32>().write_volatile(value);
        }
    }
}

/// Runs `f` on the chip and pin of `gsi`.
fn with_pin<R>(gsi: u32, f: impl FnOnce(&mut Chip, u32) -> R) -> Option<R> {
    let mut chips = CHIPS.lock();
    let chip = chips
        .iter_mut()
        .flatten()
        .find(|c| (c.gsi_base..c.gsi_base + c.pins).contains(&gsi))?;
    let entry = ENTRY + 2 * (gsi - chip.gsi_base);
    Some(f(chip, entry))
}

/// Turns the 8259 pair off, maps the I/O APICs and masks all their pins.
pub(crate) fn init() {
    disable_8259();
    let mut chips = CHIPS.lock();
    for (slot, found) in chips.iter_mut().zip(&acpi::tables().io_apics) {
        let Some(registers) = kmap::map_mmio(found.phys as usize, 4096) else {
            continue;
        };
        let mut chip = Chip {
            registers,
            gsi_base: found.gsi_base,
            pins: 0,
        };
        chip.pins = (chip.read(VERSION) >> 16 & 0xff) + 1;
        for pin in 0..chip.pins {
            chip.write(ENTRY + 2 * pin, MASKED);
        }
        *slot = Some(chip);
    }
}

/// Brings `line` in as `vector` on the CPU with `apic_id`, unmasked.
/// Whether there is such a pin; only the first 256 APIC IDs can be reached.
fn route(line: Wire, vector: u8, apic_id: u32) -> bool {
    let Ok(destination) = u8::try_from(apic_id) else {
        return false;
    };
    let mut low = u32::from(vector);
    if line.level {
        low |= LEVEL;
    }
    if line.active_low {
        low |= ACTIVE_LOW;
    }
    with_pin(line.gsi, |chip, entry| {
        chip.write(entry, MASKED);
        chip.write(entry + 1, u32::from(destination) << 24);
        chip.write(entry, low);
    })
    .is_some()
}

/// Masks or unmasks the pin of `gsi`.
pub(crate) fn set_masked(gsi: u32, masked: bool) {
    with_pin(gsi, |chip, entry| {
        let low = chip.read(entry);
        let bit = if masked { MASKED } else { 0 };
        chip.write(entry, low & !MASKED | bit);
    });
}

/// Moves the 8259 pair's vectors away from the exceptions and masks all of them.
fn disable_8259() {
    const MASTER: u16 = 0x20;
    const SLAVE: u16 = 0xa0;
    // Initialise with four words, cascade on pin 2, 8086 mode; then mask.
    let words = |first, cascade| [0x11, first, cascade, 0x01, 0xff];
    let first = vectors::LEGACY_FIRST;
    for (chip, words) in [(MASTER, words(first, 1 << 2)), (SLAVE, words(first + 8, 2))] {
        for (i, w) in words.into_iter().enumerate() {
            // SAFETY: the interrupt controller's ports; all it does is be silent.
            unsafe { port::write_u8(chip + u16::from(i > 0), w) };
        }
    }
}

/// The wire of ISA interrupt `irq`.
pub(crate) fn wire_of(irq: u8) -> Wire {
    acpi::tables().isa(irq).wire
}

/// Brings `wire` in as `vector` on the first CPU.
pub(crate) fn route_to_first(wire: Wire, vector: u8) -> bool {
    apic::id_of(0).is_some_and(|id| route(wire, vector, id))
}
