//! Whether a rule may be announced: only where what it matches is unanswered, or shows a positive sign of
//! attack. Size says nothing by itself.

use std::collections::BTreeSet;

use weir_model::{Hold, Match};

use crate::evidence::answers::{Account, Answers, Pairs, Standing};
use crate::evidence::connections::{Usual, is_foreign, is_ignored};
use crate::evidence::matching::hits;
use crate::evidence::signs::{Sign, are_polled, forged, is_scanning, networks, sign, to_any_port};
use crate::watch::packets::Packet;

/// Networks up to which the senders are a few.
const FEW: usize = 3;
/// Networks from which tunnels are a flood rather than somebody's tunnels.
const TUNNELS: usize = 30;
/// Collision share with the senders of normal times from which it is the same population, and packets
/// of normal times from which one can tell.
const SAME: f64 = 0.3;
const NORMAL_MIN: usize = 40;

/// Packets of a part from which it says something that no two of them come from one network.
const PART_MIN: usize = 50;
/// Share of what rules cover from which a reason to hold them back speaks for the whole.
const MOST: f64 = 0.5;
/// Packets that go back for each one in excess, below which none of the excess is answered: the thinnest wanted
/// traffic has one answer in fifty.
const IGNORED: f64 = 0.02;
/// Bits a second from reflectors' ports that nobody asks for by polling.
const HARM_BITS_PER_SEC: f64 = 20e6;
/// Share of forged queries that have one length, from which they are one question, and packets that go back
/// for each in excess below which a target does not answer a crowd.
const ONE_QUESTION: f64 = 0.95;
const ANSWERED_HALF: f64 = 0.5;
/// Share of what rules cover which a sign of attack must back to count.
const TELLING: f64 = 0.2;
/// Highest probability of what is told and not acted on, and of what is not even told (below
/// `report_confidence` as it comes).
const ALERT: f64 = 0.35;
pub(crate) const NO_INCIDENT: f64 = 0.14;
/// Highest probability of an attack where volume is all there is to go by: many such excesses are ordinary
/// days.
pub(crate) const VOLUME_ALONE: f64 = 0.6;

/// What is known of a target when rules for it are weighed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knowledge<'a> {
    pub(crate) answers: &'a Answers,
    /// Packets of the present.
    pub(crate) now: &'a [Packet],
    /// Packets of the present, and of some seconds before it.
    pub(crate) recent: &'a [Packet],
    /// Packets of normal times.
    pub(crate) normal: &'a [(Packet, f64)],
    /// Nothing is known of it yet.
    pub(crate) learning: bool,
    /// It is one host.
    pub(crate) single: bool,
    /// Flow caches may still hold the other direction.
    pub(crate) settling: bool,
    /// Packets that go back for each one in excess; `None` when it is not known.
    pub(crate) response: Option<f64>,
    /// What it usually sends.
    pub(crate) usual: Usual,
    /// Seconds that the present spans.
    pub(crate) secs: f64,
    /// SYNs a second to one port, and packets a second, below which nothing is a load to a host.
    pub(crate) bears: (f64, f64),
}

