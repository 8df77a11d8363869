//! Laws that hold for every format, on rich, broken and hostile records.

use proptest::prelude::*;

use super::*;
use crate::record::{EventRecord, Outcomes, Verdict};
use crate::sample;
use crate::table::width;

fn text(record: &RunRecord, format: Format) -> String {
    String::from_utf8(render(record, format, false).unwrap()).unwrap()
}

/// Reads markup as a strict parser would: tags nest, attributes are quoted and unique, entities are known,
/// characters are those of XML 1.0. Void elements of HTML need no end.
pub(super) fn check_well_formed(markup: &str) -> Result<(), String> {
    const VOID: [&str; 3] = ["meta", "br", "img"];
    let illegal = |c: &char| {
        (c.is_control() && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    if let Some(c) = markup.chars().find(illegal) {
        return Err(format!("illegal character {c:?}"));
    }
    let mut open: Vec<&str> = Vec::new();
    let mut rest = markup;
    while let Some((before, tag)) = rest.split_once('<') {
        check_text(before)?;
        let (tag, after) = tag.split_once('>').ok_or("a tag without an end")?;
        rest = after;
        if let Some(name) = tag.strip_prefix('/') {
            let expected = open.pop();
            (expected == Some(name)).then_some(()).ok_or_else(|| format!("</{name}> closes {expected:?}"))?;
        } else if !tag.starts_with(['?', '!']) {
            let name = check_tag(tag.trim_end_matches('/'))?;
            if name == "style" {
                rest = rest.split_once("</style>").ok_or("style without an end")?.1;
            } else if !tag.ends_with('/') && !VOID.contains(&name) {
                open.push(name);
            }
        }
    }
    check_text(rest)?;
    if open.is_empty() { Ok(()) } else { Err(format!("never closed: {open:?}")) }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.contains('>') {
        return Err(format!("a bare > in {text:?}"));
    }
    for part in text.split('&').skip(1) {
        let name = part.split_once(';').ok_or_else(|| format!("a bare & before {part:?}"))?.0;
        let is_number = name.strip_prefix('#').is_some_and(|n| n.parse::<u32>().is_ok());
        if !is_number && !["amp", "lt", "gt", "quot"].contains(&name) {
            return Err(format!("unknown entity {name:?}"));
        }
    }
    Ok(())
}

/// Returns the tag's name.
fn check_tag(tag: &str) -> Result<&str, String> {
    let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(format!("no name of a tag: {name:?}"));
    }
    let mut seen = Vec::new();
    while !rest.trim().is_empty() {
        let bare = ["open", ""].iter().find(|bare| **bare == rest.trim());
        if bare.is_some() {
            break;
        }
        let (attribute, value) =
            rest.trim_start().split_once("=\"").ok_or_else(|| format!("no value in {tag:?}"))?;
        let (value, after) = value.split_once('"').ok_or_else(|| format!("an open quote in {tag:?}"))?;
        let is_name = attribute.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == ':');
        if !is_name || attribute.is_empty() || seen.contains(&attribute) {
            return Err(format!("attribute {attribute:?} in {tag:?}"));
        }
        check_text(value)?;
        seen.push(attribute);
        rest = after;
    }
    Ok(name)
}

/// The values of an attribute of all tags of a name.
fn attributes(markup: &str, tag: &str, name: &str) -> Vec<String> {
    let start = format!("<{tag} ");
    let tags = markup.split(&start).skip(1);
    let of = tags
        .filter_map(|rest| rest.split('>').next()?.split(&format!("{name}=\"")).nth(1)?.split('"').next());
    of.map(str::to_owned).collect()
}

/// Writes every sample in every format below `SQUALL_SAMPLE_DIR`, for a person to look at.
#[test]
fn write_sample() {
    for (name, record) in sample::all() {
        for format in Format::ALL {
            let bytes = render(&record, format, true).unwrap();
            assert!(!bytes.is_empty());
            if let Some(dir) = std::env::var_os("SQUALL_SAMPLE_DIR") {
                let path = std::path::Path::new(&dir).join(format!("{name}.{}", format.name()));
                std::fs::write(path, bytes).unwrap();
            }
        }
    }
}

