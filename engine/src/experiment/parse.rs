//! Reading a whole experiment, and the rules between its parts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use injectors::secrets::Secrets;
use injectors::sys::aim::Network;
use injectors::target::Protocol;
use injectors::units::{Share, Span};

use crate::feed::{Feed, Order};
use crate::lab::{self, LabOptions};
use crate::schedule::Segment;
use crate::template::OWN;

use super::mistake::{Mistake, Mistakes, suggest};
use super::reader::{Fields, Reader};
use super::vars::Vars;
use super::yaml::{self, Content, Node, NodeId};
use super::{
    Experiment, Input, Load, Probe, ProbeCheck, RelayDecl, Sources, Step, Topology, fault, feeds, judging,
    load, topology,
};

/// Time before the first fault that the baseline needs.
const BASELINE_MIN: Duration = Duration::from_secs(2);
/// Time after the last fault that recovery and the last look need.
const AFTER_MIN: Duration = Duration::from_secs(5);

/// What a text says, as far as it can be read, and what is wrong with it.
#[derive(Debug)]
pub struct Parsed {
    /// The experiment; with mistakes, parts of it are missing.
    pub experiment: Option<Experiment>,
    /// What is wrong.
    pub mistakes: Vec<Mistake>,
}

/// Checks a text and turns it into an experiment.
///
/// # Errors
/// Every mistake, with its place.
pub fn parse(input: &Input, sources: &dyn Sources) -> Result<Experiment, Mistakes> {
    let parsed = parse_all(input, sources)?;
    match parsed.experiment {
        Some(experiment) if parsed.mistakes.is_empty() => Ok(experiment),
        _ => Err(Mistakes::locate(&input.file.display().to_string(), &input.text, parsed.mistakes)),
    }
}

/// Reads as much of a text as can be read, so that later checks can add their mistakes to those found here.
///
/// # Errors
/// The text is no YAML at all.
pub fn parse_all(input: &Input, sources: &dyn Sources) -> Result<Parsed, Mistakes> {
    let file = input.file.display().to_string();
    let root = yaml::read(&input.text)
        .map_err(|error| Mistakes::single(&file, &input.text, error.place, error.message, error.help))?;
    let vars = match vars(&root, input) {
        Ok(vars) => vars,
        Err((node, message)) => {
            let place = yaml::place(&input.text, node);
            return Err(Mistakes::single(&file, &input.text, place, message, None));
        }
    };
    let reader = Reader::new(&vars);
    let mut experiment = read(&reader, &root, sources);
    let secrets = Secrets::new(vars.used.borrow().clone());
    let mistakes = reader.into_mistakes().into_iter().map(|mistake| mistake.hidden(&secrets)).collect();
    if let Some(experiment) = &mut experiment {
        experiment.secrets = secrets;
    }
    Ok(Parsed { experiment, mistakes })
}

/// Names that `${…}` may use: `vars:`, overridden by `--set`; and those that only a run knows.
fn vars(root: &Node, input: &Input) -> Result<Vars, (NodeId, String)> {
    let mut own = BTreeMap::new();
    let mut late = Vec::new();
    let Content::Map(entries) = &root.content else { return Ok(Vars::default()) };
    for (key, value) in entries {
        match (key.name.as_str(), &value.content) {
            ("vars", Content::Map(vars)) => {
                for (key, value) in vars {
                    let text = match &value.content {
                        Content::Text(text) | Content::Number(text) => text.clone(),
                        Content::Flag(flag) => flag.to_string(),
                        _ => return Err((value.id, format!("vars: `{}` must be text", key.name))),
                    };
                    if !key.name.starts_with(|c: char| c.is_ascii_lowercase()) {
                        return Err((key.id, format!("vars: `{}` must start with a small letter", key.name)));
                    }
                    if OWN.contains(&key.name.as_str()) {
                        return Err((key.id, format!("vars: `{}` is filled in by squall itself", key.name)));
                    }
                    own.insert(key.name.clone(), text);
                }
            }
            ("lab", _) => late.push("lab.edge".to_owned()),
            ("relays", Content::List(relays)) => {
                for relay in relays {
                    if let Content::Map(entries) = &relay.content {
                        late.extend(entries.iter().map(|(key, _)| format!("relay.{}", key.name)));
                    }
                }
            }
            _ => {}
        }
    }
    for (name, value) in &input.set {
        own.insert(name.clone(), value.clone());
    }
    let outside = input.set.keys().cloned().collect();
    Ok(Vars { own, env: input.env.clone(), late, outside, ..Vars::default() })
}

