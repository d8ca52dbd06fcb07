//! What of terminals is more than a command to one of them.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use alloc::sync::Arc;
use vfs::Caps;
use vfs::file::{OpenFile, OpenFlags};
use vfs::tty::Master;

/// `ioctl(TIOCGPTPEER)`: a descriptor of the other end, without its name
/// (ioctl_tty(2)).
pub(crate) fn peer(ctx: &Ctx<'_>, file: &Arc<OpenFile>, flags: usize) -> SysResult {
    let master = file.downcast::<Master>().ok_or(Errno::ENOTTY)?;
    let flags = OpenFlags::from_bits_truncate(flags as u32);
    let cred = ctx.cred()?;
    let peer = master.open_peer(file, flags, &cred, ctx.file_charge()?)?;
    let cloexec = flags.contains(OpenFlags::CLOEXEC);
    let fd = ctx.files()?.insert(peer, cloexec, 0, ctx.files_limit())?;
    Ok(fd as usize)
}

/// vhangup(2)
pub(crate) fn sys_vhangup(ctx: &mut Ctx<'_>) -> SysResult {
    if !ctx.cred()?.has(Caps::SYS_TTY_CONFIG) {
        return Err(Errno::EPERM);
    }
    if let Some(terminal) = ctx.process().terminal() {
        terminal.hang_up();
    }
    Ok(0)
}
