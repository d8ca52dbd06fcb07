//! Keys that are pressed on the machine's keyboards, of whatever kind: drivers bring
//! them in, the console takes them.

use crate::sync::{Once, SpinLock};

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
static LISTENER: Once<fn()> = Once::new();

/// A driver's thread saw this key go down, or repeat itself. Does not wait.
pub fn press(key: Key) {
    KEYS.lock().push(key);
    if let Some(tell) = LISTENER.get() {
        tell();
    }
}

/// The oldest key that nobody has taken.
pub fn take() -> Option<Key> {
    KEYS.lock().pop()
}

/// Has `tell` called after each key, on the driver's thread; it must not wait. Only the
/// first call counts.
pub fn listen(tell: fn()) {
    LISTENER.call_once(|| tell);
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
    fn who_listens_is_told_of_every_key() {
        use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static TOLD: AtomicU32 = AtomicU32::new(0);
        listen(|| {
            TOLD.fetch_add(1, Relaxed);
        });
        press(Key::PageUp);
        press(Key::Char(b'a'));
        assert_eq!(TOLD.load(Relaxed), 2);
        assert_eq!((take(), take()), (Some(Key::PageUp), Some(Key::Char(b'a'))));
        assert_eq!(take(), None);
    }
}
