//! Who is answered: traffic that a host answers is wanted until proven otherwise, whatever its protocol
//! and port.
//!
//! What counts is *who* is answered, not how much: a flood on a game port leaves the port's proportion
//! of packets out to packets in nearly as it was, while none of those who flood is among those who are
//! answered. Two measures, both independent of the sampling rate:
//!
//! - a packet in is **answered** when something went back to its network (/24, /48) from the same local
//!   port, or to the same remote port: the target asks from changing ports;
//! - the **collision share** `a = [pairs(in,out) / (n_in n_out)] / [pairs(out,out) / (n_out (n_out - 1) / 2)]`,
//!   where a pair is two packets with the same remote network: 1 where those who send are those who
//!   are answered, 0 where they are others. It speaks where sampling is too thin for single flows.
//!
//! What any attack makes a host send is no answer: RSTs, bare SYN-ACKs (SYN cookies) and ICMP.

use weir_model::{Fragment, Match};

use crate::evidence::matching::hits;
use crate::evidence::vectors::Excess;
use crate::watch::hash::FastMap;
use crate::watch::packets::Packet;

/// Answered packets from which it is no chance that a network of the senders is also answered.
const PAIRS_MIN: usize = 2;
/// Share of what a target sends that must be refusals for it to be that.
const REFUSALS_MIN: f64 = 0.8;
/// Share of what is answered at the target from which a rule cuts wanted traffic.
const OF_ANSWERED: f64 = 0.02;
/// Share of what a rule matches that may be answered.
const OF_MATCHED: f64 = 0.05;
/// Collision share from which those who send are those who are answered.
const COLLISIONS: f64 = 0.3;
/// Least packets out for each one in of traffic that is answered at all.
const PROPORTION: f64 = 0.02;
/// Packets in without anything going back from which traffic is unanswered (99 %), where one in ten
/// would be answered: `4.6 / 0.1`.
const UNANSWERED_MIN: usize = 46;
/// The same for one sender or a few, whose transfer may have one packet in fifty answered.
const UNANSWERED_FEW_MIN: usize = 230;
/// Largest probability of so few pairs if the senders were among those who are answered, as natural
/// logarithm: an incident is looked at hundreds of times, so that one in a hundred would be too much.
const ABSENT_LN: f64 = -8.0;
/// Standard deviations by which pairs among those who are answered may be overestimated.
const DEVIATIONS: f64 = 1.64;
/// Packets that one record stands for up to which records are as good as whole packets: then even
/// the answer to a forged query is seen, and only who goes on after it is answered.
const DENSE_MAX: u32 = 32;

/// What is known of the answers to some traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Those who send it are answered.
    Answered,
    /// It is not answered, for certain.
    Unanswered,
    /// Too little was seen to say.
    #[default]
    Unknown,
}

/// The numbers behind a [`Standing`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Account {
    pub(crate) standing: Standing,
    /// Share of the packets that is answered, 0-1; `None` when it is not known.
    pub(crate) share: Option<f64>,
    /// Whether nothing at all went back on the reversed match.
    pub(crate) silent: bool,
}

/// Whether a packet that a target sent answers somebody.
pub(crate) const fn is_answer(p: &Packet) -> bool {
    match p.protocol {
        // RST, or SYN and ACK without more: what any SYN or ACK to a port brings about.
        6 => p.tcp_flags & 0x04 == 0 && p.tcp_flags & 0x12 != 0x12,
        1 | 58 => false,
        _ => true,
    }
}

/// Whether a packet that a target sent refuses what came in: a reset, or ICMP's word that there is no such port,
/// host or network.
const fn is_refusal(p: &Packet) -> bool {
    match p.protocol {
        6 => p.tcp_flags & 0x04 != 0,
        1 => p.icmp_type == 3,
        58 => p.icmp_type == 1,
        _ => false,
    }
}

/// Whether packets that a target sent, each with its weight, are refusals.
pub(crate) fn are_refusals(packets: &[(Packet, f64)]) -> bool {
    let all: f64 = packets.iter().map(|(_, weight)| weight).sum();
    let refusals: f64 = packets.iter().filter(|(p, _)| is_refusal(p)).map(|(_, w)| w).sum();
    all > 0.0 && refusals >= REFUSALS_MIN * all
}

