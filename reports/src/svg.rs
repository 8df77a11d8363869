//! Charts as static inline SVG: a time axis that all share, a value axis, the phases and the injections above the
//! plot and shaded through it. Positions across are percentages and text is never scaled, so a chart fits any width.
//! Every number of marks is bounded by the caller's points, [`BANDS_MAX`] and [`LANES_MAX`].

mod axis;
mod nines;

use crate::format;
use crate::markup::Markup;
use crate::record::{InjectionRecord, PhaseSpan};
use crate::series::Slot;
use crate::table;

pub(crate) use axis::Axis;
pub(crate) use nines::{Nines, Percentiles};

/// The most injections drawn.
pub(crate) const BANDS_MAX: usize = 60;
/// The most lanes of overlapping injections.
pub(crate) const LANES_MAX: usize = 8;
/// Height of the plot in pixels.
pub(crate) const PLOT: f64 = 190.0;
/// Width of the stretched coordinate system of lines and areas.
const WIDE: f64 = 1000.0;
/// The most columns of an injection's label.
const LABEL_MAX: usize = 44;
/// The smallest share of the plot at which a gap is named.
const GAP_NAMED: f64 = 0.12;
/// What a plot without phases has above it, for half a label.
const HEADROOM: f64 = 8.0;
const STRIP: f64 = 18.0;
const LANE: f64 = 19.0;
const FOOT: f64 = 22.0;

/// The time that the charts of a run show.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timespan {
    start_s: f64,
    end_s: f64,
}

impl Timespan {
    /// From the earliest to the latest finite instant; one second when there is none.
    fn around(instants: impl Iterator<Item = f64> + Clone) -> Self {
        let finite = instants.filter(|s| s.is_finite());
        let start_s = finite.clone().fold(f64::INFINITY, f64::min);
        let end_s = finite.fold(f64::NEG_INFINITY, f64::max);
        if end_s > start_s { Self { start_s, end_s } } else { Self { start_s: 0.0, end_s: 1.0 } }
    }

    /// Where an instant lies, from 0 to 1.
    pub(crate) fn share(self, s: f64) -> f64 {
        ((s - self.start_s) / (self.end_s - self.start_s)).clamp(0.0, 1.0)
    }

    fn ticks(self) -> Vec<f64> {
        const STEPS: [f64; 19] = [
            0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0,
            7200.0, 21_600.0, 86_400.0,
        ];
        let length = self.end_s - self.start_s;
        let step = STEPS.into_iter().find(|step| length / step <= 7.0).unwrap_or(length / 6.0);
        let first = (self.start_s / step).ceil();
        (0..8).map(|i| (first + f64::from(i)) * step).filter(|s| *s <= self.end_s).collect()
    }

    fn tick_label(self, s: f64) -> String {
        if self.end_s < 120.0 { format::seconds_exact(s) } else { format::clock(s) }
    }
}

/// An injection on the time axis.
#[derive(Debug, Clone)]
struct Band {
    /// From the longest to the shortest.
    labels: [String; 2],
    title: String,
    start_s: f64,
    end_s: f64,
}

/// What all charts of one run share.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Its time axis.
    pub(crate) time: Timespan,
    phases: Vec<PhaseSpan>,
    lanes: Vec<Vec<Band>>,
    /// How many injections were live and are not drawn.
    pub(crate) hidden: usize,
}

