//! Agents on nodes as the API and monitoring show them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};

use weir_agent::controller::{AWAY_MS, Node, State};
use weir_agent::protocol::{Report, RuleReport, RuleState};
use weir_agent::server::{Server, TOKEN_MS};
use weir_api::nodes::{
    AgentContainer, AgentDetail, AgentEvent, AgentRule, AgentService, AgentView, JoinToken, Nodes,
};
use weir_api::{IntGaugeVec, Metrics};
use weir_model::{IncidentId, IpNet, Millis};

use super::now;

/// Failed rules that are named at most, a node.
const FAILURES_MAX: usize = 20;

/// Nodes as the API sees them.
#[derive(Debug)]
pub(crate) struct View {
    server: Arc<Server>,
    /// Port on which nodes are awaited; 0 before it is bound.
    port: AtomicU16,
}

impl View {
    pub(crate) const fn new(server: Arc<Server>) -> Self {
        Self { server, port: AtomicU16::new(0) }
    }

    pub(crate) fn set_port(&self, port: u16) {
        self.port.store(port, Ordering::Relaxed);
    }

    pub(crate) const fn server(&self) -> &Arc<Server> {
        &self.server
    }
}

/// Nodes, once they are awaited: `[agents]` may come and go while weir runs.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    view: OnceLock<Arc<View>>,
    awaited: AtomicBool,
}

impl Slot {
    /// The nodes, whether they are awaited now or were before.
    pub(crate) fn view(&self) -> Option<&Arc<View>> {
        self.view.get()
    }

    /// Nodes are awaited from now on; the first view stays.
    pub(crate) fn open(&self, view: &Arc<View>) {
        self.view.get_or_init(|| Arc::clone(view));
        self.awaited.store(true, Ordering::Relaxed);
    }

    pub(crate) fn close(&self) {
        self.awaited.store(false, Ordering::Relaxed);
    }
}

impl Nodes for Slot {
    fn are_awaited(&self) -> bool {
        self.awaited.load(Ordering::Relaxed)
    }

    fn list(&self) -> Vec<AgentView> {
        self.view().map(|view| view.list()).unwrap_or_default()
    }

    fn one(&self, name: &str) -> Option<AgentDetail> {
        self.view()?.one(name)
    }

    fn token(&self, name: Option<&str>, addresses: &[IpNet]) -> Result<JoinToken, String> {
        self.view().ok_or("nodes are not awaited")?.token(name, addresses)
    }

    fn captures(&self, incident: IncidentId) -> Vec<(String, u64)> {
        self.view().map(|view| view.captures(incident)).unwrap_or_default()
    }

    fn capture(&self, incident: IncidentId, node: &str) -> Option<Vec<u8>> {
        self.view()?.capture(incident, node)
    }
}

impl Nodes for View {
    fn list(&self) -> Vec<AgentView> {
        let (controller, at) = (self.server.controller(), now());
        let state = controller.state();
        state.nodes.iter().map(|(name, node)| view(state, name, node, at)).collect()
    }

    fn one(&self, name: &str) -> Option<AgentDetail> {
        let (controller, at) = (self.server.controller(), now());
        let state = controller.state();
        let node = state.nodes.get(name)?;
        Some(detail(view(state, name, node, at), node))
    }

    fn token(&self, name: Option<&str>, addresses: &[IpNet]) -> Result<JoinToken, String> {
        let port = self.port.load(Ordering::Relaxed);
        if port == 0 {
            return Err("nodes are not awaited yet".to_owned());
        }
        let token = self.server.token(name, addresses, now()).map_err(|_| "no randomness")?;
        Ok(JoinToken { token: token.to_string(), port, expires_in_secs: TOKEN_MS / 1000 })
    }

    fn captures(&self, incident: IncidentId) -> Vec<(String, u64)> {
        self.server.captures_of(incident)
    }

    fn capture(&self, incident: IncidentId, node: &str) -> Option<Vec<u8>> {
        self.server.capture(node, incident)
    }
}

fn view(state: &State, name: &str, node: &Node, at: Millis) -> AgentView {
    let report = node.report.as_ref();
    let rules = said(node);
    let failed = rules.iter().filter(|rule| rule.state != RuleState::Applied);
    let failure = |rule: &RuleReport| {
        format!("{}: {}", rule.id, rule.why.as_deref().unwrap_or("not in force"))
    };
    // What concerns all rules first, then single ones.
    let mut failures = crate::agents::troubles(node);
    failures.extend(failed.take(FAILURES_MAX).map(failure));
    AgentView {
        name: name.to_owned(),
        agent: report.map(|report| report.agent.clone()),
        addresses: node.addresses.clone(),
        joined: node.joined,
        last_seen: node.last_seen,
        connected: connected(node, at),
        level: report.map(|report| report.level.clone()),
        current: report
            .is_some_and(|r| (r.epoch, r.version) == (state.epoch_of(node), node.version)),
        rules: rules.iter().filter(|rule| rule.state == RuleState::Applied).count(),
        dropped_packets: rules.iter().map(|rule| rule.dropped.packets).sum(),
        failures,
    }
}

fn detail(agent: AgentView, node: &Node) -> AgentDetail {
    let report = node.report.as_ref();
    let stats = report.map(|r| r.stats).unwrap_or_default();
    AgentDetail {
        agent,
        apply_ms: report.map(|r| r.apply_ms).filter(|ms| *ms > 0),
        abilities: report.map(|r| r.abilities.clone()).unwrap_or_default(),
        neighbours: report.map(|r| r.neighbours.clone()).unwrap_or_default(),
        rules: rules(node),
        services: report.map(services).unwrap_or_default(),
        containers: report.map(containers).unwrap_or_default(),
        conntrack_percent: conntrack(node).map(|share| share * 100.0),
        softnet_dropped: stats.softnet_dropped,
        pressure: pressure(node),
        events: node.events.iter().map(event).collect(),
    }
}

