//! How well a defender did on a case: what it said and announced, held against the truth.
//!
//! A defender is a list of [`Event`]s, whoever wrote it. Rules are applied to the exact mix of
//! packets, second by second and part of a second, so that coverage, collateral and the players'
//! goodput are counted and not estimated.

mod goodput;
mod losses;
mod report;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use weir_model::{Direction, Family, Measure, Millis};

pub use losses::{Loss, Losses, Stratum, losses, stratum};
pub use report::{Kept, KeptRows, Quantiles, Summary, summarise};

use crate::case::{CaseWorld, Truth};
use crate::mix::Mix;
use goodput::{Goodput, Policy};

/// An incident is still the attack's if it opens this long after the last packet: what a cache
/// holds is reported late.
const GRACE_MS: u64 = 30_000;

/// An announcement is still the attack's if it comes this long after the last packet.
const ANNOUNCE_GRACE_MS: u64 = 75_000;

/// A rule that comes back within this time of its withdrawal has flapped.
const FLAP_MS: u64 = 120_000;

/// Something a defender said or did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, milliseconds since the Unix epoch.
    pub t_ms: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a defender said or did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    /// An incident opens, or its classification changes.
    Detect {
        /// Its number, chosen by the defender.
        incident: u64,
        /// Host or prefix.
        target: IpNet,
        /// Which way.
        #[serde(default)]
        direction: Direction,
        /// Family.
        family: Family,
        /// Subtypes of its vectors, the largest first.
        #[serde(default)]
        subtypes: Vec<String>,
        /// 0-100.
        confidence: u8,
    },
    /// A measure is put in force.
    Announce {
        /// Which.
        measure: Measure,
    },
    /// A measure is taken back.
    Withdraw {
        /// Which.
        measure: Measure,
    },
    /// An incident is over.
    End {
        /// Which.
        incident: u64,
    },
}

/// One attack's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttackScore {
    /// Its target.
    pub target: IpNet,
    /// Milliseconds from the first attack datagram to the first matching incident; none if missed.
    pub delay_flow_ms: Option<u64>,
    /// Milliseconds from the first attack packet.
    pub delay_packet_ms: Option<u64>,
    /// Milliseconds from the first attack datagram to the first announcement for its target.
    pub delay_announce_ms: Option<u64>,
    /// Family at the end of the attack.
    pub family: Option<Family>,
    /// Whether that is none of the right ones.
    pub wrong_family: bool,
    /// Whether the largest vector's subtype is none of the right ones.
    pub wrong_subtype: bool,
    /// Confidence at its highest.
    pub confidence: Option<u8>,
    /// No filter can tell it from ordinary traffic, or none is asked for (outbound).
    pub alert_suffices: bool,
    /// Share of its octets dropped, from the first attack datagram on, 0-1; none when less than
    /// 5 % of it was still to come then, as with caches that report when all is over.
    pub coverage: Option<f64>,
    /// Share of its target's benign octets dropped, from its start to 15 minutes after it, 0-1.
    pub collateral: f64,
    /// Most measures in force at once for its target.
    pub rules: usize,
    /// Milliseconds from its end to the withdrawal of the last measure; none if there was no
    /// measure, or if it still stood at the end of the case.
    pub withdraw_ms: Option<u64>,
}

/// One case's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaseScore {
    /// Name of the case.
    pub case: String,
    /// Seconds scored.
    pub seconds: u64,
    /// Protected hosts, for rates per host-day.
    pub hosts: u64,
    /// Each attack.
    pub attacks: Vec<AttackScore>,
    /// Incidents of no attack.
    pub false_incidents: usize,
    /// Announcements for what was not under attack.
    pub false_announcements: usize,
    /// Announcements.
    pub announcements: usize,
    /// Rules withdrawn and announced again within two minutes.
    pub flaps: usize,
    /// Measures that still stood at the end though no attack did.
    pub left_standing: usize,
    /// Share of benign octets that reached their hosts.
    pub goodput: GoodputRow,
    /// Each incident's highest confidence, and whether it was an attack.
    pub confidences: Vec<(u8, bool)>,
    /// 0-100: see [`CaseScore::points`].
    pub points: f64,
}

/// Goodput of the defender and of those it is measured by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct GoodputRow {
    /// The defender.
    pub tool: f64,
    /// Nobody.
    pub none: f64,
    /// Whoever null-routes each target from the first attack datagram to the last packet.
    pub rtbh: f64,
    /// Whoever drops exactly the attack.
    pub oracle: f64,
}