impl Scene {
    /// Phases, live injections, and the time of some slots; injection `n` is labelled `Fn` as in the tables.
    pub(crate) fn of<'s>(
        phases: &[PhaseSpan],
        injections: &[InjectionRecord],
        slots: impl Iterator<Item = &'s Slot> + Clone,
    ) -> Self {
        let spans = phases.iter().flat_map(|p| [p.start_s, p.end_s]);
        let time = Timespan::around(spans.chain(slots.flat_map(|slot| [slot.start_s, slot.end_s])));
        let mut scene = Self { time, phases: phases.to_vec(), lanes: Vec::new(), hidden: 0 };
        for (at, injection) in injections.iter().enumerate() {
            let Some(start_s) = injection.applied_s else { continue };
            let name = format!("F{} {}", at + 1, injection.fault);
            scene.add(Band {
                labels: [
                    table::clip(&format!("{name} · {}", injection.target), LABEL_MAX),
                    format!("F{}", at + 1),
                ],
                title: format!("{name}: {}", injection.summary),
                start_s,
                end_s: injection.undone_s.unwrap_or(time.end_s),
            });
        }
        scene
    }

    /// Puts a band into the first lane where it does not overlap.
    fn add(&mut self, band: Band) {
        if self.lanes.iter().map(Vec::len).sum::<usize>() >= BANDS_MAX {
            self.hidden += 1;
            return;
        }
        let free =
            |lane: &&mut Vec<Band>| lane.iter().all(|b| b.end_s <= band.start_s || band.end_s <= b.start_s);
        if let Some(lane) = self.lanes.iter_mut().find(free) {
            lane.push(band);
            lane.sort_by(|a, b| a.start_s.total_cmp(&b.start_s));
        } else if self.lanes.len() < LANES_MAX {
            self.lanes.push(vec![band]);
        } else {
            self.hidden += 1;
        }
    }

    fn top(&self) -> f64 {
        if self.phases.is_empty() && self.lanes.is_empty() {
            return HEADROOM;
        }
        STRIP + LANE * self.lanes.len() as f64 + 5.0
    }

    fn draw_phases(&self, out: &mut Markup) {
        for span in &self.phases {
            let (from, to) = (self.time.share(span.start_s), self.time.share(span.end_s));
            out.raw("<svg x=\"").percent(from).raw("\" y=\"0\" width=\"").percent(to - from);
            out.raw("\" height=\"16\"><rect class=\"phase ").raw(span.phase.name());
            out.raw("\" width=\"100%\" height=\"16\"/>");
            let name = span.phase.name();
            // A name that a plot of common width would cut off says less than none.
            if (to - from) * WIDE >= 6.4 * name.len() as f64 + 8.0 {
                out.raw("<text class=\"phase-name\" x=\"3\" y=\"12\">").text(name).raw("</text>");
            }
            out.element("title", name).raw("</svg>");
        }
    }

    /// A label may run on behind its band up to the next one; one that would be cut off there is left out.
    fn draw_lanes(&self, out: &mut Markup) {
        for (row, lane) in self.lanes.iter().enumerate() {
            for (at, band) in lane.iter().enumerate() {
                let (from, to) = (self.time.share(band.start_s), self.time.share(band.end_s));
                let room = lane.get(at + 1).map_or(1.0, |next| self.time.share(next.start_s)) - from;
                out.raw("<svg x=\"").percent(from).raw("\" y=\"").num(STRIP + LANE * row as f64);
                out.raw("\" width=\"").percent(room).raw("\" height=\"17\"><rect class=\"band\" width=\"");
                out.percent(if room > 0.0 { (to - from) / room } else { 0.0 })
                    .raw("\" height=\"17\" rx=\"2\"/>");
                out.element("title", &band.title);
                let fits = |label: &&String| room * WIDE >= 6.4 * table::width(label) as f64 + 8.0;
                if let Some(label) = band.labels.iter().find(fits) {
                    out.raw("<text class=\"band-name\" x=\"5\" y=\"12.5\">").text(label).raw("</text>");
                }
                out.raw("</svg>");
            }
        }
    }

    fn draw_shades(&self, out: &mut Markup) {
        for band in self.lanes.iter().flatten() {
            let (from, to) = (self.time.share(band.start_s), self.time.share(band.end_s));
            out.raw("<rect class=\"shade\" x=\"").percent(from).raw("\" width=\"").percent(to - from);
            out.raw("\" height=\"").num(PLOT).raw("\"/>");
        }
    }

    /// Above areas, which hide the shades.
    fn draw_edges(&self, out: &mut Markup) {
        for band in self.lanes.iter().flatten() {
            for edge in [self.time.share(band.start_s), self.time.share(band.end_s)] {
                out.raw("<line class=\"edge\" x1=\"").percent(edge).raw("\" x2=\"").percent(edge);
                out.raw("\" y2=\"").num(PLOT).raw("\"/>");
            }
        }
    }

    fn draw_time_axis(&self, out: &mut Markup) {
        for tick in self.time.ticks() {
            let at = self.time.share(tick);
            let anchor = match at {
                at if at < 0.02 => "start",
                at if at > 0.98 => "end",
                _ => "middle",
            };
            out.raw("<line class=\"tick\" x1=\"").percent(at).raw("\" x2=\"").percent(at).raw("\" y1=\"");
            out.num(PLOT).raw("\" y2=\"").num(PLOT + 4.0).raw("\"/><text class=\"label\" x=\"").percent(at);
            out.raw("\" y=\"").num(PLOT + 17.0).raw("\" text-anchor=\"").raw(anchor).raw("\">");
            out.text(self.time.tick_label(tick)).raw("</text>");
        }
    }
}

