//! What netem makes of a correlation. Pure.
//!
//! A correlated draw of netem is a mean of a new number and the draw before, so that draws crowd around one half: of
//! "5 %, 50 % correlated" some 0.001 % are hit, a well-known surprise. Here the threshold is found that hits the share
//! that was written in the long run.
//!
//! With F for the draws' distribution and r for the correlation, F(x) = r/(1-r) · ∫ F from (x-1+r)/r to x/r.

/// Steps of the grid.
const STEPS: usize = 4096;
/// Enough for r up to [`CORRELATION_MAX`].
const ROUNDS: usize = 400;
/// Beyond this, one draw decides hundreds of packets, and no share is kept.
pub const CORRELATION_MAX: f64 = 0.9;

/// The chance to write into netem, so that in the long run this share is hit.
pub fn threshold(share: f64, correlation: f64) -> f64 {
    if correlation <= 0.0 || share >= 1.0 {
        return share;
    }
    let all = distribution(correlation);
    let above = all.partition_point(|below| *below < share).clamp(1, STEPS);
    let (low, high) = (all[above - 1], all[above]);
    let between = if high > low { (share - low) / (high - low) } else { 0.0 };
    // A number that a journal tells as it is.
    ((((above - 1) as f64 + between.clamp(0.0, 1.0)) / STEPS as f64) * 1e9).round() / 1e9
}

/// The share that a chance of netem hits in the long run.
pub fn long_run(threshold: f64, correlation: f64) -> f64 {
    if correlation <= 0.0 || threshold >= 1.0 {
        return threshold;
    }
    at(&distribution(correlation), threshold)
}

/// The value between two points of the grid.
fn at(grid: &[f64], x: f64) -> f64 {
    let place = x.clamp(0.0, 1.0) * STEPS as f64;
    let low = (place as usize).min(STEPS - 1);
    grid[low] + (grid[low + 1] - grid[low]) * (place - low as f64)
}

/// How many draws lie below each point of the grid.
fn distribution(correlation: f64) -> Vec<f64> {
    let r = correlation.min(CORRELATION_MAX);
    let step = 1.0 / STEPS as f64;
    let mut found: Vec<f64> = (0..=STEPS).map(|i| i as f64 * step).collect();
    for _ in 0..ROUNDS {
        let mut area = Vec::with_capacity(STEPS + 1);
        let mut sum = 0.0;
        for (i, value) in found.iter().enumerate() {
            if i > 0 {
                sum += (found[i - 1] + value) / 2.0 * step;
            }
            area.push(sum);
        }
        // Below 0 lies nothing, above 1 everything.
        let up_to = |x: f64| if x <= 1.0 { at(&area, x) } else { sum + x - 1.0 };
        let next: Vec<f64> = (0..=STEPS)
            .map(|i| {
                let x = i as f64 * step;
                let from = ((x - 1.0 + r) / r).max(0.0);
                (r / (1.0 - r) * (up_to(x / r) - up_to(from))).clamp(0.0, 1.0)
            })
            .collect();
        let moved = next.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        found = next;
        if moved < 1e-9 {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's `get_crandom`.
    fn hits(threshold: f64, correlation: f64, draws: u32) -> f64 {
        let (mut state, mut last) = (88_172_645_463_325_252_u64, 0.5);
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let hit = |_: &u32| {
            last = random() * (1.0 - correlation) + last * correlation;
            last <= threshold
        };
        f64::from((0..draws).filter(hit).count() as u32) / f64::from(draws)
    }

    #[test]
    fn the_share_that_was_written_is_hit_in_the_long_run_whatever_the_correlation() {
        for share in [0.005, 0.05, 0.3, 0.9] {
            for correlation in [0.0, 0.1, 0.25, 0.5, 0.75, 0.9] {
                let chance = threshold(share, correlation);
                let seen = hits(chance, correlation, 400_000);
                let tolerance = 0.06 * share + 0.002;
                assert!((seen - share).abs() < tolerance, "{share} at {correlation}: {chance} hits {seen}");
                assert!((long_run(chance, correlation) - share).abs() < 1e-3 * share.max(0.01));
            }
        }
    }

    #[test]
    fn without_this_hardly_anything_would_be_hit() {
        assert!(hits(0.05, 0.5, 400_000) < 0.005);
        assert!(long_run(0.05, 0.5) < 0.005);
    }
}
