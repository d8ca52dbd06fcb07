//! Debug registers as a tracer sees them (`u_debugreg` of `struct user`): checked, and the
//! same to it as on Linux, where each of the four is a break point of its own.

use crate::{Error, Result, Thread};
use alloc::boxed::Box;
use machine::thread::{self, BREAKPOINTS_MAX, Breakpoints};

/// The registers that say what was met (DR6), and what is in force (DR7).
const STATUS: usize = 6;
const CONTROL: usize = 7;
/// DR6 of a quiet processor: bits that are clear when something happens are set.
const STATUS_QUIET: u64 = 0xffff_0ff0;
/// A single step, in DR6.
const STEP: u64 = 1 << 14;
/// Bits of DR7 that Linux forgets before it looks.
const CONTROL_IGNORED: u64 = 0xffff_ffff_0000_fc00;

/// One break point, in force or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    address: u64,
    /// Kind and length as DR7 has them.
    fields: u32,
    enabled: bool,
}

impl Point {
    /// What an address makes before there is more: one byte, written.
    const NEW: Point = Point {
        address: 0,
        fields: 1,
        enabled: false,
    };

    fn executes(self) -> bool {
        self.fields & 3 == 0
    }

    /// The machine's break point number `n`, in force, if there can be such a one.
    fn check(self, n: usize) -> Result<()> {
        let address = usize::try_from(self.address).map_err(|_| Error::Invalid)?;
        let points = Breakpoints::new([address; BREAKPOINTS_MAX], self.control(n));
        points.map(|_| ()).ok_or(Error::Invalid)
    }

    /// Its part of DR7, in force.
    fn control(self, n: usize) -> u32 {
        2 << (2 * n) | self.fields << (16 + 4 * n)
    }
}

/// What a debug exception means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Met {
    /// The instruction that was to be stepped over is done.
    Step,
    /// A break point. The instruction that it was met before has to be let pass, if it is
    /// one of those.
    Point { before: bool },
    /// `int1`.
    Trap,
    /// None that is in force.
    Nothing,
}

/// The debug registers of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugRegisters {
    points: [Option<Point>; BREAKPOINTS_MAX],
    /// What was met, as bits that differ from [`STATUS_QUIET`].
    status: u64,
    /// As it was written.
    control: u64,
}