/// One chart: lines and areas in stretched coordinates, marks above them in percentages across.
#[derive(Debug)]
pub(crate) struct Chart<'a> {
    /// Phases, injections, time axis.
    pub(crate) scene: &'a Scene,
    /// The value axis.
    pub(crate) axis: Axis,
    /// Prints a tick of the value axis.
    pub(crate) unit: fn(f64) -> String,
    /// What a reader who cannot see it is told.
    pub(crate) alt: String,
    /// Lines and areas.
    pub(crate) shapes: Markup,
    /// Shades below the shapes.
    under: Markup,
    /// Limits and names, over the shapes.
    pub(crate) over: Markup,
}

impl<'a> Chart<'a> {
    /// A chart without marks.
    pub(crate) fn new(scene: &'a Scene, axis: Axis, unit: fn(f64) -> String, alt: String) -> Self {
        Self { scene, axis, unit, alt, shapes: Markup::html(), under: Markup::html(), over: Markup::html() }
    }

    /// A line through points of time in seconds and value; a missing value is a gap.
    pub(crate) fn line(&mut self, class: &'static str, points: &[(f64, Option<f64>)]) {
        self.shapes.raw("<path class=\"line ").raw(class).raw("\" d=\"");
        let mut pen_down = false;
        for (at, (s, value)) in points.iter().enumerate() {
            let Some(value) = value else {
                pen_down = false;
                continue;
            };
            self.shapes.raw(if pen_down { "L" } else { "M" }).num(self.scene.time.share(*s) * WIDE);
            self.shapes.raw(" ").num(self.axis.y(*value));
            let is_alone = !pen_down && points.get(at + 1).is_none_or(|next| next.1.is_none());
            if is_alone {
                self.shapes.raw("h.1");
            }
            pen_down = true;
        }
        self.shapes.raw("\"/>");
    }

    /// An area of steps: from one time in seconds to the next, from one value to another. Nothing is drawn where
    /// it is empty, so that what is drawn stands for something.
    pub(crate) fn area(&mut self, class: &'static str, steps: &[Step]) {
        self.shapes.raw("<path class=\"area ").raw(class).raw("\" d=\"");
        for run in steps.split(|step| step.high <= step.low).filter(|run| !run.is_empty()) {
            let forth = corners(run, |step| step.low);
            let back = corners(run, |step| step.high);
            for (at, (s, value)) in forth.into_iter().chain(back.into_iter().rev()).enumerate() {
                self.shapes.raw(if at == 0 { "M" } else { "L" }).num(self.scene.time.share(s) * WIDE);
                self.shapes.raw(" ").num(self.axis.y(value));
            }
            self.shapes.raw("Z");
        }
        self.shapes.raw("\"/>");
    }

    /// Spans without a value, shaded; the longest one says so in words if there is room.
    pub(crate) fn gaps(&mut self, spans: &[(f64, f64)], words: &str) {
        let mut widest = (0.0, 0.0);
        for (from, to) in spans {
            let (from, to) = (self.scene.time.share(*from), self.scene.time.share(*to));
            self.under.raw("<rect class=\"gap\" x=\"").percent(from).raw("\" width=\"").percent(to - from);
            self.under.raw("\" height=\"").num(PLOT).raw("\"/>");
            if to - from > widest.1 - widest.0 {
                widest = (from, to);
            }
        }
        let middle = f64::midpoint(widest.0, widest.1);
        if widest.1 - widest.0 < GAP_NAMED {
            return;
        }
        // At the edge of the plot the words start or end with the gap.
        let (at, anchor) = match middle {
            m if m < 0.3 => (widest.0, "start"),
            m if m > 0.7 => (widest.1, "end"),
            m => (m, "middle"),
        };
        self.over.raw("<text class=\"gap-name\" x=\"").percent(at).raw("\" y=\"").num(PLOT / 2.0);
        self.over.raw("\" text-anchor=\"").raw(anchor).raw("\">").text(words).raw("</text>");
    }

