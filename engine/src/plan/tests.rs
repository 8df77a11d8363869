//! Laws of plans: seeds, picks, claims, phases.

use std::collections::BTreeSet;

use super::*;
use crate::experiment::{Input, Sources, parse};

struct NoFiles;

impl Sources for NoFiles {
    fn read(&self, _path: &str) -> Result<String, String> {
        Err("not there".to_owned())
    }

    fn bytes(&self, path: &str, _most: usize) -> Result<Vec<u8>, String> {
        self.read(path).map(String::into_bytes)
    }
}

pub(super) fn experiment(timeline: &str) -> Experiment {
    let text = format!(
        "squall: v1\nexperiment: t\nquestion: q?\nlab: edge\nload:\n  - checkout:\n      open: {{url: \
         \"http://${{lab.edge}}/checkout?token=s\", arrivals: [{{ramp: {{to: 100/s, over: 2s}}}}, {{hold: 58s}}]}}\n\
         objectives:\n  - checkout: {{availability: \">= 99.9%\"}}\ntimeline:\n{timeline}"
    );
    parse(&Input { file: "t.yaml".into(), text, ..Input::default() }, &NoFiles).unwrap()
}

fn step(at: u32, length: u32, faults: &str) -> String {
    format!("  - {{at: {at}s, for: {length}s, faults: [{faults}]}}\n")
}

fn targets(plan: &Plan) -> Vec<String> {
    plan.injections.iter().map(|injection| injection.target.to_string()).collect()
}

#[test]
fn the_same_seed_gives_the_same_plan_and_others_give_others() {
    let experiment = experiment(&step(10, 5, "{process-kill: {service: edge, pick: one}}"));
    let picked = |seed| targets(&resolve(&experiment, seed).unwrap());
    assert_eq!(picked(7), picked(7));
    let all: BTreeSet<Vec<String>> = (0..40).map(picked).collect();
    assert_eq!(all.len(), 3, "forty seeds pick each of three instances: {all:?}");
}

#[test]
fn picks_are_as_many_as_asked_and_never_the_same_twice() {
    for (pick, count) in [("one", 1), ("2", 2), ("all", 3), ("50%", 2), ("1%", 1)] {
        let experiment =
            experiment(&step(10, 5, &format!("{{process-kill: {{service: edge, pick: {pick}}}}}")));
        let found: BTreeSet<String> = targets(&resolve(&experiment, 3).unwrap()).into_iter().collect();
        assert_eq!(found.len(), count, "pick {pick}");
    }
}

#[test]
fn more_than_there_are_and_several_without_a_pick_are_refused() {
    for faults in ["{process-kill: {service: edge, pick: 4}}", "{process-kill: {service: edge}}"] {
        assert!(resolve(&experiment(&step(10, 5, faults)), 1).is_err(), "{faults}");
    }
    assert!(resolve(&experiment(&step(10, 5, "{process-kill: {service: auth}}")), 1).is_ok());
}

#[test]
fn two_injections_cannot_claim_one_thing_at_one_time() {
    let kill = "{process-kill: {service: auth}}";
    let pause = "{process-pause: {service: auth}}";
    let clash = experiment(&(step(10, 5, kill) + &step(14, 5, pause)));
    let mistakes = resolve(&clash, 1).unwrap_err();
    assert!(mistakes[0].message.contains("overlap"), "{mistakes:?}");
    assert!(mistakes[0].node.is_some(), "it has a place");
    let apart = experiment(&(step(10, 5, kill) + &step(15, 5, pause)));
    assert_eq!(resolve(&apart, 1).unwrap().injections.len(), 2);
    let others =
        "{relay-latency: {service: auth, delay: 5ms}}, {relay-bandwidth: {service: auth, rate: 1mbit}}";
    assert!(resolve(&experiment(&step(10, 5, others)), 1).is_ok(), "kinds of relay faults compose");
}

