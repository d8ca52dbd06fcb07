//! Filters that programs attach to sockets (`SO_ATTACH_FILTER`): the classic BPF
//! machine of McCanne and Jacobson, with Linux's extensions that `libpcap` writes.

use crate::error::{Error, Result};
use alloc::vec::Vec;

/// Most instructions (`BPF_MAXINSNS`).
pub const PROGRAM_MAX: usize = 4096;
/// Bytes of `struct sock_filter`.
pub const INSTRUCTION: usize = 8;
/// Words of scratch memory (`BPF_MEMWORDS`).
const MEMORY: usize = 16;
/// Offsets from here on name something about the packet (`SKF_AD_OFF`).
const EXTENSIONS: u32 = 0xffff_f000;
const PROTOCOL: u32 = EXTENSIONS;
const KIND: u32 = EXTENSIONS + 4;
const INTERFACE: u32 = EXTENSIONS + 8;
const VLAN_TAG: u32 = EXTENSIONS + 44;
const VLAN_PRESENT: u32 = EXTENSIONS + 48;

#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u16,
    yes: u8,
    no: u8,
    k: u32,
}

/// A program that was checked: every jump leads forward inside it, every way ends.
#[derive(Debug)]
pub struct Filter(Vec<Instruction>);

/// What the extensions tell of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct About {
    /// Its Ethernet type.
    pub protocol: u16,
    /// `PACKET_HOST` and so on.
    pub kind: u8,
    /// The interface it came by.
    pub interface: u32,
}

impl Filter {
    /// Reads and checks a program, `struct sock_filter` after `struct sock_filter`.
    ///
    /// # Errors
    /// [`Error::INVALID`]; no memory.
    pub fn new(bytes: &[u8]) -> Result<Filter> {
        let count = bytes.len() / INSTRUCTION;
        if count == 0 || count > PROGRAM_MAX || !bytes.len().is_multiple_of(INSTRUCTION) {
            return Err(Error::INVALID);
        }
        let mut program = Vec::new();
        program.try_reserve_exact(count)?;
        for (at, b) in bytes.chunks_exact(INSTRUCTION).enumerate() {
            let &[c0, c1, yes, no, k0, k1, k2, k3] = b else {
                return Err(Error::INVALID);
            };
            let i = Instruction {
                code: u16::from_ne_bytes([c0, c1]),
                yes,
                no,
                k: u32::from_ne_bytes([k0, k1, k2, k3]),
            };
            if !i.is_valid(count - at - 1) {
                return Err(Error::INVALID);
            }
            program.push(i);
        }
        // Every way goes forward, so that the last instruction ends what gets there.
        match program.last() {
            Some(i) if i.code & 7 == 6 => Ok(Filter(program)),
            _ => Err(Error::INVALID),
        }
    }

    /// How many bytes of the packet pass, 0 for none; more than it has is all.
    #[must_use]
    pub fn run(&self, packet: &[u8], about: About) -> usize {
        let (mut a, mut x) = (0u32, 0u32);
        let mut memory = [0u32; MEMORY];
        let mut at = 0;
        while let Some(i) = self.0.get(at) {
            at += 1;
            let operand = if i.code & 8 != 0 { x } else { i.k };
            match i.code & 7 {
                // LD
                0 => match i.load(packet, about, &memory, x) {
                    Some(value) => a = value,
                    None => return 0,
                },
                // LDX
                1 => match i.load_index(packet, &memory) {
                    Some(value) => x = value,
                    None => return 0,
                },
                // ST, STX
                2 => put(&mut memory, i.k, a),
                3 => put(&mut memory, i.k, x),
                // ALU
                4 => match compute(i.code & 0xf0, a, operand) {
                    Some(value) => a = value,
                    None => return 0,
                },
                // JMP
                5 => {
                    let holds = match i.code & 0xf0 {
                        0 => {
                            at += i.k as usize;
                            continue;
                        }
                        0x10 => a == operand,
                        0x20 => a > operand,
                        0x30 => a >= operand,
                        _ => a & operand != 0,
                    };
                    at += usize::from(if holds { i.yes } else { i.no });
                }
                // RET
                6 => return if i.code & 0x18 == 0x10 { a } else { i.k } as usize,
                // TAX, TXA
                _ if i.code & 0x80 != 0 => a = x,
                _ => x = a,
            }
        }
        0
    }
}

impl Instruction {
    /// Whether it may stand before `left` others (`bpf_check_classic`).
    fn is_valid(&self, left: usize) -> bool {
        let in_memory = (self.k as usize) < MEMORY;
        let near = |to: u32| (to as usize) < left;
        match self.code {
            // LD of a word, half word or byte: absolute.
            0x20 | 0x28 | 0x30 => {
                self.k < EXTENSIONS
                    || [PROTOCOL, KIND, INTERFACE, VLAN_TAG, VLAN_PRESENT].contains(&self.k)
            }
            // Relative to X; the length, a constant.
            0x40 | 0x48 | 0x50 | 0x80 | 0x00 => true,
            // LDX: the length, a constant, an IP header's length.
            0x81 | 0x01 | 0xb1 => true,
            0x60 | 0x61 | 0x02 | 0x03 => in_memory,
            // DIV and MOD by a constant.
            0x34 | 0x94 => self.k != 0,
            0x64 | 0x74 => self.k < 32,
            0x04 | 0x0c | 0x14 | 0x1c | 0x24 | 0x2c | 0x3c | 0x44 | 0x4c | 0x54 | 0x5c | 0x6c
            | 0x7c | 0x84 | 0x9c | 0xa4 | 0xac => true,
            0x05 => near(self.k),
            0x15 | 0x1d | 0x25 | 0x2d | 0x35 | 0x3d | 0x45 | 0x4d => {
                near(self.yes.into()) && near(self.no.into())
            }
            0x06 | 0x16 | 0x07 | 0x87 => true,
            _ => false,
        }
    }

