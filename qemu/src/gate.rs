//! A way to a forwarded port for clients that come all at once.
//!
//! QEMU's user network listens with a backlog of one on each forwarded port. What a
//! client believes to be a connection may then be one that the host's kernel has
//! dropped, and is told so a minute later by a reset that the node has nothing to do
//! with. A gate has a backlog as servers have, and lets one after the other through.

use crate::seconds;
use anyhow::{Context as _, Result};
use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// Pause before each look at QEMU's backlog.
const PAUSE: Duration = Duration::from_millis(2);
/// State of a listening socket in `/proc/net/tcp`.
const LISTENING: &str = "0A";

/// A gate; closed when this is dropped. Connections through it live on.
pub struct Gate {
    address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Gate {
    /// One on a free port, before a port of this machine.
    pub fn before(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let closed = Arc::new(AtomicBool::new(false));
        let seen = closed.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                if seen.load(Ordering::Relaxed) {
                    break;
                }
                // Who cannot be let through is closed, as by a server that is gone.
                let _ = client.map_err(anyhow::Error::from).and_then(|client| {
                    let server = enter(target)?;
                    pass(client, server)
                });
            }
        });
        Ok(Self { address, closed })
    }

    /// Where clients go.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Wakes the thread; fails only when that has ended already.
        let _ = TcpStream::connect(self.address);
    }
}

/// Connects once nobody waits at the target.
fn enter(target: SocketAddr) -> Result<TcpStream> {
    // What was let through last may be on its way into the queue.
    thread::sleep(PAUSE);
    while waiting(target.port())?.context("nobody listens")? > 0 {
        thread::sleep(PAUSE);
    }
    Ok(TcpStream::connect_timeout(&target, seconds(60))?)
}

/// How many connections the socket that listens on this port has not taken yet.
fn waiting(port: u16) -> io::Result<Option<u64>> {
    // Those that listen come first; of others there may be tens of thousands.
    for line in BufReader::new(File::open("/proc/net/tcp")?).lines().skip(1) {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().take(5).collect();
        let [_, local, _, LISTENING, queues] = words[..] else {
            break;
        };
        if local.ends_with(&format!(":{port:04X}")) {
            let received = queues.split(':').nth(1);
            return Ok(received.and_then(|queue| u64::from_str_radix(queue, 16).ok()));
        }
    }
    Ok(None)
}

/// Copies both ways; an end of one direction is passed on and leaves the other.
fn pass(client: TcpStream, server: TcpStream) -> Result<()> {
    for end in [&client, &server] {
        end.set_nodelay(true)?;
    }
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::spawn(move || {
            // However it ends, there is nothing more to copy.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Gate, waiting};
    use rustix::net::{self, AddressFamily, SocketType};
    use std::{
        io::{Read as _, Write as _},
        net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    #[test]
    fn the_backlog_is_read_from_the_kernels_table() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(waiting(address.port()).unwrap(), Some(0));
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(waiting(address.port()).unwrap(), Some(1));
        drop(listener);
        assert_eq!(waiting(address.port()).unwrap(), None);
    }

    /// Without the gate most of them would be dropped, and wait for seconds.
    #[test]
    fn many_at_once_come_through_to_one_who_takes_few() {
        const CLIENTS: u8 = 40;
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        net::listen(&socket, 1).unwrap();
        let slow = TcpListener::from(socket);
        let gate = Gate::before(slow.local_addr().unwrap()).unwrap();
        let serving = thread::spawn(move || {
            for _ in 0..CLIENTS {
                thread::sleep(Duration::from_millis(2));
                let (mut client, _) = slow.accept().unwrap();
                let mut asked = Vec::new();
                // The end of what is asked is passed on, and the answer still comes.
                client.read_to_end(&mut asked).unwrap();
                client.write_all(&asked).unwrap();
            }
        });
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let mut client = TcpStream::connect(gate.address()).unwrap();
                client.write_all(&[number]).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                client
            })
            .collect();
        for (number, client) in (0..).zip(&mut clients) {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, [number]);
        }
        serving.join().unwrap();
    }
}
