//! Has one of everything that another capsule must not find: a file, a process, a
//! listener on its loopback, a unix socket, an abstract one, and shared memory.
//! Answers `GET` on port 80, and every answer says whether all of it is untouched.
#![forbid(unsafe_code)]

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process::{Child, Command, ExitCode},
    thread,
    time::Duration,
};

/// Port on the loopback and the names that `prober` looks for.
const PORT: u16 = 7777;
const FILE: &str = "/tmp/neighbour-file";
const SHARED: &str = "/dev/shm/neighbour-shared";
const SOCKET: &str = "/tmp/neighbour-socket";
const ABSTRACT: &[u8] = b"neighbour";
const CONTENT: &[u8] = b"the neighbour's own";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("child") {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
    match live() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("neighbour: {error}");
            ExitCode::FAILURE
        }
    }
}

fn live() -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe").arg("child").spawn()?;
    fs::write(FILE, CONTENT)?;
    fs::write(SHARED, CONTENT)?;
    // Whoever connects to one of these is a stranger, and is seen in the answer.
    let loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let named = UnixListener::bind(SOCKET)?;
    let unnamed = UnixListener::bind_addr(&SocketAddr::from_abstract_name(ABSTRACT)?)?;
    loopback.set_nonblocking(true)?;
    named.set_nonblocking(true)?;
    unnamed.set_nonblocking(true)?;
    let pages = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))?;
    for page in pages.incoming() {
        let visited =
            loopback.accept().is_ok() || named.accept().is_ok() || unnamed.accept().is_ok();
        let untouched = !visited && untouched(&mut child);
        // A client that went away is its own affair.
        let _ = page.and_then(|page| answer(page, untouched));
    }
    Ok(())
}

fn untouched(child: &mut Child) -> bool {
    let same = |path| fs::read(path).is_ok_and(|found| found == CONTENT);
    same(FILE) && same(SHARED) && matches!(child.try_wait(), Ok(None))
}

fn answer(mut page: TcpStream, untouched: bool) -> io::Result<()> {
    page.set_read_timeout(Some(Duration::from_secs(2)))?;
    // One read: what is asked does not matter.
    let _ = page.read(&mut [0; 4096])?;
    let status = if untouched { "200 OK" } else { "500 Touched" };
    write!(
        page,
        "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}