fn read(reader: &Reader<'_>, root: &Node, sources: &dyn Sources) -> Option<Experiment> {
    let fields = reader.map(root, "an experiment")?;
    if fields.has("topology") && fields.has("services") {
        let help = "name it in an experiment: `topology: FILE`";
        reader.mistake_with(root.id, "this is a topology, not an experiment", help);
        return None;
    }
    if let Some(node) = fields.required("squall", "an experiment") {
        reader.choice(node, "squall", &[("v1", ())]);
    }
    let text =
        |name: &'static str| fields.required(name, "an experiment").and_then(|node| reader.text(node, name));
    let (name, question) = (text("experiment"), text("question"));
    if let (Some(name), Some(node)) = (&name, fields.optional("experiment")) {
        check_name(reader, node.id, name, "experiment");
    }
    let owner = fields.optional("owner").and_then(|node| reader.text(node, "owner"));
    let _ = fields.optional("vars");
    let allowed = fields.optional("allow-hosts").map(|node| allowed_hosts(reader, node)).unwrap_or_default();
    let named = fields.optional("lab");
    let lab = named.and_then(|node| lab(reader, node));
    // A slip in its name or options is told once, and not again as services that nobody knows.
    let topology = topology_of(reader, &fields, named.is_some(), sources);
    let protect = fields.optional("protect").map(|node| protected(reader, node)).unwrap_or_default();
    let relays = fields.optional("relays").map(|node| relays(reader, node, &allowed)).unwrap_or_default();
    let feeds = fields.optional("feeds").map(|node| feeds::read(reader, node, sources)).unwrap_or_default();
    let loads = fields.required("load", "an experiment");
    let loads_read = loads.map(|node| load::read(reader, node, sources, &feeds)).unwrap_or_default();
    check_unique(reader, &feeds, &loads_read);
    if let Some(node) = loads {
        check_hosts(
            reader,
            node,
            loads_read.iter().flat_map(|load| load.requests.iter().map(|r| r.url.as_str())),
            &allowed,
        );
    }
    let journeys = journey_names(loads);
    let objectives = fields.required("objectives", "an experiment");
    let objectives = objectives.map(|node| judging::objectives(reader, node, &journeys)).unwrap_or_default();
    let probes =
        fields.optional("steady-state").map(|node| probes(reader, node, &allowed)).unwrap_or_default();
    let timeline_node = fields.required("timeline", "an experiment");
    let timeline = timeline_node.map(|node| fault::timeline(reader, node)).unwrap_or_default();
    let guards =
        fields.optional("guards").map(|node| judging::guards(reader, node, &journeys)).unwrap_or_default();
    let span = |name: &'static str| fields.optional(name).and_then(|node| reader.parse::<Span>(node, name));
    let warm_up = span("warm-up").map_or_else(|| default_warm_up(&loads_read), |span| span.0);
    let recover_within = span("recover-within").map_or(Duration::from_secs(10), |span| span.0);
    fields.finish("an experiment");
    if let Some(node) = timeline_node {
        check_times(reader, node, warm_up, &timeline, &loads_read);
    }
    Some(Experiment {
        name: name.unwrap_or_default(),
        question: question.unwrap_or_default(),
        owner,
        lab,
        topology,
        relays,
        protect,
        warm_up,
        feeds,
        load: loads_read,
        objectives,
        probes,
        timeline,
        guards,
        recover_within,
        secrets: Secrets::default(),
    })
}

/// A row that may be taken once is taken by one load.
fn check_unique(reader: &Reader<'_>, feeds: &[Arc<Feed>], loads: &[Load]) {
    for feed in feeds.iter().filter(|feed| feed.order() == Order::Unique) {
        let mut users = loads.iter().filter(|load| load.uses(feed));
        if let (Some(one), Some(other)) = (users.next(), users.next()) {
            let (feed, one) = (feed.name(), &one.name);
            let message =
                format!("load {} and load {one} share feed {feed}, whose rows may be taken once", other.name);
            reader.mistake_with(other.node, message, "give each a feed of its own");
        }
    }
}

/// The names under `load:`, also of loads with mistakes, so that one mistake does not breed others.
fn journey_names(loads: Option<&Node>) -> Vec<String> {
    let Some(Content::List(items)) = loads.map(|node| &node.content) else { return Vec::new() };
    let names = items.iter().filter_map(|item| match &item.content {
        Content::Map(entries) => entries.first().map(|(key, _)| key.name.clone()),
        _ => None,
    });
    names.collect()
}

