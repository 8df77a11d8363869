//! Value axes: linear from zero, or logarithmic.

use super::PLOT;

/// The smallest and the largest value of a logarithmic axis.
const LOG_MIN: f64 = 1e-9;
const LOG_MAX: f64 = 1e300;

/// A value axis.
#[derive(Debug, Clone)]
pub(crate) struct Axis {
    log: bool,
    /// Where it starts.
    pub(crate) low: f64,
    /// Where it ends.
    pub(crate) high: f64,
    /// Where it is labelled.
    pub(super) ticks: Vec<f64>,
}

impl Axis {
    /// From zero to at least `max`.
    pub(crate) fn linear(max: f64) -> Self {
        // Below a thousand-millionth there is nothing that we measure, and steps would round to zero.
        let max = if (1e-9..1e300).contains(&max) { max } else { 1.0 };
        let scale = 10f64.powf((max / 5.0).log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|m| m * scale).into_iter().find(|step| max / step <= 5.0);
        let step = step.unwrap_or(10.0 * scale);
        let count = (max / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=count as u32).map(|i| f64::from(i) * step).collect();
        Self { log: false, low: 0.0, high: count * step, ticks }
    }

    /// Logarithmic when the values span more than a factor of 25, else linear.
    pub(crate) fn fitting(min: f64, max: f64) -> Self {
        let wide = min > 0.0 && max.is_finite() && max / min > 25.0;
        if !wide {
            return Self::linear(max);
        }
        Self::logarithmic(min, max)
    }

    /// Logarithmic whatever the values span, if they are positive numbers.
    pub(crate) fn logarithmic(min: f64, max: f64) -> Self {
        let (min, max) = (min.clamp(LOG_MIN, LOG_MAX), max.clamp(LOG_MIN, LOG_MAX));
        let steps =
            |of: &'static [f64]| (-7..7).flat_map(move |exp| of.iter().map(move |m| m * 10f64.powi(exp)));
        let coarse = || steps(&[1.0, 2.0, 5.0]);
        let low = coarse().rfind(|v| *v <= min * 1.0001).unwrap_or(min);
        let high = coarse().find(|v| *v >= max * 0.999 && *v > low).unwrap_or(max).max(low * 2.0);
        let whole = |v: &f64| (v.log10() - v.log10().round()).abs() < 1e-9;
        let inside = |v: &f64| (low * 0.999..=high * 1.001).contains(v);
        let within: Vec<_> = coarse().filter(inside).collect();
        let ticks = match within.len() {
            0..=3 => steps(&[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0]).filter(inside).collect(),
            4..=9 => within,
            _ => within.into_iter().filter(whole).collect(),
        };
        Self { log: true, low, high, ticks }
    }

    /// Whether it is logarithmic.
    pub(crate) fn is_log(&self) -> bool {
        self.log
    }

    /// The distance from the top of the plot in pixels.
    pub(crate) fn y(&self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        PLOT * (1.0 - share.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_linear_axis_starts_at_zero_and_holds_the_largest_value() {
        let axis = Axis::linear(412.0);
        assert_eq!(axis.ticks, [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert_eq!((axis.y(0.0), axis.y(500.0)), (PLOT, 0.0));
    }

    #[test]
    fn values_that_span_decades_get_a_logarithmic_axis() {
        let axis = Axis::fitting(0.002, 4.8);
        assert!(axis.is_log());
        assert!((axis.y(0.002) - PLOT).abs() < 1e-6 && axis.y(5.0).abs() < 1e-6);
        assert!(!Axis::fitting(0.01, 0.2).is_log());
        assert!(!Axis::fitting(0.0, 10.0).is_log());
    }

    #[test]
    fn a_narrow_span_gets_finer_ticks() {
        let axis = Axis::logarithmic(0.021, 0.034);
        assert_eq!((axis.low, axis.high), (0.02, 0.05));
        assert!((3..=5).contains(&axis.ticks.len()), "{axis:?}");
        let axis = Axis::logarithmic(0.02, 0.02);
        assert!(axis.high > axis.low);
    }

    proptest! {
        #[test]
        fn an_axis_has_few_ticks_and_holds_every_value(min in 1e-6f64..1e3, factor in 1.0f64..1e7) {
            let axis = Axis::fitting(min, min * factor);
            prop_assert!((2..=12).contains(&axis.ticks.len()), "{:?}", axis);
            prop_assert!(axis.high >= min * factor * 0.999);
        }

        #[test]
        fn a_logarithmic_axis_holds_every_value(min in 1e-6f64..1e3, factor in 1.0f64..1e7) {
            let axis = Axis::logarithmic(min, (min * factor).min(600.0).max(min));
            prop_assert!((2..=12).contains(&axis.ticks.len()), "{:?}", axis);
            prop_assert!(axis.low < axis.high && axis.low <= min * 1.001);
        }
    }
}
