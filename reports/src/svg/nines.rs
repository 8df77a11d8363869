//! The percentile plot: latency over the share of requests, where each further nine has as much room as the one before
//! (`x = log10(1 / (1 - q))`, as HdrHistogram draws it).

use super::{Axis, HEADROOM, Layers, PLOT, WIDE, framed};
use crate::format;
use crate::latency::Latencies;
use crate::markup::Markup;
use crate::record::Sli;

/// Where the axis starts: the median.
const FIRST: f64 = 0.5;
/// Where it ends at the latest, in nines: 99.999 %.
const NINES_MAX: f64 = 5.0;
/// Where it ends at the earliest.
const NINES_MIN: f64 = 2.0;
/// Points of a line.
const POINTS: u32 = 120;
/// Where the axis is labelled, if it goes so far.
const TICKS: [f64; 8] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.999_9, 0.999_99];

/// The axis of percentiles, from the median to the last one that the data can tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nines {
    last: f64,
}

/// How many nines a share has: 0.99 has two.
fn nines(q: f64) -> f64 {
    -(1.0 - q.clamp(0.0, 1.0)).max(1e-12).log10()
}

/// The largest of so many values stands in the middle of the share that it has.
fn told_by(count: u64) -> f64 {
    (2.0 * count.max(1) as f64).log10()
}

impl Nines {
    /// As far as so many values go.
    pub(crate) fn of(count: u64) -> Self {
        Self { last: told_by(count).clamp(NINES_MIN, NINES_MAX) }
    }

    /// Where a percentile lies, from 0 to 1.
    pub(crate) fn share(self, q: f64) -> f64 {
        self.at(nines(q))
    }

    fn at(self, x: f64) -> f64 {
        let first = nines(FIRST);
        ((x - first) / (self.last - first)).clamp(0.0, 1.0)
    }

    /// Where a line has its points, as shares of the values: to the end of the axis, or to the largest value.
    fn points(self, count: u64) -> impl Iterator<Item = f64> {
        let (first, last) = (nines(FIRST), told_by(count).min(self.last));
        let step = (last - first).max(0.0) / f64::from(POINTS);
        (0..=POINTS).map(move |i| 1.0 - 10f64.powf(-(first + step * f64::from(i))))
    }
}

/// The latencies in seconds at rising quantiles, found in one go; nothing if there are none.
fn at_quantiles(latencies: &Latencies, quantiles: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
    let (mut values, mut seen, mut value) = (latencies.values(), 0, None);
    let mut found = Vec::new();
    for q in quantiles {
        let rank = ((q * latencies.count() as f64 - 1e-6).ceil() as u64).max(1);
        while seen < rank
            && let Some((s, n)) = values.next()
        {
            (seen, value) = (seen + n, Some(s));
        }
        found.extend(value.map(|value| (q, value)));
    }
    found
}

/// Lines of latencies by percentile.
#[derive(Debug)]
pub(crate) struct Percentiles {
    nines: Nines,
    axis: Axis,
    shapes: Markup,
    over: Markup,
}

impl Percentiles {
    /// A plot without lines.
    pub(crate) fn new(nines: Nines, axis: Axis) -> Self {
        Self { nines, axis, shapes: Markup::html(), over: Markup::html() }
    }

    /// The line of some latencies, with a dot where the largest of them is; nothing if there are none.
    pub(crate) fn line(&mut self, class: &'static str, latencies: &Latencies) {
        let points = at_quantiles(latencies, self.nines.points(latencies.count()));
        let Some((end, highest)) = points.last().copied() else { return };
        let mut path = Markup::html();
        for (at, (q, value)) in points.into_iter().enumerate() {
            path.raw(if at == 0 { "M" } else { "L" }).num(self.nines.share(q) * WIDE);
            path.raw(" ").num(self.axis.y(value));
        }
        self.shapes.raw("<path class=\"line ").raw(class).raw("\" d=\"").append(&path).raw("\"/>");
        self.over
            .raw("<circle class=\"end ")
            .raw(class)
            .raw("\" r=\"3\" cx=\"")
            .percent(self.nines.share(end));
        self.over.raw("\" cy=\"").num(self.axis.y(highest)).raw("\"/>");
    }

