//! Other people's BGP daemons, driven where weir is not to speak BGP itself.
//!
//! Each adapter observes what is in the daemon under weir's mark, compares it with what is wanted
//! and changes only the difference; routes of others are never touched. It does so whenever the
//! desired state changes and every [`RECONCILE`], so that a daemon that was restarted gets its
//! routes again. What is said to a daemon and read from it is built by pure functions beside the
//! code that carries it.
//!
//! Unlike a session, a daemon keeps what it was told when weir is killed. What is left over is
//! found by its mark when weir starts again; [`release`] takes it out without a running weir.

pub mod bird;
pub mod exabgp;
pub mod frr;
pub mod gobgp;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use weir_model::{IpNet, Measure, Observed, PeerStanding, PeerState, PeerStatus};

use crate::config::{
    Community, blackhole_communities, check_next_hops, default_next_hop4, default_next_hop6,
};
use crate::flowspec;
use crate::guard::Admitted;
use crate::profile::Profile;
use crate::reach::Reach;
use crate::rib::{AdjRibOut, Refusal, Route, RouteKey};
use crate::speaker::{Word, wall};
use crate::wire::{Families, Family};

/// How often a daemon is looked at without a reason: for so long a restarted one may be without
/// its routes.
const RECONCILE: Duration = Duration::from_secs(10);

/// Wait before a daemon that could not be reached is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// How long taking everything back may last when weir stops.
pub(crate) const FAREWELL: Duration = Duration::from_secs(10);

/// Longest wait for a daemon's answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// First value of the large community that marks weir's own routes: `weir` in ASCII.
pub(crate) const MARK: u32 = 0x7765_6972;

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// BIRD 2, by a generated include file and its control socket.
    Bird,
    /// ExaBGP 4, by its named pipes.
    Exabgp,
    /// GoBGP 3 or 4, by its gRPC interface.
    Gobgp,
    /// FRRouting, by `vtysh`: black-hole routes only, because it cannot originate FlowSpec.
    Frr,
}

/// One daemon, under `[[bgp.adapter]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterConfig {
    /// Name in logs and reports; unique among peers and adapters.
    pub name: String,
    /// Which daemon.
    pub kind: Kind,
    /// BIRD: its control socket (`/run/bird/bird.ctl`). ExaBGP: its pipes without `.in` and
    /// `.out` (`/run/exabgp/exabgp`). FRR: its vty directory (`/var/run/frr`). GoBGP: where it
    /// listens for gRPC, an address and port or the path of a socket (`127.0.0.1:50051`).
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// BIRD: the file that its configuration includes, written by weir.
    #[serde(default)]
    pub include: Option<PathBuf>,
    /// ExaBGP: the neighbours that get the routes.
    #[serde(default)]
    pub neighbors: Vec<IpAddr>,
    /// AS number of the daemon, of which weir's mark is made and into which FRR's routes go.
    pub local_as: u32,
    /// Families handed over.
    #[serde(default = "all_families")]
    pub families: Vec<Family>,
    /// What the routers behind the daemon can take.
    #[serde(default)]
    pub profile: Profile,
    /// Next hop of IPv4 black-hole routes.
    #[serde(default = "default_next_hop4")]
    pub next_hop4: Ipv4Addr,
    /// Next hop of IPv6 black-hole routes.
    #[serde(default = "default_next_hop6")]
    pub next_hop6: Ipv6Addr,
    /// Communities of black-hole routes.
    #[serde(default = "blackhole_communities")]
    pub communities: Vec<Community>,
}

fn all_families() -> Vec<Family> {
    Family::ALL.to_vec()
}

