//! Datagrams that are sent in parts.

mod common;
use common::*;
use net::*;

#[test]
fn a_datagram_is_sent_in_parts() {
    let s = stack();
    let (u, v) = (udp(&s), udp(&s));
    u.bind(at("127.0.0.1:53")).unwrap();
    let more = |bytes: &[u8]| send_flags(&v, bytes, MsgFlags::MORE);
    assert_eq!(more(b"a"), Err(Error::DestinationRequired));
    v.connect(&u.local(), me(), false).unwrap();
    assert_eq!((more(b"one "), more(b"two ")), (Ok(4), Ok(4)));
    assert_eq!(recv_now(&u, 64), Err(Error::WOULD_BLOCK));
    assert_eq!(send(&v, b"three"), Ok(5));
    assert_eq!(recv(&u, 64).unwrap(), b"one two three");
    // What is too long in all is lost, and no more than that.
    assert_eq!(more(&[0; 60_000]), Ok(60_000));
    assert_eq!(more(&[0; 6000]), Err(Error::MessageSize));
    assert_eq!(send(&v, b"new"), Ok(3));
    assert_eq!(recv(&u, 64).unwrap(), b"new");
}
