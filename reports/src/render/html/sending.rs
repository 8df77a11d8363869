//! One load by itself as a page: what was asked, what came of it, the same charts as in the report of a run.

use super::super::words::{self, State};
use super::super::{RenderError, sending::answer};
use super::charts::{self, Story};
use super::{ROWS_MAX, badge, close_table, number, open_table, page};
use crate::format;
use crate::markup::Markup;
use crate::record::{LoadRecord, Objective, ObjectiveResult, Verdict};
use crate::sending::Sending;

/// The page of one load that started at this time.
///
/// # Errors
/// A distribution is damaged.
pub fn render(result: &Sending, load: &LoadRecord, started_unix_s: f64) -> Result<Vec<u8>, RenderError> {
    let objectives: Vec<_> = result.objectives.iter().map(objective).collect();
    let loads = std::slice::from_ref(load);
    let story = Story { loads, objectives: &objectives, phases: &[], injections: &[] };
    let mut sends = Markup::html();
    sends.raw("<pre>").text(&result.reproduce).raw("</pre>");
    let sections = [
        ("charts", "What happened", charts::section(&story)?),
        ("objectives", "Objectives", objectives_table(&result.objectives)),
        ("answers", "Answers and failures", answers(result)),
        ("again", "Again", sends),
    ];
    let title = format!("{}: {}", answer(result), result.sends.join(", "));
    let mut foot = Markup::html();
    foot.raw("squall ").text(env!("CARGO_PKG_VERSION"));
    Ok(page(&title, &banner(result, started_unix_s), &sections, &foot))
}

fn objective(result: &ObjectiveResult) -> Objective {
    let ObjectiveResult { journey, phase, sli, at_least, limit, .. } = result;
    Objective {
        journey: journey.clone(),
        sli: *sli,
        at_least: *at_least,
        limit: *limit,
        phases: vec![*phase],
    }
}

/// The answer, what was sent, and the numbers that a reader looks for first.
fn banner(result: &Sending, started_unix_s: f64) -> Markup {
    let state = match result.verdict {
        Verdict::Held if result.exit == 0 => State::Good,
        Verdict::Missed => State::Bad,
        _ => State::Unsure,
    };
    let mut out = Markup::html();
    out.raw("<header class=\"banner ").raw(state.class()).raw("\">\n<p class=\"verdict\">");
    out.raw("<span class=\"icon\" aria-hidden=\"true\">")
        .raw(state.icon())
        .raw("</span>")
        .text(answer(result));
    out.raw("</p>\n").element("h1", result.sends.join(", "));
    if !result.reasons.is_empty() {
        out.raw("<ul class=\"reasons\">");
        for reason in &result.reasons {
            out.element("li", reason);
        }
        out.raw("</ul>\n");
    }
    out.append(&facts(result)).raw("<dl class=\"about\">");
    let profile = result.profile.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
    let about = [
        ("Arrivals", format!("{}{profile}", result.arrivals)),
        ("Started", format::utc(started_unix_s)),
        ("Took", format::seconds(result.seconds)),
        ("Lag, p50 and p99", both(result.lag.p50_s, result.lag.p99_s)),
    ];
    for (name, value) in &about {
        out.raw("<div>").element("dt", name).element("dd", value).raw("</div>");
    }
    out.raw("</dl>\n</header>\n");
    out
}

fn both(one_s: Option<f64>, other_s: Option<f64>) -> String {
    let time = |s: Option<f64>| s.map_or_else(|| format::NONE.to_owned(), format::seconds);
    format!("{}, {}", time(one_s), time(other_s))
}

fn facts(result: &Sending) -> Markup {
    let failed: u64 = result.errors.values().sum();
    let kept_up = result.generator.saturated.is_empty();
    let sent_all = if result.sent == result.intended { State::Good } else { State::Unsure };
    let time = |s: Option<f64>| s.map_or_else(|| format::NONE.to_owned(), format::seconds);
    let cut_short = if result.cut_short > 0 {
        format!("; {} cut short when it was ended", format::count(result.cut_short))
    } else {
        String::new()
    };
    let facts = [
        (
            "Sent",
            format::count(result.sent),
            sent_all,
            format!("of {} intended", format::count(result.intended)),
        ),
        (
            "Good",
            format::count(result.ok),
            State::Good,
            format!("{}{cut_short}", format::rate(result.ok_per_s)),
        ),
        ("Failed", format::count(failed), if failed == 0 { State::Good } else { State::Bad }, String::new()),
        (
            "Response p50",
            time(result.response.p50_s),
            State::Good,
            format!("service {}", time(result.service.p50_s)),
        ),
        (
            "Response p99",
            time(result.response.p99_s),
            State::Good,
            format!("service {}", time(result.service.p99_s)),
        ),
        (
            "Generator",
            if kept_up { "kept up" } else { "did not keep up" }.to_owned(),
            if kept_up { State::Good } else { State::Unsure },
            format!("busiest thread {}", format::percent(result.generator.cpu_max)),
        ),
    ];
    let mut out = Markup::html();
    out.raw("<dl class=\"facts\">");
    for (name, value, state, note) in facts {
        out.raw("<div class=\"").raw(state.class()).raw("\">").element("dt", name).raw("<dd>").text(value);
        out.raw("<small>").text(note).raw("</small></dd></div>");
    }
    out.raw("</dl>\n");
    out
}

