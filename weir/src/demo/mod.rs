//! The main job on embedded defaults: the appliance, exporters that report an evening's traffic and an
//! attack over loopback, and a border router that receives the rules over a real BGP session.
//!
//! Nothing here is scripted but the traffic: detection, rule and withdrawal are the daemon's own, and
//! the router's lines are what it decoded from its socket.

mod exporters;
mod router;

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use weir_config::Config;
use weir_model::{Incident, IncidentState, Measure, Mode, PeerState};
use weir_traffic::Scene;

use crate::daemon::{Daemon, Options};
use crate::text;
use weir_bgp::receiver::{Event, Received};

pub use router::{ASN as ROUTER_ASN, Router};

/// The demonstration gives up after so long.
const PATIENCE: Duration = Duration::from_secs(57);

/// How often the snapshot is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// What has happened so far.
#[derive(Debug, Default)]
struct Progress {
    detected: Option<Duration>,
    announced: Option<Duration>,
    withdrawn: Option<Duration>,
    ended: Option<Duration>,
    rules: Vec<Received>,
    measures_seen: usize,
    right: bool,
}

/// Runs the demonstration; exit code 0 only when the attack was detected, named and filtered in the
/// router, and the rules were withdrawn after its end.
///
/// # Errors
/// When a socket cannot be opened or the appliance does not start.
pub fn run(seed: u64) -> anyhow::Result<ExitCode> {
    let scene = Scene::demo(seed);
    let attack = scene.attacks.first().context("the scene has an attack")?.clone();
    let router = Router::start()?;
    let config = configuration(&scene, router.port)?;
    let daemon = Daemon::start(&config, &Options::default())?;
    let flows = *daemon.flow_addresses.first().context("a flow socket")?;
    say(&format!(
        "weir takes flows on {flows}, answers on http://{} and peers with a border router on port {}",
        daemon.api_address, router.port
    ));
    wait_for_session(&daemon)?;
    say("the BGP session is up; exporters start: game servers in 203.0.113.0/24, then an attack");
    let start = Instant::now();
    let exporters = exporters::start(scene, flows)?;
    let onset = Duration::from_micros(attack.start_us);
    let mut progress = Progress::default();
    while start.elapsed() < PATIENCE && progress.withdrawn.is_none_or(|_| progress.ended.is_none())
    {
        if let Some(seen) = router.next(GLANCE) {
            progress.router(start.elapsed(), seen);
        }
        if let Some(incident) = daemon.snapshot.load().incidents.last() {
            progress.incident(start.elapsed(), incident, attack.target.addr(), &attack.families);
        }
    }
    exporters.stop();
    daemon.stop();
    Ok(progress.summary(onset))
}

impl Progress {
    fn incident(
        &mut self,
        at: Duration,
        incident: &Incident,
        victim: IpAddr,
        families: &[weir_model::Family],
    ) {
        let verdict = &incident.verdict;
        if self.detected.is_none() {
            self.detected = Some(at);
            let reason = &verdict.reason;
            at_time(at, &format!("DETECTED  {}", verdict.summary));
            at_time(
                at,
                &format!(
                    "WHY       {} {} over threshold {} (baseline {}x {}), {:.0} samples in {} ms at 1:{:.0}, reported by {}",
                    reason.name(),
                    text::Si(reason.value),
                    text::Si(reason.threshold),
                    text::Si(reason.baseline),
                    reason.multiplier,
                    reason.samples,
                    reason.window_ms,
                    reason.sampling,
                    reason.exporters.join(", ")
                ),
            );
        }
        self.right |= verdict.target.addr() == victim && families.contains(&verdict.family);
        for mitigation in incident.mitigations.iter().skip(self.measures_seen) {
            at_time(
                at,
                &format!("DECIDED   {} (confidence {})", mitigation.measure, verdict.confidence),
            );
        }
        self.measures_seen = self.measures_seen.max(incident.mitigations.len());
        if self.ended.is_none() && incident.state == IncidentState::Closed {
            self.ended = Some(at);
            at_time(at, &format!("ENDED     peak {}", text::rate(verdict.peak)));
        }
    }

