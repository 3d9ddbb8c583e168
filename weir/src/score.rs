//! Plays scenario cases through shard and core in virtual time and scores what was decided.

mod read;
mod run;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;

use anyhow::Context as _;
use weir_collector::ExporterConfig;
use weir_config::{Config, ServiceConfig, ServiceProtocol};
use weir_model::{
    IncidentId, Measure, Millis, Mode, Observed, PeerState, PeerStatus, Phase, Verdict,
};
use weir_traffic::case::CaseWorld;
use weir_traffic::score::{self, CaseScore, Event, Summary, What};

pub use read::{Case, Other};
pub use run::{Options, comparison, run};

use crate::replay::{Outcome, Player};

/// The receiver of all announcements: a border router that takes everything at once.
const PEER: &str = "border";

/// `config` with what a case protects and who exports in it, acting by itself.
///
/// # Errors
/// When a service of the case is no TCP or UDP port.
pub fn config_for(world: &CaseWorld, config: &Config) -> anyhow::Result<Config> {
    let mut config = config.clone();
    config.mitigator.mode = Mode::Auto;
    config.protect.prefixes = world.protected.clone();
    config.protect.never_touch = world.never_touch.clone();
    config.protect.services = world
        .services
        .iter()
        .map(|s| {
            Ok(ServiceConfig {
                address: s.address,
                port: NonZeroU16::new(s.port).context("service port 0")?,
                protocol: ServiceProtocol::of(s.protocol)
                    .with_context(|| format!("service protocol {}", s.protocol))?,
                name: s.name.clone(),
                game: s.game.clone(),
            })
        })
        .collect::<anyhow::Result<_>>()?;
    config.collector.exporters = world
        .exporters
        .iter()
        .map(|e| ExporterConfig {
            name: (!e.name.is_empty()).then(|| e.name.clone()),
            sampling: e.sampling,
            ..ExporterConfig::new(e.address.into())
        })
        .collect();
    if config.collector.exporters.is_empty() {
        for all in ["0.0.0.0/0", "::/0"] {
            config.collector.exporters.push(ExporterConfig::new(all.parse()?));
        }
    }
    Ok(config)
}

/// weir as a case sees it: datagrams in, events out.
#[derive(Debug)]
pub struct Defender {
    player: Player,
    events: Vec<Event>,
    /// What was last said of each open incident.
    said: BTreeMap<IncidentId, What>,
    standing: Vec<Measure>,
}

impl Defender {
    /// Starts at `start`; `config` as [`config_for`] makes it.
    pub fn new(config: &Config, start: Millis) -> Self {
        let mut player = Player::new(config, start);
        player.core().observed(&Observed::Peer(PeerStatus {
            name: PEER.to_owned(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            asn: 64_500,
            state: PeerState::Established,
            since: start,
            families: ["ipv4-unicast", "ipv6-unicast", "ipv4-flowspec", "ipv6-flowspec"]
                .map(str::to_owned)
                .to_vec(),
            announced: 0,
            flaps: 0,
            failures: 0,
            last_error: None,
            kept_back: 0,
            rpki: None,
            standing: weir_model::PeerStanding::default(),
            bfd: None,
        }));
        Self { player, events: Vec::new(), said: BTreeMap::new(), standing: Vec::new() }
    }

    /// Lets time pass.
    pub fn until(&mut self, at: Millis) {
        while self.player.now().slot() < at.slot() {
            let end = Millis::from_slot(self.player.now().slot() + 1);
            let mut desired: Option<Vec<Measure>> = None;
            self.player.each_turn_until(end, |_, turn| {
                if let Some(state) = &turn.desired {
                    desired = Some(state.mitigations().iter().map(|m| m.measure.clone()).collect());
                }
            });
            let verdicts = self.player.core().verdicts().to_vec();
            verdicts.iter().for_each(|verdict| self.hear(verdict, end));
            if let Some(wanted) = desired {
                self.act(wanted, end);
            }
        }
        self.player.until(at);
    }

    /// A datagram arrives.
    pub fn datagram(&mut self, at: Millis, from: SocketAddr, payload: &[u8]) {
        self.until(at);
        self.player.datagram(from, payload);
    }

    /// What was said and done.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// What the player has counted and decided.
    pub fn finish(self) -> Outcome {
        self.player.finish()
    }

    /// Notes what a verdict says that was not said before.
    fn hear(&mut self, verdict: &Verdict, at: Millis) {
        let what = if verdict.phase == Phase::Ended {
            What::End { incident: verdict.incident.0 }
        } else {
            What::Detect {
                incident: verdict.incident.0,
                target: verdict.target,
                direction: verdict.direction,
                family: verdict.family,
                subtypes: verdict.vectors.iter().map(|v| v.subtype.clone()).collect(),
                confidence: verdict.confidence,
            }
        };
        if self.said.get(&verdict.incident) != Some(&what) {
            self.said.insert(verdict.incident, what.clone());
            self.events.push(score::at(at, what));
        }
    }

    /// Notes what is newly in force and what no longer is, and reports it as a peer would.
    fn act(&mut self, wanted: Vec<Measure>, at: Millis) {
        let peer = || PEER.to_owned();
        let core = self.player.core();
        for measure in self.standing.iter().filter(|m| !wanted.contains(m)) {
            self.events.push(score::at(at, What::Withdraw { measure: measure.clone() }));
            core.observed(&Observed::Withdrawn { peer: peer(), measure: measure.clone(), at });
        }
        for measure in wanted.iter().filter(|m| !self.standing.contains(m)) {
            self.events.push(score::at(at, What::Announce { measure: measure.clone() }));
            core.observed(&Observed::Announced { peer: peer(), measure: measure.clone(), at });
        }
        self.standing = wanted;
    }
}

fn ms(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |ms| format!("{:.2}", ms as f64 / 1000.0))
}

