//! Looks for everything that a capsule must not reach, beside a capsule that runs
//! `neighbour`, and ends with the number of the first thing that it did reach, or 0.
//!
//! Each forbidden thing is tried beside its permitted twin (its own file, its own
//! loopback), so that a kernel on which nothing works does not pass.
#![forbid(unsafe_code)]

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{linux::net::SocketAddrExt, unix},
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

/// The node's address and its gateway on QEMU's user network.
const NODE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Ports: the neighbour's loopback, the 3Bot, what capsules publish.
const NEIGHBOUR: u16 = 7777;
const NODE_PORTS: [u16; 3] = [8080, 8081, 8082];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Devices and files by which Linux lets a privileged program reach the machine.
const MACHINE: [&str; 14] = [
    "/dev/skep",
    "/dev/mem",
    "/dev/kmem",
    "/dev/port",
    "/dev/kmsg",
    "/dev/cpu/0/msr",
    "/dev/vda",
    "/dev/sda",
    "/dev/fb0",
    "/dev/ttyS0",
    "/dev/net/tun",
    "/proc/kcore",
    "/proc/sysrq-trigger",
    "/sys/bus/pci/devices/0000:00:02.0/resource0",
];

type Check = fn() -> Result<(), String>;

const CHECKS: [(&str, Check); 9] = [
    ("processes", processes),
    ("signals", signals),
    ("files", files),
    ("loopback", loopback),
    ("unix sockets", unix_sockets),
    ("outside", outside),
    ("ports", ports),
    ("machine", machine),
    ("kernel settings", settings),
];

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some() {
        return ExitCode::SUCCESS; // started by `signals`
    }
    for (number, (name, check)) in (1..).zip(CHECKS) {
        if let Err(why) = check() {
            println!("{name}: {why}");
            return ExitCode::from(number);
        }
    }
    ExitCode::SUCCESS
}

fn ensure(holds: bool, why: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.into()) }
}

/// `/proc` shows this process, which is the first, and no other.
fn processes() -> Result<(), String> {
    let entries = fs::read_dir("/proc").map_err(|error| error.to_string())?;
    let found: BTreeSet<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    ensure(
        found == BTreeSet::from([std::process::id()]),
        format!("/proc shows {found:?}"),
    )?;
    ensure(std::process::id() == 1, "not the first process")?;
    let other = (2..4096).find(|pid| Path::new(&format!("/proc/{pid}/status")).exists());
    ensure(other.is_none(), format!("/proc has {other:?}"))
}

/// A signal to any number but our own finds no process.
fn signals() -> Result<(), String> {
    let child = Command::new("/proc/self/exe").arg("child").spawn();
    let mut child = child.map_err(|error| format!("cannot start a child: {error}"))?;
    let own = child.id();
    for pid in (2..4096).filter(|pid| *pid != own) {
        let target = Pid::from_raw(pid as i32).ok_or("a process number is none")?;
        let answer = kill_process(target, Signal::KILL);
        ensure(
            answer == Err(Errno::SRCH),
            format!("a signal to {pid}: {answer:?}"),
        )?;
    }
    let ended = child.wait().map_err(|error| error.to_string())?;
    ensure(ended.success(), "the child failed")
}

/// Our own files work; the neighbour's are not there.
fn files() -> Result<(), String> {
    for folder in ["/tmp", "/dev/shm"] {
        let own = format!("{folder}/own");
        fs::write(&own, "own").map_err(|error| format!("{own}: {error}"))?;
        let read = fs::read(&own).map_err(|error| format!("{own}: {error}"))?;
        ensure(read == b"own", format!("{own} has other content"))?;
        let names: Vec<_> = fs::read_dir(folder)
            .map_err(|error| format!("{folder}: {error}"))?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| name.contains("neighbour"))
            .collect();
        ensure(names.is_empty(), format!("{folder} shows {names:?}"))?;
    }
    for way in [
        "/proc/1/root/..",
        "/proc/self/root/../..",
        "/..",
        "/proc/self/cwd/../../..",
    ] {
        let path = format!("{way}/tmp/neighbour-file");
        ensure(fs::metadata(&path).is_err(), format!("{path} is there"))?;
    }
    Ok(())
}

/// The loopback is ours alone: we listen where the neighbour does and reach ourselves.
fn loopback() -> Result<(), String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, NEIGHBOUR));
    ensure(
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT).is_err(),
        "the neighbour's loopback answers",
    )?;
    let own = TcpListener::bind(address).map_err(|error| format!("own port: {error}"))?;
    let talk = || -> std::io::Result<Vec<u8>> {
        let mut near = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        let (mut far, _) = own.accept()?;
        near.write_all(b"hello")?;
        drop(near);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard)?;
        Ok(heard)
    };
    ensure(
        talk().is_ok_and(|heard| heard == b"hello"),
        "our own loopback does not work",
    )
}

fn unix_sockets() -> Result<(), String> {
    let name = |name: &[u8]| unix::net::SocketAddr::from_abstract_name(name).ok();
    let connects = |address| unix::net::UnixStream::connect_addr(&address).is_ok();
    let there = name(b"neighbour").is_some_and(connects);
    ensure(!there, "the neighbour's abstract socket answers")?;
    let own = name(b"neighbour").map(|name| unix::net::UnixListener::bind_addr(&name));
    ensure(
        matches!(own, Some(Ok(_))),
        "cannot take the name for ourselves",
    )?;
    let path = "/tmp/neighbour-socket";
    ensure(
        unix::net::UnixStream::connect(path).is_err(),
        "the neighbour's socket answers",
    )
}

/// The manifest grants no connections to outside: neither to the node, nor past it.
fn outside() -> Result<(), String> {
    for port in NODE_PORTS {
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(NODE)] {
            let to = SocketAddr::from((address, port));
            let connected = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT).is_ok();
            ensure(!connected, format!("{to} answers"))?;
        }
    }
    let name_server = SocketAddr::from((Ipv4Addr::new(10, 0, 2, 3), 53));
    let datagrams =
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(|error| error.to_string())?;
    let sent = datagrams.send_to(b"\0", name_server);
    ensure(sent.is_err(), "a datagram left the node")?;
    let gateway = SocketAddr::from((GATEWAY, 80));
    ensure(
        TcpStream::connect_timeout(&gateway, CONNECT_TIMEOUT).is_err(),
        "the gateway answers",
    )
}

/// A port that another publishes may be bound, since it is only ours; whether it
/// stays unseen outside is for the scenario to look at.
fn ports() -> Result<(), String> {
    for port in NODE_PORTS {
        let bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port));
        ensure(bound.is_ok(), format!("our own port {port}: {bound:?}"))?;
    }
    Ok(())
}

/// Nothing of the machine can be opened, for reading or writing; made nodes neither.
fn machine() -> Result<(), String> {
    fs::File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
    for path in MACHINE {
        let read = fs::File::open(path).and_then(|mut file| file.read(&mut [0; 16]));
        ensure(read.is_err(), format!("{path} can be read"))?;
        let write = fs::File::options().write(true).open(path);
        ensure(write.is_err(), format!("{path} can be opened for writing"))?;
    }
    Ok(())
}

/// What the kernel lets be set in `/proc/sys` and `/sys` stays the kernel's.
fn settings() -> Result<(), String> {
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/sys/power/state",
    ] {
        ensure(
            fs::write(path, "x").is_err(),
            format!("{path} can be written"),
        )?;
    }
    Ok(())
}
