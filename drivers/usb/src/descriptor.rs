//! Descriptors: what a device says it is (USB 2.0, 9.6; USB 3.2, 9.6), read as hostile.

use crate::xhci::context::{EndpointShape, Kind};
use crate::{Speed, UsbError};
use alloc::vec::Vec;

/// Types of descriptors.
pub(crate) const DEVICE: u8 = 1;
pub(crate) const CONFIGURATION: u8 = 2;
pub(crate) const STRING: u8 = 3;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;
const COMPANION: u8 = 0x30;

/// Bytes of a device's descriptor.
pub(crate) const DEVICE_LEN: usize = 18;
/// Bytes of a configuration's own descriptor.
pub(crate) const CONFIGURATION_LEN: usize = 9;
/// Bytes that are read of a configuration with all that belongs to it.
pub(crate) const CONFIGURATION_MAX: usize = 4096;

/// Interfaces and endpoints kept of a configuration.
const INTERFACES_MAX: usize = 32;
const ENDPOINTS_MAX: usize = 30;

/// A device's descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) class: u8,
    /// What bMaxPacketSize0 says, which means different things by speed.
    pub(crate) packet: u8,
    pub(crate) vendor: u16,
    pub(crate) product: u16,
    pub(crate) release: u16,
    /// Index of the string, 0 for none.
    pub(crate) serial: u8,
    pub(crate) configurations: u8,
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([byte(bytes, at), byte(bytes, at + 1)])
}

impl Device {
    /// Reads a whole device descriptor.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Device, UsbError> {
        let is_one = bytes.len() >= DEVICE_LEN
            && usize::from(byte(bytes, 0)) >= DEVICE_LEN
            && byte(bytes, 1) == DEVICE;
        if !is_one {
            return Err(UsbError::Nonsense("its device descriptor"));
        }
        Ok(Device {
            class: byte(bytes, 4),
            packet: byte(bytes, 7),
            vendor: word(bytes, 8),
            product: word(bytes, 10),
            release: word(bytes, 12),
            serial: byte(bytes, 16),
            configurations: byte(bytes, 17),
        })
    }
}

/// Bytes of a packet of the control endpoint, as a descriptor says them in its eighth
/// byte.
pub(crate) fn control_packet(speed: Speed, said: u8) -> Result<u16, UsbError> {
    let wrong = UsbError::Nonsense("the packets of its control endpoint");
    match (speed, said) {
        (Speed::Low, 8) | (Speed::Full, 8 | 16 | 32 | 64) | (Speed::High, 64) => {
            Ok(u16::from(said))
        }
        (Speed::Super | Speed::SuperPlus, 9) => Ok(512),
        _ => Err(wrong),
    }
}

/// An endpoint of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its number, and in bit 7 whether it goes in.
    pub(crate) address: u8,
    attributes: u8,
    max_packet: u16,
    interval: u8,
    burst: u8,
}

impl Endpoint {
    pub(crate) fn is_in(&self) -> bool {
        self.address & 0x80 != 0
    }

    fn is_bulk(&self) -> bool {
        self.attributes & 3 == 2
    }

    fn is_interrupt(&self) -> bool {
        self.attributes & 3 == 3
    }

    /// What the controller is told of it.
    pub(crate) fn shape(&self, speed: Speed) -> Result<EndpointShape, UsbError> {
        let wrong = UsbError::Nonsense("an endpoint");
        let number = self.address & 0xf;
        let max_packet = self.max_packet & 0x7ff;
        let kind = match self.attributes & 3 {
            2 => Kind::Bulk,
            3 => Kind::Interrupt,
            _ => return Err(wrong),
        };
        if number == 0 || !(1..=1024).contains(&max_packet) {
            return Err(wrong);
        }
        Ok(EndpointShape {
            kind,
            index: number * 2 + u8::from(self.is_in()),
            max_packet,
            burst: if speed.is_usb3() {
                self.burst.min(15)
            } else {
                0
            },
            interval: match kind {
                Kind::Interrupt => interval(speed, self.interval),
                _ => 0,
            },
        })
    }
}

/// The exponent of 125 µs that is nearest to, and not above, what an endpoint asks for
/// (xHCI 1.2, 6.2.3.6).
fn interval(speed: Speed, said: u8) -> u8 {
    match speed {
        // In milliseconds.
        Speed::Low | Speed::Full => {
            let steps = u32::from(said.max(1)) * 8;
            steps.ilog2().clamp(3, 10) as u8
        }
        _ => said.clamp(1, 16) - 1,
    }
}

