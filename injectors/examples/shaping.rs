//! How long it takes to make and to take back one network fault. For the bench.
//!
//! `shaping NETNS ROUNDS [PART=VALUE…]`: in a namespace of the caller's, on its interface `near`, limits the rate of the
//! packets to 10.77.0.2 by tbf, takes it back, and so on. Further parts aim it otherwise, such as `to=10.1.0.0/24,10.2.0.0/24`
//! and `ports=1,2,3`. Prints seconds as one JSON document: `{"apply": […], "free": […], "undo": […]}`. Packets are free
//! when the filter has gone; then the device is still to be deleted.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use injectors::about::{Param, Value};
use injectors::sys::aim::Way;
use injectors::sys::netlink::host::Kernel;
use injectors::sys::netlink::{
    Connection, Echoed, Feature, Filter, Link, Network, Peer, Qdisc, Session, Space, Step, Stream,
};
use injectors::sys::nft::Edit;
use injectors::sys::nft::read::{Counted, Picked, Table};
use injectors::target::Target;
use injectors::traffic::{SELECTORS, Traffic};
use injectors::units::Bandwidth;
use injectors::{Args, Env, Inventory, Pending, Request, registry};

/// The seconds of every round.
#[derive(Debug, Default, serde::Serialize)]
struct Seen {
    apply: Vec<f64>,
    free: Vec<f64>,
    undo: Vec<f64>,
}

/// The kernel, with the time at which it last took away a filter.
#[derive(Debug, Clone, Default)]
struct Watched {
    kernel: Option<Kernel>,
    freed: Arc<Mutex<Option<Instant>>>,
}

#[derive(Debug)]
struct WatchedSession {
    real: Box<dyn Session>,
    freed: Arc<Mutex<Option<Instant>>>,
}

impl Watched {
    fn real(&self) -> &dyn Network {
        self.kernel.as_ref().unwrap_or(&Kernel)
    }
}

impl WatchedSession {
    fn real(&self) -> &dyn Session {
        &*self.real
    }
}

/// Methods that only ask the real kernel.
macro_rules! asks {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> Pending<'_, io::Result<$answer>> {
            self.real().$name($($arg),*)
        })*
    };
}

/// The same, of those that borrow what they are given.
macro_rules! lends {
    ($($name:ident($($arg:ident: $type:ty),*) -> $answer:ty;)*) => {
        $(fn $name<'a>(&'a self, $($arg: $type),*) -> Pending<'a, io::Result<$answer>> {
            self.real().$name($($arg),*)
        })*
    };
}

impl Network for Watched {
    fn space(&self, path: &Path) -> io::Result<Space> {
        Kernel.space(path)
    }

    fn enter<'a>(&'a self, space: &'a Space) -> Pending<'a, io::Result<Option<Box<dyn Session>>>> {
        Box::pin(async move {
            let Some(real) = Kernel.enter(space).await? else { return Ok(None) };
            Ok(Some(Box::new(WatchedSession { real, freed: Arc::clone(&self.freed) }) as Box<dyn Session>))
        })
    }

    lends! {
        resolve(space: &'a Space, name: &'a str) -> Vec<IpAddr>;
        echo(space: &'a Space, peer: &'a Peer, stream: &'a Stream) -> Echoed;
        ask(space: &'a Space, to: SocketAddr, query: &'a [u8], patience: Duration) -> Option<Vec<u8>>;
    }

    asks! {
        features() -> Vec<Feature>;
        cuts() -> Vec<Feature>;
    }
}

impl Session for WatchedSession {
    asks! {
        links() -> Vec<Link>;
        route(to: IpAddr, from: Option<IpAddr>) -> u32;
        neighbours(index: u32) -> Vec<IpAddr>;
        qdiscs(index: u32) -> Vec<Qdisc>;
        filters(index: u32, way: Way) -> Vec<Filter>;
        connections() -> Vec<Connection>;
        addresses() -> Vec<IpAddr>;
        tables() -> Vec<Table>;
    }

    lends! {
        destroy(cookies: &'a [u64]) -> Vec<u64>;
        counted(table: &'a str) -> Vec<Counted>;
        picked(table: &'a str) -> Vec<Picked>;
        commit(edits: &'a [Edit]) -> ();
    }

    fn change<'a>(&'a self, step: &'a Step) -> Pending<'a, io::Result<()>> {
        Box::pin(async move {
            self.real.change(step).await?;
            if matches!(step, Step::DeleteFilter { .. })
                && let Ok(mut freed) = self.freed.lock()
            {
                *freed = Some(Instant::now());
            }
            Ok(())
        })
    }
}

fn aim(namespace: String, more: impl Iterator<Item = String>) -> Result<Traffic, Box<dyn Error>> {
    let mut given = BTreeMap::from([
        ("netns", namespace),
        ("interface", "near".to_owned()),
        ("to", "10.77.0.2".to_owned()),
    ]);
    for part in more {
        let (name, value) = part.split_once('=').ok_or("a part is written as NAME=VALUE")?;
        let known = SELECTORS.iter().map(|param: &Param| param.name).find(|known| *known == name);
        given.insert(known.ok_or_else(|| format!("there is no part {name}"))?, value.to_owned());
    }
    Traffic::read(&given).map_err(|(_, why)| why.into())
}

async fn measure(target: Target, rounds: u32) -> Result<Seen, Box<dyn Error>> {
    let (watched, mut seen) = (Watched::default(), Seen::default());
    let env = Env { network: Arc::new(watched.clone()), ..Env::host(Inventory::default()) };
    let injector = registry::find("network-rate").ok_or("there is no network-rate")?;
    let args = [
        ("rate".to_owned(), Value::Bandwidth(Bandwidth(1_250_000.0))),
        ("by".to_owned(), Value::Text("tbf".to_owned())),
    ];
    let args = Args(args.into());
    for round in 0..rounds {
        let request =
            Request { id: format!("bench/{round}"), args: args.clone(), target: target.clone(), seed: 1 };
        let change = injector.prepare(&env, &request).await?;
        let began = Instant::now();
        injector.apply(&env, &change).await?;
        seen.apply.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        injector.undo(&env, &change.undo).await?;
        seen.undo.push(began.elapsed().as_secs_f64());
        let freed = watched.freed.lock().map_err(|_| "poisoned")?.take().ok_or("no filter was taken away")?;
        seen.free.push((freed - began).as_secs_f64());
    }
    Ok(seen)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(namespace), Some(rounds)) = (words.next(), words.next()) else {
        return Err("usage: shaping NETNS ROUNDS [PART=VALUE...]".into());
    };
    let target = Target::Traffic(aim(namespace, words)?);
    let seen = measure(target, rounds.parse()?).await?;
    serde_json::to_writer(io::stdout().lock(), &seen)?;
    Ok(())
}
