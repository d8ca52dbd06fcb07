//! Turning the machine around or off, and its power button. ACPI 6.5, 4.8.3.

use super::{acpi, kmap, port, uart};
use crate::firmware::acpi::{Fixed, Register};
use crate::irq::IrqEvent;
use crate::sync::Once;
use crate::wait::Until;
use core::ptr::NonNull;
use x86_64::instructions::interrupts;

/// In the PM1 control register: the machine's events come to the system.
const SCI_ENABLED: u16 = 1 << 0;
const SLEEP_ENABLE: u16 = 1 << 13;
const SLEEP_TYPE_SHIFT: u16 = 10;
/// In the PM1 status and enable registers.
const POWER_BUTTON: u16 = 1 << 8;

/// Where registers in memory are mapped that turn the machine around or off: a panic can
/// map nothing.
static RESET: Once<Mapped> = Once::new();
static SLEEP: Once<Mapped> = Once::new();

/// A byte of a device.
struct Mapped(NonNull<u8>);

// SAFETY: a register that is mapped for ever and only written to.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

/// Maps what a panic may need. Machines with reduced hardware have these registers in
/// memory (ACPI 6.5, 4.8.3.7).
pub(crate) fn init() {
    let Some(fixed) = acpi::tables().fixed else {
        return;
    };
    let both = [
        (&RESET, fixed.reset.map(|(register, _)| register)),
        (&SLEEP, fixed.sleep_control),
    ];
    for (place, register) in both {
        if let Some(Register::Memory(phys)) = register
            && let Some(mapped) = kmap::map_mmio(phys as usize, 1)
        {
            place.call_once(|| Mapped(mapped));
        }
    }
}

/// Writes a byte to a register at a port, or to the one that [`init`] has mapped.
fn write_byte(register: Register, mapped: &Once<Mapped>, value: u8) {
    match (register, mapped.get()) {
        // SAFETY: a register the firmware names for the purpose.
        (Register::Port(p), _) => unsafe { port::write_u8(p, value) },
        // SAFETY: as above, mapped by `init`.
        (Register::Memory(_), Some(at)) => unsafe { at.0.as_ptr().write_volatile(value) },
        (Register::Memory(_), None) => {}
    }
}

/// Resets the machine by whatever works first: the ACPI reset register, the
/// chipset's reset port, the keyboard controller, a triple fault. For a panic:
/// it waits for no lock.
pub(crate) fn reset_now() -> ! {
    interrupts::disable();
    uart::drain();
    if let Some((register, value)) = acpi::tables().fixed.and_then(|f| f.reset) {
        write_byte(register, &RESET, value);
        wait();
    }
    // SAFETY: 0xcf9 is the reset control of every PC chipset; 0x64 pulses the
    // reset line of those that have a keyboard controller.
    unsafe {
        port::write_u8(0xcf9, 0x02);
        port::write_u8(0xcf9, 0x06);
        wait();
        port::write_u8(0x64, 0xfe);
    }
    wait();
    let nothing = x86_64::structures::DescriptorTablePointer {
        limit: 0,
        base: x86_64::VirtAddr::zero(),
    };
    loop {
        // SAFETY: without an interrupt table the next exception is a triple fault,
        // which resets the CPU.
        unsafe {
            x86_64::instructions::tables::lidt(&nothing);
            core::arch::asm!("ud2");
        }
    }
}

/// Turns the machine off (state S5); resets it if that does not work.
pub(crate) fn off_now() -> ! {
    interrupts::disable();
    uart::drain();
    let tables = acpi::tables();
    if let (Some(fixed), Some(off)) = (tables.fixed, tables.soft_off) {
        let controls = [
            (fixed.pm1a_control, off.pm1a),
            (fixed.pm1b_control, off.pm1b),
        ];
        for (register, kind) in controls {
            let Some(register) = register else { continue };
            let keep = read(register) & !(0b111 << SLEEP_TYPE_SHIFT | SLEEP_ENABLE);
            let value = keep | u16::from(kind) << SLEEP_TYPE_SHIFT;
            write(register, value);
            write(register, value | SLEEP_ENABLE);
        }
        if let Some(register) = fixed.sleep_control {
            // Machines with reduced hardware have this one instead (4.8.3.7).
            write_byte(register, &SLEEP, off.pm1a << 2 | 1 << 5);
        }
        wait();
    }
    log::error!("the machine cannot be turned off: it starts again");
    reset_now()
}

