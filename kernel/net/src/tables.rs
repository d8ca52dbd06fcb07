//! The files of `/proc/net` (proc(5)), as text.

use crate::interfaces::interfaces;
use crate::ports::Claim;
use crate::stack::NetStack;
use core::fmt::{Result, Write};
use core::net::{IpAddr, SocketAddr};

/// The names that [`write`] knows.
pub const NAMES: [&str; 12] = [
    "dev", "route", "arp", "tcp", "tcp6", "udp", "udp6", "unix", "raw", "if_inet6", "igmp", "igmp6",
];

/// Numbers of `enum` in `net/tcp_states.h`: listening, and closed as unconnected
/// datagram sockets are.
const LISTEN: u8 = 10;
const CLOSE: u8 = 7;

/// Writes the file `name` as `stack`'s capsule sees it; nothing for a name that
/// is not in [`NAMES`]. Connections over loopback, which have no protocol state,
/// are not listed.
///
/// # Errors
/// Those of `out`.
pub fn write(stack: &NetStack, name: &str, out: &mut dyn Write) -> Result {
    match name {
        "dev" => devices(stack, out),
        "route" => routes(stack, out),
        "arp" => arp(stack, out),
        "tcp" => tcp(stack, false, out),
        "tcp6" => tcp(stack, true, out),
        "udp" => udp(stack, false, out),
        "udp6" => udp(stack, true, out),
        "unix" => unix(stack, out),
        "raw" => sockets_header(out),
        "if_inet6" => inet6(stack, out),
        "igmp" => groups_v4(stack, out),
        "igmp6" => groups_v6(stack, out),
        _ => Ok(()),
    }
}

fn devices(stack: &NetStack, out: &mut dyn Write) -> Result {
    out.write_str(concat!(
        "Inter-|   Receive                                                |  Transmit\n",
        " face |bytes    packets errs drop fifo frame compressed multicast",
        "|bytes    packets errs drop fifo colls carrier compressed\n"
    ))?;
    for i in interfaces(stack) {
        // Traffic is not counted per capsule.
        writeln!(out, "{:>6}: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0", i.name)?;
    }
    Ok(())
}

fn routes(stack: &NetStack, out: &mut dyn Write) -> Result {
    let title = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT";
    writeln!(out, "{title}")?;
    let c = stack.node().config();
    let word = |ip: core::net::Ipv4Addr| u32::from_ne_bytes(ip.octets());
    if let Some(g) = c.gateway {
        let via = word(g);
        writeln!(
            out,
            "eth0\t00000000\t{via:08X}\t0003\t0\t0\t0\t00000000\t0\t0\t0"
        )?;
    }
    if let Some(n) = c.v4 {
        let (net, mask) = (word(n.network().address()), word(n.netmask()));
        writeln!(
            out,
            "eth0\t{net:08X}\t00000000\t0001\t0\t0\t0\t{mask:08X}\t0\t0\t0"
        )?;
    }
    Ok(())
}

fn arp(stack: &NetStack, out: &mut dyn Write) -> Result {
    let title = "IP address       HW type     Flags       HW address            Mask     Device";
    writeln!(out, "{title}")?;
    let mut result = Ok(());
    stack.node().for_each_neighbour(|ip, m| {
        if let IpAddr::V4(ip) = ip {
            let mac = format_args!(
                "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
                m[0], m[1], m[2], m[3], m[4], m[5]
            );
            let line = writeln!(
                out,
                "{ip:<16} 0x1         0x2         {mac}     *        eth0"
            );
            result = result.and(line);
        }
    });
    result
}

fn sockets_header(out: &mut dyn Write) -> Result {
    out.write_str(concat!(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when ",
        "retrnsmt   uid  timeout inode\n"
    ))
}

/// One line of `tcp`, `udp` and their like.
fn line(
    out: &mut dyn Write,
    n: &mut usize,
    local: SocketAddr,
    remote: SocketAddr,
    state: u8,
) -> Result {
    write!(out, "{n:>4}: ")?;
    for a in [local, remote] {
        match a.ip() {
            IpAddr::V4(ip) => write!(out, "{:08X}", u32::from_ne_bytes(ip.octets()))?,
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                let (words, _) = octets.as_chunks::<4>();
                for word in words.iter().map(|w| u32::from_ne_bytes(*w)) {
                    write!(out, "{word:08X}")?;
                }
            }
        }
        write!(out, ":{:04X} ", a.port())?;
    }
    *n += 1;
    writeln!(
        out,
        "{state:02X} 00000000:00000000 00:00000000 00000000     0        0 0 1 0 0"
    )
}

