//! The process of one instance: `squall __instance PARENT DUTY`. Says `{"ready":true}` once it listens.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use injectors::sys::{control, host};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use super::glb::Glb;
use super::hop::Peer;
use super::model::{self, GLB, HOST};
use super::service::{Edge, Leaf, Origin};
use super::{LabError, LabOptions, process, wire};

/// What an instance is told when it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Duty {
    /// Its name; the model says the rest.
    pub(super) name: String,
    /// Where to listen.
    pub(super) port: u16,
    /// How the lab behaves.
    pub(super) options: LabOptions,
    /// The instances that it calls, by service.
    pub(super) callees: BTreeMap<String, Vec<Peer>>,
    /// The control socket to open; only the balancer has one.
    pub(super) control: Option<PathBuf>,
}

/// Runs the instance to its end.
pub(super) fn main(args: &[String]) -> Result<(), LabError> {
    let [parent, duty] = args else {
        return Err(LabError::Start("__instance takes its parent's pid and its duty".to_owned()));
    };
    process::die_with_named(Some(parent))?;
    host::raise_file_limit();
    let duty: Duty = serde_json::from_str(duty)?;
    host::call_it(&duty.name);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(LabError::system("starting the runtime"))?
        .block_on(run(duty))
}

async fn run(duty: Duty) -> Result<(), LabError> {
    let (service, index, name) = model::instances()
        .find(|(_, _, name)| *name == duty.name)
        .ok_or_else(|| LabError::Start(format!("no instance is called {:?}", duty.name)))?;
    let listener = TcpListener::bind((HOST, duty.port))
        .await
        .map_err(LabError::system(format!("{name}: listening on port {}", duty.port)))?;
    let peers = |callee: &str| duty.callees.get(callee).cloned().unwrap_or_default();
    let options = &duty.options;
    let service = &service.tuned(options);
    match (service.name, service.pop(index)) {
        (GLB, _) => balance(listener, Arc::new(Glb::new(peers("edge"), options)), duty.control).await,
        ("edge", Some(pop)) => {
            ready()?;
            let edge = Edge::new(name, service, pop, peers("origin"), peers("kv"), options);
            wire::serve(listener, Arc::new(edge)).await;
            Ok(())
        }
        ("origin", _) => {
            ready()?;
            let origin = Origin::new(name, service, peers("auth"), peers("catalog"), options);
            wire::serve(listener, Arc::new(origin)).await;
            Ok(())
        }
        _ => {
            ready()?;
            wire::serve(listener, Arc::new(Leaf::new(name, service))).await;
            Ok(())
        }
    }
}

async fn balance(listener: TcpListener, glb: Arc<Glb>, control: Option<PathBuf>) -> Result<(), LabError> {
    let path = control.ok_or_else(|| LabError::Start("the balancer needs a control socket".to_owned()))?;
    let socket = control::bind(&path).map_err(LabError::system(path.display().to_string()))?;
    ready()?;
    let told = Arc::clone(&glb);
    let control = control::serve(socket, move |request| {
        let answer = told.control(request);
        Box::pin(std::future::ready(answer))
    });
    tokio::join!(wire::serve(listener, Arc::clone(&glb)), glb.check(), control);
    Ok(())
}

fn ready() -> Result<(), LabError> {
    process::say(&json!({"ready": true})).map_err(LabError::system("telling the supervisor"))
}
