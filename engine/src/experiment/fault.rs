//! Reading faults: parameters by the registry's word, and what they are aimed at.

use std::collections::BTreeMap;
use std::path::PathBuf;

use injectors::about::{ITEMS_MAX, Param, ParamKind, Presence, Value};
use injectors::containers::Containers;
use injectors::flows::Flows;
use injectors::group::Group;
use injectors::pick::Pick;
use injectors::target::{Scope, Target, TargetKind};
use injectors::traffic::Traffic;
use injectors::units::Share;
use injectors::{About, Args, Injector, registry};

use super::mistake::{nearest, suggest};
use super::reader::{Fields, Reader};
use super::yaml::{Content, Node, NodeId};
use super::{FaultUse, Step};

/// What a fault is aimed at, as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Selector {
    /// Instances of a service of the topology.
    Service {
        /// Its name.
        service: String,
        /// How many; none if the service must have just one.
        pick: Option<Pick>,
    },
    /// One instance by name.
    Instance(String),
    /// Packets to and from instances of the topology.
    Around {
        /// Which packets, without their other side.
        traffic: Traffic,
        /// The instances.
        of: Box<Self>,
    },
    /// Exactly this.
    Exactly(Target),
}

/// Reads `timeline:`.
pub(super) fn timeline(reader: &Reader<'_>, node: &Node) -> Vec<Step> {
    let mut steps = Vec::new();
    for item in reader.list(node, "timeline") {
        let Some(fields) = reader.map(item, "a step of the timeline") else { continue };
        let at = fields.required("at", "a step of the timeline");
        let at = at.and_then(|node| reader.parse::<injectors::units::Span>(node, "at"));
        let length = fields.required("for", "a step of the timeline");
        let length = length.and_then(|node| super::arrivals::positive_span(reader, node, "for"));
        let list = fields.required("faults", "a step of the timeline");
        let faults: Vec<FaultUse> = list.map(|list| faults(reader, list)).unwrap_or_default();
        fields.finish("a step of the timeline");
        if let (Some(at), Some(length)) = (at, length) {
            steps.push(Step { at: at.0, length, faults });
        }
    }
    steps
}

fn faults(reader: &Reader<'_>, list: &Node) -> Vec<FaultUse> {
    let items = reader.list(list, "faults");
    if matches!(&list.content, Content::List(items) if items.is_empty()) {
        reader.mistake(list.id, "faults is empty");
    }
    let mut uses = Vec::new();
    for item in items {
        let Some((id, name, value)) = reader.named(item, "a fault") else { continue };
        let Some(injector) = registry::find(name) else {
            let known: Vec<&str> = registry::INJECTORS.iter().map(|known| known.about().name).collect();
            reader.mistake_with(id, format!("there is no fault `{name}`"), suggest(name, &known));
            continue;
        };
        let Some(fields) = reader.map(value, name) else { continue };
        let (args, whole) = own_args(reader, injector.about(), &fields);
        let selector = selector(reader, injector.about(), &fields);
        fields.finish(name);
        if let Some((selector, node)) = selector {
            let target_node = node.unwrap_or(id);
            uses.push(FaultUse { injector, args, whole, selector, node: id, target_node });
        }
    }
    uses
}

/// Reads a fault's own parameters, and tells whether all of them could be read.
fn own_args(reader: &Reader<'_>, about: &About, fields: &Fields<'_, '_>) -> (Args, bool) {
    let mut args = BTreeMap::new();
    let mut whole = true;
    for param in about.params {
        match (fields.optional(param.name), param.presence) {
            (Some(node), _) => match value(reader, param, node) {
                Some(value) => {
                    args.insert(param.name.to_owned(), value);
                }
                None => whole = false,
            },
            (None, Presence::Required) if misspelt(about, fields, param.name) => whole = false,
            (None, Presence::Required) => {
                let help = format!("`{}`: {} ({})", param.name, param.kind.accepts(), param.help);
                reader.mistake_with(fields.node.id, format!("{} lacks `{}`", about.name, param.name), help);
                whole = false;
            }
            (None, Presence::Default(text)) => {
                let value = param.kind.parse(text).expect("a registry test parses every default");
                args.insert(param.name.to_owned(), value);
            }
            (None, Presence::Optional) => {}
        }
    }
    (Args(args), whole)
}

