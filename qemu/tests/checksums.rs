//! Checksums of everything that leaves a node, added up outside of it: devices write most
//! of them, and what they make of that is seen on the line only.

use anyhow::{Context as _, Result, bail, ensure};
use skep_qemu::{
    Artifacts, Machine, Node,
    ability::has_device,
    ramdisk::{Ramdisk, port, scripted},
    seconds,
    twin::Packages,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

const TOOLS: [&str; 6] = [
    "iproute2",
    "socat",
    "python3-minimal",
    "bash",
    "coreutils",
    "grep",
];
const ECHO: u16 = 8081;
/// Bytes that go there and back: no whole number of segments.
const BYTES: usize = 300_001;
/// QEMU's usual hardware address.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

const ECHOES: &str = "exec socat TCP-LISTEN:8081,fork,reuseaddr PIPE\n";

/// Datagrams and segments of both versions of IP, of even and odd lengths; then a frame
/// that is the program's own, with a checksum that is wrong, as it shall stay.
const SPEAKS: &str = r#"
for n in $(seq 100); do ip route | grep -q default && break; sleep 0.2; done
for n in $(seq 100); do ip -6 -br addr show dev eth0 | grep -q fec0 && break; sleep 0.2; done
for length in 1 2 3 999 1000 1471 1400; do
    head -c $length /dev/zero | tr '\0' x > /tmp/text
    socat -u OPEN:/tmp/text UDP4-DATAGRAM:10.0.2.2:9
    socat -u OPEN:/tmp/text UDP6-DATAGRAM:[ff12::77]:5001 || true
done
for n in 1 2 3; do
    socat -u /dev/null TCP6:[fec0::2]:9,connect-timeout=2 2>/dev/null || true
    socat -u /dev/null TCP4:10.0.2.2:9,connect-timeout=2 2>/dev/null || true
done
python3 - <<'P'
import socket
own = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
own.bind(("eth0", 0))
own.send(bytes.fromhex(
    "ffffffffffff525400123456" "0800" "4500001e000000004011" "bad1" "0a00020f" "0a000202"
    "10e10009000a" "bad2" "6869"))
P
echo done
"#;
/// The frame of the program, as far as it is the program's.
const OWN: [u8; 44] = [
    255, 255, 255, 255, 255, 255, 0x52, 0x54, 0, 0x12, 0x34, 0x56, 8, 0, 0x45, 0, 0, 0x1e, 0, 0, 0,
    0, 0x40, 0x11, 0xba, 0xd1, 10, 0, 2, 15, 10, 0, 2, 2, 0x10, 0xe1, 0, 9, 0, 10, 0xba, 0xd2,
    0x68, 0x69,
];

fn start(nic: &str, capture: &str) -> Result<Node> {
    let packages = Packages::pack("checksums", &TOOLS)?;
    let image = packages.image(&[
        ("/echoes", 0o755, ECHOES.as_bytes()),
        ("/speaks", 0o755, SPEAKS.as_bytes()),
        ("/tmp/.folder", 0o644, b""),
    ])?;
    let mut echoes = scripted("echoes", &image);
    echoes.ports = vec![port(ECHO, ECHO)];
    let mut speaks = scripted("speaks", &image);
    speaks.raw_network = true;
    let mut ramdisk = Ramdisk::new()?;
    ramdisk.capsule(&echoes, &image)?;
    ramdisk.capsule(&speaks, &image)?;
    let name = format!("checksums-{nic}");
    let path = ramdisk.write(&name)?;
    let mib = u32::try_from(fs::metadata(&path)?.len() >> 20)?;
    let dump = format!("filter-dump,id=dump,netdev=net0,file={capture}");
    let machine = Machine::new(&name)
        .cpus(2)
        .memory_mib(320 + mib)
        .ramdisk(&path)
        .nic(nic)
        .option("-object", &dump);
    let mut node = machine.start()?;
    node.wait_http(8080, "/", seconds(90))?;
    Ok(node)
}

/// Sends bytes to the node and gets them back.
fn echo(node: &Node) -> Result<()> {
    let sent: Vec<u8> = (0..BYTES as u32)
        .map(|n| (n.wrapping_mul(0x9e37_79b9) >> 24) as u8)
        .collect();
    let mut stream = TcpStream::connect(node.address(ECHO))?;
    stream.set_read_timeout(Some(seconds(60)))?;
    let mut back = stream.try_clone()?;
    let reader = thread::spawn(move || -> Result<Vec<u8>> {
        let mut got = Vec::new();
        back.read_to_end(&mut got)?;
        Ok(got)
    });
    stream.write_all(&sent)?;
    stream.shutdown(Shutdown::Write)?;
    let got = reader.join().expect("the reader does not panic")?;
    ensure!(got == sent, "{} other bytes came back", got.len());
    Ok(())
}

/// Frames of a capture, as `pcap` files of the usual byte order have them.
fn frames(capture: &[u8]) -> Vec<&[u8]> {
    let mut rest = capture.get(24..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((frame, next)) = after.split_at_checked(len) else {
            break;
        };
        frames.push(frame);
        rest = next;
    }
    frames
}

/// The packets whole that left in pieces: before version 8, QEMU's e1000e makes pieces of IP
/// of long segments, where real ones make segments.
fn whole(frames: &[&[u8]]) -> Result<Vec<Vec<u8>>> {
    let (mut packets, mut begun): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
    for frame in frames {
        let place = match frame[12..14] {
            [8, 0] => u16::from_be_bytes([frame[20], frame[21]]),
            _ => 0,
        };
        let (follows, at) = (place & 0x2000 != 0, usize::from(place & 0x1fff) * 8);
        let mut packet = match begun.take() {
            Some(mut begun) => {
                ensure!(
                    at == begun.len() - 34,
                    "the next piece is another: {frame:02x?}"
                );
                ensure!(
                    frame[14 + 4..14 + 6] == begun[14 + 4..14 + 6],
                    "another number"
                );
                ensure!(sum(&[&frame[14..34]]) == 0xffff, "the header of a piece");
                let len = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
                begun.extend_from_slice(&frame[34..14 + len]);
                begun
            }
            None => {
                ensure!(at == 0, "no first piece: {frame:02x?}");
                ensure!(
                    frame[12..14] != [8, 0] || sum(&[&frame[14..34]]) == 0xffff,
                    "a header"
                );
                frame.to_vec()
            }
        };
        if follows {
            begun = Some(packet);
            continue;
        }
        if at > 0 {
            let len = (packet.len() - 14) as u16;
            packet[16..18].copy_from_slice(&len.to_be_bytes());
            packet[20..22].copy_from_slice(&[0, 0]);
            packet[24..26].copy_from_slice(&[0, 0]);
            let header = !sum(&[&packet[14..34]]);
            packet[24..26].copy_from_slice(&header.to_be_bytes());
        }
        packets.push(packet);
    }
    ensure!(begun.is_none(), "the last piece is missing");
    Ok(packets)
}

/// The sum of RFC 1071: 0xffff over what has its checksum in it.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            total += u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// What a frame is, once its checksums have been found right; `None` if it has none.
fn verify(frame: &[u8]) -> Result<Option<&'static str>> {
    let packet = &frame[14..];
    let (addresses, protocol, segment) = match frame[12..14] {
        [8, 0] => {
            let header = usize::from(packet[0] & 15) * 4;
            let len = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
            ensure!(sum(&[&packet[..header]]) == 0xffff, "the header");
            (&packet[12..20], packet[9], &packet[header..len])
        }
        [0x86, 0xdd] => {
            let len = usize::from(u16::from_be_bytes([packet[4], packet[5]]));
            (&packet[8..40], packet[6], &packet[40..40 + len])
        }
        _ => return Ok(None),
    };
    let is_six = addresses.len() == 32;
    let what = match (protocol, is_six) {
        (6, false) => "TCP over IPv4",
        (6, true) => "TCP over IPv6",
        (17, false) => "UDP over IPv4",
        (17, true) => "UDP over IPv6",
        (58, true) => "ICMPv6",
        _ => return Ok(None),
    };
    if protocol == 17 && segment[6..8] == [0, 0] {
        bail!("{what}: none");
    }
    let len = (segment.len() as u32).to_be_bytes();
    let total = sum(&[addresses, &[0, protocol], &len, segment]);
    ensure!(total == 0xffff, "{what}: the sum is {total:04x}");
    Ok(Some(what))
}

