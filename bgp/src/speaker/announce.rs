//! A change of a peer's table as an UPDATE.

use std::net::IpAddr;

use weir_model::{IpNet, Measure};

use crate::adapter::MARK;
use crate::config::{Community, PeerConfig};
use crate::flowspec;
use crate::fsm::Negotiated;
use crate::reach::Hops;
use crate::rib::{Change, Route, RouteKey};
use crate::wire::{self, Attributes, LargeCommunity, WriteError};

/// Writes one peer's UPDATEs.
#[derive(Debug)]
pub(super) struct Writer {
    black_hole: Attributes,
    /// Of black holes that are no single host.
    covering: Attributes,
    flow: Attributes,
    divert: Attributes,
    hops: Hops,
    next_hop4: IpAddr,
    next_hop6: IpAddr,
    mark_as: Option<u32>,
}

impl Writer {
    pub(super) fn new(peer: &PeerConfig, local_as: u32, negotiated: &Negotiated) -> Self {
        let base = Attributes {
            prepend: (local_as != peer.remote_as).then_some(local_as),
            as4: negotiated.as4,
            local_pref: peer.local_pref,
            ..Attributes::default()
        };
        let scope =
            [(peer.no_export, Community::NO_EXPORT), (peer.no_advertise, Community::NO_ADVERTISE)];
        let scope: Vec<Community> =
            scope.into_iter().filter_map(|(on, community)| on.then_some(community)).collect();
        let black_hole = with(with(base.clone(), &peer.communities), &scope);
        let covering = if peer.covering_communities.is_empty() {
            black_hole.clone()
        } else {
            with(with(base.clone(), &peer.covering_communities), &scope)
        };
        let mut divert = base.clone();
        if let Some(own) = &peer.divert {
            divert.local_pref = own.local_pref;
            divert = with(divert, &own.communities);
            if own.no_export {
                divert = with(divert, &[Community::NO_EXPORT]);
            }
        }
        Self {
            black_hole,
            covering,
            flow: with(base, &peer.flowspec_communities),
            divert,
            hops: peer.reach().divert,
            next_hop4: peer.next_hop4.into(),
            next_hop6: peer.next_hop6.into(),
            mark_as: peer.mark.then_some(local_as),
        }
    }

    pub(super) fn write(&self, change: &Change) -> Result<Vec<u8>, WriteError> {
        match change {
            Change::EndOfRib(family) => wire::end_of_rib(*family),
            Change::Withdraw { key: RouteKey::Unicast(net), .. } => wire::withdraw_unicast(*net),
            Change::Withdraw { key: RouteKey::Flow(afi, nlri), .. } => {
                wire::withdraw_flow(*afi, nlri)
            }
            Change::Announce { key: RouteKey::Unicast(net), route, .. } => {
                let hole =
                    if matches!(net, IpNet::V4(_)) { self.next_hop4 } else { self.next_hop6 };
                let (next_hop, attributes) = match route.measure {
                    // A table holds a diversion only where the peer has a next hop for it.
                    Measure::Divert(_) => (self.hops.of(*net).unwrap_or(hole), &self.divert),
                    _ if net.prefix_len() < net.max_prefix_len() => (hole, &self.covering),
                    _ => (hole, &self.black_hole),
                };
                wire::announce_unicast(*net, next_hop, &self.marked(attributes, route))
            }
            Change::Announce { key: RouteKey::Flow(afi, nlri), route, .. } => {
                let mut attributes = self.marked(&self.flow, route);
                if let Measure::FlowSpec(filter) = &route.measure {
                    let (community, community6) = flowspec::communities(&filter.action);
                    attributes.extended.extend(community);
                    attributes.extended6.extend(community6);
                }
                wire::announce_flow(*afi, nlri, &attributes)
            }
        }
    }

    fn marked(&self, attributes: &Attributes, route: &Route) -> Attributes {
        let mut attributes = attributes.clone();
        attributes.large.extend(self.mark_as.map(|asn| LargeCommunity {
            asn,
            first: MARK,
            second: route.incident,
        }));
        attributes
    }
}

fn with(mut attributes: Attributes, communities: &[Community]) -> Attributes {
    for community in communities {
        match community {
            Community::Standard(value) if !attributes.communities.contains(value) => {
                attributes.communities.push(*value);
            }
            Community::Standard(_) => {}
            Community::Extended(octets) => attributes.extended.push(*octets),
            Community::Large(large) => attributes.large.push(*large),
        }
    }
    attributes
}
