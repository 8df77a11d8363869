//! Whether requests pile up: a rate that a target does not carry shows in those under way, long before latencies do.

/// Growth below this share of the rate is none.
const SHARE: f64 = 0.004;
/// How many standard errors the growth must be above zero.
const SURE: f64 = 4.0;

/// By how many the requests under way grow each second, if they plainly do. `under_way` has one number for each second of
/// an even rate; the first is left out, as connections are still being opened in it.
pub fn growth(under_way: &[f64], rate: f64) -> Option<f64> {
    let values = under_way.get(1..).filter(|values| values.len() >= 3)?;
    let n = values.len() as f64;
    let (mid, mean) = ((n - 1.0) / 2.0, values.iter().sum::<f64>() / n);
    let (mut across, mut along) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        across += (at as f64 - mid) * (value - mean);
        along += (at as f64 - mid).powi(2);
    }
    let slope = across / along;
    let off = |(at, value): (usize, &f64)| (value - mean - slope * (at as f64 - mid)).powi(2);
    let rest: f64 = values.iter().enumerate().map(off).sum();
    // Counts are whole: not even a perfect line is better known than that.
    let error = (rest / (n - 2.0)).max(1.0 / 6.0).sqrt() / along.sqrt();
    (slope > SHARE * rate && slope > SURE * error).then_some(slope)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_rises_is_told_from_one_that_swings() {
        assert_eq!(growth(&[9.0, 4.0, 5.0, 4.0, 5.0], 500.0), None);
        assert_eq!(growth(&[4.0, 9.0, 4.0, 12.0, 6.0], 500.0), None, "it swings");
        let rising = growth(&[4.0, 9.0, 14.0, 19.0, 24.0], 500.0).unwrap();
        assert!((rising - 5.0).abs() < 1e-9);
        assert_eq!(growth(&[24.0, 19.0, 14.0, 9.0, 4.0], 500.0), None, "it shrinks");
        assert_eq!(growth(&[4.0, 5.0, 6.0, 7.0, 8.0], 5000.0), None, "too little to matter");
        assert_eq!(growth(&[4.0, 90.0, 900.0], 500.0), None, "too short to tell");
    }
}