/// Names are made of small letters, digits, dashes, dots and underscores: they become file and test names.
pub(super) fn check_name(reader: &Reader<'_>, node: NodeId, name: &str, what: &str) {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
    if name.is_empty()
        || name.len() > 80
        || !name.chars().all(legal)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        let help = "use 1 to 80 small letters, digits, dashes, dots and underscores, a letter or digit first";
        reader.mistake_with(node, format!("{what}: `{name}` is no name"), help);
    }
}

fn lab(reader: &Reader<'_>, node: &Node) -> Option<LabOptions> {
    let (name, options) = match &node.content {
        Content::Map(_) => {
            let (_, name, value) = reader.named(node, "lab")?;
            (name.to_owned(), Some(value))
        }
        _ => (reader.text(node, "lab")?, None),
    };
    if name != "edge" {
        reader.mistake_with(node.id, format!("there is no lab `{name}`"), suggest(&name, &["edge"]));
        return None;
    }
    let mut choice = LabOptions::default();
    let Some(fields) = options.and_then(|options| reader.map(options, "lab")) else { return Some(choice) };
    if let Some(node) = fields.optional("retries") {
        match reader.parse::<u32>(node, "retries") {
            Some(retries @ 0..=10) => choice.retries = retries,
            Some(_) => reader.mistake(node.id, "retries must be from 0 to 10"),
            None => {}
        }
    }
    if let Some(share) =
        fields.optional("retry-budget").and_then(|node| reader.parse::<Share>(node, "retry-budget"))
    {
        choice.retry_budget = share.0;
    }
    if let Some(cache) = fields.optional("cache").and_then(|node| reader.flag(node, "cache")) {
        choice.cache = cache;
    }
    if let Some(times) = fields.optional("service-time").and_then(|node| reader.map(node, "service-time")) {
        choice.service_time_s = service_times(reader, &times);
    }
    fields.finish("lab");
    Some(choice)
}

/// By service, how long one worker is busy with one request.
fn service_times(reader: &Reader<'_>, times: &Fields<'_, '_>) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for (id, name, node) in times.others() {
        if !lab::SERVICES.contains(&name) {
            let help = suggest(name, &lab::SERVICES);
            reader.mistake_with(id, format!("the lab has no service `{name}` with workers"), help);
            continue;
        }
        match reader.parse::<Span>(node, "service-time").map(|span| span.0.as_secs_f64()) {
            Some(time) if lab::SERVICE_TIME_S.contains(&time) => drop(found.insert(name.to_owned(), time)),
            Some(_) => reader.mistake(node.id, "a service time must be from 500us to 1s"),
            None => {}
        }
    }
    found
}

fn topology_of(
    reader: &Reader<'_>,
    fields: &Fields<'_, '_>,
    lab: bool,
    sources: &dyn Sources,
) -> Option<Topology> {
    let node = fields.optional("topology");
    if lab {
        if let Some(node) = node {
            reader.mistake(node.id, "the lab brings its own topology: leave this out");
        }
        return Some(topology::of_lab());
    }
    let node = node?;
    let path = reader.text(node, "topology")?;
    match sources.read(&path).map(|text| topology::parse(&path, &text)) {
        Ok(Ok(topology)) => Some(topology),
        Ok(Err(mistakes)) => {
            for found in mistakes.diagnostics {
                let place = format!("{}:{}:{}", found.file, found.line, found.column);
                reader.mistake(node.id, format!("{place}: {}", found.message));
            }
            None
        }
        Err(error) => {
            reader.mistake(node.id, format!("topology: {path}: {error}"));
            None
        }
    }
}

fn relays(reader: &Reader<'_>, node: &Node, allowed: &[String]) -> Vec<RelayDecl> {
    let mut relays: Vec<RelayDecl> = Vec::new();
    for item in reader.list(node, "relays") {
        let Some((id, name, value)) = reader.named(item, "a relay") else { continue };
        check_name(reader, id, name, "a relay");
        if relays.iter().any(|relay| relay.name == name) {
            reader.mistake(id, format!("there are two relays named `{name}`"));
        }
        let Some(fields) = reader.map(value, "a relay") else { continue };
        let listen = fields.optional("listen").map_or(Some("127.0.0.1:0".to_owned()), |node| {
            let text = reader.text(node, "listen")?;
            check_address(reader, node.id, "listen", &text, &[]).then_some(text)
        });
        let upstream = fields.required("upstream", "a relay").and_then(|node| {
            let text = reader.text(node, "upstream")?;
            check_address(reader, node.id, "upstream", &text, allowed).then_some(text)
        });
        let protocol = fields.optional("protocol").map_or(Some(Protocol::Tcp), |node| {
            reader.choice(node, "protocol", &[("tcp", Protocol::Tcp), ("http", Protocol::Http)])
        });
        fields.finish("a relay");
        if let (Some(listen), Some(upstream), Some(protocol)) = (listen, upstream, protocol) {
            relays.push(RelayDecl { name: name.to_owned(), listen, upstream, protocol });
        }
    }
    relays
}

