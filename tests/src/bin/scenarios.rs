//! Plays scenarios of the suite through the whole decision path in virtual time and scores them:
//! `cargo run --release -p weir-tests --bin scenarios -- [--feed FEED] [--seed N] [--verbose] [ID...]`.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use weir_collector::{ExporterConfig, Registry, Shard};
use weir_detector::Detector;
use weir_mitigator::Mitigator;
use weir_model::{
    IncidentId, Measure, Millis, Mode, Observed, PeerState, PeerStatus, Phase, SLICE_MS, Slice,
    Verdict,
};
use weir_traffic::case::{self, CaseWorld};
use weir_traffic::score::{self, CaseScore, Event, What};
use weir_traffic::suite::{self, Feed};

/// Time 0 of all scenes.
const EPOCH: Millis = Millis::from_secs(1_800_000_000);
/// The receiver of all announcements.
const PEER: &str = "border";

/// Shard, detector and mitigator in line, in virtual time.
struct Defender {
    shard: Shard,
    detector: Detector,
    mitigator: Mitigator,
    slice: Slice,
    slot: u64,
    verdicts: Vec<Verdict>,
    events: Vec<Event>,
    /// What was last said of each incident.
    said: BTreeMap<IncidentId, What>,
    standing: Vec<Measure>,
    log: bool,
}

