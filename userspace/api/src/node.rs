//! The configuration of a node, which its bundle carries.

use crate::key::PublicKey;
use crate::manifest::{FieldError, Problem, is_capsule_name, require};
use crate::settings::VLAN_MAX;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use serde::{Deserialize, Serialize};

/// Version of the configuration that this module reads and writes.
pub const NODE_VERSION: u8 = 2;
/// Name of the bundle's entry of kind [`Node`](crate::bundle::EntryKind::Node).
pub const ENTRY_NAME: &str = "node";
/// Largest configuration, in bytes.
pub const MAX_NODE_LEN: usize = 64 * 1024;
/// Most capsules that a node starts by itself.
pub const MAX_START: usize = 1024;
/// Most name servers.
pub const MAX_DNS: usize = 8;

/// What a node knows before it reads any manifest.
///
/// The order of the fields is the order on the wire: a change of it is a new
/// [`NODE_VERSION`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Name of the node, also its host name.
    pub name: String,
    /// The key that signs manifests and requests for this node.
    pub owner: PublicKey,
    /// Name of the manifest of the system capsule, the 3Bot, which the kernel starts.
    pub system: String,
    /// Names of the manifests that the 3Bot starts, in no particular order.
    pub start: Vec<String>,
    /// How the node gets its address.
    pub network: Network,
    /// The VLAN that the node's link is tagged for (IEEE 802.1Q), 1 to
    /// [`VLAN_MAX`](crate::settings::VLAN_MAX); `None` sends and takes untagged frames.
    pub vlan: Option<u16>,
    /// Where the node talks to people.
    pub console: Console,
}

/// How a node gets its IPv4 address. IPv6 configures itself (SLAAC) beside it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Network {
    /// From the network's DHCP server.
    #[default]
    Dhcp,
    /// From here.
    Static {
        /// The node's address.
        address: Ipv4Addr,
        /// Length of the network's prefix, 0 to 32.
        prefix: u8,
        /// The router to other networks.
        gateway: Option<Ipv4Addr>,
        /// Name servers.
        #[serde(default)]
        dns: Vec<Ipv4Addr>,
    },
}

/// Where a node talks to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Whether messages go to the first serial port.
    pub serial: bool,
    /// Whether messages go to the screen.
    pub screen: bool,
    /// Least important messages that are shown.
    pub level: LogLevel,
    /// Whether, and how, what capsules print is shown too.
    pub capsules: CapsuleOutput,
}

/// How the node's console shows what capsules print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapsuleOutput {
    /// Not at all; the API has it.
    #[default]
    Hidden,
    /// As messages of the node, line by line after the capsule's name.
    Named,
    /// Line by line and nothing else: for a console that a program reads.
    Raw,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            serial: true,
            screen: true,
            level: LogLevel::Info,
            capsules: CapsuleOutput::Hidden,
        }
    }
}

/// Importance of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something is broken.
    Error,
    /// Something may be broken.
    Warn,
    /// What the node does.
    Info,
    /// How it does it.
    Debug,
    /// Every step.
    Trace,
}

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// There are no bytes, or more than [`MAX_NODE_LEN`].
    #[error("node configuration of {0} bytes, allowed are 1 to {MAX_NODE_LEN}")]
    Length(usize),
    /// It is of another version.
    #[error("node configuration of version {0}, this program knows {NODE_VERSION}")]
    UnknownVersion(u8),
    /// The bytes are not a configuration.
    #[error("not a node configuration")]
    BadEncoding,
    /// A field has a value that it cannot have.
    #[error("{0}")]
    Field(#[from] FieldError),
}

impl NodeConfig {
    /// Writes the wire format: a version byte, then postcard.
    ///
    /// # Errors
    /// [`NodeError::Field`] or [`NodeError::Length`].
    pub fn encode(&self) -> Result<Vec<u8>, NodeError> {
        self.validate()?;
        let mut bytes = Vec::from([NODE_VERSION]);
        bytes = postcard::to_extend(self, bytes).map_err(|_| NodeError::BadEncoding)?;
        if bytes.len() > MAX_NODE_LEN {
            return Err(NodeError::Length(bytes.len()));
        }
        Ok(bytes)
    }

    /// Reads the wire format.
    ///
    /// # Errors
    /// See [`NodeError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NodeError> {
        let (version, payload) = bytes
            .split_first()
            .filter(|_| bytes.len() <= MAX_NODE_LEN)
            .ok_or(NodeError::Length(bytes.len()))?;
        if *version != NODE_VERSION {
            return Err(NodeError::UnknownVersion(*version));
        }
        let Ok((config, [])) = postcard::take_from_bytes::<Self>(payload) else {
            return Err(NodeError::BadEncoding);
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that every field has a value that it can have.
    ///
    /// # Errors
    /// The first field that has not, and why.
    pub fn validate(&self) -> Result<(), FieldError> {
        require(is_capsule_name(&self.name), "name", Problem::NotAName)?;
        require(is_capsule_name(&self.system), "system", Problem::NotAName)?;
        require(
            self.start.len() <= MAX_START,
            "start",
            Problem::TooLong(MAX_START),
        )?;
        for (number, name) in self.start.iter().enumerate() {
            require(is_capsule_name(name), "start", Problem::NotAName)?;
            require(*name != self.system, "start", Problem::Itself)?;
            let mut earlier = self.start.iter().take(number);
            require(
                !earlier.any(|other| other == name),
                "start",
                Problem::Duplicate,
            )?;
        }
        if let Some(vlan) = self.vlan {
            let least = require(vlan > 0, "vlan", Problem::Empty);
            least?;
            require(vlan <= VLAN_MAX, "vlan", Problem::TooLarge(VLAN_MAX.into()))?;
        }
        if let Network::Static { prefix, dns, .. } = &self.network {
            require(*prefix <= 32, "network.prefix", Problem::TooLarge(32))?;
            require(
                dns.len() <= MAX_DNS,
                "network.dns",
                Problem::TooLong(MAX_DNS),
            )?;
        }
        Ok(())
    }
}