/// Share of what a target sent that answers anybody, 0-1.
pub(crate) fn answering<'p>(sent: impl Iterator<Item = &'p Packet> + Clone) -> f64 {
    let all: f64 = sent.clone().map(weight).sum();
    let answers: f64 = sent.filter(|p| is_answer(p)).map(weight).sum();
    if all > 0.0 { answers / all } else { 1.0 }
}

/// Remote network, protected address (last 32 bits), protocol.
type Network = (u128, u32, u8);

const fn network(p: &Packet) -> Network {
    (p.src_prefix(), p.local, p.protocol)
}

/// The port that both ways of a conversation share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    Local(u16),
    Remote(u16),
    Any,
}

/// What a target sent lately that answers somebody, ready to be asked.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    sent: Vec<Packet>,
    /// First slot in which something went to a network, by the port that both ways share.
    first: FastMap<(Network, Port), u64>,
    /// What it sends in normal times.
    usual: Vec<Packet>,
    /// Whether what the target sends is seen at all: many routers export one direction only.
    pub(crate) visible: bool,
    /// Whether the target was seen to send anything of late, an answer or not.
    pub(crate) speaks: bool,
    /// Packets that it sent of late, answers or not, and the most that one record of what it sends stands for.
    all_sent: f64,
    unit: f64,
}

impl Answers {
    /// Of what a target sent in the present, and what it sends in normal times.
    pub(crate) fn new(sent: Vec<Packet>, usual: Vec<Packet>, visible: bool) -> Self {
        let speaks = !sent.is_empty();
        let all_sent = sent.iter().map(weight).sum();
        let unit = sent.iter().chain(&usual).map(weight).fold(1.0, f64::max);
        let sent: Vec<Packet> = sent.into_iter().filter(is_answer).collect();
        let mut first: FastMap<(Network, Port), u64> = FastMap::default();
        for p in &sent {
            for port in [Port::Local(p.local_port()), Port::Remote(p.remote_port()), Port::Any] {
                let at = first.entry((network(p), port)).or_insert(p.slot);
                *at = p.slot.min(*at);
            }
        }
        Self { sent, first, usual, visible, speaks, all_sent, unit }
    }

    /// What it sent lately that answers somebody.
    pub(crate) fn sent(&self) -> &[Packet] {
        &self.sent
    }

    /// What it sends in normal times.
    pub(crate) fn usual(&self) -> &[Packet] {
        &self.usual
    }

    /// What it sent lately that answers somebody, the other way of a match.
    pub(crate) fn back_on(&self, m: &Match) -> impl Iterator<Item = &Packet> {
        self.sent.iter().filter(move |p| reversed(m, p))
    }

    /// Packets that it sent lately, answers or not.
    pub(crate) const fn weight_sent(&self) -> f64 {
        self.all_sent
    }

    /// Most packets that one record of what it sends stands for.
    pub(crate) const fn unit(&self) -> f64 {
        self.unit
    }

    /// Share of what it usually sends that answers somebody the other way of a match, 0-1.
    pub(crate) fn usual_share(&self, m: &Match) -> f64 {
        let usual = |of: &dyn Fn(&Packet) -> bool| {
            self.usual.iter().filter(|p| of(p)).map(weight).sum::<f64>()
        };
        usual(&|p| is_answer(p) && reversed(m, p)) / usual(&|_| true).max(1.0)
    }

