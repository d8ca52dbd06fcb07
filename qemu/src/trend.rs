//! Whether something grows with every run, or has only reached a new height.
//!
//! What a kernel keeps for reuse makes steps that get rarer; what it loses is the same
//! again and again. The median of the slopes between all pairs of samples (the estimator
//! of Theil and Sen) takes no notice of the one and shows the other.

/// By how much a sample is larger than the one before it, as most of them have it.
pub fn slope(samples: &[f64]) -> f64 {
    let mut slopes = Vec::new();
    for (at, first) in samples.iter().enumerate() {
        for (distance, later) in (1u32..).zip(samples.iter().skip(at + 1)) {
            slopes.push((later - first) / f64::from(distance));
        }
    }
    slopes.sort_by(f64::total_cmp);
    slopes.get(slopes.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::slope;

    #[test]
    fn steps_are_no_trend_and_a_leak_is_one() {
        assert_eq!(slope(&[]), 0.0);
        assert_eq!(slope(&[1.0]), 0.0);
        assert_eq!(slope(&[5.0, 5.0, 90.0, 90.0, 90.0, 90.0, 90.0]), 0.0);
        let noise = [3.0, -3.0, 1.0, -1.0];
        let leak: Vec<f64> = (0..12u8)
            .map(|run| f64::from(run) * 4.0 + noise[usize::from(run % 4)])
            .collect();
        assert!((slope(&leak) - 4.0).abs() < 0.5, "{}", slope(&leak));
    }
}
