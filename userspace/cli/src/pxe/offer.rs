//! Who gets which answer.
//!
//! Beside another DHCP server (a "ProxyDHCP" of PXE 2.1) only clients that look for
//! something to boot are answered, and without an address. As the only DHCP server
//! everybody gets an address.

use super::dhcp::{Answer, Firmware, Kind, Query, Reply, option};
use super::lease::{LEASE, Pool};
use std::net::Ipv4Addr;
use std::time::Instant;

/// The file names under which [`super::files`] has what firmware loads by TFTP.
pub(crate) const BIOS_LOADER: &str = "undionly.kpxe";
pub(crate) const UEFI_LOADER: &str = "bootx64.efi";
/// What our UEFI loader asks for: `boot/uefi/src/network.rs`.
pub(crate) const RELEASE: &str = "release";
/// The script on our HTTP server.
pub(crate) const IPXE_SCRIPT: &str = "/boot.ipxe";
/// The disk image there, from which a BIOS starts.
pub(crate) const IMAGE: &str = "skep.img";

/// Vendor options of PXE (2.1, table 2-1): take the file named here and look for no
/// further servers.
const DISCOVERY_BYPASS: [u8; 4] = [6, 1, 8, 255];

/// To which port a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// 67, where all DHCP servers listen.
    Dhcp,
    /// 4011, where clients ask the one boot server that they have chosen.
    Boot,
}

/// Addresses that we give, and what goes with them.
#[derive(Debug)]
pub(crate) struct Network {
    /// The addresses.
    pub(crate) pool: Pool,
    /// Length of the network's prefix.
    pub(crate) prefix: u8,
    /// The router to other networks.
    pub(crate) router: Option<Ipv4Addr>,
    /// Name servers.
    pub(crate) dns: Vec<Ipv4Addr>,
}

/// The server's mind.
#[derive(Debug)]
pub(crate) struct Offers {
    /// Our address.
    pub(crate) server: Ipv4Addr,
    /// The port of our HTTP server.
    pub(crate) http_port: u16,
    /// Set where we are the only DHCP server.
    pub(crate) network: Option<Network>,
}

impl Offers {
    /// The answer to a query, if it gets one.
    pub(crate) fn answer(&mut self, query: &Query, port: Port, now: Instant) -> Option<Reply> {
        match (port, &mut self.network) {
            (Port::Boot, _) => self.boot_answer(query),
            (Port::Dhcp, None) => self.proxy_offer(query),
            (Port::Dhcp, Some(_)) => self.address_answer(query, now),
        }
    }

    /// Beside another server: where there is something to boot.
    fn proxy_offer(&self, query: &Query) -> Option<Reply> {
        if query.kind != Kind::Discover {
            return None;
        }
        let firmware = query.firmware?;
        let mut reply = Reply::new(Answer::Offer, self.server);
        self.add_boot(&mut reply, firmware)?;
        if firmware == Firmware::Uefi {
            // UEFI takes the file only from an answer at the boot port, where it asks
            // when an offer names none.
            reply.file.clear();
        }
        Some(reply)
    }

    /// At the boot port: what to boot.
    fn boot_answer(&self, query: &Query) -> Option<Reply> {
        let for_us = query.server.is_none_or(|server| server == self.server);
        if query.kind != Kind::Request || !for_us {
            return None;
        }
        let mut reply = Reply::new(Answer::Ack, self.server);
        self.add_boot(&mut reply, query.firmware?)?;
        Some(reply)
    }

