//! GoBGP through its gRPC interface: routes and attributes as octets, in and out.
//!
//! weir's own routes are those that GoBGP originates itself and that carry weir's mark, with a
//! number made of their content. A route of the operator's for the same packets stays: GoBGP has
//! room for one of its own, and weir says that its route did not fit. The interface has neither
//! passwords nor encryption here: let GoBGP listen for it on loopback or a Unix socket only.

mod grpc;
mod proto;

use std::collections::BTreeMap;
use std::net::IpAddr;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use weir_model::{IpNet, Measure};

use super::{
    AdapterConfig, AdapterError, MARK, PATIENCE, Refused, TAKEN, Wanted, action_community, number,
};
use crate::config::Community;
use crate::flowspec::Afi;
use crate::rib::{Route, RouteKey};
use crate::wire::Family;
use grpc::{CallError, Channel};
use proto::{AddPathRequest, DeletePathRequest, ListPathRequest, ListPathResponse, Nothing, Path};

/// Services by version of the API, with their number of the table of all routes.
const SERVICES: [(&str, i32); 2] = [("apipb.GobgpApi", 0), ("api.GoBgpService", 1)];

/// Calls that wait for their answers at a time.
const PIPELINE: usize = 64;

/// What GoBGP originates under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    /// The number in weir's mark; without it the route is the operator's.
    number: Option<u32>,
    /// As read, to be deleted by.
    path: Path,
}

type Present = BTreeMap<RouteKey, Own>;

type Paths = Vec<(RouteKey, Path)>;

/// Brings GoBGP to what is wanted.
pub(super) async fn converge(
    config: &AdapterConfig,
    wanted: &Wanted,
) -> Result<Refused, AdapterError> {
    let mut client = Client::open(config).await?;
    let mut present = Present::new();
    for family in config.originates().iter() {
        client.list(config, family, &mut present).await?;
    }
    let (additions, deletions, mut refused) = changes(config, wanted, &present);
    for (key, why) in client.apply("AddPath", &additions).await? {
        refused.insert(key, why);
    }
    let failed = client.apply("DeletePath", &deletions).await?;
    match failed.into_iter().next() {
        Some((_, why)) => Err(AdapterError::Refused(why)),
        None => Ok(refused),
    }
}

struct Client {
    channel: Channel,
    service: &'static str,
    table: i32,
}