impl Knowledge<'_> {
    /// Whether the target sends no more than it did before: whatever the excess is, it is not answered.
    fn is_ignored(&self) -> bool {
        self.response.is_some_and(|response| response < IGNORED)
    }

    fn ignores(&self, m: &Match) -> bool {
        !self.settling && is_ignored(m, self.recent, self.answers, self.usual)
    }

    fn is_foreign(&self, m: &Match) -> bool {
        !self.settling && is_foreign(m, self.recent, self.answers, self.usual)
    }

    /// The sign that packets of so many seconds show, if any.
    fn sign(&self, packets: &[&Packet], secs: f64) -> Option<Sign> {
        sign(packets, self.answers, self.single)
            .filter(|sign| *sign != Sign::Reflection || self.is_harm(packets, secs))
    }

    /// The sign that what a match holds for shows, now or of late.
    fn sign_of(&self, m: &Match, matched: &[&Packet]) -> Option<Sign> {
        self.sign(matched, self.secs).or_else(|| {
            // That senders are forged is sure from some hundred packets on, which may take seconds.
            let recent: Vec<&Packet> = self.recent.iter().filter(|p| hits(m, p)).collect();
            self.sign(&recent, self.usual.secs).filter(|_| recent.len() > matched.len())
        })
    }

    /// Whether nobody asked for what comes from reflectors' ports, or it is more than anybody would. Where
    /// questions cannot be seen, whoever polls devices gets such answers, too; but never so much.
    fn is_harm(&self, matched: &[&Packet], secs: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "a statistic")]
        let bits: f64 = matched.iter().map(|p| p.bytes as f64 * 8.0).sum();
        self.answers.visible || !are_polled(matched) || bits >= HARM_BITS_PER_SEC * secs
    }

    /// Whether what a match holds for is a part of scanning that a host bears: SYNs to one port after another
    /// where nobody is served.
    fn is_scanning(&self, matched: &[&Packet]) -> bool {
        let (backlog, load) = self.bears;
        // A flood that has just begun is above it now, however little there was before.
        let now: f64 = matched.iter().map(|p| f64::from(p.packets)).sum();
        let syns = !matched.is_empty() && matched.iter().all(|p| p.is_syn());
        if !self.single || !syns || now >= load * self.secs {
            return false;
        }
        let served: BTreeSet<u16> =
            self.recent.iter().filter(|p| p.may_be_established()).map(|p| p.dst_port).collect();
        let is_closed = |p: &Packet| p.is_syn() && !served.contains(&p.dst_port);
        let closed: Vec<&Packet> = self.recent.iter().filter(|p| is_closed(p)).collect();
        2 * matched.iter().filter(|p| is_closed(p)).count() > matched.len()
            && is_scanning(&closed, self.usual.secs, backlog, load)
    }

    /// Whether one question is asked over and over by forged senders, of a target that knows no such question
    /// and answers less than half: no crowd, whose questions differ and are answered.
    fn is_one_question(&self, m: &Match, matched: &[&Packet]) -> bool {
        let exact = |p: &&&Packet| p.length_min == p.length_max;
        let mut lengths: Vec<u16> = matched.iter().filter(exact).map(|p| p.length_max).collect();
        lengths.sort_unstable();
        let same = lengths.chunk_by(|a, b| a == b).map(<[u16]>::len).max().unwrap_or(0);
        let new = !self.normal.iter().any(|(p, _)| hits(m, p));
        #[expect(clippy::cast_precision_loss, reason = "bounded by the size of the sample")]
        let one = same as f64 >= ONE_QUESTION * matched.len() as f64;
        one && new && self.response.is_some_and(|response| response < ANSWERED_HALF)
    }
}

/// What speaks against a rule, and for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weighed {
    /// Why it must not be announced, or not yet.
    pub(crate) hold: Option<Hold>,
    /// Whether what it matches shows a sign of attack by itself, so that one look is enough.
    pub(crate) sign: bool,
    /// Whether nobody is answered of those who send it, for certain.
    pub(crate) unanswered: bool,
}

impl Weighed {
    const fn held(hold: Hold) -> Self {
        Self { hold: Some(hold), sign: false, unanswered: false }
    }
}