    /// As the only server: an address, and what to boot.
    fn address_answer(&mut self, query: &Query, now: Instant) -> Option<Reply> {
        let network = self.network.as_mut()?;
        let (answer, address) = match query.kind {
            Kind::Discover => {
                let address = network.pool.offer(query.mac, query.wanted, now)?;
                (Answer::Offer, address)
            }
            Kind::Request => {
                if query.server.is_some_and(|server| server != self.server) {
                    // It has taken another server's offer.
                    network.pool.release(query.mac);
                    return None;
                }
                let held = Some(query.address).filter(|address| !address.is_unspecified());
                let address = query.wanted.or(held)?;
                if network.pool.take(query.mac, address, now) {
                    (Answer::Ack, address)
                } else {
                    return Some(Reply::new(Answer::Nak, self.server));
                }
            }
            Kind::Decline => {
                network.pool.decline(query.mac, query.wanted?, now);
                return None;
            }
            Kind::Release => {
                network.pool.release(query.mac);
                return None;
            }
            Kind::Other => return None,
        };
        let mut reply = Reply::new(answer, self.server);
        reply.address = address;
        add_network(&mut reply, network);
        if let Some(firmware) = query.firmware {
            // Nothing to boot is no reason to have no address.
            let _ = self.add_boot(&mut reply, firmware);
        }
        Some(reply)
    }

    /// Adds what this firmware boots; `None` if there is nothing for it.
    fn add_boot(&self, reply: &mut Reply, firmware: Firmware) -> Option<()> {
        let class: &[u8] = match firmware {
            Firmware::UefiHttp => b"HTTPClient",
            _ => b"PXEClient",
        };
        reply.file = match firmware {
            Firmware::Bios => BIOS_LOADER.to_string(),
            Firmware::Uefi => UEFI_LOADER.to_string(),
            Firmware::UefiHttp => self.url(&format!("/{UEFI_LOADER}")),
            Firmware::Ipxe => self.url(IPXE_SCRIPT),
            Firmware::Other(_) => return None,
        };
        reply.option(option::CLASS, class);
        if matches!(firmware, Firmware::Bios | Firmware::Ipxe) {
            reply.option(option::VENDOR_INFORMATION, &DISCOVERY_BYPASS);
        }
        Some(())
    }

    /// The address of a path on our HTTP server.
    pub(crate) fn url(&self, path: &str) -> String {
        let port = match self.http_port {
            80 => String::new(),
            port => format!(":{port}"),
        };
        format!("http://{}{port}{path}", self.server)
    }
}

/// Adds what a machine must know of its network.
fn add_network(reply: &mut Reply, network: &Network) {
    let mask = u32::MAX.checked_shl(32 - u32::from(network.prefix.min(32)));
    let seconds = u32::try_from(LEASE.as_secs()).unwrap_or(u32::MAX);
    reply.option(option::LEASE_SECONDS, &seconds.to_be_bytes());
    reply.option(option::SUBNET_MASK, &mask.unwrap_or(0).to_be_bytes());
    if let Some(router) = network.router {
        reply.option(option::ROUTER, &router.octets());
    }
    if !network.dns.is_empty() {
        let servers: Vec<u8> = network.dns.iter().flat_map(Ipv4Addr::octets).collect();
        reply.option(option::DNS, &servers);
    }
}

#[cfg(test)]
mod tests {
    use super::super::dhcp::tests::query;
    use super::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn offers(pool: Option<&str>) -> Offers {
        let network = pool.map(|range| Network {
            pool: Pool::parse(range, SERVER).unwrap(),
            prefix: 24,
            router: Some(Ipv4Addr::new(10, 0, 0, 254)),
            dns: vec![],
        });
        Offers {
            server: SERVER,
            http_port: 8067,
            network,
        }
    }

    fn ask(offers: &mut Offers, port: Port, options: &[(u8, &[u8])]) -> Option<Reply> {
        let query = Query::parse(&query(options)).unwrap();
        offers.answer(&query, port, Instant::now())
    }

    const PXE: (u8, &[u8]) = (60, b"PXEClient");

