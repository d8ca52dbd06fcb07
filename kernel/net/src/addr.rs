//! Socket addresses, and their layout in a program's memory.

use crate::error::{Error, Result};
use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use smallvec::SmallVec;

/// `AF_UNSPEC`.
pub const AF_UNSPEC: u16 = 0;
/// `AF_UNIX`.
pub const AF_UNIX: u16 = 1;
/// `AF_INET`.
pub const AF_INET: u16 = 2;
/// `AF_INET6`.
pub const AF_INET6: u16 = 10;
/// `AF_NETLINK`.
pub const AF_NETLINK: u16 = 16;
/// `AF_PACKET`.
pub const AF_PACKET: u16 = 17;

/// Longest `sun_path`.
pub const UNIX_PATH_MAX: usize = 108;

/// A socket file in a file tree: device and inode number. Equal keys mean the
/// same file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Device number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
}

/// The name of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum UnixName {
    /// None.
    #[default]
    Unnamed,
    /// Bytes that are no path; the first byte of `sun_path` was NUL and is left
    /// out here.
    Abstract(Arc<[u8]>),
    /// A path, and the socket file it led to once it was looked up.
    Path(Arc<[u8]>, Option<FileKey>),
}

/// An address of any family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `AF_UNSPEC`: takes back an earlier `connect`.
    Unspecified,
    /// `AF_INET` and `AF_INET6`. IPv4-mapped IPv6 addresses appear as IPv4.
    Inet(SocketAddr),
    /// `AF_UNIX`.
    Unix(UnixName),
    /// `AF_NETLINK`.
    Netlink {
        /// Port id, often the process id.
        port: u32,
        /// Multicast groups.
        groups: u32,
    },
    /// `AF_PACKET`.
    Hardware(Hardware),
}

/// An address on a link (`struct sockaddr_ll`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Ethernet type.
    pub protocol: u16,
    /// Number of the interface.
    pub link: u32,
    /// `ARPHRD_*`.
    pub hardware: u16,
    /// `PACKET_HOST` and so on.
    pub kind: u8,
    /// Bytes of the address.
    pub len: u8,
    /// The address.
    pub address: [u8; 8],
}

impl Hardware {
    /// Sets an address of Ethernet.
    pub fn set_address(&mut self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        self.address = [a, b, c, d, e, f, 0, 0];
        self.len = 6;
    }
}

/// Bytes of a `sockaddr`.
pub type Raw = SmallVec<[u8; 112]>;

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes
        .get(at..at + N)
        .and_then(|b| b.try_into().ok())
        .ok_or(Error::INVALID)
}

impl Address {
    /// Reads a `sockaddr` of `bytes.len()` bytes.
    ///
    /// # Errors
    /// [`Error::INVALID`] if it is too short, [`Error::NoFamily`].
    pub fn parse(bytes: &[u8]) -> Result<Address> {
        let family = u16::from_ne_bytes(array(bytes, 0)?);
        match family {
            AF_UNSPEC => Ok(Address::Unspecified),
            AF_UNIX => Self::parse_unix(bytes.get(2..).unwrap_or_default()),
            AF_INET => {
                array::<16>(bytes, 0)?;
                let port = u16::from_be_bytes(array(bytes, 2)?);
                let ip = Ipv4Addr::from(array::<4>(bytes, 4)?);
                Ok(Address::Inet(SocketAddrV4::new(ip, port).into()))
            }
            AF_INET6 => {
                // `sin6_scope_id` came later: RFC 2133 programs leave it out.
                array::<24>(bytes, 0)?;
                let port = u16::from_be_bytes(array(bytes, 2)?);
                let ip = Ipv6Addr::from(array::<16>(bytes, 8)?);
                let scope = array(bytes, 24).map_or(0, u32::from_ne_bytes);
                Ok(Address::Inet(match ip.to_canonical() {
                    IpAddr::V4(v4) => SocketAddrV4::new(v4, port).into(),
                    IpAddr::V6(v6) => SocketAddrV6::new(v6, port, 0, scope).into(),
                }))
            }
            AF_NETLINK => {
                array::<12>(bytes, 0)?;
                Ok(Address::Netlink {
                    port: u32::from_ne_bytes(array(bytes, 4)?),
                    groups: u32::from_ne_bytes(array(bytes, 8)?),
                })
            }
            AF_PACKET => {
                array::<20>(bytes, 0)?;
                let [len] = array(bytes, 11)?;
                let [kind] = array(bytes, 10)?;
                Ok(Address::Hardware(Hardware {
                    protocol: u16::from_be_bytes(array(bytes, 2)?),
                    link: u32::from_ne_bytes(array(bytes, 4)?),
                    hardware: u16::from_ne_bytes(array(bytes, 8)?),
                    kind,
                    len,
                    address: array(bytes, 12)?,
                }))
            }
            _ => Err(Error::NoFamily),
        }
    }

