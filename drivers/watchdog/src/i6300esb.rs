//! The watchdog of Intel's 6300ESB (datasheet 300641, chapter 16), which QEMU has too.
//!
//! Two timers, one after the other, count milliseconds (nearly: the PCI clock over
//! 2^15); at the end of the second the machine is reset. Each write to a timer or to
//! the reload register must be announced by two magic writes.

use alloc::boxed::Box;
use core::time::Duration;
use machine::mmio::Mmio;
use machine::pci::{self, Address, PciError};
use machine::sync::SpinLock;
use machine::watchdog::{Watchdog, WatchdogError};

/// Memory registers.
const TIMER_1: usize = 0x00;
const TIMER_2: usize = 0x04;
const RELOAD: usize = 0x0c;
/// Configuration registers: a word and a byte.
const CONFIG: u16 = 0x60;
const LOCK: u16 = 0x68;

const UNLOCK: [u16; 2] = [0x80, 0x86];
/// In [`RELOAD`]: count anew; and: it has reset the machine, cleared by a one.
const COUNT_ANEW: u16 = 1 << 8;
const FIRED: u16 = 1 << 9;
/// In [`CONFIG`]: no interrupt at the end of the first timer. Zeros elsewhere: the slow
/// clock, and the second end resets.
const NO_INTERRUPT: u16 = 0b11;
/// In [`LOCK`]: locked until the next reset; enabled.
const LOCKED: u8 = 1 << 0;
const ENABLED: u8 = 1 << 1;

/// Ticks of a timer in a second: 33 MHz over 2^15.
const TICKS_PER_SECOND: u64 = 33_000_000 >> 15;
const TICKS_MAX: u64 = (1 << 20) - 1;

/// The registers, wherever they are.
pub(crate) trait Registers: Send + Sync {
    fn set_timer(&self, register: usize, ticks: u32);
    fn reload(&self) -> u16;
    fn set_reload(&self, value: u16);
    fn set_config(&self, value: u16);
    fn lock(&self) -> u8;
    fn set_lock(&self, value: u8);
}

struct Device {
    memory: Mmio,
    config: pci::Function,
}

impl Registers for Device {
    fn set_timer(&self, register: usize, ticks: u32) {
        self.memory.write_u32(register, ticks);
    }

    fn reload(&self) -> u16 {
        self.memory.read_u16(RELOAD)
    }

    fn set_reload(&self, value: u16) {
        self.memory.write_u16(RELOAD, value);
    }

    fn set_config(&self, value: u16) {
        self.config.write_u16(CONFIG, value);
    }

    fn lock(&self) -> u8 {
        self.config.read_u8(LOCK)
    }

    fn set_lock(&self, value: u8) {
        self.config.write_u8(LOCK, value);
    }
}

struct Timer<R> {
    address: Address,
    /// The announcing writes and the one they announce belong together.
    registers: SpinLock<R>,
    has_fired: bool,
}

/// Whether `device` is one.
#[must_use]
pub fn is(device: &pci::Device) -> bool {
    (device.vendor, device.device) == (0x8086, 0x25ab)
}

/// Takes it into use, stopped.
///
/// # Errors
/// [`PciError`]: its registers cannot be reached.
pub fn open(device: &pci::Device) -> Result<Box<dyn Watchdog>, PciError> {
    let memory = device.map_bar(0)?;
    device.enable();
    let config = device.config();
    let registers = Device { memory, config };
    Ok(Box::new(Timer::new(device.address, registers)))
}

/// Writes that the device takes only after it was told of them.
fn announced(registers: &impl Registers, write: impl FnOnce()) {
    for word in UNLOCK {
        registers.set_reload(word);
    }
    write();
}

impl<R: Registers> Timer<R> {
    fn new(address: Address, registers: R) -> Timer<R> {
        let reload = registers.reload();
        // All ones are a bus without an answer.
        let has_fired = reload != u16::MAX && reload & FIRED != 0;
        if has_fired {
            announced(&registers, || registers.set_reload(FIRED));
        }
        let timer = Timer {
            address,
            registers: SpinLock::new(registers),
            has_fired,
        };
        timer.stop();
        timer
    }
}

/// What each of the two timers counts for both to end within `timeout`.
fn ticks(timeout: Duration) -> u64 {
    let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    (ms.saturating_mul(TICKS_PER_SECOND) / 2000).clamp(1, TICKS_MAX)
}

