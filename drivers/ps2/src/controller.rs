//! The i8042 keyboard controller.

use crate::KeyboardError;
use machine::chipset::KeyboardController;

/// Bits of the status register.
const HAS_DATA: u8 = 1 << 0;
const IS_BUSY: u8 = 1 << 1;
/// What there is to take comes from the mouse.
const FROM_MOUSE: u8 = 1 << 5;

/// Commands to the controller.
const READ_CONFIG: u8 = 0x20;
const WRITE_CONFIG: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const TEST: u8 = 0xaa;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;
/// The answer to [`TEST`].
const TEST_PASSED: u8 = 0x55;

/// Bits of the configuration byte.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MOUSE_INTERRUPT: u8 = 1 << 1;
const KEYBOARD_OFF: u8 = 1 << 4;
const MOUSE_OFF: u8 = 1 << 5;
const TRANSLATE: u8 = 1 << 6;

/// A command to the keyboard, and its answer.
const START_SCANNING: u8 = 0xf4;
const ACKNOWLEDGED: u8 = 0xfa;

/// Looks at the status before something is given up: some tens of milliseconds, as a
/// look takes a microsecond.
const LOOKS_MAX: u32 = 50_000;

/// The controller's two ports.
pub(crate) trait Registers: Send + 'static {
    fn status(&self) -> u8;
    fn data(&self) -> u8;
    fn set_data(&self, value: u8);
    fn command(&self, command: u8);
}

impl Registers for KeyboardController {
    fn status(&self) -> u8 {
        self.command.read_u8(0)
    }

    fn data(&self) -> u8 {
        self.data.read_u8(0)
    }

    fn set_data(&self, value: u8) {
        self.data.write_u8(0, value);
    }

    fn command(&self, command: u8) {
        self.command.write_u8(0, command);
    }
}

pub(crate) struct Controller<R>(R);

impl<R: Registers> Controller<R> {
    pub(crate) fn new(registers: R) -> Controller<R> {
        Controller(registers)
    }

    /// Lets the keyboard, and nothing else, send and interrupt.
    pub(crate) fn set_up(&self) -> Result<(), KeyboardError> {
        if self.0.status() == u8::MAX {
            return Err(KeyboardError::NoController);
        }
        self.command(DISABLE_KEYBOARD)?;
        self.command(DISABLE_MOUSE)?;
        self.drain();
        self.command(TEST)?;
        if self.answer() != Some(TEST_PASSED) {
            return Err(KeyboardError::NoController);
        }
        self.command(READ_CONFIG)?;
        let config = self.answer().ok_or(KeyboardError::NoController)?;
        let config =
            config & !(MOUSE_INTERRUPT | KEYBOARD_OFF) | KEYBOARD_INTERRUPT | MOUSE_OFF | TRANSLATE;
        self.command(WRITE_CONFIG)?;
        self.send(config)?;
        self.command(ENABLE_KEYBOARD)?;
        self.send(START_SCANNING)?;
        // Keys that were pressed meanwhile may come before the answer.
        let acknowledged = (0..16).any(|_| self.answer() == Some(ACKNOWLEDGED));
        if acknowledged {
            Ok(())
        } else {
            Err(KeyboardError::NoKeyboard)
        }
    }

    /// The next byte from the keyboard, if there is one.
    pub(crate) fn take(&self) -> Option<u8> {
        let status = self.0.status();
        if status == u8::MAX || status & HAS_DATA == 0 {
            return None;
        }
        let byte = self.0.data();
        // The mouse is off; what it had sent before is lost.
        (status & FROM_MOUSE == 0).then_some(byte)
    }

    fn drain(&self) {
        for _ in 0..64 {
            if self.0.status() & HAS_DATA == 0 {
                return;
            }
            let _ = self.0.data();
        }
    }