    fn parse_unix(path: &[u8]) -> Result<Address> {
        if path.len() > UNIX_PATH_MAX {
            return Err(Error::INVALID);
        }
        Ok(Address::Unix(match path {
            [] => UnixName::Unnamed,
            [0, name @ ..] => UnixName::Abstract(name.into()),
            path => {
                let text = path.split(|b| *b == 0).next().unwrap_or(path);
                UnixName::Path(text.into(), None)
            }
        }))
    }

    /// The `sockaddr` of this address; `v6` says that the socket is of
    /// `AF_INET6`, where IPv4 addresses appear mapped.
    #[must_use]
    pub fn to_raw(&self, v6: bool) -> Raw {
        let mut out = Raw::new();
        let mut put = |b: &[u8]| out.extend_from_slice(b);
        match self {
            Address::Unspecified => put(&AF_UNSPEC.to_ne_bytes()),
            Address::Inet(SocketAddr::V4(a)) if !v6 => {
                put(&AF_INET.to_ne_bytes());
                put(&a.port().to_be_bytes());
                put(&a.ip().octets());
                put(&[0; 8]);
            }
            Address::Inet(a) => {
                let (ip, scope) = match a {
                    SocketAddr::V4(a) => (a.ip().to_ipv6_mapped(), 0),
                    SocketAddr::V6(a) => (*a.ip(), a.scope_id()),
                };
                put(&AF_INET6.to_ne_bytes());
                put(&a.port().to_be_bytes());
                put(&[0; 4]);
                put(&ip.octets());
                put(&scope.to_ne_bytes());
            }
            Address::Unix(name) => {
                put(&AF_UNIX.to_ne_bytes());
                match name {
                    UnixName::Unnamed => {}
                    UnixName::Abstract(bytes) => {
                        put(&[0]);
                        put(bytes);
                    }
                    UnixName::Path(bytes, _) => {
                        put(bytes);
                        put(&[0]);
                    }
                }
            }
            Address::Hardware(h) => {
                put(&AF_PACKET.to_ne_bytes());
                put(&h.protocol.to_be_bytes());
                put(&h.link.to_ne_bytes());
                put(&h.hardware.to_ne_bytes());
                put(&[h.kind, h.len]);
                put(&h.address);
            }
            Address::Netlink { port, groups } => {
                put(&AF_NETLINK.to_ne_bytes());
                put(&[0; 2]);
                put(&port.to_ne_bytes());
                put(&groups.to_ne_bytes());
            }
        }
        out
    }
}

/// The unspecified address of a family.
#[must_use]
pub fn any(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// The loopback address of a family.
#[must_use]
pub fn loopback(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, UnixName};
    use proptest::prelude::{any, proptest};

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in ["127.0.0.1:80", "[::1]:443", "10.0.2.15:65535"] {
            let a = Address::Inet(text.parse().unwrap());
            assert_eq!(Address::parse(&a.to_raw(false)).unwrap(), a);
            assert_eq!(Address::parse(&a.to_raw(true)).unwrap(), a);
        }
        let p = Address::Unix(UnixName::Path(b"/run/x".as_slice().into(), None));
        assert_eq!(Address::parse(&p.to_raw(false)).unwrap(), p);
        assert_eq!(p.to_raw(false).len(), 2 + 7);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_parser(bytes in proptest::collection::vec(any::<u8>(), 0..140)) {
            let _ = Address::parse(&bytes);
        }
    }
}
