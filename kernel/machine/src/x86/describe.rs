//! What CPUID says about the processor, for a report to people.

use crate::inventory::Processor;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::x86_64::{__cpuid, __cpuid_count};

/// Where a feature's bit is: leaf, register (a to d as 0 to 3), bit.
type Place = (u32, usize, u32);

/// Features by Linux's names (SDM vol. 2A, CPUID; AMD64 vol. 3, appendix E).
const FEATURES: [(&str, Place); 34] = [
    ("sse3", (1, 2, 0)),
    ("vmx", (1, 2, 5)),
    ("ssse3", (1, 2, 9)),
    ("pcid", (1, 2, 17)),
    ("sse4_1", (1, 2, 19)),
    ("sse4_2", (1, 2, 20)),
    ("x2apic", (1, 2, 21)),
    ("popcnt", (1, 2, 23)),
    ("tsc_deadline_timer", (1, 2, 24)),
    ("aes", (1, 2, 25)),
    ("xsave", (1, 2, 26)),
    ("avx", (1, 2, 28)),
    ("rdrand", (1, 2, 30)),
    ("hypervisor", (1, 2, 31)),
    ("fsgsbase", (7, 1, 0)),
    ("avx2", (7, 1, 5)),
    ("smep", (7, 1, 7)),
    ("erms", (7, 1, 9)),
    ("invpcid", (7, 1, 10)),
    ("avx512f", (7, 1, 16)),
    ("rdseed", (7, 1, 18)),
    ("smap", (7, 1, 20)),
    ("sha_ni", (7, 1, 29)),
    ("umip", (7, 2, 2)),
    ("pku", (7, 2, 3)),
    ("vaes", (7, 2, 9)),
    ("la57", (7, 2, 16)),
    ("fsrm", (7, 3, 4)),
    ("svm", (0x8000_0001, 2, 2)),
    ("nx", (0x8000_0001, 3, 20)),
    ("pdpe1gb", (0x8000_0001, 3, 26)),
    ("rdtscp", (0x8000_0001, 3, 27)),
    ("constant_tsc", (0x8000_0007, 3, 8)),
    ("sme", (0x8000_001f, 0, 0)),
];

/// What CPUID says.
pub(crate) fn describe_cpu() -> Processor {
    let identity = __cpuid(0);
    let signature = __cpuid(1).eax;
    let base_family = signature >> 8 & 0xf;
    let family = base_family
        + if base_family == 0xf {
            signature >> 20 & 0xff
        } else {
            0
        };
    let extended = matches!(base_family, 6 | 0xf);
    let number = signature >> 4 & 0xf | if extended { signature >> 12 & 0xf0 } else { 0 };
    Processor {
        vendor: text(&[identity.ebx, identity.edx, identity.ecx]),
        model: model(),
        family: family as u8,
        number: number as u8,
        stepping: (signature & 0xf) as u8,
        features: features(),
    }
}

fn has_leaf(leaf: u32) -> bool {
    __cpuid(leaf & 0x8000_0000).eax >= leaf
}

/// The name, in the registers of three leaves.
fn model() -> String {
    const LEAVES: [u32; 3] = [0x8000_0002, 0x8000_0003, 0x8000_0004];
    if !has_leaf(LEAVES[2]) {
        return String::new();
    }
    let registers: Vec<u32> = LEAVES
        .iter()
        .map(|leaf| __cpuid(*leaf))
        .flat_map(|r| [r.eax, r.ebx, r.ecx, r.edx])
        .collect();
    text(&registers)
}

fn features() -> Vec<&'static str> {
    let has = |(leaf, register, bit): Place| {
        let r = __cpuid_count(leaf, 0);
        let registers = [r.eax, r.ebx, r.ecx, r.edx];
        has_leaf(leaf) && registers[register] & 1 << bit != 0
    };
    let all = FEATURES.iter().filter(|(_, place)| has(*place));
    all.map(|(name, _)| *name).collect()
}

/// Printable text in registers, without blanks around it.
fn text(registers: &[u32]) -> String {
    let bytes = registers.iter().flat_map(|r| r.to_le_bytes());
    let printable = bytes.filter(|b| (b' '..0x7f).contains(b));
    let text: String = printable.map(char::from).collect();
    String::from(text.trim())
}