    /// Whether a packet in belongs to a conversation with its network.
    pub(crate) fn is_answered(&self, p: &Packet) -> bool {
        let first = |port| self.first.get(&(network(p), port)).copied();
        let found = if p.fragment == Fragment::Later {
            first(Port::Any)
        } else {
            match (first(Port::Local(p.local_port())), first(Port::Remote(p.remote_port()))) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            }
        };
        // Where every packet is seen a forged query has its answer, too; but nobody goes on after it.
        found.is_some_and(|first| p.packets > DENSE_MAX || first < p.slot)
    }

    /// Packets of `inbound` that are answered.
    pub(crate) fn answered<'p>(
        &'p self,
        inbound: &'p [Packet],
    ) -> impl Iterator<Item = &'p Packet> + 'p {
        inbound.iter().filter(|p| self.is_answered(p))
    }

    /// Share of packets on a port of the target's, of any of these, that also go the other way, 0-1.
    pub(crate) fn on_same_ports(&self, packets: &[(Packet, f64)]) -> f64 {
        let port = |p: &Packet| (p.protocol, p.local_port());
        let mut ports: Vec<(u8, u16)> = self.sent.iter().map(port).collect();
        ports.sort_unstable();
        ports.dedup();
        let all: f64 = packets.iter().map(|(p, _)| weight(p)).sum();
        let on = packets.iter().filter(|(p, _)| ports.binary_search(&port(p)).is_ok());
        if all > 0.0 { on.map(|(p, _)| weight(p)).sum::<f64>() / all } else { 0.0 }
    }

    /// How often the target was seen to send to this remote port of a protocol, now or in normal times: it
    /// asked.
    pub(crate) fn asked(&self, protocol: u8, port: u16) -> usize {
        let all = self.sent.iter().chain(&self.usual);
        all.filter(|p| p.protocol == protocol && p.remote_port() == port).count()
    }

    /// The account of what a match holds for, of all that came in; with `few` senders more must be
    /// seen before it counts as unanswered.
    pub(crate) fn of_match(&self, inbound: &[Packet], m: &Match, few: bool) -> Account {
        let matched: Vec<&Packet> = inbound.iter().filter(|p| hits(m, p)).collect();
        let reverse: Vec<&Packet> = self.sent.iter().filter(|p| reversed(m, p)).collect();
        let all: f64 = self.answered(inbound).map(weight).sum();
        let mut account = self.account(&matched, &reverse, all, few);
        let usual: Vec<&Packet> =
            self.usual.iter().filter(|p| is_answer(p) && reversed(m, p)).collect();
        // Thinned beside a flood, what it usually sends that way may be missing by chance.
        if account.silent && !usual.is_empty() {
            account.silent = false;
            if account.standing == Standing::Unanswered {
                account = Account { standing: Standing::Unknown, share: None, ..account };
            }
        }
        account
    }

    /// Whether those who send what a match holds for are, for certain, not those whom the target knows from
    /// normal times. Beside a flood of forged queries, whose answers go to anybody, that is all there is to
    /// compare with.
    pub(crate) fn are_strangers(
        &self,
        inbound: &[Packet],
        m: &Match,
        normal: &[(Packet, f64)],
    ) -> bool {
        let matched: Vec<&Packet> = inbound.iter().filter(|p| hits(m, p)).collect();
        let known = self.usual.iter().filter(|p| is_answer(p) && reversed(m, p));
        let known = known.chain(normal.iter().map(|(p, _)| p).filter(|p| hits(m, p)));
        Pairs::count(&matched, &known.collect::<Vec<_>>()).are_absent()
    }

    /// Share of the excess that is answered, by who is answered; `None` when too little was seen to say.
    /// Of a kind of packet that was there before, as much as was normal is answered anyway.
    pub(crate) fn of_excess(&self, excess: &Excess) -> Option<f64> {
        if !self.visible || excess.packets.is_empty() {
            return None;
        }
        let inbound: Vec<(&Packet, f64)> =
            excess.packets.iter().map(|(p, _)| p).zip(excess.grown.iter().copied()).collect();
        let total: f64 = inbound.iter().map(|(p, w)| weight(p) * w).sum();
        let own: f64 = inbound.iter().map(|(p, w)| weight(p) * w * w).sum::<f64>() / total;
        let protocols: Vec<u8> = excess.packets.iter().map(|(p, _)| p.protocol).collect();
        let reverse: Vec<(&Packet, f64)> = self
            .sent
            .iter()
            .filter(|p| protocols.contains(&p.protocol))
            .map(|p| (p, 1.0))
            .collect();
        let hit = |(p, _): &&(&Packet, f64)| self.is_answered(p);
        let answered: f64 = inbound.iter().filter(hit).map(|(p, w)| weight(p) * w).sum();
        let count = inbound.iter().filter(hit).count();
        let share = answered / total;
        let pairs = Pairs::weighed(&inbound, &reverse);
        let by_flow = (count >= PAIRS_MIN || share >= 0.5).then_some(share);
        let by_who = pairs.collisions().map(|a| a.min(1.0));
        let known = by_flow.is_some() || by_who.is_some() || pairs.are_absent();
        let silent = reverse.is_empty() && inbound.len() >= UNANSWERED_MIN;
        (known || silent).then(|| {
            let seen = by_flow.unwrap_or(0.0).max(by_who.unwrap_or(0.0));
            ((seen - (1.0 - own)) / own).clamp(0.0, 1.0)
        })
    }

    /// `all` is the weight of everything that is answered at the target.
    fn account(&self, inbound: &[&Packet], reverse: &[&Packet], all: f64, few: bool) -> Account {
        if inbound.is_empty() {
            return Account::default();
        }
        let answered: Vec<&&Packet> = inbound.iter().filter(|p| self.is_answered(p)).collect();
        let matched: f64 = inbound.iter().map(|p| weight(p)).sum();
        let hit = answered.iter().map(|p| weight(p)).sum::<f64>() + 0.0;
        let share = hit / matched.max(f64::MIN_POSITIVE);
        // One record of a flow may be all there is of a transfer.
        let enough = answered.len() >= PAIRS_MIN || (share >= 0.5 && !answered.is_empty());
        let pairs = Pairs::count(inbound, reverse);
        let collisions = pairs.collisions();
        let proportion = reverse.iter().map(|p| weight(p)).sum::<f64>() / matched.max(1.0);
        let by_who = collisions.is_some_and(|a| a >= COLLISIONS) && proportion >= PROPORTION;
        let silent = reverse.is_empty();
        if enough && (share >= OF_MATCHED || hit >= OF_ANSWERED * all) || by_who {
            let by_who = collisions.filter(|_| by_who).unwrap_or(0.0).min(1.0);
            return Account {
                standing: Standing::Answered,
                share: Some(share.max(by_who)),
                silent,
            };
        }
        let enough = if few { UNANSWERED_FEW_MIN } else { UNANSWERED_MIN };
        let unanswered = (silent && inbound.len() >= enough) || pairs.are_absent();
        Account {
            standing: if unanswered { Standing::Unanswered } else { Standing::Unknown },
            share: unanswered.then_some(share),
            silent,
        }
    }
}

