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
    let c = decode(
        ctx,
        pid,
        (local, local_count),
        (remote, remote_count),
        flags,
    )?;
    let mut sink = Sink::user_vec(c.local);
    let wanted = sink.left().min(c.remote.iter().map(|b| b.len).sum());
    for buffer in &c.remote {
        let mut at = 0;
        while at < buffer.len && sink.left() > 0 {
            let mut step = [0; STEP];
            let n = (buffer.len - at).min(STEP).min(sink.left());
            let part = step.get_mut(..n).unwrap_or(&mut []);
            let got = c.space.read(buffer.addr.wrapping_add(at), part);
            let put = sink.put(part.get(..got).unwrap_or(&[]));
            if got < n || put.is_err() {
                return outcome(sink.moved(), wanted);
            }
            at += n;
        }
    }
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
    let c = decode(
        ctx,
        pid,
        (local, local_count),
        (remote, remote_count),
        flags,
    )?;
    let mut source = Source::user_vec(c.local);
    let wanted = source.left().min(c.remote.iter().map(|b| b.len).sum());
    let mut done = 0;
    for buffer in &c.remote {
        let mut at = 0;
        while at < buffer.len && source.left() > 0 {
            let mut step = [0; STEP];
            let n = (buffer.len - at).min(STEP).min(source.left());
            let part = step.get_mut(..n).unwrap_or(&mut []);
            let before = source.moved();
            let whole = source.take(part).is_ok();
            let taken = source.moved() - before;
            let part = part.get(..taken).unwrap_or(&[]);
            let put = c.space.write(buffer.addr.wrapping_add(at), part);
            done += put;
            if !whole || put < taken {
                return outcome(done, wanted);
            }
            at += n;
        }
    }
    outcome(done, wanted)
}
