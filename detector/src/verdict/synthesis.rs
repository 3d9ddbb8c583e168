//! The smallest set of matches that covers the excess and spares what is normal.
//!
//! Greedy cover over conjunctions of protocol, ports, length, flags and fragmentation, on one half
//! of the excess; coverage is then measured on the other half. Collateral is the worst of several
//! strata: all of the host's traffic, each declared service, and each TCP service's SYNs, which
//! are few among its packets and all of its new players.

mod bits;
mod numbers;

use weir_model::{AllowLists, FlagMatch, Fragment, FragmentMatch, IpNet, Match, Range, Service};

use crate::config::Capabilities;
use crate::evidence::matching::{hits, within};
use crate::watch::packets::{Packet, narrow};
use crate::watch::prior;
use bits::{BITS, Bits, and, each, mark, ones, or};
use numbers::{complement, top, wilson};

/// Smallest share of the excess, and fewest packets of it, for which a rule is made: less is
/// chance.
const GAIN_MIN: f64 = 0.04;
const PACKETS_MIN: u32 = 5;

/// Packets of normal times from which a target is known, and what a named port and a named length are worth
/// before, as a share of the excess: a little more than they cost.
const KNOWN_MIN: usize = 40;
const NARROWER_PORT: f64 = 0.008;
const NARROWER_LENGTH: f64 = 0.01;

/// What a search is given.
#[derive(Clone, Debug)]
pub(crate) struct Input<'a> {
    /// Destination of all rules.
    pub(crate) target: IpNet,
    /// Excess packets with their weight.
    pub(crate) excess: &'a [(Packet, f64)],
    /// Normal packets with the number of packets they stand for.
    pub(crate) normal: &'a [(Packet, f64)],
    /// Packets of the present that the target answers: wanted, whatever the alarm says.
    pub(crate) answered: &'a [(Packet, f64)],
    /// Of `normal` and `answered`, one after the other, what allow lists excuse; nothing when it is shorter.
    pub(crate) excused: &'a [bool],
    /// Those whom no rule may name.
    pub(crate) allow: &'a AllowLists,
    /// Declared services of the target.
    pub(crate) services: &'a [Service],
    /// Largest collateral of all rules together.
    pub(crate) collateral_max: f64,
    /// Most rules.
    pub(crate) rules_max: usize,
    /// What the routers can match.
    pub(crate) capabilities: &'a Capabilities,
}

/// One rule found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    pub(crate) packets: Match,
    pub(crate) coverage: f64,
    pub(crate) coverage_low: f64,
    pub(crate) collateral: f64,
    pub(crate) collateral_high: f64,
    /// Share of the host's normal octets it matches.
    pub(crate) normal_bytes: f64,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Found {
    pub(crate) rules: Vec<Rule>,
    /// Share of the excess that all rules cover together, on the half not fitted to.
    pub(crate) coverage: f64,
    /// Collateral of all rules together.
    pub(crate) collateral: f64,
}

impl Found {
    /// Puts coverage, which is that of a part, in shares of the whole excess, of which the part has this one.
    pub(crate) fn of_whole(&mut self, share: f64) {
        self.coverage *= share;
        for rule in &mut self.rules {
            rule.coverage *= share;
            rule.coverage_low *= share;
        }
    }
}

/// One thing a rule can say.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Says {
    SrcPort(u16),
    DstPort(u16),
    /// Destination ports that are no declared service of the protocol.
    OffService,
    Length(Range),
    Flags(FlagMatch),
    IcmpType(u8),
    Src(IpNet),
}

impl Says {
    /// What saying it must gain, as a share of the excess. The form of a protocol (flags, a
    /// reflector's port) lasts longer than a tool's choice of length.
    const fn cost(self) -> f64 {
        match self {
            Self::SrcPort(_) | Self::Flags(_) | Self::IcmpType(_) => 0.003,
            Self::OffService => 0.004,
            Self::DstPort(_) => 0.005,
            Self::Length(_) => 0.008,
            Self::Src(_) => 0.02,
        }
    }
}

#[derive(Clone, Debug)]
struct Term {
    says: Option<Says>,
    excess: Bits,
    normal: Bits,
    prior: Bits,
}

/// A group of normal traffic of which no rule may cut much.
#[derive(Debug)]
struct Stratum {
    normal: Bits,
    normal_weight: f64,
    /// Packets seen.
    seen: f64,
    prior: Bits,
    prior_weight: f64,
}

