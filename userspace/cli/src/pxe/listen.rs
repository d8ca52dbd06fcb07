//! The sockets, and the conversation at those of DHCP.

use super::dhcp::{Answer, Firmware, Kind, Query, Reply};
use super::interface::Interface;
use super::offer::{Offers, Port};
use super::{Clients, Watch};
use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::time::Instant;
use tokio::net::{TcpListener, UdpSocket};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const TFTP: u16 = 69;
const BOOT_SERVER: u16 = 4011;

/// Everything we listen at.
pub(super) struct Listeners {
    pub(super) dhcp: UdpSocket,
    pub(super) boot: UdpSocket,
    pub(super) tftp: UdpSocket,
    pub(super) http: TcpListener,
}

impl Listeners {
    /// Opens them all, on this interface.
    ///
    /// # Errors
    /// What cannot be had, and what to do about it.
    pub(super) async fn open(interface: &Interface, http_port: u16) -> Result<Self> {
        let address = interface.address;
        let http = TcpListener::bind((address, http_port)).await;
        Ok(Self {
            // Clients without an address send to all, which only this one hears.
            dhcp: udp(Ipv4Addr::UNSPECIFIED, DHCP_SERVER, interface)
                .context("is another DHCP server running on this very machine?")?,
            boot: udp(Ipv4Addr::UNSPECIFIED, BOOT_SERVER, interface)?,
            tftp: udp(address, TFTP, interface).context("is another TFTP server running?")?,
            http: http.with_context(|| {
                format!("port {http_port} is not to be had; choose another with --http-port")
            })?,
        })
    }
}

fn udp(address: Ipv4Addr, port: u16, interface: &Interface) -> Result<UdpSocket> {
    let open = || {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Servers on other interfaces may have the same port.
        socket.set_reuse_address(true)?;
        socket.set_broadcast(true)?;
        socket.bind_device(Some(interface.name.as_bytes()))?;
        socket.set_nonblocking(true)?;
        socket.bind(&SocketAddrV4::new(address, port).into())?;
        UdpSocket::from_std(socket.into())
    };
    open().map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::PermissionDenied => "; run it as root",
            _ => "",
        };
        anyhow::anyhow!("UDP port {port} is not to be had: {error}{hint}")
    })
}

/// What a conversation needs.
type Server = (Rc<RefCell<Offers>>, Rc<Clients>, Rc<dyn Watch>);

/// Answers at one port for ever.
pub(super) async fn converse(socket: UdpSocket, port: Port, server: Server) {
    let (offers, clients, watch) = server;
    let mut bytes = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut bytes).await else {
            continue; // an ICMP message about an earlier answer
        };
        let Some(query) = Query::parse(&bytes[..length]) else {
            continue;
        };
        clients.note(query.address, query.mac);
        let reply = offers.borrow_mut().answer(&query, port, Instant::now());
        match reply {
            Some(reply) => {
                clients.note(reply.address, query.mac);
                if let Some(words) = words(&query, &reply) {
                    watch.asked(query.mac, &words);
                }
                if let Some(bytes) = reply.encode(&query) {
                    // A client that does not hear it asks again.
                    let _ = socket
                        .send_to(&bytes, destination(&query, &reply, port, from))
                        .await;
                }
            }
            None => {
                if let (Kind::Discover, Some(Firmware::Other(number))) =
                    (query.kind, query.firmware)
                {
                    let words = format!("there is nothing for its architecture, number {number}");
                    watch.asked(query.mac, &words);
                }
            }
        }
    }
}

/// Where an answer goes (RFC 2131, 4.1): back to who asked at the boot port, through the
/// relay that there is, to an address that the client has, or to all.
fn destination(query: &Query, reply: &Reply, port: Port, from: SocketAddr) -> SocketAddr {
    if port == Port::Boot {
        return from;
    }
    if !query.relay.is_unspecified() {
        return (query.relay, DHCP_SERVER).into();
    }
    if !query.address.is_unspecified() && reply.answer != Answer::Nak {
        return (query.address, DHCP_CLIENT).into();
    }
    (Ipv4Addr::BROADCAST, DHCP_CLIENT).into()
}

/// What is worth telling of an answer.
fn words(query: &Query, reply: &Reply) -> Option<String> {
    let firmware = match query.firmware? {
        Firmware::Bios => "BIOS",
        Firmware::Uefi => "UEFI",
        Firmware::UefiHttp => "UEFI (HTTP boot)",
        Firmware::Ipxe => "iPXE",
        Firmware::Other(_) => return None,
    };
    let mut words = format!("{firmware} asks");
    if !reply.address.is_unspecified() {
        words.push_str(&format!(", gets {}", reply.address));
    }
    if !reply.file.is_empty() {
        words.push_str(&format!(", is to load {}", reply.file));
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::super::dhcp::tests::query;
    use super::*;

    #[test]
    fn answers_go_where_the_client_hears_them() {
        let from = SocketAddr::from(([10, 0, 0, 7], 4011));
        let mut client = Query::parse(&query(&[(53, &[1])])).unwrap();
        let offer = Reply::new(Answer::Offer, Ipv4Addr::LOCALHOST);
        let to = |query: &Query, port| destination(query, &offer, port, from).to_string();
        assert_eq!(to(&client, Port::Dhcp), "255.255.255.255:68");
        assert_eq!(to(&client, Port::Boot), "10.0.0.7:4011");
        client.address = Ipv4Addr::new(10, 0, 0, 7);
        assert_eq!(to(&client, Port::Dhcp), "10.0.0.7:68");
        client.relay = Ipv4Addr::new(10, 0, 9, 1);
        assert_eq!(to(&client, Port::Dhcp), "10.0.9.1:67");
    }
}
