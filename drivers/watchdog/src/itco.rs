//! The TCO timer of Intel's chipsets, second version (ICH9 datasheet, 13.9).
//!
//! It counts down in steps of 0.6 s. At the first end it may raise an SMI, which
//! some firmware handles and most does not; at the second it resets the machine,
//! unless the board's wiring or its firmware has forbidden that.

use alloc::boxed::Box;
use core::time::Duration;
use machine::chipset::Tco;
use machine::pci::Address;
use machine::watchdog::{Watchdog, WatchdogError};

/// Registers, 16 bits each.
const RELOAD: u16 = 0x00;
const STATUS_1: u16 = 0x04;
const STATUS_2: u16 = 0x06;
const CONTROL_1: u16 = 0x08;
const TIMER: u16 = 0x12;

/// In [`STATUS_1`]: the timer has ended once. Cleared by a one, as all status bits.
const TIMED_OUT: u16 = 1 << 3;
/// In [`STATUS_2`]: it has ended twice; and: the reset that came of it has been.
const SECOND_TIME_OUT: u16 = 1 << 1;
const BOOT: u16 = 1 << 2;
/// In [`CONTROL_1`]: the timer stands.
const HALT: u16 = 1 << 11;
/// In [`CONTROL_1`]: clears NMIs by a one; to be kept.
const NMI_NOW: u16 = 1 << 8;
/// In the general control register: the timer does not reset.
const NO_REBOOT: u32 = 1 << 5;

/// What the timer counts, in milliseconds, and between which numbers.
const TICK_MS: u64 = 600;
const TICKS_MIN: u16 = 4;
const TICKS_MAX: u16 = 0x3ff;

/// The registers, wherever they are.
pub(crate) trait Registers: Send + Sync {
    fn read(&self, register: u16) -> u16;
    fn write(&self, register: u16, value: u16);
    /// The general control register; `None` if it cannot be reached.
    fn general(&self) -> Option<u32>;
    fn set_general(&self, value: u32);
}

impl Registers for Tco {
    fn read(&self, register: u16) -> u16 {
        self.timer.read_u16(register)
    }

    fn write(&self, register: u16, value: u16) {
        self.timer.write_u16(register, value);
    }

    fn general(&self) -> Option<u32> {
        self.control.as_ref().map(|m| m.read_u32(0))
    }

    fn set_general(&self, value: u32) {
        if let Some(m) = &self.control {
            m.write_u32(0, value);
        }
    }
}

struct Timer<R> {
    address: Address,
    registers: R,
    has_fired: bool,
}

/// Takes the timer into use, stopped.
#[must_use]
pub fn open(tco: Tco) -> Box<dyn Watchdog> {
    Box::new(Timer::new(tco.bridge, tco))
}

impl<R: Registers> Timer<R> {
    fn new(address: Address, registers: R) -> Timer<R> {
        let status = registers.read(STATUS_2);
        // All ones are a bus without an answer.
        let has_fired = status != u16::MAX && status & SECOND_TIME_OUT != 0;
        let timer = Timer {
            address,
            registers,
            has_fired,
        };
        timer.stop();
        timer.clear_status();
        timer
    }

    /// The second bit of the second register can be cleared after the first only.
    fn clear_status(&self) {
        self.registers.write(STATUS_1, TIMED_OUT);
        self.registers.write(STATUS_2, SECOND_TIME_OUT);
        self.registers.write(STATUS_2, BOOT);
    }

    /// Lets it stand or run; whether it does.
    fn halt(&self, halt: bool) -> bool {
        let keep = self.registers.read(CONTROL_1) & !(HALT | NMI_NOW);
        let wanted = if halt { HALT } else { 0 };
        self.registers.write(CONTROL_1, keep | wanted);
        self.registers.read(CONTROL_1) & HALT == wanted
    }

    /// Lets the second end reset the machine.
    fn allow_reset(&self) -> Result<(), WatchdogError> {
        // Where it cannot be reached, it is as after power-on: no reset.
        let general = self.registers.general().ok_or(WatchdogError::Disabled)?;
        if general == u32::MAX {
            return Err(WatchdogError::Broken);
        }
        self.registers.set_general(general & !NO_REBOOT);
        match self.registers.general() {
            Some(now) if now & NO_REBOOT == 0 => Ok(()),
            _ => Err(WatchdogError::Disabled),
        }
    }
}

/// How many steps the timer counts, twice, to end within `timeout`.
fn ticks(timeout: Duration) -> u16 {
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let ticks = u16::try_from(ms / 2 / TICK_MS).unwrap_or(u16::MAX);
    ticks.clamp(TICKS_MIN, TICKS_MAX)
}