/// Where the search stands: all packets as columns.
struct Search<'a> {
    input: &'a Input<'a>,
    /// Packets of normal times, then those of the present that are answered.
    wanted: Vec<(Packet, f64)>,
    train: Bits,
    prior: Vec<(Packet, f64)>,
    strata: Vec<Stratum>,
}

/// What a stratum counts beside its packets where nothing is imagined of it, in packets.
const UNIMAGINED: f64 = 2.0;
/// Share of normal packets from which a port is one that the target lives by, declared or not.
const BUSY_MIN: f64 = 0.1;

/// The target's busiest ports of its own, as protocol and port, without declared services, which are
/// strata anyway.
fn busy(input: &Input<'_>) -> Vec<(u8, u16)> {
    let total: f64 = input.normal.iter().map(|(_, w)| w).sum();
    let ports = input.normal.iter().filter(|(p, _)| matches!(p.protocol, 6 | 17));
    let own = top(ports.map(|(p, w)| ((p.protocol, p.dst_port), *w)), 4);
    let share = |of: (u8, u16)| {
        let to = input.normal.iter().filter(|(p, _)| (p.protocol, p.dst_port) == of);
        to.map(|(_, w)| w).sum::<f64>()
    };
    own.into_iter()
        .filter(|of| of.1 != 0 && share(*of) >= BUSY_MIN * total)
        .filter(|of| !input.services.iter().any(|s| (s.protocol, s.port) == *of))
        .collect()
}

/// How much imagined packets count beside `seen` real ones, in packets.
fn prior_strength(seen: f64) -> f64 {
    20.0 / (1.0 + (seen / 20.0).powi(2))
}

impl<'a> Search<'a> {
    fn new(input: &'a Input<'a>) -> Self {
        // Halves by content; all of it when there is too little to hold some back.
        let few = input.excess.len() < 24;
        let train = mark(input.excess.iter().map(|(p, _)| p), |p| few || p.hash & 1 == 0);
        let wanted = input.normal.iter().chain(input.answered).copied().collect();
        let mut search = Self { input, wanted, train, prior: Vec::new(), strata: Vec::new() };
        search.stratum(prior::host(), |_| true);
        search.answered();
        search.excused();
        for (protocol, port) in busy(input) {
            let to = move |p: &Packet| p.protocol == protocol && p.dst_port == port;
            search.stratum(Vec::new(), move |p| to(p) && !p.is_syn());
            match (protocol, port) {
                (6, _) => search.stratum(prior::syns(port), move |p| to(p) && p.is_syn()),
                (_, 443) => search.stratum(prior::quic_initials(), move |p| {
                    to(p) && prior::QUIC_INITIAL.contains(p.length())
                }),
                _ => {}
            }
        }
        for service in input.services.iter().take(prior::STRATA_SERVICES) {
            let (protocol, port) = (service.protocol, service.port);
            let to = move |p: &Packet| p.protocol == protocol && p.dst_port == port;
            search.stratum(prior::service(service), move |p| to(p) && !p.is_syn());
            if protocol == 6 {
                search.stratum(prior::syns(port), move |p| to(p) && p.is_syn());
            } else if port == 443 {
                search.stratum(prior::quic_initials(), move |p| {
                    to(p) && prior::QUIC_INITIAL.contains(p.length())
                });
            }
        }
        search
    }

    fn stratum(&mut self, imagined: Vec<(Packet, f64)>, holds: impl Fn(&Packet) -> bool) {
        let from = self.prior.len();
        let room = BITS.saturating_sub(from);
        self.prior.extend(imagined.into_iter().take(room));
        let to = self.prior.len();
        let normal = mark(self.input.normal.iter().map(|(p, _)| p), holds);
        self.push_stratum(normal, from..to);
    }

    /// Those who are answered now: an alarm does not make them unwanted.
    fn answered(&mut self) {
        let history = mark(self.input.normal.iter().map(|(p, _)| p), |_| true);
        let all = mark(self.wanted.iter().map(|(p, _)| p), |_| true);
        let answered: Bits = std::array::from_fn(|i| all[i] & !history[i]);
        self.push_stratum(answered, 0..0);
    }

