//! Drives the load generator for measurements: `load URL RATE SECONDS [CONNECTIONS [DEADLINE_S]]`.

use std::error::Error;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::load::{LoadError, LoadSpec, PhaseCell, RequestSpec, prepare, start};
use engine::schedule::{Profile, Segment};
use reports::Latencies;
use reports::record::Phase;
use rustix::time::{ClockId, clock_gettime};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, rate, seconds, rest @ ..] = arguments.as_slice() else {
        return Err("usage: load URL RATE SECONDS [CONNECTIONS [DEADLINE_S]]".into());
    };
    let lasting = Duration::from_secs_f64(seconds.parse()?);
    let profile = Profile::new(vec![Segment::Hold { rate: rate.parse()?, lasting }])?;
    let mut spec = LoadSpec::new("load", vec![RequestSpec::get(url)], profile);
    spec.max_connections = rest.first().map_or(Ok(50), |text| text.parse())?;
    // Longer than the run, it lets a generator that is offered too much work on all of it.
    spec.deadline = Duration::from_secs_f64(rest.get(1).map_or(Ok(1.0), |text| text.parse())?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let prepared = prepare(vec![spec]).await?;
        let origin = Instant::now() + Duration::from_millis(50);
        let running = start(prepared, &Arc::new(PhaseCell::new(Phase::Baseline)), origin, 1)?;
        Ok::<_, LoadError>(running.finish().await)
    })?;
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    let cpu_us = cpu.tv_sec as f64 * 1e6 + cpu.tv_nsec as f64 / 1e3;
    let mut out = std::io::stdout().lock();
    for phase in &outcome.loads[0].phases {
        let latencies = Latencies::decode(&phase.all.latencies)?;
        let at = |q| latencies.quantile(q).unwrap_or_default() * 1e6;
        writeln!(out, "due {} ok {} errors {:?}", phase.all.due, phase.all.ok, phase.all.errors)?;
        writeln!(out, "latency us: p50 {:.0} p99 {:.0} p99.9 {:.0}", at(0.5), at(0.99), at(0.999))?;
        writeln!(out, "cpu us per good answer: {:.2}", cpu_us / phase.all.ok as f64)?;
    }
    let g = &outcome.generator;
    let (p50, p99, max) = (g.lag_p50_s * 1e6, g.lag_p99_s * 1e6, g.lag_max_s * 1e6);
    writeln!(
        out,
        "lag us: p50 {p50:.0} p99 {p99:.0} max {max:.0}; workers {}; cpu {:.2}",
        g.workers, g.cpu_max
    )?;
    writeln!(out, "in all: due {} sent {}", g.due, g.sent)?;
    writeln!(out, "connections {}; reconnects {}", g.connections_max, outcome.facts.reconnects)?;
    g.saturated.iter().try_for_each(|reason| writeln!(out, "saturated: {reason}"))?;
    Ok(())
}