/// An incident as the events tell it.
#[derive(Debug)]
struct Said {
    id: u64,
    target: IpNet,
    direction: Direction,
    opened: u64,
    /// Classifications in order of time.
    words: Vec<(u64, Family, Vec<String>, u8)>,
}

/// A measure and the time it stood.
#[derive(Clone, Debug)]
pub(crate) struct Stood {
    pub(crate) measure: Measure,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
    withdrawn: bool,
}

/// Two prefixes that share addresses.
fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

fn incidents(events: &[Event]) -> Vec<Said> {
    let mut list: Vec<Said> = Vec::new();
    for event in events {
        let What::Detect { incident, target, direction, family, subtypes, confidence } =
            &event.what
        else {
            continue;
        };
        let word = (event.t_ms, *family, subtypes.clone(), *confidence);
        match list.iter_mut().find(|s| s.id == *incident) {
            Some(said) => said.words.push(word),
            None => list.push(Said {
                id: *incident,
                target: *target,
                direction: *direction,
                opened: event.t_ms,
                words: vec![word],
            }),
        }
    }
    list
}

fn measures(events: &[Event], end_ms: u64) -> Vec<Stood> {
    let mut list: Vec<Stood> = Vec::new();
    for event in events {
        match &event.what {
            What::Announce { measure } => {
                if !list.iter().any(|s| !s.withdrawn && s.measure == *measure) {
                    list.push(Stood {
                        measure: measure.clone(),
                        from_ms: event.t_ms,
                        to_ms: end_ms,
                        withdrawn: false,
                    });
                }
            }
            What::Withdraw { measure } => {
                if let Some(stood) = list.iter_mut().find(|s| !s.withdrawn && s.measure == *measure)
                {
                    stood.withdrawn = true;
                    stood.to_ms = event.t_ms;
                }
            }
            What::Detect { .. } | What::End { .. } => {}
        }
    }
    list
}

impl Truth {
    fn is_of(&self, said: &Said) -> bool {
        self.direction == said.direction
            && overlap(self.target, said.target)
            && said.opened >= self.first_packet_ms
            && said.opened <= self.end_ms + GRACE_MS
    }

    fn is_for(&self, stood: &Stood) -> bool {
        self.direction == Direction::Inbound
            && overlap(self.target, stood.measure.target())
            && stood.from_ms >= self.first_packet_ms
            && stood.from_ms <= self.end_ms + ANNOUNCE_GRACE_MS
    }
}

/// Scores the events of one defender; they are in order of time.
pub fn score(world: &CaseWorld, truths: &[Truth], mix: &Mix, events: &[Event]) -> CaseScore {
    let learned_ms = world.epoch_ms + world.learning_seconds * 1000;
    let end_ms = world.epoch_ms + world.seconds * 1000;
    let said = incidents(events);
    let stood = measures(events, end_ms);
    let goodput = Goodput::new(world, mix);
    let tool = goodput.of(&Policy::Measures(&stood), truths);
    let attacks: Vec<AttackScore> = truths
        .iter()
        .enumerate()
        .map(|(i, truth)| attack_score(truth, tool.attacks[i], &said, &stood))
        .collect();
    let false_incidents = said.iter().filter(|s| !truths.iter().any(|t| t.is_of(s))).count();
    let justified = justified(&stood, truths);
    let standing = |s: &&Stood| !s.withdrawn && !truths.iter().any(|t| t.end_ms + 60_000 > end_ms);
    let row = GoodputRow {
        tool: tool.goodput,
        none: goodput.of(&Policy::Nothing, truths).goodput,
        rtbh: goodput.of(&Policy::NullRoute, truths).goodput,
        oracle: goodput.of(&Policy::Oracle, truths).goodput,
    };
    CaseScore {
        case: world.name.clone(),
        seconds: (end_ms - learned_ms) / 1000,
        hosts: hosts(world),
        attacks,
        false_incidents,
        false_announcements: justified.iter().filter(|of_attack| !**of_attack).count(),
        announcements: stood.len(),
        flaps: flaps(&stood),
        left_standing: stood.iter().filter(standing).count(),
        goodput: row,
        confidences: said
            .iter()
            .map(|s| (confidence(s), truths.iter().any(|t| t.is_of(s))))
            .collect(),
        points: points(row, truths.is_empty()),
    }
}