/// How many of each status and of each class of failure.
fn answers(result: &Sending) -> Markup {
    let mut out = Markup::html();
    let all = result.ok + result.errors.values().sum::<u64>();
    let statuses = result.statuses.iter().map(|(status, n)| match status {
        0 => ("other statuses".to_owned(), *n),
        status => (format!("status {status:03}"), *n),
    });
    let classes = result.errors.iter().map(|(class, n)| {
        let cause = result.causes.get(class).map(|cause| format!(" ({cause})")).unwrap_or_default();
        (format!("failed: {class}{cause}"), *n)
    });
    open_table(&mut out, &["What", "#Requests", "#Share"]);
    for (what, n) in statuses.chain(classes).take(ROWS_MAX) {
        out.raw("<tr class=\"first\">").element("td", what);
        number(&mut out, format::count(n));
        number(&mut out, format::share(n as f64 / all.max(1) as f64));
        out.raw("</tr>\n");
    }
    close_table(&mut out, (result.statuses.len() + result.errors.len()).saturating_sub(ROWS_MAX));
    out
}

/// Each clause; a load by itself has one phase.
fn objectives_table(results: &[ObjectiveResult]) -> Markup {
    let mut out = Markup::html();
    if results.is_empty() {
        return out;
    }
    open_table(&mut out, &["Objective", "Verdict", "#Estimate", "#95 % interval", "#Samples"]);
    for result in results {
        let limit = format::limit(result.sli, result.at_least, result.limit);
        out.raw("<tr class=\"first\"><td class=\"keep\">")
            .text(result.sli.name())
            .raw(" ")
            .text(limit)
            .raw("</td><td>");
        badge(&mut out, words::verdict_state(result.verdict), result.verdict.name());
        if let Some(note) = &result.note {
            out.raw("<small>").text(note).raw("</small>");
        }
        out.raw("</td>");
        number(&mut out, format::estimate(result));
        number(&mut out, format::interval(result));
        number(&mut out, format::count(result.samples));
        out.raw("</tr>\n");
    }
    close_table(&mut out, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::check_well_formed;
    use super::*;
    use crate::latency::Latencies;
    use crate::record::{GeneratorRecord, Phase, RunRecord};
    use crate::sample;
    use crate::sending::Quantiles;

    /// A load of the sample as if it had been sent by itself.
    fn sent(record: &RunRecord) -> (Sending, LoadRecord) {
        let mut load = record.loads[0].clone();
        load.phases.retain(|stats| stats.phase == Phase::Fault);
        // A load by itself has this one phase, whatever its name.
        load.phases[0].phase = Phase::Baseline;
        let stats = &load.phases[0];
        let quantiles = |text: &str| Quantiles::from(&Latencies::decode(text).unwrap_or_default());
        let own = |result: &&ObjectiveResult| result.journey == load.name && result.phase == Phase::Fault;
        let sending = Sending {
            sends: load.sends.clone(),
            arrivals: load.arrivals.clone(),
            profile: Some(load.name.clone()),
            seconds: 60.0,
            intended: stats.all.due,
            sent: stats.all.due,
            ok: stats.all.ok,
            cut_short: 3,
            ok_per_s: stats.all.ok as f64 / 60.0,
            errors: stats.all.errors.clone(),
            causes: stats.causes.clone(),
            statuses: stats.statuses.clone(),
            service: quantiles(&stats.all.service),
            lag: Quantiles::default(),
            response: quantiles(&stats.all.latencies),
            changes: Vec::new(),
            probe: None,
            handshakes: None,
            kinds: std::collections::BTreeMap::default(),
            generator: GeneratorRecord::default(),
            objectives: record.judgement.results.iter().filter(own).cloned().collect(),
            verdict: Verdict::Missed,
            reasons: record.judgement.reasons.clone(),
            exit: 1,
            reproduce: record.reproduce.clone(),
            latencies: stats.all.latencies.clone(),
        };
        (sending, load)
    }

    fn page_of(record: &RunRecord) -> String {
        let (sending, load) = sent(record);
        String::from_utf8(render(&sending, &load, record.started_unix_s).unwrap()).unwrap()
    }

    #[test]
    fn the_page_has_the_charts_and_the_numbers_and_no_phases() {
        let page = page_of(&sample::missed());
        assert_eq!(check_well_formed(&page), Ok(()));
        for part in [
            "by percentile",
            "as a heat map",
            "class=\"line response calm\"",
            "class=\"line service calm\"",
            "class=\"cell h6\"",
            "p99 ≤ 250 ms",
            "status 503",
            "155 of 6,000 failed",
            "3 cut short",
            "missed",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        assert!(!page.contains("In baseline") && !page.contains("class=\"phase"), "a load has no phases");
        if let Some(dir) = std::env::var_os("SQUALL_SAMPLE_DIR") {
            std::fs::write(std::path::Path::new(&dir).join("load.html"), page).unwrap();
        }
    }

    #[test]
    fn hostile_texts_and_numbers_stay_what_they_are() {
        let page = page_of(&sample::with_text_everywhere(sample::HOSTILE));
        assert_eq!(check_well_formed(&page), Ok(()));
        assert!(!page.contains("<script") && !page.contains("<b x"));
        for number in [0.0, -1.0, 1e-320, 1e300] {
            let page = page_of(&sample::with_number_everywhere(number));
            assert_eq!(check_well_formed(&page), Ok(()));
            assert!(!page.contains("NaN") && !page.contains("inf\""), "{number}");
        }
    }
}
