//! What comes from outside: a DHCP server, and garbage.

#[path = "common/cable.rs"]
mod cable;
mod common;

use cable::*;
use common::*;
use net::*;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A link that keeps what was sent, and whose cable is out if the second field says so.
#[derive(Default)]
struct Tap(Mutex<Vec<Vec<u8>>>, AtomicBool);

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 9]);
const THEIRS: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);

impl Link for Tap {
    fn mac(&self) -> [u8; 6] {
        MAC.0
    }
    fn mtu(&self) -> usize {
        1500
    }
    fn is_up(&self) -> bool {
        !self.1.load(SeqCst)
    }
    fn transmit(&self, frame: &[u8]) -> bool {
        self.0.lock().unwrap().push(frame.to_vec());
        true
    }
    fn room(&self) -> usize {
        64
    }
    fn flush(&self) {}
}

fn udp_frame(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let caps = ChecksumCapabilities::default();
    let udp = UdpRepr {
        src_port: from.1,
        dst_port: to.1,
    };
    let ip = Ipv4Repr {
        src_addr: from.0,
        dst_addr: to.0,
        next_header: IpProtocol::Udp,
        payload_len: 8 + payload.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 14 + 20 + 8 + payload.len()];
    let mut e = EthernetFrame::new_unchecked(&mut frame[..]);
    e.set_src_addr(THEIRS);
    e.set_dst_addr(EthernetAddress::BROADCAST);
    e.set_ethertype(EthernetProtocol::Ipv4);
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &caps);
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut frame[34..]),
        &from.0.into(),
        &to.0.into(),
        payload.len(),
        |b| b.copy_from_slice(payload),
        &caps,
    );
    frame
}

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const LEASED: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 50);
const RESOLVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 3);

/// What a DHCP server answers to `frame`, if it is a question for one.
fn answer(frame: &[u8], lease: Ipv4Addr) -> Option<Vec<u8>> {
    let e = EthernetFrame::new_checked(frame).ok()?;
    if e.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(e.payload()).ok()?;
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    if udp.dst_port() != 67 {
        return None;
    }
    let packet = DhcpPacket::new_checked(udp.payload()).ok()?;
    let ask = DhcpRepr::parse(&packet).ok()?;
    let kind = match ask.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => DhcpMessageType::Ack,
        _ => return None,
    };
    let reply = DhcpRepr {
        message_type: kind,
        your_ip: lease,
        server_ip: SERVER,
        server_identifier: Some(SERVER),
        router: Some(SERVER),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        lease_duration: Some(600),
        dns_servers: Some([RESOLVER].into_iter().collect()),
        requested_ip: None,
        client_identifier: None,
        parameter_request_list: None,
        max_size: None,
        ..ask
    };
    let mut bytes = vec![0; reply.buffer_len()];
    reply
        .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
        .ok()?;
    Some(udp_frame((SERVER, 67), (Ipv4Addr::BROADCAST, 68), &bytes))
}

fn dhcp_node(lease: Ipv4Addr) -> (Arc<NetNode>, Arc<Tap>) {
    let _ = machine::timer::start();
    let (n, tap) = (node(), Arc::new(Tap::default()));
    n.attach_link("tap", tap.clone());
    n.configure_dhcp();
    serve_dhcp(&n, &tap, lease, |n| n.config().v4.is_some());
    (n, tap)
}

