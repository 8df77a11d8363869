//! Services, their instances and what they depend on. Pure.

use std::sync::LazyLock;

use reports::record::{ServiceInfo, TopologyInfo};
use serde::Serialize;

use super::mistake::{Mistakes, suggest};
use super::parse::check_name;
use super::reader::Reader;
use super::vars::Vars;
use super::yaml::{self, Node};

/// A checked topology: every name that is used exists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Topology {
    /// Its name.
    pub name: String,
    /// In reading order.
    pub services: Vec<Service>,
    /// In reading order.
    pub journeys: Vec<Journey>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// At least one, unique in the topology.
    pub instances: Vec<String>,
    /// The PoP of each instance; empty if it has none.
    pub pops: Vec<String>,
    /// The zone of each instance; empty if it has none.
    pub zones: Vec<String>,
    /// Without these it cannot answer.
    pub requires: Vec<String>,
    /// It can do without these.
    pub uses: Vec<String>,
}

/// A path through the topology that users depend on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Journey {
    /// Its name, as a load has it.
    pub name: String,
    /// Services that it needs.
    pub through: Vec<String>,
    /// Services that it can do without.
    pub optional: Vec<String>,
}

impl Topology {
    /// The service with this name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The service to which this instance belongs.
    pub fn owner(&self, instance: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.instances.iter().any(|known| known == instance))
    }

    /// Every PoP, once.
    pub fn pops(&self) -> Vec<&str> {
        let mut pops: Vec<&str> =
            self.services.iter().flat_map(|s| s.pops.iter().map(String::as_str)).collect();
        pops.sort_unstable();
        pops.dedup();
        pops
    }

    /// Whether a load of this name could pass this service: by its journey, if one has its name, else in any case.
    pub fn meets(&self, load: &str, service: &Service) -> bool {
        let journey = self.journeys.iter().find(|journey| journey.name == load);
        journey.is_none_or(|journey| {
            journey.through.iter().chain(&journey.optional).any(|name| *name == service.name)
        })
    }

    /// As a run record keeps it.
    pub fn info(&self) -> TopologyInfo {
        let journeys = |service: &Service| {
            let passes = |journey: &&Journey| journey.through.contains(&service.name);
            self.journeys.iter().filter(passes).map(|journey| journey.name.clone()).collect()
        };
        let services = self.services.iter().map(|service| ServiceInfo {
            name: service.name.clone(),
            instances: service.instances.clone(),
            requires: service.requires.clone(),
            uses: service.uses.clone(),
            journeys: journeys(service),
        });
        TopologyInfo { services: services.collect() }
    }
}

/// The lab's own topology.
pub fn of_lab() -> Topology {
    static LAB: LazyLock<Topology> = LazyLock::new(|| {
        parse("the lab's topology", crate::lab::TOPOLOGY).expect("a test parses the lab's topology")
    });
    LAB.clone()
}

/// Reads a topology file.
///
/// # Errors
/// Every mistake in it.
pub fn parse(file: &str, text: &str) -> Result<Topology, Mistakes> {
    let root = yaml::read(text).map_err(|e| Mistakes::single(file, text, e.place, e.message, e.help))?;
    let vars = Vars::default();
    let reader = Reader::new(&vars);
    let topology = read(&reader, &root);
    let mistakes = reader.into_mistakes();
    match topology {
        Some(topology) if mistakes.is_empty() => Ok(topology),
        _ => Err(Mistakes::locate(file, text, mistakes)),
    }
}

fn read(reader: &Reader<'_>, root: &Node) -> Option<Topology> {
    let fields = reader.map(root, "a topology")?;
    if let Some(node) = fields.required("topology", "a topology") {
        reader.choice(node, "topology", &[("v1", ())]);
    }
    let name = fields.required("name", "a topology").and_then(|node| reader.text(node, "name"));
    let list = fields.required("services", "a topology");
    let services: Vec<Service> = list.map(|list| services(reader, list)).unwrap_or_default();
    let known: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
    let journeys = fields.optional("journeys").map(|list| journeys(reader, list, &known)).unwrap_or_default();
    if let Some(list) = list {
        dependencies(reader, list, &known);
    }
    fields.finish("a topology");
    Some(Topology { name: name?, services, journeys })
}

fn names(reader: &Reader<'_>, node: Option<&Node>, what: &str) -> Vec<String> {
    let Some(node) = node else { return Vec::new() };
    reader.list(node, what).iter().filter_map(|item| reader.text(item, what)).collect()
}

