//! Takes as much of one thing as it can get: `hog memory|processes|files|sockets`,
//! `hog files-of-many PROCESSES`, `hog spin THREADS`, or ends: `hog exit STATUS`.
//!
//! What it gets it keeps, so that the node's owner can look. It must run inside
//! limits: on a machine without any it takes everything.
#![forbid(unsafe_code)]

use std::{
    env,
    fs::File,
    hint::black_box,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    process::{Command, ExitCode},
    thread,
    time::Duration,
};

/// Memory is taken in pieces of this many bytes, of which every page is written.
const PIECE: usize = 1 << 20;
const PAGE: usize = 4096;
/// Pause between two tries to get more than the limit.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["memory"] => memory(),
        ["processes"] => processes(),
        ["files"] => keep_taking(|| File::open("/dev/null")),
        ["files-of-many", processes] => files_of_many(processes.parse().unwrap_or(1)),
        ["sockets"] => sockets(),
        ["spin", threads] => spin(threads.parse().unwrap_or(1)),
        ["exit", status] => ExitCode::from(status.parse::<u8>().unwrap_or(1)),
        _ => {
            eprintln!(
                "usage: hog memory|processes|files|sockets|files-of-many N|spin THREADS|exit STATUS"
            );
            ExitCode::from(2)
        }
    }
}

/// Writes to ever more memory.
fn memory() -> ExitCode {
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut piece = vec![0; PIECE];
        for page in piece.chunks_mut(PAGE) {
            page[0] = 1;
        }
        pieces.push(black_box(piece));
    }
}

/// Starts itself again and again, and each start does the same.
fn processes() -> ExitCode {
    let mut children = Vec::new();
    loop {
        match Command::new("/proc/self/exe").arg("processes").spawn() {
            Ok(child) => children.push(child),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Opens files in this many processes, none of which could have them all. Ends when
/// a refusal is of another kind than the one for all processes together.
fn files_of_many(processes: usize) -> ExitCode {
    /// `ENFILE` of errno(3).
    const ALL_TAKEN: i32 = 23;
    for _ in 1..processes {
        let other = Command::new("/proc/self/exe")
            .args(["files-of-many", "1"])
            .spawn();
        if let Err(error) = other {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    }
    let mut taken = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(one) => taken.push(one),
            Err(error) if error.raw_os_error() == Some(ALL_TAKEN) => thread::sleep(PAUSE),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
        // The others get their turn.
        thread::sleep(Duration::from_millis(1));
    }
}

/// Takes more until it is refused, and goes on trying.
fn keep_taking<T>(take: impl Fn() -> std::io::Result<T>) -> ! {
    let mut taken = Vec::new();
    loop {
        match take() {
            Ok(one) => taken.push(one),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Takes listeners, both ends of connections, and datagram sockets in turn.
fn sockets() -> ExitCode {
    keep_taking(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        let datagrams = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok((listener, near, far, datagrams))
    })
}

/// Uses this many CPUs for nothing.
fn spin(threads: usize) -> ExitCode {
    let spin = || {
        let mut turns = 0u64;
        loop {
            turns = black_box(turns.wrapping_add(1));
        }
    };
    for _ in 1..threads {
        thread::spawn(spin);
    }
    spin()
}
