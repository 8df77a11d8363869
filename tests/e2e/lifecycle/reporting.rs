//! After the run: the record alone gives the same answer, in every format and at every place; and it keeps secrets.

use std::path::Path;

use serde_json::{Value, json};

use super::{MILD, PATIENCE, experiment};
use crate::schema::misfits;
use crate::support::text::xml;
use crate::support::{Home, quick, turns};

/// The text without the lines that tell where the report lies.
fn without_paths(text: &str) -> String {
    text.lines().filter(|line| !line.contains("/sqe-")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_report_gives_the_same_verdict_again_in_every_format() {
    let _turn = turns(2);
    let home = Home::new();
    let junit = home.dir().join("junit.xml");
    let file =
        home.file("run.yaml", &experiment("- http-abort: {service: auth, status: 500, share: 60%}", ""));
    let done = home
        .clearly(|| home.squall(&["run", file.to_str().unwrap(), "--junit", junit.to_str().unwrap()]))
        .code(1);
    let again = home.squall(&["report"]).code(0);
    assert_eq!(without_paths(&again.out), without_paths(&done.out));
    assert!(again.err.is_empty(), "{}", again.err);
    home.squall(&["report", "--exit-code"]).code(1);

    let kept = home.record();
    let document = home.json(&["report", "--json"]);
    assert_eq!(document["judgement"], kept["judgement"]);
    let schema = jsonschema::validator_for(&home.json(&["schema", "record"])).unwrap();
    assert_eq!(misfits(&schema, &kept), Vec::<String>::new());

    let report = |format: &str| home.squall(&["report", "latest", "--format", format]).code(0).out;
    assert!(xml(&report("junit")).iter().any(|name| name == "failure"));
    xml(&std::fs::read_to_string(&junit).unwrap());
    assert!(report("markdown").contains("missed"));
    let html = report("html");
    assert_eq!(html, std::fs::read_to_string(home.only_run().join("report.html")).unwrap());
    for outside in ["src=", "href=\"http", "url(", "@import", "<script src"] {
        assert!(!html.contains(outside), "the report reaches outside by {outside}");
    }
    elsewhere(&home);
    home.assert_nothing_left();
}

/// A record, or a folder with it, tells the same at another place, without its run.
fn elsewhere(home: &Home) {
    let before = home.squall(&["report"]).out;
    let folder = home.dir().join("copy");
    std::fs::create_dir(&folder).unwrap();
    let record = folder.join("record.json");
    std::fs::copy(home.only_run().join("record.json"), &record).unwrap();
    std::fs::remove_dir_all(home.runs()).unwrap();
    for path in [&record, &folder] {
        let again = home.squall(&["report", path.to_str().unwrap()]).code(0).out;
        assert_eq!(without_paths(&again), without_paths(&before));
    }
    home.squall(&["report", "latest"]).code(2);
}

/// Every file below a folder that holds one of these texts.
fn holding(folder: &Path, texts: &[&str], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            holding(&path, texts, found);
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        found.extend(texts.iter().filter(|t| text.contains(**t)).map(|t| format!("{}: {t}", path.display())));
    }
}

#[test]
fn secrets_appear_nowhere() {
    let _turn = turns(2);
    let home = Home::new();
    let url = "http://${lab.edge}/login?token=${QUERY}\", headers: {authorization: \"Bearer ${HEADER}\", x-key: \"${set-one}\"}, body: \"${BODY}";
    let text = experiment(MILD, "steady-state:\n  - http: {name: front, url: \"http://${lab.edge}/login?probe=${PROBE}\", status: 299, phases: [after]}\n")
        .replace("http://${lab.edge}/login\"", &format!("{url}\""));
    let file = home.file("run.yaml", &text);
    let secrets = ["s3cr3t-query", "s3cr3t-header", "s3cr3t-body", "s3cr3t-probe", "s3cr3t-set"];
    let run = || {
        let mut command = home.command();
        command
            .args(["run", file.to_str().unwrap(), "--set", "set-one=s3cr3t-set"])
            .envs(["QUERY", "HEADER", "BODY", "PROBE"].into_iter().zip(secrets));
        home.start_as(command).end()
    };
    // The probe misses on purpose, so that its message is written as well.
    let done = home.clearly(run).code(1);
    assert!(done.err.contains("probe front"), "{}", done.err);
    let mut found = Vec::new();
    holding(home.dir(), &secrets, &mut found);
    holding(&home.runs(), &secrets, &mut found);
    assert_eq!(found, Vec::<String>::new());
    assert!(home.record()["experiment"]["text"].as_str().unwrap().contains("${HEADER}"));
    home.assert_nothing_left();
}

#[test]
fn where_a_report_cannot_be_written_nothing_is_begun() {
    let home = Home::new();
    let file = home.file("run.yaml", &experiment(MILD, ""));
    for option in ["--junit", "--markdown", "-o"] {
        let done = home.squall(&["run", file.to_str().unwrap(), option, "/nowhere/report"]).code(2);
        assert!(
            done.err.contains("/nowhere/report") && done.err.contains("nothing was touched"),
            "{}",
            done.err
        );
        let folder = home.squall(&["run", file.to_str().unwrap(), option, "/tmp"]).code(2);
        assert!(folder.err.contains("/tmp: is a directory"), "{}", folder.err);
    }
    assert!(home.run_folders().is_empty());
}

#[test]
fn a_record_survives_the_removal_of_its_folder_and_a_lost_report_is_no_pass() {
    if quick("removed folders") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let file = home.file("run.yaml", &experiment(MILD, ""));
    let place = home.dir().join("ci");
    std::fs::create_dir(&place).unwrap();
    let junit = place.join("squall.xml");
    let mut going =
        home.start(&["run", file.to_str().unwrap(), "--json", "--junit", junit.to_str().unwrap()]);
    going.says("http-header on auth-1", PATIENCE);
    std::fs::remove_dir_all(&place).unwrap();
    std::fs::remove_dir_all(home.only_run()).unwrap();
    let done = going.end();
    assert_ne!(done.code, 0, "{done:?}");
    assert!(done.err.contains("failed to write"), "{}", done.err);
    let document: Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(document["not_written"], json!([junit]), "{document}");
    assert_eq!(document["ok"], false);
    assert_eq!(home.record()["restoration"]["verified"], true);
    home.squall(&["report", "latest"])
        .code(i32::try_from(home.record()["judgement"]["exit"].as_i64().unwrap()).unwrap());
    home.assert_nothing_left();
}