    /// A dashed line at a limit during some spans, with its name.
    pub(crate) fn limit(&mut self, value: f64, spans: &[(f64, f64)], name: &str) {
        let y = self.axis.y(value);
        for (at, (from, to)) in spans.iter().enumerate() {
            let (from, to) = (self.scene.time.share(*from), self.scene.time.share(*to));
            self.over.raw("<line class=\"limit\" x1=\"").percent(from).raw("\" x2=\"").percent(to);
            self.over.raw("\" y1=\"").num(y).raw("\" y2=\"").num(y).raw("\"/>");
            if at == 0 {
                self.over.raw("<text class=\"limit-name\" x=\"").percent(from).raw("\" dx=\"4\" y=\"");
                self.over.num(if y > 16.0 { y - 5.0 } else { y + 13.0 }).raw("\">").text(name).raw("</text>");
            }
        }
    }

    /// Cells of a grid over some time, equally wide and high, by class. Only those in the time of the chart are seen.
    pub(crate) fn cells(&mut self, grid: Grid, by_class: &[(&'static str, Vec<Block>)]) {
        let time = self.scene.time;
        let end_s = (grid.start_s + grid.step_s * grid.columns as f64).min(time.end_s);
        let (from, to) = (time.share(grid.start_s) * WIDE, time.share(end_s) * WIDE);
        self.shapes
            .raw("<svg x=\"")
            .num(from)
            .raw("\" width=\"")
            .num(to - from)
            .raw("\" height=\"")
            .num(PLOT);
        self.shapes.raw("\" viewBox=\"0 0 ").num((end_s - grid.start_s) / grid.step_s).raw(" ");
        self.shapes.num(grid.rows as f64).raw("\" preserveAspectRatio=\"none\">");
        for (class, cells) in by_class.iter().filter(|(_, cells)| !cells.is_empty()) {
            self.shapes.raw("<path class=\"cell ").raw(class).raw("\" d=\"");
            for Block { column, row, height } in cells {
                self.shapes.raw("M").num(*column as f64).raw(" ").num(*row as f64).raw("h1v");
                self.shapes.num(*height as f64).raw("h-1z");
            }
            self.shapes.raw("\"/>");
        }
        self.shapes.raw("</svg>");
    }

    /// The whole chart as HTML.
    pub(crate) fn draw(&self) -> Markup {
        let mut head = Markup::html();
        self.scene.draw_phases(&mut head);
        self.scene.draw_lanes(&mut head);
        let (mut under, mut over) = (Markup::html(), Markup::html());
        self.scene.draw_shades(&mut under);
        under.append(&self.under);
        self.scene.draw_edges(&mut over);
        over.append(&self.over);
        self.scene.draw_time_axis(&mut over);
        let layers = Layers { head: &head, under: &under, shapes: &self.shapes, over: &over };
        framed(&self.axis, self.unit, &self.alt, self.scene.top(), &layers)
    }
}

/// Equal slices of time and of a value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    /// Start of the first column, in seconds.
    pub(crate) start_s: f64,
    /// Width of a column, in seconds.
    pub(crate) step_s: f64,
    /// How many columns.
    pub(crate) columns: usize,
    /// How many rows.
    pub(crate) rows: usize,
}

/// Neighbours in one column of a grid that look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// The column, from 0.
    pub(crate) column: usize,
    /// The uppermost row, from 0 at the top.
    pub(crate) row: usize,
    /// How many rows.
    pub(crate) height: usize,
}

/// What a plot consists of, from the back to the front.
struct Layers<'a> {
    /// Above the plot.
    head: &'a Markup,
    /// Below the grid.
    under: &'a Markup,
    /// Stretched with the width.
    shapes: &'a Markup,
    /// Over everything, with the labels of the axis below.
    over: &'a Markup,
}

