//! The registry speaks the truth: its examples are accepted, its names are commands.

use injectors::registry::INJECTORS;

use crate::lifecycle::experiment;
use crate::support::Home;

#[test]
fn every_example_can_be_pasted_into_an_experiment_on_the_lab() {
    let home = Home::new();
    for about in INJECTORS.iter().map(|injector| injector.about()) {
        let file = home.file(&format!("{}.yaml", about.name), &experiment(about.example, ""));
        let done = home.squall(&["check", file.to_str().unwrap()]);
        assert_eq!(done.code, 0, "{}: {}", about.name, done.err);
    }
}

#[test]
fn the_list_of_faults_is_the_registry() {
    let names: Vec<&str> = INJECTORS.iter().map(|injector| injector.about().name).collect();
    let home = Home::new();
    let document = home.json(&["faults", "--json"]);
    let listed: Vec<&str> =
        document["faults"].as_array().unwrap().iter().map(|fault| fault["name"].as_str().unwrap()).collect();
    assert_eq!(listed, names);
    let text = home.squall(&["faults"]).code(0).out;
    let firsts: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(firsts, names);
}

#[test]
fn every_fault_has_a_page_and_a_command_with_all_its_parameters() {
    let home = Home::new();
    for about in INJECTORS.iter().map(|injector| injector.about()) {
        let page = home.squall(&["faults", about.name]).code(0).out;
        let help = home.squall(&["inject", about.name, "--help"]).code(0).out;
        for param in about.params.iter().chain(about.target.selectors()) {
            assert!(page.contains(param.name), "{}: the page lacks {}", about.name, param.name);
            assert!(
                help.contains(&format!("--{} ", param.name)),
                "{}: the help lacks {}",
                about.name,
                param.name
            );
        }
        assert!(page.contains(about.example), "{}: the page lacks the example", about.name);
        assert!(help.contains("--for <TIME>"), "{}: {help}", about.name);
        assert!(!help.contains("crash-at"), "the seam for tests is not for users");
    }
}

#[test]
fn a_fault_that_does_not_exist_is_answered_with_the_one_that_was_meant() {
    let home = Home::new();
    let done = home.squall(&["faults", "relay-latancy"]).code(2);
    assert!(done.err.contains("did you mean `relay-latency`?"), "{}", done.err);
    home.squall(&["inject", "relay-latancy", "--for", "1s"]).code(2);
    let done = home.squall(&["inject", "relay-latency", "--service", "auth", "--for", "1s"]).code(2);
    assert!(done.err.contains("--delay"), "{}", done.err);
}

#[test]
fn without_a_lab_there_is_nothing_to_aim_at() {
    let home = Home::new();
    let done = home.squall(&["inject", "process-pause", "--service", "auth", "--for", "1s"]).code(3);
    assert!(done.err.contains("squall lab up"), "{}", done.err);
    assert!(home.run_folders().is_empty());
}
