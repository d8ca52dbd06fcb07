//! A disk's own record of its health: SMART. Which attribute means what is not in any
//! standard; these are what disks of all makers agree on.

use alloc::string::String;
use machine::block::Health;

/// Bytes of the record.
pub(crate) const LEN: usize = 512;
/// The address field of an answer that says that a threshold was exceeded (ACS-3,
/// 7.48.8): the middle and high byte.
const FAILING: u32 = 0x2c_f400;
const ADDRESS_MASK: u32 = 0xff_ff00;

/// Where attributes begin, how many there are, and bytes of each: number, flags, value,
/// worst value, and six bytes that the maker defines.
const FIRST: usize = 2;
const COUNT: usize = 30;
const ATTRIBUTE_LEN: usize = 12;

/// The attribute's six bytes, as they are.
fn raw(record: &[u8], number: u8) -> Option<[u8; 6]> {
    let attributes = record.get(FIRST..)?.chunks_exact(ATTRIBUTE_LEN);
    let mut found = attributes
        .take(COUNT)
        .filter(|a| a.first() == Some(&number));
    found.next()?.get(5..)?.first_chunk().copied()
}

/// Its low four bytes as a number: makers keep other things in the rest.
fn number(record: &[u8], attribute: u8) -> Option<u64> {
    let [a, b, c, d, ..] = raw(record, attribute)?;
    Some(u32::from_le_bytes([a, b, c, d]).into())
}

fn sectors(record: &[u8], attribute: u8) -> Option<u64> {
    let [a, b, c, d, e, f] = raw(record, attribute)?;
    let count = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
    Some(count.saturating_mul(512))
}

/// Decodes the record, and what the disk answered when asked for its status.
pub(crate) fn decode(record: &[u8], status: u32) -> Health {
    let is_failing = status & ADDRESS_MASK == FAILING;
    let reason = if is_failing {
        "it expects to fail: a threshold of SMART is exceeded"
    } else {
        ""
    };
    let temperature = raw(record, 194).or_else(|| raw(record, 190));
    let errors = [197, 198].map(|n| number(record, n));
    Health {
        is_failing,
        reason: String::from(reason),
        temperature: temperature.map(|[t, ..]| i16::from(t as i8)),
        power_on_hours: number(record, 9),
        unsafe_shutdowns: number(record, 174).or_else(|| number(record, 192)),
        used_percent: None,
        spare_percent: None,
        media_errors: errors.into_iter().flatten().reduce(u64::saturating_add),
        read_bytes: sectors(record, 242),
        written_bytes: sectors(record, 241),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record() {
        let mut record = [0; LEN];
        let attributes = [(9u8, 1234u64), (194, 0x20_0019_0026), (197, 3), (241, 10)];
        for (place, (number, raw)) in attributes.iter().enumerate() {
            let at = FIRST + place * ATTRIBUTE_LEN;
            record[at] = *number;
            record[at + 5..at + 11].copy_from_slice(&raw.to_le_bytes()[..6]);
        }
        let h = decode(&record, 0xc2_4f00);
        assert_eq!((h.is_failing, h.power_on_hours), (false, Some(1234)));
        assert_eq!((h.temperature, h.media_errors), (Some(0x26), Some(3)));
        assert_eq!((h.written_bytes, h.read_bytes), (Some(5120), None));
        assert!(decode(&record, 0x2c_f450).is_failing);
        assert_eq!(decode(&[], 0).power_on_hours, None);
    }
}
