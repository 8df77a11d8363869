//! Latency over time as a heat map: where the answers of each moment were, not only their quantiles.

use super::super::RenderError;
use super::charts::{self, Story, without_success};
use super::{close_table, number, open_table};
use crate::format;
use crate::heat::{Cell, Group, Heat};
use crate::markup::Markup;
use crate::record::LoadRecord;
use crate::series::Slot;
use crate::svg::{Axis, Block, Chart, Grid, Scene};

/// Colours by the share of the answers of a slice, from the smallest: class, share from which it counts, name.
const LEVELS: [(&str, f64, &str); 7] = [
    ("h0", 0.0, "fewer"),
    ("h1", 0.001, "0.1%"),
    ("h2", 0.003, "0.3%"),
    ("h3", 0.01, "1%"),
    ("h4", 0.03, "3%"),
    ("h5", 0.1, "10%"),
    ("h6", 0.3, "30%"),
];
/// The most rows of the table.
const TABLE_MAX: usize = 24;

/// The figure of one load; empty where nothing has a latency.
pub(super) fn figure(
    story: &Story<'_>,
    load: &LoadRecord,
    scene: &Scene,
    slots: &[Slot],
) -> Result<Markup, RenderError> {
    let damaged = |source| RenderError::Latencies { journey: load.name.clone(), source };
    let Some(heat) = Heat::of(load).map_err(damaged)? else { return Ok(Markup::html()) };
    let limits = story.limits(load);
    let (low_s, high_s) = heat.range_s;
    let highest = limits.iter().map(|objective| objective.limit).fold(high_s, f64::max);
    let axis = Axis::logarithmic(low_s, highest);
    let (bottom, top) = (axis.low, axis.high);
    let rows = Heat::rows(bottom, top);
    let alt = format!(
        "Latency of {} over time as a heat map: from {} to {}; darker where more of the answers of a moment were",
        load.name,
        format::seconds(low_s),
        format::seconds(high_s)
    );
    let mut chart = Chart::new(scene, axis, format::seconds_exact, alt);
    let grid = Grid { start_s: heat.start_s, step_s: heat.step_s, columns: heat.columns(), rows };
    chart.cells(grid, &by_level(&heat.cells(bottom, top), rows));
    chart.gaps(&without_success(slots), "no request succeeded in this time");
    story.draw_limits(&mut chart, &limits);
    let legend = LEVELS.iter().map(|(class, _, name)| (*class, *name));
    let legend: Vec<_> = legend.chain((!limits.is_empty()).then_some(("limit", "objective"))).collect();
    let step = format::seconds_exact(heat.step_s);
    let title = format!("Latency of {} as a heat map: share of the answers in slices of {step}", load.name);
    Ok(charts::figure(&title, &legend, &chart.draw(), &table(&heat)))
}

/// By class: cells of one column that are alike and touch are one.
fn by_level(cells: &[Cell], rows: usize) -> Vec<(&'static str, Vec<Block>)> {
    let mut by_class: Vec<_> = LEVELS.iter().map(|(class, _, _)| (*class, Vec::new())).collect();
    let level = |cell: &Cell| LEVELS.iter().rposition(|(_, from, _)| cell.share >= *from).unwrap_or(0);
    let touch = |a: &Cell, b: &Cell| a.column == b.column && a.row + 1 == b.row && level(a) == level(b);
    for run in cells.chunk_by(touch) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let block = Block { column: first.column, row: rows - 1 - last.row, height: run.len() };
        by_class[level(&first)].1.push(block);
    }
    by_class
}

/// Quantiles over time, in at most [`TABLE_MAX`] rows.
fn table(heat: &Heat) -> Markup {
    let mut out = Markup::html();
    out.raw("<details><summary>Latency over time as a table</summary>");
    open_table(&mut out, &["#From", "#To", "#Answers", "#p50", "#p90", "#p99", "#Max"]);
    for Group { from_s, to_s, answers, latencies_s } in heat.groups(TABLE_MAX, [0.5, 0.9, 0.99, 1.0]) {
        out.raw("<tr class=\"first\">");
        number(&mut out, format::instant(from_s));
        number(&mut out, format::instant(to_s));
        number(&mut out, format::count(answers));
        for latency in latencies_s {
            number(&mut out, latency.map_or_else(|| format::NONE.to_owned(), format::seconds));
        }
        out.raw("</tr>\n");
    }
    close_table(&mut out, 0);
    out.raw("</details>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_alike_are_one_and_the_first_row_is_at_the_bottom() {
        let cell = |column, row, share| Cell { column, row, share };
        let cells = [cell(0, 0, 0.4), cell(0, 1, 0.5), cell(0, 3, 0.0005), cell(1, 0, 0.02), cell(1, 1, 0.2)];
        let levels = by_level(&cells, 10);
        let of = |class: &str| levels.iter().find(|(name, _)| *name == class).unwrap().1.clone();
        let block = |column, row, height| Block { column, row, height };
        assert_eq!(of("h6"), [block(0, 8, 2)]);
        assert_eq!(of("h0"), [block(0, 6, 1)]);
        assert_eq!((of("h3"), of("h5")), (vec![block(1, 9, 1)], vec![block(1, 8, 1)]));
    }
}
