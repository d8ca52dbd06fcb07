//! Starting programs.

use crate::ctx::Ctx;
use crate::errno::{Errno, SysResult};
use crate::path::{AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW, Base, PathRoom, Walker};
use alloc::format;
use alloc::vec::Vec;
use machine::user;
use process::elf::Arguments;
use process::exec;
use process::limits::Resource;
use vfs::{At, Kind, LastLink};

/// Longest argument, its NUL included (`MAX_ARG_STRLEN`).
const STRING_MAX: usize = 128 << 10;
/// Most strings: what [`Arguments`] limits by size is limited by number, too.
const STRINGS_MAX: usize = 1 << 20;

/// Copies the string at `addr` into `out`.
fn read_string(addr: usize, out: &mut Vec<u8>) -> Result<(), Errno> {
    const STEP: usize = 1024;
    out.clear();
    while out.len() < STRING_MAX {
        let done = out.len();
        out.try_reserve(STEP)?;
        out.resize(done + STEP, 0);
        let part = out.get_mut(done..).unwrap_or_default();
        if let Some(n) = user::read_cstr(addr.wrapping_add(done), part)? {
            out.truncate(done + n);
            return Ok(());
        }
    }
    Err(Errno::E2BIG)
}

/// Gives each string of the array at `list` to `push`.
fn read_strings(
    list: usize,
    mut push: impl FnMut(&[u8]) -> Result<(), process::Error>,
) -> Result<(), Errno> {
    if list == 0 {
        return Ok(());
    }
    let mut text = Vec::new();
    for i in 0..STRINGS_MAX {
        let addr: u64 = user::read_value(list.wrapping_add(i * size_of::<u64>()))?;
        if addr == 0 {
            return Ok(());
        }
        read_string(addr as usize, &mut text)?;
        push(&text)?;
        machine::thread::cond_resched();
    }
    Err(Errno::E2BIG)
}

fn read_arguments(ctx: &Ctx<'_>, argv: usize, envp: usize) -> Result<Arguments, Errno> {
    let stack = ctx.process().limits().soft(Resource::Stack);
    let mut all = Arguments::new(usize::try_from(stack).unwrap_or(usize::MAX));
    read_strings(argv, |s| all.push_arg(s))?;
    read_strings(envp, |s| all.push_env(s))?;
    Ok(all)
}

/// execve(2)
pub(crate) fn sys_execve(ctx: &mut Ctx<'_>, path: usize, argv: usize, envp: usize) -> SysResult {
    let mut room = PathRoom::new();
    let name = room.read(path)?;
    let arguments = read_arguments(ctx, argv, envp)?;
    let found = {
        let walker = Walker::new(ctx)?;
        walker
            .who()
            .lookup(At::Cwd, name.bytes(), LastLink::Follow)?
    };
    exec::replace(ctx.thread(), ctx.regs, &found, name.bytes(), arguments)?;
    Ok(0)
}

/// execveat(2)
pub(crate) fn sys_execveat(
    ctx: &mut Ctx<'_>,
    dirfd: usize,
    path: usize,
    argv: usize,
    envp: usize,
    flags: usize,
) -> SysResult {
    if flags & !(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0 {
        return Err(Errno::EINVAL);
    }
    let mut room = PathRoom::new();
    let name = room.read(path)?;
    let arguments = read_arguments(ctx, argv, envp)?;
    let found = if name.is_empty() && flags & AT_EMPTY_PATH != 0 {
        let file = ctx.any_file(dirfd)?;
        file.path().cloned().ok_or(Errno::EACCES)?
    } else {
        let last = match flags & AT_SYMLINK_NOFOLLOW {
            0 => LastLink::Follow,
            _ => LastLink::Stay,
        };
        let base = Base::new(ctx, dirfd, &name)?;
        let walker = Walker::new(ctx)?;
        walker.who().lookup(base.at(), name.bytes(), last)?
    };
    if found.inode()?.attr().kind == Kind::Symlink {
        return Err(Errno::ELOOP);
    }
    // What a script's interpreter is told to open.
    let text = match (name.bytes(), dirfd as i32) {
        ([], fd) => format!("/dev/fd/{fd}").into_bytes(),
        (n, AT_FDCWD) | (n @ [b'/', ..], _) => n.to_vec(),
        (n, fd) => [format!("/dev/fd/{fd}/").as_bytes(), n].concat(),
    };
    exec::replace(ctx.thread(), ctx.regs, &found, &text, arguments)?;
    Ok(0)
}
