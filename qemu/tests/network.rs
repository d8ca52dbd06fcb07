//! The network beyond streams and datagrams, with the tools of Debian's packages: ping,
//! raw and packet sockets, groups, and what `ip` shows.

use anyhow::{Context as _, Result, ensure};
use skep_api::manifest::Manifest;
use skep_qemu::{
    Machine, Node,
    ramdisk::{Image, Ramdisk, scripted},
    seconds,
    twin::Packages,
};
use std::fs;

/// Tools that are in every image here.
const TOOLS: [&str; 9] = [
    "iputils-ping",
    "iputils-arping",
    "iproute2",
    "socat",
    "python3-minimal",
    "util-linux",
    "bash",
    "coreutils",
    "grep",
];
/// A group, as an Ethernet address and as an IPv4 address in a packet.
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];
const GROUP: [u8; 4] = [239, 1, 2, 3];

/// Packs scripts by the names of their capsules.
fn image(scripts: &[(&str, &str)]) -> Result<Image> {
    let packages = Packages::pack("network", &TOOLS)?;
    let paths: Vec<_> = scripts.iter().map(|(name, _)| format!("/{name}")).collect();
    let files: Vec<(&str, u16, &[u8])> = paths
        .iter()
        .zip(scripts)
        .map(|(path, (_, text))| (path.as_str(), 0o755, text.as_bytes()))
        .chain([("/tmp/.folder", 0o644, &b""[..])])
        .collect();
    packages.image(&files)
}

fn start(
    name: &str,
    capsules: &[(Manifest, &Image)],
    change: fn(Machine) -> Machine,
) -> Result<Node> {
    let mut ramdisk = Ramdisk::new()?;
    for (capsule, image) in capsules {
        ramdisk.capsule(capsule, image)?;
    }
    let path = ramdisk.write(name)?;
    let mib = u32::try_from(fs::metadata(&path)?.len() >> 20)?;
    let machine = Machine::new(name)
        .cpus(2)
        .memory_mib(320 + mib)
        .ramdisk(&path);
    let mut node = change(machine).start()?;
    node.wait_http(8080, "/", seconds(60))?;
    Ok(node)
}

/// What a capsule printed, once it has ended with status 0.
fn printed(node: &Node, name: &str) -> Result<String> {
    let ended = node.api().wait_finished(name, seconds(180));
    let log = node.api().log(name)?;
    let how = ended.with_context(|| format!("{name} printed: {log}"))?;
    ensure!(how == "exit code 0", "{name} ended with {how}: {log}");
    Ok(log)
}

const PLAIN: &str = r#"
for n in $(seq 100); do ip route | grep -q default && break; sleep 0.2; done
setpriv --reuid=1000 --regid=1000 --clear-groups ping -c 2 -i 0.2 -W 10 10.0.2.2 2>&1 | grep -E 'received|WARN'
ping -c 2 -i 0.2 -W 10 127.0.0.1 2>&1 | grep -E 'received|WARN'
ping -c 2 -i 0.2 -W 10 ::1 2>&1 | grep -E 'received|WARN'
arping -c 1 -I eth0 10.0.2.2 2>&1 | head -n 1
python3 -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)' 2>&1 | tail -n 1
ip -4 -br addr | tr -s ' '
ip route | tr -s ' '
ip route get 10.0.2.9 | head -n 1 | tr -s ' '
ip link show dev eth0 | grep -oE 'eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500|link/ether .*'
ip link show dev nosuch 2>&1
ip neigh | grep -oE '10.0.2.2 dev eth0 lladdr [0-9a-f:]*'
"#;

const PLAIN_PRINTS: &str = "\
2 packets transmitted, 2 received, 0% packet loss
2 packets transmitted, 2 received, 0% packet loss
2 packets transmitted, 2 received, 0% packet loss
arping: socket: Operation not permitted
PermissionError: [Errno 1] Operation not permitted
lo UNKNOWN 127.0.0.1/8
eth0 UP 10.0.2.15/24
10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15
default via 10.0.2.2 dev eth0 proto kernel
10.0.2.9 dev eth0 src 10.0.2.15
eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
link/ether 52:54:00:12:34:56 brd ff:ff:ff:ff:ff:ff
Device \"nosuch\" does not exist.
10.0.2.2 dev eth0 lladdr 52:55:0a:00:02:02
";

const RAW: &str = r#"
for n in $(seq 100); do ip route | grep -q default && break; sleep 0.2; done
arping -c 2 -w 20 -I eth0 10.0.2.2 2>/dev/null | grep -oE 'reply from 10.0.2.2|Received [0-9]* response'
setpriv --reuid=1000 --regid=1000 --clear-groups --bounding-set=-all arping -c 1 -I eth0 10.0.2.2 2>&1 | head -n 1
python3 - <<'P'
import socket, struct
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total & 0xffff) + (total >> 16)
    return ~(total + (total >> 16)) & 0xffff
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
raw.settimeout(20)
body = struct.pack("!BBHHH", 8, 0, 0, 4242, 1) + b"sent by hand"
body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
taps = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
taps.bind(("eth0", 0))
taps.settimeout(20)
raw.sendto(body, ("10.0.2.2", 0))
while True:
    packet, who = raw.recvfrom(2000)
    if packet[20] == 0 and packet[24:26] == struct.pack("!H", 4242):
        print(who[0], packet[9], packet[28:].decode())
        break