    fn router(&mut self, at: Duration, seen: Event) {
        match seen {
            Event::Announced(route) => {
                at_time(at, &format!("ROUTER    received {}", route.text));
                self.announced.get_or_insert(at);
                self.withdrawn = None;
                // An announcement with another action replaces the rule for the same packets.
                self.rules.retain(|rule| !same_route(rule, &route));
                self.rules.push(route);
            }
            Event::Withdrawn(route) => {
                at_time(at, &format!("ROUTER    withdrew {}", route.text));
                self.rules.retain(|rule| !same_route(rule, &route));
                if self.rules.is_empty() {
                    self.withdrawn = Some(at);
                }
            }
            Event::Down(why) => at_time(at, &format!("ROUTER    session down: {why}")),
            Event::Unreadable(why) => at_time(at, &format!("ROUTER    cannot read: {why}")),
            Event::Up { .. } | Event::EndOfRib(_) => {}
        }
    }

    fn summary(&self, onset: Duration) -> ExitCode {
        let after = |at: Option<Duration>| {
            at.map_or_else(
                || "never".to_owned(),
                |at| {
                    format!(
                        "{:.2} s after the attack's first packet",
                        at.saturating_sub(onset).as_secs_f64()
                    )
                },
            )
        };
        say("");
        say(&format!("detected          {}", after(self.detected)));
        say(&format!("rule in router    {}", after(self.announced)));
        say(&format!("named rightly     {}", if self.right { "yes" } else { "no" }));
        say(&format!("rules left over   {}", self.rules.len()));
        let done = self.right
            && self.announced.is_some_and(|at| at >= onset)
            && self.withdrawn.is_some()
            && self.ended.is_some();
        say(if done { "the main job works end to end" } else { "the main job FAILED" });
        if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Whether two routes have the same NLRI, whatever their actions.
fn same_route(one: &Received, other: &Received) -> bool {
    match (&one.measure, &other.measure) {
        (Some(Measure::FlowSpec(a)), Some(Measure::FlowSpec(b))) => a.packets == b.packets,
        (a, b) => a == b && one.text == other.text,
    }
}

fn configuration(scene: &Scene, router_port: u16) -> anyhow::Result<Config> {
    let (mut config, _) = weir_config::parse(
        &include_str!("demo.toml").replace("@ROUTER_PORT@", &router_port.to_string()),
    )?;
    ensure!(config.mitigator.mode == Mode::Auto, "the demonstration acts by itself");
    config.protect.services = scene
        .inventory
        .services
        .iter()
        .filter_map(|service| {
            Some(weir_config::ServiceConfig {
                address: service.address,
                port: service.port.try_into().ok()?,
                protocol: weir_config::ServiceProtocol::of(service.protocol)?,
                name: service.name.clone(),
                game: service.game.clone(),
            })
        })
        .collect();
    for (index, exporter) in scene.exporters.iter().enumerate() {
        config.collector.exporters.push(weir_collector::ExporterConfig {
            name: Some(exporter.name.clone()),
            ..weir_collector::ExporterConfig::new(exporters::address_of(index).into())
        });
    }
    Ok(config)
}

fn wait_for_session(daemon: &Daemon) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let (_keep, pause) = crossbeam_channel::bounded::<()>(1);
    while !daemon.snapshot.load().peers.iter().any(|p| p.state == PeerState::Established) {
        ensure!(Instant::now() < deadline, "the BGP session did not come up");
        // Nobody sends: a wait between two looks.
        let _ = pause.recv_timeout(GLANCE);
    }
    Ok(())
}

fn at_time(at: Duration, line: &str) {
    say(&format!("{:6.2} s  {line}", at.as_secs_f64()));
}

#[expect(clippy::print_stdout, reason = "the demonstration's output")]
fn say(line: &str) {
    println!("{line}");
}
