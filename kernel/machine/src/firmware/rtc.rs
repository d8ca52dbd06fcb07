//! The date and time of the PC's real-time clock (MC146818 registers).

/// The registers as they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) second: u8,
    pub(crate) minute: u8,
    pub(crate) hour: u8,
    pub(crate) day: u8,
    pub(crate) month: u8,
    pub(crate) year: u8,
    /// Zero where the machine has no such register.
    pub(crate) century: u8,
    /// Status register B, which tells the format of the others.
    pub(crate) status_b: u8,
}

const HOURS_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
/// In the hour: afternoon, on a twelve-hour clock.
const PM: u8 = 1 << 7;

impl Registers {
    /// Seconds since 1970-01-01 UTC, taking the clock to run in UTC; `None` if
    /// the registers hold no date.
    pub(crate) fn unix_seconds(self) -> Option<i64> {
        let number = |v: u8| match self.status_b & BINARY {
            0 if v & 0xf > 9 || v >> 4 > 9 => None,
            0 => Some(i64::from(v >> 4) * 10 + i64::from(v & 0xf)),
            _ => Some(i64::from(v)),
        };
        let hour = if self.status_b & HOURS_24 != 0 {
            number(self.hour)?
        } else {
            let afternoon = if self.hour & PM != 0 { 12 } else { 0 };
            number(self.hour & !PM)? % 12 + afternoon
        };
        // Some machines have something else where others keep the century.
        let century = number(self.century)
            .filter(|c| (19..=29).contains(c))
            .unwrap_or(20);
        let (minute, second) = (number(self.minute)?, number(self.second)?);
        let (year, month, day) = (number(self.year)?, number(self.month)?, number(self.day)?);
        let valid = (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 61
            && year < 100;
        let days = days_since_1970(century * 100 + year, month, day);
        valid.then_some(((days * 24 + hour) * 60 + minute) * 60 + second)
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years are counted
/// from March, so that the leap day is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let y = if month > 2 { year } else { year - 1 };
    let months_since_march = (month + 9) % 12;
    let day_of_year = (153 * months_since_march + 2) / 5 + day - 1;
    y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCD: Registers = Registers {
        second: 0x59,
        minute: 0x30,
        hour: 0x13,
        day: 0x22,
        month: 0x11,
        year: 0x26,
        century: 0x20,
        status_b: HOURS_24,
    };

    #[test]
    fn bcd_and_24_hours() {
        // date -u -d '2026-11-22 13:30:59' +%s
        assert_eq!(BCD.unix_seconds(), Some(1_795_354_259));
    }

    #[test]
    fn binary_and_12_hours() {
        let r = Registers {
            second: 59,
            minute: 30,
            hour: 1 | PM,
            day: 22,
            month: 11,
            year: 26,
            century: 0,
            status_b: BINARY,
        };
        assert_eq!(r.unix_seconds(), Some(1_795_354_259));
        let midnight = Registers { hour: 12, ..r };
        assert_eq!(midnight.unix_seconds(), Some(1_795_354_259 - 13 * 3600));
    }

    #[test]
    fn days_of_leap_years_and_the_epoch() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(days_since_1970(2100, 3, 1), 47_541);
    }

    #[test]
    fn no_date() {
        assert_eq!(Registers { month: 0x13, ..BCD }.unix_seconds(), None);
        assert_eq!(
            Registers {
                second: 0xff,
                ..BCD
            }
            .unix_seconds(),
            None
        );
        assert_eq!(Registers::default().unix_seconds(), None);
    }
}
