//! `sockaddr` in a program's memory, and the socket files of unix sockets.

use crate::ctx::Ctx;
use crate::errno::Errno;
use crate::path::Walker;
use alloc::sync::Arc;
use machine::user;
use net::{Address, FileKey, Socket, UnixName};
use vfs::cred::Want;
use vfs::{At, Inode, Kind, LastLink};

/// Longest `sockaddr` (`struct sockaddr_storage`).
const ADDRESS_MAX: usize = 128;

/// The address of `len` bytes at `addr`.
///
/// # Errors
/// `EINVAL`, `EFAULT`, `EAFNOSUPPORT`.
pub(super) fn read_address(addr: usize, len: usize) -> Result<Address, Errno> {
    let len = usize::try_from(len as i32).map_err(|_| Errno::EINVAL)?;
    if len > ADDRESS_MAX {
        return Err(Errno::EINVAL);
    }
    let mut buffer = [0; ADDRESS_MAX];
    user::read(addr, &mut buffer[..len])?;
    Ok(Address::parse(&buffer[..len])?)
}

/// Writes `address` to `addr`, cut to the `int` at `len`, which then gets the
/// whole length. No address is a length of 0.
///
/// # Errors
/// `EINVAL`, `EFAULT`.
pub(super) fn write_address(
    addr: usize,
    len: usize,
    address: Option<&Address>,
    v6: bool,
) -> Result<(), Errno> {
    let room: i32 = user::read_value(len)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let raw = address.map(|a| a.to_raw(v6)).unwrap_or_default();
    user::write(addr, &raw[..raw.len().min(room)])?;
    user::write_value(len, &i32::try_from(raw.len()).unwrap_or(0))?;
    Ok(())
}

fn key(inode: &Arc<dyn Inode>) -> FileKey {
    let attr = inode.attr();
    FileKey {
        dev: attr.dev,
        ino: attr.ino,
    }
}

/// Makes the file that a unix socket is bound to, if `address` is a path.
///
/// # Errors
/// `EADDRINUSE` if the name exists, `EINVAL` if the socket has an address, and
/// those of mknod(2).
pub(super) fn make_socket_file(
    ctx: &Ctx<'_>,
    socket: &Socket,
    address: Address,
) -> Result<Address, Errno> {
    let Address::Unix(UnixName::Path(path, None)) = &address else {
        return Ok(address);
    };
    if socket.family() != net::addr::AF_UNIX {
        // The socket knows how to refuse it.
        return Ok(address);
    }
    if socket.local() != Address::Unix(UnixName::Unnamed) {
        return Err(Errno::EINVAL);
    }
    let walker = Walker::new(ctx)?;
    let who = walker.who();
    let mode = 0o777 & !who.fs.umask();
    let inode = match who.make(At::Cwd, path, Kind::Socket, mode, &[]) {
        Err(vfs::Error::Exists) => return Err(Errno::EADDRINUSE),
        other => other?,
    };
    Ok(Address::Unix(UnixName::Path(
        path.clone(),
        Some(key(&inode)),
    )))
}

/// Finds the socket file that `address` names, if it is a path.
///
/// # Errors
/// `ECONNREFUSED` for another kind of file, `EACCES`, and those of
/// path_resolution(7).
pub(super) fn find_socket_file(
    ctx: &Ctx<'_>,
    socket: &Socket,
    address: Address,
) -> Result<Address, Errno> {
    if !socket.needs_path(&address) {
        return Ok(address);
    }
    let Address::Unix(UnixName::Path(path, None)) = &address else {
        return Ok(address);
    };
    let walker = Walker::new(ctx)?;
    let who = walker.who();
    let inode = who.inode(At::Cwd, path, LastLink::Follow)?;
    if inode.attr().kind != Kind::Socket {
        return Err(Errno::ECONNREFUSED);
    }
    inode.attr().check(who.cred, Want::WRITE)?;
    Ok(Address::Unix(UnixName::Path(
        path.clone(),
        Some(key(&inode)),
    )))
}
