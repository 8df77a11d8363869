//! A rich, realistic and deterministic record to render in tests: 60 s of load from three PoPs, two overlapping
//! injections from 15 s to 30 s, two journeys of which one suffers.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::latency::Latencies;
use crate::record::*;

/// A text that tries to break out of every format.
pub(crate) const HOSTILE: &str =
    "<script>alert(1)</script>\"'&]]>--><b x=\u{1b}[31m\u{202e}\0\u{9b}\r\n|`[a](http://x)\u{7f}\u{feff}";

const SPANS: [(Phase, f64, f64); 5] = [
    (Phase::WarmUp, 0.0, 5.0),
    (Phase::Baseline, 5.0, 15.0),
    (Phase::Fault, 15.0, 30.0),
    (Phase::Recovery, 30.0, 33.4),
    (Phase::After, 33.4, 60.0),
];

/// A generator of the kind named after Lehmer: enough for noise, the same on every machine.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0 * 48_271 % 0x7fff_ffff;
        self.0 as f64 / 2_147_483_647.0
    }
}

/// Everything that one request of the sample shows.
struct Sampled {
    pop: &'static str,
    error: Option<&'static str>,
    latency_us: u64,
}

fn request(noise: &mut Noise, suffers: bool, at_s: f64) -> Sampled {
    let drained = (20.0..28.0).contains(&at_s);
    let pop = match noise.next() {
        x if x < 0.5 => "fra",
        x if x < 0.8 && !drained => "ams",
        x if x < 0.65 => "fra",
        _ => "lis",
    };
    let skew = -noise.next().max(1e-9).ln();
    let mut latency_us = (14_000.0 + 6_000.0 * skew + 9_000.0 * noise.next()) as u64;
    let mut error = None;
    if suffers && (15.0..30.0).contains(&at_s) {
        latency_us += 200_000 + (40_000.0 * noise.next()) as u64;
    }
    if (20.0..21.6).contains(&at_s) && noise.next() < 0.18 {
        error = Some(if noise.next() < 0.6 { "reset" } else { "deadline" });
        latency_us = if error == Some("deadline") { 2_000_000 } else { latency_us };
    } else if suffers && (15.0..30.0).contains(&at_s) && noise.next() < 0.006 {
        error = Some("status");
    }
    Sampled { pop, error, latency_us }
}

#[derive(Default)]
struct Tally {
    outcomes: Outcomes,
    latencies: Latencies,
    /// Without what waited for a connection: one request in twenty.
    service: Latencies,
}

impl Tally {
    fn add(&mut self, sampled: &Sampled) {
        self.outcomes.due += 1;
        match sampled.error {
            Some(class) => *self.outcomes.errors.entry(class.to_owned()).or_default() += 1,
            None => self.outcomes.ok += 1,
        }
        if matches!(sampled.error, None | Some("deadline")) {
            self.latencies.record(sampled.latency_us);
        }
        if sampled.error.is_none() {
            let waited = if self.outcomes.ok.is_multiple_of(20) { sampled.latency_us / 3 } else { 60 };
            self.service.record(sampled.latency_us - waited);
        }
    }

    fn close(mut self) -> Outcomes {
        self.outcomes.latencies = self.latencies.encode();
        self.outcomes
    }
}

#[derive(Default)]
struct PhaseTally {
    all: Tally,
    pops: BTreeMap<String, Tally>,
    statuses: BTreeMap<u16, u64>,
}

impl PhaseTally {
    fn close(self, phase: Phase) -> PhaseStats {
        let pops = self.pops.into_iter().map(|(pop, tally)| (pop, tally.close())).collect();
        let instances = BTreeMap::from([("edge-ams".to_owned(), self.all.outcomes.ok)]);
        let service = self.all.service.encode();
        let (all, kinds) = (Outcomes { service, ..self.all.close() }, BTreeMap::new());
        PhaseStats {
            phase,
            all,
            kinds,
            pops,
            instances,
            statuses: self.statuses,
            causes: BTreeMap::new(),
            unsent: 0,
            handshakes: String::new(),
        }
    }
}