impl Client {
    async fn open(config: &AdapterConfig) -> Result<Self, AdapterError> {
        let control = config.control();
        let mut channel = match control.to_str().filter(|c| !c.contains('/')) {
            Some(address) => {
                let dialled = timeout(PATIENCE, TcpStream::connect(address)).await;
                let stream = dialled.map_err(|_| AdapterError::Timeout)??;
                // Small messages that must not wait for each other.
                stream.set_nodelay(true)?;
                Channel::open(stream).await?
            }
            None => Channel::open(UnixStream::connect(&control).await?).await?,
        };
        for (service, table) in SERVICES {
            match channel.call::<Nothing>(service, "GetBgp", &Nothing {}).await {
                Ok(Nothing {}) => return Ok(Self { channel, service, table }),
                Err(CallError::Unimplemented) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(CallError::Unimplemented.into())
    }

    /// What GoBGP originates of a family.
    async fn list(
        &mut self,
        config: &AdapterConfig,
        family: Family,
        present: &mut Present,
    ) -> Result<(), AdapterError> {
        let question = ListPathRequest {
            table_type: self.table,
            family: Some(codes(family)),
            enable_nlri_binary: true,
            enable_attribute_binary: true,
            enable_only_binary: true,
        };
        let call = self.channel.ask(self.service, "ListPath", &question).await?;
        call.answers(|answer: ListPathResponse| {
            let paths = answer.destination.map(|d| d.paths).unwrap_or_default();
            for path in paths.into_iter().filter(is_local) {
                if let Some(key) = key(family, &path.nlri_binary) {
                    let number = mark(config, &path);
                    present.insert(key, Own { number, path });
                }
            }
        })
        .await?;
        Ok(())
    }

    /// Makes changes, several at a time; what was refused, and why.
    async fn apply(
        &mut self,
        method: &str,
        changes: &[(RouteKey, Path)],
    ) -> Result<Vec<(RouteKey, String)>, AdapterError> {
        let mut refused = Vec::new();
        for batch in changes.chunks(PIPELINE) {
            let mut calls = Vec::new();
            for (key, path) in batch {
                let call = match method {
                    "AddPath" => {
                        let question =
                            AddPathRequest { table_type: self.table, path: Some(path.clone()) };
                        self.channel.ask(self.service, method, &question).await?
                    }
                    _ => {
                        let Some(question) = deletion(self.table, path) else { continue };
                        self.channel.ask(self.service, method, &question).await?
                    }
                };
                calls.push((key, call));
            }
            for (key, call) in calls {
                match call.answer::<Nothing>().await {
                    Ok(Nothing {}) => {}
                    Err(CallError::Refused(why)) => refused.push((key.clone(), why)),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(refused)
    }
}

/// A deletion of exactly one route. GoBGP takes one without a path for the wish to delete all of
/// the family, the operator's routes too: such a message is never made.
fn deletion(table: i32, path: &Path) -> Option<DeletePathRequest> {
    let whole = path.family.is_some() && !path.nlri_binary.is_empty();
    whole.then(|| DeletePathRequest {
        table_type: table,
        family: path.family,
        path: Some(Path { is_withdraw: true, ..path.clone() }),
    })
}

/// What is to be added, what is to be deleted, and what cannot be had.
fn changes(config: &AdapterConfig, wanted: &Wanted, present: &Present) -> (Paths, Paths, Refused) {
    let mut additions = Vec::new();
    let mut refused = Refused::new();
    for (key, route) in wanted {
        let number = number(config, key, route);
        match present.get(key) {
            Some(Own { number: None, .. }) => {
                refused.insert(key.clone(), TAKEN.to_owned());
            }
            Some(own) if own.number == Some(number) => {}
            _ => match path(config, key, route, number) {
                Some(path) => additions.push((key.clone(), path)),
                None => {
                    refused.insert(key.clone(), "its attributes are too long".to_owned());
                }
            },
        }
    }
    let deletions = present
        .iter()
        .filter(|(key, own)| own.number.is_some() && !wanted.contains_key(*key))
        .map(|(key, own)| {
            let family = Some(codes(key.family()));
            (key.clone(), Path { family, ..own.path.clone() })
        })
        .collect();
    (additions, deletions, refused)
}

fn codes(family: Family) -> proto::Family {
    let (afi, safi) = family.code();
    proto::Family { afi: i32::from(afi), safi: i32::from(safi) }
}

/// Whether GoBGP originates it, and did not learn it from a router.
fn is_local(path: &Path) -> bool {
    // Version 3 prints an address that is not there as Go does.
    matches!(&path.neighbor_ip[..], "" | "<nil>" | "invalid IP" | "0.0.0.0" | "::")
}

/// The key of a route as it is on the wire.
fn key(family: Family, nlri: &[u8]) -> Option<RouteKey> {
    match family {
        Family::Ipv4FlowSpec => Some(RouteKey::Flow(Afi::Ipv4, nlri.to_vec())),
        Family::Ipv6FlowSpec => Some(RouteKey::Flow(Afi::Ipv6, nlri.to_vec())),
        Family::Ipv4Unicast => Some(RouteKey::Unicast(net::<4>(nlri)?)),
        Family::Ipv6Unicast => Some(RouteKey::Unicast(net::<16>(nlri)?)),
    }
}

/// `| length in bits (1) | prefix, as many octets as that takes |`
fn net<const N: usize>(nlri: &[u8]) -> Option<IpNet>
where
    IpAddr: From<[u8; N]>,
{
    let (len, prefix) = nlri.split_first()?;
    let mut octets = [0; N];
    octets.get_mut(..prefix.len())?.copy_from_slice(prefix);
    IpNet::new(octets.into(), *len).ok().map(|net| net.trunc())
}

/// The number in weir's mark, if the route carries it.
fn mark(config: &AdapterConfig, path: &Path) -> Option<u32> {
    let of = |octets: &[u8]| {
        let (words, _) = octets.as_chunks::<4>();
        match words.iter().map(|w| u32::from_be_bytes(*w)).collect::<Vec<_>>()[..] {
            [asn, MARK, number] if asn == config.local_as => Some(number),
            _ => None,
        }
    };
    path.pattrs_binary.iter().find_map(|attribute| {
        let value = match attribute[..] {
            [flags, LARGE_COMMUNITIES, ..] if flags & EXTENDED_LENGTH != 0 => attribute.get(4..)?,
            [_, LARGE_COMMUNITIES, ..] => attribute.get(3..)?,
            _ => return None,
        };
        value.as_chunks::<12>().0.iter().find_map(|community| of(community))
    })
}

const EXTENDED_LENGTH: u8 = 0x10;
const WELL_KNOWN: u8 = 0x40;
const OPTIONAL: u8 = 0x80;
const OPTIONAL_TRANSITIVE: u8 = 0xc0;
const LARGE_COMMUNITIES: u8 = 32;

/// A route as GoBGP is given it; `None` when an attribute is too long.
fn path(config: &AdapterConfig, key: &RouteKey, route: &Route, number: u32) -> Option<Path> {
    let mut list = vec![attribute(WELL_KNOWN, 1, &[0])?];
    let (nlri, mut communities) = match key {
        RouteKey::Unicast(net) => (unicast_nlri(*net), config.communities.clone()),
        RouteKey::Flow(_, nlri) => (nlri.clone(), Vec::new()),
    };
    match (key, config.next_hop(route.measure.target())) {
        (RouteKey::Unicast(_), IpAddr::V4(hop)) => {
            list.push(attribute(WELL_KNOWN, 3, &hop.octets())?);
        }
        (RouteKey::Unicast(_), IpAddr::V6(hop)) => {
            let mut reach = vec![0, 2, 1, 16];
            reach.extend_from_slice(&hop.octets());
            reach.push(0);
            reach.extend_from_slice(&nlri);
            list.push(attribute(OPTIONAL, 14, &reach)?);
        }
        // GoBGP wants a next hop of everything; to rules it means nothing.
        (RouteKey::Flow(..), _) => list.push(attribute(WELL_KNOWN, 3, &[0; 4])?),
    }
    if let Measure::FlowSpec(_) = route.measure {
        communities.extend(action_community(route).0.map(Community::Extended));
    }
    let (mut standard, mut extended, mut large) = (Vec::new(), Vec::new(), Vec::new());
    for community in communities {
        match community {
            Community::Standard(value) => standard.extend(value.to_be_bytes()),
            Community::Extended(octets) => extended.extend(octets),
            Community::Large(c) => {
                large.extend([c.asn, c.first, c.second].into_iter().flat_map(u32::to_be_bytes));
            }
        }
    }
    large.extend([config.local_as, MARK, number].into_iter().flat_map(u32::to_be_bytes));
    for (code, value) in [(8, standard), (16, extended), (LARGE_COMMUNITIES, large)] {
        if !value.is_empty() {
            list.push(attribute(OPTIONAL_TRANSITIVE, code, &value)?);
        }
    }
    Some(Path {
        family: Some(codes(key.family())),
        nlri_binary: nlri,
        pattrs_binary: list,
        ..Path::default()
    })
}

fn unicast_nlri(net: IpNet) -> Vec<u8> {
    let octets = match net.network() {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let mut nlri = vec![net.prefix_len()];
    nlri.extend_from_slice(&octets[..usize::from(net.prefix_len().div_ceil(8))]);
    nlri
}

fn attribute(flags: u8, code: u8, value: &[u8]) -> Option<Vec<u8>> {
    let mut octets = match u8::try_from(value.len()) {
        Ok(length) => vec![flags, code, length],
        Err(_) => {
            let [high, low] = u16::try_from(value.len()).ok()?.to_be_bytes();
            vec![flags | EXTENDED_LENGTH, code, high, low]
        }
    };
    octets.extend_from_slice(value);
    Some(octets)
}

#[cfg(test)]
mod tests;
