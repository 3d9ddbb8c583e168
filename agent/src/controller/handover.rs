//! Who does what: which rules nodes get, and what routers get although a node has it.
//!
//! A node can do more than a router: answer SYNs with cookies, meter each source, spare the players that it
//! knows, stop what a server of its own sends. Where a verdict calls for one of these, it takes the place of
//! the ladder's rule on the node; when the node refuses it, the ladder's own rule is what it gets.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{
    Action, Direction, Family, Filter, Incident, IncidentId, IpNet, Match, Measure, Millis,
    Mitigation, MitigationState, Originator, Phase, Range, Service, Verdict,
};

use super::{Common, rule_id};
use crate::protocol::Block;
use crate::rules::{NodeAction, Rule, host, sent_by};

/// Sources that a per-source meter is good for: more do not fit, see the compiler's `METER_MAX`.
const METERED_MAX: f64 = 20_000.0;

/// What a single source may send: twice what the busiest games' clients do, packets a second.
const SOURCE_PACKETS_PER_SEC: u64 = 200;

/// Least cap of all strangers together, packets a second.
const CAP_MIN: u64 = 200;

/// What a server may send while it attacks: this many times what is normal for it.
const OUTBOUND_FACTOR: f64 = 1.5;

/// Least limit of what a server may send, packets a second.
const OUTBOUND_MIN: u64 = 1000;

/// Share of an attack that makes a source worth blocking by name, 0-1.
const BLOCK_SHARE: f64 = 0.01;

/// Confidence from which sources are blocked by name, 0-100. No verdict from flows alone reaches it: the detector gives
/// an HTTP flood 60 at most, because flows do not tell it from a launch (`docs/agents.md`).
const BLOCK_CONFIDENCE: u8 = 70;

/// Segment sizes that games' servers announce on Ethernet, by address family.
const MSS: (u16, u16) = (1460, 1440);

/// Window scale that Linux announces unless told otherwise.
const WSCALE: u8 = 7;

/// How long a rule of the controller's own holds at least, milliseconds. Ends are whole minutes, so that a
/// rule that stays is not a new version each second.
const HOLDS_MS: u64 = 120_000;

/// Time in which a node must have put a new rule in force before routers are asked after all, milliseconds.
const GRACE_MS: u64 = 2000;

/// A node without word for so long is away.
pub const AWAY_MS: u64 = 30_000;

/// The order in which nodes and routers get a rule for a host with an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HandOver {
    /// The node first; routers when the attack still goes on some seconds later.
    Before,
    /// Both at once.
    #[default]
    Beside,
    /// The node alone, as long as its link bears the attack.
    Instead,
}

/// Who gets a rule for a host with an agent, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The order.
    pub hand_over: HandOver,
    /// How long the node is left alone with [`HandOver::Before`], milliseconds.
    pub wait_ms: u64,
    /// Above this many bits a second towards the host, routers get the rule at once.
    pub link_bits_per_sec: u64,
}

/// What the appliance knows when it decides what nodes are to have.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// What the guard admitted.
    pub mitigations: &'a [Mitigation],
    /// Open incidents of which nodes may hear: their targets are protected and may be touched.
    pub incidents: &'a [Arc<Incident>],
    /// Services of all nodes.
    pub services: &'a [Service],
    /// What every node gets.
    pub common: &'a Common,
    /// Whether weir acts by itself. Otherwise nodes get what an operator approved and nothing beside it.
    pub alone: bool,
    /// Incidents about which nodes do nothing by themselves all the same: their group does not want it.
    pub restrained: &'a [IncidentId],
}

/// What one node gets out of a situation.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Work {
    pub(super) rules: Vec<Rule>,
    pub(super) incident: Option<IncidentId>,
    pub(super) targets: Vec<IpAddr>,
}

