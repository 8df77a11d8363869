//! A host that is short of something, and undos that fail at first.

use std::process::Command;
use std::time::Duration;

use super::{PATIENCE, unjudged};
use crate::support::{Home, exe, quick, turns};

/// An experiment of its own targets whose `command` fault cannot be undone at the first tries.
fn stubborn(home: &Home, failures: u32) -> String {
    let (mark, tries) = (home.dir().join("broken"), home.dir().join("tries"));
    let undo = home.file(
        "undo.sh",
        &format!(
            "echo x >> {tries}\n[ $(wc -l < {tries}) -gt {failures} ] || {{ echo not yet; exit 1; }}\nrm -f {mark}\n",
            tries = tries.display(),
            mark = mark.display()
        ),
    );
    let (mark, undo) = (mark.display(), undo.display());
    unjudged(
        &format!("- command: {{do: [touch, {mark}], undo: [sh, {undo}], effect: [test, -e, {mark}]}}"),
        "",
    )
}

#[test]
fn what_the_engine_cannot_undo_the_guardian_undoes() {
    if quick("stubborn undo") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let done = home.run(&stubborn(&home, 3)).code(4);
    assert!(done.err.contains("not yet"), "{}", done.err);
    assert!(done.err.contains("the guardian has undone command"), "{}", done.err);
    assert_eq!(home.record()["restoration"]["verified"], true);
    assert!(!home.dir().join("broken").exists());
    home.assert_no_leftovers();
    home.assert_nothing_left();
}

#[test]
fn what_nobody_can_undo_stays_open_for_recover() {
    if quick("hopeless undo") {
        return;
    }
    let _turn = turns(1);
    let home = Home::new();
    let done = home.run(&stubborn(&home, 6)).code(5);
    assert!(done.err.contains("squall recover --run"), "{}", done.err);
    assert!(home.dir().join("broken").exists());
    home.squall(&["recover"]).code(0);
    assert!(!home.dir().join("broken").exists());
    home.assert_no_leftovers();
}

#[test]
fn with_few_file_descriptors_everything_is_restored() {
    if quick("few descriptors") {
        return;
    }
    let _turn = turns(1);
    for (limit, expected) in
        [(24, &[3][..]), (70, &[0, 1, 3, 4, 6]), (100, &[0, 1, 4, 6]), (300, &[0, 1, 4, 6])]
    {
        let home = Home::new();
        let fault =
            "- process-pause: {service: auth}\n      - relay-latency: {instance: catalog-1, delay: 2s}";
        let text = unjudged(fault, "").replace("rate: 40/s", "rate: 400/s");
        let file = home.file("run.yaml", &text);
        let mut command = home.command();
        let narrow = Command::new("sh");
        let squall = std::mem::replace(&mut command, narrow);
        command.env_clear().envs(squall.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]).arg(exe());
        command.args(["run", file.to_str().unwrap()]).current_dir(crate::support::root());
        let done = home.start_as(command).end_within(PATIENCE + Duration::from_secs(30));
        assert!(expected.contains(&done.code), "with {limit} descriptors: {done:?}");
        home.assert_no_leftovers();
        home.assert_nothing_left();
    }
}