impl<R: Registers> Watchdog for Timer<R> {
    fn name(&self) -> &'static str {
        "iTCO"
    }

    fn address(&self) -> Address {
        self.address
    }

    fn has_fired(&self) -> bool {
        self.has_fired
    }

    fn start(&self, timeout: Duration) -> Result<Duration, WatchdogError> {
        self.allow_reset()?;
        let ticks = ticks(timeout);
        let keep = self.registers.read(TIMER) & !TICKS_MAX;
        self.registers.write(TIMER, keep | ticks);
        if self.registers.read(TIMER) & TICKS_MAX != ticks {
            return Err(WatchdogError::Broken);
        }
        self.feed();
        if !self.halt(false) {
            self.stop();
            return Err(WatchdogError::Broken);
        }
        Ok(Duration::from_millis(2 * TICK_MS * u64::from(ticks)))
    }

    fn feed(&self) {
        // It counts anew from whatever is written, and the first end is forgotten.
        self.registers.write(RELOAD, 1);
        self.registers.write(STATUS_1, TIMED_OUT);
    }

    fn stop(&self) {
        let _ = self.halt(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const AT: Address = Address {
        bus: 0,
        device: 31,
        function: 0,
    };

    /// A timer as the datasheet has it, with its time in the test's hands.
    struct Fake {
        state: Mutex<State>,
        general_is_fixed: bool,
        answers: bool,
    }

    #[derive(Default)]
    struct State {
        general: u32,
        timer: u16,
        left: u16,
        ends: u32,
        control: u16,
        status_1: u16,
        status_2: u16,
        resets: u32,
    }

    impl Fake {
        fn new() -> Fake {
            let state = State {
                general: NO_REBOOT | 0x4,
                control: 0x0400,
                ..State::default()
            };
            Fake {
                state: Mutex::new(state),
                general_is_fixed: false,
                answers: true,
            }
        }

        /// Lets so many steps of the timer pass.
        fn pass(&self, ticks: u32) {
            let mut s = self.state.lock().unwrap();
            for _ in 0..ticks {
                if s.control & HALT != 0 || s.left == 0 {
                    return;
                }
                s.left -= 1;
                if s.left > 0 {
                    continue;
                }
                s.status_1 |= TIMED_OUT;
                s.ends += 1;
                s.left = s.timer;
                if s.ends == 2 {
                    s.status_2 |= SECOND_TIME_OUT | BOOT;
                    s.ends = 0;
                    if s.general & NO_REBOOT == 0 {
                        s.resets += 1;
                        s.left = 0;
                    }
                }
            }
        }

        fn resets(&self) -> u32 {
            self.state.lock().unwrap().resets
        }
    }

    impl Registers for Fake {
        fn read(&self, register: u16) -> u16 {
            let s = self.state.lock().unwrap();
            match register {
                _ if !self.answers => u16::MAX,
                STATUS_1 => s.status_1,
                STATUS_2 => s.status_2,
                CONTROL_1 => s.control,
                TIMER => s.timer,
                _ => s.left,
            }
        }

        fn write(&self, register: u16, value: u16) {
            let mut s = self.state.lock().unwrap();
            match register {
                _ if !self.answers => {}
                RELOAD => {
                    s.left = s.timer;
                    s.ends = 0;
                }
                STATUS_1 => s.status_1 &= !value,
                // The boot bit only goes once the other one has.
                STATUS_2 => {
                    s.status_2 &= !(value & SECOND_TIME_OUT);
                    if s.status_2 & SECOND_TIME_OUT == 0 {
                        s.status_2 &= !(value & BOOT);
                    }
                }
                CONTROL_1 => s.control = value,
                TIMER => s.timer = value,
                _ => panic!("register {register:#x}"),
            }
        }

        fn general(&self) -> Option<u32> {
            Some(self.state.lock().unwrap().general)
        }

        fn set_general(&self, value: u32) {
            if !self.general_is_fixed {
                self.state.lock().unwrap().general = value;
            }
        }
    }

    #[test]
    fn it_resets_when_it_is_not_fed_in_time() {
        let timer = Timer::new(AT, Fake::new());
        assert_eq!(
            timer.start(Duration::from_secs(30)),
            Ok(Duration::from_secs(30))
        );
        for _ in 0..10 {
            timer.registers.pass(49);
            timer.feed();
        }
        assert_eq!(timer.registers.resets(), 0);
        timer.registers.pass(49);
        assert_eq!(timer.registers.resets(), 0);
        timer.registers.pass(1);
        assert_eq!(timer.registers.resets(), 1);
    }

    #[test]
    fn a_stopped_one_never_resets_and_other_bits_stay() {
        let timer = Timer::new(AT, Fake::new());
        timer.start(Duration::from_secs(30)).unwrap();
        timer.stop();
        timer.registers.pass(10_000);
        let s = timer.registers.state.lock().unwrap();
        assert_eq!((s.resets, s.control, s.general), (0, 0x0400 | HALT, 0x4));
    }

    #[test]
    fn the_next_boot_sees_that_it_has_fired() {
        let timer = Timer::new(AT, Fake::new());
        assert!(!timer.has_fired());
        timer.start(Duration::from_secs(5)).unwrap();
        timer.registers.pass(1000);
        assert_eq!(timer.registers.resets(), 1);
        let next = Timer::new(AT, timer.registers);
        assert!(next.has_fired());
        // And the boot after that does not.
        assert!(!Timer::new(AT, next.registers).has_fired());
    }

    #[test]
    fn one_that_may_not_reset_is_not_used() {
        let mut fake = Fake::new();
        fake.general_is_fixed = true;
        let timer = Timer::new(AT, fake);
        let started = timer.start(Duration::from_secs(30));
        assert_eq!(started, Err(WatchdogError::Disabled));
        assert_ne!(timer.registers.read(CONTROL_1) & HALT, 0);
    }

    #[test]
    fn one_that_does_not_answer_is_not_used() {
        let mut fake = Fake::new();
        fake.answers = false;
        let timer = Timer::new(AT, fake);
        assert!(!timer.has_fired());
        let started = timer.start(Duration::from_secs(30));
        assert_eq!(started, Err(WatchdogError::Broken));
    }

    #[test]
    fn times_are_cut_to_what_it_can_count() {
        assert_eq!(ticks(Duration::ZERO), TICKS_MIN);
        assert_eq!(ticks(Duration::from_secs(30)), 25);
        assert_eq!(ticks(Duration::from_millis(31_199)), 25);
        assert_eq!(ticks(Duration::MAX), TICKS_MAX);
    }
}
