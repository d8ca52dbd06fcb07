//! Keyboards, by the boot protocol (HID 1.11, appendices B and F).

use crate::descriptor::{Configuration, Interface};
use crate::device::{Device, kind};
use crate::work::Task;
use crate::xhci::slot::Outcome;
use crate::{Above, UsbError};
use alloc::sync::Arc;
use machine::keys::Key;
use machine::sync::SpinLock;

/// Human interface device, boot interface, keyboard.
const CLASS: (u8, u8, u8) = (3, 1, 1);
const SET_IDLE: u8 = 10;
const SET_PROTOCOL: u8 = 11;
const BOOT: u16 = 0;
/// Bytes of a report: modifiers, one reserved, six keys that are down.
const REPORT: usize = 8;
const KEYS: usize = 6;

/// Modifiers: either shift.
const SHIFT: u8 = 0x22;
/// Either control, alt or GUI key: what is pressed with them is no text.
const OTHERS: u8 = !SHIFT;
const CAPS_LOCK: u8 = 0x39;

/// What has been pressed on one keyboard.
#[derive(Default)]
struct Keyboard {
    down: [u8; KEYS],
    is_caps: bool,
}

/// The interface by which a device is a keyboard.
pub(crate) fn interface(configuration: &Configuration) -> Option<&Interface> {
    let mut all = configuration.interfaces.iter();
    all.find(|i| i.class == CLASS && i.setting == 0)
}

/// Has keys of a keyboard told to `above`.
///
/// # Errors
/// [`UsbError`].
pub(crate) fn start(
    device: &Arc<Device>,
    configuration: u8,
    interface: &Interface,
    above: Arc<dyn Above>,
) -> Result<(), UsbError> {
    let endpoint = interface.interrupt();
    let endpoint = endpoint.ok_or(UsbError::Nonsense("a keyboard without an endpoint"))?;
    let endpoint = endpoint.shape(device.speed())?;
    device.configure(configuration, interface, &[endpoint])?;
    let number = u16::from(interface.number);
    device.ask(kind::CLASS_TO_INTERFACE, SET_PROTOCOL, BOOT, number)?;
    // It reports when something changes only. Some refuse: they are listened to all
    // the same.
    match device.ask(kind::CLASS_TO_INTERFACE, SET_IDLE, 0, number) {
        Ok(()) | Err(UsbError::Stalled) => {}
        Err(e) => return Err(e),
    }
    let keyboard = SpinLock::new(Keyboard::default());
    let (controller, path) = (device.controller().clone(), device.path());
    let heard = move |outcome: Outcome| {
        match outcome.result {
            Err(UsbError::Gone) => return None,
            Err(_) => {
                controller.work.add(Task::Reset(path));
                return None;
            }
            Ok(len) => {
                let buffer = outcome.memory.first().and_then(|s| s.as_buffer());
                let bytes = buffer.map(|b| b.bytes()).unwrap_or_default();
                let report = bytes.get(..len.min(REPORT)).unwrap_or_default();
                keyboard.lock().report(report, |key| above.key(key));
            }
        }
        Some(outcome.memory)
    };
    // A packet the device may make longer than a report is not cut in two.
    let len = usize::from(endpoint.max_packet).max(REPORT);
    device.listen(&endpoint, len, Arc::new(heard))
}

impl Keyboard {
    /// Tells of keys that are down in `report` and were not before.
    fn report(&mut self, report: &[u8], mut tell: impl FnMut(Key)) {
        let [modifiers, _, down @ ..] = report else {
            return;
        };
        // Too many keys at once for the keyboard to tell which.
        if down.contains(&1) {
            return;
        }
        let mut now = [0; KEYS];
        for (to, from) in now.iter_mut().zip(down) {
            *to = *from;
        }
        for usage in now.iter().filter(|u| !self.down.contains(u)) {
            if *usage == CAPS_LOCK {
                self.is_caps = !self.is_caps;
            }
            let is_text = modifiers & OTHERS == 0;
            let is_shifted = modifiers & SHIFT != 0;
            match key(*usage, is_shifted, self.is_caps) {
                Some(Key::Char(_)) if !is_text => {}
                Some(key) => tell(key),
                None => {}
            }
        }
        self.down = now;
    }
}