    /// A limit: the lines must stay below it up to its percentile, where it ends.
    pub(crate) fn limit(&mut self, q: f64, value: f64, name: &str) {
        let (to, y) = (self.nines.share(q), self.axis.y(value));
        self.over
            .raw("<line class=\"limit\" x2=\"")
            .percent(to)
            .raw("\" y1=\"")
            .num(y)
            .raw("\" y2=\"")
            .num(y);
        self.over
            .raw("\"/><line class=\"gate\" x1=\"")
            .percent(to)
            .raw("\" x2=\"")
            .percent(to)
            .raw("\" y1=\"");
        self.over
            .num(y)
            .raw("\" y2=\"")
            .num((y - 9.0).max(0.0))
            .raw("\"/><text class=\"limit-name\" x=\"0\" dx=\"4\" y=\"");
        self.over.num(if y > 16.0 { y - 5.0 } else { y + 13.0 }).raw("\">").text(name).raw("</text>");
    }

    /// The whole plot as HTML.
    pub(crate) fn draw(&self, alt: &str) -> Markup {
        let (mut under, mut over) = (Markup::html(), self.over.clone());
        for q in TICKS.into_iter().filter(|q| nines(*q) <= self.nines.last + 1e-9) {
            let at = self.nines.share(q);
            let anchor = match at {
                at if at < 0.02 => "start",
                at if at > 0.98 => "end",
                _ => "middle",
            };
            under.raw("<line class=\"grid\" x1=\"").percent(at).raw("\" x2=\"").percent(at).raw("\" y2=\"");
            under.num(PLOT).raw("\"/>");
            over.raw("<line class=\"tick\" x1=\"").percent(at).raw("\" x2=\"").percent(at).raw("\" y1=\"");
            over.num(PLOT).raw("\" y2=\"").num(PLOT + 4.0).raw("\"/><text class=\"label\" x=\"").percent(at);
            over.raw("\" y=\"").num(PLOT + 17.0).raw("\" text-anchor=\"").raw(anchor).raw("\">");
            over.text(Sli::Latency(q).name()).raw("</text>");
        }
        let layers = Layers { head: &Markup::html(), under: &under, shapes: &self.shapes, over: &over };
        framed(&self.axis, format::seconds_exact, alt, HEADROOM, &layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(count: u64) -> Latencies {
        let mut latencies = Latencies::default();
        (1..=count).for_each(|us| latencies.record(us));
        latencies
    }

    #[test]
    fn each_nine_has_as_much_room_as_the_one_before() {
        let nines = Nines::of(1_000_000);
        let at = [0.9, 0.99, 0.999, 0.999_9].map(|q| nines.share(q));
        assert!(at.windows(3).all(|w| ((w[1] - w[0]) - (w[2] - w[1])).abs() < 1e-9), "{at:?}");
        assert_eq!((nines.share(0.5), nines.share(0.999_99)), (0.0, 1.0));
    }

    #[test]
    fn a_line_ends_at_the_largest_value_where_so_few_values_end() {
        for count in [1, 7, 100, 5000] {
            let (nines, latencies) = (Nines::of(100_000), spread(count));
            let last = nines.points(count).last().unwrap();
            assert_eq!(latencies.quantile(last), latencies.max(), "{count}");
            let drawn = at_quantiles(&latencies, nines.points(count));
            assert!(drawn.iter().all(|(q, value)| latencies.quantile(*q) == Some(*value)), "{drawn:?}");
            assert!(count == 1 || nines.share(last) < 1.0);
        }
        // Beyond the axis there is more, which the line does not show.
        let (nines, mut latencies) = (Nines::of(1_000_000), spread(999_999));
        latencies.record(5_000_000);
        let last = nines.points(1_000_000).last().unwrap();
        assert!((last - 0.999_99).abs() < 1e-9 && latencies.quantile(last) < latencies.max());
    }

    #[test]
    fn nothing_has_no_line() {
        let mut plot = Percentiles::new(Nines::of(0), Axis::logarithmic(1e-3, 1.0));
        plot.line("x", &Latencies::default());
        assert!(plot.shapes.is_empty() && plot.over.is_empty());
        plot.line("x", &spread(1));
        assert!(!plot.shapes.is_empty());
    }
}
