//! Routers as they are: away for a moment or for minutes, short of room, offended by a rule, killed
//! by one, or merely killed. Each has the table that the speaker keeps for it.

use std::collections::{BTreeMap, BTreeSet};

use weir_bgp::config::{Divert, PeerConfig, Role};
use weir_bgp::guard::route;
use weir_bgp::reach::KnownPeer;
use weir_bgp::rib::{AdjRibOut, Blame, Change, Refusal};
use weir_bgp::wire::{Families, Family};
use weir_model::{IpNet, Measure, Millis, Mitigation, Observed, PeerState, PeerStatus};

use super::Rng;

/// A session that a route survived so long is proof that the router takes it, seconds.
const PROOF_SECS: u64 = 7;

/// How a router takes what it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nature {
    /// It carries black holes only.
    unicast_only: bool,
    /// It ends the session over some rules, and says so.
    offended: bool,
    /// It crashes over some rules, without a word.
    crashes: bool,
    /// FlowSpec rules that it takes, and whether it names the number when it is too much.
    limit: Option<(usize, bool)>,
    /// Its sessions break for no reason at all, once in so many seconds.
    breaks: Option<u64>,
    /// It says that it has what it throws away.
    lies: bool,
    /// What it is to the operator.
    role: Option<Role>,
    /// It diverts, where its role lets it.
    diverts: bool,
    /// Black holes and diversions that it takes, by its configuration.
    max_routes: Option<u32>,
}

impl Nature {
    pub(super) fn of(rng: &mut Rng) -> Self {
        Self {
            unicast_only: rng.once_in(5),
            offended: rng.once_in(5),
            crashes: rng.once_in(6),
            limit: rng
                .once_in(4)
                .then(|| (1 + usize::try_from(rng.below(4)).unwrap_or(0), rng.once_in(2))),
            breaks: rng.once_in(3).then(|| 2 + rng.below(30)),
            lies: rng.once_in(12),
            role: rng
                .once_in(2)
                .then(|| *rng.pick(&[Role::Edge, Role::Transit, Role::Ixp, Role::Filter])),
            diverts: rng.once_in(2),
            max_routes: rng.once_in(5).then(|| 1 + u32::try_from(rng.below(2)).unwrap_or(0)),
        }
    }
}

/// A router with a session: takes the latest state some seconds late.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    pub(super) delay: u64,
    nature: Nature,
    table: AdjRibOut,
    queue: Vec<(u64, Vec<Mitigation>)>,
    /// What it applies.
    pub(super) rib: BTreeSet<Measure>,
    /// Down until that second.
    pub(super) down: Option<(u64, u64)>,
    /// Since when each route is on the wire, and which have been there for long.
    since: BTreeMap<Measure, u64>,
    proven: BTreeSet<Measure>,
    /// Targets of which it has refused a measure.
    pub(super) said_no: BTreeSet<IpNet>,
}

impl Peer {
    pub(super) fn new(name: String, delay: u64, nature: Nature) -> Self {
        let table = AdjRibOut::new(known(&name, nature).reach);
        Self {
            name,
            delay,
            nature,
            table,
            queue: Vec::new(),
            rib: BTreeSet::new(),
            down: Some((0, 1)),
            since: BTreeMap::new(),
            proven: BTreeSet::new(),
            said_no: BTreeSet::new(),
        }
    }

    pub(super) fn known(&self) -> KnownPeer {
        known(&self.name, self.nature)
    }

    pub(super) const fn is_up(&self) -> bool {
        self.down.is_none()
    }

    pub(super) const fn takes_rules(&self) -> bool {
        !self.nature.unicast_only
            && !matches!(self.nature.role, Some(Role::Transit | Role::Ixp | Role::Scrubber))
    }

    pub(super) fn wish(&mut self, second: u64, wanted: Vec<Mitigation>) {
        self.queue.push((second + self.delay, wanted));
    }

    /// weir was killed: what it had found out is back, what it had sent is not.
    pub(super) fn restart(&mut self, second: u64) {
        let standing = self.table.standing();
        let had: Vec<Measure> = self.table.on_wire().cloned().collect();
        self.table = AdjRibOut::new(self.known().reach);
        self.table.restore(clock(second), standing, &had);
        self.queue.clear();
        self.rib.clear();
        self.since.clear();
        self.down = Some((second, second));
    }