#[test]
fn phases_follow_the_timeline_and_leave_no_gap() {
    let plan = resolve(
        &experiment(
            &(step(20, 5, "{process-kill: {service: auth}}") + &step(12, 3, "{process-kill: {service: kv}}")),
        ),
        1,
    )
    .unwrap();
    let spans: Vec<(Phase, f64, f64)> = plan.phases.iter().map(|s| (s.phase, s.start_s, s.end_s)).collect();
    assert_eq!(spans[0], (Phase::WarmUp, 0.0, 2.0));
    assert_eq!(spans[1], (Phase::Baseline, 2.0, 12.0));
    assert_eq!(spans[2], (Phase::Fault, 12.0, 25.0));
    assert!(spans.windows(2).all(|pair| pair[0].2 == pair[1].1), "{spans:?}");
    assert_eq!(spans.last().unwrap().2, 60.0);
    assert!(plan.injections[0].at_s < plan.injections[1].at_s, "sorted by time");
}

#[test]
fn the_blast_radius_counts_what_is_hit_at_one_time() {
    let one_by_one = step(10, 5, "{process-kill: {instance: catalog-1}}")
        + &step(20, 5, "{process-kill: {instance: catalog-2}}");
    let plan = resolve(&experiment(&one_by_one), 1).unwrap();
    assert_eq!((plan.blast_radius[0].hit, plan.blast_radius[0].of), (1, Some(2)));
    let plan =
        resolve(&experiment(&step(10, 5, "{process-kill: {service: catalog, pick: all}}")), 1).unwrap();
    assert_eq!((plan.blast_radius[0].hit, plan.blast_radius[0].of), (2, Some(2)));
    assert!(plan.blast_radius[0].journeys.as_ref().unwrap().contains(&"checkout".to_owned()));
}

#[test]
fn an_objective_of_everything_is_said_to_be_undecidable_once() {
    let mut experiment = experiment(&step(10, 5, "{process-kill: {service: auth}}"));
    experiment.objectives[0].limit = 1.0;
    let notes = resolve(&experiment, 1).unwrap().notes;
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].contains("can never be held") && notes[0].contains("99.9%"), "{notes:?}");
}

#[test]
fn whatever_is_hit_is_in_the_blast_radius() {
    for (fault, says) in [
        ("{pop-drain: {pop: fra, steps: [0%], soak: 1s}}", "1 of 3 PoPs; needed by "),
        ("{process-pause: {port: 8080}}", "listener on port 8080; nothing here tells who needs it"),
        ("{command: {do: [a], undo: [b], effect: [c]}}", "whatever `a` of injection #1 breaks; nothing"),
    ] {
        let text = describe(&resolve(&experiment(&step(10, 5, fault)), 1).unwrap());
        let (_, radius) = text.split_once("\nblast radius\n").unwrap_or_else(|| panic!("{text}"));
        assert!(radius.contains(says), "{text}");
    }
}

