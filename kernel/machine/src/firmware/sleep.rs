//! The value that turns the machine off: the `\_S5_` package of the DSDT.
//!
//! ACPI hides two numbers in a program in AML. Every firmware writes them as a
//! plain constant package, so they are found by its bytes and no interpreter is
//! needed (ACPI 6.5, 7.4.2 and 20.2.5.4).

const NAME_OP: u8 = 0x08;
const PACKAGE_OP: u8 = 0x12;
const ZERO_OP: u8 = 0x00;
const ONE_OP: u8 = 0x01;
const BYTE_PREFIX: u8 = 0x0a;
const WORD_PREFIX: u8 = 0x0b;
const DWORD_PREFIX: u8 = 0x0c;
const ROOT_CHAR: u8 = b'\\';

/// `SLP_TYP` for the registers PM1a and PM1b control that means "soft off".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SoftOff {
    pub(crate) pm1a: u8,
    pub(crate) pm1b: u8,
}

/// Finds `Name (\_S5_, Package () { a, b, … })` in the AML of a table.
pub(crate) fn soft_off(aml: &[u8]) -> Option<SoftOff> {
    aml.windows(4)
        .enumerate()
        .filter(|(_, w)| *w == b"_S5_")
        .find_map(|(at, _)| package(aml, at))
}

fn package(aml: &[u8], name: usize) -> Option<SoftOff> {
    let before = |n: usize| name.checked_sub(n).and_then(|i| aml.get(i)).copied();
    let defines =
        before(1) == Some(NAME_OP) || (before(1) == Some(ROOT_CHAR) && before(2) == Some(NAME_OP));
    let rest = aml.get(name + 4..)?;
    let (&op, rest) = rest.split_first()?;
    if !defines || op != PACKAGE_OP {
        return None;
    }
    // The two top bits of the package's length tell how many bytes follow them.
    let length_bytes = 1 + usize::from(rest.first()? >> 6);
    let mut at = rest.get(length_bytes + 1..)?;
    let pm1a = constant(&mut at)?;
    // A package of one element says both in one; the second is then zero.
    let pm1b = constant(&mut at).unwrap_or(0);
    Some(SoftOff { pm1a, pm1b })
}

/// Takes an integer constant; only its low three bits mean anything here.
fn constant(at: &mut &[u8]) -> Option<u8> {
    let (&op, rest) = at.split_first()?;
    let (value, used) = match op {
        ZERO_OP | ONE_OP => (op, 0),
        BYTE_PREFIX => (*rest.first()?, 1),
        WORD_PREFIX => (*rest.first()?, 2),
        DWORD_PREFIX => (*rest.first()?, 4),
        _ => return None,
    };
    *at = rest.get(used..)?;
    Some(value & 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_qemu_writes_it() {
        // Name (_S5, Package (0x04) { Zero, Zero, Zero, Zero })
        let aml = b"\x00\x08_S5_\x12\x06\x04\x00\x00\x00\x00";
        assert_eq!(soft_off(aml), Some(SoftOff { pm1a: 0, pm1b: 0 }));
    }

    #[test]
    fn as_desktops_write_it() {
        let aml = b"xx\x08\\_S5_\x12\x0a\x04\x0a\x07\x0a\x05\x00\x00";
        assert_eq!(soft_off(aml), Some(SoftOff { pm1a: 7, pm1b: 5 }));
        let long = b"\x08_S5_\x12\x40\x01\x02\x01\x0b\x06\x00";
        assert_eq!(soft_off(long), Some(SoftOff { pm1a: 1, pm1b: 6 }));
    }

    #[test]
    fn a_mention_is_no_definition() {
        assert_eq!(soft_off(b"\x5b_S5_\x12\x06\x04\x00\x00\x00\x00"), None);
        assert_eq!(soft_off(b"\x08_S5_\x70\x06\x04\x00\x00\x00\x00"), None);
        assert_eq!(soft_off(b"\x08_S5_\x12"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(mut aml in proptest::collection::vec(any::<u8>(), 0..64), at in 0usize..64) {
            if at + 5 <= aml.len() {
                aml[at..at + 5].copy_from_slice(b"\x08_S5_");
            }
            let _ = soft_off(&aml);
        }
    }
}
