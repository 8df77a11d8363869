//! One self-contained HTML file: no script, no request, readable offline, in light and dark, narrow and on paper.
//! All text from outside goes through [`Markup::text`].

mod charts;
mod faults;
mod heat;
mod journeys;
mod percentiles;
mod run;
mod sending;
mod verdict;

use super::RenderError;
use super::words::State;
use crate::markup::Markup;
use crate::record::RunRecord;

pub use sending::render as sending_page;

/// The most rows of one table.
const ROWS_MAX: usize = 200;

/// A part of a page: what links to it, its title, what it holds.
type Section = (&'static str, &'static str, Markup);

/// The document, in the order in which a reader asks: what came out, what to do, what was seen, what was done, what exactly was asked.
pub(super) fn render(record: &RunRecord) -> Result<Vec<u8>, RenderError> {
    let story = charts::Story {
        loads: &record.loads,
        objectives: &record.objectives,
        phases: &record.phases,
        injections: &record.injections,
    };
    let sections = [
        ("spof", "What this run says about single points of failure", faults::findings(record)),
        ("charts", "What happened", charts::section(&story)?),
        ("objectives", "Objectives", verdict::objectives(&record.judgement.results)),
        ("faults", "Faults and their proof", faults::proofs(record)),
        ("journeys", "Journeys", journeys::section(&record.loads)?),
        ("probes", "Probes", run::probes(record)),
        ("guards", "Guards", run::guards(record)),
        ("health", "Generator and restoration", run::health(record)),
        ("timeline", "Timeline", run::timeline(record)),
        ("experiment", "The experiment", run::experiment(record)),
    ];
    let title = format!("{}: {}", super::words::headline(record).word, record.experiment.name);
    let mut foot = Markup::html();
    foot.raw("squall ").text(&record.squall).raw(" · run ").text(&record.run);
    foot.raw(" · schema ").text(&record.schema);
    Ok(page(&title, &verdict::banner(record), &sections, &foot))
}

/// A page that needs nothing else: a banner, links to the sections that hold something, the sections, a last line.
fn page(title: &str, banner: &Markup, sections: &[Section], foot: &Markup) -> Vec<u8> {
    let mut out = Markup::html();
    out.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; ");
    out.raw("style-src 'unsafe-inline'; img-src data:\">\n");
    out.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">\n");
    out.element("title", title)
        .raw("\n<style>\n")
        .raw(include_str!("report.css"))
        .raw("</style>\n</head>\n<body>\n");
    out.append(banner).raw("<nav aria-label=\"Sections\"><ul>");
    for (id, title, _) in sections.iter().filter(|(_, _, body)| !body.is_empty()) {
        out.raw("<li><a href=\"#").raw(id).raw("\">").raw(short(title)).raw("</a></li>");
    }
    out.raw("</ul></nav>\n<main>\n");
    for (id, title, body) in sections.iter().filter(|(_, _, body)| !body.is_empty()) {
        out.raw("<section id=\"").raw(id).raw("\">\n").raw("<h2>").raw(title).raw("</h2>\n");
        out.append(body).raw("</section>\n");
    }
    out.raw("</main>\n<footer><p>").append(foot).raw("</p></footer>\n</body>\n</html>\n");
    out.into_bytes()
}

/// A title for the row of links.
fn short(title: &'static str) -> &'static str {
    match title {
        "Faults and their proof" => "Faults",
        "What this run says about single points of failure" => "Single points of failure",
        "Generator and restoration" => "Health",
        title => title,
    }
}

/// A word with its icon and colour.
fn badge(out: &mut Markup, state: State, word: &str) {
    out.raw("<span class=\"badge ").raw(state.class()).raw("\"><span class=\"icon\" aria-hidden=\"true\">");
    out.raw(state.icon()).raw("</span>").text(word).raw("</span>");
}

/// Opens a table that scrolls sideways where the window is narrow; a head that starts with `#` is right-aligned.
fn open_table(out: &mut Markup, heads: &[&'static str]) {
    out.raw("<div class=\"wide\"><table><thead><tr>");
    for head in heads {
        match head.strip_prefix('#') {
            Some(head) => out.raw("<th scope=\"col\" class=\"n\">").raw(head).raw("</th>"),
            None => out.raw("<th scope=\"col\">").raw(head).raw("</th>"),
        };
    }
    out.raw("</tr></thead><tbody>\n");
}

fn close_table(out: &mut Markup, left_out: usize) {
    out.raw("</tbody></table></div>\n");
    if left_out > 0 {
        out.raw("<p class=\"more\">… and ").text(left_out.to_string()).raw(" more</p>\n");
    }
}

/// A right-aligned cell.
fn number(out: &mut Markup, text: impl AsRef<str>) {
    out.raw("<td class=\"n\">").text(text).raw("</td>");
}