    /// A second passes; `faults` when routers may fail for reasons of their own.
    pub(super) fn pass(
        &mut self,
        second: u64,
        at: Millis,
        faults: bool,
        rng: &mut Rng,
        reports: &mut Vec<Observed>,
    ) {
        if faults && self.is_up() {
            let silent = self.nature.breaks.is_some_and(|once| rng.once_in(once));
            if silent || rng.once_in(60) {
                let away = if silent { 1 } else { *rng.pick(&[1, 3, 6, 20, 60, 150]) };
                let blame = if silent { Blame::Silent } else { Blame::Nothing };
                self.lose(second, away, at, blame, &[], reports);
            }
        }
        if self.down.is_some_and(|(_, until)| second >= until) {
            self.down = None;
            self.since.clear();
            let families = self.table_families();
            let refusals = self.table.up(clock(second), families);
            reports.push(self.status(PeerState::Established, at));
            self.refuse(refusals, at, reports);
        }
        while self.queue.first().is_some_and(|(due, _)| *due <= second) {
            let (_, wanted) = self.queue.remove(0);
            let refusals = self.table.want(&wanted);
            self.refuse(refusals, at, reports);
        }
        let refusals = self.table.tick(clock(second), true);
        self.refuse(refusals, at, reports);
        self.write(second, at, reports);
        for (measure, since) in &self.since {
            if second >= since + PROOF_SECS {
                self.proven.insert(route(measure));
            }
        }
        self.check(faults);
    }

    fn table_families(&self) -> Families {
        self.known().reach.families
    }

    fn write(&mut self, second: u64, at: Millis, reports: &mut Vec<Observed>) {
        let mut end: Option<(Blame, Vec<u8>)> = None;
        while let Some(change) = self.table.next_change(clock(second)) {
            let peer = self.name.clone();
            match change {
                Change::EndOfRib(_) => {}
                Change::Withdraw { route, .. } => {
                    self.rib.remove(&route.measure);
                    self.since.remove(&route.measure);
                    reports.push(Observed::Withdrawn { peer, measure: route.measure, at });
                }
                Change::Announce { route, replaces, .. } => {
                    if let Some(old) = replaces {
                        self.rib.remove(&old);
                        self.since.remove(&old);
                        let peer = peer.clone();
                        reports.push(Observed::Withdrawn { peer, measure: old, at });
                    }
                    let measure = route.measure;
                    reports.push(Observed::Announced { peer, measure: measure.clone(), at });
                    self.since.insert(measure.clone(), second);
                    let over = end.is_some();
                    if !over {
                        end = self.objects(&measure);
                    }
                    if end.is_none() && !self.nature.lies {
                        self.rib.insert(measure);
                    }
                }
            }
        }
        if let Some((blame, data)) = end {
            self.lose(second, 1, at, blame, &data, reports);
        }
    }

    /// What it does about one more route.
    fn objects(&self, measure: &Measure) -> Option<(Blame, Vec<u8>)> {
        if !matches!(measure, Measure::FlowSpec(_)) {
            return None;
        }
        if self.nature.offended && is_odd(measure, 5) {
            return Some((Blame::Update, Vec::new()));
        }
        if self.nature.crashes && is_odd(measure, 7) {
            return Some((Blame::Silent, Vec::new()));
        }
        let (limit, names) = self.nature.limit?;
        let flows = self.since.keys().filter(|m| matches!(m, Measure::FlowSpec(_)));
        let v4 = |m: &&Measure| matches!(m.target(), IpNet::V4(_));
        let (v4, v6): (Vec<&Measure>, Vec<&Measure>) = flows.partition(v4);
        let mut data = Vec::new();
        let afi = if v4.len() > limit { 1 } else { 2 };
        if names {
            data = vec![0, afi, 133, 0, 0, 0, u8::try_from(limit).unwrap_or(u8::MAX)];
        }
        (v4.len().max(v6.len()) > limit).then_some((Blame::TooMuch, data))
    }