/// An interface in one of its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) number: u8,
    pub(crate) setting: u8,
    /// Class, sub-class and protocol.
    pub(crate) class: (u8, u8, u8),
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Interface {
    /// Its first bulk endpoint that goes in, or out.
    pub(crate) fn bulk(&self, is_in: bool) -> Option<Endpoint> {
        let mut all = self.endpoints.iter();
        all.find(|e| e.is_bulk() && e.is_in() == is_in).copied()
    }

    /// Its first interrupt endpoint that goes in.
    pub(crate) fn interrupt(&self) -> Option<Endpoint> {
        let mut all = self.endpoints.iter();
        all.find(|e| e.is_interrupt() && e.is_in()).copied()
    }
}

/// A configuration and all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Configuration {
    pub(crate) value: u8,
    pub(crate) interfaces: Vec<Interface>,
}

/// How many bytes a configuration has in all, from its own descriptor; cut to what is
/// read of it.
pub(crate) fn configuration_len(bytes: &[u8]) -> Result<u16, UsbError> {
    let total = word(bytes, 2);
    let is_one = byte(bytes, 1) == CONFIGURATION && usize::from(total) >= CONFIGURATION_LEN;
    if bytes.len() < CONFIGURATION_LEN || !is_one {
        return Err(UsbError::Nonsense("its configuration descriptor"));
    }
    Ok(total.min(CONFIGURATION_MAX as u16))
}

impl Configuration {
    /// Reads a configuration with all that belongs to it. What is not known is skipped;
    /// what does not fit ends it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Configuration, UsbError> {
        let total = usize::from(configuration_len(bytes)?).min(bytes.len());
        let mut rest = bytes.get(..total).unwrap_or_default();
        let mut interfaces: Vec<Interface> = Vec::new();
        while let [len, kind, ..] = *rest {
            let len = usize::from(len);
            // A descriptor has at least these two bytes: so this comes to an end.
            let Some(descriptor) = rest.get(..len).filter(|_| len >= 2) else {
                break;
            };
            rest = rest.get(len..).unwrap_or_default();
            match kind {
                INTERFACE if interfaces.len() < INTERFACES_MAX && len >= 9 => {
                    interfaces.push(interface(descriptor));
                }
                ENDPOINT if len >= 7 => {
                    let current = interfaces.last_mut().map(|i| &mut i.endpoints);
                    let room = current.filter(|e| e.len() < ENDPOINTS_MAX);
                    if let Some(endpoints) = room {
                        endpoints.push(endpoint(descriptor));
                    }
                }
                COMPANION if len >= 6 => {
                    let current = interfaces.last_mut().and_then(|i| i.endpoints.last_mut());
                    if let Some(endpoint) = current {
                        endpoint.burst = byte(descriptor, 2);
                    }
                }
                _ => {}
            }
        }
        Ok(Configuration {
            value: byte(bytes, 5),
            interfaces,
        })
    }
}

fn interface(bytes: &[u8]) -> Interface {
    Interface {
        number: byte(bytes, 2),
        setting: byte(bytes, 3),
        class: (byte(bytes, 5), byte(bytes, 6), byte(bytes, 7)),
        endpoints: Vec::new(),
    }
}

fn endpoint(bytes: &[u8]) -> Endpoint {
    Endpoint {
        address: byte(bytes, 2),
        attributes: byte(bytes, 3),
        max_packet: word(bytes, 4),
        interval: byte(bytes, 6),
        burst: 0,
    }
}

