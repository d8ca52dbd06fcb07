//! A TFTP server that gives files and takes none (RFC 1350), with larger blocks
//! (RFC 2348), several of them under way (RFC 7440), and their file's size (RFC 2349).

use super::Watch;
use bytes::Bytes;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Silence after which blocks are sent again, and how often that is done.
const RETRY: Duration = Duration::from_secs(1);
const TRIES: u32 = 6;
/// What fits a frame of Ethernet: IP, UDP and TFTP take 32 bytes of 1500.
const BLOCK_MAX: usize = 1468;
const BLOCK_DEFAULT: usize = 512;
const WINDOW_MAX: u16 = 32;
/// Transfers at a time.
const TRANSFERS_MAX: usize = 64;

/// Kinds of packets.
const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;

/// Error numbers.
const NOT_FOUND: u16 = 1;
const ACCESS: u16 = 2;
const ILLEGAL: u16 = 4;

/// Where files come from: the content of a name for the client at an address.
pub(crate) trait Files {
    /// The file, if the client gets one of this name.
    fn open(&self, client: Ipv4Addr, name: &str) -> Option<Bytes>;
}

/// A wish for a file.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    name: String,
    block: usize,
    window: u16,
    /// The options we agree to: their names as the client wrote them, for an answer.
    /// The size is filled in when it is known.
    agreed: Vec<(String, Option<usize>)>,
}

/// Why a request is refused.
type Refusal = (u16, &'static str);

/// Reads the first packet of a client.
fn parse(packet: &[u8]) -> Result<Wish, Refusal> {
    match number(packet, 0) {
        Some(READ) => {}
        Some(WRITE) => return Err((ACCESS, "nothing is taken here")),
        _ => return Err((ILLEGAL, "not a request")),
    }
    let mut words = packet.get(2..).unwrap_or_default().split(|byte| *byte == 0);
    let mut word = || words.next().and_then(|word| std::str::from_utf8(word).ok());
    let name = word().filter(|name| !name.is_empty());
    let mode = word().unwrap_or_default();
    let name = name.ok_or((ILLEGAL, "no file is named"))?.to_string();
    if !mode.eq_ignore_ascii_case("octet") {
        return Err((ILLEGAL, "files go as octets only"));
    }
    let mut wish = Wish {
        name,
        block: BLOCK_DEFAULT,
        window: 1,
        agreed: Vec::new(),
    };
    while let (Some(option), Some(value)) = (word(), word()) {
        let value: Option<usize> = value.parse().ok();
        match (option.to_ascii_lowercase().as_str(), value) {
            ("blksize", Some(value @ 8..)) => {
                wish.block = value.min(BLOCK_MAX);
                wish.agreed.push((option.to_string(), Some(wish.block)));
            }
            ("windowsize", Some(value @ 1..)) => {
                wish.window = u16::try_from(value).unwrap_or(u16::MAX).min(WINDOW_MAX);
                let window = usize::from(wish.window);
                wish.agreed.push((option.to_string(), Some(window)));
            }
            ("tsize", Some(_)) => wish.agreed.push((option.to_string(), None)),
            // What is not agreed to is left out of the answer (RFC 2347).
            _ => {}
        }
    }
    Ok(wish)
}

fn number(packet: &[u8], at: usize) -> Option<u16> {
    let two = packet.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(two))
}

fn error_packet((code, words): Refusal) -> Vec<u8> {
    let mut packet = [ERROR.to_be_bytes(), code.to_be_bytes()].concat();
    packet.extend_from_slice(words.as_bytes());
    packet.push(0);
    packet
}

fn options_packet(agreed: &[(String, Option<usize>)], size: usize) -> Vec<u8> {
    let mut packet = OPTIONS.to_be_bytes().to_vec();
    for (name, value) in agreed {
        let value = value.unwrap_or(size).to_string();
        for word in [name, &value] {
            packet.extend_from_slice(word.as_bytes());
            packet.push(0);
        }
    }
    packet
}

/// Answers requests at `socket` for ever; every transfer has a port of its own at
/// `address`.
pub(crate) async fn serve(
    socket: UdpSocket,
    address: Ipv4Addr,
    files: Rc<dyn Files>,
    watch: Rc<dyn Watch>,
) -> io::Result<()> {
    let mut packet = [0; 2048];
    let mut transfers: Vec<tokio::task::JoinHandle<()>> = Vec::new();
    loop {
        let Ok((length, client)) = socket.recv_from(&mut packet).await else {
            continue; // an ICMP message about an earlier answer
        };
        transfers.retain(|transfer| !transfer.is_finished());
        if transfers.len() >= TRANSFERS_MAX {
            continue; // it asks again
        }
        let packet = packet[..length].to_vec();
        let (files, watch) = (files.clone(), watch.clone());
        transfers.push(tokio::task::spawn_local(async move {
            if let Err(error) = transfer(&packet, address, client, &*files, &*watch).await {
                watch.note(client.ip(), &format!("TFTP ended: {error}"));
            }
        }));
    }
}