#[test]
fn each_injection_says_what_undoes_it_and_each_kind_of_fault_is_explained_once() {
    let faults = "{process-kill: {service: edge, pick: all}}, {process-pause: {port: 80}}, \
                  {relay-latency: {service: auth, delay: 5ms}}, {command: {do: [a], undo: [b, c], effect: [d]}}, \
                  {pop-drain: {pop: fra, steps: [0%], soak: 1s}}";
    let text = describe(&resolve(&experiment(&step(10, 5, faults)), 1).unwrap());
    for says in [
        "undo:   the lab's supervisor starts edge-fra again",
        "undo:   SIGCONT to listener on port 80",
        "undo:   remove this fault from the relay before auth-1",
        "undo:   run `b c`",
        "undo:   give PoP fra back",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    let proof = injectors::registry::find("process-kill").unwrap().about().proof;
    assert_eq!(text.matches(proof).count(), 1, "{text}");
}

#[test]
fn a_plan_says_what_so_few_requests_cannot_decide_and_hides_query_values() {
    let plan = resolve(&experiment(&step(10, 5, "{process-kill: {service: auth}}")), 1).unwrap();
    let note =
        plan.notes.iter().find(|note| note.contains("in fault")).expect("500 requests cannot hold 99.9%");
    assert!(note.contains("3838"), "{note}");
    let mut whole = experiment(&step(10, 5, "{process-kill: {service: auth}}"));
    whole.objectives[0].limit = 1.0;
    let plan_of_whole = resolve(&whole, 1).unwrap();
    assert!(plan_of_whole.notes[0].contains("can never be held"), "{:?}", plan_of_whole.notes);
    let text = describe(&plan);
    assert!(text.contains("/checkout") && !text.contains("token"), "{text}");
}

#[test]
fn network_faults_of_one_aim_go_together_and_those_that_could_mean_one_packet_do_not() {
    let loss = |aim: &str| format!("{{network-loss: {{{aim}, share: 1%}}}}");
    let delay = |aim: &str| format!("{{network-delay: {{{aim}, delay: 10ms}}}}");
    let resolved = |first: String, second: String| {
        let steps = step(10, 5, &first) + &step(12, 5, &second);
        resolve(&experiment(&steps), 1).map_err(|mistakes| mistakes[0].message.clone())
    };
    let one = "interface: eth0, to: 10.0.0.2";
    assert!(resolved(loss(one), delay(one)).is_ok());
    let twice = resolved(loss(one), loss(&format!("{one}, direction: both"))).unwrap_err();
    assert!(twice.contains("would overlap"), "{twice}");
    let crossing = resolved(loss(one), delay("interface: eth0")).unwrap_err();
    assert!(crossing.contains("would cross network-loss on eth0 to 10.0.0.2 at 12s"), "{crossing}");
    assert!(resolved(loss(one), delay("interface: eth0, direction: in")).is_ok());
}

#[test]
fn network_faults_are_aimed_at_instances_which_count_as_hit() {
    let resolved = |faults: &str| resolve(&experiment(&step(10, 5, faults)), 1);
    let loss = |aim: &str| format!("{{network-loss: {{{aim}, share: 2%}}}}");
    let plan = resolved(&loss("service: catalog, pick: all, direction: both")).unwrap();
    assert_eq!(targets(&plan), ["packets to and from catalog-1", "packets to and from catalog-2"]);
    let catalog = plan.blast_radius.iter().find(|blast| blast.what == "instances of catalog").unwrap();
    assert_eq!((catalog.hit, catalog.of, plan.blast_radius.len()), (2, Some(2), 1));
    assert_eq!(targets(&resolved(&loss("instance: auth-1")).unwrap()), ["packets to auth-1"]);
    assert!(resolved(&loss("service: catalog")).is_err(), "which of them?");
    assert!(resolved(&loss("instance: nobody")).is_err());
    let twice = format!("{}, {}", loss("instance: auth-1"), loss("service: auth"));
    assert!(resolved(&twice).unwrap_err()[0].message.contains("overlap"));
}

#[test]
fn what_an_experiment_protects_no_network_fault_of_it_hits() {
    let mut experiment =
        experiment(&step(10, 5, "{network-loss: {to: 10.0.0.0/8, protect: 10.1.0.0/16, share: 1%}}"));
    experiment.protect = vec!["10.2.0.3".parse().unwrap()];
    let plan = resolve(&experiment, 1).unwrap();
    assert_eq!(targets(&plan), ["the interface to 10.0.0.0/8 sparing 10.1.0.0/16,10.2.0.3"]);
}

#[test]
fn injections_that_only_touch_do_not_overlap() {
    let fault = "{process-pause: {port: 80}}";
    let at = |ms: u32, length: u32| format!("  - {{at: {ms}ms, for: {length}ms, faults: [{fault}]}}\n");
    let chain: String = (0..400).map(|number| at(8_050 + number * 50, 50)).collect();
    assert_eq!(resolve(&experiment(&chain), 1).unwrap().injections.len(), 400);
    let clashing = at(8_050, 51) + &at(8_100, 50);
    assert!(resolve(&experiment(&clashing), 1).unwrap_err()[0].message.contains("would overlap"));
}

#[test]
fn a_load_that_no_objective_judges_is_named_beforehand() {
    let mut experiment = experiment(&step(10, 5, "{process-kill: {service: auth}}"));
    let mut side = experiment.load[0].clone();
    "home".clone_into(&mut side.name);
    experiment.load.push(side);
    let notes = resolve(&experiment, 1).unwrap().notes;
    assert!(notes.iter().any(|note| note.starts_with("load home has no objective")), "{notes:?}");
}
