//! Messages that leave as many datagrams (`UDP_SEGMENT`), as Linux answers them.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use machine::io::Source;
use net::udp::Header;
use net::*;
use std::sync::Arc;

const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

/// A socket that sends to another one of its own stack at `ip`.
fn local(ip: &str) -> (Arc<Socket>, Arc<Socket>) {
    let s = stack();
    let (from, to) = match ip {
        "::1" => [0, 1].map(|_| Socket::new(&s, 10, 2, 0).unwrap()).into(),
        _ => (udp(&s), udp(&s)),
    };
    let name = match ip {
        "::1" => "[::1]:9000",
        _ => "127.0.0.1:9000",
    };
    to.bind(at(name)).unwrap();
    from.connect(&at(name), me(), false).unwrap();
    (from, to)
}

fn set(s: &Socket, size: i32) -> Result<()> {
    s.set_option(SOL_UDP, UDP_SEGMENT, &size.to_ne_bytes())
}

fn told(s: &Socket) -> i32 {
    let value = s.option(SOL_UDP, UDP_SEGMENT).unwrap();
    i32::from_ne_bytes(value.try_into().unwrap())
}

/// Sends `data`, with a control message that says how to cut it or without.
fn send_cut(s: &Socket, data: &[u8], segment: Option<u16>, flags: MsgFlags) -> Result<usize> {
    let what = Outgoing {
        header: Header {
            segment,
            ..Header::default()
        },
        ..Outgoing::default()
    };
    s.send(&mut Source::kernel(data), what, flags, true)
}

/// What waits at `s`.
fn got(s: &Socket) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| recv_now(s, 70_000).ok()).collect()
}

fn lengths(s: &Socket) -> Vec<usize> {
    got(s).iter().map(Vec::len).collect()
}

#[test]
fn the_option_is_a_size_and_putting_together_is_refused() {
    let (s, _) = local("127.0.0.1");
    assert_eq!(told(&s), 0);
    for size in [1, 65_535, 0, 1200] {
        set(&s, size).unwrap();
        assert_eq!(told(&s), size);
    }
    for size in [-1, 65_536, 1 << 20] {
        assert!(matches!(set(&s, size), Err(Error::INVALID)));
    }
    assert_eq!(told(&s), 1200);
    let short = s.set_option(SOL_UDP, UDP_SEGMENT, &[1, 0]);
    assert!(matches!(short, Err(Error::INVALID)));
    let on = 1i32.to_ne_bytes();
    let gro = s.set_option(SOL_UDP, UDP_GRO, &on);
    assert!(matches!(gro, Err(Error::NoOption)));
    assert!(matches!(s.option(SOL_UDP, UDP_GRO), Err(Error::NoOption)));
    let stream = tcp(&stack());
    assert!(matches!(set(&stream, 1200), Err(Error::NoOption)));
}

#[test]
fn a_message_is_cut_over_loopback() {
    for ip in ["127.0.0.1", "::1"] {
        let (s, to) = local(ip);
        set(&s, 1000).unwrap();
        let data = pattern(3500);
        assert_eq!(send(&s, &data).unwrap(), 3500);
        let parts = got(&to);
        assert_eq!(parts.concat(), data);
        let each: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(each, [1000, 1000, 1000, 500], "{ip}");
        for (len, sizes) in [(0, vec![0]), (1000, vec![1000]), (1001, vec![1000, 1])] {
            assert_eq!(send(&s, &data[..len]).unwrap(), len);
            assert_eq!(lengths(&to), sizes);
        }
        set(&s, 0).unwrap();
        send(&s, &data).unwrap();
        assert_eq!(lengths(&to), [3500]);
    }
}

#[test]
fn a_control_message_goes_before_the_option() {
    let (s, to) = local("127.0.0.1");
    let data = pattern(2500);
    let none = MsgFlags::empty();
    assert_eq!(send_cut(&s, &data, Some(1000), none).unwrap(), 2500);
    assert_eq!(lengths(&to), [1000, 1000, 500]);
    set(&s, 1000).unwrap();
    send_cut(&s, &data, Some(0), none).unwrap();
    assert_eq!(lengths(&to), [2500]);
    send_cut(&s, &data, Some(2000), none).unwrap();
    assert_eq!(lengths(&to), [2000, 500]);
}

#[test]
fn parts_are_cut_as_the_first_one_says() {
    let (s, to) = local("127.0.0.1");
    let (first, last) = (pattern(1500), pattern(1000));
    let more = |segment| send_cut(&s, &first, segment, MsgFlags::MORE).unwrap();
    let end = |segment| send_cut(&s, &last, segment, MsgFlags::empty()).unwrap();
    more(Some(700));
    end(None);
    assert_eq!(lengths(&to), [700, 700, 700, 400]);
    more(None);
    end(Some(700));
    assert_eq!(lengths(&to), [2500]);
    set(&s, 1000).unwrap();
    more(None);
    set(&s, 0).unwrap();
    end(None);
    assert_eq!(lengths(&to), [1000, 1000, 500]);
}

#[test]
fn too_many_and_too_long_ones_are_refused() {
    let (s, to) = local("::1");
    set(&s, 1).unwrap();
    assert_eq!(send(&s, &pattern(128)).unwrap(), 128);
    assert_eq!(lengths(&to), [1; 128]);
    assert!(matches!(send(&s, &pattern(129)), Err(Error::INVALID)));
    set(&s, 65_535).unwrap();
    assert!(matches!(
        send(&s, &pattern(65_507)),
        Err(Error::MessageSize)
    ));
    assert_eq!(lengths(&to), []);
}

#[test]
fn datagrams_are_cut_over_the_wire_and_never_in_fragments() {
    let (a, b, _cable) = joined(Faults::default());
    let to = udp(&stack_on(&b, publish(Protocol::Udp, 53, 5353), false));
    to.bind(at("0.0.0.0:53")).unwrap();
    let s = udp(&stack_on(&a, vec![], false));
    s.connect(&at("10.0.0.2:5353"), me(), false).unwrap();
    let room = a.mtu() - 28;
    set(&s, i32::try_from(room).unwrap()).unwrap();
    let data = pattern(room * 3 + 100);
    assert_eq!(send(&s, &data).unwrap(), data.len());
    let parts: Vec<Vec<u8>> = (0..4).map(|_| recv(&to, 70_000).unwrap()).collect();
    assert_eq!(parts.concat(), data);
    assert!(parts.iter().take(3).all(|part| part.len() == room));
    // What would leave in fragments is refused, also as one datagram.
    set(&s, i32::try_from(room + 1).unwrap()).unwrap();
    for len in [room + 1, room * 2] {
        let refused = send(&s, &data[..len]);
        assert!(matches!(refused, Err(Error::MessageSize)), "{len}");
    }
    set(&s, 0).unwrap();
    assert_eq!(send(&s, &data).unwrap(), data.len());
    assert_eq!(recv(&to, 70_000).unwrap(), data);
}