fn probes(reader: &Reader<'_>, node: &Node, allowed: &[String]) -> Vec<Probe> {
    let probes = judging::probes(reader, node);
    for probe in &probes {
        match &probe.check {
            ProbeCheck::Http { url, .. } => check_hosts(reader, node, [url.as_str()], allowed),
            ProbeCheck::Tcp { address } if !address.contains("${") => {
                check_address(reader, node.id, "address", address, allowed);
            }
            ProbeCheck::Tcp { .. } | ProbeCheck::Command { .. } => {}
        }
    }
    probes
}

fn allowed_hosts(reader: &Reader<'_>, node: &Node) -> Vec<String> {
    reader.list(node, "allow-hosts").iter().filter_map(|item| reader.text(item, "allow-hosts")).collect()
}

fn check_address(reader: &Reader<'_>, node: NodeId, what: &str, text: &str, allowed: &[String]) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        reader.mistake(node, format!("{what}: `{text}` is not of the form host:port"));
        return false;
    };
    if port.parse::<u16>().is_err() {
        reader.mistake(node, format!("{what}: `{port}` is no port"));
        return false;
    }
    check_host(reader, node, host, allowed)
}

/// Networks that no network fault may hit.
fn protected(reader: &Reader<'_>, node: &Node) -> Vec<Network> {
    reader.list(node, "protect").iter().filter_map(|item| reader.parse(item, "protect")).collect()
}

/// Every URL must lead to this machine unless `allow-hosts` names its host.
fn check_hosts<'u>(
    reader: &Reader<'_>,
    node: &Node,
    urls: impl IntoIterator<Item = &'u str>,
    allowed: &[String],
) {
    for url in urls {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            reader.mistake(node.id, "a URL must not hold a user name or password: use a header");
            continue;
        }
        if authority.starts_with("${") {
            continue;
        }
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        check_host(reader, node.id, host, allowed);
    }
}

/// Whether a host of a URL is this machine, or one that may be loaded all the same.
///
/// # Errors
/// The host without brackets, if it is neither.
pub fn here<'h>(host: &'h str, allowed: &[String]) -> Result<(), &'h str> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback =
        bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if loopback || allowed.iter().any(|known| known.eq_ignore_ascii_case(bare)) { Ok(()) } else { Err(bare) }
}

fn check_host(reader: &Reader<'_>, node: NodeId, host: &str, allowed: &[String]) -> bool {
    let Err(bare) = here(host, allowed) else { return true };
    let help = format!("if it is yours to load, say so: `allow-hosts: [{bare}]`");
    reader.mistake_with(node, format!("`{bare}` is not this machine"), help);
    false
}

/// Until the first ramp is over; two seconds if the load starts at full rate.
fn default_warm_up(loads: &[Load]) -> Duration {
    let first = |load: &Load| match load.arrivals.segments().first() {
        Some(Segment::Ramp { over, .. }) => *over,
        _ => Duration::from_secs(2),
    };
    loads.iter().map(first).max().unwrap_or_default()
}

fn check_times(reader: &Reader<'_>, node: &Node, warm_up: Duration, timeline: &[Step], loads: &[Load]) {
    if timeline.is_empty() {
        if matches!(&node.content, Content::List(items) if items.is_empty()) {
            reader.mistake(node.id, "timeline is empty: nothing would be broken");
        }
        return;
    }
    let Some(load_end) = loads.iter().map(Load::duration).max() else { return };
    let first = timeline.iter().map(|step| step.at).min().unwrap_or_default();
    let last = timeline.iter().map(|step| step.at + step.length).max().unwrap_or_default();
    if first < warm_up + BASELINE_MIN {
        let message = format!(
            "the first fault, at {}, leaves no baseline: warm-up ends at {}",
            Span(first),
            Span(warm_up)
        );
        let help = format!("inject at {} or later, or shorten `warm-up`", Span(warm_up + BASELINE_MIN));
        reader.mistake_with(node.id, message, help);
    }
    if last + AFTER_MIN > load_end {
        let message = format!(
            "the last fault ends at {} and the load at {}: too little time to see the recovery",
            Span(last),
            Span(load_end)
        );
        let help = format!(
            "make the load last until {} or later, so that the recovery can be seen",
            Span(last + AFTER_MIN)
        );
        reader.mistake_with(node.id, message, help);
    }
}
