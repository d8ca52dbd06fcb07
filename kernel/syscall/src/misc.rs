//! Odds and ends: the system's name and state, and what a capsule may not do.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};

/// reboot(2): the machine is not the capsule's.
pub(crate) fn sys_reboot(_: &mut Ctx<'_>) -> SysResult {
    Err(Errno::EPERM)
}