    /// Waits until the controller takes a byte.
    fn ready(&self) -> Result<(), KeyboardError> {
        let ready = (0..LOOKS_MAX).any(|_| self.0.status() & IS_BUSY == 0);
        ready.then_some(()).ok_or(KeyboardError::NoController)
    }

    fn command(&self, command: u8) -> Result<(), KeyboardError> {
        self.ready()?;
        self.0.command(command);
        Ok(())
    }

    fn send(&self, byte: u8) -> Result<(), KeyboardError> {
        self.ready()?;
        self.0.set_data(byte);
        Ok(())
    }

    /// Waits for a byte; `None` if none comes.
    fn answer(&self) -> Option<u8> {
        (0..LOOKS_MAX)
            .any(|_| self.0.status() & HAS_DATA != 0)
            .then(|| self.0.data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// A controller with a keyboard, or without, or broken.
    #[derive(Default)]
    struct Fake(Mutex<State>);

    #[derive(Default)]
    struct State {
        out: VecDeque<u8>,
        config: u8,
        writes_config: bool,
        no_keyboard: bool,
        is_deaf: bool,
        never_ready: bool,
        floods: bool,
    }

    impl Registers for Fake {
        fn status(&self) -> u8 {
            let s = self.0.lock().unwrap();
            let data = if s.out.is_empty() && !s.floods {
                0
            } else {
                HAS_DATA
            };
            let busy = if s.never_ready { IS_BUSY } else { 0 };
            data | busy
        }
        fn data(&self) -> u8 {
            self.0.lock().unwrap().out.pop_front().unwrap_or(0x1e)
        }
        fn set_data(&self, value: u8) {
            let mut s = self.0.lock().unwrap();
            if core::mem::take(&mut s.writes_config) {
                s.config = value;
            } else if value == START_SCANNING && !s.no_keyboard {
                s.out.push_back(0x1e);
                s.out.push_back(ACKNOWLEDGED);
            }
        }
        fn command(&self, command: u8) {
            let mut s = self.0.lock().unwrap();
            match command {
                TEST if !s.is_deaf => s.out.push_back(TEST_PASSED),
                READ_CONFIG => {
                    let config = s.config;
                    s.out.push_back(config);
                }
                WRITE_CONFIG => s.writes_config = true,
                _ => {}
            }
        }
    }

    fn set_up(change: impl Fn(&mut State)) -> (Result<(), KeyboardError>, Controller<Fake>) {
        let fake = Fake::default();
        fake.0.lock().unwrap().config = MOUSE_INTERRUPT | KEYBOARD_OFF | 1 << 2;
        // Left over from the firmware.
        fake.0.lock().unwrap().out.extend([1, 2, 3]);
        change(&mut fake.0.lock().unwrap());
        let controller = Controller::new(fake);
        (controller.set_up(), controller)
    }

    #[test]
    fn the_keyboard_interrupts_and_the_mouse_does_not() {
        let (result, controller) = set_up(|_| {});
        assert_eq!(result, Ok(()));
        let config = controller.0.0.lock().unwrap().config;
        assert_eq!(config, KEYBOARD_INTERRUPT | MOUSE_OFF | TRANSLATE | 1 << 2);
        assert_eq!(controller.take(), None);
        controller.0.0.lock().unwrap().out.push_back(0x1e);
        assert_eq!((controller.take(), controller.take()), (Some(0x1e), None));
    }

    #[test]
    fn what_does_not_answer_is_given_up() {
        let why = |change: fn(&mut State)| set_up(change).0.err();
        assert_eq!(
            why(|s| s.no_keyboard = true),
            Some(KeyboardError::NoKeyboard)
        );
        assert_eq!(why(|s| s.is_deaf = true), Some(KeyboardError::NoController));
        assert_eq!(
            why(|s| s.never_ready = true),
            Some(KeyboardError::NoController)
        );
        assert!(why(|s| s.floods = true).is_none_or(|e| e != KeyboardError::NoMemory));
    }
}