    fn load(&self, packet: &[u8], about: About, memory: &[u32; MEMORY], x: u32) -> Option<u32> {
        let from = match self.code & 0xe0 {
            0x00 => return Some(self.k),
            0x60 => return memory.get(self.k as usize).copied(),
            0x80 => return u32::try_from(packet.len()).ok(),
            0x20 => match self.k {
                PROTOCOL => return Some(about.protocol.into()),
                KIND => return Some(about.kind.into()),
                INTERFACE => return Some(about.interface),
                VLAN_TAG | VLAN_PRESENT => return Some(0),
                k => k,
            },
            _ => self.k.checked_add(x)?,
        };
        let rest = packet.get(from as usize..)?;
        match self.code & 0x18 {
            0x00 => rest.first_chunk().map(|b| u32::from_be_bytes(*b)),
            0x08 => rest.first_chunk().map(|b| u16::from_be_bytes(*b).into()),
            _ => rest.first().map(|b| u32::from(*b)),
        }
    }

    fn load_index(&self, packet: &[u8], memory: &[u32; MEMORY]) -> Option<u32> {
        match self.code & 0xe0 {
            0x00 => Some(self.k),
            0x60 => memory.get(self.k as usize).copied(),
            0x80 => u32::try_from(packet.len()).ok(),
            _ => packet.get(self.k as usize).map(|b| u32::from(b & 15) * 4),
        }
    }
}

fn put(memory: &mut [u32; MEMORY], at: u32, value: u32) {
    if let Some(word) = memory.get_mut(at as usize) {
        *word = value;
    }
}

fn compute(operation: u16, a: u32, b: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(b),
        0x10 => a.wrapping_sub(b),
        0x20 => a.wrapping_mul(b),
        0x30 => a.checked_div(b)?,
        0x40 => a | b,
        0x50 => a & b,
        0x60 => a.wrapping_shl(b),
        0x70 => a.wrapping_shr(b),
        0x80 => a.wrapping_neg(),
        0x90 => a.checked_rem(b)?,
        _ => a ^ b,
    })
}

#[cfg(test)]
mod tests {
    use super::{About, Filter};
    use proptest::prelude::{any, proptest};
    use std::vec::Vec;

    fn program(list: &[(u16, u8, u8, u32)]) -> Vec<u8> {
        let bytes = list.iter().flat_map(|(code, yes, no, k)| {
            let mut b = code.to_ne_bytes().to_vec();
            b.extend([*yes, *no]);
            b.extend(k.to_ne_bytes());
            b
        });
        bytes.collect()
    }

    /// What `tcpdump -dd udp port 53` prints, for IPv4 without fragments.
    const DNS: [(u16, u8, u8, u32); 11] = [
        (0x28, 0, 0, 12),
        (0x15, 0, 8, 0x800),
        (0x30, 0, 0, 23),
        (0x15, 0, 6, 17),
        (0x28, 0, 0, 20),
        (0x45, 4, 0, 0x1fff),
        (0xb1, 0, 0, 14),
        (0x48, 0, 0, 16),
        (0x15, 0, 1, 53),
        (0x06, 0, 0, 40),
        (0x06, 0, 0, 0),
    ];

    #[test]
    fn a_real_filter_chooses() {
        let f = Filter::new(&program(&DNS)).unwrap();
        let mut frame = [0u8; 60];
        frame[12] = 8;
        frame[14] = 0x46;
        frame[23] = 17;
        frame[14 + 24 + 3] = 53;
        let about = About::default();
        assert_eq!(f.run(&frame, about), 40);
        frame[14 + 24 + 3] = 54;
        assert_eq!(f.run(&frame, about), 0);
        assert_eq!(f.run(&frame[..20], about), 0, "a load beyond the end");
        let kind = Filter::new(&program(&[(0x28, 0, 0, 0xffff_f004), (0x16, 0, 0, 0)])).unwrap();
        let outgoing = About { kind: 4, ..about };
        assert_eq!(kind.run(&frame, outgoing), 4);
    }

    #[test]
    fn programs_that_could_go_astray_are_refused() {
        let ret = (0x06, 0, 0, 1);
        for bad in [
            &[][..],
            &[(0x05, 0, 0, 1), ret],
            &[(0x15, 0, 1, 0), ret],
            &[(0x34, 0, 0, 0), ret],
            &[(0x60, 0, 0, 16), ret],
            &[(0x64, 0, 0, 32), ret],
            &[(0x20, 0, 0, 0xffff_f014), ret],
            &[(0xff, 0, 0, 0), ret],
            &[(0x00, 0, 0, 1)],
        ] {
            assert!(Filter::new(&program(bad)).is_err(), "{bad:?}");
        }
        assert!(Filter::new(&program(&[ret])[..7]).is_err());
        // Division by an index that is 0 drops the packet.
        let zero = Filter::new(&program(&[(0x3c, 0, 0, 0), ret])).unwrap();
        assert_eq!(zero.run(&[], About::default()), 0);
    }

    proptest! {
        #[test]
        fn what_is_accepted_ends(bytes in proptest::collection::vec(any::<u8>(), 0..80), packet in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(f) = Filter::new(&bytes) {
                let _ = f.run(&packet, About::default());
            }
        }

        #[test]
        fn changed_filters_end(at in 0usize..88, to in any::<u8>(), packet in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut bytes = program(&DNS);
            bytes[at] = to;
            if let Ok(f) = Filter::new(&bytes) {
                let _ = f.run(&packet, About::default());
            }
        }
    }
}
