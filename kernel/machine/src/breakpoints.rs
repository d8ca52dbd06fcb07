//! Break points of user threads in the processor's debug registers (SDM vol. 3B, 18.2).
//!
//! Only addresses of user space are taken, so no code of the kernel is ever stopped; where
//! the kernel touches data that a program watches, the trap is let go (`x86/trap.rs`).

use crate::addr::is_user_range;
use crate::arch;

/// Break points there can be at a time.
pub const BREAKPOINTS_MAX: usize = 4;

/// Bits of the control register for number `n`: whether it is in force, and from where its
/// kind and length lie.
const fn enabled_bits(n: usize) -> u32 {
    3 << (2 * n)
}
const fn fields_at(n: usize) -> usize {
    16 + 4 * n
}

/// Instructions executed; I/O ports, which nobody may watch.
const EXECUTED: u32 = 0;
const PORTS: u32 = 2;
/// All that a control register made here can have.
const CONTROL: u32 = 0xffff_00ff;

/// Addresses and control register of a thread, such as can be loaded: none of those in
/// force is beyond user space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breakpoints {
    addresses: [usize; BREAKPOINTS_MAX],
    control: u32,
}

impl Breakpoints {
    /// Break points at `addresses` that `control` (DR7) puts in force; `None` where one is
    /// of a kind or length that there is not, not aligned, or not in user space.
    #[must_use]
    pub fn new(addresses: [usize; BREAKPOINTS_MAX], control: u32) -> Option<Breakpoints> {
        let fine = |(n, address): (usize, &usize)| {
            let fields = control >> fields_at(n);
            // Lengths are written as 1, 2, 8, 4.
            let len = [1, 2, 8, 4][(fields >> 2 & 3) as usize];
            let kind = fields & 3;
            let exists = kind != PORTS && (kind != EXECUTED || len == 1);
            let there = is_user_range(*address, len) && address.is_multiple_of(len);
            control & enabled_bits(n) == 0 || exists && there
        };
        let all = addresses.iter().enumerate().all(fine) && control & !CONTROL == 0;
        all.then_some(Breakpoints { addresses, control })
    }

    /// Whether none is in force.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.control & 0xff == 0
    }

    /// Where they are.
    #[cfg(target_os = "none")]
    pub(crate) fn addresses(&self) -> [usize; BREAKPOINTS_MAX] {
        self.addresses
    }

    /// DR7.
    #[cfg(target_os = "none")]
    pub(crate) fn control(&self) -> u32 {
        self.control
    }
}

/// Puts `points` in force for the running user thread, in place of those it had.
pub fn set_breakpoints(points: Breakpoints) {
    let me = crate::thread::current();
    // As long as there are some in the processor it has to watch.
    if !points.is_empty() {
        me.watch_for_breakpoints(true);
    }
    arch::set_breakpoints(points);
    if points.is_empty() {
        me.watch_for_breakpoints(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::USER_END;

    /// The control register for number 0 alone.
    fn one(address: usize, kind: u32, len: u32) -> Option<Breakpoints> {
        Breakpoints::new([address, 0, 0, 0], 1 | (kind | len << 2) << 16)
    }

    #[test]
    fn only_user_addresses_are_taken() {
        for address in [USER_END, 0xffff_8000_0000_0000, usize::MAX] {
            assert_eq!(one(address, 1, 0), None);
            // Until it is put in force it may be anything.
            assert!(Breakpoints::new([address; 4], 0).is_some());
        }
        assert!(one(USER_END - 1, 1, 0).is_some());
        assert!(one(USER_END - 8, 3, 2).is_some());
        assert_eq!(Breakpoints::new([0, 0, 0, USER_END], 0x80), None);
    }

    #[test]
    fn kinds_and_lengths_are_those_there_are() {
        assert!(one(0x1001, 0, 0).is_some());
        assert_eq!(one(0x1000, 0, 1), None, "code has no length");
        assert_eq!(one(0x1000, 2, 0), None, "ports");
        for (len, bytes) in [(0, 1), (1, 2), (2, 8), (3, 4)] {
            assert!(one(0x1000 + bytes, 1, len).is_some());
            assert_eq!(one(0x1000 + bytes / 2, 1, len).is_some(), bytes == 1);
        }
        // General detection would stop the kernel's own use of the registers.
        assert_eq!(Breakpoints::new([0; 4], 1 << 13), None);
    }
}