/// A plot beside the labels of its value axis; what it shows is told to those who cannot see it.
fn framed(axis: &Axis, unit: fn(f64) -> String, alt: &str, top: f64, layers: &Layers<'_>) -> Markup {
    let height = top + PLOT + FOOT;
    let mut out = Markup::html();
    out.raw("<div class=\"chart\"><svg class=\"values\" aria-hidden=\"true\" height=\"")
        .num(height)
        .raw("\">");
    for tick in &axis.ticks {
        out.raw("<text class=\"label\" x=\"100%\" dx=\"-8\" text-anchor=\"end\" y=\"");
        out.num(top + axis.y(*tick) + 4.0).raw("\">").text(unit(*tick)).raw("</text>");
    }
    out.raw("</svg><svg class=\"plot\" role=\"img\" height=\"").num(height).raw("\"");
    out.attribute("aria-label", alt).raw(">").element("desc", alt).append(layers.head);
    out.raw("<g transform=\"translate(0 ").num(top).raw(")\">").append(layers.under);
    for tick in &axis.ticks {
        let y = axis.y(*tick);
        out.raw("<line class=\"grid\" x2=\"100%\" y1=\"").num(y).raw("\" y2=\"").num(y).raw("\"/>");
    }
    out.raw("<svg width=\"100%\" height=\"").num(PLOT).raw("\" viewBox=\"0 0 ").num(WIDE).raw(" ").num(PLOT);
    out.raw("\" preserveAspectRatio=\"none\">").append(layers.shapes).raw("</svg>").append(layers.over);
    out.raw("</g></svg></div>");
    out
}

/// A part of an area.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// From when, in seconds.
    pub(crate) from_s: f64,
    /// Until when, in seconds.
    pub(crate) to_s: f64,
    /// From which value.
    pub(crate) low: f64,
    /// To which value.
    pub(crate) high: f64,
}

/// The corners of one side of an area; equal neighbours are one step.
fn corners(steps: &[Step], side: fn(&Step) -> f64) -> Vec<(f64, f64)> {
    let mut corners: Vec<(f64, f64)> = Vec::with_capacity(2 * steps.len());
    for step in steps {
        let value = side(step);
        match corners.last_mut() {
            Some(last) if last.1 == value => last.0 = step.to_s,
            _ => corners.extend([(step.from_s, value), (step.to_s, value)]),
        }
    }
    corners
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn overlapping_bands_get_lanes_of_their_own() {
        let time = Timespan { start_s: 0.0, end_s: 60.0 };
        let mut scene = Scene { time, phases: vec![], lanes: vec![], hidden: 0 };
        let band = |start_s, end_s| Band { labels: Default::default(), title: String::new(), start_s, end_s };
        for (start, end) in [(10.0, 30.0), (20.0, 40.0), (30.0, 35.0)] {
            scene.add(band(start, end));
        }
        assert_eq!(scene.lanes.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        for _ in 0..100 {
            scene.add(band(0.0, 60.0));
        }
        assert_eq!((scene.lanes.len(), scene.hidden), (LANES_MAX, 94));
    }

    #[test]
    fn a_label_without_room_is_shortened_or_left_out_and_its_band_stays() {
        let drawn = |every: f64, count: u32| {
            let time = Timespan { start_s: 0.0, end_s: 100.0 };
            let mut scene = Scene { time, phases: vec![], lanes: vec![], hidden: 0 };
            for at in 0..count {
                let start_s = f64::from(at) * every;
                let labels = ["F1 relay-latency".to_owned(), "F1".to_owned()];
                scene.add(Band { labels, title: String::new(), start_s, end_s: start_s + every / 2.0 });
            }
            let mut out = Markup::html();
            scene.draw_lanes(&mut out);
            let text = String::from_utf8(out.into_bytes()).unwrap();
            (
                text.matches("class=\"band\"").count(),
                text.matches("F1 relay").count(),
                text.matches(">F1<").count(),
            )
        };
        assert_eq!(drawn(20.0, 5), (5, 5, 0));
        assert_eq!(drawn(5.0, 20), (20, 0, 20));
        assert_eq!(drawn(2.0, 50).2, 0);
        assert_eq!(drawn(2.0, 50).0, 50);
    }

    proptest! {
        #[test]
        fn a_time_axis_has_few_ticks(start_s in 0.0f64..1e6, length in 0.01f64..1e7) {
            let ticks = Timespan { start_s, end_s: start_s + length }.ticks();
            prop_assert!(ticks.len() <= 8);
        }
    }
}