    /// Those whom allow lists excuse, however few they are among all others.
    fn excused(&mut self) {
        let mut excused: Bits = [0; BITS / 64];
        let own = self.input.excused.iter().take(BITS.min(self.wanted.len())).enumerate();
        for (i, _) in own.filter(|(_, excused)| **excused) {
            excused[i / 64] |= 1 << (i % 64);
        }
        if ones(&excused) > 0 {
            self.push_stratum(excused, 0..0);
        }
    }

    fn push_stratum(&mut self, normal: Bits, prior_at: std::ops::Range<usize>) {
        let mut prior = [0; BITS / 64];
        for i in prior_at.clone() {
            prior[i / 64] |= 1 << (i % 64);
        }
        self.strata.push(Stratum {
            normal,
            normal_weight: self.normal_weight(&normal),
            seen: f64::from(ones(&normal)),
            prior,
            prior_weight: self.prior[prior_at].iter().map(|(_, w)| w).sum(),
        });
    }

    fn normal_weight(&self, bits: &Bits) -> f64 {
        each(bits).map(|i| self.wanted[i].1).sum::<f64>() + 0.0
    }

    fn excess_weight(&self, bits: &Bits) -> f64 {
        each(bits).map(|i| self.input.excess[i].1).sum::<f64>() + 0.0
    }

    fn term(&self, says: Option<Says>, holds: impl Fn(&Packet) -> bool) -> Term {
        self.term_of(says, &holds, &holds)
    }

    /// A term that covers what `covers` holds for and costs what `touches` holds for: of a flow of
    /// many packets neither is certain.
    fn term_of(
        &self,
        says: Option<Says>,
        covers: impl Fn(&Packet) -> bool,
        touches: impl Fn(&Packet) -> bool,
    ) -> Term {
        Term {
            says,
            excess: mark(self.input.excess.iter().map(|(p, _)| p), &covers),
            normal: mark(self.wanted.iter().map(|(p, _)| p), &touches),
            prior: mark(self.prior.iter().map(|(p, _)| p), &touches),
        }
    }

    /// Worst share over the strata, and the effective number of packets behind it.
    fn collateral(&self, normal: &Bits, prior: &Bits) -> (f64, f64) {
        let mut worst = (0.0, f64::INFINITY);
        for stratum in &self.strata {
            let imagined_too = stratum.prior_weight > 0.0;
            let strength = if imagined_too { prior_strength(stratum.seen) } else { UNIMAGINED };
            let n = stratum.seen + strength;
            let hit = and(normal, &stratum.normal);
            // One packet of those who have no past may be of anybody.
            let chance = !imagined_too && ones(&hit) < 2;
            let seen = if stratum.normal_weight > 0.0 && !chance {
                self.normal_weight(&hit) / stratum.normal_weight
            } else {
                0.0
            };
            let imagined = if stratum.prior_weight > 0.0 {
                let hit: f64 = each(&and(prior, &stratum.prior)).map(|i| self.prior[i].1).sum();
                (hit + 0.0) / stratum.prior_weight
            } else {
                0.0
            };
            let share = (seen * stratum.seen + imagined * strength) / n;
            if share > worst.0 || (share == worst.0 && n < worst.1) {
                worst = (share, n);
            }
        }
        worst
    }
}

