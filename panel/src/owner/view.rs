//! What an owner reads: his server, in plain words, and nothing of his neighbours.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use weir_model::{Direction, Family, Incident, IncidentId, Measure, Millis, MitigationState};

use crate::snapshot::{PanelSnapshot, ServerView};

/// Most incidents shown.
const SHOWN_MAX: usize = 100;

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
    let active = |wide: bool| {
        incident.mitigations.iter().any(|m| {
            matches!(m.state, MitigationState::Active)
                && matches!(m.measure, Measure::Blackhole(_)) == wide
        })
    };
    match (incident.closed.is_some(), active(true), active(false)) {
        (true, ..) => "over",
        (_, true, _) => "your address is taken off the network until the attack ends",
        (_, _, true) => "the attack is being filtered; players get through",
        _ => "being watched",
    }
}