/// Ends the virtual machine with a status, through QEMU's `isa-debug-exit` at port
/// 0xf4; returns where there is no such device. The emulator's exit code is
/// `2 * status + 1`.
pub(crate) fn debug_exit(status: u8) {
    // SAFETY: nothing else answers at this port.
    unsafe { port::write_u32(0xf4, u32::from(status)) };
}

fn wait() {
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
}

fn read(register: Register) -> u16 {
    match register {
        // SAFETY: a power management register the firmware names.
        Register::Port(p) => unsafe { port::read_u16(p) },
        Register::Memory(phys) => match kmap::map_mmio(phys as usize, 2) {
            // SAFETY: as above, just mapped.
            Some(m) => unsafe { m.cast::<u16>().as_ptr().read_volatile() },
            None => 0,
        },
    }
}

fn write(register: Register, value: u16) {
    match register {
        // SAFETY: a power management register the firmware names.
        Register::Port(p) => unsafe { port::write_u16(p, value) },
        Register::Memory(phys) => {
            if let Some(m) = kmap::map_mmio(phys as usize, 2) {
                // SAFETY: as above, just mapped.
                unsafe { m.cast::<u16>().as_ptr().write_volatile(value) };
            }
        }
    }
}

/// The power button.
pub(crate) struct Button {
    event: IrqEvent,
    status: Register,
}

/// Interrupts without a cause we know, after which the line stays masked.
const STRAYS_MAX: u32 = 1_000;

impl Button {
    /// Takes the button into use; `None` if the machine has none of the kind that
    /// needs no AML.
    pub(crate) fn open() -> Option<Button> {
        let fixed = acpi::tables().fixed.filter(Fixed::has_power_button)?;
        let status = fixed.pm1a_event?;
        let enable = enable_register(&fixed, status)?;
        take_over(&fixed)?;
        let event = IrqEvent::line("acpi", u8::try_from(fixed.sci).ok()?)?;
        // Status bits are cleared by writing ones.
        write(status, u16::MAX);
        write(enable, POWER_BUTTON);
        Some(Button { event, status })
    }

    /// Sleeps until the button is pressed. `false` if that can no longer be seen.
    pub(crate) fn wait(&self) -> bool {
        let mut strays = 0;
        while strays < STRAYS_MAX {
            // Without deadline and signals this ends by an interrupt only.
            let _ = self.event.wait(Until::default());
            let status = read(self.status);
            write(self.status, status);
            self.event.rearm();
            if status & POWER_BUTTON != 0 {
                return true;
            }
            strays += 1;
        }
        log::warn!("ACPI interrupts without a cause: the power button is off");
        false
    }
}

/// The enable register of an event block: its second half.
fn enable_register(fixed: &Fixed, status: Register) -> Option<Register> {
    let half = fixed.pm1_event_len / 2;
    match status {
        Register::Port(p) => p.checked_add(half.into()).map(Register::Port),
        Register::Memory(m) => m.checked_add(half.into()).map(Register::Memory),
    }
}

/// Asks the firmware to leave the events to the system.
fn take_over(fixed: &Fixed) -> Option<()> {
    let control = fixed.pm1a_control?;
    let taken = || read(control) & SCI_ENABLED != 0;
    if !taken() && fixed.smi_command != 0 && fixed.acpi_enable != 0 {
        // SAFETY: the command the firmware defines for this.
        unsafe { port::write_u8(fixed.smi_command, fixed.acpi_enable) };
        // It may take a moment, in the firmware's own mode.
        let _ = (0..100_000).any(|_| taken());
    }
    taken().then_some(())
}