impl Search<'_> {
    /// Training packets of the excess that satisfy a base.
    fn fitted<'s>(&'s self, base: &'s Term) -> impl Iterator<Item = &'s (Packet, f64)> {
        let bits = and(&base.excess, &self.train);
        (0..self.input.excess.len().min(BITS))
            .filter(move |i| bits[i / 64] >> (i % 64) & 1 == 1)
            .map(|i| &self.input.excess[i])
    }

    fn any(&self) -> Term {
        self.term(None, |_| true)
    }

    /// Source ports worth trying below a base.
    fn src_ports(&self, base: &Term) -> Vec<Term> {
        let mut terms = vec![self.any()];
        for port in top(self.fitted(base).map(|(p, w)| (p.src_port, *w)), 6) {
            terms.push(self.term(Some(Says::SrcPort(port)), |p| p.src_port == port));
        }
        terms
    }

    /// Destination ports worth trying below a base.
    fn dst_ports(&self, base: &Term, protocol: u8) -> Vec<Term> {
        let mut terms = vec![self.any()];
        for port in top(self.fitted(base).map(|(p, w)| (p.dst_port, *w)), 6) {
            terms.push(self.term(Some(Says::DstPort(port)), |p| p.dst_port == port));
        }
        let own: Vec<u16> = self.own_ports(protocol);
        if !own.is_empty() {
            terms.push(
                self.term(Some(Says::OffService), |p| {
                    p.dst_port != 0 && !own.contains(&p.dst_port)
                }),
            );
        }
        terms
    }

    fn own_ports(&self, protocol: u8) -> Vec<u16> {
        let services = self.input.services.iter().filter(|s| s.protocol == protocol);
        services.map(|s| s.port).collect()
    }

    /// Lengths worth trying below a base: frequent ones, quantile ranges, "large".
    fn lengths(&self, base: &Term) -> Vec<Term> {
        let mut terms = vec![self.any()];
        if !self.input.capabilities.lengths {
            return terms;
        }
        let exact =
            |(p, w): &(Packet, f64)| (p.length_min == p.length_max).then_some((p.length_min, *w));
        let mut ranges: Vec<Range> =
            top(self.fitted(base).filter_map(exact), 6).into_iter().map(Range::exact).collect();
        let mut sorted: Vec<u16> = self.fitted(base).map(|(p, _)| p.length()).collect();
        sorted.sort_unstable();
        if let (Some(&first), Some(&last)) = (sorted.first(), sorted.last()) {
            let at = |q: usize| sorted[(sorted.len() - 1) * q / 20];
            for (from, to) in [(0, 20), (1, 19), (0, 10), (10, 20), (2, 18)] {
                ranges.push(round(at(from), at(to)));
            }
            ranges.extend(
                [200, 500, 1000]
                    .map(|from| Range { from, to: last.max(from) })
                    .into_iter()
                    .filter(|r| first < r.from && r.from <= last),
            );
        }
        ranges.sort_unstable();
        ranges.dedup();
        for range in ranges {
            terms.push(self.term_of(
                Some(Says::Length(range)),
                |p| within(range, p),
                |p| touches(range, p),
            ));
        }
        terms
    }

    /// Flags, ICMP types and clustered sources worth trying below a base.
    fn extras(&self, base: &Term, protocol: u8) -> Vec<Term> {
        let mut terms = vec![self.any()];
        if protocol == 6 {
            let can = self.input.capabilities.tcp_flags;
            let kinds = [(0x12, 0x02), (0x12, 0x12), (0x16, 0x10), (0x16, 0x04), (0x3f, 0)];
            for (mask, set) in kinds.into_iter().filter(|(mask, _)| mask & !can == 0) {
                let flags = FlagMatch { mask, set };
                let term = self.term_of(
                    Some(Says::Flags(flags)),
                    |p| p.has_flags(mask, set),
                    |p| p.may_have_flags(mask, set),
                );
                if ones(&and(&term.excess, &base.excess)) > 0 {
                    terms.push(term);
                }
            }
        }
        if protocol == 1 || protocol == 58 {
            for icmp_type in top(self.fitted(base).map(|(p, w)| (p.icmp_type, *w)), 3) {
                terms
                    .push(self.term(Some(Says::IcmpType(icmp_type)), |p| p.icmp_type == icmp_type));
            }
        }
        let sources = self.input.capabilities.sources;
        for prefix in self.clustered_sources(base).into_iter().filter(|_| sources) {
            terms.push(self.term(Some(Says::Src(prefix)), |p| prefix.contains(&narrow(p.src))));
        }
        terms
    }

    /// Source prefixes (/24, /48) that send a fifth or more of the excess each. Of one that an allow list has a
    /// part of, the widest prefix around its heaviest sender that no list has any part of, as well.
    fn clustered_sources(&self, base: &Term) -> Vec<IpNet> {
        let total: f64 = self.fitted(base).map(|(_, w)| w).sum();
        let frequent = top(self.fitted(base).map(|(p, w)| (p.src_prefix(), *w)), 3);
        frequent
            .into_iter()
            .filter_map(|prefix| {
                let within = || self.fitted(base).filter(|(p, _)| p.src_prefix() == prefix);
                let weight: f64 = within().map(|(_, w)| w).sum();
                let (packet, _) = within().next()?;
                let address = narrow(packet.src);
                let len = if address.is_ipv4() { 24 } else { 48 };
                let net = IpNet::new(address, len).ok()?.trunc();
                let enough = |net: &IpNet| {
                    let of = within().filter(|(p, _)| net.contains(&narrow(p.src)));
                    of.map(|(_, w)| w).sum::<f64>() >= total * 0.2
                };
                let apart = if self.input.allow.overlaps(net) {
                    let senders = within().map(|(p, w)| (p.src, *w));
                    self.apart(senders, net).filter(enough)
                } else {
                    None
                };
                Some((weight >= total * 0.2).then_some(net).into_iter().chain(apart))
            })
            .flatten()
            .collect()
    }

    /// The widest prefix within `net` around the heaviest of these senders that no allow list has any part of.
    fn apart(&self, senders: impl Iterator<Item = (u128, f64)>, net: IpNet) -> Option<IpNet> {
        let strangers = senders.filter(|(src, _)| !self.input.allow.overlaps(narrow(*src).into()));
        let address = narrow(*top(strangers, 1).first()?);
        (net.prefix_len()..=net.max_prefix_len())
            .filter_map(|len| Some(IpNet::new(address, len).ok()?.trunc()))
            .find(|net| !self.input.allow.overlaps(*net))
    }
}

