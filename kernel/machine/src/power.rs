//! Turning the machine around or off, and its power button.

use crate::{arch, klog};

/// Starts the machine again. What has to be saved or said has been before.
pub fn reboot() -> ! {
    klog::release_serial();
    arch::power::reset_now()
}

/// Turns the machine off; where that is impossible it starts again.
pub fn power_off() -> ! {
    klog::release_serial();
    arch::power::off_now()
}

/// Ends a virtual machine that has QEMU's `isa-debug-exit` device; the emulator
/// exits with `2 * status + 1`. Returns on every other machine. For tests: only a
/// node configured so calls it.
pub fn debug_exit(status: u8) {
    arch::power::debug_exit(status);
}

/// The machine's power button.
pub struct PowerButton(arch::power::Button);

impl PowerButton {
    /// Takes the button into use; `None` if the machine has none that can be seen.
    #[must_use]
    pub fn open() -> Option<PowerButton> {
        arch::power::Button::open().map(PowerButton)
    }

    /// Sleeps until the button is pressed. `false` if that can no longer be seen:
    /// then do not call again.
    #[must_use]
    pub fn wait(&self) -> bool {
        self.0.wait()
    }
}