/// Whether a node said something lately.
fn connected(node: &Node, at: Millis) -> bool {
    node.last_seen.is_some_and(|seen| at.since(seen) < AWAY_MS)
}

/// Share of the connection table in use, 0-1; none without one.
fn conntrack(node: &Node) -> Option<f64> {
    let stats = node.report.as_ref()?.stats;
    #[expect(clippy::cast_precision_loss, reason = "connections are far below 2^52")]
    let share = stats.conntrack as f64 / stats.conntrack_max as f64;
    (stats.conntrack_max > 0).then_some(share)
}

fn pressure(node: &Node) -> [f64; 3] {
    let stats = node.report.as_ref().map(|r| r.stats).unwrap_or_default();
    [stats.cpu_pressure, stats.memory_pressure, stats.io_pressure]
}

/// Of a rule that a node has said nothing of yet.
const PENDING: &str = "pending";

const STATES: [RuleState; 4] =
    [RuleState::Applied, RuleState::Staged, RuleState::Refused, RuleState::RolledBack];

const fn word(state: RuleState) -> &'static str {
    match state {
        RuleState::Applied => "applied",
        RuleState::Staged => "staged",
        RuleState::Refused => "refused",
        RuleState::RolledBack => "rolled-back",
    }
}

/// What a node says of its rules.
fn said(node: &Node) -> &[RuleReport] {
    node.report.as_ref().map(|r| r.rules.as_slice()).unwrap_or_default()
}

/// Names of the rules that a node has said nothing of yet.
fn untold(node: &Node) -> impl Iterator<Item = &str> {
    let names = node.wanted.rules.iter().map(|rule| rule.id.as_str());
    names.filter(|id| !said(node).iter().any(|rule| rule.id == *id))
}

/// What a node says of its rules, and those it has said nothing of yet.
fn rules(node: &Node) -> Vec<AgentRule> {
    let told = said(node).iter().map(|r| AgentRule {
        id: r.id.clone(),
        state: word(r.state).to_owned(),
        why: r.why.clone(),
        dropped_packets: r.dropped.packets,
        dropped_bytes: r.dropped.bytes,
        passed_packets: r.passed.packets,
    });
    let pending = untold(node).map(|id| AgentRule {
        id: id.to_owned(),
        state: PENDING.to_owned(),
        why: None,
        dropped_packets: 0,
        dropped_bytes: 0,
        passed_packets: 0,
    });
    told.chain(pending).collect()
}

fn services(report: &Report) -> Vec<AgentService> {
    let services = report.services.iter().map(|s| AgentService {
        address: s.service.address,
        protocol: s.service.protocol,
        port: s.service.port,
        received_packets: s.received.packets,
        answered_packets: s.answered.packets,
    });
    services.collect()
}

fn containers(report: &Report) -> Vec<AgentContainer> {
    let containers = report.containers.iter().map(|c| AgentContainer {
        server: c.server.clone(),
        packets_per_sec: c.packets_per_sec,
        destinations: c.destinations,
        pressure: c.pressure,
        limited: c.limited,
    });
    containers.collect()
}

fn event(event: &weir_agent::protocol::Event) -> AgentEvent {
    AgentEvent { at: event.at, kind: event.kind.clone(), text: event.text.clone() }
}

/// Copies what nodes report to where monitoring finds it. `shown` are the nodes that are there already.
pub(crate) fn measure(metrics: &Metrics, server: &Server, shown: &mut BTreeSet<String>) {
    let (controller, at) = (server.controller(), now());
    let nodes = &controller.state().nodes;
    if !nodes.keys().eq(shown.iter()) {
        metrics.agent_up.reset();
        metrics.agent_rules.reset();
        metrics.agent_level.reset();
        metrics.agent_pressure.reset();
        metrics.agent_conntrack.reset();
        metrics.agent_dropped.reset();
        *shown = nodes.keys().cloned().collect();
    }
    let set = |family: &IntGaugeVec, labels: &[&str], value: u64| {
        family.with_label_values(labels).set(i64::try_from(value).unwrap_or(i64::MAX));
    };
    for (name, node) in nodes {
        let name = name.as_str();
        set(&metrics.agent_up, &[name], u64::from(connected(node, at)));
        let count = |state: &str, count: usize| {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            set(&metrics.agent_rules, &[name, state], count);
        };
        count(PENDING, untold(node).count());
        for state in STATES {
            count(word(state), said(node).iter().filter(|r| r.state == state).count());
        }
        for level in ["normal", "elevated", "constrained", "emergency"] {
            let is = node.report.as_ref().is_some_and(|r| r.level == level);
            set(&metrics.agent_level, &[name, level], u64::from(is));
        }
        for (what, percent) in ["cpu", "memory", "io"].into_iter().zip(pressure(node)) {
            metrics.agent_pressure.with_label_values(&[name, what]).set(percent / 100.0);
        }
        if let Some(share) = conntrack(node) {
            metrics.agent_conntrack.with_label_values(&[name]).set(share);
        }
        // Rules come and go with their counters: the sum may fall, so it is no counter.
        set(&metrics.agent_dropped, &[name], said(node).iter().map(|r| r.dropped.packets).sum());
    }
}