fn services(reader: &Reader<'_>, list: &Node) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for item in reader.list(list, "services") {
        let Some((id, name, value)) = reader.named(item, "a service") else { continue };
        check_name(reader, id, name, "a service");
        if services.iter().any(|service| service.name == name) {
            reader.mistake(id, format!("there are two services named `{name}`"));
        }
        let Some(fields) = reader.map(value, "a service") else { continue };
        let instances = names(reader, fields.required("instances", "a service"), "instances");
        let pops = names(reader, fields.optional("pops"), "pops");
        let mut zones = names(reader, fields.optional("zones"), "zones");
        if let Some(zone) = fields.optional("zone").and_then(|node| reader.text(node, "zone")) {
            zones = vec![zone; instances.len()];
        }
        if instances.is_empty() {
            reader.mistake(value.id, format!("`{name}` has no instances"));
        }
        for (places, what) in [(&pops, "pops"), (&zones, "zones")] {
            if !places.is_empty() && places.len() != instances.len() {
                let message =
                    format!("`{name}` has {} instances but {} {what}", instances.len(), places.len());
                reader.mistake(value.id, message);
            }
        }
        for instance in &instances {
            if services.iter().any(|service| service.instances.contains(instance)) {
                reader.mistake(value.id, format!("the instance `{instance}` stands twice"));
            }
        }
        let requires = names(reader, fields.optional("requires"), "requires");
        let uses = names(reader, fields.optional("uses"), "uses");
        // What a service can do, in words for people; the lab's own file is tested against its processes.
        for fact in ["service-time", "workers", "queue", "capacity"] {
            let _ = fields.optional(fact).map(|node| reader.text(node, fact));
        }
        fields.finish("a service");
        services.push(Service { name: name.to_owned(), instances, pops, zones, requires, uses });
    }
    services
}

/// Every dependency must be a service. A second pass, since services may be named before they are described.
fn dependencies(reader: &Reader<'_>, list: &Node, known: &[&str]) {
    let quiet_vars = Vars::default();
    let quiet = Reader::new(&quiet_vars);
    for item in quiet.list(list, "services") {
        let Some((_, _, value)) = quiet.named(item, "a service") else { continue };
        let Some(fields) = quiet.map(value, "a service") else { continue };
        for name in ["requires", "uses"] {
            let Some(node) = fields.optional(name) else { continue };
            check_services(reader, quiet.list(node, name), known);
        }
    }
}

fn check_services(reader: &Reader<'_>, items: &[Node], known: &[&str]) {
    for item in items {
        let Some(name) = reader.text(item, "a service name") else { continue };
        if !known.contains(&name.as_str()) {
            reader.mistake_with(item.id, format!("there is no service `{name}`"), suggest(&name, known));
        }
    }
}

fn journeys(reader: &Reader<'_>, list: &Node, known: &[&str]) -> Vec<Journey> {
    let mut journeys = Vec::new();
    for item in reader.list(list, "journeys") {
        let Some((_, name, value)) = reader.named(item, "a journey") else { continue };
        let Some(fields) = reader.map(value, "a journey") else { continue };
        let _ = fields.optional("path").map(|node| reader.text(node, "path"));
        let path = |name: &'static str| {
            let node = fields.optional(name)?;
            check_services(reader, reader.list(node, name), known);
            Some(names(reader, Some(node), name))
        };
        let (through, optional) = (path("through").unwrap_or_default(), path("optional").unwrap_or_default());
        fields.finish("a journey");
        journeys.push(Journey { name: name.to_owned(), through, optional });
    }
    journeys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labs_topology_is_whole() {
        let lab = of_lab();
        assert_eq!(lab.service("auth").unwrap().instances, ["auth-1"]);
        assert_eq!(lab.pops(), ["fra", "iad", "sin"]);
        assert_eq!(lab.owner("catalog-2").unwrap().name, "catalog");
    }

    #[test]
    fn every_name_that_is_used_must_exist() {
        let text = "topology: v1\nname: t\nservices:\n  - a: {instances: [a-1], requires: [b, c]}\n  - b: {instances: [a-1]}\njourneys:\n  - j: {through: [d]}\n";
        let mistakes = parse("t.yaml", text).unwrap_err();
        let all: Vec<&str> = mistakes.diagnostics.iter().map(|found| found.message.as_str()).collect();
        assert_eq!(all.len(), 3, "{all:?}");
        assert_eq!(mistakes.diagnostics[0].line, 4);
    }
}