impl Situation<'_> {
    fn verdict(&self, m: &Mitigation) -> Option<&Verdict> {
        let Originator::Incident(id) = m.originator else { return None };
        self.incidents.iter().find(|i| i.id == id).map(|i| &i.verdict)
    }

    fn acts_on(&self, incident: &Incident) -> bool {
        self.alone && !self.restrained.contains(&incident.id)
    }

    /// The rules of a node with these addresses; `refused` tells which it could not put in force.
    pub(super) fn work(
        &self,
        addresses: &[IpAddr],
        refused: &dyn Fn(&str) -> bool,
        now: Millis,
    ) -> Work {
        let mut work = Work::default();
        let here = |net: &IpNet| addresses.iter().any(|a| net.contains(a));
        for m in self.mitigations.iter().filter(|m| m.state == MitigationState::Active) {
            let Measure::FlowSpec(filter) = &m.measure else { continue };
            if !here(&filter.packets.dst) {
                continue;
            }
            if let Originator::Incident(id) = m.originator {
                work.incident = work.incident.max(Some(id));
            }
            work.rules.extend(self.rules_of(m, filter, refused));
        }
        let open = self.incidents.iter().filter(|i| here(&i.verdict.target));
        for incident in open.filter(|i| i.verdict.phase != Phase::Ended) {
            if incident.verdict.direction == Direction::Inbound {
                work.incident = work.incident.max(Some(incident.id));
                let target = incident.verdict.target;
                work.targets.extend(host(target));
            }
            if self.acts_on(incident) {
                work.rules.extend(self.own_rules(incident, refused, now));
            }
        }
        work.targets.sort_unstable();
        work.targets.dedup();
        work
    }

    /// A mitigation's rules on a node.
    fn rules_of(
        &self,
        m: &Mitigation,
        filter: &Filter,
        refused: &dyn Fn(&str) -> bool,
    ) -> Vec<Rule> {
        let id = rule_id(m);
        let mut filter = filter.clone();
        let mut rules = Vec::new();
        if let Some(verdict) = self.verdict(m) {
            let cookies = format!("{id}.syn");
            let ports = self.proxied_ports(&filter, verdict);
            if !ports.is_empty() && !refused(&cookies) {
                rules.push(syn_proxy(cookies, filter.packets.dst, &ports, m.expires));
                if !filter.packets.dst_ports.is_empty() {
                    filter.packets.dst_ports = without(&filter.packets.dst_ports, &ports);
                    if filter.packets.dst_ports.is_empty() {
                        return rules;
                    }
                }
            }
            let metered = format!("{id}.src");
            if let Some(action) = per_source(&filter, verdict)
                && !refused(&metered)
            {
                let rule = Rule::from_filter(metered, &filter, m.expires);
                rules.extend(rule.map(|rule| Rule { action, ..rule }));
                return rules;
            }
        }
        rules.extend(Rule::from_filter(id, &filter, m.expires));
        rules
    }

    /// Service ports towards which a filter cuts SYNs of a SYN flood.
    fn proxied_ports(&self, filter: &Filter, verdict: &Verdict) -> Vec<u16> {
        const SYN: u8 = 2;
        let m = &filter.packets;
        let tcp = m.protocols.is_empty() || m.protocols.contains(&6);
        let syns = m.tcp_flags.is_empty() || m.tcp_flags.iter().any(|f| SYN & f.mask == f.set);
        // A filter that knows the attack by its source, port or length hits nobody else: better than cookies.
        let plain = m.src.is_none() && m.src_ports.is_empty() && m.fragment.is_none();
        let Some(address) = host(m.dst) else { return Vec::new() };
        if verdict.family != Family::SynFlood || !(tcp && syns && plain) {
            return Vec::new();
        }
        let meant = |port| m.dst_ports.is_empty() || m.dst_ports.iter().any(|r| r.contains(port));
        let own = self.services.iter().filter(|s| s.address == address && s.protocol == 6);
        own.map(|s| s.port).filter(|port| meant(*port)).take(64).collect()
    }

    /// What only nodes do, without a measure of the ladder behind it.
    fn own_rules(
        &self,
        incident: &Incident,
        refused: &dyn Fn(&str) -> bool,
        now: Millis,
    ) -> Vec<Rule> {
        let verdict = &incident.verdict;
        let Some(address) = host(verdict.target) else { return Vec::new() };
        let expires = Millis((now.0 + HOLDS_MS).next_multiple_of(60_000));
        let mut rules = match verdict.direction {
            Direction::Outbound => self.outbound(incident, address, expires),
            Direction::Inbound => known_first(incident, address, expires).into_iter().collect(),
        };
        rules.retain(|r| !refused(&r.id));
        rules
    }

    /// What a server of the node's own may send while it attacks others; its services go on answering.
    fn outbound(&self, incident: &Incident, address: IpAddr, expires: Millis) -> Vec<Rule> {
        let verdict = &incident.verdict;
        let mut packets = sent_by(verdict.target);
        packets.protocols = protocols(verdict, address);
        let normal = verdict.rate.packets_per_sec - verdict.excess.packets_per_sec;
        let limit = whole(normal * OUTBOUND_FACTOR).max(OUTBOUND_MIN);
        let rule = |id: String, packets: Match, action| Rule {
            id,
            direction: Direction::Outbound,
            packets,
            action,
            spare_learned: false,
            expires: Some(expires),
        };
        let mut rules = Vec::new();
        let own = self.services.iter().filter(|s| s.address == address);
        let attacks = |port: u16| verdict.vectors.iter().any(|v| v.src_ports.contains(&port));
        for protocol in [6, 17] {
            let wanted = packets.protocols.is_empty() || packets.protocols.contains(&protocol);
            let ports = own.clone().filter(|s| s.protocol == protocol && !attacks(s.port));
            let ports: Vec<Range> = ports.map(|s| Range::exact(s.port)).take(64).collect();
            if wanted && !ports.is_empty() {
                let mut answers = packets.clone();
                answers.protocols = vec![protocol];
                answers.src_ports = ports;
                let id = format!("i{}.answers{protocol}", incident.id);
                rules.push(rule(id, answers, NodeAction::Accept));
            }
        }
        let action = NodeAction::RatePackets { packets_per_sec: limit };
        rules.push(rule(format!("i{}.out", incident.id), packets, action));
        rules
    }

    /// Sources that open real connections and attack over them: no forged address completes a handshake.
    pub(super) fn blocked(&self, now: Millis) -> Vec<Block> {
        let mut blocked = self.common.blocked.clone();
        if !self.alone {
            return blocked;
        }
        let until = Millis((now.0 + HOLDS_MS).next_multiple_of(60_000));
        let spared = |source: IpAddr| {
            let services = self.services.iter().any(|s| s.address == source);
            services || self.common.allow.iter().any(|net| net.contains(&source))
        };
        for incident in self.incidents {
            let v = &incident.verdict;
            let sure = v.confidence >= BLOCK_CONFIDENCE && v.evidence_groups >= 2;
            let inbound = v.direction == Direction::Inbound && v.phase != Phase::Ended;
            let sure = sure && self.acts_on(incident);
            if v.family != Family::HttpFlood || !sure || !inbound {
                continue;
            }
            let named = v.top_sources.iter().filter(|s| s.share >= BLOCK_SHARE);
            let sources = named.filter_map(|s| s.value.parse::<IpAddr>().ok());
            blocked.extend(
                sources.filter(|s| !spared(*s)).map(|s| Block { source: IpNet::from(s), until }),
            );
        }
        blocked.sort_unstable();
        blocked.dedup_by_key(|b| b.source);
        blocked
    }
}

