//! DHCP messages of machines that boot (RFC 2131, RFC 4578, PXE 2.1, UEFI 2.10 24.7).
//!
//! Reading and writing of the fields is smoltcp's; what network boot adds to them is here.

use smoltcp::wire::{
    ArpHardware, DhcpFlags, DhcpMessageType, DhcpOpCode, DhcpOption, DhcpPacket, EthernetAddress,
};
use std::net::Ipv4Addr;

/// Option numbers (RFC 2132, RFC 3004, RFC 4578).
pub(super) mod option {
    pub(in crate::pxe) const SUBNET_MASK: u8 = 1;
    pub(in crate::pxe) const ROUTER: u8 = 3;
    pub(in crate::pxe) const DNS: u8 = 6;
    pub(in crate::pxe) const VENDOR_INFORMATION: u8 = 43;
    pub(in crate::pxe) const REQUESTED_ADDRESS: u8 = 50;
    pub(in crate::pxe) const LEASE_SECONDS: u8 = 51;
    pub(super) const MESSAGE_TYPE: u8 = 53;
    pub(in crate::pxe) const SERVER: u8 = 54;
    pub(in crate::pxe) const CLASS: u8 = 60;
    pub(super) const BOOT_FILE: u8 = 67;
    pub(super) const USER_CLASS: u8 = 77;
    pub(super) const ARCHITECTURE: u8 = 93;
    pub(in crate::pxe) const MACHINE_ID: u8 = 97;
}

/// Length of a message without options, with the cookie before them.
const HEAD: usize = 240;
/// Longest message sent: every client takes so much (RFC 2131, 2).
const LENGTH_MAX: usize = 576 - 28;
/// What some clients refuse to take less than (RFC 1542, 2.1).
const LENGTH_MIN: usize = 300;
const COOKIE: u32 = 0x6382_5363;
/// Where the server's name and the boot file's name lie.
const SERVER_NAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// A machine's hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl std::str::FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no hardware address such as 52:54:00:12:34:56");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            let part = part.ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(wrong()),
        }
    }
}

/// What program of a machine asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Firmware {
    /// A PC's BIOS.
    Bios,
    /// UEFI for x86-64, which loads by TFTP.
    Uefi,
    /// UEFI for x86-64, which loads by HTTP.
    UefiHttp,
    /// iPXE, on whatever firmware.
    Ipxe,
    /// Something for which there is nothing to boot: its number of RFC 4578.
    Other(u16),
}

/// What a client's message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discover,
    Request,
    /// The address given is somebody else's already.
    Decline,
    /// The address is no longer needed.
    Release,
    Other,
}

/// A client's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) kind: Kind,
    pub(crate) mac: Mac,
    /// The firmware, if it asks for something to boot.
    pub(crate) firmware: Option<Firmware>,
    /// The address it has.
    pub(crate) address: Ipv4Addr,
    /// The address it would like.
    pub(crate) wanted: Option<Ipv4Addr>,
    /// The server it has chosen.
    pub(crate) server: Option<Ipv4Addr>,
    /// The relay between it and us, or 0.0.0.0.
    pub(crate) relay: Ipv4Addr,
    machine_id: Option<Vec<u8>>,
    transaction: u32,
    flags: DhcpFlags,
}

impl Query {
    /// Reads a message; `None` if it is none of an Ethernet client.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let packet = DhcpPacket::new_checked(bytes).ok()?;
        let ours = packet.opcode() == DhcpOpCode::Request
            && packet.hardware_type() == ArpHardware::Ethernet
            && packet.hardware_len() == 6
            && packet.magic_number() == COOKIE;
        if !ours {
            return None;
        }
        let find = |number| {
            let mut options = packet.options();
            options
                .find(|option| option.kind == number)
                .map(|option| option.data)
        };
        let address = |number| {
            let four: Option<[u8; 4]> = find(number).and_then(|data| data.try_into().ok());
            four.map(Ipv4Addr::from)
        };
        let kind = match *find(option::MESSAGE_TYPE)?.first()? {
            1 => Kind::Discover,
            3 => Kind::Request,
            4 => Kind::Decline,
            7 => Kind::Release,
            _ => Kind::Other,
        };
        Some(Self {
            kind,
            mac: Mac(packet.client_hardware_address().0),
            firmware: firmware(&find),
            address: packet.client_ip(),
            wanted: address(option::REQUESTED_ADDRESS),
            server: address(option::SERVER),
            relay: packet.relay_agent_ip(),
            machine_id: find(option::MACHINE_ID).map(<[u8]>::to_vec),
            transaction: packet.transaction_id(),
            flags: packet.flags(),
        })
    }
}

