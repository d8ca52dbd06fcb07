//! Conversion between the ticks of a counter and nanoseconds without division.

/// A factor with 32 fractional bits: `out = in * factor / 2^32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale(pub(crate) u64);

const NS_PER_S: u128 = 1_000_000_000;

impl Scale {
    /// From ticks of a counter of `hz` to nanoseconds.
    pub(crate) const fn to_ns(hz: u64) -> Scale {
        Scale(Self::ratio(NS_PER_S, hz as u128))
    }

    /// From nanoseconds to ticks of a counter of `hz`.
    pub(crate) const fn from_ns(hz: u64) -> Scale {
        Scale(Self::ratio(hz as u128, NS_PER_S))
    }

    const fn ratio(num: u128, den: u128) -> u64 {
        let den = if den == 0 { 1 } else { den };
        let f = ((num << 32) + den / 2) / den;
        if f > u64::MAX as u128 {
            u64::MAX
        } else {
            f as u64
        }
    }

    /// Applies the factor. One `mul` and one `shrd`: the product of two 64-bit
    /// numbers is 128 bits wide in hardware, so nothing overflows on the way.
    #[inline]
    pub(crate) const fn apply(self, x: u64) -> u64 {
        ((x as u128 * self.0 as u128) >> 32) as u64
    }
}

/// The frequency of a counter that moved `ticks` while a reference of `ref_hz`
/// moved `ref_ticks`; `None` if the reference stood still.
pub(crate) fn frequency(ticks: u64, ref_ticks: u64, ref_hz: u64) -> Option<u64> {
    let hz = (u128::from(ticks) * u128::from(ref_hz)).checked_div(u128::from(ref_ticks))?;
    u64::try_from(hz).ok().filter(|hz| *hz > 0)
}

/// The frequency of a TSC that KVM's clock describes: nanoseconds are
/// `(ticks << shift) * factor / 2^32` (Linux, `pvclock_vcpu_time_info`). `None` if that
/// makes no sense.
#[cfg_attr(
    not(target_os = "none"),
    allow(dead_code, reason = "the host's clock tells nanoseconds")
)]
pub(crate) fn pvclock_hz(factor: u32, shift: i8) -> Option<u64> {
    let unshifted = (NS_PER_S << 32).checked_div(u128::from(factor))?;
    let by = u32::from(shift.unsigned_abs());
    let hz = if shift < 0 {
        unshifted.checked_mul(1u128.checked_shl(by)?)?
    } else {
        unshifted.checked_shr(by)?
    };
    // Less than a megahertz or more than 100 GHz no CPU has.
    let sane = 1_000_000..=100_000_000_000;
    u64::try_from(hz).ok().filter(|hz| sane.contains(hz))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_gigahertz_is_one_to_one() {
        assert_eq!(Scale::to_ns(1_000_000_000).apply(12_345), 12_345);
        assert_eq!(Scale::from_ns(1_000_000_000).apply(12_345), 12_345);
    }

    #[test]
    fn what_kvm_says_of_a_tsc() {
        // 2.6 GHz as KVM writes it: halved, as the factor is below one.
        let factor = (1u64 << 33) * 10 / 26;
        let hz = pvclock_hz(u32::try_from(factor).unwrap(), -1).unwrap();
        assert!(hz.abs_diff(2_600_000_000) < 10, "{hz}");
        // 500 MHz: doubled.
        assert_eq!(pvclock_hz(1 << 31, 2), Some(500_000_000));
        for (factor, shift) in [(0, 0), (1, -128), (1, -1), (u32::MAX, 127)] {
            assert_eq!(pvclock_hz(factor, shift), None);
        }
    }

    #[test]
    fn frequencies() {
        assert_eq!(
            frequency(29_000_000, 100_000, 10_000_000),
            Some(2_900_000_000)
        );
        assert_eq!(frequency(5, 0, 10), None);
        assert_eq!(frequency(0, 5, 10), None);
    }

    proptest! {
        #[test]
        fn a_year_is_off_by_less_than_a_part_in_a_billion(hz in 1_000_000u64..6_000_000_000) {
            let ticks = hz * 31_536_000;
            let ns = Scale::to_ns(hz).apply(ticks);
            let exact = 31_536_000u64 * 1_000_000_000;
            prop_assert!(ns.abs_diff(exact) <= exact / 1_000_000_000 + 1, "{ns}");
        }

        #[test]
        fn there_and_back(hz in 500_000_000u64..6_000_000_000, ns in 0u64..1 << 40) {
            let back = Scale::to_ns(hz).apply(Scale::from_ns(hz).apply(ns));
            let tick = 1_000_000_000 / hz + 2;
            prop_assert!(back.abs_diff(ns) <= tick + ns / 500_000_000);
        }

        #[test]
        fn never_goes_back(hz in 1_000_000u64..6_000_000_000, t in 0u64..u64::MAX / 2, d in 0u64..1 << 40) {
            let s = Scale::to_ns(hz);
            prop_assert!(s.apply(t) <= s.apply(t + d));
        }
    }
}
