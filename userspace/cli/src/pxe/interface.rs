//! The network interface that is served, and who is on it.

use super::dhcp::Mac;
use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use std::process::Command;

/// An interface with an IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    /// Its name.
    pub(crate) name: String,
    /// Its first address.
    pub(crate) address: Ipv4Addr,
    /// Length of the network's prefix.
    pub(crate) prefix: u8,
}

/// The interface of this name, or the only one there is.
///
/// # Errors
/// There is none, or no telling which.
pub(crate) fn find(name: Option<&str>) -> Result<Interface> {
    let output = Command::new("ip")
        .args(["-json", "-4", "address", "show", "up"])
        .output()
        .context("cannot run ip (package iproute2)")?;
    choose(parse(&output.stdout)?, name)
}

fn choose(all: Vec<Interface>, name: Option<&str>) -> Result<Interface> {
    if let Some(name) = name {
        let found = all.into_iter().find(|interface| interface.name == name);
        return found.with_context(|| format!("{name} is not up, or has no IPv4 address"));
    }
    let mut others = all
        .into_iter()
        .filter(|interface| !interface.address.is_loopback());
    match (others.next(), others.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => bail!("no network interface is up and has an IPv4 address"),
        (Some(first), Some(second)) => bail!(
            "{} and {} both have an address; choose one with --interface",
            first.name,
            second.name
        ),
    }
}

/// Reads what `ip -json address` prints.
fn parse(json: &[u8]) -> Result<Vec<Interface>> {
    let links: Vec<serde_json::Value> =
        serde_json::from_slice(json).context("ip prints something else than JSON")?;
    let mut found = Vec::new();
    for link in &links {
        let first = link["addr_info"].as_array().and_then(|all| all.first());
        let Some(first) = first else { continue };
        let address = first["local"].as_str().and_then(|text| text.parse().ok());
        let prefix = first["prefixlen"]
            .as_u64()
            .and_then(|p| u8::try_from(p).ok());
        if let (Some(name), Some(address), Some(prefix)) =
            (link["ifname"].as_str(), address, prefix)
        {
            found.push(Interface {
                name: name.to_string(),
                address,
                prefix,
            });
        }
    }
    Ok(found)
}

/// The hardware address of a neighbour, in the text of `/proc/net/arp`.
pub(crate) fn neighbour(table: &str, address: Ipv4Addr) -> Option<Mac> {
    let mut lines = table.lines().skip(1);
    lines.find_map(|line| {
        let mut words = line.split_whitespace();
        let found: Ipv4Addr = words.next()?.parse().ok()?;
        let mac: Mac = words.nth(2)?.parse().ok()?;
        // Zeros: the neighbour has not answered yet.
        (found == address && mac.0 != [0; 6]).then_some(mac)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"[
      {"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1","prefixlen":8}]},
      {},
      {"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24},
                                    {"family":"inet","local":"10.0.1.1","prefixlen":16}]},
      {"ifname":"eth1","addr_info":[]}]"#;

    #[test]
    fn the_only_interface_or_the_named_one() {
        let all = || parse(JSON.as_bytes()).unwrap();
        let eth0 = Interface {
            name: "eth0".to_string(),
            address: Ipv4Addr::new(10, 0, 0, 1),
            prefix: 24,
        };
        assert_eq!(choose(all(), None).unwrap(), eth0);
        assert_eq!(choose(all(), Some("lo")).unwrap().prefix, 8);
        assert!(choose(all(), Some("eth1")).is_err());
        let mut two = all();
        two.push(Interface {
            name: "eth2".to_string(),
            ..eth0
        });
        let error = choose(two, None).unwrap_err().to_string();
        assert!(error.contains("eth0 and eth2"), "{error}");
        assert!(choose(Vec::new(), None).is_err());
        assert!(parse(b"").is_err());
    }

    #[test]
    fn neighbours_by_their_address() {
        let table = "IP address  HW type  Flags  HW address  Mask  Device\n\
                     10.0.0.7  0x1  0x2  52:54:00:12:34:56  *  eth0\n\
                     10.0.0.8  0x1  0x0  00:00:00:00:00:00  *  eth0\n";
        let mac = "52:54:00:12:34:56".parse().ok();
        assert_eq!(neighbour(table, Ipv4Addr::new(10, 0, 0, 7)), mac);
        assert_eq!(neighbour(table, Ipv4Addr::new(10, 0, 0, 8)), None);
        assert_eq!(neighbour(table, Ipv4Addr::new(10, 0, 0, 9)), None);
    }
}
