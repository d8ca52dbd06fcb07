//! Sockets, pipes and terminals, and what travels through them.

use super::Chain;
use crate::{
    objects,
    raw::sys,
    structs::{self, Shape},
    worker::{child, pause, reap},
};

/// Places a control message with descriptors; the message header.
fn rights(descriptors: &[i64], buffer: &mut [u64; 32]) -> [u64; 7] {
    buffer[0] = 16 + 4 * descriptors.len() as u64;
    buffer[1] = 1 | 1 << 32;
    for (at, descriptor) in descriptors.iter().enumerate() {
        let half = u64::from(*descriptor as u32) << (32 * (at % 2));
        buffer[2 + at / 2] |= half;
    }
    let buffer = buffer.as_mut_ptr() as u64;
    let iovec = buffer + 30 * 8;
    [
        0,
        0,
        iovec,
        1,
        buffer,
        16 + 4 * (descriptors.len() as u64).next_multiple_of(2),
        0,
    ]
}

/// Descriptors on their way through sockets that are on their way too, in a circle,
/// and given up there.
pub(super) fn passed_descriptors(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let mut pairs = [[0i32; 2]; 3];
    for pair in &mut pairs {
        let kind = random.of(&[1, 2, 5]) | libc::SOCK_NONBLOCK;
        sys!(
            libc::SYS_socketpair,
            libc::AF_UNIX,
            kind,
            0,
            pair.as_mut_ptr()
        );
    }
    for _ in 0..12 {
        let mut sent = [0i64; 8];
        let count = 1 + random.below(8);
        for descriptor in &mut sent[..count] {
            let pair = random.of(&pairs);
            *descriptor = match random.below(3) {
                0 => i64::from(objects::any_descriptor(random)),
                _ => i64::from(pair[random.below(2)]),
            };
        }
        let mut buffer = [0u64; 32];
        let mut header = rights(&sent[..count], &mut buffer);
        let room = chain.scratch.room(64, random);
        buffer[30] = room;
        buffer[31] = random.below(64) as u64;
        let pair = random.of(&pairs);
        let socket = pair[random.below(2)];
        match random.below(3) {
            0 => {
                header[5] = random.of(&[240, 20, 16, 24, 0]);
                let flags = random.of(&[0, libc::MSG_PEEK, libc::MSG_CMSG_CLOEXEC]);
                if sys!(libc::SYS_recvmsg, socket, header.as_mut_ptr(), flags) >= 0 {
                    close_received(&buffer, header[5]);
                }
            }
            _ => {
                sys!(
                    libc::SYS_sendmsg,
                    socket,
                    header.as_ptr(),
                    libc::MSG_NOSIGNAL
                );
            }
        }
    }
    for socket in pairs.iter().flatten() {
        sys!(libc::SYS_close, *socket);
    }
}

/// Closes the descriptors in the first control message.
fn close_received(buffer: &[u64; 32], len: u64) {
    if len < 20 || buffer[1] != 1 | 1 << 32 {
        return;
    }
    let count = (buffer[0].min(len) as usize).saturating_sub(16) / 4;
    for at in 0..count.min(56) {
        let descriptor = (buffer[2 + at / 2] >> (32 * (at % 2))) as u32;
        if descriptor > 2 {
            sys!(libc::SYS_close, descriptor);
        }
    }
}

/// Epolls that watch each other, and files that are closed while they are watched.
pub(super) fn nested_epoll(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let mut epolls = [0i64; 5];
    for epoll in &mut epolls {
        *epoll = sys!(libc::SYS_epoll_create1, 0);
    }
    let event = sys!(libc::SYS_eventfd2, 0, libc::EFD_NONBLOCK);
    let made = child(chain.shared, || {
        let room = [0u64; 32];
        for epoll in epolls {
            sys!(libc::SYS_epoll_wait, epoll, room.as_ptr(), 10, 5);
        }
    });
    let room = [1u64; 32];
    for _ in 0..24 {
        let epoll = random.of(&epolls);
        let watched = match random.below(4) {
            0 => i64::from(objects::any_descriptor(random)),
            1 => event,
            _ => random.of(&epolls),
        };
        let entry = structs::place(Shape::EpollEvent, chain.scratch, random);
        match random.below(7) {
            0..3 => sys!(libc::SYS_epoll_ctl, epoll, 1, watched, entry),
            3 => sys!(
                libc::SYS_epoll_ctl,
                epoll,
                random.of(&[2, 3]),
                watched,
                entry
            ),
            4 => sys!(libc::SYS_write, event, room.as_ptr(), 8),
            5 => sys!(
                libc::SYS_epoll_wait,
                epoll,
                room.as_ptr(),
                10,
                random.below(2)
            ),
            _ => {
                let at = random.below(epolls.len());
                sys!(libc::SYS_close, epolls[at]);
                epolls[at] = sys!(libc::SYS_epoll_create1, 0);
                0
            }
        };
    }
    reap(made);
    for descriptor in epolls.into_iter().chain([event]) {
        sys!(libc::SYS_close, descriptor);
    }
}

