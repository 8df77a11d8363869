//! What stands in the lab, as constants: services, instances, capacity, deadlines. `edge.yaml` says the same to people
//! and to the topology parser; a test keeps the two together.
//!
//! Invariant: an instance name is its service's name, a dash and a suffix, and is unique in the lab.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::LabOptions;

/// The address on which everything listens.
pub(super) const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// The load balancer's instance and service name.
pub(super) const GLB: &str = "glb";
/// The base weight of every PoP.
pub(super) const BASE_WEIGHT: f64 = 100.0;

/// One service of the lab.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service {
    /// Its name.
    pub(super) name: &'static str,
    /// Its instances, by name.
    pub(super) instances: &'static [&'static str],
    /// The PoP of each instance; empty for services that all PoPs share.
    pub(super) pops: &'static [&'static str],
    /// Workers of each instance. Zero: no pool, hence no stated capacity.
    pub(super) workers: u32,
    /// The service time: how long one worker is busy with one request.
    pub(super) work: Duration,
    /// The longest that a request may wait for a worker; beyond it the answer is 503 at once.
    pub(super) queue: Duration,
}

impl Service {
    /// Requests per second that one instance can carry: workers over service time.
    pub(super) fn capacity(&self) -> Option<f64> {
        (self.workers > 0).then(|| f64::from(self.workers) / self.work.as_secs_f64())
    }

    /// The same with what the options say of it.
    pub(super) fn tuned(self, options: &LabOptions) -> Self {
        let work = options.service_time_s.get(self.name).map(|time| Duration::from_secs_f64(*time));
        Self { work: work.unwrap_or(self.work), ..self }
    }

    /// The PoP of the instance with this number.
    pub(super) fn pop(&self, index: usize) -> Option<&'static str> {
        self.pops.get(index).copied()
    }
}

/// Every service, callees before callers.
pub(super) const SERVICES: &[Service] = &[
    Service {
        name: "kv",
        instances: &["kv-1"],
        pops: &[],
        workers: 8,
        work: Duration::from_millis(1),
        queue: Duration::from_millis(40),
    },
    Service {
        name: "auth",
        instances: &["auth-1"],
        pops: &[],
        workers: 8,
        work: Duration::from_millis(4),
        queue: Duration::from_millis(200),
    },
    Service {
        name: "catalog",
        instances: &["catalog-1", "catalog-2"],
        pops: &[],
        workers: 8,
        work: Duration::from_millis(6),
        queue: Duration::from_millis(200),
    },
    Service {
        name: "origin",
        instances: &["origin-1", "origin-2"],
        pops: &[],
        workers: 16,
        work: Duration::from_millis(2),
        queue: Duration::from_millis(200),
    },
    Service {
        name: "edge",
        instances: &["edge-fra", "edge-iad", "edge-sin"],
        pops: &["fra", "iad", "sin"],
        workers: 2,
        work: Duration::from_millis(2),
        queue: Duration::from_millis(100),
    },
    Service {
        name: GLB,
        instances: &[GLB],
        pops: &[],
        workers: 0,
        work: Duration::ZERO,
        queue: Duration::ZERO,
    },
];

/// The services that instances of a service call; the balancer calls the edges.
pub(super) fn callees(service: &str) -> &'static [&'static str] {
    match service {
        GLB => &["edge"],
        "edge" => &["origin", "kv"],
        "origin" => &["auth", "catalog"],
        _ => &[],
    }
}

/// Every instance with its service and its number in it, callees before callers.
pub(super) fn instances() -> impl Iterator<Item = (&'static Service, usize, &'static str)> {
    SERVICES.iter().flat_map(|service| {
        service.instances.iter().enumerate().map(move |(index, name)| (service, index, *name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::TOPOLOGY;

    /// The line of the topology file that describes a service.
    fn line(service: &str) -> &'static str {
        let start = format!("- {service}: ");
        TOPOLOGY.lines().find(|line| line.trim_start().starts_with(&start)).unwrap()
    }

    #[test]
    fn the_topology_file_states_what_the_lab_is() {
        for service in SERVICES.iter().filter(|service| service.name != GLB) {
            let text = line(service.name);
            let time = injectors::units::Span(service.work);
            for wanted in [
                format!("instances: [{}]", service.instances.join(", ")),
                format!("workers: {}", service.workers),
                format!("service-time: {time}"),
                format!("queue: {}", injectors::units::Span(service.queue)),
            ] {
                assert!(text.contains(&wanted), "`{wanted}` is not in `{text}`");
            }
            let pops = format!("pops: [{}]", service.pops.join(", "));
            assert_eq!(text.contains(&pops), !service.pops.is_empty(), "{text}");
        }
    }

    #[test]
    fn capacity_is_workers_over_work() {
        let capacity = |name| SERVICES.iter().find(|service| service.name == name).unwrap().capacity();
        assert_eq!(capacity("auth"), Some(2000.0));
        assert_eq!(capacity(GLB), None);
    }

    #[test]
    fn a_service_time_of_the_options_takes_the_place_of_the_services_own() {
        let options =
            LabOptions { service_time_s: [("edge".to_owned(), 0.02)].into(), ..LabOptions::default() };
        let capacity =
            |name| SERVICES.iter().find(|service| service.name == name).unwrap().tuned(&options).capacity();
        assert_eq!((capacity("edge"), capacity("auth")), (Some(100.0), Some(2000.0)));
    }

    #[test]
    fn instance_names_are_unique() {
        let mut names: Vec<&str> = instances().map(|(_, _, name)| name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!((names.len(), count), (10, 10));
    }
}