/// Answers the node for three seconds, or until something is so.
fn serve_dhcp(n: &Arc<NetNode>, tap: &Tap, lease: Ipv4Addr, done: impl Fn(&NetNode) -> bool) {
    let end = Instant::now() + Duration::from_secs(3);
    while !done(n) && Instant::now() < end {
        let sent = std::mem::take(&mut *tap.0.lock().unwrap());
        for f in sent.iter().filter_map(|f| answer(f, lease)) {
            n.receive(&f);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The address a node has.
fn address(n: &NetNode) -> Option<Ipv4Addr> {
    n.config().v4.map(|n| n.address())
}

fn replug(n: &Arc<NetNode>, tap: &Tap) {
    for down in [true, false] {
        tap.1.store(down, SeqCst);
        n.link_changed();
    }
}

#[test]
fn a_lease_is_kept_while_it_is_asked_for_anew() {
    let (n, tap) = dhcp_node(LEASED);
    let lost = Arc::new(AtomicBool::new(false));
    let told = lost.clone();
    n.observe(move |e| {
        let is_v4 = matches!(e, NetEvent::AddressLost(IpAddr::V4(_)));
        told.fetch_or(is_v4, SeqCst);
    });
    replug(&n, &tap);
    assert_eq!(address(&n), Some(LEASED));
    serve_dhcp(&n, &tap, LEASED, |_| false);
    assert_eq!(address(&n), Some(LEASED));
    thread::sleep(Duration::from_secs(3));
    assert_eq!(address(&n), Some(LEASED));
    assert!(!lost.load(SeqCst));
    // On another network there is another one.
    replug(&n, &tap);
    let other = Ipv4Addr::new(10, 0, 0, 99);
    serve_dhcp(&n, &tap, other, |n| address(n) == Some(other));
    assert_eq!(address(&n), Some(other));
    assert!(lost.load(SeqCst));
    // Where nobody answers it is given up.
    replug(&n, &tap);
    thread::sleep(Duration::from_millis(5500));
    assert_eq!(address(&n), None);
}

#[test]
fn a_lease_gives_address_route_and_resolver() {
    let (n, _) = dhcp_node(LEASED);
    let c = n.config();
    assert_eq!(c.v4.map(|n| n.address()), Some(LEASED));
    assert_eq!(c.v4.map(|n| n.prefix_len()), Some(24));
    assert_eq!(c.gateway, Some(SERVER));
    assert_eq!(c.dns.as_slice(), [IpAddr::V4(RESOLVER)]);
    assert!(n.is_local(LEASED.into()));
}

#[test]
fn a_lease_of_nonsense_is_not_taken() {
    for bad in [
        Ipv4Addr::BROADCAST,
        Ipv4Addr::UNSPECIFIED,
        Ipv4Addr::new(224, 0, 0, 1),
        Ipv4Addr::LOCALHOST,
    ] {
        let (n, _) = dhcp_node(bad);
        assert_eq!(n.config().v4, None, "{bad}");
    }
}

#[test]
fn a_router_advertisement_gives_an_address() {
    let _ = machine::timer::start();
    let (n, tap) = (node(), Arc::new(Tap::default()));
    n.attach_link("tap", tap.clone());
    let router = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
    let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let lifetime = smoltcp::time::Duration::from_secs(1800);
    let advert = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: lifetime,
        reachable_time: smoltcp::time::Duration::ZERO,
        retrans_time: smoltcp::time::Duration::ZERO,
        lladdr: Some(THEIRS.into()),
        mtu: None,
        prefix_info: Some(NdiscPrefixInformation {
            prefix_len: 64,
            flags: NdiscPrefixInfoFlags::ADDRCONF | NdiscPrefixInfoFlags::ON_LINK,
            valid_lifetime: lifetime,
            preferred_lifetime: lifetime,
            prefix: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0),
        }),
    });
    let ip = Ipv6Repr {
        src_addr: router,
        dst_addr: all,
        next_header: IpProtocol::Icmpv6,
        payload_len: advert.buffer_len(),
        hop_limit: 255,
    };
    let mut frame = vec![0; 14 + 40 + advert.buffer_len()];
    let mut e = EthernetFrame::new_unchecked(&mut frame[..]);
    e.set_src_addr(THEIRS);
    e.set_dst_addr(EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
    e.set_ethertype(EthernetProtocol::Ipv6);
    ip.emit(&mut Ipv6Packet::new_unchecked(&mut frame[14..]));
    advert.emit(
        &router,
        &all,
        &mut Icmpv6Packet::new_unchecked(&mut frame[54..]),
        &ChecksumCapabilities::default(),
    );
    n.receive(&frame);
    // What was learnt is taken over when the interface is polled next.
    n.receive(&frame);
    let c = n.config();
    let ours = c.v6.iter().find(|c| !c.address().is_unicast_link_local());
    let ours = ours.expect("an address").address();
    assert_eq!(ours.segments()[..4], [0x2001, 0xdb8, 0, 0]);
    assert_eq!(c.gateway6, Some(router));
}

/// A node with something to hit: a listener, a connection, a datagram socket.
struct Target {
    node: Arc<NetNode>,
    _far: Arc<NetNode>,
    _all: Vec<Arc<Socket>>,
    frames: Vec<Vec<u8>>,
    _cable: Cable,
}

fn target() -> Target {
    let (a, b, cable) = joined(Faults::default());
    let mut ports = publish(Protocol::Tcp, 80, 80);
    ports.extend(publish(Protocol::Udp, 53, 53));
    let server = stack_on(&b, ports, false);
    let client = stack_on(&a, vec![], false);
    let l = listener(&server, "0.0.0.0:80", 8);
    let u = udp(&server);
    u.bind(at("0.0.0.0:53")).unwrap();
    let c = tcp(&client);
    c.connect(&at("10.0.0.2:80"), me(), false).unwrap();
    let (s, _) = l.accept(false).unwrap();
    let Ok(Address::Inet(peer)) = s.remote() else {
        panic!()
    };
    let mac = [2, 0, 0, 0, 0, 2];
    let frames = seeds(peer.port(), mac);
    Target {
        node: b,
        _far: a,
        _all: vec![l, u, c, s],
        frames,
        _cable: cable,
    }
}

/// Good TCP segments to start from.
fn tcp_seeds(port: u16) -> Vec<Vec<u8>> {
    let caps = ChecksumCapabilities::default();
    let mut all = Vec::new();
    for (control, from) in [
        (TcpControl::Syn, 5000),
        (TcpControl::None, port),
        (TcpControl::Fin, port),
        (TcpControl::Rst, port),
        (TcpControl::Psh, 5001),
    ] {
        let tcp = TcpRepr {
            src_port: from,
            dst_port: 80,
            control,
            seq_number: TcpSeqNumber(1),
            ack_number: Some(TcpSeqNumber(1)).filter(|_| control != TcpControl::Syn),
            window_len: 1000,
            window_scale: Some(7).filter(|_| control == TcpControl::Syn),
            max_seg_size: Some(1460).filter(|_| control == TcpControl::Syn),
            sack_permitted: control == TcpControl::Syn,
            sack_ranges: [None; 3],
            timestamp: None,
            payload: b"data",
        };
        let ip = Ipv4Repr {
            src_addr: A,
            dst_addr: B,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut f = vec![0; 34 + tcp.buffer_len()];
        EthernetFrame::new_unchecked(&mut f[..]).set_ethertype(EthernetProtocol::Ipv4);
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut f[14..]), &caps);
        tcp.emit(
            &mut TcpPacket::new_unchecked(&mut f[34..]),
            &A.into(),
            &B.into(),
            &caps,
        );
        all.push(f);
    }
    all
}