impl AdapterConfig {
    /// Checks what the types cannot: the field at fault, and why.
    ///
    /// # Errors
    /// The field and the reason.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        match self.kind {
            Kind::Bird if self.include.is_none() => Err(("include", "is not set".into())),
            Kind::Exabgp if self.neighbors.is_empty() => Err(("neighbors", "is empty".into())),
            _ if self.name.is_empty() => Err(("name", "is empty".into())),
            _ if matches!(self.local_as, 0 | 23456 | u32::MAX) => {
                Err(("local_as", "is not an AS number".into()))
            }
            _ if self.originates().is_empty() => {
                Err(("families", "none that such a daemon can originate".into()))
            }
            _ => check_next_hops(self.next_hop4, self.next_hop6),
        }
    }

    /// Whether `next` is about another daemon, or another name for weir's routes in it: then everything is
    /// taken out here before anything is put in there.
    pub(crate) fn is_another_daemon(&self, next: &Self) -> bool {
        (self.kind, self.control(), &self.include, self.local_as)
            != (next.kind, next.control(), &next.include, next.local_as)
    }

    /// What the daemon can be given at all.
    pub fn reach(&self) -> Reach {
        let mut capabilities = self.profile.capabilities();
        // Whatever the routers behind it take.
        capabilities.redirect_as4 &= self.kind != Kind::Exabgp;
        Reach::new(self.originates(), capabilities)
    }

    fn control(&self) -> PathBuf {
        self.control.clone().unwrap_or_else(|| {
            PathBuf::from(match self.kind {
                Kind::Bird => "/run/bird/bird.ctl",
                Kind::Exabgp => "/run/exabgp/exabgp",
                Kind::Frr => "/var/run/frr",
                Kind::Gobgp => "127.0.0.1:50051",
            })
        })
    }

    /// What this kind of daemon can originate at all.
    fn originates(&self) -> Families {
        let families: Families = self.families.iter().copied().collect();
        match self.kind {
            Kind::Bird | Kind::Exabgp | Kind::Gobgp => families,
            Kind::Frr => {
                families.and([Family::Ipv4Unicast, Family::Ipv6Unicast].into_iter().collect())
            }
        }
    }

    fn next_hop(&self, net: IpNet) -> IpAddr {
        match net {
            IpNet::V4(_) => self.next_hop4.into(),
            IpNet::V6(_) => self.next_hop6.into(),
        }
    }
}

/// Why a daemon could not be brought to what is wanted.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// It cannot be reached.
    #[error("cannot reach it: {0}")]
    Io(#[from] std::io::Error),
    /// It did not answer in time.
    #[error("no answer")]
    Timeout,
    /// It refuses; what it says.
    #[error("it says: {0}")]
    Refused(String),
}

/// What a rule does, in the octets that every daemon can be given.
fn action_community(route: &Route) -> (Option<[u8; 8]>, Option<[u8; 20]>) {
    match &route.measure {
        Measure::FlowSpec(filter) => flowspec::communities(&filter.action),
        Measure::Blackhole(_) | Measure::Scrub(_) | Measure::Divert(_) => (None, None),
    }
}

/// Routes by key: what is wanted of a daemon.
pub(crate) type Wanted = BTreeMap<RouteKey, Route>;

/// Routes that a daemon does not take although it works, and why.
pub(crate) type Refused = BTreeMap<RouteKey, String>;

/// Said where the operator has a route of the same key.
const TAKEN: &str = "the daemon has a route to it that is not weir's";

/// A number made of all that a route says (FNV-1a); weir's mark carries it, so that what a daemon
/// holds can be compared with what is wanted.
fn number(config: &AdapterConfig, key: &RouteKey, route: &Route) -> u32 {
    let said = match key {
        RouteKey::Unicast(net) => {
            format!("{net} {} {:?}", config.next_hop(*net), config.communities)
        }
        RouteKey::Flow(afi, nlri) => format!("{afi:?} {nlri:?} {:?}", action_community(route)),
    };
    said.bytes()
        .fold(0x811c_9dc5, |hash, octet| (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193))
}

/// Brings a daemon to what is wanted. `loaded` is what BIRD's part remembers between calls.
async fn converge(
    config: &AdapterConfig,
    wanted: &Wanted,
    loaded: &mut bool,
) -> Result<Refused, AdapterError> {
    match config.kind {
        Kind::Bird => bird::converge(config, wanted, loaded).await.map(|()| Refused::new()),
        Kind::Exabgp => exabgp::converge(config, wanted).await,
        Kind::Frr => frr::converge(config, wanted).await,
        Kind::Gobgp => gobgp::converge(config, wanted).await,
    }
}