/// The key with this number, on a keyboard of the US layout (HID usage tables, 10).
fn key(usage: u8, is_shifted: bool, is_caps: bool) -> Option<Key> {
    /// From 0x1e on, plain and with shift.
    const DIGITS: (&[u8], &[u8]) = (b"1234567890", b"!@#$%^&*()");
    /// From 0x2d on.
    const MARKS: (&[u8], &[u8]) = (b"-=[]\\#;'`,./", b"_+{}|~:\"~<>?");
    /// From 0x54 on: the keypad.
    const PAD: &[u8] = b"/*-+\n1234567890.";
    let of = |(plain, shifted): (&[u8], &[u8]), first: u8| {
        let row = if is_shifted { shifted } else { plain };
        row.get(usize::from(usage - first)).copied().map(Key::Char)
    };
    Some(match usage {
        0x04..=0x1d => {
            let letter = b'a' + (usage - 0x04);
            let is_large = is_shifted != is_caps;
            Key::Char(if is_large {
                letter.to_ascii_uppercase()
            } else {
                letter
            })
        }
        0x1e..=0x27 => return of(DIGITS, 0x1e),
        0x28 => Key::Char(b'\n'),
        0x29 => Key::Escape,
        0x2a => Key::Char(8),
        0x2b => Key::Char(b'\t'),
        0x2c => Key::Char(b' '),
        0x2d..=0x38 => return of(MARKS, 0x2d),
        0x3a..=0x45 => Key::Function(usage - 0x39),
        0x4a => Key::Home,
        0x4b => Key::PageUp,
        0x4d => Key::End,
        0x4e => Key::PageDown,
        0x4f => Key::Right,
        0x50 => Key::Left,
        0x51 => Key::Down,
        0x52 => Key::Up,
        0x54..=0x63 => return of((PAD, PAD), 0x54),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn keys(keyboard: &mut Keyboard, report: &[u8]) -> Vec<Key> {
        let mut all = Vec::new();
        keyboard.report(report, |key| all.push(key));
        all
    }

    #[test]
    fn a_key_is_told_once_while_it_is_down() {
        let mut k = Keyboard::default();
        assert_eq!(keys(&mut k, &[0, 0, 4, 0, 0, 0, 0, 0]), [Key::Char(b'a')]);
        assert_eq!(keys(&mut k, &[0, 0, 4, 0x4b, 0, 0, 0, 0]), [Key::PageUp]);
        assert_eq!(keys(&mut k, &[0, 0, 0, 0, 0, 0, 0, 0]), []);
        assert_eq!(
            keys(&mut k, &[2, 0, 4, 0x1e, 0, 0, 0, 0]),
            [Key::Char(b'A'), Key::Char(b'!')]
        );
    }

    #[test]
    fn too_many_keys_and_short_reports_say_nothing() {
        let mut k = Keyboard::default();
        assert_eq!(keys(&mut k, &[0, 0, 1, 1, 1, 1, 1, 1]), []);
        assert_eq!(keys(&mut k, &[0]), []);
        assert_eq!(keys(&mut k, &[]), []);
    }

    #[test]
    fn caps_lock_and_modifiers() {
        let mut k = Keyboard::default();
        assert_eq!(keys(&mut k, &[0, 0, CAPS_LOCK]), []);
        assert_eq!(keys(&mut k, &[0, 0, 5]), [Key::Char(b'B')]);
        assert_eq!(keys(&mut k, &[0x20, 0, 6]), [Key::Char(b'c')]);
        // Control and a letter is no text.
        assert_eq!(keys(&mut k, &[1, 0, 7]), []);
        assert_eq!(
            keys(&mut k, &[0, 0, 0x3a, 0x45]),
            [Key::Function(1), Key::Function(12)]
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_text_or_nothing(reports in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 0..20)) {
            let mut k = Keyboard::default();
            for report in reports {
                for key in keys(&mut k, &report) {
                    if let Key::Char(c) = key {
                        prop_assert!(matches!(c, b' '..=b'~' | b'\n' | b'\t' | 8));
                    }
                }
            }
        }
    }
}