/// Attack cases: how far from no defence (0) to the oracle's goodput (100) the defender came; where
/// the attack costs nothing, and in benign cases, the share of goodput kept. Not below -100.
fn points(row: GoodputRow, benign: bool) -> f64 {
    let lost = row.oracle - row.none;
    let value = if benign || lost < 0.001 {
        100.0 * row.tool / row.oracle.max(f64::MIN_POSITIVE)
    } else {
        100.0 * (row.tool - row.none) / lost
    };
    value.clamp(-100.0, 100.0)
}

/// Addresses in the protected IPv4 prefixes, and one for each declared IPv6 service address.
fn hosts(world: &CaseWorld) -> u64 {
    let v4: u64 = world
        .protected
        .iter()
        .map(|net| match net {
            IpNet::V4(net) => 1u64 << (32 - net.prefix_len()),
            IpNet::V6(_) => 0,
        })
        .sum();
    let mut v6: Vec<_> = world.services.iter().map(|s| s.address).filter(|a| a.is_ipv6()).collect();
    v6.sort_unstable();
    v6.dedup();
    v4 + v6.len() as u64
}

fn confidence(said: &Said) -> u8 {
    said.words.iter().map(|w| w.3).max().unwrap_or(0)
}

/// The same packets announced again soon after they were given up. A rule that is replaced by
/// another for the same packets has not been given up.
fn flaps(stood: &[Stood]) -> usize {
    let same = |a: &Measure, b: &Measure| match (a, b) {
        (Measure::FlowSpec(a), Measure::FlowSpec(b)) => a.packets == b.packets,
        _ => a == b,
    };
    let again = |s: &&Stood| {
        let before = stood
            .iter()
            .filter(|b| b.from_ms < s.from_ms && same(&b.measure, &s.measure))
            .map(|b| b.to_ms)
            .max();
        before.is_some_and(|end| end < s.from_ms && s.from_ms - end < FLAP_MS)
    };
    stood.iter().filter(again).count()
}

/// Whether each measure is for an attack: put in force while it went on, or the next step of one
/// that is.
fn justified(stood: &[Stood], truths: &[Truth]) -> Vec<bool> {
    let mut known: Vec<bool> = Vec::with_capacity(stood.len());
    for (i, s) in stood.iter().enumerate() {
        let follows = stood[..i].iter().zip(&known).any(|(before, justified)| {
            *justified
                && before.to_ms >= s.from_ms
                && overlap(before.measure.target(), s.measure.target())
        });
        known.push(follows || truths.iter().any(|t| t.is_for(s)));
    }
    known
}

fn attack_score(
    truth: &Truth,
    dropped: goodput::Dropped,
    said: &[Said],
    stood: &[Stood],
) -> AttackScore {
    let mine: Vec<&Said> = said.iter().filter(|s| truth.is_of(s)).collect();
    let rules: Vec<&Stood> = stood.iter().filter(|s| truth.is_for(s)).collect();
    let opened = mine.iter().map(|s| s.opened).min();
    let announced = rules.iter().map(|s| s.from_ms).min();
    // The incident that names the attack: the one of the very target, else the first.
    let named = mine.iter().min_by_key(|s| (s.target != truth.target, s.opened));
    let word = named.and_then(|s| {
        s.words.iter().rev().find(|w| w.0 <= truth.end_ms).or_else(|| s.words.first())
    });
    let wrong_family =
        word.is_some_and(|w| !truth.families.is_empty() && !truth.families.contains(&w.1));
    let wrong_subtype = word.is_some_and(|w| {
        !truth.subtypes.is_empty() && !w.2.first().is_some_and(|s| truth.subtypes.contains(s))
    });
    let most = rules
        .iter()
        .map(|r| rules.iter().filter(|o| o.from_ms <= r.from_ms && r.from_ms < o.to_ms).count())
        .max();
    let last = rules.iter().map(|r| (r.to_ms, r.withdrawn)).max();
    let first = truth.first_report().0;
    AttackScore {
        target: truth.target,
        delay_flow_ms: opened.map(|at| at.saturating_sub(first)),
        delay_packet_ms: opened.map(|at| at.saturating_sub(truth.first_packet_ms)),
        delay_announce_ms: announced.map(|at| at.saturating_sub(first)),
        family: word.map(|w| w.1),
        wrong_family,
        wrong_subtype,
        confidence: mine.iter().map(|s| confidence(s)).max(),
        alert_suffices: truth.inseparable || truth.direction == Direction::Outbound,
        coverage: dropped.coverage(),
        collateral: dropped.collateral(),
        rules: most.unwrap_or(0),
        withdraw_ms: last
            .filter(|(_, withdrawn)| *withdrawn)
            .map(|(at, _)| at.saturating_sub(truth.end_ms)),
    }
}

