use super::*;
use crate::pxe::watch::Quiet;
use proptest::prelude::*;
use std::collections::HashMap;

impl Files for HashMap<&'static str, Bytes> {
    fn open(&self, _: Ipv4Addr, name: &str) -> Option<Bytes> {
        self.get(name).cloned()
    }
}

fn request(words: &[&str]) -> Vec<u8> {
    let mut packet = READ.to_be_bytes().to_vec();
    for word in words {
        packet.extend_from_slice(word.as_bytes());
        packet.push(0);
    }
    packet
}

#[test]
fn options_are_taken_within_our_limits() {
    let packet = request(&[
        "a",
        "OCTET",
        "BlkSize",
        "9000",
        "tsize",
        "0",
        "windowsize",
        "4",
        "x",
        "1",
    ]);
    let wish = parse(&packet).unwrap();
    assert_eq!(
        (wish.name.as_str(), wish.block, wish.window),
        ("a", BLOCK_MAX, 4)
    );
    let agreed = options_packet(&wish.agreed, 12345);
    assert_eq!(
        agreed,
        b"\0\x06BlkSize\x001468\0tsize\x0012345\0windowsize\x004\0"
    );
    assert_eq!(
        parse(&request(&["a", "octet", "blksize", "7"]))
            .unwrap()
            .block,
        BLOCK_DEFAULT
    );
}

#[test]
fn what_is_no_request_for_a_file_is_refused() {
    assert_eq!(parse(&request(&["a", "netascii"])).unwrap_err().0, ILLEGAL);
    assert_eq!(parse(&request(&["", "octet"])).unwrap_err().0, ILLEGAL);
    assert_eq!(parse(b"\0\x02a\0octet\0").unwrap_err().0, ACCESS);
    assert_eq!(parse(b"").unwrap_err().0, ILLEGAL);
}

proptest! {
    #[test]
    fn no_packet_is_too_strange(mut packet in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&packet);
        packet.splice(..0, *b"\0\x01a\0octet\0");
        prop_assert!(parse(&packet).is_ok_and(|wish| wish.block <= BLOCK_MAX));
    }
}

/// Runs a server with one file and `client` against it.
fn with_server<T>(content: Vec<u8>, client: impl AsyncFnOnce(UdpSocket, SocketAddr) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = server.local_addr().unwrap();
        let files: Rc<dyn Files> = Rc::new(HashMap::from([("file", Bytes::from(content))]));
        tokio::task::spawn_local(serve(server, Ipv4Addr::LOCALHOST, files, Rc::new(Quiet)));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        client(socket, address).await
    })
}

/// Fetches the file, losing every `lose`-th packet that comes.
async fn fetch(socket: UdpSocket, server: SocketAddr, words: &[&str], lose: usize) -> Vec<u8> {
    socket.send_to(&request(words), server).await.unwrap();
    let wish = parse(&request(words)).unwrap();
    let (mut file, mut next, mut packet, mut count) = (Vec::new(), 1u16, [0; 2000], 0);
    let (mut in_window, mut is_told) = (0, false);
    loop {
        let (length, from) = socket.recv_from(&mut packet).await.unwrap();
        assert_ne!(from, server, "a transfer has a port of its own");
        count += 1;
        if count % lose == 0 {
            continue;
        }
        let ack = |number: u16| [ACK.to_be_bytes(), number.to_be_bytes()].concat();
        match number(&packet, 0) {
            Some(OPTIONS) => drop(socket.send_to(&ack(0), from).await.unwrap()),
            Some(DATA) if number(&packet, 2) == Some(next) => {
                file.extend_from_slice(&packet[4..length]);
                in_window += 1;
                let is_last = length - 4 < wish.block;
                if is_last || in_window == wish.window {
                    socket.send_to(&ack(next), from).await.unwrap();
                    in_window = 0;
                }
                if is_last {
                    return file;
                }
                (next, is_told) = (next.wrapping_add(1), false);
            }
            Some(DATA) if is_told => {}
            Some(DATA) => {
                is_told = true;
                // Out of order: say once what is there, as RFC 7440 asks.
                socket
                    .send_to(&ack(next.wrapping_sub(1)), from)
                    .await
                    .unwrap();
                in_window = 0;
            }
            other => panic!("{other:?}"),
        }
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7 * 31) as u8).collect()
}

#[test]
fn files_arrive_whole() {
    for (len, words) in [
        (0, &["file", "octet"][..]),
        (512, &["/file", "octet"]),
        (100_000, &["file", "octet", "tsize", "0", "blksize", "1468"]),
        (
            100_000,
            &["file", "octet", "blksize", "1024", "windowsize", "8"],
        ),
        // More blocks than there are numbers.
        (
            70_000 * 8,
            &["file", "octet", "blksize", "8", "windowsize", "32"],
        ),
    ] {
        let expected = content(len);
        let got = with_server(expected.clone(), async |socket, server| {
            fetch(socket, server, words, usize::MAX).await
        });
        assert!(got == expected, "{words:?}");
    }
}

#[test]
fn lost_blocks_are_sent_again() {
    let expected = content(40_000);
    let words = ["file", "octet", "blksize", "1468", "windowsize", "4"];
    let got = with_server(expected.clone(), async |socket, server| {
        fetch(socket, server, &words, 9).await
    });
    assert!(got == expected);
}

#[test]
fn a_missing_file_is_an_error_packet() {
    let packet = with_server(Vec::new(), async |socket, server| {
        socket
            .send_to(&request(&["other", "octet"]), server)
            .await
            .unwrap();
        let mut packet = [0; 100];
        let length = socket.recv(&mut packet).await.unwrap();
        packet[..length].to_vec()
    });
    assert_eq!(packet, error_packet((NOT_FOUND, "there is no such file")));
}