/// Whether a key that is none of this fault's stands where this parameter was probably meant: one mistake, not two.
fn misspelt(about: &About, fields: &Fields<'_, '_>, wanted: &str) -> bool {
    let known = || about.params.iter().chain(about.target.selectors()).map(|param| param.name);
    let mut strangers = fields.names().filter(|name| !known().any(|known| known == *name));
    strangers.any(|stranger| nearest(stranger, known()) == Some(wanted))
}

fn value(reader: &Reader<'_>, param: &Param, node: &Node) -> Option<Value> {
    let name = param.name;
    let too_many = |count: usize| {
        if count > ITEMS_MAX {
            reader.mistake(node.id, format!("{name} has {count} items; at most {ITEMS_MAX} are read"));
        }
        count > ITEMS_MAX
    };
    match param.kind {
        ParamKind::Argv => {
            let items = reader.list_in(node, name)?;
            let argv: Option<Vec<String>> = items.iter().map(|item| reader.text(item, name)).collect();
            if argv.as_ref()?.first().is_none_or(String::is_empty) {
                reader.mistake(node.id, format!("{name} must be a list that starts with a program"));
                return None;
            }
            (!too_many(items.len())).then_some(Value::Argv(argv?))
        }
        ParamKind::Shares => {
            let items = reader.list_in(node, name)?;
            let shares: Option<Vec<Share>> = items.iter().map(|item| reader.parse(item, name)).collect();
            if shares.as_ref()?.is_empty() {
                reader.mistake(node.id, format!("{name} must be a list of percentages such as [50%, 0%]"));
                return None;
            }
            (!too_many(items.len())).then_some(Value::Shares(shares?))
        }
        ParamKind::Map => {
            let fields = reader.map(node, name)?;
            let entries: Option<BTreeMap<String, String>> = fields
                .others()
                .map(|(_, key, value)| Some((key.to_owned(), reader.text(value, name)?)))
                .collect();
            (!too_many(entries.as_ref()?.len())).then_some(Value::Map(entries?))
        }
        scalar => {
            let text = reader.text(node, name)?;
            match scalar.parse(&text) {
                Ok(value) => Some(value),
                Err(error) => {
                    let help = match scalar {
                        ParamKind::Choice(words) => suggest(&text, words),
                        _ => format!("{name} takes a {}", scalar.accepts()),
                    };
                    reader.mistake_with(node.id, format!("{name}: {error}"), help);
                    None
                }
            }
        }
    }
}

/// What the fault is aimed at, and the node that says so.
fn selector(
    reader: &Reader<'_>,
    about: &About,
    fields: &Fields<'_, '_>,
) -> Option<(Selector, Option<NodeId>)> {
    let mut given: BTreeMap<&'static str, (NodeId, String)> = BTreeMap::new();
    for param in about.target.selectors() {
        let Some(node) = fields.optional(param.name) else { continue };
        let Some(Value::Text(_) | Value::Int(_)) = value(reader, param, node) else { continue };
        let text = reader.text(node, param.name)?;
        given.insert(param.name, (node.id, text));
    }
    match select(about, &given.iter().map(|(name, (_, text))| (*name, text.clone())).collect()) {
        Ok(selector) => {
            let anchor = given.iter().find(|(name, _)| ANCHORS.contains(name)).map(|(_, (id, _))| *id);
            Some((selector, anchor))
        }
        Err((name, message)) => {
            let id = name.and_then(|name| given.get(name)).map_or(fields.node.id, |(id, _)| *id);
            reader.mistake_with(id, format!("{}: {message}", about.name), ways(about.target));
            None
        }
    }
}

/// The ways to aim at a kind of target, as help.
fn ways(kind: TargetKind) -> String {
    match kind {
        TargetKind::Process => {
            "aim it by `service` (with `pick`), `instance`, `pid-file`, `port`, or `command` with \
                                `cgroup` or `netns` and `limit`"
                .to_owned()
        }
        TargetKind::Container => "aim it by `container`, or by `label` or `image` with `pick`".to_owned(),
        TargetKind::Relay => "aim it by `service` (with `pick`), `instance` or `relay`".to_owned(),
        TargetKind::Pop => "aim it by `pop`".to_owned(),
        TargetKind::Traffic => {
            "aim it by `instance`, `service` (with `pick`), `interface`, `to` or `netns`, and narrow it by `direction`, \
             `ports`, `local-ports`, `protocol`"
                .to_owned()
        }
        TargetKind::Flows => {
            "aim it by `to`, `ports`, `local-ports` or `interface`, and narrow it by `direction` and `protocol`"
                .to_owned()
        }
        TargetKind::Connections => "aim it by `to`, `ports` or `local-ports`".to_owned(),
        TargetKind::Resolvers => {
            "aim it by `to` (resolvers), `netns` or `pid`, by `container`, or by `label` or `image` with `pick`".to_owned()
        }
        TargetKind::Group => {
            "aim it by `cgroup` or `pid`, by `container`, or by `label` or `image` with `pick`".to_owned()
        }
        TargetKind::Volume => "aim it by `path`, a folder on the file system".to_owned(),
        TargetKind::Nothing => "it takes no target".to_owned(),
    }
}