fn load(name: &str, rate: u32, suffers: bool) -> LoadRecord {
    let mut noise = Noise(u64::from(rate) + 7);
    let (mut phases, mut buckets) = (Vec::new(), Vec::new());
    for (phase, start, end) in SPANS {
        let mut total = PhaseTally::default();
        let mut at_s = start;
        while at_s < end - 1e-9 {
            let len_s = (at_s.floor() + 1.0).min(end) - at_s;
            let ramp = if phase == Phase::WarmUp { (at_s + 0.5) / 5.0 } else { 1.0 };
            let mut tally = Tally::default();
            let mut pops: BTreeMap<String, u64> = BTreeMap::new();
            for _ in 0..(f64::from(rate) * ramp * len_s).round() as u32 {
                let sampled = request(&mut noise, suffers, at_s + len_s * noise_free(&tally));
                let answered = matches!(sampled.error, None | Some("status"));
                let pop = if answered { sampled.pop } else { "-" };
                tally.add(&sampled);
                total.all.add(&sampled);
                total.pops.entry(pop.to_owned()).or_default().add(&sampled);
                if answered {
                    *pops.entry(pop.to_owned()).or_default() += 1;
                    *total.statuses.entry(if sampled.error.is_some() { 503 } else { 200 }).or_default() += 1;
                }
            }
            buckets.push(Bucket { at_s, len_s, phase, all: tally.close(), pops });
            at_s += len_s;
        }
        phases.push(total.close(phase));
    }
    LoadRecord {
        name: name.to_owned(),
        sends: vec![format!("GET http://127.0.0.1:18080/{name}")],
        arrivals: format!("ramp to {rate}/s over 5 s, then hold for 55 s"),
        phases,
        buckets,
    }
}

/// Spreads requests evenly enough over a second without another random number.
fn noise_free(tally: &Tally) -> f64 {
    (tally.outcomes.due % 100) as f64 / 100.0
}

fn result(load: &LoadRecord, objective: &Objective, phase: Phase) -> ObjectiveResult {
    let stats = load.phases.iter().find(|p| p.phase == phase).unwrap();
    let n = stats.all.done() as f64;
    let (estimate, low, high) = match objective.sli {
        Sli::Latency(q) => {
            let latencies = Latencies::decode(&stats.all.latencies).unwrap();
            let half = 1.96 * (q * (1.0 - q) / n).sqrt();
            let at = |q: f64| latencies.quantile(q.clamp(0.0, 1.0)).unwrap();
            (at(q), at(q - half), at(q + half))
        }
        Sli::Availability => {
            let (p, z2) = (stats.all.ok as f64 / n, 1.96f64.powi(2));
            let middle = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
            let half = 1.96 * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt() / (1.0 + z2 / n);
            (p, (middle - half).max(0.0), (middle + half).min(1.0))
        }
        Sli::Throughput => (n / 10.0, n / 10.2, n / 9.8),
    };
    let good = |v: f64| if objective.at_least { v >= objective.limit } else { v <= objective.limit };
    let verdict = match (good(low), good(high)) {
        (true, true) => Verdict::Held,
        (false, false) => Verdict::Missed,
        _ => Verdict::Unknown,
    };
    ObjectiveResult {
        journey: objective.journey.clone(),
        phase,
        sli: objective.sli,
        at_least: objective.at_least,
        limit: objective.limit,
        estimate: Some(estimate),
        low: Some(low),
        high: Some(high),
        samples: stats.all.done(),
        verdict,
        note: (verdict == Verdict::Unknown).then(|| "the interval spans the limit; run longer".to_owned()),
    }
}

