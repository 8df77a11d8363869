//! Faults of several containers at once, broken off at every step: in each of them nothing is left.

use super::inside::shaped;
use super::*;

/// Faults of all containers of a label, and whether one is felt by what holds it: the picture of the engine, the network.
const FAULTS: [&[&str]; 5] = [
    &["container-pause"],
    &["network-rate", "--rate=20mbit", "--by=tbf"],
    &["network-loss", "--share=1%", "--by=nft", "--interface=eth0"],
    &["port-block", "--local-ports=81"],
    &["dns-fault", "--answer=servfail", "--share=100%", "--to=10.88.0.1"],
];
/// Half-way through, where the first container has felt it and the last has not, is among the steps: `held` to `applied`.
const AT: [&str; 5] = ["intended", "held", "applied", "undoing", "undone"];

#[test]
fn whatever_ends_a_fault_of_several_containers_at_whatever_step_nothing_is_left_in_any() {
    if quick("the kill matrix of several containers") {
        return;
    }
    let Some(docker) = Dockerd::shared("the kill matrix of several containers") else { return };
    let (_turn, home) = (turns(1), Home::new());
    let all = ["many-1", "many-2", "many-3"].map(|name| docker.serving(name, &["--label", "sq=many"]));
    for container in &all {
        served(container, docker);
    }
    let before = all.each_ref().map(Container::picture);
    let untouched = || {
        all.iter()
            .zip(&before)
            .all(|(container, before)| container.picture() == *before && !shaped(container))
    };
    for fault in FAULTS {
        for (step, how) in AT.iter().flat_map(|step| HOWS.iter().map(move |how| (step, how))) {
            let (point, name) = (format!("{step}:{how}"), fault[0]);
            let args = ["--label", "sq=many", "--pick", "all", "--for", "100ms", "--crash-at", &point];
            let done = docker.squall(&home, &[&["inject"], fault, &args[..]].concat());
            assert_eq!(done.code == 137, matches!(*how, "kill" | "kill-both"), "{name} {point}: {done:?}");
            if *how == "kill-both" {
                alone(&home);
                home.squall(&["recover"]).code(0);
            }
            until(&format!("{name} {point}: the picture before"), ALONE, || untouched().then_some(()));
            home.squall(&["recover"]).code(0);
        }
    }
    home.assert_nothing_left();
}