impl Policy {
    /// Whether routers are to wait with a measure that a node has in force, or is about to.
    pub fn holds_back(
        &self,
        m: &Mitigation,
        verdict: Option<&Verdict>,
        defended: bool,
        now: Millis,
    ) -> bool {
        let Measure::FlowSpec(filter) = &m.measure else { return false };
        let redirect = matches!(filter.action, Action::Redirect(_) | Action::Mark { .. });
        // What a person asked for is done where it was asked for.
        let asked = matches!(m.originator, Originator::Operator(_));
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let link = self.link_bits_per_sec as f64;
        let bears = verdict.is_none_or(|v| v.rate.bits_per_sec < link);
        if redirect || asked || !bears || !defended {
            return false;
        }
        match self.hand_over {
            HandOver::Beside => false,
            HandOver::Before => now.since(m.since) < self.wait_ms,
            HandOver::Instead => true,
        }
    }
}

/// Whether a node that has not confirmed a rule yet may still be about to.
pub(super) fn in_grace(m: &Mitigation, now: Millis) -> bool {
    now.since(m.since) < GRACE_MS
}

fn syn_proxy(id: String, dst: IpNet, ports: &[u16], expires: Millis) -> Rule {
    let mut packets = Match::to(dst);
    packets.protocols = vec![6];
    packets.dst_ports = ports.iter().map(|p| Range::exact(*p)).collect();
    let mss = if dst.addr().is_ipv4() { MSS.0 } else { MSS.1 };
    Rule {
        id,
        direction: Direction::Inbound,
        packets: packets.normalise(),
        action: NodeAction::SynProxy { mss, wscale: WSCALE },
        spare_learned: false,
        expires: Some(expires),
    }
}

