//! The log of a controller's health (NVM Express Base 1.4, 5.14.1.2).

use crate::identify::Data;
use alloc::string::String;
use machine::block::Health;

/// The log's number and length.
pub(crate) const LOG: u8 = 0x02;
pub(crate) const LEN: u32 = 512;

/// What each bit of the critical warnings means.
const WARNINGS: [&str; 6] = [
    "few spare blocks are left",
    "it is too hot or too cold",
    "it is no longer reliable",
    "it is read-only now",
    "the power for its memory failed",
    "its persistent memory is read-only",
];
/// Zero degrees Celsius in kelvin, as the log has it.
const ZERO_CELSIUS: u16 = 273;
/// Bytes of a data unit: a thousand sectors.
const DATA_UNIT: u64 = 512_000;

/// What the critical warnings say, in words; empty if there are none.
pub(crate) fn reason(warnings: u8) -> String {
    let mut all = String::new();
    for (n, text) in WARNINGS.iter().enumerate() {
        if warnings >> n & 1 != 0 {
            all.push_str(if all.is_empty() { "" } else { ", " });
            all.push_str(text);
        }
    }
    all
}

/// Decodes the log.
pub(crate) fn decode(data: &Data<'_>) -> Health {
    let warnings = data.u8(0);
    let kelvin = data.u16(1);
    let units = |at| Some(data.saturated(at).saturating_mul(DATA_UNIT));
    Health {
        is_failing: warnings != 0,
        reason: reason(warnings),
        // A sensor that is not there says nothing above absolute zero.
        temperature: i16::try_from(i32::from(kelvin) - i32::from(ZERO_CELSIUS))
            .ok()
            .filter(|_| kelvin != 0),
        spare_percent: Some(data.u8(3)),
        used_percent: Some(data.u8(5)),
        read_bytes: units(32),
        written_bytes: units(48),
        power_on_hours: Some(data.saturated(128)),
        unsafe_shutdowns: Some(data.saturated(144)),
        media_errors: Some(data.saturated(160)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log() {
        let mut log = [0; LEN as usize];
        log[0] = 0b101;
        log[1..3].copy_from_slice(&310u16.to_le_bytes());
        (log[3], log[5]) = (90, 12);
        log[48] = 2;
        log[40] = 1;
        log[128] = 7;
        let h = decode(&Data(&log));
        assert_eq!(
            h.reason,
            "few spare blocks are left, it is no longer reliable"
        );
        assert_eq!((h.is_failing, h.temperature), (true, Some(37)));
        assert_eq!((h.spare_percent, h.used_percent), (Some(90), Some(12)));
        assert_eq!(h.written_bytes, Some(1_024_000));
        assert_eq!(h.read_bytes, Some(u64::MAX));
        assert_eq!(h.power_on_hours, Some(7));
        let empty = decode(&Data(&[]));
        assert_eq!((empty.is_failing, empty.temperature), (false, None));
    }
}