/// Weighs a rule.
pub(crate) fn hold(m: &Match, known: &Knowledge<'_>) -> Weighed {
    let matched: Vec<&Packet> = known.now.iter().filter(|p| hits(m, p)).collect();
    let networks = networks(&matched);
    let mut account = known.answers.of_match(known.now, m, networks <= FEW);
    let mut sign = known.sign_of(m, &matched);
    // Forged queries are answered, too, and each forged network that comes twice looks like one that is.
    let query = sign == Some(Sign::Forged) && known.is_one_question(m, &matched);
    if account.standing == Standing::Answered && !query {
        return Weighed::held(Hold::Answered);
    }
    if account.standing == Standing::Unknown && !known.learning && known.ignores(m) {
        account.standing = Standing::Unanswered;
    }
    if known.is_scanning(&matched) {
        return Weighed::held(Hold::Scanning);
    }
    let tunnel = |p: &&&Packet| !matches!(p.protocol, 6 | 17) && !p.is_icmp();
    if networks < TUNNELS && 2 * matched.iter().filter(tunnel).count() > matched.len() {
        return Weighed::held(Hold::Tunnel);
    }
    // A rule for some lengths matches a part of a flood only, which may be too few packets to tell by.
    let mut whole = None;
    if sign.is_none() {
        whole = part_of_forged(m, &matched, known);
        sign = whole.is_some().then_some(Sign::Forged);
    }
    if sign.is_none() && known.is_foreign(m) {
        sign = Some(Sign::Foreign);
    }
    if sign.is_none() && familiar(&matched, known.normal) {
        return Weighed::held(Hold::Familiar);
    }
    // What many send to any port of a host, and nobody is answered, means no service of it, known or not.
    let aimless = account.standing == Standing::Unanswered
        && known.answers.visible
        && networks >= TUNNELS
        && to_any_port(&matched);
    let hold = match (sign, known) {
        (None, Knowledge { learning: true, .. }) if !aimless => Some(Hold::Learning),
        // Of a crowd's exchanges half are told of by their answers first: only of a few may one direction
        // still be on its way.
        (sign, known) if known.answers.visible => {
            let strangers = sign == Some(Sign::Forged)
                && (known.is_ignored() && !familiar(&matched, known.normal)
                    || query
                    || known.answers.are_strangers(
                        known.now,
                        whole.as_ref().unwrap_or(m),
                        known.normal,
                    ));
            undecided(account, sign, strangers, known.settling && networks < TUNNELS)
        }
        (None, _) => Some(Hold::OneWay),
        (Some(_), _) => None,
    };
    // Where answers cannot be seen, their absence says nothing.
    let ignored = known.answers.visible && account.standing == Standing::Unanswered;
    let unanswered = ignored || sign == Some(Sign::Foreign);
    Weighed { hold, sign: sign.is_some(), unanswered }
}

/// Highest probability of an attack that may be told of an excess for which these rules were found, each with
/// the share that it covers, 0-1: what is wanted for all that is known is no attack, and of a target of which
/// nothing is known yet (`learning`) it is nothing to tell.
pub(crate) fn held_cap(rules: &[(Weighed, f64)], learning: bool) -> f64 {
    let share = |of: &dyn Fn(&Weighed) -> bool| covered(rules, of);
    let total = share(&|_| true);
    // What shows a sign of attack beside what is wanted is no less of an attack.
    if share(&is_telling) >= TELLING * total {
        return 1.0;
    }
    let tunnel = |rule: &Weighed| rule.hold == Some(Hold::Tunnel);
    let wanted = |rule: &Weighed| {
        matches!(rule.hold, Some(Hold::Familiar | Hold::Answered | Hold::Scanning))
    };
    if share(&tunnel).max(share(&wanted)) < MOST * total {
        return 1.0;
    }
    if learning { NO_INCIDENT } else { ALERT }
}

/// Whether volume is all there is to go by: of a target that is not known yet, or whose answers cannot be seen,
/// and no rule shows anything beside it.
pub(crate) fn is_volume_alone(rules: &[(Weighed, f64)]) -> bool {
    let share = |of: &dyn Fn(&Weighed) -> bool| covered(rules, of);
    let volume = |rule: &Weighed| matches!(rule.hold, Some(Hold::Learning | Hold::OneWay));
    let all = share(&|_| true);
    all > 0.0 && share(&is_telling) <= 0.0 && share(&volume) >= MOST * all
}

/// Share of the excess that those rules cover of which something holds, 0-1.
fn covered(rules: &[(Weighed, f64)], of: &dyn Fn(&Weighed) -> bool) -> f64 {
    rules.iter().filter(|(rule, _)| of(rule)).map(|(_, coverage)| coverage).sum()
}

/// Whether what a rule matches speaks for an attack.
const fn is_telling(rule: &Weighed) -> bool {
    rule.sign || rule.unanswered
}

