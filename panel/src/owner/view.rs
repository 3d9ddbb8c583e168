//! What an owner reads: his server, in plain words, and nothing of his neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{Direction, Family, Incident, IncidentId, Measure, Millis, Mitigation};

use crate::snapshot::{PanelSnapshot, ServerView};

/// Most incidents shown.
const SHOWN_MAX: usize = 100;

/// Fewer samples of normal traffic than this say nothing about how the players fare.
const GOODPUT_SAMPLES_MIN: f64 = 15.0;

/// From this share of normal traffic on players are said to get through, 0-1.
const GOODPUT_SHARE: f64 = 0.8;

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Watched, and quiet.
    Protected,
    /// Attacked at this moment.
    UnderAttack,
    /// Another server on the same address is attacked at this moment.
    NeighbourUnderAttack,
    /// Not on a protected address.
    NotProtected,
}

/// What an owner sees of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerView {
    /// UUID.
    pub uuid: String,
    /// Name.
    pub name: String,
    /// Game.
    pub game: String,
    /// Name of the node.
    pub node: String,
    /// How it stands.
    pub protection: Protection,
    /// The same in a sentence.
    pub sentence: String,
    /// When the panel was last read.
    pub as_of: Millis,
    /// Incidents that concern it, the newest first.
    pub incidents: Vec<OwnerIncident>,
}

/// An incident as its victim's owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerIncident {
    /// Number, to quote to support.
    pub id: IncidentId,
    /// Begin.
    pub from: Millis,
    /// End; `None` while it goes on.
    pub to: Option<Millis>,
    /// What it is, in plain words.
    pub what: String,
    /// Ports of the server that it aims at.
    pub ports: Vec<u16>,
    /// What is done, in plain words.
    pub done: String,
    /// Largest rate, megabits per second.
    pub peak_mbit_per_sec: u64,
}

impl OwnerView {
    /// One server as its owner sees it; `incidents` come newest first.
    pub fn build(
        snapshot: &PanelSnapshot,
        server: &ServerView,
        incidents: &[Arc<Incident>],
    ) -> Self {
        let own: Vec<_> = snapshot.allocations.iter().filter(|a| a.server == server.id).collect();
        let addresses: BTreeSet<IpAddr> =
            own.iter().flat_map(|a| a.addresses.iter().copied()).collect();
        let mut shown = Vec::new();
        let mut neighbour = false;
        for incident in incidents {
            let verdict = &incident.verdict;
            let hit: Vec<IpAddr> =
                addresses.iter().copied().filter(|a| verdict.target.contains(a)).collect();
            if hit.is_empty() || verdict.direction != Direction::Inbound {
                continue;
            }
            let aimed: BTreeSet<u16> =
                verdict.vectors.iter().flat_map(|v| v.dst_ports.iter().copied()).collect();
            let ports: Vec<u16> = own
                .iter()
                .filter(|a| a.addresses.iter().any(|x| hit.contains(x)) && aimed.contains(&a.port))
                .map(|a| a.port)
                .collect();
            // Ports of another server on this address: its owner's business alone.
            let others = snapshot.allocations.iter().any(|a| {
                a.server != server.id
                    && aimed.contains(&a.port)
                    && a.addresses.iter().any(|x| hit.contains(x))
            });
            if ports.is_empty() && others {
                neighbour |= incident.closed.is_none();
            } else if shown.len() < SHOWN_MAX {
                shown.push(owner_incident(incident, ports));
            }
        }
        let attacked = shown.iter().any(|i| i.to.is_none());
        let protection = match (addresses.is_empty(), attacked, neighbour) {
            (true, ..) => Protection::NotProtected,
            (_, true, _) => Protection::UnderAttack,
            (_, _, true) => Protection::NeighbourUnderAttack,
            _ => Protection::Protected,
        };
        let node = snapshot.nodes.iter().find(|n| n.id == server.node);
        Self {
            uuid: server.uuid.clone(),
            name: server.name.clone(),
            game: server.game.clone(),
            node: node.map_or_else(String::new, |n| n.name.clone()),
            protection,
            sentence: sentence(protection).to_owned(),
            as_of: snapshot.taken,
            incidents: shown,
        }
    }
}

const fn sentence(protection: Protection) -> &'static str {
    match protection {
        Protection::Protected => "Your server is protected. Nothing unusual is going on.",
        Protection::UnderAttack => "Your server is being attacked right now. We are on it.",
        Protection::NeighbourUnderAttack => {
            "Another server on the same address is being attacked. You may notice it for a while."
        }
        Protection::NotProtected => {
            "Your server has no address that we protect. Please ask your provider."
        }
    }
}