/// The firmware that asks for something to boot, by what a query says of itself.
fn firmware<'a>(find: &impl Fn(u8) -> Option<&'a [u8]>) -> Option<Firmware> {
    let class = find(option::CLASS)?;
    if !class.starts_with(b"PXEClient") && !class.starts_with(b"HTTPClient") {
        return None;
    }
    // RFC 3004 wants a length before it; iPXE sends the plain name.
    if find(option::USER_CLASS).is_some_and(|name| name == b"iPXE") {
        return Some(Firmware::Ipxe);
    }
    let number = find(option::ARCHITECTURE)
        .and_then(|data| Some(u16::from_be_bytes(data.get(..2)?.try_into().ok()?)));
    Some(match number {
        Some(0) => Firmware::Bios,
        // 7 was meant for EFI byte code, and is what x86-64 sends.
        Some(7 | 9) => Firmware::Uefi,
        Some(16) => Firmware::UefiHttp,
        other => Firmware::Other(other.unwrap_or(u16::MAX)),
    })
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A proposal.
    Offer,
    /// What was asked for is granted.
    Ack,
    /// It is not, and the client begins anew.
    Nak,
}

/// Our answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// What it is.
    pub(crate) answer: Answer,
    /// Our address.
    pub(crate) server: Ipv4Addr,
    /// The address that the client gets; 0.0.0.0 where another server gives it.
    pub(crate) address: Ipv4Addr,
    /// What to boot; empty for nothing.
    pub(crate) file: String,
    /// Further options, in this order.
    pub(crate) options: Vec<(u8, Vec<u8>)>,
}

impl Reply {
    /// An answer from the server at `server` that gives nothing yet.
    pub(crate) fn new(answer: Answer, server: Ipv4Addr) -> Self {
        Self {
            answer,
            server,
            address: Ipv4Addr::UNSPECIFIED,
            file: String::new(),
            options: Vec::new(),
        }
    }

    /// Adds an option.
    pub(crate) fn option(&mut self, number: u8, data: &[u8]) {
        self.options.push((number, data.to_vec()));
    }

    /// The bytes of this answer to `query`; `None` if it is too long to be sent.
    pub(crate) fn encode(&self, query: &Query) -> Option<Vec<u8>> {
        let mut bytes = vec![0; LENGTH_MAX];
        let mut packet = DhcpPacket::new_unchecked(&mut bytes[..]);
        packet.set_opcode(DhcpOpCode::Reply);
        packet.set_hardware_type(ArpHardware::Ethernet);
        packet.set_hardware_len(6);
        packet.set_transaction_id(query.transaction);
        packet.set_flags(query.flags);
        packet.set_client_ip(query.address);
        packet.set_your_ip(self.address);
        packet.set_server_ip(self.server);
        packet.set_relay_agent_ip(query.relay);
        packet.set_client_hardware_address(EthernetAddress(query.mac.0));
        packet.set_magic_number(COOKIE);
        let kind = match self.answer {
            Answer::Offer => DhcpMessageType::Offer,
            Answer::Ack => DhcpMessageType::Ack,
            Answer::Nak => DhcpMessageType::Nak,
        };
        let mut options = vec![
            (option::MESSAGE_TYPE, vec![u8::from(kind)]),
            (option::SERVER, self.server.octets().to_vec()),
        ];
        options.extend(self.options.iter().cloned());
        if let Some(id) = &query.machine_id {
            options.push((option::MACHINE_ID, id.clone()));
        }
        if !self.file.is_empty() {
            options.push((option::BOOT_FILE, self.file.clone().into_bytes()));
        }
        let mut length = HEAD + 1;
        let mut writer = packet.options_mut();
        for (kind, data) in &options {
            writer.emit(DhcpOption { kind: *kind, data }).ok()?;
            length += 2 + data.len();
        }
        writer.end().ok()?;
        text_field(&mut bytes[SERVER_NAME], &self.server.to_string());
        // Older firmware looks here and not at the option; what is longer has only that.
        text_field(&mut bytes[FILE], &self.file);
        bytes.truncate(length.max(LENGTH_MIN));
        Some(bytes)
    }
}

/// Writes a text with a zero behind it, if it fits.
fn text_field(field: &mut [u8], text: &str) {
    if text.len() < field.len() {
        field[..text.len()].copy_from_slice(text.as_bytes());
    }
}

#[cfg(test)]
#[path = "dhcp_tests.rs"]
pub(super) mod tests;