/// A node with this device speaks, and all that it says adds up.
fn adds_up(nic: &str) -> Result<()> {
    let file = Artifacts::new()
        .logs()
        .join(format!("checksums-{nic}.pcap"));
    let node = start(nic, &file.display().to_string())?;
    let how = node.api().wait_finished("speaks", seconds(180))?;
    let log = node.api().log("speaks")?;
    ensure!(how == "exit code 0", "speaks ended with {how}: {log}");
    // Nobody may listen yet.
    let deadline = Instant::now() + seconds(60);
    while let Err(error) = echo(&node) {
        ensure!(Instant::now() < deadline, "no echo: {error}");
        thread::sleep(Duration::from_millis(200));
    }
    drop(node);
    let capture = fs::read(file)?;
    let (mut seen, mut carried) = (BTreeMap::new(), 0);
    let all = frames(&capture);
    let ours = all.into_iter().filter(|f| f[6..12] == MAC);
    let (own, ours): (Vec<_>, Vec<_>) = ours.partition(|f| f.starts_with(&OWN));
    let own = own.len();
    for frame in &whole(&ours)? {
        let what = verify(frame).with_context(|| format!("a frame: {frame:02x?}"))?;
        if let Some(what) = what {
            *seen.entry(what).or_insert(0usize) += 1;
            if what == "TCP over IPv4" {
                carried += frame.len();
            }
        }
    }
    println!("{nic}: {seen:?}");
    ensure!(own == 1, "the program's own frame was seen {own} times");
    ensure!(carried > BYTES, "{carried} bytes of TCP over IPv4");
    for (what, least) in [
        ("TCP over IPv4", 10),
        ("TCP over IPv6", 1),
        ("UDP over IPv4", 7),
        ("UDP over IPv6", 6),
    ] {
        let count = seen.get(what).copied().unwrap_or(0);
        ensure!(count >= least, "{count} frames of {what}");
    }
    Ok(())
}

#[test]
fn virtio_net_sends_right_ones() -> Result<()> {
    adds_up("virtio-net-pci")
}

#[test]
fn e1000e_sends_right_ones() -> Result<()> {
    adds_up("e1000e")
}

/// The 82576, which QEMU has from 8.0 on.
#[test]
fn igb_sends_right_ones() -> Result<()> {
    if !has_device("igb")? {
        println!("not run: this QEMU has no igb");
        return Ok(());
    }
    adds_up("igb")
}

#[test]
#[ignore = "long"]
fn e1000_sends_right_ones() -> Result<()> {
    adds_up("e1000")
}
