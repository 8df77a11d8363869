//! How to break one thing, how to prove that it is broken, and how to put it back.
//!
//! # The law
//! 1. [`Injector::prepare`] only reads. Its [`Change`] holds all that the later steps need, as data.
//! 2. The caller journals the change, fsynced, before [`Injector::apply`].
//! 3. [`Injector::undo`] needs the undo data alone: another process may call it days later. It is idempotent,
//!    tolerates that apply never ran or ran half, and checks identity before it acts.
//! 4. [`Injector::observe`] measures the effect in band; [`Injector::picture`] reads the state that apply changes,
//!    so that equal pictures before and after prove that no trace is left.
//! 5. [`Injector::renew`] prolongs the lease where the fault lives and moves stepped faults on. A fault whose
//!    carrier is not renewed ends by itself.
//!
//! An injector holds no state: whatever it must remember is in the change.

pub mod about;
pub mod change;
#[cfg(test)]
mod conformance_tests;
pub mod containers;
#[cfg(test)]
mod fake_docker_tests;
#[cfg(test)]
mod fake_filter_tests;
#[cfg(test)]
mod fake_network_tests;
#[cfg(test)]
mod fake_pressure_tests;
#[cfg(test)]
mod fake_tests;
pub mod faults;
pub mod flows;
pub mod group;
pub mod guardian;
pub mod journal;
pub mod pick;
pub mod registry;
pub mod relay;
pub mod resolver;
pub mod restore;
pub mod secrets;
pub mod stress;
pub mod sys;
pub mod target;
pub mod traffic;
pub mod units;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use about::{About, Args};
pub use change::{Change, InjectError, Proof, ProofStatus, Undone};
pub use target::{Inventory, Target, TargetKind};

/// A boxed future, so that injectors can live in one slice.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long a carrier keeps a fault that nobody renews. The engine renews every second.
pub const LEASE: Duration = Duration::from_secs(3);

/// The ports through which injectors see and touch the world.
#[derive(Debug, Clone)]
pub struct Env {
    /// What there is to act on. Only `prepare` may look here: undo works without it.
    pub inventory: Inventory,
    /// Processes of this host.
    pub procs: Arc<dyn sys::proc::Procs>,
    /// Control sockets of relays, supervisors and balancers.
    pub control: Arc<dyn sys::control::Control>,
    /// Network namespaces of this host.
    pub network: Arc<dyn sys::netlink::Network>,
    /// Control groups of this host.
    pub cgroups: Arc<dyn sys::cgroup::Cgroups>,
    /// What this host has to give: processors, memory, file systems, descriptors.
    pub resources: Arc<dyn sys::resources::Resources>,
    /// The container engine of this host.
    pub docker: Arc<dyn sys::docker::Docker>,
    /// The program that carries what needs a process of its own: this one.
    pub program: std::path::PathBuf,
}

impl Env {
    /// The real host, with what there is to act on.
    pub fn host(inventory: Inventory) -> Self {
        Self {
            inventory,
            procs: Arc::new(sys::proc::Host),
            control: Arc::new(sys::control::Sockets),
            network: Arc::new(sys::netlink::host::Kernel),
            cgroups: Arc::new(sys::cgroup::host::Kernel),
            resources: Arc::new(sys::resources::Host),
            docker: Arc::new(sys::docker::api::Sockets),
            program: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
        }
    }
}

/// How several looks at one effect make one proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looks {
    /// A state: once it was not as requested, the fault did not hold.
    State,
    /// A tally since the beginning: the last look counts.
    Tally,
    /// What others feel while they are at work: a silence takes nothing back.
    Felt,
    /// A state that others feel, such as that nothing gets through: as [`Looks::State`], and a silence takes nothing back.
    FeltState,
}

/// What one injection is asked to be: the input of [`Injector::prepare`].
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// Unique in the host: the run's id, a slash and a number.
    pub id: String,
    /// The checked parameters.
    pub args: Args,
    /// The concrete target.
    pub target: Target,
    /// Decides every random choice of this injection.
    pub seed: u64,
}

/// One kind of fault. A unit struct in [`registry::INJECTORS`].
pub trait Injector: std::fmt::Debug + Sync {
    /// All that users read about it.
    fn about(&self) -> &'static About;

    /// Rules between parameters that the types cannot say, such as "needs a restart or `permanent: true`".
    ///
    /// # Errors
    /// One sentence per mistake.
    fn check(&self, _args: &Args, _target: &Target) -> Result<(), Vec<String>> {
        Ok(())
    }

    /// What the undo will do, in words, as far as it is known before the world has been looked at: part of the plan.
    fn undoes(&self, _args: &Args, target: &Target) -> String {
        match self.about().target {
            TargetKind::Relay => format!("remove this fault from the relay before {target}"),
            TargetKind::Pop => format!("give {target} back the weight that it had"),
            _ => self.about().undo.to_owned(),
        }
    }

    /// How several looks at the effect make one proof.
    fn looks(&self) -> Looks {
        match self.about().target {
            TargetKind::Process | TargetKind::Container | TargetKind::Nothing => Looks::State,
            TargetKind::Traffic => Looks::Felt,
            TargetKind::Flows | TargetKind::Connections | TargetKind::Resolvers => Looks::FeltState,
            TargetKind::Relay | TargetKind::Pop | TargetKind::Group | TargetKind::Volume => Looks::Tally,
        }
    }

    /// Whether this user and this kernel can make it with these parameters, whatever the target: part of the plan.
    ///
    /// # Errors
    /// What is missing, and what would serve.
    fn able<'a>(&'a self, _env: &'a Env, _request: &'a Request) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Reads the world and returns the change; writes nothing.
    fn prepare<'a>(&'a self, env: &'a Env, request: &'a Request) -> Pending<'a, Result<Change, InjectError>>;

    /// Makes the change. Called at most once, after the journal holds it.
    fn apply<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<(), InjectError>>;

    /// Takes the change back, from the undo data alone.
    fn undo<'a>(
        &'a self,
        env: &'a Env,
        undo: &'a serde_json::Value,
    ) -> Pending<'a, Result<Undone, InjectError>>;

    /// What a person types now that squall could not undo it.
    fn by_hand(&self, _env: &Env, change: &Change) -> String {
        change.manual.clone()
    }

    /// What the fault has done so far, requested against measured.
    fn observe<'a>(&'a self, env: &'a Env, change: &'a Change) -> Pending<'a, Result<Proof, InjectError>>;

    /// The state that apply changes and undo restores, read from the undo data alone.
    fn picture<'a>(
        &'a self,
        env: &'a Env,
        undo: &'a serde_json::Value,
    ) -> Pending<'a, Result<serde_json::Value, InjectError>>;

    /// How long after apply it is in full force: a fault that comes in steps takes its time.
    fn grows(&self, _args: &Args) -> Duration {
        Duration::ZERO
    }

    /// Prolongs the lease at the carrier; `age` is the time since apply.
    fn renew<'a>(
        &'a self,
        _env: &'a Env,
        _change: &'a Change,
        _age: Duration,
    ) -> Pending<'a, Result<(), InjectError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}
