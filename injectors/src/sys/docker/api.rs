//! The engine's API over its Unix socket, by bollard. No other file names bollard.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, EndpointIpamConfig,
    EndpointSettings, NetworkConnectRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptions, ListContainersOptions, RestartContainerOptions,
    StartContainerOptions, StopContainerOptions,
};

use super::{Act, Container, DEADLINE, Docker, DockerError, Endpoint, Listed, Status, moment};
use crate::Pending;

/// Ids of containers are shown with so many digits, and the engine gives them so as a further name.
pub const SHORT: usize = 12;
/// The usual sockets below the runtime folder of a user who runs an engine without root.
const ROOTLESS: [&str; 2] = ["docker.sock", "podman/podman.sock"];
/// The usual sockets of root.
const USUAL: [&str; 2] = ["/var/run/docker.sock", "/run/podman/podman.sock"];

/// Real sockets.
#[derive(Debug, Clone, Copy)]
pub struct Sockets;

impl Docker for Sockets {
    fn socket(&self) -> Result<PathBuf, DockerError> {
        if let Some(host) = std::env::var_os("DOCKER_HOST").filter(|host| !host.is_empty()) {
            let path = host.to_str().and_then(|host| host.strip_prefix("unix://"));
            return path.map(PathBuf::from).ok_or(DockerError::Remote);
        }
        let mut places: Vec<PathBuf> = USUAL.iter().map(PathBuf::from).collect();
        if let Some(own) = std::env::var_os("XDG_RUNTIME_DIR") {
            places.extend(ROOTLESS.iter().map(|name| Path::new(&own).join(name)));
        }
        let names: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        places.into_iter().find(|place| place.exists()).ok_or(DockerError::Absent(names.join(", ")))
    }

    fn version<'a>(&'a self, socket: &'a Path) -> Pending<'a, Result<String, DockerError>> {
        Box::pin(limited(DEADLINE, async move {
            let version = connect(socket).await?.version().await.map_err(told)?;
            let name = version.components.unwrap_or_default().into_iter().next();
            let name = name.map_or("engine".to_owned(), |component| match component.name.as_str() {
                "Engine" => "Docker".to_owned(),
                other => other.trim_end_matches(" Engine").to_owned(),
            });
            let (own, api) = (version.version.unwrap_or_default(), version.api_version.unwrap_or_default());
            Ok(format!("{name} {own}, API {api}"))
        }))
    }

    fn running<'a>(&'a self, socket: &'a Path) -> Pending<'a, Result<Vec<Listed>, DockerError>> {
        Box::pin(limited(DEADLINE, async move {
            // Without `all`, the engine lists those that run, paused ones included.
            let options = ListContainersOptions { all: false, ..ListContainersOptions::default() };
            let found = connect(socket).await?.list_containers(Some(options)).await.map_err(told)?;
            Ok(found.into_iter().filter_map(listed).collect())
        }))
    }

    fn look<'a>(
        &'a self,
        socket: &'a Path,
        name: &'a str,
    ) -> Pending<'a, Result<Option<Container>, DockerError>> {
        Box::pin(limited(DEADLINE, async move {
            let looked =
                connect(socket).await?.inspect_container(name, None::<InspectContainerOptions>).await;
            match looked.map_err(told) {
                Ok(found) => {
                    seen(found).map(Some).ok_or_else(|| DockerError::Broken("it names no id".to_owned()))
                }
                Err(DockerError::Unknown) => Ok(None),
                Err(error) => Err(error),
            }
        }))
    }

    fn act<'a>(
        &'a self,
        socket: &'a Path,
        id: &'a str,
        act: &'a Act,
    ) -> Pending<'a, Result<(), DockerError>> {
        let deadline = match act {
            Act::Stop(grace) | Act::Restart(grace) => *grace + DEADLINE,
            _ => DEADLINE,
        };
        Box::pin(limited(
            deadline,
            async move { perform(&connect(socket).await?, id, act).await.map_err(told) },
        ))
    }
}

async fn perform(docker: &bollard::Docker, id: &str, act: &Act) -> Result<(), Error> {
    let whole = |grace: &Duration| Some(i32::try_from(grace.as_secs_f64().ceil() as i64).unwrap_or(i32::MAX));
    match act {
        Act::Kill(signal) => {
            docker.kill_container(id, Some(KillContainerOptions { signal: format!("SIG{signal}") })).await
        }
        Act::Stop(grace) => {
            docker.stop_container(id, Some(StopContainerOptions { signal: None, t: whole(grace) })).await
        }
        Act::Start => docker.start_container(id, None::<StartContainerOptions>).await,
        Act::Restart(grace) => {
            docker
                .restart_container(id, Some(RestartContainerOptions { signal: None, t: whole(grace) }))
                .await
        }
        Act::Pause => docker.pause_container(id).await,
        Act::Unpause => docker.unpause_container(id).await,
        Act::Disconnect(network) => {
            let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(false) };
            docker.disconnect_network(network, request).await
        }
        Act::Connect(endpoint) => {
            let request =
                NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(settings(endpoint)) };
            docker.connect_network(&endpoint.network, request).await
        }
    }
}