/// A limit's meter, when few sources send much each: the cap then is left to the others.
fn per_source(filter: &Filter, verdict: &Verdict) -> Option<NodeAction> {
    let Filter { packets, action } = filter;
    let each = verdict.excess.packets_per_sec / verdict.sources.max(1.0);
    #[expect(clippy::cast_precision_loss, reason = "a small constant")]
    let heavy = each > 2.0 * SOURCE_PACKETS_PER_SEC as f64;
    if packets.src.is_some() || verdict.sources > METERED_MAX || !heavy {
        return None;
    }
    let cap = match *action {
        Action::RateLimitPackets { packets_per_sec } => packets_per_sec,
        Action::RateLimit { bytes_per_sec } => {
            let length = verdict.rate.bits_per_sec / 8.0 / verdict.rate.packets_per_sec.max(1.0);
            bytes_per_sec / whole(length).clamp(40, 1500)
        }
        Action::Drop | Action::Redirect(_) | Action::Mark { .. } => return None,
    };
    Some(NodeAction::PerSource {
        packets_per_sec: SOURCE_PACKETS_PER_SEC,
        burst: 400,
        cap_packets_per_sec: cap.max(CAP_MIN),
    })
}

/// Where no match tells the attack from players, a node still knows its players: they pass, strangers share
/// what is normal.
fn known_first(incident: &Incident, address: IpAddr, expires: Millis) -> Option<Rule> {
    let verdict = &incident.verdict;
    let decided = |m: &Mitigation| m.state != MitigationState::Refused;
    if verdict.separable || incident.held || incident.mitigations.iter().any(decided) {
        return None;
    }
    let mut packets = Match::to(verdict.target);
    packets.protocols = protocols(verdict, address);
    if let Some((protocol, port)) = verdict.reason.service {
        packets.protocols = vec![protocol];
        packets.dst_ports = vec![Range::exact(port)];
    }
    let normal = verdict.rate.packets_per_sec - verdict.excess.packets_per_sec;
    Some(Rule {
        id: format!("i{}.known", incident.id),
        direction: Direction::Inbound,
        packets,
        action: NodeAction::RatePackets { packets_per_sec: whole(normal * 2.0).max(CAP_MIN) },
        spare_learned: true,
        expires: Some(expires),
    })
}

/// Protocols of an attack, by its family; empty where it has several.
fn protocols(verdict: &Verdict, address: IpAddr) -> Vec<u8> {
    match verdict.family {
        Family::UdpFlood | Family::DnsFlood => vec![17],
        Family::SynFlood | Family::TcpFlood | Family::HttpFlood => vec![6],
        Family::IcmpFlood => vec![if address.is_ipv4() { 1 } else { 58 }],
        Family::FragmentFlood | Family::MultiVector | Family::Unknown => Vec::new(),
    }
}

/// Ranges less some ports.
fn without(ranges: &[Range], ports: &[u16]) -> Vec<Range> {
    let mut left = Vec::new();
    for range in ranges {
        let mut from = Some(range.from);
        let mut holes: Vec<u16> = ports.iter().copied().filter(|p| range.contains(*p)).collect();
        holes.sort_unstable();
        for hole in holes {
            let Some(start) = from else { break };
            if hole > start {
                left.push(Range { from: start, to: hole - 1 });
            }
            from = hole.checked_add(1);
        }
        if let Some(start) = from.filter(|start| *start <= range.to) {
            left.push(Range { from: start, to: range.to });
        }
    }
    left
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
