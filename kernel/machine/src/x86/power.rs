//! Turning the machine around or off.

use super::{acpi, port};
use crate::firmware::acpi::Register;

/// Resets the machine by whatever works first: the ACPI reset register, the
/// chipset's reset port, the keyboard controller, a triple fault.
pub(crate) fn reset_now() -> ! {
    x86_64::instructions::interrupts::disable();
    if let Some((Register::Port(p), value)) = acpi::tables().fixed.and_then(|f| f.reset) {
        // SAFETY: the register the firmware names for a reset; nothing runs after.
        unsafe { port::write_u8(p, value) };
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

fn wait() {
    for _ in 0..1_000_000 {
        core::hint::spin_loop();
    }
}