#[test]
fn every_format_is_found_by_its_name() {
    for format in Format::ALL {
        assert_eq!(format.name().parse(), Ok(format));
    }
    let error = "pdf".parse::<Format>().unwrap_err().to_string();
    assert!(Format::ALL.iter().all(|f| error.contains(f.name())), "{error}");
}

#[test]
fn json_is_the_record() {
    for (_, record) in sample::all() {
        let back: RunRecord = serde_json::from_slice(&render(&record, Format::Json, true).unwrap()).unwrap();
        assert_eq!(back, record);
    }
}

#[test]
fn html_and_junit_are_well_formed() {
    for (name, record) in sample::all() {
        for format in [Format::Html, Format::Junit] {
            assert_eq!(check_well_formed(&text(&record, format)), Ok(()), "{name} as {}", format.name());
        }
    }
}

#[test]
fn the_check_of_well_formedness_finds_what_is_not() {
    for broken in
        ["<a>", "<a></b>", "<a x=1/>", "a & b", "<a x=\"\" x=\"\"/>", "&nbsp;", "\u{1}", "a > b", "<a"]
    {
        assert!(check_well_formed(broken).is_err(), "{broken:?}");
    }
    assert_eq!(check_well_formed("<a x=\"1\">&amp;<b/></a>"), Ok(()));
}

#[test]
fn every_row_of_a_table_has_as_many_cells_as_heads() {
    for (name, record) in sample::all() {
        let html = text(&record, Format::Html);
        for table in html.split("<table>").skip(1).map(|rest| rest.split("</table>").next().unwrap()) {
            let heads = table.matches("<th ").count();
            for row in table.split("<tr").skip(2) {
                let spanned: usize =
                    row.split("colspan=\"").skip(1).map(|n| n[..1].parse::<usize>().unwrap() - 1).sum();
                assert_eq!(row.matches("<td").count() + spanned, heads, "{name}: {row}");
            }
        }
        let markdown = text(&record, Format::Markdown);
        let rows: Vec<_> = markdown.lines().map(|line| line.matches('|').count()).collect();
        assert!(rows.windows(2).all(|pair| pair[0] == 0 || pair[1] == 0 || pair[0] == pair[1]), "{name}");
    }
}