fn objectives() -> Vec<Objective> {
    let objective = |journey: &str, sli, at_least, limit| Objective {
        journey: journey.to_owned(),
        sli,
        at_least,
        limit,
        phases: vec![Phase::Baseline, Phase::Fault, Phase::Recovery, Phase::After],
    };
    vec![
        objective("checkout", Sli::Availability, true, 0.99),
        objective("checkout", Sli::Latency(0.99), false, 0.25),
        objective("browse", Sli::Availability, true, 0.95),
        objective("browse", Sli::Latency(0.95), false, 0.1),
    ]
}

fn injections() -> Vec<InjectionRecord> {
    let slow = InjectionRecord {
        id: "01JD7Q8Z3K-1".into(),
        fault: "relay-latency".into(),
        target: "relay auth-1".into(),
        service: Some("auth".into()),
        instance: None,
        meets: Vec::new(),
        effect: "degradation".into(),
        parameters: "delay 200 ms, jitter 20 ms".into(),
        summary: "every reply of relay auth-1 waits 200 ms ± 20 ms".into(),
        intended_s: 14.98,
        applied_s: Some(15.01),
        undone_s: Some(30.02),
        proof: ProofRecord {
            status: "confirmed".into(),
            requested: "+200 ms".into(),
            measured: "+203 ms [201 ms, 206 ms]".into(),
            tolerance: "± 20 ms".into(),
            samples: 42,
        },
        undo: "restored".into(),
        error: None,
        manual: "squall recover 01JD7Q8Z3KX5M2V9TB4C6N8W1R".into(),
    };
    let drain = InjectionRecord {
        id: "01JD7Q8Z3K-2".into(),
        fault: "pop-drain".into(),
        target: "PoP ams".into(),
        service: Some("edge".into()),
        instance: None,
        meets: Vec::new(),
        effect: "shift".into(),
        parameters: "to 0% in 2 steps of 4 s".into(),
        summary: "PoP ams takes 50%, then none of its traffic".into(),
        intended_s: 19.97,
        applied_s: Some(20.0),
        undone_s: Some(28.05),
        proof: ProofRecord {
            status: "confirmed".into(),
            requested: "share of ams 0%".into(),
            measured: "share of ams 0.4%".into(),
            tolerance: "± 2%".into(),
            samples: 960,
        },
        ..slow.clone()
    };
    vec![slow, drain]
}

fn findings() -> Vec<Finding> {
    vec![
        Finding {
            target: "relay auth-1".into(),
            fault: "200 ms slower".into(),
            journey: "checkout".into(),
            status: "confirmed".into(),
            evidence: "p99 rose from 46 ms to 281 ms; the limit is 250 ms".into(),
            remedy:
                "Give auth a second instance behind a balancer with outlier ejection, or let checkout go on \
                     with a cached session while auth is slow."
                    .into(),
        },
        Finding {
            target: "relay auth-1".into(),
            fault: "200 ms slower".into(),
            journey: "browse".into(),
            status: "refuted".into(),
            evidence: "browse held all its objectives while auth was slow".into(),
            remedy: String::new(),
        },
        Finding {
            target: "PoP ams".into(),
            fault: "drained".into(),
            journey: "checkout".into(),
            status: "untested".into(),
            evidence: "auth was slow at the same time, so the run cannot tell".into(),
            remedy: "Repeat the drain on its own.".into(),
        },
    ]
}

fn events() -> Vec<EventRecord> {
    let event = |at_s, kind: &str, text: &str| EventRecord { at_s, kind: kind.into(), text: text.into() };
    let mut events = vec![
        event(0.0, "phase", "warm-up begins"),
        event(5.0, "phase", "baseline begins"),
        event(15.0, "phase", "fault begins"),
        event(15.01, "inject", "relay-latency: every reply of relay auth-1 waits 200 ms ± 20 ms"),
        event(17.4, "proof", "relay-latency confirmed: requested +200 ms, measured +203 ms"),
        event(20.0, "inject", "pop-drain: PoP ams takes 50%, then none of its traffic"),
        event(20.9, "probe", "cart-health missed: 503 Service Unavailable"),
        event(24.6, "proof", "pop-drain confirmed: share of ams 0.4%"),
        event(28.05, "undo", "pop-drain restored"),
        event(30.02, "undo", "relay-latency restored"),
        event(33.4, "phase", "after begins: every objective held for three seconds"),
    ];
    events.extend(
        (0..30).map(|i| event(34.0 + f64::from(i) / 2.0, "note", "lease of no injection left to renew")),
    );
    events
}