/// The instant as a case's time.
pub const fn at(now: Millis, what: What) -> Event {
    Event { t_ms: now.0, what }
}

#[cfg(test)]
mod tests {
    use weir_model::{Action, Filter, Match, Range};

    use super::*;
    use crate::case::{play, world_of};
    use crate::scene::Scene;

    struct Demo {
        world: CaseWorld,
        truths: Vec<Truth>,
        mix: Mix,
    }

    fn demo() -> Demo {
        let scene = Scene::demo(3);
        let epoch = Millis::from_secs(1_800_000_000);
        let (truths, mix) = play(&scene, epoch, |_| Ok::<(), ()>(())).unwrap();
        Demo { world: world_of(&scene, "demo", epoch), truths, mix }
    }

    fn detect(t_ms: u64, target: &str, family: Family) -> Event {
        let what = What::Detect {
            incident: 1,
            target: target.parse().unwrap(),
            direction: Direction::Inbound,
            family,
            subtypes: vec!["ntp-amplification".to_owned()],
            confidence: 90,
        };
        Event { t_ms, what }
    }

    fn drop_ntp(target: &str) -> Measure {
        let mut packets = Match::to(target.parse().unwrap());
        packets.protocols = vec![17];
        packets.src_ports = vec![Range::exact(123)];
        Measure::FlowSpec(Filter { packets, action: Action::Drop })
    }

    #[test]
    fn a_right_rule_scores_close_to_the_oracle_and_a_null_route_does_not() {
        let Demo { world, truths, mix } = demo();
        let start = truths[0].first_report().0;
        let host = "203.0.113.7/32";
        let events = |measure: Measure| {
            vec![
                detect(start + 300, host, Family::UdpFlood),
                Event { t_ms: start + 400, what: What::Announce { measure: measure.clone() } },
                Event { t_ms: truths[0].end_ms + 20_000, what: What::Withdraw { measure } },
            ]
        };
        let good = score(&world, &truths, &mix, &events(drop_ntp(host)));
        let attack = &good.attacks[0];
        assert_eq!((attack.delay_flow_ms, attack.delay_announce_ms), (Some(300), Some(400)));
        assert!(!attack.wrong_family && !attack.wrong_subtype);
        assert!((0.95..0.98).contains(&attack.coverage.unwrap()), "{attack:?}");
        assert!(attack.collateral < 1e-9);
        assert_eq!(attack.withdraw_ms, Some(20_000));
        assert!(good.points > 95.0, "{good:?}");
        let null = Measure::Blackhole(host.parse().unwrap());
        let bad = score(&world, &truths, &mix, &events(null));
        assert!(bad.attacks[0].collateral > 0.5, "{bad:?}");
        assert!(bad.points < 20.0 && bad.goodput.tool < good.goodput.tool);
        assert!(good.goodput.tool > good.goodput.rtbh);
        assert!(good.goodput.oracle >= good.goodput.tool);
    }

    #[test]
    fn what_nobody_asked_for_counts_against_the_defender() {
        let Demo { world, truths, mix } = demo();
        let start = truths[0].first_report().0;
        let other = Measure::Blackhole("203.0.113.10/32".parse().unwrap());
        let at = |ms, what| Event { t_ms: start + ms, what };
        let events = vec![
            detect(start + 100, "203.0.113.10/32", Family::SynFlood),
            at(200, What::Announce { measure: other.clone() }),
            at(900, What::Withdraw { measure: other.clone() }),
            at(2000, What::Announce { measure: other }),
        ];
        let bad = score(&world, &truths, &mix, &events);
        assert_eq!((bad.false_incidents, bad.false_announcements, bad.flaps), (1, 2, 1));
        assert_eq!(bad.left_standing, 0, "the attack ended less than a minute before the case");
        assert_eq!(bad.attacks[0].delay_flow_ms, None);
        let total = summarise(&[bad]);
        assert!(total.recall < 0.5 && total.precision < 0.5 && total.false_announcements == 2);
    }

    #[test]
    fn events_are_lines_that_other_programs_can_write() {
        let line = r#"{"t_ms":5,"event":"announce","measure":{"blackhole":"203.0.113.7/32"}}"#;
        let event: Event = serde_json::from_str(line).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
        let line = r#"{"t_ms":5,"event":"detect","incident":1,"target":"203.0.113.7/32",
            "family":"udp-flood","confidence":80}"#;
        assert!(serde_json::from_str::<Event>(line).is_ok());
    }
}