#[test]
fn html_asks_for_nothing_from_outside_and_runs_nothing() {
    let html = text(&sample::missed(), Format::Html);
    assert!(html.contains("content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\""));
    for forbidden in
        ["<script", "<link", "<img", "<iframe", "src=", "url(", "@import", "javascript:", " onclick"]
    {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert!(attributes(&html, "a", "href").iter().all(|href| href.starts_with('#')));
}

#[test]
fn html_holds_what_a_reader_looks_for() {
    let html = text(&sample::missed(), Format::Html);
    let record = sample::missed();
    for part in [
        record.experiment.question.as_str(),
        "MISSED",
        "edge-sre",
        &record.run,
        "2026-11-23 15:38:12 UTC",
        "p99 ≤ 250 ms",
        "F2 pop-drain · PoP ams",
        "+203 ms [201 ms, 206 ms]",
        "confirmed",
        "refuted",
        "untested",
        "outlier ejection",
        "status 503 Service Unavailable",
        "48% of its limit",
        "29,900 of 29,900 arrivals",
        "squall run scenarios/network/slow-auth.yaml --seed 42",
        "Share of answers per PoP",
        "Latency of checkout as a heat map",
        "Latency of checkout by percentile",
        "service in fault",
        "relay-latency: {service: auth, delay: 200ms, jitter: 20ms}",
    ] {
        assert!(html.contains(&crate::escape::html(part)), "{part}");
    }
}

#[test]
fn nothing_is_said_where_there_is_nothing_to_say() {
    let record = sample::not_steady();
    for format in [Format::Terminal, Format::Html, Format::Markdown] {
        let text = text(&record, format).to_lowercase();
        assert!(text.contains("was not steady"));
        assert!(
            !text.contains("pop-drain") && !text.contains("objective broke") && !text.contains("confirmed:")
        );
        assert!(!text.contains("restoration</dt>") && !text.contains("\nrestoration"));
    }
}

#[test]
fn the_terminal_summary_is_one_screen_of_at_most_100_columns() {
    for (name, record) in sample::all() {
        let text = text(&record, Format::Terminal);
        let first = text.lines().next().unwrap();
        assert!(first.contains(&record.judgement.verdict.name().to_uppercase()), "{first}");
        for line in text.lines().filter(|line| !line.trim_start().starts_with("$ ")) {
            assert!(width(line) <= 100, "{name}: {line}");
        }
        assert!(text.lines().count() <= 60, "{name}");
    }
}

#[test]
fn every_report_for_people_says_why_what_failed_and_what_to_do_next() {
    for (name, record) in sample::all() {
        for format in [Format::Terminal, Format::Html, Format::Markdown, Format::Junit] {
            let text = text(&record, format).replace("&#45;", "-").replace("&#58;", ":");
            let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let at =
                |part: &str| flat.find(part).unwrap_or_else(|| panic!("{name} as {}: {part}", format.name()));
            at(&crate::escape::html(&record.reproduce));
            if record.loads[0].phases.iter().any(|stats| stats.phase == crate::record::Phase::Fault) {
                at("failed (");
                at("status-503");
            }
            if !record.restoration.verified {
                assert!(at("squall recover --run") > 0 && at(&record.restoration.left[0]) > 0);
                at("NOT RESTORED");
            }
        }
    }
}

#[test]
fn an_ending_is_told_once() {
    let mut record = sample::not_steady();
    let terminal = text(&record, Format::Terminal);
    assert_eq!(terminal.matches("p99 of checkout was 900 ms").count(), 1, "{terminal}");
    record.judgement.reasons = vec!["the world is not as it was".into()];
    assert!(text(&record, Format::Terminal).contains("p99 of checkout was 900 ms"));
    let mut record = sample::aborted();
    let left = record.restoration.left[0].clone();
    record.judgement.reasons.push(format!("to restore by hand: {left}"));
    assert_eq!(text(&record, Format::Terminal).matches(&left).count(), 1);
}

#[test]
fn a_journey_that_only_fails_says_so_in_its_chart() {
    let words = "no request succeeded in this time";
    let mut record = sample::missed();
    assert!(!text(&record, Format::Html).contains(words));
    for bucket in record.loads[0].buckets.iter_mut().filter(|b| (15.0..30.0).contains(&b.at_s)) {
        bucket.all.ok = 0;
        bucket.all.latencies.clear();
        bucket.all.errors = [("status".to_owned(), bucket.all.due)].into();
    }
    // In the curves and in the heat map.
    assert_eq!(text(&record, Format::Html).matches(words).count(), 2);
}

#[test]
fn without_data_nothing_is_said_to_have_held_or_recovered() {
    let mut record = sample::held();
    record.loads.clear();
    record.judgement.recover_s = Some(0.0);
    for result in &mut record.judgement.results {
        (result.estimate, result.low, result.high) = (None, None, None);
    }
    for format in [Format::Terminal, Format::Html, Format::Markdown] {
        let text = text(&record, format);
        for claim in ["no objective broke", "An objective broke", "after the last undo", "class=\"interval\""]
        {
            assert!(!text.contains(claim), "{} as {}", claim, format.name());
        }
    }
}

#[test]
fn a_few_last_answers_are_no_share_of_their_own() {
    // Two answers of one PoP after the end of the load must not look as if that PoP took all of the traffic.
    let mut record = sample::missed();
    let before = text(&record, Format::Html);
    for load in &mut record.loads {
        let mut tail = load.buckets.last().unwrap().clone();
        (tail.at_s, tail.all.due, tail.all.ok) = (60.0, 0, 2);
        tail.pops = [("lis".to_owned(), 2)].into();
        load.buckets.push(tail);
    }
    let shares = |html: &str| html.split("Share of answers per PoP").nth(1).unwrap().matches('L').count();
    assert_eq!(shares(&text(&record, Format::Html)), shares(&before));
}

#[test]
fn an_interval_is_drawn_on_a_scale_with_its_limit_and_ends_in_units() {
    let html = text(&sample::missed(), Format::Html);
    let first = html.split("<svg class=\"interval\"").nth(1).unwrap();
    let last = html.split("<svg class=\"interval\"").nth(4).unwrap();
    let texts = |svg: &str| svg.split("</svg>").next().unwrap().matches("<text").count();
    assert_eq!((texts(first), texts(last)), (1, 2));
    assert!(first.contains(">≥ 99%</text>") && last.contains(">100%</text>"));
    // An open end goes on to the end of the scale.
    let mut record = sample::missed();
    record.judgement.results[0].high = None;
    assert!(
        text(&record, Format::Html).split("<svg class=\"interval\"").nth(1).unwrap().contains("class=\"span")
    );
}

#[test]
fn colour_adds_codes_and_nothing_else() {
    for (_, record) in sample::all() {
        let coloured = String::from_utf8(render(&record, Format::Terminal, true).unwrap()).unwrap();
        let stripped: String = coloured
            .split('\u{1b}')
            .enumerate()
            .map(|(at, part)| if at == 0 { part } else { part.split_once('m').unwrap().1 })
            .collect();
        assert!(coloured.contains('\u{1b}'));
        assert_eq!(stripped, text(&record, Format::Terminal));
    }
}

#[test]
fn junit_names_are_unique_and_counts_are_right() {
    let mut record = sample::aborted();
    record.objectives.push(record.objectives[0].clone());
    let xml = text(&record, Format::Junit);
    let mut names = attributes(&xml, "testcase", "name");
    let cases = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), cases);
    let total = |name| attributes(&xml, "testsuite", name)[0].parse::<usize>().unwrap();
    assert_eq!(total("tests"), cases);
    assert_eq!(total("failures"), xml.matches("<failure ").count());
    assert_eq!(total("errors"), xml.matches("<error ").count());
    assert_eq!(total("skipped"), xml.matches("<skipped ").count());
}

