//! What a run says about single points of failure: each broken thing against each journey.

use std::collections::BTreeMap;

use reports::Latencies;
use reports::format::{count, share};
use reports::record::{
    Bucket, Finding, InjectionRecord, LoadRecord, Outcomes, Phase, RunRecord, ServiceInfo, Verdict,
};

use super::traffic::{self, Met};
use super::{host, measure};

/// Injections of one fault that hit one thing at one time.
pub(super) struct Group<'r> {
    injections: Vec<&'r InjectionRecord>,
    start: f64,
    end: f64,
}

impl<'r> Group<'r> {
    /// What was hit, by name: instances, `PoP NAME`, `relay NAME`.
    pub(super) fn names(&self) -> impl Iterator<Item = &'r str> {
        self.injections.iter().map(|hit| hit.instance.as_deref().unwrap_or(&hit.target))
    }

    /// The same, each once.
    fn distinct(&self) -> Vec<&'r str> {
        let mut names: Vec<&str> = Vec::new();
        for name in self.names() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Whether all of it is aimed at addresses to which requests of this journey go.
    pub(super) fn meets(&self, journey: &str) -> bool {
        self.injections.iter().all(|injection| injection.meets.iter().any(|known| known == journey))
    }

    /// The service that was hit, if it is known.
    pub(super) fn service(&self, record: &'r RunRecord) -> Option<&'r ServiceInfo> {
        service(record, self.injections[0])
    }
}

/// One finding for each broken thing and each judged journey.
pub(super) fn findings(record: &RunRecord) -> Vec<Finding> {
    let groups = groups(record);
    let mut findings = Vec::new();
    for (index, group) in groups.iter().enumerate() {
        let overlaps = |other: &Group<'_>| other.start < group.end && group.start < other.end;
        let alone = !groups.iter().enumerate().any(|(other, it)| other != index && overlaps(it));
        for load in &record.loads {
            if record.objectives.iter().any(|objective| objective.journey == load.name) {
                findings.push(finding(record, group, load, alone));
            }
        }
    }
    findings.sort_by_key(|finding| {
        ["confirmed", "untested", "refuted"].iter().position(|s| *s == finding.status)
    });
    findings
}

/// Broken things that no judged journey met before: nobody could have noticed them.
pub(super) fn unmet(record: &RunRecord) -> Vec<String> {
    let judged =
        |load: &&LoadRecord| record.objectives.iter().any(|objective| objective.journey == load.name);
    let mut reasons = Vec::new();
    for group in groups(record) {
        let met: Vec<Met> =
            record.loads.iter().filter(judged).map(|load| traffic::met(record, &group, load)).collect();
        let of: u64 = met.iter().map(|met| if let Met::Never(of) = met { *of } else { 0 }).sum();
        if !met.is_empty() && met.iter().all(|met| matches!(met, Met::Never(_))) {
            let what = target(&group, group.service(record));
            reasons.push(format!(
                "no journey's traffic met {what}: 0 of {} answers before the fault came through it, so nobody could \
                 have noticed",
                count(of)
            ));
        }
    }
    reasons
}

fn groups(record: &RunRecord) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<String, Group<'_>> = BTreeMap::new();
    for injection in &record.injections {
        let Some(start) = injection.applied_s else { continue };
        let end = injection.undone_s.unwrap_or(f64::INFINITY);
        // Instances of one service that are hit in the same second belong together.
        let thing = injection.service.as_ref().unwrap_or(&injection.target);
        let key = format!("{} {thing} {}", injection.fault, start.round());
        let group = groups.entry(key).or_insert_with(|| Group { injections: Vec::new(), start, end });
        group.injections.push(injection);
        (group.start, group.end) = (group.start.min(start), group.end.max(end));
    }
    let mut groups: Vec<Group<'_>> = groups.into_values().collect();
    groups.sort_by(|a, b| a.start.total_cmp(&b.start));
    groups
}

