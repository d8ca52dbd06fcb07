//! CPUs: how many, which one, and data of one's own for each.

use crate::arch;

/// The most CPUs the kernel brings up.
pub const CPUS_MAX: usize = 64;

/// CPUs that run threads now, at least 1.
#[must_use]
pub fn count() -> usize {
    arch::cpu_count()
}

/// The CPU this thread runs on, `0..count()`. It can change wherever the thread
/// waits or yields.
#[must_use]
pub fn current() -> usize {
    arch::cpu_current()
}

/// Has all CPUs pass a full memory barrier before it returns.
pub fn barrier() {
    arch::barrier();
}

/// Whether programs may use the `FSGSBASE` instructions (`AT_HWCAP2`, bit 1).
#[must_use]
pub fn fsgsbase() -> bool {
    arch::fsgsbase()
}

/// One `T` for each CPU.
pub struct PerCpu<T> {
    each: [T; CPUS_MAX],
}

impl<T> PerCpu<T> {
    /// Builds every CPU's value.
    pub const fn new(each: [T; CPUS_MAX]) -> Self {
        PerCpu { each }
    }

    /// This CPU's value.
    pub fn here(&self) -> &T {
        &self.each[current() % CPUS_MAX]
    }

    /// The value of CPU `index`.
    pub fn of(&self, index: usize) -> &T {
        &self.each[index % CPUS_MAX]
    }

    /// All values, by CPU.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.each.iter()
    }
}
