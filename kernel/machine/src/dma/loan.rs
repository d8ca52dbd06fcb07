//! Frames in the hands of a device.

use super::{Direction, Reach};
use crate::error::AllocError;
use crate::frame::Frame;
use alloc::vec::Vec;

/// Frames that are kept, and reached by a device, until the request they are for is done.
#[derive(Debug)]
pub struct Loan {
    reach: Reach,
    frames: Vec<Frame>,
}

impl Loan {
    /// Room for `pages_max` frames at a time, for the device of `reach`.
    ///
    /// # Errors
    /// No memory.
    pub fn new(reach: Reach, pages_max: usize) -> Result<Loan, AllocError> {
        let mut frames = Vec::new();
        frames
            .try_reserve_exact(pages_max)
            .map_err(|_| AllocError::OutOfMemory)?;
        Ok(Loan { reach, frames })
    }

    /// Lends `frames` instead of what was lent before: all, or none.
    ///
    /// # Errors
    /// No memory.
    #[inline]
    pub fn lend(&mut self, frames: &[Frame], direction: Direction) -> Result<(), AllocError> {
        self.end();
        self.frames
            .try_reserve(frames.len())
            .map_err(|_| AllocError::OutOfMemory)?;
        self.reach.lend(numbers(frames), Some(direction))?;
        self.frames.extend(frames.iter().cloned());
        Ok(())
    }

    /// Takes all back: the device does not reach them any more.
    #[inline]
    pub fn end(&mut self) {
        if self.reach.is_bounded()
            && !self.frames.is_empty()
            && self.reach.take_back(numbers(&self.frames)).is_err()
        {
            // They must never be free again.
            self.frames.drain(..).for_each(core::mem::forget);
        }
        self.frames.clear();
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.end();
    }
}

fn numbers(frames: &[Frame]) -> impl Iterator<Item = u64> + Clone + '_ {
    frames.iter().map(|f| f.number() as u64)
}