fn finding(record: &RunRecord, group: &Group<'_>, load: &LoadRecord, alone: bool) -> Finding {
    let first = group.injections[0];
    let service = service(record, first);
    let (verdict, sentence) = judge(record, group, load);
    let unproven = group.injections.iter().any(|injection| injection.proof.status != "confirmed");
    let (status, evidence) = if unproven {
        ("untested", "the fault was not proven".to_owned())
    } else if !record.generator.saturated.is_empty() {
        ("untested", "the load generator did not keep up".to_owned())
    } else {
        match verdict {
            Verdict::Held if !passes(record, service, &load.name) => {
                let name = service.map_or(first.target.as_str(), |service| service.name.as_str());
                ("untested", format!("{} does not pass through {name}; {sentence}", load.name))
            }
            Verdict::Held => {
                let name = target(group, None);
                let met = traffic::met(record, group, load);
                held(&name, met, traffic::shown(record, group, load), &load.name, &sentence)
            }
            // It may be what they share: workers, connections.
            Verdict::Missed if alone && !passes(record, service, &load.name) => {
                ("confirmed", format!("though {} does not pass through it, {sentence}", load.name))
            }
            Verdict::Missed if alone => ("confirmed", sentence),
            Verdict::Missed => ("untested", format!("several things were broken at once; {sentence}")),
            Verdict::Unknown => ("untested", sentence),
        }
    };
    Finding {
        target: target(group, service),
        fault: format!("{} {}", first.fault, first.parameters).trim().to_owned(),
        journey: load.name.clone(),
        status: status.to_owned(),
        evidence,
        remedy: if status == "confirmed" { remedy(group, service) } else { String::new() },
    }
}

/// What a journey that held shows about a broken thing: that depends on whether it is shown to meet it.
fn held(
    name: &str,
    met: Met,
    shown: Option<String>,
    journey: &str,
    sentence: &str,
) -> (&'static str, String) {
    match met {
        Met::Never(of) => (
            "untested",
            format!(
                "no answer of {journey} came through {name} before the fault (0 of {}); {sentence}",
                count(of)
            ),
        ),
        Met::Some(served, of) => {
            let share = share(served as f64 / of.max(1) as f64);
            ("refuted", format!("{name} served {share} of its answers before; {sentence}"))
        }
        Met::Unknown => match shown {
            Some(how) => ("refuted", format!("{how}, and it held: {sentence}")),
            None => {
                let meets = if name.starts_with("relay ") { "goes through" } else { "meets" };
                ("untested", format!("nothing shows that {journey} {meets} {name}; {sentence}"))
            }
        },
    }
}

fn service<'r>(record: &'r RunRecord, injection: &InjectionRecord) -> Option<&'r ServiceInfo> {
    let name = injection.service.as_ref()?;
    record.topology.as_ref()?.services.iter().find(|service| service.name == *name)
}

/// Whether a journey may pass through a service: what the topology does not know may.
pub(super) fn passes(record: &RunRecord, service: Option<&ServiceInfo>, journey: &str) -> bool {
    path(record, service, journey).unwrap_or(true)
}

/// Whether a journey passes through a service, or through one that uses it; none if the topology does not know.
pub(super) fn path(record: &RunRecord, service: Option<&ServiceInfo>, journey: &str) -> Option<bool> {
    let (service, topology) = (service?, record.topology.as_ref()?);
    let on_path = |service: &ServiceInfo| service.journeys.iter().any(|known| known == journey);
    let known = topology.services.iter().any(on_path);
    let used = topology.services.iter().any(|user| on_path(user) && user.uses.contains(&service.name));
    known.then(|| on_path(service) || used)
}

/// The group in words: a service if all of it was hit, else its instances.
fn target(group: &Group<'_>, service: Option<&ServiceInfo>) -> String {
    let names = group.distinct();
    match service {
        Some(service) if service.instances.len() == 1 => format!("{} (its only instance)", service.name),
        Some(service) if names.len() >= service.instances.len() => {
            format!("{} (all {} instances)", service.name, service.instances.len())
        }
        Some(service) => format!(
            "{} ({} of {} instances of {})",
            names.join(", "),
            names.len(),
            service.instances.len(),
            service.name
        ),
        None if names.len() == 1 && group.injections.len() > 1 => {
            format!("{} ({} injections)", names[0], group.injections.len())
        }
        None => names.join(", "),
    }
}