/// Whether the packets of a protocol have ports that routers match: TCP, UDP, DCCP, SCTP, UDP-Lite.
const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// What a conjunction must gain to be worth it. A length alone says too little about who sends:
/// players will send that length tomorrow.
fn cost(says: [Option<Says>; 4]) -> f64 {
    let lone = matches!(says, [None, None, Some(_), None]);
    says.iter().flatten().map(|s| s.cost()).sum::<f64>() + if lone { 0.01 } else { 0.0 }
}

/// A range of lengths in round numbers, open above a thousand octets: the next sample's quantiles
/// are others, and what routers are told must not follow them.
fn round(from: u16, to: u16) -> Range {
    if to - from < 20 {
        return Range { from, to };
    }
    let step = if from < 200 { 10 } else { 50 };
    let to = if to >= 1000 { u16::MAX } else { to.div_ceil(50) * 50 };
    Range { from: from / step * step, to }
}

/// A conjunction under consideration.
#[derive(Clone, Debug)]
struct Draft {
    protocol: u8,
    fragment: bool,
    says: [Option<Says>; 4],
    excess: Bits,
    normal: Bits,
    prior: Bits,
    cost: f64,
}

impl Search<'_> {
    /// All conjunctions below the protocols that carry weight.
    fn drafts(&self) -> Vec<Draft> {
        let mut drafts = Vec::new();
        let total = self.excess_weight(&self.train);
        let kinds = top(
            self.input
                .excess
                .iter()
                .map(|(p, w)| ((p.protocol, p.fragment == Fragment::Later), *w)),
            4,
        );
        for (protocol, fragment) in kinds {
            if fragment && !self.input.capabilities.fragments {
                continue;
            }
            let base = self.term(None, |p| {
                p.protocol == protocol && (p.fragment == Fragment::Later) == fragment
            });
            // Later fragments have no ports, nor have other protocols: a rule that names one matches no packet.
            let (src, dst) = if fragment || !has_ports(protocol) {
                (vec![self.any()], vec![self.any()])
            } else {
                (self.src_ports(&base), self.dst_ports(&base, protocol))
            };
            let (lengths, extras) = (self.lengths(&base), self.extras(&base, protocol));
            for s in &src {
                let with_src = and(&base.excess, &s.excess);
                for d in &dst {
                    let with_ports = and(&with_src, &d.excess);
                    if self.excess_weight(&and(&with_ports, &self.train)) < total * 0.02 {
                        continue;
                    }
                    for l in &lengths {
                        for e in &extras {
                            let excess = and(&and(&with_ports, &l.excess), &e.excess);
                            if ones(&and(&excess, &self.train)) == 0 {
                                continue;
                            }
                            let all = [s, d, l, e];
                            if self.is_refused(protocol, fragment, all.map(|t| t.says)) {
                                continue;
                            }
                            let fold = |bits: fn(&Term) -> &Bits, first: &Bits| {
                                all.iter().fold(*first, |sum, t| and(&sum, bits(t)))
                            };
                            drafts.push(Draft {
                                protocol,
                                fragment,
                                says: all.map(|t| t.says),
                                excess,
                                normal: fold(|t| &t.normal, &base.normal),
                                prior: fold(|t| &t.prior, &base.prior),
                                cost: cost(all.map(|t| t.says))
                                    - self.narrower(all.map(|t| t.says)),
                            });
                        }
                    }
                }
            }
        }
        drafts
    }

    /// What naming more is worth where too little is known of the target to count what else would be cut: a
    /// port beside the form of a protocol, never in its place, and the one length of a flood beside either.
    fn narrower(&self, says: [Option<Says>; 4]) -> f64 {
        if self.input.normal.len() >= KNOWN_MIN {
            return 0.0;
        }
        let said = |is: fn(&Says) -> bool| says.iter().flatten().any(is);
        let port = said(|s| matches!(s, Says::DstPort(_)));
        let form = said(|s| matches!(s, Says::Flags(_) | Says::SrcPort(_) | Says::IcmpType(_)));
        let length = said(|s| matches!(s, Says::Length(range) if range.from == range.to));
        let worth = |named: bool, worth: f64| if named { worth } else { 0.0 };
        worth(port && form, NARROWER_PORT) + worth(length && (port || form), NARROWER_LENGTH)
    }

    /// Whether the guard would refuse a conjunction because it names those on an allow list.
    fn is_refused(&self, protocol: u8, fragment: bool, says: [Option<Says>; 4]) -> bool {
        !self.input.allow.is_empty()
            && says.iter().flatten().any(|says| matches!(says, Says::Src(_)))
            && self.input.allow.named_by(&self.to_match(protocol, fragment, says)).is_some()
    }

    fn to_match(&self, protocol: u8, fragment: bool, says: [Option<Says>; 4]) -> Match {
        let mut m = Match::to(self.input.target);
        m.protocols = vec![protocol];
        if fragment {
            m.fragment = Some(FragmentMatch::IsFragment);
        }
        for says in says.iter().flatten() {
            match *says {
                Says::SrcPort(port) => m.src_ports = vec![Range::exact(port)],
                Says::DstPort(port) => m.dst_ports = vec![Range::exact(port)],
                Says::OffService => m.dst_ports = complement(self.own_ports(protocol)),
                Says::Length(range) => m.lengths = vec![range],
                Says::Flags(flags) => m.tcp_flags = vec![flags],
                Says::IcmpType(icmp_type) => m.icmp_types = vec![icmp_type],
                Says::Src(net) => m.src = Some(net),
            }
        }
        m.normalise()
    }
}