/// The table's head.
pub fn heading() -> String {
    format!(
        "{:28} {:>7} {:>8} {:>8} {:14} {:>4} {:>6} {:>6} {:>5} {:>8} {:>5} {:>5} {:>5} | {:>7} {:>7} \
         {:>7} {:>7} {:>6}",
        "case",
        "detect",
        "announce",
        "withdraw",
        "family",
        "conf",
        "cover",
        "collat",
        "rules",
        "subtype",
        "false",
        "f.ann",
        "flaps",
        "goodput",
        "none",
        "rtbh",
        "oracle",
        "points",
    )
}

/// One line of the table for each attack, or one for a benign case. Times are seconds.
pub fn rows(case: &CaseScore) -> String {
    let mut out = String::new();
    let g = case.goodput;
    let tail = format!(
        "{:>5} {:>5} {:>5} | {:7.4} {:7.4} {:7.4} {:7.4} {:6.1}",
        case.false_incidents,
        case.false_announcements,
        case.flaps,
        g.tool,
        g.none,
        g.rtbh,
        g.oracle,
        case.points
    );
    if case.attacks.is_empty() {
        let _ = write!(out, "{:28} {:82} {tail}", case.case, "benign");
    }
    for (i, a) in case.attacks.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let family = a.family.map_or("-", weir_model::Family::id);
        let mark = if a.wrong_family { "!" } else { "" };
        let subtype = if a.wrong_subtype { "wrong" } else { "" };
        let cover = match a.coverage {
            _ if a.alert_suffices => "alert".to_owned(),
            None => "late".to_owned(),
            Some(share) => format!("{:.1}%", share * 100.0),
        };
        let _ = write!(
            out,
            "{:28} {:>7} {:>8} {:>8} {:14} {:>4} {:>6} {:5.2}% {:>5} {:>8} {tail}",
            case.case,
            ms(a.delay_flow_ms),
            ms(a.delay_announce_ms),
            ms(a.withdraw_ms),
            format!("{family}{mark}"),
            a.confidence.map_or_else(|| "-".to_owned(), |c| c.to_string()),
            cover,
            a.collateral * 100.0,
            a.rules,
            subtype,
        );
    }
    out
}

/// The head of a table of [`line()`]s, in Markdown.
pub fn line_heading() -> &'static str {
    "| feed, seed | attacks | recall | precision | wrong family | verdict after: median, 95 % | \
     coverage: median | normal traffic hit: median, worst | flaps | false announcements | \
     calibration error | not above null-routing | points |\n\
     |---|---|---|---|---|---|---|---|---|---|---|---|---|"
}

/// The totals of some cases as one line of a table, in Markdown.
pub fn line(name: &str, s: &Summary) -> String {
    format!(
        "| {name} | {} | {:.2} | {:.2} | {:.0} % | {:.2} s, {:.2} s | {:.1} % | {:.2} %, {:.2} % | {} | \
         {} | {:.3} | {} | {:.1} |",
        s.attacks,
        s.recall,
        s.precision,
        s.wrong_family * 100.0,
        s.delay_flow_ms.median / 1000.0,
        s.delay_flow_ms.p95 / 1000.0,
        s.coverage.median * 100.0,
        s.collateral.median * 100.0,
        s.collateral.worst * 100.0,
        s.flaps_max,
        s.false_announcements,
        s.calibration_error,
        s.not_above_rtbh,
        s.points
    )
}

/// The totals in words.
pub fn totals(s: &Summary) -> String {
    let q = |name: &str, q: score::Quantiles, scale: f64, unit: &str| {
        format!(
            "{name}: median {:.2}{unit}, 95 % {:.2}{unit}, worst {:.2}{unit}\n",
            q.median * scale,
            q.p95 * scale,
            q.worst * scale
        )
    };
    let mut out = format!(
        "{} cases, {} attacks: recall {:.3}, precision {:.3}, wrong family {:.1} %, wrong subtype {:.1} %\n",
        s.cases,
        s.attacks,
        s.recall,
        s.precision,
        s.wrong_family * 100.0,
        s.wrong_subtype * 100.0
    );
    out += &q("first attack datagram to verdict", s.delay_flow_ms, 0.001, " s");
    out += &q("first attack datagram to announcement", s.delay_announce_ms, 0.001, " s");
    out += &q("attack covered", s.coverage, 100.0, " %");
    out += &q("normal traffic hit", s.collateral, 100.0, " %");
    out += &q("end to withdrawal", s.withdraw_ms, 0.001, " s");
    let _ = write!(
        out,
        "at most {} rules, {} flaps; {} left standing; false incidents {}, false announcements {} \
         ({:.0} per million host-days)\nconfidence: Brier score {:.3}, calibration error {:.3}\n\
         goodput not above always null-routing in {} cases; points: attacks {:.1}, benign {:.1}, in all {:.1}",
        s.rules_max,
        s.flaps_max,
        s.left_standing,
        s.false_incidents,
        s.false_announcements,
        s.false_announcements_per_million_host_days,
        s.brier,
        s.calibration_error,
        s.not_above_rtbh,
        s.attack_points,
        s.benign_points,
        s.points
    );
    out
}