fn owner_incident(incident: &Incident, mut ports: Vec<u16>) -> OwnerIncident {
    ports.sort_unstable();
    ports.dedup();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people; `as` saturates"
    )]
    let peak = (incident.verdict.peak.bits_per_sec / 1e6).max(0.0).round() as u64;
    OwnerIncident {
        id: incident.id,
        from: incident.opened,
        to: incident.closed,
        what: plain(incident.verdict.family).to_owned(),
        ports,
        done: done(incident).to_owned(),
        peak_mbit_per_sec: peak,
    }
}

/// What an attack is, for people who do not run networks.
pub const fn plain(family: Family) -> &'static str {
    match family {
        Family::UdpFlood => "a flood of data that nobody asked for",
        Family::SynFlood => "a flood of connection attempts that are never completed",
        Family::TcpFlood => "a flood of broken connection data",
        Family::HttpFlood => "a flood of web requests",
        Family::IcmpFlood => "a flood of pings",
        Family::DnsFlood => "a flood of name look-ups",
        Family::FragmentFlood => "a flood of torn-up packets",
        Family::MultiVector => "several kinds of attack at once",
        Family::Unknown => "far more traffic than usual",
    }
}

fn done(incident: &Incident) -> &'static str {
    let in_force = |wide: bool| {
        let of_kind = |m: &Mitigation| matches!(m.measure, Measure::Blackhole(_)) == wide;
        incident.mitigations.iter().any(|m| m.is_in_force() && of_kind(m))
    };
    let play = incident.verdict.legitimate.is_some_and(|g| {
        let enough = g.expected_samples >= GOODPUT_SAMPLES_MIN;
        enough && g.now.packets_per_sec >= GOODPUT_SHARE * g.normal.packets_per_sec
    });
    match (incident.closed.is_some(), in_force(true), in_force(false)) {
        (true, ..) => "over",
        (_, true, _) => "your address is taken off the network until the attack ends",
        (_, _, true) if play => "the attack is being filtered; players get through",
        (_, _, true) => "the attack is being filtered",
        _ => "being watched",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attack with one rule, in the parts that an owner is told of.
    fn incident(state: &str, peers: &[&str], players: Option<f64>) -> Incident {
        let rate = |n: f64| serde_json::json!({"packets_per_sec": n, "bits_per_sec": n});
        let goodput = players.map(|share| {
            serde_json::json!({"now": rate(share * 100.0), "normal": rate(100.0), "expected_samples": 50.0})
        });
        let incident = serde_json::json!({
            "id": "1", "state": "open", "opened": 0, "closed": null, "rung": "drop", "held": false,
            "timeline": [],
            "verdict": {
                "incident": "1", "phase": "ongoing", "at": 0, "target": "203.0.113.7/32",
                "direction": "inbound", "family": "udp-flood", "vectors": [], "confidence": 90,
                "evidence_groups": 2, "separable": true, "rate": rate(1.0), "peak": rate(1.0),
                "excess": rate(1.0), "discarded": rate(0.0), "legitimate": goodput, "sources": 1.0,
                "reason": {
                    "metric": "packets-per-sec", "value": 1.0, "baseline": 0.5, "multiplier": 3.0,
                    "threshold": 0.9, "window_ms": 1000, "samples": 100.0, "sampling": 1.0,
                    "exporters": [], "service": null
                },
                "candidates": [], "top_sources": [], "summary": ""
            },
            "mitigations": [{
                "id": 1, "originator": {"incident": "1"}, "rung": "drop", "state": state, "since": 0,
                "measure": {"flow-spec": {"packets": {"dst": "203.0.113.7/32"}, "action": "drop"}},
                "expires": 1, "ended": null, "peers": peers, "note": ""
            }]
        });
        serde_json::from_value(incident).unwrap()
    }

    #[test]
    fn an_owner_is_told_of_a_filter_when_somebody_has_it_and_of_players_when_they_were_measured() {
        let check = |state: &str, peers: &[&str], players: Option<f64>, wanted: &str| {
            let told = done(&incident(state, peers, players));
            assert_eq!(told, wanted, "{state} {peers:?} {players:?}");
        };
        check("simulated", &[], Some(1.0), "being watched");
        check("proposed", &[], Some(1.0), "being watched");
        check("active", &[], Some(1.0), "being watched");
        check("active", &["edge"], None, "the attack is being filtered");
        check("active", &["edge"], Some(0.2), "the attack is being filtered");
        let good = "the attack is being filtered; players get through";
        check("active", &["agent:node1"], Some(0.95), good);
    }
}