/// Selector parameters that name something; exactly one of them must be given.
const ANCHORS: [&str; 10] =
    ["service", "instance", "relay", "pid-file", "port", "command", "pop", "container", "label", "image"];

type Refusal = (Option<&'static str>, String);

/// Turns selector parameters into a selector.
fn select(about: &About, given: &BTreeMap<&'static str, String>) -> Result<Selector, Refusal> {
    let get = |name: &str| given.get(name).cloned();
    let refuse = |name: &'static str, message: &str| Err((Some(name), message.to_owned()));
    if about.target == TargetKind::Nothing {
        return Ok(Selector::Exactly(Target::Nothing));
    }
    if about.target == TargetKind::Container {
        let read = Containers::read(given)?;
        let containers = read.ok_or_else(|| (None, "it is aimed at nothing".to_owned()))?;
        return Ok(Selector::Exactly(Target::Containers(containers)));
    }
    if about.target == TargetKind::Traffic {
        return packets(given);
    }
    if matches!(about.target, TargetKind::Flows | TargetKind::Connections | TargetKind::Resolvers) {
        return Flows::read(given).map(|flows| Selector::Exactly(Target::Flows(flows)));
    }
    if about.target == TargetKind::Group {
        return Group::read(given).map(|group| Selector::Exactly(Target::Group(group)));
    }
    if about.target == TargetKind::Volume {
        let folder = get("path").filter(|path| path.starts_with('/'));
        let folder = folder.ok_or((Some("path"), "write an absolute path of a folder".to_owned()))?;
        return Ok(Selector::Exactly(Target::Volume(PathBuf::from(folder))));
    }
    let anchors: Vec<&&'static str> = given.keys().filter(|name| ANCHORS.contains(*name)).collect();
    let anchor = match anchors.as_slice() {
        [] => return Err((None, "it is aimed at nothing".to_owned())),
        [one] => **one,
        [_, second, ..] => return refuse(second, "it is aimed at two things at once"),
    };
    if given.contains_key("pick") && anchor != "service" {
        return refuse("pick", "`pick` goes with `service`");
    }
    for scoped in ["cgroup", "netns", "limit"] {
        if given.contains_key(scoped) && anchor != "command" {
            return Err((None, format!("`{scoped}` goes with `command`")));
        }
    }
    match anchor {
        "service" => service(given),
        "instance" => Ok(Selector::Instance(get("instance").unwrap_or_default())),
        "relay" => Ok(Selector::Exactly(Target::Relay(get("relay").unwrap_or_default()))),
        "pop" => Ok(Selector::Exactly(Target::Pop(get("pop").unwrap_or_default()))),
        "pid-file" => {
            Ok(Selector::Exactly(Target::PidFile(PathBuf::from(get("pid-file").unwrap_or_default()))))
        }
        "port" => match get("port").and_then(|text| text.parse().ok()) {
            Some(port) => Ok(Selector::Exactly(Target::Port(port))),
            None => refuse("port", "port is no port number"),
        },
        _ => command(given),
    }
}

fn service(given: &BTreeMap<&'static str, String>) -> Result<Selector, Refusal> {
    let pick = given.get("pick").map(|text| text.parse()).transpose();
    let pick = pick.map_err(|error: String| (Some("pick"), format!("pick: {error}")))?;
    Ok(Selector::Service { service: given.get("service").cloned().unwrap_or_default(), pick })
}

fn packets(given: &BTreeMap<&'static str, String>) -> Result<Selector, Refusal> {
    let traffic = Traffic::read(given)?;
    let of = match (given.get("service"), given.get("instance")) {
        (Some(_), Some(_)) => {
            return Err((Some("instance"), "it is aimed at two things at once".to_owned()));
        }
        (Some(_), None) => service(given)?,
        (None, _)
            if given.contains_key("pick")
                && !["label", "image"].iter().any(|one| given.contains_key(one)) =>
        {
            return Err((Some("pick"), "`pick` goes with `service`, `label` or `image`".to_owned()));
        }
        (None, Some(name)) => Selector::Instance(name.clone()),
        (None, None) => return Ok(Selector::Exactly(Target::Traffic(traffic))),
    };
    Ok(Selector::Around { traffic, of: Box::new(of) })
}

fn command(given: &BTreeMap<&'static str, String>) -> Result<Selector, Refusal> {
    let scope = match (given.get("cgroup"), given.get("netns")) {
        (Some(path), None) if path.trim_matches('/').is_empty() => {
            return Err((Some("cgroup"), "the root cgroup is no scope: it holds everything".to_owned()));
        }
        (Some(path), None) => Scope::Cgroup(path.clone()),
        (None, Some(name)) if !name.contains('/') => Scope::Netns(name.clone()),
        (None, Some(_)) => return Err((Some("netns"), "a namespace is named without slashes".to_owned())),
        (Some(_), Some(_)) => return Err((Some("netns"), "write either cgroup or netns".to_owned())),
        (None, None) => {
            let text = "a command name alone may match strangers: add `cgroup` or `netns`".to_owned();
            return Err((Some("command"), text));
        }
    };
    let Some(limit) = given.get("limit").and_then(|text| text.parse().ok()) else {
        return Err((Some("command"), "say how many processes it may match: `limit: 1`".to_owned()));
    };
    let command = given.get("command").cloned().unwrap_or_default();
    Ok(Selector::Exactly(Target::Command { command, scope, limit }))
}

/// Reads parameters given as texts, as `squall inject` gets them. Lists may be given by repeating a parameter.
///
/// # Errors
/// One sentence per mistake.
pub fn parse_args(
    injector: &'static dyn Injector,
    given: &BTreeMap<String, Vec<String>>,
) -> Result<(Args, Selector), Vec<String>> {
    let about = injector.about();
    let (mut args, mut mistakes) = (BTreeMap::new(), Vec::new());
    for param in about.params {
        match (given.get(param.name), param.presence) {
            (Some(texts), _) => match from_texts(param, texts) {
                Ok(value) => {
                    args.insert(param.name.to_owned(), value);
                }
                Err(error) => mistakes.push(format!("--{}: {error}", param.name)),
            },
            (None, Presence::Required) => {
                mistakes.push(format!("{} lacks --{} ({})", about.name, param.name, param.kind.accepts()));
            }
            (None, Presence::Default(text)) => {
                let value = param.kind.parse(text).expect("a registry test parses every default");
                args.insert(param.name.to_owned(), value);
            }
            (None, Presence::Optional) => {}
        }
    }
    let mut selectors = BTreeMap::new();
    for param in about.target.selectors() {
        let Some(text) = given.get(param.name).and_then(|texts| texts.last()) else { continue };
        match param.kind.parse(text) {
            Ok(_) => {
                selectors.insert(param.name, text.clone());
            }
            Err(error) => mistakes.push(format!("--{}: {error}", param.name)),
        }
    }
    let selector = select(about, &selectors);
    match (selector, mistakes.is_empty()) {
        (Ok(selector), true) => Ok((Args(args), selector)),
        (Err((_, message)), _) => {
            mistakes.push(format!("{message}; {}", ways(about.target)));
            Err(mistakes)
        }
        (Ok(_), false) => Err(mistakes),
    }
}

fn from_texts(param: &Param, texts: &[String]) -> Result<Value, String> {
    match param.kind {
        ParamKind::Argv => Ok(Value::Argv(texts.to_vec())),
        ParamKind::Shares => {
            let shares: Result<Vec<Share>, _> = texts
                .iter()
                // As in a file, `[50%, 0%]`, or without the brackets.
                .map(|text| text.trim().strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text))
                .flat_map(|text| text.split(','))
                .map(|text| text.trim().parse::<Share>())
                .collect();
            shares.map(Value::Shares).map_err(|error| error.to_string())
        }
        ParamKind::Map => texts
            .iter()
            .map(|text| text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())))
            .collect::<Option<_>>()
            .map(Value::Map)
            .ok_or_else(|| "write it as name=value".to_owned()),
        scalar => scalar.parse(texts.last().map(String::as_str).unwrap_or_default()),
    }
}