/// Whether one may soon know more of an excess: nothing is known of the target yet, nor whether it answers,
/// and no rule shows a sign of attack.
pub(crate) fn is_unsettled(rules: &[(Weighed, f64)]) -> bool {
    covered(rules, &is_telling) < MOST * covered(rules, &|_| true).max(MOST)
}

/// The whole of a flood of forged senders on a port, where a rule matches a part of it whose senders share
/// networks no more often than those of the whole.
fn part_of_forged(m: &Match, matched: &[&Packet], known: &Knowledge<'_>) -> Option<Match> {
    let udp = m.protocols == [17] && !m.dst_ports.is_empty();
    if !udp || !known.single || networks(matched) + 1 < matched.len() {
        return None;
    }
    let whole = Match {
        protocols: m.protocols.clone(),
        dst_ports: m.dst_ports.clone(),
        ..Match::to(m.dst)
    };
    let all: Vec<&Packet> = known.now.iter().filter(|p| hits(&whole, p)).collect();
    (matched.len() >= PART_MIN && forged(&all)).then_some(whole)
}

/// Whether it must still be seen that nobody is answered.
fn undecided(
    account: Account,
    sign: Option<Sign>,
    strangers: bool,
    settling: bool,
) -> Option<Hold> {
    match (account.standing, sign) {
        // Of reflections the sign says itself that nobody asked.
        (
            _,
            Some(
                Sign::Malformed
                | Sign::ForgedTtl
                | Sign::Unasked
                | Sign::Reflection
                | Sign::Foreign,
            ),
        ) => None,
        // A forged query may be answered; but whoever received the answer would go on.
        (_, Some(Sign::Forged)) if strangers => None,
        // Nothing asked for it, and nothing takes it.
        (_, Some(sign)) if account.silent && sign != Sign::Forged => None,
        (Standing::Unanswered, Some(_)) => None,
        (Standing::Unanswered, None) if !settling => None,
        _ => Some(Hold::Undecided),
    }
}

/// Whether those who send are the population of normal times.
fn familiar(matched: &[&Packet], normal: &[(Packet, f64)]) -> bool {
    if normal.len() < NORMAL_MIN {
        return false;
    }
    let normal: Vec<&Packet> = normal.iter().map(|(p, _)| p).collect();
    Pairs::count(matched, &normal).collisions().is_some_and(|a| a >= SAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excess_is_no_surer_than_its_rules_are_unwanted() {
        let held = |hold| Weighed::held(hold);
        let free = Weighed { hold: None, sign: true, unanswered: true };
        assert_eq!(held_cap(&[(held(Hold::Tunnel), 1.0)], false), ALERT);
        assert_eq!(held_cap(&[(held(Hold::Tunnel), 1.0)], true), NO_INCIDENT);
        assert_eq!(held_cap(&[(held(Hold::Scanning), 0.6), (free, 0.1)], false), ALERT);
        assert_eq!(held_cap(&[(held(Hold::Answered), 0.8), (free, 0.1)], false), ALERT);
        // A part that is wanted makes the rest no less an attack.
        assert_eq!(held_cap(&[(held(Hold::Familiar), 0.3), (free, 0.6)], false), 1.0);
        assert_eq!(held_cap(&[(held(Hold::Undecided), 1.0)], true), 1.0);
        assert!(is_volume_alone(&[(held(Hold::Learning), 1.0)]));
        assert!(is_volume_alone(&[(held(Hold::OneWay), 0.6), (held(Hold::Familiar), 0.4)]));
        assert!(!is_volume_alone(&[(held(Hold::Learning), 0.9), (free, 0.1)]));
        assert!(!is_volume_alone(&[]));
        assert_eq!(held_cap(&[], true), 1.0);
        assert!(is_unsettled(&[(held(Hold::Learning), 1.0)]));
        assert!(is_unsettled(&[]));
        assert!(!is_unsettled(&[(free, 0.6), (held(Hold::Learning), 0.4)]));
    }
}
