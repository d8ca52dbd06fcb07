//! The serial line as something that people type on. Messages go there by
//! [`crate::klog`].

use crate::arch;
use crate::sync::{IrqLock, Once};

/// Bytes that wait to be taken; further ones are lost, as if not typed.
const WAITING_MAX: usize = 64;

/// What came in, oldest first.
struct Received {
    waiting: [u8; WAITING_MAX],
    first: usize,
    count: usize,
}

impl Received {
    const NONE: Received = Received {
        waiting: [0; WAITING_MAX],
        first: 0,
        count: 0,
    };

    #[cfg(any(target_os = "none", test))]
    fn push(&mut self, byte: u8) {
        if self.count < WAITING_MAX {
            self.waiting[(self.first + self.count) % WAITING_MAX] = byte;
            self.count += 1;
        }
    }

    fn pop(&mut self) -> Option<u8> {
        self.count = self.count.checked_sub(1)?;
        let byte = self.waiting[self.first];
        self.first = (self.first + 1) % WAITING_MAX;
        Some(byte)
    }
}

static RECEIVED: IrqLock<Received> = IrqLock::new(Received::NONE);
static LISTENER: Once<fn()> = Once::new();

/// A byte came in, by interrupt.
#[cfg(target_os = "none")]
pub(crate) fn received(byte: u8) {
    RECEIVED.lock().push(byte);
}

/// The bytes of one interrupt are all there.
#[cfg(target_os = "none")]
pub(crate) fn told() {
    if let Some(tell) = LISTENER.get() {
        tell();
    }
}

/// The oldest byte that nobody has taken.
pub fn take() -> Option<u8> {
    RECEIVED.lock().pop()
}

/// Has `tell` called when bytes have come in, with interrupts off: it must not wait. Only
/// the first call counts. Whether there is a line that notices what comes in.
pub fn listen(tell: fn()) -> bool {
    LISTENER.call_once(|| tell);
    arch::console_receives()
}

/// Writes to the line, beside messages: for who holds them back meanwhile
/// ([`crate::klog::hold_serial`]).
pub fn write(bytes: &[u8]) {
    arch::console_write(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_in_order_and_too_many_are_lost() {
        let mut r = Received::NONE;
        for round in 0..3 {
            for n in 0..100 {
                r.push(n + round);
            }
            for n in 0..WAITING_MAX as u8 {
                assert_eq!(r.pop(), Some(n + round));
            }
            assert_eq!(r.pop(), None);
        }
    }
}