impl Defender {
    fn new(world: &CaseWorld, log: bool) -> Self {
        let inventory = Arc::new(world.inventory());
        let exporters = world
            .exporters
            .iter()
            .map(|e| ExporterConfig {
                address: e.address.into(),
                name: Some(e.name.clone()),
                sampling: e.sampling,
                default_sampling: None,
            })
            .collect();
        let collector = weir_collector::Config { exporters, ..Default::default() };
        let mitigation = weir_mitigator::Config { mode: Mode::Auto, ..Default::default() };
        let mut mitigator = Mitigator::new(
            mitigation,
            weir_mitigator::GuardConfig::default(),
            Arc::clone(&inventory),
        );
        mitigator.observed(&Observed::Peer(PeerStatus {
            name: PEER.to_owned(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            asn: 64_500,
            state: PeerState::Established,
            since: world.epoch(),
            families: vec!["ipv4-flowspec".to_owned(), "ipv6-flowspec".to_owned()],
            announced: 0,
            flaps: 0,
            last_error: None,
        }));
        Self {
            shard: Shard::new(0, &collector, Arc::clone(&inventory), Arc::new(Registry::default())),
            detector: Detector::new(weir_detector::Config::default(), inventory),
            mitigator,
            slice: Slice::default(),
            slot: world.epoch().slot(),
            verdicts: Vec::new(),
            events: Vec::new(),
            said: BTreeMap::new(),
            standing: Vec::new(),
            log,
        }
    }

    /// Seals and judges every slot that ended before `now`.
    fn until(&mut self, now: Millis) {
        while self.slot < now.slot() {
            self.shard.seal(self.slot, &mut self.slice);
            let end = Millis::from_slot(self.slot + 1);
            self.slot += 1;
            self.detector.slice(&self.slice);
            if self.slot.is_multiple_of(1000 / SLICE_MS) {
                self.detector.exporters(&self.shard.exporters());
            }
            self.verdicts.clear();
            self.detector.advance(end, &mut self.verdicts);
            for verdict in std::mem::take(&mut self.verdicts) {
                self.hear(&verdict, end);
                self.mitigator.verdict(&verdict, end);
            }
            self.mitigator.advance(end);
            for decision in self.mitigator.take_decisions() {
                if self.log {
                    let at = end.since(EPOCH) as f64 / 1000.0;
                    let _ = writeln!(
                        io::stdout().lock(),
                        "    {at:8.1} {} {}: {}",
                        decision.target,
                        decision.action,
                        decision.detail
                    );
                }
            }
            self.mitigator.take_changed();
            self.act(end);
        }
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
        if self.log && verdict.phase != Phase::Ongoing {
            let seconds = at.since(EPOCH) as f64 / 1000.0;
            let _ = writeln!(
                io::stdout().lock(),
                "    {seconds:8.1} {:?} {} conf {} groups {} separable {} [{}] {:?}",
                verdict.phase,
                verdict.target,
                verdict.confidence,
                verdict.evidence_groups,
                verdict.separable,
                verdict.summary,
                verdict.reason.metric,
            );
        }
        if self.said.get(&verdict.incident) != Some(&what) {
            self.said.insert(verdict.incident, what.clone());
            self.events.push(score::at(at, what));
        }
    }

    /// Notes what is newly in force and what no longer is, and reports it back as a peer would.
    fn act(&mut self, at: Millis) {
        let desired = self.mitigator.desired();
        let wanted: Vec<Measure> = desired.mitigations.iter().map(|m| m.measure.clone()).collect();
        if wanted == self.standing {
            return;
        }
        for measure in self.standing.iter().filter(|m| !wanted.contains(m)) {
            self.events.push(score::at(at, What::Withdraw { measure: measure.clone() }));
            let (peer, measure) = (PEER.to_owned(), measure.clone());
            self.mitigator.observed(&Observed::Withdrawn { peer, measure, at });
        }
        for measure in wanted.iter().filter(|m| !self.standing.contains(m)) {
            self.events.push(score::at(at, What::Announce { measure: measure.clone() }));
            let (peer, measure) = (PEER.to_owned(), measure.clone());
            self.mitigator.observed(&Observed::Announced { peer, measure, at });
        }
        self.standing = wanted;
    }
}

fn run(case: &suite::Case, feed: Feed, seed: u64, log: bool) -> CaseScore {
    let scene = case.scene(feed, seed);
    let world = case::world_of(&scene, case.title, EPOCH);
    let mut defender = Defender::new(&world, log);
    let played = case::play(&scene, EPOCH, |datagram| {
        let at = EPOCH + datagram.at_ms();
        defender.until(at);
        let from = SocketAddr::new(scene.exporters[datagram.exporter].address, 50_000);
        // Errors are the collector's to count.
        let _ = defender.shard.datagram(from, &datagram.payload, at);
        Ok::<(), std::convert::Infallible>(())
    });
    defender.until(EPOCH + world.seconds * 1000);
    let Ok((truths, mix)) = played;
    score::score(&world, &truths, &mix, &defender.events)
}

fn line(out: &mut impl io::Write, score: &CaseScore) -> io::Result<()> {
    write!(out, "{:26}", score.case)?;
    for a in &score.attacks {
        let ms = |v: Option<u64>| v.map_or_else(|| "-".to_owned(), |v| v.to_string());
        write!(
            out,
            " det {:>6} ann {:>6} fam {:14}{}{} conf {:>3} cov {:5.1}% coll {:5.2}% rules {} wd {:>6}{}",
            ms(a.delay_flow_ms),
            ms(a.delay_announce_ms),
            a.family.map_or("-", |f| f.id()),
            if a.wrong_family { " WRONG-FAMILY" } else { "" },
            if a.wrong_subtype { " wrong-subtype" } else { "" },
            a.confidence.unwrap_or(0),
            a.coverage * 100.0,
            a.collateral * 100.0,
            a.rules,
            ms(a.withdraw_ms),
            if a.alert_suffices { " (alert suffices)" } else { "" },
        )?;
    }
    let g = score.goodput;
    writeln!(
        out,
        " | false inc {} ann {} flaps {} standing {} | goodput {:.4} none {:.4} rtbh {:.4} oracle {:.4} = {:.1}",
        score.false_incidents,
        score.false_announcements,
        score.flaps,
        score.left_standing,
        g.tool,
        g.none,
        g.rtbh,
        g.oracle,
        score.points,
    )
}

fn main() -> io::Result<()> {
    let mut feed = Feed::Sflow1000;
    let mut seed = 1;
    let mut log = false;
    let mut ids = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--feed" => feed = args.next().and_then(|f| Feed::from_id(&f)).unwrap_or(feed),
            "--seed" => seed = args.next().and_then(|s| s.parse().ok()).unwrap_or(seed),
            "--verbose" => log = true,
            _ => ids.push(arg),
        }
    }
    let mut out = io::stdout();
    let mut scores = Vec::new();
    for case in suite::cases() {
        let wanted = ids.iter().any(|id| id.eq_ignore_ascii_case(case.id));
        if wanted || (ids.is_empty() && case.id != "B20") {
            let score = run(case, feed, seed, log);
            line(&mut out, &score)?;
            scores.push(score);
        }
    }
    let total = serde_json::to_string_pretty(&score::summarise(&scores))?;
    writeln!(out, "{total}")
}
