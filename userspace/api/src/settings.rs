//! `skep.toml`: what a node's owner writes on the partition `SKEP` of its boot medium.
//!
//! Every key may be left out; what is there takes the place of what the node's
//! [configuration](crate::node::NodeConfig) in the ramdisk says. A file with anything
//! wrong in it is not used at all, so that a node is never half of what was meant;
//! the [error](SettingsError) names line and key.

mod read;

use crate::key::PublicKey;
use crate::manifest::is_capsule_name;
use crate::node::{CapsuleOutput, LogLevel, MAX_DNS, MAX_START, Network, NodeConfig};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use read::{Lines, Table};

/// Name of the file.
pub const FILE_NAME: &str = "skep.toml";
/// Label of the volume that has it.
pub const VOLUME: &str = "SKEP";
/// Folder of the volume with signed manifests.
pub const MANIFESTS: &str = "manifests";
/// How the names of files in it end.
pub const MANIFEST_END: &str = ".manifest";
/// Longest file, in bytes.
pub const MAX_LEN: usize = 16 * 1024;
/// Highest number of a VLAN: the others of the 12 bits are reserved (IEEE 802.1Q, 9.6).
pub const VLAN_MAX: u16 = 4094;

/// A file in which every key is a comment.
pub const TEMPLATE: &str = include_str!("settings/skep.toml");

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The node's name.
    pub name: Option<String>,
    /// The owner's public key.
    pub owner: Option<PublicKey>,
    /// Names of the manifests to start.
    pub start: Option<Vec<String>>,
    /// How the node gets its address.
    pub network: Option<Network>,
    /// The VLAN of the node's link.
    pub vlan: Option<u16>,
    /// Whether messages go to the serial port.
    pub serial: Option<bool>,
    /// Whether messages go to the screen.
    pub screen: Option<bool>,
    /// Least important messages that are shown.
    pub level: Option<LogLevel>,
    /// How what capsules print is shown.
    pub capsules: Option<CapsuleOutput>,
}

/// What is wrong with the file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SettingsError {
    /// The line, from 1.
    pub line: usize,
    /// The key with its table, such as `network.address`; empty if the file is not TOML.
    pub key: String,
    /// What is wrong, for people.
    pub what: String,
}

impl core::fmt::Display for SettingsError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "line {}", self.line)?;
        if !self.key.is_empty() {
            write!(f, ", {}", self.key)?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, SettingsError> {
        let whole = |line, what: &str| SettingsError {
            line,
            key: String::new(),
            what: String::from(what),
        };
        if bytes.len() > MAX_LEN {
            return Err(whole(1, "the file is too long"));
        }
        let text = core::str::from_utf8(bytes).map_err(|error| {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            whole(read::line_of(before, before.len()), "not text in UTF-8")
        })?;
        // Some editors put a mark at the beginning that is no part of the text.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = Lines::new(text);
        let mut top = Table::parse(&lines)?;
        let mut settings = Self {
            name: top.take("name", |v| v.capsule_name())?,
            owner: top.take("owner", |v| {
                v.parsed("the owner's public key, 64 hexadecimal digits")
            })?,
            start: top.take("start", |v| v.list(MAX_START, |v| v.capsule_name()))?,
            ..Self::default()
        };
        if let Some(mut network) = top.table("network")? {
            settings.network(&mut network)?;
            network.end()?;
        }
        if let Some(mut console) = top.table("console")? {
            settings.serial = console.take("serial", |v| v.boolean())?;
            settings.screen = console.take("screen", |v| v.boolean())?;
            settings.level = console.take("level", |v| v.one_of(&LEVELS))?;
            settings.capsules = console.take("capsules", |v| v.one_of(&OUTPUTS))?;
            console.end()?;
        }
        top.end()?;
        Ok(settings)
    }

    fn network(&mut self, table: &mut Table<'_>) -> Result<(), SettingsError> {
        self.vlan = table.take("vlan", |v| v.number(1, VLAN_MAX))?;
        let dhcp = table.take("dhcp", |v| v.boolean())?;
        let address = table.take("address", |v| v.address())?;
        let gateway = table.take("gateway", |v| v.parsed::<Ipv4Addr>("an IPv4 address"))?;
        let dns = table.take("dns", |v| {
            v.list(MAX_DNS, |v| v.parsed::<Ipv4Addr>("an IPv4 address"))
        })?;
        match (address, dhcp) {
            (Some(_), Some(true)) => {
                Err(table.error("address", "dhcp = true would be another address"))
            }
            (None, Some(false)) => Err(table.error("dhcp", "then an address is needed")),
            (Some((address, prefix)), _) => {
                self.network = Some(Network::Static {
                    address,
                    prefix,
                    gateway,
                    dns: dns.unwrap_or_default(),
                });
                Ok(())
            }
            (None, _) if gateway.is_some() => {
                Err(table.error("gateway", "only together with an address"))
            }
            (None, _) if dns.is_some() => Err(table.error("dns", "only together with an address")),
            (None, dhcp) => {
                self.network = dhcp.map(|_| Network::Dhcp);
                Ok(())
            }
        }
    }

    /// Puts what the file says in the place of what `config` says.
    pub fn apply(&self, config: &mut NodeConfig) {
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut config.name, &self.name);
        set(&mut config.owner, &self.owner);
        set(&mut config.start, &self.start);
        set(&mut config.network, &self.network);
        config.vlan = self.vlan.or(config.vlan);
        set(&mut config.console.serial, &self.serial);
        set(&mut config.console.screen, &self.screen);
        set(&mut config.console.level, &self.level);
        set(&mut config.console.capsules, &self.capsules);
        // The system capsule starts by itself.
        config.start.retain(|name| *name != config.system);
    }
}

const LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

const OUTPUTS: [(&str, CapsuleOutput); 3] = [
    ("hidden", CapsuleOutput::Hidden),
    ("named", CapsuleOutput::Named),
    ("raw", CapsuleOutput::Raw),
];

/// Kinds of values that only this file has.
impl read::Value<'_> {
    fn capsule_name(&self) -> Result<String, String> {
        let text = self.text()?;
        match is_capsule_name(text) {
            true => Ok(text.to_string()),
            false => Err(format!(
                "{} is not a name: small letters, digits and '-'",
                read::quoted(text)
            )),
        }
    }

    /// `192.0.2.10/24`.
    fn address(&self) -> Result<(Ipv4Addr, u8), String> {
        let text = self.text()?;
        let parts = text.split_once('/').and_then(|(address, prefix)| {
            let prefix = prefix.parse().ok().filter(|bits| *bits <= 32)?;
            Some((address.parse().ok()?, prefix))
        });
        let (address, prefix): (Ipv4Addr, u8) = parts.ok_or_else(|| {
            let text = read::quoted(text);
            format!("{text} is not an IPv4 address with its prefix, such as \"192.0.2.10/24\"")
        })?;
        let is_host = !(address.is_multicast()
            || address.is_broadcast()
            || address.is_unspecified()
            || address.is_loopback());
        match is_host {
            true => Ok((address, prefix)),
            false => Err(format!("{address} cannot be the address of a node")),
        }
    }
}

#[cfg(test)]
mod tests;
