//! What reaches the hosts when measures stand, a second at a time.

use std::net::IpAddr;

use ipnet::IpNet;
use rustc_hash::FxHashMap;
use weir_model::{Action, Direction, Measure};

use crate::case::{CaseWorld, Truth};
use crate::mix::{Kind, Mix, Second, Volume, hits};
use crate::score::Stood;

/// Benign traffic counts towards collateral this long after an attack.
const AFTERMATH_MS: u64 = 900_000;

/// Least share of an attack that must pass after its first report for a filter to be asked for.
const CUTTABLE_MIN: f64 = 0.05;

/// Who defends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Policy<'a> {
    /// Nobody.
    Nothing,
    /// Whoever null-routes each target while it is attacked.
    NullRoute,
    /// Whoever drops exactly the attack.
    Oracle,
    /// A list of measures and the times they stood.
    Measures(&'a [Stood]),
}

/// Octets of one attack and of its target's ordinary traffic, and how many were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Dropped {
    /// All of the attack.
    whole: f64,
    /// From the first report on.
    attack: f64,
    attack_dropped: f64,
    benign: f64,
    benign_dropped: f64,
}

impl Dropped {
    /// None when nearly all of the attack had passed before anything reported it.
    pub(crate) fn coverage(&self) -> Option<f64> {
        (self.attack > CUTTABLE_MIN * self.whole).then(|| share(self.attack_dropped, self.attack))
    }

    pub(crate) fn collateral(&self) -> f64 {
        share(self.benign_dropped, self.benign)
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// What came of a policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    /// Share of benign octets that reached their hosts, 0-1.
    pub(crate) goodput: f64,
    /// Per attack of the truth.
    pub(crate) attacks: Vec<Dropped>,
}

/// What a host bears.
#[derive(Clone, Copy, Debug, Default)]
struct Capacity {
    packets: f64,
    bits: f64,
}

/// Counts goodput on one case.
#[derive(Debug)]
pub(crate) struct Goodput<'a> {
    world: &'a CaseWorld,
    mix: &'a Mix,
    capacities: FxHashMap<IpAddr, Capacity>,
}

/// What is left of a kind of packet.
#[derive(Clone, Copy, Debug)]
struct Kept {
    benign: f64,
    attack: f64,
}

impl<'a> Goodput<'a> {
    /// Looks up what each host bears.
    pub(crate) fn new(world: &'a CaseWorld, mix: &'a Mix) -> Self {
        let mut capacities: FxHashMap<IpAddr, Capacity> = FxHashMap::default();
        let mut sums: FxHashMap<IpAddr, (u64, u64)> = FxHashMap::default();
        for (_, rows) in mix.seconds() {
            sums.clear();
            for (kind, volume) in rows {
                let sum = sums.entry(kind.dst).or_default();
                sum.0 = sum.0.saturating_add(volume.benign_packets);
                sum.1 = sum.1.saturating_add(volume.benign_bytes);
            }
            // Maxima only: the order does not matter.
            for (host, (packets, bytes)) in &sums {
                let capacity = capacities.entry(*host).or_insert(Capacity {
                    packets: world.host_packets_per_sec as f64,
                    bits: world.host_bits_per_sec as f64,
                });
                let head = world.host_headroom;
                capacity.packets = capacity.packets.max(*packets as f64 * head);
                capacity.bits = capacity.bits.max(*bytes as f64 * 8.0 * head);
            }
        }
        Self { world, mix, capacities }
    }

    /// Plays the case under a policy.
    pub(crate) fn of(&self, policy: &Policy<'_>, truths: &[Truth]) -> Outcome {
        let mut outcome = Outcome { goodput: 1.0, attacks: vec![Dropped::default(); truths.len()] };
        let (mut benign, mut arrived) = (0.0, 0.0);
        for (second, rows) in self.mix.seconds() {
            let from_ms = self.world.epoch_ms + second * 1000;
            for part in parts(policy, truths, from_ms) {
                let kept = keep(policy, truths, rows, part.from_ms);
                account(truths, rows, &kept, &part, &mut outcome.attacks);
                let (all, through) = self.deliver(truths, rows, &kept, &part);
                benign += all * part.weight;
                arrived += through * part.weight;
            }
        }
        if benign > 0.0 {
            outcome.goodput = arrived / benign;
        }
        outcome
    }