/// Gives the client what its first packet asks for.
async fn transfer(
    packet: &[u8],
    address: Ipv4Addr,
    client: SocketAddr,
    files: &dyn Files,
    watch: &dyn Watch,
) -> io::Result<()> {
    let socket = UdpSocket::bind((address, 0)).await?;
    socket.connect(client).await?;
    let SocketAddr::V4(v4) = client else {
        return Ok(());
    };
    let found = parse(packet).and_then(|wish| {
        // Some firmware writes a slash before the name.
        let name = wish.name.trim_start_matches('/');
        let content = files.open(*v4.ip(), name);
        let content = content.ok_or((NOT_FOUND, "there is no such file"))?;
        Ok((wish, content))
    });
    let (wish, content) = match found {
        Ok(found) => found,
        Err(refusal) => {
            watch.note(client.ip(), &format!("TFTP refused: {}", refusal.1));
            socket.send(&error_packet(refusal)).await?;
            return Ok(());
        }
    };
    let mut sender = Sender {
        socket,
        content,
        block: wish.block,
        window: u64::from(wish.window),
    };
    if !wish.agreed.is_empty() {
        let agreed = options_packet(&wish.agreed, sender.content.len());
        if !sender.agree(&agreed).await? {
            return Ok(());
        }
    }
    if sender
        .send(|done| watch.progress(client.ip(), &wish.name, done))
        .await?
    {
        watch.done(client.ip(), &wish.name, sender.content.len() as u64);
    }
    Ok(())
}

/// One file on its way.
struct Sender {
    socket: UdpSocket,
    content: Bytes,
    block: usize,
    window: u64,
}

impl Sender {
    /// Tells the options until the client agrees. Whether it does.
    async fn agree(&self, packet: &[u8]) -> io::Result<bool> {
        for _ in 0..TRIES {
            self.socket.send(packet).await?;
            match self.acknowledged(0, 0).await? {
                Heard::Block(_) => return Ok(true),
                Heard::Nothing => {}
                Heard::End => return Ok(false),
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Sends all blocks, telling of the bytes that have arrived. Whether all have.
    async fn send(&mut self, mut tell: impl FnMut(u64)) -> io::Result<bool> {
        // The last block is shorter than the others, if need be empty.
        let last = (self.content.len() / self.block) as u64 + 1;
        let (mut arrived, mut silence) = (0, 0);
        while arrived < last {
            let end = last.min(arrived + self.window);
            for number in arrived + 1..=end {
                self.socket.send(&self.data_packet(number)).await?;
            }
            // What is acknowledged again asks for nothing: to answer it would double
            // every packet from here on (RFC 1123, 4.2.3.1).
            match self.acknowledged(arrived + 1, end).await? {
                Heard::Block(number) if number > arrived => {
                    (arrived, silence) = (number, 0);
                    tell((arrived * self.block as u64).min(self.content.len() as u64));
                }
                Heard::End => return Ok(false),
                Heard::Block(_) | Heard::Nothing => {
                    silence += 1;
                    if silence >= TRIES {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
        Ok(true)
    }

    fn data_packet(&self, number: u64) -> Vec<u8> {
        let start = (number as usize - 1) * self.block;
        let end = self.content.len().min(start + self.block);
        let mut packet = [DATA.to_be_bytes(), (number as u16).to_be_bytes()].concat();
        packet.extend_from_slice(&self.content[start.min(end)..end]);
        packet
    }

    /// Waits for an acknowledgement of one of the blocks `from` to `to`. Block numbers
    /// on the wire begin again after 65535.
    async fn acknowledged(&self, from: u64, to: u64) -> io::Result<Heard> {
        let heard = timeout(RETRY, async {
            let mut packet = [0; 600];
            loop {
                let length = self.socket.recv(&mut packet).await?;
                let packet = &packet[..length];
                match (number(packet, 0), number(packet, 2)) {
                    (Some(ACK), Some(block)) => {
                        let found = (from..=to).find(|number| *number as u16 == block);
                        if let Some(block) = found {
                            return Ok(Heard::Block(block));
                        }
                    }
                    // A client that has looked at the size alone ends so.
                    (Some(ERROR), _) => return Ok(Heard::End),
                    _ => {}
                }
            }
        });
        heard.await.unwrap_or(Ok(Heard::Nothing))
    }
}

/// What a client said.
enum Heard {
    /// All up to this block has arrived.
    Block(u64),
    /// Nothing in time.
    Nothing,
    /// That it wants no more.
    End,
}

#[cfg(test)]
#[path = "tftp_tests.rs"]
mod tests;