/// Good frames to start from.
fn seeds(port: u16, mac: [u8; 6]) -> Vec<Vec<u8>> {
    let caps = ChecksumCapabilities::default();
    let mut all = vec![udp_frame((A, 4000), (B, 53), b"query")];
    all.extend(tcp_seeds(port));
    let mut arp = vec![0; 42];
    EthernetFrame::new_unchecked(&mut arp[..]).set_ethertype(EthernetProtocol::Arp);
    ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: THEIRS,
        source_protocol_addr: A,
        target_hardware_addr: EthernetAddress::BROADCAST,
        target_protocol_addr: B,
    }
    .emit(&mut ArpPacket::new_unchecked(&mut arp[14..]));
    all.push(arp);
    for next in [58u8, 0, 6, 17, 44] {
        let mut v6 = vec![0; 14 + 40 + 32];
        EthernetFrame::new_unchecked(&mut v6[..]).set_ethertype(EthernetProtocol::Ipv6);
        v6[14] = 0x60;
        v6[19] = 32;
        v6[20] = next;
        v6[21] = 255;
        v6[22..24].copy_from_slice(&[0xfe, 0x80]);
        v6[38..40].copy_from_slice(&[0xff, 2]);
        v6[53] = 1;
        all.push(v6);
    }
    let mut icmp = vec![0; 14 + 20 + 36];
    EthernetFrame::new_unchecked(&mut icmp[..]).set_ethertype(EthernetProtocol::Ipv4);
    Ipv4Repr {
        src_addr: A,
        dst_addr: B,
        next_header: IpProtocol::Icmp,
        payload_len: 36,
        hop_limit: 64,
    }
    .emit(&mut Ipv4Packet::new_unchecked(&mut icmp[14..]), &caps);
    icmp[34] = 3;
    icmp[35] = 3;
    all.push(icmp);
    for f in &mut all {
        f[..6].copy_from_slice(&mac);
        f[6..12].copy_from_slice(&THEIRS.0);
    }
    all
}