/// Packets that a record stands for.
pub(crate) fn weight(p: &Packet) -> f64 {
    f64::from(p.packets)
}

/// Whether a packet that the target sent goes the other way of a match: ports change sides, lengths
/// and flags are the sender's own.
fn reversed(m: &Match, p: &Packet) -> bool {
    let any = |list: &[weir_model::Range], value: u16| {
        list.is_empty() || list.iter().any(|r| r.contains(value))
    };
    (m.protocols.is_empty() || m.protocols.contains(&p.protocol))
        && any(&m.src_ports, p.dst_port)
        && any(&m.dst_ports, p.src_port)
        && m.src.is_none_or(|net| net.contains(&crate::watch::packets::narrow(p.src)))
}

/// How often two packets have the same remote network.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Pairs {
    /// Records on either side.
    first: f64,
    second: f64,
    /// Pairs of records between both.
    between: f64,
    /// Pairs of records within the second.
    within: f64,
    /// The same of the packets that they stand for: share of all pairs that have one network.
    share_between: f64,
    share_within: f64,
}

impl Pairs {
    /// Counts over networks.
    pub(crate) fn count(first: &[&Packet], second: &[&Packet]) -> Self {
        Self::weighed(&alike(first), &alike(second))
    }

    /// The same with a factor for each packet. Records of flows stand for very different numbers of
    /// packets: who is answered is asked of packets, whether enough was seen of records.
    fn weighed(first: &[(&Packet, f64)], second: &[(&Packet, f64)]) -> Self {
        #[derive(Default)]
        struct Sum {
            records: (f64, f64),
            packets: (f64, f64),
            squares: f64,
        }
        let mut by: FastMap<Network, Sum> = FastMap::default();
        for (p, factor) in first {
            let sum = by.entry(network(p)).or_default();
            sum.records.0 += 1.0;
            sum.packets.0 += weight(p) * factor;
        }
        for (p, factor) in second {
            let sum = by.entry(network(p)).or_default();
            sum.records.1 += 1.0;
            sum.packets.1 += weight(p) * factor;
            sum.squares += (weight(p) * factor).powi(2);
        }
        // In an order of their own: the last digits of a sum depend on it.
        let mut sums: Vec<(Network, Sum)> = by.into_iter().collect();
        sums.sort_unstable_by_key(|(network, _)| *network);
        let mut all = Sum::default();
        let (mut pairs, mut packets) = ((0.0, 0.0), (0.0, 0.0));
        for (_, sum) in &sums {
            all.records = (all.records.0 + sum.records.0, all.records.1 + sum.records.1);
            all.packets = (all.packets.0 + sum.packets.0, all.packets.1 + sum.packets.1);
            all.squares += sum.squares;
            pairs.0 += sum.records.0 * sum.records.1;
            pairs.1 += sum.records.1 * (sum.records.1 - 1.0) / 2.0;
            packets.0 += sum.packets.0 * sum.packets.1;
            packets.1 += (sum.packets.1 * sum.packets.1 - sum.squares) / 2.0;
        }
        let possible = (all.packets.1 * all.packets.1 - all.squares) / 2.0;
        Self {
            first: all.records.0,
            second: all.records.1,
            between: pairs.0,
            within: pairs.1,
            share_between: packets.0 / (all.packets.0 * all.packets.1).max(f64::MIN_POSITIVE),
            share_within: packets.1 / possible.max(f64::MIN_POSITIVE),
        }
    }