impl<R: Registers> Watchdog for Timer<R> {
    fn name(&self) -> &'static str {
        "i6300esb"
    }

    fn address(&self) -> Address {
        self.address
    }

    fn has_fired(&self) -> bool {
        self.has_fired
    }

    fn start(&self, timeout: Duration) -> Result<Duration, WatchdogError> {
        let ticks = ticks(timeout);
        let registers = self.registers.lock();
        if registers.lock() & LOCKED != 0 {
            // The firmware has chosen for good.
            return Err(WatchdogError::Disabled);
        }
        registers.set_config(NO_INTERRUPT);
        for timer in [TIMER_1, TIMER_2] {
            announced(&*registers, || registers.set_timer(timer, ticks as u32));
        }
        announced(&*registers, || registers.set_reload(COUNT_ANEW));
        registers.set_lock(ENABLED);
        if registers.lock() & ENABLED == 0 {
            return Err(WatchdogError::Broken);
        }
        Ok(Duration::from_millis(2000 * ticks / TICKS_PER_SECOND))
    }

    fn feed(&self) {
        let registers = self.registers.lock();
        announced(&*registers, || registers.set_reload(COUNT_ANEW));
    }

    fn stop(&self) {
        self.registers.lock().set_lock(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const AT: Address = Address {
        bus: 0,
        device: 4,
        function: 0,
    };

    /// A device as the datasheet has it, with its time in the test's hands.
    #[derive(Default)]
    struct Fake(Mutex<State>);

    #[derive(Default)]
    struct State {
        timers: [u32; 2],
        left: u32,
        stage: usize,
        unlock: usize,
        config: u16,
        lock: u8,
        fired: bool,
        resets: u32,
        is_gone: bool,
    }

    impl State {
        /// Whether this write was announced.
        fn take_unlock(&mut self) -> bool {
            core::mem::take(&mut self.unlock) == 2
        }

        fn restart(&mut self) {
            self.stage = 0;
            self.left = self.timers[0];
        }

        fn pass(&mut self, ticks: u64) {
            for _ in 0..ticks {
                if self.lock & ENABLED == 0 {
                    return;
                }
                self.left -= 1;
                if self.left > 0 {
                    continue;
                }
                self.stage += 1;
                if self.stage == 2 {
                    self.fired = true;
                    self.resets += 1;
                    self.lock = 0;
                } else {
                    self.left = self.timers[1];
                }
            }
        }
    }

    impl Registers for Fake {
        fn set_timer(&self, register: usize, ticks: u32) {
            let mut s = self.0.lock().unwrap();
            if s.take_unlock() {
                s.timers[register / 4] = ticks;
            }
        }
        fn reload(&self) -> u16 {
            let s = self.0.lock().unwrap();
            match (s.is_gone, s.fired) {
                (true, _) => u16::MAX,
                (_, fired) => u16::from(fired) << 9,
            }
        }
        fn set_reload(&self, value: u16) {
            let mut s = self.0.lock().unwrap();
            match value {
                0x80 => s.unlock = 1,
                0x86 if s.unlock == 1 => s.unlock = 2,
                _ if s.take_unlock() => {
                    if value & COUNT_ANEW != 0 {
                        s.restart();
                    }
                    s.fired &= value & FIRED == 0;
                }
                _ => {}
            }
        }
        fn set_config(&self, value: u16) {
            self.0.lock().unwrap().config = value;
        }
        fn lock(&self) -> u8 {
            let s = self.0.lock().unwrap();
            if s.is_gone { u8::MAX } else { s.lock }
        }
        fn set_lock(&self, value: u8) {
            let mut s = self.0.lock().unwrap();
            if s.lock & LOCKED == 0 {
                s.lock = value;
                if value & ENABLED != 0 {
                    s.restart();
                }
            }
        }
    }

    fn pass(timer: &Timer<Fake>, ticks: u64) -> u32 {
        let registers = timer.registers.lock();
        let mut s = registers.0.lock().unwrap();
        s.pass(ticks);
        s.resets
    }

    #[test]
    fn it_resets_when_it_is_not_fed_in_time() {
        let timer = Timer::new(AT, Fake::default());
        let time = timer.start(Duration::from_secs(30)).unwrap();
        assert!(time <= Duration::from_secs(30) && time > Duration::from_secs(29));
        let each = ticks(Duration::from_secs(30));
        for _ in 0..10 {
            assert_eq!(pass(&timer, 2 * each - 1), 0);
            timer.feed();
        }
        assert_eq!(pass(&timer, 2 * each - 1), 0);
        assert_eq!(pass(&timer, 1), 1);
    }

    #[test]
    fn a_stopped_one_never_resets() {
        let timer = Timer::new(AT, Fake::default());
        timer.start(Duration::from_secs(30)).unwrap();
        timer.stop();
        assert_eq!(pass(&timer, 1 << 20), 0);
        timer.start(Duration::from_secs(30)).unwrap();
        assert_eq!(pass(&timer, 1 << 20), 1);
    }

    #[test]
    fn the_next_boot_sees_that_it_has_fired() {
        let timer = Timer::new(AT, Fake::default());
        assert!(!timer.has_fired());
        timer.start(Duration::from_secs(5)).unwrap();
        assert_eq!(pass(&timer, 1 << 20), 1);
        let again = |timer: Timer<Fake>| {
            let state = core::mem::take(&mut *timer.registers.lock().0.lock().unwrap());
            Timer::new(AT, Fake(Mutex::new(state)))
        };
        let next = again(timer);
        assert!(next.has_fired());
        assert!(!again(next).has_fired());
    }

    #[test]
    fn one_that_is_locked_or_gone_is_not_used() {
        let fake = Fake::default();
        fake.0.lock().unwrap().lock = LOCKED;
        let locked = Timer::new(AT, fake);
        let started = locked.start(Duration::from_secs(30));
        assert_eq!(started, Err(WatchdogError::Disabled));
        let fake = Fake::default();
        fake.0.lock().unwrap().is_gone = true;
        let gone = Timer::new(AT, fake);
        assert!(!gone.has_fired() && gone.start(Duration::from_secs(30)).is_err());
    }

    #[test]
    fn times_are_cut_to_what_it_can_count() {
        assert_eq!(ticks(Duration::ZERO), 1);
        assert_eq!(ticks(Duration::MAX), TICKS_MAX);
    }
}