/// Speaks to the engine in the newest version that both know.
async fn connect(socket: &Path) -> Result<bollard::Docker, DockerError> {
    let shown = socket.display().to_string();
    // Asked for by hand first: the error tells what is wrong.
    tokio::net::UnixStream::connect(socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => DockerError::Permission(shown.clone()),
        _ => DockerError::Silent { socket: shown.clone(), why: error.to_string() },
    })?;
    // Every call has a deadline of its own, which is shorter.
    let patience = 3600;
    let docker = bollard::Docker::connect_with_unix(&shown, patience, bollard::API_DEFAULT_VERSION);
    docker.map_err(told)?.negotiate_version().await.map_err(told)
}

async fn limited<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, DockerError>>,
) -> Result<T, DockerError> {
    tokio::time::timeout(deadline, call).await.unwrap_or(Err(DockerError::Deadline(deadline)))
}

fn told(error: Error) -> DockerError {
    match error {
        Error::DockerResponseServerError { status_code: 404, message }
            if message.contains("No such container") =>
        {
            DockerError::Unknown
        }
        // podman says it in other words.
        Error::DockerResponseServerError { status_code: 404, message }
            if message.contains("no such container") =>
        {
            DockerError::Unknown
        }
        Error::DockerResponseServerError { message, .. } => {
            let line =
                message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
            DockerError::Refused(
                line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect(),
            )
        }
        other => DockerError::Broken(other.to_string()),
    }
}

fn listed(found: ContainerSummary) -> Option<Listed> {
    Some(Listed {
        id: found.id?,
        name: bare(found.names.unwrap_or_default().first().map(String::as_str)),
        image: found.image.unwrap_or_default(),
        labels: found.labels.unwrap_or_default().into_iter().collect(),
        network_mode: found.host_config.and_then(|host| host.network_mode).unwrap_or_default(),
    })
}

fn bare(name: Option<&str>) -> String {
    name.unwrap_or_default().trim_start_matches('/').to_owned()
}

fn seen(found: ContainerInspectResponse) -> Option<Container> {
    let (id, state) = (found.id?, found.state.unwrap_or_default());
    let (config, host) = (found.config.unwrap_or_default(), found.host_config.unwrap_or_default());
    let status = match state.status {
        Some(ContainerStateStatusEnum::PAUSED) => Status::Paused,
        Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::STOPPING) => Status::Running,
        Some(ContainerStateStatusEnum::RESTARTING) => Status::Restarting,
        _ => Status::Down,
    };
    let up = matches!(status, Status::Running | Status::Paused);
    let started = state.started_at.unwrap_or_default();
    let networks = found.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let policy = host.restart_policy.and_then(|policy| policy.name).map(|name| name.to_string());
    Some(Container {
        name: bare(found.name.as_deref()),
        labels: config.labels.unwrap_or_default().into_iter().collect(),
        status,
        pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| up && *pid > 0),
        was_down: moment::between(&state.finished_at.unwrap_or_default(), &started),
        started,
        exit_code: state.exit_code.unwrap_or_default(),
        policy: policy.filter(|name| !matches!(name.as_str(), "" | "no")),
        auto_remove: host.auto_remove.unwrap_or_default(),
        network_mode: host.network_mode.unwrap_or_default(),
        networks: networks.into_iter().map(|(name, settings)| (name, endpoint(&id, settings))).collect(),
        id,
    })
}

fn endpoint(id: &str, found: EndpointSettings) -> Endpoint {
    let asked = found.ipam_config.unwrap_or_default();
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let mut aliases = found.aliases.unwrap_or_default();
    aliases.retain(|alias| !(alias.len() == SHORT && id.starts_with(alias.as_str())));
    aliases.sort();
    let address = |text: Option<String>| text.and_then(|text| text.parse::<IpAddr>().ok());
    Endpoint {
        network: found.network_id.unwrap_or_default(),
        aliases,
        links: found.links.unwrap_or_default(),
        options: found.driver_opts.unwrap_or_default().into_iter().collect(),
        ipv4: filled(asked.ipv4_address),
        ipv6: filled(asked.ipv6_address),
        link_local: asked.link_local_ips.unwrap_or_default(),
        gateway_priority: found.gw_priority.unwrap_or_default(),
        addresses: address(found.ip_address).into_iter().chain(address(found.global_ipv6_address)).collect(),
        mac: filled(found.mac_address),
    }
}

fn settings(endpoint: &Endpoint) -> EndpointSettings {
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let asked = endpoint.ipv4.is_some() || endpoint.ipv6.is_some() || !endpoint.link_local.is_empty();
    let options: BTreeMap<String, String> = endpoint.options.clone();
    EndpointSettings {
        ipam_config: asked.then(|| EndpointIpamConfig {
            ipv4_address: endpoint.ipv4.clone(),
            ipv6_address: endpoint.ipv6.clone(),
            link_local_ips: some(&endpoint.link_local),
        }),
        links: some(&endpoint.links),
        aliases: some(&endpoint.aliases),
        driver_opts: (!options.is_empty()).then(|| options.into_iter().collect()),
        gw_priority: (endpoint.gateway_priority != 0).then_some(endpoint.gateway_priority),
        mac_address: endpoint.mac.clone(),
        ..EndpointSettings::default()
    }
}