    /// The collision share, from two pairs on.
    #[expect(clippy::cast_precision_loss, reason = "two")]
    pub(crate) fn collisions(&self) -> Option<f64> {
        if self.between < PAIRS_MIN as f64 {
            return None;
        }
        // Without any pair within the second there may be half of one.
        let least = 0.5 / (self.second * (self.second - 1.0) / 2.0).max(1.0);
        let within = if self.within >= 1.0 { self.share_within } else { least };
        Some(self.share_between / within.max(f64::MIN_POSITIVE))
    }

    /// Whether there are so few pairs between both that the first cannot be drawn from the population of
    /// the second: of a few packets, one pair within them may be chance.
    fn are_absent(&self) -> bool {
        let within = self.within - DEVIATIONS * self.within.sqrt();
        if self.second < 1.0 || within <= 0.0 {
            return false;
        }
        let expected = 2.0 * self.first * within / self.second;
        self.between < COLLISIONS * expected && ln_at_most(self.between, expected) < ABSENT_LN
    }
}

/// Packets that count alike.
fn alike<'p>(packets: &[&'p Packet]) -> Vec<(&'p Packet, f64)> {
    packets.iter().map(|p| (*p, 1.0)).collect()
}

/// Natural logarithm of P(X <= n) for a Poisson variable of mean `mu` > n, from above (Chernoff).
pub(crate) fn ln_at_most(n: f64, mu: f64) -> f64 {
    let drawn = if n > 0.0 { n * (mu / n).ln() } else { 0.0 };
    n - mu + drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::packets::tests::{inbound, sample};
    use weir_model::{Direction, IpNet, Range};

    /// A packet in from the `n`th player, and one that goes back.
    fn player(n: u32, slot: u64) -> (Packet, Packet) {
        let src = 0x0a00_0000 + n * 256;
        let mut s = sample(src, 40_000, 17, 51_820, 900);
        let packet = inbound(&s, slot);
        std::mem::swap(&mut s.record.src, &mut s.record.dst);
        std::mem::swap(&mut s.record.src_port, &mut s.record.dst_port);
        (packet, Packet::new(&s, slot, Direction::Outbound))
    }

    fn forged(n: u32) -> Packet {
        let src = n.wrapping_mul(2_654_435_761) | 0x8000_0000;
        inbound(&sample(src, 40_000, 17, 51_820, 900), 5)
    }

    fn rule() -> Match {
        Match {
            protocols: vec![17],
            dst_ports: vec![Range::exact(51_820)],
            ..Match::to("203.0.113.7/32".parse::<IpNet>().unwrap())
        }
    }

    #[test]
    fn a_rule_on_those_who_are_answered_cuts_wanted_traffic() {
        let (now, sent): (Vec<_>, Vec<_>) = (0..80).map(|n| player(n % 40, 5)).unzip();
        let answers = Answers::new(sent, Vec::new(), true);
        let account = answers.of_match(&now, &rule(), false);
        assert_eq!(account.standing, Standing::Answered);
        assert_eq!(account.share, Some(1.0));
    }

    #[test]
    fn forged_senders_are_not_those_who_are_answered() {
        let sent: Vec<_> = (0..120).map(|n| player(n % 40, 5).1).collect();
        let now: Vec<_> = (0..200).map(forged).collect();
        let answers = Answers::new(sent, Vec::new(), true);
        assert_eq!(answers.of_match(&now, &rule(), false).standing, Standing::Unanswered);
        // Of few packets nobody can tell.
        let few = answers.of_match(&now[..2], &rule(), false);
        assert_eq!((few.standing, few.share), (Standing::Unknown, None));
    }

    #[test]
    fn sampling_too_thin_for_flows_still_tells_who_is_answered() {
        // A hundred networks of players; no packet in has its own answer in the sample, for other hosts
        // of the same networks were drawn, on other ports.
        let of = |n: u32, port: u16| {
            let mut s = sample(0x0a00_0000 + (n % 20) * 256 + n % 7, 1000 + port, 17, 51_820, 90);
            s.record.src_port = 1000 + port;
            s
        };
        let now: Vec<_> = (0..60).map(|n| inbound(&of(n * 7, 1), 5)).collect();
        let sent: Vec<_> = (0..60)
            .map(|n| {
                let mut s = of(n * 11, 2);
                std::mem::swap(&mut s.record.src, &mut s.record.dst);
                s.record.dst_port = 1002;
                // Another local port: not answered by the flow.
                s.record.src_port = 51_821;
                Packet::new(&s, 5, Direction::Outbound)
            })
            .collect();
        let answers = Answers::new(sent, Vec::new(), true);
        assert_eq!(answers.answered(&now).count(), 0);
        let bare = Match { dst_ports: Vec::new(), ..rule() };
        assert_eq!(answers.of_match(&now, &bare, false).standing, Standing::Answered);
    }

    #[test]
    fn forged_queries_that_are_answered_come_from_strangers() {
        // Answers go to anybody, and none of them is among the players who were answered before.
        let back = |n: u32| {
            let mut s = sample(0, 51_820, 17, 40_000, 200);
            s.record.src = s.record.dst;
            s.record.dst =
                std::net::IpAddr::from((n.wrapping_mul(2_246_822_519) | 1 << 31).to_be_bytes());
            Packet::new(&s, 5, Direction::Outbound)
        };
        let sent: Vec<_> = (0..200).map(back).collect();
        let usual: Vec<_> = (0..120).map(|n| player(n % 40, 1).1).collect();
        let now: Vec<_> = (0..200).map(forged).collect();
        let answers = Answers::new(sent, usual, true);
        assert_eq!(answers.of_match(&now, &rule(), false).standing, Standing::Unknown);
        assert!(answers.are_strangers(&now, &rule(), &[]));
        let known: Vec<_> = (0..200).map(|n| player(n % 40, 5).0).collect();
        assert!(!answers.are_strangers(&known, &rule(), &[]));
        // What came in from the same players says as much as what went out to them.
        let met: Vec<_> = (0..120).map(|n| (player(n % 40, 1).0, 1.0)).collect();
        let answers = Answers::new(Vec::new(), Vec::new(), true);
        assert!(answers.are_strangers(&now, &rule(), &met));
        assert!(!answers.are_strangers(&known, &rule(), &met));
    }

    #[test]
    fn a_reset_or_a_syn_cookie_is_no_answer() {
        let reply = |flags: u8| {
            let mut s = sample(7, 25_565, 6, 40_000, 40);
            s.record.tcp_flags = flags;
            Packet::new(&s, 1, Direction::Outbound)
        };
        assert_eq!(
            Answers::new([0x04, 0x14, 0x12].map(reply).to_vec(), Vec::new(), true).sent.len(),
            0
        );
        assert_eq!(Answers::new([0x10, 0x18].map(reply).to_vec(), Vec::new(), true).sent.len(), 2);
    }

    #[test]
    fn where_every_packet_is_seen_the_answer_to_a_forged_query_proves_nothing() {
        let dense = |(mut a, mut b): (Packet, Packet)| {
            (a.packets, b.packets) = (1, 1);
            (a, b)
        };
        // One query each, answered in the same slot.
        let once: Vec<_> = (0..100).map(|n| dense(player(n * 300, 5))).collect();
        let (now, sent): (Vec<_>, Vec<_>) = once.into_iter().unzip();
        assert_eq!(Answers::new(sent.clone(), Vec::new(), true).answered(&now).count(), 0);
        // Who goes on after the answer has received it.
        let later: Vec<_> = (0..100).map(|n| dense(player(n * 300, 9)).0).collect();
        assert_eq!(Answers::new(sent, Vec::new(), true).answered(&later).count(), 100);
    }
}
