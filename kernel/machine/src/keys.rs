//! Keys that are pressed on the machine's keyboards, of whatever kind: drivers bring
//! them in, the console takes them.

use crate::error::WaitError;
use crate::sync::SpinLock;
use crate::wait::{Until, WaitQueue};

/// Keys that wait for the console; further ones are lost, as if not pressed.
const WAITING_MAX: usize = 32;

/// A key, as a keyboard of the US layout has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A printable ASCII character with shift and caps lock taken into account, or
    /// enter (`\n`), tabulator (`\t`), backspace (8).
    Char(u8),
    /// Cursor up.
    Up,
    /// Cursor down.
    Down,
    /// Cursor left.
    Left,
    /// Cursor right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
    /// Escape.
    Escape,
    /// F1 to F12, from 1.
    Function(u8),
}

/// The keys that wait, oldest first.
struct Keys {
    waiting: [Option<Key>; WAITING_MAX],
    first: usize,
    count: usize,
}

impl Keys {
    const NONE: Keys = Keys {
        waiting: [None; WAITING_MAX],
        first: 0,
        count: 0,
    };

    fn push(&mut self, key: Key) {
        if self.count < WAITING_MAX {
            self.waiting[(self.first + self.count) % WAITING_MAX] = Some(key);
            self.count += 1;
        }
    }

    fn pop(&mut self) -> Option<Key> {
        if self.count == 0 {
            return None;
        }
        let key = self.waiting[self.first].take();
        self.first = (self.first + 1) % WAITING_MAX;
        self.count -= 1;
        key
    }
}

static KEYS: SpinLock<Keys> = SpinLock::new(Keys::NONE);
static NEWS: WaitQueue = WaitQueue::new();

/// A driver's thread saw this key go down, or repeat itself. Does not wait.
pub fn press(key: Key) {
    KEYS.lock().push(key);
    NEWS.wake_one();
}

/// Sleeps until a key was pressed, and takes it.
///
/// # Errors
/// [`WaitError`] when `until` ended the sleep first.
pub fn wait(until: Until) -> Result<Key, WaitError> {
    NEWS.wait_until(until, || KEYS.lock().pop())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_order_and_too_many_are_lost() {
        let mut keys = Keys::NONE;
        for round in 0..3 {
            for n in 0..40 {
                keys.push(Key::Char(n + round));
            }
            for n in 0..WAITING_MAX as u8 {
                assert_eq!(keys.pop(), Some(Key::Char(n + round)));
            }
            assert_eq!(keys.pop(), None);
        }
    }

    #[test]
    fn who_waits_gets_what_was_pressed() {
        press(Key::PageUp);
        assert_eq!(wait(Until::default()), Ok(Key::PageUp));
        let until = Until {
            deadline: Some(crate::time::Instant::now()),
            interruptible: false,
        };
        assert_eq!(wait(until), Err(WaitError::TimedOut));
    }
}