/// Checksums that fit again, so that damage gets past them.
fn mend(frame: &mut [u8]) {
    let Some(ip) = frame.get_mut(14..) else {
        return;
    };
    let Ok(mut p) = Ipv4Packet::new_checked(ip) else {
        return;
    };
    p.fill_checksum();
    let (from, to, next) = (p.src_addr(), p.dst_addr(), p.next_header());
    match next {
        IpProtocol::Tcp => {
            if let Ok(mut t) = TcpPacket::new_checked(p.payload_mut()) {
                t.fill_checksum(&from.into(), &to.into());
            }
        }
        IpProtocol::Udp => {
            if let Ok(mut u) = UdpPacket::new_checked(p.payload_mut()) {
                u.fill_checksum(&from.into(), &to.into());
            }
        }
        IpProtocol::Icmp => {
            if let Ok(mut i) = Icmpv4Packet::new_checked(p.payload_mut()) {
                i.fill_checksum();
            }
        }
        _ => {}
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Set(usize, u8),
    Cut(usize),
    Grow(usize),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        (12usize..120, any::<u8>()).prop_map(|(at, b)| Damage::Set(at, b)),
        (12usize..120, prop_oneof![Just(0u8), Just(255), Just(1)])
            .prop_map(|(at, b)| Damage::Set(at, b)),
        (0usize..100).prop_map(Damage::Cut),
        (1usize..1400).prop_map(Damage::Grow),
    ];
    proptest::collection::vec(one, 0..5)
}

#[test]
fn no_frame_upsets_a_node() {
    let t = target();
    let mut runner = proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases: 20_000,
        failure_persistence: None,
        ..Default::default()
    });
    let what = (0usize..64, damage(), any::<bool>());
    runner
        .run(&what, |(which, all, fix)| {
            let mut f = t.frames[which % t.frames.len()].clone();
            for d in all {
                match d {
                    Damage::Set(at, b) => {
                        if let Some(x) = f.get_mut(at) {
                            *x = b;
                        }
                    }
                    Damage::Cut(n) => f.truncate(n),
                    Damage::Grow(n) => f.resize(f.len() + n, 0xa5),
                }
            }
            if fix {
                mend(&mut f);
            }
            t.node.receive(&f);
            Ok(())
        })
        .unwrap();
}

proptest! {
    #[test]
    fn no_bytes_upset_a_node(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        static NODE: std::sync::OnceLock<Target> = std::sync::OnceLock::new();
        let t = NODE.get_or_init(target);
        t.node.receive(&bytes);
        let mut ours = t.frames[0][..14].to_vec();
        ours.extend(&bytes);
        t.node.receive(&ours);
    }
}

#[test]
fn a_flood_of_syns_is_bounded_and_the_port_still_answers() {
    let t = target();
    let pages = || t._all[0].stack().account().used();
    let syn = &t.frames[1];
    for i in 0..20_000u32 {
        let mut f = syn.clone();
        // A new source each time, on our network.
        f[29] = (i % 200) as u8 + 10;
        f[34..36].copy_from_slice(&((i % 60_000) as u16 + 1).to_be_bytes());
        mend(&mut f);
        t.node.receive(&f);
    }
    assert!(pages() < 4096, "{} pages", pages());
    let c = tcp(t._all[2].stack());
    c.connect(&at("10.0.0.2:80"), me(), false).unwrap();
    assert!(t._all[0].accept(false).is_ok());
}