/// Searches.
pub(crate) fn synthesise(input: &Input<'_>) -> Found {
    let search = Search::new(input);
    let drafts = search.drafts();
    let total = search.excess_weight(&search.train);
    if total <= 0.0 {
        return Found::default();
    }
    let mut covered: Bits = [0; BITS / 64];
    let (mut normal, mut prior): (Bits, Bits) = ([0; BITS / 64], [0; BITS / 64]);
    let mut chosen: Vec<&Draft> = Vec::new();
    while chosen.len() < input.rules_max {
        let open = std::array::from_fn(|i| search.train[i] & !covered[i]);
        let mut ranked: Vec<(f64, f64, &Draft)> = drafts
            .iter()
            .map(|d| (search.excess_weight(&and(&d.excess, &open)) / total, d))
            .filter(|(gain, d)| *gain >= GAIN_MIN && ones(&and(&d.excess, &open)) >= PACKETS_MIN)
            .map(|(gain, d)| (gain - d.cost, gain, d))
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut best: Option<(f64, &Draft)> = None;
        for (bound, gain, draft) in ranked.into_iter().take(600) {
            if best.is_some_and(|(score, _)| score >= bound) {
                break;
            }
            let (mut n, mut p) = (normal, prior);
            or(&mut n, &draft.normal);
            or(&mut p, &draft.prior);
            let (all, _) = search.collateral(&n, &p);
            if all > input.collateral_max {
                continue;
            }
            let (own, _) = search.collateral(&draft.normal, &draft.prior);
            let score = gain - 5.0 * own - draft.cost;
            if score > 0.0 && best.is_none_or(|(best, _)| score > best) {
                best = Some((score, draft));
            }
        }
        let Some((_, draft)) = best else { break };
        or(&mut covered, &draft.excess);
        or(&mut normal, &draft.normal);
        or(&mut prior, &draft.prior);
        chosen.push(draft);
    }
    let rules: Vec<(Match, Columns)> = chosen
        .iter()
        .map(|d| {
            let packets = search.to_match(d.protocol, d.fragment, d.says);
            (packets, Columns { excess: d.excess, normal: d.normal, prior: d.prior })
        })
        .collect();
    let found = search.report(&rules, &covered, search.collateral(&normal, &prior).0);
    // What did well only on the packets it was fitted to was chance.
    let sound: Vec<Match> = found
        .rules
        .iter()
        .filter(|r| r.coverage >= GAIN_MIN / 2.0)
        .map(|r| r.packets.clone())
        .collect();
    if sound.len() == found.rules.len() { found } else { measure(input, &sound) }
}