    /// Tells `sink` of every kind of benign packet in every part of a second: its octets, those
    /// that filters take, and whether any measure stands.
    pub(crate) fn each(
        &self,
        policy: &Policy<'_>,
        truths: &[Truth],
        mut sink: impl FnMut(&Kind, f64, f64, bool),
    ) {
        for (second, rows) in self.mix.seconds() {
            for part in parts(policy, truths, self.world.epoch_ms + second * 1000) {
                let at = part.from_ms;
                let ruled = matches!(policy, Policy::Measures(stood)
                    if stood.iter().any(|s| (s.from_ms..s.to_ms).contains(&at)));
                let kept = keep(policy, truths, rows, at);
                for ((kind, volume), kept) in rows.iter().zip(&kept) {
                    if volume.benign_bytes > 0 {
                        let octets = volume.benign_bytes as f64 * part.weight;
                        sink(kind, octets, octets * (1.0 - kept.benign), ruled);
                    }
                }
            }
        }
    }

    /// Benign octets of a second, and how many of them get through filters, link and host.
    fn deliver(&self, truths: &[Truth], rows: &Second, kept: &[Kept], part: &Part) -> (f64, f64) {
        let mut link = 0.0;
        let mut hosts: FxHashMap<IpAddr, Capacity> = FxHashMap::default();
        for ((kind, volume), kept) in rows.iter().zip(kept) {
            let attack = kept.attack * part.attack(truths, kind);
            let packets =
                volume.benign_packets as f64 * kept.benign + volume.attack_packets as f64 * attack;
            let bits = 8.0
                * (volume.benign_bytes as f64 * kept.benign + volume.attack_bytes as f64 * attack);
            link += bits;
            let load = hosts.entry(kind.dst).or_default();
            load.packets += packets;
            load.bits += bits;
        }
        let by_link = passing(self.world.link_bits_per_sec as f64, link);
        let (mut all, mut through) = (0.0, 0.0);
        for ((kind, volume), kept) in rows.iter().zip(kept) {
            let benign = volume.benign_bytes as f64;
            if benign == 0.0 {
                continue;
            }
            all += benign;
            let load = hosts.get(&kind.dst).copied().unwrap_or_default();
            let bears = self
                .capacities
                .get(&kind.dst)
                .copied()
                .unwrap_or(Capacity { packets: f64::INFINITY, bits: f64::INFINITY });
            let by_host = passing(bears.packets, load.packets * by_link)
                .min(passing(bears.bits, load.bits * by_link));
            through += benign * kept.benign * by_link * by_host;
        }
        (all, through)
    }
}

/// Share that fits.
fn passing(capacity: f64, load: f64) -> f64 {
    if load > capacity { capacity / load } else { 1.0 }
}

/// A part of a second in which the same measures stand.
#[derive(Debug)]
struct Part {
    from_ms: u64,
    /// Its length in seconds.
    weight: f64,
    /// For each attack: its rate in this part, relative to its mean over the second. An attack that
    /// begins in the middle of a second sends nothing in the first half and twice as much after.
    attacks: Vec<f64>,
}

impl Part {
    fn new(truths: &[Truth], second_ms: u64, from_ms: u64, to_ms: u64) -> Self {
        let weight = (to_ms - from_ms) as f64 / 1000.0;
        let within = |t: &Truth, from: u64, to: u64| {
            let end = t.end_ms.max(t.first_packet_ms + 1);
            to.min(end).saturating_sub(from.max(t.first_packet_ms)) as f64 / 1000.0
        };
        let attacks = truths
            .iter()
            .map(|t| share(within(t, from_ms, to_ms), within(t, second_ms, second_ms + 1000)))
            .map(|part_of_second| part_of_second / weight)
            .collect();
        Self { from_ms, weight, attacks }
    }

    /// The relative rate of the attack that a packet belongs to.
    fn attack(&self, truths: &[Truth], kind: &Kind) -> f64 {
        let found = truths.iter().position(|t| t.target.contains(&kind.dst));
        found.and_then(|i| self.attacks.get(i)).copied().unwrap_or(1.0)
    }
}

/// Adds a part of a second to the attacks' sums.
fn account(truths: &[Truth], rows: &Second, kept: &[Kept], part: &Part, attacks: &mut [Dropped]) {
    for (i, (truth, sums)) in truths.iter().zip(attacks).enumerate() {
        let during = (truth.first_packet_ms..truth.end_ms + AFTERMATH_MS).contains(&part.from_ms);
        if !during || truth.direction == Direction::Outbound {
            continue;
        }
        let reported = part.from_ms >= truth.first_report().0;
        for ((kind, volume), kept) in rows.iter().zip(kept) {
            if !truth.target.contains(&kind.dst) {
                continue;
            }
            let bytes = volume.attack_bytes as f64 * part.weight * part.attacks[i];
            sums.whole += bytes;
            if reported {
                sums.attack += bytes;
                sums.attack_dropped += bytes * (1.0 - kept.attack);
            }
            let bytes = volume.benign_bytes as f64 * part.weight;
            sums.benign += bytes;
            sums.benign_dropped += bytes * (1.0 - kept.benign);
        }
    }
}

