//! A standing lab and its picture: everything that a fault could change in it.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::client::{control, get};
use super::{Home, until};

/// A standing lab in a home. Taken down by [`Lab::down`], or killed with its home after a failure.
pub(crate) struct Lab {
    /// Where clients connect.
    pub(crate) address: String,
    status: Value,
}

impl Lab {
    pub(crate) fn up(home: &Home) -> Self {
        Self::of(home.json(&["lab", "up", "--json"]))
    }

    /// One that was started otherwise, from what it said.
    pub(crate) fn of(status: Value) -> Self {
        let address = status["lab"]["address"].as_str().unwrap().to_owned();
        Self { address, status }
    }

    /// Takes it down: no process, no socket and no listener is left.
    pub(crate) fn down(&self, home: &Home) {
        home.squall(&["lab", "down"]).code(0);
        home.assert_nothing_left();
        let asked = get(&self.address, "/login", Duration::from_millis(300));
        assert!(asked.is_err(), "somebody still answers at {}", self.address);
    }

    fn path(value: &Value) -> PathBuf {
        PathBuf::from(value.as_str().unwrap())
    }

    /// The control socket of the supervisor.
    pub(crate) fn supervisor(&self) -> PathBuf {
        Self::path(&self.status["lab"]["control"])
    }

    /// The control socket of all relays.
    pub(crate) fn relays(&self) -> PathBuf {
        Self::path(&self.status["relays"][0]["control"])
    }

    /// Where the relay in front of an instance listens.
    pub(crate) fn relay(&self, instance: &str) -> String {
        let relays = self.status["relays"].as_array().unwrap();
        let relay = relays.iter().find(|relay| relay["name"] == instance).unwrap();
        relay["listen"].as_str().unwrap().to_owned()
    }

    /// The process of an instance, as it is now.
    pub(crate) fn pid(&self, instance: &str) -> Option<u32> {
        let status = control(&self.supervisor(), &json!({"op": "status"})).unwrap();
        let instances = status["instances"].as_array().unwrap();
        let one = instances.iter().find(|one| one["name"] == instance).unwrap();
        one["process"]["pid"].as_u64().map(|pid| pid as u32)
    }

    /// State of every instance and its limit of open files, faults of every relay, weight of every PoP.
    pub(crate) fn picture(&self) -> Value {
        let status = control(&self.supervisor(), &json!({"op": "status"})).unwrap();
        let listed = control(&self.relays(), &json!({"op": "list"})).unwrap();
        let weights =
            control(&Self::path(&self.status["balancer"]["control"]), &json!({"op": "weights"})).unwrap();
        let (mut states, mut files) = (Map::new(), Map::new());
        for instance in status["instances"].as_array().unwrap() {
            let limit =
                instance["process"]["pid"].as_u64().and_then(|pid| super::process::soft_limit(pid as u32));
            files.insert(instance["name"].as_str().unwrap().to_owned(), json!(limit));
        }
        for instance in status["lab"]["instances"].as_array().unwrap() {
            states.insert(instance["name"].as_str().unwrap().to_owned(), instance["state"].clone());
        }
        let mut faults = Map::new();
        for route in listed["routes"].as_array().unwrap() {
            let ids: Vec<Value> =
                route["faults"].as_array().unwrap().iter().map(|fault| fault["fault"].clone()).collect();
            faults.insert(route["name"].as_str().unwrap().to_owned(), json!(ids));
        }
        let shares: Map<String, Value> = weights["pops"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(pop, weight)| (pop.clone(), weight["share_of_base"].clone()))
            .collect();
        json!({"instances": states, "files": files, "relay_up": status["lab"]["relay_up"], "faults": faults, "weights": shares})
    }

    /// Whether nothing at all is broken.
    pub(crate) fn assert_whole(&self) {
        until("a whole lab", Duration::from_secs(2), || self.is_whole().then_some(()));
    }

    /// Waits until something shows as broken: a signal may take a moment on a busy host.
    pub(crate) fn assert_broken(&self) {
        until("a broken lab", Duration::from_secs(2), || (!self.is_whole()).then_some(()));
    }

    pub(crate) fn is_whole(&self) -> bool {
        let picture = self.picture();
        let all = |part: &str, wanted: &Value| {
            picture[part].as_object().unwrap().values().all(|value| value == wanted)
        };
        all("instances", &json!("up")) && all("faults", &json!([])) && all("weights", &json!(1.0))
    }
}
