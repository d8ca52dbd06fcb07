//! Copies between the memory of two processes (process_vm_readv(2)).

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::read_iovec;
use alloc::sync::Arc;
use machine::io::{Segments, Sink, Source};
use mm::AddressSpace;

/// Bytes copied in one step.
const STEP: usize = 1024;

/// The memory of process `pid`, which the caller may look into.
fn space_of(ctx: &Ctx<'_>, pid: usize) -> Result<Arc<AddressSpace>, Errno> {
    let pid = u32::try_from(pid as i32).map_err(|_| Errno::ESRCH)?;
    let thread = ctx.world().thread(pid).ok_or(Errno::ESRCH)?;
    if !crate::ids::may_inspect(ctx, thread.process())? {
        return Err(Errno::EPERM);
    }
    thread.space.get().ok_or(Errno::ESRCH)
}

/// Local and remote buffers, and whose memory the latter are.
struct Copy {
    local: Segments,
    remote: Segments,
    space: Arc<AddressSpace>,
}

fn decode(
    ctx: &Ctx<'_>,
    pid: usize,
    local: (usize, usize),
    remote: (usize, usize),
    flags: usize,
) -> Result<Copy, Errno> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    Ok(Copy {
        local: read_iovec(local.0, local.1)?,
        remote: read_iovec(remote.0, remote.1)?,
        space: space_of(ctx, pid)?,
    })
}

/// What a copy answers that came to an end after `done` of `wanted` bytes.
fn outcome(done: usize, wanted: usize) -> SysResult {
    if done == 0 && wanted > 0 {
        return Err(Errno::EFAULT);
    }
    Ok(done)
}

/// Calls `copy` with an address of the other process and a buffer for at most `left`
/// bytes in all, until it says that no more can be copied or the caller has to end.
fn in_steps(
    ctx: &Ctx<'_>,
    remote: &Segments,
    mut left: usize,
    mut copy: impl FnMut(usize, &mut [u8]) -> bool,
) {
    let mut step = [0; STEP];
    for buffer in remote {
        let len = buffer.len.min(left);
        left -= len;
        let mut at = 0;
        while at < len {
            let n = (len - at).min(STEP);
            let part = step.get_mut(..n).unwrap_or_default();
            if ctx.thread().must_end() || !copy(buffer.addr.wrapping_add(at), part) {
                return;
            }
            at += n;
        }
    }
}

/// process_vm_readv(2)
pub(crate) fn sys_process_vm_readv(
    ctx: &mut Ctx<'_>,
    pid: usize,
    local: usize,
    local_count: usize,
    remote: usize,
    remote_count: usize,
    flags: usize,
) -> SysResult {
    let (local, remote) = ((local, local_count), (remote, remote_count));
    let c = decode(ctx, pid, local, remote, flags)?;
    let mut sink = Sink::user_vec(c.local);
    let wanted = sink.left().min(total(&c.remote));
    in_steps(ctx, &c.remote, sink.left(), |addr, part| {
        let got = c.space.read(addr, part);
        let put = sink.put(part.get(..got).unwrap_or_default());
        got == part.len() && put.is_ok()
    });
    outcome(sink.moved(), wanted)
}

/// process_vm_writev(2)
pub(crate) fn sys_process_vm_writev(
    ctx: &mut Ctx<'_>,
    pid: usize,
    local: usize,
    local_count: usize,
    remote: usize,
    remote_count: usize,
    flags: usize,
) -> SysResult {
    let (local, remote) = ((local, local_count), (remote, remote_count));
    let c = decode(ctx, pid, local, remote, flags)?;
    let mut source = Source::user_vec(c.local);
    let wanted = source.left().min(total(&c.remote));
    let mut done = 0;
    in_steps(ctx, &c.remote, source.left(), |addr, part| {
        let before = source.moved();
        let whole = source.take(part).is_ok();
        let taken = part.get(..source.moved() - before).unwrap_or_default();
        let put = c.space.write(addr, taken);
        done += put;
        whole && put == taken.len()
    });
    outcome(done, wanted)
}

/// Bytes of all buffers together, which `read_iovec` has bounded.
fn total(buffers: &Segments) -> usize {
    buffers.iter().map(|b| b.len).sum()
}