/// Measures given matches on the same input as a search would.
pub(crate) fn measure(input: &Input<'_>, matches: &[Match]) -> Found {
    let search = Search::new(input);
    let mut covered: Bits = [0; BITS / 64];
    let (mut normal, mut prior) = (covered, covered);
    let rules: Vec<(Match, Columns)> = matches
        .iter()
        .map(|m| {
            let length = |p: &Packet| m.lengths.iter().any(|r| touches(*r, p));
            let flags = |p: &Packet| {
                m.tcp_flags.is_empty()
                    || m.tcp_flags.iter().any(|f| p.may_have_flags(f.mask, f.set))
            };
            let bare = Match { lengths: Vec::new(), tcp_flags: Vec::new(), ..m.clone() };
            let term = search.term_of(
                None,
                |p| hits(m, p),
                |p| hits(&bare, p) && flags(p) && (m.lengths.is_empty() || length(p)),
            );
            or(&mut covered, &term.excess);
            or(&mut normal, &term.normal);
            or(&mut prior, &term.prior);
            let columns = Columns { excess: term.excess, normal: term.normal, prior: term.prior };
            (m.clone(), columns)
        })
        .collect();
    search.report(&rules, &covered, search.collateral(&normal, &prior).0)
}

/// Whether a range would hit a fair share of a record's packets: a flow tells the shortest, the
/// longest and the average length, or only the last, and what lies between is anybody's guess. Where
/// only the average is known, many packets may have any length near it.
fn touches(range: Range, p: &Packet) -> bool {
    let near = p.length() / 3 * 2..=p.length().saturating_add(p.length() / 2);
    if p.vague && range.from <= *near.end() && *near.start() <= range.to {
        return true;
    }
    if [p.length_min, p.length_max, p.length()].into_iter().any(|l| range.contains(l)) {
        return true;
    }
    let common = i32::from(range.to.min(p.length_max)) - i32::from(range.from.max(p.length_min));
    common >= 0 && (common + 1) * 10 > i32::from(p.length_max) - i32::from(p.length_min)
}

/// What a rule matches, as columns.
#[derive(Clone, Copy, Debug)]
struct Columns {
    excess: Bits,
    normal: Bits,
    prior: Bits,
}

impl Search<'_> {
    /// Measures what was chosen on the half that was held back.
    fn report(&self, rules: &[(Match, Columns)], covered: &Bits, collateral: f64) -> Found {
        let all = mark(self.input.excess.iter().map(|(p, _)| p), |_| true);
        let mut held: Bits = std::array::from_fn(|i| all[i] & !self.train[i]);
        if ones(&held) < 8 {
            held = all;
        }
        let total = self.excess_weight(&held).max(f64::MIN_POSITIVE);
        let n = f64::from(ones(&held));
        let octets = |bits: &Bits| -> f64 {
            each(&and(bits, &self.strata[0].normal))
                .map(|i| self.wanted[i].1 * f64::from(self.wanted[i].0.length()))
                .sum()
        };
        let normal_octets = octets(&self.strata[0].normal).max(1.0);
        let rules = rules
            .iter()
            .map(|(packets, draft)| {
                let coverage = self.excess_weight(&and(&draft.excess, &held)) / total;
                let (collateral, seen) = self.collateral(&draft.normal, &draft.prior);
                Rule {
                    packets: packets.clone(),
                    coverage,
                    coverage_low: wilson(coverage, n).0,
                    collateral,
                    collateral_high: wilson(collateral, seen).1,
                    normal_bytes: octets(&draft.normal) / normal_octets,
                }
            })
            .collect();
        Found { rules, coverage: self.excess_weight(&and(covered, &held)) / total, collateral }
    }
}

#[cfg(test)]
mod tests;
