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

/// A process of our own behind a pid file.
fn sleeper(home: &Home) -> (std::process::Child, String) {
    let child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let file = home.file("sleeper.pid", &child.id().to_string());
    (child, file.to_str().unwrap().to_owned())
}

#[test]
fn a_permanent_kill_is_never_called_restored() {
    let home = Home::new();
    let (mut child, file) = sleeper(&home);
    let args = ["inject", "process-kill", "--pid-file", &file, "--permanent=true", "--for", "200ms"];
    let done = home.squall(&args).code(0);
    assert!(done.out.contains("undo: not-needed"), "{}", done.out);
    assert!(done.err.contains("stays as it is on purpose"), "{}", done.err);
    child.wait().unwrap();
}

#[test]
fn a_restart_that_fails_tells_its_exit_code_and_last_words() {
    let home = Home::new();
    let (mut child, file) = sleeper(&home);
    let restart = ["--restart=sh", "--restart=-c", "--restart=echo port 80 in use >&2; exit 7"];
    let args = ["inject", "process-kill", "--pid-file", &file, "--for", "200ms"];
    let done = home.squall(&[&args[..], &restart[..]].concat()).code(5);
    assert!(done.err.contains("ended with code 7: port 80 in use"), "{}", done.err);
    child.wait().unwrap();
    // What is given up is settled by hand: the file names a process that runs.
    home.file("sleeper.pid", &std::process::id().to_string());
    home.squall(&["recover"]).code(0);
}

#[test]
fn a_process_that_a_run_holds_is_refused_to_another_whatever_folder_its_runs_are_in() {
    let home = Home::new();
    let (mut child, file) = sleeper(&home);
    let mut going = home.start(&["inject", "process-pause", "--pid-file", &file, "--for", "60s"]);
    going.says("pause sleep", std::time::Duration::from_secs(10));
    let kill = ["inject", "process-kill", "--permanent", "true", "--pid-file", &file, "--for", "1s"];
    let refused = home.squall(&[&kill[..], &["--runs", "elsewhere"]].concat()).code(3);
    assert!(refused.err.contains(&format!("another run holds process {} (", child.id())), "{}", refused.err);
    going.signal(rustix::process::Signal::INT);
    going.end();
    home.squall(&[&kill[..], &["--runs", "elsewhere"]].concat()).code(0);
    child.wait().unwrap();
}

#[test]
fn a_restart_that_is_one_line_instead_of_a_list_is_refused_before_anything_is_killed() {
    let home = Home::new();
    let (mut child, file) = sleeper(&home);
    let args = ["inject", "process-kill", "--pid-file", &file, "--for", "1s", "--restart=sleep 60"];
    let refused = home.squall(&args).code(3);
    assert!(refused.err.contains("write one word per list item: [sleep, 60]"), "{}", refused.err);
    assert!(child.try_wait().unwrap().is_none(), "it was killed all the same");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_paused_process_that_somebody_else_ends_is_not_called_restored() {
    let home = Home::new();
    let (mut child, file) = sleeper(&home);
    let mut going = home.start(&["inject", "process-pause", "--pid-file", &file, "--for", "60s"]);
    going.says("pause sleep", std::time::Duration::from_secs(10));
    child.kill().unwrap();
    child.wait().unwrap();
    going.signal(rustix::process::Signal::INT);
    let done = going.end().code(5);
    assert!(done.err.contains("squall did not end it"), "{}", done.err);
    home.file("sleeper.pid", &std::process::id().to_string());
    let recovered = home.squall(&["recover"]).code(0);
    assert!(recovered.err.contains("another one is in its place"), "{recovered:?}");
}

#[test]
fn a_command_is_called_by_its_program() {
    let home = Home::new();
    let broken = home.dir().join("broken");
    let broken = broken.to_str().unwrap();
    let args = [
        "inject",
        "command",
        "--do=/usr/bin/touch",
        "--undo=rm",
        "--undo=-f",
        "--effect=test",
        "--effect=-e",
    ];
    let own = ["--do", "--undo", "--effect"].map(|name| format!("{name}={broken}"));
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let done = home.squall(&[&args[..], &own, &["--for", "200ms"]].concat()).code(0);
    assert!(done.out.starts_with("command on touch: confirmed"), "{}", done.out);
    assert!(!format!("{}{}", done.out, done.err).contains(" on -"), "{done:?}");
}
