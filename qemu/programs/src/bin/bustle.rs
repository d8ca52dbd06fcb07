//! A program on tokio that uses much of it at once, and prints what came of it: the
//! same on every machine that does what tokio expects.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};
use tokio::{
    fs,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream},
    process::Command,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{interval, sleep, timeout},
};

/// Clients of the echo server, and what each sends.
const CLIENTS: u64 = 32;
const SENT_BYTES: usize = 300_000;
/// Threads that compute, and the steps of each: several turns of the scheduler.
const COMPUTERS: u64 = 12;
const STEPS: u32 = 400_000;

fn main() -> ExitCode {
    if let Some(status) = std::env::args().nth(1) {
        // Started by `processes`.
        print!("child");
        return ExitCode::from(status.parse::<u8>().unwrap_or(0));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(3)
        .enable_all()
        .build();
    match runtime.and_then(|runtime| runtime.block_on(live())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn live() -> io::Result<()> {
    println!("echo: {:016x}", echo().await?);
    println!("unix: {:016x}", unix().await?);
    println!("datagrams: {}", datagrams().await?);
    println!("channels: {}", channels().await);
    println!("blocking: {}", blocking().await);
    println!("numbers: {:016x}", numbers().await?);
    println!("timers: {}", timers().await);
    println!("files: {}", files().await?);
    println!("processes: {}", processes().await?);
    println!("signals: {}", signals().await?);
    Ok(())
}

/// FNV-1a of 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn content(seed: u64) -> Vec<u8> {
    let numbers = (0..SENT_BYTES as u64).map(|at| (at.wrapping_mul(seed + 7) >> 3) as u8);
    numbers.collect()
}

/// Sums what tasks return, in an order that does not matter.
async fn sum(mut tasks: JoinSet<io::Result<u64>>) -> io::Result<u64> {
    let mut sum = 0u64;
    while let Some(found) = tasks.join_next().await {
        sum = sum.wrapping_add(found??);
    }
    Ok(sum)
}

/// Many clients at once get back over TCP what they sent.
async fn echo() -> io::Result<u64> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let address = server.local_addr()?;
    let serving = tokio::spawn(async move {
        while let Ok((mut client, _)) = server.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    let mut clients = JoinSet::new();
    for seed in 0..CLIENTS {
        clients.spawn(async move { exchange(TcpStream::connect(address).await?, seed).await });
    }
    let sum = sum(clients).await;
    serving.abort();
    sum
}

/// Sends and receives at once, and returns the checksum of what came back.
async fn exchange(stream: impl AsyncStream, seed: u64) -> io::Result<u64> {
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        to.write_all(&content(seed)).await?;
        to.shutdown().await
    });
    let mut back = Vec::new();
    from.read_to_end(&mut back).await?;
    sending.await??;
    if back != content(seed) {
        return Err(io::Error::other("other bytes came back"));
    }
    Ok(checksum(&back))
}

trait AsyncStream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static> AsyncStream for T {}

/// The same over a unix socket.
async fn unix() -> io::Result<u64> {
    let path = std::env::temp_dir().join(format!("bustle-{}", std::process::id()));
    let server = UnixListener::bind(&path)?;
    let serving = tokio::spawn(async move {
        let (mut client, _) = server.accept().await?;
        let (mut from, mut to) = client.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let sum = exchange(UnixStream::connect(&path).await?, 99).await;
    serving.await??;
    std::fs::remove_file(&path)?;
    sum
}

/// Datagrams in turn, each answered before the next.
async fn datagrams() -> io::Result<u64> {
    let (one, other) = (
        UdpSocket::bind("127.0.0.1:0").await?,
        UdpSocket::bind("127.0.0.1:0").await?,
    );
    let mut sum = 0;
    for number in 0..100u64 {
        one.send_to(&number.to_le_bytes(), other.local_addr()?)
            .await?;
        let mut bytes = [0; 8];
        let (length, from) = other.recv_from(&mut bytes).await?;
        if length != bytes.len() || from != one.local_addr()? {
            return Err(io::Error::other("another datagram came"));
        }
        sum += u64::from_le_bytes(bytes);
    }
    Ok(sum)
}

/// Many senders, one receiver, an answer for each.
async fn channels() -> u64 {
    let (sender, mut receiver) = mpsc::channel::<(u64, oneshot::Sender<u64>)>(4);
    for number in 0..200 {
        let sender = sender.clone();
        tokio::spawn(async move {
            let (answer, answered) = oneshot::channel();
            let _ = sender.send((number, answer)).await;
            answered.await
        });
    }
    drop(sender);
    let mut sum = 0;
    while let Some((number, answer)) = receiver.recv().await {
        sum += number;
        let _ = answer.send(number);
    }
    sum
}

/// Work on threads of its own.
async fn blocking() -> u64 {
    let mut tasks = JoinSet::new();
    for number in 0..24u64 {
        tasks.spawn_blocking(move || {
            std::thread::sleep(Duration::from_millis(5));
            (0..10_000u64).fold(number, |sum, step| sum.wrapping_mul(31).wrapping_add(step))
        });
    }
    let results = tasks.join_all().await;
    results.into_iter().fold(0, u64::wrapping_add)
}

/// More threads than CPUs, each with floating-point registers full of numbers that
/// small errors grow in: what a thread loses when another one runs shows in the sum.
async fn numbers() -> io::Result<u64> {
    let mut tasks = JoinSet::new();
    for seed in 1..=COMPUTERS {
        tasks.spawn_blocking(move || Ok(chaos(seed)));
    }
    sum(tasks).await
}

/// Steps of eight logistic maps side by side, and what bits they end with.
fn chaos(seed: u64) -> u64 {
    let mut lanes = [0.0; 8];
    for (lane, x) in (1..).zip(&mut lanes) {
        *x = f64::from(lane) / (10.0 + seed as f64);
    }
    for _ in 0..STEPS {
        for x in &mut lanes {
            *x = 3.9 * *x * (1.0 - *x);
        }
    }
    lanes
        .iter()
        .fold(seed, |sum, x| checksum(&(sum ^ x.to_bits()).to_ne_bytes()))
}

/// Timers fire in the order of their times, not early; what is late is given up.
async fn timers() -> String {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for delay in [300u64, 100, 200] {
        tasks.spawn(async move {
            sleep(Duration::from_millis(delay)).await;
            delay
        });
    }
    let mut order = Vec::new();
    while let Some(Ok(delay)) = tasks.join_next().await {
        order.push(delay.to_string());
    }
    let mut ticks = interval(Duration::from_millis(10));
    for _ in 0..10 {
        ticks.tick().await;
    }
    let given_up = timeout(Duration::from_millis(20), sleep(Duration::from_secs(60))).await;
    let early = start.elapsed() < Duration::from_millis(410);
    format!(
        "{} early {early} given up {}",
        order.join(" "),
        given_up.is_err()
    )
}

/// Files in a folder: written, renamed, listed, read, removed.
async fn files() -> io::Result<String> {
    let folder = std::env::temp_dir().join(format!("bustle-files-{}", std::process::id()));
    fs::create_dir_all(&folder).await?;
    let listed = fill(&folder).await;
    fs::remove_dir_all(&folder).await?;
    listed
}

async fn fill(folder: &Path) -> io::Result<String> {
    for number in 0..8u64 {
        fs::write(folder.join(format!("new-{number}")), content(number)).await?;
    }
    fs::rename(folder.join("new-0"), folder.join("renamed")).await?;
    let mut found = BTreeMap::new();
    let mut entries = fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        let bytes = fs::read(entry.path()).await?;
        found.insert(entry.file_name(), (bytes.len(), checksum(&bytes)));
    }
    Ok(format!("{found:x?}"))
}

/// Children: what they print and how they end.
async fn processes() -> io::Result<String> {
    let mut lines = Vec::new();
    for status in [0, 3] {
        let child = Command::new("/proc/self/exe")
            .arg(status.to_string())
            .stdin(Stdio::null())
            .output()
            .await?;
        let said = String::from_utf8_lossy(&child.stdout).into_owned();
        lines.push(format!("{said} {:?}", child.status.code()));
    }
    Ok(lines.join(", "))
}

/// A signal to ourselves arrives as an event.
async fn signals() -> io::Result<&'static str> {
    let mut heard = signal(SignalKind::user_defined1())?;
    let own = rustix::process::getpid();
    rustix::process::kill_process(own, rustix::process::Signal::USR1)?;
    match timeout(Duration::from_secs(10), heard.recv()).await {
        Ok(Some(())) => Ok("heard"),
        _ => Err(io::Error::other("the signal did not come")),
    }
}