/// The names of all tags that open, in order, each with the names of those around it: `testsuites/testsuite`.
fn paths(markup: &str) -> Vec<String> {
    let mut open: Vec<&str> = Vec::new();
    let mut paths = Vec::new();
    for tag in markup.split('<').skip(1).filter(|tag| !tag.starts_with('?')) {
        let tag = tag.split_once('>').unwrap().0;
        if tag.starts_with('/') {
            open.pop();
            continue;
        }
        open.push(tag.trim_end_matches('/').split(' ').next().unwrap());
        paths.push(open.join("/"));
        if tag.ends_with('/') {
            open.pop();
        }
    }
    paths
}

#[test]
fn junit_follows_the_schemas_of_jenkins_and_of_ant() {
    for (name, record) in sample::all() {
        let xml = text(&record, Format::Junit);
        assert!(xml.contains("<testsuites>"), "{name}: Ant's root has no attributes");
        for needed in
            ["name", "package", "id", "hostname", "tests", "failures", "errors", "time", "timestamp"]
        {
            assert!(!attributes(&xml, "testsuite", needed)[0].is_empty(), "{name}: {needed}");
        }
        let zoneless = attributes(&xml, "testsuite", "timestamp")[0].clone();
        assert!(zoneless.len() == 19 && !zoneless.contains(['Z', '.', '+']), "{zoneless}");
        for time in [attributes(&xml, "testsuite", "time"), attributes(&xml, "testcase", "time")].concat() {
            let (whole, part) = time.split_once('.').unwrap();
            assert!([whole, part].iter().all(|digits| digits.bytes().all(|b| b.is_ascii_digit())), "{time}");
        }
        // In each case at most one problem and nothing else; the suite has its parts in one order.
        let mut parts = Vec::new();
        for path in paths(&xml) {
            match path.strip_prefix("testsuites/testsuite/") {
                Some("testcase/failure" | "testcase/error" | "testcase/skipped" | "properties/property")
                | None => {}
                Some(part) => parts.push(part.to_owned()),
            }
        }
        parts.dedup();
        assert_eq!(parts, ["properties", "testcase", "system-out", "system-err"], "{name}");
        let most = xml.split("</testcase>").map(|case| {
            ["<failure ", "<error ", "<skipped "].iter().map(|tag| case.matches(tag).count()).sum::<usize>()
        });
        assert!(most.max() <= Some(1), "{name}");
    }
}