/// Judges the journey while the group was live, from the slices of that time.
fn judge(record: &RunRecord, group: &Group<'_>, load: &LoadRecord) -> (Verdict, String) {
    let live: Vec<&Bucket> = load
        .buckets
        .iter()
        .filter(|b| b.phase == Phase::Fault && b.at_s + b.len_s > group.start && b.at_s < group.end)
        .collect();
    let merged = merge(&live);
    let mut worst: Option<(Verdict, Vec<String>)> = None;
    let rank = |verdict: Verdict| {
        [Verdict::Held, Verdict::Unknown, Verdict::Missed].iter().position(|v| *v == verdict)
    };
    for objective in
        record.objectives.iter().filter(|o| o.journey == load.name && o.phases.contains(&Phase::Fault))
    {
        let measured = measure::measure(objective, &merged, &live).unwrap_or_default();
        let mut verdict = measure::answer(objective, &measured);
        let seen = measured
            .estimate
            .map_or("no data".to_owned(), |estimate| measure::value(objective.sli, estimate));
        let mut sentence =
            format!("{} was {seen}, objective {}", objective.sli.name(), measure::limit(objective));
        if verdict == Verdict::Missed
            && let Some(why) = host::excuse(record, objective, Phase::Fault, &merged)
        {
            verdict = Verdict::Unknown;
            sentence = format!("{sentence}; {why}");
        }
        match &mut worst {
            Some((known, sentences)) if rank(verdict) == rank(*known) => sentences.push(sentence),
            Some((known, _)) if rank(verdict) < rank(*known) => {}
            _ => worst = Some((verdict, vec![sentence])),
        }
    }
    match worst {
        Some((verdict, sentences)) => (verdict, sentences.join("; ")),
        None => (Verdict::Unknown, "nothing was judged while it was broken".to_owned()),
    }
}

pub(super) fn merge(buckets: &[&Bucket]) -> Outcomes {
    let mut all = Outcomes::default();
    let mut latencies = Latencies::default();
    for bucket in buckets {
        all.due += bucket.all.due;
        all.ok += bucket.all.ok;
        for (class, count) in &bucket.all.errors {
            *all.errors.entry(class.clone()).or_default() += count;
        }
        if let Ok(part) = Latencies::decode(&bucket.all.latencies) {
            latencies.merge(&part);
        }
    }
    all.latencies = latencies.encode();
    all
}

/// What to do about a confirmed single point of failure.
fn remedy(group: &Group<'_>, service: Option<&ServiceInfo>) -> String {
    let first = group.injections[0];
    let name = service.map_or(first.target.as_str(), |service| service.name.as_str());
    let partly = service.is_some_and(|service| group.distinct().len() < service.instances.len());
    match first.effect.as_str() {
        "outage" if partly => format!(
            "The other instances of {name} did not take over: callers need health checks or outlier ejection, a short \
             deadline per try and one retry on another instance, and the rest must have the capacity for all of the traffic."
        ),
        "outage" => format!(
            "Run a second instance of {name} in another failure domain and let callers fail over to it; or make the call \
             optional: answer without it, or from the last known value."
        ),
        "degradation" => format!(
            "Give calls to {name} a deadline well below the journey's limit, with a fallback or one hedged try elsewhere, \
             and shed load before queues build up."
        ),
        "errors" => format!(
            "Repeat failed calls to {name} once, on another instance and within a retry budget; check answers before they \
             are passed on or cached; and keep a fallback for when there is no good one."
        ),
        "shift" => format!(
            "The surviving PoPs could not carry the traffic of {name}: add capacity for N-1, and drain in smaller steps \
             with a longer soak."
        ),
        _ => format!("Remove the dependency on {name}, or make the journey survive without it."),
    }
}