/// The steady-state probe of the sample.
fn probes() -> Vec<ProbeRecord> {
    let seen = |phase, held, missed, why: Option<&str>| ProbeSeen {
        phase,
        held,
        missed,
        last_miss: why.map(str::to_owned),
    };
    vec![ProbeRecord {
        name: "cart-health".into(),
        does: "GET http://127.0.0.1:18081/health every 1 s".into(),
        tolerance: "status 200 within 500 ms".into(),
        phases: vec![Phase::Baseline, Phase::Fault, Phase::After],
        seen: vec![
            seen(Phase::Baseline, 10, 0, None),
            seen(Phase::Fault, 13, 2, Some("status 503 Service Unavailable")),
            seen(Phase::After, 26, 0, None),
        ],
    }]
}

const EXPERIMENT: &str = "squall: v1
experiment: checkout-survives-a-slow-auth
question: Does checkout stay within its SLO when every reply of auth takes 200 ms more?
owner: edge-sre
lab: edge
load:
  - checkout:
      open: {url: \"http://${lab.edge}/checkout\", arrivals: [{ramp: {to: 400/s, over: 5s}}, {hold: 55s}]}
  - browse:
      open: {url: \"http://${lab.edge}/browse\", arrivals: [{ramp: {to: 120/s, over: 5s}}, {hold: 55s}]}
objectives:
  - checkout: {availability: \">= 99%\", p99: \"<= 250ms\"}
  - browse: {availability: \">= 95%\", p95: \"<= 100ms\"}
timeline:
  - at: 15s
    for: 15s
    faults:
      - relay-latency: {service: auth, delay: 200ms, jitter: 20ms}
";

fn service(name: &str, requires: &[&str], uses: &[&str], journeys: &[&str]) -> ServiceInfo {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    ServiceInfo {
        name: name.to_owned(),
        instances: vec![format!("{name}-1")],
        requires: owned(requires),
        uses: owned(uses),
        journeys: owned(journeys),
    }
}

fn relays() -> Vec<RelayInfo> {
    let (listen, upstream) = ("127.0.0.1:41000".into(), "127.0.0.1:8080".into());
    vec![RelayInfo { name: "web".into(), listen, upstream }]
}

/// Missed, with everything that a run can have. Made once: its thirty thousand requests take their time.
pub(crate) fn missed() -> RunRecord {
    static MADE: LazyLock<RunRecord> = LazyLock::new(make);
    MADE.clone()
}

fn make() -> RunRecord {
    let loads = vec![load("checkout", 400, true), load("browse", 120, false)];
    let objectives = objectives();
    let of = |o: &Objective| loads.iter().find(|l| l.name == o.journey).unwrap();
    let results =
        objectives.iter().flat_map(|o| o.phases.iter().map(|phase| result(of(o), o, *phase))).collect();
    RunRecord {
        schema: SCHEMA.into(),
        run: "01JD7Q8Z3KX5M2V9TB4C6N8W1R".into(),
        squall: "0.1.0".into(),
        started_unix_s: 1_795_448_292.25,
        ended_unix_s: 1_795_448_352.9,
        seed: 42,
        reproduce: "squall run scenarios/network/slow-auth.yaml --seed 42".into(),
        experiment: ExperimentInfo {
            name: "checkout-survives-a-slow-auth".into(),
            question: "Does checkout stay within its SLO when every reply of auth takes 200 ms more?".into(),
            owner: Some("edge-sre".into()),
            file: "scenarios/network/slow-auth.yaml".into(),
            text: EXPERIMENT.into(),
        },
        host: HostInfo { kernel: "Linux 6.12.0".into(), cores: 2, target: "lab edge".into() },
        phases: SPANS.map(|(phase, start_s, end_s)| PhaseSpan { phase, start_s, end_s }).into(),
        relays: relays(),
        topology: Some(TopologyInfo {
            services: vec![
                service("edge", &["auth", "cart"], &[], &["checkout", "browse"]),
                service("auth", &[], &[], &["checkout"]),
                service("cart", &[], &["recommendations"], &["checkout"]),
            ],
        }),
        loads,
        generator: GeneratorRecord {
            workers: 2,
            due: 29_900,
            sent: 29_900,
            lag_p50_s: 0.000_061,
            lag_p99_s: 0.000_342,
            lag_max_s: 0.004_1,
            cpu_max: 0.31,
            waited_max: 0.02,
            queued: 0,
            connections_max: 148,
            saturated: vec![],
            strain: vec![Strain { phase: Phase::Fault, waited: 0.21, stolen: 0.0 }],
        },
        injections: injections(),
        probes: probes(),
        guards: vec![
            GuardRecord { when: "errors of checkout > 25% for 3s".into(), tripped_s: None, closest: 0.48 },
            GuardRecord { when: "p99 of browse > 2s for 5s".into(), tripped_s: None, closest: 0.06 },
        ],
        objectives,
        recover_within_s: 10.0,
        end: End::Completed,
        restoration: Restoration { verified: true, seconds: 0.212, left: vec![] },
        events: events(),
        judgement: Judgement {
            verdict: Verdict::Missed,
            exit: 1,
            reasons: vec![
                "p99 of checkout was 281 ms [275 ms, 290 ms] in fault; the limit is 250 ms".into(),
                "availability of checkout was 97.5% in fault; the limit is 99%".into(),
            ],
            results,
            detect_s: Some(1.4),
            recover_s: Some(0.38),
            recover_note: None,
            findings: findings(),
        },
    }
}

/// Held: the same run with wider limits and nothing found.
pub(crate) fn held() -> RunRecord {
    let mut record = missed();
    for result in &mut record.judgement.results {
        result.verdict = Verdict::Held;
        result.note = None;
        result.limit = if result.at_least { 0.9 } else { 0.5 };
    }
    for objective in &mut record.objectives {
        objective.limit = if objective.at_least { 0.9 } else { 0.5 };
    }
    record.judgement.findings.retain(|f| f.status == "refuted");
    record.judgement.verdict = Verdict::Held;
    record.judgement.exit = 0;
    record.judgement.detect_s = None;
    record.judgement.reasons = vec!["every objective held in every phase".into()];
    record
}

/// Aborted by a guard, one undo failed, one fault unproven, the generator saturated.
pub(crate) fn aborted() -> RunRecord {
    let mut record = missed();
    record.end =
        End::Aborted { by: "guard".into(), why: "errors of checkout > 25% for 3s".into(), at_s: 23.2 };
    record.phases.retain(|span| span.phase <= Phase::Fault);
    record.judgement.results.retain(|r| r.phase <= Phase::Fault);
    for load in &mut record.loads {
        load.phases.retain(|p| p.phase <= Phase::Fault);
        load.buckets.retain(|b| b.phase <= Phase::Fault && b.at_s < 24.0);
    }
    record.phases[2].end_s = 24.1;
    record.guards[0] =
        GuardRecord { when: "errors of checkout > 25% for 3s".into(), tripped_s: Some(23.2), closest: 1.0 };
    record.generator.saturated =
        vec!["start lateness p99 48 ms is more than a tenth of p99 of checkout".into()];
    let drain = &mut record.injections[1];
    drain.undone_s = None;
    drain.undo = "failed".into();
    drain.error = Some("the control socket of PoP ams does not answer".into());
    drain.proof = ProofRecord {
        status: "unproven".into(),
        requested: "share of ams 0%".into(),
        measured: String::new(),
        tolerance: "± 2%".into(),
        samples: 0,
    };
    record.injections[0].undone_s = Some(23.3);
    record.restoration = Restoration {
        verified: false,
        seconds: 5.0,
        left: vec!["curl -X POST 127.0.0.1:9/pops/ams/admit".into()],
    };
    record.judgement.verdict = Verdict::Unknown;
    record.judgement.exit = 5;
    record.judgement.recover_s = None;
    record.judgement.recover_note =
        Some("the objectives of checkout did not hold again before the load ended".into());
    record.judgement.reasons =
        vec!["pop-drain of PoP ams is not restored: the control socket does not answer".into()];
    record.judgement.results[3].verdict = Verdict::Unknown;
    record.judgement.results[3].note = Some("no data".into());
    record.judgement.results[3].estimate = None;
    record.judgement.results[3].samples = 0;
    (record.judgement.results[3].low, record.judgement.results[3].high) = (None, None);
    record
}

/// The baseline was not steady: nothing was injected.
pub(crate) fn not_steady() -> RunRecord {
    let mut record = aborted();
    record.end = End::NotSteady("p99 of checkout was 900 ms".into());
    record.phases.truncate(2);
    record.injections.clear();
    record.events.retain(|event| event.at_s < 15.0);
    record.judgement.findings.clear();
    record.judgement.results.retain(|r| r.phase <= Phase::Baseline);
    record.judgement.exit = 6;
    record.judgement.detect_s = None;
    record.guards[0].tripped_s = None;
    record.generator.saturated.clear();
    record.restoration = Restoration { verified: true, seconds: 0.0, left: vec![] };
    record.judgement.reasons = vec!["the baseline was not steady: p99 of checkout was 900 ms".into()];
    record
}

/// Every text that may come from outside is the given one; names get a number so that they differ.
pub(crate) fn with_text_everywhere(text: &str) -> RunRecord {
    fn replace(value: &mut serde_json::Value, text: &str, path: &str) {
        const FIXED: [&str; 4] = ["schema", "latencies", "verdict", "phase"];
        match value {
            serde_json::Value::String(s) if path != "phases" && path != "sli" => text.clone_into(s),
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| replace(item, text, path)),
            serde_json::Value::Object(fields) => {
                // Beside latencies, `service` holds latencies as well; elsewhere it is a name.
                let encoded = fields.contains_key("latencies");
                let fixed = |name: &str| FIXED.contains(&name) || (encoded && name == "service");
                for (name, field) in fields.iter_mut().filter(|(name, _)| !fixed(name)) {
                    replace(field, text, name);
                }
                for keyed in ["errors", "pops", "kinds", "instances"] {
                    if let Some(serde_json::Value::Object(map)) = fields.get_mut(keyed) {
                        let renamed = std::mem::take(map).into_iter().enumerate();
                        map.extend(renamed.map(|(i, (_, value))| (format!("{text}{i}"), value)));
                    }
                }
            }
            _ => {}
        }
    }
    let mut record = aborted();
    record.loads.iter_mut().for_each(|load| load.buckets.truncate(4));
    record.topology = None;
    record.events.truncate(5);
    let mut value = serde_json::to_value(record).unwrap();
    replace(&mut value, text, "");
    serde_json::from_value(value).unwrap()
}

/// Every number that is not a count is the given one.
pub(crate) fn with_number_everywhere(number: f64) -> RunRecord {
    fn replace(value: &mut serde_json::Value, number: f64) {
        match value {
            serde_json::Value::Number(n) if n.is_f64() => *value = number.into(),
            serde_json::Value::Array(items) => items.iter_mut().for_each(|item| replace(item, number)),
            serde_json::Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, number)),
            _ => {}
        }
    }
    let mut record = aborted();
    record.loads.iter_mut().for_each(|load| load.buckets.truncate(4));
    let mut value = serde_json::to_value(record).unwrap();
    replace(&mut value, number);
    serde_json::from_value(value).unwrap()
}

/// All of them with names.
pub(crate) fn all() -> [(&'static str, RunRecord); 4] {
    [("missed", missed()), ("held", held()), ("aborted", aborted()), ("not-steady", not_steady())]
}