/// The text of a string descriptor: what is not printable ASCII becomes a dot, as it
/// ends up on consoles.
pub(crate) fn text(bytes: &[u8]) -> alloc::string::String {
    let len = usize::from(byte(bytes, 0)).min(bytes.len());
    if byte(bytes, 1) != STRING {
        return alloc::string::String::new();
    }
    let units = bytes.get(2..len).unwrap_or_default().chunks_exact(2);
    let printable = units.map(|unit| match word(unit, 0) {
        unit @ 0x20..=0x7e => char::from(unit as u8),
        _ => '.',
    });
    let all: alloc::string::String = printable.collect();
    alloc::string::String::from(all.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    /// A stick as QEMU has it at high speed, with a descriptor nobody knows in it.
    const STICK: [u8; 37] = [
        9, 2, 37, 0, 1, 1, 0, 0xc0, 0, // configuration
        9, 4, 0, 0, 2, 8, 6, 0x50, 0, // interface: mass storage, SCSI, bulk-only
        5, 0x99, 1, 2, 3, // unknown
        7, 5, 0x81, 2, 0, 2, 0, // bulk in, 512
        7, 5, 0x02, 2, 0, 2, 0, // bulk out, 512
    ];

    #[test]
    fn a_stick() {
        let config = Configuration::parse(&STICK).unwrap();
        assert_eq!(config.value, 1);
        let [interface] = &config.interfaces[..] else {
            panic!("one interface")
        };
        assert_eq!(interface.class, (8, 6, 0x50));
        let shape = interface.bulk(true).unwrap().shape(Speed::High).unwrap();
        assert_eq!((shape.index, shape.max_packet), (3, 512));
        let shape = interface.bulk(false).unwrap().shape(Speed::High).unwrap();
        assert_eq!((shape.index, shape.kind), (4, Kind::Bulk));
        assert!(interface.interrupt().is_none());
    }

    #[test]
    fn an_endless_descriptor_ends() {
        let mut bytes = STICK;
        bytes[9] = 0;
        assert!(Configuration::parse(&bytes).unwrap().interfaces.is_empty());
        bytes[9] = 1;
        assert!(Configuration::parse(&bytes).unwrap().interfaces.is_empty());
        bytes[9] = 255;
        assert!(Configuration::parse(&bytes).unwrap().interfaces.is_empty());
        // It says that it is longer than what came.
        let mut bytes = STICK;
        [bytes[2], bytes[3]] = [0xff, 0xff];
        assert_eq!(Configuration::parse(&bytes).unwrap().interfaces.len(), 1);
        assert_eq!(configuration_len(&bytes).unwrap(), 4096);
        [bytes[2], bytes[3]] = [8, 0];
        assert!(configuration_len(&bytes).is_err());
    }

    #[test]
    fn a_flood_of_interfaces_is_cut() {
        let mut bytes = vec![9, 2, 0xff, 0x0f, 1, 1, 0, 0, 0];
        for n in 0..200 {
            bytes.extend([9, 4, n, 0, 0, 3, 1, 1, 0]);
            bytes.extend([7, 5, 0x81, 3, 8, 0, 10]);
        }
        let config = Configuration::parse(&bytes).unwrap();
        assert_eq!(config.interfaces.len(), INTERFACES_MAX);
        let most = config.interfaces.iter().map(|i| i.endpoints.len()).max();
        assert!(most <= Some(ENDPOINTS_MAX));
    }

    #[test]
    fn packets_and_intervals() {
        assert_eq!(control_packet(Speed::Full, 64), Ok(64));
        assert_eq!(control_packet(Speed::Super, 9), Ok(512));
        for (speed, said) in [(Speed::Low, 64), (Speed::High, 8), (Speed::Full, 0)] {
            assert!(control_packet(speed, said).is_err());
        }
        assert_eq!(interval(Speed::Full, 10), 6);
        assert_eq!(interval(Speed::Low, 255), 10);
        assert_eq!(
            (interval(Speed::High, 0), interval(Speed::High, 255)),
            (0, 15)
        );
    }

    #[test]
    fn strings_are_made_harmless() {
        let bytes = [12, 3, b'a', 0, 0x1b, 0, b'b', 0, 0xe4, 0, b' ', 0];
        assert_eq!(text(&bytes), "a.b.");
        assert_eq!(text(&[200, 3, b'x', 0, b'y']), "x");
        assert_eq!((text(&[]), text(&[4, 9, 1, 1])), ("".into(), "".into()));
    }

    proptest! {
        #[test]
        fn nothing_a_device_says_stops_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Device::parse(&bytes);
            let _ = text(&bytes);
            if let Ok(config) = Configuration::parse(&bytes) {
                for interface in &config.interfaces {
                    for endpoint in &interface.endpoints {
                        for speed in Speed::ALL {
                            if let Ok(shape) = endpoint.shape(speed) {
                                prop_assert!((2..32).contains(&shape.index));
                                prop_assert!((1..=1024).contains(&shape.max_packet));
                                prop_assert!(shape.interval < 16 && shape.burst < 16);
                            }
                        }
                    }
                }
            }
        }

        #[test]
        fn a_broken_byte_does_not_stop_it_either(at in 0usize..37, value: u8) {
            let mut bytes = STICK;
            bytes[at] = value;
            let _ = Configuration::parse(&bytes);
        }
    }
}
