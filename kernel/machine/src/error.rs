//! What can fail in the machine room.

/// Memory could not be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocError {
    /// The machine has no free frame left (outside the kernel's reserve).
    OutOfMemory,
    /// The account that would pay for it is at its limit.
    OverLimit,
}

/// A user address that cannot be read or written (`EFAULT`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// Why a wait ended without what it waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// The deadline passed.
    TimedOut,
    /// The thread has to look at a signal or at its own end first.
    Interrupted,
}