/// The part of the document that is about one case.
fn case<'a>(xml: &'a str, name: &str) -> &'a str {
    let from = xml.find(&format!("<testcase name=\"{name}")).unwrap_or_else(|| panic!("no case {name}"));
    &xml[from..from + xml[from..].find("</testcase>").unwrap()]
}

#[test]
fn junit_passes_only_what_is_proved() {
    let xml = text(&sample::missed(), Format::Junit);
    assert!(case(&xml, "the hypothesis holds").contains("<failure type=\"missed\""));
    assert!(case(&xml, "p99 of checkout ≤ 250 ms in fault").contains("<failure type=\"missed\""));
    for passed in ["p99 of checkout ≤ 250 ms in after", "pop-drain takes effect", "everything is restored"]
    {
        let case = case(&xml, passed);
        assert!(
            !case.contains("<failure") && !case.contains("<error") && !case.contains("<skipped"),
            "{case}"
        );
    }
    let xml = text(&sample::aborted(), Format::Junit);
    assert!(case(&xml, "the hypothesis holds").contains("<failure type=\"unknown\""));
    assert!(case(&xml, "p99 of checkout ≤ 250 ms in after").contains("<skipped "));
    assert!(case(&xml, "pop-drain takes effect").contains("<failure type=\"unknown\""));
    assert!(case(&xml, "the run completes").contains("<error type=\"aborted\""));
    assert!(case(&xml, "everything is restored").contains("<error type=\"not-restored\""));
    assert!(case(&xml, "the generator keeps up").contains("<failure type=\"unknown\""));
    let xml = text(&sample::not_steady(), Format::Junit);
    assert!(case(&xml, "baseline is steady").contains("<failure type=\"unknown\""));
    assert!(text(&sample::held(), Format::Junit).contains("failures=\"0\" errors=\"0\" skipped=\"0\""));
}

#[test]
fn a_verdict_that_no_clause_explains_still_fails_in_junit() {
    let mut record = sample::held();
    record.judgement.verdict = Verdict::Missed;
    record.judgement.reasons = vec!["cart-health missed twice in fault".into()];
    assert!(text(&record, Format::Junit).contains("failures=\"1\""));
}

#[test]
fn reports_stay_small_however_long_the_run() {
    assert!(text(&sample::missed(), Format::Html).len() < 200_000);
    let mut record = sample::missed();
    let event = EventRecord { at_s: 1.0, kind: "note".into(), text: "x".repeat(300) };
    record.events = vec![event; crate::record::EVENTS_MAX];
    for load in &mut record.loads {
        let template = load.buckets[20].clone();
        load.buckets = (0..1800)
            .map(|s| {
                let mut b = template.clone();
                b.at_s = f64::from(s);
                b
            })
            .collect();
    }
    let sizes = [Format::Terminal, Format::Html, Format::Markdown].map(|f| text(&record, f).len());
    assert!(sizes[0] < 10_000 && sizes[1] < 500_000 && sizes[2] < 1_000_000, "{sizes:?}");
}

#[test]
fn damaged_latencies_are_an_error_that_names_the_journey() {
    let mut record = sample::missed();
    record.loads[1].buckets[3].all.latencies = "AAAA".into();
    let error = render(&record, Format::Html, false).unwrap_err().to_string();
    assert!(error.contains("browse"), "{error}");
    record.loads[1].buckets[3].all = Outcomes::default();
    assert!(render(&record, Format::Html, false).is_ok());
}