/// A second, cut wherever something begins or ends.
fn parts(policy: &Policy<'_>, truths: &[Truth], from_ms: u64) -> Vec<Part> {
    let to_ms = from_ms + 1000;
    let mut cuts = vec![from_ms, to_ms];
    let mut cut = |at: u64| {
        if from_ms < at && at < to_ms {
            cuts.push(at);
        }
    };
    for truth in truths {
        cut(truth.first_packet_ms);
        cut(truth.first_report().0);
        cut(truth.end_ms);
    }
    if let Policy::Measures(stood) = policy {
        for measure in *stood {
            cut(measure.from_ms);
            cut(measure.to_ms);
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|w| Part::new(truths, from_ms, w[0], w[1])).collect()
}

/// What the policy lets through of each row at an instant.
fn keep(policy: &Policy<'_>, truths: &[Truth], rows: &Second, at_ms: u64) -> Vec<Kept> {
    const ALL: Kept = Kept { benign: 1.0, attack: 1.0 };
    const NONE: Kept = Kept { benign: 0.0, attack: 0.0 };
    let under_attack = |kind: &Kind| {
        truths.iter().any(|t| {
            t.direction == Direction::Inbound
                && t.target.contains(&kind.dst)
                && (t.first_report().0..t.end_ms).contains(&at_ms)
        })
    };
    match policy {
        Policy::Nothing => vec![ALL; rows.len()],
        Policy::NullRoute => {
            rows.iter().map(|(kind, _)| if under_attack(kind) { NONE } else { ALL }).collect()
        }
        Policy::Oracle => rows
            .iter()
            .map(|(kind, _)| if under_attack(kind) { Kept { attack: 0.0, ..ALL } } else { ALL })
            .collect(),
        Policy::Measures(stood) => {
            let active: Vec<&Measure> = stood
                .iter()
                .filter(|s| (s.from_ms..s.to_ms).contains(&at_ms))
                .map(|s| &s.measure)
                .collect();
            filtered(&active, rows)
        }
    }
}

/// Null-routes first; then each packet meets the first rule that has it, discards before limits,
/// the more specific before the less.
fn filtered(active: &[&Measure], rows: &Second) -> Vec<Kept> {
    let nulls: Vec<IpNet> = active
        .iter()
        .filter_map(|m| if let Measure::Blackhole(net) = m { Some(*net) } else { None })
        .collect();
    let mut rules: Vec<_> = active
        .iter()
        .filter_map(|m| if let Measure::FlowSpec(filter) = m { Some(filter) } else { None })
        .collect();
    rules.sort_by_key(|f| {
        let limit = !matches!(f.action, Action::Drop);
        (limit, std::cmp::Reverse((f.packets.dst.prefix_len(), f.packets.components())))
    });
    let mut loads = vec![(0u64, 0u64); rules.len()];
    let mut met = Vec::with_capacity(rows.len());
    for (kind, volume) in rows {
        let rule = if nulls.iter().any(|net| net.contains(&kind.dst)) {
            Met::Null
        } else {
            rules.iter().position(|f| hits(&f.packets, kind)).map_or(Met::Nothing, Met::Rule)
        };
        if let Met::Rule(i) = rule {
            let Volume { benign_packets, benign_bytes, attack_packets, attack_bytes } = volume;
            let (packets, bytes) = &mut loads[i];
            *packets = packets.saturating_add(*benign_packets).saturating_add(*attack_packets);
            *bytes = bytes.saturating_add(*benign_bytes).saturating_add(*attack_bytes);
        }
        met.push(rule);
    }
    let passes: Vec<f64> = rules
        .iter()
        .zip(&loads)
        .map(|(f, (packets, bytes))| match f.action {
            Action::Drop => 0.0,
            Action::RateLimit { bytes_per_sec } => passing(bytes_per_sec as f64, *bytes as f64),
            Action::RateLimitPackets { packets_per_sec } => {
                passing(packets_per_sec as f64, *packets as f64)
            }
            Action::Redirect(_) | Action::Mark { .. } => 1.0,
        })
        .collect();
    met.iter()
        .map(|met| {
            let pass = match met {
                Met::Nothing => 1.0,
                Met::Null => 0.0,
                Met::Rule(i) => passes[*i],
            };
            Kept { benign: pass, attack: pass }
        })
        .collect()
}

/// What a packet meets first.
enum Met {
    Nothing,
    Null,
    Rule(usize),
}
