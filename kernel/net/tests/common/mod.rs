//! What several tests need.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test file uses a part of what serves them all"
)]

use machine::Account;
use machine::io::{Sink, Source};
use net::*;
use std::sync::Arc;

pub const INET: u32 = 2;
pub const INET6: u32 = 10;
pub const UNIX: u32 = 1;
pub const STREAM: u32 = 1;
pub const DGRAM: u32 = 2;
pub const SEQPACKET: u32 = 5;

pub fn node() -> Arc<NetNode> {
    NetNode::new()
}

pub fn stack_on(node: &Arc<NetNode>, ports: Vec<Published>, system: bool) -> Arc<NetStack> {
    node.new_stack(StackConfig {
        ports,
        outbound: true,
        raw: false,
        system,
        account: Arc::new(Account::new(16 << 10).expect("few accounts")),
        sockets_max: 20_000,
    })
    .expect("ports are free")
}

pub fn stack() -> Arc<NetStack> {
    stack_on(&node(), Vec::new(), false)
}

pub fn me() -> Identity {
    Identity {
        pid: 7,
        uid: 1000,
        gid: 100,
    }
}

pub fn at(text: &str) -> Address {
    Address::Inet(text.parse().expect("a literal"))
}

pub fn tcp(s: &Arc<NetStack>) -> Arc<Socket> {
    Socket::new(s, INET, STREAM, 0).unwrap()
}

pub fn udp(s: &Arc<NetStack>) -> Arc<Socket> {
    Socket::new(s, INET, DGRAM, 0).unwrap()
}

pub fn listener(s: &Arc<NetStack>, addr: &str, backlog: i32) -> Arc<Socket> {
    let l = tcp(s);
    l.bind(at(addr)).unwrap();
    l.listen(backlog, me()).unwrap();
    l
}

pub fn send(s: &Socket, data: &[u8]) -> Result<usize> {
    s.send(
        &mut Source::kernel(data),
        Outgoing::default(),
        MsgFlags::empty(),
        false,
    )
}

pub fn send_flags(s: &Socket, data: &[u8], flags: MsgFlags) -> Result<usize> {
    s.send(&mut Source::kernel(data), Outgoing::default(), flags, false)
}

pub fn send_now(s: &Socket, data: &[u8]) -> Result<usize> {
    let flags = MsgFlags::DONTWAIT;
    s.send(&mut Source::kernel(data), Outgoing::default(), flags, false)
}

pub fn send_to(s: &Socket, data: &[u8], to: Address) -> Result<usize> {
    let what = Outgoing {
        to: Some(to),
        ..Outgoing::default()
    };
    s.send(&mut Source::kernel(data), what, MsgFlags::empty(), false)
}

pub fn recv(s: &Socket, max: usize) -> Result<Vec<u8>> {
    recv_with(s, max, MsgFlags::empty()).map(|(b, _)| b)
}

pub fn recv_now(s: &Socket, max: usize) -> Result<Vec<u8>> {
    recv_with(s, max, MsgFlags::DONTWAIT).map(|(b, _)| b)
}

pub fn recv_with(s: &Socket, max: usize, flags: MsgFlags) -> Result<(Vec<u8>, Received)> {
    let mut b = vec![0; max];
    let r = s.receive(&mut Sink::kernel(&mut b), flags, false)?;
    b.truncate(r.bytes);
    Ok((b, r))
}

/// Reads to the end.
pub fn read_all(s: &Socket) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let part = recv(s, 64 << 10)?;
        if part.is_empty() {
            return Ok(all);
        }
        all.extend(part);
    }
}

/// Bytes that repeat late and show where they were cut.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_u32;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 8) as u8
        })
        .collect()
}