    #[test]
    fn a_proxy_answers_only_who_wants_to_boot_and_gives_no_address() {
        let mut proxy = offers(None);
        assert_eq!(ask(&mut proxy, Port::Dhcp, &[(53, &[1])]), None);
        assert_eq!(
            ask(&mut proxy, Port::Dhcp, &[(53, &[3]), PXE, (93, &[0, 0])]),
            None
        );
        let bios = ask(&mut proxy, Port::Dhcp, &[(53, &[1]), PXE, (93, &[0, 0])]).unwrap();
        assert_eq!(
            (bios.file.as_str(), bios.address),
            (BIOS_LOADER, Ipv4Addr::UNSPECIFIED)
        );
        assert!(bios.options.contains(&(43, DISCOVERY_BYPASS.to_vec())));
        let other = ask(&mut proxy, Port::Dhcp, &[(53, &[1]), PXE, (93, &[0, 11])]);
        assert_eq!(other, None, "nothing to boot on this processor");
    }

    #[test]
    fn uefi_hears_of_the_file_at_the_boot_port() {
        let mut proxy = offers(None);
        let options: [(u8, &[u8]); 3] = [(53, &[1]), PXE, (93, &[0, 7])];
        let offer = ask(&mut proxy, Port::Dhcp, &options).unwrap();
        assert_eq!((offer.answer, offer.file.as_str()), (Answer::Offer, ""));
        let options: [(u8, &[u8]); 3] = [(53, &[3]), PXE, (93, &[0, 7])];
        let ack = ask(&mut proxy, Port::Boot, &options).unwrap();
        assert_eq!((ack.answer, ack.file.as_str()), (Answer::Ack, UEFI_LOADER));
        let stranger: [(u8, &[u8]); 4] = [(53, &[3]), PXE, (93, &[0, 7]), (54, &[10, 0, 0, 9])];
        assert_eq!(ask(&mut proxy, Port::Boot, &stranger), None);
    }

    #[test]
    fn ipxe_and_http_boot_get_addresses_on_the_web() {
        let mut proxy = offers(None);
        let ipxe: [(u8, &[u8]); 4] = [(53, &[1]), PXE, (93, &[0, 0]), (77, b"iPXE")];
        let reply = ask(&mut proxy, Port::Dhcp, &ipxe).unwrap();
        assert_eq!(reply.file, "http://10.0.0.1:8067/boot.ipxe");
        let http: [(u8, &[u8]); 3] = [(53, &[1]), (60, b"HTTPClient:x"), (93, &[0, 16])];
        let reply = ask(&mut proxy, Port::Dhcp, &http).unwrap();
        assert_eq!(reply.file, "http://10.0.0.1:8067/bootx64.efi");
        assert!(reply.options.contains(&(60, b"HTTPClient".to_vec())));
    }

    #[test]
    fn the_only_server_gives_addresses_to_all() {
        let mut server = offers(Some("10.0.0.10-10.0.0.10"));
        let offer = ask(&mut server, Port::Dhcp, &[(53, &[1])]).unwrap();
        assert_eq!(
            (offer.address, offer.file.as_str()),
            (Ipv4Addr::new(10, 0, 0, 10), "")
        );
        assert!(offer.options.contains(&(1, vec![255, 255, 255, 0])));
        assert!(offer.options.contains(&(3, vec![10, 0, 0, 254])));
        let wanted: (u8, &[u8]) = (50, &[10, 0, 0, 10]);
        let ours: (u8, &[u8]) = (54, &[10, 0, 0, 1]);
        let ack = ask(
            &mut server,
            Port::Dhcp,
            &[(53, &[3]), wanted, ours, PXE, (93, &[0, 7])],
        );
        let ack = ack.unwrap();
        assert_eq!((ack.answer, ack.file.as_str()), (Answer::Ack, UEFI_LOADER));
        let wrong: (u8, &[u8]) = (50, &[10, 0, 0, 77]);
        let nak = ask(&mut server, Port::Dhcp, &[(53, &[3]), wrong, ours]).unwrap();
        assert_eq!((nak.answer, nak.file.as_str()), (Answer::Nak, ""));
        let theirs: (u8, &[u8]) = (54, &[10, 0, 0, 9]);
        assert_eq!(
            ask(&mut server, Port::Dhcp, &[(53, &[3]), wanted, theirs]),
            None
        );
    }
}