impl DebugRegisters {
    /// Register number `n`; 0 for one that there is not.
    #[must_use]
    pub fn read(&self, n: usize) -> u64 {
        match n {
            STATUS => self.status ^ STATUS_QUIET,
            CONTROL => self.control,
            n => self
                .points
                .get(n)
                .copied()
                .flatten()
                .map_or(0, |p| p.address),
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address or a control that there cannot be: nothing has
    /// changed then. So is a number that there is not.
    pub fn write(&mut self, n: usize, value: u64) -> Result<()> {
        match n {
            STATUS => self.status = value ^ STATUS_QUIET,
            CONTROL => self.write_control(value)?,
            n => {
                let slot = self.points.get_mut(n).ok_or(Error::Invalid)?;
                let new = Point {
                    address: value,
                    ..slot.unwrap_or(Point::NEW)
                };
                new.check(n)?;
                *slot = Some(new);
            }
        }
        Ok(())
    }

    fn write_control(&mut self, value: u64) -> Result<()> {
        let control = value & !CONTROL_IGNORED;
        let mut points = self.points;
        for (n, slot) in points.iter_mut().enumerate() {
            let enabled = control >> (2 * n) & 3 != 0;
            if slot.is_none() && !enabled {
                continue;
            }
            let new = Point {
                address: slot.map_or(0, |p| p.address),
                fields: (control >> (16 + 4 * n)) as u32 & 0xf,
                enabled,
            };
            // One that is not in force has to be valid as well.
            new.check(n)?;
            *slot = Some(new);
        }
        (self.points, self.control) = (points, value);
        Ok(())
    }

    /// What the processor is to hold.
    fn breakpoints(&self) -> Breakpoints {
        let mut addresses = [0; BREAKPOINTS_MAX];
        let mut control = 0;
        for (n, (to, point)) in addresses.iter_mut().zip(&self.points).enumerate() {
            if let Some(p) = point.filter(|p| p.enabled) {
                *to = p.address as usize;
                control |= p.control(n);
            }
        }
        // Each was checked when it was written.
        Breakpoints::new(addresses, control).unwrap_or_default()
    }

    /// Notes what the processor met.
    fn note(&mut self, status: u64) -> Met {
        self.status = status & STEP;
        let mut before = false;
        for (n, point) in self.points.iter().enumerate() {
            let bit = status & 1 << n;
            // With a step comes what that instruction did; the next one's time comes.
            if let Some(p) = point.filter(|p| p.enabled && bit != 0)
                && !(p.executes() && status & STEP != 0)
            {
                self.status |= bit;
                before |= p.executes();
            }
        }
        match self.status {
            _ if status & STEP != 0 => Met::Step,
            0 if status == 0 => Met::Trap,
            0 => Met::Nothing,
            _ => Met::Point { before },
        }
    }
}

impl Thread {
    /// A debug exception of the calling thread, with what the processor says.
    pub(crate) fn debug_exception(&self, status: u64) -> Met {
        // A step is told in the status of a thread without break points, too.
        let mut own = self.trace.debug.lock();
        own.get_or_insert_default().note(status)
    }

    /// Its registers; few threads have some.
    pub(super) fn debug(&self) -> DebugRegisters {
        let own = self.trace.debug.lock();
        own.as_ref()
            .map_or_else(DebugRegisters::default, |own| **own)
    }

    /// The calling thread's registers become `new`.
    pub(super) fn set_debug(&self, new: DebugRegisters) {
        let old = self.debug();
        if new == old {
            return;
        }
        let new_box = (new != DebugRegisters::default()).then(|| Box::new(new));
        let gone = core::mem::replace(&mut *self.trace.debug.lock(), new_box);
        drop(gone);
        let points = new.breakpoints();
        if old.breakpoints() != points {
            thread::set_breakpoints(points);
        }
    }

    /// The calling thread becomes another program, which has none.
    pub(crate) fn clear_debug(&self) {
        self.set_debug(DebugRegisters::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::addr::USER_END;

    /// DR7 that puts number 0 in force.
    fn control(kind: u64, len: u64) -> u64 {
        1 | (kind | len << 2) << 16
    }

    #[test]
    fn a_quiet_thread_has_the_registers_of_a_quiet_processor() {
        let r = DebugRegisters::default();
        let all = [0, 1, 2, 3, 4, 5, 6, 7].map(|n| r.read(n));
        assert_eq!(all, [0, 0, 0, 0, 0, 0, 0xffff_0ff0, 0]);
    }

    #[test]
    fn addresses_of_the_kernel_are_refused_and_change_nothing() {
        let mut r = DebugRegisters::default();
        for n in 0..4 {
            r.write(n, 1).unwrap();
        }
        r.write(CONTROL, 0xff | 0x1111 << 16).unwrap();
        let before = r;
        for address in [USER_END as u64, 0xffff_8000_0000_0000, u64::MAX] {
            assert!(r.write(0, address).is_err());
            assert_eq!(r, before);
        }
        // Other registers than these there are not.
        assert!(r.write(4, 0).is_err() && r.write(5, 0).is_err() && r.write(8, 0).is_err());
    }

    #[test]
    fn an_address_changes_while_its_point_is_off() {
        let mut r = DebugRegisters::default();
        for address in [1, 2] {
            r.write(0, address).unwrap();
            assert_eq!(r.read(0), address);
        }
        assert!(r.breakpoints().is_empty());
    }

    #[test]
    fn a_control_is_taken_whole_or_not_at_all() {
        let mut r = DebugRegisters::default();
        r.write(0, 0x1004).unwrap();
        for refused in [control(2, 0), control(0, 3), control(1, 2)] {
            assert!(r.write(CONTROL, refused).is_err());
            assert_eq!(r.read(CONTROL), 0);
        }
        // Number 1 is fine, and number 0 is not: it may not even be off.
        assert!(r.write(CONTROL, 4 | 1 << 20 | 2 << 16).is_err());
        assert!(r.breakpoints().is_empty());
        // What Linux does not look at is read back.
        let wide = control(3, 3) | 0x1234_0000_0000_fc00;
        r.write(CONTROL, wide).unwrap();
        assert_eq!(r.read(CONTROL), wide);
        let want = Breakpoints::new([0x1004, 0, 0, 0], 2 | 0xf << 16);
        assert_eq!(Some(r.breakpoints()), want);
        // Aligned for eight bytes it is not.
        assert!(r.write(0, 0x1002).is_err());
        r.write(CONTROL, 0).unwrap();
        assert!(r.breakpoints().is_empty());
    }

    #[test]
    fn what_was_met_is_what_was_in_force() {
        let mut r = DebugRegisters::default();
        r.write(0, 0x1000).unwrap();
        r.write(1, 0x2000).unwrap();
        // Number 0 written, number 1 executed.
        r.write(CONTROL, 5 | 1 << 16).unwrap();
        assert_eq!(r.note(1), Met::Point { before: false });
        assert_eq!(r.read(STATUS), 0xffff_0ff1);
        assert_eq!(r.note(2), Met::Point { before: true });
        assert_eq!(r.note(4), Met::Nothing);
        assert_eq!(r.read(STATUS), 0xffff_0ff0);
        assert_eq!(r.note(STEP | 3), Met::Step);
        assert_eq!(r.read(STATUS), 0xffff_4ff1);
        assert_eq!(r.note(0), Met::Trap);
        r.write(STATUS, 0).unwrap();
        assert_eq!(r.read(STATUS), 0);
    }
}