/// Everything that must hold of a report on a record with hostile texts.
fn check_harmless(record: &RunRecord) {
    for format in [Format::Html, Format::Junit] {
        assert_eq!(check_well_formed(&text(record, format)), Ok(()), "{}", format.name());
    }
    let html = text(record, Format::Html);
    assert!(!html.contains("<script") && !html.contains("<b x"));
    for format in Format::ALL.into_iter().filter(|f| *f != Format::Json) {
        let text = text(record, format);
        let deceiving =
            |c: char| (c.is_control() && c != '\n' && c != '\t') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!text.contains(deceiving), "{}", format.name());
    }
    let coloured = String::from_utf8(render(record, Format::Terminal, true).unwrap()).unwrap();
    for code in coloured.split('\u{1b}').skip(1) {
        let own = ["[0m", "[1m", "[2m", "[32m", "[1;31m", "[33m"];
        assert!(own.iter().any(|own| code.starts_with(own)), "{code:?}");
    }
    check_markdown(&text(record, Format::Markdown));
}

/// Outside of fenced blocks there are no tags but our own and no raw links.
fn check_markdown(markdown: &str) {
    let mut fence = None;
    for line in markdown.lines() {
        let ticks = line.len() - line.trim_start_matches('`').len();
        match fence {
            None if ticks >= 3 => fence = Some(ticks),
            Some(open) if ticks >= open && line.len() == ticks => fence = None,
            Some(_) => {}
            None => {
                let own = ["<details>", "</details>", "<summary>", "</summary>", "<b>", "</b>"];
                let rest = own.iter().fold(line.to_owned(), |line, tag| line.replace(tag, ""));
                assert!(!rest.contains('<') && !rest.contains("](") && !rest.contains("://"), "{line}");
            }
        }
    }
    assert_eq!(fence, None);
}

#[test]
fn hostile_texts_stay_texts() {
    check_harmless(&sample::with_text_everywhere(sample::HOSTILE));
    for text in [
        "",
        "```\n</details><script>",
        "| a | b |\n- x",
        "\u{1b}]8;;http://x\u{7}",
        "日本語🙂".repeat(200).as_str(),
    ] {
        check_harmless(&sample::with_text_everywhere(text));
    }
}

#[test]
fn extreme_numbers_make_ugly_reports_and_no_broken_ones() {
    for number in [0.0, -1.0, 1e-320, 1e-12, 1e9, 1e300, f64::MAX, f64::MIN] {
        let record = sample::with_number_everywhere(number);
        check_harmless(&record);
        let html = text(&record, Format::Html);
        assert!(html.len() < 200_000 && !html.contains("NaN") && !html.contains("inf\""), "{number}");
    }
    let mut record = sample::aborted();
    record.phases[0].start_s = f64::NAN;
    record.phases[2].end_s = f64::INFINITY;
    record.guards[0].closest = f64::INFINITY;
    record.judgement.results[0].low = Some(f64::NEG_INFINITY);
    record.started_unix_s = f64::NAN;
    check_harmless(&record);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_text_stays_text(text in prop_oneof!["\\PC{0,20}", any::<String>(), "[<>&\"'`\\]\\[|\n\r\u{1b}\u{0}-]{0,30}"]) {
        check_harmless(&sample::with_text_everywhere(&text));
    }
}

#[test]
fn of_many_injections_those_in_doubt_are_shown() {
    let mut record = sample::held();
    record.injections = vec![record.injections[0].clone(); 180];
    "unproven".clone_into(&mut record.injections[136].proof.status);
    for (format, doubtful, first) in
        [(Format::Terminal, "F137 ", "F1 "), (Format::Markdown, "| F137 ", "| F1 ")]
    {
        let text = text(&record, format);
        let (doubtful, first) = (text.find(doubtful), text.find(first));
        assert!(
            doubtful.is_some() && first.is_some() && doubtful < first,
            "{format:?}: {doubtful:?} {first:?}"
        );
    }
}