/// Takes everything of weir's out of a daemon: for when weir was killed and is not to come back.
///
/// # Errors
/// [`AdapterError`].
pub async fn release(config: &AdapterConfig) -> Result<(), AdapterError> {
    converge(config, &Wanted::new(), &mut false).await.map(drop)
}

/// Keeps one daemon as desired until told to end. What is configured may change meanwhile, but not which
/// daemon it is.
pub(crate) async fn run(
    mut configs: watch::Receiver<AdapterConfig>,
    mut desired: watch::Receiver<Admitted>,
    observed: mpsc::Sender<Observed>,
    mut word: watch::Receiver<Word>,
) {
    let config = configs.borrow_and_update().clone();
    let mut adapter = Adapter::new(config, observed);
    let mut next = Instant::now();
    loop {
        let told = *word.borrow_and_update();
        if told != Word::Run {
            if told.withdraws() {
                adapter.leave(told).await;
            }
            return;
        }
        if configs.has_changed().is_ok_and(|changed| changed) {
            let config = configs.borrow_and_update().clone();
            adapter.configure(config).await;
        }
        let state = desired.borrow_and_update().clone();
        // Before the first state is loaded nothing may be taken away.
        if state.generation() > 0 {
            let refusals = adapter.rib.want(state.mitigations());
            adapter.refuse(refusals).await;
            let wait = if adapter.converge().await { RECONCILE } else { RETRY };
            next = Instant::now() + wait;
        } else {
            next = next.max(Instant::now() + RECONCILE);
        }
        tokio::select! {
            biased;
            changed = word.changed() => if changed.is_err() { return },
            Ok(()) = configs.changed() => configs.mark_changed(),
            // Whoever desires may end before the word to stop comes: that word still counts.
            Ok(()) = desired.changed() => {}
            () = tokio::time::sleep_until(next) => {}
        }
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

struct Adapter {
    config: AdapterConfig,
    rib: AdjRibOut,
    /// What is known to be in the daemon.
    present: Wanted,
    /// What was reported as refused and is still wanted.
    told: BTreeSet<Measure>,
    /// See [`converge`].
    loaded: bool,
    status: PeerStatus,
    observed: mpsc::Sender<Observed>,
}

impl Adapter {
    fn new(config: AdapterConfig, observed: mpsc::Sender<Observed>) -> Self {
        let rib = AdjRibOut::new(config.reach());
        let status = PeerStatus {
            name: config.name.clone(),
            address: Ipv4Addr::LOCALHOST.into(),
            asn: config.local_as,
            state: PeerState::Idle,
            since: wall(),
            families: config.originates().iter().map(|f| f.to_string()).collect(),
            announced: 0,
            flaps: 0,
            failures: 0,
            last_error: None,
            kept_back: 0,
            rpki: None,
            standing: PeerStanding::default(),
            bfd: None,
        };
        Self {
            config,
            rib,
            present: Wanted::new(),
            told: BTreeSet::new(),
            loaded: false,
            status,
            observed,
        }
    }

    /// Takes everything of weir's out of the daemon.
    async fn leave(&mut self, word: Word) {
        self.rib.want(&[]);
        let left = tokio::time::timeout(FAREWELL, self.converge()).await;
        if left == Ok(true) {
            return;
        }
        tracing::error!(
            adapter = %self.config.name,
            "the BGP daemon did not give up its routes in time: look into it"
        );
        if !matches!(word, Word::Stop(_)) {
            // Nobody speaks to it any more: what it has is not weir's to count.
            self.report_changes(Wanted::new()).await;
        }
    }

    /// Goes on with other settings: what they change is put in by the next look at the daemon.
    async fn configure(&mut self, config: AdapterConfig) {
        tracing::info!(adapter = %config.name, "other settings for the BGP daemon");
        let lost = self.config.neighbors.iter().filter(|own| !config.neighbors.contains(own));
        let lost: Vec<IpAddr> = lost.copied().collect();
        if !lost.is_empty() {
            let of_lost = AdapterConfig { neighbors: lost, ..self.config.clone() };
            let left = tokio::time::timeout(FAREWELL, release(&of_lost)).await;
            if !matches!(left, Ok(Ok(()))) {
                tracing::error!(
                    adapter = %config.name,
                    neighbors = ?of_lost.neighbors,
                    "the BGP daemon still has weir's routes for neighbours that are no longer configured"
                );
            }
        }
        let refusals = self.rib.set_reach(config.reach());
        self.refuse(refusals).await;
        if self.config.families.iter().any(|family| !config.families.contains(family)) {
            // Of a family that is not configured the daemon is not asked.
            self.converge().await;
        }
        self.config = config;
        self.status.families = self.config.originates().iter().map(|f| f.to_string()).collect();
    }

    async fn refuse(&self, refusals: Vec<Refusal>) {
        for Refusal { measure, why } in refusals {
            let peer = self.config.name.clone();
            self.report(Observed::Refused { peer, measure, at: wall(), why }).await;
        }
    }

    /// Whether the daemon now has what is wanted.
    async fn converge(&mut self) -> bool {
        let (mut wanted, unsaid): (Wanted, Wanted) = self.rib.routes().partition(|(_, route)| {
            // None of the daemons has words for attribute 25, and a rule without its action would
            // let pass what it matches.
            action_community(route).1.is_none()
        });
        let result = converge(&self.config, &wanted, &mut self.loaded).await;
        let was = (self.status.state, self.status.announced);
        match result {
            Ok(refused) => {
                wanted.retain(|key, _| !refused.contains_key(key));
                self.refuse_routes(&unsaid, &refused).await;
                self.report_changes(wanted).await;
                self.status.state = PeerState::Established;
                self.status.last_error = None;
            }
            Err(error) => {
                if self.status.state == PeerState::Established {
                    self.status.flaps += 1;
                }
                self.status.state = PeerState::Active;
                let error = error.to_string();
                if self.status.last_error.as_ref() != Some(&error) {
                    tracing::warn!(adapter = %self.config.name, error, "BGP daemon not as desired");
                }
                self.status.last_error = Some(error);
            }
        }
        self.status.announced = count(self.present.len());
        self.status.kept_back = count(self.rib.kept_back().count() + self.told.len());
        if was != (self.status.state, self.status.announced) {
            self.status.since = wall();
            self.report(Observed::Peer(self.status.clone())).await;
        }
        self.status.state == PeerState::Established
    }

    /// Reports once what the daemon has no words for, and what it does not take.
    async fn refuse_routes(&mut self, unsaid: &Wanted, refused: &Refused) {
        let wanted: Wanted = self.rib.routes().collect();
        let unsaid = unsaid.keys().map(|k| (k, "it cannot be told to redirect to an IPv6 address"));
        let refused = refused.iter().map(|(key, why)| (key, &why[..]));
        let all: BTreeMap<Measure, String> = unsaid
            .chain(refused)
            .filter_map(|(key, why)| Some((wanted.get(key)?.measure.clone(), why.to_owned())))
            .collect();
        let new = all.iter().filter(|(measure, _)| !self.told.contains(*measure));
        let new = new.map(|(measure, why)| Refusal { measure: measure.clone(), why: why.clone() });
        self.refuse(new.collect()).await;
        self.told = all.into_keys().collect();
    }

    async fn report_changes(&mut self, wanted: Wanted) {
        let before = std::mem::replace(&mut self.present, wanted);
        let mut reports = Vec::new();
        let at = wall();
        for (key, route) in &before {
            if self.present.get(key).is_none_or(|r| r.measure != route.measure) {
                let (peer, measure) = (self.config.name.clone(), route.measure.clone());
                reports.push(Observed::Withdrawn { peer, measure, at });
            }
        }
        for (key, route) in &self.present {
            if before.get(key).is_none_or(|r| r.measure != route.measure) {
                let (peer, measure) = (self.config.name.clone(), route.measure.clone());
                reports.push(Observed::Announced { peer, measure, at });
            }
        }
        for report in reports {
            self.report(report).await;
        }
    }

    async fn report(&self, report: Observed) {
        // Nobody listens any more: weir is about to stop.
        let _ = self.observed.send(report).await;
    }
}

#[cfg(test)]
mod tests;
