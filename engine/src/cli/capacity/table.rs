//! The table of what each fault costs: one screen, the worst first.

use super::row::{Lost, Row};
use crate::capacity::{Finding, LimitedBy};

const HEADS: [&str; 5] = ["with", "capacity [90%]", "lost [interval]", "fails first", "proof"];

/// A capacity with its interval.
fn capacity(finding: &Finding) -> String {
    let rate = reports::format::rate;
    match (finding.capacity, finding.low, finding.high) {
        (Some(capacity), Some(low), Some(high)) => {
            format!("{} [{} – {}]", rate(capacity), rate(low), rate(high))
        }
        (_, Some(low), _) => format!("at least {}", rate(low)),
        _ if finding.limited_by == LimitedBy::Target => "none".to_owned(),
        _ => "unknown".to_owned(),
    }
}

fn lost(lost: Option<Lost>) -> String {
    let percent = |share: f64| format!("{:.0}", share * 100.0);
    match lost {
        Some(Lost { share, low, high }) => {
            format!("{}% [{} – {}]", percent(share), percent(low), percent(high))
        }
        None => "unknown".to_owned(),
    }
}

/// The table, with what was measured of every fault that is not proven below it.
pub(super) fn lines(alone: &Finding, rows: &[Row], colour: bool) -> Vec<String> {
    let fails = |finding: &Finding| finding.fails_first.clone().unwrap_or_else(|| "–".to_owned());
    let nothing =
        vec!["nothing broken".to_owned(), capacity(alone), "–".to_owned(), fails(alone), "–".to_owned()];
    let cells = |row: &Row| {
        vec![row.what.clone(), capacity(&row.finding), lost(row.lost), fails(&row.finding), row.proven()]
    };
    let cells = std::iter::once(nothing).chain(rows.iter().map(cells)).collect();
    let mut lines = reports::render::table(&HEADS, cells, colour);
    for row in rows {
        lines.extend(row.doubtful().map(|text| format!("  {}", reports::escape::terminal(&text))));
    }
    lines
}