fn bound(claim: &Claim, port: u16) -> SocketAddr {
    SocketAddr::new(claim.addr.unwrap_or(crate::addr::any(claim.v6)), port)
}

fn nobody(v6: bool) -> SocketAddr {
    SocketAddr::new(crate::addr::any(v6), 0)
}

fn tcp(stack: &NetStack, v6: bool, out: &mut dyn Write) -> Result {
    sockets_header(out)?;
    let (mut n, mut result) = (0, Ok(()));
    stack.tcp().for_each(|port, claim, listener| {
        if claim.v6 == v6 && listener.is_some() {
            let l = line(out, &mut n, bound(claim, port), nobody(v6), LISTEN);
            result = result.and(l);
        }
    });
    stack.node().flows.for_each(|c| {
        let flow = *c.flow();
        if c.stack == stack.id() && flow.local.is_ipv6() == v6 {
            let l = line(out, &mut n, flow.local, flow.remote, c.info().state);
            result = result.and(l);
        }
    });
    result
}

fn udp(stack: &NetStack, v6: bool, out: &mut dyn Write) -> Result {
    sockets_header(out)?;
    let (mut n, mut result) = (0, Ok(()));
    stack.udp().for_each(|port, claim, _| {
        if claim.v6 == v6 {
            let l = line(out, &mut n, bound(claim, port), nobody(v6), CLOSE);
            result = result.and(l);
        }
    });
    result
}

fn unix(stack: &NetStack, out: &mut dyn Write) -> Result {
    writeln!(
        out,
        "Num       RefCount Protocol Flags    Type St Inode Path"
    )?;
    let mut result = Ok(());
    stack.names().for_each_abstract(|name| {
        let l = write!(
            out,
            "0000000000000000: 00000002 00000000 00010000 0001 01 0 @"
        )
        .and_then(|()| name.iter().try_for_each(|b| out.write_char(char::from(*b))))
        .and_then(|()| out.write_char('\n'));
        result = result.and(l);
    });
    result
}

fn inet6(stack: &NetStack, out: &mut dyn Write) -> Result {
    for i in interfaces(stack) {
        for (ip, prefix) in &i.v6 {
            for b in ip.octets() {
                write!(out, "{b:02x}")?;
            }
            let scope = if ip.is_loopback() {
                0x10
            } else if ip.is_unicast_link_local() {
                0x20
            } else {
                0
            };
            writeln!(
                out,
                " {:02x} {prefix:02x} {scope:02x} 80 {:>8}",
                i.index, i.name
            )?;
        }
    }
    Ok(())
}

/// IPv4 groups by interface; numbers as a little-endian machine has them.
fn groups_v4(stack: &NetStack, out: &mut dyn Write) -> Result {
    writeln!(
        out,
        "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter"
    )?;
    for i in interfaces(stack) {
        let (mut lines, mut count) = (alloc::string::String::new(), 0);
        let mut result = Ok(());
        stack.for_each_group(|group, link, users| {
            if let (IpAddr::V4(group), true) = (group, link == i.index) {
                count += 1;
                let word = u32::from_ne_bytes(group.octets());
                let line = writeln!(lines, "\t\t\t\t{word:08X} {users:>5} 0:00000000\t\t0");
                result = result.and(line);
            }
        });
        result?;
        writeln!(out, "{}\t{:<10}: {count:>5}      V2", i.index, i.name)?;
        out.write_str(&lines)?;
    }
    Ok(())
}

/// IPv6 groups, a line each.
fn groups_v6(stack: &NetStack, out: &mut dyn Write) -> Result {
    for i in interfaces(stack) {
        let mut result = Ok(());
        stack.for_each_group(|group, link, users| {
            if let (IpAddr::V6(group), true) = (group, link == i.index) {
                let number = u128::from(group);
                let line = writeln!(
                    out,
                    "{:<4} {:<15} {number:032x} {users:>5} 00000004 0",
                    i.index, i.name
                );
                result = result.and(line);
            }
        });
        result?;
    }
    Ok(())
}