kinds = set()
while len(kinds) < 2:
    frame, where = taps.recvfrom(2000)
    if frame[12:14] == b"\x08\x00" and frame[38:40] == struct.pack("!H", 4242):
        kinds.add((where[0], where[2]))
print(sorted(kinds))
P
"#;

const RAW_PRINTS: &str = "\
reply from 10.0.2.2
reply from 10.0.2.2
Received 2 response
arping: socket: Operation not permitted
10.0.2.2 1 sent by hand
[('eth0', 0), ('eth0', 4)]
";

/// Anybody may ping; raw and packet sockets are for capsules whose manifest says so,
/// and in them for programs with `CAP_NET_RAW`.
#[test]
fn ping_and_raw_sockets() -> Result<()> {
    let image = image(&[("plain", PLAIN), ("raw", RAW)])?;
    let plain = scripted("plain", &image);
    let mut raw = scripted("raw", &image);
    raw.raw_network = true;
    let node = start("network-raw", &[(plain, &image), (raw, &image)], |m| m)?;
    for (name, wanted) in [("plain", PLAIN_PRINTS), ("raw", RAW_PRINTS)] {
        let log = printed(&node, name)?;
        let log: Vec<_> = log
            .lines()
            .map(|line| line.split(", time ").next())
            .collect();
        let wanted: Vec<_> = wanted.lines().map(Some).collect();
        let log: Vec<_> = log.iter().map(|line| line.map(str::trim_end)).collect();
        ensure!(log == wanted, "{name} printed {log:#?}");
    }
    Ok(())
}

const HEARS: &str = r#"
for n in $(seq 100); do ip route | grep -q default && break; sleep 0.2; done
timeout 120 socat -u UDP4-RECVFROM:5000,ip-add-membership=239.1.2.3:10.0.2.15 - &
timeout 120 socat -u 'UDP6-RECVFROM:5001,ipv6-join-group=[ff12::77]:eth0' - &
wait
"#;

const SPEAKS: &str = r#"
for n in $(seq 100); do ip route | grep -q default && break; sleep 0.2; done
for n in $(seq 100); do
    echo "to the group" | socat -u - UDP4-DATAGRAM:239.1.2.3:5000,ip-multicast-if=10.0.2.15,ip-multicast-ttl=4
    echo "to the group of six" | socat -u - UDP6-DATAGRAM:[ff12::77]:5001
    sleep 0.2
    [ "$n" -lt 20 ] || sleep 1
done &
sleep 20
kill %1
"#;

/// Two capsules in one group, and what leaves the node for it.
#[test]
fn groups() -> Result<()> {
    let image = image(&[("hears", HEARS), ("speaks", SPEAKS)])?;
    let capsules = [scripted("hears", &image), scripted("speaks", &image)];
    let node = start(
        "network-groups",
        &capsules.map(|capsule| (capsule, &image)),
        |machine| {
            let file = skep_qemu::Artifacts::new()
                .logs()
                .join("network-groups.pcap");
            let dump = format!("filter-dump,id=dump,netdev=net0,file={}", file.display());
            machine.option("-object", &dump)
        },
    )?;
    let log = printed(&node, "hears")?;
    let mut lines: Vec<_> = log.lines().collect();
    lines.sort_unstable();
    let wanted = ["to the group", "to the group of six"];
    ensure!(lines == wanted, "the member printed {log}");
    // Closed sockets have left the group by now.
    let file = skep_qemu::Artifacts::new()
        .logs()
        .join("network-groups.pcap");
    let frames = frames(&fs::read(file)?);
    let of_group = |protocol: u8| {
        let to = move |f: &&Vec<u8>| f.get(..6) == Some(&GROUP_MAC) && f.get(23) == Some(&protocol);
        frames.iter().filter(to).collect::<Vec<_>>()
    };
    // IGMP, version 2: a report, with 24 bytes of IP header for the router's alert or 20.
    let report = |f: &&Vec<u8>| {
        let header = usize::from(f[14] & 15) * 4;
        f.get(14 + header) == Some(&0x16) && f[14 + header + 4..].starts_with(&GROUP)
    };
    ensure!(
        of_group(2).iter().copied().any(|f| report(&f)),
        "no report on the group"
    );
    let sent = of_group(17);
    ensure!(
        sent.iter()
            .any(|f| f[22] == 4 && f.ends_with(b"to the group\n")),
        "no datagram with the wanted time to live: {sent:?}"
    );
    let left = |f: &&Vec<u8>| f.get(23) == Some(&2) && f.get(30..34) == Some(&[224, 0, 0, 2]);
    ensure!(frames.iter().any(|f| left(&f)), "the group was not left");
    Ok(())
}

/// The frames of a capture, as `pcap` files of the usual byte order have them.
fn frames(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = capture.get(24..).unwrap_or_default();
    let mut frames = Vec::new();
    while let Some((header, after)) = rest.split_at_checked(16) {
        let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some((frame, next)) = after.split_at_checked(len) else {
            break;
        };
        frames.push(frame.to_vec());
        rest = next;
    }
    frames
}
