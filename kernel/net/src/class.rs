//! What `/sys/class/net` tells of a capsule's interfaces. Traffic is not counted by
//! interface: there is no `statistics`.

use crate::interfaces::{Interface, interfaces};
use crate::stack::NetStack;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt::{self, Write};
use vfs::pseudo::{Content, Text};

/// The files there are of each interface.
pub const FILES: [&str; 13] = [
    "addr_len",
    "address",
    "broadcast",
    "carrier",
    "duplex",
    "flags",
    "ifindex",
    "iflink",
    "mtu",
    "operstate",
    "speed",
    "type",
    "uevent",
];

/// `IFF_RUNNING` and `IFF_LOWER_UP`, which are told by other files.
const RUNNING: u32 = 0x1_0040;
const LOOPBACK: u32 = 0x8;

/// Names of the interfaces there are now.
#[must_use]
pub fn names(stack: &NetStack) -> alloc::vec::Vec<&'static str> {
    interfaces(stack).iter().map(|i| i.name).collect()
}

/// A file of an interface.
pub struct InterfaceFile {
    /// Whose interface.
    pub stack: Arc<NetStack>,
    /// The interface's name.
    pub name: &'static str,
    /// One of [`FILES`].
    pub file: &'static str,
}

impl Content for InterfaceFile {
    fn read(&self, out: &mut Text) -> vfs::Result<()> {
        show(&self.stack, self.name, self.file, out)
    }
}

/// Writes the file `file` of the interface `name`.
///
/// # Errors
/// [`vfs::Error::NotSuchDevice`] if it is gone, [`vfs::Error::Invalid`] for what is not
/// known or does not apply, as Linux answers reads then; no memory.
fn show(stack: &NetStack, name: &str, file: &str, out: &mut dyn Write) -> vfs::Result<()> {
    let all = interfaces(stack);
    let found = all.iter().find(|i| i.name == name);
    let interface = found.ok_or(vfs::Error::NotSuchDevice)?;
    let text = tell(stack, interface, file).ok_or(vfs::Error::Invalid)?;
    writeln!(out, "{text}").map_err(|fmt::Error| vfs::Error::NoMemory)
}

fn tell(stack: &NetStack, i: &Interface, file: &str) -> Option<String> {
    use alloc::format;
    let number = |n: usize| Some(format!("{n}"));
    let is_loopback = i.flags & LOOPBACK != 0;
    let is_running = i.flags & RUNNING != 0;
    let link = || {
        let link = stack.node().link().filter(|_| !is_loopback)?;
        Some(link.status())
    };
    match file {
        "addr_len" => number(i.mac.len()),
        "address" => Some(hardware(i.mac)),
        "broadcast" => Some(hardware([if is_loopback { 0 } else { 0xff }; 6])),
        "carrier" => number(is_running.into()),
        "duplex" => Some(match link()?.is_full_duplex {
            Some(true) => "full".into(),
            Some(false) => "half".into(),
            None => "unknown".into(),
        }),
        "flags" => Some(format!("{:#x}", i.flags & !RUNNING)),
        "ifindex" | "iflink" => number(i.index as usize),
        "mtu" => number(i.mtu),
        // Linux's loopback does not tell of itself either.
        "operstate" if is_loopback => Some("unknown".into()),
        "operstate" => Some(if is_running { "up" } else { "down" }.into()),
        // -1 is an unknown speed.
        "speed" => Some(match link()?.speed_mbit {
            Some(mbit) => format!("{mbit}"),
            None => "-1".into(),
        }),
        "type" => number(i.hardware.into()),
        "uevent" => Some(format!("INTERFACE={}\nIFINDEX={}", i.name, i.index)),
        _ => None,
    }
}

fn hardware([a, b, c, d, e, f]: [u8; 6]) -> String {
    alloc::format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{NetNode, Nowhere};
    use crate::stack::StackConfig;
    use alloc::vec::Vec;
    use machine::Account;

    fn stack(node: &Arc<NetNode>) -> Arc<NetStack> {
        let config = StackConfig {
            ports: Vec::new(),
            outbound: true,
            raw: false,
            system: false,
            account: Arc::new(Account::new(64).unwrap()),
            sockets_max: 1,
        };
        node.new_stack(config).unwrap()
    }

    fn told(s: &NetStack, name: &str, file: &str) -> vfs::Result<String> {
        let mut out = String::new();
        show(s, name, file, &mut out).map(|()| out)
    }

    #[test]
    fn interfaces_are_told_as_linux_tells_them() {
        let node = NetNode::new();
        let s = stack(&node);
        assert_eq!(names(&s), ["lo"]);
        for (file, text) in [
            ("addr_len", "6\n"),
            ("address", "00:00:00:00:00:00\n"),
            ("broadcast", "00:00:00:00:00:00\n"),
            ("carrier", "1\n"),
            ("flags", "0x9\n"),
            ("ifindex", "1\n"),
            ("iflink", "1\n"),
            ("mtu", "65536\n"),
            ("operstate", "unknown\n"),
            ("type", "772\n"),
            ("uevent", "INTERFACE=lo\nIFINDEX=1\n"),
        ] {
            assert_eq!(told(&s, "lo", file).unwrap(), text, "{file}");
        }
        for file in ["speed", "duplex", "statistics"] {
            assert_eq!(told(&s, "lo", file), Err(vfs::Error::Invalid), "{file}");
        }
        assert_eq!(told(&s, "eth0", "mtu"), Err(vfs::Error::NotSuchDevice));
        node.attach_link("nowhere", Arc::new(Nowhere));
        assert_eq!(names(&s), ["lo", "eth0"]);
        assert_eq!(told(&s, "eth0", "flags").unwrap(), "0x1003\n");
        assert_eq!(told(&s, "eth0", "type").unwrap(), "1\n");
        assert_eq!(
            told(&s, "eth0", "broadcast").unwrap(),
            "ff:ff:ff:ff:ff:ff\n"
        );
        assert_eq!(told(&s, "eth0", "speed").unwrap(), "-1\n");
        assert_eq!(told(&s, "eth0", "duplex").unwrap(), "unknown\n");
        for file in FILES {
            assert!(told(&s, "eth0", file).is_ok(), "{file}");
        }
    }
}