    fn lose(
        &mut self,
        second: u64,
        away: u64,
        at: Millis,
        blame: Blame,
        data: &[u8],
        reports: &mut Vec<Observed>,
    ) {
        let ended = self.table.down(clock(second), blame, data);
        self.rib.clear();
        self.since.clear();
        self.down = Some((second, second + away));
        let peer = &self.name;
        reports.extend(ended.gone.into_iter().map(|measure| Observed::Withdrawn {
            peer: peer.clone(),
            measure,
            at,
        }));
        reports.push(self.status(PeerState::Active, at));
        self.refuse(ended.banned, at, reports);
        self.refuse(ended.left_out, at, reports);
    }

    fn refuse(&mut self, refusals: Vec<Refusal>, at: Millis, reports: &mut Vec<Observed>) {
        for Refusal { measure, why } in refusals {
            self.said_no.insert(measure.target());
            reports.push(Observed::Refused { peer: self.name.clone(), measure, at, why });
        }
    }

    /// What is held against a route is deserved; what was proven once is not held by silence.
    fn check(&self, faults: bool) {
        for doubt in self.table.standing().banned {
            let (measure, why) = (&doubt.measure, &doubt.sentence.why);
            let offends = self.nature.offended && is_odd(measure, 5);
            let kills = self.nature.crashes && is_odd(measure, 7);
            assert!(offends || kills, "{}: {measure} is innocent: {why}", self.name);
            let silence = why.contains("without a word");
            let proven = self.proven.contains(&route(measure));
            assert!(!(silence && proven), "{}: {measure} was proven once", self.name);
        }
        let most = self.nature.limit.map_or(usize::MAX, |(limit, _)| limit);
        let flows = self.rib.iter().filter(|m| matches!(m, Measure::FlowSpec(_)));
        assert!(!faults || flows.count() <= most.saturating_mul(2));
        let reach = self.known().reach;
        for measure in &self.rib {
            assert!(reach.route(measure).is_ok(), "{} does not take {measure}", self.name);
        }
        let routes = self.rib.iter().filter(|m| !matches!(m, Measure::FlowSpec(_))).count();
        assert!(routes <= reach.max_routes, "{} takes no {routes} routes", self.name);
    }

    fn status(&self, state: PeerState, at: Millis) -> Observed {
        let up = state == PeerState::Established;
        let families = if up { self.table_families() } else { Families::default() };
        Observed::Peer(PeerStatus {
            name: self.name.clone(),
            address: [192, 0, 2, 1].into(),
            asn: 64512,
            state,
            since: at,
            families: families.iter().map(|f| f.id().to_owned()).collect(),
            announced: 0,
            flaps: 0,
            failures: 0,
            last_error: None,
            kept_back: 0,
            rpki: None,
            standing: weir_model::PeerStanding::default(),
            bfd: None,
        })
    }
}

/// The clock of tables, which nobody sets.
const fn clock(second: u64) -> Millis {
    Millis::from_secs(1_000_000 + second)
}

fn known(name: &str, nature: Nature) -> KnownPeer {
    let mut peer = PeerConfig::new(name, [192, 0, 2, 1].into(), 64512);
    if nature.unicast_only {
        peer.families = vec![Family::Ipv4Unicast, Family::Ipv6Unicast];
    }
    peer.role = nature.role;
    peer.max_routes = nature.max_routes;
    if nature.diverts && matches!(nature.role, None | Some(Role::Edge)) {
        peer.divert = Some(Divert {
            next_hop4: Some([192, 0, 2, 66].into()),
            next_hop6: Some([0x2001, 0xdb9, 0, 0, 0, 0, 0, 0x66].into()),
            communities: Vec::new(),
            local_pref: 200,
            no_export: false,
        });
    }
    KnownPeer { name: name.to_owned(), reach: peer.reach() }
}

/// Some rules, always the same ones, whatever is done with what they match.
fn is_odd(measure: &Measure, one_in: u64) -> bool {
    let text = route(measure).to_string();
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    });
    matches!(measure, Measure::FlowSpec(_)) && (hash >> 7).is_multiple_of(one_in)
}