/// A connection over the loopback whose ends are shut, reset and closed at any time.
pub(super) fn connection(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let family = random.of(&[libc::AF_INET, libc::AF_INET, libc::AF_INET6]);
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK;
    let listener = sys!(libc::SYS_socket, family, kind, 0);
    // Any address, a port that the kernel chooses.
    let mut address = [0u64; 4];
    address[0] = family as u64;
    sys!(libc::SYS_bind, listener, address.as_ptr(), 28);
    sys!(libc::SYS_listen, listener, random.below(4));
    let mut len = 28u32;
    sys!(
        libc::SYS_getsockname,
        listener,
        address.as_mut_ptr(),
        &raw mut len
    );
    let mut ends = [0i64; 6];
    for (at, end) in ends.iter_mut().enumerate() {
        if at % 2 == 0 {
            *end = sys!(libc::SYS_socket, family, kind, 0);
            sys!(libc::SYS_connect, *end, address.as_ptr(), 28);
        } else {
            *end = sys!(libc::SYS_accept4, listener, 0, 0, libc::SOCK_NONBLOCK);
        }
    }
    let room = chain.scratch.room(16 << 10, random);
    for _ in 0..20 {
        let end = random.of(&ends);
        let bytes = random.of(&[1, 100, 16 << 10]);
        match random.below(8) {
            0..3 => sys!(libc::SYS_sendto, end, room, bytes, 0x4000, 0, 0),
            3 | 4 => sys!(
                libc::SYS_recvfrom,
                end,
                room,
                bytes,
                random.of(&[0, 2, 0x20]),
                0,
                0
            ),
            5 => sys!(libc::SYS_shutdown, end, random.below(3)),
            6 => {
                let linger = [1u32, random.below(2) as u32];
                sys!(libc::SYS_setsockopt, end, 1, 13, linger.as_ptr(), 8);
                let at = random.below(ends.len());
                sys!(libc::SYS_close, ends[at]);
                ends[at] = sys!(libc::SYS_accept4, listener, 0, 0, libc::SOCK_NONBLOCK);
                0
            }
            _ => sys!(
                libc::SYS_ioctl,
                end,
                random.of(&[0x541b, 0x5411, 0x8905]),
                room
            ),
        };
    }
    for descriptor in ends.into_iter().chain([listener]) {
        sys!(libc::SYS_close, descriptor);
    }
}

/// Bytes that go from files through pipes into sockets without being copied.
pub(super) fn through_pipes(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let mut pipes = [[0i32; 2]; 2];
    for pipe in &mut pipes {
        sys!(libc::SYS_pipe2, pipe.as_mut_ptr(), libc::O_NONBLOCK);
        sys!(
            libc::SYS_fcntl,
            pipe[0],
            1031,
            random.of(&[4096, 65536, 1 << 20])
        );
    }
    let made = child(chain.shared, || {
        let room = [0u8; 512];
        for pipe in pipes {
            sys!(libc::SYS_read, pipe[0], room.as_ptr(), 512);
            sys!(libc::SYS_write, pipe[1], room.as_ptr(), 512);
        }
    });
    let (address, bytes) = objects::mapping(random);
    let pages = [address, bytes];
    for _ in 0..16 {
        let (from, to) = (random.of(&pipes)[0], random.of(&pipes)[1]);
        let other = objects::any_descriptor(random);
        let len = random.of(&[1, 100, 4096, 70_000]);
        match random.below(6) {
            0 => sys!(
                libc::SYS_vmsplice,
                to,
                pages.as_ptr(),
                1,
                random.of(&[0, 2, 8])
            ),
            1 => sys!(libc::SYS_tee, from, to, len, 2),
            2 => sys!(libc::SYS_splice, from, 0, to, 0, len, 2),
            3 => sys!(libc::SYS_splice, from, 0, other, 0, len, 3),
            4 => sys!(libc::SYS_splice, other, 0, to, 0, len, 2),
            _ => sys!(libc::SYS_munmap, address, random.below(2) * 4096),
        };
    }
    reap(made);
    for end in pipes.iter().flatten() {
        sys!(libc::SYS_close, *end);
    }
}

/// A session with a terminal of its own that is hung up.
pub(super) fn terminal(chain: &mut Chain<'_>) {
    let random = &mut *chain.random;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_NONBLOCK;
    let master = sys!(libc::SYS_open, c"/dev/ptmx".as_ptr(), flags, 0);
    let unlocked = 0i32;
    sys!(
        libc::SYS_ioctl,
        master,
        libc::TIOCSPTLCK,
        &raw const unlocked
    );
    let slave = sys!(
        libc::SYS_ioctl,
        master,
        libc::TIOCGPTPEER,
        libc::O_RDWR | libc::O_NOCTTY
    );
    let shared = chain.shared;
    let made = child(shared, || {
        sys!(libc::SYS_setsid);
        sys!(libc::SYS_ioctl, slave, libc::TIOCSCTTY, 0);
        let room = [0u8; 64];
        let second = child(shared, || {
            sys!(libc::SYS_setpgid, 0, 0);
            sys!(libc::SYS_read, slave, room.as_ptr(), 64);
        });
        sys!(libc::SYS_ioctl, slave, libc::TIOCSPGRP, &raw const second);
        sys!(libc::SYS_write, slave, room.as_ptr(), 64);
        sys!(libc::SYS_read, slave, room.as_ptr(), 64);
        reap(second);
    });
    for _ in 0..12 {
        let settings = structs::place(Shape::Termios, chain.scratch, random);
        let room = chain.scratch.room(64, random);
        let keys = b"\x03\x1a\x04text\n\x15\x11\x13\xff\x7f";
        match random.below(6) {
            0 | 1 => sys!(
                libc::SYS_write,
                master,
                keys.as_ptr(),
                random.below(keys.len())
            ),
            2 => sys!(libc::SYS_read, master, room, 64),
            3 => sys!(
                libc::SYS_ioctl,
                slave,
                random.of(&[0x5402, 0x5403, 0x540b, 0x540a]),
                settings
            ),
            4 => sys!(
                libc::SYS_ioctl,
                master,
                random.of(&[0x5420, 0x5414, 0x540f]),
                settings
            ),
            _ => {
                pause(1);
                0
            }
        };
    }
    sys!(libc::SYS_close, master);
    sys!(libc::SYS_close, slave);
    reap(made);
}
